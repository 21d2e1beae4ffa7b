//! The part of a node in writing one file, and the terms of it.

/// Part of one node in writing one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriterRole {
    /// No other node writes this file.
    Sole,
    /// Other nodes write it too, and this one makes it, sizes it and gives it its name.
    Leader,
    /// Another node makes the file and gives it its name. The number tells this node's journal
    /// from those of the other followers.
    Follower(u32),
}

impl WriterRole {
    /// Role of a node that does or does not see the leader's token beside the file. A follower
    /// that does not see it has the same path on another file system, and a file of its own there.
    pub(crate) fn seeing_token(self, is_seen: bool) -> WriterRole {
        match self {
            WriterRole::Follower(_) if !is_seen => WriterRole::Sole,
            WriterRole::Sole | WriterRole::Leader | WriterRole::Follower(_) => self,
        }
    }
}

/// Conditions under which a destination is written; they never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriterTerms {
    pub(crate) role: WriterRole,
    /// The destination is continued from an earlier attempt, and kept for a later one.
    pub(crate) resumes: bool,
    /// This attempt may replace a file that has the final name.
    pub(crate) overwrite: bool,
}

impl WriterTerms {
    /// Returns true if another node makes the file and gives it its name.
    pub(super) fn is_follower(self) -> bool {
        matches!(self.role, WriterRole::Follower(_))
    }
}

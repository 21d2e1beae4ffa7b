//! File of a destination with its journal, and the system calls of its state machine.

use nix::sys::stat::fstat;
use nix::unistd::fsync;

use super::destination_path::DestinationPath;
use super::fault::fault;
use super::journal::JournalRecord;
use super::journal_file::{self, JournalFile};
use super::open::{OpenFile, retried};
use super::partial_file::{PartialFile, being_written};
use super::root::errno_of;
use super::space;
use crate::core::error::Result;
use crate::core::store::destination::Remains;
use crate::core::store::writer::WriterRole;
use crate::core::units::Span;

/// A destination's open file, and its journal where it has one.
#[derive(Debug)]
pub(super) struct DestinationFile {
    pub(super) partial: PartialFile,
    pub(super) journal: Option<JournalFile>,
}

impl DestinationFile {
    fn place(&self) -> &DestinationPath {
        &self.partial.place
    }

    /// Gives a new partial file its size.
    pub(super) fn size(&self, bytes: u64) -> Result<()> {
        space::size(self.partial.file.buffered(), &self.place().path, bytes)
    }

    /// Makes the leader's file long enough.
    pub(super) fn grow(&self, bytes: u64) -> Result<()> {
        space::grow(self.partial.file.buffered(), &self.place().path, bytes)
    }

    pub(super) fn share_lock(&self) -> Result<()> {
        if self.partial.share_lock() { Ok(()) } else { Err(being_written(&self.place().path)) }
    }

    /// Removes the attempt's token, unless a newer attempt's lies there now.
    pub(super) fn remove_token(&self) -> Result<()> {
        if self.partial.is_ours() { self.place().remove_token() } else { Ok(()) }
    }

    /// Copies ranges of `complete`, another file, to this one.
    pub(super) fn copy_from(&self, complete: &PartialFile, spans: &[Span]) -> Result<()> {
        let (from, to) = (complete.file.buffered(), self.partial.file.buffered());
        spans.iter().try_for_each(|span| {
            space::copy(from, to, *span)
                .map_err(|error| fault(errno_of(&error), &self.place().path, "copied"))
        })
    }

    /// Begins the journal of this attempt: of the records that were found those within `kept` stay.
    pub(super) fn begin_journal(&self, kept: impl Fn(&JournalRecord) -> bool) -> Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let begun = journal.begin(self.place(), &self.partial.file, kept);
        let path = &self.place().path;
        begun.map_err(|error| fault(errno_of(&error), path, "recorded in a journal beside it"))
    }

    pub(super) fn stop_recording(&self) {
        self.journal.iter().for_each(JournalFile::forget);
    }

    /// Records nothing from now on, and removes this node's journal unless it is a newer attempt's.
    pub(super) fn forget_journal(&self) -> Result<()> {
        let is_ours = self.has_own_journal();
        self.stop_recording();
        if is_ours { self.place().remove_journal() } else { Ok(()) }
    }

    /// Removes this node's journal, unless it is a newer attempt's.
    pub(super) fn remove_journal(&self) -> Result<()> {
        if self.has_own_journal() { self.place().remove_journal() } else { Ok(()) }
    }

    /// Removes this node's journal, and unless it is a newer attempt's those of all other nodes.
    pub(super) fn remove_confirmed_journals(&self) -> Result<()> {
        if self.has_own_journal() {
            let removed = self.place().remove_journal();
            self.place().remove_other_journals();
            return removed;
        }
        Ok(())
    }

    /// Removes the journals of all nodes that describe this file.
    pub(super) fn remove_all_journals(&self) -> Result<()> {
        journal_file::remove_all(self.place(), self.partial.examine()?.st_ino);
        Ok(())
    }

    /// The journal beside the file is this attempt's, or the one that it found.
    fn has_own_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_ours(self.place()))
    }

    /// Writes the records of what has landed. After a failure nothing more is recorded: what is not
    /// is fetched again if the transfer is interrupted.
    pub(super) fn flush(&self) {
        self.record("what has landed", JournalFile::flush);
    }

    pub(super) fn record_completion(&self) {
        self.record("the completion", JournalFile::complete);
    }

    pub(super) fn record_leaving(&self) {
        self.record("the state", JournalFile::leave);
    }

    fn record(&self, what: &str, record: fn(&JournalFile, &OpenFile) -> std::io::Result<()>) {
        if let Some(journal) = &self.journal
            && let Err(error) = record(journal, &self.partial.file)
        {
            let path = self.place().path.display();
            tracing::warn!("{what} of {path} is not recorded: {error}");
        }
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<()> {
        retried(|| fsync(self.partial.file.buffered()))
            .map_err(|errno| fault(errno, &self.place().path, "written"))
    }

    /// Finds out what is left of a file that is given up, at a node of that role.
    pub(super) fn weigh(&self, role: WriterRole) -> Remains {
        let is_ours = self.partial.is_ours();
        let is_recorded = self.journal.as_ref().is_some_and(JournalFile::is_worth_keeping);
        let is_last = match role {
            WriterRole::Sole => true,
            _ if !is_ours => false,
            // The leader decides for nodes that do not see its lock.
            WriterRole::Leader => !self.partial.is_locked || self.partial.is_last(),
            WriterRole::Follower(_) => self.partial.is_last(),
        };
        let inode = fstat(self.partial.file.buffered()).ok().map(|about| about.st_ino);
        let is_recorded_by_any = match role {
            WriterRole::Sole => is_recorded,
            WriterRole::Leader | WriterRole::Follower(_) => {
                inode.is_none_or(|inode| is_last && journal_file::is_kept(self.place(), inode))
            }
        };
        Remains { is_ours, is_recorded, is_last, is_recorded_by_any }
    }
}

//! Questions about paths of a node before a transfer, and its answers.

use std::path::PathBuf;

use crate::core::error::Error;

/// Random name of a token: an empty file that tells whether two nodes see one directory.
pub(crate) type SurveyToken = [u8; 16];

/// A question about one path of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SurveyQuestion {
    /// Any bytes but NUL; may be empty. A relative path lies below the home of whoever launched the
    /// node, or below the root of a daemon.
    pub(crate) path: PathBuf,
    pub(crate) subject: SurveySubject,
}

/// Subject of a question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum SurveySubject {
    /// The file at the path, which is to be read.
    Source,
    /// A file or a directory at the path, which is to be written.
    Destination,
    /// Make a token in the directory at the path; it goes with the session.
    MakeToken(SurveyToken),
    /// Look for a token in the directory at the path.
    FindToken(SurveyToken),
    /// Remove a token from the directory at the path.
    RemoveToken(SurveyToken),
    /// The machine itself, of a node that was started to be examined; the path is empty.
    Diagnosis,
}

/// Answer to a [`SurveyQuestion`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SurveyAnswer {
    /// The path is a file that can be read.
    Source(SurveyedSource),
    /// Something can be made at the path, or in it.
    Destination(SurveyedDestination),
    /// The token is in the directory now, or not.
    Token(bool),
    /// The machine was examined: one JSON object, as `doctor` prints it.
    Diagnosis(String),
    /// Neither of these, for this reason.
    Failed(Error),
}

/// A file that can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SurveyedSource {
    /// Its path from the node's root on, as rows take it.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Whole seconds: tools that preserve the time of a copy often keep no more.
    pub(crate) modified_seconds: i64,
    /// Hash of the machine, the device and the inode.
    pub(crate) identity: u64,
}

/// A place where a file can be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SurveyedDestination {
    /// Its path from the node's root on, as rows take it.
    pub(crate) path: PathBuf,
    pub(crate) is_directory: bool,
    /// That of the file there; `None` without one, and for those who may not read it.
    pub(crate) identity: Option<u64>,
}

impl SurveyAnswer {
    /// Returns true if this may be the answer to a question about `subject`.
    pub(crate) fn fits(&self, subject: SurveySubject) -> bool {
        match self {
            SurveyAnswer::Source(_) => subject == SurveySubject::Source,
            SurveyAnswer::Destination(_) => subject == SurveySubject::Destination,
            SurveyAnswer::Token(_) => matches!(
                subject,
                SurveySubject::MakeToken(_)
                    | SurveySubject::FindToken(_)
                    | SurveySubject::RemoveToken(_)
            ),
            SurveyAnswer::Diagnosis(_) => subject == SurveySubject::Diagnosis,
            SurveyAnswer::Failed(_) => true,
        }
    }
}

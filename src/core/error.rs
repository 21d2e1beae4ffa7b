//! Errors: whose fault, what happened, and what to do about it.
//!
//! [`Code`] is the one table that the wire, the exit status and the C interface share.

use std::fmt;

use crate::core::units::{Span, printable};

/// What kind of ending this is. The number is the exit status, the code on the wire, and the code
/// in C.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Code {
    /// A promise of our own was broken.
    Internal = 1,
    /// The command line or the specification is wrong, or rows contradict each other.
    Usage = 2,
    /// A node cannot be reached or was lost, the last replica of a range was lost, or a port is in
    /// use.
    Unreachable = 3,
    /// The key is wrong or readable by others, or a path leads out of the root.
    Refused = 4,
    /// A data source or destination failed: missing, short, unreadable, full, read-only.
    Data = 5,
    /// Bytes arrived changed, or replicas of one range differ.
    Integrity = 6,
    /// Nothing moved for longer than the stall timeout, or the whole transfer ran out of time.
    Stalled = 7,
    /// The user cancelled.
    Cancelled = 130,
}

impl Code {
    /// Every code, in the order of its number.
    pub const ALL: [Code; 8] = [
        Code::Internal,
        Code::Usage,
        Code::Unreachable,
        Code::Refused,
        Code::Data,
        Code::Integrity,
        Code::Stalled,
        Code::Cancelled,
    ];

    /// The number that processes and messages carry.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The code with this number; a number that a newer peer may send and this version does not
    /// know is `Internal`.
    #[must_use]
    pub fn of(number: u32) -> Code {
        Code::ALL
            .into_iter()
            .find(|code| u32::from(code.number()) == number)
            .unwrap_or(Code::Internal)
    }
}

/// An error of this crate: a [`Code`], a sentence that names the culprit, and often the remedy.
///
/// ```
/// use cep_fast::{Code, Error};
/// let error = Error::new(Code::Data, "node1: /data/half1 is missing").remedy("check the path below --root");
/// assert_eq!(error.to_string(), "node1: /data/half1 is missing (check the path below --root)");
/// assert_eq!(error.code.number(), 5);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// What kind of ending this is.
    pub code: Code,
    /// What happened and to whom.
    pub message: String,
    /// What the user can do, if anything.
    pub remedy: Option<String>,
    /// The ranges of the data space that are missing because of it, if known.
    pub missing: Vec<Span>,
}

/// The result of most fallible functions here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message that names the culprit.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), remedy: None, missing: Vec::new() }
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Error {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same error with the ranges that are missing because of it.
    #[must_use]
    pub fn missing(mut self, missing: Vec<Span>) -> Error {
        self.missing = missing;
        self
    }

    /// The same error with its message led by who it happened to: `node1: …`.
    #[must_use]
    pub fn at(mut self, who: impl fmt::Display) -> Error {
        self.message = format!("{who}: {}", self.message);
        self
    }
}

/// Message and remedy on one line, with control characters escaped: both may quote what others
/// said.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.message))?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({})", printable(remedy)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_contract() {
        let numbers: Vec<u8> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 130]);
        for code in Code::ALL {
            assert_eq!(Code::of(u32::from(code.number())), code);
        }
        assert_eq!(Code::of(99), Code::Internal);
    }
}

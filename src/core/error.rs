//! Errors: cause, culprit and remedy.
//!
//! [`Code`] is the one table of codes for the wire and the exit status.

use std::fmt;

use crate::core::units::{Span, printable};

/// Kind of outcome. The number is the exit status and the code on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Code {
    /// An internal invariant was violated.
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
    /// Bytes were corrupted in transit, or replicas of one range differ.
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

    /// Returns the number for processes and messages.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Returns the code with this number. A number of a newer peer that this version does not know
    /// is `Internal`.
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
/// let error = Error::new(Code::Data, "node1: /data/half1 is missing");
/// let error = error.remedy("check the path below --root");
/// assert_eq!(error.to_string(), "node1: /data/half1 is missing (check the path below --root)");
/// assert_eq!(error.code.number(), 5);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Kind of outcome.
    pub code: Code,
    /// Event and culprit.
    pub message: String,
    /// Remedy for the user, if any.
    pub remedy: Option<String>,
    /// Missing ranges of the data space, if known.
    pub missing: Vec<Span>,
}

/// The result of most fallible functions in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Creates an error with a message that names the culprit.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), remedy: None, missing: Vec::new() }
    }

    /// Adds a remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Error {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds the missing ranges.
    #[must_use]
    pub fn missing(mut self, missing: Vec<Span>) -> Error {
        self.missing = missing;
        self
    }

    /// Prefixes the message with its culprit: `node1: …`.
    #[must_use]
    pub fn at(mut self, who: impl fmt::Display) -> Error {
        self.message = format!("{who}: {}", self.message);
        self
    }
}

/// Message and remedy on one line, with control characters escaped: both may contain foreign text.
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

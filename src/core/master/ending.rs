//! Cause of an incomplete transfer, and its missing ranges.

use crate::core::error::{Code, Error};
use crate::core::spec::NodeAddress;
use crate::core::units::{Span, union};

/// Cause of an incomplete transfer.
#[derive(Debug, Default)]
pub(super) struct EndingCause {
    /// The first error: later ones may follow from it.
    pub(super) error: Option<Error>,
    pub(super) missing: Vec<Span>,
    /// Error that the first cancelled receiver had waited with.
    pub(super) trouble: Option<String>,
    /// Reason that is sent to cancelled nodes.
    pub(super) cancel_reason: String,
}

impl EndingCause {
    /// Records an error and its missing ranges.
    pub(super) fn record(&mut self, error: Error) {
        self.missing.extend(&error.missing);
        self.error.get_or_insert(error);
    }

    /// Records the missing ranges and the last error of a receiver at `address` that was cancelled
    /// while bytes moved. Its report follows.
    pub(super) fn cancelled_short(&mut self, address: &NodeAddress, error: &Error) {
        self.missing.extend(&error.missing);
        if error.message != self.cancel_reason {
            self.trouble.get_or_insert_with(|| format!("{address}: {}", error.message));
        }
    }

    /// Returns the cause with all missing ranges.
    pub(super) fn error(&self) -> Option<Error> {
        let mut error = self.error.clone()?.missing(union(self.missing.clone()));
        if let Some(trouble) = self.trouble.as_ref().filter(|_| error.code == Code::Stalled) {
            error.message += &format!(" ({trouble})");
        }
        Some(error)
    }
}

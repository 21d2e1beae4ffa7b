//! Phases of a transfer at its master.

/// Phase of the transfer as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TransferPhase {
    Meeting,
    Preparing,
    Moving,
    Committing,
    Finishing,
    Done,
}

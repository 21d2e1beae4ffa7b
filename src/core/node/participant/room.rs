//! Room that a participant has made in its destinations.

use crate::core::units::Span;

/// Room that a node's destinations need before bytes move.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct RoomRequest {
    /// Ranges to land: a member of a group is asked for less than its rows say.
    pub(crate) wanted: Vec<Span>,
    /// Ranges of them that are zeros.
    pub(crate) holes: Vec<Span>,
    /// Ranges that are there already; what else an earlier attempt has left counts no more.
    pub(crate) kept: Vec<Span>,
    /// True if nothing of the files that it shares with other nodes is kept for another attempt.
    pub(crate) forgets: bool,
    /// True if further ranges may come.
    pub(crate) grows: bool,
}

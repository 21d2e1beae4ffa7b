//! Ranges that are compared between their senders before bytes move.

use crate::core::units::Span;

/// A range of the data space that several sources offer, and the extent of its comparison.
///
/// All senders of the range receive the same parameters, read the same bytes, and answer with the
/// same number of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReplicaRange {
    /// The range; never empty. The same sources offer all of it.
    pub(crate) span: Span,
    /// Number of places that are compared; 0 for the whole range.
    pub(crate) places: u32,
    /// Largest number of values in a sender's answer.
    pub(crate) values_max: u32,
}

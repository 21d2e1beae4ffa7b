//! Ranges that are compared between their senders before bytes move.

use crate::core::units::Span;

/// A range of the data space that several sources offer, and how it is compared.
///
/// All senders of the range get the same, read the same bytes, and answer with as many values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReplicaRange {
    /// The range; never empty. All of it is offered by the same sources.
    pub(crate) span: Span,
    /// Places of it that are compared; 0 for all of it.
    pub(crate) places: u32,
    /// The most values that a sender answers with.
    pub(crate) values_max: u32,
}

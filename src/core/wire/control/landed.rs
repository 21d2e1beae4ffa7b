//! What a node landed: ranges, and the checks of their parts.

use crate::core::units::Span;
use crate::core::wire::Check;

/// A range that a node landed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LandedSegment {
    /// The range; never empty.
    pub(crate) span: Span,
    pub(crate) checks: SegmentChecks,
}

/// The checks of a segment that a node landed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SegmentChecks {
    /// Of its parts: sorted, apart from each other, within the range.
    Listed(Vec<CheckValue>),
    /// A hash over that list, where a message does not hold the lists of all segments.
    Folded([u8; 32]),
}

/// The check of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CheckValue {
    /// The range; never empty.
    pub(crate) span: Span,
    /// Its check.
    pub(crate) check: Check,
}

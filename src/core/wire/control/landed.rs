//! Landed ranges of a node, with the checks of their parts.

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
    /// Checks of its parts: sorted and disjoint, within the range.
    Folded([u8; 32]),
}

/// Check of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CheckValue {
    /// The range; never empty.
    pub(crate) span: Span,
    /// Its check.
    pub(crate) check: Check,
}

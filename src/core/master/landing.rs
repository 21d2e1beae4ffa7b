//! Landed segments: their check values are compared between receivers, and joined into a digest.

use std::collections::BTreeMap;

use crate::core::check::{CheckComposer, CheckMethod, fold};
use crate::core::error::{Code, Error};
use crate::core::plan::PlannedSegment;
use crate::core::wire::control::{LandedSegment, SegmentChecks};

/// Check values of the segments that have landed.
#[derive(Debug, Default)]
pub(super) struct LandedChecks {
    /// Check values of segments of the plan, from the first receiver that landed each: by the
    /// segment's start, because further parts of a group are put in between.
    checks: BTreeMap<u64, SegmentChecks>,
}

impl LandedChecks {
    /// Returns the digest of all segments, if their checks join into one.
    pub(super) fn digest(&self, method: CheckMethod) -> Option<String> {
        let mut composer = CheckComposer::new(method);
        for checks in self.checks.values() {
            let SegmentChecks::Listed(checks) = checks else { return None };
            for it in checks {
                composer.add(it.span, it.check);
            }
        }
        composer.digest()
    }

    /// Keeps the check values of segments, and compares them with those of other receivers of the
    /// same segment.
    pub(super) fn compare(
        &mut self,
        planned: &[PlannedSegment],
        segments: Vec<LandedSegment>,
    ) -> Result<(), Error> {
        for LandedSegment { span, checks } in segments {
            let at = planned.partition_point(|planned| planned.segment.span.start < span.start);
            if planned.get(at).is_none_or(|planned| planned.segment.span != span) {
                return Err(Error::new(
                    Code::Internal,
                    format!("reports {span}, which is not a segment of the plan"),
                ));
            }
            let Some(kept) = self.checks.get_mut(&span.start) else {
                self.checks.insert(span.start, checks);
                continue;
            };
            let are_equal = match (&*kept, &checks) {
                (SegmentChecks::Listed(listed), SegmentChecks::Folded(folded))
                | (SegmentChecks::Folded(folded), SegmentChecks::Listed(listed)) => {
                    fold(listed) == *folded
                }
                (kept, checks) => kept == checks,
            };
            if are_equal && matches!(checks, SegmentChecks::Listed(_)) {
                // A digest needs the list of check values.
                *kept = checks;
            } else if !are_equal {
                let what = format!(
                    "received other bytes for {span} than another receiver: the replicas differ"
                );
                return Err(Error::new(Code::Integrity, what)
                    .remedy("compare the writers' files")
                    .missing(vec![span]));
            }
        }
        Ok(())
    }
}

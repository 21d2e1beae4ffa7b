//! Reports of a participant to its master: how far it is, and what has landed.

use std::time::Duration;

use crate::core::check;
use crate::core::receiver::delivery_meter::DeliveryMeter;
use crate::core::receiver::extent_map::ExtentMap;
use crate::core::receiver::scheduler::PieceScheduler;
use crate::core::units::{Moment, Span};
use crate::core::wire::Check;
use crate::core::wire::control::{
    CheckValue, LandedSegment, SenderDelivery, SpeedSample, ToMaster,
};

/// Progress of a participant, which has a scheduler once bytes move.
pub(super) fn progress(now: Moment, scheduler: Option<&PieceScheduler>) -> ToMaster {
    let extents = scheduler.map(PieceScheduler::extents);
    let delivered = scheduler.into_iter().flat_map(PieceScheduler::delivered);
    let delivered = delivered.map(|(node, bytes, busy, meter)| SenderDelivery {
        index: node.0,
        bytes,
        busy,
        sample: sample(now, &meter),
    });
    ToMaster::Progress {
        received_bytes: extents.map_or(0, ExtentMap::landed_bytes),
        sent_bytes: 0,
        delivered: delivered.collect(),
        left: extents.map_or(Vec::new(), ExtentMap::left_of_segments),
        missing_bytes: extents.map_or(0, ExtentMap::missing_bytes),
        lost: Vec::new(),
    }
}

/// Returns what a sender delivered while it was never out of requests.
fn sample(now: Moment, meter: &DeliveryMeter) -> SpeedSample {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let (bytes, time, waiting) = meter.sample(now);
    SpeedSample { bytes, micros: micros(time), waiting_micros: micros(waiting) }
}

/// Check values of all that has landed.
pub(super) fn checks(scheduler: &PieceScheduler) -> Vec<(Span, Check)> {
    scheduler.extents().checks().flat_map(|(_, checks)| checks).collect()
}

/// Check values of all segments, in one message.
pub(super) fn landed_segments(scheduler: &PieceScheduler) -> Vec<LandedSegment> {
    let value = |(span, check)| CheckValue { span, check };
    let listed = |(span, checks): (_, Vec<_>)| (span, checks.into_iter().map(value).collect());
    check::within_limits(scheduler.extents().checks().map(listed).collect())
}

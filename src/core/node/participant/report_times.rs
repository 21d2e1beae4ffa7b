//! Times at which a receiver tells its master how far it is: twice a second, and ten times a second
//! at first and where a sender has become faster or slower.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::receiver::scheduler::PieceScheduler;
use crate::core::units::{Moment, NodeIx};

/// Interval of reports while nothing changes.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Least interval of reports.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time for which every look is a report: the master learns all speeds anew.
const EARLY: Duration = Duration::from_secs(1);
/// Factor by which the speed of a sender has changed if it is told at once.
const CHANGED: f64 = 1.4;
/// Pieces below which a speed is a guess.
const PIECES_MIN: u64 = 2;
/// Senders of a receiver up to which each is looked at.
const SENDERS_MAX: usize = 256;

/// Times of reports.
#[derive(Debug, Default)]
pub(super) struct ReportTimes {
    began: Moment,
    look_at: Moment,
    told: Moment,
    /// Bytes and speed of each sender at the last look that had enough bytes for a speed.
    senders: BTreeMap<NodeIx, SeenSender>,
}

#[derive(Clone, Copy, Debug, Default)]
struct SeenSender {
    bytes: u64,
    time: Duration,
    bytes_per_second: Option<f64>,
}

impl ReportTimes {
    /// Starts the clock: bytes move from now on.
    pub(super) fn begin(&mut self, now: Moment) {
        (self.began, self.told) = (now, now);
        self.look_at = now + LOOK_EVERY;
    }

    /// Returns the moment of the next look.
    pub(super) fn due(&self) -> Moment {
        self.look_at
    }

    /// Looks at the senders. Returns true if the master is to be told now.
    pub(super) fn look(&mut self, now: Moment, scheduler: Option<&PieceScheduler>) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK_EVERY;
        let has_changed = scheduler.is_some_and(|it| self.has_changed(now, it));
        let is_due = now.since(self.told) >= REPORT_EVERY;
        let is_told = is_due || has_changed || now.since(self.began) <= EARLY;
        if is_told {
            self.told = now;
        }
        is_told
    }

    /// Returns true if a sender has another speed than before.
    fn has_changed(&mut self, now: Moment, scheduler: &PieceScheduler) -> bool {
        let block_bytes = scheduler.extents().grid().block_bytes();
        let mut has_changed = false;
        for (sender, _, _, meter) in scheduler.delivered().take(SENDERS_MAX) {
            let (bytes, time, waiting) = meter.sample(now);
            let seen = self.senders.entry(sender).or_default();
            let (new_bytes, new_time) = (bytes - seen.bytes, time.saturating_sub(seen.time));
            let is_stalled = seen.bytes_per_second.is_some_and(|before| {
                let expected = PIECES_MIN as f64 * block_bytes as f64 / before * CHANGED;
                waiting.as_secs_f64() > expected && waiting < time
            });
            if is_stalled {
                // It is told once: what it is then is known when the piece has landed.
                seen.bytes_per_second = None;
                has_changed = true;
            }
            if new_bytes < PIECES_MIN * block_bytes || new_time < LOOK_EVERY / 2 {
                continue;
            }
            let speed = new_bytes as f64 / new_time.as_secs_f64();
            let is_other = seen
                .bytes_per_second
                .is_none_or(|before| speed > before * CHANGED || speed < before / CHANGED);
            has_changed |= is_other;
            let bytes_per_second = if is_other { Some(speed) } else { seen.bytes_per_second };
            *seen = SeenSender { bytes, time, bytes_per_second };
        }
        has_changed
    }
}

//! Rate meter: bytes per second with a half-life.

use std::time::Duration;

use crate::core::units::Moment;

/// Half-life of a measurement. Long against one piece on a slow link (a 1 MiB piece takes 84 ms at
/// 100 Mbit/s), short against the transfers that re-balancing is for.
const HALF_LIFE: Duration = Duration::from_millis(500);

/// An exponentially weighted rate, fed with byte counts as they land.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RateMeter {
    bytes: f64,
    seconds: f64,
    last: Option<Moment>,
}

impl RateMeter {
    /// Starts the clock if it is stopped: bytes are expected from now on.
    pub(crate) fn start(&mut self, now: Moment) {
        self.last.get_or_insert(now);
    }

    /// Stops the clock: no bytes are expected, so none arriving does not mean slow.
    pub(crate) fn pause(&mut self, now: Moment) {
        self.forget(now);
        self.last = None;
    }

    /// Counts `bytes` that landed now.
    pub(crate) fn add(&mut self, now: Moment, bytes: u64) {
        self.forget(now);
        self.bytes += bytes as f64;
    }

    /// Returns bytes per second, or `None` while nothing was measured. Falls while nothing lands.
    pub(crate) fn bytes_per_second(mut self, now: Moment) -> Option<f64> {
        self.forget(now);
        (self.bytes > 0.0 && self.seconds > 0.0).then(|| self.bytes / self.seconds)
    }

    fn forget(&mut self, now: Moment) {
        let elapsed = now.since(*self.last.get_or_insert(now)).as_secs_f64();
        let kept = 0.5_f64.powf(elapsed / HALF_LIFE.as_secs_f64());
        self.bytes *= kept;
        self.seconds = self.seconds * kept + elapsed;
        self.last = Some(now);
    }
}

/// Rate at which one receiver takes in bytes, compared with its highest rate so far.
///
/// A dry flow leaves no bandwidth idle while the total rate is at its highest: the other flows have
/// taken it. Stealing would gain nothing then. It would also take the sender's NIC from receivers
/// whose own share comes from there: both requests are in flight at once, and TCP does not
/// distinguish stolen pieces from assigned ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReceiverIntake {
    meter: RateMeter,
    pieces: u32,
    bytes_per_second_max: f64,
}

/// Part of the highest rate so far that counts as full: pieces land at intervals, and shapers let
/// the first ones pass in a burst (measured: 6 % on a link of 100 Mbit/s).
const FULL_PART: f64 = 0.9;
/// Pieces below which a rate is not yet meaningful.
const INTAKE_PIECES_MIN: u32 = 16;

impl ReceiverIntake {
    /// Starts the clock if it is stopped: bytes are expected from now on.
    pub(super) fn start(&mut self, now: Moment) {
        self.meter.start(now);
    }

    /// Counts a piece that landed now.
    pub(super) fn add(&mut self, now: Moment, bytes: u64) {
        self.meter.add(now, bytes);
        self.pieces = self.pieces.saturating_add(1);
        if let Some(rate) = self.steady(now) {
            self.bytes_per_second_max = self.bytes_per_second_max.max(rate);
        }
    }

    /// Returns true if the current rate is close to the highest so far.
    pub(super) fn is_full(&self, now: Moment) -> bool {
        self.steady(now).is_some_and(|rate| rate >= FULL_PART * self.bytes_per_second_max)
    }

    fn steady(&self, now: Moment) -> Option<f64> {
        self.meter.bytes_per_second(now).filter(|_| self.pieces >= INTAKE_PIECES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn a_steady_flow_reads_its_rate_and_a_stalled_one_falls() {
        let mut meter = RateMeter::default();
        assert!(meter.bytes_per_second(at(0)).is_none());
        meter.start(at(0));
        for tick in 1..=100 {
            meter.add(at(tick * 10), 1_000);
        }
        let steady = meter.bytes_per_second(at(1000)).expect("measured");
        assert!((90_000.0..130_000.0).contains(&steady), "{steady}");
        let stalled = meter.bytes_per_second(at(3000)).expect("measured");
        assert!(stalled < steady / 8.0, "{stalled}");
        meter.pause(at(3000));
        assert_eq!(
            meter.bytes_per_second(at(9000)),
            Some(stalled),
            "a paused meter forgets nothing"
        );
    }
}

//! A rate that forgets: bytes per second with a half-life.

use std::time::Duration;

use crate::units::Moment;

/// How long until half of the weight of a measurement is gone. Long against one piece on a slow link (a 1 MiB piece
/// takes 84 ms at 100 Mbit/s), short against the transfers that re-balancing is for.
const HALF_LIFE: Duration = Duration::from_millis(500);

/// An exponentially forgetting rate, fed with byte counts as they land.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    bytes: f64,
    seconds: f64,
    last: Option<Moment>,
}

impl Meter {
    /// Starts the clock, unless it runs: bytes are awaited from now on.
    pub(crate) fn start(&mut self, now: Moment) {
        self.last.get_or_insert(now);
    }

    /// Stops the clock: nothing is awaited, so silence says nothing about speed.
    pub(crate) fn pause(&mut self, now: Moment) {
        self.forget(now);
        self.last = None;
    }

    /// Counts `bytes` that landed just now.
    pub(crate) fn add(&mut self, now: Moment, bytes: u64) {
        self.forget(now);
        self.bytes += bytes as f64;
    }

    /// Bytes per second, or `None` while nothing was measured. Falls while nothing lands.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn a_steady_flow_reads_its_rate_and_a_stalled_one_falls() {
        let mut meter = Meter::default();
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
        assert_eq!(meter.bytes_per_second(at(9000)), Some(stalled), "a paused meter forgets nothing");
    }
}

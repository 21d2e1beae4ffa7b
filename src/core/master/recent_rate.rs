//! Rate of the last few seconds, for displays and for `status`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::units::Moment;

/// Window of the rate: long enough to even out bursts, short enough to follow a change.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Smallest interval of points; together with the window it limits their number.
const POINT_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes at moments of the last few seconds, from which the rate is computed.
#[derive(Debug, Default)]
pub(crate) struct RecentRate {
    points: VecDeque<(Moment, u64)>,
}

impl RecentRate {
    /// Records the bytes so far.
    pub(crate) fn add(&mut self, now: Moment, bytes: u64) {
        // Points closer together are redundant, and their number would be unlimited.
        let before_last = self.points.iter().rev().nth(1);
        if before_last.is_some_and(|&(at, _)| now.since(at) < POINT_INTERVAL) {
            self.points.pop_back();
        }
        self.points.push_back((now, bytes));
        while self.points.len() > 2 && now.since(self.points[0].0) > RATE_WINDOW {
            self.points.pop_front();
        }
    }

    /// Returns the rate, or `None` until time has passed.
    pub(crate) fn bytes_per_second(&self) -> Option<f64> {
        let (&(start, from), &(end, to)) = (self.points.front()?, self.points.back()?);
        let seconds = end.since(start).as_secs_f64();
        (seconds > 0.0).then(|| to.saturating_sub(from) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_its_memory_is_bounded() {
        let at = |ms: u64| Moment(ms * 1_000_000);
        let mut recent = RecentRate::default();
        recent.add(at(5), 1_000_000);
        assert_eq!(recent.bytes_per_second(), None, "bytes resumed at the start are no rate");
        for ms in 1..=60_000u64 {
            let bytes_per_ms = if ms <= 30_000 { 1 } else { 1000 };
            recent.add(at(5 + ms), 1_000_000 + ms * bytes_per_ms);
        }
        let rate = recent.bytes_per_second().expect("time has passed");
        assert!((rate - 1_000_000.0).abs() < 1.0, "{rate}");
        assert!(recent.points.len() < 300, "{}", recent.points.len());
    }
}

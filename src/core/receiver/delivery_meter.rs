//! Delivery meter: what one sender brings while it is never out of requests.
//!
//! Time counts from one landing to the next, and only where every flow to the sender still had a
//! lease at the first of the two. A sample in which the receiver had nothing to request, or held a
//! flow back, says nothing about the sender (BBR, Cardwell et al. 2016, calls such samples
//! application-limited).

use std::time::Duration;

use crate::core::units::Moment;

/// Bytes that one sender has delivered while it was never out of requests, and the time that they
/// took. Both only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DeliveryMeter {
    bytes: u64,
    time: Duration,
    /// Moment of the last landing, or of the first lease after a pause, while all flows have
    /// leases.
    since: Option<Moment>,
    /// True if `since` is a landing: the time to the first one is that of a request, too.
    has_landed: bool,
}

impl DeliveryMeter {
    /// Takes in that pieces were leased, to a sender of which all flows have leases now or not.
    pub(super) fn leased(&mut self, now: Moment, is_asked: bool) {
        if is_asked && self.since.is_none() {
            (self.since, self.has_landed) = (Some(now), false);
        }
    }

    /// Takes in that a piece landed. `is_asked` is true if every flow still has a lease.
    pub(super) fn landed(&mut self, now: Moment, bytes: u64, is_asked: bool) {
        if let Some(since) = self.since.filter(|_| self.has_landed) {
            self.bytes += bytes;
            self.time += now.since(since);
        }
        (self.since, self.has_landed) = (is_asked.then_some(now), is_asked);
    }

    /// Takes in that leases ended without a landing. `is_asked` as for `landed`.
    pub(super) fn ended(&mut self, is_asked: bool) {
        if !is_asked {
            (self.since, self.has_landed) = (None, false);
        }
    }

    /// Returns the bytes, the time that they took, and the time for which nothing has landed since.
    pub(crate) fn sample(&self, now: Moment) -> (u64, Duration, Duration) {
        let waiting = self.since.map_or(Duration::ZERO, |since| now.since(since));
        (self.bytes, self.time, waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn time_without_requests_is_not_counted() {
        let mut meter = DeliveryMeter::default();
        meter.leased(at(0), true);
        meter.landed(at(50), 100, true);
        assert_eq!(meter.sample(at(50)).0, 0, "the first piece took the time of a request, too");
        meter.landed(at(60), 100, true);
        meter.landed(at(70), 100, false);
        let ten = Duration::from_millis(10);
        assert_eq!(meter.sample(at(500)), (200, 2 * ten, Duration::ZERO));
        meter.leased(at(500), true);
        meter.landed(at(600), 100, true);
        meter.landed(at(610), 100, true);
        assert_eq!(meter.sample(at(630)), (300, 3 * ten, 2 * ten));
    }

    #[test]
    fn a_lease_that_ends_otherwise_stops_the_clock() {
        let mut meter = DeliveryMeter::default();
        meter.leased(at(0), true);
        meter.landed(at(10), 100, true);
        meter.ended(true);
        meter.landed(at(20), 100, true);
        meter.ended(false);
        meter.landed(at(90), 100, true);
        assert_eq!(meter.sample(at(95)).0, 100);
        assert_eq!(meter.sample(at(95)).1, Duration::from_millis(10));
    }
}

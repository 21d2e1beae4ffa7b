//! Counters of NICs over time: rates between two moments, idle times, and the time of a number of
//! bytes.

use serde::Serialize;

/// Counters at several times, in seconds from a start of the reader's choice.
#[derive(Serialize, Default)]
pub(crate) struct CounterSeries {
    seconds: Vec<f64>,
    /// For each time, the bytes that each NIC had received.
    received: Vec<Vec<u64>>,
}

impl CounterSeries {
    /// Adds a reading, later than those before.
    pub(crate) fn push(&mut self, seconds: f64, received: Vec<u64>) {
        self.seconds.push(seconds);
        self.received.push(received);
    }

    /// Returns the bytes that all NICs have received since the first reading.
    pub(crate) fn total(&self) -> u64 {
        let sum = |reading: Option<&Vec<u64>>| reading.map_or(0, |counts| counts.iter().sum());
        sum(self.received.last()) - sum(self.received.first())
    }

    /// Returns the mean rate of a NIC between two moments, in Gbit/s.
    pub(crate) fn gbit_per_s(&self, nic: usize, from: f64, to: f64) -> f64 {
        (self.count(nic, to) - self.count(nic, from)) * 8e-9 / (to - from)
    }

    /// Returns the time between two moments in which a NIC received at less than `gbit_per_s`,
    /// reading by reading.
    pub(crate) fn seconds_below(&self, nic: usize, from: f64, to: f64, gbit_per_s: f64) -> f64 {
        let windows = self.seconds.windows(2).map(|pair| (pair[0].max(from), pair[1].min(to)));
        let windows = windows.filter(|(start, end)| end > start);
        let idle = windows.filter(|&(start, end)| self.gbit_per_s(nic, start, end) < gbit_per_s);
        idle.fold(0.0, |sum, (start, end)| sum + (end - start))
    }

    /// Returns the first reading from `from` on with a rate of at least `gbit_per_s` since the one
    /// before.
    pub(crate) fn first_above(&self, nic: usize, from: f64, gbit_per_s: f64) -> Option<f64> {
        let mut windows = self.seconds.windows(2).filter(|pair| pair[0] >= from);
        windows
            .find(|pair| self.gbit_per_s(nic, pair[0], pair[1]) >= gbit_per_s)
            .map(|pair| pair[1])
    }

    /// Returns the time at which all NICs together had received `bytes` since the first reading.
    pub(crate) fn when(&self, bytes: u64) -> Option<f64> {
        let first: u64 = self.received.first()?.iter().sum();
        let at =
            self.received.iter().position(|counts| counts.iter().sum::<u64>() - first >= bytes)?;
        Some(self.seconds[at])
    }

    /// Returns a NIC's counter at a moment, interpolated between readings, and constant before and
    /// after them.
    fn count(&self, nic: usize, at: f64) -> f64 {
        let counter = |reading: usize| self.received[reading][nic] as f64;
        let after = self.seconds.partition_point(|&seconds| seconds < at);
        if after == 0 || after == self.seconds.len() {
            return counter(after.saturating_sub(1));
        }
        let (start, end) = (self.seconds[after - 1], self.seconds[after]);
        counter(after - 1) + (counter(after) - counter(after - 1)) * (at - start) / (end - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a series of one NIC at 1 Gbit/s for two seconds and idle for the third, and another
    /// one with the opposite.
    fn series() -> CounterSeries {
        let mut series = CounterSeries::default();
        for (seconds, counts) in
            [(0.0, [1000, 0]), (1.0, [125_001_000, 0]), (2.0, [250_001_000, 0])]
        {
            series.push(seconds, counts.to_vec());
        }
        series.push(3.0, vec![250_001_000, 125_000_000]);
        series
    }

    #[test]
    fn rates_are_between_any_two_moments() {
        let series = series();
        for (nic, from, to, expected) in
            [(0, 0.0, 2.0, 1.0), (0, 0.25, 0.75, 1.0), (0, 1.0, 3.0, 0.5), (1, 1.5, 2.5, 0.5)]
        {
            let found = series.gbit_per_s(nic, from, to);
            assert!((found - expected).abs() < 1e-9, "{nic} {from} {to}: {found}");
        }
        assert_eq!(series.total(), 375_000_000);
    }

    #[test]
    fn idle_times_and_moments_are_found() {
        let series = series();
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        };
        close(series.seconds_below(0, 0.5, 3.0, 0.5), 1.0);
        close(series.seconds_below(1, 0.5, 3.0, 0.5), 1.5);
        assert_eq!(series.first_above(1, 0.5, 0.5), Some(3.0));
        assert_eq!(series.first_above(0, 2.0, 0.5), None);
        assert_eq!(series.when(200_000_000), Some(2.0));
        assert_eq!(series.when(400_000_000), None);
    }
}

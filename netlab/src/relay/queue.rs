//! Queue of one direction of a simulated path: its rate, delay, bound and loss.

use std::collections::VecDeque;
use std::time::Duration;

use random::SplitMix;

/// Bytes that an Ethernet frame adds to an IP packet, as the shapers of `tools/netlab` count it.
const LINK_HEADER_BYTES: u64 = 14;
/// Least length of the queue: a short path has more than one bandwidth-delay product, as switches
/// do.
const QUEUE_MIN: Duration = Duration::from_millis(10);
/// Losses are drawn among as many packets.
const LOSS_UNIT: u64 = 1_000_000;

/// Properties of a path, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub struct PathShape {
    /// Rate of the link in Mbit/s.
    pub rate_mbit: u32,
    /// Twice the delay of one direction.
    pub round_trip: Duration,
    /// Packets of a million that are lost at random.
    pub loss_per_million: u64,
    /// Seed of the losses.
    pub seed: u64,
}

/// Counters of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathCounts {
    /// Packets that entered.
    pub packets: u64,
    /// Packets that were lost at random.
    pub lost: u64,
    /// Packets that found the queue full.
    pub dropped: u64,
}

/// Packets on their way in one direction. Time is that since any one moment.
pub(super) struct PathQueue {
    shape: PathShape,
    random: SplitMix,
    /// The moment from which the link is idle.
    idle_from: Duration,
    /// Packets with the moments of their arrival, ascending.
    travelling: VecDeque<(Duration, Vec<u8>)>,
    counts: PathCounts,
}

impl PathShape {
    /// Returns the longest wait for the link: one bandwidth-delay product.
    fn queue_max(&self) -> Duration {
        self.round_trip.max(QUEUE_MIN)
    }

    /// Returns the time that the link takes for an IP packet.
    fn serialization(&self, packet_bytes: usize) -> Duration {
        let bits = (packet_bytes as u64 + LINK_HEADER_BYTES) * 8;
        Duration::from_nanos(bits * 1000 / u64::from(self.rate_mbit))
    }
}

impl PathQueue {
    /// Creates a queue; `direction` gives each direction losses of its own.
    pub(super) fn new(shape: PathShape, direction: u64) -> PathQueue {
        PathQueue {
            shape,
            random: SplitMix::new(shape.seed.wrapping_mul(2).wrapping_add(direction)),
            idle_from: Duration::ZERO,
            travelling: VecDeque::new(),
            counts: PathCounts::default(),
        }
    }

    /// Takes in a packet, which may be lost or dropped.
    pub(super) fn push(&mut self, now: Duration, packet: &[u8]) {
        self.counts.packets += 1;
        if self.random.below(LOSS_UNIT) < self.shape.loss_per_million {
            self.counts.lost += 1;
            return;
        }
        if self.idle_from.saturating_sub(now) > self.shape.queue_max() {
            self.counts.dropped += 1;
            return;
        }
        self.idle_from = self.idle_from.max(now) + self.shape.serialization(packet.len());
        self.travelling.push_back((self.idle_from + self.shape.round_trip / 2, packet.to_vec()));
    }

    /// Returns the next packet that has arrived.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.travelling.pop_front_if(|(due, _)| *due <= now).map(|(_, packet)| packet)
    }

    /// Returns the moment of the next arrival.
    pub(super) fn due(&self) -> Option<Duration> {
        self.travelling.front().map(|(due, _)| *due)
    }

    pub(super) fn counts(&self) -> PathCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: PathShape = PathShape {
        rate_mbit: 200,
        round_trip: Duration::from_millis(50),
        loss_per_million: 0,
        seed: 1,
    };
    /// With its header 1250 bytes: 50 µs at 200 Mbit/s.
    const PACKET: [u8; 1236] = [7; 1236];

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn packets_leave_at_the_rate_and_arrive_after_the_delay() {
        let mut queue = PathQueue::new(SHAPE, 0);
        (0..3).for_each(|_| queue.push(micros(0), &PACKET));
        for due in [25_050, 25_100, 25_150] {
            assert_eq!(queue.due(), Some(micros(due)));
            assert!(queue.pop(micros(due - 1)).is_none());
            assert_eq!(queue.pop(micros(due)), Some(PACKET.to_vec()));
        }
        // The link was idle meanwhile.
        queue.push(micros(60_000), &PACKET);
        assert_eq!(queue.due(), Some(micros(85_050)));
    }

    #[test]
    fn a_full_queue_drops_what_comes() {
        let mut queue = PathQueue::new(SHAPE, 0);
        (0..2000).for_each(|_| queue.push(micros(0), &PACKET));
        // Packets of 50 ms, the one that reaches them, and the one that passes them.
        assert_eq!(queue.counts(), PathCounts { packets: 2000, lost: 0, dropped: 2000 - 1001 });
        queue.push(micros(50), &PACKET);
        assert_eq!(queue.counts().dropped, 2000 - 1001, "a packet has left");
    }

    #[test]
    fn losses_are_drawn_from_the_seed() {
        let losses = |seed: u64, direction: u64| {
            let shape = PathShape { loss_per_million: 10_000, seed, ..SHAPE };
            let mut queue = PathQueue::new(shape, direction);
            (0..100_000).for_each(|at| queue.push(micros(50 * at), &PACKET));
            queue.counts().lost
        };
        assert!((900..1100).contains(&losses(1, 0)), "{}", losses(1, 0));
        assert_eq!(losses(1, 0), losses(1, 0));
        assert_ne!(losses(1, 0), losses(1, 1));
    }
}

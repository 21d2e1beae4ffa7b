//! Growth of rail pairs: how many flows one of them has.
//!
//! A connection that takes each lost packet for congestion fills no path that is long and loses
//! packets: its rate falls with the delay and with the root of the loss (Mathis et al. 1997). Of
//! several, each loses a part only. So where a path is far and loses packets again and again
//! although no queue stands in it, a pair gets further flows, a few at once, and keeps them if they
//! bring more. Where they do not, they are given up, and for long nothing is tried.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rail_pairs::{FLOWS_OF_PAIR_MAX, RailPair};
use crate::core::units::Moment;

/// Factor by which the flows of a pair grow at once.
const STEP: u32 = 4;
/// Delay from which on a path is far: below it, a connection makes up for a loss in no time.
const FAR: Duration = Duration::from_millis(4);
/// The least time over which a rate is measured.
const MEASURED_MIN: Duration = Duration::from_millis(150);
/// The same in round trips.
const MEASURED_TRIPS: u32 = 3;
/// The least time in which what was lost first is sent again, and the same in round trips.
const RECOVERY_MIN: Duration = Duration::from_millis(150);
const RECOVERY_TRIPS: u32 = 3;
/// Round trips in which a flow that has come up finds its rate.
const SETTLING_TRIPS: u32 = 4;
/// A window without a loss ends after so many times the least: what was lost long ago says nothing.
const STALE_WINDOWS: u32 = 8;
/// Gain by which the first further flows are kept. The first losses have yet to slow down the flow
/// that is compared with them: its window is that of an empty path.
const FIRST_GAIN_MIN: f64 = 0.8;
/// Gain by which those are kept that come after them.
const GAIN_MIN: f64 = 1.1;
/// Delay, in parts of the least one, from which on packets wait in a queue: the path is full.
const QUEUED: f64 = 1.3;
/// Time for which nothing is tried after further flows brought nothing, for the first time.
const REST: Duration = Duration::from_secs(5);

/// Pieces that a flow is to have left of its sender's share, so that it is worth opening.
const PIECES_EACH_MIN: u64 = 2;
/// Time that the share takes without further flows, from which on they are worth opening: each
/// begins slowly, and is late with its first pieces.
const WORTH_SECONDS: f64 = 3.0;

/// Returns the number of flows that are worth having for what is left of a sender's share.
pub(super) fn useful_flows(left_bytes: u64, block_bytes: u64, bytes_per_second: f64) -> u32 {
    if (left_bytes as f64) < WORTH_SECONDS * bytes_per_second {
        return 0;
    }
    u32::try_from(left_bytes / block_bytes / PIECES_EACH_MIN).unwrap_or(u32::MAX)
}

/// A reading of the path of a flow, by this node's kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PathReading {
    /// Round-trip time of late, and the least one.
    pub(crate) delay: Duration,
    pub(crate) delay_min: Duration,
    /// Bytes that have come over the flow.
    pub(crate) bytes: u64,
    /// Packets that came behind one that was sent later: a packet was lost before, in most cases.
    pub(crate) late_packets: u64,
}

impl PathReading {
    /// Returns true if the path is so long that its losses may need further flows.
    pub(crate) fn is_far(&self) -> bool {
        self.delay_min >= FAR
    }
}

/// Consequence of a reading for a rail pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlowCountStep {
    Stay,
    /// The pair shall have so many flows.
    Open(u32),
    /// Flows beyond so many brought nothing.
    Shrink(u32),
}

/// The rail pairs of one receiver whose paths are far.
#[derive(Default)]
pub(super) struct FlowGrowth {
    pairs: BTreeMap<RailPair, PairGrowth>,
}

/// Growth of one rail pair.
struct PairGrowth {
    stage: GrowthStage,
    window: PathWindow,
    delay_min: Duration,
    /// Time to rest after the next failure.
    rest: Duration,
}

/// The stage of a rail pair.
#[derive(Clone, Copy, PartialEq, Debug)]
enum GrowthStage {
    /// Nothing was lost yet.
    Starts,
    /// Recovery: what was lost first is sent again. The first flow may have overflowed a queue
    /// once, before it knew its path.
    Recovers { until: Moment },
    /// A loss makes it grow.
    Watches,
    /// Flows beyond `kept` are coming up.
    Opens { kept: u32 },
    /// They find their rate until the moment; before, the others brought so much.
    Settles { until: Moment, kept: u32, bytes_per_second: f64 },
    /// The rate of all is measured.
    Judges { kept: u32, bytes_per_second: f64 },
    /// Further flows brought nothing.
    Rests { until: Moment },
}

/// Deliveries of the flows of a pair since a moment.
#[derive(Clone, Copy)]
struct PathWindow {
    since: Moment,
    bytes: u64,
    late_packets: u64,
    /// The delay that was read last.
    delay: Duration,
}

impl PathWindow {
    fn new(since: Moment) -> PathWindow {
        PathWindow { since, bytes: 0, late_packets: 0, delay: Duration::ZERO }
    }

    fn bytes_per_second(&self, now: Moment) -> f64 {
        self.bytes as f64 / now.since(self.since).as_secs_f64()
    }

    /// Returns true if packets wait in a queue.
    fn is_queued(&self, delay_min: Duration) -> bool {
        self.delay > delay_min.mul_f64(QUEUED)
    }
}

impl PairGrowth {
    fn new(now: Moment) -> PairGrowth {
        PairGrowth {
            stage: GrowthStage::Starts,
            window: PathWindow::new(now),
            delay_min: Duration::MAX,
            rest: REST,
        }
    }

    fn measured(&self) -> Duration {
        MEASURED_MIN.max(MEASURED_TRIPS * self.delay_min)
    }

    /// Returns the step of a pair of which `count` flows are up or coming up.
    fn step(&mut self, now: Moment, count: u32, are_opening: bool) -> FlowCountStep {
        let elapsed = now.since(self.window.since);
        match self.stage {
            GrowthStage::Starts if self.window.late_packets > 0 => {
                let until = now + RECOVERY_MIN.max(RECOVERY_TRIPS * self.delay_min);
                self.enter(now, GrowthStage::Recovers { until })
            }
            GrowthStage::Recovers { until } if now >= until => {
                self.enter(now, GrowthStage::Watches)
            }
            GrowthStage::Watches if elapsed >= self.measured() => self.watch(now, count),
            GrowthStage::Opens { kept } if !are_opening && elapsed >= self.delay_min => {
                let bytes_per_second = self.window.bytes_per_second(now);
                // The first ones need not show much.
                let trips = if kept > 1 { SETTLING_TRIPS } else { 0 };
                let until = now + trips * self.delay_min;
                self.enter(now, GrowthStage::Settles { until, kept, bytes_per_second })
            }
            GrowthStage::Settles { until, kept, bytes_per_second } if now >= until => {
                self.enter(now, GrowthStage::Judges { kept, bytes_per_second })
            }
            GrowthStage::Judges { kept, bytes_per_second } if elapsed >= self.measured() => {
                let gain_min = if kept > 1 { GAIN_MIN } else { FIRST_GAIN_MIN };
                if self.window.bytes_per_second(now) >= gain_min * bytes_per_second {
                    self.stage = GrowthStage::Watches;
                    return self.watch(now, count);
                }
                let until = now + self.rest;
                self.rest *= 2;
                self.enter(now, GrowthStage::Rests { until });
                FlowCountStep::Shrink(kept)
            }
            GrowthStage::Rests { until } if now >= until => self.enter(now, GrowthStage::Watches),
            _ => FlowCountStep::Stay,
        }
    }

    /// Grows where packets were lost.
    fn watch(&mut self, now: Moment, count: u32) -> FlowCountStep {
        let is_over = now.since(self.window.since) >= STALE_WINDOWS * self.measured();
        let is_full = self.window.is_queued(self.delay_min);
        if self.window.late_packets > 0 && !is_full && count < FLOWS_OF_PAIR_MAX {
            self.enter(now, GrowthStage::Opens { kept: count });
            return FlowCountStep::Open((STEP * count).min(FLOWS_OF_PAIR_MAX));
        }
        if is_over {
            self.enter(now, GrowthStage::Watches);
        }
        FlowCountStep::Stay
    }

    fn enter(&mut self, now: Moment, stage: GrowthStage) -> FlowCountStep {
        (self.stage, self.window) = (stage, PathWindow::new(now));
        FlowCountStep::Stay
    }
}

impl FlowGrowth {
    /// Takes in a reading of a flow of `rail_pair`, and the one before it. Of the pair `count`
    /// flows are up or coming up.
    pub(super) fn read(
        &mut self,
        now: Moment,
        rail_pair: RailPair,
        (reading, before): (PathReading, Option<PathReading>),
        (count, are_opening): (u32, bool),
    ) -> FlowCountStep {
        let pair = self.pairs.entry(rail_pair).or_insert_with(|| PairGrowth::new(now));
        pair.delay_min = pair.delay_min.min(reading.delay_min);
        let window = &mut pair.window;
        // What came before the first reading came before the window.
        window.bytes += before.map_or(0, |before| reading.bytes.saturating_sub(before.bytes));
        let late_before = before.map_or(0, |before| before.late_packets);
        window.late_packets += reading.late_packets.saturating_sub(late_before);
        window.delay = reading.delay;
        pair.step(now, count, are_opening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::units::NodeIx;

    const TRIP: Duration = Duration::from_millis(20);

    /// Ticks in which flows come up.
    const OPENING: u32 = 2;

    /// A rail pair over a path on which each flow brings as much as its losses let it, and all
    /// together no more than there is.
    struct Path {
        growth: FlowGrowth,
        now: Moment,
        /// Flows that are up or coming up, and for how many ticks they still do.
        count: u32,
        opening: u32,
        /// Of the flows that are up.
        readings: Vec<PathReading>,
        /// Bytes that one flow brings in a tick, and that several bring at most.
        each: u64,
        most: u64,
        loses: bool,
        delay: Duration,
    }

    impl Path {
        fn new(each: u64, most: u64) -> Path {
            let (growth, readings) = (FlowGrowth::default(), vec![PathReading::default()]);
            let (now, count, opening, loses, delay) = (Moment(0), 1, 0, true, TRIP);
            Path { growth, now, count, opening, readings, each, most, loses, delay }
        }

        /// The flows after so many ticks of 50 ms.
        fn after(&mut self, ticks: u32) -> u32 {
            for _ in 0..ticks {
                self.now = self.now + Duration::from_millis(50);
                self.opening = self.opening.saturating_sub(1);
                if self.opening == 0 {
                    self.readings.resize(self.count as usize, PathReading::default());
                }
                let each = match self.readings.len() as u64 {
                    1 => self.each,
                    flows => self.each.min(self.most / flows),
                };
                for at in 0..self.readings.len() {
                    let before = self.readings[at];
                    let reading = PathReading {
                        delay: self.delay,
                        delay_min: TRIP,
                        bytes: before.bytes + each,
                        late_packets: before.late_packets + u64::from(self.loses),
                    };
                    self.readings[at] = reading;
                    self.read((reading, before));
                }
            }
            self.count
        }

        fn read(&mut self, (reading, before): (PathReading, PathReading)) {
            let (pair, flows) = (RailPair::new(NodeIx(1), 0), (self.count, self.opening > 0));
            match self.growth.read(self.now, pair, (reading, Some(before)), flows) {
                FlowCountStep::Stay => {}
                FlowCountStep::Open(count) => (self.count, self.opening) = (count, OPENING),
                FlowCountStep::Shrink(count) => self.count = count,
            }
        }
    }

    #[test]
    fn a_path_that_loses_packets_gets_more_flows_while_they_bring_more() {
        let mut path = Path::new(1000, 100_000);
        assert_eq!(path.after(6), 1);
        assert_eq!(path.after(3), 4);
        assert_eq!(path.after(20), FLOWS_OF_PAIR_MAX);
        assert_eq!(path.after(1000), FLOWS_OF_PAIR_MAX);
    }

    #[test]
    fn a_path_that_loses_nothing_is_left_alone() {
        let mut path = Path::new(1000, 100_000);
        path.loses = false;
        assert_eq!(path.after(1000), 1);
    }

    #[test]
    fn a_path_that_is_full_is_left_alone_though_its_queue_overflows() {
        let mut path = Path::new(1000, 1000);
        path.delay = TRIP.mul_f64(1.4);
        assert_eq!(path.after(1000), 1);
    }

    /// A first slow start overflows the queue before the delay shows it.
    #[test]
    fn a_path_that_loses_packets_once_is_left_alone() {
        let mut path = Path::new(1000, 100_000);
        path.after(3);
        path.loses = false;
        assert_eq!(path.after(1000), 1);
    }

    /// The first further flows may be compared with what the first losses had yet to slow down; so
    /// they stay where they do no harm.
    #[test]
    fn flows_that_bring_nothing_are_given_up_and_for_long_not_tried_again() {
        let mut path = Path::new(1000, 4000);
        assert_eq!(path.after(9), 4);
        let counts: Vec<u32> = (0..2000).map(|_| path.after(1)).collect();
        assert!(counts.contains(&FLOWS_OF_PAIR_MAX), "it was tried");
        let tried = counts.iter().filter(|count| **count > 4).count();
        assert!(tried < counts.len() / 20, "{tried}");
    }

    #[test]
    fn further_flows_that_cost_are_given_up() {
        let mut path = Path::new(1000, 300);
        assert_eq!(path.after(9), 4);
        assert_eq!(path.after(20), 1);
    }

    /// A loss is rare on a slow flow: it counts whenever it comes.
    #[test]
    fn a_slow_flow_is_judged_by_its_losses_and_not_by_a_time() {
        let mut path = Path::new(10, 100_000);
        for _ in 0..2 {
            path.loses = false;
            assert_eq!(path.after(30), 1);
            path.loses = true;
            path.after(1);
            path.loses = false;
        }
        assert_eq!(path.after(4), 4);
    }
}

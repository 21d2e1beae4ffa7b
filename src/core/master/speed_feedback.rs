//! Speed feedback: receivers' reports about their senders, and the decision for a newer plan.
//!
//! The master compares the bytes that each pair of nodes moved within a window with those that the
//! plan wants. A sender is as slow as the best of its receivers report, and a receiver as the best
//! of its senders: a node that is late with all its peers is slow itself. A relay is judged by what
//! it receives. All parts are relative to the best pair, so that a network that is slower than
//! declared causes no replanning. A slow node counts as slow from then on. A newer plan that is
//! noticeably better under these speeds replaces the old one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::speed_estimates::SpeedEstimates;
use crate::core::plan::{PlanProblem, PlannedSegment};
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::SenderDelivery;

/// Length of the window before a judgement; a receiver reports twice a second.
const WINDOW: Duration = Duration::from_secs(2);
/// Planned bytes of a pair before it is judged, in blocks: pieces come whole.
const BLOCKS_MIN: f64 = 4.0;
/// Limit on the number of plans of one transfer.
const EPOCHS_MAX: u32 = 16;
/// Limit on the number of plans of a transfer without relays: they only share out anew.
const PLANS_MAX: u32 = 64;
/// Interval of judgements where no receiver feeds another.
const JUDGED_EVERY: Duration = Duration::from_millis(90);
/// Part of the wanted rate below which a node is slow.
const SLOW: f64 = 0.5;
/// A newer plan must take less than this part of the old one's time.
const WORTH: f64 = 0.9;
/// Gain of a newer plan that pays, as a part of the time that is left, and in seconds.
const PAYS_PART: f64 = 0.02;
const PAYS_SECONDS: f64 = 0.03;
/// Limit on the watched pairs of nodes; a transfer with more is never replanned.
const PAIRS_MAX: usize = 1 << 16;
/// Lowest speed of a node, as a part of its declared speed.
const FACTOR_MIN: f64 = 0.01;

/// Measured speeds of nodes, relative to their declared speeds.
#[derive(Debug, Default)]
pub(super) struct SpeedFeedback {
    /// Planned bytes per second of each pair, by receiver, then sender.
    wanted: BTreeMap<(NodeIx, NodeIx), f64>,
    /// Bytes moved by each pair, at the start of the window and now.
    moved: BTreeMap<(NodeIx, NodeIx), MovedBytes>,
    /// Part of the declared speed at which nodes send and receive, if below one.
    sends: BTreeMap<NodeIx, f64>,
    receives: BTreeMap<NodeIx, f64>,
    /// Remaining bytes of each receiver's segments, by its last report.
    left: BTreeMap<NodeIx, Vec<u64>>,
    judged: Option<Moment>,
    epochs: u32,
    /// True if receivers feed each other by the plan.
    has_relays: bool,
    estimates: SpeedEstimates,
}

#[derive(Clone, Copy, Debug)]
struct MovedBytes {
    since: Moment,
    /// Moment of the latest report: a receiver that has landed everything sends no more.
    heard: Moment,
    before: u64,
    now: u64,
    /// True if there was work left during the whole window.
    busy: bool,
}

impl SpeedFeedback {
    /// Starts with a plan in which each receiver takes `seconds`.
    pub(super) fn begin(&mut self, planned: &[PlannedSegment], seconds: &[f64]) {
        self.wanted.clear();
        self.moved.clear();
        self.has_relays = planned.iter().any(|it| !it.relays.is_empty());
        if self.has_relays {
            self.judged = None;
        }
        self.epochs += 1;
        for one in planned {
            for receiver in one.segment.remote_receivers() {
                for (sender, weight) in
                    one.senders_for(receiver).into_iter().filter(|(_, weight)| *weight > 0.0)
                {
                    let rate = weight * one.segment.span.bytes() as f64 / seconds[receiver.at()];
                    *self.wanted.entry((receiver, sender)).or_insert(0.0) += rate;
                }
                if self.wanted.len() > PAIRS_MAX {
                    return self.wanted.clear();
                }
            }
        }
    }

    /// Records the remaining bytes of each segment of a receiver's part.
    pub(super) fn left(&mut self, receiver: NodeIx, left: Vec<u64>) {
        if !left.is_empty() && !self.wanted.is_empty() {
            self.left.insert(receiver, left);
        }
    }

    /// Returns the remaining bytes of each segment of a receiver's part, if reported.
    pub(super) fn left_of(&self, receiver: NodeIx) -> Option<&[u64]> {
        self.left.get(&receiver).map(Vec::as_slice)
    }

    /// Records a report. Returns true if some node turns out to be slower or faster than assumed.
    /// `is_moving` is false for receivers that are through, and `declared` is the speed of a node
    /// by its rows or its advert.
    pub(super) fn report(
        &mut self,
        now: Moment,
        receiver: NodeIx,
        delivered: &[SenderDelivery],
        block_bytes: u64,
        is_moving: impl Fn(NodeIx) -> bool,
        declared: impl Fn(NodeIx) -> f64,
    ) -> bool {
        if !self.has_relays {
            if self.wanted.is_empty() {
                return false;
            }
            delivered.iter().for_each(|it| self.estimates.report(now, receiver, it));
            let judged = *self.judged.get_or_insert(now);
            if now.since(judged) < JUDGED_EVERY || self.epochs >= PLANS_MAX {
                return false;
            }
            self.judged = Some(now);
            return self.estimates.judge(now, block_bytes, is_moving, declared);
        }
        for it in delivered {
            let pair = (receiver, NodeIx(it.index));
            if self.wanted.contains_key(&pair) {
                let begun = MovedBytes {
                    since: now,
                    heard: now,
                    before: it.bytes,
                    now: it.bytes,
                    busy: it.busy,
                };
                let moved = self.moved.entry(pair).or_insert(begun);
                (moved.heard, moved.now) = (now, moved.now.max(it.bytes));
                moved.busy &= it.busy;
            }
        }
        let judged = *self.judged.get_or_insert(now);
        if now.since(judged) < WINDOW || !self.may_plan_anew() {
            return false;
        }
        self.judged = Some(now);
        self.judge_relays(block_bytes)
    }

    /// Returns true if the transfer may have another plan.
    pub(super) fn may_plan_anew(&self) -> bool {
        self.epochs < EPOCHS_MAX
    }

    fn judge_relays(&mut self, block_bytes: u64) -> bool {
        let mut parts: Vec<((NodeIx, NodeIx), f64)> = Vec::new();
        for (pair, moved) in &mut self.moved {
            let wanted = self.wanted[pair] * moved.heard.since(moved.since).as_secs_f64();
            if moved.busy && wanted < BLOCKS_MIN * block_bytes as f64 {
                continue;
            }
            if moved.busy {
                parts.push((*pair, (moved.now - moved.before) as f64 / wanted));
            }
            // The bytes are those of the last report, so the next window begins there.
            *moved = MovedBytes {
                since: moved.heard,
                heard: moved.heard,
                before: moved.now,
                now: moved.now,
                busy: true,
            };
        }
        // Above the wanted rate, a pair only takes what others left.
        let best = parts.iter().map(|(_, part)| *part).fold(0.0, f64::max).min(1.0);
        if best <= 0.0 {
            return false;
        }
        let (mut sent, mut received): (BTreeMap<NodeIx, f64>, BTreeMap<NodeIx, f64>) =
            Default::default();
        for ((receiver, sender), part) in parts {
            let part = (part / best).max(FACTOR_MIN);
            let of = |parts: &mut BTreeMap<NodeIx, f64>, node| {
                let most = parts.entry(node).or_insert(part);
                *most = most.max(part);
            };
            of(&mut received, receiver);
            // A relay sends no faster than it receives: its delay may be its sender's fault.
            if !self.is_receiver(sender) {
                of(&mut sent, sender);
            }
        }
        let mut changed = false;
        for (parts, factors) in [(sent, &mut self.sends), (received, &mut self.receives)] {
            for (node, part) in parts.into_iter().filter(|(_, part)| *part < SLOW) {
                let factor = factors.entry(node).or_insert(1.0);
                *factor = (*factor * part).max(FACTOR_MIN);
                changed = true;
            }
        }
        changed
    }

    fn is_receiver(&self, node: NodeIx) -> bool {
        self.wanted.range((node, NodeIx(0))..=(node, NodeIx(u32::MAX))).next().is_some()
    }

    /// Applies the measured speeds to the input of the planner.
    pub(super) fn apply(&self, problem: &mut PlanProblem) {
        for (node, capacity) in (0..).map(NodeIx).zip(&mut problem.nodes) {
            let sends = self.estimates.sends(node);
            capacity.send_bytes_per_second = sends.unwrap_or(capacity.send_bytes_per_second);
        }
        for (node, factor) in &self.sends {
            problem.nodes[node.at()].send_bytes_per_second *= factor;
        }
        for (node, factor) in &self.receives {
            let node = &mut problem.nodes[node.at()];
            node.receive_bytes_per_second *= factor;
            // A relay passes late bytes on late.
            node.send_bytes_per_second *= if node.relays { *factor } else { 1.0 };
        }
    }

    /// Weighs the senders of a further part of a group by their measured speeds.
    pub(super) fn weigh(&self, part: &mut PlannedSegment) {
        let senders = part.segment.senders.iter().zip(&mut part.weights);
        for (sender, weight) in senders {
            *weight *= self.sends.get(sender).copied().unwrap_or(1.0);
            *weight *= self.estimates.part_of(*sender);
        }
        let sum: f64 = part.weights.iter().sum();
        if sum > 0.0 {
            part.weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    }

    /// Returns the number of plans so far.
    pub(super) fn plan_count(&self) -> u32 {
        self.epochs
    }

    /// Returns the slow nodes.
    pub(super) fn slow(&self) -> Vec<NodeIx> {
        let mut slow: Vec<NodeIx> =
            self.sends.keys().chain(self.receives.keys()).copied().collect();
        slow.sort_unstable();
        slow.dedup();
        slow
    }

    /// Returns true if nodes are faster than the first plan believes, which is in force: flows are
    /// held back for it.
    pub(super) fn is_outrun(&self) -> bool {
        self.epochs == 1 && !self.has_relays && self.estimates.is_outrun()
    }

    /// Returns true if a plan is better than the old one, by the measured speeds, by enough to
    /// replace it.
    pub(super) fn is_worth(
        &self,
        problem: &PlanProblem,
        old: &[PlannedSegment],
        new: &[PlannedSegment],
    ) -> bool {
        if self.has_relays {
            let [old, new] = [old, new].map(|it| crate::core::plan::mean_seconds(problem, it));
            return new < WORTH * old;
        }
        let [old, new] = [old, new].map(|it| crate::core::plan::predicted_seconds(problem, it));
        new < old - (PAYS_PART * old).max(PAYS_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::options::Scheduler;
    use crate::core::plan::{NodeCapacity, Plan, plan};
    use crate::core::units::Span;
    use crate::core::wire::control::SpeedSample;

    const BLOCK: u64 = 1000;

    /// Creates two senders (nodes 0 and 1) and two receivers (nodes 2 and 3), all of the same
    /// speed.
    fn begun() -> (PlanProblem, Plan, SpeedFeedback) {
        let node = |name: u32| NodeCapacity {
            name: format!("n{name}:1"),
            send_bytes_per_second: 1e6,
            receive_bytes_per_second: 1e6,
            ..NodeCapacity::default()
        };
        let whole = Span::new(0, 100 << 20);
        let problem = PlanProblem {
            nodes: (0..4).map(node).collect(),
            offers: vec![(NodeIx(0), whole), (NodeIx(1), whole)],
            wants: vec![(NodeIx(2), whole), (NodeIx(3), whole)],
            ..PlanProblem::default()
        };
        let plan = plan(&problem, Scheduler::Greedy).expect("a plan");
        let mut feedback = SpeedFeedback::default();
        feedback.begin(&plan.planned, &plan.receiver_seconds(&problem));
        // Judged as where receivers feed each other.
        feedback.has_relays = true;
        (problem, plan, feedback)
    }

    /// Sends the reports of both receivers, twice a second for `seconds`. `rates` are the senders'
    /// bytes per second to each of them.
    fn reports(
        feedback: &mut SpeedFeedback,
        seconds: u64,
        rates: [[u64; 2]; 2],
        busy: bool,
    ) -> bool {
        let mut changed = false;
        for tick in 0..=2 * seconds {
            for (receiver, rates) in [NodeIx(2), NodeIx(3)].into_iter().zip(rates) {
                let delivered = [0, 1].map(|index: u32| {
                    let bytes = rates[index as usize] * tick / 2;
                    SenderDelivery { index, bytes, busy, sample: SpeedSample::default() }
                });
                let now = Moment(tick * 500_000_000);
                changed |= feedback.report(now, receiver, &delivered, BLOCK, |_| true, |_| 1e6);
            }
        }
        changed
    }

    #[test]
    fn a_sender_that_is_late_with_everybody_is_slow() {
        let (mut problem, plan, mut feedback) = begun();
        assert!(reports(&mut feedback, 3, [[500_000, 50_000], [500_000, 50_000]], true));
        assert_eq!(feedback.slow(), [NodeIx(1)]);
        feedback.apply(&mut problem);
        assert!(
            (problem.nodes[1].send_bytes_per_second - 1e5).abs() < 1e4,
            "{:?}",
            problem.nodes[1]
        );
        let new =
            crate::core::plan::replan(&problem, &plan, &feedback.slow(), &[1.0]).expect("a plan");
        assert!(feedback.is_worth(&problem, &plan.planned, &new.planned), "{new:?}");
    }

    #[test]
    fn a_receiver_that_is_late_with_everybody_is_slow_and_its_senders_are_not() {
        let (_, _, mut feedback) = begun();
        assert!(reports(&mut feedback, 3, [[500_000, 500_000], [50_000, 50_000]], true));
        assert_eq!(feedback.slow(), [NodeIx(3)]);
        assert!(feedback.sends.is_empty(), "{feedback:?}");
    }

    #[test]
    fn where_all_are_late_alike_nobody_is_slow() {
        let (_, _, mut feedback) = begun();
        assert!(!reports(&mut feedback, 10, [[50_000; 2]; 2], true));
    }

    /// Receiver 3 has landed everything after three seconds, and reports no more.
    #[test]
    fn a_receiver_that_has_landed_is_not_slow() {
        let (_, _, mut feedback) = begun();
        assert!(!reports(&mut feedback, 3, [[500_000, 500_000]; 2], true));
        for tick in 7..=24 {
            let delivered = [0, 1].map(|index| SenderDelivery {
                index,
                bytes: 500_000 * tick / 2,
                busy: true,
                sample: SpeedSample::default(),
            });
            assert!(
                !feedback.report(
                    Moment(tick * 500_000_000),
                    NodeIx(2),
                    &delivered,
                    BLOCK,
                    |_| true,
                    |_| 1e6
                ),
                "{feedback:?}"
            );
        }
    }

    #[test]
    fn who_has_nothing_left_to_bring_is_not_slow() {
        let (_, _, mut feedback) = begun();
        assert!(!reports(&mut feedback, 10, [[500_000, 0], [500_000, 0]], false));
    }
}

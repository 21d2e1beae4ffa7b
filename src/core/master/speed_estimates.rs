//! Speed estimates: what nodes really send and receive, by the samples of receivers.
//!
//! A pair of nodes whose receiver is never out of requests is held back by one of the two. Links
//! are shared about evenly, so it is not by the one that gets more over another pair: that one has
//! room. What is left is explained by as few nodes as possible. A node that holds back others
//! carries what it carries now; any other one carries that at least, and what was believed before.
//! Disks count as NICs do: a piece is delivered when it is written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::{SenderDelivery, SpeedSample};

/// Blocks that a pair must have moved before its speed is one: pieces come whole.
const BLOCKS_MIN: u64 = 2;
/// Time that a pair must have been watched for.
const WINDOW_MIN: Duration = Duration::from_millis(80);
/// Time after which a pair that has moved nothing is slow.
const WAITING_MIN: Duration = Duration::from_millis(300);
/// Part of the time for which a receiver must have had requests out to a sender.
const ASKED_MIN: f64 = 0.7;
/// Limit on the watched pairs of nodes: 10 MB of reports.
const PAIRS_MAX: usize = 1 << 14;
/// Reports kept of a pair.
const REPORTS_MAX: usize = 16;
/// Time after which a pair without a report counts no more: more than the interval of reports.
const HEARD_WITHIN: Duration = Duration::from_millis(750);
/// A pair has less than its share of a node if another one moves this factor of it.
const SHARE: f64 = 2.0;
/// Part of the most that a node has carried below which it is not full.
const NOT_FULL: f64 = 0.8;
/// Factor by which a speed must differ from what was believed.
const CHANGED: f64 = 1.2;
/// Factor on that, for each time that the speed of a node has turned.
const TURNED: f64 = 1.15;

/// Estimated speeds of nodes, and the samples of pairs that they come from.
#[derive(Debug, Default)]
pub(super) struct SpeedEstimates {
    /// Samples of pairs, by receiver, then sender.
    pairs: BTreeMap<(NodeIx, NodeIx), PairSamples>,
    sends: BTreeMap<NodeIx, NodeEstimate>,
    receives: BTreeMap<NodeIx, NodeEstimate>,
}

/// Estimated speed of a node in one direction, in bytes per second.
#[derive(Clone, Copy, Debug)]
struct NodeEstimate {
    /// Speed by its rows or its advert.
    declared: f64,
    believed: f64,
    /// The most that it has carried.
    most: f64,
    /// Number of times that the belief has turned from falling to rising, or back.
    turns: i32,
    has_risen: Option<bool>,
}

#[derive(Debug, Default)]
struct PairSamples {
    reports: VecDeque<PairReport>,
}

#[derive(Clone, Copy, Debug)]
struct PairReport {
    heard: Moment,
    bytes: u64,
    sample: SpeedSample,
}

/// Speed of a pair, in bytes per second.
#[derive(Clone, Copy, Debug)]
struct PairSpeed {
    /// Speed while the receiver was never out of requests.
    burst: f64,
    /// The same, if the receiver was never out of requests for most of the time.
    at_best: Option<f64>,
    now: f64,
}

impl SpeedEstimates {
    /// Records a report.
    pub(super) fn report(&mut self, now: Moment, receiver: NodeIx, it: &SenderDelivery) {
        let pair = (receiver, NodeIx(it.index));
        if self.pairs.len() >= PAIRS_MAX && !self.pairs.contains_key(&pair) {
            return;
        }
        let reports = &mut self.pairs.entry(pair).or_default().reports;
        if reports.back().is_some_and(|last| {
            it.bytes < last.bytes
                || it.sample.bytes < last.sample.bytes
                || it.sample.micros < last.sample.micros
        }) {
            reports.clear();
        }
        if reports.len() == REPORTS_MAX {
            reports.pop_front();
        }
        reports.push_back(PairReport { heard: now, bytes: it.bytes, sample: it.sample });
    }

    /// Finds speeds anew. `declared` is the speed of a node by its rows or its advert, and
    /// `is_moving` is false for receivers that are through. Returns true if some node is faster or
    /// slower than was believed.
    pub(super) fn judge(
        &mut self,
        now: Moment,
        block_bytes: u64,
        is_moving: impl Fn(NodeIx) -> bool,
        declared: impl Fn(NodeIx) -> f64,
    ) -> bool {
        let is_heard = |it: &PairSamples| {
            it.reports.back().is_some_and(|last| now.since(last.heard) < HEARD_WITHIN)
        };
        self.pairs.retain(|(receiver, _), _| is_moving(*receiver));
        let heard = self.pairs.iter().filter(|(_, it)| is_heard(it));
        let speeds: Vec<(NodeIx, NodeIx, PairSpeed)> = heard
            .filter_map(|(&(receiver, sender), it)| {
                Some((sender, receiver, it.speed(block_bytes)?))
            })
            .collect();
        let mut sent = NodeTotals::default();
        let mut received = NodeTotals::default();
        for &(sender, receiver, speed) in &speeds {
            sent.add(sender, speed);
            received.add(receiver, speed);
        }
        for (totals, estimates) in [(&sent, &mut self.sends), (&received, &mut self.receives)] {
            for (&node, &total) in &totals.now {
                let estimate =
                    estimates.entry(node).or_insert_with(|| NodeEstimate::declared(declared(node)));
                estimate.most = estimate.most.max(total);
            }
        }
        let (full_senders, full_receivers) = self.full(&speeds, &sent, &received);
        let mut has_changed = false;
        for (totals, estimates, full) in [
            (&sent, &mut self.sends, &full_senders),
            (&received, &mut self.receives, &full_receivers),
        ] {
            for (node, &total) in &totals.now {
                let least = total.max(totals.burst.get(node).copied().unwrap_or(0.0));
                let estimate = estimates.get_mut(node).expect("added above");
                has_changed |= estimate.take(total, least, full.contains(node));
            }
        }
        has_changed
    }

    /// Returns the senders and the receivers that hold back others.
    fn full(
        &self,
        speeds: &[(NodeIx, NodeIx, PairSpeed)],
        sent: &NodeTotals,
        received: &NodeTotals,
    ) -> (BTreeSet<NodeIx>, BTreeSet<NodeIx>) {
        let (mut senders, mut receivers) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<(NodeIx, NodeIx)> = Vec::new();
        for &(sender, receiver, speed) in speeds {
            let Some(at_best) = speed.at_best else { continue };
            let has_less = |totals: &NodeTotals, node| at_best * SHARE < totals.best[&node];
            match (has_less(received, receiver), has_less(sent, sender)) {
                (true, false) => _ = senders.insert(sender),
                (false, true) => _ = receivers.insert(receiver),
                (false, false) => open.push((sender, receiver)),
                // The way between the two is slow, or shares are not even.
                (true, true) => {}
            }
        }
        let is_below = |estimates: &BTreeMap<NodeIx, NodeEstimate>, totals: &NodeTotals, node| {
            totals.now[&node] < NOT_FULL * estimates[&node].most
        };
        open.retain(|(sender, receiver)| {
            !senders.contains(sender) && !receivers.contains(receiver)
        });
        for &(sender, receiver) in &open {
            let is_sender_below = is_below(&self.sends, sent, sender);
            let is_receiver_below = is_below(&self.receives, received, receiver);
            match (is_sender_below, is_receiver_below) {
                (true, false) => _ = receivers.insert(receiver),
                (false, true) => _ = senders.insert(sender),
                _ => {}
            }
        }
        loop {
            open.retain(|(sender, receiver)| {
                !senders.contains(sender) && !receivers.contains(receiver)
            });
            let mut counts: BTreeMap<(NodeIx, bool), usize> = BTreeMap::new();
            for &(sender, receiver) in &open {
                *counts.entry((sender, true)).or_insert(0) += 1;
                *counts.entry((receiver, false)).or_insert(0) += 1;
            }
            match counts.into_iter().max_by_key(|(_, count)| *count) {
                Some(((sender, true), 2..)) => _ = senders.insert(sender),
                Some(((receiver, false), 2..)) => _ = receivers.insert(receiver),
                _ => break,
            }
        }
        // Of a pair that nothing else tells of, the sender: only its speed decides who is asked.
        senders.extend(open.into_iter().map(|(sender, _)| sender));
        (senders, receivers)
    }

    /// Returns the speed at which a node sends, if it was heard of.
    pub(super) fn sends(&self, node: NodeIx) -> Option<f64> {
        self.sends.get(&node).map(|estimate| estimate.believed)
    }

    /// Returns the part of its declared speed at which a node sends.
    pub(super) fn part_of(&self, node: NodeIx) -> f64 {
        self.sends.get(&node).map_or(1.0, |estimate| estimate.believed / estimate.declared)
    }

    /// Returns true if a node is faster than it was declared to be.
    pub(super) fn is_outrun(&self) -> bool {
        let mut all = self.sends.values().chain(self.receives.values());
        all.any(|estimate| estimate.believed > CHANGED * estimate.declared)
    }
}

/// Sums and largest pairs of nodes in one direction, in bytes per second.
#[derive(Debug, Default)]
struct NodeTotals {
    now: BTreeMap<NodeIx, f64>,
    best: BTreeMap<NodeIx, f64>,
    burst: BTreeMap<NodeIx, f64>,
}

impl NodeTotals {
    fn add(&mut self, node: NodeIx, speed: PairSpeed) {
        *self.now.entry(node).or_insert(0.0) += speed.at_best.unwrap_or(speed.now);
        let best = self.best.entry(node).or_insert(0.0);
        *best = best.max(speed.at_best.unwrap_or(0.0));
        let burst = self.burst.entry(node).or_insert(0.0);
        *burst = burst.max(speed.burst);
    }
}

impl NodeEstimate {
    fn declared(declared: f64) -> NodeEstimate {
        let believed = declared;
        NodeEstimate { declared, believed, most: 0.0, turns: 0, has_risen: None }
    }

    /// Takes in what the node carries now, and what it carries at least. Returns true if that
    /// changes what is believed.
    fn take(&mut self, total: f64, least: f64, is_full: bool) -> bool {
        let speed = if is_full { total } else { self.believed.max(least) };
        let factor = CHANGED * TURNED.powi(self.turns);
        if speed <= 0.0 || (speed < self.believed * factor && self.believed < speed * factor) {
            return false;
        }
        let has_risen = speed > self.believed;
        self.turns += i32::from(self.has_risen.is_some_and(|before| before != has_risen));
        (self.has_risen, self.believed) = (Some(has_risen), speed);
        true
    }
}

impl PairSamples {
    /// Returns the speed of the pair, if enough of its pieces have landed to tell.
    fn speed(&self, block_bytes: u64) -> Option<PairSpeed> {
        let last = *self.reports.back()?;
        let is_enough = |base: &&PairReport| {
            last.sample.bytes - base.sample.bytes >= BLOCKS_MIN * block_bytes
                && last.heard.since(base.heard) >= WINDOW_MIN
        };
        let zero = PairReport { sample: SpeedSample::default(), ..*self.reports.front()? };
        let first = if self.reports.len() < REPORTS_MAX { zero } else { *self.reports.front()? };
        let base = self.reports.iter().rev().find(is_enough).copied().unwrap_or(first);
        let bytes = last.sample.bytes - base.sample.bytes;
        let seconds = (last.sample.micros - base.sample.micros) as f64 * 1e-6;
        let waiting = last.sample.waiting_micros as f64 * 1e-6;
        let wall = last.heard.since(base.heard).as_secs_f64();
        let now = if wall > 0.0 { (last.bytes - base.bytes) as f64 / wall } else { 0.0 };
        // It cannot be faster than if the next piece came now.
        let most = bytes.saturating_add(block_bytes) as f64 / (seconds + waiting).max(1e-6);
        let waited_before = base.sample.waiting_micros as f64 * 1e-6;
        let is_asked = seconds + waiting - waited_before >= ASKED_MIN * wall;
        let burst = if bytes >= block_bytes && seconds > 0.0 {
            (bytes as f64 / seconds).min(most)
        } else if waiting >= WAITING_MIN.as_secs_f64() {
            most
        } else {
            return None;
        };
        Some(PairSpeed { burst, at_best: Some(burst).filter(|_| is_asked), now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 1000;
    /// Senders 0 and 1, receivers 2 and 3.
    const PAIRS: [(u32, u32); 4] = [(0, 2), (1, 2), (0, 3), (1, 3)];

    /// Has receivers report ten times a second, from `from` to `to`. `rates` are bytes per second
    /// of the pairs, and false for those that the receiver holds back. Returns the number of
    /// judgements that changed what is believed.
    fn reports(
        estimates: &mut SpeedEstimates,
        (from, to): (u64, u64),
        bytes: &mut [(u64, u64); 4],
        rates: [(u64, bool); 4],
    ) -> usize {
        let mut changes = 0;
        for tick in from..to {
            let now = Moment(tick * 100_000_000);
            for (((sender, receiver), moved), (rate, is_asked)) in
                PAIRS.into_iter().zip(&mut *bytes).zip(rates)
            {
                moved.0 += rate / 10;
                moved.1 += if is_asked { 100_000 } else { 10_000 };
                let sample = SpeedSample { bytes: moved.0, micros: moved.1, waiting_micros: 0 };
                let delivery = SenderDelivery { index: sender, bytes: moved.0, busy: true, sample };
                estimates.report(now, NodeIx(receiver), &delivery);
            }
            changes += usize::from(estimates.judge(now, BLOCK, |_| true, |_| 1e9));
        }
        changes
    }

    fn sends(estimates: &SpeedEstimates, node: u32) -> f64 {
        estimates.sends(NodeIx(node)).expect("it was heard of")
    }

    #[test]
    fn a_slow_sender_is_known_after_two_tenths_of_a_second_and_nothing_changes_then() {
        let mut estimates = SpeedEstimates::default();
        let rates = [(10_000, true), (90_000, true), (10_000, true), (90_000, true)];
        let mut bytes = [(0, 0); 4];
        assert!(reports(&mut estimates, (1, 4), &mut bytes, rates) > 0);
        assert!((sends(&estimates, 0) - 2e4).abs() < 1e3, "{estimates:?}");
        assert_eq!(reports(&mut estimates, (4, 100), &mut bytes, rates), 0, "{estimates:?}");
    }

    #[test]
    fn a_sender_that_recovers_gets_its_speed_back() {
        let mut estimates = SpeedEstimates::default();
        let mut bytes = [(0, 0); 4];
        let slow = [(10_000, true), (90_000, true), (10_000, true), (90_000, true)];
        reports(&mut estimates, (1, 20), &mut bytes, slow);
        reports(&mut estimates, (20, 40), &mut bytes, [(50_000, true); 4]);
        assert!(sends(&estimates, 0) > 0.9e5, "{estimates:?}");
        reports(&mut estimates, (40, 60), &mut bytes, slow);
        assert!(sends(&estimates, 0) < 2.5e4, "{estimates:?}");
    }

    #[test]
    fn who_is_asked_for_little_is_not_slow() {
        let mut estimates = SpeedEstimates::default();
        let held = [(10_000, false), (90_000, true), (10_000, false), (90_000, true)];
        reports(&mut estimates, (1, 30), &mut [(0, 0); 4], held);
        assert!(sends(&estimates, 0) >= 1e9, "{estimates:?}");
    }

    /// Both senders bring receiver 3 as little as each other, and more to receiver 2.
    #[test]
    fn a_slow_receiver_makes_no_sender_slow() {
        let mut estimates = SpeedEstimates::default();
        let rates = [(90_000, true), (90_000, true), (5_000, true), (5_000, true)];
        reports(&mut estimates, (1, 30), &mut [(0, 0); 4], rates);
        let receives = estimates.receives[&NodeIx(3)].believed;
        assert!((receives - 1e4).abs() < 1e3, "{estimates:?}");
        assert!(sends(&estimates, 0) > 0.9e5 && sends(&estimates, 1) > 0.9e5, "{estimates:?}");
    }

    /// A speed that swings for ever counts for less each time.
    #[test]
    fn what_is_believed_does_not_swing_for_ever() {
        let mut estimates = SpeedEstimates::default();
        let mut bytes = [(0, 0); 4];
        let [mut early, mut late] = [0, 0];
        for swing in 0..40_u64 {
            let one = if swing % 2 == 0 { 30_000 } else { 90_000 };
            let rates = [(one, true), (100_000, true), (one, true), (100_000, true)];
            let changes =
                reports(&mut estimates, (1 + 10 * swing, 11 + 10 * swing), &mut bytes, rates);
            *(if swing < 20 { &mut early } else { &mut late }) += changes;
        }
        assert!(early > 0 && late == 0, "{early} and {late} changes: {estimates:?}");
    }
}

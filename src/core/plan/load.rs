//! Load that a plan puts on nodes, links and stores, and the resulting duration.

use std::collections::BTreeMap;

use super::intake::PlanIntake;
use super::{PlanProblem, PlannedSegment};
use crate::core::units::NodeIx;

/// Returns the duration by the weights alone: the busiest part's time, without stealing.
pub(super) fn seconds(problem: &PlanProblem, planned: &[PlannedSegment]) -> f64 {
    let load = PlanLoad::of(problem, planned);
    load.sending_seconds(problem).max(load.receiving_seconds(problem).fold(0.0, f64::max))
}

/// Returns the approximate mean time after which receivers that fetch bytes have all of them.
pub(super) fn mean_seconds(problem: &PlanProblem, planned: &[PlannedSegment]) -> f64 {
    let load = PlanLoad::of(problem, planned);
    let sending = load.sending_seconds(problem);
    let receiving: Vec<f64> =
        load.receiving_seconds(problem).filter(|seconds| *seconds > 0.0).collect();
    receiving.iter().map(|seconds| seconds.max(sending)).sum::<f64>()
        / receiving.len().max(1) as f64
}

/// Returns the time after which each node has all its bytes: that of the busiest among itself and
/// its senders.
pub(super) fn receiver_seconds(problem: &PlanProblem, planned: &[PlannedSegment]) -> Vec<f64> {
    let load = PlanLoad::of(problem, planned);
    let sending =
        |node: NodeIx| load.sent[node.at()] / problem.nodes[node.at()].send_bytes_per_second;
    let mut seconds: Vec<f64> = load.receiving_seconds(problem).collect();
    for one in planned {
        let alike =
            one.segment.senders.iter().zip(&one.weights).filter(|(_, weight)| **weight > 0.0);
        let alike = alike.map(|(sender, _)| sending(*sender)).fold(0.0, f64::max);
        for receiver in one.segment.remote_receivers() {
            let latest = match (one.relay_of(receiver), one.own.is_empty()) {
                (Some(relay), _) => sending(relay),
                (None, true) => alike,
                (None, false) => {
                    let asked =
                        one.senders_for(receiver).into_iter().filter(|(_, weight)| *weight > 0.0);
                    asked.map(|(sender, _)| sending(sender)).fold(0.0, f64::max)
                }
            };
            seconds[receiver.at()] = seconds[receiver.at()].max(latest);
        }
    }
    seconds
}

impl PlanLoad {
    fn of(problem: &PlanProblem, planned: &[PlannedSegment]) -> PlanLoad {
        let mut load = PlanLoad {
            sent: vec![0.0; problem.nodes.len()],
            intake: PlanIntake::new(problem),
            pairs: problem.pairs.iter().map(|pair| ((pair.from, pair.to), 0.0)).collect(),
        };
        for one in planned {
            load.add(problem, one);
        }
        for (node, sent) in problem.nodes.iter().zip(&load.sent) {
            if let Some(store) = node.reads {
                load.intake.read[store.0 as usize] += sent;
            }
        }
        load
    }
}

/// Bytes that pass through every node, store and limited link.
struct PlanLoad {
    sent: Vec<f64>,
    /// Includes the bytes that stores are read for sending.
    intake: PlanIntake,
    pairs: BTreeMap<(NodeIx, NodeIx), f64>,
}

impl PlanLoad {
    fn add(&mut self, problem: &PlanProblem, planned: &PlannedSegment) {
        let segment = &planned.segment;
        let bytes = segment.span.bytes() as f64;
        let mut alike = 0.0;
        for &receiver in &segment.receivers {
            if !self.intake.add(problem, segment, receiver) {
                continue;
            }
            let relay = planned.relay_of(receiver);
            if planned.own.is_empty() && self.pairs.is_empty() && relay.is_none() {
                alike += bytes;
                continue;
            }
            for (sender, weight) in planned.senders_for(receiver) {
                self.sent[sender.at()] += weight * bytes;
                if let Some(pair) = self.pairs.get_mut(&(sender, receiver)) {
                    *pair += weight * bytes;
                }
            }
        }
        for (sender, weight) in segment.senders.iter().zip(&planned.weights) {
            self.sent[sender.at()] += weight * alike;
        }
    }

    /// Returns the receiving time of each node.
    fn receiving_seconds(&self, problem: &PlanProblem) -> impl Iterator<Item = f64> {
        let nodes = problem.nodes.iter().zip(&self.intake.received);
        nodes.map(|(node, received)| received / node.receive_bytes_per_second)
    }

    /// Returns the longest time of all shared parts other than receivers.
    fn sending_seconds(&self, problem: &PlanProblem) -> f64 {
        let mut seconds: f64 = 0.0;
        for (node, sent) in problem.nodes.iter().zip(&self.sent) {
            seconds = seconds.max(sent / node.send_bytes_per_second);
        }
        for (store, (read, written)) in
            problem.stores.iter().zip(self.intake.read.iter().zip(&self.intake.written))
        {
            seconds =
                seconds.max(read / store.bytes_per_second).max(written / store.bytes_per_second);
        }
        for pair in &problem.pairs {
            seconds = seconds.max(self.pairs[&(pair.from, pair.to)] / pair.bytes_per_second);
        }
        seconds
    }
}

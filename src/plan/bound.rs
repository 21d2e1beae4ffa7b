//! What no schedule can beat, and who sets it.
//!
//! Each receiver must take in what it wants, and each set of senders must send what nobody outside the set offers.
//! Every such sentence is a lower bound on the time; the largest one names the bottleneck.

use std::collections::BTreeMap;

use super::{Problem, Segment};
use crate::units::NodeIx;

/// How many different sets of senders are looked at one by one; past it, only single senders and all together are.
const SENDER_SETS_MAX: usize = 512;

/// A lower bound on the time of a transfer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Bound {
    pub(crate) seconds: f64,
    /// Who sets it: `receiver node6:55558`, `sender node1:55553`, `senders a:1, b:1 together`.
    pub(crate) bottleneck: String,
}

/// The largest of the lower bounds that receivers and sets of senders give.
pub(super) fn lower(problem: &Problem, segments: &[Segment]) -> Bound {
    let mut best = Bound { seconds: 0.0, bottleneck: "nothing to move".into() };
    let mut consider = |seconds: f64, name: &dyn Fn() -> String| {
        if seconds > best.seconds {
            best = Bound { seconds, bottleneck: name() };
        }
    };
    for (node, bytes) in wanted_bytes(problem, segments).into_iter().enumerate().filter(|(_, bytes)| *bytes > 0) {
        let receiver = &problem.nodes[node];
        consider(bytes as f64 / receiver.receive_bytes_per_second, &|| format!("receiver {}", receiver.name));
    }
    let demand = demand_by_senders(segments);
    for senders in candidate_sets(&demand) {
        let bytes: u64 = demand.iter().filter(|(set, _)| is_subset(set, &senders)).map(|(_, bytes)| bytes).sum();
        let speed: f64 = senders.iter().map(|sender| problem.nodes[sender.at()].send_bytes_per_second).sum();
        consider(bytes as f64 / speed, &|| name(problem, &senders));
    }
    best
}

fn wanted_bytes(problem: &Problem, segments: &[Segment]) -> Vec<u64> {
    let mut wanted = vec![0; problem.nodes.len()];
    for segment in segments {
        for receiver in segment.remote_receivers() {
            wanted[receiver.at()] += segment.span.bytes();
        }
    }
    wanted
}

/// Bytes to be sent, by the set of nodes that can send them.
fn demand_by_senders(segments: &[Segment]) -> BTreeMap<&[NodeIx], u64> {
    let mut demand: BTreeMap<&[NodeIx], u64> = BTreeMap::new();
    for segment in segments {
        *demand.entry(&segment.senders).or_insert(0) += segment.demand_bytes();
    }
    demand
}

/// The sets worth a look: those that occur, the union of each two, and all senders together.
fn candidate_sets(demand: &BTreeMap<&[NodeIx], u64>) -> Vec<Vec<NodeIx>> {
    let mut sets: Vec<Vec<NodeIx>> =
        demand.keys().filter(|set| demand.len() <= SENDER_SETS_MAX || set.len() == 1).map(|set| set.to_vec()).collect();
    if sets.len() * sets.len() <= 4 * SENDER_SETS_MAX {
        for (first, a) in sets.clone().iter().enumerate() {
            let unions: Vec<Vec<NodeIx>> = sets[first + 1..].iter().map(|b| join(a, b)).collect();
            sets.extend(unions);
            sets.truncate(4 * SENDER_SETS_MAX);
        }
    }
    let all: Vec<NodeIx> = demand.keys().fold(Vec::new(), |all, set| join(&all, set));
    sets.push(all);
    sets.sort_unstable();
    sets.dedup();
    sets
}

fn join(a: &[NodeIx], b: &[NodeIx]) -> Vec<NodeIx> {
    let mut joined = [a, b].concat();
    joined.sort_unstable();
    joined.dedup();
    joined
}

fn is_subset(inner: &[NodeIx], outer: &[NodeIx]) -> bool {
    inner.iter().all(|node| outer.binary_search(node).is_ok())
}

fn name(problem: &Problem, senders: &[NodeIx]) -> String {
    let names: Vec<&str> = senders.iter().take(4).map(|sender| problem.nodes[sender.at()].name.as_str()).collect();
    match (senders.len(), names.as_slice()) {
        (1, [only]) => format!("sender {only}"),
        (count, _) if count > names.len() => {
            format!("senders {} and {} more together", names.join(", "), count - names.len())
        }
        _ => format!("senders {} together", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Capacity, plan};
    use super::*;
    use crate::units::Span;

    fn bound(speeds: &[f64], offers: &[(u32, u64, u64)], wants: &[(u32, u64, u64)]) -> Bound {
        let nodes = speeds.iter().enumerate().map(|(index, &speed)| Capacity {
            name: format!("n{index}:1"),
            send_bytes_per_second: speed,
            receive_bytes_per_second: speed,
        });
        let rows = |rows: &[(u32, u64, u64)]| rows.iter().map(|&(n, s, e)| (NodeIx(n), Span::new(s, e))).collect();
        plan(&Problem { nodes: nodes.collect(), offers: rows(offers), wants: rows(wants) }).expect("servable").bound
    }

    #[test]
    fn a_slow_receiver_is_the_bottleneck() {
        let bound = bound(&[100.0, 100.0, 10.0], &[(0, 0, 1000), (1, 0, 1000)], &[(2, 0, 1000)]);
        assert_eq!(bound, Bound { seconds: 100.0, bottleneck: "receiver n2:1".into() });
    }

    #[test]
    fn the_only_holder_of_a_range_is_the_bottleneck() {
        let bound =
            bound(&[100.0, 100.0, 1000.0, 1000.0], &[(0, 0, 900), (1, 900, 1000)], &[(2, 0, 1000), (3, 0, 900)]);
        assert_eq!(bound, Bound { seconds: 18.0, bottleneck: "sender n0:1".into() });
    }

    #[test]
    fn senders_can_be_short_together() {
        let bound =
            bound(&[100.0, 100.0, 1000.0, 1000.0], &[(0, 0, 1000), (1, 0, 1000)], &[(2, 0, 1000), (3, 0, 1000)]);
        assert_eq!(bound, Bound { seconds: 10.0, bottleneck: "senders n0:1, n1:1 together".into() });
    }
}

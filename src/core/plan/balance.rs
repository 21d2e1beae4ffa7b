//! Balancing: moves load of greedy weights from busy nodes to idle nodes that offer the same bytes.
//!
//! Every node has a price, and the nodes of a demand share it in proportion to their prices. A
//! round adds up the resulting load of each node, and multiplies its price by its capacity over
//! that load. Where all nodes can be equally busy, this is Sinkhorn's scaling of rows and columns
//! (1967). Elsewhere it is proportional allocation (Agrawal, Mirrokni, Zadimoghaddam, 2018), which
//! comes as near to the optimum as the number of rounds allows. Rounds are linear in the incidences
//! and their total work is limited. The best round is used, so no plan gets worse.

use std::collections::BTreeMap;

use super::demand::{MemberChoice, PlanDemand, SenderClass};
use super::{PlanProblem, StoreIx};
use crate::core::units::NodeIx;

/// One side of a problem, sending or receiving: the bytes that nodes share, and the capacities they
/// pass through.
pub(super) struct NodeSide<'a> {
    problem: &'a PlanProblem,
    shared: Vec<SharedBytes<'a>>,
    /// By node, and then by store.
    gates: Vec<PassThrough>,
    /// By node.
    stores: Vec<Option<StoreIx>>,
    limits: LinkLimits,
}

/// Bytes that several nodes share.
struct SharedBytes<'a> {
    nodes: &'a [NodeIx],
    /// The only receiver of these bytes, if its links have limits.
    receiver: Option<NodeIx>,
    bytes: f64,
}

/// A node or store that bytes pass through.
struct PassThrough {
    bytes_per_second: f64,
    /// Bytes that pass through in any case.
    besides: f64,
}

/// Rounds for a small problem, which take no noticeable time.
const ROUNDS_MAX: usize = 500;
/// Incidences examined in all rounds together: a fifth of a second.
const WORK_MAX: usize = 1 << 25;
/// Largest factor by which a price changes in a round.
const STEP_MAX: f64 = 16.0;
/// Highest price. The price of a node that is never busy rises in every round; at this price it has
/// its full share.
const PRICE_MAX: f64 = 1e150;

impl<'a> NodeSide<'a> {
    /// Creates the sending side: bytes that senders share.
    pub(super) fn sending(problem: &'a PlanProblem, demand: &PlanDemand<'a>) -> NodeSide<'a> {
        let shared = |class: &SenderClass<'a>| SharedBytes {
            nodes: class.senders,
            receiver: class.receiver,
            bytes: class.bytes,
        };
        let mut shared: Vec<SharedBytes> = demand.classes.iter().map(shared).collect();
        for choice in &demand.choices {
            shared[choice.class as usize].bytes += choice.bytes;
        }
        let gates =
            problem.nodes.iter().map(|node| PassThrough::new(node.send_bytes_per_second, 0.0));
        let stores = problem.stores.iter().zip(&demand.intake.read);
        let gates = gates
            .chain(stores.map(|(store, read)| PassThrough::new(store.bytes_per_second, *read)))
            .collect();
        let stores = problem.nodes.iter().map(|node| node.reads).collect();
        NodeSide { problem, shared, gates, stores, limits: limits(problem) }
    }

    /// Creates the receiving side: bytes that members of groups share.
    pub(super) fn receiving(problem: &'a PlanProblem, demand: &PlanDemand<'a>) -> NodeSide<'a> {
        let shared = |choice: &MemberChoice<'a>| SharedBytes {
            nodes: choice.members,
            receiver: None,
            bytes: choice.bytes,
        };
        let shared = demand.choices.iter().map(shared).collect();
        let nodes = problem.nodes.iter().zip(&demand.intake.received);
        let gates = nodes
            .map(|(node, received)| PassThrough::new(node.receive_bytes_per_second, *received));
        let stores = problem.stores.iter().zip(&demand.intake.written);
        let gates = gates
            .chain(
                stores.map(|(store, written)| PassThrough::new(store.bytes_per_second, *written)),
            )
            .collect();
        let stores = problem.nodes.iter().map(|node| node.writes).collect();
        NodeSide { problem, shared, gates, stores, limits: LinkLimits::new() }
    }

    /// Returns, for each node, the bytes that it has any share in.
    pub(super) fn touched_bytes(&self) -> Vec<f64> {
        let mut touched = vec![0.0; self.problem.nodes.len()];
        for shared in &self.shared {
            shared.nodes.iter().for_each(|node| touched[node.at()] += shared.bytes);
        }
        touched
    }

    /// Returns the best prices found, beginning with `first`. Stops once the duration is at most
    /// `enough` seconds.
    pub(super) fn balance(&self, first: Vec<f64>, enough: f64) -> Vec<f64> {
        let incidences: usize = self.shared.iter().map(|shared| shared.nodes.len()).sum();
        let rounds = (WORK_MAX / incidences.max(1)).min(ROUNDS_MAX);
        let (mut asked, mut seconds) = self.ask(&first);
        let mut best = (seconds, first.clone());
        let mut prices = first;
        for _ in 0..rounds {
            if best.0 <= enough {
                break;
            }
            self.raise(&mut prices, &asked, best.0);
            (asked, seconds) = self.ask(&prices);
            if seconds < best.0 {
                best = (seconds, prices.clone());
            }
        }
        best.1
    }

    /// Multiplies each price by its node's remaining capacity in `seconds` over its load.
    fn raise(&self, prices: &mut [f64], asked: &[f64], seconds: f64) {
        let room = |gate: usize| {
            let PassThrough { bytes_per_second, besides } = self.gates[gate];
            (seconds * bytes_per_second - besides) / asked[gate]
        };
        for (node, price) in prices.iter_mut().enumerate().filter(|(node, _)| asked[*node] > 0.0) {
            let store = self.store(node).map_or(f64::INFINITY, room);
            *price = (*price * room(node).min(store).clamp(1.0 / STEP_MAX, STEP_MAX))
                .clamp(1.0 / PRICE_MAX, PRICE_MAX);
        }
    }

    /// Returns the duration at these prices.
    #[cfg(test)]
    pub(super) fn seconds(&self, prices: &[f64]) -> f64 {
        self.ask(prices).1
    }

    /// Returns the load of every node and store at these prices, and the resulting duration.
    fn ask(&self, prices: &[f64]) -> (Vec<f64>, f64) {
        let mut asked = vec![0.0; self.gates.len()];
        let mut links = LinkLimits::new();
        for SharedBytes { nodes, receiver, bytes } in
            self.shared.iter().filter(|shared| shared.bytes > 0.0)
        {
            let Some(receiver) = receiver else {
                let all: f64 = nodes.iter().map(|node| prices[node.at()]).sum();
                nodes.iter().for_each(|node| asked[node.at()] += prices[node.at()] * (bytes / all));
                continue;
            };
            let amount = |node: &NodeIx| {
                prices[node.at()] * part(self.problem, &self.limits, *node, *receiver)
            };
            let all: f64 = nodes.iter().map(amount).sum();
            for node in *nodes {
                asked[node.at()] += amount(node) * (bytes / all);
                *links.entry((*receiver, *node)).or_insert(0.0) += amount(node) * (bytes / all);
            }
        }
        for node in 0..prices.len() {
            if let Some(store) = self.store(node) {
                asked[store] += asked[node];
            }
        }
        let gates = asked
            .iter()
            .zip(&self.gates)
            .map(|(asked, gate)| (asked + gate.besides) / gate.bytes_per_second);
        let links = links.iter().filter_map(|(link, bytes)| Some(bytes / self.limits.get(link)?));
        let seconds = gates.chain(links).fold(0.0, f64::max);
        (asked, seconds)
    }

    /// Returns the index of a node's store in `gates`.
    fn store(&self, node: usize) -> Option<usize> {
        self.stores[node].map(|store| self.stores.len() + store.0 as usize)
    }
}

impl PassThrough {
    fn new(bytes_per_second: f64, besides: f64) -> PassThrough {
        PassThrough { bytes_per_second, besides }
    }
}

/// Limits of links, by receiver and sender, in bytes per second.
pub(super) type LinkLimits = BTreeMap<(NodeIx, NodeIx), f64>;

pub(super) fn limits(problem: &PlanProblem) -> LinkLimits {
    problem.pairs.iter().map(|pair| ((pair.to, pair.from), pair.bytes_per_second)).collect()
}

/// Returns the part of a sender's speed that its link to a receiver can carry.
pub(super) fn part(problem: &PlanProblem, limits: &LinkLimits, from: NodeIx, to: NodeIx) -> f64 {
    let limit = limits.get(&(to, from));
    limit.map_or(1.0, |limit| (limit / problem.nodes[from.at()].send_bytes_per_second).min(1.0))
}

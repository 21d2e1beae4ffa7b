//! The transfer as a flow network.
//!
//! ```text
//! source ─▶ class ─▶ [link of a pair] ─▶ sender ─▶ [store it reads] ─▶ sink
//!       ╲─▶ [store it writes] ─▶ member ─▶ choice ─▶ class
//! ```
//!
//! The flow runs from demand to supply, so the demand that is short of capacity is the part that
//! the source still reaches. Only wanted bytes have a fixed capacity; every other part carries its
//! rate times T. [`super::lp`] searches T.
//!
//! Links into group members are not modelled. The bytes of a member are decided before the classes,
//! and its link after them, so that no flow could express such a limit. Leaving it out keeps the
//! least T a lower bound; the plan's predicted time includes it.

use std::ops::Range;

use super::bound::FullPart;
use super::demand::PlanDemand;
use super::maxflow::{FlowArc, FlowNetwork, SINK, SOURCE};
use super::{PairLimit, PlanProblem, StoreIx};
use crate::core::units::NodeIx;

pub(super) struct PlanNetwork {
    pub(super) arcs: Vec<NetArc>,
    node_count: u32,
    /// For each class, the arcs to its senders, in order.
    pub(super) class_arcs: Vec<Range<usize>>,
    /// For each choice, the arcs from its members, in order.
    pub(super) choice_arcs: Vec<Range<usize>>,
    /// For each node that is a link, a sender or a store, the arc that leaves it.
    way_out: Vec<Option<u32>>,
}

pub(super) struct NetArc {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) kind: ArcKind,
}

/// Meaning of an arc, which determines its capacity in a time T.
#[derive(Clone, Copy, Debug)]
pub(super) enum ArcKind {
    /// Wanted bytes, for any T.
    Wanted { bytes: f64 },
    /// Capacity of a part: T at its rate, less the bytes that pass it in any case.
    Part { part: FullPart, bytes_per_second: f64, besides: f64 },
    /// No limit; at most `bytes` can arrive. Its capacity is twice that, so that it is never full
    /// and in no cut.
    Open { bytes: f64 },
}

impl ArcKind {
    pub(super) fn capacity(self, seconds: f64) -> f64 {
        match self {
            ArcKind::Wanted { bytes } => bytes,
            ArcKind::Open { bytes } => 2.0 * bytes,
            ArcKind::Part { bytes_per_second, besides, .. } => {
                (bytes_per_second * seconds - besides).max(0.0)
            }
        }
    }
}

impl PlanNetwork {
    pub(super) fn new(problem: &PlanProblem, demand: &PlanDemand) -> PlanNetwork {
        let layout = NetworkLayout::new(problem, demand);
        let node_count = layout.link(layout.pairs.len());
        let mut net = PlanNetwork {
            arcs: Vec::new(),
            node_count,
            class_arcs: Vec::new(),
            choice_arcs: Vec::new(),
            way_out: vec![None; node_count as usize],
        };
        net.add_classes(&layout, demand);
        net.add_choices(&layout, demand);
        net.add_supply(problem, &layout, demand);
        net.add_members(problem, &layout, demand);
        net
    }

    /// Returns the network at a time T, without a flow.
    pub(super) fn at(&self, seconds: f64) -> FlowNetwork {
        let arcs: Vec<FlowArc> = self
            .arcs
            .iter()
            .map(|arc| FlowArc { from: arc.from, to: arc.to, capacity: arc.kind.capacity(seconds) })
            .collect();
        FlowNetwork::new(self.node_count, &arcs)
    }

    /// Returns the arcs from a class's arc to the sink, beginning with the class's arc. The path is
    /// unique, because stores nest.
    pub(super) fn way(&self, class_arc: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(class_arc), |&arc| {
            Some(self.way_out[self.arcs[arc].to as usize]? as usize)
        })
    }

    fn add_classes(&mut self, layout: &NetworkLayout, demand: &PlanDemand) {
        let mut bytes: Vec<f64> = demand.classes.iter().map(|class| class.bytes).collect();
        for choice in &demand.choices {
            bytes[choice.class as usize] += choice.bytes;
        }
        for (at, (class, bytes)) in demand.classes.iter().zip(bytes).enumerate() {
            let first = self.arcs.len();
            for &sender in class.senders {
                let to = class.receiver.and_then(|receiver| layout.link_of(sender, receiver));
                self.add(
                    layout.class(at),
                    to.unwrap_or(layout.sender(sender)),
                    ArcKind::Open { bytes },
                );
            }
            self.class_arcs.push(first..self.arcs.len());
            if class.bytes > 0.0 {
                self.add(SOURCE, layout.class(at), ArcKind::Wanted { bytes: class.bytes });
            }
        }
        for (at, &PairLimit { from, to, bytes_per_second }) in layout.pairs.iter().enumerate() {
            let kind =
                ArcKind::Part { part: FullPart::Link(from, to), bytes_per_second, besides: 0.0 };
            self.add_way_out(layout.link(at), layout.sender(from), kind);
        }
    }

    fn add_choices(&mut self, layout: &NetworkLayout, demand: &PlanDemand) {
        for (at, choice) in demand.choices.iter().enumerate() {
            let first = self.arcs.len();
            for &member in choice.members {
                self.add(
                    layout.member(member),
                    layout.choice(at),
                    ArcKind::Open { bytes: choice.bytes },
                );
            }
            self.choice_arcs.push(first..self.arcs.len());
            self.add(
                layout.choice(at),
                layout.class(choice.class as usize),
                ArcKind::Wanted { bytes: choice.bytes },
            );
        }
    }

    fn add_supply(&mut self, problem: &PlanProblem, layout: &NetworkLayout, demand: &PlanDemand) {
        for sender in distinct(demand.classes.iter().flat_map(|class| class.senders)) {
            let node = &problem.nodes[sender.at()];
            let to = node.reads.map_or(SINK, |store| layout.read(store));
            let bytes_per_second = node.send_bytes_per_second;
            self.add_way_out(
                layout.sender(sender),
                to,
                ArcKind::Part { part: FullPart::Sender(sender), bytes_per_second, besides: 0.0 },
            );
        }
        for (store, (stored, &besides)) in
            (0..).map(StoreIx).zip(problem.stores.iter().zip(&demand.intake.read))
        {
            let kind = ArcKind::Part {
                part: FullPart::Read(store),
                bytes_per_second: stored.bytes_per_second,
                besides,
            };
            self.add_way_out(layout.read(store), SINK, kind);
        }
    }

    fn add_members(&mut self, problem: &PlanProblem, layout: &NetworkLayout, demand: &PlanDemand) {
        for member in distinct(demand.choices.iter().flat_map(|choice| choice.members)) {
            let node = &problem.nodes[member.at()];
            let from = node.writes.map_or(SOURCE, |store| layout.written(store));
            let (bytes_per_second, besides) =
                (node.receive_bytes_per_second, demand.intake.received[member.at()]);
            self.add(
                from,
                layout.member(member),
                ArcKind::Part { part: FullPart::Receiver(member), bytes_per_second, besides },
            );
        }
        for (store, (stored, &besides)) in
            (0..).map(StoreIx).zip(problem.stores.iter().zip(&demand.intake.written))
        {
            let kind = ArcKind::Part {
                part: FullPart::Written(store),
                bytes_per_second: stored.bytes_per_second,
                besides,
            };
            self.add(SOURCE, layout.written(store), kind);
        }
    }

    fn add(&mut self, from: u32, to: u32, kind: ArcKind) {
        self.arcs.push(NetArc { from, to, kind });
    }

    fn add_way_out(&mut self, from: u32, to: u32, kind: ArcKind) {
        self.way_out[from as usize] = Some(count(self.arcs.len()));
        self.add(from, to, kind);
    }
}

/// Numbering of the network's nodes: source, sink, classes, choices, senders, members, stores
/// twice, links.
struct NetworkLayout {
    classes: u32,
    choices: u32,
    nodes: u32,
    stores: u32,
    /// By receiver and sender; only the lowest of several limits for one link.
    pairs: Vec<PairLimit>,
}

impl NetworkLayout {
    fn new(problem: &PlanProblem, demand: &PlanDemand) -> NetworkLayout {
        let mut pairs = problem.pairs.clone();
        pairs.sort_by(|a, b| {
            (a.to, a.from)
                .cmp(&(b.to, b.from))
                .then(a.bytes_per_second.total_cmp(&b.bytes_per_second))
        });
        pairs.dedup_by_key(|pair| (pair.to, pair.from));
        let [classes, choices] = [demand.classes.len(), demand.choices.len()].map(count);
        let [nodes, stores] = [problem.nodes.len(), problem.stores.len()].map(count);
        NetworkLayout { classes, choices, nodes, stores, pairs }
    }

    fn class(&self, at: usize) -> u32 {
        SINK + 1 + count(at)
    }

    fn choice(&self, at: usize) -> u32 {
        SINK + 1 + self.classes + count(at)
    }

    fn sender(&self, node: NodeIx) -> u32 {
        SINK + 1 + self.classes + self.choices + node.0
    }

    fn member(&self, node: NodeIx) -> u32 {
        self.sender(node) + self.nodes
    }

    fn read(&self, store: StoreIx) -> u32 {
        self.member(NodeIx(self.nodes)) + store.0
    }

    fn written(&self, store: StoreIx) -> u32 {
        self.read(store) + self.stores
    }

    fn link(&self, at: usize) -> u32 {
        self.written(StoreIx(self.stores)) + count(at)
    }

    fn link_of(&self, sender: NodeIx, receiver: NodeIx) -> Option<u32> {
        let at = self
            .pairs
            .binary_search_by_key(&(receiver, sender), |pair| (pair.to, pair.from))
            .ok()?;
        Some(self.link(at))
    }
}

fn distinct<'a>(nodes: impl Iterator<Item = &'a NodeIx>) -> Vec<NodeIx> {
    let mut seen: Vec<bool> = Vec::new();
    for node in nodes {
        if node.at() >= seen.len() {
            seen.resize(node.at() + 1, false);
        }
        seen[node.at()] = true;
    }
    (0..).map(NodeIx).zip(seen).filter(|(_, seen)| *seen).map(|(node, _)| node).collect()
}

/// Rows, segments and incidences are limited so that all counts fit in 32 bits.
fn count(count: usize) -> u32 {
    u32::try_from(count).expect("parts of a plan are counted in 32 bits")
}

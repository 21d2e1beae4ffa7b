//! Lower bounds for the duration of any schedule, with their bottleneck.
//!
//! Each receiver must take in its bytes, and each set of senders must send the bytes that no node
//! outside the set offers. Every such condition is a lower bound on the time. This module computes
//! the simple ones, in work linear in the demands. If no plan reaches them, [`super::network`]
//! finds the largest bound by minimum cuts.

use super::demand::PlanDemand;
use super::{PlanProblem, StoreIx};
use crate::core::units::NodeIx;

/// A lower bound on the time of a transfer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LowerBound {
    pub(crate) seconds: f64,
    /// Bottleneck: `receiver node6:55558`, `sender node1:55553`, `senders a:1, b:1 together`.
    pub(crate) bottleneck: String,
    /// Bottleneck as parts, for pictures.
    pub(crate) parts: Vec<FullPart>,
}

/// Part of a network that is fully used at the lower bound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum FullPart {
    Sender(NodeIx),
    Receiver(NodeIx),
    Link(NodeIx, NodeIx),
    Read(StoreIx),
    Written(StoreIx),
}

/// Returns the largest of the bounds set by one node, one store, one demand, or all senders
/// together.
pub(super) fn floor(problem: &PlanProblem, demand: &PlanDemand) -> LowerBound {
    let mut best = BestBound { seconds: 0.0, parts: Vec::new() };
    for (node, (bytes, capacity)) in
        (0..).map(NodeIx).zip(demand.intake.received.iter().zip(&problem.nodes))
    {
        best.consider(*bytes, capacity.receive_bytes_per_second, || vec![FullPart::Receiver(node)]);
    }
    let send = |sender: &NodeIx| problem.nodes[sender.at()].send_bytes_per_second;
    for class in &demand.classes {
        let rate = class.senders.iter().map(send).sum();
        best.consider(class.bytes, rate, || {
            class.senders.iter().map(|&sender| FullPart::Sender(sender)).collect()
        });
    }
    for choice in &demand.choices {
        let rate = choice
            .members
            .iter()
            .map(|node| problem.nodes[node.at()].receive_bytes_per_second)
            .sum();
        best.consider(choice.bytes, rate, || {
            choice.members.iter().map(|&node| FullPart::Receiver(node)).collect()
        });
    }
    for (store, rate) in
        (0..).map(StoreIx).zip(problem.stores.iter().map(|store| store.bytes_per_second))
    {
        best.consider(demand.intake.read[store.0 as usize], rate, || vec![FullPart::Read(store)]);
        best.consider(demand.intake.written[store.0 as usize], rate, || {
            vec![FullPart::Written(store)]
        });
    }
    let mut sends = vec![false; problem.nodes.len()];
    for sender in demand.classes.iter().flat_map(|class| class.senders) {
        sends[sender.at()] = true;
    }
    let floor = LowerBound::new(problem, best.seconds, best.parts);
    together(problem, floor, demand.bytes(), &sends)
}

/// Returns `floor`, or the bound that all senders in `sends` set together for `bytes`, if it is
/// larger.
pub(super) fn together(
    problem: &PlanProblem,
    floor: LowerBound,
    bytes: f64,
    sends: &[bool],
) -> LowerBound {
    let senders =
        || (0..).map(NodeIx).zip(sends).filter(|(_, sends)| **sends).map(|(node, _)| node);
    let rate: f64 = senders().map(|node| problem.nodes[node.at()].send_bytes_per_second).sum();
    let mut best = BestBound { seconds: floor.seconds, parts: Vec::new() };
    best.consider(bytes, rate, || senders().map(FullPart::Sender).collect());
    if best.parts.is_empty() { floor } else { LowerBound::new(problem, best.seconds, best.parts) }
}

impl LowerBound {
    /// Creates a bound of `seconds` that `parts` set together.
    pub(super) fn new(problem: &PlanProblem, seconds: f64, parts: Vec<FullPart>) -> LowerBound {
        LowerBound { seconds, bottleneck: name(problem, &parts), parts }
    }
}

struct BestBound {
    seconds: f64,
    parts: Vec<FullPart>,
}

impl BestBound {
    fn consider(
        &mut self,
        bytes: f64,
        bytes_per_second: f64,
        parts: impl FnOnce() -> Vec<FullPart>,
    ) {
        if bytes > 0.0 && bytes / bytes_per_second > self.seconds {
            *self = BestBound { seconds: bytes / bytes_per_second, parts: parts() };
        }
    }
}

/// Returns the name of the bottleneck for people.
fn name(problem: &PlanProblem, parts: &[FullPart]) -> String {
    let node = |node: NodeIx| problem.nodes[node.at()].name.clone();
    let store = |store: StoreIx| format!("store {}", problem.stores[store.0 as usize].name);
    let mut named: Vec<(&str, Vec<String>)> = Vec::new();
    for part in parts {
        let (kind, name) = match *part {
            FullPart::Sender(sender) => ("sender", node(sender)),
            FullPart::Receiver(receiver) => ("receiver", node(receiver)),
            FullPart::Link(from, to) => ("link", format!("{} to {}", node(from), node(to))),
            FullPart::Read(read) => ("reading", store(read)),
            FullPart::Written(written) => ("writing", store(written)),
        };
        match named.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, names)) => names.push(name),
            None => named.push((kind, vec![name])),
        }
    }
    let kinds: Vec<String> = named.iter().map(|(kind, names)| of_one_kind(kind, names)).collect();
    match parts.len() {
        0 => "nothing to move".into(),
        1 => kinds.concat(),
        _ => format!("{} together", kinds.join(" and ")),
    }
}

fn of_one_kind(kind: &str, names: &[String]) -> String {
    let plural = if names.len() > 1 && !kind.ends_with("ing") { "s" } else { "" };
    let shown = names[..names.len().min(NAMES_SHOWN_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => format!("{kind}{plural} {shown}"),
        more => format!("{kind}{plural} {shown} and {more} more"),
    }
}

const NAMES_SHOWN_MAX: usize = 4;

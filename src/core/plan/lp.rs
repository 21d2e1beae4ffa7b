//! The exact optimum of the CEP paper's linear program (section 3.2), by parametric maximum flow.
//!
//! Minimise T such that every receiver gets its bytes, and every sender, receiver, link and store
//! carries at most its rate times T. If T is too small, a minimum cut of the network names bytes
//! that must pass through parts with too little rate; their quotient is the next T. Each T is a
//! lower bound, so T only grows, the flow found so far remains valid, and the last cut is the
//! bottleneck. This is Dinkelbach's iteration for ratios (1967); Radzik (1992) describes it for
//! cuts. The tests compare the result with that of a general solver.

use super::bound;
use super::bound::{FullPart, LowerBound};
use super::demand::PlanDemand;
use super::greedy::shares;
use super::intake::PlanIntake;
use super::maxflow::{FlowNetwork, SOURCE};
use super::network::{ArcKind, PlanNetwork};
use super::{PlanProblem, PlannedSegment, Segment, groups};
use crate::core::error::{Code, Error, Result};
use crate::core::units::NodeIx;

/// Limit on the arcs of a network for an exact plan: senders of demands and members of choices.
/// Four million take seconds, and 200 MiB.
const ARCS_MAX: usize = 1 << 22;
/// Limit on the arcs of a network that is solved only for the bound printed beside a simple plan.
/// Such a plan must stay quick.
const BOUND_ARCS_MAX: usize = 1 << 18;
/// Limit on cuts. Each has a larger quotient than the one before, and a handful suffices; at the
/// limit, T may be a little low, and is still a bound.
const CUTS_MAX: u32 = 200;
/// Quotients that differ by no more than this part are equal.
const SAME: f64 = 1e-12;

/// Returns the optimum: weights, and the least time with its bottleneck.
///
/// # Errors
/// `Code::Usage` if the problem is too large for an exact plan.
pub(super) fn plan(
    problem: &PlanProblem,
    segments: &[Segment],
    demand: &PlanDemand,
    floor: LowerBound,
) -> Result<(Vec<PlannedSegment>, LowerBound)> {
    if arc_count(demand) > ARCS_MAX {
        let what = format!(
            "an exact plan would weigh {} senders of segments; the limit is {ARCS_MAX}",
            arc_count(demand)
        );
        return Err(Error::new(Code::Usage, what).remedy("use --scheduler greedy"));
    }
    let net = PlanNetwork::new(problem, demand);
    let (flow, bound) = search(problem, demand, &net, floor);
    let flows = |arcs: std::ops::Range<usize>| arcs.map(|arc| flow.flow(arc)).collect::<Vec<f64>>();
    let given: Vec<Vec<f64>> =
        net.class_arcs.iter().map(|arcs| shares(&flows(arcs.clone()))).collect();
    let dealt = groups::deal(problem, segments, demand, |choice| {
        shares(&flows(net.choice_arcs[choice as usize].clone()))
    })?;
    Ok((weigh(segments, demand, &given, dealt.unwrap_or_else(|| segments.to_vec())), bound))
}

/// Returns the best weights of segments whose receivers are fixed.
///
/// # Errors
/// As [`plan`].
pub(super) fn weights(
    problem: &PlanProblem,
    segments: &[Segment],
    intake: Option<&PlanIntake>,
) -> Result<Vec<PlannedSegment>> {
    let mut demand = PlanDemand::of(problem, segments);
    demand.intake = intake.unwrap_or(&demand.intake).clone();
    let floor = bound::floor(problem, &demand);
    Ok(plan(problem, segments, &demand, floor)?.0)
}

/// Returns the lower bound alone: the exact one, or `floor` if it would take too long.
pub(super) fn bound(problem: &PlanProblem, demand: &PlanDemand, floor: LowerBound) -> LowerBound {
    if !is_quick(demand) {
        return floor;
    }
    let net = PlanNetwork::new(problem, demand);
    search(problem, demand, &net, floor).1
}

/// Returns true if the optimum is found quickly.
pub(super) fn is_quick(demand: &PlanDemand) -> bool {
    arc_count(demand) <= BOUND_ARCS_MAX
}

fn arc_count(demand: &PlanDemand) -> usize {
    let classes: usize = demand.classes.iter().map(|class| class.senders.len()).sum();
    classes + demand.choices.iter().map(|choice| choice.members.len()).sum::<usize>()
}

/// Raises T from `floor` until all wanted bytes fit through the network.
fn search(
    problem: &PlanProblem,
    demand: &PlanDemand,
    net: &PlanNetwork,
    floor: LowerBound,
) -> (FlowNetwork, LowerBound) {
    let mut best = floor;
    let mut flow = net.at(best.seconds);
    preload(problem, demand, net, &mut flow, best.seconds);
    for _ in 0..CUTS_MAX {
        flow.run();
        let cut = BindingCut::of(net, &flow);
        let seconds = cut.bytes / cut.bytes_per_second;
        if !(seconds > best.seconds * (1.0 + SAME) && seconds.is_finite()) {
            break;
        }
        for (at, arc) in net.arcs.iter().enumerate() {
            if let ArcKind::Part { .. } = arc.kind {
                flow.add_capacity(at, arc.kind.capacity(seconds) - arc.kind.capacity(best.seconds));
            }
        }
        best = LowerBound::new(problem, seconds, cut.parts);
    }
    (flow, best)
}

/// A cut that limits T: bytes, and the parts that all of them must pass through.
struct BindingCut {
    bytes: f64,
    bytes_per_second: f64,
    parts: Vec<FullPart>,
}

impl BindingCut {
    /// Returns the minimum cut around the nodes that the source reaches. Demands wholly on one side
    /// are excluded from both sums, so that a large transfer does not hide a small part's shortage.
    fn of(net: &PlanNetwork, flow: &FlowNetwork) -> BindingCut {
        let mut cut = BindingCut { bytes: 0.0, bytes_per_second: 0.0, parts: Vec::new() };
        for arc in &net.arcs {
            match (arc.kind, flow.reached(arc.from), flow.reached(arc.to)) {
                // A class in need, or bytes that all members are too slow for.
                (ArcKind::Wanted { bytes }, from, to) if to || (!from && arc.from != SOURCE) => {
                    cut.bytes += bytes;
                }
                (ArcKind::Part { part, bytes_per_second, besides }, true, false) => {
                    cut.bytes += besides;
                    cut.bytes_per_second += bytes_per_second;
                    cut.parts.push(part);
                }
                _ => {}
            }
        }
        cut.parts.sort_unstable();
        cut
    }
}

/// Loads the network with the greedy weights, as far as they fit: close to a maximum, and spread
/// evenly wherever there is room, unlike a flow computed from zero.
fn preload(
    problem: &PlanProblem,
    demand: &PlanDemand,
    net: &PlanNetwork,
    flow: &mut FlowNetwork,
    seconds: f64,
) {
    let mut offered_bytes = vec![0.0; problem.nodes.len()];
    for class in &demand.classes {
        class.senders.iter().for_each(|sender| offered_bytes[sender.at()] += class.bytes);
    }
    let set_aside = |sender: &NodeIx| {
        problem.nodes[sender.at()].send_bytes_per_second / offered_bytes[sender.at()].max(1.0)
    };
    let mut loads = vec![0.0; net.arcs.len()];
    let mut amounts: Vec<(usize, f64)> = Vec::new();
    for (class, arcs) in
        demand.classes.iter().zip(&net.class_arcs).filter(|(class, _)| class.bytes > 0.0)
    {
        let weights = shares(&class.senders.iter().map(set_aside).collect::<Vec<f64>>());
        for (arc, weight) in arcs.clone().zip(weights) {
            amounts.push((arc, weight * class.bytes));
            net.way(arc).for_each(|on| loads[on] += weight * class.bytes);
        }
    }
    let fits = |arc: usize| (net.arcs[arc].kind.capacity(seconds) / loads[arc]).min(1.0);
    let mut loaded = vec![0.0; net.arcs.len()];
    for (arc, bytes) in amounts {
        let bytes = bytes * net.way(arc).map(fits).fold(1.0, f64::min);
        net.way(arc).for_each(|on| loaded[on] += bytes);
    }
    // Bytes into a class equal the bytes out of it.
    for (at, arc) in net.arcs.iter().enumerate() {
        if let (SOURCE, ArcKind::Wanted { .. }) = (arc.from, arc.kind) {
            // The arc from the source follows those to the class's senders.
            let class = net.class_arcs.partition_point(|arcs| arcs.end <= at) - 1;
            loaded[at] = net.class_arcs[class].clone().map(|arc| loaded[arc]).sum();
        }
    }
    for (arc, bytes) in loaded.into_iter().enumerate().filter(|(_, bytes)| *bytes > 0.0) {
        flow.preload(arc, bytes);
    }
}

/// Returns the weights of `dealt`, which is `segments` with the parts of groups cut out.
fn weigh(
    segments: &[Segment],
    demand: &PlanDemand,
    given: &[Vec<f64>],
    dealt: Vec<Segment>,
) -> Vec<PlannedSegment> {
    let mut place = 0;
    let weigh_one = |segment: Segment| {
        while segments[place].span.end <= segment.span.start {
            place += 1;
        }
        let weights = demand.class_of(place).map_or_else(
            // Nothing crosses the network: every receiver has the bytes.
            || shares(&vec![0.0; segment.senders.len()]),
            |class| given[class as usize].clone(),
        );
        let own = demand
            .own(place)
            .map(|(receiver, class)| (receiver, given[class as usize].clone()))
            .collect();
        PlannedSegment { weights, own, segment, relays: Vec::new() }
    };
    dealt.into_iter().map(weigh_one).collect()
}

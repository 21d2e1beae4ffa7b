//! Flows of a simulated cluster: a receiver asks, and the sender answers, or nobody does.

use std::time::Duration;

use super::context::SimContext;
use super::messages::{FlowEnd, SimEvent, SimOpening};
use super::node::SimNode;
use super::world::SimEndpoint;
use crate::core::error::{Code, Error};
use crate::core::node::machine::NodeEvent;
use crate::core::rail::FlowDirection;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::{Moment, NodeIx};

/// Time for a flow to be answered.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// A flow is answered, or put off, or fails. Returns the nodes at its ends, if it stands.
pub(super) fn answer_flow(
    cx: &mut SimContext,
    nodes: &mut [SimNode],
    opening: SimOpening,
) -> Option<[NodeIx; 2]> {
    let SimOpening { receiver, transfer, rail_pair, weight } = opening;
    let sender = rail_pair.sender;
    let here = nodes[receiver.at()].at_work(transfer)?;
    let (attempt, relays) = (here.prepare.attempt, here.is_relayed_by(sender));
    let port = |ports: &[usize]| ports[rail_pair.index as usize % ports.len()];
    let to = port(&here.ports);
    let failed = |why: &str| {
        let error = Error::new(Code::Unreachable, why);
        let event = SchedulerEvent::OpenFailed { rail_pair, error };
        SimEvent::Node(receiver, NodeEvent::Flow { transfer, event })
    };
    let is_off = cx.reach.is_off(SimEndpoint::Node(sender));
    if let Some(until) = cx.apart(receiver, sender).or(is_off.then_some(Moment(u64::MAX))) {
        let given_up = cx.now() + CONNECTED_WITHIN;
        let is_soon = until < given_up;
        let event = if is_soon { SimEvent::FlowOpened(opening) } else { failed("no answer") };
        cx.schedule.at(until.min(given_up), event);
        return None;
    }
    let there = nodes[sender.at()].find(&attempt).map(|(theirs, _)| theirs);
    let there = there.and_then(|theirs| Some((theirs, nodes[sender.at()].at_work(theirs)?)));
    let Some((theirs, from)) = there.map(|(theirs, it)| (theirs, port(&it.ports))) else {
        cx.after(cx.world.latency, failed("connection refused"));
        return None;
    };
    let to_flow = nodes[receiver.at()].rails.next_flow();
    let from_flow = nodes[sender.at()].rails.next_flow();
    cx.net.open(to_flow, sender, receiver);
    let end = FlowEnd { peer: receiver, there: to_flow };
    let is_further = rail_pair.further > 0;
    let direction = FlowDirection::Send { weight, in_clear: true, is_further };
    nodes[sender.at()].rails.flow_up(cx, (theirs, from), from_flow, end, direction);
    nodes[sender.at()].follow(cx);
    let node = &mut nodes[receiver.at()];
    node.rails.note_flow(transfer, to, to_flow);
    let event = SchedulerEvent::FlowUp { flow: to_flow, rail_pair };
    node.handle(cx, NodeEvent::Flow { transfer, event });
    let end = FlowEnd { peer: sender, there: from_flow };
    let direction = FlowDirection::Receive { relays };
    node.rails.flow_up(cx, (transfer, to), to_flow, end, direction);
    node.follow(cx);
    Some([sender, receiver])
}

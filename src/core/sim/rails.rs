//! The rails of a simulated node: which of them a transfer or a flow is on, and their ends.

use std::collections::BTreeMap;

use super::context::SimContext;
use super::messages::{FlowEnd, FlowMessage, KernelOp, SimEvent, SimRailIx};
use super::rail::{SimRail, SimSend, SimSocket, tell_peer};
use super::transfer::{SimTransfer, SimTransfers};
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowCommand, FlowIx, TransferIx};
use crate::core::rail::{
    FlowDirection, KernelRoute, RailEvent, RailNotice, SendOutcome, TransferCommand,
};
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::Frame;

/// Slots of a rail for each direction.
const SLOTS: u32 = 16;

/// The rails of one node, and the attempts that they work for.
pub(super) struct SimRails {
    node: NodeIx,
    rails: BTreeMap<SimRailIx, SimRail>,
    made: u32,
    pub(super) transfers: SimTransfers,
    flows: u32,
}

impl SimRails {
    pub(super) fn new(node: NodeIx) -> SimRails {
        SimRails { node, rails: BTreeMap::new(), made: 0, transfers: SimTransfers::new(), flows: 0 }
    }

    pub(super) fn next_flow(&mut self) -> FlowIx {
        self.flows += 1;
        FlowIx(self.flows)
    }

    pub(super) fn transfer(&mut self, transfer: TransferIx) -> &mut SimTransfer {
        self.transfers.get_mut(&transfer).expect("the machine names those that it has begun")
    }

    /// Returns true if a kernel operation or a transfer keeps any rail.
    pub(super) fn is_idle(&self) -> bool {
        self.rails.is_empty()
    }

    fn rail(&mut self, rail: SimRailIx) -> &mut SimRail {
        self.rails.get_mut(&rail).expect("a rail that is busy stands")
    }

    /// The rail that a flow of this node goes over.
    fn rail_of(&self, flow: FlowIx) -> Option<SimRailIx> {
        let has_flow = |(_, rail): &(&SimRailIx, &SimRail)| rail.sockets.contains_key(&flow);
        self.rails.iter().find(has_flow).map(|(&serial, _)| serial)
    }

    fn handle(&mut self, now: Moment, rail: SimRailIx, event: RailEvent) {
        self.rail(rail).machine.handle(now, event);
    }

    /// Hands the files of a transfer to the rails of its ports.
    pub(super) fn join(&mut self, transfer: TransferIx) {
        let state = &self.transfers[&transfer];
        let (map, options) = (state.piece_map(), &state.prepare.options);
        let (silence, block_bytes) = (options.transfer.silence(), u64::from(options.block_bytes));
        for port in state.ports.clone() {
            let at_port = |(_, rail): &(&SimRailIx, &SimRail)| rail.port == port && !rail.is_ending;
            let serial = match self.rails.iter().find(at_port) {
                Some((&serial, _)) => serial,
                None => {
                    self.made += 1;
                    let serial = SimRailIx(self.made);
                    let rail = SimRail::new((self.node, port), serial, SLOTS, block_bytes);
                    self.rails.insert(serial, rail);
                    serial
                }
            };
            let rail = self.rail(serial);
            rail.transfers.insert(transfer);
            rail.machine.join(transfer, map.clone(), silence);
            self.transfer(transfer).rails.push(serial);
        }
    }

    /// A transfer is over. Returns true if rails end for that.
    pub(super) fn leave(&mut self, now: Moment, transfer: TransferIx) -> bool {
        self.command_all(now, transfer, &TransferCommand::Leave);
        let mut are_idle = false;
        for serial in std::mem::take(&mut self.transfer(transfer).rails) {
            let rail = self.rail(serial);
            rail.transfers.remove(&transfer);
            rail.is_ending = rail.transfers.is_empty();
            are_idle |= rail.is_ending;
        }
        are_idle
    }

    /// Removes rails that end and hold nothing. Returns true if none ends any more.
    pub(super) fn remove_idle(&mut self) -> bool {
        self.rails.retain(|_, rail| !rail.is_ending || rail.is_busy());
        self.rails.values().all(|rail| !rail.is_ending)
    }

    /// Returns the rail of a port that has a transfer.
    pub(super) fn takes_flows(&self, transfer: TransferIx, port: usize) -> Option<SimRailIx> {
        let rails = &self.transfers.get(&transfer)?.rails;
        rails.iter().copied().find(|serial| self.rails[serial].port == port)
    }

    /// A flow that this node opened goes over the rail of a port.
    pub(super) fn note_flow(&mut self, transfer: TransferIx, port: usize, flow: FlowIx) {
        if let Some(rail) = self.takes_flows(transfer, port) {
            self.transfer(transfer).flows.insert(flow, rail);
        }
    }

    /// Has the rail of a flow do something.
    pub(super) fn flow_command(&mut self, now: Moment, transfer: TransferIx, command: FlowCommand) {
        let rail = self.transfers[&transfer].flows.get(&command.flow()).copied();
        if let Some(rail) = rail.filter(|rail| self.rails.contains_key(rail)) {
            let command = TransferCommand::Flow(command);
            self.handle(now, rail, RailEvent::Command { transfer, command });
        }
    }

    /// Has all rails of a transfer do something.
    pub(super) fn command_all(
        &mut self,
        now: Moment,
        transfer: TransferIx,
        command: &TransferCommand,
    ) {
        for rail in self.transfers[&transfer].rails.clone() {
            let event = RailEvent::Command { transfer, command: command.clone() };
            self.handle(now, rail, event);
        }
    }

    /// The next notice to the control thread, with the port of the rail that gives it.
    pub(super) fn poll_notice(&mut self) -> Option<(usize, RailNotice)> {
        let mut rails = self.rails.values_mut();
        rails.find_map(|rail| Some((rail.port, rail.machine.poll_report()?)))
    }

    /// Carries out one action of a rail. Returns false if there is none.
    pub(super) fn act(&mut self, cx: &mut SimContext) -> bool {
        for rail in self.rails.values_mut() {
            if let Some(action) = rail.machine.poll_action() {
                rail.carry_out(cx, &mut self.transfers, action);
                return true;
            }
        }
        false
    }

    pub(super) fn check_slots(&self) {
        self.rails.values().for_each(SimRail::check_slots);
    }

    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.rails.values().filter_map(|rail| rail.machine.poll_timeout()).min()
    }

    pub(super) fn tick(&mut self, now: Moment) {
        for rail in self.rails.values_mut() {
            if rail.machine.poll_timeout().is_some_and(|due| now >= due) {
                rail.machine.handle(now, RailEvent::Tick);
            }
        }
    }

    /// An operation of the kernel has ended.
    pub(super) fn end_op(&mut self, cx: &mut SimContext, rail: SimRailIx, op: KernelOp) {
        if let Some(rail) = self.rails.get_mut(&rail) {
            rail.end_op(cx, &mut self.transfers, op);
        }
    }

    /// A request reaches this node.
    pub(super) fn requested(&mut self, now: Moment, flow: FlowIx, frame: Frame) {
        let Some(rail) = self.rail_of(flow) else { return };
        let socket = self.rail(rail).sockets.get_mut(&flow).expect("found above");
        socket.requests.push_back(frame);
        self.rail(rail).read(now, flow);
    }

    /// A rail takes in a flow, or closes it.
    pub(super) fn flow_up(
        &mut self,
        cx: &mut SimContext,
        (transfer, port): (TransferIx, usize),
        flow: FlowIx,
        end: FlowEnd,
        direction: FlowDirection,
    ) {
        let rail = self.takes_flows(transfer, port);
        let is_receiving = matches!(direction, FlowDirection::Receive { .. });
        let now = cx.now();
        let placed = rail.and_then(|rail| {
            let place = self.rail(rail).machine.flow_up(now, transfer, flow, direction)?;
            Some((rail, place))
        });
        let Some((rail, place)) = placed else {
            if is_receiving {
                cx.net.close(flow, self.node);
            }
            return tell_peer(cx, end, is_receiving, "the flow was refused");
        };
        let socket = SimSocket::new(transfer, place, end, is_receiving);
        self.rail(rail).sockets.insert(flow, socket);
    }

    /// The last byte of a message has left this node.
    pub(super) fn sent(&mut self, cx: &mut SimContext, flow: FlowIx) {
        let Some(rail) = self.rail_of(flow) else { return };
        let socket = self.rail(rail).sockets.get_mut(&flow).expect("found above");
        let (sending, place) = (socket.sending.take(), socket.place);
        let op = match sending {
            Some(SimSend::Piece(slot, route)) => {
                let is_held = route == KernelRoute::Zerocopy && cx.chance(900);
                KernelOp::Sent(slot, SendOutcome::Sent, is_held)
            }
            Some(SimSend::Refusal) => KernelOp::RefusalSent(place),
            None => return,
        };
        cx.schedule.at(cx.now(), SimEvent::Kernel { node: self.node, rail, op });
    }

    /// A message has arrived at this node.
    pub(super) fn arrived(&mut self, cx: &mut SimContext, flow: FlowIx, message: FlowMessage) {
        let Some(rail) = self.rail_of(flow) else { return };
        if cx.chance(cx.world.faults.broken) {
            let error = Error::new(Code::Unreachable, "connection reset");
            return self.break_flow(cx.now(), flow, error);
        }
        let socket = self.rail(rail).sockets.get_mut(&flow).expect("found above");
        socket.received_bytes +=
            message.payload.as_ref().map_or(0, |_| message.frame.span().bytes());
        socket.unread.push_back(message);
        self.rail(rail).read(cx.now(), flow);
    }

    /// A flow breaks at this end.
    pub(super) fn break_flow(&mut self, now: Moment, flow: FlowIx, error: Error) {
        if let Some(rail) = self.rail_of(flow) {
            let place = self.rail(rail).sockets[&flow].place;
            self.handle(now, rail, RailEvent::FlowBroken { flow: place, error });
        }
    }

    /// All flows break.
    pub(super) fn reset(&mut self, now: Moment) {
        let flows = self.rails.values().flat_map(|rail| rail.sockets.keys());
        for flow in flows.copied().collect::<Vec<FlowIx>>() {
            self.break_flow(now, flow, Error::new(Code::Unreachable, "connection reset"));
        }
    }

    /// The process ends: its kernel closes all sockets, or nobody does where the machine `is_off`.
    /// Writes that the kernel had begun may end, or end half way.
    pub(super) fn end(&mut self, cx: &mut SimContext, is_off: bool) {
        for (rail, op) in cx.schedule.take_kernel_ops(self.node) {
            let landing = match op {
                KernelOp::Write(slot) => self.rails.get(&rail).map(|rail| &rail.landing[&slot]),
                _ => None,
            };
            let Some((landing, payload)) = landing else { continue };
            let span = landing.piece.span;
            let bytes = cx.schedule.random.below(2 * span.bytes()).min(span.bytes());
            let written = Span::of(span.start, bytes);
            if let Some(disk) = &self.transfers[&landing.transfer].disk {
                // Nobody hears of an error any more.
                let _ = disk.borrow_mut().write(written, payload);
            }
        }
        for rail in std::mem::take(&mut self.rails).into_values() {
            for (flow, socket) in rail.sockets {
                if socket.is_receiving {
                    cx.net.close(flow, self.node);
                } else {
                    cx.net.close(socket.end.there, socket.end.peer);
                }
                if !is_off {
                    tell_peer(cx, socket.end, socket.is_receiving, "the peer is gone");
                }
            }
        }
    }
}

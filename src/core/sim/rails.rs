//! The rails of simulated nodes: what a kernel and a network do for their machines.
//!
//! The machines are those of real rails. Operations take the time of the simulated disks and
//! links, end in an order of their own, and fail where chance says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::cluster::{OrderedChannel, SimCluster, SimEvent};
use super::disk::PiecePayload;
use super::injected_faults::CONNECTED_WITHIN;
use super::node::{FlowEnd, FlowMessage};
use crate::core::error::{Code, Error};
use crate::core::node::participant;
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::rail::{
    CacheState, FlowDirection, FlowPlace, KernelRoute, LandingPiece, LoadingPiece, PayloadOutcome,
    RailAction, RailEvent, RailMachine, RailNotice, ReadMode, ReadOutcome, SendOutcome, SlotIx,
};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler;
use crate::core::units::{NodeIx, covers};
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind};

/// The transfer that a cluster runs.
pub(super) const TRANSFER: TransferIx = TransferIx(1);
/// Requests that leave in one send.
const REQUESTS_AT_ONCE: usize = 42;

/// One rail of a node: its machine, and what its kernel holds.
pub(super) struct SimRail {
    pub(super) machine: RailMachine,
    pub(super) sockets: BTreeMap<FlowIx, SimSocket>,
    /// What is received into each slot.
    pub(super) landing: BTreeMap<SlotIx, (LandingPiece, PiecePayload)>,
    /// What is sent from each slot.
    sending: BTreeMap<SlotIx, (Frame, PiecePayload)>,
    /// Slots of which the kernel has an operation, by direction.
    receives: BTreeSet<SlotIx>,
    sends: BTreeSet<SlotIx>,
}

/// One end of a flow.
pub(super) struct SimSocket {
    place: FlowPlace,
    pub(super) end: FlowEnd,
    is_receiving: bool,
    /// What has arrived and is not read.
    unread: VecDeque<FlowMessage>,
    /// The payload behind a header that was read.
    payload: Option<PiecePayload>,
    /// Whether the machine waits for a header, or for requests.
    is_awaited: bool,
    /// Requests that have arrived and are not read.
    requests: VecDeque<Frame>,
    /// A send whose end has not come.
    sending: Option<SimSend>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SimSend {
    Piece(SlotIx, KernelRoute),
    Refusal,
}

/// An operation of a simulated kernel that ends.
#[derive(Clone, Debug)]
pub(super) enum KernelOp {
    RequestsSent(FlowPlace),
    Payload(SlotIx),
    Write(SlotIx),
    Read(SlotIx, LoadingPiece, ReadMode),
    Sent(SlotIx, SendOutcome, bool),
    RefusalSent(FlowPlace),
    Released(SlotIx),
}

impl SimRail {
    pub(super) fn new(slots: u32, block_bytes: u64) -> SimRail {
        SimRail {
            machine: RailMachine::new(slots, block_bytes),
            sockets: BTreeMap::new(),
            landing: BTreeMap::new(),
            sending: BTreeMap::new(),
            receives: BTreeSet::new(),
            sends: BTreeSet::new(),
        }
    }

    /// Every slot that the machine holds is lent to the kernel, or ready to be sent.
    ///
    /// # Panics
    /// If one is not: it would never come back.
    pub(super) fn check_slots(&self) {
        let lent = (self.receives.len(), self.sends.len());
        assert_eq!(self.machine.slots_at_work(), lent, "slots that receive, and that send");
    }
}

impl SimCluster {
    fn rail(&mut self, node: NodeIx, rail: usize) -> &mut SimRail {
        &mut self.nodes[node.at()].rails[rail]
    }

    /// The rail that a flow of a node goes over.
    pub(super) fn rail_of(&self, node: NodeIx, flow: FlowIx) -> Option<usize> {
        self.nodes[node.at()].rails.iter().position(|rail| rail.sockets.contains_key(&flow))
    }

    fn handle(&mut self, node: NodeIx, rail: usize, event: RailEvent) {
        let now = self.now;
        self.rail(node, rail).machine.handle(now, event);
    }

    pub(super) fn rail_reports(&mut self, node: NodeIx, report: RailNotice) {
        let event = match report {
            RailNotice::Scheduler { event, .. } => participant::ParticipantEvent::Flow(event),
            RailNotice::Broken { error, .. } => participant::ParticipantEvent::Broken(error),
            RailNotice::Drained { .. } => {
                let state = &mut self.nodes[node.at()];
                state.draining -= 1;
                if state.draining == 0 {
                    let drained = participant::ParticipantEvent::Drained;
                    self.after(Duration::ZERO, SimEvent::Member(node, drained));
                }
                return;
            }
            RailNotice::Failed { .. } => unreachable!("no simulated rail fails"),
        };
        let now = self.now;
        if let Some(participant) = &mut self.nodes[node.at()].participant {
            participant.handle(now, event);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "an action is carried out once")]
    pub(super) fn rail_action(&mut self, node: NodeIx, rail: usize, action: RailAction) {
        match action {
            RailAction::SendRequests { flow } => self.send_requests(node, rail, flow),
            RailAction::ReceiveHeader { flow } | RailAction::ReceiveRequests { flow } => {
                if let Some(socket) = self.rail(node, rail).sockets.get_mut(&flow.flow) {
                    assert!(!socket.is_awaited, "one receive at a time");
                    socket.is_awaited = true;
                    self.read(node, rail, flow.flow);
                }
            }
            RailAction::ReceivePayload { slot, landing } => {
                self.receive_payload(node, rail, slot, landing);
            }
            RailAction::Write { slot, piece, .. } => {
                assert!(self.rail(node, rail).receives.insert(slot), "one operation at a time");
                let delay = self.disk_seconds(piece.bytes());
                self.kernel_later(node, rail, delay, KernelOp::Write(slot));
            }
            RailAction::Probe { slot, .. } => {
                let states =
                    [CacheState::Unknown, CacheState::Whole, CacheState::Dirty, CacheState::Clean];
                let is_known = self.world.faults.detours > 0;
                let cached = states[if is_known { self.random.below(4) as usize } else { 0 }];
                self.handle(node, rail, RailEvent::Probed { slot, cached });
            }
            RailAction::Read { slot, loading, mode } => {
                assert!(self.rail(node, rail).sends.insert(slot), "one operation at a time");
                let delay = self.disk_seconds(loading.request.span.bytes());
                self.kernel_later(node, rail, delay, KernelOp::Read(slot, loading, mode));
            }
            RailAction::Send { slot, flow, bytes, route, .. } => {
                self.send_piece(node, rail, (slot, flow), bytes, route);
            }
            RailAction::SendRefusal { flow, frame } => {
                if let Some(socket) = self.rail(node, rail).sockets.get_mut(&flow.flow) {
                    let before = socket.sending.replace(SimSend::Refusal);
                    assert_eq!(before, None, "one send at a time");
                    let end = socket.end;
                    let message = FlowMessage { frame, payload: None };
                    self.net.send(end.there, end.peer, FRAME_BYTES as u64, message);
                }
            }
            RailAction::CloseFlow { flow } => self.close_socket(node, rail, flow.flow),
            RailAction::SetUnsentMax { .. }
            | RailAction::NoteFallback { .. }
            | RailAction::Forget { .. } => {}
        }
    }

    fn kernel_later(&mut self, node: NodeIx, rail: usize, delay: Duration, op: KernelOp) {
        self.after(delay, SimEvent::Kernel { node, rail, op });
    }

    /// An operation of a node's kernel has ended.
    pub(super) fn kernel(&mut self, node: NodeIx, rail: usize, op: KernelOp) {
        if self.nodes[node.at()].alive {
            self.end_op(node, rail, op);
            self.follow(node);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "an operation ends once")]
    fn end_op(&mut self, node: NodeIx, rail: usize, op: KernelOp) {
        let event = match op {
            KernelOp::RequestsSent(flow) => RailEvent::RequestsSent { flow },
            KernelOp::RefusalSent(flow) => RailEvent::RefusalSent { flow },
            KernelOp::Payload(slot) => self.payload_done(node, rail, slot),
            KernelOp::Write(slot) => self.write_done(node, rail, slot),
            KernelOp::Read(slot, loading, mode) => self.read_done(node, rail, slot, loading, mode),
            KernelOp::Sent(slot, outcome, is_held) => {
                if is_held {
                    let delay = 2 * self.world.latency;
                    self.kernel_later(node, rail, delay, KernelOp::Released(slot));
                } else {
                    self.rail(node, rail).sends.remove(&slot);
                }
                RailEvent::SendDone { slot, outcome, is_held }
            }
            KernelOp::Released(slot) => {
                self.rail(node, rail).sends.remove(&slot);
                let copied = self.random.chance(self.world.faults.detours);
                RailEvent::SlotReleased { slot, copied }
            }
        };
        self.handle(node, rail, event);
    }

    fn send_requests(&mut self, node: NodeIx, rail: usize, flow: FlowPlace) {
        let state = self.rail(node, rail);
        let frames = std::iter::from_fn(|| state.machine.poll_request(flow));
        let frames: Vec<Frame> = frames.take(REQUESTS_AT_ONCE).collect();
        let Some(end) = state.sockets.get(&flow.flow).map(|socket| socket.end) else { return };
        for frame in frames {
            let (receiver, sender) = (node, end.peer);
            let request = SimEvent::Request { receiver, sender, flow: end.there, frame };
            self.in_order(OrderedChannel::Requests(node, flow.flow), self.world.latency, request);
        }
        self.kernel_later(node, rail, Duration::ZERO, KernelOp::RequestsSent(flow));
    }

    /// A request reaches a node.
    pub(super) fn requested(&mut self, node: NodeIx, flow: FlowIx, frame: Frame) {
        let Some(rail) = self.rail_of(node, flow) else { return };
        let socket = self.rail(node, rail).sockets.get_mut(&flow).expect("found above");
        socket.requests.push_back(frame);
        self.read(node, rail, flow);
        self.follow(node);
    }

    pub(super) fn flow_opened(&mut self, receiver: NodeIx, rail_pair: RailPair, weight: u64) {
        let sender = rail_pair.sender;
        if !self.nodes[receiver.at()].is_in_attempt() {
            return;
        }
        let failed = |why: &str| {
            let error = Error::new(Code::Unreachable, why);
            let event = scheduler::SchedulerEvent::OpenFailed { rail_pair, error };
            SimEvent::Member(receiver, participant::ParticipantEvent::Flow(event))
        };
        if let Some(until) = self.apart(receiver, sender) {
            let given_up = self.now + CONNECTED_WITHIN;
            if until < given_up {
                return self.at(until, SimEvent::FlowOpened { receiver, rail_pair, weight });
            }
            return self.at(given_up, failed("no answer"));
        }
        if !self.nodes[sender.at()].is_in_attempt() {
            return self.after(self.world.latency, failed("connection refused"));
        }
        let here = self.nodes[receiver.at()].next_flow();
        let there = self.nodes[sender.at()].next_flow();
        self.net.open(here, sender, receiver);
        let [from, to] = [sender, receiver]
            .map(|node| rail_pair.index as usize % self.nodes[node.at()].rails.len());
        let end = FlowEnd { peer: receiver, there: here };
        self.flow_up(sender, from, there, end, FlowDirection::Send { weight });
        self.follow(sender);
        let event = scheduler::SchedulerEvent::FlowUp { flow: here, rail_pair };
        self.nodes[receiver.at()].flow_rails.insert(here, to);
        self.participant(receiver, participant::ParticipantEvent::Flow(event));
        let relays = self.coordinator.relays(sender);
        let end = FlowEnd { peer: sender, there };
        self.flow_up(receiver, to, here, end, FlowDirection::Receive { relays });
        self.follow(receiver);
    }

    /// A rail takes in a flow, or closes it.
    fn flow_up(
        &mut self,
        node: NodeIx,
        rail: usize,
        flow: FlowIx,
        end: FlowEnd,
        direction: FlowDirection,
    ) {
        let now = self.now;
        let place = self.rail(node, rail).machine.flow_up(now, TRANSFER, flow, direction);
        let is_receiving = matches!(direction, FlowDirection::Receive { .. });
        let Some(place) = place else {
            if is_receiving {
                self.net.close(flow, node);
            }
            return self.tell_peer(end, is_receiving, "the flow was refused");
        };
        let socket = SimSocket {
            place,
            end,
            is_receiving,
            unread: VecDeque::new(),
            payload: None,
            is_awaited: false,
            requests: VecDeque::new(),
            sending: None,
        };
        self.rail(node, rail).sockets.insert(flow, socket);
    }

    /// The last byte of a message has left the sender.
    pub(super) fn through(&mut self, receiver: NodeIx, flow: FlowIx, message: FlowMessage) {
        let Some(rail) = self.rail_of(receiver, flow) else { return };
        let end = self.rail(receiver, rail).sockets[&flow].end;
        let (sender, latency) = (end.peer, self.world.latency);
        if let Some(from) = self.rail_of(sender, end.there) {
            let socket = self.rail(sender, from).sockets.get_mut(&end.there).expect("found above");
            let op = match socket.sending.take() {
                Some(SimSend::Piece(slot, route)) => {
                    let is_held = route == KernelRoute::Zerocopy && self.random.chance(900);
                    Some(KernelOp::Sent(slot, SendOutcome::Sent, is_held))
                }
                Some(SimSend::Refusal) => Some(KernelOp::RefusalSent(socket.place)),
                None => None,
            };
            if let Some(op) = op {
                self.at(self.now, SimEvent::Kernel { node: sender, rail: from, op });
            }
        }
        let arrived = SimEvent::Arrived { sender, receiver, flow, message };
        self.in_order(OrderedChannel::Data(receiver, flow), latency, arrived);
    }

    pub(super) fn arrived(&mut self, receiver: NodeIx, flow: FlowIx, message: FlowMessage) {
        let Some(rail) = self.rail_of(receiver, flow) else { return };
        if self.random.chance(self.world.faults.broken) {
            return self.break_flow(
                receiver,
                flow,
                Error::new(Code::Unreachable, "connection reset"),
            );
        }
        let socket = self.rail(receiver, rail).sockets.get_mut(&flow).expect("found above");
        socket.unread.push_back(message);
        self.read(receiver, rail, flow);
        self.follow(receiver);
    }

    /// Gives the machine what has arrived on a flow, if it waits for that.
    fn read(&mut self, node: NodeIx, rail: usize, flow: FlowIx) {
        let socket = self.rail(node, rail).sockets.get_mut(&flow).expect("called for one");
        let place = socket.place;
        if !socket.is_awaited {
            return;
        }
        if socket.is_receiving {
            let Some(FlowMessage { frame, payload }) = socket.unread.pop_front() else { return };
            (socket.is_awaited, socket.payload) = (false, payload);
            self.handle(node, rail, RailEvent::Header { flow: place, frame });
        } else if !socket.requests.is_empty() {
            socket.is_awaited = false;
            for frame in std::mem::take(&mut socket.requests) {
                self.handle(node, rail, RailEvent::Request { flow: place, frame });
            }
            self.handle(node, rail, RailEvent::RequestsRead { flow: place });
        }
    }

    fn receive_payload(&mut self, node: NodeIx, rail: usize, slot: SlotIx, landing: LandingPiece) {
        let state = self.rail(node, rail);
        let socket = state.sockets.get_mut(&landing.flow.flow).expect("it is closed after this");
        let payload = socket.payload.take().expect("a payload is behind its header");
        state.landing.insert(slot, (landing, payload));
        assert!(state.receives.insert(slot), "one operation at a time");
        if self.random.chance(250) {
            self.kernel_later(node, rail, Duration::ZERO, KernelOp::Payload(slot));
        } else {
            self.end_op(node, rail, KernelOp::Payload(slot));
        }
    }

    fn payload_done(&mut self, node: NodeIx, rail: usize, slot: SlotIx) -> RailEvent {
        let method = self.coordinator.terms().method;
        let state = self.rail(node, rail);
        state.receives.remove(&slot);
        let (landing, payload) = &state.landing[&slot];
        let intact = payload.is_intact(method, landing.piece.span, landing.check);
        RailEvent::PayloadDone { slot, outcome: PayloadOutcome::Whole { intact } }
    }

    fn write_done(&mut self, node: NodeIx, rail: usize, slot: SlotIx) -> RailEvent {
        let state = self.rail(node, rail);
        state.receives.remove(&slot);
        let (landing, payload) = state.landing.remove(&slot).expect("a payload was received");
        let piece = landing.piece;
        let state = &mut self.nodes[node.at()];
        let result = match self.random.chance(self.world.faults.unwritable) {
            false => state.disk.write(piece.span, &payload),
            true => Err(Error::new(Code::Data, "a piece cannot be written: Input/output error")),
        };
        if result.is_ok() && state.land(piece) {
            self.history.landed(self.now, piece.span.bytes());
        }
        RailEvent::WriteDone { slot, result }
    }

    fn read_done(
        &mut self,
        node: NodeIx,
        rail: usize,
        slot: SlotIx,
        loading: LoadingPiece,
        mode: ReadMode,
    ) -> RailEvent {
        let method = self.coordinator.terms().method;
        let takes_detour = self.random.chance(self.world.faults.detours);
        let is_readable = !self.random.chance(self.world.faults.unreadable);
        let request = loading.request;
        let state = &mut self.nodes[node.at()];
        state.rails[rail].sends.remove(&slot);
        let outcome = match mode {
            ReadMode::Splice | ReadMode::Cached if takes_detour => ReadOutcome::NotCached,
            ReadMode::Direct if takes_detour => ReadOutcome::NotDirect,
            _ if !is_readable => ReadOutcome::Failed(Code::Data),
            _ => match state.disk.read(method, request.span) {
                Ok((check, payload)) => {
                    let kind = FrameKind::Data(check);
                    let frame = Frame::new(kind, request.request, request.span);
                    state.rails[rail].sending.insert(slot, (frame, payload));
                    ReadOutcome::Loaded
                }
                Err(error) => ReadOutcome::Failed(error.code),
            },
        };
        RailEvent::ReadDone { slot, outcome }
    }

    fn send_piece(
        &mut self,
        node: NodeIx,
        rail: usize,
        (slot, flow): (SlotIx, FlowPlace),
        bytes: u64,
        route: KernelRoute,
    ) {
        let takes_detour = self.random.chance(self.world.faults.detours);
        let is_changed = self.random.chance(self.world.faults.changed);
        let chance = if is_changed { self.random.next_u64() } else { 0 };
        let state = &mut self.nodes[node.at()];
        let (frame, mut payload) = state.rails[rail].sending[&slot].clone();
        let span = frame.span();
        let has = covers(&state.offered, span) || state.landed.contains(&span);
        assert!(has, "node {} sends {span}, which it does not have", node.0);
        assert_eq!(span.bytes(), bytes, "what was read is sent");
        if is_changed {
            payload.change(chance);
        }
        let state = &mut state.rails[rail];
        assert!(state.sends.insert(slot), "one operation at a time");
        let refused = match route {
            KernelRoute::Zerocopy if takes_detour => Some(SendOutcome::NoZerocopy),
            KernelRoute::Splice if takes_detour => Some(SendOutcome::NotSpliced),
            _ => None,
        };
        if let Some(outcome) = refused {
            let is_held = route == KernelRoute::Zerocopy && chance_bit(slot);
            let op = KernelOp::Sent(slot, outcome, is_held);
            return self.kernel_later(node, rail, Duration::ZERO, op);
        }
        let socket = state.sockets.get_mut(&flow.flow).expect("it is closed after this");
        let before = socket.sending.replace(SimSend::Piece(slot, route));
        assert_eq!(before, None, "one send at a time");
        let end = socket.end;
        self.net.send(end.there, end.peer, bytes, FlowMessage { frame, payload: Some(payload) });
    }

    /// A flow breaks at one of its ends.
    pub(super) fn break_flow(&mut self, node: NodeIx, flow: FlowIx, error: Error) {
        if let Some(rail) = self.rail_of(node, flow) {
            let place = self.rail(node, rail).sockets[&flow].place;
            self.handle(node, rail, RailEvent::FlowBroken { flow: place, error });
            self.follow(node);
        }
    }

    /// A machine closes a flow; the peer hears of it. What is on the way gets there before, or does
    /// not.
    fn close_socket(&mut self, node: NodeIx, rail: usize, flow: FlowIx) {
        let Some(socket) = self.rail(node, rail).sockets.remove(&flow) else { return };
        if let Some(SimSend::Piece(slot, _)) = socket.sending {
            // The send that was under way ends with an error.
            let op = KernelOp::Sent(slot, SendOutcome::Broken, false);
            self.kernel_later(node, rail, Duration::ZERO, op);
        }
        let (end, is_receiving) = (socket.end, socket.is_receiving);
        if is_receiving {
            self.net.close(flow, node);
        } else if self.random.chance(500) {
            self.net.close(end.there, end.peer);
        }
        self.tell_peer(end, is_receiving, "the peer closed the flow");
    }

    fn tell_peer(&mut self, end: FlowEnd, is_receiving: bool, why: &str) {
        let (peer, flow) = (end.peer, end.there);
        let error = Error::new(Code::Unreachable, why);
        let closed = SimEvent::FlowClosed { node: peer, flow, error };
        if is_receiving {
            self.after(self.world.latency, closed);
        } else {
            self.in_order(OrderedChannel::Data(peer, flow), self.world.latency, closed);
        }
    }
}

/// Whether a refused send holds its slot: of every other slot it does.
fn chance_bit(slot: SlotIx) -> bool {
    slot.0.is_multiple_of(2)
}

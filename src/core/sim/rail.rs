//! One rail of a simulated node: its machine, its sockets, and what a kernel and a network do for
//! it.
//!
//! The machine is that of a real rail. Operations take the time of the simulated disks and links,
//! end in an order of their own, and fail where chance says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::context::{PACKET_BYTES, SimContext};
use super::disk::PiecePayload;
use super::messages::{
    FlowEnd, FlowMessage, FlowTransit, KernelOp, OrderedChannel, SimEvent, SimRailIx,
};
use super::transfer::SimTransfers;
use super::world::DiskUse;
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::rail::{
    CacheState, FlowPlace, KernelRoute, LandingPiece, LoadingPiece, PayloadOutcome, RailAction,
    RailEvent, RailMachine, ReadMode, ReadOutcome, SendOutcome, SlotIx,
};
use crate::core::receiver::flow_growth::PathReading;
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind};

/// Requests that leave in one send.
const REQUESTS_AT_ONCE: usize = 42;
/// One packet in so many is lost on a lossy path.
const LOST_ONE_IN: u64 = 200;
const KEPT: &str = "attempts are kept when they are over";

/// One rail of a node.
pub(super) struct SimRail {
    node: NodeIx,
    serial: SimRailIx,
    pub(super) machine: RailMachine,
    pub(super) port: usize,
    /// The transfers that it works for. It ends when there is none, and its kernel holds nothing.
    pub(super) transfers: BTreeSet<TransferIx>,
    pub(super) is_ending: bool,
    pub(super) sockets: BTreeMap<FlowIx, SimSocket>,
    /// The piece that is received into each slot.
    pub(super) landing: BTreeMap<SlotIx, (LandingPiece, PiecePayload)>,
    /// The piece that is sent from each slot.
    sending: BTreeMap<SlotIx, (Frame, PiecePayload)>,
    /// Slots of which the kernel has an operation, by direction.
    receives: BTreeSet<SlotIx>,
    sends: BTreeSet<SlotIx>,
}

/// One end of a flow.
pub(super) struct SimSocket {
    pub(super) transfer: TransferIx,
    pub(super) place: FlowPlace,
    pub(super) end: FlowEnd,
    pub(super) is_receiving: bool,
    /// Messages that have arrived and are not read.
    pub(super) unread: VecDeque<FlowMessage>,
    /// The payload behind a header that was read.
    pub(super) payload: Option<PiecePayload>,
    /// True if the machine waits for a header, or for requests.
    pub(super) is_awaited: bool,
    /// Requests that have arrived and are not read.
    pub(super) requests: VecDeque<Frame>,
    /// A send whose end has not come.
    pub(super) sending: Option<SimSend>,
    /// Bytes that have arrived.
    pub(super) received_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SimSend {
    Piece(SlotIx, KernelRoute),
    Refusal,
}

impl SimRail {
    pub(super) fn new(
        (node, port): (NodeIx, usize),
        serial: SimRailIx,
        slots: u32,
        block_bytes: u64,
    ) -> SimRail {
        SimRail {
            node,
            serial,
            machine: RailMachine::new(slots, block_bytes),
            port,
            transfers: BTreeSet::new(),
            is_ending: false,
            sockets: BTreeMap::new(),
            landing: BTreeMap::new(),
            sending: BTreeMap::new(),
            receives: BTreeSet::new(),
            sends: BTreeSet::new(),
        }
    }

    /// Returns true if the kernel has an operation of any slot.
    pub(super) fn is_busy(&self) -> bool {
        !self.receives.is_empty() || !self.sends.is_empty()
    }

    /// Every slot that the machine holds is lent to the kernel, or ready to be sent.
    ///
    /// # Panics
    /// If one is not: it would never come back.
    pub(super) fn check_slots(&self) {
        let lent = (self.receives.len(), self.sends.len());
        assert_eq!(self.machine.slots_at_work(), lent, "slots that receive, and that send");
    }

    /// Carries out an action of the machine.
    #[expect(clippy::needless_pass_by_value, reason = "an action is carried out once")]
    pub(super) fn carry_out(
        &mut self,
        cx: &mut SimContext,
        transfers: &mut SimTransfers,
        action: RailAction,
    ) {
        match action {
            RailAction::SendRequests { flow } => self.send_requests(cx, flow),
            RailAction::ReceiveHeader { flow } | RailAction::ReceiveRequests { flow } => {
                if let Some(socket) = self.sockets.get_mut(&flow.flow) {
                    assert!(!socket.is_awaited, "one receive at a time");
                    socket.is_awaited = true;
                    self.read(cx.now(), flow.flow);
                }
            }
            RailAction::ReceivePayload { slot, landing } => {
                self.receive_payload(cx, transfers, slot, landing);
            }
            RailAction::Write { slot, piece, .. } => {
                assert!(self.receives.insert(slot), "one operation at a time");
                let delay = cx.piece_seconds(self.node, DiskUse::Write, piece.bytes());
                self.kernel_later(cx, delay, KernelOp::Write(slot));
            }
            RailAction::Probe { slot, .. } => {
                let states =
                    [CacheState::Unknown, CacheState::Whole, CacheState::Dirty, CacheState::Clean];
                let is_known = cx.world.faults.detours > 0;
                let at = if is_known { cx.schedule.random.below(4) as usize } else { 0 };
                self.machine.handle(cx.now(), RailEvent::Probed { slot, cached: states[at] });
            }
            RailAction::Read { slot, loading, mode } => {
                assert!(self.sends.insert(slot), "one operation at a time");
                let bytes = loading.request.span.bytes();
                let delay = cx.piece_seconds(self.node, DiskUse::Read, bytes);
                self.kernel_later(cx, delay, KernelOp::Read(slot, loading, mode));
            }
            RailAction::Send { slot, flow, bytes, route, .. } => {
                self.send_piece(cx, transfers, (slot, flow), bytes, route);
            }
            RailAction::SendRefusal { flow, frame } => {
                if let Some(socket) = self.sockets.get_mut(&flow.flow) {
                    let before = socket.sending.replace(SimSend::Refusal);
                    assert_eq!(before, None, "one send at a time");
                    let end = socket.end;
                    let message = FlowMessage { frame, payload: None };
                    self.put_on_wire(cx, end, flow.flow, FRAME_BYTES as u64, message);
                }
            }
            RailAction::ReadPath { flow } => {
                let reading = self.read_path(cx, flow.flow);
                self.machine.handle(cx.now(), RailEvent::PathRead { flow, reading });
            }
            RailAction::CloseFlow { flow } => self.close_socket(cx, flow.flow),
            RailAction::SetUnsentMax { .. }
            | RailAction::NoteFallback { .. }
            | RailAction::Forget { .. } => {}
        }
    }

    /// Reads the path of a flow, where it loses packets.
    fn read_path(&self, cx: &SimContext, flow: FlowIx) -> Option<PathReading> {
        let delay = cx.world.lossy?.delay;
        let bytes = self.sockets.get(&flow)?.received_bytes;
        let late_packets = bytes / PACKET_BYTES / LOST_ONE_IN;
        Some(PathReading { delay, delay_min: delay, bytes, late_packets })
    }

    fn put_on_wire(
        &self,
        cx: &mut SimContext,
        end: FlowEnd,
        from: FlowIx,
        bytes: u64,
        message: FlowMessage,
    ) {
        let transit = FlowTransit { sender: self.node, from, message };
        cx.net.send(end.there, end.peer, bytes, transit);
    }

    fn kernel_later(&self, cx: &mut SimContext, delay: Duration, op: KernelOp) {
        cx.after(delay, SimEvent::Kernel { node: self.node, rail: self.serial, op });
    }

    /// An operation of the kernel has ended.
    #[expect(clippy::needless_pass_by_value, reason = "an operation ends once")]
    pub(super) fn end_op(
        &mut self,
        cx: &mut SimContext,
        transfers: &mut SimTransfers,
        op: KernelOp,
    ) {
        let event = match op {
            KernelOp::RequestsSent(flow) => RailEvent::RequestsSent { flow },
            KernelOp::RefusalSent(flow) => RailEvent::RefusalSent { flow },
            KernelOp::Payload(slot) => self.payload_done(cx.now(), transfers, slot),
            KernelOp::Write(slot) => self.write_done(cx, transfers, slot),
            KernelOp::Read(slot, loading, mode) => {
                self.read_done(cx, transfers, slot, loading, mode)
            }
            KernelOp::Sent(slot, outcome, is_held) => {
                if is_held {
                    let delay = 2 * cx.world.latency;
                    self.kernel_later(cx, delay, KernelOp::Released(slot));
                } else {
                    self.sends.remove(&slot);
                }
                RailEvent::SendDone { slot, outcome, is_held }
            }
            KernelOp::Released(slot) => {
                self.sends.remove(&slot);
                let copied = cx.chance(cx.world.faults.detours);
                RailEvent::SlotReleased { slot, copied }
            }
        };
        self.machine.handle(cx.now(), event);
    }

    fn send_requests(&mut self, cx: &mut SimContext, flow: FlowPlace) {
        let frames = std::iter::from_fn(|| self.machine.poll_request(flow));
        let frames: Vec<Frame> = frames.take(REQUESTS_AT_ONCE).collect();
        let Some(end) = self.sockets.get(&flow.flow).map(|socket| socket.end) else { return };
        for frame in frames {
            let (receiver, sender) = (self.node, end.peer);
            let request = SimEvent::Request { receiver, sender, flow: end.there, frame };
            let channel = OrderedChannel::Requests(receiver, flow.flow);
            cx.schedule.in_order(channel, cx.world.latency, request);
        }
        self.kernel_later(cx, Duration::ZERO, KernelOp::RequestsSent(flow));
    }

    /// Gives the machine what has arrived on a flow, if it waits for that.
    pub(super) fn read(&mut self, now: Moment, flow: FlowIx) {
        let socket = self.sockets.get_mut(&flow).expect("called for one");
        let place = socket.place;
        if !socket.is_awaited {
            return;
        }
        if socket.is_receiving {
            let Some(FlowMessage { frame, payload }) = socket.unread.pop_front() else { return };
            (socket.is_awaited, socket.payload) = (false, payload);
            self.machine.handle(now, RailEvent::Header { flow: place, frame });
        } else if !socket.requests.is_empty() {
            socket.is_awaited = false;
            for frame in std::mem::take(&mut socket.requests) {
                self.machine.handle(now, RailEvent::Request { flow: place, frame });
            }
            self.machine.handle(now, RailEvent::RequestsRead { flow: place });
        }
    }

    fn receive_payload(
        &mut self,
        cx: &mut SimContext,
        transfers: &mut SimTransfers,
        slot: SlotIx,
        landing: LandingPiece,
    ) {
        let socket = self.sockets.get_mut(&landing.flow.flow).expect("it is closed after this");
        let payload = socket.payload.take().expect("a payload is behind its header");
        self.landing.insert(slot, (landing, payload));
        assert!(self.receives.insert(slot), "one operation at a time");
        if cx.chance(250) {
            self.kernel_later(cx, Duration::ZERO, KernelOp::Payload(slot));
        } else {
            self.end_op(cx, transfers, KernelOp::Payload(slot));
        }
    }

    fn payload_done(
        &mut self,
        now: Moment,
        transfers: &mut SimTransfers,
        slot: SlotIx,
    ) -> RailEvent {
        self.receives.remove(&slot);
        let (landing, payload) = &self.landing[&slot];
        let transfer = transfers.get_mut(&landing.transfer).expect(KEPT);
        transfer.count_received(now, landing.piece.span.bytes());
        let intact = payload.is_intact(transfer.method, landing.piece.span, landing.check);
        let check = intact.then_some(landing.check);
        RailEvent::PayloadDone { slot, outcome: PayloadOutcome::Whole { check } }
    }

    fn write_done(
        &mut self,
        cx: &mut SimContext,
        transfers: &mut SimTransfers,
        slot: SlotIx,
    ) -> RailEvent {
        let is_unwritable = cx.chance(cx.world.faults.unwritable);
        self.receives.remove(&slot);
        let (landing, payload) = self.landing.remove(&slot).expect("a payload was received");
        let piece = landing.piece;
        let transfer = transfers.get_mut(&landing.transfer).expect(KEPT);
        let result = match &transfer.disk {
            // The files were let go of: nothing reaches them.
            None => Err(Error::new(Code::Cancelled, "the transfer is over")),
            Some(_) if is_unwritable => {
                Err(Error::new(Code::Data, "a piece cannot be written: Input/output error"))
            }
            Some(disk) => disk.borrow_mut().write(piece.span, &payload),
        };
        if result.is_ok() && transfer.land(piece) {
            cx.history.landed(cx.schedule.now, piece.span.bytes());
        }
        RailEvent::WriteDone { slot, result }
    }

    fn read_done(
        &mut self,
        cx: &mut SimContext,
        transfers: &SimTransfers,
        slot: SlotIx,
        loading: LoadingPiece,
        mode: ReadMode,
    ) -> RailEvent {
        let takes_detour = cx.chance(cx.world.faults.detours);
        let is_readable = !cx.chance(cx.world.faults.unreadable);
        let request = loading.request;
        self.sends.remove(&slot);
        let transfer = &transfers[&loading.transfer];
        let outcome = match (mode, &transfer.disk) {
            (ReadMode::Splice | ReadMode::Cached, _) if takes_detour => ReadOutcome::NotCached,
            (ReadMode::Direct, _) if takes_detour => ReadOutcome::NotDirect,
            (_, Some(disk)) if is_readable => {
                let read = disk.borrow_mut().read(transfer.method, request.span);
                match read {
                    Ok((check, payload)) => {
                        let kind = FrameKind::Data(check);
                        let frame = Frame::new(kind, request.request, request.span);
                        self.sending.insert(slot, (frame, payload));
                        ReadOutcome::Loaded
                    }
                    Err(error) => ReadOutcome::Failed(error.code),
                }
            }
            _ => ReadOutcome::Failed(Code::Data),
        };
        RailEvent::ReadDone { slot, outcome }
    }

    fn send_piece(
        &mut self,
        cx: &mut SimContext,
        transfers: &mut SimTransfers,
        (slot, flow): (SlotIx, FlowPlace),
        bytes: u64,
        route: KernelRoute,
    ) {
        let takes_detour = cx.chance(cx.world.faults.detours);
        let is_changed = cx.chance(cx.world.faults.changed) || cx.has_changed_packet(bytes);
        let chance = if is_changed { cx.schedule.random.next_u64() } else { 0 };
        let (frame, mut payload) = self.sending[&slot].clone();
        let span = frame.span();
        assert_eq!(span.bytes(), bytes, "what was read is sent");
        if is_changed {
            payload.change(chance);
        }
        assert!(self.sends.insert(slot), "one operation at a time");
        let refused = match route {
            KernelRoute::Zerocopy if takes_detour => Some(SendOutcome::NoZerocopy),
            KernelRoute::Splice if takes_detour => Some(SendOutcome::NotSpliced),
            _ => None,
        };
        if let Some(outcome) = refused {
            // Of every other slot a refused send holds its slot.
            let is_held = route == KernelRoute::Zerocopy && slot.0.is_multiple_of(2);
            let op = KernelOp::Sent(slot, outcome, is_held);
            return self.kernel_later(cx, Duration::ZERO, op);
        }
        let socket = self.sockets.get_mut(&flow.flow).expect("it is closed after this");
        let before = socket.sending.replace(SimSend::Piece(slot, route));
        assert_eq!(before, None, "one send at a time");
        let end = socket.end;
        let transfer = transfers.get_mut(&socket.transfer).expect(KEPT);
        assert!(transfer.has(span), "node {} sends {span}, which it does not have", self.node.0);
        transfer.count_sent(cx.now(), bytes);
        let message = FlowMessage { frame, payload: Some(payload) };
        self.put_on_wire(cx, end, flow.flow, bytes, message);
    }

    /// A machine closes a flow; the peer hears of it. What is on the way gets there before, or does
    /// not.
    fn close_socket(&mut self, cx: &mut SimContext, flow: FlowIx) {
        let Some(socket) = self.sockets.remove(&flow) else { return };
        if let Some(SimSend::Piece(slot, _)) = socket.sending {
            // The send that was under way ends with an error.
            let op = KernelOp::Sent(slot, SendOutcome::Broken, false);
            self.kernel_later(cx, Duration::ZERO, op);
        }
        let (end, is_receiving) = (socket.end, socket.is_receiving);
        if is_receiving {
            cx.net.close(flow, self.node);
        } else if cx.chance(500) {
            cx.net.close(end.there, end.peer);
        }
        tell_peer(cx, end, is_receiving, "the peer closed the flow");
    }
}

impl SimSocket {
    pub(super) fn new(
        transfer: TransferIx,
        place: FlowPlace,
        end: FlowEnd,
        is_receiving: bool,
    ) -> SimSocket {
        SimSocket {
            transfer,
            place,
            end,
            is_receiving,
            received_bytes: 0,
            unread: VecDeque::new(),
            payload: None,
            is_awaited: false,
            requests: VecDeque::new(),
            sending: None,
        }
    }
}

/// The peer of a flow that is closed finds out.
pub(super) fn tell_peer(cx: &mut SimContext, end: FlowEnd, is_receiving: bool, why: &str) {
    let (peer, flow) = (end.peer, end.there);
    let error = Error::new(Code::Unreachable, why);
    let closed = SimEvent::FlowClosed { node: peer, flow, error };
    if is_receiving {
        cx.after(cx.world.latency, closed);
    } else {
        cx.schedule.in_order(OrderedChannel::Data(peer, flow), cx.world.latency, closed);
    }
}

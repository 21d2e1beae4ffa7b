//! The receiving half of a rail: requests out, headers and payloads in, pieces written.
//!
//! A slot is bound when the header of a piece has arrived and its transfer holds less than its
//! part of them; until then the flow is not read, so that TCP holds the sender back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use super::flow_credit::REQUESTS_MAX;
use super::flow_table::{FLOWS_MAX, FlowPlace, FlowTable};
use super::messages::{LandingPiece, PayloadOutcome, RailAction, RailNotice};
use super::piece_receiver::{PieceReceiver, ReceiverAction, ReceiverEvent, SenderAnswer};
use super::report_queue::ReportQueue;
use super::slot_table::{SlotIx, SlotTable};
use crate::core::check::CheckMethod;
use crate::core::error::{Code, Error, Result};
use crate::core::options::DataPath;
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::receiver::flow_growth::PathReading;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::{Moment, Span, covers};
use crate::core::wire::Frame;
use crate::core::wire::frame::FrameKind;

/// Time between two looks at the path of a flow.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct ReceivingRail {
    transfers: BTreeMap<TransferIx, ReceivingTransfer>,
    flows: FlowTable<ReceivingFlow>,
    slots: SlotTable,
    /// Content of each slot.
    landing: Vec<Option<(LandingStage, LandingPiece)>>,
    /// Pieces whose header has arrived and that wait for a slot. A flow has one at most.
    parked: VecDeque<LandingPiece>,
    actions: VecDeque<RailAction>,
    reports: ReportQueue,
}

/// One transfer that this rail receives for.
struct ReceivingTransfer {
    receiver: PieceReceiver,
    path: DataPath,
    /// Ranges that other receivers will request, once they are known. The first plan's: a new one
    /// assigns what is left otherwise, and the scheduler says what has landed.
    relays: Option<Vec<Span>>,
    is_draining: bool,
}

/// A flow to a sender.
#[derive(Debug)]
struct ReceivingFlow {
    /// Requests that have not left. Bounded by the flow's credit.
    requests: VecDeque<Frame>,
    /// True while a send of requests is under way.
    is_sending: bool,
    /// The moment at which its path is read next; never again where it is near.
    look_at: Option<Moment>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LandingStage {
    Receiving,
    Writing,
}

impl ReceivingTransfer {
    fn relays(&self, piece: Span) -> bool {
        self.relays.as_ref().is_some_and(|relays| covers(relays, piece))
    }
}

impl ReceivingRail {
    pub(super) fn new(slots: u32) -> ReceivingRail {
        ReceivingRail {
            transfers: BTreeMap::new(),
            flows: FlowTable::new(0),
            slots: SlotTable::new(slots),
            landing: vec![None; slots as usize],
            parked: VecDeque::with_capacity(FLOWS_MAX),
            actions: VecDeque::with_capacity(4 * FLOWS_MAX),
            reports: ReportQueue::new(),
        }
    }

    pub(super) fn join(
        &mut self,
        transfer: TransferIx,
        (method, path): (CheckMethod, DataPath),
        silence: Duration,
    ) {
        let receiver = PieceReceiver::new(method, silence);
        let state = ReceivingTransfer { receiver, path, relays: None, is_draining: false };
        self.transfers.insert(transfer, state);
    }

    pub(super) fn set_relays(&mut self, transfer: TransferIx, spans: Vec<Span>) {
        if let Some(state) = self.transfers.get_mut(&transfer) {
            state.relays.get_or_insert(spans);
        }
    }

    pub(super) fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Takes in a flow to a sender, or says that it cannot.
    pub(super) fn flow_up(
        &mut self,
        now: Moment,
        (transfer, flow): (TransferIx, FlowIx),
        relays: bool,
        has_room: bool,
    ) -> Option<FlowPlace> {
        let state = self.transfers.get_mut(&transfer).filter(|it| has_room && !it.is_draining);
        let requests = VecDeque::with_capacity(REQUESTS_MAX as usize);
        let idle = ReceivingFlow { requests, is_sending: false, look_at: Some(now + LOOK_EVERY) };
        let placed =
            state.and_then(|state| Some((self.flows.insert(flow, transfer, idle)?, state)));
        let Some((place, state)) = placed else {
            let error = Error::new(Code::Unreachable, "this rail has no room for another flow");
            self.tell(now, transfer, SchedulerEvent::FlowDown { flow, error });
            return None;
        };
        self.slots.flow_up(transfer);
        state.receiver.handle(now, ReceiverEvent::FlowUp { flow, relays });
        self.actions.push_back(RailAction::ReceiveHeader { flow: place });
        self.settle(now);
        Some(place)
    }

    /// Hands an event to the receiver of a transfer.
    pub(super) fn receiver(&mut self, now: Moment, transfer: TransferIx, event: ReceiverEvent) {
        if let Some(state) = self.transfers.get_mut(&transfer) {
            state.receiver.handle(now, event);
        }
        self.settle(now);
    }

    pub(super) fn find(&self, flow: FlowIx) -> Option<FlowPlace> {
        self.flows.find(flow)
    }

    pub(super) fn drain(&mut self, now: Moment, transfer: TransferIx) {
        self.close_all(now, transfer, "everything has landed");
        if let Some(state) = self.transfers.get_mut(&transfer) {
            state.is_draining = true;
            self.drained(transfer);
        } else {
            self.reports.push(RailNotice::Drained { transfer });
        }
    }

    pub(super) fn leave(&mut self, now: Moment, transfer: TransferIx) {
        self.close_all(now, transfer, "the transfer is over");
        self.transfers.remove(&transfer);
    }

    pub(super) fn close(&mut self, now: Moment, place: FlowPlace, error: Error) {
        self.drop_flow(now, place, error);
        self.settle(now);
    }

    /// The next request that goes out on a flow.
    pub(super) fn poll_request(&mut self, place: FlowPlace) -> Option<Frame> {
        self.flows.get(place)?.1.requests.pop_front()
    }

    pub(super) fn requests_sent(&mut self, place: FlowPlace) {
        if let Some((_, flow)) = self.flows.get(place) {
            flow.is_sending = false;
            self.send_requests(place);
        }
    }

    /// The path of a flow was read. The scheduler hears of those that are far.
    pub(super) fn path_read(
        &mut self,
        now: Moment,
        place: FlowPlace,
        reading: Option<PathReading>,
    ) {
        let Some(reading) = reading.filter(PathReading::is_far) else { return };
        if let Some((transfer, flow)) = self.flows.get(place) {
            flow.look_at = Some(now + LOOK_EVERY);
            self.tell(now, transfer, SchedulerEvent::PathRead { flow: place.flow, reading });
        }
    }

    pub(super) fn header(&mut self, now: Moment, place: FlowPlace, frame: Frame) {
        let Some((transfer, _)) = self.flows.get(place) else { return };
        let (request, span) = (frame.request, frame.span());
        let answer = match frame.kind {
            FrameKind::Data(check) => SenderAnswer::Data { request, span, check },
            FrameKind::Refuse(code) => SenderAnswer::Refuse { request, span, code },
            FrameKind::Request { .. } => {
                let error = Error::new(Code::Internal, "the sender asks instead of answering");
                return self.close(now, place, error);
            }
        };
        let is_refused = matches!(answer, SenderAnswer::Refuse { .. });
        self.receiver(now, transfer, ReceiverEvent::Answer { flow: place.flow, answer });
        if is_refused && self.flows.get(place).is_some() {
            self.actions.push_back(RailAction::ReceiveHeader { flow: place });
        }
    }

    pub(super) fn payload_done(&mut self, now: Moment, slot: SlotIx, outcome: PayloadOutcome) {
        let landing = self.landing_in(slot, LandingStage::Receiving);
        let LandingPiece { transfer, flow, piece, .. } = landing;
        match outcome {
            PayloadOutcome::Whole { check } if self.flows.get(flow).is_some() => {
                let intact = check.is_some();
                let event = ReceiverEvent::Received { flow: flow.flow, piece, intact };
                // The next header is awaited before the machine asks for more.
                self.actions.push_back(RailAction::ReceiveHeader { flow });
                if let Some(check) = check {
                    let landing = LandingPiece { check, ..landing };
                    self.landing[slot.at()] = Some((LandingStage::Writing, landing));
                    let cached = self.is_passed_on(transfer, piece.span);
                    let piece = piece.span;
                    self.actions.push_back(RailAction::Write { slot, transfer, piece, cached });
                } else {
                    self.free(slot, transfer);
                }
                self.receiver(now, transfer, event);
            }
            // Its flow is gone: the piece has gone back to the scheduler.
            PayloadOutcome::Whole { .. } => self.free(slot, transfer),
            PayloadOutcome::Broken(error) => {
                self.free(slot, transfer);
                self.close(now, flow, error);
            }
        }
    }

    /// A piece is written, or not. Returns it where other receivers will ask for it.
    pub(super) fn write_done(
        &mut self,
        now: Moment,
        slot: SlotIx,
        result: Result<()>,
    ) -> Option<(TransferIx, Span)> {
        let landing = self.landing_in(slot, LandingStage::Writing);
        let LandingPiece { transfer, flow, piece, check } = landing;
        let is_ours = self.transfers.contains_key(&transfer);
        let mut passed_on = None;
        match result {
            Ok(()) if is_ours => {
                // A piece that arrives in parts is passed on once the scheduler has all of it.
                let is_passed_on = self.transfers.get(&transfer).is_some_and(|it| {
                    it.relays(piece.span) && !it.receiver.is_part(flow.flow, piece.span)
                });
                let event = ReceiverEvent::Written { flow: flow.flow, piece, check };
                self.receiver(now, transfer, event);
                if is_passed_on {
                    // Flows of the other rails wait for it too, and hear of it from the scheduler.
                    self.reports.hurry();
                    passed_on = Some((transfer, piece.span));
                }
            }
            Err(error) if is_ours => self.reports.push(RailNotice::Broken { transfer, error }),
            Ok(()) | Err(_) => {}
        }
        self.free(slot, transfer);
        passed_on
    }

    pub(super) fn poll_action(&mut self) -> Option<RailAction> {
        self.actions.pop_front()
    }

    pub(super) fn poll_report(&mut self) -> Option<RailNotice> {
        let is_quiet = || self.transfers.values().all(|it| !it.receiver.owes());
        self.reports.poll(self.slots.held() == 0 && is_quiet())
    }

    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        let receivers = self.transfers.values().filter_map(|state| state.receiver.poll_timeout());
        let looks = self.flows.states().filter_map(|flow| flow.look_at);
        receivers.chain(self.reports.poll_timeout()).chain(looks).min()
    }

    pub(super) fn tick(&mut self, now: Moment) {
        self.reports.tick(now);
        for (flow, state) in self.flows.states_mut() {
            if state.look_at.take_if(|due| now >= *due).is_some() {
                self.actions.push_back(RailAction::ReadPath { flow });
            }
        }
        for state in self.transfers.values_mut() {
            if state.receiver.poll_timeout().is_some_and(|due| now >= due) {
                state.receiver.handle(now, ReceiverEvent::Tick);
            }
        }
        self.settle(now);
    }

    /// Slots that an operation has.
    ///
    /// # Panics
    /// If a slot is held that holds nothing: it would never come back.
    pub(super) fn slots_at_work(&self) -> usize {
        let at_work = self.landing.iter().flatten().count();
        assert_eq!(at_work, self.slots.held() as usize, "a slot is held for a piece");
        at_work
    }

    /// Asks the receivers of all transfers what they want, until none wants anything.
    fn settle(&mut self, now: Moment) {
        let mut next = self.transfers.first_key_value().map(|(&transfer, _)| transfer);
        while let Some(transfer) = next {
            while let Some(state) = self.transfers.get_mut(&transfer) {
                if let Some(event) = state.receiver.poll_scheduler() {
                    self.tell(now, transfer, event);
                } else if let Some(action) = state.receiver.poll_action() {
                    self.carry_out(now, transfer, action);
                } else {
                    break;
                }
            }
            let after = (Bound::Excluded(transfer), Bound::Unbounded);
            next = self.transfers.range(after).next().map(|(&transfer, _)| transfer);
        }
    }

    fn carry_out(&mut self, now: Moment, transfer: TransferIx, action: ReceiverAction) {
        match action {
            ReceiverAction::Request { flow, request, piece } => {
                let Some(place) = self.flows.find(flow) else { return };
                let Some((_, state)) = self.flows.get(place) else { return };
                let kind = FrameKind::Request { stolen: piece.stolen };
                let frame = Frame::new(kind, request, piece.span);
                state.requests.push_back(frame);
                self.send_requests(place);
            }
            ReceiverAction::Land { flow, piece, check } => {
                let Some(flow) = self.flows.find(flow) else { return };
                self.parked.push_back(LandingPiece { transfer, flow, piece, check });
                self.land_parked();
            }
            ReceiverAction::Close { flow, error } => {
                if let Some(place) = self.flows.find(flow) {
                    self.drop_flow(now, place, error);
                }
            }
        }
    }

    /// Has the requests sent that wait on a flow, one send at a time.
    fn send_requests(&mut self, place: FlowPlace) {
        let Some((_, flow)) = self.flows.get(place) else { return };
        if !flow.is_sending && !flow.requests.is_empty() {
            flow.is_sending = true;
            self.actions.push_back(RailAction::SendRequests { flow: place });
        }
    }

    /// Binds free slots to pieces that wait for one, first come first served among the transfers
    /// that hold less than their part.
    fn land_parked(&mut self) {
        while let Some(at) = self.parked.iter().position(|it| self.slots.has_room(it.transfer)) {
            let landing = self.parked.remove(at).expect("found above");
            let slot = self.slots.take(landing.transfer).expect("it has room");
            self.landing[slot.at()] = Some((LandingStage::Receiving, landing));
            self.actions.push_back(RailAction::ReceivePayload { slot, landing });
        }
    }

    fn landing_in(&self, slot: SlotIx, expected: LandingStage) -> LandingPiece {
        let (stage, landing) = self.landing[slot.at()].expect("a piece is in the slot");
        assert_eq!(stage, expected, "an operation on a slot ends once");
        landing
    }

    fn free(&mut self, slot: SlotIx, transfer: TransferIx) {
        self.landing[slot.at()] = None;
        self.slots.give_back(slot);
        self.drained(transfer);
        self.land_parked();
        let owes = || self.transfers.get(&transfer).is_some_and(|it| it.receiver.owes());
        if self.slots.held_by(transfer) == 0 && !owes() {
            // No piece of this transfer is about to land. Those of others may hang.
            self.reports.hurry();
        }
    }

    /// Reports that a draining transfer has nothing in a slot any more.
    fn drained(&mut self, transfer: TransferIx) {
        let Some(state) = self.transfers.get_mut(&transfer) else { return };
        if state.is_draining && self.slots.held_by(transfer) == 0 {
            state.is_draining = false;
            self.reports.push(RailNotice::Drained { transfer });
        }
    }

    fn close_all(&mut self, now: Moment, transfer: TransferIx, why: &str) {
        while let Some(place) = self.flows.first_of(transfer) {
            self.close(now, place, Error::new(Code::Cancelled, why));
        }
    }

    fn drop_flow(&mut self, now: Moment, place: FlowPlace, error: Error) {
        let Some((transfer, _)) = self.flows.remove(place) else { return };
        self.parked.retain(|landing| landing.flow != place);
        self.slots.flow_down(transfer);
        self.actions.push_back(RailAction::CloseFlow { flow: place });
        if let Some(state) = self.transfers.get_mut(&transfer) {
            state.receiver.handle(now, ReceiverEvent::FlowDown { flow: place.flow, error });
        }
        // Another flow may have the awaited slot now.
        self.land_parked();
    }

    /// Returns true if a piece is read again at once, as often as others request it.
    fn is_passed_on(&self, transfer: TransferIx, piece: Span) -> bool {
        let state = self.transfers.get(&transfer);
        state.is_some_and(|it| it.path != DataPath::Direct && it.relays(piece))
    }

    fn tell(&mut self, now: Moment, transfer: TransferIx, event: SchedulerEvent) {
        self.reports.push_event(now, transfer, event);
    }
}

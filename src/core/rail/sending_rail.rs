//! The sending half of a rail: requests in, pieces read, checked and sent behind their headers.
//!
//! A send without a copy has two ends: its result, after which the flow goes on, and the
//! notification that its slot is free. What is sent while many wait for one is copied.

use std::collections::{BTreeMap, VecDeque};

use super::flow_table::{FLOWS_MAX, FlowPlace, FlowTable};
use super::loading_table::{LoadingStage, LoadingTable};
use super::messages::{KernelRoute, LoadingPiece, RailAction, ReadOutcome, SendOutcome};
use super::piece_map::{PieceLocation, PieceMap, SourceKind};
use super::piece_sender::{
    FLOW_REQUESTS_MAX, PieceRequest, PieceSender, SenderAction, SenderEvent,
};
use super::read_mode::{self, CacheState, FallbackReason, ReadMode};
use super::relay_queue::{RelayDecision, RelayQueue};
use super::slot_table::SlotIx;
use crate::core::error::Code;
use crate::core::options::DataPath;
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::units::Span;
use crate::core::wire::Frame;
use crate::core::wire::frame::FrameKind;

/// Bytes that may wait unsent in the sockets of all flows that send: enough that none runs dry
/// before the rail comes round.
const UNSENT_BYTES: usize = 1 << 20;
/// The same for one of them: a wake for less costs more than what is sent by it.
const UNSENT_BYTES_MIN: usize = 32 * 1024;

pub(super) struct SendingRail {
    block_bytes: u64,
    transfers: BTreeMap<TransferIx, SendingTransfer>,
    flows: FlowTable<SendingFlow>,
    sender: PieceSender,
    loading: LoadingTable,
    /// Bytes that each flow may keep unsent in its socket.
    unsent_bytes: usize,
    actions: VecDeque<RailAction>,
}

/// One transfer that this rail sends for.
struct SendingTransfer {
    map: PieceMap,
    relay: RelayQueue,
    /// True if a splice got fewer bytes than the file has: pieces are read from then on.
    splice_failed: bool,
}

/// A flow from a receiver.
#[derive(Debug)]
struct SendingFlow {
    /// Answers that have not left.
    answers: VecDeque<QueuedAnswer>,
    /// True while a send is under way.
    is_sending: bool,
    /// True if the kernel copies zero-copy sends on this flow.
    copies: bool,
    /// True if its frames leave as they are: pieces may be sent from the page cache.
    in_clear: bool,
}

#[derive(Clone, Copy, Debug)]
enum QueuedAnswer {
    Piece(SlotIx),
    Refusal(PieceRequest, Code),
}

impl SendingRail {
    pub(super) fn new(slots: u32, block_bytes: u64) -> SendingRail {
        SendingRail {
            block_bytes,
            transfers: BTreeMap::new(),
            flows: FlowTable::new(FLOWS_MAX),
            sender: PieceSender::new(slots),
            loading: LoadingTable::new(slots),
            unsent_bytes: UNSENT_BYTES,
            actions: VecDeque::with_capacity(4 * FLOWS_MAX),
        }
    }

    pub(super) fn join(&mut self, transfer: TransferIx, map: PieceMap) {
        let lacks_direct = |kind: SourceKind| kind == SourceKind::File { direct: false };
        let sources = map.sources.iter().map(|source| source.kind);
        let destinations = map.destinations.iter();
        let destinations = destinations.map(|it| SourceKind::File { direct: it.direct });
        if map.path == DataPath::Direct && sources.chain(destinations).any(lacks_direct) {
            self.note(transfer, FallbackReason::NoDirect);
        }
        let state = SendingTransfer { map, relay: RelayQueue::default(), splice_failed: false };
        self.transfers.insert(transfer, state);
    }

    pub(super) fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Takes in a flow from a receiver, or says that it cannot.
    pub(super) fn flow_up(
        &mut self,
        (transfer, flow): (TransferIx, FlowIx),
        (weight, in_clear, is_further): (u64, bool, bool),
        has_room: bool,
    ) -> Option<FlowPlace> {
        if !has_room || !self.transfers.contains_key(&transfer) {
            return None;
        }
        let answers = VecDeque::with_capacity(FLOW_REQUESTS_MAX + 1);
        let state = SendingFlow { answers, is_sending: false, copies: false, in_clear };
        let place = self.flows.insert(flow, transfer, state)?;
        self.sender.handle(SenderEvent::FlowUp { flow, transfer, weight, is_further });
        self.keep_unsent(Some(place));
        self.actions.push_back(RailAction::ReceiveRequests { flow: place });
        self.settle();
        Some(place)
    }

    pub(super) fn leave(&mut self, transfer: TransferIx) {
        while let Some(place) = self.flows.first_of(transfer) {
            self.close(place);
        }
        self.transfers.remove(&transfer);
    }

    /// A piece has landed, over this rail or another one: who waited for it is served.
    pub(super) fn offer(&mut self, transfer: TransferIx, span: Span) {
        let Some(state) = self.transfers.get_mut(&transfer) else { return };
        state.relay.land(span);
        while let Some((flow, ask)) = state.relay.poll_ready() {
            self.sender.handle(SenderEvent::Request { flow, ask });
        }
        self.settle();
    }

    /// A piece will never land here: who waited for it is told.
    pub(super) fn withdraw(&mut self, transfer: TransferIx, span: Span) {
        let Some(state) = self.transfers.get_mut(&transfer) else { return };
        for (flow, ask) in state.relay.give_up(span) {
            if let Some(place) = self.flows.find(flow) {
                self.answer(place, QueuedAnswer::Refusal(ask, Code::Data));
            }
        }
        self.settle();
    }

    /// A receiver asks for a piece. One that has yet to land here waits for that.
    pub(super) fn request(&mut self, place: FlowPlace, frame: Frame) {
        let Some((transfer, _)) = self.flows.get(place) else { return };
        let state = self.transfers.get_mut(&transfer).expect("a flow is of a transfer that is on");
        let span = frame.span();
        let stolen = match frame.kind {
            FrameKind::Request { stolen } if self.block_bytes >= span.bytes() => stolen,
            // The request does not match a piece.
            _ => return self.close(place),
        };
        if !state.map.method.takes(span) {
            return self.close(place);
        }
        let ask = PieceRequest { request: frame.request, span, stolen };
        let lands = matches!(state.map.locate(span), Some(PieceLocation::Destination(_)));
        let decision =
            if lands { state.relay.ask(place.flow, ask) } else { Ok(RelayDecision::Ready) };
        match decision {
            Ok(RelayDecision::Ready) => {
                self.sender.handle(SenderEvent::Request { flow: place.flow, ask });
            }
            Ok(RelayDecision::Waits) => {}
            Ok(RelayDecision::Never) => {
                self.answer(place, QueuedAnswer::Refusal(ask, Code::Data));
            }
            Err(_) => self.drop_flow(place),
        }
        self.settle();
    }

    pub(super) fn requests_read(&mut self, place: FlowPlace) {
        if self.flows.get(place).is_some() {
            self.actions.push_back(RailAction::ReceiveRequests { flow: place });
        }
    }

    /// The page cache holds so much of a piece.
    pub(super) fn probed(&mut self, slot: SlotIx, cached: CacheState) {
        let loading = self.loading.probing(slot);
        let Some(state) = self.transfers.get(&loading.transfer) else {
            return self.load_failed(slot, Code::Cancelled);
        };
        let in_clear = self.flows.get(loading.flow).is_none_or(|(_, flow)| flow.in_clear);
        let (path, splices) = (state.map.path, in_clear && !state.splice_failed);
        let mode = read_mode::after_probe(path, state.map.kind(loading.location), cached, splices);
        if path == DataPath::Splice && !in_clear {
            self.note(loading.transfer, FallbackReason::NotClear);
        }
        if matches!(cached, CacheState::Clean | CacheState::Dirty) && path == DataPath::Splice {
            self.note(loading.transfer, FallbackReason::NotCached);
        }
        self.read(slot, loading, mode);
    }

    pub(super) fn read_done(&mut self, slot: SlotIx, outcome: ReadOutcome) {
        let (mode, loading) = self.loading.reading(slot);
        let LoadingPiece { transfer, flow, request, location } = loading;
        let Some(state) = self.transfers.get(&transfer) else {
            return self.load_failed(slot, Code::Cancelled);
        };
        let path = state.map.path;
        match outcome {
            ReadOutcome::Loaded => {
                self.loading.set(slot, LoadingStage::Loaded(route_of(mode)), loading);
                let (flow, result) = (flow.flow, Ok(()));
                self.sender.handle(SenderEvent::Loaded { slot, flow, ask: request, result });
                self.settle();
            }
            // Past the page cache, rather than through it.
            ReadOutcome::NotCached => {
                let next = read_mode::past_cache(state.map.kind(location));
                if mode == ReadMode::Splice && path == DataPath::Splice {
                    self.note(transfer, FallbackReason::NotCached);
                }
                self.read(slot, loading, next);
            }
            ReadOutcome::NotDirect => {
                self.note(transfer, FallbackReason::NoDirect);
                self.read(slot, loading, ReadMode::Buffered);
            }
            ReadOutcome::Failed(code) => self.load_failed(slot, code),
        }
    }

    pub(super) fn refusal_sent(&mut self, place: FlowPlace) {
        self.answer_next(place);
        self.settle();
    }

    pub(super) fn send_done(&mut self, slot: SlotIx, outcome: SendOutcome, is_held: bool) {
        let (route, loading) = self.loading.sending(slot);
        let is_zerocopy = route == KernelRoute::Zerocopy;
        assert!(is_zerocopy || !is_held, "the kernel holds what it does not copy");
        let again = outcome == SendOutcome::NoZerocopy;
        if is_held {
            self.loading.set(slot, LoadingStage::Held { again }, loading);
            if again {
                return;
            }
            self.sender.handle(SenderEvent::SentHeld { flow: loading.flow.flow });
        } else {
            if again {
                return self.send_plainly(slot, loading);
            }
            self.unload(slot, loading.flow.flow);
        }
        match outcome {
            SendOutcome::Sent => self.answer_next(loading.flow),
            SendOutcome::Broken => self.drop_flow(loading.flow),
            SendOutcome::NotSpliced => {
                if let Some(state) = self.transfers.get_mut(&loading.transfer) {
                    state.splice_failed = true;
                }
                self.note(loading.transfer, FallbackReason::NotSpliced);
                self.drop_flow(loading.flow);
            }
            SendOutcome::NoZerocopy => unreachable!("sent again above"),
        }
        self.settle();
    }

    /// The kernel reads a slot no more; `copied` says that it need not have held it.
    pub(super) fn slot_released(&mut self, slot: SlotIx, copied: bool) {
        let (again, loading) = self.loading.held(slot);
        if copied {
            self.stop_zerocopy(loading, FallbackReason::Copied);
        }
        if again {
            return self.send_plainly(slot, loading);
        }
        self.loading.clear(slot);
        self.sender.handle(SenderEvent::Freed { slot });
        self.settle();
    }

    pub(super) fn close(&mut self, place: FlowPlace) {
        self.drop_flow(place);
        self.settle();
    }

    pub(super) fn poll_action(&mut self) -> Option<RailAction> {
        self.actions.pop_front()
    }

    /// Slots that an operation has: those that wait for their flow have none.
    ///
    /// # Panics
    /// If a slot is held that holds nothing: it would never come back.
    pub(super) fn slots_at_work(&self) -> usize {
        let slots_held = self.sender.slots_held() as usize;
        assert_eq!(self.loading.piece_count(), slots_held, "a slot has a piece");
        self.loading.count_at_work()
    }

    /// Asks the sender what it wants, until it wants nothing.
    fn settle(&mut self) {
        while let Some(action) = self.sender.poll_action() {
            match action {
                SenderAction::Load { slot, flow, ask } => self.load(slot, flow, ask),
                SenderAction::Send { slot, flow, .. } => match self.flows.find(flow) {
                    Some(place) => self.answer(place, QueuedAnswer::Piece(slot)),
                    None => self.unload(slot, flow),
                },
                SenderAction::Unload { slot, .. } => self.loading.clear(slot),
                SenderAction::Refuse { flow, ask, code } => {
                    if let Some(place) = self.flows.find(flow) {
                        self.answer(place, QueuedAnswer::Refusal(ask, code));
                    }
                }
                SenderAction::Close { flow, .. } => {
                    if let Some(place) = self.flows.find(flow) {
                        self.drop_flow(place);
                    }
                }
            }
        }
    }

    /// Gets a piece ready in a slot.
    fn load(&mut self, slot: SlotIx, flow: FlowIx, ask: PieceRequest) {
        let located = self.flows.find(flow).and_then(|place| {
            let (transfer, _) = self.flows.get(place)?;
            let map = &self.transfers.get(&transfer)?.map;
            let location = map.locate(ask.span)?;
            let first = read_mode::first(map.path, map.kind(location));
            let loading = LoadingPiece { transfer, flow: place, request: ask, location };
            Some((loading, map.path, first))
        });
        let Some((loading, path, first)) = located else {
            let result = Err(Code::Data);
            return self.sender.handle(SenderEvent::Loaded { slot, flow, ask, result });
        };
        if first == Some(ReadMode::Pattern) && !matches!(path, DataPath::Auto | DataPath::Zerocopy)
        {
            self.note(loading.transfer, FallbackReason::NoFile);
        }
        match first {
            Some(mode) => self.read(slot, loading, mode),
            None => {
                self.loading.set(slot, LoadingStage::Probing, loading);
                self.actions.push_back(RailAction::Probe { slot, loading });
            }
        }
    }

    fn read(&mut self, slot: SlotIx, loading: LoadingPiece, mode: ReadMode) {
        self.loading.set(slot, LoadingStage::Reading(mode), loading);
        self.actions.push_back(RailAction::Read { slot, loading, mode });
    }

    fn load_failed(&mut self, slot: SlotIx, code: Code) {
        let loading = self.loading.take(slot);
        let (flow, ask, result) = (loading.flow.flow, loading.request, Err(code));
        self.sender.handle(SenderEvent::Loaded { slot, flow, ask, result });
        self.settle();
    }

    /// Puts an answer in line; one is sent at a time.
    fn answer(&mut self, place: FlowPlace, answer: QueuedAnswer) {
        let Some((_, flow)) = self.flows.get(place) else { return };
        flow.answers.push_back(answer);
        // Each answers a request that the receiver has outstanding, unless it reads none of them.
        if flow.answers.len() > FLOW_REQUESTS_MAX {
            return self.drop_flow(place);
        }
        if !flow.is_sending {
            self.answer_next(place);
        }
    }

    /// Sends what stands next in line on a flow on which nothing is being sent.
    fn answer_next(&mut self, place: FlowPlace) {
        let Some((transfer, flow)) = self.flows.get(place) else { return };
        let answer = flow.answers.pop_front();
        flow.is_sending = answer.is_some();
        match answer {
            None => {}
            Some(QueuedAnswer::Refusal(ask, code)) => {
                let frame = Frame::new(FrameKind::Refuse(code), ask.request, ask.span);
                self.actions.push_back(RailAction::SendRefusal { flow: place, frame });
            }
            Some(QueuedAnswer::Piece(slot)) => {
                let (ready, loading) = self.loading.loaded(slot);
                let zerocopy = ready != KernelRoute::Splice && self.may_zerocopy(place, transfer);
                let route = if zerocopy { KernelRoute::Zerocopy } else { ready };
                self.send(slot, loading, route);
            }
        }
    }

    fn send(&mut self, slot: SlotIx, loading: LoadingPiece, route: KernelRoute) {
        self.loading.set(slot, LoadingStage::Sending(route), loading);
        let LoadingPiece { transfer, flow, request, .. } = loading;
        let bytes = request.span.bytes();
        self.actions.push_back(RailAction::Send { slot, flow, transfer, bytes, route });
    }

    /// Returns true if the next piece of a flow is sent without a copy.
    fn may_zerocopy(&mut self, place: FlowPlace, transfer: TransferIx) -> bool {
        let path = self.transfers.get(&transfer).map(|state| state.map.path);
        let copies = self.flows.get(place).is_none_or(|(_, flow)| flow.copies);
        if path != Some(DataPath::Zerocopy) || copies {
            return false;
        }
        let has_room = self.loading.may_hold_another();
        if !has_room {
            self.note(transfer, FallbackReason::Late);
        }
        has_room
    }

    /// Sends what the kernel would not send without a copy.
    fn send_plainly(&mut self, slot: SlotIx, loading: LoadingPiece) {
        self.stop_zerocopy(loading, FallbackReason::NoZerocopy);
        if self.flows.get(loading.flow).is_some() {
            return self.send(slot, loading, KernelRoute::ReadSend);
        }
        self.unload(slot, loading.flow.flow);
        self.settle();
    }

    fn stop_zerocopy(&mut self, loading: LoadingPiece, reason: FallbackReason) {
        if let Some((_, flow)) = self.flows.get(loading.flow) {
            flow.copies = true;
        }
        self.note(loading.transfer, reason);
    }

    /// A piece was sent, or will not be: its slot is free.
    fn unload(&mut self, slot: SlotIx, flow: FlowIx) {
        self.loading.clear(slot);
        self.sender.handle(SenderEvent::Sent { slot, flow });
    }

    fn drop_flow(&mut self, place: FlowPlace) {
        let Some((transfer, flow)) = self.flows.remove(place) else { return };
        // Answers in line have left the sender as sent; their slots are free with the pieces.
        for answer in &flow.answers {
            if let QueuedAnswer::Piece(slot) = answer {
                self.unload(*slot, place.flow);
            }
        }
        if let Some(state) = self.transfers.get_mut(&transfer) {
            state.relay.flow_down(place.flow);
        }
        self.sender.handle(SenderEvent::FlowDown { flow: place.flow });
        self.actions.push_back(RailAction::CloseFlow { flow: place });
        self.keep_unsent(None);
    }

    /// Keeps what waits in the sockets short, so that it is decided here, by weight, who is served
    /// next, and not by how much of it each socket has swallowed.
    fn keep_unsent(&mut self, new: Option<FlowPlace>) {
        let flows = self.flows.len().max(1).next_power_of_two();
        let bytes = (UNSENT_BYTES / flows).max(UNSENT_BYTES_MIN);
        let has_changed = std::mem::replace(&mut self.unsent_bytes, bytes) != bytes;
        for &flow in self.flows.places().iter().filter(|flow| has_changed || new == Some(**flow)) {
            self.actions.push_back(RailAction::SetUnsentMax { flow, bytes });
        }
    }

    fn note(&mut self, transfer: TransferIx, reason: FallbackReason) {
        self.actions.push_back(RailAction::NoteFallback { transfer, reason });
    }
}

/// The way that a piece goes which was made ready in this mode.
fn route_of(mode: ReadMode) -> KernelRoute {
    match mode {
        ReadMode::Pattern => KernelRoute::PatternSend,
        ReadMode::Splice => KernelRoute::Splice,
        ReadMode::Cached | ReadMode::Buffered => KernelRoute::ReadSend,
        ReadMode::Direct => KernelRoute::DirectSend,
    }
}

//! A rail that is fuzzed: its machine, and a kernel that has what the machine asked for and ends
//! it when it is told to, in any order.

use std::collections::{BTreeMap, BTreeSet};

use super::byte_source::ByteSource;
use crate::core::error::{Code, Error};
use crate::core::options::CheckKind;
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::rail::{
    FlowDirection, FlowPlace, KernelRoute, LandingPiece, LoadingPiece, PayloadOutcome,
    REQUESTS_MAX, RailAction, RailEvent, RailMachine, ReadMode, SlotIx, TransferCommand,
};
use crate::core::units::{Moment, Span};
use crate::core::wire::Check;
use crate::core::wire::frame::{Frame, FrameKind};

/// The transfer that is fuzzed.
pub(super) const TRANSFER: TransferIx = TransferIx(1);

/// A rail, and the operations that its kernel has.
pub(super) struct FuzzedRail {
    pub(super) machine: RailMachine,
    slots: usize,
    block_bytes: u64,
    pub(super) flows: BTreeMap<FlowPlace, FuzzedFlow>,
    pub(super) receiving: BTreeMap<SlotIx, LandingPiece>,
    /// In the order in which writes were asked for.
    pub(super) writing: Vec<(SlotIx, LandingPiece)>,
    /// Pieces that were received and are written next, or were thrown away.
    received: BTreeMap<SlotIx, LandingPiece>,
    /// The request behind each slot whose answer has not left.
    requests: BTreeMap<SlotIx, u32>,
    pub(super) probing: Vec<(SlotIx, LoadingPiece)>,
    pub(super) reading: Vec<(SlotIx, LoadingPiece, ReadMode)>,
    pub(super) sending: Vec<(SlotIx, FlowPlace, KernelRoute)>,
    /// Slots that are sent and that the kernel still reads.
    pub(super) held: Vec<SlotIx>,
}

/// A flow as the kernel and the peer see it.
#[derive(Default)]
pub(super) struct FuzzedFlow {
    /// Requests that left here, or that the peer sent, and that are not answered.
    pub(super) asked: Vec<Frame>,
    /// The header of an answer whose payload is not received.
    pub(super) arriving: Option<Frame>,
    pub(super) awaits_header: bool,
    pub(super) awaits_requests: bool,
    /// A send of requests is under way.
    pub(super) sends_requests: bool,
    /// A piece or a refusal is being sent.
    pub(super) is_sending: bool,
    pub(super) sends_refusal: bool,
    /// Its path is to be read.
    pub(super) reads_path: bool,
}

impl FuzzedRail {
    pub(super) fn new(slots: u32, block_bytes: u64) -> FuzzedRail {
        FuzzedRail {
            machine: RailMachine::new(slots, block_bytes),
            slots: slots as usize,
            block_bytes,
            flows: BTreeMap::new(),
            receiving: BTreeMap::new(),
            writing: Vec::new(),
            received: BTreeMap::new(),
            requests: BTreeMap::new(),
            probing: Vec::new(),
            reading: Vec::new(),
            sending: Vec::new(),
            held: Vec::new(),
        }
    }

    /// A flow stands, where the rail has a place for it.
    pub(super) fn flow_up(
        &mut self,
        now: Moment,
        flow: FlowIx,
        direction: FlowDirection,
    ) -> Option<FlowPlace> {
        let place = self.machine.flow_up(now, TRANSFER, flow, direction)?;
        let before = self.flows.insert(place, FuzzedFlow::default());
        assert!(before.is_none(), "a place has one flow at a time");
        Some(place)
    }

    pub(super) fn command(&mut self, now: Moment, command: TransferCommand) {
        self.machine.handle(now, RailEvent::Command { transfer: TRANSFER, command });
    }

    pub(super) fn handle(&mut self, now: Moment, event: RailEvent) {
        self.machine.handle(now, event);
    }

    /// The sender at the other end of a flow answers.
    pub(super) fn answer(&mut self, now: Moment, flow: FlowPlace, frame: Frame) {
        let state = self.flows.get_mut(&flow).expect("a flow that stands");
        assert!(std::mem::replace(&mut state.awaits_header, false), "a header is read");
        let is_asked =
            |asked: &Frame| (asked.request, asked.span()) == (frame.request, frame.span());
        if let Some(at) = state.asked.iter().position(is_asked) {
            state.asked.remove(at);
            let brings = matches!(frame.kind, FrameKind::Data(_));
            state.arriving = brings.then_some(frame);
        }
        self.handle(now, RailEvent::Header { flow, frame });
    }

    pub(super) fn break_flow(&mut self, now: Moment, flow: FlowPlace, code: Code) {
        let error = Error::new(code, "it broke");
        self.machine.handle(now, RailEvent::FlowBroken { flow, error });
    }

    /// Carries out what the machine wants, until it wants nothing.
    ///
    /// # Panics
    /// If a slot or a flow is to do two things at once, or one is forgotten.
    pub(super) fn follow(&mut self, wanted: Option<&[Span]>) {
        while let Some(action) = self.machine.poll_action() {
            self.carry_out(action, wanted);
        }
        let receives = self.receiving.len() + self.writing.len();
        let sends = self.probing.len() + self.reading.len() + self.sending.len() + self.held.len();
        assert!(receives <= self.slots && sends <= self.slots, "{receives} and {sends} slots");
        assert_eq!(self.machine.slots_at_work(), (receives, sends), "slots of either direction");
    }

    #[expect(clippy::needless_pass_by_value, reason = "an action is carried out once")]
    fn carry_out(&mut self, action: RailAction, wanted: Option<&[Span]>) {
        match action {
            RailAction::SendRequests { flow } => {
                self.send_requests(flow, wanted);
            }
            RailAction::ReceiveHeader { flow } => {
                assert!(
                    !std::mem::replace(&mut self.flow(flow).awaits_header, true),
                    "one at once"
                );
            }
            RailAction::ReceiveRequests { flow } => {
                let awaits = &mut self.flow(flow).awaits_requests;
                assert!(!std::mem::replace(awaits, true), "one at once");
            }
            RailAction::ReceivePayload { slot, landing } => {
                assert!(!self.writing.iter().any(|(other, _)| *other == slot), "{slot:?} is used");
                if let Some(state) = self.flows.get_mut(&landing.flow) {
                    let frame = state.arriving.take().expect("one payload behind each answer");
                    assert_eq!(frame.span(), landing.piece.span, "what was asked for lands");
                }
                assert_eq!(self.receiving.insert(slot, landing), None, "{slot:?} is used");
            }
            RailAction::Write { slot, piece, .. } => {
                let landing = self.received.remove(&slot).expect("what is written was received");
                assert_eq!(landing.piece.span, piece);
                self.writing.push((slot, landing));
            }
            RailAction::Probe { slot, loading } => {
                self.assert_free(slot);
                self.requests.insert(slot, loading.request.request);
                self.probing.push((slot, loading));
            }
            RailAction::Read { slot, loading, mode } => {
                self.assert_free(slot);
                self.requests.insert(slot, loading.request.request);
                self.reading.push((slot, loading, mode));
            }
            RailAction::Send { slot, flow, route, .. } => {
                self.assert_free(slot);
                let state = self.flows.get_mut(&flow).expect("a flow that stands");
                // A piece that the kernel did not send without a copy keeps its turn.
                if let Some(request) = self.requests.remove(&slot) {
                    assert!(!state.is_sending, "two sends on one flow");
                    state.answered(request);
                }
                state.is_sending = true;
                self.sending.push((slot, flow, route));
            }
            RailAction::SendRefusal { flow, frame } => self.send_refusal(flow, frame.request),
            RailAction::ReadPath { flow } => {
                assert!(!std::mem::replace(&mut self.flow(flow).reads_path, true), "one at once");
            }
            RailAction::CloseFlow { flow } => {
                assert!(self.flows.remove(&flow).is_some(), "a flow is closed once");
            }
            RailAction::SetUnsentMax { .. }
            | RailAction::NoteFallback { .. }
            | RailAction::Forget { .. } => {}
        }
    }

    fn flow(&mut self, flow: FlowPlace) -> &mut FuzzedFlow {
        self.flows.get_mut(&flow).expect("a flow that stands")
    }

    fn send_refusal(&mut self, flow: FlowPlace, request: u32) {
        let state = self.flow(flow);
        assert!(!std::mem::replace(&mut state.is_sending, true), "two sends on one flow");
        state.sends_refusal = true;
        state.answered(request);
    }

    fn send_requests(&mut self, flow: FlowPlace, wanted: Option<&[Span]>) {
        let requests: Vec<Frame> = std::iter::from_fn(|| self.machine.poll_request(flow)).collect();
        let Some(state) = self.flows.get_mut(&flow) else { return };
        for frame in &requests {
            let is_new = state.asked.iter().all(|it| it.request != frame.request);
            assert!(is_new, "{} is asked twice", frame.request);
            assert!(frame.span().bytes() <= self.block_bytes, "{}", frame.span());
            if let Some(wanted) = wanted {
                let span = frame.span();
                assert!(wanted.iter().any(|it| it.contains(span)), "{span} is not wanted");
            }
        }
        state.asked.extend(requests);
        assert!(state.asked.len() <= REQUESTS_MAX as usize, "beyond its credit");
        assert!(!std::mem::replace(&mut state.sends_requests, true), "one send at a time");
    }

    /// The payload in a slot has come, or will not.
    pub(super) fn received(&mut self, now: Moment, slot: SlotIx, outcome: PayloadOutcome) {
        let landing = self.receiving.remove(&slot).expect("called for one");
        self.received.insert(slot, landing);
        self.handle(now, RailEvent::PayloadDone { slot, outcome });
    }

    fn assert_free(&self, slot: SlotIx) {
        let of_sends = self.sending.iter().map(|(slot, ..)| slot);
        let of_reads = self.reading.iter().map(|(slot, ..)| slot);
        let mut used: BTreeSet<&SlotIx> = of_sends.chain(of_reads).chain(&self.held).collect();
        used.extend(self.probing.iter().map(|(slot, _)| slot));
        assert!(!used.contains(&slot), "{slot:?} has two operations");
    }
}

impl FuzzedFlow {
    /// A request of the peer has its answer.
    ///
    /// # Panics
    /// If it has not asked, or has one already.
    pub(super) fn answered(&mut self, request: u32) {
        let at = self.asked.iter().position(|asked| asked.request == request);
        self.asked.remove(at.expect("an answer to a request, and one only"));
    }
}

/// One of the flows that stand.
pub(super) fn pick_flow<'a>(
    script: &mut ByteSource<'_>,
    flows: &'a BTreeMap<FlowPlace, FuzzedFlow>,
) -> Option<(FlowPlace, &'a FuzzedFlow)> {
    let at = script.place(flows.len())?;
    flows.iter().nth(at).map(|(&flow, state)| (flow, state))
}

/// The check of a range, alike for every replica.
pub(super) fn check_of(kind: CheckKind, span: Span) -> Check {
    match kind {
        CheckKind::None => Check::None,
        CheckKind::Crc64 => Check::Crc64(span.start),
        CheckKind::Blake3 => Check::Blake3([span.start as u8; 32]),
    }
}

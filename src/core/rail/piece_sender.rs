//! The sending half of a rail: chooses which request is read next, and keeps one piece on its way
//! for every flow that can take it.
//!
//! A sender shares its rail over receivers by weight, which a flow brings along: the bytes that the
//! plan wants from it. The flow that has had the least for its weight comes first (start-time fair
//! queueing, Goyal et al. 1996). Stolen pieces wait until nobody asks for their own share, so that
//! stealing only ever uses what is idle: what they took from others would come back as more
//! stealing. A slow receiver could keep the rail from being idle for ever; so one stolen piece at a
//! time goes out all the same, for as long as others' own pieces hardly come through meanwhile.
//! Stolen pieces pause where others' own pieces do come through, until one of the flows that had
//! those asks for no more. A dead receiver never stops asking, but none of its pieces come through.

use std::collections::{BTreeMap, VecDeque};

use super::slot_table::{SlotIx, SlotTable};
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::units::Span;

/// Pieces of one flow that are read, waiting or being sent: one on the wire, and the next ones
/// ready behind it.
const FLOW_SLOTS_MAX: u32 = 4;
/// The same where further flows of rail pairs are beside them: one on the wire, one behind it.
const FLOW_SLOTS_BESIDE: u32 = 2;
/// Own pieces that are sent for each flow that asks for them, while one stolen piece is: with more,
/// they share a full link.
const CONTENTION_THRESHOLD: f64 = 0.5;
/// Weight of the last stolen piece in their mean.
const RIVALS_GAIN: f64 = 0.25;
/// Own pieces that are sent before it is tried again.
const PROBE_INTERVAL: u32 = 16;
/// Requests that a receiver may have outstanding on a flow; more is a broken peer.
pub(crate) const FLOW_REQUESTS_MAX: usize = 2 * super::flow_credit::REQUESTS_MAX as usize;

/// One request of a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PieceRequest {
    pub(crate) request: u32,
    pub(crate) span: Span,
    pub(crate) stolen: bool,
}

/// Input of a [`PieceSender`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum SenderEvent {
    /// A receiver opened a flow; `weight` is how many bytes the plan wants from it, at least 1.
    /// `is_further` where it is beside the own flow of its rail pair.
    FlowUp { flow: FlowIx, transfer: TransferIx, weight: u64, is_further: bool },
    /// A request arrived.
    Request { flow: FlowIx, ask: PieceRequest },
    /// A `Load` ended: the piece is in its slot and checked, or could not be read.
    Loaded { slot: SlotIx, flow: FlowIx, ask: PieceRequest, result: Result<(), Code> },
    /// A `Send` ended, well or not; its slot is free.
    Sent { slot: SlotIx, flow: FlowIx },
    /// A `Send` ended well, but the kernel still reads its slot; answered for by `Freed` later.
    SentHeld { flow: FlowIx },
    /// A slot that was held is free.
    Freed { slot: SlotIx },
    /// A flow broke or was closed.
    FlowDown { flow: FlowIx },
}

/// Output of a [`PieceSender`].
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum SenderAction {
    /// Read a piece into a slot and check it; answered by `Loaded`.
    Load { slot: SlotIx, flow: FlowIx, ask: PieceRequest },
    /// Send the piece behind its header; answered by `Sent`.
    Send { slot: SlotIx, flow: FlowIx, ask: PieceRequest },
    /// Forget a loaded piece: its flow is gone, and its slot is free.
    Unload { slot: SlotIx },
    /// Tell the receiver that the piece cannot be had here.
    Refuse { flow: FlowIx, ask: PieceRequest, code: Code },
    /// The receiver broke the protocol: close the flow; answered by `FlowDown`.
    Close { flow: FlowIx, error: Error },
}

/// The sending half of one rail, for all its transfers.
///
/// Events: `handle`. Actions: `poll_action`, until `None`. It waits for nothing that time alone
/// would bring.
pub(crate) struct PieceSender {
    /// The slots, and how many each transfer may have.
    slots: SlotTable,
    flows: BTreeMap<FlowIx, SenderFlow>,
    /// Own pieces that were sent while a stolen one is on its way.
    rivals: u32,
    /// The same for each flow that asks for them, in the mean over stolen pieces.
    rivals_mean: f64,
    /// Own pieces to be sent before a stolen one may go out beside them.
    pause: u32,
    actions: VecDeque<SenderAction>,
}

struct SenderFlow {
    transfer: TransferIx,
    weight: u64,
    is_further: bool,
    /// Bytes served for each unit of weight: the flow's virtual time.
    served: f64,
    assigned: VecDeque<PieceRequest>,
    stolen: VecDeque<PieceRequest>,
    loading: Vec<(SlotIx, PieceRequest)>,
    loaded: VecDeque<(SlotIx, PieceRequest)>,
    sending: Option<(SlotIx, PieceRequest)>,
    /// True if an own piece was sent while the stolen one is on its way.
    is_rival: bool,
    /// True if it was when stolen pieces began to pause.
    contends: bool,
}

impl PieceSender {
    /// A sending half with `slots` slots.
    pub(crate) fn new(slots: u32) -> PieceSender {
        PieceSender {
            slots: SlotTable::new(slots),
            flows: BTreeMap::new(),
            rivals: 0,
            rivals_mean: CONTENTION_THRESHOLD,
            pause: 0,
            actions: VecDeque::with_capacity(2 * FLOW_SLOTS_MAX as usize),
        }
    }

    /// Takes in what happened.
    pub(crate) fn handle(&mut self, event: SenderEvent) {
        match event {
            SenderEvent::FlowUp { flow, transfer, weight, is_further } => {
                self.flow_up(flow, transfer, weight, is_further);
            }
            SenderEvent::Request { flow, ask } => self.request(flow, ask),
            SenderEvent::Loaded { slot, flow, ask, result } => {
                self.loaded(slot, flow, ask, result);
            }
            SenderEvent::Sent { slot, flow } => {
                self.slots.give_back(slot);
                self.sent(flow);
            }
            SenderEvent::SentHeld { flow } => self.sent(flow),
            SenderEvent::Freed { slot } => self.slots.give_back(slot),
            SenderEvent::FlowDown { flow } => self.flow_down(flow),
        }
        self.load_next();
    }

    /// Slots that are not free.
    pub(crate) fn slots_held(&self) -> u32 {
        self.slots.held()
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<SenderAction> {
        self.actions.pop_front()
    }

    fn flow_up(&mut self, flow: FlowIx, transfer: TransferIx, weight: u64, is_further: bool) {
        let served = self.served_min();
        self.slots.flow_up(transfer);
        let state = SenderFlow {
            transfer,
            weight: weight.max(1),
            is_further,
            served,
            assigned: VecDeque::with_capacity(FLOW_REQUESTS_MAX),
            stolen: VecDeque::with_capacity(FLOW_REQUESTS_MAX),
            loading: Vec::with_capacity(FLOW_SLOTS_MAX as usize),
            loaded: VecDeque::with_capacity(FLOW_SLOTS_MAX as usize),
            sending: None,
            is_rival: false,
            contends: false,
        };
        self.flows.insert(flow, state);
    }

    /// The least virtual time of the flows that want something: where one that comes back joins in.
    fn served_min(&self) -> f64 {
        let busy = self.flows.values().filter(|flow| flow.is_busy()).map(|flow| flow.served);
        let least = busy.fold(f64::INFINITY, f64::min);
        if least.is_finite() { least } else { 0.0 }
    }

    fn request(&mut self, flow: FlowIx, ask: PieceRequest) {
        let served_min = self.served_min();
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let broken = if state.assigned.len() + state.stolen.len() >= FLOW_REQUESTS_MAX {
            Some("the receiver asks for more than its credit")
        } else {
            // Loaded pieces are known by their numbers.
            state.has_asked(ask.request).then_some("the receiver gives two requests one number")
        };
        if let Some(message) = broken {
            self.actions
                .push_back(SenderAction::Close { flow, error: Error::new(Code::Refused, message) });
            return;
        }
        if !state.is_busy() {
            // Idle time is not saved up: it would let the flow shut all others out.
            state.served = state.served.max(served_min);
        }
        if ask.stolen { &mut state.stolen } else { &mut state.assigned }.push_back(ask);
    }

    fn loaded(&mut self, slot: SlotIx, flow: FlowIx, ask: PieceRequest, result: Result<(), Code>) {
        if let Some(state) = self.flows.get_mut(&flow) {
            let at = state.loading.iter().position(|loading| *loading == (slot, ask));
            state.loading.swap_remove(at.expect("a load ends once"));
        }
        match (self.flows.get_mut(&flow), result) {
            (Some(state), Ok(())) => {
                state.loaded.push_back((slot, ask));
                self.send_next(flow);
            }
            (Some(_), Err(code)) => {
                self.slots.give_back(slot);
                self.actions.push_back(SenderAction::Refuse { flow, ask, code });
            }
            (None, Ok(())) => {
                self.slots.give_back(slot);
                self.actions.push_back(SenderAction::Unload { slot });
            }
            (None, Err(_)) => self.slots.give_back(slot),
        }
    }

    fn sent(&mut self, flow: FlowIx) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        match state.sending.take() {
            Some((_, PieceRequest { stolen: true, .. })) => self.update_contention(),
            _ => {
                state.is_rival = true;
                self.rivals += 1;
                self.pause = self.pause.saturating_sub(1);
            }
        }
        self.send_next(flow);
    }

    /// A stolen piece was sent: whether others' own pieces came through beside it as if they shared
    /// a full link.
    fn update_contention(&mut self) {
        let asking = self.flows.values().filter(|flow| flow.has_firm()).count();
        let rivals = f64::from(std::mem::take(&mut self.rivals)) / asking.max(1) as f64;
        self.rivals_mean += RIVALS_GAIN * (rivals.min(1.0) - self.rivals_mean);
        if asking > 0 && self.rivals_mean > CONTENTION_THRESHOLD {
            self.pause = PROBE_INTERVAL;
            self.flows.values_mut().for_each(|flow| flow.contends = flow.is_rival);
        }
    }

    fn flow_down(&mut self, flow: FlowIx) {
        let Some(state) = self.flows.remove(&flow) else { return };
        self.slots.flow_down(state.transfer);
        for (slot, _) in state.loaded {
            self.slots.give_back(slot);
            self.actions.push_back(SenderAction::Unload { slot });
        }
    }

    /// A flow's pieces are sent one after another: two sends on one stream could interleave.
    fn send_next(&mut self, flow: FlowIx) {
        let state = self.flows.get_mut(&flow).expect("called for a flow that stands");
        if state.sending.is_none()
            && let Some((slot, ask)) = state.loaded.pop_front()
        {
            state.sending = Some((slot, ask));
            self.actions.push_back(SenderAction::Send { slot, flow, ask });
        }
    }

    /// Returns true if a stolen piece may be read: when no assigned piece is requested, or to see
    /// whether it slows the assigned ones.
    fn is_soft_due(&self) -> bool {
        let nobody_asks = !self.flows.values().any(SenderFlow::has_firm);
        let mut contending = self.flows.values().filter(|flow| flow.contends).peekable();
        let pauses =
            self.pause > 0 && contending.peek().is_some() && contending.all(SenderFlow::has_firm);
        nobody_asks || (!pauses && self.flows.values().all(|flow| flow.stolen_slots() == 0))
    }

    /// Returns the slots that an own flow of a rail pair may have, and all further flows together.
    /// Those are slow, and hold a slot for long: the others keep two each.
    fn slots_of_flows(&self) -> (u32, u32) {
        let own = self.flows.values().filter(|it| !it.is_further).count().max(1) as u32;
        let flow_slots = (self.slots.total() / own).clamp(1, FLOW_SLOTS_MAX);
        if own as usize >= self.flows.len() {
            return (flow_slots, 0);
        }
        let flow_slots = flow_slots.min(FLOW_SLOTS_BESIDE);
        (flow_slots, self.slots.share().saturating_sub(own * flow_slots).max(1))
    }

    /// Reads ahead while there are slots that the transfer may have: firm requests first, the flow
    /// that has had least for its weight first.
    fn load_next(&mut self) {
        let (flow_slots, further_slots) = self.slots_of_flows();
        while self.slots.has_free() {
            let further = self.flows.values().filter(|it| it.is_further);
            let takes_further = further.map(SenderFlow::slots).sum::<u32>() < further_slots;
            let may_load = |state: &SenderFlow| {
                let is_below = if state.is_further {
                    takes_further && state.slots() == 0
                } else {
                    state.slots() < flow_slots
                };
                is_below && self.slots.has_room(state.transfer)
            };
            let ready = self.flows.iter().filter(|(_, state)| may_load(state));
            let assigned = ready.clone().filter(|(_, state)| !state.assigned.is_empty());
            let least =
                assigned.min_by(|a, b| a.1.served.total_cmp(&b.1.served)).map(|(&flow, _)| flow);
            let least = least.or_else(|| {
                let stolen =
                    ready.filter(|(_, state)| !state.stolen.is_empty() && self.is_soft_due());
                stolen.min_by(|a, b| a.1.served.total_cmp(&b.1.served)).map(|(&flow, _)| flow)
            });
            let Some(flow) = least else { return };
            if self.flows.values().all(|state| state.stolen_slots() == 0) {
                self.rivals = 0;
                self.flows.values_mut().for_each(|flow| flow.is_rival = false);
            }
            let state = self.flows.get_mut(&flow).expect("found above");
            let ask = state
                .assigned
                .pop_front()
                .or_else(|| state.stolen.pop_front())
                .expect("a flow with requests");
            state.served += ask.span.bytes() as f64 / state.weight as f64;
            let slot = self.slots.take(state.transfer).expect("its transfer has room");
            state.loading.push((slot, ask));
            self.actions.push_back(SenderAction::Load { slot, flow, ask });
        }
    }
}

impl SenderFlow {
    fn slots(&self) -> u32 {
        (self.loading.len() + self.loaded.len()) as u32 + u32::from(self.sending.is_some())
    }

    /// Pieces that are read, waiting or being sent.
    fn in_slots(&self) -> impl Iterator<Item = &PieceRequest> {
        let slots = self.loading.iter().chain(&self.loaded).chain(&self.sending);
        slots.map(|(_, ask)| ask)
    }

    /// Of these, how many were stolen.
    fn stolen_slots(&self) -> u32 {
        self.in_slots().filter(|ask| ask.stolen).count() as u32
    }

    /// Returns true if the request with this number has not been answered.
    fn has_asked(&self, request: u32) -> bool {
        let in_line = self.assigned.iter().chain(&self.stolen);
        in_line.chain(self.in_slots()).any(|ask| ask.request == request)
    }

    /// Returns true if it requests assigned pieces.
    fn has_firm(&self) -> bool {
        !self.assigned.is_empty() || self.slots() > self.stolen_slots()
    }

    fn is_busy(&self) -> bool {
        !self.assigned.is_empty() || !self.stolen.is_empty() || self.slots() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FlowIx = FlowIx(1);
    const B: FlowIx = FlowIx(2);
    const DEAD: FlowIx = FlowIx(77);
    const TRANSFER: TransferIx = TransferIx(1);

    fn ask(request: u32) -> PieceRequest {
        PieceRequest { request, span: Span::of(u64::from(request) * 100, 100), stolen: false }
    }

    /// Runs `piece_sender` with instant reads and sends, and gives the order in which pieces were
    /// sent.
    fn run(piece_sender: &mut PieceSender) -> Vec<(FlowIx, u32)> {
        let mut sent = Vec::new();
        while let Some(action) = piece_sender.poll_action() {
            match action {
                SenderAction::Load { slot, flow, ask } => {
                    piece_sender.handle(SenderEvent::Loaded { slot, flow, ask, result: Ok(()) });
                }
                SenderAction::Send { slot, flow, ask } => {
                    sent.push((flow, ask.request));
                    piece_sender.handle(SenderEvent::Sent { slot, flow });
                }
                other => panic!("{other:?}"),
            }
        }
        sent
    }

    fn own_flow(flow: FlowIx, weight: u64) -> SenderEvent {
        SenderEvent::FlowUp { flow, transfer: TRANSFER, weight, is_further: false }
    }

    #[test]
    fn flows_share_by_weight() {
        let mut piece_sender = PieceSender::new(1);
        piece_sender.handle(own_flow(A, 300));
        piece_sender.handle(own_flow(B, 100));
        for request in 0..16 {
            piece_sender.handle(SenderEvent::Request { flow: A, ask: ask(request) });
            piece_sender.handle(SenderEvent::Request { flow: B, ask: ask(100 + request) });
        }
        let sent = run(&mut piece_sender);
        let of_a = sent[..16].iter().filter(|(flow, _)| *flow == A).count();
        assert!((11..=13).contains(&of_a), "{of_a} of the first 16");
        assert_eq!(sent.len(), 32);
    }

    #[test]
    fn stolen_pieces_wait_for_everybody_elses_own() {
        let mut piece_sender = PieceSender::new(1);
        for flow in [A, B] {
            piece_sender.handle(own_flow(flow, 1));
        }
        piece_sender.handle(SenderEvent::Request { flow: B, ask: ask(9) });
        piece_sender
            .handle(SenderEvent::Request { flow: A, ask: PieceRequest { stolen: true, ..ask(1) } });
        piece_sender.handle(SenderEvent::Request { flow: B, ask: ask(10) });
        piece_sender.handle(SenderEvent::Request { flow: B, ask: ask(11) });
        assert_eq!(run(&mut piece_sender), [(B, 9), (B, 10), (B, 11), (A, 1)]);
    }

    /// Runs a rail of which A asks for its own pieces and B steals, and gives how many pieces of B
    /// went out of 200. Of A's pieces `own` go through while one of B's does, and one where none of
    /// B's does.
    fn stolen_beside(own: f64) -> usize {
        let mut piece_sender = PieceSender::new(9);
        for flow in [A, B] {
            piece_sender.handle(own_flow(flow, 1));
        }
        for request in 0..8 {
            piece_sender.handle(SenderEvent::Request { flow: A, ask: ask(1000 + request) });
        }
        let (mut sending, mut stolen, mut due) = ((None, None), 0, 0.0);
        for request in 0..200 {
            if piece_sender.flows[&B].stolen.len() < 4 {
                piece_sender.handle(SenderEvent::Request {
                    flow: B,
                    ask: PieceRequest { stolen: true, ..ask(request) },
                });
            }
            while let Some(action) = piece_sender.poll_action() {
                match action {
                    SenderAction::Load { slot, flow, ask } => {
                        piece_sender.handle(SenderEvent::Loaded {
                            slot,
                            flow,
                            ask,
                            result: Ok(()),
                        });
                    }
                    SenderAction::Send { slot, flow, .. } if flow == A => {
                        sending.0 = Some((slot, flow));
                    }
                    SenderAction::Send { slot, flow, .. } => sending.1 = Some((slot, flow)),
                    other => panic!("{other:?}"),
                }
            }
            due += if sending.1.is_some() { own } else { 1.0 };
            while due >= 1.0 {
                due -= 1.0;
                if let Some((slot, flow)) = sending.0.take() {
                    piece_sender.handle(SenderEvent::Sent { slot, flow });
                    piece_sender.handle(SenderEvent::Request { flow, ask: ask(2000 + request) });
                }
            }
            if let Some((slot, flow)) = sending.1.take() {
                stolen += 1;
                piece_sender.handle(SenderEvent::Sent { slot, flow });
            }
        }
        stolen
    }

    #[test]
    fn a_slow_receiver_does_not_keep_stolen_pieces_waiting() {
        assert!(stolen_beside(0.1) > 25, "{} went out", stolen_beside(0.1));
    }

    #[test]
    fn stolen_pieces_take_little_of_a_full_rail() {
        assert!(
            stolen_beside(1.0) <= 200 / PROBE_INTERVAL as usize + 1,
            "{} went out",
            stolen_beside(1.0)
        );
    }

    /// B steals while A asks for its own pieces, which come through beside the stolen ones. Then A
    /// has all, and of those who ask only C is left, which takes nothing any more.
    #[test]
    fn a_receiver_that_is_dead_does_not_hold_up_what_others_have_stolen() {
        let mut piece_sender = PieceSender::new(16);
        for flow in [A, B, DEAD] {
            piece_sender.handle(own_flow(flow, 1));
        }
        for request in 0..8 {
            piece_sender.handle(SenderEvent::Request { flow: DEAD, ask: ask(5000 + request) });
        }
        let mut sent = BTreeMap::from([(A, 0), (B, 0)]);
        let mut sends = VecDeque::new();
        for request in 0..2_000 {
            let (own, stolen) =
                (ask(1000 + request), PieceRequest { stolen: true, ..ask(request) });
            if request < 200 {
                piece_sender.handle(SenderEvent::Request { flow: A, ask: own });
            }
            if request < 20 {
                piece_sender.handle(SenderEvent::Request { flow: B, ask: stolen });
            }
            while let Some(action) = piece_sender.poll_action() {
                match action {
                    SenderAction::Load { slot, flow, ask } => {
                        let result = Ok(());
                        piece_sender.handle(SenderEvent::Loaded { slot, flow, ask, result });
                    }
                    SenderAction::Send { slot, flow, .. } if flow != DEAD => {
                        sends.push_back((slot, flow));
                    }
                    _ => {}
                }
            }
            if let Some((slot, flow)) = sends.pop_front() {
                *sent.entry(flow).or_insert(0) += 1;
                piece_sender.handle(SenderEvent::Sent { slot, flow });
            }
        }
        assert_eq!(sent, BTreeMap::from([(A, 200), (B, 20)]), "pause {}", piece_sender.pause);
    }

    #[test]
    fn slots_come_back_whatever_happens_to_the_flow() {
        let mut piece_sender = PieceSender::new(3);
        piece_sender.handle(own_flow(A, 1));
        for request in 0..3 {
            piece_sender.handle(SenderEvent::Request { flow: A, ask: ask(request) });
        }
        assert!(matches!(piece_sender.poll_action(), Some(SenderAction::Load { .. })));
        assert!(matches!(piece_sender.poll_action(), Some(SenderAction::Load { .. })));
        assert_eq!(piece_sender.poll_action(), None, "the last slot is for another transfer");
        let loaded = |slot: u32| SenderEvent::Loaded {
            slot: SlotIx(slot),
            flow: A,
            ask: ask(slot),
            result: Ok(()),
        };
        piece_sender.handle(loaded(0));
        piece_sender.handle(SenderEvent::FlowDown { flow: A });
        piece_sender.handle(loaded(1));
        piece_sender.handle(SenderEvent::Sent { slot: SlotIx(0), flow: A });
        assert_eq!(piece_sender.slots_held(), 0);
    }

    #[test]
    fn slots_that_the_kernel_holds_do_not_hold_up_the_flow() {
        let mut piece_sender = PieceSender::new(5);
        piece_sender.handle(own_flow(A, 1));
        for request in 0..6 {
            piece_sender.handle(SenderEvent::Request { flow: A, ask: ask(request) });
        }
        let (mut sent, mut held) = (0, Vec::new());
        while let Some(action) = piece_sender.poll_action() {
            match action {
                SenderAction::Load { slot, flow, ask } => {
                    piece_sender.handle(SenderEvent::Loaded { slot, flow, ask, result: Ok(()) });
                }
                SenderAction::Send { slot, flow, .. } => {
                    sent += 1;
                    piece_sender.handle(if sent <= 2 {
                        held.push(slot);
                        SenderEvent::SentHeld { flow }
                    } else {
                        SenderEvent::Sent { slot, flow }
                    });
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((sent, piece_sender.slots_held()), (6, 2));
        piece_sender.handle(SenderEvent::FlowDown { flow: A });
        for slot in held {
            piece_sender.handle(SenderEvent::Freed { slot });
        }
        assert_eq!(piece_sender.slots_held(), 0, "also when their flow is gone");
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_the_next_is_read() {
        let mut piece_sender = PieceSender::new(1);
        piece_sender.handle(own_flow(A, 1));
        piece_sender.handle(SenderEvent::Request { flow: A, ask: ask(0) });
        piece_sender.handle(SenderEvent::Request { flow: A, ask: ask(1) });
        piece_sender.poll_action();
        let (slot, result) = (SlotIx(0), Err(Code::Data));
        piece_sender.handle(SenderEvent::Loaded { slot, flow: A, ask: ask(0), result });
        assert_eq!(
            piece_sender.poll_action(),
            Some(SenderAction::Refuse { flow: A, ask: ask(0), code: Code::Data })
        );
        assert_eq!(
            piece_sender.poll_action(),
            Some(SenderAction::Load { slot, flow: A, ask: ask(1) })
        );
    }

    /// The rail found the second piece under the number of both, and nothing when it came to send
    /// the other.
    #[test]
    fn a_receiver_that_gives_two_requests_one_number_is_closed() {
        let mut piece_sender = PieceSender::new(4);
        for flow in [A, B] {
            piece_sender.handle(own_flow(flow, 1));
            piece_sender.handle(SenderEvent::Request { flow, ask: ask(7) });
        }
        let loads: Vec<_> = std::iter::from_fn(|| piece_sender.poll_action()).collect();
        assert!(
            matches!(
                loads[..],
                [SenderAction::Load { flow: A, .. }, SenderAction::Load { flow: B, .. }]
            ),
            "{loads:?}"
        );
        let loaded = |slot, flow| SenderEvent::Loaded { slot, flow, ask: ask(7), result: Ok(()) };
        piece_sender.handle(loaded(SlotIx(0), A));
        piece_sender.handle(SenderEvent::Request {
            flow: A,
            ask: PieceRequest { span: Span::of(0, 5), ..ask(7) },
        });
        let done: Vec<_> = std::iter::from_fn(|| piece_sender.poll_action()).collect();
        assert!(
            matches!(done[..], [SenderAction::Send { .. }, SenderAction::Close { flow: A, .. }]),
            "{done:?}"
        );
        // One that was answered may be asked again.
        piece_sender.handle(loaded(SlotIx(1), B));
        piece_sender.handle(SenderEvent::Sent { slot: SlotIx(1), flow: B });
        piece_sender.handle(SenderEvent::Request { flow: B, ask: ask(7) });
        let done: Vec<_> = std::iter::from_fn(|| piece_sender.poll_action()).collect();
        assert!(
            matches!(
                done[..],
                [SenderAction::Send { flow: B, .. }, SenderAction::Load { flow: B, .. }]
            ),
            "{done:?}"
        );
    }

    #[test]
    fn a_receiver_beyond_its_credit_is_closed() {
        let mut piece_sender = PieceSender::new(1);
        piece_sender.handle(own_flow(A, 1));
        for request in 0..=(FLOW_REQUESTS_MAX as u32 + 1) {
            piece_sender.handle(SenderEvent::Request { flow: A, ask: ask(request) });
        }
        assert!(
            std::iter::from_fn(|| piece_sender.poll_action())
                .any(|action| matches!(action, SenderAction::Close { .. }))
        );
    }

    /// Further flows are slow, and hold the slots that they have for long.
    #[test]
    fn further_flows_leave_slots_to_the_own_flows_of_others() {
        let mut piece_sender = PieceSender::new(16);
        piece_sender.handle(own_flow(A, 1));
        for flow in 10..30 {
            let (flow, is_further) = (FlowIx(flow), true);
            let up = SenderEvent::FlowUp { flow, transfer: TRANSFER, weight: 1, is_further };
            piece_sender.handle(up);
            for request in 0..2 {
                piece_sender.handle(SenderEvent::Request { flow, ask: ask(request) });
            }
        }
        assert_eq!(piece_sender.slots_held(), 10, "one a flow");
        piece_sender.handle(own_flow(B, 1));
        for flow in [A, B] {
            (0..4).for_each(|it| {
                piece_sender.handle(SenderEvent::Request { flow, ask: ask(it) });
            });
        }
        assert_eq!((piece_sender.flows[&A].slots(), piece_sender.flows[&B].slots()), (2, 0));
        assert_eq!(piece_sender.slots_held(), 12, "the next transfer finds some");
    }
}

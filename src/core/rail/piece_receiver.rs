//! The receiving half of a rail: turns leases into requests, and answers into landed pieces.
//!
//! For each flow there is a short line of leased pieces, and a set of requests that the sender has
//! not answered; the first hides the way to the scheduler and back, the second the way to the
//! sender and back. A request reserves no slot: the driver binds one when the header arrives, and
//! does not read the flow while none is free.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::flow_credit::{FlowCredit, REQUESTS_MAX};
use super::piece_parts::{BegunPieces, PART_BYTES_MIN, PartSize, SplitEnd, SplitPiece};
use crate::core::check::CheckMethod;
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowIx, Piece};
use crate::core::receiver::rate_meter::RateMeter;
use crate::core::receiver::scheduler;
use crate::core::units::{Moment, Span};
use crate::core::wire::Check;

/// Factor by which a relay may be silent longer than a sender: it may be waiting for its own
/// sender, and when it has found out that this one is silent it still has to fetch the piece from
/// another.
const RELAY_SILENCE: u32 = 2;

/// Time for which a fast flow's leases last: the way to the scheduler and back, and long enough
/// that the control thread is not woken for every few pieces.
const LEASED_AHEAD: Duration = Duration::from_millis(4);
/// Pieces leased to a flow and not requested.
const LEASES_MAX: usize = 64;

/// Input of a [`PieceReceiver`].
#[derive(Clone, Debug)]
pub(crate) enum ReceiverEvent {
    /// A flow to a sender stands; `relays` where that one passes on what it receives itself.
    FlowUp { flow: FlowIx, relays: bool },
    /// The scheduler hands out pieces.
    Lease { flow: FlowIx, pieces: Vec<Piece> },
    /// The scheduler wants up to so many unasked pieces back.
    Revoke { flow: FlowIx, pieces: u32 },
    /// A header arrived.
    Answer { flow: FlowIx, answer: SenderAnswer },
    /// The payload of a piece arrived; `intact` where its check is the header's.
    Received { flow: FlowIx, piece: Piece, intact: bool },
    /// A piece is written (or discarded, where that is what its destination does).
    Written { flow: FlowIx, piece: Piece, check: Check },
    /// A flow broke or was closed.
    FlowDown { flow: FlowIx, error: Error },
    /// The moment of `poll_timeout` has come.
    Tick,
}

/// Answer of a sender to a request.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum SenderAnswer {
    /// The bytes follow.
    Data { request: u32, span: Span, check: Check },
    /// The sender cannot give them.
    Refuse { request: u32, span: Span, code: Code },
}

/// What one event brings at most without incident: all requests of a flow, whose credit may rise to
/// its cap at once, and a close. A rail at work allocates nothing.
const ACTIONS: usize = REQUESTS_MAX as usize + 2;

/// Output of a [`PieceReceiver`].
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ReceiverAction {
    /// Ask the sender for a piece.
    Request { flow: FlowIx, request: u32, piece: Piece },
    /// Bind a slot, receive the payload that follows into it, check it against `check`, and write
    /// it.
    Land { flow: FlowIx, piece: Piece, check: Check },
    /// The sender broke the protocol or fell silent: close the flow. Its `FlowDown` has been told
    /// to the scheduler.
    Close { flow: FlowIx, error: Error },
}

/// The receiving half of one rail in one transfer.
///
/// Events: `handle`. Actions: `poll_action`, and `poll_scheduler` for what the scheduler must hear,
/// until both give `None`. Time: `poll_timeout`.
pub(crate) struct PieceReceiver {
    /// Bytes of the largest piece so far. Slots may be larger: those of a rail that also works for
    /// transfers with larger blocks.
    piece_bytes: u64,
    method: CheckMethod,
    /// Size of parts on the flow that ended last.
    parts: PartSize,
    /// Pieces that are requested in parts, with their flows.
    splits: Vec<(FlowIx, SplitPiece)>,
    begun: BegunPieces,
    silence: Duration,
    flows: BTreeMap<FlowIx, ReceiverFlow>,
    requests: u32,
    actions: VecDeque<ReceiverAction>,
    for_owner: VecDeque<scheduler::SchedulerEvent>,
}

struct ReceiverFlow {
    leased: VecDeque<Piece>,
    /// Invariant: at most `REQUESTS_MAX`.
    asked: Vec<OpenRequest>,
    /// The piece whose payload is arriving.
    arriving: Option<Piece>,
    credit: FlowCredit,
    parts: PartSize,
    meter: RateMeter,
    /// True if the scheduler was told of room and has not filled it.
    room_told: bool,
    heard: Moment,
    /// For how long it may be silent while it owes an answer.
    silence: Duration,
}

struct OpenRequest {
    request: u32,
    piece: Piece,
    at: Moment,
}

impl PieceReceiver {
    /// A receiving half. A flow that is silent for `silence` while it owes an answer is closed, and
    /// one to a relay after twice that.
    pub(crate) fn new(method: CheckMethod, silence: Duration) -> PieceReceiver {
        PieceReceiver {
            piece_bytes: 0,
            method,
            parts: PartSize::whole(),
            splits: Vec::new(),
            begun: BegunPieces::new(),
            silence,
            flows: BTreeMap::new(),
            requests: 0,
            actions: VecDeque::with_capacity(ACTIONS),
            for_owner: VecDeque::with_capacity(ACTIONS),
        }
    }

    /// Takes in what happened.
    pub(crate) fn handle(&mut self, now: Moment, event: ReceiverEvent) {
        match event {
            ReceiverEvent::FlowUp { flow, relays } => {
                let meter = RateMeter::default();
                let (leased, asked) = (
                    VecDeque::with_capacity(LEASES_MAX),
                    Vec::with_capacity(REQUESTS_MAX as usize),
                );
                let credit = FlowCredit::new();
                let silence = self.silence * if relays { RELAY_SILENCE } else { 1 };
                let state = ReceiverFlow {
                    leased,
                    asked,
                    arriving: None,
                    credit,
                    parts: self.parts,
                    meter,
                    room_told: false,
                    heard: now,
                    silence,
                };
                self.flows.insert(flow, state);
                self.ask(now, flow);
            }
            ReceiverEvent::Lease { flow, pieces } => self.lease(now, flow, pieces),
            ReceiverEvent::Revoke { flow, pieces } => self.revoke(flow, pieces),
            ReceiverEvent::Answer { flow, answer } => self.answer(now, flow, answer),
            ReceiverEvent::Received { flow, piece, intact } => {
                self.received(now, flow, piece, intact);
            }
            ReceiverEvent::Written { flow, piece, check } => {
                self.written(flow, piece, check);
            }
            ReceiverEvent::FlowDown { flow, error } => self.drop_flow(flow, error),
            ReceiverEvent::Tick => self.close_silent(now),
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<ReceiverAction> {
        self.actions.pop_front()
    }

    /// The next thing that the scheduler must hear.
    pub(crate) fn poll_scheduler(&mut self) -> Option<scheduler::SchedulerEvent> {
        self.for_owner.pop_front()
    }

    /// Returns true if a sender has yet to answer, or a payload to arrive.
    pub(crate) fn owes(&self) -> bool {
        self.flows.values().any(ReceiverFlow::owes)
    }

    /// Returns the moment at which the first flow that owes an answer has been silent for too long.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        let owing = self.flows.values().filter(|flow| flow.owes());
        owing.map(|flow| flow.heard + flow.silence).min()
    }

    fn lease(&mut self, now: Moment, flow: FlowIx, pieces: Vec<Piece>) {
        // A lease that crossed its flow's end on the way: the scheduler hears of the end and takes
        // the pieces back.
        let Some(state) = self.flows.get_mut(&flow) else { return };
        state.room_told = false;
        let largest = pieces.iter().map(|piece| piece.span.bytes()).max().unwrap_or(0);
        self.piece_bytes = self.piece_bytes.max(largest);
        state.leased.extend(pieces);
        self.ask(now, flow);
    }

    fn revoke(&mut self, flow: FlowIx, pieces: u32) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let kept = state.leased.len().saturating_sub(pieces as usize);
        let pieces = state.leased.split_off(kept).into();
        self.for_owner.push_back(scheduler::SchedulerEvent::Returned { flow, pieces });
    }

    fn answer(&mut self, now: Moment, flow: FlowIx, answer: SenderAnswer) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let (request, span) = match answer {
            SenderAnswer::Data { request, span, .. }
            | SenderAnswer::Refuse { request, span, .. } => (request, span),
        };
        let asked = state
            .asked
            .iter()
            .position(|asked| asked.request == request && asked.piece.span == span);
        let Some(asked) = asked.map(|at| state.asked.swap_remove(at)) else {
            let error = Error::new(
                Code::Integrity,
                format!("the sender answered {span}, which it was not asked for"),
            );
            return self.close(flow, error);
        };
        state.heard = now;
        state.credit.answered(now.since(asked.at));
        match answer {
            SenderAnswer::Data { check, .. } => {
                state.arriving = Some(asked.piece);
                self.actions.push_back(ReceiverAction::Land { flow, piece: asked.piece, check });
            }
            SenderAnswer::Refuse { code, .. } => {
                let error = Error::new(
                    code,
                    format!("it cannot give {span}: its source failed, shrank or was changed"),
                )
                .remedy("check the source there, then run the transfer again");
                match self.split_at(flow, asked.piece.span) {
                    Some(at) => {
                        self.splits[at].1.fail(error);
                        self.end_split(at);
                    }
                    None => self.fail(flow, asked.piece, error),
                }
                self.ask(now, flow);
            }
        }
    }

    fn received(&mut self, now: Moment, flow: FlowIx, piece: Piece, intact: bool) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        assert_eq!(state.arriving.take(), Some(piece), "one payload arrives at a time");
        state.heard = now;
        state.meter.add(now, piece.span.bytes());
        if intact {
            state.parts.intact();
            if let Some(at) = self.split_at(flow, piece.span) {
                self.splits[at].1.received();
                self.for_owner.push_back(scheduler::SchedulerEvent::PartLanded { flow });
            }
        } else {
            state.parts.changed(piece.span.bytes());
            self.changed(flow, piece);
        }
        self.ask(now, flow);
        if let Some(state) = self.flows.get_mut(&flow).filter(|state| !state.owes()) {
            state.meter.pause(now);
        }
    }

    /// A piece, or a part of one, arrived changed: it is requested again, in parts where their
    /// checks join.
    fn changed(&mut self, flow: FlowIx, piece: Piece) {
        let error = Error::new(Code::Integrity, format!("{} arrived changed", piece.span));
        let splits = self.method == CheckMethod::Crc64 && piece.span.bytes() > PART_BYTES_MIN;
        match self.split_at(flow, piece.span) {
            Some(at) => {
                self.for_owner.push_back(scheduler::SchedulerEvent::Changed { flow });
                self.splits[at].1.changed(piece.span, error);
                self.end_split(at);
            }
            None if splits => {
                self.for_owner.push_back(scheduler::SchedulerEvent::Changed { flow });
                self.splits.push((flow, SplitPiece::new(piece, self.method)));
            }
            None => self.fail(flow, piece, error),
        }
    }

    fn written(&mut self, flow: FlowIx, piece: Piece, check: Check) {
        let Some(at) = self.split_at(flow, piece.span) else {
            return self.for_owner.push_back(scheduler::SchedulerEvent::Landed {
                flow,
                piece,
                check,
            });
        };
        self.splits[at].1.written(piece.span, check);
        self.end_split(at);
    }

    /// Returns true if this is a part of a piece of which the rest may not have landed.
    pub(crate) fn is_part(&self, flow: FlowIx, span: Span) -> bool {
        self.split_at(flow, span).is_some()
    }

    /// Returns the place of the piece of a flow that is requested in parts, of which this is one.
    fn split_at(&self, flow: FlowIx, part: Span) -> Option<usize> {
        self.splits.iter().position(|(of, split)| *of == flow && split.has(part))
    }

    /// Tells the scheduler of a piece that was requested in parts, once nothing of it is out.
    fn end_split(&mut self, at: usize) {
        let (flow, split) = &mut self.splits[at];
        let flow = *flow;
        let Some(end) = split.end() else { return };
        let (_, split) = self.splits.swap_remove(at);
        match end {
            SplitEnd::Landed(piece, check) => {
                self.for_owner.push_back(scheduler::SchedulerEvent::Landed { flow, piece, check });
            }
            SplitEnd::Failed(piece, error) => self.fail(flow, piece, error),
            SplitEnd::Dropped => self.begun.keep(split),
        }
    }

    fn fail(&mut self, flow: FlowIx, piece: Piece, error: Error) {
        self.for_owner.push_back(scheduler::SchedulerEvent::Failed { flow, piece, error });
    }

    /// Returns what is to be requested next on a flow: a part of a begun piece, or the next piece.
    fn next_request(&mut self, flow: FlowIx) -> Option<Piece> {
        let bytes_max = self.flows.get(&flow)?.parts.bytes_max();
        let mut own = self.splits.iter_mut().filter(|(of, _)| *of == flow);
        if let Some(part) = own.find_map(|(_, split)| split.take(bytes_max)) {
            return Some(part);
        }
        loop {
            let piece = self.flows.get_mut(&flow)?.leased.pop_front()?;
            // A piece may be leased to this flow again while it is out: it is requested once.
            if self.flows[&flow].is_out(piece.span) || self.split_at(flow, piece.span).is_some() {
                continue;
            }
            let begun = self.begun.resume(piece);
            let is_whole = self.method != CheckMethod::Crc64 || piece.span.bytes() <= bytes_max;
            if begun.is_none() && is_whole {
                return Some(piece);
            }
            let mut split = begun.unwrap_or_else(|| SplitPiece::new(piece, self.method));
            let part = split.take(bytes_max);
            self.splits.push((flow, split));
            if part.is_some() {
                return part;
            }
            // All of it was written before.
            self.end_split(self.splits.len() - 1);
        }
    }

    /// Returns the requests that a flow may have out, and the pieces that may be leased to it.
    fn credit(&self, now: Moment, flow: FlowIx) -> Option<(usize, usize)> {
        let state = self.flows.get(&flow)?;
        let rate = state.meter.bytes_per_second(now);
        let requests = |bytes: u64| state.credit.requests(rate, bytes) as usize;
        let part_bytes = self.piece_bytes.min(state.parts.bytes_max());
        Some((requests(part_bytes), requests(self.piece_bytes)))
    }

    /// Requests what credit allows, and tells the scheduler of room.
    fn ask(&mut self, now: Moment, flow: FlowIx) {
        let Some((requests_max, pieces_max)) = self.credit(now, flow) else { return };
        while self.flows[&flow].outstanding() < requests_max
            && let Some(piece) = self.next_request(flow)
        {
            let state = self.flows.get_mut(&flow).expect("it has credit");
            if !state.owes() {
                state.heard = now;
                state.meter.start(now);
            }
            self.requests = self.requests.wrapping_add(1);
            let request = self.requests;
            state.asked.push(OpenRequest { request, piece, at: now });
            self.actions.push_back(ReceiverAction::Request { flow, request, piece });
        }
        let piece_bytes = self.piece_bytes;
        let state = self.flows.get_mut(&flow).expect("it has credit");
        let leases = pieces_max.max(state.leases_ahead(now, piece_bytes));
        if !state.room_told && state.leased.len() <= leases / 2 {
            state.room_told = true;
            let pieces = (leases - state.leased.len()) as u32;
            self.for_owner.push_back(scheduler::SchedulerEvent::Room { flow, pieces });
        }
    }

    fn close_silent(&mut self, now: Moment) {
        let is_silent = |flow: &ReceiverFlow| flow.owes() && now.since(flow.heard) >= flow.silence;
        let silent = self.flows.iter().filter(|(_, flow)| is_silent(flow));
        for (flow, silence) in
            silent.map(|(&flow, state)| (flow, state.silence)).collect::<Vec<_>>()
        {
            let error = Error::new(
                Code::Stalled,
                format!("the sender was silent for {} s", silence.as_secs()),
            );
            self.close(flow, error);
        }
    }

    fn close(&mut self, flow: FlowIx, error: Error) {
        self.actions.push_back(ReceiverAction::Close { flow, error: error.clone() });
        self.drop_flow(flow, error);
    }

    fn drop_flow(&mut self, flow: FlowIx, error: Error) {
        if let Some(state) = self.flows.remove(&flow) {
            self.parts = state.parts;
            for at in (0..self.splits.len())
                .rev()
                .filter(|&at| self.splits[at].0 == flow)
                .collect::<Vec<_>>()
            {
                self.splits[at].1.drop_flow();
                self.end_split(at);
            }
            self.for_owner.push_back(scheduler::SchedulerEvent::FlowDown { flow, error });
        }
    }
}

impl ReceiverFlow {
    fn outstanding(&self) -> usize {
        self.asked.len() + usize::from(self.arriving.is_some())
    }

    fn owes(&self) -> bool {
        self.outstanding() > 0
    }

    /// Returns true if a piece is requested or arriving.
    fn is_out(&self, piece: Span) -> bool {
        self.asked.iter().any(|asked| asked.piece.span == piece)
            || self.arriving.is_some_and(|arriving| arriving.span == piece)
    }

    /// Returns the leased pieces that a fast flow requests within `LEASED_AHEAD`.
    fn leases_ahead(&self, now: Moment, piece_bytes: u64) -> usize {
        let bytes = self.meter.bytes_per_second(now).unwrap_or(0.0) * LEASED_AHEAD.as_secs_f64();
        ((bytes / piece_bytes as f64) as usize).min(LEASES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: FlowIx = FlowIx(3);

    fn piece(at: u64) -> Piece {
        Piece { span: Span::new(at * 10, at * 10 + 10), stolen: false }
    }

    fn piece_receiver() -> PieceReceiver {
        let mut piece_receiver =
            PieceReceiver::new(CheckMethod::Blake3(None), Duration::from_secs(30));
        piece_receiver.handle(Moment(0), ReceiverEvent::FlowUp { flow: FLOW, relays: false });
        piece_receiver
    }

    fn requests(piece_receiver: &mut PieceReceiver) -> Vec<(u32, Piece)> {
        std::iter::from_fn(|| piece_receiver.poll_action())
            .filter_map(|action| match action {
                ReceiverAction::Request { request, piece, .. } => Some((request, piece)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn room_is_told_once_until_it_is_filled() {
        let mut piece_receiver = piece_receiver();
        assert!(matches!(
            piece_receiver.poll_scheduler(),
            Some(scheduler::SchedulerEvent::Room { pieces: 4, .. })
        ));
        piece_receiver.handle(Moment(1), ReceiverEvent::Tick);
        assert!(piece_receiver.poll_scheduler().is_none());
        piece_receiver.handle(
            Moment(1),
            ReceiverEvent::Lease { flow: FLOW, pieces: (0..6).map(piece).collect() },
        );
        assert_eq!(requests(&mut piece_receiver).len(), 4);
        assert!(matches!(
            piece_receiver.poll_scheduler(),
            Some(scheduler::SchedulerEvent::Room { pieces: 2, .. })
        ));
    }

    /// The scheduler was woken for every second piece.
    #[test]
    fn a_fast_flow_is_leased_what_it_requests_within_some_milliseconds() {
        let mut piece_receiver = piece_receiver();
        let mut now = Moment(0);
        let mut next = 0;
        let mut rooms = 0;
        // A piece each 100 us.
        for _ in 0..1000 {
            while let Some(event) = piece_receiver.poll_scheduler() {
                let scheduler::SchedulerEvent::Room { pieces, .. } = event else { continue };
                rooms += 1;
                let pieces = (next..next + u64::from(pieces)).map(piece).collect();
                next += 64;
                piece_receiver.handle(now, ReceiverEvent::Lease { flow: FLOW, pieces });
            }
            let asked = &piece_receiver.flows[&FLOW].asked[0];
            let (request, piece) = (asked.request, asked.piece);
            now = now + Duration::from_micros(100);
            let answer = SenderAnswer::Data { request, span: piece.span, check: Check::None };
            piece_receiver.handle(now, ReceiverEvent::Answer { flow: FLOW, answer });
            let received = ReceiverEvent::Received { flow: FLOW, piece, intact: true };
            piece_receiver.handle(now, received);
        }
        assert!((40..80).contains(&rooms), "{rooms}");
        let leased = piece_receiver.flows[&FLOW].leased.len();
        assert!(leased <= 40, "{leased}");
    }

    /// The queue of actions grew when the measured rate first raised a flow's credit, in the middle
    /// of a transfer.
    #[test]
    fn credit_that_rises_to_its_cap_at_once_needs_no_larger_queue() {
        let mut piece_receiver = piece_receiver();
        let queues = |it: &PieceReceiver| (it.actions.capacity(), it.for_owner.capacity());
        let at_first = queues(&piece_receiver);
        let pieces = (0..u64::from(2 * REQUESTS_MAX)).map(piece).collect();
        piece_receiver.handle(Moment(1), ReceiverEvent::Lease { flow: FLOW, pieces });
        let (request, first) = requests(&mut piece_receiver)[0];
        let answer = SenderAnswer::Data { request, span: first.span, check: Check::None };
        piece_receiver.handle(Moment(2), ReceiverEvent::Answer { flow: FLOW, answer });
        let received = ReceiverEvent::Received { flow: FLOW, piece: first, intact: true };
        piece_receiver.handle(Moment(3), received);
        assert!(requests(&mut piece_receiver).len() > REQUESTS_MAX as usize / 2);
        assert_eq!(queues(&piece_receiver), at_first);
    }

    /// One copy was split because it had changed, and the other one was taken for a part of it.
    #[test]
    fn a_piece_that_is_leased_again_while_it_is_out_is_requested_once() {
        let mut piece_receiver = piece_receiver();
        let pieces = vec![piece(0), piece(0), piece(1)];
        piece_receiver.handle(Moment(1), ReceiverEvent::Lease { flow: FLOW, pieces });
        let asked: Vec<Piece> =
            requests(&mut piece_receiver).into_iter().map(|(_, piece)| piece).collect();
        assert_eq!(asked, [piece(0), piece(1)]);
    }

    #[test]
    fn an_answer_nobody_asked_for_closes_the_flow_and_gives_the_leases_back() {
        let mut piece_receiver = piece_receiver();
        piece_receiver
            .handle(Moment(1), ReceiverEvent::Lease { flow: FLOW, pieces: vec![piece(0)] });
        let (request, asked) = requests(&mut piece_receiver)[0];
        let span = Span::new(asked.span.start, asked.span.end - 1);
        let answer = SenderAnswer::Data { request, span, check: Check::None };
        piece_receiver.handle(Moment(2), ReceiverEvent::Answer { flow: FLOW, answer });
        assert!(matches!(piece_receiver.poll_action(), Some(ReceiverAction::Close { .. })));
        let last = std::iter::from_fn(|| piece_receiver.poll_scheduler()).last();
        assert!(matches!(last, Some(scheduler::SchedulerEvent::FlowDown { .. })), "{last:?}");
    }

    #[test]
    fn a_changed_piece_is_reported_and_the_flow_goes_on() {
        let mut piece_receiver = piece_receiver();
        piece_receiver.handle(
            Moment(1),
            ReceiverEvent::Lease { flow: FLOW, pieces: vec![piece(0), piece(1)] },
        );
        let (request, asked) = requests(&mut piece_receiver)[0];
        let answer = SenderAnswer::Data { request, span: asked.span, check: Check::None };
        piece_receiver.handle(Moment(2), ReceiverEvent::Answer { flow: FLOW, answer });
        assert!(matches!(piece_receiver.poll_action(), Some(ReceiverAction::Land { .. })));
        piece_receiver
            .handle(Moment(3), ReceiverEvent::Received { flow: FLOW, piece: asked, intact: false });
        let heard: Vec<_> = std::iter::from_fn(|| piece_receiver.poll_scheduler()).collect();
        let is_failure = |event: &scheduler::SchedulerEvent| match event {
            scheduler::SchedulerEvent::Failed { piece, .. } => *piece == asked,
            _ => false,
        };
        assert!(heard.iter().any(is_failure));
        assert!(piece_receiver.poll_timeout().is_some(), "the second request is still owed");
    }

    /// With packets of which one in so many is changed, hardly any piece of 1 MiB came whole, and
    /// after three times the transfer failed.
    #[test]
    fn a_changed_piece_is_requested_again_in_parts_and_lands_once() {
        let mut piece_receiver = PieceReceiver::new(CheckMethod::Crc64, Duration::from_secs(30));
        piece_receiver.handle(Moment(0), ReceiverEvent::FlowUp { flow: FLOW, relays: false });
        let whole = Piece { span: Span::new(0, 32 << 10), stolen: true };
        piece_receiver.handle(Moment(1), ReceiverEvent::Lease { flow: FLOW, pieces: vec![whole] });
        let check = |span: Span| CheckMethod::Crc64.of(span, &vec![7; span.bytes() as usize]);
        let (mut asked, mut sizes) = (requests(&mut piece_receiver), Vec::new());
        while let Some((request, piece)) = asked.pop() {
            sizes.push(piece.span.bytes());
            let answer = SenderAnswer::Data { request, span: piece.span, check: Check::None };
            piece_receiver.handle(Moment(2), ReceiverEvent::Answer { flow: FLOW, answer });
            let intact = sizes.len() > 2;
            piece_receiver.handle(Moment(3), ReceiverEvent::Received { flow: FLOW, piece, intact });
            if intact {
                let check = check(piece.span);
                piece_receiver
                    .handle(Moment(4), ReceiverEvent::Written { flow: FLOW, piece, check });
            }
            asked.extend(requests(&mut piece_receiver));
        }
        assert_eq!(sizes[..3], [32 << 10, 8 << 10, 4 << 10]);
        let heard: Vec<_> = std::iter::from_fn(|| piece_receiver.poll_scheduler()).collect();
        let landed: Vec<_> = heard
            .iter()
            .filter_map(|event| match event {
                scheduler::SchedulerEvent::Landed { piece, check, .. } => Some((*piece, *check)),
                scheduler::SchedulerEvent::Failed { .. } => panic!("{event:?}"),
                _ => None,
            })
            .collect();
        assert_eq!(landed, [(whole, check(whole.span))]);
    }

    /// No piece ever landed where headers changed so often that no flow lived for a whole one.
    #[test]
    fn a_piece_lands_by_the_parts_of_many_flows() {
        let mut piece_receiver = PieceReceiver::new(CheckMethod::Crc64, Duration::from_secs(30));
        let whole = Piece { span: Span::new(0, 32 << 10), stolen: false };
        let check = |span: Span| CheckMethod::Crc64.of(span, &vec![7; span.bytes() as usize]);
        let mut heard = Vec::new();
        for flow in (0..4).map(FlowIx) {
            piece_receiver.handle(Moment(0), ReceiverEvent::FlowUp { flow, relays: false });
            piece_receiver.handle(Moment(1), ReceiverEvent::Lease { flow, pieces: vec![whole] });
            // The first piece ever arrives changed; one part of each flow does not.
            let mut is_changed = flow == FlowIx(0);
            while let Some(&(request, piece)) = requests(&mut piece_receiver).last() {
                let answer = SenderAnswer::Data { request, span: piece.span, check: Check::None };
                piece_receiver.handle(Moment(2), ReceiverEvent::Answer { flow, answer });
                let intact = !std::mem::take(&mut is_changed);
                piece_receiver.handle(Moment(3), ReceiverEvent::Received { flow, piece, intact });
                if intact {
                    let check = check(piece.span);
                    piece_receiver.handle(Moment(4), ReceiverEvent::Written { flow, piece, check });
                    break;
                }
            }
            let error = Error::new(Code::Integrity, "a frame header was corrupted in transit");
            piece_receiver.handle(Moment(5), ReceiverEvent::FlowDown { flow, error });
            heard.extend(std::iter::from_fn(|| piece_receiver.poll_scheduler()));
            while piece_receiver.poll_action().is_some() {}
        }
        let landed: Vec<_> = heard
            .iter()
            .filter_map(|event| match event {
                scheduler::SchedulerEvent::Landed { piece, check, .. } => Some((*piece, *check)),
                _ => None,
            })
            .collect();
        assert_eq!(landed, [(whole, check(whole.span))]);
    }

    #[test]
    fn silence_has_a_deadline_only_while_an_answer_is_owed() {
        let mut piece_receiver = piece_receiver();
        assert_eq!(piece_receiver.poll_timeout(), None);
        piece_receiver
            .handle(Moment(5), ReceiverEvent::Lease { flow: FLOW, pieces: vec![piece(0)] });
        let due = piece_receiver.poll_timeout().expect("an answer is owed");
        piece_receiver.handle(due, ReceiverEvent::Tick);
        let closed = std::iter::from_fn(|| piece_receiver.poll_action()).last();
        let Some(ReceiverAction::Close { error, .. }) = closed else { panic!("{closed:?}") };
        assert_eq!(error.code, Code::Stalled);
    }

    /// A relay's own sender fell silent; the relay found out after as long as anybody, and took the
    /// piece from another.
    #[test]
    fn a_relay_that_waits_for_its_sender_is_not_taken_for_silent() {
        let mut piece_receiver = piece_receiver();
        let relay = FlowIx(4);
        piece_receiver.handle(Moment(0), ReceiverEvent::FlowUp { flow: relay, relays: true });
        piece_receiver
            .handle(Moment(5), ReceiverEvent::Lease { flow: relay, pieces: vec![piece(0)] });
        let request = requests(&mut piece_receiver)[0].0;
        assert_eq!(piece_receiver.poll_timeout(), Some(Moment(5) + Duration::from_secs(60)));
        piece_receiver.handle(Moment(5) + Duration::from_secs(31), ReceiverEvent::Tick);
        let answer = SenderAnswer::Data { request, span: piece(0).span, check: Check::None };
        piece_receiver.handle(
            Moment(5) + Duration::from_secs(32),
            ReceiverEvent::Answer { flow: relay, answer },
        );
        let done: Vec<ReceiverAction> =
            std::iter::from_fn(|| piece_receiver.poll_action()).collect();
        assert!(matches!(done[..], [ReceiverAction::Land { .. }]), "{done:?}");
        // One that answers nothing at all is silent in the end.
        piece_receiver.handle(Moment(5) + Duration::from_secs(92), ReceiverEvent::Tick);
        assert!(matches!(piece_receiver.poll_action(), Some(ReceiverAction::Close { .. })));
    }

    #[test]
    fn a_revoked_lease_is_returned_unless_it_was_asked_for() {
        let mut piece_receiver = piece_receiver();
        piece_receiver.handle(
            Moment(1),
            ReceiverEvent::Lease { flow: FLOW, pieces: (0..6).map(piece).collect() },
        );
        piece_receiver.handle(Moment(1), ReceiverEvent::Revoke { flow: FLOW, pieces: 9 });
        let last = std::iter::from_fn(|| piece_receiver.poll_scheduler()).last();
        let Some(scheduler::SchedulerEvent::Returned { pieces, .. }) = last else {
            panic!("{last:?}")
        };
        assert_eq!(pieces, [piece(4), piece(5)]);
    }
}

//! A receiver without its threads: a `Participant` and the machines of two rails, with a master
//! that says anything, senders that answer anything, and a kernel that ends what it was asked for
//! in any order.
//!
//! Between the machines, messages go the way that they go between threads: in order, and as late as
//! can be.

use std::collections::VecDeque;
use std::time::Duration;

use super::byte_source::ByteSource;
use super::participant_log::ParticipantLog;
use super::plans;
use super::rail::{FuzzedRail, TRANSFER, check_of, pick_flow};
use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::error::{Code, Error};
use crate::core::node::participant::{
    Participant, ParticipantAction, ParticipantConfig, ParticipantEvent, ParticipantState,
};
use crate::core::options::{CheckKind, DataPath, TransferOptions};
use crate::core::piece::FlowIx;
use crate::core::rail::{
    FlowDirection, LandingPiece, PayloadOutcome, PieceMap, RailEvent, RailNotice, SlotIx,
    TransferCommand,
};
use crate::core::receiver::flow_growth::PathReading;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler;
use crate::core::units::{Moment, Span};
use crate::core::wire::Check;
use crate::core::wire::control::{Prepared, ToNode, WireOptions, decode, encode};
use crate::core::wire::frame::{Frame, FrameKind};

/// Slots of each rail.
const SLOTS: u32 = 3;

/// Steps that a receiver may need to its end once everybody is kind to it; a plan has some hundred
/// pieces.
const STEPS_MAX: usize = 100_000;

/// Pieces of a plan that is played through; what is larger is as good as one that is refused.
const PIECES_MAX: u64 = 600;

/// Nothing is asked for or written that is not wanted, nothing is named before all has landed,
/// every number adds up, and once everybody is kind, the transfer ends.
pub fn receiver(bytes: &[u8]) {
    let mut script = ByteSource::new(bytes);
    let Some(mut world) = ReceiverWorld::new(&mut script) else { return };
    while !script.is_over() {
        world.step(&mut script);
        world.follow();
    }
    world.end();
}

struct ReceiverWorld {
    now: Moment,
    grid: BlockGrid,
    kind: CheckKind,
    participant: Participant,
    rails: [FuzzedRail; 2],
    /// Messages to the rails that they have not received.
    commands: [VecDeque<RailMessage>; 2],
    /// Events of the rails that the participant has not received.
    inbox: VecDeque<scheduler::SchedulerEvent>,
    opening: Vec<RailPair>,
    flow_count: u32,
    jobs: VecDeque<PendingJob>,
    epoch: u32,
    told: ParticipantLog,
}

/// A message of the control thread to a rail.
enum RailMessage {
    FlowUp(FlowIx, FlowDirection),
    Command(TransferCommand),
}

/// A job that somebody else does for the participant.
#[derive(Clone, Copy, PartialEq)]
enum PendingJob {
    Preallocate,
    Extend,
    Commit,
    Keep,
    Leave,
}

impl ReceiverWorld {
    /// A receiver whose master has sent its terms, where those are none that the wire refuses.
    fn new(script: &mut ByteSource<'_>) -> Option<ReceiverWorld> {
        let block_bytes = script.pick(&[1, 3, 10, 1024, 4096, 5000]);
        let origin = script.pick(&[0, 5, 1024, u64::MAX - 2000, u64::MAX]);
        let check = script.pick(&[CheckKind::None, CheckKind::Crc64, CheckKind::Blake3]);
        let transfer = TransferOptions { check, ..TransferOptions::default() };
        let object = script.coin().then(|| Span::new(origin.min(u64::MAX - 1), u64::MAX));
        let options: WireOptions =
            decode(&encode(&WireOptions { block_bytes, origin, object, transfer }).ok()?).ok()?;
        let grid = BlockGrid::new(options.origin, options.block_bytes.into());
        let method = CheckMethod::new(options.transfer.check, options.object);
        let rail = || {
            let mut rail = FuzzedRail::new(SLOTS, block_bytes.into());
            let (path, sources, destinations) = (DataPath::Auto, Vec::new(), Vec::new());
            let map = PieceMap { method, path, sources, destinations };
            rail.machine.join(TRANSFER, map, Duration::from_secs(10));
            rail
        };
        let fsync = script.coin();
        let transfer = TransferOptions { fsync, verify: !fsync, ..options.transfer };
        let mut world = ReceiverWorld {
            now: Moment(1_000_000),
            grid,
            kind: options.transfer.check,
            participant: Participant::new(ParticipantConfig {
                grid,
                method,
                rails: 2,
                options: transfer,
            }),
            rails: [rail(), rail()],
            commands: [VecDeque::new(), VecDeque::new()],
            inbox: VecDeque::new(),
            opening: Vec::new(),
            flow_count: 0,
            jobs: VecDeque::new(),
            epoch: 0,
            told: ParticipantLog::default(),
        };
        if script.coin() {
            world.hear(ParticipantEvent::Found(Vec::new()));
        }
        if script.below(8) != 7 {
            let prepared: Prepared = decode(&[]).expect("nothing of it must be there");
            world.hear(ParticipantEvent::Prepared(Ok(prepared)));
            world.start(script);
            world.follow();
        }
        Some(world)
    }

    fn hear(&mut self, event: ParticipantEvent) {
        self.participant.handle(self.now, event);
    }

    fn step(&mut self, script: &mut ByteSource<'_>) {
        match script.below(16) {
            0 => self.say(script),
            1 => {
                if let Some(job) = self.jobs.pop_front() {
                    self.finish_job(job, script.below(8) != 7);
                }
            }
            2 => self.open(script),
            3..=5 => {
                self.deliver(script.coin());
            }
            6 | 7 => self.answer(script),
            8 | 9 => self.received(script),
            10 | 11 => {
                let rail = script.below(2);
                if let Some(at) = script.place(self.rails[rail].writing.len()) {
                    self.written(rail, at);
                }
            }
            12 => {
                let (rail, code) = (
                    script.below(2),
                    script.pick(&[Code::Unreachable, Code::Refused, Code::Stalled]),
                );
                if let Some(at) = script.place(self.rails[rail].flows.len()) {
                    let flow = *self.rails[rail].flows.keys().nth(at).expect("one of them");
                    self.rails[rail].break_flow(self.now, flow, code);
                }
            }
            13 if script.below(32) == 31 => {
                self.hear(ParticipantEvent::Broken(Error::new(Code::Data, "the disk is full")));
            }
            14 => {
                let rail = script.below(2);
                if !self.requests_sent(rail) {
                    let millis = script.pick(&[0, 3, 10, 100, 1000]);
                    self.path_read(rail, millis, script.below(4) as u64);
                }
            }
            _ => {
                let wait = script.pick(&[0, 1_000_000, 20_000_000, 500_000_000, 10_000_000_000]);
                self.pass(Duration::from_nanos(wait));
            }
        }
    }

    /// The master says something.
    fn say(&mut self, script: &mut ByteSource<'_>) {
        let message = match script.below(16) {
            0 => ToNode::Cancel { reason: "it was asked to".into(), forgets: false },
            1 => ToNode::Finish,
            2 => ToNode::Commit,
            _ => return self.start(script),
        };
        self.hear(ParticipantEvent::Master(message));
    }

    /// A plan, if it is one that the wire lets through.
    fn start(&mut self, script: &mut ByteSource<'_>) {
        let again = script.below(4) != 3;
        self.epoch += u32::from(script.below(8) != 7);
        let spans =
            if again && self.epoch > 1 { self.told.wanted.clone() } else { plans::spans(script) };
        let start = plans::start(script, self.epoch, spans);
        let Ok(bytes) = encode(&ToNode::Start(start)) else { return };
        let Ok(ToNode::Start(start)) = decode(&bytes) else { return };
        let pieces =
            start.segments.iter().map(|segment| u128::from(self.grid.piece_count(segment.span)));
        if pieces.sum::<u128>() > PIECES_MAX.into() {
            return;
        }
        if self.participant.state() == ParticipantState::Ready {
            self.told.wanted = start.segments.iter().map(|segment| segment.span).collect();
            self.told.holes.clone_from(&start.holes);
        }
        let spans = start.relays.clone();
        self.tell_all(|| TransferCommand::Relay { spans: spans.clone() });
        self.hear(ParticipantEvent::Master(ToNode::Start(start)));
    }

    fn finish_job(&mut self, job: PendingJob, well: bool) {
        let result = if well { Ok(()) } else { Err(Error::new(Code::Data, "the disk is full")) };
        self.hear(match job {
            PendingJob::Preallocate => ParticipantEvent::Preallocated(result),
            PendingJob::Extend => ParticipantEvent::Extended(result),
            PendingJob::Commit => ParticipantEvent::Committed(result),
            PendingJob::Keep => ParticipantEvent::Kept,
            PendingJob::Leave => ParticipantEvent::Left,
        });
    }

    /// A flow that was asked for stands, or cannot be opened.
    fn open(&mut self, script: &mut ByteSource<'_>) {
        let Some(at) = script.place(self.opening.len()) else { return };
        let rail_pair = self.opening.swap_remove(at);
        match script.below(8) {
            6 => self.open_failed(rail_pair, Code::Refused),
            7 => self.open_failed(rail_pair, Code::Unreachable),
            _ => self.opened(rail_pair),
        }
    }

    fn open_failed(&mut self, rail_pair: RailPair, code: Code) {
        let error = Error::new(code, "nobody is there");
        self.hear(ParticipantEvent::Flow(scheduler::SchedulerEvent::OpenFailed {
            rail_pair,
            error,
        }));
    }

    fn opened(&mut self, rail_pair: RailPair) {
        let flow = FlowIx(self.flow_count);
        self.flow_count += 1;
        let direction = FlowDirection::Receive { relays: rail_pair.sender.0 == 1 };
        self.commands[rail_pair.index as usize % 2].push_back(RailMessage::FlowUp(flow, direction));
        self.hear(ParticipantEvent::Flow(scheduler::SchedulerEvent::FlowUp { flow, rail_pair }));
    }

    /// The next message between the threads arrives, if there is one.
    fn deliver(&mut self, to_rails: bool) -> bool {
        if !to_rails {
            let Some(event) = self.inbox.pop_front() else { return false };
            if let scheduler::SchedulerEvent::Landed { piece, .. } = &event {
                self.told.landed(piece.span);
            }
            self.hear(ParticipantEvent::Flow(event));
            return true;
        }
        let Some(rail) = self.commands.iter().position(|commands| !commands.is_empty()) else {
            return false;
        };
        match self.commands[rail].pop_front().expect("looked at above") {
            RailMessage::FlowUp(flow, direction) => {
                self.rails[rail].flow_up(self.now, flow, direction);
            }
            RailMessage::Command(command) => self.rails[rail].command(self.now, command),
        }
        true
    }

    /// A sender answers a request, or says something else.
    fn answer(&mut self, script: &mut ByteSource<'_>) {
        let rail = script.below(2);
        let Some((flow, state)) = pick_flow(script, &self.rails[rail].flows) else { return };
        // No header is read before the payload in front of it.
        if !state.awaits_header {
            return;
        }
        let known = script.place(state.asked.len()).map(|at| state.asked[at]);
        let (request, mut span) =
            known.map_or((7, Span::new(0, 10)), |frame| (frame.request, frame.span()));
        if script.below(16) == 15 {
            span = Span::of(u64::from(script.byte()), 1 + u64::from(script.byte()));
        }
        let check = match script.below(8) {
            7 => Check::Crc64(script.number()),
            _ => check_of(self.kind, span),
        };
        let kind = match script.below(64) {
            63 => FrameKind::Request { stolen: false },
            other if other % 8 == 7 => {
                FrameKind::Refuse(script.pick(&[Code::Data, Code::Integrity, Code::Refused]))
            }
            _ => FrameKind::Data(check),
        };
        self.rails[rail].answer(self.now, flow, Frame::new(kind, request, span));
    }

    /// A payload is there, or comes changed, or not at all.
    fn received(&mut self, script: &mut ByteSource<'_>) {
        let rail = script.below(2);
        let Some(at) = script.place(self.rails[rail].receiving.len()) else { return };
        let slot = *self.rails[rail].receiving.keys().nth(at).expect("one of them");
        match script.below(16) {
            15 => {
                let error = Error::new(Code::Unreachable, "it broke");
                self.rails[rail].received(self.now, slot, PayloadOutcome::Broken(error));
            }
            other => self.payload(rail, slot, other % 8 != 7),
        }
    }

    fn payload(&mut self, rail: usize, slot: SlotIx, well: bool) {
        let LandingPiece { piece, check, .. } = self.rails[rail].receiving[&slot];
        let intact = well && check == check_of(self.kind, piece.span);
        let check = intact.then_some(check);
        self.rails[rail].received(self.now, slot, PayloadOutcome::Whole { check });
    }

    fn written(&mut self, rail: usize, at: usize) {
        let (slot, _) = self.rails[rail].writing.remove(at);
        self.rails[rail].handle(self.now, RailEvent::WriteDone { slot, result: Ok(()) });
    }

    /// A send of requests has ended. Returns whether there was one.
    fn requests_sent(&mut self, rail: usize) -> bool {
        let mut flows = self.rails[rail].flows.iter_mut();
        let Some((&flow, state)) = flows.find(|(_, state)| state.sends_requests) else {
            return false;
        };
        state.sends_requests = false;
        self.rails[rail].handle(self.now, RailEvent::RequestsSent { flow });
        true
    }

    /// The path of a flow is read. Returns whether one was to be.
    fn path_read(&mut self, rail: usize, millis: u64, late_packets: u64) -> bool {
        let mut flows = self.rails[rail].flows.iter_mut();
        let Some((&flow, it)) = flows.find(|(_, it)| it.reads_path) else { return false };
        it.reads_path = false;
        let (delay, bytes) = (Duration::from_millis(millis), self.now.0 / 1000);
        let reading = PathReading { delay, delay_min: delay, bytes, late_packets };
        let reading = (millis > 0).then_some(reading);
        self.rails[rail].handle(self.now, RailEvent::PathRead { flow, reading });
        true
    }

    /// Time passes, and who waits for a moment hears of it.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for rail in &mut self.rails {
            if rail.machine.poll_timeout().is_some_and(|due| self.now >= due) {
                rail.handle(self.now, RailEvent::Tick);
                let next = rail.machine.poll_timeout();
                assert!(next.is_none_or(|due| due > self.now), "a tick that changes nothing");
            }
        }
        if self.participant.poll_timeout().is_some_and(|due| self.now >= due) {
            self.hear(ParticipantEvent::Tick);
        }
    }

    /// Carries out what the machines want, until they want nothing.
    fn follow(&mut self) {
        let mut broken = None;
        for rail in &mut self.rails {
            rail.follow(Some(&self.told.wanted));
            while let Some(report) = rail.machine.poll_report() {
                match report {
                    RailNotice::Scheduler { event, .. } => self.inbox.push_back(event),
                    RailNotice::Drained { .. } => self.told.drained += 1,
                    RailNotice::Broken { error, .. } | RailNotice::Failed { error } => {
                        broken = Some(error);
                    }
                }
            }
        }
        assert_eq!(broken, None, "every write ends well here");
        if self.told.drained == 2 && self.inbox.is_empty() {
            self.told.drained = 0;
            self.hear(ParticipantEvent::Drained);
        }
        while let Some(action) = self.participant.poll_action() {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: ParticipantAction) {
        self.told.check(&action);
        match action {
            ParticipantAction::Preallocate(_) => self.jobs.push_back(PendingJob::Preallocate),
            ParticipantAction::Extend { .. } => self.jobs.push_back(PendingJob::Extend),
            ParticipantAction::Open { rail_pair, .. } => {
                assert!(!self.opening.contains(&rail_pair), "{rail_pair:?} is being opened");
                self.opening.push(rail_pair);
            }
            ParticipantAction::Flow(command) => {
                self.tell_all(|| TransferCommand::Flow(command.clone()));
            }
            ParticipantAction::Drain => self.tell_all(|| TransferCommand::Drain),
            ParticipantAction::Commit { .. } => {
                assert!(
                    self.rails.iter().all(|rail| rail.writing.is_empty()),
                    "named while it is written to"
                );
                self.jobs.push_back(PendingJob::Commit);
            }
            ParticipantAction::Keep { .. } => self.jobs.push_back(PendingJob::Keep),
            ParticipantAction::Leave => self.jobs.push_back(PendingJob::Leave),
            ParticipantAction::Tell(message) => self.told.listen(&message),
            ParticipantAction::End => self.told.ended = true,
            _ => {}
        }
    }

    /// Flows are of one rail, which is the only one to know them.
    fn tell_all(&mut self, command: impl Fn() -> TransferCommand) {
        for commands in &mut self.commands {
            commands.push_back(RailMessage::Command(command()));
        }
    }

    /// Everybody is kind from now on: then it comes to an end, and soon.
    fn end(&mut self) {
        for _ in 0..STEPS_MAX {
            self.follow();
            if self.told.ended {
                return;
            }
            match self.participant.state() {
                ParticipantState::Preparing => {
                    self.hear(ParticipantEvent::Prepared(Err(Error::new(
                        Code::Data,
                        "it is not there",
                    ))));
                    continue;
                }
                ParticipantState::Ready | ParticipantState::Landed => {
                    self.hear(ParticipantEvent::Master(ToNode::Finish));
                    continue;
                }
                _ => {}
            }
            if !self.advance() {
                let due = self.rails.iter().filter_map(|rail| rail.machine.poll_timeout());
                let due = due.chain(self.participant.poll_timeout()).min();
                let due = due
                    .unwrap_or_else(|| panic!("{:?} waits for nothing", self.participant.state()));
                self.pass(due.since(self.now));
            }
        }
        panic!("it does not end: {:?} of {:?}", self.told.landed, self.told.wanted);
    }

    /// One step of a kind world, if there is one to be made.
    fn advance(&mut self) -> bool {
        if let Some(job) = self.jobs.pop_front() {
            self.finish_job(job, true);
        } else if let Some(rail_pair) = self.opening.pop() {
            self.opened(rail_pair);
        } else if self.deliver(true) || self.deliver(false) {
        } else if let Some(rail) = self.rails.iter().position(|rail| !rail.writing.is_empty()) {
            self.written(rail, 0);
        } else {
            return (0..self.rails.len()).any(|rail| self.advance_rail(rail));
        }
        true
    }

    /// A payload arrives, or a sender answers what it was asked first.
    fn advance_rail(&mut self, rail: usize) -> bool {
        if let Some((&slot, _)) = self.rails[rail].receiving.first_key_value() {
            self.payload(rail, slot, true);
            return true;
        }
        let mut flows = self.rails[rail].flows.iter().filter(|(_, flow)| flow.awaits_header);
        let asked = flows.find_map(|(&flow, state)| Some((flow, *state.asked.first()?)));
        if let Some((flow, frame)) = asked {
            let kind = FrameKind::Data(check_of(self.kind, frame.span()));
            self.rails[rail].answer(self.now, flow, Frame { kind, ..frame });
        }
        asked.is_some() || self.requests_sent(rail) || self.path_read(rail, 1, 0)
    }
}

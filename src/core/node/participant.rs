//! A node's part in one transfer, from the master's first message to the last: a table of states.
//!
//! ```text
//! Preparing ──Prepared──▶ Ready ──Start──▶ Starting ──Preallocated──▶ Moving ──settled──▶ Draining
//!                           │                                                       Drained │
//!                           │ Finish                                                        ▼
//!                           ▼                       Landed ◀─────────Committed──────── Committing
//!                         Ended ◀──────Finish──────────┘ └──Commit (shared files)──────────▶
//! ```
//!
//! From every state, an error or `Cancel` leads through `Draining` and `Leaving` to `Ended`: what
//! has landed is kept for another attempt where that is possible, and else the destination
//! discarded. Nodes that only send stay `Ready` until `Finish`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::error::Error;
use crate::core::piece::{FlowCommand, FlowIx, LandedPiece};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler;
use crate::core::receiver::scheduler::{CompletedBefore, PieceScheduler};
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::Check;
use crate::core::wire::control::{NodeStats, Prepared, Start, ToMaster, ToNode};

mod config;
mod ending;
mod followed_plan;
mod growing;
mod growth;
mod journal_queue;
mod keeping;
mod report_times;
mod reports;
mod room;

pub(crate) use config::ParticipantConfig;
pub(crate) use room::RoomRequest;

use followed_plan::FollowedPlan;
use growth::PlanGrowth;
use journal_queue::JournalQueue;
use report_times::ReportTimes;

/// Interval at which what has landed is written to the journal.
const KEEP_EVERY: Duration = Duration::from_millis(500);

/// An event of a participant.
#[derive(Clone, Debug)]
pub(crate) enum ParticipantEvent {
    /// Pieces that land here are kept for another attempt, and these are those that an earlier one
    /// has left, ascending. It comes before `Prepared`, or never.
    Found(Vec<LandedPiece>),
    /// Sources and destinations are open, or one of them is not to be had.
    Prepared(Result<Prepared, Error>),
    /// The master says something.
    Master(ToNode),
    /// The destinations have their space, or the disk is full.
    Preallocated(Result<(), Error>),
    /// The destinations have space for further ranges, or the disk is full.
    Extended(Result<(), Error>),
    /// Something happened to a flow or a piece.
    Flow(scheduler::SchedulerEvent),
    /// The rails cannot take the files in, or a destination failed under them: nothing more can
    /// land here.
    Broken(Error),
    /// The rails hold nothing of this transfer any more.
    Drained,
    /// The destinations have their final names, or could not get them.
    Committed(Result<(), Error>),
    /// Pieces are written down, as far as that was possible.
    Kept,
    /// The destinations are left as another attempt will find them.
    Left,
    /// A worker, or the rails, have had their time for what this participant waits for.
    Overdue(Error),
    /// The moment of `poll_timeout` has come.
    Tick,
}

/// An action of a participant.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ParticipantAction {
    /// Make room in the destinations; answered by `Preallocated`.
    Preallocate(RoomRequest),
    /// Make room for further ranges, except for their `holes`, while bytes move; answered by
    /// `Extended`.
    Extend { wanted: Vec<Span>, holes: Vec<Span> },
    /// Open a flow to a sender; answered by the scheduler's `FlowUp` or `OpenFailed`.
    Open { rail_pair: RailPair, weight: u64, pace_bytes_per_second: u64 },
    /// Tell the rail of a flow.
    Flow(FlowCommand),
    /// A piece that other receivers may ask this node for has landed: the rails may answer for it.
    Offer { span: Span },
    /// A piece that other receivers may ask this node for will never be here: the rails refuse it.
    Withdraw { span: Span },
    /// Close every flow and wait for what the kernel still holds; answered by `Drained`.
    Drain,
    /// Give files their final names; answered by `Committed`. Files that other nodes may write too
    /// get theirs only when all have `landed_everywhere`; before that, what this node wrote of them
    /// is made durable. What has `checks` is read back first.
    Commit { landed_everywhere: bool, checks: Vec<(Span, Check)> },
    /// Write down pieces that have landed; answered by `Kept`.
    Keep { pieces: Vec<LandedPiece> },
    /// Leave what has landed to another attempt, or remove it; answered by `Left`.
    Leave,
    /// Everybody has all they want: forget how the files came to be. What follows is done when that
    /// is.
    Confirm,
    /// Give up what has no final name yet. What follows is done when that is.
    Discard,
    /// Tell the master. Statistics are filled in by the driver, which counts bytes.
    Tell(ToMaster),
    /// Forget this transfer.
    End,
}

/// The state of a participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ParticipantState {
    Preparing,
    Ready,
    Starting,
    Moving,
    Draining,
    Leaving,
    Committing,
    Landed,
    Ended,
}

/// A node's part in one transfer.
///
/// Events: `handle`. Actions: `poll_action`, until `None`. Time: `poll_timeout`. Questions:
/// `state`.
pub(crate) struct Participant {
    terms: ParticipantConfig,
    state: ParticipantState,
    scheduler: Option<PieceScheduler>,
    plan: FollowedPlan,
    /// Further segments that newer plans bring.
    growth: PlanGrowth,
    journal_queue: JournalQueue,
    /// The reason why this participant ends without having landed everything.
    error: Option<Error>,
    /// The master asked for the end, so that nothing needs to be told.
    dismissed: bool,
    landed_everywhere: bool,
    /// Moment of the last event.
    now: Moment,
    report_times: ReportTimes,
    keep_due: Moment,
    actions: VecDeque<ParticipantAction>,
}

impl Participant {
    /// A participant whose sources and destinations are being opened.
    pub(crate) fn new(terms: ParticipantConfig) -> Participant {
        Participant {
            terms,
            state: ParticipantState::Preparing,
            scheduler: None,
            plan: FollowedPlan::default(),
            growth: PlanGrowth::default(),
            journal_queue: JournalQueue::default(),
            error: None,
            dismissed: false,
            landed_everywhere: false,
            now: Moment(0),
            report_times: ReportTimes::default(),
            keep_due: Moment(0),
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn state(&self) -> ParticipantState {
        self.state
    }

    /// Takes in what happened. News that no state waits for is late, and changes nothing.
    pub(crate) fn handle(&mut self, now: Moment, event: ParticipantEvent) {
        use ParticipantState as State;
        self.now = now;
        match (event, self.state) {
            (_, State::Ended) => {}
            (ParticipantEvent::Master(message), _) => self.master_says(now, message),
            (ParticipantEvent::Broken(error), _) => self.rails_broken(error),
            (ParticipantEvent::Overdue(error), _) => self.overdue(error),
            (ParticipantEvent::Kept, _) => self.journal_queue.written(),
            (ParticipantEvent::Found(found), State::Preparing) => {
                self.journal_queue = JournalQueue::new(found);
            }
            (ParticipantEvent::Prepared(Ok(prepared)), State::Preparing) => self.prepared(prepared),
            (ParticipantEvent::Prepared(Err(error)), State::Preparing) => self.refuse(error),
            (ParticipantEvent::Preallocated(Ok(())), State::Starting) => self.begin(now),
            (ParticipantEvent::Preallocated(Err(error)), State::Starting)
            | (ParticipantEvent::Extended(Err(error)), State::Moving) => self.abort(error),
            (ParticipantEvent::Extended(Ok(())), State::Moving) => self.extended(now),
            (ParticipantEvent::Flow(event), State::Moving) => self.scheduler_event(now, event),
            (ParticipantEvent::Tick, State::Moving) => self.tick(now),
            (ParticipantEvent::Drained, State::Draining) => self.drained(),
            (ParticipantEvent::Committed(result), State::Committing) => self.commit_done(result),
            (ParticipantEvent::Left, State::Leaving) => self.left(),
            (
                ParticipantEvent::Found(_)
                | ParticipantEvent::Prepared(_)
                | ParticipantEvent::Preallocated(_)
                | ParticipantEvent::Extended(_)
                | ParticipantEvent::Flow(_)
                | ParticipantEvent::Tick
                | ParticipantEvent::Drained
                | ParticipantEvent::Committed(_)
                | ParticipantEvent::Left,
                State::Preparing
                | State::Ready
                | State::Starting
                | State::Moving
                | State::Draining
                | State::Leaving
                | State::Committing
                | State::Landed,
            ) => {}
        }
    }

    fn master_says(&mut self, now: Moment, message: ToNode) {
        match (message, self.state) {
            (ToNode::Cancel { reason, .. }, _) => self.cancel(&reason),
            (ToNode::Finish, _) => self.finish(),
            // Nobody has a plan for a node that is not prepared.
            (ToNode::Start(_), ParticipantState::Preparing) => {}
            (ToNode::Start(start), ParticipantState::Ready) => self.start(start),
            (ToNode::Start(start), _) if start.epoch > self.plan.epoch() => {
                self.start_again(now, start);
            }
            (ToNode::Commit, ParticipantState::Landed) => self.commit(true),
            // Repeated, or for another attempt.
            (
                ToNode::Start(_)
                | ToNode::Commit
                | ToNode::Prepare(_)
                | ToNode::Resume(_)
                | ToNode::MakeWay { .. }
                | ToNode::Survey(_)
                | ToNode::Called { .. },
                _,
            ) => {}
        }
    }

    /// The sender at the other end of a flow that stands.
    pub(super) fn sender_of(&self, flow: FlowIx) -> Option<NodeIx> {
        self.scheduler.as_ref()?.sender_of(flow)
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<ParticipantAction> {
        self.actions.pop_front()
    }

    /// The moment at which `Tick` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        let scheduler =
            self.scheduler.as_ref().filter(|_| self.state == ParticipantState::Moving)?;
        let due = self.report_times.due().min(self.keep_due);
        Some(scheduler.poll_timeout().map_or(due, |other| due.min(other)))
    }

    fn prepared(&mut self, prepared: Prepared) {
        if self.dismissed {
            return self.dismiss();
        }
        self.state = ParticipantState::Ready;
        self.tell(ToMaster::Prepared(prepared));
    }

    fn start(&mut self, start: Start) {
        if let Err(error) = self.terms.judge(start.segments.iter().map(|segment| segment.span)) {
            return self.abort(error);
        }
        self.state = ParticipantState::Starting;
        self.journal_queue.learn(&start.origins);
        let (forgets, more_at) = (start.forgets, start.more_at);
        self.growth.begin(more_at);
        self.plan = FollowedPlan::new(self.terms.rails, start);
        let room = self.plan.room(forgets, more_at.is_some());
        self.actions.push_back(ParticipantAction::Preallocate(room));
    }

    /// A newer plan: other shares of the same segments, further ones, and others to pass on to.
    fn start_again(&mut self, now: Moment, start: Start) {
        self.journal_queue.learn(&start.origins);
        let more_at = start.more_at;
        let sources = self.plan.renew(self.terms.rails, start);
        let Some(scheduler) = &mut self.scheduler else {
            // Room was asked for by the first plan.
            let replaced = self.growth.replace(&self.terms, &mut self.plan, sources, more_at);
            return replaced.err().into_iter().for_each(|error| self.abort(error));
        };
        // Others may ask now for what was nobody's business when it landed.
        let relays = self.plan.relays().iter();
        let landed = relays.flat_map(|span| scheduler.extents().landed_within(*span));
        self.actions.extend(landed.map(|span| ParticipantAction::Offer { span }));
        if self.state == ParticipantState::Moving {
            match self.growth.follow(&self.terms, scheduler, sources, more_at) {
                Ok(step) => self.grow(now, step),
                Err(error) => self.abort(error),
            }
        }
    }

    fn begin(&mut self, now: Moment) {
        if let Some(error) = self.error.take() {
            return self.abort(error);
        }
        self.state = ParticipantState::Moving;
        self.report_times.begin(now);
        self.keep_due = now + KEEP_EVERY;
        let sources = self.plan.take_sources();
        let pair_count = |sender: NodeIx| self.plan.pair_count(sender);
        let found = self.journal_queue.take_found(self.plan.kept());
        let there = CompletedBefore { holes: self.plan.holes(), kept: &found };
        let (grid, method) = (self.terms.grid, self.terms.method);
        let mut scheduler =
            PieceScheduler::new(grid, method, &sources, there, pair_count, self.growth.grows());
        if let Some(bytes_per_second) = self.plan.limit_bytes_per_second() {
            scheduler.limit(now, bytes_per_second);
        }
        let landed = self.plan.relays().iter().flat_map(|span| scheduler.kept_within(*span));
        self.actions.extend(landed.map(|span| ParticipantAction::Offer { span }));
        self.scheduler = Some(scheduler);
        self.keep_to_plan(now);
        self.follow_owner();
        self.extended(now);
    }

    /// Has the scheduler keep to the part of the plan's duration that is left.
    fn keep_to_plan(&mut self, now: Moment) {
        if let Some(scheduler) = &mut self.scheduler {
            let left = scheduler.extents().part_left();
            scheduler.keep_to_plan(now, self.plan.seconds().map(|seconds| seconds * left));
        }
    }

    fn scheduler_event(&mut self, now: Moment, event: scheduler::SchedulerEvent) {
        if let scheduler::SchedulerEvent::Landed { piece, .. } = event
            && self.plan.is_relayed(piece.span)
        {
            self.actions.push_back(ParticipantAction::Offer { span: piece.span });
        }
        self.tell_scheduler(now, event);
        self.follow_owner();
    }

    fn tick(&mut self, now: Moment) {
        if now >= self.keep_due {
            self.keep_due = now + KEEP_EVERY;
            self.keep();
        }
        if self.report_times.look(now, self.scheduler.as_ref()) {
            self.tell_progress();
        }
        let due = self.scheduler.as_ref().and_then(PieceScheduler::poll_timeout);
        if due.is_some_and(|due| now >= due) {
            self.scheduler_event(now, scheduler::SchedulerEvent::Tick);
        }
    }

    fn tell_progress(&mut self) {
        self.tell(reports::progress(self.now, self.scheduler.as_ref()));
    }

    fn follow_owner(&mut self) {
        while let Some(action) = self.scheduler.as_mut().expect("called while moving").poll_action()
        {
            let action = match action {
                scheduler::SchedulerAction::Open { rail_pair } => {
                    let weight = rail_pair.part_of(self.plan.weight(rail_pair.sender));
                    let pace = self.plan.pace_bytes_per_second(rail_pair.sender);
                    let pace_bytes_per_second = rail_pair.part_of(pace);
                    ParticipantAction::Open { rail_pair, weight, pace_bytes_per_second }
                }
                scheduler::SchedulerAction::Flow(command) => ParticipantAction::Flow(command),
                scheduler::SchedulerAction::GiveUp { span }
                | scheduler::SchedulerAction::Withhold { span }
                    if self.plan.is_relayed(span) =>
                {
                    ParticipantAction::Withdraw { span }
                }
                scheduler::SchedulerAction::GiveUp { .. }
                | scheduler::SchedulerAction::Withhold { .. } => continue,
                scheduler::SchedulerAction::Settled => {
                    self.error = self.scheduler.as_ref().and_then(PieceScheduler::missing);
                    self.state = ParticipantState::Draining;
                    ParticipantAction::Drain
                }
            };
            self.actions.push_back(action);
        }
        let is_moving = self.state == ParticipantState::Moving;
        if is_moving && self.scheduler.as_ref().is_some_and(|it| self.growth.is_due(it)) {
            self.tell_progress();
        }
    }

    fn drained(&mut self) {
        if self.dismissed || self.error.is_some() {
            self.leave();
        } else {
            self.commit(false);
        }
    }

    fn commit(&mut self, landed_everywhere: bool) {
        self.state = ParticipantState::Committing;
        self.landed_everywhere = landed_everywhere;
        self.keep_rest();
        let verify = self.terms.options.verify && !landed_everywhere;
        let scheduler = self.scheduler.as_ref().filter(|_| verify);
        let checks = scheduler.map_or(Vec::new(), reports::checks);
        if !landed_everywhere && (self.terms.options.fsync || self.terms.options.verify) {
            // Committing may take minutes, and no byte lands meanwhile.
            self.tell_progress();
        }
        self.actions.push_back(ParticipantAction::Commit { landed_everywhere, checks });
    }

    fn commit_done(&mut self, result: Result<(), Error>) {
        match result {
            Err(error) => self.refuse(error),
            Ok(()) if self.dismissed => self.dismiss(),
            Ok(()) if self.landed_everywhere => {
                self.state = ParticipantState::Landed;
                self.tell(ToMaster::Committed);
            }
            Ok(()) => self.landed(),
        }
    }

    fn landed(&mut self) {
        self.state = ParticipantState::Landed;
        let scheduler = self.scheduler.as_ref().expect("what has landed had an owner");
        let segments = reports::landed_segments(scheduler);
        let message = ToMaster::Landed { segments, stats: self.stats() };
        self.tell(message);
    }

    fn stats(&self) -> NodeStats {
        let counts = self.scheduler.as_ref().map(PieceScheduler::counts).unwrap_or_default();
        NodeStats { epoch: self.plan.epoch(), ..counts.into() }
    }

    fn tell(&mut self, message: ToMaster) {
        self.actions.push_back(ParticipantAction::Tell(message));
    }
}

#[cfg(test)]
#[path = "participant_tests.rs"]
mod tests;

//! Execution of a participant's actions, and the answers to them.

use super::attempt::{ActionPause, Attempt, AttemptFiles};
use super::events::NodeAction;
use super::jobs::{ClearMode, JobAnswer, JobKind, NodeJob, OpenedFiles};
use crate::core::error::Error;
use crate::core::node::participant::{ParticipantAction, ParticipantEvent, ParticipantState};
use crate::core::rail::TransferCommand;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::Moment;
use crate::core::wire::control::{FlowCall, ToMaster};

impl Attempt {
    /// Takes in what the participant wants, until it wants nothing or its next action has to wait.
    pub(super) fn follow(&mut self, now: Moment) {
        while let (None, Some(participant)) = (self.pause, &mut self.participant) {
            let Some(action) = participant.poll_action() else { return };
            self.carry_out(now, action);
        }
    }

    fn carry_out(&mut self, now: Moment, action: ParticipantAction) {
        use ParticipantAction as Wants;
        let transfer = self.ix;
        match action {
            Wants::Preallocate(room) => {
                self.work(now, JobKind::Preallocate, NodeJob::Preallocate(room));
            }
            Wants::Extend { wanted, holes } => {
                self.work(now, JobKind::Extend, NodeJob::Extend { wanted, holes });
            }
            Wants::Open { rail_pair, weight, pace_bytes_per_second } => {
                self.actions.push_back(NodeAction::OpenFlow {
                    transfer,
                    rail_pair,
                    weight,
                    pace_bytes_per_second,
                });
            }
            Wants::Flow(command) => self.actions.push_back(NodeAction::Flow { transfer, command }),
            Wants::Offer { span } => self.tell_rails(TransferCommand::Offer { span }),
            Wants::Withdraw { span } => {
                self.tell_rails(TransferCommand::Withdraw { span });
            }
            Wants::Drain => self.drain(now),
            Wants::Commit { landed_everywhere, checks } => {
                let job = NodeJob::Commit { landed_everywhere, checks };
                self.work(now, JobKind::Commit, job);
            }
            // Nobody waits for it: what follows finds the pieces at the journals.
            Wants::Keep { pieces } => {
                let job = NodeJob::Keep { pieces };
                self.actions.push_back(NodeAction::Work { transfer, job });
            }
            Wants::Leave => {
                let forgets = self.forgets;
                self.work(now, JobKind::Leave, NodeJob::Leave { forgets });
            }
            Wants::Confirm => self.confirm(now),
            Wants::Discard => {
                let (forgets, departs) = (self.forgets, !self.is_dismissed);
                self.clear(now, ClearMode::Discard { forgets, departs });
            }
            Wants::Tell(message) => self.tell(message),
            Wants::End => self.end(),
        }
    }

    /// Waits for the rails. One that has failed holds nothing.
    fn drain(&mut self, now: Moment) {
        self.draining.clone_from(&self.rails);
        self.jobs.wait_for(now, JobKind::Drain);
        self.tell_rails(TransferCommand::Drain);
        if self.draining.is_empty() {
            self.jobs.is_done(JobKind::Drain);
            self.handle(now, ParticipantEvent::Drained);
        }
    }

    pub(super) fn tell_rails(&mut self, command: TransferCommand) {
        self.actions.push_back(NodeAction::Rails { transfer: self.ix, command });
    }

    pub(super) fn work(&mut self, now: Moment, kind: JobKind, job: NodeJob) {
        self.jobs.wait_for(now, kind);
        self.actions.push_back(NodeAction::Work { transfer: self.ix, job });
    }

    /// All has landed everywhere: how this node's files came to be is forgotten, with the master's
    /// good-bye at the latest.
    fn confirm(&mut self, now: Moment) {
        if self.channel.is_told() {
            self.files = AttemptFiles::Remembered;
        } else {
            self.clear(now, ClearMode::Confirm);
        }
    }

    /// Has a worker end all files of a transfer, and look at its sources, before anything else.
    fn clear(&mut self, now: Moment, mode: ClearMode) {
        if self.files != AttemptFiles::Closed {
            self.pause = Some(ActionPause::Clearing);
            self.work(now, JobKind::Clear, NodeJob::Clear(mode));
        }
    }

    /// A message to the master: with its numbers, if anybody hears of it.
    fn tell(&mut self, mut message: ToMaster) {
        self.jobs.write_times(&mut message);
        let message = match (message, self.sources.clone()) {
            // A source that was written to meanwhile may have been sent half old, half new.
            (ToMaster::Report(stats), Err(error)) => {
                ToMaster::Failed { error, stats: Some(Box::new(stats)) }
            }
            (message, _) => message,
        };
        if let ToMaster::Failed { error, .. } = &message {
            self.failure.get_or_insert_with(|| error.clone());
        }
        if !self.channel.is_told() {
            return;
        }
        match message {
            ToMaster::Progress { .. }
            | ToMaster::Landed { .. }
            | ToMaster::Report(_)
            | ToMaster::Failed { stats: Some(_), .. } => {
                self.pause = Some(ActionPause::Numbers);
                self.actions.push_back(NodeAction::Complete { transfer: self.ix, message });
            }
            ToMaster::Prepared(_)
            | ToMaster::Comparing { .. }
            | ToMaster::Committed
            | ToMaster::Failed { stats: None, .. }
            | ToMaster::Resumed { .. }
            | ToMaster::Surveyed(_)
            | ToMaster::Call(_) => self.actions.extend(self.channel.send(message)),
        }
    }

    /// A message has its numbers.
    pub(super) fn completed(&mut self, now: Moment, message: ToMaster) {
        if self.pause == Some(ActionPause::Numbers) {
            self.pause = None;
            self.actions.extend(self.channel.send(message));
            self.follow(now);
        }
    }

    /// The participant has ended.
    fn end(&mut self) {
        let ended = self.participant.take().expect("it wants something");
        assert_eq!(ended.state(), ParticipantState::Ended, "one that has ended is forgotten");
        self.ended = Some(ended);
        let keeps_files = matches!(self.files, AttemptFiles::Remembered | AttemptFiles::Confirming);
        if !keeps_files {
            self.files = AttemptFiles::Closed;
        }
        let failure = self.failure.take();
        self.actions.push_back(NodeAction::Forget { transfer: self.ix, keeps_files, failure });
    }

    /// Asks a sender to dial, by way of the master, if that is there. It is not repeated.
    pub(super) fn call(&mut self, call: FlowCall) {
        if self.channel.session().is_some() {
            self.actions.extend(self.channel.send(ToMaster::Call(call)));
        }
    }

    /// A worker that opens a transfer is not idle.
    pub(super) fn reading(&mut self, now: Moment, read_bytes: u64) {
        if !self.is_over() && self.jobs.is_done(JobKind::Open) {
            self.jobs.wait_for(now, JobKind::Open);
            self.tell(ToMaster::Comparing { read_bytes });
        }
    }

    /// A worker answers. It `is_early` while rails end that no transfer needs: files that are open
    /// wait for those.
    pub(super) fn answered(&mut self, now: Moment, answer: JobAnswer, is_early: bool) {
        let (job, event) = match answer {
            JobAnswer::Opened(result) => {
                if self.jobs.is_done(JobKind::Open) {
                    self.opened(now, result, is_early);
                }
                return;
            }
            JobAnswer::Flushed => {
                return self.handle(now, ParticipantEvent::Kept);
            }
            JobAnswer::Cleared(sources) => {
                if self.jobs.is_done(JobKind::Clear) {
                    self.sources = sources;
                    self.cleared(now);
                }
                return;
            }
            JobAnswer::Confirmed => {
                if self.jobs.is_done(JobKind::Confirm) {
                    self.confirmed();
                }
                return;
            }
            JobAnswer::Preallocated(result) => {
                (JobKind::Preallocate, ParticipantEvent::Preallocated(result))
            }
            JobAnswer::Extended(result) => (JobKind::Extend, ParticipantEvent::Extended(result)),
            JobAnswer::Committed(result) => (JobKind::Commit, ParticipantEvent::Committed(result)),
            JobAnswer::Left => (JobKind::Leave, ParticipantEvent::Left),
        };
        if self.jobs.is_worked(now, job) {
            self.handle(now, event);
        }
    }

    fn opened(&mut self, now: Moment, result: Result<OpenedFiles, Error>, is_early: bool) {
        match result {
            Ok(opened) => {
                self.files = AttemptFiles::Open;
                self.opened = Some(opened);
                // The memory of rails that end counts against the same limit as that of new ones.
                if !is_early {
                    self.actions.push_back(NodeAction::Join { transfer: self.ix });
                }
            }
            Err(error) => {
                self.handle(now, ParticipantEvent::Prepared(Err(error)));
            }
        }
    }

    /// Rails that no transfer needs have ended, or have had their time.
    pub(super) fn rested(&mut self) {
        if self.opened.is_some() {
            self.actions.push_back(NodeAction::Join { transfer: self.ix });
        }
    }

    pub(super) fn joined(&mut self, now: Moment, result: Result<(), Error>) {
        let Some(OpenedFiles { prepared, found }) = self.opened.take() else { return };
        if let Some(found) = found {
            self.handle(now, ParticipantEvent::Found(found));
        }
        let result = result.map(|()| prepared);
        self.handle(now, ParticipantEvent::Prepared(result));
    }

    fn cleared(&mut self, now: Moment) {
        self.pause = None;
        self.follow(now);
    }

    /// The files of a transfer whose master has said good-bye are confirmed.
    fn confirmed(&mut self) {
        self.files = AttemptFiles::Closed;
        if self.is_over() {
            self.actions.push_back(NodeAction::Release { transfer: self.ix });
        }
        self.actions.extend(self.channel.close());
    }

    /// A worker, or the rails, have had their time.
    pub(super) fn overdue(&mut self, now: Moment, job: JobKind, error: Error) {
        match job {
            JobKind::Open
            | JobKind::Preallocate
            | JobKind::Extend
            | JobKind::Drain
            | JobKind::Commit
            | JobKind::Leave => self.handle(now, ParticipantEvent::Overdue(error)),
            JobKind::Clear => self.cleared(now),
            JobKind::Confirm => self.confirmed(),
        }
    }

    /// Something happened to a flow or a piece. Errors get the name of the peer.
    pub(super) fn flow(&mut self, now: Moment, event: SchedulerEvent) {
        let sender = |flow| self.participant.as_ref()?.sender_of(flow);
        let named = |peer: Option<_>, error| match peer {
            Some(peer) => self.blame(peer, error),
            None => error,
        };
        let event = match event {
            SchedulerEvent::Failed { flow, piece, error } => {
                SchedulerEvent::Failed { flow, piece, error: named(sender(flow), error) }
            }
            SchedulerEvent::FlowDown { flow, error } => {
                SchedulerEvent::FlowDown { flow, error: named(sender(flow), error) }
            }
            SchedulerEvent::OpenFailed { rail_pair, error } => SchedulerEvent::OpenFailed {
                rail_pair,
                error: named(Some(rail_pair.sender), error),
            },
            SchedulerEvent::OpenSlow { rail_pair, error } => {
                SchedulerEvent::OpenSlow { rail_pair, error: named(Some(rail_pair.sender), error) }
            }
            SchedulerEvent::FlowUp { .. }
            | SchedulerEvent::Room { .. }
            | SchedulerEvent::Landed { .. }
            | SchedulerEvent::Changed { .. }
            | SchedulerEvent::PartLanded { .. }
            | SchedulerEvent::PathRead { .. }
            | SchedulerEvent::Returned { .. }
            | SchedulerEvent::Tick => event,
        };
        self.handle(now, ParticipantEvent::Flow(event));
    }

    /// A rail holds nothing of a transfer any more; the participant waits for all of them.
    pub(super) fn drained(&mut self, now: Moment, rail: usize) {
        let was_awaited = self.draining.remove(&rail);
        if was_awaited && self.draining.is_empty() && self.jobs.is_done(JobKind::Drain) {
            self.handle(now, ParticipantEvent::Drained);
        }
    }

    /// A rail failed, and what was on it is gone. The next transfer gets another one.
    pub(super) fn rail_failed(&mut self, now: Moment, rail: usize, error: Error) {
        self.rails.remove(&rail);
        // One that only sends does so over its other rails, and its peers notice by themselves.
        if self.receives {
            self.handle(now, ParticipantEvent::Broken(error));
        }
        // It was one of those that are waited for, if it was told to drain before.
        self.drained(now, rail);
    }
}

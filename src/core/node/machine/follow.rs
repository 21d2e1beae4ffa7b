//! What the participants of a node want done, and the answers of those who do it.

use super::attempt::{ActionPause, Attempt, AttemptFiles, MasterLink};
use super::jobs::{ClearMode, JobAnswer, JobKind, NodeJob, OpenedFiles};
use super::{NodeAction, NodeMachine};
use crate::core::error::{Code, Error};
use crate::core::node::participant::{ParticipantAction, ParticipantEvent, ParticipantState};
use crate::core::piece::TransferIx;
use crate::core::rail::TransferCommand;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::Moment;
use crate::core::wire::control::{self, ToMaster, ToNode};

impl NodeMachine {
    /// Hands an event to a participant, and takes in what it wants.
    pub(super) fn participant(
        &mut self,
        now: Moment,
        transfer: TransferIx,
        event: ParticipantEvent,
    ) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        let Some(participant) = &mut attempt.participant else { return };
        if let ParticipantEvent::Master(ToNode::Cancel { reason, forgets }) = &event {
            attempt.failure.get_or_insert_with(|| Error::new(Code::Cancelled, reason));
            attempt.forgets |= forgets;
        }
        let is_end =
            matches!(event, ParticipantEvent::Master(ToNode::Cancel { .. } | ToNode::Finish));
        if is_end && participant.state() == ParticipantState::Preparing {
            self.actions.push_back(NodeAction::Quit { transfer });
        }
        participant.handle(now, event);
        self.follow(now, transfer);
    }

    /// Takes in what a participant wants, until it wants nothing or its next action has to wait.
    fn follow(&mut self, now: Moment, transfer: TransferIx) {
        let next = |attempt: &mut Attempt| match attempt.pause {
            None => attempt.participant.as_mut()?.poll_action(),
            Some(ActionPause::Numbers | ActionPause::Clearing) => None,
        };
        while let Some(action) = self.attempts.get_mut(&transfer).and_then(next) {
            self.carry_out(now, transfer, action);
        }
    }

    fn carry_out(&mut self, now: Moment, transfer: TransferIx, action: ParticipantAction) {
        use ParticipantAction as Wants;
        match action {
            Wants::Preallocate { wanted, holes, kept, forgets } => {
                let job = NodeJob::Preallocate { wanted, holes, kept, forgets };
                self.work(now, transfer, JobKind::Preallocate, job);
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
            Wants::Offer { span } => self.tell_rails(transfer, TransferCommand::Offer { span }),
            Wants::Withdraw { span } => {
                self.tell_rails(transfer, TransferCommand::Withdraw { span });
            }
            Wants::Drain => {
                let attempt = self.attempts.get_mut(&transfer).expect("it wants something");
                // A rail that has failed holds nothing.
                attempt.draining.clone_from(&attempt.rails);
                let is_drained = attempt.draining.is_empty();
                attempt.wait_for(now, JobKind::Drain);
                self.tell_rails(transfer, TransferCommand::Drain);
                if is_drained {
                    self.attempts
                        .get_mut(&transfer)
                        .expect("it wants something")
                        .is_done(JobKind::Drain);
                    self.participant(now, transfer, ParticipantEvent::Drained);
                }
            }
            Wants::Commit { landed_everywhere, checks } => {
                let job = NodeJob::Commit { landed_everywhere, checks };
                self.work(now, transfer, JobKind::Commit, job);
            }
            // Nobody waits for it: what follows finds the pieces at the journals.
            Wants::Keep { pieces } => {
                let job = NodeJob::Keep { pieces };
                self.actions.push_back(NodeAction::Work { transfer, job });
            }
            Wants::Leave => {
                let forgets = self.attempts[&transfer].forgets;
                self.work(now, transfer, JobKind::Leave, NodeJob::Leave { forgets });
            }
            Wants::Confirm => self.confirm(now, transfer),
            Wants::Discard => {
                let forgets = self.attempts[&transfer].forgets;
                self.clear(now, transfer, ClearMode::Discard { forgets });
            }
            Wants::Tell(message) => self.tell(transfer, message),
            Wants::End => self.forget(now, transfer),
        }
    }

    pub(super) fn tell_rails(&mut self, transfer: TransferIx, command: TransferCommand) {
        self.actions.push_back(NodeAction::Rails { transfer, command });
    }

    fn work(&mut self, now: Moment, transfer: TransferIx, kind: JobKind, job: NodeJob) {
        self.attempts.get_mut(&transfer).expect("it wants something").wait_for(now, kind);
        self.actions.push_back(NodeAction::Work { transfer, job });
    }

    /// All has landed everywhere: how this node's files came to be is forgotten, with the master's
    /// good-bye at the latest.
    fn confirm(&mut self, now: Moment, transfer: TransferIx) {
        let attempt = self.attempts.get_mut(&transfer).expect("it wants something");
        if attempt.link.is_told() {
            attempt.files = AttemptFiles::Remembered;
        } else {
            self.clear(now, transfer, ClearMode::Confirm);
        }
    }

    /// Has a worker end all files of a transfer, and look at its sources, before anything else.
    fn clear(&mut self, now: Moment, transfer: TransferIx, mode: ClearMode) {
        let attempt = self.attempts.get_mut(&transfer).expect("it wants something");
        if attempt.files != AttemptFiles::Closed {
            attempt.pause = Some(ActionPause::Clearing);
            self.work(now, transfer, JobKind::Clear, NodeJob::Clear(mode));
        }
    }

    /// A message to the master: with its numbers, if anybody hears of it.
    fn tell(&mut self, transfer: TransferIx, message: ToMaster) {
        let attempt = self.attempts.get_mut(&transfer).expect("it wants something");
        let message = match (message, attempt.sources.clone()) {
            // A source that was written to meanwhile may have been sent half old, half new.
            (ToMaster::Report(stats), Err(error)) => {
                ToMaster::Failed { error, stats: Some(Box::new(stats)) }
            }
            (message, _) => message,
        };
        if let ToMaster::Failed { error, .. } = &message {
            attempt.failure.get_or_insert_with(|| error.clone());
        }
        if !attempt.link.is_told() {
            return;
        }
        match message {
            ToMaster::Progress { .. }
            | ToMaster::Landed { .. }
            | ToMaster::Report(_)
            | ToMaster::Failed { stats: Some(_), .. } => {
                attempt.pause = Some(ActionPause::Numbers);
                self.actions.push_back(NodeAction::Complete { transfer, message });
            }
            ToMaster::Prepared(_)
            | ToMaster::Comparing { .. }
            | ToMaster::Committed
            | ToMaster::Failed { stats: None, .. }
            | ToMaster::Resumed { .. } => self.send(transfer, message),
        }
    }

    /// A message has its numbers.
    pub(super) fn completed(&mut self, now: Moment, transfer: TransferIx, message: ToMaster) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        if attempt.pause == Some(ActionPause::Numbers) {
            attempt.pause = None;
            self.send(transfer, message);
            self.follow(now, transfer);
        }
    }

    /// Sends a message, and keeps it to be sent again on another session.
    #[expect(clippy::needless_pass_by_value, reason = "a message is made to be sent")]
    fn send(&mut self, transfer: TransferIx, message: ToMaster) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        let mut is_counted = message.is_counted();
        let message = control::encode(&message).unwrap_or_else(|error| {
            // It costs this transfer, and no other one. Ranges and statistics may be what is too
            // large.
            let error = Error::from(error).remedy("split the transfer, or give it larger blocks");
            is_counted = true;
            control::encode(&ToMaster::Failed { error, stats: None }).expect("it has no lists")
        });
        if is_counted {
            attempt.replay.push(message.clone());
        }
        if let Some(session) = attempt.link.session() {
            self.actions.push_back(NodeAction::Send { session, message });
        }
    }

    fn forget(&mut self, now: Moment, transfer: TransferIx) {
        let attempt = self.attempts.get_mut(&transfer).expect("it wants something");
        let ended = attempt.participant.take().expect("it wants something");
        assert_eq!(ended.state(), ParticipantState::Ended, "one that has ended is forgotten");
        self.remains.push(ended);
        let keeps_files =
            matches!(attempt.files, AttemptFiles::Remembered | AttemptFiles::Confirming);
        if !keeps_files {
            attempt.files = AttemptFiles::Closed;
        }
        let failure = attempt.failure.take();
        self.actions.push_back(NodeAction::Forget { transfer, keeps_files, failure });
        self.settle(now, transfer);
        self.begin_waiting(now);
        self.end_without_masters(now);
    }

    /// A worker that opens a transfer is not idle.
    pub(super) fn reading(&mut self, now: Moment, transfer: TransferIx, read_bytes: u64) {
        let Some(attempt) = self.attempts.get_mut(&transfer).filter(|it| !it.is_over()) else {
            return;
        };
        if attempt.is_done(JobKind::Open) {
            attempt.wait_for(now, JobKind::Open);
            self.tell(transfer, ToMaster::Comparing { read_bytes });
        }
    }

    /// A worker answers.
    pub(super) fn answered(&mut self, now: Moment, transfer: TransferIx, answer: JobAnswer) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        let (job, event) = match answer {
            JobAnswer::Opened(result) => {
                if attempt.is_done(JobKind::Open) {
                    self.opened(now, transfer, result);
                }
                return;
            }
            JobAnswer::Flushed => {
                return self.participant(now, transfer, ParticipantEvent::Kept);
            }
            JobAnswer::Cleared(sources) => {
                if attempt.is_done(JobKind::Clear) {
                    attempt.sources = sources;
                    self.cleared(now, transfer);
                }
                return;
            }
            JobAnswer::Confirmed => {
                if attempt.is_done(JobKind::Confirm) {
                    self.confirmed(now, transfer);
                }
                return;
            }
            JobAnswer::Preallocated(result) => {
                (JobKind::Preallocate, ParticipantEvent::Preallocated(result))
            }
            JobAnswer::Committed(result) => (JobKind::Commit, ParticipantEvent::Committed(result)),
            JobAnswer::Left => (JobKind::Leave, ParticipantEvent::Left),
        };
        if attempt.is_done(job) {
            self.participant(now, transfer, event);
        }
    }

    fn opened(&mut self, now: Moment, transfer: TransferIx, result: Result<OpenedFiles, Error>) {
        let attempt = self.attempts.get_mut(&transfer).expect("its worker was waited for");
        match result {
            Ok(opened) => {
                attempt.files = AttemptFiles::Open;
                attempt.opened = Some(opened);
                // The memory of rails that end counts against the same limit as that of new ones.
                if self.resting.is_none() {
                    self.actions.push_back(NodeAction::Join { transfer });
                }
            }
            Err(error) => {
                self.participant(now, transfer, ParticipantEvent::Prepared(Err(error)));
            }
        }
    }

    /// Rails that no transfer needs have ended, or have had their time.
    pub(super) fn rested(&mut self) {
        self.resting = None;
        let early = self.attempts.iter().filter(|(_, attempt)| attempt.opened.is_some());
        self.actions.extend(early.map(|(&transfer, _)| NodeAction::Join { transfer }));
    }

    pub(super) fn joined(&mut self, now: Moment, transfer: TransferIx, result: Result<(), Error>) {
        let opened = self.attempts.get_mut(&transfer).and_then(|attempt| attempt.opened.take());
        let Some(OpenedFiles { prepared, found }) = opened else { return };
        if let Some(found) = found {
            self.participant(now, transfer, ParticipantEvent::Found(found));
        }
        let result = result.map(|()| prepared);
        self.participant(now, transfer, ParticipantEvent::Prepared(result));
    }

    fn cleared(&mut self, now: Moment, transfer: TransferIx) {
        let attempt = self.attempts.get_mut(&transfer).expect("its worker was waited for");
        attempt.pause = None;
        self.follow(now, transfer);
    }

    /// The files of a transfer whose master has said good-bye are confirmed.
    fn confirmed(&mut self, now: Moment, transfer: TransferIx) {
        let attempt = self.attempts.get_mut(&transfer).expect("its worker was waited for");
        attempt.files = AttemptFiles::Closed;
        if attempt.is_over() {
            self.actions.push_back(NodeAction::Release { transfer });
        }
        if let MasterLink::Leaving(session) = attempt.link {
            attempt.link = MasterLink::Gone;
            self.actions.push_back(NodeAction::CloseSession { session });
        }
        self.settle(now, transfer);
    }

    /// A worker, or the rails, have had their time.
    pub(super) fn overdue(
        &mut self,
        now: Moment,
        transfer: TransferIx,
        job: JobKind,
        error: Error,
    ) {
        match job {
            JobKind::Open
            | JobKind::Preallocate
            | JobKind::Drain
            | JobKind::Commit
            | JobKind::Leave => self.participant(now, transfer, ParticipantEvent::Overdue(error)),
            JobKind::Clear => self.cleared(now, transfer),
            JobKind::Confirm => self.confirmed(now, transfer),
        }
    }

    /// Something happened to a flow or a piece. Errors get the name of the peer.
    pub(super) fn flow(&mut self, now: Moment, transfer: TransferIx, event: SchedulerEvent) {
        let Some(attempt) = self.attempts.get(&transfer) else { return };
        let sender = |flow| attempt.participant.as_ref()?.sender_of(flow);
        let named = |peer: Option<_>, error| match peer {
            Some(peer) => attempt.blame(peer, error),
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
            | SchedulerEvent::Returned { .. }
            | SchedulerEvent::Tick => event,
        };
        self.participant(now, transfer, ParticipantEvent::Flow(event));
    }

    /// A rail holds nothing of a transfer any more; the participant waits for all of them.
    pub(super) fn drained(&mut self, now: Moment, transfer: TransferIx, rail: usize) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        let was_awaited = attempt.draining.remove(&rail);
        if was_awaited && attempt.draining.is_empty() && attempt.is_done(JobKind::Drain) {
            self.participant(now, transfer, ParticipantEvent::Drained);
        }
    }

    /// A rail failed, and what was on it is gone. The next transfer gets another one.
    pub(super) fn rail_failed(
        &mut self,
        now: Moment,
        rail: usize,
        transfers: Vec<TransferIx>,
        error: &Error,
    ) {
        for transfer in transfers {
            let Some(attempt) = self.attempts.get_mut(&transfer) else { continue };
            attempt.rails.remove(&rail);
            // One that only sends does so over its other rails, and its peers notice by themselves.
            if attempt.receives {
                self.participant(now, transfer, ParticipantEvent::Broken(error.clone()));
            }
            // It was one of those that are waited for, if it was told to drain before.
            self.drained(now, transfer, rail);
        }
    }
}

//! One attempt at a transfer, as its node keeps it: the participant, the way to its master, its
//! files, and what it waits for. A machine within the node's: its calls are events, and what it
//! wants done is taken out after each of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::channel::{MasterChannel, MasterLink};
use super::events::{NodeAction, SessionIx};
use super::jobs::{AwaitedJobs, JobKind, NodeJob, OpenedFiles};
use crate::core::error::{Code, Error};
use crate::core::node::participant::{
    Participant, ParticipantConfig, ParticipantEvent, ParticipantState,
};
use crate::core::piece::TransferIx;
use crate::core::rail::TransferCommand;
use crate::core::spec::RowRole;
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::{Prepare, Start, ToNode};

/// The files of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AttemptFiles {
    Closed,
    Open,
    /// Complete. How they came to be is remembered until the master says good-bye: one that dies
    /// before has told nobody of the end, and the transfer may be run again.
    Remembered,
    /// The master has said good-bye, and a worker confirms them.
    Confirming,
}

/// Reason for which a participant's next action waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ActionPause {
    /// The numbers of a message.
    Numbers,
    /// A worker that clears its files.
    Clearing,
}

/// One attempt at a transfer.
///
/// Invariant: there is a deadline whenever the participant or its files wait for a worker or for
/// the rails.
pub(super) struct Attempt {
    pub(super) ix: TransferIx,
    id: String,
    transfer: [u8; 16],
    attempt: [u8; 16],
    pub(super) channel: MasterChannel,
    /// `None` when it has ended.
    pub(super) participant: Option<Participant>,
    pub(super) files: AttemptFiles,
    /// Files that were opened while rails ended: they wait for those.
    pub(super) opened: Option<OpenedFiles>,
    pub(super) pause: Option<ActionPause>,
    pub(super) jobs: AwaitedJobs,
    /// The rails that it is on, and those of them that have not drained yet, while they do.
    pub(super) rails: BTreeSet<usize>,
    pub(super) draining: BTreeSet<usize>,
    /// True if it has receiver rows.
    pub(super) receives: bool,
    /// True if landed ranges must not be resumed.
    pub(super) forgets: bool,
    /// True once the master has ended the attempt. A node may end it before.
    pub(super) is_dismissed: bool,
    /// Result of the last check that its sources are unchanged.
    pub(super) sources: Result<(), Error>,
    /// Error that it fails with, for the log.
    pub(super) failure: Option<Error>,
    /// The names of the nodes that it may ask.
    names: BTreeMap<NodeIx, String>,
    /// Its participant, once that has ended.
    pub(super) ended: Option<Participant>,
    pub(super) actions: VecDeque<NodeAction>,
}

impl Attempt {
    /// An attempt whose files are being opened, over some of the node's rails.
    pub(super) fn new(
        now: Moment,
        ix: TransferIx,
        session: SessionIx,
        prepare: Prepare,
        rails: Vec<usize>,
    ) -> Attempt {
        let rail_count = u32::try_from(rails.len()).expect("rails are few");
        let mut attempt = Attempt {
            ix,
            id: prepare.id.clone(),
            transfer: prepare.transfer,
            attempt: prepare.attempt,
            channel: MasterChannel::new(session),
            participant: Some(Participant::new(ParticipantConfig::of(&prepare, rail_count))),
            files: AttemptFiles::Closed,
            opened: None,
            pause: None,
            jobs: AwaitedJobs::new(prepare.options.transfer.stall_timeout),
            rails: rails.iter().copied().collect(),
            draining: BTreeSet::new(),
            receives: prepare.rows.iter().any(|row| row.role == RowRole::Receiver),
            forgets: false,
            is_dismissed: false,
            sources: Ok(()),
            failure: None,
            names: BTreeMap::new(),
            ended: None,
            actions: VecDeque::new(),
        };
        attempt.jobs.wait_for(now, JobKind::Open);
        let prepare = Box::new(prepare);
        attempt.actions.push_back(NodeAction::Begin { transfer: ix, session, prepare, rails });
        attempt
    }

    /// Returns true if a session that names these means this attempt, and can resume it.
    pub(super) fn is_resumed_by(&self, transfer: &[u8; 16], attempt: &[u8; 16]) -> bool {
        self.channel.is_told() && self.transfer == *transfer && self.attempt == *attempt
    }

    /// Returns true if another attempt at the same transfer has to wait for this one.
    pub(super) fn is_in_the_way(&self, id: &str) -> bool {
        let is_led = self.channel.session().is_some();
        self.id == id && (self.files == AttemptFiles::Confirming || (!self.is_over() && !is_led))
    }

    /// Returns true if the participant has ended and is forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.participant.is_none()
    }

    pub(super) fn state(&self) -> Option<ParticipantState> {
        self.participant.as_ref().map(Participant::state)
    }

    /// Returns the moment of the earliest deadline.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        let participant = self.participant.as_ref().and_then(Participant::poll_timeout);
        self.jobs.due().into_iter().chain(self.channel.due()).chain(participant).min()
    }

    /// The master's plan.
    pub(super) fn start(&mut self, now: Moment, start: Start) {
        let names = start.peers.iter().map(|peer| (NodeIx(peer.index), peer.name.clone()));
        self.names.extend(names);
        if !self.is_over() {
            let spans = start.relays.clone();
            self.actions
                .push_back(NodeAction::Plan { transfer: self.ix, start: Box::new(start.clone()) });
            self.tell_rails(TransferCommand::Relay { spans });
        }
        self.handle(now, ParticipantEvent::Master(ToNode::Start(start)));
    }

    /// Another attempt begins, and may want the files that are remembered for a master that is
    /// gone: they are open as long as they are.
    pub(super) fn make_way(&mut self) {
        if self.files == AttemptFiles::Remembered && self.channel.session().is_none() {
            self.files = AttemptFiles::Closed;
            self.actions.push_back(NodeAction::Release { transfer: self.ix });
        }
    }

    /// Nobody is told any more how the attempt goes on; it ends, if it has not.
    pub(super) fn give_up(&mut self, now: Moment, reason: &str) {
        self.channel.give_up();
        let cancel = ToNode::Cancel { reason: reason.into(), forgets: false };
        self.pass_on(now, ParticipantEvent::Master(cancel));
    }

    /// The master comes back on a new session, and has `heard` so many messages. Returns the
    /// session that is closed for it.
    pub(super) fn resume(&mut self, session: SessionIx, heard: u32) -> Option<SessionIx> {
        let (sent, replaced) = self.channel.resume(session, heard);
        self.actions.extend(replaced.map(|session| NodeAction::CloseSession { session }));
        self.actions.extend(sent);
        replaced
    }

    /// The master has said good-bye: whoever was not told otherwise before may forget the transfer.
    pub(super) fn master_done(&mut self, now: Moment, session: SessionIx) {
        self.channel.link = MasterLink::Leaving(session);
        if self.files == AttemptFiles::Remembered {
            self.files = AttemptFiles::Confirming;
            self.work(now, JobKind::Confirm, NodeJob::Confirm);
        }
        self.handle(now, ParticipantEvent::Master(ToNode::Finish));
    }

    /// So many bytes of the attempt have moved, which matters while it has no master.
    pub(super) fn moved(&mut self, now: Moment, moved_bytes: u64) {
        if self.channel.is_over(now, moved_bytes) {
            self.give_up(now, "its master is gone");
        }
    }

    /// The moment of `poll_timeout` has come.
    pub(super) fn tick(&mut self, now: Moment) {
        if self.channel.due().is_some_and(|due| now >= due) {
            self.actions.push_back(NodeAction::CountMoved { transfer: self.ix });
        }
        while let Some((job, error)) = self.jobs.take_overdue(now) {
            self.overdue(now, job, error);
        }
        let due = self.participant.as_ref().and_then(Participant::poll_timeout);
        if due.is_some_and(|due| now >= due) {
            self.handle(now, ParticipantEvent::Tick);
        }
    }

    /// Hands an event to the participant, and takes in what it wants.
    pub(super) fn handle(&mut self, now: Moment, event: ParticipantEvent) {
        self.is_dismissed |= is_end(&event);
        self.pass_on(now, event);
    }

    fn pass_on(&mut self, now: Moment, event: ParticipantEvent) {
        let Some(participant) = &mut self.participant else { return };
        if let ParticipantEvent::Master(ToNode::Cancel { reason, forgets }) = &event {
            self.failure.get_or_insert_with(|| Error::new(Code::Cancelled, reason));
            self.forgets |= forgets;
        }
        if is_end(&event) && participant.state() == ParticipantState::Preparing {
            self.actions.push_back(NodeAction::Quit { transfer: self.ix });
        }
        participant.handle(now, event);
        self.follow(now);
    }

    /// Returns true if it is over and nobody waits for it. What is left of it is closed then.
    pub(super) fn settle(&mut self) -> bool {
        if !self.is_over() || self.files == AttemptFiles::Confirming || self.channel.is_told() {
            return false;
        }
        self.actions.extend(self.channel.close());
        if self.files == AttemptFiles::Remembered {
            self.actions.push_back(NodeAction::Release { transfer: self.ix });
        }
        true
    }

    /// Puts a peer's name in front of what it did.
    pub(super) fn blame(&self, peer: NodeIx, error: Error) -> Error {
        let name = self.names.get(&peer);
        error.at(name.cloned().unwrap_or_else(|| format!("node {}", peer.0)))
    }
}

/// Returns true for a message that ends an attempt.
fn is_end(event: &ParticipantEvent) -> bool {
    matches!(event, ParticipantEvent::Master(ToNode::Cancel { .. } | ToNode::Finish))
}

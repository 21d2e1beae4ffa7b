//! A node's part in all its transfers: the sessions of their masters, the attempts that they make,
//! and what each attempt waits for. Pure, like the other machines: the node's control thread turns
//! sockets, workers and the inbox into events, and actions into calls.
//!
//! A session that ends with a good-bye takes its transfer along: its master is done. One that
//! breaks, or is closed without a good-bye, does not: the master comes back over another NIC, and
//! both say again what the other has not heard; or it is dead, and the transfer goes on without it
//! as long as its lease lets it. A launched node ends with the process that started it, as far as
//! it notices.
//!
//! - `attempt`: one attempt: the way to its master, its files, its deadlines
//! - `lease`: how long a transfer goes on without its master
//! - `jobs`: work that may block
//! - `masters`: sessions of masters, and what they say
//! - `follow`: what participants want done

mod attempt;
mod follow;
mod jobs;
mod lease;
mod masters;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::attempt::{Attempt, MasterLink};
use super::participant::{Participant, ParticipantEvent, ParticipantState};
use crate::core::error::Error;
use crate::core::piece::{FlowCommand, TransferIx};
use crate::core::rail::TransferCommand;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::Moment;
use crate::core::wire::control::{Prepare, Start, ToMaster, ToNode};

pub(crate) use self::jobs::{ClearMode, JobAnswer, NodeJob, OpenedFiles};
pub(crate) use self::lease::LEASE;

/// Time for a good-bye to arrive when the node is asked to end.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// Time for rails to end.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// A control session of this node. Never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct SessionIx(pub(crate) u64);

/// Input of a [`NodeMachine`].
#[derive(Clone, Debug)]
pub(crate) enum NodeEvent {
    /// A master's session stands.
    SessionUp { session: SessionIx },
    /// A master says something.
    Message { session: SessionIx, message: ToNode },
    /// A message came in that has no meaning.
    Garbled { session: SessionIx, error: Error },
    /// A session broke.
    SessionBroken { session: SessionIx },
    /// The master closed a session: with a good-bye, or without one.
    Closed { session: SessionIx, in_order: bool },
    /// So many bytes of payload were sent and received until now; answers `CountMoved`.
    Moved { transfer: TransferIx, moved_bytes: u64 },
    /// A message with its numbers; answers `Complete`.
    Completed { transfer: TransferIx, message: ToMaster },
    /// A worker that opens a transfer reads what is there already, so far.
    Reading { transfer: TransferIx, read_bytes: u64 },
    /// A worker answers.
    Worker { transfer: TransferIx, answer: JobAnswer },
    /// The rails have taken the files in, or cannot; answers `Join`.
    Joined { transfer: TransferIx, result: Result<(), Error> },
    /// Something happened to a flow or a piece.
    Flow { transfer: TransferIx, event: SchedulerEvent },
    /// A destination failed under the rails: nothing more can land.
    Broken { transfer: TransferIx, error: Error },
    /// A rail holds nothing of a transfer any more.
    Drained { transfer: TransferIx, rail: usize },
    /// A rail itself failed, and with it its flows for these transfers.
    RailFailed { rail: usize, transfers: Vec<TransferIx>, error: Error },
    /// Rails that no transfer needs are being ended.
    RailsEnding,
    /// They have ended.
    RailsEnded,
    /// Somebody asks the node to end.
    Stop,
    /// The moment of `poll_timeout` has come.
    Tick,
}

/// Output of a [`NodeMachine`].
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum NodeAction {
    /// A transfer begins over some of the node's rails: open what its rows name; answered by
    /// `Opened`.
    Begin { transfer: TransferIx, session: SessionIx, prepare: Box<Prepare>, rails: Vec<usize> },
    /// Nobody waits any more for what the worker that opens a transfer reads.
    Quit { transfer: TransferIx },
    /// Hand the files of a transfer to its rails; answered by `Joined`.
    Join { transfer: TransferIx },
    /// A plan says whom a transfer may ask, and what is zeros.
    Plan { transfer: TransferIx, start: Box<Start> },
    /// Have a worker do something.
    Work { transfer: TransferIx, job: NodeJob },
    /// Open a flow to a sender; answered by `FlowUp` or `OpenFailed`.
    OpenFlow { transfer: TransferIx, rail_pair: RailPair, weight: u64, pace_bytes_per_second: u64 },
    /// Tell the rail of a flow.
    Flow { transfer: TransferIx, command: FlowCommand },
    /// Tell all rails of a transfer.
    Rails { transfer: TransferIx, command: TransferCommand },
    /// Say how many bytes have moved; answered by `Moved`.
    CountMoved { transfer: TransferIx },
    /// Fill in the numbers that rails and process have counted; answered by `Completed`.
    Complete { transfer: TransferIx, message: ToMaster },
    /// Send a message on a session.
    Send { session: SessionIx, message: Vec<u8> },
    /// Close a session.
    CloseSession { session: SessionIx },
    /// A transfer is over: forget all of it, but its files where those are remembered.
    Forget { transfer: TransferIx, keeps_files: bool, failure: Option<Error> },
    /// Close the remembered files of a transfer.
    Release { transfer: TransferIx },
    /// The node ends.
    Exit,
}

/// A node, between its sockets and its workers.
///
/// Events: `handle`. Actions: `poll_action`, until `None`. Time: `poll_timeout`. Questions:
/// `take_remains`, `state`, `told_count`, `is_idle`.
pub(crate) struct NodeMachine {
    /// The NIC of each of its rails.
    nics: Vec<String>,
    /// Started by a master, which nobody but that master knows of.
    launched: bool,
    /// Sessions of masters, and the attempt of each once it has said so.
    sessions: BTreeMap<SessionIx, Option<TransferIx>>,
    attempts: BTreeMap<TransferIx, Attempt>,
    /// Attempts that begin when the ones before them have ended. Bounded by the sessions.
    waiting: Vec<(SessionIx, Prepare)>,
    next_transfer: u32,
    /// Until when rails that end are waited for, while they end.
    resting: Option<Moment>,
    /// Since when a launched node has been without a master; `None` while it has one.
    alone_since: Option<Moment>,
    /// Deadline for the masters' good-byes, once the node is asked to end.
    stops: Option<Moment>,
    exits: bool,
    /// Participants that have ended.
    remains: Vec<Participant>,
    actions: VecDeque<NodeAction>,
}

impl NodeMachine {
    /// A node whose rails belong to these NICs.
    pub(crate) fn new(now: Moment, nics: Vec<String>, launched: bool) -> NodeMachine {
        NodeMachine {
            nics,
            launched,
            sessions: BTreeMap::new(),
            attempts: BTreeMap::new(),
            waiting: Vec::new(),
            next_transfer: 0,
            resting: None,
            alone_since: launched.then_some(now),
            stops: None,
            exits: false,
            remains: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes in what happened.
    pub(crate) fn handle(&mut self, now: Moment, event: NodeEvent) {
        match event {
            NodeEvent::SessionUp { session } => self.session_up(session),
            NodeEvent::Message { session, message } => self.message(now, session, message),
            NodeEvent::Garbled { session, error } => self.garbled(now, session, error),
            NodeEvent::SessionBroken { session } => self.session_broken(now, session),
            NodeEvent::Closed { session, in_order } => self.closed(now, session, in_order),
            NodeEvent::Moved { transfer, moved_bytes } => self.moved(now, transfer, moved_bytes),
            NodeEvent::Completed { transfer, message } => self.completed(now, transfer, message),
            NodeEvent::Reading { transfer, read_bytes } => self.reading(now, transfer, read_bytes),
            NodeEvent::Worker { transfer, answer } => self.answered(now, transfer, answer),
            NodeEvent::Joined { transfer, result } => self.joined(now, transfer, result),
            NodeEvent::Flow { transfer, event } => self.flow(now, transfer, event),
            NodeEvent::Broken { transfer, error } => {
                self.participant(now, transfer, ParticipantEvent::Broken(error));
            }
            NodeEvent::Drained { transfer, rail } => self.drained(now, transfer, rail),
            NodeEvent::RailFailed { rail, transfers, error } => {
                self.rail_failed(now, rail, transfers, &error);
            }
            NodeEvent::RailsEnding => self.resting = Some(now + REST_WITHIN),
            NodeEvent::RailsEnded => self.rested(),
            NodeEvent::Stop => self.stop(now),
            NodeEvent::Tick => self.tick(now),
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<NodeAction> {
        self.actions.pop_front()
    }

    /// Returns the moment at which `Tick` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        let alone = self.alone_since.map(|since| since + LEASE);
        let attempts = self.attempts.values().filter_map(Attempt::poll_timeout);
        attempts.chain(alone).chain(self.stops).chain(self.resting).min()
    }

    /// Returns the participants that have ended: after a large transfer they take long to
    /// free.
    pub(crate) fn take_remains(&mut self) -> Vec<Participant> {
        std::mem::take(&mut self.remains)
    }

    /// Returns the state of a transfer; `None` if it is over.
    pub(crate) fn state(&self, transfer: TransferIx) -> Option<ParticipantState> {
        self.attempts.get(&transfer)?.state()
    }

    /// Returns the number of counted messages to the master of a transfer; `None` if nothing of it
    /// is left.
    pub(crate) fn told_count(&self, transfer: TransferIx) -> Option<u32> {
        self.attempts.get(&transfer).map(|attempt| attempt.replay.count())
    }

    /// Returns true if it has no session and no attempt, and no rails that end.
    pub(crate) fn is_idle(&self) -> bool {
        let has_none = self.sessions.is_empty() && self.attempts.is_empty();
        has_none && self.waiting.is_empty() && self.resting.is_none() && self.actions.is_empty()
    }

    fn tick(&mut self, now: Moment) {
        let due = |attempt: &Attempt| attempt.poll_timeout().is_some_and(|due| due <= now);
        let due = self.attempts.iter().filter(|(_, attempt)| due(attempt));
        for transfer in due.map(|(&transfer, _)| transfer).collect::<Vec<_>>() {
            self.tick_attempt(now, transfer);
        }
        if self.resting.is_some_and(|until| now >= until) {
            self.rested();
        }
        let is_over = |since: Moment| now >= since;
        if self.alone_since.is_some_and(|since| is_over(since + LEASE))
            || self.stops.is_some_and(is_over)
        {
            self.exit();
        }
    }

    fn tick_attempt(&mut self, now: Moment, transfer: TransferIx) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        if let MasterLink::Lost(lease) = attempt.link
            && now >= lease.due()
        {
            self.actions.push_back(NodeAction::CountMoved { transfer });
        }
        while let Some((job, error)) =
            self.attempts.get_mut(&transfer).and_then(|attempt| attempt.take_overdue(now))
        {
            self.overdue(now, transfer, job, error);
        }
        let wants_tick = |attempt: &Attempt| {
            attempt
                .participant
                .as_ref()
                .and_then(Participant::poll_timeout)
                .is_some_and(|due| now >= due)
        };
        if self.attempts.get(&transfer).is_some_and(wants_tick) {
            self.participant(now, transfer, ParticipantEvent::Tick);
        }
    }

    /// A signal asks the node to end. Whoever launched it says good-bye first, and that may be on
    /// its way still: without it the node would leave records of files that everybody knows are
    /// complete.
    fn stop(&mut self, now: Moment) {
        let is_complete = |attempt: &Attempt| attempt.state() == Some(ParticipantState::Landed);
        if self.launched && self.attempts.values().any(is_complete) {
            self.stops = Some(now + GOODBYE_WITHIN);
        } else {
            self.exit();
        }
    }

    fn exit(&mut self) {
        if !std::mem::replace(&mut self.exits, true) {
            self.actions.push_back(NodeAction::Exit);
        }
    }

    /// A launched node serves one master, and ends with it.
    fn end_without_masters(&mut self, now: Moment) {
        let is_alone = self.launched && self.sessions.is_empty();
        if is_alone && self.attempts.is_empty() {
            self.exit();
        }
        self.alone_since = is_alone.then(|| self.alone_since.unwrap_or(now));
    }
}

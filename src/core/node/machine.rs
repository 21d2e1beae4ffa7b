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
//! - `events`: what happens, and what the machine wants done
//! - `masters`: sessions of masters, and what they say
//! - `attempt`: one attempt: its files, its deadlines
//! - `channel`: the way to its master
//! - `follow`: what its participant wants done
//! - `limits`: what masters may have it hold
//! - `lease`: how long it goes on without its master
//! - `jobs`: work that may block
//! - `survey`: questions about paths before a transfer

mod attempt;
mod channel;
mod events;
mod follow;
mod jobs;
mod lease;
pub(crate) mod limits;
mod masters;
mod survey;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::attempt::Attempt;
use self::limits::{MasterSessions, TRANSFERS_DEFAULT, TransferWeight};
use super::participant::{Participant, ParticipantEvent, ParticipantState};
use crate::core::piece::TransferIx;
use crate::core::units::Moment;
use crate::core::wire::control::Prepare;

pub(crate) use self::events::{MasterOrigin, NodeAction, NodeEvent, SessionIx};
pub(crate) use self::jobs::{ClearMode, JobAnswer, NodeJob, OpenedFiles};
pub(crate) use self::lease::LEASE;

/// Time for a good-bye to arrive when the node is asked to end.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// Time for rails to end.
const REST_WITHIN: Duration = Duration::from_secs(2);

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
    sessions: MasterSessions,
    attempts: BTreeMap<TransferIx, Attempt>,
    /// Load of each of them.
    weights: BTreeMap<TransferIx, TransferWeight>,
    /// Attempts that begin when the ones before them have ended.
    waiting: Vec<(SessionIx, Prepare, TransferWeight)>,
    transfers_max: usize,
    next_transfer: u32,
    /// The transfer that a launched node serves, once it has one.
    served: Option<String>,
    /// Surveys under way, also of sessions that have ended.
    surveys: BTreeMap<SessionIx, MasterOrigin>,
    /// A master has asked about paths: its transfer follows, maybe on another session.
    is_surveyed: bool,
    /// Until when rails that end are waited for, while they end.
    resting: Option<Moment>,
    /// Since when a launched node has been without a master; `None` while it has one.
    alone_since: Option<Moment>,
    /// True if the launcher of a launched node is heard regularly.
    launcher_beats: bool,
    /// True for a launched node that serves several transfers, one after the other: it ends with
    /// its launcher, not with a master.
    has_several: bool,
    /// True while the launcher of a launched node is out of reach: then it does not wait for a
    /// master that is lost.
    launcher_is_silent: bool,
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
            weights: BTreeMap::new(),
            waiting: Vec::new(),
            transfers_max: TRANSFERS_DEFAULT,
            next_transfer: 0,
            served: None,
            surveys: BTreeMap::new(),
            is_surveyed: false,
            resting: None,
            alone_since: launched.then_some(now),
            launcher_beats: false,
            has_several: false,
            launcher_is_silent: false,
            stops: None,
            exits: false,
            remains: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// Makes it a node whose launcher is heard regularly if `beats`: until that is silent, it waits
    /// for its first master. Other hosts may be sent the program in the meantime.
    pub(crate) fn with_launcher_beats(mut self, beats: bool) -> NodeMachine {
        self.launcher_beats = beats;
        self
    }

    /// Makes a launched node serve several transfers in turn if `has_several`.
    pub(crate) fn with_several_transfers(self, has_several: bool) -> NodeMachine {
        NodeMachine { has_several, ..self }
    }

    /// The same node with another limit of transfers at once.
    pub(crate) fn with_transfers_max(self, transfers_max: usize) -> NodeMachine {
        NodeMachine { transfers_max, ..self }
    }

    /// Takes in what happened.
    pub(crate) fn handle(&mut self, now: Moment, event: NodeEvent) {
        match event {
            NodeEvent::SessionUp { session, origin } => self.session_up(now, session, origin),
            NodeEvent::Message { session, message } => self.message(now, session, message),
            NodeEvent::Garbled { session, error } => self.garbled(now, session, error),
            NodeEvent::SessionBroken { session } => self.session_broken(now, session),
            NodeEvent::Closed { session, in_order } => self.closed(now, session, in_order),
            NodeEvent::Moved { transfer, moved_bytes } => {
                self.attempt(now, transfer, |attempt| attempt.moved(now, moved_bytes));
            }
            NodeEvent::Completed { transfer, message } => {
                self.attempt(now, transfer, |attempt| attempt.completed(now, message));
            }
            NodeEvent::Reading { transfer, read_bytes } => {
                self.attempt(now, transfer, |attempt| attempt.reading(now, read_bytes));
            }
            NodeEvent::Worker { transfer, answer } => {
                let is_early = self.resting.is_some();
                self.attempt(now, transfer, |attempt| attempt.answered(now, answer, is_early));
            }
            NodeEvent::Joined { transfer, result } => {
                self.attempt(now, transfer, |attempt| attempt.joined(now, result));
            }
            NodeEvent::Flow { transfer, event } => {
                self.attempt(now, transfer, |attempt| attempt.flow(now, event));
            }
            NodeEvent::Call { transfer, call } => {
                self.attempt(now, transfer, |attempt| attempt.call(call));
            }
            NodeEvent::Broken { transfer, error } => {
                let event = ParticipantEvent::Broken(error);
                self.attempt(now, transfer, |attempt| attempt.handle(now, event));
            }
            NodeEvent::Drained { transfer, rail } => {
                self.attempt(now, transfer, |attempt| attempt.drained(now, rail));
            }
            NodeEvent::RailFailed { rail, transfers, error } => {
                for transfer in transfers {
                    let error = error.clone();
                    self.attempt(now, transfer, |attempt| attempt.rail_failed(now, rail, error));
                }
            }
            NodeEvent::Surveyed { session, answers } => self.surveyed(now, session, answers),
            NodeEvent::RailsEnding => self.resting = Some(now + REST_WITHIN),
            NodeEvent::RailsEnded => self.rested(now),
            NodeEvent::Launcher { is_silent } => {
                self.launcher_is_silent = is_silent;
                self.end_without_masters(now);
            }
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
        let alone = self.alone_until();
        let attempts = self.attempts.values().filter_map(Attempt::poll_timeout);
        attempts.chain(alone).chain(self.stops).chain(self.resting).chain(self.idle_due()).min()
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
        self.attempts.get(&transfer).map(|attempt| attempt.channel.told_count())
    }

    /// Returns true if it has no session and no attempt, and no rails that end.
    pub(crate) fn is_idle(&self) -> bool {
        let has_none = self.sessions.is_empty() && self.attempts.is_empty();
        has_none && self.waiting.is_empty() && self.resting.is_none() && self.actions.is_empty()
    }

    /// Until when a launched node waits for a master.
    fn alone_until(&self) -> Option<Moment> {
        let waits = self.launcher_beats || (self.has_several && self.next_transfer > 0);
        self.alone_since.filter(|_| !waits).map(|since| since + LEASE)
    }

    fn tick(&mut self, now: Moment) {
        let due = |attempt: &Attempt| attempt.poll_timeout().is_some_and(|due| due <= now);
        let due = self.attempts.iter().filter(|(_, attempt)| due(attempt));
        for transfer in due.map(|(&transfer, _)| transfer).collect::<Vec<_>>() {
            self.attempt(now, transfer, |attempt| attempt.tick(now));
        }
        self.end_idle(now);
        if self.resting.is_some_and(|until| now >= until) {
            self.rested(now);
        }
        let is_over = |since: Moment| now >= since;
        if self.alone_until().is_some_and(is_over) || self.stops.is_some_and(is_over) {
            self.exit();
        }
    }

    /// Has an attempt do something, and takes in what came of it. One that is over and that nobody
    /// waits for is removed.
    fn attempt<T>(
        &mut self,
        now: Moment,
        transfer: TransferIx,
        act: impl FnOnce(&mut Attempt) -> T,
    ) -> Option<T> {
        let attempt = self.attempts.get_mut(&transfer)?;
        let result = act(attempt);
        let (ended, is_settled) = (attempt.ended.take(), attempt.settle());
        self.actions.append(&mut attempt.actions);
        if is_settled {
            self.attempts.remove(&transfer);
            self.weights.remove(&transfer);
        }
        if is_settled || ended.is_some() {
            self.remains.extend(ended);
            self.begin_waiting(now);
            self.end_without_masters(now);
        }
        Some(result)
    }

    /// Has every attempt do something.
    fn each_attempt(&mut self, now: Moment, act: impl Fn(&mut Attempt)) {
        for transfer in self.attempts.keys().copied().collect::<Vec<_>>() {
            self.attempt(now, transfer, &act);
        }
    }

    /// Rails that no transfer needs have ended, or have had their time.
    fn rested(&mut self, now: Moment) {
        self.resting = None;
        self.each_attempt(now, Attempt::rested);
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

    /// A launched node serves one master, and ends with it, unless it has several transfers.
    fn end_without_masters(&mut self, now: Moment) {
        let is_alone = self.launched && self.sessions.is_empty();
        let awaits_transfer = self.has_several || (self.is_surveyed && self.served.is_none());
        if is_alone && self.attempts.is_empty() && !awaits_transfer {
            self.exit();
        } else if is_alone && self.launcher_is_silent {
            self.stop(now);
        }
        self.alone_since = is_alone.then(|| self.alone_since.unwrap_or(now));
    }
}

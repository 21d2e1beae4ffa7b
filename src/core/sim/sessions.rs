//! The control sessions of a cluster: connections between masters and nodes, as sockets would
//! report them.
//!
//! Both ends find out by themselves how their session fares. An end that is closed is noticed by
//! the other one when the network lets it; a network that carries nothing is noticed by either end
//! after some seconds of silence. What is on its way when a session breaks is lost.
//!
//! Messages that both ends count carry a number, so that one which is lost, comes twice or is
//! passed over is noticed at once, whatever the machines believe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::messages::{OrderedChannel, SessionClose, SessionEnd, SessionRef, SimEvent};
use super::schedule::SimSchedule;
use super::world::{MasterIx, SimEndpoint};
use crate::core::node::machine::SessionIx;
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::{ResumeSession, ToMaster, ToNode};

/// Time of silence after which an end takes its session for broken, at least.
const SILENT_MAX: Duration = Duration::from_secs(6);
/// The same, at most this much later.
const SILENT_WHIMS: Duration = Duration::from_secs(2);
/// Time that an end may take to notice that its session was reset.
const RESET_WHIMS: Duration = Duration::from_millis(500);

/// State of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EndState {
    /// The master dials.
    Dialling,
    Open,
    /// The other end has closed its half; this one does not read any more.
    Leaving,
    Shut,
}

#[derive(Debug)]
struct SimSession {
    master: EndState,
    node: EndState,
    /// True if nothing that is on its way arrives.
    is_lost: bool,
    /// The number of the next counted message of each end, once the session belongs to an attempt.
    next_of_master: Option<u32>,
    next_of_node: Option<u32>,
    /// The request that the session resumes an attempt with.
    resume: Option<ResumeSession>,
}

/// All sessions that are not shut at both ends.
#[derive(Debug, Default)]
pub(super) struct SimSessions {
    made: u64,
    sessions: BTreeMap<SessionRef, SimSession>,
    /// Nodes to which the next good-bye is lost.
    deaf: BTreeSet<NodeIx>,
}

impl SimSessions {
    /// A master dials a node.
    pub(super) fn dial(
        &mut self,
        schedule: &mut SimSchedule,
        master: MasterIx,
        node: NodeIx,
        until: Moment,
    ) -> SessionRef {
        self.made += 1;
        let session = SessionRef { session: SessionIx(self.made), master, node };
        let state = SimSession {
            master: EndState::Dialling,
            node: EndState::Shut,
            is_lost: false,
            next_of_master: None,
            next_of_node: None,
            resume: None,
        };
        self.sessions.insert(session, state);
        // A handshake of TCP, and half of that of the session.
        let delay = 3 * schedule.latency;
        let channel = OrderedChannel::Session(session.session, SessionEnd::Node);
        schedule.in_order(channel, delay, SimEvent::Connect(session));
        schedule.at(until, SimEvent::DialOver(session));
        session
    }

    /// A master's dialling has reached its node, which takes it in.
    pub(super) fn accept(&mut self, schedule: &mut SimSchedule, session: SessionRef) {
        // The master may have given it up; what closes it is on its way.
        let state = self.sessions.get_mut(&session);
        let state = state.expect("the end that dials tells this one before it is forgotten");
        state.node = EndState::Open;
        let channel = OrderedChannel::Session(session.session, SessionEnd::Master);
        schedule.in_order(channel, schedule.latency, SimEvent::Connected(session));
        if self.end(session, SessionEnd::Master) == EndState::Shut {
            self.tell(schedule, session, SessionEnd::Node, SessionClose::Closed);
        }
    }

    /// The handshake is over at the master. Returns false if nobody waits for it any more.
    pub(super) fn connected(&mut self, session: SessionRef) -> bool {
        let Some(state) = self.sessions.get_mut(&session) else { return false };
        let is_awaited = state.master == EndState::Dialling;
        if is_awaited {
            state.master = EndState::Open;
        }
        is_awaited
    }

    /// Returns true if the master still waits for the handshake.
    pub(super) fn is_dialling(&self, session: SessionRef) -> bool {
        self.end(session, SessionEnd::Master) == EndState::Dialling
    }

    fn end(&self, session: SessionRef, end: SessionEnd) -> EndState {
        self.sessions.get(&session).map_or(EndState::Shut, |state| match end {
            SessionEnd::Master => state.master,
            SessionEnd::Node => state.node,
        })
    }

    /// Returns true if an end sends, and takes in what arrives.
    pub(super) fn is_open(&self, session: SessionRef, end: SessionEnd) -> bool {
        self.end(session, end) == EndState::Open
    }

    /// Returns true if an end reads what arrives now.
    pub(super) fn receives(&self, session: SessionRef, end: SessionEnd) -> bool {
        self.is_open(session, end) && !self.sessions[&session].is_lost
    }

    /// Returns true if nothing arrives on a session any more.
    pub(super) fn is_lost(&self, session: SessionRef) -> bool {
        self.sessions.get(&session).is_none_or(|state| state.is_lost)
    }

    /// The session belongs to an attempt from now on: the next counted message of this end has
    /// this number.
    pub(super) fn bind(&mut self, session: SessionRef, end: SessionEnd, next: u32) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        match end {
            SessionEnd::Master => state.next_of_master = Some(next),
            SessionEnd::Node => state.next_of_node = Some(next),
        }
    }

    /// Returns the number of the next counted message of an end, if it is open and belongs to an
    /// attempt.
    pub(super) fn next(&self, session: SessionRef, end: SessionEnd) -> Option<u32> {
        let state = self.sessions.get(&session).filter(|_| self.is_open(session, end))?;
        match end {
            SessionEnd::Master => state.next_of_master,
            SessionEnd::Node => state.next_of_node,
        }
    }

    /// Notes the request that a session resumes an attempt with.
    pub(super) fn resumes(&mut self, session: SessionRef, resume: ResumeSession) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.resume = Some(resume);
        }
    }

    /// Takes the request that a session resumes an attempt with.
    pub(super) fn take_resume(&mut self, session: SessionRef) -> Option<ResumeSession> {
        self.sessions.get_mut(&session)?.resume.take()
    }

    pub(super) fn send_to_node(
        &mut self,
        schedule: &mut SimSchedule,
        session: SessionRef,
        message: ToNode,
    ) {
        let is_counted = message.is_counted();
        let index = self.take_index(session, SessionEnd::Master, is_counted);
        let event = SimEvent::ToNode { session, index, message };
        self.send(schedule, session, SessionEnd::Node, event);
    }

    pub(super) fn send_to_master(
        &mut self,
        schedule: &mut SimSchedule,
        session: SessionRef,
        message: ToMaster,
    ) {
        let index = self.take_index(session, SessionEnd::Node, message.is_counted());
        let event = SimEvent::ToMaster { session, index, message };
        self.send(schedule, session, SessionEnd::Master, event);
    }

    fn take_index(
        &mut self,
        session: SessionRef,
        end: SessionEnd,
        is_counted: bool,
    ) -> Option<u32> {
        let index = self.next(session, end).filter(|_| is_counted)?;
        self.bind(session, end, index + 1);
        Some(index)
    }

    fn send(
        &mut self,
        schedule: &mut SimSchedule,
        session: SessionRef,
        to: SessionEnd,
        event: SimEvent,
    ) {
        if self.is_open(session, to.other()) {
            let channel = OrderedChannel::Session(session.session, to);
            schedule.in_order(channel, schedule.latency, event);
        }
    }

    /// The master says good-bye, and waits for the other end.
    pub(super) fn say_good_bye(&mut self, schedule: &mut SimSchedule, session: SessionRef) {
        if !self.is_open(session, SessionEnd::Master) {
            return;
        }
        if self.deaf.remove(&session.node) {
            return self.reset(schedule, session);
        }
        self.tell(schedule, session, SessionEnd::Node, SessionClose::GoodBye);
    }

    /// The next good-bye to a node is lost.
    pub(super) fn lose_good_bye(&mut self, node: NodeIx) {
        self.deaf.insert(node);
    }

    /// An end is closed by its process, or broken. The other end finds out.
    pub(super) fn shut(
        &mut self,
        schedule: &mut SimSchedule,
        session: SessionRef,
        end: SessionEnd,
        close: SessionClose,
    ) {
        if self.end(session, end) == EndState::Shut {
            return;
        }
        self.set(session, end, EndState::Shut);
        self.tell(schedule, session, end.other(), close);
    }

    /// The same for an end whose machine has lost its power: nothing is told.
    pub(super) fn vanish(&mut self, session: SessionRef, end: SessionEnd) {
        self.set(session, end, EndState::Shut);
    }

    /// The other end has closed its half, and this one does not read any more.
    pub(super) fn leave(&mut self, session: SessionRef, end: SessionEnd) {
        self.set(session, end, EndState::Leaving);
    }

    fn set(&mut self, session: SessionRef, end: SessionEnd, to: EndState) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        match end {
            SessionEnd::Master => state.master = to,
            SessionEnd::Node => state.node = to,
        }
    }

    fn tell(
        &self,
        schedule: &mut SimSchedule,
        session: SessionRef,
        at: SessionEnd,
        close: SessionClose,
    ) {
        let channel = OrderedChannel::Session(session.session, at);
        let event = SimEvent::EndClosed { session, at, close };
        schedule.in_order(channel, schedule.latency, event);
    }

    /// A session breaks, and loses all that is on its way. Each end notices in its own time.
    pub(super) fn reset(&mut self, schedule: &mut SimSchedule, session: SessionRef) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.is_lost = true;
        for at in [SessionEnd::Master, SessionEnd::Node] {
            let is_late = schedule.random.chance(300);
            let whims = if is_late { RESET_WHIMS } else { 4 * schedule.latency };
            let delay = schedule.within(whims);
            schedule.after(delay, SimEvent::Breaks { session, at, if_silent: false });
        }
    }

    /// Something is in the way of a session: either end notices, if it lasts.
    pub(super) fn watch(&mut self, schedule: &mut SimSchedule, session: SessionRef) {
        for at in [SessionEnd::Master, SessionEnd::Node] {
            let delay = SILENT_MAX + schedule.within(SILENT_WHIMS);
            schedule.after(delay, SimEvent::Breaks { session, at, if_silent: true });
        }
    }

    /// Returns the sessions with an end at a place that are not shut there.
    pub(super) fn of(&self, place: SimEndpoint) -> Vec<SessionRef> {
        let is_at = |session: &SessionRef, end| {
            session.place(end) == place && self.end(*session, end) != EndState::Shut
        };
        let sessions = self.sessions.keys().filter(|session| {
            is_at(session, SessionEnd::Master) || is_at(session, SessionEnd::Node)
        });
        sessions.copied().collect()
    }

    /// Returns the sessions between a place and any other, as long as either end stands.
    pub(super) fn between(&self, one: SimEndpoint, other: Option<SimEndpoint>) -> Vec<SessionRef> {
        let places = |session: &SessionRef| {
            [SessionEnd::Master, SessionEnd::Node].map(|end| session.place(end))
        };
        let is_meant = |session: &&SessionRef| {
            let places = places(session);
            places.contains(&one) && other.is_none_or(|other| places.contains(&other))
        };
        self.sessions.keys().filter(is_meant).copied().collect()
    }

    /// Returns the sessions that are not shut at both ends.
    pub(super) fn held(&self) -> impl Iterator<Item = SessionRef> {
        let is_shut =
            |it: &SimSession| [it.master, it.node].iter().all(|end| *end == EndState::Shut);
        self.sessions.iter().filter(move |(_, it)| !is_shut(it)).map(|(session, _)| *session)
    }
}

//! One simulated master: the machine of a real one, on simulated sessions.

use std::net::SocketAddr;

use super::context::SimContext;
use super::messages::{SessionClose, SessionEnd, SessionRef};
use super::world::{MasterIx, SimEndpoint};
use crate::core::error::{Code, Error};
use crate::core::master::attempt::AttemptConfig;
use crate::core::master::coordinator::{Coordinator, TransferPhase};
use crate::core::master::machine::{MasterAction, MasterEvent, MasterMachine};
use crate::core::master::roster::Roster;
use crate::core::spec::RowRole;
use crate::core::units::{BitRate, Moment, NodeIx, Span, common, covers, subtract, union};
use crate::core::wire::control;
use crate::core::wire::control::{NodeAdvert, RailAdvert, Start, ToMaster, ToNode};

/// State of a master's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MasterFate {
    Running,
    /// It has closed its sessions and ended.
    Over,
    /// It was killed, or its machine has lost its power.
    Killed,
}

/// A master, with the session of each of its nodes.
pub(super) struct SimMaster {
    master: MasterIx,
    machine: MasterMachine,
    fate: MasterFate,
    links: Vec<SimLink>,
    /// Ranges of the plan that each node was told last.
    owned: Vec<Vec<Span>>,
}

/// The way to one node.
#[derive(Clone, Copy, Default)]
struct SimLink {
    session: Option<SessionRef>,
    /// True if the node is dialled for the first time.
    is_meeting: bool,
    /// Counted messages of the node that have been applied.
    applied: u32,
}

/// The address of all simulated nodes: sessions are told apart by their names.
fn address() -> SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

/// The advert of a node: a NIC with a thread a rail, which claims a line rate or knows none.
fn advert(rail_count: usize, line: Option<BitRate>) -> NodeAdvert {
    let nic = "sim0".into();
    let rail = RailAdvert { nic, address: address(), line, mtu: None, numa: None };
    NodeAdvert {
        software: "simulator".into(),
        rails: vec![rail; rail_count],
        cores: 1,
        boot_id: String::new(),
        incarnation: 1,
    }
}

fn broken(what: &str) -> Error {
    Error::new(Code::Unreachable, what)
}

impl SimMaster {
    /// A master that begins its attempt.
    pub(super) fn begin(
        cx: &mut SimContext,
        master: MasterIx,
        roster: Roster,
        terms: AttemptConfig,
    ) -> SimMaster {
        let nodes = roster.entries.len();
        let coordinator = Coordinator::new(cx.now(), roster, terms);
        let addresses = vec![Ok(vec![address()]); nodes];
        let machine = MasterMachine::new(cx.now(), coordinator, addresses);
        let links = vec![SimLink::default(); nodes];
        let owned = vec![Vec::new(); nodes];
        let mut it = SimMaster { master, machine, fate: MasterFate::Running, links, owned };
        it.follow(cx);
        it
    }

    pub(super) fn coordinator(&self) -> &Coordinator {
        self.machine.coordinator()
    }

    pub(super) fn is_running(&self) -> bool {
        self.fate == MasterFate::Running
    }

    /// Returns true if everything has landed everywhere, as far as it knows.
    pub(super) fn is_complete(&self) -> bool {
        let is_done = self.coordinator().phase() == TransferPhase::Done;
        is_done && self.coordinator().error().is_none()
    }

    /// Hands an event to the machine, and carries out what it wants.
    pub(super) fn handle(&mut self, cx: &mut SimContext, event: MasterEvent) {
        if self.is_running() {
            self.machine.handle(cx.now(), event);
            self.follow(cx);
        }
    }

    fn follow(&mut self, cx: &mut SimContext) {
        while let Some(action) = self.machine.poll_action() {
            self.carry_out(cx, action);
        }
        if self.machine.is_over() {
            self.fate = MasterFate::Over;
            self.end_sessions(cx);
        }
    }

    fn carry_out(&mut self, cx: &mut SimContext, action: MasterAction) {
        match action {
            MasterAction::Meet { node, until, .. } => self.dial(cx, node, until, true),
            MasterAction::Dial { node, until, .. } => self.dial(cx, node, until, false),
            MasterAction::Send { node, message } => self.send(cx, node, &message),
            MasterAction::Close { node } => {
                self.check_told(cx, node);
                if let Some(session) = self.links[node.at()].session {
                    cx.sessions.say_good_bye(&mut cx.schedule, session);
                }
            }
            MasterAction::Drop { node } => self.hang_up(cx, node, SessionClose::Closed),
        }
    }

    fn dial(&mut self, cx: &mut SimContext, node: NodeIx, until: Moment, is_meeting: bool) {
        let session = cx.sessions.dial(&mut cx.schedule, self.master, node, until);
        let link = &mut self.links[node.at()];
        (link.session, link.is_meeting) = (Some(session), is_meeting);
    }

    fn send(&mut self, cx: &mut SimContext, node: NodeIx, message: &ToNode) {
        let bytes = control::encode(message).expect("transfers in the simulator are small");
        let message = control::decode(&bytes).expect("the master speaks the protocol");
        if let ToNode::Start(start) = &message {
            self.check_owners(node, start);
        }
        if let Some(session) = self.links[node.at()].session {
            cx.sessions.send_to_node(&mut cx.schedule, session, message);
        }
    }

    /// Checks that a node keeps the ranges that it was given, and that no byte of a group is given
    /// to two members.
    ///
    /// # Panics
    /// If that is not so.
    fn check_owners(&mut self, node: NodeIx, start: &Start) {
        let given = union(start.segments.iter().map(|segment| segment.span).collect());
        let before = std::mem::replace(&mut self.owned[node.at()], given);
        let lost = before.iter().find(|span| !covers(&self.owned[node.at()], **span));
        assert_eq!(lost, None, "a part of node {} is taken from it", node.0);
        let roster = self.machine.coordinator().roster();
        let rows =
            |node: NodeIx| roster.get(node).rows.iter().filter(|row| row.role == RowRole::Receiver);
        for row in rows(node).filter(|row| row.group.is_some()) {
            let others = roster.nodes().map(|(other, _)| other).filter(|other| *other != node);
            for other in others.filter(|other| rows(*other).any(|it| it.group == row.group)) {
                let wants = |at: NodeIx| rows(at).filter(|row| row.group.is_none());
                let by_itself: Vec<Span> =
                    wants(node).chain(wants(other)).map(|row| row.range).collect();
                let [mine, theirs] = [node, other].map(|it| &self.owned[it.at()]);
                let both = common(mine, theirs).into_iter().find_map(|both| {
                    let both = both.intersection(row.range)?;
                    subtract(both, &union(by_itself.clone())).into_iter().next()
                });
                assert_eq!(both, None, "nodes {} and {} are both given it", node.0, other.0);
            }
        }
    }

    /// The connection to a node is given up at this end.
    fn hang_up(&mut self, cx: &mut SimContext, node: NodeIx, close: SessionClose) {
        if let Some(session) = self.links[node.at()].session.take() {
            cx.sessions.shut(&mut cx.schedule, session, SessionEnd::Master, close);
        }
    }

    /// A handshake is over.
    pub(super) fn connected(&mut self, cx: &mut SimContext, session: SessionRef, rails: usize) {
        if !self.is_running() || !cx.sessions.connected(session) {
            return;
        }
        let node = session.node;
        if self.links[node.at()].is_meeting {
            cx.sessions.bind(session, SessionEnd::Master, 0);
            let line = cx.world.claims.get(node.at()).copied();
            let (address, advert) = (address(), advert(rails, line));
            self.handle(cx, MasterEvent::Met { node, address, advert });
            self.check_told(cx, node);
        } else {
            self.handle(cx, MasterEvent::Reconnected { node });
        }
    }

    /// A connection breaks at this end, or cannot be had.
    pub(super) fn session_broken(&mut self, cx: &mut SimContext, session: SessionRef, why: &str) {
        let node = session.node;
        if self.links[node.at()].session == Some(session) {
            self.hang_up(cx, node, SessionClose::Reset);
            self.handle(cx, MasterEvent::Broken { node, error: broken(why) });
        }
    }

    /// The node has closed its end.
    pub(super) fn session_closed(
        &mut self,
        cx: &mut SimContext,
        session: SessionRef,
        close: SessionClose,
    ) {
        let node = session.node;
        if close == SessionClose::Reset {
            return self.session_broken(cx, session, "connection reset");
        }
        if self.links[node.at()].session == Some(session) {
            self.hang_up(cx, node, SessionClose::Closed);
            self.handle(cx, MasterEvent::Closed { node });
        }
    }

    /// A node's message arrives.
    ///
    /// # Panics
    /// If it is not the one that follows the last: one was passed over, or is told again.
    pub(super) fn hear(
        &mut self,
        cx: &mut SimContext,
        session: SessionRef,
        index: Option<u32>,
        message: ToMaster,
    ) {
        let node = session.node;
        let link = &mut self.links[node.at()];
        if let Some(index) = index {
            let what = "the message that a master is told by node";
            assert_eq!(index, link.applied, "{what} {}, and those applied", node.0);
            link.applied += 1;
        }
        match message {
            ToMaster::Resumed { heard } => cx.sessions.bind(session, SessionEnd::Master, heard),
            // A node that knows nothing of an attempt, and has told nothing, is told all of it.
            ToMaster::Failed { .. } if index.is_none() && link.applied == 0 => {
                cx.sessions.bind(session, SessionEnd::Master, 0);
            }
            _ => {}
        }
        cx.history.hear(cx.schedule.now, node, &message);
        self.handle(cx, MasterEvent::Message { node, message });
        self.check_told(cx, node);
    }

    /// On the session of a node all has been told that the machine has to tell it.
    fn check_told(&self, cx: &SimContext, node: NodeIx) {
        let session = self.links[node.at()].session;
        if let Some(next) = session.and_then(|it| cx.sessions.next(it, SessionEnd::Master)) {
            let sent = self.coordinator().peers()[node.at()].sent_count();
            assert_eq!(next, sent, "messages that node {} has been told, and is to be", node.0);
        }
    }

    /// Returns the moment at which the machine is due.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.machine.poll_timeout().filter(|_| self.is_running())
    }

    pub(super) fn tick(&mut self, cx: &mut SimContext) {
        if self.poll_timeout().is_some_and(|due| cx.now() >= due) {
            self.handle(cx, MasterEvent::Tick);
        }
    }

    /// The process is killed, or its machine loses its power.
    pub(super) fn kill(&mut self, cx: &mut SimContext, is_off: bool) {
        if self.is_running() {
            self.fate = MasterFate::Killed;
            if is_off {
                cx.reach.power_off(SimEndpoint::Master(self.master));
            }
            self.end_sessions(cx);
        }
    }

    fn end_sessions(&self, cx: &mut SimContext) {
        let place = SimEndpoint::Master(self.master);
        for session in cx.sessions.of(place) {
            if cx.reach.is_off(place) {
                cx.sessions.vanish(session, SessionEnd::Master);
                cx.sessions.watch(&mut cx.schedule, session);
            } else {
                let (end, close) = (SessionEnd::Master, SessionClose::Closed);
                cx.sessions.shut(&mut cx.schedule, session, end, close);
            }
        }
    }
}

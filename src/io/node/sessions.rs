//! The control thread's connections: strangers, masters, and flows that are being opened.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mio::Token;

use super::listening::ListenerIx;
use super::routes::FlowRoute;
use super::transfer_flows::OpeningPlace;
use crate::core::piece::TransferIx;
use crate::io::log;
use crate::io::session::Connection;
use crate::io::session::strangers::{OrderedDeadlines, SILENT_MAX, UnprovenConnections};

/// Time that a connection may take to be up.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

const GAVE_WAY: &str = "it had proved nothing yet, and gave way to a newer connection";

/// One connection of the control thread, and what it is for.
pub(super) struct NodeSession {
    pub(super) connection: Connection,
    pub(super) role: SessionRole,
    /// Where it was accepted from; `None` for a flow that this node dials.
    pub(super) origin: Option<IpAddr>,
}

impl NodeSession {
    /// The address of a stranger whose connection was accepted.
    fn from(&self) -> Option<IpAddr> {
        match self.role {
            SessionRole::Visitor { from, .. } => Some(from),
            SessionRole::Master | SessionRole::Leaving | SessionRole::Flow(_) => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionRole {
    /// Accepted, by a listener; what it is for is known when it is up.
    Visitor { listener: ListenerIx, from: IpAddr },
    /// A master.
    Master,
    /// A master that has closed its session, or said good-bye: it waits until its files are
    /// confirmed.
    Leaving,
    /// A flow that this node opens, over one of its ports.
    Flow(DialledFlow),
}

/// A flow that is being opened by one of the ways that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DialledFlow {
    pub(super) transfer: TransferIx,
    pub(super) place: OpeningPlace,
    pub(super) way: FlowRoute,
}

/// All connections of the control thread, by token.
///
/// Every change of a session goes through here, so that its share and its deadline go with it: no
/// turn walks all of them.
pub(super) struct SessionTable {
    open: HashMap<Token, NodeSession>,
    strangers: UnprovenConnections,
    deadlines: OrderedDeadlines,
}

impl SessionTable {
    /// None yet; of strangers never more than `strangers_max`.
    pub(super) fn new(strangers_max: usize) -> SessionTable {
        SessionTable {
            open: HashMap::new(),
            strangers: UnprovenConnections::new(strangers_max),
            deadlines: OrderedDeadlines::default(),
        }
    }

    /// Takes in a connection that was accepted. The stranger that gives way to it is cut off.
    pub(super) fn admit(&mut self, token: Token, session: NodeSession, from: IpAddr, now: Instant) {
        if let Some(left) = self.strangers.add(token, from).and_then(|leaves| self.remove(leaves)) {
            log::refused("strangers", left.from(), &GAVE_WAY);
        }
        let due = session.connection.deadline().map(|due| due.min(now + SILENT_MAX));
        self.deadlines.set(token, due);
        self.open.insert(token, session);
    }

    /// Takes in a connection that this node has dialled.
    pub(super) fn insert(&mut self, token: Token, session: NodeSession) {
        self.deadlines.set(token, session.connection.deadline());
        self.open.insert(token, session);
    }

    /// Notes how far the handshake of a connection has come.
    pub(super) fn settle(&mut self, token: Token) {
        let Some(session) = self.open.get(&token) else { return };
        if session.connection.is_up() {
            self.strangers.remove(token);
            self.deadlines.set(token, None);
        } else if matches!(session.role, SessionRole::Flow(_)) {
            // Once the peer's kernel has answered, the handshake has its own time.
            self.deadlines.set(token, session.connection.deadline());
        } else if session.connection.has_heard() && self.strangers.heard(token) {
            self.deadlines.set(token, session.connection.deadline());
        }
    }

    /// Cuts off the stranger that is the first to give way. Returns whether there was one.
    pub(super) fn make_room(&mut self) -> bool {
        let left = self.strangers.oldest().and_then(|oldest| self.remove(oldest));
        if let Some(left) = &left {
            log::refused("descriptors", left.from(), &GAVE_WAY);
        }
        left.is_some()
    }

    pub(super) fn get(&self, token: Token) -> Option<&NodeSession> {
        self.open.get(&token)
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut NodeSession> {
        self.open.get_mut(&token)
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<NodeSession> {
        self.strangers.remove(token);
        self.deadlines.set(token, None);
        self.open.remove(&token)
    }

    /// Removes the sessions that `is_over` names.
    pub(super) fn remove_all(&mut self, is_over: impl Fn(&NodeSession) -> bool) {
        let over =
            self.open.iter().filter(|(_, session)| is_over(session)).map(|(&token, _)| token);
        for token in over.collect::<Vec<_>>() {
            self.remove(token);
        }
    }

    /// Number of masters' connections from the address of one of them.
    pub(super) fn masters_of_one(&self, token: Token) -> usize {
        let Some(origin) = self.open.get(&token).and_then(|it| it.origin) else { return 0 };
        let is_its = |it: &&NodeSession| {
            matches!(it.role, SessionRole::Master | SessionRole::Leaving)
                && it.origin == Some(origin)
        };
        self.open.values().filter(is_its).count()
    }

    /// Number of connections besides those of strangers.
    pub(super) fn member_count(&self) -> usize {
        self.open.len() - self.strangers.len()
    }

    /// Number of connections that may be taken in in one turn.
    pub(super) fn burst_max(&mut self, now: Instant) -> usize {
        self.strangers.burst_max(now)
    }

    /// The instant at which the next connection may be taken in, if not at once.
    pub(super) fn full_until(&self) -> Option<Instant> {
        self.strangers.full_until()
    }

    /// The instant at which the first connection is to be given up.
    pub(super) fn due(&self) -> Option<Instant> {
        self.deadlines.first()
    }

    /// The next connection that has had its time.
    pub(super) fn next_over(&mut self, now: Instant) -> Option<Token> {
        self.deadlines.next_over(now)
    }
}

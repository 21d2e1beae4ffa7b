//! One turn of the control thread: wait, take in what came, hand it to the machine.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::{Events, Token};
use zeroize::Zeroizing;

use super::inbox::InboxEvent;
use super::{CONTROL, FIRST_PORT, FIRST_SESSION, INBOX};
use super::{Node, NodeSession, SessionRole, transfer_log};
use crate::core::error::{Code, Error, Result};
use crate::core::node::machine::{JobAnswer, NodeEvent, SessionIx};
use crate::core::wire::control;
use crate::core::wire::control::ToNode;
use crate::core::wire::version::ConnectionKind;
use crate::io::clock::{LOOK_EVERY, awake};
use crate::io::session::{Connection, IncomingData};

impl Node {
    pub(super) fn turn(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(256);
        match self.poll.poll(&mut events, self.timeout()) {
            Ok(()) => {}
            // A process that was stopped and continues sees what has come before it judges who is
            // late.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => {
                return Err(Error::new(Code::Internal, format!("the event queue failed: {error}")));
            }
        }
        let now = awake();
        for event in &events {
            match event.token() {
                CONTROL => self.listener(None).wake(now),
                INBOX => self.read_inbox(),
                Token(token) if token < FIRST_SESSION => {
                    self.listener(Some(token - FIRST_PORT)).wake(now);
                }
                session => self.session_ready(session),
            }
        }
        self.accept(now);
        self.tick();
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let now = awake();
        let instants = self.sessions.due().into_iter().chain(self.arrivals_due());
        let instants = instants.chain(self.way_due()).chain(self.idle_rail_due());
        let instants = instants.map(|due| due.saturating_duration_since(now));
        let machine = self.machine.poll_timeout().map(|due| due.since(self.clock.now()));
        let due = instants.chain(machine).min();
        // Whoever has a transfer under way looks at the clock often, so that it notices being
        // stopped.
        let look = (due.is_some() || !self.transfers.is_empty()).then_some(LOOK_EVERY);
        due.into_iter().chain(look).min()
    }

    fn tick(&mut self) {
        let now = awake();
        if self.stopped.swap(false, Ordering::AcqRel) {
            self.handle(NodeEvent::Stop);
        }
        while let Some(token) = self.sessions.next_over(now) {
            // Its event may be among those that this turn had no time for.
            self.session_ready(token);
            // A flow that is connected at last has the time of its handshake before it.
            let is_dialled =
                |session: &NodeSession| matches!(session.role, SessionRole::Flow { .. });
            let goes_on = |session: &NodeSession| {
                is_dialled(session) && session.connection.deadline().is_none_or(|due| due > now)
            };
            let is_over = |session: &&NodeSession| !session.connection.is_up() && !goes_on(session);
            if let Some(session) = self.sessions.get(token).filter(is_over) {
                let error = session.connection.overdue();
                self.session_over(token, error);
            }
        }
        let moment = self.clock.now();
        if self.machine.poll_timeout().is_some_and(|due| moment >= due) {
            self.handle(NodeEvent::Tick);
        }
        self.try_due_ways(now);
        self.end_idle_rails(now);
    }

    /// Takes in a connection that was dialled.
    pub(super) fn add_session(
        &mut self,
        token: Token,
        connection: Result<Connection>,
        role: SessionRole,
    ) {
        assert!(token.0 >= FIRST_SESSION, "the first tokens are the listeners'");
        let registered = connection.and_then(|mut connection| {
            connection.register(self.poll.registry(), token)?;
            Ok(connection)
        });
        match registered {
            Ok(connection) => {
                self.sessions.insert(token, NodeSession { connection, role });
                self.session_ready(token);
            }
            Err(error) => self.role_over(token, role, error),
        }
    }

    pub(super) fn session_ready(&mut self, token: Token) {
        let Some(session) = self.sessions.get_mut(token) else { return };
        if let Err(error) = session.connection.ready(&self.keyring) {
            return self.session_over(token, error);
        }
        self.sessions.settle(token);
        let Some(session) = self.sessions.get_mut(token) else { return };
        if !session.connection.is_up() {
            return;
        }
        let kind = session.connection.hello().map(|hello| hello.kind);
        match (session.role, kind) {
            (SessionRole::Visitor { port: Some(port), .. }, Some(ConnectionKind::Data)) => {
                self.flow_arrived(token, port);
            }
            (SessionRole::Flow { transfer, rail_pair, way }, _) => {
                self.flow_opened(token, transfer, rail_pair, way);
            }
            // Flows belong to the NICs' own ports. A master may come over any of them: its first
            // way may be gone.
            (SessionRole::Visitor { port: None, .. }, Some(ConnectionKind::Data)) => {
                self.sessions.remove(token);
            }
            (SessionRole::Visitor { .. }, _) => {
                session.role = SessionRole::Master;
                self.handle(NodeEvent::SessionUp { session: session_ix(token) });
                self.master_ready(token);
            }
            (SessionRole::Master, _) => self.master_ready(token),
            (SessionRole::Leaving, _) => {}
        }
    }

    /// A session ended: its transfer or its flow ends with it.
    pub(super) fn session_over(&mut self, token: Token, error: Error) {
        if let Some(session) = self.sessions.remove(token) {
            if let SessionRole::Visitor { from, .. } = session.role {
                transfer_log::log_refused(from, &error);
            }
            self.role_over(token, session.role, error);
        }
    }

    fn role_over(&mut self, token: Token, role: SessionRole, error: Error) {
        match role {
            SessionRole::Visitor { .. } | SessionRole::Leaving => {}
            SessionRole::Flow { transfer, rail_pair, way } => {
                self.flow_failed(transfer, rail_pair, way, error);
            }
            SessionRole::Master => {
                self.handle(NodeEvent::SessionBroken { session: session_ix(token) });
            }
        }
    }

    fn read_inbox(&mut self) {
        while let Ok(event) = self.inbox.try_recv() {
            self.workers.busy -= usize::from(event.is_work());
            match event {
                InboxEvent::Rail { port, serial, report } => self.rail_says(port, serial, report),
                InboxEvent::Reading { transfer, read_bytes } => {
                    self.handle(NodeEvent::Reading { transfer, read_bytes });
                }
                InboxEvent::Opened { transfer, result } => self.opened(transfer, result),
                InboxEvent::Worker { transfer, answer } => {
                    if let JobAnswer::Preallocated(_) = answer {
                        self.reopen_files(transfer);
                    }
                    self.handle(NodeEvent::Worker { transfer, answer });
                }
                InboxEvent::Rested => self.handle(NodeEvent::RailsEnded),
                InboxEvent::Done => {}
            }
        }
    }

    /// A master says something, or its session ends.
    fn master_ready(&mut self, token: Token) {
        let session = session_ix(token);
        while let Some(NodeSession { connection, role }) = self.sessions.get_mut(token)
            && *role == SessionRole::Master
        {
            let event = match connection.receive() {
                // It may hold the key of a transfer's flows.
                Ok(IncomingData::Message(bytes)) => {
                    match control::decode::<ToNode>(&Zeroizing::new(bytes)) {
                        Ok(message) => NodeEvent::Message { session, message },
                        Err(error) => NodeEvent::Garbled { session, error: error.into() },
                    }
                }
                Ok(IncomingData::Pending) => return,
                Ok(IncomingData::Closed { in_order }) => {
                    // It stays open until the machine closes it: that tells the master something.
                    *role = SessionRole::Leaving;
                    NodeEvent::Closed { session, in_order }
                }
                Err(error) => return self.session_over(token, error),
            };
            self.handle(event);
        }
    }
}

/// The machine's index for the session of a connection.
pub(super) fn session_ix(token: Token) -> SessionIx {
    SessionIx(token.0 as u64)
}

//! Clients of a master, which ask for its status or cancel the transfer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use mio::{Registry, Token};

use super::client_door::ClientDoor;
use crate::core::error::{Code, Error, Result};
use crate::core::master::machine::SESSION_WITHIN;
use crate::core::wire::control;
use crate::core::wire::control::{MasterQuery, QueryAnswer};
use crate::io::clock::awake;
use crate::io::session::descriptors;
use crate::io::session::descriptors::SpareDescriptor;
use crate::io::session::strangers;
use crate::io::session::strangers::{OrderedDeadlines, SILENT_MAX, UnprovenConnections};
use crate::io::session::{Connection, IncomingData, Listener, NotAccepted};

/// Limit on authenticated clients; as many unauthenticated ones may be open, too.
const VISITORS_MAX: usize = 64;

/// Answers a question with the status of the transfer as JSON.
pub(super) type ClientAnswer<'a> = &'a dyn Fn(MasterQuery) -> String;

/// Connections of clients, by token.
pub(super) struct PendingConnections {
    /// Port of the clients, and who they may be, if there is one.
    listener: Option<(Listener, ClientDoor)>,
    open: HashMap<Token, Connection>,
    strangers: UnprovenConnections,
    deadlines: OrderedDeadlines,
    spare: SpareDescriptor,
    next_token: usize,
}

impl PendingConnections {
    /// Creates an empty table. Tokens are assigned from `first_token` on.
    pub(super) fn new(
        listener: Option<(Listener, ClientDoor)>,
        first_token: usize,
    ) -> PendingConnections {
        PendingConnections {
            listener,
            open: HashMap::new(),
            strangers: UnprovenConnections::new(
                VISITORS_MAX.min(strangers::share(descriptors::raise(0))),
            ),
            deadlines: OrderedDeadlines::default(),
            spare: SpareDescriptor::new(),
            next_token: first_token,
        }
    }

    fn next_token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token - 1)
    }

    /// Returns true if the limit of authenticated clients is reached.
    fn is_full(&self) -> bool {
        self.open.len() - self.strangers.len() >= VISITORS_MAX
    }

    /// Adds a connection. A stranger that is evicted for it is closed.
    fn admit(&mut self, token: Token, connection: Connection, from: SocketAddr, now: Instant) {
        if let Some(leaves) = self.strangers.add(token, from.ip()) {
            self.remove(leaves);
        }
        self.deadlines.set(token, connection.deadline().map(|due| due.min(now + SILENT_MAX)));
        self.open.insert(token, connection);
    }

    /// Continues the handshake of a client.
    ///
    /// # Errors
    /// Errors of the handshake.
    fn settle(&mut self, token: Token) -> Result<()> {
        let Some(visitor) = self.open.get_mut(&token) else { return Ok(()) };
        let Some((_, door)) = &mut self.listener else { return Ok(()) };
        if !visitor.is_up() {
            door.refresh(awake());
        }
        visitor.ready(door)?;
        if visitor.is_up() {
            self.strangers.remove(token);
            self.deadlines.set(token, None);
        } else if visitor.has_heard() && self.strangers.heard(token) {
            self.deadlines.set(token, visitor.deadline());
        }
        Ok(())
    }

    /// Returns the first moment at which a client is accepted or a deadline is over.
    pub(super) fn due(&self) -> Option<Instant> {
        let accept = self.listener.as_ref().and_then(|(listener, _)| listener.due());
        let full = self.strangers.full_until();
        let accept = accept.map(|due| full.map_or(due, |full| full.max(due)));
        accept.into_iter().chain(self.deadlines.first()).min()
    }

    /// Closes the clients whose time is over.
    pub(super) fn close_overdue(&mut self, now: Instant) {
        while let Some(token) = self.deadlines.next_over(now) {
            self.remove(token);
        }
    }

    /// The listener has become readable.
    pub(super) fn wake(&mut self, now: Instant) {
        if let Some((listener, _)) = &mut self.listener {
            listener.wake(now);
        }
    }

    /// Accepts waiting clients, as many as one turn allows. `answer` answers their questions.
    pub(super) fn accept(&mut self, registry: &Registry, now: Instant, answer: ClientAnswer<'_>) {
        for _ in 0..self.strangers.burst_max(now) {
            let is_full = self.is_full();
            let Some((listener, _)) = &mut self.listener else { return };
            if listener.due().is_none_or(|due| due > now) {
                return;
            }
            match listener.accept(now) {
                Ok(_) if is_full => {}
                Ok((stream, from)) => {
                    let token = self.next_token();
                    // A connection that is already broken is dropped.
                    let connection = Connection::accept(stream, now + SESSION_WITHIN).and_then(
                        |mut connection| {
                            connection.register(registry, token)?;
                            Ok(connection)
                        },
                    );
                    if let Ok(connection) = connection {
                        self.admit(token, connection, from, now);
                        self.ready(token, answer);
                    }
                }
                Err(NotAccepted::NoDescriptor) if self.make_room() => {}
                Err(NotAccepted::NoDescriptor) => self.shed(now),
                Err(NotAccepted::Gone | NotAccepted::Nobody) => {}
            }
        }
    }

    fn shed(&mut self, now: Instant) {
        if let Some((listener, _)) = &mut self.listener {
            listener.shed(now, &mut self.spare);
        }
    }

    /// A client's connection has become readable or writable.
    pub(super) fn ready(&mut self, token: Token, answer: ClientAnswer<'_>) {
        if let Err(error) = self.visit(token, answer) {
            tracing::debug!("a visitor left: {error}");
            self.remove(token);
        }
    }

    fn visit(&mut self, token: Token, answer: ClientAnswer<'_>) -> Result<()> {
        self.settle(token)?;
        let Some((_, door)) = &self.listener else { return Ok(()) };
        while let Some(visitor) = self.open.get_mut(&token).filter(|visitor| visitor.is_up()) {
            match visitor.receive()? {
                IncomingData::Pending => return Ok(()),
                IncomingData::Closed { .. } => {
                    return Err(Error::new(Code::Unreachable, "it closed the connection"));
                }
                IncomingData::Message(bytes) => {
                    let query = control::decode::<MasterQuery>(&bytes)?;
                    let json = match door.refusal(visitor.initiator(), query) {
                        Some(error) => refusal_json(&error),
                        None => answer(query),
                    };
                    visitor.send(&control::encode(&QueryAnswer { json })?)?;
                }
            }
        }
        Ok(())
    }

    /// Closes the stranger that is the first to evict. Returns false if there is none.
    fn make_room(&mut self) -> bool {
        let oldest = self.strangers.oldest();
        oldest.is_some_and(|oldest| {
            self.remove(oldest);
            true
        })
    }

    /// Says good-bye to all.
    pub(super) fn close_all(&mut self) {
        for connection in self.open.values_mut() {
            // Everything has been said; a peer that is gone already needs no good-bye.
            let _ = connection.close();
        }
    }

    fn remove(&mut self, token: Token) {
        self.strangers.remove(token);
        self.deadlines.set(token, None);
        self.open.remove(&token);
    }
}

/// Returns the answer to a question that its asker has no right to.
fn refusal_json(error: &Error) -> String {
    let (code, message) = (error.code.number(), &error.message);
    serde_json::json!({ "refused": { "code": code, "message": message } }).to_string()
}

//! Clients of a master, which ask for its status or cancel the transfer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::Token;

use super::run::MasterLoop;
use crate::core::error::{Code, Error, Result};
use crate::core::master::machine::SESSION_WITHIN;
use crate::core::master::status::status;
use crate::core::wire::control;
use crate::core::wire::control::{MasterQuery, QueryAnswer};
use crate::core::wire::version::ConnectionKind;
use crate::io::session::descriptors;
use crate::io::session::descriptors::SpareDescriptor;
use crate::io::session::strangers;
use crate::io::session::strangers::{OrderedDeadlines, SILENT_MAX, UnprovenConnections};
use crate::io::session::{
    AcceptOutcome, Connection, ConnectionHello, HelloReply, IncomingData, KeyAuthenticator,
    Listener,
};

/// Limit on authenticated clients; as many unauthenticated ones may be open, too.
const VISITORS_MAX: usize = 64;

/// Connections of clients, by token.
pub(super) struct PendingConnections {
    pub(super) open: HashMap<Token, Connection>,
    pub(super) strangers: UnprovenConnections,
    pub(super) deadlines: OrderedDeadlines,
    pub(super) spare: SpareDescriptor,
    next_token: usize,
}

impl PendingConnections {
    /// Creates an empty table. Tokens are assigned from `first_token` on.
    pub(super) fn new(first_token: usize) -> PendingConnections {
        PendingConnections {
            open: HashMap::new(),
            strangers: UnprovenConnections::new(
                VISITORS_MAX.min(strangers::share(descriptors::raise(0))),
            ),
            deadlines: OrderedDeadlines::default(),
            spare: SpareDescriptor::new(),
            next_token: first_token,
        }
    }

    pub(super) fn next_token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token - 1)
    }

    /// Returns true if the limit of authenticated clients is reached.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() - self.strangers.len() >= VISITORS_MAX
    }

    /// Adds a connection. A stranger that is evicted for it is closed.
    pub(super) fn admit(
        &mut self,
        token: Token,
        connection: Connection,
        from: SocketAddr,
        now: Instant,
    ) {
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
    pub(super) fn settle(&mut self, token: Token, door: &dyn KeyAuthenticator) -> Result<()> {
        let Some(visitor) = self.open.get_mut(&token) else { return Ok(()) };
        visitor.ready(door)?;
        if visitor.is_up() {
            self.strangers.remove(token);
            self.deadlines.set(token, None);
        } else if visitor.has_heard() && self.strangers.heard(token) {
            self.deadlines.set(token, visitor.deadline());
        }
        Ok(())
    }

    /// Returns the moment of the next accept at `listener`.
    pub(super) fn due(&self, listener: &Listener) -> Option<Instant> {
        let due = listener.due()?;
        Some(self.strangers.full_until().map_or(due, |full| full.max(due)))
    }

    /// Closes the stranger that is the first to evict. Returns false if there is none.
    pub(super) fn make_room(&mut self) -> bool {
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

    pub(super) fn remove(&mut self, token: Token) {
        self.strangers.remove(token);
        self.deadlines.set(token, None);
        self.open.remove(&token);
    }
}

impl MasterLoop<'_> {
    /// Accepts waiting clients, as many as one turn allows.
    pub(super) fn accept(&mut self, now: Instant) {
        for _ in 0..self.visitors.strangers.burst_max(now) {
            let Some((listener, _)) = &mut self.listener else { return };
            if listener.due().is_none_or(|due| due > now) {
                return;
            }
            match listener.accept(now) {
                AcceptOutcome::Stream(..) if self.visitors.is_full() => {}
                AcceptOutcome::Stream(stream, from) => {
                    let token = self.visitors.next_token();
                    // A connection that is already broken is dropped.
                    let connection = Connection::accept(stream, now + SESSION_WITHIN).and_then(
                        |mut connection| {
                            connection.register(self.poll.registry(), token)?;
                            Ok(connection)
                        },
                    );
                    if let Ok(connection) = connection {
                        self.visitors.admit(token, connection, from, now);
                        self.visitor_ready(token);
                    }
                }
                AcceptOutcome::NoDescriptor if self.visitors.make_room() => {}
                AcceptOutcome::NoDescriptor => listener.shed(now, &mut self.visitors.spare),
                AcceptOutcome::Gone | AcceptOutcome::Nobody => {}
            }
        }
    }

    pub(super) fn visitor_ready(&mut self, token: Token) {
        if let Err(error) = self.visit(token) {
            tracing::debug!("a visitor left: {error}");
            self.visitors.remove(token);
        }
    }

    fn visit(&mut self, token: Token) -> Result<()> {
        let Some((_, key)) = &self.listener else { return Ok(()) };
        let door = |hello: &ConnectionHello| {
            (hello.kind == ConnectionKind::Client)
                .then(|| HelloReply { key: key.clone(), payload: Vec::new() })
        };
        self.visitors.settle(token, &door)?;
        while let Some(visitor) =
            self.visitors.open.get_mut(&token).filter(|visitor| visitor.is_up())
        {
            match visitor.receive()? {
                IncomingData::Pending => return Ok(()),
                IncomingData::Closed { .. } => {
                    return Err(Error::new(Code::Unreachable, "it closed the connection"));
                }
                IncomingData::Message(bytes) => {
                    if control::decode::<MasterQuery>(&bytes)? == MasterQuery::Cancel {
                        self.shared.cancelled.store(true, Ordering::Release);
                    }
                    let json = status(self.machine.coordinator());
                    visitor.send(&control::encode(&QueryAnswer { json })?)?;
                }
            }
        }
        Ok(())
    }
}

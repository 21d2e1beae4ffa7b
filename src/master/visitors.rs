//! Visitors of a master: who asks for its status, or has it cancel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use mio::Token;

use crate::error::Result;
use crate::session::descriptors::{self, Spare};
use crate::session::strangers::{self, Deadlines, SILENT_MAX, Strangers};
use crate::session::{Connection, Door, Listener};

/// Visitors at once that have proved the key; as many strangers beside them.
const VISITORS_MAX: usize = 64;

/// The connections of visitors, by token.
pub(super) struct Visitors {
    pub(super) open: HashMap<Token, Connection>,
    pub(super) strangers: Strangers,
    pub(super) deadlines: Deadlines,
    pub(super) spare: Spare,
    next_token: usize,
}

impl Visitors {
    /// Nobody yet; tokens are given out from `first_token` on.
    pub(super) fn new(first_token: usize) -> Visitors {
        Visitors {
            open: HashMap::new(),
            strangers: Strangers::new(VISITORS_MAX.min(strangers::share(descriptors::raise(0)))),
            deadlines: Deadlines::default(),
            spare: Spare::new(),
            next_token: first_token,
        }
    }

    pub(super) fn next_token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token - 1)
    }

    /// Whether there are as many as may be of those that have proved the key.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() - self.strangers.len() >= VISITORS_MAX
    }

    /// Takes in a connection. The stranger that gives way to it is cut off.
    pub(super) fn admit(&mut self, token: Token, connection: Connection, from: SocketAddr, now: Instant) {
        if let Some(leaves) = self.strangers.add(token, from.ip()) {
            self.remove(leaves);
        }
        self.deadlines.set(token, connection.deadline().map(|due| due.min(now + SILENT_MAX)));
        self.open.insert(token, connection);
    }

    /// Goes on with the handshake of a visitor, and notes how far it has come.
    ///
    /// # Errors
    /// Those of the handshake.
    pub(super) fn settle(&mut self, token: Token, door: &dyn Door) -> Result<()> {
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

    /// When to take in who waits at `listener`.
    pub(super) fn due(&self, listener: &Listener) -> Option<Instant> {
        let due = listener.due()?;
        Some(self.strangers.full_until().map_or(due, |full| full.max(due)))
    }

    /// Cuts off the stranger that is the first to give way. Returns whether there was one.
    pub(super) fn make_room(&mut self) -> bool {
        let oldest = self.strangers.oldest();
        oldest.is_some_and(|oldest| {
            self.remove(oldest);
            true
        })
    }

    pub(super) fn remove(&mut self, token: Token) {
        self.strangers.remove(token);
        self.deadlines.set(token, None);
        self.open.remove(&token);
    }
}

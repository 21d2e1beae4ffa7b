//! Clients on this machine that ask a master over its [`LocalSocket`]: one question each, and one
//! answer.
//!
//! Whose they are is known when they connect. Each has little time, and when there are too many the
//! oldest is closed for the newest: one that asks at once is answered at once.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use super::local_frames::{framed, message};
use super::local_socket::LocalSocket;
use super::pending_connections::ClientAnswer;
use crate::core::wire::control;
use crate::core::wire::control::{MasterQuery, QueryAnswer};
use crate::io::session::descriptors::SpareDescriptor;
use crate::io::session::{Listener, NotAccepted, may_ask_owner};

/// The token of the listener; those of its clients follow it. All others are below.
pub(super) const FIRST_LOCAL: usize = usize::MAX / 2;

/// Limit on open clients.
const VISITORS_MAX: usize = 64;
/// Clients accepted in one turn.
const BURST_MAX: usize = 16;
/// Time of a client to ask and to read the answer.
const VISIT_MAX: Duration = Duration::from_secs(5);
/// Limit on the size of a question.
const QUERY_BYTES_MAX: usize = 64;

/// The socket of a transfer, and its clients by token, in the order of their arrival.
pub(super) struct LocalVisitors {
    /// It is removed with this.
    socket: Option<(Listener<UnixListener>, LocalSocket)>,
    open: BTreeMap<Token, LocalVisitor>,
    spare: SpareDescriptor,
    next_token: usize,
}

/// A client that is connected.
struct LocalVisitor {
    stream: UnixStream,
    inbox: Vec<u8>,
    /// The answer, once there is one, and how much of it is sent.
    outbox: Vec<u8>,
    sent: usize,
    deadline: Instant,
}

impl LocalVisitors {
    /// Begins to listen, if there is a socket.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn new(
        socket: Option<LocalSocket>,
        registry: &Registry,
    ) -> io::Result<LocalVisitors> {
        let mut visitors = LocalVisitors {
            socket: None,
            open: BTreeMap::new(),
            spare: SpareDescriptor::new(),
            next_token: FIRST_LOCAL + 1,
        };
        if let Some(mut socket) = socket
            && let Some(listener) = socket.take_listener()
        {
            let mut listener = Listener::local(listener)?;
            listener.register(registry, Token(FIRST_LOCAL))?;
            visitors.socket = Some((listener, socket));
        }
        Ok(visitors)
    }

    /// Returns the first moment at which a client is accepted or the time of one is over.
    pub(super) fn due(&self) -> Option<Instant> {
        let accept = self.socket.as_ref().and_then(|(listener, _)| listener.due());
        accept.into_iter().chain(self.open.values().next().map(|oldest| oldest.deadline)).min()
    }

    /// Something happened to the listener, or to a client.
    pub(super) fn ready(&mut self, now: Instant, token: Token, answer: ClientAnswer<'_>) {
        if token == Token(FIRST_LOCAL) {
            if let Some((listener, _)) = &mut self.socket {
                listener.wake(now);
            }
        } else if let Some(visitor) = self.open.get_mut(&token)
            && visitor.ready(answer)
        {
            self.open.remove(&token);
        }
    }

    /// Accepts waiting clients, as many as one turn allows, and closes those whose time is over.
    pub(super) fn tick(&mut self, registry: &Registry, now: Instant, answer: ClientAnswer<'_>) {
        // All have the same time, so the oldest is the first whose time is over.
        while let Some(oldest) = self.open.first_entry().filter(|it| it.get().deadline <= now) {
            oldest.remove();
        }
        for _ in 0..BURST_MAX {
            let Some((listener, _)) = &mut self.socket else { return };
            if listener.due().is_none_or(|due| due > now) {
                return;
            }
            match listener.accept(now) {
                Ok((stream, ())) => self.admit(registry, now, stream, answer),
                Err(NotAccepted::NoDescriptor) if self.open.pop_first().is_some() => {}
                Err(NotAccepted::NoDescriptor) => listener.shed(now, &mut self.spare),
                Err(NotAccepted::Gone | NotAccepted::Nobody) => {}
            }
        }
    }

    fn admit(
        &mut self,
        registry: &Registry,
        now: Instant,
        mut stream: UnixStream,
        answer: ClientAnswer<'_>,
    ) {
        let token = Token(self.next_token);
        self.next_token += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if !may_ask_owner(&stream) || registry.register(&mut stream, token, interest).is_err() {
            return;
        }
        let mut visitor = LocalVisitor {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            sent: 0,
            deadline: now + VISIT_MAX,
        };
        if visitor.ready(answer) {
            return;
        }
        if self.open.len() >= VISITORS_MAX {
            self.open.pop_first();
        }
        self.open.insert(token, visitor);
    }
}

impl LocalVisitor {
    /// Makes all possible progress. Returns true if it is over, well or not.
    fn ready(&mut self, answer: ClientAnswer<'_>) -> bool {
        match self.visit(answer) {
            Ok(is_over) => is_over,
            Err(error) => {
                tracing::debug!("a client on this machine left: {error}");
                true
            }
        }
    }

    fn visit(&mut self, answer: ClientAnswer<'_>) -> io::Result<bool> {
        if self.outbox.is_empty() {
            let Some(query) = self.query()? else { return Ok(false) };
            let answer = QueryAnswer { json: answer(query) };
            self.outbox = framed(&answer).map_err(io::Error::other)?;
        }
        while self.sent < self.outbox.len() {
            match self.stream.write(&self.outbox[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads the question, once it is whole.
    fn query(&mut self) -> io::Result<Option<MasterQuery>> {
        let mut bytes = [0; QUERY_BYTES_MAX];
        loop {
            let whole = message(&self.inbox, QUERY_BYTES_MAX)
                .map_err(|_| io::Error::other("no question is as long as its own"))?;
            if let Some(query) = whole {
                return control::decode(query).map(Some).map_err(io::Error::other);
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.inbox.extend(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

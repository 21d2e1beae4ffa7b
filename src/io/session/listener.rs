//! A listening socket for a loop on edge-triggered events, which never misses a connection.
//!
//! An event comes when a connection joins a listener's queue, but not again for connections already
//! in it. No connection can join a full queue, so a loop that leaves some connections for the next
//! event may wait forever. Therefore [`Listener::due`] stays set until the queue was found empty.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{Backlog, listen};

use super::descriptors::SpareDescriptor;
use super::socket::set_nonblocking;

/// A kind of listening socket: of the network, or of this machine.
pub(crate) trait ListeningSocket: Source {
    /// A connection that it accepts.
    type Stream;
    /// What is known of the peer.
    type Peer;

    /// Accepts a connection, if one is waiting.
    ///
    /// # Errors
    /// Those of accept(2).
    fn accept_one(&self) -> io::Result<(Self::Stream, Self::Peer)>;
}

impl ListeningSocket for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    fn accept_one(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept()
    }
}

impl ListeningSocket for UnixListener {
    type Stream = UnixStream;
    type Peer = ();

    fn accept_one(&self) -> io::Result<(UnixStream, ())> {
        self.accept().map(|(stream, _)| (stream, ()))
    }
}

/// A listening socket, with the moment of the next accept.
#[derive(Debug)]
pub(crate) struct Listener<S = TcpListener> {
    socket: S,
    /// Moment at which connections may be waiting or a failed attempt is repeated; `None` once the
    /// queue was empty.
    due: Option<Instant>,
}

/// Outcome of an attempt to accept that gave no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotAccepted {
    /// A connection ended before it was accepted. Others may be waiting.
    Gone,
    /// This process, or the system, has no descriptor left. Close one, or use [`Listener::shed`].
    NoDescriptor,
    /// No connection is waiting, or the system lacks a resource: [`Listener::due`] is the moment of
    /// the next attempt.
    Nobody,
}

impl Listener {
    /// Takes over a listening socket.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn new(socket: StdListener) -> io::Result<Listener> {
        prepare(&socket)?;
        Ok(Listener { socket: TcpListener::from_std(socket), due: None })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Listener<UnixListener> {
    /// Takes over a listening socket of this machine.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn local(socket: StdUnixListener) -> io::Result<Listener<UnixListener>> {
        prepare(&socket)?;
        Ok(Listener { socket: UnixListener::from_std(socket), due: None })
    }
}

/// Makes a listening socket non-blocking, with the longest queue.
fn prepare(socket: &impl AsFd) -> io::Result<()> {
    set_nonblocking(socket, true)?;
    // The standard library asks for a queue of 128; the kernel cuts this to net.core.somaxconn.
    Ok(listen(socket, Backlog::MAXCONN)?)
}

impl<S: ListeningSocket> Listener<S> {
    /// Registers the listener for its events. Call [`Listener::wake`] on each event.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// Records an event.
    pub(crate) fn wake(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Returns the moment for [`Listener::accept`]; `None` until an event comes.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Accepts the next connection, and returns what is known of the peer beside it. Call it once
    /// [`Listener::due`] has come, a limited number of times in one turn.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn accept(&mut self, now: Instant) -> Result<(S::Stream, S::Peer), NotAccepted> {
        self.try_accept().map_err(|error| self.failed(now, &error))
    }

    /// Accepts the next connection and closes it, using the reserved descriptor.
    pub(crate) fn shed(&mut self, now: Instant, spare: &mut SpareDescriptor) {
        let accepted = spare.lend(|| self.try_accept().map(drop));
        if let Err(error) = accepted {
            // Another thread has taken the descriptor; it will have closed one by the next attempt.
            if matches!(self.failed(now, &error), NotAccepted::NoDescriptor) {
                self.due = Some(now + AGAIN_AFTER);
            }
        }
    }

    fn try_accept(&self) -> io::Result<(S::Stream, S::Peer)> {
        loop {
            match self.socket.accept_one() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                accepted => return accepted,
            }
        }
    }

    fn failed(&mut self, now: Instant, error: &io::Error) -> NotAccepted {
        let (accepted, due) = judged(error);
        self.due = due.map(|after| now + after);
        accepted
    }
}

/// Returns the outcome for an error of accept(2), and the pause until the next attempt, if no event
/// will come.
fn judged(error: &io::Error) -> (NotAccepted, Option<Duration>) {
    match error.raw_os_error() {
        _ if error.kind() == ErrorKind::WouldBlock => (NotAccepted::Nobody, None),
        Some(libc::EMFILE | libc::ENFILE) => (NotAccepted::NoDescriptor, Some(Duration::ZERO)),
        // The connection was reset in the queue, or, on Linux, a network error occurred.
        Some(
            libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET,
        ) => (NotAccepted::Gone, Some(Duration::ZERO)),
        // Out of memory, forbidden by a filter, or unknown: it may pass.
        _ => (NotAccepted::Nobody, Some(AGAIN_AFTER)),
    }
}

/// Pause after an error that may pass.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    fn listener() -> (Listener, SocketAddr) {
        let listener = Listener::new(StdListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn whatever_error_comes_the_listener_is_asked_again_until_nobody_waits() {
        let now = Instant::now();
        for errno in 1..134 {
            let error = io::Error::from_raw_os_error(errno);
            let (accepted, after) = judged(&error);
            let is_drained = error.kind() == ErrorKind::WouldBlock;
            assert_eq!(after.is_none(), is_drained, "{error}");
            assert!(after.is_none_or(|after| after <= Duration::from_millis(100)), "{error}");
            // Errors that would persist are not retried at once.
            let passes = accepted != NotAccepted::Nobody;
            assert!(
                is_drained || passes == (after == Some(Duration::ZERO)),
                "{error}: {accepted:?}"
            );
        }
        let (mut listener, _) = listener();
        listener.wake(now);
        assert!(matches!(listener.accept(now), Err(NotAccepted::Nobody)));
        assert_eq!(listener.due(), None);
    }

    #[test]
    fn those_who_were_not_taken_in_stay_due() {
        let now = Instant::now();
        let (mut listener, address) = listener();
        let _first = std::net::TcpStream::connect(address).unwrap();
        let second = std::net::TcpStream::connect(address).unwrap();
        listener.wake(now);
        assert!(listener.accept(now).is_ok());
        assert_eq!(listener.due(), Some(now), "one more is in line");
        listener.shed(now, &mut SpareDescriptor::new());
        assert_eq!(listener.due(), Some(now), "the queue was not found empty");
        let mut byte = [0];
        let told = io::Read::read(&mut &second, &mut byte);
        assert!(matches!(told, Ok(0)) || told.is_err(), "who is shed is told");
        assert!(matches!(listener.accept(now), Err(NotAccepted::Nobody)));
        assert_eq!(listener.due(), None);
    }
}

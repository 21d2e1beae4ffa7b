//! A non-blocking socket with what was read of the next unit, and with what is still to be sent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::AsFd;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{setsockopt, sockopt};

use super::peer_user::is_own;
use crate::core::error::{Code, Error, Result};

/// A socket that is read by exact counts and written through a queue. It holds no memory while
/// nothing is under way.
pub(super) struct BufferedSocket {
    stream: TcpStream,
    /// What was read of the wanted bytes. Invariant: only the first `filled` were.
    inbox: Vec<u8>,
    filled: usize,
    /// What is still to be sent, from `sent` on.
    outbox: Vec<u8>,
    sent: usize,
    /// Nothing more will be queued: half-close behind the last byte.
    closing: bool,
}

/// How far a read came.
pub(super) enum FilledBytes {
    /// All wanted bytes are there.
    Whole,
    /// The rest has not arrived.
    Blocked,
    /// The peer sends no more.
    Ended,
}

/// A peer that lost its power or its network says nothing, ever. The kernel asks it after ten
/// seconds of silence, and gives up after three unanswered questions, or when what was sent is not
/// acknowledged for half a minute.
fn notice_dead_peers(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &10)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &5)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &30_000)
}

/// A master and a node have other ways to each other, and want to know soon that this one is gone:
/// after three seconds of silence they ask every second, and give up after six.
fn notice_dead_ways(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::TcpKeepIdle, &3)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &6_000)
}

impl BufferedSocket {
    pub(super) fn new(stream: TcpStream) -> Result<BufferedSocket> {
        // Each message is written at once, and the peer waits for it.
        stream.set_nodelay(true).map_err(|error| lost(&error))?;
        notice_dead_peers(&stream).map_err(|errno| lost(&errno.into()))?;
        Ok(BufferedSocket {
            stream,
            inbox: Vec::new(),
            filled: 0,
            outbox: Vec::new(),
            sent: 0,
            closing: false,
        })
    }

    /// For a connection that others can take the place of.
    pub(super) fn notice_soon(&self) -> Result<()> {
        notice_dead_ways(&self.stream).map_err(|errno| lost(&errno.into()))
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.stream, token, interest).map_err(|error| lost(&error))
    }

    /// Whether a socket that was dialled is connected by now.
    pub(super) fn is_connected(&self) -> Result<bool> {
        if let Some(error) = self.stream.take_error().map_err(|error| lost(&error))? {
            return Err(Error::new(Code::Unreachable, format!("no connection: {error}"))
                .remedy("check that the node runs and listens on that port"));
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(lost(&error)),
        }
    }

    /// The other end, unless the connection is gone already.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Whether the process at the other end is one of our own user, on this machine.
    pub(super) fn is_own_users(&self) -> bool {
        let ends = self.stream.local_addr().and_then(|local| Ok((local, self.stream.peer_addr()?)));
        ends.is_ok_and(|(local, remote)| is_own(local, remote))
    }

    /// Reads until `wants` bytes are there, and not one more.
    pub(super) fn fill(&mut self, wants: usize) -> Result<FilledBytes> {
        self.inbox.resize(wants, 0);
        while self.filled < wants {
            match self.stream.read(&mut self.inbox[self.filled..]) {
                Ok(0) => return Ok(FilledBytes::Ended),
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(self.blocked()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(FilledBytes::Whole)
    }

    fn blocked(&mut self) -> FilledBytes {
        if self.has_nothing_read() {
            self.inbox = Vec::new();
        }
        FilledBytes::Blocked
    }

    /// Whether nothing was read that is not yet taken.
    pub(super) fn has_nothing_read(&self) -> bool {
        self.filled == 0
    }

    /// The bytes that [`Socket::fill`] gathered.
    pub(super) fn take_inbox(&mut self) -> Vec<u8> {
        self.filled = 0;
        std::mem::take(&mut self.inbox)
    }

    /// Where bytes to be sent are appended; [`Socket::flush`] sends them.
    ///
    /// # Panics
    /// If the socket was closed here.
    pub(super) fn outbox(&mut self) -> &mut Vec<u8> {
        assert!(!self.closing, "nothing is sent on a connection that was closed");
        &mut self.outbox
    }

    /// How many bytes are still to be sent.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.outbox.len() - self.sent
    }

    pub(super) fn is_drained(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Sends what waits as far as the socket takes it, and half-closes behind the last byte if that
    /// was asked.
    pub(super) fn flush(&mut self) -> Result<()> {
        while self.sent < self.outbox.len() {
            match self.stream.write(&self.outbox[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.drop_sent();
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
        (self.outbox, self.sent) = (Vec::new(), 0);
        if self.closing {
            // The peer may have gone first; then there is nothing left to tell it.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Forgets what was sent once it is the larger part, so that a queue that never runs empty does
    /// not grow either.
    fn drop_sent(&mut self) {
        if self.sent > self.outbox.len() / 2 {
            self.outbox.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Lets nothing more be queued; what waits is still sent.
    pub(super) fn close(&mut self) -> Result<()> {
        self.closing = true;
        self.flush()
    }

    /// The socket itself, in blocking mode.
    pub(super) fn into_stream(mut self, registry: &Registry) -> Result<StdTcpStream> {
        registry.deregister(&mut self.stream).map_err(|error| lost(&error))?;
        let stream = StdTcpStream::from(self.stream);
        set_nonblocking(&stream, false).map_err(|error| lost(&error))?;
        Ok(stream)
    }
}

/// As the standard library's, without `ioctl`, which filters of system calls may forbid.
pub(super) fn set_nonblocking(socket: impl AsFd, is_nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, is_nonblocking);
    fcntl(&socket, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

fn lost(error: &io::Error) -> Error {
    Error::new(Code::Unreachable, format!("the connection is lost: {error}"))
}

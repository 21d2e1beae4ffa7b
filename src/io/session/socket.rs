//! A non-blocking socket with buffers: the received part of the next unit, and the bytes to send.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::AsFd;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{setsockopt, sockopt};

use super::peer_user::is_own;
use crate::core::error::{Code, Error, Result};

/// A socket that reads exact numbers of bytes and writes through a queue. It holds no memory while
/// idle.
pub(super) struct BufferedSocket {
    stream: TcpStream,
    /// Received part of the requested bytes. Invariant: only the first `filled` are received.
    inbox: Vec<u8>,
    filled: usize,
    /// Bytes to send, from `sent` on.
    outbox: Vec<u8>,
    sent: usize,
    /// Nothing more will be queued: half-close after the last byte.
    closing: bool,
    /// The sending half is closed. It is closed once: each time is an event on the socket, and each
    /// event is a flush.
    is_half_closed: bool,
}

/// Result of a read.
pub(super) enum FilledBytes {
    /// All requested bytes have been read.
    Whole,
    /// The remaining bytes have not arrived.
    Blocked,
    /// The peer sends no more.
    Ended,
}

/// Enables keepalive: a peer that lost its power or its network never sends anything. The kernel
/// probes it after ten seconds of silence, and gives up after three unanswered probes, or if sent
/// bytes are not acknowledged for half a minute.
fn notice_dead_peers(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &10)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &5)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &30_000)
}

/// Enables fast keepalive between a master and a node, which can reconnect over other addresses:
/// probes after three seconds of silence, every second, and gives up after six.
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
            is_half_closed: false,
        })
    }

    /// Detects a dead path soon, on a connection that can be replaced.
    pub(super) fn notice_soon(&self) -> Result<()> {
        notice_dead_ways(&self.stream).map_err(|errno| lost(&errno.into()))
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.stream, token, interest).map_err(|error| lost(&error))
    }

    /// Returns true once a dialled socket is connected.
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

    /// Returns the peer's address, unless the connection is closed.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Returns true if both addresses are loopback ones: its bytes do not leave this machine.
    pub(super) fn is_inside(&self) -> bool {
        let ends = [self.stream.local_addr(), self.stream.peer_addr()];
        ends.iter().all(|end| end.as_ref().is_ok_and(|end| is_loopback(end.ip())))
    }

    /// Returns true if the process at the other end belongs to the same user, on this machine.
    pub(super) fn is_own_users(&self) -> bool {
        let ends = self.stream.local_addr().and_then(|local| Ok((local, self.stream.peer_addr()?)));
        ends.is_ok_and(|(local, remote)| is_own(local, remote))
    }

    /// Reads until `wants` bytes are available, and not one more.
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

    /// Returns true if all read bytes were taken.
    pub(super) fn has_nothing_read(&self) -> bool {
        self.filled == 0
    }

    /// Takes the bytes that [`BufferedSocket::fill`] has read.
    pub(super) fn take_inbox(&mut self) -> Vec<u8> {
        self.filled = 0;
        std::mem::take(&mut self.inbox)
    }

    /// Returns the queue of bytes to send; [`BufferedSocket::flush`] sends them.
    ///
    /// # Panics
    /// If the socket was closed on this side.
    pub(super) fn outbox(&mut self) -> &mut Vec<u8> {
        assert!(!self.closing, "nothing is sent on a connection that was closed");
        &mut self.outbox
    }

    /// Returns the number of bytes to send.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.outbox.len() - self.sent
    }

    pub(super) fn is_drained(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Sends queued bytes until the socket is full, and half-closes after the last byte if
    /// requested.
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
        if self.closing && !std::mem::replace(&mut self.is_half_closed, true) {
            // The peer may have closed first.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Discards sent bytes once they are the larger part, so that a queue that never runs empty
    /// does not grow.
    fn drop_sent(&mut self) {
        if self.sent > self.outbox.len() / 2 {
            self.outbox.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Ends queueing; queued bytes are still sent.
    pub(super) fn close(&mut self) -> Result<()> {
        self.closing = true;
        self.flush()
    }

    /// Returns the socket in blocking mode.
    pub(super) fn into_stream(mut self, registry: &Registry) -> Result<StdTcpStream> {
        registry.deregister(&mut self.stream).map_err(|error| lost(&error))?;
        let stream = StdTcpStream::from(self.stream);
        set_nonblocking(&stream, false).map_err(|error| lost(&error))?;
        Ok(stream)
    }
}

/// Like the standard library's function, but without `ioctl`, which filters of system calls may
/// forbid.
pub(super) fn set_nonblocking(socket: impl AsFd, is_nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, is_nonblocking);
    fcntl(&socket, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Returns true for a loopback address, also for one of IPv4 that is written as one of IPv6.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn lost(error: &io::Error) -> Error {
    Error::new(Code::Unreachable, format!("the connection is lost: {error}"))
}

//! A secured connection over a non-blocking socket, for a loop on edge-triggered events.
//!
//! It reads exactly the bytes that the next step needs and never one more, so that the socket of a
//! data flow can be handed over after the handshake without loss. Control messages are few and
//! small, so the extra read of a length is cheap.

use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Registry, Token};

use super::identity::DialKey;
#[cfg(feature = "stand-ins")]
use super::key::Key;
use super::noise::{
    ConnectionHello, EstablishedSession, HandshakeStep, KeyAuthenticator, NoiseHandshake,
};
use super::reach::DialProgress;
use super::refusals::other_user;
use super::sealed::{SealedStream, sealed_bytes};
use super::socket::{BufferedSocket, FilledBytes};
use crate::core::access::PublicKey;
use crate::core::error::{Code, Error, Result};
use crate::core::seal::FlowSecrets;
use crate::core::wire::limits::MESSAGE_BYTES_MAX;
use crate::core::wire::version::ConnectionKind;

/// One end of a secured connection.
///
/// Created by [`Connection::initiate`] or [`Connection::accept`], and registered once with
/// [`Connection::register`]. Call [`Connection::ready`] on every event. Once [`Connection::is_up`]:
/// call [`Connection::into_stream`] on a data flow; on others call [`Connection::receive`] until it
/// is `Pending` (events only come on changes), and [`Connection::send`] at any time. Until it is
/// up, [`Connection::deadline`] limits the wait. An error ends the connection: drop it. The caller
/// knows the peer's name and prefixes errors with it.
pub(crate) struct Connection {
    socket: BufferedSocket,
    state: ConnectionState,
    deadline: Instant,
    /// Dialled without a key: the listening process must belong to the same user.
    dialled_without_key: bool,
    /// Deadline for an answer of the peer's kernel, if it is earlier.
    connected_by: Option<Instant>,
}

/// Result of a read.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum IncomingData {
    /// A whole message.
    Message(Vec<u8>),
    /// Nothing yet: wait for an event.
    Pending,
    /// The peer closed the connection between two messages; `in_order` if it sent a good-bye
    /// before.
    Closed { in_order: bool },
}

enum ConnectionState {
    Connecting(Box<NoiseHandshake>),
    Handshaking(Box<NoiseHandshake>),
    Up(Box<EstablishedState>),
    Over,
}

struct EstablishedState {
    hello: ConnectionHello,
    initiator: Option<PublicKey>,
    payload: Vec<u8>,
    sealed: SealedStream,
    secrets: Option<FlowSecrets>,
}

/// A data flow that is handed over.
pub(crate) struct FlowStream {
    /// Its socket, in blocking mode, as rings need it.
    pub(crate) socket: StdTcpStream,
    /// Payload of the peer's handshake message.
    pub(crate) payload: Vec<u8>,
    /// Secrets of its frames.
    pub(crate) secrets: FlowSecrets,
    /// True if both of its addresses are loopback ones.
    pub(crate) is_inside: bool,
}

impl Connection {
    /// Creates the dialling side; `stream` may still be connecting. The other side receives
    /// `payload`; that of a data flow is its `FlowHello`.
    ///
    /// # Errors
    /// `Internal` if the system gives no randomness, `Unreachable` if the socket is already broken.
    pub(crate) fn initiate(
        stream: TcpStream,
        hello: ConnectionHello,
        key: impl Into<DialKey>,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<Connection> {
        let key = key.into();
        let (handshake, first) = NoiseHandshake::initiate(hello, &key, payload)?;
        let state = ConnectionState::Connecting(Box::new(handshake));
        let mut connection = Connection::new(BufferedSocket::new(stream)?, state, deadline);
        connection.dialled_without_key = key.is_open();
        connection.socket.outbox().extend(first);
        Ok(connection)
    }

    /// Creates the listening side.
    ///
    /// # Errors
    /// `Unreachable` if the socket is already broken.
    pub(crate) fn accept(stream: TcpStream, deadline: Instant) -> Result<Connection> {
        let socket = BufferedSocket::new(stream)?;
        let handshake = NoiseHandshake::respond(socket.is_inside());
        let state = ConnectionState::Handshaking(Box::new(handshake));
        Ok(Connection::new(socket, state, deadline))
    }

    fn new(socket: BufferedSocket, state: ConnectionState, deadline: Instant) -> Connection {
        Connection { socket, state, deadline, connected_by: None, dialled_without_key: false }
    }

    /// Sets an earlier deadline for an answer of the peer's kernel.
    pub(crate) fn connected_by(mut self, deadline: Instant) -> Connection {
        self.connected_by = Some(deadline);
        self
    }

    /// Returns the progress of a connection that failed.
    pub(crate) fn progress(&self) -> DialProgress {
        match self.state {
            ConnectionState::Connecting(_) => DialProgress::Connecting,
            ConnectionState::Handshaking(_) => DialProgress::Handshaking,
            ConnectionState::Up(_) | ConnectionState::Over => DialProgress::Judged,
        }
    }

    /// Registers the connection for its events, once.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<()> {
        self.socket.register(registry, token)
    }

    /// Makes all possible progress: connects, shakes hands, sends. Extra calls are harmless. `door`
    /// decides about peers; the dialling side never asks it.
    ///
    /// # Errors
    /// `Unreachable` if the peer cannot be reached, is lost, or does not speak the protocol;
    /// `Refused` if the keys differ or the peer is not let in.
    pub(crate) fn ready(&mut self, door: &dyn KeyAuthenticator) -> Result<()> {
        if matches!(self.state, ConnectionState::Connecting(_)) {
            if !self.socket.is_connected()? {
                return Ok(());
            }
            self.begin();
        }
        self.socket.flush()?;
        while let ConnectionState::Handshaking(handshake) = &self.state {
            match self.socket.fill(handshake.wants())? {
                FilledBytes::Whole => self.shake(door)?,
                FilledBytes::Blocked => return Ok(()),
                FilledBytes::Ended => {
                    return Err(Error::new(
                        Code::Unreachable,
                        "the peer closed the connection during the handshake",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Returns true if the connection can be used. A data flow is up once its last handshake
    /// message is sent, too.
    pub(crate) fn is_up(&self) -> bool {
        match &self.state {
            ConnectionState::Up(up) => {
                up.hello.kind != ConnectionKind::Data || self.socket.is_drained()
            }
            _ => false,
        }
    }

    /// Returns true if the peer's first message has been read and matches the key. It may be a
    /// replayed recording.
    pub(crate) fn has_heard(&self) -> bool {
        match &self.state {
            ConnectionState::Connecting(handshake) | ConnectionState::Handshaking(handshake) => {
                handshake.has_heard()
            }
            ConnectionState::Up(_) => true,
            ConnectionState::Over => false,
        }
    }

    /// Returns the deadline for the connection to be up; `None` once it is.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connected_by =
            self.connected_by.filter(|_| self.progress() == DialProgress::Connecting);
        (!self.is_up()).then(|| connected_by.unwrap_or(self.deadline).min(self.deadline))
    }

    /// Returns the error of a connection whose deadline passed.
    pub(crate) fn overdue(&self) -> Error {
        match self.state {
            ConnectionState::Connecting(_) => {
                Error::new(Code::Unreachable, "no connection in time").remedy(
                    "check that the node runs and that no firewall drops packets to its port",
                )
            }
            _ => Error::new(Code::Unreachable, "no handshake in time")
                .remedy("check the port: something else may be listening there"),
        }
    }

    /// Returns the peer's address, as long as the socket knows it.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer()
    }

    /// Returns the purpose of the connection; `None` until it is up.
    pub(crate) fn hello(&self) -> Option<ConnectionHello> {
        self.up().map(|up| up.hello)
    }

    /// Returns the public key of the side that dialled; `None` with a shared key, and until the
    /// connection is up.
    pub(crate) fn initiator(&self) -> Option<&PublicKey> {
        self.up().and_then(|up| up.initiator.as_ref())
    }

    /// Takes the payload of the peer's handshake: an advert, a flow's hello, or nothing. It is
    /// empty until the connection is up, and on a second call.
    pub(crate) fn take_payload(&mut self) -> Vec<u8> {
        match &mut self.state {
            ConnectionState::Up(up) => std::mem::take(&mut up.payload),
            _ => Vec::new(),
        }
    }

    /// Sends a message, or queues it until the socket has room.
    ///
    /// # Errors
    /// `Unreachable` if the peer is lost, or reads so slowly that too many bytes are queued.
    ///
    /// # Panics
    /// If the connection is not up, or was closed on this side.
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<()> {
        if self.socket.waiting_bytes() + sealed_bytes(message.len()) > OUTBOX_BYTES_MAX {
            return Err(Error::new(
                Code::Unreachable,
                "the peer does not read its control messages",
            ));
        }
        let ConnectionState::Up(up) = &mut self.state else {
            panic!("messages are sent on connections that are up")
        };
        up.sealed.seal(message, self.socket.outbox());
        self.socket.flush()
    }

    /// Returns the next message, if it has arrived. Call it until it is `Pending`.
    ///
    /// # Errors
    /// `Unreachable` if the peer was lost within a message, `Integrity` if a message was corrupted.
    ///
    /// # Panics
    /// If the connection is not up, or is a data flow.
    pub(crate) fn receive(&mut self) -> Result<IncomingData> {
        loop {
            let ConnectionState::Up(up) = &mut self.state else {
                panic!("messages are received on connections that are up")
            };
            assert!(up.hello.kind != ConnectionKind::Data, "a data flow carries frames");
            let (wants, between) = (up.sealed.wants(), up.sealed.is_between_messages());
            match self.socket.fill(wants)? {
                FilledBytes::Blocked => return Ok(IncomingData::Pending),
                FilledBytes::Ended if between && self.socket.has_nothing_read() => {
                    return Ok(IncomingData::Closed { in_order: false });
                }
                FilledBytes::Ended => {
                    return Err(Error::new(
                        Code::Unreachable,
                        "the peer closed the connection within a message",
                    ));
                }
                FilledBytes::Whole => {}
            }
            let bytes = self.socket.take_inbox();
            let ConnectionState::Up(up) = &mut self.state else {
                unreachable!("reading changes no state")
            };
            if let Some(message) = up.sealed.open(&bytes)? {
                return Ok(IncomingData::Message(message));
            }
            if up.sealed.is_over() {
                return Ok(IncomingData::Closed { in_order: true });
            }
        }
    }

    /// Closes in good order: queued bytes are sent first, by this call or by later calls of
    /// [`Connection::ready`]. Dropping the connection discards them.
    pub(crate) fn close(&mut self) -> Result<()> {
        if let ConnectionState::Up(up) = &mut self.state
            && up.hello.kind != ConnectionKind::Data
        {
            up.sealed.bye(self.socket.outbox());
        }
        self.socket.close()
    }

    /// Returns true if all bytes to be sent have been passed to the kernel.
    #[cfg(test)]
    pub(crate) fn is_drained(&self) -> bool {
        self.socket.is_drained()
    }

    /// Hands over a data flow. No byte after the handshake was read from its socket.
    ///
    /// # Errors
    /// `Unreachable` if the socket is broken.
    ///
    /// # Panics
    /// If the connection is not a data flow that is up.
    pub(crate) fn into_stream(mut self, registry: &Registry) -> Result<FlowStream> {
        assert!(
            self.is_up() && self.socket.has_nothing_read(),
            "a flow is handed over once it is up"
        );
        let ConnectionState::Up(up) = std::mem::replace(&mut self.state, ConnectionState::Over)
        else {
            unreachable!("it is up")
        };
        assert_eq!(up.hello.kind, ConnectionKind::Data, "only data flows are handed over");
        let is_inside = self.socket.is_inside();
        let socket = self.socket.into_stream(registry)?;
        let secrets = up.secrets.expect("a handshake of a data flow leaves secrets");
        Ok(FlowStream { socket, payload: up.payload, secrets, is_inside })
    }

    fn up(&self) -> Option<&EstablishedState> {
        match &self.state {
            ConnectionState::Up(up) => Some(up),
            _ => None,
        }
    }

    /// Begins the handshake on a connected socket.
    fn begin(&mut self) {
        let ConnectionState::Connecting(handshake) =
            std::mem::replace(&mut self.state, ConnectionState::Over)
        else {
            unreachable!("only a connection that is connecting begins");
        };
        self.state = ConnectionState::Handshaking(handshake);
    }

    /// Makes one step of the handshake, with the bytes that it needs.
    fn shake(&mut self, door: &dyn KeyAuthenticator) -> Result<()> {
        let bytes = self.socket.take_inbox();
        let ConnectionState::Handshaking(handshake) = &mut self.state else {
            unreachable!("reading changes no state")
        };
        let step = handshake.handle(&bytes, door);
        if handshake.asks_without_key() && !self.socket.is_own_users() {
            handshake.refuse_other_user();
        }
        if matches!(step, HandshakeStep::Up(..))
            && self.dialled_without_key
            && !self.socket.is_own_users()
        {
            return Err(other_user(
                "the process that listens there is not this user's, and there is no key to know it \
                 by",
            ));
        }
        let (out, ended) = match step {
            HandshakeStep::Send(out) => (out, None),
            HandshakeStep::Up(out, established) => (out, Some(Ok(established))),
            HandshakeStep::Over(out, error) => (out, Some(Err(error))),
        };
        self.socket.outbox().extend(out);
        match ended {
            None => {}
            Some(Ok(established)) => self.rise(*established)?,
            Some(Err(error)) => {
                // The refusal has the reason for the peer. If it cannot be sent, the peer only sees
                // the close.
                let _ = self.socket.close();
                self.state = ConnectionState::Over;
                return Err(error);
            }
        }
        self.socket.flush()
    }

    fn rise(&mut self, established: EstablishedSession) -> Result<()> {
        let EstablishedSession { hello, version, initiator, payload, transport, secrets } =
            established;
        tracing::debug!(version, kind = ?hello.kind, "a connection is up");
        self.state = ConnectionState::Up(Box::new(EstablishedState {
            hello,
            initiator,
            payload,
            sealed: SealedStream::new(transport),
            secrets,
        }));
        if hello.kind == ConnectionKind::Control { self.socket.notice_soon() } else { Ok(()) }
    }
}

/// Returns the idle state of a dialling session without its socket, after a handshake with itself.
#[cfg(feature = "stand-ins")]
pub(crate) fn at_rest(key: &Key) -> Result<impl Sized + use<>> {
    let hello = ConnectionHello { kind: ConnectionKind::Control, key_id: [0; 16] };
    let door = |_: &ConnectionHello| {
        Some(super::noise::HelloReply { keys: vec![key.clone()], payload: Vec::new() })
    };
    let (mut dialler, mut to_listener) = NoiseHandshake::initiate(hello, &key.into(), &[])?;
    let (mut listener, mut to_dialler) = (NoiseHandshake::respond(true), Vec::new());
    loop {
        while !to_listener.is_empty() && to_listener.len() >= listener.wants() {
            let bytes: Vec<u8> = to_listener.drain(..listener.wants()).collect();
            match listener.handle(&bytes, &door) {
                HandshakeStep::Send(out) | HandshakeStep::Up(out, _) => to_dialler.extend(out),
                HandshakeStep::Over(_, error) => return Err(error),
            }
        }
        let bytes: Vec<u8> = to_dialler.drain(..dialler.wants()).collect();
        match dialler.handle(&bytes, &door) {
            HandshakeStep::Send(out) => to_listener.extend(out),
            HandshakeStep::Up(_, established) => {
                let EstablishedSession { hello, transport, .. } = *established;
                return Ok(Box::new(EstablishedState {
                    hello,
                    initiator: None,
                    payload: Vec::new(),
                    sealed: SealedStream::new(transport),
                    secrets: None,
                }));
            }
            HandshakeStep::Over(_, error) => return Err(error),
        }
    }
}

/// Limit on queued bytes for one peer: a plan of the largest size, twice.
const OUTBOX_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

#[cfg(test)]
mod tests;

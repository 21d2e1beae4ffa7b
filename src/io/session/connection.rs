//! A secured connection over a non-blocking socket, for a loop on edge-triggered events.
//!
//! It reads exactly the bytes that the next step needs and never one more, so that the socket of a
//! data flow can be handed over behind the handshake with nothing lost. Control messages are few
//! and small, so that the extra read of a length does not matter.

use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Registry, Token};

use super::key::Key;
use super::noise::{
    ConnectionHello, EstablishedSession, HandshakeStep, KeyAuthenticator, NoiseHandshake,
    other_user,
};
use super::reach::DialProgress;
use super::sealed::{SealedStream, sealed_bytes};
use super::socket::{BufferedSocket, FilledBytes};
use crate::core::error::{Code, Error, Result};
use crate::core::wire::limits::MESSAGE_BYTES_MAX;
use crate::core::wire::version::ConnectionKind;

/// One end of a secured connection.
///
/// Made by [`Connection::initiate`] or [`Connection::accept`] and registered once with
/// [`Connection::register`]. On every event call [`Connection::ready`]. Then, once
/// [`Connection::is_up`]: on a data flow [`Connection::into_stream`]; on others
/// [`Connection::receive`] until it is `Pending` (events come on changes only), and
/// [`Connection::send`] at any time. Until it is up, [`Connection::deadline`] says how long to
/// wait. An error ends the connection: drop it. The caller knows the peer's name and puts it in
/// front of errors.
pub(crate) struct Connection {
    socket: BufferedSocket,
    state: ConnectionState,
    deadline: Instant,
    /// Dialled without a key: the process that listens there must be our own user's.
    dialled_without_key: bool,
    /// When to give up waiting for the peer's kernel, where that is sooner.
    connected_by: Option<Instant>,
}

/// What came in.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum IncomingData {
    /// A whole message.
    Message(Vec<u8>),
    /// Nothing yet: wait for an event.
    Pending,
    /// The peer closed the connection between two messages; `in_order` if it said good-bye before.
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
    payload: Vec<u8>,
    sealed: SealedStream,
}

impl Connection {
    /// The side that dials: `stream` may still be connecting. `payload` is what the other side gets
    /// to read; a data flow sends its `FlowHello`.
    ///
    /// # Errors
    /// `Internal` if the system gives no randomness, `Unreachable` if the socket is already broken.
    pub(crate) fn initiate(
        stream: TcpStream,
        hello: ConnectionHello,
        key: &Key,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<Connection> {
        let (handshake, first) = NoiseHandshake::initiate(hello, key, payload)?;
        let mut connection =
            Connection::new(stream, ConnectionState::Connecting(Box::new(handshake)), deadline)?;
        connection.dialled_without_key = key.is_open();
        connection.socket.outbox().extend(first);
        Ok(connection)
    }

    /// The side that listens.
    ///
    /// # Errors
    /// `Unreachable` if the socket is already broken.
    pub(crate) fn accept(stream: TcpStream, deadline: Instant) -> Result<Connection> {
        Connection::new(
            stream,
            ConnectionState::Handshaking(Box::new(NoiseHandshake::respond())),
            deadline,
        )
    }

    fn new(stream: TcpStream, state: ConnectionState, deadline: Instant) -> Result<Connection> {
        Ok(Connection {
            socket: BufferedSocket::new(stream)?,
            state,
            deadline,
            connected_by: None,
            dialled_without_key: false,
        })
    }

    /// Gives up sooner where not even the peer's kernel answers.
    pub(crate) fn connected_by(mut self, deadline: Instant) -> Connection {
        self.connected_by = Some(deadline);
        self
    }

    /// How far it has come, for one that failed.
    pub(crate) fn progress(&self) -> DialProgress {
        match self.state {
            ConnectionState::Connecting(_) => DialProgress::Connecting,
            ConnectionState::Handshaking(_) => DialProgress::Handshaking,
            ConnectionState::Up(_) | ConnectionState::Over => DialProgress::Judged,
        }
    }

    /// Asks `registry` for the events of this connection, once and for all.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<()> {
        self.socket.register(registry, token)
    }

    /// Does what can be done now: connects, shakes hands, sends. Calling it without need does no
    /// harm. `door` decides who comes in; the side that dials never asks it.
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

    /// Whether the connection can be used. A data flow is up when its last word of the handshake is
    /// sent, too.
    pub(crate) fn is_up(&self) -> bool {
        match &self.state {
            ConnectionState::Up(up) => {
                up.hello.kind != ConnectionKind::Data || self.socket.is_drained()
            }
            _ => false,
        }
    }

    /// Whether the peer's first message has been read, and fits the key. It may be a recorded one,
    /// sent again.
    pub(crate) fn has_heard(&self) -> bool {
        match &self.state {
            ConnectionState::Connecting(handshake) | ConnectionState::Handshaking(handshake) => {
                handshake.has_heard()
            }
            ConnectionState::Up(_) => true,
            ConnectionState::Over => false,
        }
    }

    /// When to give up waiting for the connection to be up; `None` once it is.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connected_by =
            self.connected_by.filter(|_| self.progress() == DialProgress::Connecting);
        (!self.is_up()).then(|| connected_by.unwrap_or(self.deadline).min(self.deadline))
    }

    /// The error of a connection whose deadline passed.
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

    /// The other end, as long as the socket knows it.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer()
    }

    /// What the connection is for. `None` until it is up.
    pub(crate) fn hello(&self) -> Option<ConnectionHello> {
        self.up().map(|up| up.hello)
    }

    /// What the peer put into its handshake: an advert, a flow's hello, or nothing. It can be had
    /// once; until the connection is up it is empty.
    pub(crate) fn take_payload(&mut self) -> Vec<u8> {
        match &mut self.state {
            ConnectionState::Up(up) => std::mem::take(&mut up.payload),
            _ => Vec::new(),
        }
    }

    /// Sends a message, or keeps it until the socket has room.
    ///
    /// # Errors
    /// `Unreachable` if the peer is lost or reads so slowly that too much is waiting.
    ///
    /// # Panics
    /// If the connection is not up, or was closed here.
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

    /// The next message, if it is there. Call it until it is `Pending`.
    ///
    /// # Errors
    /// `Unreachable` if the peer was lost within a message, `Integrity` if one changed on the way.
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

    /// Closes in good order: what waits is sent first, by this call or by the calls of
    /// [`Connection::ready`] that follow. Dropping the connection cuts it off.
    pub(crate) fn close(&mut self) -> Result<()> {
        if let ConnectionState::Up(up) = &mut self.state
            && up.hello.kind != ConnectionKind::Data
        {
            up.sealed.bye(self.socket.outbox());
        }
        self.socket.close()
    }

    /// Whether everything that was to be sent is in the kernel's hands.
    #[cfg(test)]
    pub(crate) fn is_drained(&self) -> bool {
        self.socket.is_drained()
    }

    /// Hands the socket of a data flow over, with the peer's hello. It is in blocking mode, as
    /// rings want it, and no byte behind the handshake was read from it.
    ///
    /// # Errors
    /// `Unreachable` if the socket is broken.
    ///
    /// # Panics
    /// If the connection is not a data flow that is up.
    pub(crate) fn into_stream(mut self, registry: &Registry) -> Result<(StdTcpStream, Vec<u8>)> {
        assert!(
            self.is_up() && self.socket.has_nothing_read(),
            "a flow is handed over once it is up"
        );
        let ConnectionState::Up(up) = std::mem::replace(&mut self.state, ConnectionState::Over)
        else {
            unreachable!("it is up")
        };
        assert_eq!(up.hello.kind, ConnectionKind::Data, "only data flows are handed over");
        let stream = self.socket.into_stream(registry)?;
        Ok((stream, up.payload))
    }

    fn up(&self) -> Option<&EstablishedState> {
        match &self.state {
            ConnectionState::Up(up) => Some(up),
            _ => None,
        }
    }

    /// The socket is connected: the handshake begins.
    fn begin(&mut self) {
        let ConnectionState::Connecting(handshake) =
            std::mem::replace(&mut self.state, ConnectionState::Over)
        else {
            unreachable!("only a connection that is connecting begins");
        };
        self.state = ConnectionState::Handshaking(handshake);
    }

    /// One step of the handshake, with the bytes that it wanted.
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
                "the process that listens there is not this user's, and there is no key to know it by",
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
                // The refusal tells the peer why. If it cannot be sent, the peer learns from the
                // close.
                let _ = self.socket.close();
                self.state = ConnectionState::Over;
                return Err(error);
            }
        }
        self.socket.flush()
    }

    fn rise(&mut self, established: EstablishedSession) -> Result<()> {
        let EstablishedSession { hello, version, payload, transport } = established;
        tracing::debug!(version, kind = ?hello.kind, "a connection is up");
        self.state = ConnectionState::Up(Box::new(EstablishedState {
            hello,
            payload,
            sealed: SealedStream::new(transport),
        }));
        if hello.kind == ConnectionKind::Control { self.socket.notice_soon() } else { Ok(()) }
    }
}

/// What a dialler's session holds at rest beside its socket: shakes hands with itself.
#[cfg(feature = "stand-ins")]
pub(crate) fn at_rest(key: &Key) -> Result<impl Sized + use<>> {
    let hello = ConnectionHello { kind: ConnectionKind::Control, key_id: [0; 16] };
    let door = |_: &ConnectionHello| {
        Some(super::noise::HelloReply { key: key.clone(), payload: Vec::new() })
    };
    let (mut dialler, mut to_listener) = NoiseHandshake::initiate(hello, key, &[])?;
    let (mut listener, mut to_dialler) = (NoiseHandshake::respond(), Vec::new());
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
                    payload: Vec::new(),
                    sealed: SealedStream::new(transport),
                }));
            }
            HandshakeStep::Over(_, error) => return Err(error),
        }
    }
}

/// What may wait for one peer: a plan of the largest size, and as much again.
const OUTBOX_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

#[cfg(test)]
mod tests;

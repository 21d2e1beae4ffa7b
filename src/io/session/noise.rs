//! Handshake of every connection, without its socket: bytes in, bytes out.
//!
//! ```text
//! initiator                                              responder
//! preamble (in clear, bound as prologue), message 1  →   who is it, which key, does it fit?
//!                                                    ←   reply, message 2: version, its payload
//! confirmation: an empty sealed message              →   up
//! ```
//!
//! Noise's `NNpsk0` ends after two messages. Anybody can replay a recorded first message. A control
//! connection would notice at the next message, but a data flow continues in clear. So the
//! responder waits for a confirmation that only a holder of the key can make now. It costs the
//! initiator no round trip.
//!
//! The cipher suite is `ChaChaPoly` with `BLAKE2s`: a kilobyte of control data per node needs no
//! speed, and neither cipher needs special instructions to be fast or free of timing leaks.

use snow::{Builder, HandshakeState, TransportState};

use super::key::Key;
use crate::core::error::{Code, Error, Result};
use crate::core::seal::FlowSecrets;
use crate::core::wire::WireError;
use crate::core::wire::limits::ADVERT_BYTES_MAX;
use crate::core::wire::version::{
    ConnectionKind, PREAMBLE_BYTES, Preamble, PreambleReply, REPLY_BYTES, VERSIONS, VersionRefusal,
    negotiate,
};

/// Purpose of a connection, and its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConnectionHello {
    /// Purpose of the connection.
    pub(crate) kind: ConnectionKind,
    /// The transfer's id for data flows, zeros for the site key.
    pub(crate) key_id: [u8; 16],
}

/// Responder's reply to an accepted hello.
pub(crate) struct HelloReply {
    /// Key that the initiator must prove.
    pub(crate) key: Key,
    /// Payload that the initiator receives once it has; at most [`PAYLOAD_BYTES_MAX`].
    pub(crate) payload: Vec<u8>,
}

/// Authenticator of peers: the responder's keys.
pub(crate) trait KeyAuthenticator {
    /// Returns the key for a hello, or `None` if no such peer is expected. A connection `is_inside`
    /// this machine if both of its addresses are loopback ones.
    fn admit(&self, hello: &ConnectionHello, is_inside: bool) -> Option<HelloReply>;
}

impl<F: Fn(&ConnectionHello) -> Option<HelloReply>> KeyAuthenticator for F {
    fn admit(&self, hello: &ConnectionHello, _is_inside: bool) -> Option<HelloReply> {
        self(hello)
    }
}

/// A handshake in progress, of either side.
///
/// Call [`NoiseHandshake::wants`], read exactly that number of bytes, pass them to
/// [`NoiseHandshake::handle`], and carry out the [`HandshakeStep`]; repeat until it is `Up` or
/// `Over`. No byte after the handshake is ever requested.
pub(super) struct NoiseHandshake {
    state: HandshakeStage,
}

/// Next step of the caller.
pub(super) enum HandshakeStep {
    /// Send these bytes, possibly none, and continue.
    Send(Vec<u8>),
    /// Send these bytes; the connection is up.
    Up(Vec<u8>, Box<EstablishedSession>),
    /// Send these bytes, possibly none, and close.
    Over(Vec<u8>, Error),
}

/// A connection on which both ends have proved that they hold the key.
pub(super) struct EstablishedSession {
    pub(super) hello: ConnectionHello,
    pub(super) version: u16,
    /// Payload of the peer's handshake message.
    pub(super) payload: Vec<u8>,
    pub(super) transport: TransportState,
    /// Secrets of a flow's frames; of data flows only.
    pub(super) secrets: Option<FlowSecrets>,
}

/// Stage of a handshake. The initiator goes from `Reply` to `Answer`, the responder from `Preamble`
/// over `First` to `Confirmation`.
enum HandshakeStage {
    Reply(ConnectionHello, Box<HandshakeState>),
    Answer { hello: ConnectionHello, noise: Box<HandshakeState>, version: u16, bytes: usize },
    Preamble { is_inside: bool },
    First(UnprovenPeer),
    Confirmation(Box<EstablishedSession>),
    Over,
}

/// A peer whose preamble was read and whose first message has not arrived yet. A refused peer's
/// message is read first: closing with unread bytes causes a reset, in which the refusal would be
/// lost.
struct UnprovenPeer {
    preamble: Preamble,
    verdict: std::result::Result<(u16, HelloReply), VersionRefusal>,
}

impl NoiseHandshake {
    /// Creates the initiator's side, and its first bytes.
    ///
    /// # Panics
    /// If `payload` is longer than [`HELLO_BYTES_MAX`].
    pub(super) fn initiate(
        hello: ConnectionHello,
        key: &Key,
        payload: &[u8],
    ) -> Result<(NoiseHandshake, Vec<u8>)> {
        assert!(payload.len() <= HELLO_BYTES_MAX, "a hello of {} bytes", payload.len());
        let handshake_bytes =
            u16::try_from(payload.len() + OVERHEAD_BYTES).expect("hellos are limited");
        let (kind, key_id) = (hello.kind, hello.key_id);
        let preamble = Preamble { kind, versions: VERSIONS, key_id, handshake_bytes }.encode();
        let mut noise = builder(key, &preamble).build_initiator().map_err(|error| ours(&error))?;
        let mut bytes = preamble.to_vec();
        bytes.extend(written(&mut noise, payload)?);
        Ok((NoiseHandshake { state: HandshakeStage::Reply(hello, Box::new(noise)) }, bytes))
    }

    /// Creates the responder's side, of a connection that `is_inside` this machine or not.
    pub(super) fn respond(is_inside: bool) -> NoiseHandshake {
        NoiseHandshake { state: HandshakeStage::Preamble { is_inside } }
    }

    /// Returns true if the peer's first message has been read and matches the key.
    pub(super) fn has_heard(&self) -> bool {
        matches!(self.state, HandshakeStage::Answer { .. } | HandshakeStage::Confirmation(_))
    }

    /// Returns the number of bytes that [`NoiseHandshake::handle`] needs next.
    pub(super) fn wants(&self) -> usize {
        match &self.state {
            HandshakeStage::Reply(..) => REPLY_BYTES,
            HandshakeStage::Answer { bytes, .. } => *bytes,
            HandshakeStage::Preamble { .. } => PREAMBLE_BYTES,
            HandshakeStage::First(visitor) => visitor.preamble.handshake_bytes.into(),
            HandshakeStage::Confirmation(_) => TAG_BYTES,
            HandshakeStage::Over => 0,
        }
    }

    /// Returns true if the peer uses the public key: then its process's user decides.
    pub(super) fn asks_without_key(&self) -> bool {
        match &self.state {
            HandshakeStage::First(UnprovenPeer { verdict: Ok((_, admission)), .. }) => {
                admission.key.is_open()
            }
            _ => false,
        }
    }

    /// Refuses a peer that uses the public key, once its message has been read.
    ///
    /// # Panics
    /// If the peer does not use it: see [`NoiseHandshake::asks_without_key`].
    pub(super) fn refuse_other_user(&mut self) {
        let HandshakeStage::First(visitor) = &mut self.state else {
            panic!("nobody asks to be let in")
        };
        visitor.verdict = Err(VersionRefusal::OtherUser);
    }

    /// Handles exactly the requested bytes.
    pub(super) fn handle(&mut self, bytes: &[u8], door: &dyn KeyAuthenticator) -> HandshakeStep {
        assert_eq!(bytes.len(), self.wants(), "a handshake takes what it asked for");
        let result = match std::mem::replace(&mut self.state, HandshakeStage::Over) {
            HandshakeStage::Reply(hello, noise) => self.on_reply(hello, noise, bytes),
            HandshakeStage::Answer { hello, noise, version, .. } => {
                on_answer(hello, *noise, version, bytes)
            }
            HandshakeStage::Preamble { is_inside } => self.on_preamble(bytes, door, is_inside),
            HandshakeStage::First(visitor) => self.on_first(visitor, bytes),
            HandshakeStage::Confirmation(established) => on_confirmation(established, bytes),
            HandshakeStage::Over => {
                Err(Error::new(Code::Internal, "a handshake went on after its end"))
            }
        };
        result.unwrap_or_else(|error| HandshakeStep::Over(Vec::new(), error))
    }

    fn on_reply(
        &mut self,
        hello: ConnectionHello,
        noise: Box<HandshakeState>,
        bytes: &[u8],
    ) -> Result<HandshakeStep> {
        match PreambleReply::decode(bytes).map_err(unproven)? {
            PreambleReply::Accepted { version, handshake_bytes } => {
                let spoken = VERSIONS.min <= version && version <= VERSIONS.max;
                let bytes = usize::from(handshake_bytes);
                if !spoken || bytes < OVERHEAD_BYTES + VERSION_BYTES {
                    return Err(nonsense());
                }
                self.state = HandshakeStage::Answer { hello, noise, version, bytes };
                Ok(HandshakeStep::Send(Vec::new()))
            }
            PreambleReply::Refused(refusal) => Err(refused(hello.kind, refusal)),
        }
    }

    fn on_preamble(
        &mut self,
        bytes: &[u8],
        door: &dyn KeyAuthenticator,
        is_inside: bool,
    ) -> Result<HandshakeStep> {
        let preamble = Preamble::decode(bytes).map_err(unproven)?;
        let message_bytes = usize::from(preamble.handshake_bytes);
        if !(OVERHEAD_BYTES..=OVERHEAD_BYTES + HELLO_BYTES_MAX).contains(&message_bytes) {
            return Err(nonsense());
        }
        let verdict = match negotiate(VERSIONS, preamble.versions) {
            Err(_) => Err(VersionRefusal::Version(VERSIONS)),
            Ok(version) => {
                let hello = ConnectionHello { kind: preamble.kind, key_id: preamble.key_id };
                door.admit(&hello, is_inside)
                    .map(|admission| (version, admission))
                    .ok_or(unexpected(preamble.kind))
            }
        };
        self.state = HandshakeStage::First(UnprovenPeer { preamble, verdict });
        Ok(HandshakeStep::Send(Vec::new()))
    }

    fn on_first(&mut self, visitor: UnprovenPeer, bytes: &[u8]) -> Result<HandshakeStep> {
        let hello =
            ConnectionHello { kind: visitor.preamble.kind, key_id: visitor.preamble.key_id };
        let (version, admission) = match visitor.verdict {
            Ok(verdict) => verdict,
            Err(refusal) => return Ok(turn_away(&visitor.preamble, refusal)),
        };
        let prologue = visitor.preamble.encode();
        let mut noise =
            builder(&admission.key, &prologue).build_responder().map_err(|error| ours(&error))?;
        let Ok(payload) = read(&mut noise, bytes) else {
            return Ok(turn_away(&visitor.preamble, VersionRefusal::KeyDiffers));
        };
        let answer = written(&mut noise, &versioned(version, &admission.payload))?;
        let handshake_bytes = u16::try_from(answer.len()).expect("answers are limited");
        let mut bytes = PreambleReply::Accepted { version, handshake_bytes }.encode().to_vec();
        bytes.extend(answer);
        let secrets = flow_secrets(&hello, &mut noise);
        let transport = noise.into_transport_mode().map_err(|error| ours(&error))?;
        self.state = HandshakeStage::Confirmation(Box::new(EstablishedSession {
            hello,
            version,
            payload,
            transport,
            secrets,
        }));
        Ok(HandshakeStep::Send(bytes))
    }
}

/// Reads the reply and confirms. The version in it is sealed, so that nobody can have downgraded
/// the two sides.
fn on_answer(
    hello: ConnectionHello,
    mut noise: HandshakeState,
    version: u16,
    bytes: &[u8],
) -> Result<HandshakeStep> {
    let mut payload =
        read(&mut noise, bytes).map_err(|_| refused(hello.kind, VersionRefusal::KeyDiffers))?;
    if payload.len() < VERSION_BYTES || payload[..VERSION_BYTES] != version.to_le_bytes() {
        return Err(nonsense());
    }
    payload.drain(..VERSION_BYTES);
    let secrets = flow_secrets(&hello, &mut noise);
    let mut transport = noise.into_transport_mode().map_err(|error| ours(&error))?;
    let mut confirmation = vec![0; TAG_BYTES];
    transport.write_message(&[], &mut confirmation).map_err(|error| ours(&error))?;
    Ok(HandshakeStep::Up(
        confirmation,
        Box::new(EstablishedSession { hello, version, payload, transport, secrets }),
    ))
}

fn on_confirmation(
    mut established: Box<EstablishedSession>,
    bytes: &[u8],
) -> Result<HandshakeStep> {
    let confirmed = established.transport.read_message(bytes, &mut []);
    confirmed.map_err(|_| refused(established.hello.kind, VersionRefusal::KeyDiffers))?;
    Ok(HandshakeStep::Up(Vec::new(), established))
}

/// Refuses a peer with the reason. The local error has the versions of the peer instead of our own.
fn turn_away(preamble: &Preamble, refusal: VersionRefusal) -> HandshakeStep {
    let seen = match refusal {
        VersionRefusal::Version(_) => VersionRefusal::Version(preamble.versions),
        other => other,
    };
    HandshakeStep::Over(
        PreambleReply::Refused(refusal).encode().to_vec(),
        refused(preamble.kind, seen),
    )
}

fn unexpected(kind: ConnectionKind) -> VersionRefusal {
    match kind {
        ConnectionKind::Data => VersionRefusal::UnknownKey,
        ConnectionKind::Control | ConnectionKind::Client => VersionRefusal::NotHere,
    }
}

/// Returns the error for a refusal, on either side.
fn refused(kind: ConnectionKind, refusal: VersionRefusal) -> Error {
    match refusal {
        VersionRefusal::Version(theirs) => WireError::Version {
            theirs: theirs.max,
            ours_min: VERSIONS.min,
            ours_max: VERSIONS.max,
        }
        .into(),
        VersionRefusal::UnknownKey => {
            Error::new(Code::Refused, "the transfer of this flow is not known here")
        }
        VersionRefusal::NotHere => {
            Error::new(Code::Unreachable, "connections of this kind are not taken here")
                .remedy("check the port: nodes and masters listen on different ones")
        }
        VersionRefusal::OtherUser => {
            other_user("without a key, only processes of the same user are let in")
        }
        VersionRefusal::KeyDiffers if kind == ConnectionKind::Data => {
            Error::new(Code::Refused, "the key differs: the flow belongs to another session")
        }
        VersionRefusal::KeyDiffers => Error::new(Code::Refused, "the key differs")
            .remedy("give both sides the same --key-file"),
    }
}

/// Returns the error for a process of another user without a key.
pub(super) fn other_user(what: &str) -> Error {
    Error::new(Code::Refused, what)
        .remedy("make a key with `cep-fast keygen FILE` and give both sides --key-file FILE")
}

/// Returns the error for bytes in clear that mean nothing. Somebody without the key may have sent
/// or changed them: it is no fault of either end.
fn unproven(error: WireError) -> Error {
    Error { code: Code::Unreachable, ..Error::from(error) }
}

fn nonsense() -> Error {
    Error::new(Code::Unreachable, "the peer does not keep to the protocol of the handshake")
}

/// Returns an error of the handshake that no peer can cause.
fn ours(error: &snow::Error) -> Error {
    Error::new(Code::Internal, format!("the handshake cannot be made: {error}"))
}

fn builder<'a>(key: &'a Key, prologue: &'a [u8; PREAMBLE_BYTES]) -> Builder<'a> {
    let suite = SUITE.parse().expect("the suite is spelled right");
    let builder =
        Builder::new(suite).psk(0, key.as_bytes()).and_then(|builder| builder.prologue(prologue));
    builder.expect("key and prologue are set once each")
}

fn written(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>> {
    let mut message = vec![0; payload.len() + OVERHEAD_BYTES];
    let length = noise.write_message(payload, &mut message).map_err(|error| ours(&error))?;
    message.truncate(length);
    Ok(message)
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> std::result::Result<Vec<u8>, snow::Error> {
    let mut payload = vec![0; message.len()];
    let length = noise.read_message(message, &mut payload)?;
    payload.truncate(length);
    Ok(payload)
}

/// Derives the secrets of a flow from a handshake that is complete. Noise gives a key to each
/// direction, that of the initiator first.
fn flow_secrets(hello: &ConnectionHello, noise: &mut HandshakeState) -> Option<FlowSecrets> {
    if hello.kind != ConnectionKind::Data {
        return None;
    }
    let (of_initiator, of_responder) = noise.dangerously_get_raw_split();
    let transcript = noise.get_handshake_hash();
    Some(if noise.is_initiator() {
        FlowSecrets::derive(of_initiator, of_responder, transcript)
    } else {
        FlowSecrets::derive(of_responder, of_initiator, transcript)
    })
}

fn versioned(version: u16, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "an answer of {} bytes", payload.len());
    [&version.to_le_bytes(), payload].concat()
}

const SUITE: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Overhead of Noise over a payload: the ephemeral key and a tag.
const OVERHEAD_BYTES: usize = 32 + TAG_BYTES;
const TAG_BYTES: usize = 16;
const VERSION_BYTES: usize = size_of::<u16>();

/// Limit on an initiator's payload before it has proved anything; a flow's hello takes 60 bytes.
pub(super) const HELLO_BYTES_MAX: usize = 1024;

/// Limit on a responder's payload in the handshake: an advert.
pub(super) const PAYLOAD_BYTES_MAX: usize = 60 << 10;

const _: () = assert!(ADVERT_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX + OVERHEAD_BYTES + VERSION_BYTES <= u16::MAX as usize);

#[cfg(test)]
mod tests;

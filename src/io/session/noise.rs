//! The handshake of every connection, without its socket: bytes in, bytes out.
//!
//! ```text
//! initiator                                              responder
//! preamble (in clear, bound as prologue), message 1  →   who is it, which key, does it fit?
//!                                                    ←   reply, message 2: version, the responder's payload
//! confirmation: an empty sealed message              →   up
//! ```
//!
//! Noise's `NNpsk0` ends after two messages. A recorded first message can be sent again by anybody,
//! and control connections would notice at the next message; but a data flow goes on in clear, so
//! that the responder waits for a confirmation that only a holder of the key can make now. It costs
//! the initiator no round trip.
//!
//! The cipher suite is `ChaChaPoly` with `BLAKE2s`: a kilobyte of control per node asks for no
//! speed, and neither needs special instructions to be fast or free of timing leaks.

use snow::{Builder, HandshakeState, TransportState};

use super::key::Key;
use crate::core::error::{Code, Error, Result};
use crate::core::wire::WireError;
use crate::core::wire::limits::ADVERT_BYTES_MAX;
use crate::core::wire::version::{
    ConnectionKind, PREAMBLE_BYTES, Preamble, PreambleReply, REPLY_BYTES, VERSIONS, VersionRefusal,
    negotiate,
};

/// What a connection is for, and which key it proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConnectionHello {
    /// What it is for.
    pub(crate) kind: ConnectionKind,
    /// The transfer's id for data flows, zeros for the site key.
    pub(crate) key_id: [u8; 16],
}

/// What a responder answers to a hello that it lets in.
pub(crate) struct HelloReply {
    /// The key that the initiator has to prove.
    pub(crate) key: Key,
    /// What the initiator gets to read once it has; at most [`PAYLOAD_BYTES_MAX`].
    pub(crate) payload: Vec<u8>,
}

/// Who may come in: the responder's side of keys.
pub(crate) trait KeyAuthenticator {
    /// The key for a hello, or `None` where nobody with such a hello is expected.
    fn admit(&self, hello: &ConnectionHello) -> Option<HelloReply>;
}

impl<F: Fn(&ConnectionHello) -> Option<HelloReply>> KeyAuthenticator for F {
    fn admit(&self, hello: &ConnectionHello) -> Option<HelloReply> {
        self(hello)
    }
}

/// A handshake in progress, of either side.
///
/// Call [`Handshake::wants`], gather exactly so many bytes, pass them to [`Handshake::handle`], do
/// what the [`Step`] says; repeat until it is `Up` or `Over`. No byte behind the handshake is ever
/// asked for.
pub(super) struct NoiseHandshake {
    state: HandshakeStage,
}

/// What to do next.
pub(super) enum HandshakeStep {
    /// Send these bytes, which may be none, and go on.
    Send(Vec<u8>),
    /// Send these bytes; the connection is up.
    Up(Vec<u8>, Box<EstablishedSession>),
    /// Send these bytes, which may be none, and close.
    Over(Vec<u8>, Error),
}

/// A connection whose both ends have proved that they hold the key.
pub(super) struct EstablishedSession {
    pub(super) hello: ConnectionHello,
    pub(super) version: u16,
    /// What the other side put into its handshake message.
    pub(super) payload: Vec<u8>,
    pub(super) transport: TransportState,
}

/// Where a handshake stands. The initiator goes from `Reply` to `Answer`, the responder from
/// `Preamble` over `First` to `Confirmation`.
enum HandshakeStage {
    Reply(ConnectionHello, Box<HandshakeState>),
    Answer { hello: ConnectionHello, noise: Box<HandshakeState>, version: u16, bytes: usize },
    Preamble,
    First(UnprovenPeer),
    Confirmation(Box<EstablishedSession>),
    Over,
}

/// Somebody whose preamble was read and whose first message is still to come. Whoever is refused is
/// heard out first: an answer sent while their bytes lie unread would be lost with the reset that
/// closing then causes.
struct UnprovenPeer {
    preamble: Preamble,
    verdict: std::result::Result<(u16, HelloReply), VersionRefusal>,
}

impl NoiseHandshake {
    /// The initiator's side, and the bytes that it sends first.
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

    /// The responder's side.
    pub(super) fn respond() -> NoiseHandshake {
        NoiseHandshake { state: HandshakeStage::Preamble }
    }

    /// Whether the other side's first message has been read, and fits the key.
    pub(super) fn has_heard(&self) -> bool {
        matches!(self.state, HandshakeStage::Answer { .. } | HandshakeStage::Confirmation(_))
    }

    /// How many bytes [`Handshake::handle`] needs next.
    pub(super) fn wants(&self) -> usize {
        match &self.state {
            HandshakeStage::Reply(..) => REPLY_BYTES,
            HandshakeStage::Answer { bytes, .. } => *bytes,
            HandshakeStage::Preamble => PREAMBLE_BYTES,
            HandshakeStage::First(visitor) => visitor.preamble.handshake_bytes.into(),
            HandshakeStage::Confirmation(_) => TAG_BYTES,
            HandshakeStage::Over => 0,
        }
    }

    /// Whether somebody asks to be let in by the key that everybody knows: whose process it is
    /// decides then.
    pub(super) fn asks_without_key(&self) -> bool {
        matches!(&self.state, HandshakeStage::First(UnprovenPeer { verdict: Ok((_, admission)), .. }) if admission.key.is_open())
    }

    /// Turns away whoever was to be let in by the key that everybody knows, once they have been
    /// heard out.
    ///
    /// # Panics
    /// If nobody asks so: see [`Handshake::asks_without_key`].
    pub(super) fn refuse_other_user(&mut self) {
        let HandshakeStage::First(visitor) = &mut self.state else {
            panic!("nobody asks to be let in")
        };
        visitor.verdict = Err(VersionRefusal::OtherUser);
    }

    /// Takes exactly the wanted bytes.
    pub(super) fn handle(&mut self, bytes: &[u8], door: &dyn KeyAuthenticator) -> HandshakeStep {
        assert_eq!(bytes.len(), self.wants(), "a handshake takes what it asked for");
        let result = match std::mem::replace(&mut self.state, HandshakeStage::Over) {
            HandshakeStage::Reply(hello, noise) => self.on_reply(hello, noise, bytes),
            HandshakeStage::Answer { hello, noise, version, .. } => {
                on_answer(hello, *noise, version, bytes)
            }
            HandshakeStage::Preamble => self.on_preamble(bytes, door),
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
        match PreambleReply::decode(bytes)? {
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

    fn on_preamble(&mut self, bytes: &[u8], door: &dyn KeyAuthenticator) -> Result<HandshakeStep> {
        let preamble = Preamble::decode(bytes)?;
        let message_bytes = usize::from(preamble.handshake_bytes);
        if !(OVERHEAD_BYTES..=OVERHEAD_BYTES + HELLO_BYTES_MAX).contains(&message_bytes) {
            return Err(nonsense());
        }
        let verdict = match negotiate(VERSIONS, preamble.versions) {
            Err(_) => Err(VersionRefusal::Version(VERSIONS)),
            Ok(version) => {
                let hello = ConnectionHello { kind: preamble.kind, key_id: preamble.key_id };
                door.admit(&hello)
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
        let transport = noise.into_transport_mode().map_err(|error| ours(&error))?;
        self.state = HandshakeStage::Confirmation(Box::new(EstablishedSession {
            hello,
            version,
            payload,
            transport,
        }));
        Ok(HandshakeStep::Send(bytes))
    }
}

/// The initiator reads the answer and confirms. The version in it is sealed, so that nobody can
/// have talked the two sides down to an old one.
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
    let mut transport = noise.into_transport_mode().map_err(|error| ours(&error))?;
    let mut confirmation = vec![0; TAG_BYTES];
    transport.write_message(&[], &mut confirmation).map_err(|error| ours(&error))?;
    Ok(HandshakeStep::Up(
        confirmation,
        Box::new(EstablishedSession { hello, version, payload, transport }),
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

/// Tells the visitor why, and tells us with the versions that the visitor speaks instead of our
/// own.
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

/// What a refusal means to whoever reads it, on either side.
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

/// There is no key, and the process at the other end is another user's.
pub(super) fn other_user(what: &str) -> Error {
    Error::new(Code::Refused, what)
        .remedy("make a key with `cep-fast keygen FILE` and give both sides --key-file FILE")
}

fn nonsense() -> Error {
    Error::new(Code::Unreachable, "the peer does not keep to the protocol of the handshake")
}

/// A failure of the handshake that no peer can cause.
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

fn versioned(version: u16, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "an answer of {} bytes", payload.len());
    [&version.to_le_bytes(), payload].concat()
}

const SUITE: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// What Noise adds to a payload: the ephemeral key and a tag.
const OVERHEAD_BYTES: usize = 32 + TAG_BYTES;
const TAG_BYTES: usize = 16;
const VERSION_BYTES: usize = size_of::<u16>();

/// What an initiator may say before it has proved anything; a flow's hello takes 60 bytes.
pub(super) const HELLO_BYTES_MAX: usize = 1024;

/// What a responder may say in the handshake: an advert.
pub(super) const PAYLOAD_BYTES_MAX: usize = 60 << 10;

const _: () = assert!(ADVERT_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX + OVERHEAD_BYTES + VERSION_BYTES <= u16::MAX as usize);

#[cfg(test)]
mod tests;

//! Handshake of every connection, without its socket: bytes in, bytes out.
//!
//! ```text
//! initiator                                              responder
//! preamble (in clear, bound as prologue), message 1  →   who is it, which key, does it fit?
//!                                                    ←   reply, message 2: version, its payload
//! confirmation: an empty sealed message              →   up
//! ```
//!
//! Peers with a shared key take Noise's `NNpsk0`, those with key pairs `IK`: the preamble says
//! which, and both sides must have a key of that kind. Either ends after two messages. Anybody can
//! replay a recorded first message. A control connection or a sealed flow would notice at the next
//! message, a flow in clear never. So the responder waits for a confirmation that only a holder of
//! the key can make now. It costs the initiator no round trip.
//!
//! The cipher suite is `ChaChaPoly` with `BLAKE2s`: a kilobyte of control data per node needs no
//! speed, and neither cipher needs special instructions to be fast or free of timing leaks.

use std::sync::Arc;

use snow::{Builder, HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::identity::DialKey;
use super::key::Key;
use super::key_pair::KeyPair;
use super::refusals::{nonsense, refused, unexpected, unproven};
use super::suites::{builder, pair_builder};
use crate::core::access::PublicKey;
use crate::core::error::{Code, Error, Result};
use crate::core::seal::FlowSecrets;
use crate::core::wire::limits::ADVERT_BYTES_MAX;
use crate::core::wire::version::{
    ConnectionKind, HandshakePattern, PREAMBLE_BYTES, Preamble, PreambleReply, REPLY_BYTES,
    VERSIONS, VersionRefusal, negotiate,
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
    /// Keys of which the initiator must prove one; none if this side has no shared key.
    pub(crate) keys: Vec<Key>,
    /// Payload that the initiator receives once it has; at most [`PAYLOAD_BYTES_MAX`].
    pub(crate) payload: Vec<u8>,
}

/// Authenticator of peers: the responder's keys.
pub(crate) trait KeyAuthenticator {
    /// Returns the key for a hello, or `None` if no such peer is expected. A connection `is_inside`
    /// this machine if both of its addresses are loopback ones.
    fn admit(&self, hello: &ConnectionHello, is_inside: bool) -> Option<HelloReply>;

    /// Returns the key pairs of this side, one of which the initiator must know; `None` if no such
    /// peer is expected.
    fn admit_pairs(&self, hello: &ConnectionHello) -> Option<Vec<Arc<KeyPair>>> {
        self.admit(hello, false).map(|_| Vec::new())
    }

    /// Returns the payload for the holder of this public key, or `None` if it is not allowed in.
    fn admit_public(&self, hello: &ConnectionHello, public: &PublicKey) -> Option<Vec<u8>> {
        let _ = (hello, public);
        None
    }
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
    /// Public key of the initiator, once it is known: its own, or that of the peer.
    initiator: Option<PublicKey>,
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
    /// Public key of the initiator; `None` with a shared key.
    pub(super) initiator: Option<PublicKey>,
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
    verdict: std::result::Result<(u16, AcceptedKeys), VersionRefusal>,
}

/// Keys of the responder, of the kind that the initiator's pattern needs.
enum AcceptedKeys {
    Shared(HelloReply),
    Pairs(Vec<Arc<KeyPair>>),
}

impl NoiseHandshake {
    /// Creates the initiator's side, and its first bytes.
    ///
    /// # Panics
    /// If `payload` is longer than [`HELLO_BYTES_MAX`].
    pub(super) fn initiate(
        hello: ConnectionHello,
        key: &DialKey,
        payload: &[u8],
    ) -> Result<(NoiseHandshake, Vec<u8>)> {
        assert!(payload.len() <= HELLO_BYTES_MAX, "a hello of {} bytes", payload.len());
        let pattern = match key {
            DialKey::Shared(_) => HandshakePattern::SharedKey,
            DialKey::Pair(..) => HandshakePattern::KeyPairs,
        };
        let handshake_bytes =
            u16::try_from(payload.len() + first_overhead(pattern)).expect("hellos are limited");
        let (kind, key_id) = (hello.kind, hello.key_id);
        let preamble = Preamble { kind, pattern, versions: VERSIONS, key_id, handshake_bytes };
        let preamble = preamble.encode();
        let builder = match key {
            DialKey::Shared(key) => builder(key, &preamble),
            DialKey::Pair(own, peer) => pair_builder(own, Some(peer), &preamble),
        };
        let mut noise = builder.build_initiator().map_err(|error| ours(&error))?;
        let mut bytes = preamble.to_vec();
        bytes.extend(written(&mut noise, payload)?);
        let state = HandshakeStage::Reply(hello, Box::new(noise));
        Ok((NoiseHandshake { state, initiator: key.own_public() }, bytes))
    }

    /// Creates the responder's side, of a connection that `is_inside` this machine or not.
    pub(super) fn respond(is_inside: bool) -> NoiseHandshake {
        NoiseHandshake { state: HandshakeStage::Preamble { is_inside }, initiator: None }
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

    /// Returns true if the peer uses the key that everybody knows: its process's user decides then.
    pub(super) fn asks_without_key(&self) -> bool {
        match &self.state {
            HandshakeStage::First(UnprovenPeer {
                verdict: Ok((_, AcceptedKeys::Shared(admission))),
                ..
            }) => admission.keys.iter().any(Key::is_open),
            _ => false,
        }
    }

    /// Refuses a peer that uses the key that everybody knows, once its message has been read.
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
                on_answer(hello, *noise, version, self.initiator, bytes)
            }
            HandshakeStage::Preamble { is_inside } => self.on_preamble(bytes, door, is_inside),
            HandshakeStage::First(visitor) => self.on_first(visitor, bytes, door),
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
            PreambleReply::Refused(refusal) => {
                Err(refused(hello.kind, refusal, self.initiator.as_ref()))
            }
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
        let overhead = first_overhead(preamble.pattern);
        if !(overhead..=overhead + HELLO_BYTES_MAX).contains(&message_bytes) {
            return Err(nonsense());
        }
        let verdict = match negotiate(VERSIONS, preamble.versions) {
            Err(_) => Err(VersionRefusal::Version(VERSIONS)),
            Ok(version) => accepted_keys(&preamble, door, is_inside).map(|keys| (version, keys)),
        };
        self.state = HandshakeStage::First(UnprovenPeer { preamble, verdict });
        Ok(HandshakeStep::Send(Vec::new()))
    }

    fn on_first(
        &mut self,
        visitor: UnprovenPeer,
        bytes: &[u8],
        door: &dyn KeyAuthenticator,
    ) -> Result<HandshakeStep> {
        let hello =
            ConnectionHello { kind: visitor.preamble.kind, key_id: visitor.preamble.key_id };
        let prologue = visitor.preamble.encode();
        let turn_away = |refusal, initiator: Option<&PublicKey>| {
            Ok(turn_away(&visitor.preamble, refusal, initiator))
        };
        let (version, keys) = match visitor.verdict {
            Ok(verdict) => verdict,
            Err(refusal) => return turn_away(refusal, None),
        };
        let read = match &keys {
            AcceptedKeys::Shared(admission) => {
                first_fit(admission.keys.iter().map(|key| builder(key, &prologue)), bytes)?
            }
            AcceptedKeys::Pairs(pairs) => {
                first_fit(pairs.iter().map(|own| pair_builder(own, None, &prologue)), bytes)?
            }
        };
        let Some((mut noise, payload)) = read else {
            return turn_away(VersionRefusal::KeyDiffers, None);
        };
        let advert = match keys {
            AcceptedKeys::Shared(admission) => admission.payload,
            AcceptedKeys::Pairs(_) => {
                let public = noise.get_remote_static().and_then(|key| key.first_chunk());
                let public = PublicKey(*public.expect("the first message has the peer's key"));
                self.initiator = Some(public);
                match door.admit_public(&hello, &public) {
                    Some(payload) => payload,
                    None => return turn_away(VersionRefusal::NotAllowed, Some(&public)),
                }
            }
        };
        let answer = written(&mut noise, &versioned(version, &advert))?;
        let handshake_bytes = u16::try_from(answer.len()).expect("answers are limited");
        let mut bytes = PreambleReply::Accepted { version, handshake_bytes }.encode().to_vec();
        bytes.extend(answer);
        let secrets = flow_secrets(&hello, &mut noise);
        let transport = noise.into_transport_mode().map_err(|error| ours(&error))?;
        self.state = HandshakeStage::Confirmation(Box::new(EstablishedSession {
            hello,
            version,
            initiator: self.initiator,
            payload,
            transport,
            secrets,
        }));
        Ok(HandshakeStep::Send(bytes))
    }
}

/// Returns the keys of this side for the kind and the pattern of a connection.
fn accepted_keys(
    preamble: &Preamble,
    door: &dyn KeyAuthenticator,
    is_inside: bool,
) -> std::result::Result<AcceptedKeys, VersionRefusal> {
    let hello = ConnectionHello { kind: preamble.kind, key_id: preamble.key_id };
    let (keys, has_none) = match preamble.pattern {
        HandshakePattern::SharedKey => {
            let admission = door.admit(&hello, is_inside).ok_or(unexpected(preamble.kind))?;
            let has_none = admission.keys.is_empty();
            (AcceptedKeys::Shared(admission), has_none)
        }
        HandshakePattern::KeyPairs => {
            let pairs = door.admit_pairs(&hello).ok_or(unexpected(preamble.kind))?;
            let has_none = pairs.is_empty();
            (AcceptedKeys::Pairs(pairs), has_none)
        }
    };
    if has_none { Err(VersionRefusal::OtherPattern) } else { Ok(keys) }
}

/// Reads a first message with each key in turn; `None` if it fits none of them.
fn first_fit<'a>(
    keys: impl Iterator<Item = Builder<'a>>,
    message: &[u8],
) -> Result<Option<(HandshakeState, Vec<u8>)>> {
    for key in keys {
        let mut noise = key.build_responder().map_err(|error| ours(&error))?;
        if let Ok(payload) = read(&mut noise, message) {
            return Ok(Some((noise, payload)));
        }
    }
    Ok(None)
}

/// Reads the reply and confirms. The version in it is sealed, so that nobody can have downgraded
/// the two sides.
fn on_answer(
    hello: ConnectionHello,
    mut noise: HandshakeState,
    version: u16,
    initiator: Option<PublicKey>,
    bytes: &[u8],
) -> Result<HandshakeStep> {
    let differs = |_| refused(hello.kind, VersionRefusal::KeyDiffers, initiator.as_ref());
    let mut payload = read(&mut noise, bytes).map_err(differs)?;
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
        Box::new(EstablishedSession { hello, version, initiator, payload, transport, secrets }),
    ))
}

fn on_confirmation(
    mut established: Box<EstablishedSession>,
    bytes: &[u8],
) -> Result<HandshakeStep> {
    let confirmed = established.transport.read_message(bytes, &mut []);
    let (kind, initiator) = (established.hello.kind, established.initiator);
    confirmed.map_err(|_| refused(kind, VersionRefusal::KeyDiffers, initiator.as_ref()))?;
    Ok(HandshakeStep::Up(Vec::new(), established))
}

/// Refuses a peer with the reason. The local error has the versions of the peer instead of our own.
fn turn_away(
    preamble: &Preamble,
    refusal: VersionRefusal,
    initiator: Option<&PublicKey>,
) -> HandshakeStep {
    let seen = match refusal {
        VersionRefusal::Version(_) => VersionRefusal::Version(preamble.versions),
        other => other,
    };
    HandshakeStep::Over(
        PreambleReply::Refused(refusal).encode().to_vec(),
        refused(preamble.kind, seen, initiator),
    )
}

/// Returns an error of the handshake that no peer can cause.
fn ours(error: &snow::Error) -> Error {
    Error::new(Code::Internal, format!("the handshake cannot be made: {error}"))
}

/// Returns the overhead of the first message over its payload.
fn first_overhead(pattern: HandshakePattern) -> usize {
    match pattern {
        HandshakePattern::SharedKey => OVERHEAD_BYTES,
        HandshakePattern::KeyPairs => OVERHEAD_BYTES + STATIC_KEY_BYTES,
    }
}

fn written(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>> {
    let mut message = vec![0; payload.len() + OVERHEAD_BYTES + STATIC_KEY_BYTES];
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
    let split = Zeroizing::new(noise.dangerously_get_raw_split());
    let (of_initiator, of_responder) = &*split;
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

/// Bytes of the initiator's public key in a first message, sealed.
const STATIC_KEY_BYTES: usize = 32 + TAG_BYTES;
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

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
use crate::error::{Code, Error, Result};
use crate::wire::WireError;
use crate::wire::limits::ADVERT_BYTES_MAX;
use crate::wire::version::{
    Kind, PREAMBLE_BYTES, Preamble, REPLY_BYTES, Refusal, Reply, VERSIONS, negotiate,
};

/// What a connection is for, and which key it proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    /// What it is for.
    pub(crate) kind: Kind,
    /// The transfer's id for data flows, zeros for the site key.
    pub(crate) key_id: [u8; 16],
}

/// What a responder answers to a hello that it lets in.
pub(crate) struct Admission {
    /// The key that the initiator has to prove.
    pub(crate) key: Key,
    /// What the initiator gets to read once it has; at most [`PAYLOAD_BYTES_MAX`].
    pub(crate) payload: Vec<u8>,
}

/// Who may come in: the responder's side of keys.
pub(crate) trait Door {
    /// The key for a hello, or `None` where nobody with such a hello is expected.
    fn admit(&self, hello: &Hello) -> Option<Admission>;
}

impl<F: Fn(&Hello) -> Option<Admission>> Door for F {
    fn admit(&self, hello: &Hello) -> Option<Admission> {
        self(hello)
    }
}

/// A handshake in progress, of either side.
///
/// Call [`Handshake::wants`], gather exactly so many bytes, pass them to [`Handshake::handle`], do
/// what the [`Step`] says; repeat until it is `Up` or `Over`. No byte behind the handshake is ever
/// asked for.
pub(super) struct Handshake {
    state: State,
}

/// What to do next.
pub(super) enum Step {
    /// Send these bytes, which may be none, and go on.
    Send(Vec<u8>),
    /// Send these bytes; the connection is up.
    Up(Vec<u8>, Box<Established>),
    /// Send these bytes, which may be none, and close.
    Over(Vec<u8>, Error),
}

/// A connection whose both ends have proved that they hold the key.
pub(super) struct Established {
    pub(super) hello: Hello,
    pub(super) version: u16,
    /// What the other side put into its handshake message.
    pub(super) payload: Vec<u8>,
    pub(super) transport: TransportState,
}

/// Where a handshake stands. The initiator goes from `Reply` to `Answer`, the responder from
/// `Preamble` over `First` to `Confirmation`.
enum State {
    Reply(Hello, Box<HandshakeState>),
    Answer { hello: Hello, noise: Box<HandshakeState>, version: u16, bytes: usize },
    Preamble,
    First(Visitor),
    Confirmation(Box<Established>),
    Over,
}

/// Somebody whose preamble was read and whose first message is still to come. Whoever is refused is
/// heard out first: an answer sent while their bytes lie unread would be lost with the reset that
/// closing then causes.
struct Visitor {
    preamble: Preamble,
    verdict: std::result::Result<(u16, Admission), Refusal>,
}

impl Handshake {
    /// The initiator's side, and the bytes that it sends first.
    ///
    /// # Panics
    /// If `payload` is longer than [`HELLO_BYTES_MAX`].
    pub(super) fn initiate(
        hello: Hello,
        key: &Key,
        payload: &[u8],
    ) -> Result<(Handshake, Vec<u8>)> {
        assert!(payload.len() <= HELLO_BYTES_MAX, "a hello of {} bytes", payload.len());
        let handshake_bytes =
            u16::try_from(payload.len() + OVERHEAD_BYTES).expect("hellos are limited");
        let (kind, key_id) = (hello.kind, hello.key_id);
        let preamble = Preamble { kind, versions: VERSIONS, key_id, handshake_bytes }.encode();
        let mut noise = builder(key, &preamble).build_initiator().map_err(|error| ours(&error))?;
        let mut bytes = preamble.to_vec();
        bytes.extend(written(&mut noise, payload)?);
        Ok((Handshake { state: State::Reply(hello, Box::new(noise)) }, bytes))
    }

    /// The responder's side.
    pub(super) fn respond() -> Handshake {
        Handshake { state: State::Preamble }
    }

    /// Whether the other side's first message has been read, and fits the key.
    pub(super) fn has_heard(&self) -> bool {
        matches!(self.state, State::Answer { .. } | State::Confirmation(_))
    }

    /// How many bytes [`Handshake::handle`] needs next.
    pub(super) fn wants(&self) -> usize {
        match &self.state {
            State::Reply(..) => REPLY_BYTES,
            State::Answer { bytes, .. } => *bytes,
            State::Preamble => PREAMBLE_BYTES,
            State::First(visitor) => visitor.preamble.handshake_bytes.into(),
            State::Confirmation(_) => TAG_BYTES,
            State::Over => 0,
        }
    }

    /// Whether somebody asks to be let in by the key that everybody knows: whose process it is
    /// decides then.
    pub(super) fn asks_without_key(&self) -> bool {
        matches!(&self.state, State::First(Visitor { verdict: Ok((_, admission)), .. }) if admission.key.is_open())
    }

    /// Turns away whoever was to be let in by the key that everybody knows, once they have been
    /// heard out.
    ///
    /// # Panics
    /// If nobody asks so: see [`Handshake::asks_without_key`].
    pub(super) fn refuse_other_user(&mut self) {
        let State::First(visitor) = &mut self.state else { panic!("nobody asks to be let in") };
        visitor.verdict = Err(Refusal::OtherUser);
    }

    /// Takes exactly the wanted bytes.
    pub(super) fn handle(&mut self, bytes: &[u8], door: &dyn Door) -> Step {
        assert_eq!(bytes.len(), self.wants(), "a handshake takes what it asked for");
        let result = match std::mem::replace(&mut self.state, State::Over) {
            State::Reply(hello, noise) => self.on_reply(hello, noise, bytes),
            State::Answer { hello, noise, version, .. } => on_answer(hello, *noise, version, bytes),
            State::Preamble => self.on_preamble(bytes, door),
            State::First(visitor) => self.on_first(visitor, bytes),
            State::Confirmation(established) => on_confirmation(established, bytes),
            State::Over => Err(Error::new(Code::Internal, "a handshake went on after its end")),
        };
        result.unwrap_or_else(|error| Step::Over(Vec::new(), error))
    }

    fn on_reply(&mut self, hello: Hello, noise: Box<HandshakeState>, bytes: &[u8]) -> Result<Step> {
        match Reply::decode(bytes)? {
            Reply::Accepted { version, handshake_bytes } => {
                let spoken = VERSIONS.min <= version && version <= VERSIONS.max;
                let bytes = usize::from(handshake_bytes);
                if !spoken || bytes < OVERHEAD_BYTES + VERSION_BYTES {
                    return Err(nonsense());
                }
                self.state = State::Answer { hello, noise, version, bytes };
                Ok(Step::Send(Vec::new()))
            }
            Reply::Refused(refusal) => Err(refused(hello.kind, refusal)),
        }
    }

    fn on_preamble(&mut self, bytes: &[u8], door: &dyn Door) -> Result<Step> {
        let preamble = Preamble::decode(bytes)?;
        let message_bytes = usize::from(preamble.handshake_bytes);
        if !(OVERHEAD_BYTES..=OVERHEAD_BYTES + HELLO_BYTES_MAX).contains(&message_bytes) {
            return Err(nonsense());
        }
        let verdict = match negotiate(VERSIONS, preamble.versions) {
            Err(_) => Err(Refusal::Version(VERSIONS)),
            Ok(version) => {
                let hello = Hello { kind: preamble.kind, key_id: preamble.key_id };
                door.admit(&hello)
                    .map(|admission| (version, admission))
                    .ok_or(unexpected(preamble.kind))
            }
        };
        self.state = State::First(Visitor { preamble, verdict });
        Ok(Step::Send(Vec::new()))
    }

    fn on_first(&mut self, visitor: Visitor, bytes: &[u8]) -> Result<Step> {
        let hello = Hello { kind: visitor.preamble.kind, key_id: visitor.preamble.key_id };
        let (version, admission) = match visitor.verdict {
            Ok(verdict) => verdict,
            Err(refusal) => return Ok(turn_away(&visitor.preamble, refusal)),
        };
        let prologue = visitor.preamble.encode();
        let mut noise =
            builder(&admission.key, &prologue).build_responder().map_err(|error| ours(&error))?;
        let Ok(payload) = read(&mut noise, bytes) else {
            return Ok(turn_away(&visitor.preamble, Refusal::KeyDiffers));
        };
        let answer = written(&mut noise, &versioned(version, &admission.payload))?;
        let handshake_bytes = u16::try_from(answer.len()).expect("answers are limited");
        let mut bytes = Reply::Accepted { version, handshake_bytes }.encode().to_vec();
        bytes.extend(answer);
        let transport = noise.into_transport_mode().map_err(|error| ours(&error))?;
        self.state =
            State::Confirmation(Box::new(Established { hello, version, payload, transport }));
        Ok(Step::Send(bytes))
    }
}

/// The initiator reads the answer and confirms. The version in it is sealed, so that nobody can
/// have talked the two sides down to an old one.
fn on_answer(hello: Hello, mut noise: HandshakeState, version: u16, bytes: &[u8]) -> Result<Step> {
    let mut payload =
        read(&mut noise, bytes).map_err(|_| refused(hello.kind, Refusal::KeyDiffers))?;
    if payload.len() < VERSION_BYTES || payload[..VERSION_BYTES] != version.to_le_bytes() {
        return Err(nonsense());
    }
    payload.drain(..VERSION_BYTES);
    let mut transport = noise.into_transport_mode().map_err(|error| ours(&error))?;
    let mut confirmation = vec![0; TAG_BYTES];
    transport.write_message(&[], &mut confirmation).map_err(|error| ours(&error))?;
    Ok(Step::Up(confirmation, Box::new(Established { hello, version, payload, transport })))
}

fn on_confirmation(mut established: Box<Established>, bytes: &[u8]) -> Result<Step> {
    let confirmed = established.transport.read_message(bytes, &mut []);
    confirmed.map_err(|_| refused(established.hello.kind, Refusal::KeyDiffers))?;
    Ok(Step::Up(Vec::new(), established))
}

/// Tells the visitor why, and tells us with the versions that the visitor speaks instead of our
/// own.
fn turn_away(preamble: &Preamble, refusal: Refusal) -> Step {
    let seen = match refusal {
        Refusal::Version(_) => Refusal::Version(preamble.versions),
        other => other,
    };
    Step::Over(Reply::Refused(refusal).encode().to_vec(), refused(preamble.kind, seen))
}

fn unexpected(kind: Kind) -> Refusal {
    match kind {
        Kind::Data => Refusal::UnknownKey,
        Kind::Control | Kind::Client => Refusal::NotHere,
    }
}

/// What a refusal means to whoever reads it, on either side.
fn refused(kind: Kind, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Version(theirs) => WireError::Version {
            theirs: theirs.max,
            ours_min: VERSIONS.min,
            ours_max: VERSIONS.max,
        }
        .into(),
        Refusal::UnknownKey => {
            Error::new(Code::Refused, "the transfer of this flow is not known here")
        }
        Refusal::NotHere => {
            Error::new(Code::Unreachable, "connections of this kind are not taken here")
                .remedy("check the port: nodes and masters listen on different ones")
        }
        Refusal::OtherUser => {
            other_user("without a key, only processes of the same user are let in")
        }
        Refusal::KeyDiffers if kind == Kind::Data => {
            Error::new(Code::Refused, "the key differs: the flow belongs to another session")
        }
        Refusal::KeyDiffers => Error::new(Code::Refused, "the key differs")
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

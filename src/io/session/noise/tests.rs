//! Handshakes in memory: accepted and refused peers, and changes by a third party.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use crate::core::wire::version::VersionRange;
use crate::io::session::noise::*;

const CONTROL: ConnectionHello = ConnectionHello { kind: ConnectionKind::Control, key_id: [0; 16] };
const HELLO: ConnectionHello = ConnectionHello { kind: ConnectionKind::Data, key_id: [7; 16] };

fn key(digit: u8) -> Key {
    Key::from_bytes([digit; 32])
}

/// Accepts transfer 7 with key 1, and answers with an advert.
fn door(hello: &ConnectionHello) -> Option<HelloReply> {
    (hello.key_id == [7; 16])
        .then(|| HelloReply { keys: vec![key(1)], payload: b"advert".to_vec() })
}

/// One side of a handshake, and its outcome.
struct Side {
    handshake: NoiseHandshake,
    unread: Vec<u8>,
    outcome: Option<Result<EstablishedSession>>,
}

/// The door of a side with two site keys and two key pairs, the newer first. It lets the holders of
/// `allowed` in.
struct PairDoor {
    keys: Vec<Key>,
    pairs: Vec<Arc<KeyPair>>,
    allowed: Vec<PublicKey>,
}

impl KeyAuthenticator for PairDoor {
    fn admit(&self, _: &ConnectionHello, _: bool) -> Option<HelloReply> {
        Some(HelloReply { keys: self.keys.clone(), payload: b"advert".to_vec() })
    }

    fn admit_pairs(&self, _: &ConnectionHello) -> Option<Vec<Arc<KeyPair>>> {
        Some(self.pairs.clone())
    }

    fn admit_public(&self, _: &ConnectionHello, public: &PublicKey) -> Option<Vec<u8>> {
        self.allowed.contains(public).then(|| b"advert".to_vec())
    }
}

fn pair() -> Arc<KeyPair> {
    Arc::new(KeyPair::generate().unwrap())
}

/// A master that a node lets in, both with key pairs.
fn acquainted() -> (Arc<KeyPair>, PairDoor) {
    let master = pair();
    let allowed = vec![*master.public()];
    (master, PairDoor { keys: vec![key(1), key(2)], pairs: vec![pair(), pair()], allowed })
}

impl Side {
    /// The side of a master with a key pair, which dials the `at`th key of a node.
    fn master(master: &Arc<KeyPair>, node: &PairDoor, at: usize) -> (Side, Vec<u8>) {
        let key = DialKey::Pair(Arc::clone(master), *node.pairs[at].public());
        let (handshake, first) = NoiseHandshake::initiate(CONTROL, &key, b"").unwrap();
        (Side { handshake, unread: Vec::new(), outcome: None }, first)
    }

    fn initiator(hello: ConnectionHello, with: &Key, payload: &[u8]) -> (Side, Vec<u8>) {
        let (handshake, first) = NoiseHandshake::initiate(hello, &with.into(), payload).unwrap();
        (Side { handshake, unread: Vec::new(), outcome: None }, first)
    }

    fn responder() -> Side {
        Side { handshake: NoiseHandshake::respond(false), unread: Vec::new(), outcome: None }
    }

    /// Handles `bytes` and returns the bytes to send.
    fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.hear_at(bytes, &door)
    }

    /// Handles `bytes` with these keys.
    fn hear_at(&mut self, bytes: &[u8], door: &dyn KeyAuthenticator) -> Vec<u8> {
        self.unread.extend(bytes);
        let mut said = Vec::new();
        while self.outcome.is_none() && self.unread.len() >= self.handshake.wants() {
            let wanted: Vec<u8> = self.unread.drain(..self.handshake.wants()).collect();
            match self.handshake.handle(&wanted, door) {
                HandshakeStep::Send(out) => said.extend(out),
                HandshakeStep::Up(out, established) => {
                    said.extend(out);
                    self.outcome = Some(Ok(*established));
                }
                HandshakeStep::Over(out, error) => {
                    said.extend(out);
                    self.outcome = Some(Err(error));
                }
            }
        }
        said
    }

    fn established(self) -> EstablishedSession {
        self.outcome.expect("it ended").map_err(|error| error.to_string()).unwrap()
    }

    fn error(self) -> Error {
        self.outcome.expect("it ended").err().expect("it failed")
    }
}

/// Exchanges messages until both sides are done. `meddle` may change each message, in order.
fn converse(initiator: (Side, Vec<u8>), meddle: impl FnMut(usize, &mut Vec<u8>)) -> (Side, Side) {
    converse_at(&door, initiator, meddle)
}

/// The same with these keys of the responder.
fn converse_at(
    door: &dyn KeyAuthenticator,
    initiator: (Side, Vec<u8>),
    mut meddle: impl FnMut(usize, &mut Vec<u8>),
) -> (Side, Side) {
    let (mut initiator, mut said) = initiator;
    let mut responder = Side::responder();
    for turn in 0.. {
        if said.is_empty() {
            break;
        }
        meddle(turn, &mut said);
        let hearer = if turn % 2 == 0 { &mut responder } else { &mut initiator };
        said = hearer.hear_at(&said, door);
    }
    (initiator, responder)
}

#[test]
fn both_sides_come_up_and_know_each_other() {
    let (initiator, responder) = converse(Side::initiator(HELLO, &key(1), b"hello"), |_, _| {});
    let (mut initiator, mut responder) = (initiator.established(), responder.established());
    assert_eq!(
        (initiator.payload.as_slice(), responder.payload.as_slice()),
        (&b"advert"[..], &b"hello"[..])
    );
    assert_eq!((initiator.hello, responder.hello), (HELLO, HELLO));
    assert_eq!((initiator.version, responder.version), (VERSIONS.max, VERSIONS.max));
    let (mut sealed, mut plain) = ([0; 64], [0; 64]);
    let length = responder.transport.write_message(b"welcome", &mut sealed).unwrap();
    let length = initiator.transport.read_message(&sealed[..length], &mut plain).unwrap();
    assert_eq!(&plain[..length], b"welcome");
}

#[test]
fn the_wrong_key_is_told_so() {
    let (initiator, responder) = converse(Side::initiator(HELLO, &key(2), b""), |_, _| {});
    for error in [initiator.error(), responder.error()] {
        assert_eq!(error.code, Code::Refused);
        assert!(error.message.contains("the key differs"), "{error}");
    }
}

#[test]
fn strangers_to_the_door_are_turned_away() {
    for (kind, code) in
        [(ConnectionKind::Data, Code::Refused), (ConnectionKind::Client, Code::Unreachable)]
    {
        let hello = ConnectionHello { kind, key_id: [8; 16] };
        let (initiator, responder) = converse(Side::initiator(hello, &key(1), b""), |_, _| {});
        assert_eq!((initiator.error().code, responder.error().code), (code, code));
    }
}

#[test]
fn versions_without_overlap_are_named() {
    let newer = |turn: usize, said: &mut Vec<u8>| {
        if turn == 0 {
            let mut preamble = Preamble::decode(&said[..PREAMBLE_BYTES]).unwrap();
            preamble.versions = VersionRange { min: 8, max: 9 };
            said[..PREAMBLE_BYTES].copy_from_slice(&preamble.encode());
        }
    };
    let (initiator, responder) = converse(Side::initiator(HELLO, &key(1), b""), newer);
    let (initiator, responder) = (initiator.error(), responder.error());
    assert_eq!((initiator.code, responder.code), (Code::Unreachable, Code::Unreachable));
    assert!(responder.message.contains("version is 9; this side speaks 3 to 3"), "{responder}");
}

#[test]
fn a_replayed_hello_is_not_enough() {
    let mut recorded = Vec::new();
    converse(Side::initiator(HELLO, &key(1), b"hello"), |_, said| recorded.push(said.clone()));
    let mut responder = Side::responder();
    let answer = responder.hear(&recorded[0]);
    assert!(!answer.is_empty() && responder.outcome.is_none(), "it waits for the confirmation");
    responder.hear(&recorded[2]);
    assert_eq!(responder.error().code, Code::Refused);
}

#[test]
fn holders_of_key_pairs_come_up_and_the_node_knows_who_dialled() {
    let (master, node) = acquainted();
    for at in [0, 1] {
        let (initiator, responder) =
            converse_at(&node, Side::master(&master, &node, at), |_, _| {});
        let (initiator, responder) = (initiator.established(), responder.established());
        assert_eq!((&initiator.payload[..], &responder.payload[..]), (&b"advert"[..], &b""[..]));
        assert_eq!(responder.initiator.as_ref(), Some(master.public()));
    }
}

#[test]
fn each_of_two_site_keys_is_good_and_no_third() {
    let (_, node) = acquainted();
    for (digit, is_good) in [(1, true), (2, true), (3, false)] {
        let (initiator, responder) =
            converse_at(&node, Side::initiator(CONTROL, &key(digit), b""), |_, _| {});
        assert_eq!(matches!(initiator.outcome, Some(Ok(_))), is_good);
        assert_eq!(matches!(responder.outcome, Some(Ok(_))), is_good);
    }
}

#[test]
fn a_public_key_that_is_not_allowed_gets_no_advert_and_is_named_on_both_sides() {
    let (_, node) = acquainted();
    let stranger = pair();
    let (initiator, responder) =
        converse_at(&node, Side::master(&stranger, &node, 0), |turn, said| {
            assert!(turn == 0 || said.len() == REPLY_BYTES, "a refusal and nothing behind it");
        });
    for error in [initiator.error(), responder.error()] {
        assert_eq!(error.code, Code::Refused);
        assert!(error.message.contains(&stranger.public().short()), "{error}");
        assert!(error.message.contains("`master`"), "{error}");
    }
}

#[test]
fn a_node_with_another_private_key_is_found_out_and_learns_nothing() {
    let (master, node) = acquainted();
    let impostor =
        PairDoor { pairs: vec![pair()], allowed: node.allowed.clone(), keys: Vec::new() };
    let (initiator, responder) =
        converse_at(&impostor, Side::master(&master, &node, 0), |turn, said| {
            let public = &master.public().0[..];
            assert!(turn > 0 || !said.windows(32).any(|part| part == public), "sealed");
        });
    assert_eq!(initiator.error().code, Code::Refused);
    assert_eq!(responder.handshake.initiator, None, "it does not know who dialled");
}

/// One that accepts although it has not the private key cannot make the second message.
#[test]
fn an_accepting_reply_without_the_private_key_is_worth_nothing() {
    let (master, node) = acquainted();
    let (mut initiator, _) = Side::master(&master, &node, 0);
    let handshake_bytes = 200;
    let version = VERSIONS.max;
    let mut reply = PreambleReply::Accepted { version, handshake_bytes }.encode().to_vec();
    reply.extend([7; 200]);
    assert!(initiator.hear(&reply).is_empty(), "no confirmation");
    assert_eq!(initiator.error().code, Code::Refused);
}

#[test]
fn one_side_with_a_pair_and_the_other_with_a_site_key_is_said_so() {
    let (master, node) = acquainted();
    let without_pairs = PairDoor { pairs: Vec::new(), ..acquainted().1 };
    let without_keys = PairDoor { keys: Vec::new(), ..acquainted().1 };
    let dialled = Side::master(&master, &node, 0);
    let shared = Side::initiator(CONTROL, &key(1), b"");
    for (door, initiator) in [(without_pairs, dialled), (without_keys, shared)] {
        let (initiator, responder) = converse_at(&door, initiator, |_, _| {});
        for error in [initiator.error(), responder.error()] {
            assert_eq!(error.code, Code::Refused);
            assert!(error.message.contains("key pair"), "{error}");
        }
    }
}

#[test]
fn nobody_can_talk_a_pair_down_to_a_site_key_or_up() {
    let (master, node) = acquainted();
    for initiator in [Side::master(&master, &node, 0), Side::initiator(CONTROL, &key(1), b"")] {
        let other_pattern = |turn: usize, said: &mut Vec<u8>| {
            if turn == 0 {
                let mut preamble = Preamble::decode(&said[..PREAMBLE_BYTES]).unwrap();
                preamble.pattern = match preamble.pattern {
                    HandshakePattern::SharedKey => HandshakePattern::KeyPairs,
                    HandshakePattern::KeyPairs => HandshakePattern::SharedKey,
                };
                said[..PREAMBLE_BYTES].copy_from_slice(&preamble.encode());
            }
        };
        let (initiator, responder) = converse_at(&node, initiator, other_pattern);
        // A first message of a site key is too short for a pair; the other is read and differs.
        assert!(responder.error().code != Code::Internal);
        assert!(!matches!(initiator.outcome, Some(Ok(_))));
    }
}

#[test]
fn a_replayed_session_of_a_pair_ends_at_the_confirmation() {
    let (master, node) = acquainted();
    let mut recorded = Vec::new();
    let (first, second) = converse_at(&node, Side::master(&master, &node, 0), |_, said| {
        recorded.push(said.clone());
    });
    assert!(first.outcome.unwrap().is_ok() && second.outcome.unwrap().is_ok());
    let mut responder = Side::responder();
    let answer = responder.hear_at(&recorded[0], &node);
    assert!(!answer.is_empty() && answer != recorded[1], "a fresh ephemeral key");
    assert!(responder.outcome.is_none(), "it waits for the confirmation");
    responder.hear_at(&recorded[2], &node);
    assert_eq!(responder.error().code, Code::Refused);
}

#[test]
fn the_key_of_an_earlier_transfer_opens_no_later_one() {
    let of = |transfer: u8| ConnectionHello { kind: ConnectionKind::Data, key_id: [transfer; 16] };
    let later = |hello: &ConnectionHello| {
        (hello.key_id == [2; 16]).then(|| HelloReply { keys: vec![key(2)], payload: Vec::new() })
    };
    for transfer in [1, 2] {
        let (initiator, responder) =
            converse_at(&later, Side::initiator(of(transfer), &key(1), b"hello"), |_, _| {});
        assert_eq!(
            (initiator.error().code, responder.error().code),
            (Code::Refused, Code::Refused)
        );
    }
}

/// A dialling side with a key pair, or with a site key.
fn initiator_of(with_pairs: bool, master: &Arc<KeyPair>, node: &PairDoor) -> (Side, Vec<u8>) {
    match with_pairs {
        true => Side::master(master, node, 0),
        false => Side::initiator(CONTROL, &key(1), b""),
    }
}

/// Lengths of the messages of a handshake that nobody meddles with.
fn lengths_of(node: &PairDoor, initiator: (Side, Vec<u8>)) -> Vec<usize> {
    let mut lengths = Vec::new();
    converse_at(node, initiator, |_, said| lengths.push(said.len()));
    lengths
}

/// Every message ends at every byte: neither side comes up, panics, or says anything more.
#[test]
fn truncated_messages_are_waited_for_and_never_enough() {
    let (master, node) = acquainted();
    for with_pairs in [true, false] {
        let initiator = || initiator_of(with_pairs, &master, &node);
        let lengths = lengths_of(&node, initiator());
        for (victim, &length) in lengths.iter().enumerate() {
            for kept in 0..length {
                let cut = |turn: usize, said: &mut Vec<u8>| {
                    if turn == victim {
                        said.truncate(kept);
                    }
                };
                let (initiator, responder) = converse_at(&node, initiator(), cut);
                let hearer = if victim % 2 == 0 { responder } else { initiator };
                assert!(hearer.outcome.is_none(), "message {victim}, {kept} of {length} bytes");
            }
        }
    }
}

/// A bit of each byte of each message.
#[test]
fn no_byte_can_be_changed_with_a_pair_or_a_site_key() {
    let (master, node) = acquainted();
    for with_pairs in [true, false] {
        let initiator = || initiator_of(with_pairs, &master, &node);
        let lengths = lengths_of(&node, initiator());
        assert_eq!(lengths.len(), 3);
        for (victim, &length) in lengths.iter().enumerate() {
            for at in 0..length {
                let flip = |turn: usize, said: &mut Vec<u8>| {
                    if turn == victim {
                        said[at] ^= 1 << (at % 8);
                    }
                };
                let (initiator, responder) = converse_at(&node, initiator(), flip);
                let up = |side: &Side| matches!(side.outcome, Some(Ok(_)));
                assert!(!(up(&initiator) && up(&responder)), "message {victim}, byte {at}");
                assert!(!up(&responder), "message {victim}, byte {at}: the node lets nobody in");
            }
        }
    }
}

#[test]
fn oversized_and_undersized_hellos_are_refused_before_they_are_read() {
    let patterns = [(HandshakePattern::SharedKey, 48), (HandshakePattern::KeyPairs, 96)];
    let sizes = |overhead| [0, overhead - 1, overhead + HELLO_BYTES_MAX as u16 + 1, u16::MAX];
    for (pattern, handshake_bytes) in patterns
        .into_iter()
        .flat_map(|(pattern, overhead)| sizes(overhead).map(|size| (pattern, size)))
    {
        let mut responder = Side::responder();
        let preamble = Preamble {
            kind: ConnectionKind::Data,
            pattern,
            versions: VERSIONS,
            key_id: [7; 16],
            handshake_bytes,
        };
        let answer = responder.hear(&preamble.encode());
        assert!(answer.is_empty());
        assert_eq!(responder.error().code, Code::Unreachable);
    }
}

#[test]
fn the_largest_payloads_fit() {
    let payload = [5; HELLO_BYTES_MAX];
    let (_, responder) = converse(Side::initiator(HELLO, &key(1), &payload), |_, _| {});
    assert_eq!(responder.established().payload, payload);
    assert_eq!(versioned(1, &[0; PAYLOAD_BYTES_MAX]).len(), PAYLOAD_BYTES_MAX + VERSION_BYTES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No changed bit of the conversation lets both sides come up, with pairs.
    #[test]
    fn no_bit_can_be_changed_with_pairs(
        victim in 0..3usize, at in any::<prop::sample::Index>(), bit in 0..8u32,
    ) {
        let flip = |turn: usize, said: &mut Vec<u8>| {
            if turn == victim {
                let at = at.index(said.len());
                said[at] ^= 1 << bit;
            }
        };
        let (master, node) = acquainted();
        let (initiator, responder) = converse_at(&node, Side::master(&master, &node, 1), flip);
        let up = |side: Side| matches!(side.outcome, Some(Ok(_)));
        prop_assert!(!(up(initiator) && up(responder)));
    }

    /// No changed bit of the conversation lets both sides come up.
    #[test]
    fn no_bit_can_be_changed(
        victim in 0..3usize, at in any::<prop::sample::Index>(), bit in 0..8u32,
    ) {
        let flip = |turn: usize, said: &mut Vec<u8>| {
            if turn == victim {
                let at = at.index(said.len());
                said[at] ^= 1 << bit;
            }
        };
        let (initiator, responder) = converse(Side::initiator(HELLO, &key(1), b"hello"), flip);
        // Who was in between may not have the key: it is no internal error of either end.
        for side in [&initiator, &responder] {
            let error = side.outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
            prop_assert!(error.is_none_or(|error| error.code != Code::Internal));
        }
        let up = |side: Side| matches!(side.outcome, Some(Ok(_)));
        prop_assert!(!(up(initiator) && up(responder)));
    }

    #[test]
    fn garbage_never_gets_in(
        bytes in prop::collection::vec(any::<u8>(), 0..300), ours in any::<bool>(),
    ) {
        let mut garbage = bytes;
        if ours && garbage.len() > 48 {
            let handshake_bytes = 48;
            let (kind, versions, key_id) = (ConnectionKind::Data, VERSIONS, [7; 16]);
            let pattern = HandshakePattern::SharedKey;
            let preamble = Preamble { kind, pattern, versions, key_id, handshake_bytes };
            garbage[..PREAMBLE_BYTES].copy_from_slice(&preamble.encode());
        }
        let mut responder = Side::responder();
        responder.hear(&garbage);
        prop_assert!(!matches!(responder.outcome, Some(Ok(_))));
        let (mut initiator, _) = Side::initiator(HELLO, &key(1), b"");
        initiator.hear(&garbage);
        prop_assert!(!matches!(initiator.outcome, Some(Ok(_))));
    }
}

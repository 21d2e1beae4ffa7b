//! Handshakes in memory: accepted and refused peers, and changes by a third party.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use crate::core::wire::version::VersionRange;
use crate::io::session::noise::*;

const HELLO: ConnectionHello = ConnectionHello { kind: ConnectionKind::Data, key_id: [7; 16] };

fn key(digit: u8) -> Key {
    Key::from_bytes([digit; 32])
}

/// Accepts transfer 7 with key 1, and answers with an advert.
fn door(hello: &ConnectionHello) -> Option<HelloReply> {
    (hello.key_id == [7; 16]).then(|| HelloReply { key: key(1), payload: b"advert".to_vec() })
}

/// One side of a handshake, and its outcome.
struct Side {
    handshake: NoiseHandshake,
    unread: Vec<u8>,
    outcome: Option<Result<EstablishedSession>>,
}

impl Side {
    fn initiator(hello: ConnectionHello, with: &Key, payload: &[u8]) -> (Side, Vec<u8>) {
        let (handshake, first) = NoiseHandshake::initiate(hello, with, payload).unwrap();
        (Side { handshake, unread: Vec::new(), outcome: None }, first)
    }

    fn responder() -> Side {
        Side { handshake: NoiseHandshake::respond(false), unread: Vec::new(), outcome: None }
    }

    /// Handles `bytes` and returns the bytes to send.
    fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend(bytes);
        let mut said = Vec::new();
        while self.outcome.is_none() && self.unread.len() >= self.handshake.wants() {
            let wanted: Vec<u8> = self.unread.drain(..self.handshake.wants()).collect();
            match self.handshake.handle(&wanted, &door) {
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
fn converse(
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
        said = hearer.hear(&said);
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
fn oversized_and_undersized_hellos_are_refused_before_they_are_read() {
    for handshake_bytes in [0, 47, 48 + HELLO_BYTES_MAX as u16 + 1, u16::MAX] {
        let mut responder = Side::responder();
        let preamble = Preamble {
            kind: ConnectionKind::Data,
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
            let preamble = Preamble { kind, versions, key_id, handshake_bytes };
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

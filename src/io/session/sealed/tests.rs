//! Messages of every size arrive; changed, swapped and endless ones do not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use crate::io::session::sealed::*;

/// Returns the two ends of an established connection.
fn ends() -> (SealedStream, SealedStream) {
    let suite = || snow::Builder::new("Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s".parse().unwrap());
    let mut initiator = suite().psk(0, &[1; 32]).unwrap().build_initiator().unwrap();
    let mut responder = suite().psk(0, &[1; 32]).unwrap().build_responder().unwrap();
    let (mut message, mut payload) = ([0; 128], [0; 128]);
    let length = initiator.write_message(&[], &mut message).unwrap();
    responder.read_message(&message[..length], &mut payload).unwrap();
    let length = responder.write_message(&[], &mut message).unwrap();
    initiator.read_message(&message[..length], &mut payload).unwrap();
    (
        SealedStream::new(initiator.into_transport_mode().unwrap()),
        SealedStream::new(responder.into_transport_mode().unwrap()),
    )
}

/// Returns the messages in `bytes`, and whether they end between two messages.
fn opened(end: &mut SealedStream, mut bytes: &[u8]) -> Result<(Vec<Vec<u8>>, bool)> {
    let mut messages = Vec::new();
    while let Some((wanted, rest)) = bytes.split_at_checked(end.wants()) {
        messages.extend(end.open(wanted)?);
        bytes = rest;
    }
    Ok((messages, end.is_between_messages() && bytes.is_empty()))
}

#[test]
fn messages_of_every_size_arrive() {
    let (mut near, mut far) = ends();
    for size in [
        0,
        1,
        PART_BYTES_MAX - 1,
        PART_BYTES_MAX,
        PART_BYTES_MAX + 1,
        3 * PART_BYTES_MAX,
        MESSAGE_BYTES_MAX,
    ] {
        let message: Vec<u8> = (0..size).map(|at| at as u8).collect();
        let mut bytes = Vec::new();
        near.seal(&message, &mut bytes);
        assert_eq!(bytes.len(), sealed_bytes(size));
        let (messages, between) = opened(&mut far, &bytes).unwrap();
        assert!(messages == [message] && between, "{size} bytes");
    }
}

#[test]
fn an_endless_message_is_refused() {
    let (mut near, mut far) = ends();
    let part = vec![0; PART_BYTES_MAX];
    let mut failed = None;
    for _ in 0..=MESSAGE_BYTES_MAX / PART_BYTES_MAX {
        let mut bytes = Vec::new();
        near.seal_chunk(MORE, &part, &mut bytes);
        failed = opened(&mut far, &bytes).err();
        assert!(far.message.len() <= MESSAGE_BYTES_MAX);
    }
    assert!(failed.unwrap().message.contains("too large"));
}

#[test]
fn chunks_without_a_meaning_are_refused() {
    for (flag, part) in [(MORE, &b""[..]), (2, b"x")] {
        let (mut near, mut far) = ends();
        let mut bytes = Vec::new();
        near.seal_chunk(flag, part, &mut bytes);
        assert!(opened(&mut far, &bytes).is_err());
    }
    let (_, mut far) = ends();
    assert_eq!(
        opened(&mut far, &[16, 0]).unwrap_err().code,
        Code::Integrity,
        "shorter than a seal"
    );
}

#[test]
fn messages_cannot_be_swapped_repeated_or_sent_back() {
    let (mut near, mut far) = ends();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    near.seal(b"first", &mut first);
    near.seal(b"second", &mut second);
    assert!(opened(&mut near, &first).is_err(), "sent back");
    assert!(opened(&mut far, &second).is_err(), "swapped");
    let (mut near, mut far) = ends();
    first.clear();
    near.seal(b"first", &mut first);
    assert!(opened(&mut far, &first).is_ok());
    assert!(opened(&mut far, &first).is_err(), "repeated");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bit_can_be_changed(
        message in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let (mut near, mut far) = ends();
        let mut bytes = Vec::new();
        near.seal(&message, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let arrived = opened(&mut far, &bytes);
        prop_assert!(arrived.map_or(true, |(messages, between)| messages.is_empty() && !between));
    }
}

//! What opens and what does not: frames in order, and every way to meddle with them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::core::options::Cipher;
use crate::core::seal::frame_seal::*;
use crate::core::units::Span;
use crate::core::wire::Check;

/// A frame as it is on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
struct SealedFrame {
    header: [u8; FRAME_BYTES],
    payload: Vec<u8>,
}

fn wire(level: WireLevel, cipher: Cipher) -> WireAgreement {
    WireAgreement { level, cipher }
}

fn protected() -> impl Strategy<Value = WireAgreement> {
    let levels = prop::sample::select(vec![WireLevel::Signed, WireLevel::Sealed]);
    let ciphers = prop::sample::select(vec![Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]);
    (levels, ciphers).prop_map(|(level, cipher)| wire(level, cipher))
}

/// Payloads of 1 to 299 bytes behind data headers, and 0 for a request.
fn frame(number: u32, payload_bytes: usize) -> (Frame, Vec<u8>) {
    let position = u64::from(number) * 1000;
    if payload_bytes == 0 {
        let kind = FrameKind::Request { stolen: number.is_multiple_of(2) };
        return (Frame::new(kind, number, Span::of(position, 7)), Vec::new());
    }
    let payload = (0..payload_bytes).map(|at| (at * 7 + number as usize) as u8).collect();
    let kind = FrameKind::Data(Check::Crc64(position));
    (Frame::new(kind, number, Span::of(position, payload_bytes as u64)), payload)
}

fn seal(sealer: &mut FrameSealer, number: u32, payload_bytes: usize) -> SealedFrame {
    let (frame, payload) = frame(number, payload_bytes);
    let mut sealed = SealedFrame { header: [0; FRAME_BYTES], payload };
    sealer.seal(&frame, &mut sealed.header, &mut sealed.payload);
    sealed
}

/// Returns the frame and its payload, or how far it did not get.
fn open(
    opener: &mut FrameOpener,
    mut sealed: SealedFrame,
) -> Result<(Frame, Vec<u8>), &'static str> {
    let frame = opener.open_header(&mut sealed.header).map_err(|_| "header")?;
    if payload_bytes(&frame) != sealed.payload.len() {
        return Err("length");
    }
    let is_data = !sealed.payload.is_empty();
    if is_data && !opener.open_payload(&mut sealed.payload) {
        return Err("payload");
    }
    Ok((frame, sealed.payload))
}

proptest! {
    #[test]
    fn frames_open_in_the_order_in_which_they_were_sealed(
        wire in protected(), sizes in prop::collection::vec(0_usize..300, 1..20),
    ) {
        let [mut sender, mut receiver] = FlowSeal::pair(wire);
        for (number, bytes) in sizes.into_iter().enumerate() {
            let number = number as u32;
            let sealed = seal(&mut sender.sealer, number, bytes);
            prop_assert_eq!(open(&mut receiver.opener, sealed), Ok(frame(number, bytes)));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed(
        wire in protected(), bytes in 0_usize..300, at in any::<prop::sample::Index>(),
    ) {
        let [mut sender, mut receiver] = FlowSeal::pair(wire);
        let mut sealed = seal(&mut sender.sealer, 5, bytes);
        let bit = at.index((FRAME_BYTES + bytes) * 8);
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        match byte.checked_sub(FRAME_BYTES) {
            None => sealed.header[byte] ^= mask,
            Some(byte) => sealed.payload[byte] ^= mask,
        }
        let where_it_shows = if byte < FRAME_BYTES { "header" } else { "payload" };
        prop_assert_eq!(open(&mut receiver.opener, sealed), Err(where_it_shows));
    }

    /// A piece whose bytes were changed is requested again on the same flow.
    #[test]
    fn after_a_changed_payload_the_flow_goes_on(wire in protected(), bytes in 1_usize..300) {
        let [mut sender, mut receiver] = FlowSeal::pair(wire);
        let mut changed = seal(&mut sender.sealer, 0, bytes);
        changed.payload[0] ^= 1;
        prop_assert_eq!(open(&mut receiver.opener, changed), Err("payload"));
        let next = seal(&mut sender.sealer, 1, bytes);
        prop_assert_eq!(open(&mut receiver.opener, next), Ok(frame(1, bytes)));
    }

    #[test]
    fn a_frame_of_another_place_time_or_flow_does_not_open(
        wire in protected(), bytes in 0_usize..300,
    ) {
        let [mut sender, mut receiver] = FlowSeal::pair(wire);
        let (first, second) =
            (seal(&mut sender.sealer, 0, bytes), seal(&mut sender.sealer, 1, bytes));
        // Left out: the second comes first.
        prop_assert_eq!(open(&mut receiver.opener, second.clone()), Err("header"));
        let [mut sender, mut receiver] = FlowSeal::pair(wire);
        seal(&mut sender.sealer, 0, bytes);
        // Replayed.
        prop_assert!(open(&mut receiver.opener, first.clone()).is_ok());
        prop_assert_eq!(open(&mut receiver.opener, first.clone()), Err("header"));
        // Of the other direction.
        let [mut sender, receiver] = FlowSeal::pair(wire);
        let own = seal(&mut sender.sealer, 0, bytes);
        prop_assert_eq!(open(&mut sender.opener, own), Err("header"));
        drop(receiver);
        // Of another flow: same keys of both ends, another transcript.
        let secrets = FlowSecrets::derive(&[2; 32], &[1; 32], b"another hash");
        let mut other = FlowSeal::new(secrets, wire);
        prop_assert_eq!(open(&mut other.opener, first), Err("header"));
    }

    #[test]
    fn a_payload_does_not_go_with_another_header(wire in protected(), bytes in 1_usize..300) {
        let [mut sender, mut receiver] = FlowSeal::pair(wire);
        let first = seal(&mut sender.sealer, 0, bytes);
        let second = seal(&mut sender.sealer, 1, bytes);
        let swapped = SealedFrame { header: first.header, payload: second.payload };
        prop_assert_eq!(open(&mut receiver.opener, swapped), Err("payload"));
    }

    #[test]
    fn nothing_opens_at_another_level_or_with_another_cipher(
        sent in protected(), read in protected(), bytes in 0_usize..300,
    ) {
        prop_assume!(sent != read);
        let [mut sender, _] = FlowSeal::pair(sent);
        let [_, mut receiver] = FlowSeal::pair(read);
        let sealed = seal(&mut sender.sealer, 0, bytes);
        prop_assert_eq!(open(&mut receiver.opener, sealed), Err("header"));
    }

    #[test]
    fn arbitrary_headers_never_panic(wire in protected(), header in any::<[u8; FRAME_BYTES]>()) {
        let [mut receiver, _] = FlowSeal::pair(wire);
        let mut header = header;
        prop_assert!(receiver.opener.open_header(&mut header).is_err());
    }
}

/// Returns true if 16 bytes in a row of `data` are in `wire`.
fn shows(wire: &SealedFrame, data: &[u8]) -> bool {
    let all = [wire.header.as_slice(), &wire.payload].concat();
    data.windows(16).any(|run| all.windows(16).any(|seen| seen == run))
}

#[test]
fn only_sealed_frames_show_nothing_of_what_they_carry() {
    for (level, expected) in
        [(WireLevel::Clear, true), (WireLevel::Signed, true), (WireLevel::Sealed, false)]
    {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let [mut sender, _] = FlowSeal::pair(wire(level, cipher));
            let (_, payload) = frame(3, 200);
            let sealed = seal(&mut sender.sealer, 3, 200);
            assert_eq!(shows(&sealed, &payload), expected, "{level:?}");
            assert_eq!(sealed.header.starts_with(b"CEPd"), expected, "{level:?}");
        }
    }
}

fn limited(frames: u64, bytes: u64) -> [FlowSeal; 2] {
    let secrets = |sends, receives| FlowSecrets::derive(&[sends; 32], &[receives; 32], b"hash");
    let wire = wire(WireLevel::Sealed, Cipher::Aes256Gcm);
    let limits = KeyLimits { frames, bytes };
    [(1, 2), (2, 1)]
        .map(|(sends, receives)| FlowSeal::with_limits(secrets(sends, receives), wire, limits))
}

/// Both ends change keys after the same frame, whatever its size and kind, and no key does more
/// than its limits and one frame.
#[test]
fn keys_are_replaced_before_their_limits_at_both_ends_alike() {
    for (frames, bytes) in [(1, u64::MAX), (3, u64::MAX), (u64::MAX, 1), (u64::MAX, 1000), (5, 700)]
    {
        let [mut sender, mut receiver] = limited(frames, bytes);
        let mut headers = BTreeSet::new();
        for number in 0..60 {
            let size = [0, 1, 299, 0, 17][number as usize % 5];
            let sealed = seal(&mut sender.sealer, number, size);
            headers.insert(sealed.header);
            assert_eq!(open(&mut receiver.opener, sealed), Ok(frame(number, size)));
            let keyed = sender.sealer.keyed.as_ref().unwrap();
            assert!(keyed.frames_of_key <= frames && keyed.bytes <= bytes.saturating_add(395));
        }
        assert_eq!(headers.len(), 60);
        // The first key opens nothing that was sealed under a later one.
        let [mut sender, _] = limited(frames, bytes);
        let [_, mut unlimited] = limited(u64::MAX, u64::MAX);
        let opens = (0..60).all(|number| {
            open(&mut unlimited.opener, seal(&mut sender.sealer, number, 100)).is_ok()
        });
        assert!(!opens, "{frames} frames or {bytes} bytes make a new key");
    }
}

/// A nonce that is used twice under one key shows here: equal frames would look alike.
#[test]
fn the_same_frame_never_looks_the_same_twice() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let [mut sender, _] = FlowSeal::pair(wire(WireLevel::Sealed, cipher));
        let (mut headers, mut payloads) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..500 {
            let sealed = seal(&mut sender.sealer, 0, 64);
            assert!(headers.insert(sealed.header) && payloads.insert(sealed.payload));
        }
    }
}

/// Of every frame under one key, header and payload have nonces of their own.
#[test]
fn no_two_operations_under_one_key_share_a_nonce() {
    let secrets = FlowSecrets::derive(&[1; 32], &[2; 32], b"hash");
    let FlowSecrets { sends, .. } = secrets;
    let wire = wire(WireLevel::Sealed, Cipher::Aes256Gcm);
    let mut direction = KeyedDirection::new(sends, wire, KEY_LIMITS);
    let mut used = BTreeSet::new();
    for payload_bytes in (0..1000).map(|number| number % 3) {
        let FrameNonces { header, payload } = direction.next_frame(payload_bytes);
        assert!(used.insert(*header.as_ref()) && used.insert(*payload.as_ref()));
    }
    assert_eq!(used.len(), 2000);
}

/// A receiver that sent data instead of requests ended the thread of its sender's rail, and with it
/// all transfers there.
#[test]
fn a_header_in_the_place_of_a_payload_ends_the_flow() {
    let [mut sender, mut receiver] = FlowSeal::pair(wire(WireLevel::Sealed, Cipher::Aes256Gcm));
    let opened = [0, 1].map(|number| {
        let mut sealed = seal(&mut sender.sealer, number, 10);
        receiver.opener.open_header(&mut sealed.header).is_ok()
    });
    assert_eq!(opened, [true, false]);
}

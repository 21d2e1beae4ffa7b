//! Texts of users, peers and files: read to something that can be written again, or refused.

use crate::core::access::{AllowList, PublicKey};
use crate::core::error::Code;
use crate::core::spec::{Spec, hostlist};
use crate::core::wire::control::{
    FlowHello, FlowReply, MasterQuery, NodeAdvert, QueryAnswer, ToMaster, ToNode, WireMessage,
    decode, encode,
};
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind};
use crate::core::wire::version::{Preamble, PreambleReply, REPLY_BYTES, VERSIONS, negotiate};

/// More rows than this are judged and not printed: what a line means is seen in a few.
const ROWS_PRINTED_MAX: usize = 256;

/// A specification is refused with a reason, or printed such that it reads the same.
pub fn spec(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let spec = match Spec::parse("fuzz", &text) {
        Ok(spec) => spec,
        Err(error) => {
            assert!(error.code == Code::Usage && error.message.starts_with("fuzz:"), "{error}");
            return;
        }
    };
    if let Err(error) = spec.validate() {
        assert_eq!(error.code, Code::Usage, "{error}");
    }
    if spec.rows.len() <= ROWS_PRINTED_MAX {
        let printed = spec.to_string();
        let again =
            Spec::parse("printed", &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(without_lines(again), without_lines(spec), "{printed}");
    }
}

fn without_lines(mut spec: Spec) -> Spec {
    spec.rows.iter_mut().for_each(|row| row.line = 0);
    spec.pairs.iter_mut().for_each(|pair| pair.line = 0);
    spec
}

/// An allow file is refused with one of its lines, or gives rights to keys that it names.
pub fn allow(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match AllowList::parse(&text) {
        Err(fault) => assert!((1..=text.lines().count()).contains(&fault.line), "{fault:?}"),
        Ok(list) => {
            for word in text.split_whitespace().filter(|word| word.starts_with("x25519:")) {
                let Ok(key) = word.parse::<PublicKey>() else { continue };
                let first = |line: &str| line.split_whitespace().next() == Some("allow");
                let named = text.lines().any(first);
                assert!(named || list.rights(&key).is_none(), "{key}");
            }
            assert_eq!(list.rights(&PublicKey([0; 32])), None, "a key of nobody");
        }
    }
}

/// A hostlist is refused, or names hosts within its limits, each of which is a hostlist of itself.
pub fn hostlists(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(names) = hostlist::expand(&text) else { return };
    assert!(!names.is_empty() && names.len() as u64 <= hostlist::HOSTS_MAX, "{}", names.len());
    for name in names.iter().take(ROWS_PRINTED_MAX) {
        assert!(!name.is_empty() && name.len() <= 253, "{name}");
        let address = format!("[{name}]");
        let written = if name.contains(':') { &address } else { name };
        assert_eq!(hostlist::expand(written).as_deref(), Ok(std::slice::from_ref(name)));
    }
}

/// A frame's header is refused, or written again as it was.
pub fn frame(bytes: &[u8]) {
    frame_as_it_is(bytes);
    // Hardly anything has the right sum by chance, so it is put right as well.
    if let Some(header) = bytes.first_chunk::<FRAME_BYTES>() {
        let mut header = *header;
        header[..5].copy_from_slice(b"CEPd\x01");
        // Not read, so not written again.
        header[8..12].fill(0);
        let sum = crc_fast::crc32_iscsi(&header[..FRAME_BYTES - 4]);
        header[FRAME_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        frame_as_it_is(&header);
    }
}

fn frame_as_it_is(bytes: &[u8]) {
    let Ok(bytes) = bytes.try_into() else { return };
    let Ok(frame) = Frame::decode(bytes) else { return };
    assert!(!frame.span().is_empty());
    let mut again = [0; FRAME_BYTES];
    frame.encode(&mut again);
    assert_eq!(Frame::decode(&again), Ok(frame));
    // Reasons that only a newer version knows are one to this one.
    let is_same = again == *bytes || bytes[8..12] != [0; 4];
    assert!(is_same || matches!(frame.kind, FrameKind::Refuse(Code::Internal)), "{frame:?}");
}

/// A control message of any kind, of either direction, is refused, or written again to the same.
pub fn control(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 7 {
        0 => message::<ToNode>(bytes),
        1 => message::<ToMaster>(bytes),
        2 => message::<NodeAdvert>(bytes),
        3 => message::<FlowHello>(bytes),
        4 => message::<MasterQuery>(bytes),
        5 => message::<FlowReply>(bytes),
        _ => message::<QueryAnswer>(bytes),
    }
}

fn message<M: WireMessage + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = decode::<M>(bytes) else { return };
    let again = decode::<M>(&encode(&message).expect("what was decoded fits"));
    assert_eq!(again.as_ref(), Ok(&message));
}

/// A journal is refused, or read to what was written.
pub fn journal(bytes: &[u8]) {
    crate::io::store::journal::read_anything(bytes);
}

/// The first bytes of a connection, from either side, are refused, or written again as they were.
pub fn preamble(bytes: &[u8]) {
    if let Ok(preamble) = Preamble::decode(bytes) {
        assert_eq!(preamble.encode(), bytes);
        let agreed = negotiate(VERSIONS, preamble.versions);
        assert_eq!(agreed.is_ok(), negotiate(preamble.versions, VERSIONS).is_ok());
        let spoken = preamble.versions.min..=preamble.versions.max;
        assert!(agreed.is_err() || agreed.is_ok_and(|version| spoken.contains(&version)));
    }
    if let Some(reply) = bytes.first_chunk::<REPLY_BYTES>()
        && let Ok(decoded) = PreambleReply::decode(reply)
    {
        assert_eq!(decoded.encode(), *reply);
    }
}

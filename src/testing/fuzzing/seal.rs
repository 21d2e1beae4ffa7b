//! A flow whose frames somebody between the two ends drops, repeats, exchanges and changes.

use super::byte_source::ByteSource;
use crate::core::options::{Cipher, WireLevel};
use crate::core::seal::FlowSeal;
use crate::core::units::Span;
use crate::core::wire::Check;
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind};
use crate::core::wire::terms::WireAgreement;

/// A frame as it was sent, and as it is on the wire.
#[derive(Clone)]
struct SentFrame {
    frame: Frame,
    plain: Vec<u8>,
    header: [u8; FRAME_BYTES],
    payload: Vec<u8>,
}

/// Frames open only as they were sealed, in their order; from the first header on that does not
/// open, the flow is over. Nothing panics, whatever arrives.
pub fn seal(bytes: &[u8]) {
    let mut script = ByteSource::new(bytes);
    let level = script.pick(&[WireLevel::Signed, WireLevel::Sealed]);
    let cipher = script.pick(&[Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]);
    let [mut sender, mut receiver] = FlowSeal::pair(WireAgreement { level, cipher });
    let mut sent: Vec<SentFrame> = Vec::new();
    let mut opened = 0;
    while !script.is_over() && sent.len() < FRAMES_MAX {
        let frame = sealed(&mut sender, &mut script, sent.len());
        sent.push(frame.clone());
        let mut arrives = frame;
        match script.below(8) {
            0 => arrives.header[script.below(FRAME_BYTES)] ^= script.byte(),
            1 if !arrives.payload.is_empty() => {
                let at = script.below(arrives.payload.len());
                arrives.payload[at] ^= script.byte();
            }
            2 => arrives = sent[script.below(sent.len())].clone(),
            3 => arrives.payload = sent[script.below(sent.len())].payload.clone(),
            4 => continue,
            5 => arrives.header = std::array::from_fn(|_| script.byte()),
            _ => {}
        }
        if !opens(&mut receiver, arrives, sent.get(opened)) {
            return;
        }
        opened += 1;
    }
}

fn sealed(sender: &mut FlowSeal, script: &mut ByteSource<'_>, number: usize) -> SentFrame {
    let size = script.below(64) as u64;
    let span = Span::of(u64::from(script.byte()) << 20, size.max(1));
    let (kind, plain) = if size == 0 {
        (FrameKind::Request { stolen: number.is_multiple_of(2) }, Vec::new())
    } else {
        (FrameKind::Data(Check::None), (0..size).map(|at| at as u8 ^ number as u8).collect())
    };
    let frame = Frame::new(kind, number as u32, span);
    let (mut header, mut payload) = ([0; FRAME_BYTES], plain.clone());
    sender.sealer.seal(&frame, &mut header, &mut payload);
    SentFrame { frame, plain, header, payload }
}

/// Opens what arrives. Returns false once the flow is over.
fn opens(receiver: &mut FlowSeal, mut arrives: SentFrame, expected: Option<&SentFrame>) -> bool {
    let Ok(frame) = receiver.opener.open_header(&mut arrives.header) else { return false };
    let expected = expected.expect("nothing opens that was not sent");
    assert_eq!(frame, expected.frame, "a header opens in its turn alone");
    if matches!(frame.kind, FrameKind::Data(_)) {
        // A stream gives as many bytes as the header says.
        arrives.payload.resize(frame.length as usize, 0);
        if receiver.opener.open_payload(&mut arrives.payload) {
            assert_eq!(arrives.payload, expected.plain, "a payload opens as it was sealed");
        }
    }
    true
}

/// Frames of one script.
const FRAMES_MAX: usize = 256;

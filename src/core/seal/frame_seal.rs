//! Frames are sealed where they lie, and opened where they have arrived.
//!
//! ```text
//!            0                                   80       96
//! header     fields, the payload's tag at 56     tag      payload
//! signed     in clear, authenticated             ✓        in clear, authenticated
//! sealed     encrypted, authenticated            ✓        encrypted, authenticated
//! ```
//!
//! The payload comes first, so that its tag is in the header that is sealed behind it: position,
//! length, request and payload cannot be separated. The tag stands where a header in clear has its
//! checksum.

use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::key_schedule::{FlowSecrets, TrafficSecret};
use crate::core::options::WireLevel;
use crate::core::wire::WireError;
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind, SEAL_FIELD};
use crate::core::wire::terms::WireAgreement;

/// Both directions of a flow.
#[derive(Debug)]
pub(crate) struct FlowSeal {
    /// How it is protected.
    pub(crate) wire: WireAgreement,
    /// Of frames that this end sends.
    pub(crate) sealer: FrameSealer,
    /// Of frames that it receives.
    pub(crate) opener: FrameOpener,
}

impl FlowSeal {
    /// Protects a flow as agreed.
    pub(crate) fn new(secrets: FlowSecrets, wire: WireAgreement) -> FlowSeal {
        FlowSeal::with_limits(secrets, wire, KEY_LIMITS)
    }

    /// The two ends of one flow, without a handshake.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn pair(wire: WireAgreement) -> [FlowSeal; 2] {
        let secrets = |sends, receives| FlowSecrets::derive(&[sends; 32], &[receives; 32], b"hash");
        [FlowSeal::new(secrets(1, 2), wire), FlowSeal::new(secrets(2, 1), wire)]
    }

    /// Returns true if frames leave in clear, and payloads may be sent from where they lie.
    pub(crate) fn is_clear(&self) -> bool {
        self.wire.level == WireLevel::Clear
    }

    /// In clear, headers have a checksum, and payloads nothing but their check.
    fn with_limits(secrets: FlowSecrets, wire: WireAgreement, limits: KeyLimits) -> FlowSeal {
        let keyed = |secret| {
            let is_keyed = wire.level > WireLevel::Clear;
            is_keyed.then(|| Box::new(KeyedDirection::new(secret, wire, limits)))
        };
        let FlowSecrets { sends, receives } = secrets;
        FlowSeal {
            wire,
            sealer: FrameSealer { keyed: keyed(sends) },
            opener: FrameOpener { keyed: keyed(receives), payload: None },
        }
    }
}

/// Seals the frames of one direction, in the order in which they are sent.
pub(crate) struct FrameSealer {
    /// `None` in clear.
    keyed: Option<Box<KeyedDirection>>,
}

impl FrameSealer {
    /// Writes the header of the next frame, and seals it and the payload behind it. What was sealed
    /// is to be sent before anything else is.
    ///
    /// # Panics
    /// If the payload is not that of the frame. In clear it is not looked at.
    pub(crate) fn seal(
        &mut self,
        frame: &Frame,
        header: &mut [u8; FRAME_BYTES],
        payload: &mut [u8],
    ) {
        frame.encode(header);
        let Some(direction) = &mut self.keyed else { return };
        assert_eq!(payload.len(), payload_bytes(frame), "what a header says follows it");
        let nonces = direction.next_frame(payload.len());
        if !payload.is_empty() {
            header[SEAL_FIELD].copy_from_slice(&direction.seal(nonces.payload, payload));
        }
        let (fields, tag) = header.split_at_mut(FIELDS_BYTES);
        tag.copy_from_slice(&direction.seal(nonces.header, fields));
    }
}

/// Opens the frames of one direction, in the order in which they arrive.
pub(crate) struct FrameOpener {
    /// `None` in clear.
    keyed: Option<Box<KeyedDirection>>,
    /// What opens the payload behind the header that was opened last.
    payload: Option<PayloadSeal>,
}

struct PayloadSeal {
    nonce: Nonce,
    tag: [u8; TAG_BYTES],
    bytes: usize,
}

impl FrameOpener {
    /// Opens the next header.
    ///
    /// # Errors
    /// `SealBroken` if it is not the one that the peer has sealed next; others if it is no header,
    /// or if the frame before announced a payload that was not opened: who expects requests reads
    /// none. The flow cannot go on then: nobody knows where the next frame begins.
    pub(crate) fn open_header(
        &mut self,
        header: &mut [u8; FRAME_BYTES],
    ) -> Result<Frame, WireError> {
        let Some(direction) = &mut self.keyed else { return Frame::decode(header) };
        if self.payload.is_some() {
            return Err(WireError::Contradiction { field: "a header in the place of a payload" });
        }
        let nonces = direction.next_frame(0);
        let (fields, tag) = header.split_at_mut(FIELDS_BYTES);
        if !direction.open(nonces.header, tag, fields) {
            return Err(WireError::SealBroken);
        }
        tag.fill(0);
        let mut payload_tag = [0; TAG_BYTES];
        payload_tag.swap_with_slice(&mut header[SEAL_FIELD]);
        let frame = Frame::decode_opened(header)?;
        let bytes = payload_bytes(&frame);
        direction.bytes += bytes as u64;
        self.payload =
            (bytes > 0).then_some(PayloadSeal { nonce: nonces.payload, tag: payload_tag, bytes });
        Ok(frame)
    }

    /// Opens the payload behind the header that was opened last. Returns false if it was changed;
    /// its bytes mean nothing then, and the flow can go on.
    ///
    /// # Panics
    /// If no payload is due, or one of another length.
    pub(crate) fn open_payload(&mut self, payload: &mut [u8]) -> bool {
        let Some(direction) = &self.keyed else { return true };
        let due = self.payload.take().expect("a payload follows the header of its frame");
        assert_eq!(payload.len(), due.bytes, "as much as the header says is opened");
        direction.open(due.nonce, &due.tag, payload)
    }
}

/// Key of one direction, and what it has been used for.
struct KeyedDirection {
    wire: WireAgreement,
    secret: TrafficSecret,
    key: LessSafeKey,
    limits: KeyLimits,
    /// Frames so far, under this key and all before it.
    frames: u64,
    /// Those under this key, and their bytes.
    frames_of_key: u64,
    bytes: u64,
}

/// Limits on the use of one key.
#[derive(Clone, Copy)]
struct KeyLimits {
    frames: u64,
    bytes: u64,
}

/// The nonces of one frame. They are moved into the one operation that uses them, and only
/// [`KeyedDirection::next_frame`] makes them, from a number that only grows.
struct FrameNonces {
    header: Nonce,
    payload: Nonce,
}

impl KeyedDirection {
    fn new(secret: TrafficSecret, wire: WireAgreement, limits: KeyLimits) -> KeyedDirection {
        let key = secret.key(wire);
        KeyedDirection { wire, secret, key, limits, frames: 0, frames_of_key: 0, bytes: 0 }
    }

    /// Begins the next frame, under the next key where this one has done enough. Both ends come to
    /// that after the same frame.
    fn next_frame(&mut self, payload_bytes: usize) -> FrameNonces {
        if self.frames_of_key >= self.limits.frames || self.bytes >= self.limits.bytes {
            self.secret = self.secret.next();
            self.key = self.secret.key(self.wire);
            (self.frames_of_key, self.bytes) = (0, 0);
        }
        let number = self.frames;
        self.frames = number.checked_add(1).expect("2⁶⁴ frames are never sent");
        self.frames_of_key += 1;
        self.bytes += (FRAME_BYTES + payload_bytes) as u64;
        FrameNonces { header: nonce(HEADER_PART, number), payload: nonce(PAYLOAD_PART, number) }
    }

    /// Seals `bytes`, and returns the tag.
    fn seal(&self, nonce: Nonce, bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = if self.encrypts() {
            self.key.seal_in_place_separate_tag(nonce, Aad::empty(), bytes)
        } else {
            self.key.seal_in_place_separate_tag(nonce, Aad::from(bytes), &mut [])
        };
        let tag = tag.expect("a frame is far below what a cipher takes at once");
        tag.as_ref().try_into().expect("both ciphers have tags of 16 bytes")
    }

    /// Opens `bytes`. Returns false if they are not what was sealed.
    fn open(&self, nonce: Nonce, tag: &[u8], bytes: &mut [u8]) -> bool {
        if self.encrypts() {
            self.key.open_in_place_separate_tag(nonce, Aad::empty(), tag, bytes).is_ok()
        } else {
            let nothing = &mut [];
            self.key.open_in_place_separate_tag(nonce, Aad::from(&*bytes), tag, nothing).is_ok()
        }
    }

    fn encrypts(&self) -> bool {
        self.wire.level == WireLevel::Sealed
    }
}

impl fmt::Debug for FrameSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.keyed.is_none() { "FrameSealer(clear)" } else { "FrameSealer(…)" })
    }
}

impl fmt::Debug for FrameOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.keyed.is_none() { "FrameOpener(clear)" } else { "FrameOpener(…)" })
    }
}

/// Bytes of payload behind a header.
fn payload_bytes(frame: &Frame) -> usize {
    match frame.kind {
        FrameKind::Data(_) => frame.length as usize,
        FrameKind::Request { .. } | FrameKind::Refuse(_) => 0,
    }
}

fn nonce(part: u8, number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[0] = part;
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

const HEADER_PART: u8 = 0;
const PAYLOAD_PART: u8 = 1;
const TAG_BYTES: usize = 16;

/// Bytes of a header in front of its tag.
const FIELDS_BYTES: usize = FRAME_BYTES - TAG_BYTES;

/// A key seals 2³⁶ bytes (64 GiB, 2³² blocks of AES) and the frame that passes that. An attacker's
/// advantage against GCM grows with the square of the blocks, over 2¹²⁹: 2⁻⁶⁵ here, where RFC 8446
/// (5.5) takes 2⁻⁵⁷ for safe. Every frame is two invocations with a nonce each.
const KEY_LIMITS: KeyLimits = KeyLimits { frames: 1 << 28, bytes: 1 << 36 };

const _: () = assert!(KEY_LIMITS.bytes / 16 <= 1 << 32, "blocks of AES under one key");
const _: () = assert!(KEY_LIMITS.frames <= 1 << 31, "invocations of GCM under one key");
const _: () = assert!(SEAL_FIELD.end <= FIELDS_BYTES && SEAL_FIELD.end - SEAL_FIELD.start == 16);

#[cfg(test)]
mod tests;

//! Header of a data frame: 96 bytes in front of every payload, with their own checksum.
//!
//! A receiver sends a `Request`; the sender answers with the bytes (`Data`) or with a reason
//! (`Refuse`). Every frame names its position in the data space, so frames may arrive in any order
//! over any flow. The header is written into the slack in front of the payload, so that both leave
//! in one send.
//!
//! ```text
//!  0 magic "CEPd"      16 position u64      72 request u32       80 reserved, zero
//!  4 version u8        24 check [32]        76 reason u16        92 CRC-32C of 0..92
//!  5 kind u8           56 seal [16]         78 check kind u8
//!  6 flags u16                              79 zero
//!  8 unread, zero  12 length u32           numbers are little endian
//! ```
//!
//! On a flow that is signed or sealed the last 16 bytes hold the header's own tag instead, and
//! `seal` that of the payload ([`crate::core::seal`]).

use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::limits::LENGTH_MAX;
use super::{Check, WireError};
use crate::core::error::Code;
use crate::core::options::CheckKind;
use crate::core::units::Span;

/// The size of a header on the wire.
pub(crate) const FRAME_BYTES: usize = 96;

/// Where the tag of a protected payload stands in its header.
pub(crate) const SEAL_FIELD: Range<usize> = 56..72;

/// A frame without its payload.
///
/// Invariant: `length` is between 1 and [`LENGTH_MAX`], and `position + length` fits 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    /// Kind of the frame.
    pub(crate) kind: FrameKind,
    /// Number chosen by the requester; the answer repeats it.
    pub(crate) request: u32,
    /// Position of the bytes in the data space.
    pub(crate) position: u64,
    /// Number of bytes requested, sent or refused.
    pub(crate) length: u32,
}

/// Kind of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameKind {
    /// Request for these bytes. A stolen request is served only when no assigned one waits.
    Request {
        /// True if the piece was stolen from another sender's share.
        stolen: bool,
    },
    /// Answer: `length` bytes of payload follow.
    Data(Check),
    /// Answer: the bytes cannot be sent, with the kind of error.
    Refuse(Code),
}

impl Frame {
    /// A frame that speaks of `span`.
    ///
    /// # Panics
    /// If the span is larger than a piece can be.
    pub(crate) fn new(kind: FrameKind, request: u32, span: Span) -> Frame {
        let length = u32::try_from(span.bytes()).expect("a piece is a block at most");
        Frame { kind, request, position: span.start, length }
    }

    /// Writes the header.
    ///
    /// # Panics
    /// If the frame breaks the invariant of its type.
    pub(crate) fn encode(&self, header: &mut [u8; FRAME_BYTES]) {
        check_extent(self.position, self.length).expect("a frame that we send has a valid extent");
        let check = match self.kind {
            FrameKind::Data(check) => check,
            FrameKind::Request { .. } | FrameKind::Refuse(_) => Check::None,
        };
        let mut view = FrameHeader::new_zeroed();
        view.magic = MAGIC;
        view.version = VERSION;
        view.kind = self.kind.number();
        view.length = self.length.into();
        view.position = self.position.into();
        view.check = check.to_field();
        view.check_kind = check.kind() as u8;
        view.request = self.request.into();
        if let FrameKind::Request { stolen: true } = self.kind {
            view.flags = FLAG_SOFT.into();
        }
        if let FrameKind::Refuse(code) = self.kind {
            view.reason = u16::from(code.number()).into();
        }
        view.crc = view.computed_crc().into();
        view.write_to(header).expect("the view has the size of a header");
    }

    /// Reads a header.
    pub(crate) fn decode(header: &[u8; FRAME_BYTES]) -> Result<Frame, WireError> {
        let view: &FrameHeader = zerocopy::transmute_ref!(header);
        view.check_identity()?;
        if view.crc.get() != view.computed_crc() {
            return Err(WireError::HeaderChanged);
        }
        view.typed()
    }

    /// Reads a header that its tag has shown to be the peer's. Both tags are zero here.
    pub(crate) fn decode_opened(header: &[u8; FRAME_BYTES]) -> Result<Frame, WireError> {
        let view: &FrameHeader = zerocopy::transmute_ref!(header);
        view.check_identity()?;
        view.typed()
    }

    /// Returns the range of the frame.
    pub(crate) fn span(&self) -> Span {
        Span::of(self.position, self.length.into())
    }
}

impl FrameKind {
    fn number(self) -> u8 {
        match self {
            FrameKind::Request { .. } => 1,
            FrameKind::Data(_) => 2,
            FrameKind::Refuse(_) => 3,
        }
    }
}

/// Header in its wire format.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FrameHeader {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    /// Bit 1 marks a stolen request. Other bits are refused.
    flags: U16,
    /// Written as zero and not read: earlier nodes of this version write a one.
    unread: U32,
    length: U32,
    position: U64,
    check: [u8; 32],
    /// Tag of a protected payload; zero in clear.
    seal: [u8; 16],
    request: U32,
    reason: U16,
    check_kind: u8,
    reserved: [u8; 13],
    crc: U32,
}

impl FrameHeader {
    /// Checks that this is a frame of this version. It comes before the checksum, so that another
    /// program is distinguished from corruption.
    fn check_identity(&self) -> Result<(), WireError> {
        if self.magic != MAGIC {
            return Err(WireError::Magic { what: "a data frame" });
        }
        if self.version != VERSION {
            let ours = VERSION.into();
            return Err(WireError::Version {
                theirs: self.version.into(),
                ours_min: ours,
                ours_max: ours,
            });
        }
        Ok(())
    }

    /// Returns the frame, if every field is valid and each that its kind does not use is zero.
    fn typed(&self) -> Result<Frame, WireError> {
        if self.flags.get() & !self.known_flags() != 0 {
            return Err(WireError::Unknown {
                field: "the flags of a frame",
                value: self.flags.get().into(),
            });
        }
        if self.seal != [0; 16] || self.reserved != [0; 13] {
            return Err(WireError::Contradiction { field: "a reserved field of a frame" });
        }
        let (position, length) = (self.position.get(), self.length.get());
        check_extent(position, length)?;
        Ok(Frame { kind: self.typed_kind()?, request: self.request.get(), position, length })
    }

    fn known_flags(&self) -> u16 {
        if self.kind == (FrameKind::Request { stolen: true }).number() { FLAG_SOFT } else { 0 }
    }

    fn typed_kind(&self) -> Result<FrameKind, WireError> {
        let check = Check::from_field(CheckKind::of(self.check_kind.into())?, &self.check)?;
        match (self.kind, check, self.reason.get()) {
            (1, Check::None, 0) => {
                Ok(FrameKind::Request { stolen: self.flags.get() & FLAG_SOFT != 0 })
            }
            (2, check, 0) => Ok(FrameKind::Data(check)),
            (3, Check::None, reason) if reason != 0 => {
                Ok(FrameKind::Refuse(Code::of(reason.into())))
            }
            (1..=3, ..) => {
                Err(WireError::Contradiction { field: "the check or the reason of a frame" })
            }
            (kind, ..) => {
                Err(WireError::Unknown { field: "the kind of a frame", value: kind.into() })
            }
        }
    }

    fn computed_crc(&self) -> u32 {
        let bytes = self.as_bytes();
        crc_fast::crc32_iscsi(&bytes[..FRAME_BYTES - size_of::<U32>()])
    }
}

fn check_extent(position: u64, length: u32) -> Result<(), WireError> {
    if length == 0 || position.checked_add(length.into()).is_none() {
        return Err(WireError::Contradiction { field: "the extent of a frame" });
    }
    if length > LENGTH_MAX {
        let field = "the length of a frame";
        return Err(WireError::Limit { field, value: length.into(), limit: LENGTH_MAX.into() });
    }
    Ok(())
}

const MAGIC: [u8; 4] = *b"CEPd";
const VERSION: u8 = 1;
const FLAG_SOFT: u16 = 2;
const _: () = assert!(size_of::<FrameHeader>() == FRAME_BYTES);

#[cfg(test)]
mod tests;

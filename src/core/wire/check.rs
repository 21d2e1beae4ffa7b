//! Check value of a piece: kind and value.

use super::WireError;
use crate::core::options::CheckKind;

impl CheckKind {
    /// Returns the kind with this number on the wire.
    pub(crate) fn of(number: u32) -> Result<CheckKind, WireError> {
        match number {
            0 => Ok(CheckKind::None),
            1 => Ok(CheckKind::Crc64),
            2 => Ok(CheckKind::Blake3),
            _ => Err(WireError::Unknown { field: "the kind of check", value: number.into() }),
        }
    }
}

/// The check of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Check {
    /// Not checked.
    None,
    /// CRC-64/NVME.
    Crc64(u64),
    /// A BLAKE3 chaining value.
    Blake3([u8; 32]),
}

impl Check {
    /// Returns the kind of this check.
    pub(crate) fn kind(&self) -> CheckKind {
        match self {
            Check::None => CheckKind::None,
            Check::Crc64(_) => CheckKind::Crc64,
            Check::Blake3(_) => CheckKind::Blake3,
        }
    }

    /// Returns the value as a field of fixed size: a CRC in the first eight bytes, little endian,
    /// followed by zeros.
    pub(crate) fn to_field(self) -> [u8; 32] {
        let mut field = [0; 32];
        match self {
            Check::None => {}
            Check::Crc64(crc) => field[..8].copy_from_slice(&crc.to_le_bytes()),
            Check::Blake3(value) => field = value,
        }
        field
    }

    /// Returns the check in a field of fixed size. Bytes that a kind does not use must be zero.
    pub(crate) fn from_field(kind: CheckKind, field: &[u8; 32]) -> Result<Check, WireError> {
        let (crc, rest) =
            field.split_first_chunk::<8>().expect("the field is longer than eight bytes");
        let check = match kind {
            CheckKind::None => Check::None,
            CheckKind::Crc64 if rest.iter().all(|byte| *byte == 0) => {
                Check::Crc64(u64::from_le_bytes(*crc))
            }
            CheckKind::Crc64 => return Err(WireError::Contradiction { field: "the check" }),
            CheckKind::Blake3 => Check::Blake3(*field),
        };
        if check == Check::None && field != &[0; 32] {
            return Err(WireError::Contradiction { field: "the check" });
        }
        Ok(check)
    }
}

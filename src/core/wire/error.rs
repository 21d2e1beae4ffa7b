//! Errors in bytes that a peer sent.

use crate::core::error::{Code, Error};

/// Reason why bytes were refused. It names the field, never the bytes: they may be secret, and they
/// may be long.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Too few or too many bytes for the expected structure.
    #[error("{what} has {found} bytes, expected {wanted}")]
    Size { what: &'static str, found: usize, wanted: usize },
    /// The first bytes are not those of cep-fast.
    #[error("not {what} of cep-fast")]
    Magic { what: &'static str },
    /// The two programs share no version of the protocol.
    #[error(
        "the peer's newest protocol version is {theirs}; this side speaks {ours_min} to {ours_max}"
    )]
    Version { theirs: u16, ours_min: u16, ours_max: u16 },
    /// A frame header does not match its own checksum.
    #[error("a frame header was corrupted in transit")]
    HeaderChanged,
    /// A frame of a protected flow is not the one that the peer has sealed next.
    #[error("the seal of a frame is broken: something between the two nodes changed the flow")]
    SealBroken,
    /// A field has an unknown value.
    #[error("{field} has the unknown value {value}")]
    Unknown { field: &'static str, value: u64 },
    /// A field is larger than its limit.
    #[error("{field} is {value}; the limit is {limit}")]
    Limit { field: &'static str, value: u64, limit: u64 },
    /// A required field is missing.
    #[error("{field} is missing")]
    Missing { field: &'static str },
    /// A field contradicts itself or another one.
    #[error("{field} contradicts the rest of its message")]
    Contradiction { field: &'static str },
    /// A message violates its encoding.
    #[error("a control message is malformed")]
    Malformed,
}

impl From<WireError> for Error {
    /// A corrupted header or a broken seal is an integrity error. A peer that does not speak the
    /// protocol counts as unreachable. Anything else was sent by a holder of the key, so it is an
    /// internal error.
    fn from(error: WireError) -> Error {
        let code = match error {
            WireError::HeaderChanged | WireError::SealBroken => Code::Integrity,
            WireError::Magic { .. } | WireError::Version { .. } => Code::Unreachable,
            _ => Code::Internal,
        };
        let converted = Error::new(code, error.to_string());
        match error {
            WireError::Version { .. } => {
                converted.remedy("run the same version of cep-fast on both nodes")
            }
            WireError::Magic { .. } => {
                converted.remedy("check the port: something else may be listening there")
            }
            _ => converted,
        }
    }
}

//! What can be wrong with bytes that a peer sent.

use crate::core::error::{Code, Error};

/// Why bytes were refused. It names the field, never the bytes themselves: they may be secret, and
/// they may be long.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The bytes are too few or too many for what they claim to be.
    #[error("{what} of {found} bytes where {wanted} were expected")]
    Size { what: &'static str, found: usize, wanted: usize },
    /// The first bytes are not ours.
    #[error("not {what} of cep-fast")]
    Magic { what: &'static str },
    /// The two programs share no version of the protocol.
    #[error("protocol version {theirs} where {ours_min} to {ours_max} are spoken")]
    Version { theirs: u16, ours_min: u16, ours_max: u16 },
    /// A frame header does not match its own checksum.
    #[error("a frame header changed on the way")]
    HeaderChanged,
    /// A field holds a value without a meaning.
    #[error("{field} has no meaning for {value}")]
    Unknown { field: &'static str, value: u64 },
    /// A field is larger than its limit.
    #[error("{field} is {value} where {limit} is the limit")]
    Limit { field: &'static str, value: u64, limit: u64 },
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing { field: &'static str },
    /// A field contradicts itself or another one.
    #[error("{field} contradicts the rest of its message")]
    Contradiction { field: &'static str },
    /// A message is not what its encoding allows.
    #[error("a control message is malformed")]
    Malformed,
}

impl From<WireError> for Error {
    /// A header that changed is a matter of integrity. A peer that does not speak our protocol is
    /// as good as not there. Anything else was sent by a holder of the key and is a fault of the
    /// program.
    fn from(error: WireError) -> Error {
        let code = match error {
            WireError::HeaderChanged => Code::Integrity,
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

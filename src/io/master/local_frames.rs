//! Messages over the socket of a transfer on this machine: a length, and the message as the wire
//! has it. The kernel says who is at the other end, so nothing is encrypted.

use crate::core::error::Result;
use crate::core::wire::control;
use crate::core::wire::control::WireMessage;

/// Size of a length.
const LENGTH_BYTES: usize = 4;

/// Encodes a message with its length.
///
/// # Errors
/// It is larger than a message may be.
pub(super) fn framed(message: &impl WireMessage) -> Result<Vec<u8>> {
    let bytes = control::encode(message)?;
    let length = u32::try_from(bytes.len()).expect("the size of a message has a limit");
    Ok([&length.to_le_bytes()[..], &bytes].concat())
}

/// Returns the message at the start of `bytes` once it is whole, or `None`.
///
/// # Errors
/// Its length is above `limit`.
pub(super) fn message(bytes: &[u8], limit: usize) -> std::result::Result<Option<&[u8]>, TooLong> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > limit {
        return Err(TooLong);
    }
    Ok(rest.get(..length))
}

/// A message that is longer than one of its kind.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct TooLong;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::wire::control::{MasterQuery, QueryAnswer};

    #[test]
    fn a_message_comes_whole_or_not_at_all_and_has_a_limit() {
        let answer = QueryAnswer { json: "{}".into() };
        let bytes = framed(&answer).expect("it is small");
        for end in 0..bytes.len() {
            assert_eq!(message(&bytes[..end], 100), Ok(None));
        }
        let whole = message(&bytes, 100).expect("it is short").expect("it is whole");
        assert_eq!(control::decode::<QueryAnswer>(whole).ok(), Some(answer));
        assert_eq!(message(&bytes, 3), Err(TooLong));
        assert_eq!(message(&u32::MAX.to_le_bytes(), 100), Err(TooLong));
        let query = framed(&MasterQuery::Status).expect("it is small");
        assert!(query.len() < 16);
    }
}

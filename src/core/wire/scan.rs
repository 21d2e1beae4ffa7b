//! Scan of an encoded message: counts the list entries that decoding would allocate.
//!
//! In the encoding of control messages, two bytes can stand for an empty list entry of a hundred
//! bytes in memory. So the entries are counted before anything is decoded. Lists are at most one
//! level below the top (`proto` keeps to this). Deeper lists of numbers are packed: each takes no
//! more than eight bytes in memory.

use prost::decode_length_delimiter;

use super::WireError;
use super::limits::{ITEMS_MAX, MESSAGE_BYTES_MAX};

/// Refuses messages that are too large, have too many entries, or whose structure is broken.
pub(crate) fn check(message: &[u8]) -> Result<(), WireError> {
    if message.len() > MESSAGE_BYTES_MAX {
        let (value, limit) = (message.len() as u64, MESSAGE_BYTES_MAX as u64);
        return Err(WireError::Limit { field: "the size of a message", value, limit });
    }
    let mut items = 0;
    let mut top = message;
    while let Some(nested) = next_field(&mut top)? {
        count(&mut items)?;
        // A nested field may look like a message without being one: its entries count, its errors
        // do not.
        let mut rest = nested;
        while let Ok(Some(_)) = next_field(&mut rest) {
            count(&mut items)?;
        }
    }
    Ok(())
}

fn count(items: &mut usize) -> Result<(), WireError> {
    *items += 1;
    if *items > ITEMS_MAX {
        return Err(WireError::Limit {
            field: "the number of list entries",
            value: *items as u64,
            limit: ITEMS_MAX as u64,
        });
    }
    Ok(())
}

/// Skips one field. Returns its bytes if it has a length, else none; `None` at the end.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, WireError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let malformed = |_| WireError::Malformed;
    let tag = decode_length_delimiter(&mut *rest).map_err(malformed)?;
    let (bytes, nested) = match tag & 7 {
        0 => {
            decode_length_delimiter(&mut *rest).map_err(malformed)?;
            (0, false)
        }
        1 => (8, false),
        2 => (decode_length_delimiter(&mut *rest).map_err(malformed)?, true),
        5 => (4, false),
        _ => return Err(WireError::Malformed),
    };
    let (field, behind) = rest.split_at_checked(bytes).ok_or(WireError::Malformed)?;
    *rest = behind;
    Ok(Some(if nested { field } else { &[] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_before_they_cost() {
        let bomb = |entries: usize| {
            let body = [0x0a, 0x00].repeat(entries);
            let mut message = vec![0x0a];
            prost::encode_length_delimiter(body.len(), &mut message)
                .expect("a vector takes any length");
            message.extend(body);
            message
        };
        assert_eq!(check(&bomb(ITEMS_MAX - 1)), Ok(()));
        assert!(matches!(check(&bomb(ITEMS_MAX)), Err(WireError::Limit { .. })));
    }

    #[test]
    fn size_and_structure_are_checked() {
        assert!(matches!(check(&vec![0; MESSAGE_BYTES_MAX + 1]), Err(WireError::Limit { .. })));
        assert_eq!(check(&[0x0a, 0x05, 1, 2]), Err(WireError::Malformed), "shorter than it says");
        assert_eq!(check(&[0x0b]), Err(WireError::Malformed), "groups are not spoken");
        assert_eq!(check(&[0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x08, 0x96, 0x01]), Ok(()));
    }
}

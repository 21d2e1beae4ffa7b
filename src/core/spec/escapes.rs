//! Bytes of names as text: `%` and two hex digits stand for one byte (RFC 3986, section 2.1).

use std::fmt;

use crate::core::units::printable;

/// Decodes a part of a URI.
pub(super) fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = rest.split_first_chunk::<2>().and_then(|(&[high, low], behind)| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some((digit(high)? * 16 + digit(low)?, behind))
        });
        let Some((value, behind)) = digits else {
            return Err("two hex digits after each % (a % itself is written %25)".into());
        };
        bytes.push(u8::try_from(value).expect("two hex digits are a byte"));
        rest = behind;
    }
    Ok(bytes)
}

/// Writes bytes so that [`decoded`] returns them, without any character that a terminal acts on.
pub(super) fn write_encoded(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let spelled = letter.encode_utf8(&mut buffer);
            if letter == '%' || printable(spelled) != *spelled {
                spelled.bytes().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            } else {
                f.write_str(spelled)?;
            }
        }
        chunk.invalid().iter().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
    }
    Ok(())
}

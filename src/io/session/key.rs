//! The secret that both ends of a connection share: 32 bytes, written as 64 hex digits.

use std::fmt;
use std::io::{ErrorKind, Read};

use zeroize::{Zeroize, Zeroizing};

use crate::core::error::{Code, Error, Result};

/// A key. `Debug` does not show it, and its memory is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key([u8; KEY_BYTES]);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Key {
    /// Creates a key from the system's randomness.
    pub(crate) fn generate() -> Result<Key> {
        let mut key = Key([0; KEY_BYTES]);
        let failed =
            |error| Error::new(Code::Internal, format!("the system gives no randomness: {error}"));
        getrandom::fill(&mut key.0).map_err(failed)?;
        Ok(key)
    }

    /// Returns the key that everybody knows. It is for nodes without a key, which only listen on
    /// loopback and refuse processes of other users.
    pub(crate) fn open() -> Key {
        Key(blake3::derive_key("cep-fast 2026 key of nodes on loopback without a key", b""))
    }

    /// Returns true for the key that everybody knows.
    pub(crate) fn is_open(&self) -> bool {
        *self == Key::open()
    }

    /// Creates the key with these bytes.
    pub(crate) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Key {
        Key(bytes)
    }

    /// Parses a key of 64 hex digits, with any white space around them.
    pub(crate) fn from_hex(digits: &[u8]) -> Result<Key> {
        let digits = digits.trim_ascii();
        let mut key = Key([0; KEY_BYTES]);
        if digits.len() != 2 * KEY_BYTES {
            return Err(not_a_key());
        }
        for (byte, pair) in key.0.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Ok(key)
    }

    /// Returns the key as 64 hex digits, for its file or for the standard input of a launched node.
    pub(crate) fn to_hex(&self) -> Zeroizing<String> {
        // Allocated in full: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        for digit in self.0.iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
            text.push(char::from_digit(digit.into(), 16).expect("half a byte is a digit"));
        }
        text
    }

    /// Reads a key that its launcher writes to a process: one line, and no byte beyond that of a
    /// key.
    ///
    /// # Errors
    /// `Code::Refused` if nothing can be read, `Code::Usage` if the line is not a key.
    pub(crate) fn read_line(mut from: impl Read) -> Result<Key> {
        // No copy is left behind.
        let mut text = Zeroizing::new([0; TEXT_BYTES_MAX]);
        let mut length = 0;
        while length < text.len() && !text[..length].contains(&b'\n') {
            let step = LINE_BYTES.max(length + 1);
            match read_some(&mut from, &mut text[length..step])? {
                0 => break,
                bytes => length += bytes,
            }
        }
        Key::from_hex(&text[..length])
    }

    /// Returns the bytes, only for the handshake.
    pub(super) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Reads some bytes of a secret straight to their place; 0 at the end.
pub(super) fn read_some(from: &mut impl Read, to: &mut [u8]) -> Result<usize> {
    loop {
        match from.read(to) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => {
                let failed =
                    |error| Error::new(Code::Refused, format!("the key cannot be read: {error}"));
                return read.map_err(failed);
            }
        }
    }
}

fn hex_value(digit: u8) -> Result<u8> {
    let value = char::from(digit).to_digit(16).ok_or_else(not_a_key)?;
    Ok(u8::try_from(value).expect("a hex digit is below 16"))
}

pub(super) fn not_a_key() -> Error {
    Error::new(Code::Usage, "a key is 64 hex digits").remedy("make one with cep-fast keygen FILE")
}

const KEY_BYTES: usize = 32;
const LINE_BYTES: usize = 2 * KEY_BYTES + 1;

/// Limit on a line: a key and any white space around it.
const TEXT_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn keys_differ_and_do_not_show() {
        let key = Key::generate().unwrap();
        assert_ne!(key, Key::generate().unwrap());
        assert_ne!(key, Key::open());
        assert_eq!(
            Key::from_hex(format!(" {}\n", key.to_hex().to_uppercase()).as_bytes()).unwrap(),
            key
        );
        assert_eq!(format!("{key:?}"), "Key(…)");
    }
}

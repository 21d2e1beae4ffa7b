//! The secret that both ends of a connection share: 32 bytes, kept as 64 hex digits in a file that only its owner reads.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Code, Error, Result};

/// A key. It does not show itself when printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key([u8; KEY_BYTES]);

impl Key {
    /// A key from the system's randomness.
    pub(crate) fn generate() -> Result<Key> {
        let mut bytes = [0; KEY_BYTES];
        let failed = |error| Error::new(Code::Internal, format!("the system gives no randomness: {error}"));
        getrandom::fill(&mut bytes).map_err(failed)?;
        Ok(Key(bytes))
    }

    /// The key that everybody knows. It is for nodes without a key, which listen on loopback only.
    pub(crate) fn open() -> Key {
        Key(blake3::derive_key("cep-fast 2026 key of nodes on loopback without a key", b""))
    }

    /// The key with these bytes.
    pub(crate) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Key {
        Key(bytes)
    }

    /// The key written as 64 hex digits; white space around them does not matter.
    pub(crate) fn from_hex(text: &str) -> Result<Key> {
        let digits = text.trim_ascii().as_bytes();
        let mut bytes = [0; KEY_BYTES];
        if digits.len() != 2 * KEY_BYTES {
            return Err(not_a_key());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Ok(Key(bytes))
    }

    /// The key as 64 hex digits, for its file or for the standard input of a launched node.
    pub(crate) fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads a key file, and insists that nobody but its owner can.
    pub(crate) fn load(path: &Path) -> Result<Key> {
        let failed = |error| file_error(path, &error);
        // The mode is read from the open file, so that nobody can change what is checked before it is read.
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::new(Code::Usage, format!("{} is not a file", path.display())));
        }
        if metadata.mode() & 0o077 != 0 {
            let message = format!("{} is readable by others: mode {:04o}", path.display(), metadata.mode() & 0o7777);
            return Err(Error::new(Code::Refused, message).remedy(format!("chmod 600 {}", path.display())));
        }
        let mut text = String::new();
        let length = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        match length {
            Ok(_) => Key::from_hex(&text).map_err(|error| error.at(path.display())),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(not_a_key().at(path.display())),
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes a new key and its file. A file that exists is left alone: a key may be in use.
    pub(crate) fn keygen(path: &Path) -> Result<Key> {
        let key = Key::generate()?;
        let create = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = create.map_err(|error| file_error(path, &error))?;
        let written = writeln!(file, "{}", key.to_hex()).and_then(|()| file.sync_all());
        written.map_err(|error| file_error(path, &error))?;
        Ok(key)
    }

    /// The bytes, for the handshake alone.
    pub(super) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

fn hex_value(digit: u8) -> Result<u8> {
    let value = char::from(digit).to_digit(16).ok_or_else(not_a_key)?;
    Ok(u8::try_from(value).expect("a hex digit is below 16"))
}

fn not_a_key() -> Error {
    Error::new(Code::Usage, "a key is 64 hex digits").remedy("make one with cep-fast keygen FILE")
}

fn file_error(path: &Path, error: &io::Error) -> Error {
    let code = if error.kind() == ErrorKind::PermissionDenied { Code::Refused } else { Code::Data };
    let converted = Error::new(code, format!("{}: {error}", path.display()));
    match error.kind() {
        ErrorKind::NotFound => converted.remedy("make a key with cep-fast keygen FILE"),
        ErrorKind::AlreadyExists => converted.remedy("choose another name, or remove the old key if nobody uses it"),
        _ => converted,
    }
}

const KEY_BYTES: usize = 32;

/// More than a key and any white space that an editor leaves around it.
const FILE_BYTES_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_made_key_is_loaded_again_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let key = Key::keygen(&path).unwrap();
        assert_eq!(Key::load(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 65);
        let again = Key::keygen(&path).unwrap_err();
        assert_eq!(again.code, Code::Data);
        assert_eq!(Key::load(&path).unwrap(), key, "the old key is still there");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        Key::keygen(&path).unwrap();
        for (mode, fine) in [(0o400, true), (0o640, false), (0o604, false), (0o610, false), (0o600, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let loaded = Key::load(&path);
            assert_eq!(loaded.is_ok(), fine, "{mode:o}");
            if let Err(error) = loaded {
                assert_eq!(error.code, Code::Refused);
                assert!(error.to_string().contains("readable by others") && error.to_string().contains("chmod 600"));
            }
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let contents = [&b"12"[..], b"", &[b'0'; 63], &[b'0'; 65], &[b'g'; 64], &[0xff; 64], &[b'0'; 9000]];
        for content in contents {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert_eq!(Key::load(&path).unwrap_err().code, Code::Usage);
        }
        assert_eq!(Key::load(directory.path()).unwrap_err().code, Code::Usage);
        assert_eq!(Key::load(&directory.path().join("none")).unwrap_err().code, Code::Data);
    }

    #[test]
    fn keys_differ_and_do_not_show() {
        let key = Key::generate().unwrap();
        assert_ne!(key, Key::generate().unwrap());
        assert_ne!(key, Key::open());
        assert_eq!(Key::from_hex(&format!(" {}\n", key.to_hex().to_uppercase())).unwrap(), key);
        assert_eq!(format!("{key:?}"), "Key(…)");
    }
}

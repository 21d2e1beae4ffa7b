//! The secret that both ends of a connection share: 32 bytes, stored as 64 hex digits in a file
//! that only its owner can read.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;
use rustix::fs::{CWD, RenameFlags, renameat_with};
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

    /// Returns the public key. It is for nodes without a key, which only listen on loopback and
    /// refuse processes of other users.
    pub(crate) fn open() -> Key {
        Key(blake3::derive_key("cep-fast 2026 key of nodes on loopback without a key", b""))
    }

    /// Returns true for the public key.
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

    /// Reads a key file. It must belong to this user (or root), and no other user may read it.
    pub(crate) fn load(path: &Path) -> Result<Key> {
        let failed = |error| file_error(path, &error);
        // Opening a named pipe without a writer would block.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        let file = file.map_err(failed)?;
        // Owner and mode are checked on the open file, so that nobody can replace it between check
        // and read. A link to the file is as good as its own name: a user who can change the link
        // cannot choose the contents of a file that belongs to us.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::new(Code::Usage, format!("{} is not a file", path.display()))
                .remedy("name a regular file; cep-fast keygen FILE makes one"));
        }
        if !owners().contains(&metadata.uid()) {
            let message = format!(
                "{} belongs to user {}, who may put any key into it",
                path.display(),
                metadata.uid()
            );
            return Err(Error::new(Code::Refused, message).remedy(format!(
                "chown {} {}",
                geteuid(),
                path.display()
            )));
        }
        if metadata.mode() & 0o077 != 0 {
            let message = format!(
                "{} is readable by others: mode {:04o}",
                path.display(),
                metadata.mode() & 0o7777
            );
            return Err(
                Error::new(Code::Refused, message).remedy(format!("chmod 600 {}", path.display()))
            );
        }
        Key::read(file, HasEnd::File).map_err(|error| error.at(path.display()))
    }

    /// Reads a key that its launcher writes to a process: one line, and no byte beyond that of a
    /// key.
    ///
    /// # Errors
    /// `Code::Refused` if nothing can be read, `Code::Usage` if the line is not a key.
    pub(crate) fn read_line(from: impl Read) -> Result<Key> {
        Key::read(from, HasEnd::Line)
    }

    /// Reads a key without leaving a copy behind.
    fn read(mut from: impl Read, end: HasEnd) -> Result<Key> {
        let mut text = Zeroizing::new([0; TEXT_BYTES_MAX]);
        let mut length = 0;
        while length < text.len() {
            let line = 2 * KEY_BYTES + 1;
            let step = if end == HasEnd::Line { line.max(length + 1) } else { text.len() };
            match from.read(&mut text[length..step]) {
                Ok(0) => break,
                Ok(bytes) => length += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::new(
                        Code::Refused,
                        format!("the key cannot be read: {error}"),
                    ));
                }
            }
            if end == HasEnd::Line && text[..length].contains(&b'\n') {
                break;
            }
        }
        Key::from_hex(&text[..length])
    }

    /// Creates a new key and its file. An existing file is an error: its key may be in use. The
    /// file never exists without a complete key in it.
    pub(crate) fn keygen(path: &Path) -> Result<Key> {
        let failed = |error| file_error(path, &error);
        if fs::symlink_metadata(path).is_ok() {
            return Err(failed(ErrorKind::AlreadyExists.into()));
        }
        let key = Key::generate()?;
        let draft = KeyFileDraft::beside(path).map_err(failed)?;
        draft.fill(&key).and_then(|()| draft.publish(path)).map_err(failed)?;
        Ok(key)
    }

    /// Returns the bytes, only for the handshake.
    pub(super) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// End of a key's text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HasEnd {
    File,
    Line,
}

/// Returns the users who may own a key file: this process's user, and root, who can read everything
/// anyway.
fn owners() -> [u32; 2] {
    [geteuid().as_raw(), 0]
}

/// A key file under a temporary name. It is removed unless it is published.
struct KeyFileDraft {
    path: PathBuf,
}

impl KeyFileDraft {
    /// Creates an empty file that only its owner can read, in the directory of `path`.
    fn beside(path: &Path) -> io::Result<KeyFileDraft> {
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        // Names have at most 255 bytes; this one is much shorter.
        let name: String = name.chars().take(50).collect();
        let draft = KeyFileDraft {
            path: path.with_file_name(format!(".{name}.{:016x}", u64::from_ne_bytes(salt))),
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.path)?;
        // Independent of the umask.
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(draft)
    }

    fn fill(&self, key: &Key) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        let text = key.to_hex();
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    }

    /// Renames the file, unless the name exists by now.
    fn publish(&self, path: &Path) -> io::Result<()> {
        let renamed = renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE);
        match renamed.map_err(|error| Errno::from_raw(error.raw_os_error())) {
            Ok(()) => {}
            // The file system, or a filter of system calls, does not support it: a hard link does
            // not replace a file either.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => fs::hard_link(&self.path, path)?,
            Err(errno) => return Err(errno.into()),
        }
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Not every file system can sync a directory; nothing more can be done.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for KeyFileDraft {
    fn drop(&mut self) {
        // After publication nothing is left here, or only a second name.
        let _ = fs::remove_file(&self.path);
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
        ErrorKind::AlreadyExists => {
            converted.remedy("choose another name, or remove the old key if nobody uses it")
        }
        _ => converted,
    }
}

const KEY_BYTES: usize = 32;

/// Limit on a key's text: a key and any white space that an editor adds.
const TEXT_BYTES_MAX: usize = 4096;

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
        for (mode, fine) in
            [(0o400, true), (0o640, false), (0o604, false), (0o610, false), (0o600, true)]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let loaded = Key::load(&path);
            assert_eq!(loaded.is_ok(), fine, "{mode:o}");
            if let Err(error) = loaded {
                assert_eq!(error.code, Code::Refused);
                assert!(
                    error.to_string().contains("readable by others")
                        && error.to_string().contains("chmod 600")
                );
            }
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let contents =
            [&b"12"[..], b"", &[b'0'; 63], &[b'0'; 65], &[b'g'; 64], &[0xff; 64], &[b'0'; 9000]];
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
        assert_eq!(
            Key::from_hex(format!(" {}\n", key.to_hex().to_uppercase()).as_bytes()).unwrap(),
            key
        );
        assert_eq!(format!("{key:?}"), "Key(…)");
    }
}

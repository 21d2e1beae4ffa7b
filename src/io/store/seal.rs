//! Key that seals journals: random bytes that other users of the machine do not have.
//!
//! A journal vouches for bytes that nobody reads again, so its writer must be certain. Owner and
//! mode of a file are not enough: a service that writes files for many users also writes files
//! whose content others choose. The key is a file of mode 0600 in the user's state directory, made
//! once. Where there is no such directory journals are not sealed. Ownership decides then, and the
//! ranges of a journal are read before they are believed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::{LinkatFlags, User, fsync, geteuid, linkat};
use rustix::fs::{RenameFlags, renameat_with};

use super::destination_path::unlink;
use super::trust::is_regular;

/// Key of this user's journals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealKey([u8; KEY_BYTES]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl SealKey {
    /// Key of the user that this process runs as; `None` where no state directory can hold one.
    #[cfg(not(test))]
    pub(crate) fn of_this_user() -> Option<SealKey> {
        static KEY: std::sync::OnceLock<SealKey> = std::sync::OnceLock::new();
        if let Some(key) = KEY.get() {
            return Some(*key);
        }
        let found = state_directories().find_map(|directory| match SealKey::at(&directory) {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::debug!(
                    "journals are not sealed by a key in {}: {error}",
                    directory.display()
                );
                None
            }
        })?;
        Some(*KEY.get_or_init(|| found))
    }

    /// Unit tests do not touch the state directory of the user who runs them.
    #[cfg(test)]
    #[allow(clippy::unnecessary_wraps, reason = "as above")]
    pub(crate) fn of_this_user() -> Option<SealKey> {
        Some(SealKey([5; KEY_BYTES]))
    }

    /// A key of a test's own.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) const fn of_test(byte: u8) -> SealKey {
        SealKey([byte; KEY_BYTES])
    }

    /// Key in a directory for the state of programs, which is made where it is missing.
    ///
    /// # Errors
    /// If directory or key cannot be made, or another user could have chosen or read them.
    fn at(state: &Path) -> io::Result<SealKey> {
        let path = state.join(DIRECTORY);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = open(&path, flags, Mode::empty())?;
        let about = fstat(&directory)?;
        if about.st_uid != geteuid().as_raw() || about.st_mode & 0o022 != 0 {
            return Err(io::Error::other(
                "the directory is another user's, or others may write to it",
            ));
        }
        match read(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&directory)?;
                read(&directory)
            }
            done => done,
        }
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// State directories of the user's programs: by the environment, and else by the user's entry,
/// because services of a system have no `HOME`.
#[cfg_attr(test, allow(dead_code, reason = "unit tests have a key of their own"))]
fn state_directories() -> impl Iterator<Item = PathBuf> {
    let named = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| of_home(home.as_ref()));
    let entry = || User::from_uid(geteuid()).ok().flatten().map(|user| of_home(&user.dir));
    // The entry is looked up last, because that may ask the network.
    let all = [named, home].into_iter().flatten().chain(std::iter::once_with(entry).flatten());
    all.filter(|path| path.is_absolute())
}

fn of_home(home: &Path) -> PathBuf {
    home.join(".local/state")
}

fn read(directory: &OwnedFd) -> io::Result<SealKey> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(directory, NAME, flags, Mode::empty())?);
    let about = fstat(&file)?;
    if !is_secret(&about) {
        return Err(io::Error::other(
            "the key is no regular file of this user's alone (mode 0600)",
        ));
    }
    let mut bytes = [0; KEY_BYTES];
    file.read_exact(&mut bytes)?;
    Ok(SealKey(bytes))
}

fn is_secret(about: &FileStat) -> bool {
    let has_size = about.st_size == KEY_BYTES as i64;
    is_regular(about)
        && about.st_uid == geteuid().as_raw()
        && about.st_mode & 0o077 == 0
        && has_size
}

/// Makes the key, unless another process is quicker. It gets its name in one step, when it is
/// whole.
fn make(directory: &OwnedFd) -> io::Result<()> {
    let mut random = [0; KEY_BYTES + 8];
    getrandom::fill(&mut random)
        .map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
    let (key, name) = random.split_at(KEY_BYTES);
    let name = format!("{NAME}.{}", blake3::hash(name).to_hex().split_at(16).0);
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file =
        File::from(openat(directory, name.as_str(), flags, Mode::from_bits_truncate(0o600))?);
    let named = file.write_all(key).and_then(|()| file.sync_all()).and_then(|()| {
        let flags = RenameFlags::NOREPLACE;
        let renamed = renameat_with(directory, name.as_str(), directory, NAME, flags);
        match renamed.map_err(|error| Errno::from_raw(error.raw_os_error())) {
            // Network file systems often do not know this flag. A link is refused where the name is
            // taken too.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                Ok(linkat(directory, name.as_str(), directory, NAME, LinkatFlags::empty())?)
            }
            done => Ok(done?),
        }
    });
    // A key that has got its name has lost this one, or has two.
    let _ = unlink(directory, name.as_ref());
    match named {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(fsync(directory)?),
    }
}

const DIRECTORY: &str = "cep-fast";
const NAME: &str = "journal.key";
const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn processes_that_make_the_key_at_once_have_the_same_one() {
        let state = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        let keys: Vec<SealKey> = std::thread::scope(|scope| {
            let make = || {
                start.wait();
                SealKey::at(state.path()).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0] && key.0 != [0; KEY_BYTES]));
        let directory = state.path().join(DIRECTORY);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left");
        assert_eq!(fs::metadata(directory.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(SealKey::at(tempfile::tempdir().unwrap().path()).unwrap(), keys[0]);
    }

    #[test]
    fn a_key_that_others_may_have_read_or_chosen_is_none() {
        let refused = |meddle: &dyn Fn(&Path, &Path)| {
            let state = tempfile::tempdir().unwrap();
            SealKey::at(state.path()).unwrap();
            let directory = state.path().join(DIRECTORY);
            meddle(&directory, &directory.join(NAME));
            SealKey::at(state.path()).unwrap_err();
        };
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        refused(&|_, key| mode(key, 0o640));
        refused(&|directory, _| mode(directory, 0o777));
        refused(&|_, key| fs::write(key, "short").unwrap());
        refused(&|_, key| {
            fs::rename(key, key.with_extension("moved")).unwrap();
            symlink("journal.moved", key).unwrap();
        });
        if geteuid().is_root() {
            refused(&|_, key| chown(key, Some(65_534), None).unwrap());
            refused(&|directory, _| chown(directory, Some(65_534), None).unwrap());
        }
    }
}

//! The directory of the sockets by which a user's own `status` and `cancel` find running transfers.
//!
//! It is `cep-fast` in `$XDG_RUNTIME_DIR`, else `/tmp/cep-fast-UID`. Others may write beside it, so
//! it is opened once and checked by its descriptor: a directory that is no link, of this user, with
//! no rights for others. All that is done in it goes over that descriptor.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// Limit on the entries that are looked at.
const ENTRIES_MAX: usize = 4096;

/// An open directory that only this user can use.
#[derive(Debug)]
pub(super) struct PrivateDirectory(OwnedFd);

/// A place where such a directory may be.
struct DirectoryLocation {
    parent: PathBuf,
    name: OsString,
    /// The parent has to be this user's alone.
    has_own_parent: bool,
}

impl PrivateDirectory {
    /// Opens the directory, which is made if it is not there.
    ///
    /// # Errors
    /// A phrase for each place that cannot be used.
    pub(super) fn make() -> Result<PrivateDirectory, String> {
        let runtime = runtime_directory().map(runtime_location);
        let mut why = Vec::new();
        for location in runtime.into_iter().chain([temporary_location()]) {
            match location.open(true) {
                Ok(directory) => return Ok(directory),
                Err(error) => why.push(error),
            }
        }
        Err(why.join("; "))
    }

    /// Opens all directories in which transfers of this user may be found. Those that are not there
    /// or are not to be trusted are left out: a transfer would not use them either.
    pub(super) fn all() -> Vec<PrivateDirectory> {
        let of_session = PathBuf::from(format!("/run/user/{}", geteuid()));
        let mut places: Vec<PathBuf> =
            runtime_directory().into_iter().chain([of_session]).collect();
        places.dedup();
        let locations = places.into_iter().map(runtime_location).chain([temporary_location()]);
        locations.filter_map(|location| location.open(false).ok()).collect()
    }

    /// Returns a path to an entry that leads through this descriptor, wherever the directory is. It
    /// is short, as the address of a socket has to be.
    pub(super) fn path(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string()).join(name)
    }

    /// Returns the names of the sockets in it.
    pub(super) fn sockets(&self) -> Vec<OsString> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let listed = openat(&self.0, ".", flags, Mode::empty()).and_then(Dir::from_fd);
        let Ok(mut listed) = listed else { return Vec::new() };
        let names = listed.iter().filter_map(Result::ok).take(ENTRIES_MAX);
        let names = names.map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()));
        let mut names: Vec<OsString> = names.filter(|name| self.is_socket(name)).collect();
        names.sort();
        names
    }

    /// Gives an entry another name.
    pub(super) fn rename(&self, from: &OsStr, to: &OsStr) -> nix::Result<()> {
        renameat(&self.0, from, &self.0, to)
    }

    /// Removes an entry.
    pub(super) fn remove(&self, name: &OsStr) {
        // It may be gone already, which is as good.
        let _ = unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir);
    }

    /// Returns true if an entry is older than `age`.
    pub(super) fn is_older(&self, name: &OsStr, age: Duration) -> bool {
        let Some(stat) = self.stat(name) else { return false };
        let made = SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
        made.elapsed().is_ok_and(|elapsed| elapsed > age)
    }

    fn is_socket(&self, name: &OsStr) -> bool {
        self.stat(name).is_some_and(|stat| kind(&stat) == SFlag::S_IFSOCK)
    }

    fn stat(&self, name: &OsStr) -> Option<FileStat> {
        fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }
}

impl DirectoryLocation {
    /// Opens the directory, and checks it.
    fn open(&self, makes: bool) -> Result<PrivateDirectory, String> {
        let path = self.parent.join(&self.name);
        let failed = |what: &dyn Display| format!("{}: {what}", path.display());
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let parent =
            openat(AT_FDCWD, &self.parent, flags, Mode::empty()).map_err(|error| failed(&error))?;
        if self.has_own_parent && !is_private(&parent, 0o022) {
            return Err(failed(&"the directory above belongs to, or is writable by, others"));
        }
        if makes {
            match mkdirat(&parent, self.name.as_os_str(), Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        let flags = flags | OFlag::O_NOFOLLOW;
        let opened = openat(&parent, self.name.as_os_str(), flags, Mode::empty())
            .map_err(|error| failed(&error))?;
        if !is_private(&opened, 0o077) {
            return Err(failed(&"it belongs to, or is open to, other users"));
        }
        if !Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).exists() {
            return Err(failed(&"/proc is not there to reach it by"));
        }
        Ok(PrivateDirectory(opened))
    }
}

/// Returns true if a directory belongs to this user and gives others none of the rights in `bits`.
fn is_private(directory: &OwnedFd, bits: u32) -> bool {
    fstat(directory).is_ok_and(|stat| stat.st_uid == geteuid().as_raw() && stat.st_mode & bits == 0)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Returns the directory that the session gives to this user, if it does.
fn runtime_directory() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)?;
    given.is_absolute().then_some(given)
}

fn runtime_location(parent: PathBuf) -> DirectoryLocation {
    DirectoryLocation {
        parent: fs::canonicalize(&parent).unwrap_or(parent),
        name: "cep-fast".into(),
        has_own_parent: true,
    }
}

fn temporary_location() -> DirectoryLocation {
    let name = format!("cep-fast-{}", geteuid());
    DirectoryLocation { parent: "/tmp".into(), name: name.into(), has_own_parent: false }
}

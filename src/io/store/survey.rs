//! Facts about paths before a transfer: what can be read, where something can be made, and whether
//! two nodes see one directory.
//!
//! The size in a file's inode is not reliable: it is 0 for a device, a pipe and the files of /proc,
//! and a page for those of /sys.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::{self, FsType, fstatfs};

use super::destination_path::{is_kind, no_directory, unlink};
use super::fault::fault;
use super::open::identity;
use super::root::{DIRECTORY, StoreRoot};
use super::roots::StoreRoots;
use crate::core::error::{Code, Error, Result};

/// A file that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SourceFacts {
    pub(crate) bytes: u64,
    pub(crate) modified_seconds: i64,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
}

/// A place where a file can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DestinationFacts {
    pub(crate) is_directory: bool,
    /// Device and inode of the file there.
    pub(crate) identity: Option<(u64, u64)>,
}

/// Examines the file that `path` leads to.
///
/// # Errors
/// `Refused` where it may not be read; `Data` for a file that is missing, unreadable, or neither a
/// regular file nor a block device, and for a file that the kernel generates when it is read.
pub(crate) fn survey_source(roots: &StoreRoots, path: &Path) -> Result<SourceFacts> {
    let root = roots.to_read(path)?;
    let open = |flags| root.try_open(path, flags, Mode::empty())?.map_err(unreadable);
    // Examined before it is opened: opening a pipe would wait for its writer, and opening a device
    // may have side effects.
    let about = fstat(open(OFlag::O_PATH)?).map_err(unreadable)?;
    if let Some(error) = unfit(&about) {
        return Err(error);
    }
    let is_device = is_kind(&about, SFlag::S_IFBLK);
    if is_device {
        root.check_device(path)?;
    }
    let opened = open(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let now = fstat(&opened).map_err(unreadable)?;
    if identity(&now) != identity(&about) {
        return Err(
            Error::new(Code::Data, "was replaced while it was looked at").remedy("copy it again")
        );
    }
    let mut file = File::from(opened);
    let bytes = if is_device {
        file.seek(SeekFrom::End(0)).map_err(|error| cannot_be_read(&error))?
    } else {
        believable(&mut file, u64::try_from(now.st_size).unwrap_or(0))?
    };
    Ok(SourceFacts { bytes, modified_seconds: about.st_mtime, identity: identity(&about) })
}

/// Examines what is at `path`, and whether something can be made there.
///
/// # Errors
/// `Refused` where it may not be written; `Data` where its directory is missing.
pub(crate) fn survey_destination(roots: &StoreRoots, path: &Path) -> Result<DestinationFacts> {
    let root = roots.to_write(path)?;
    match root.try_open(path, DIRECTORY, Mode::empty())? {
        Ok(_) => return Ok(DestinationFacts { is_directory: true, identity: None }),
        Err(Errno::ENOENT | Errno::ENOTDIR) => {}
        Err(errno) => return Err(fault(errno, path, "entered")),
    }
    if let Some(parent) = path.parent() {
        let _ = directory(root, parent)?;
    }
    let there = root.try_open(path, OFlag::O_PATH, Mode::empty());
    let about = there.ok().and_then(nix::Result::ok).and_then(|file| fstat(file).ok());
    Ok(DestinationFacts { is_directory: false, identity: about.map(|about| identity(&about)) })
}

/// An empty file in a directory, by which other nodes find out that they see the same directory.
/// Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct DirectoryToken {
    directory: OwnedFd,
    name: OsString,
}

impl DirectoryToken {
    /// Makes a token in the directory at `path`.
    ///
    /// # Errors
    /// `Refused` where it may not be written; `Data` where the system refuses.
    pub(crate) fn make(
        roots: &StoreRoots,
        path: &Path,
        token: &[u8; 16],
    ) -> Result<DirectoryToken> {
        let (directory, name) = (directory(roots.to_write(path)?, path)?, token_name(token));
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&directory, name.as_os_str(), flags, Mode::from_bits_truncate(0o600))
            .map_err(|errno| fault(errno, path, "written to"))?;
        Ok(DirectoryToken { directory, name })
    }

    /// Removes a token from the directory at `path`, before its owner is dropped.
    ///
    /// # Errors
    /// Those of [`DirectoryToken::make`].
    pub(crate) fn remove(roots: &StoreRoots, path: &Path, token: &[u8; 16]) -> Result<()> {
        let directory = directory(roots.to_write(path)?, path)?;
        unlink(&directory, &token_name(token)).map_err(|errno| fault(errno, path, "written to"))
    }

    /// Returns true if a token is in the directory at `path`.
    ///
    /// # Errors
    /// Those of [`DirectoryToken::make`].
    pub(crate) fn is_there(roots: &StoreRoots, path: &Path, token: &[u8; 16]) -> Result<bool> {
        let directory = directory(roots.to_write(path)?, path)?;
        match fstatat(&directory, token_name(token).as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(is_kind(&about, SFlag::S_IFREG)),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(fault(errno, path, "entered")),
        }
    }
}

impl Drop for DirectoryToken {
    fn drop(&mut self) {
        // A removal that fails has no one to tell, and nobody else looks for this token.
        let _ = unlink(&self.directory, &self.name);
    }
}

fn token_name(token: &[u8; 16]) -> OsString {
    let digits: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(".cep-{digits}.here").into()
}

fn directory(root: &StoreRoot, path: &Path) -> Result<OwnedFd> {
    let opened = root.try_open(path, DIRECTORY, Mode::empty())?;
    opened.map_err(|errno| match errno {
        Errno::ENOENT => no_directory(path),
        other => fault(other, path, "entered"),
    })
}

/// Returns the size of a regular file, if it is reliable.
fn believable(file: &mut File, bytes: u64) -> Result<u64> {
    let kind = fstatfs(file.as_fd()).ok().map(|about| about.filesystem_type());
    if kind.is_some_and(|kind| MADE_UP.contains(&kind)) {
        return Err(made_up());
    }
    if bytes == 0 {
        return match read_one(file) {
            Ok(0) => Ok(0),
            // It has bytes, or would have some later.
            Ok(_) => Err(made_up()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(made_up()),
            Err(error) => Err(cannot_be_read(&error)),
        };
    }
    Ok(bytes)
}

fn read_one(file: &mut File) -> io::Result<usize> {
    loop {
        match file.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn unreadable(errno: Errno) -> Error {
    cannot_be_read(&io::Error::from(errno))
}

fn cannot_be_read(error: &io::Error) -> Error {
    Error::new(Code::Data, format!("cannot be read: {error}"))
        .remedy("check the path and its permissions")
}

/// Returns the error for a file of a kind that has no size.
fn unfit(about: &FileStat) -> Option<Error> {
    let kind = SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT;
    let (what, remedy) = match kind {
        SFlag::S_IFREG | SFlag::S_IFBLK => return None,
        SFlag::S_IFDIR => ("is a directory", "copy its files one by one, or pack them first"),
        SFlag::S_IFIFO => ("is a pipe, whose bytes come once and whose end nobody knows", SAVE_IT),
        SFlag::S_IFSOCK => ("is a socket", "name a regular file or a block device"),
        _ => (
            "is a character device, which has no size",
            "save what is wanted of it first (head -c BYTES SRC > FILE)",
        ),
    };
    Some(Error::new(Code::Data, what).remedy(remedy))
}

/// Refuses what a descriptor of this process leads to, by its kind: `/dev/stdin` may be a pipe.
///
/// # Errors
/// `Data`, as [`survey_source`].
pub(crate) fn check_kind(file: &File) -> Result<()> {
    fstat(file).map_err(unreadable).and_then(|about| unfit(&about).map_or(Ok(()), Err))
}

fn made_up() -> Error {
    Error::new(Code::Data, "is made by the kernel as it is read, and its size is not known")
        .remedy(SAVE_IT)
}

const SAVE_IT: &str = "save what it gives in a regular file first (cat SRC > FILE), and copy that";

/// File systems whose files are generated when they are read, regardless of their sizes.
const MADE_UP: [FsType; 10] = [
    statfs::PROC_SUPER_MAGIC,
    statfs::SYSFS_MAGIC,
    statfs::DEBUGFS_MAGIC,
    statfs::TRACEFS_MAGIC,
    statfs::SECURITYFS_MAGIC,
    statfs::CGROUP_SUPER_MAGIC,
    statfs::CGROUP2_SUPER_MAGIC,
    statfs::BPF_FS_MAGIC,
    statfs::SELINUX_MAGIC,
    // CONFIGFS_MAGIC of linux/magic.h, which the library lacks.
    FsType(0x6265_6570),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn whole() -> StoreRoots {
        StoreRoots::of(Path::new("/")).unwrap()
    }

    #[test]
    fn what_has_no_size_is_refused_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let cases = [
            (at("fifo"), "is a pipe"),
            (at("socket"), "is a socket"),
            ("/dev/zero".into(), "is a character device"),
            (folder.path().into(), "is a directory"),
            ("/proc/self/status".into(), "made by the kernel"),
            ("/sys/kernel/mm/transparent_hugepage/enabled".into(), "made by the kernel"),
            (at("nothing"), "cannot be read"),
        ];
        for (path, expected) in
            cases.into_iter().filter(|(path, _)| !path.starts_with("/sys") || path.exists())
        {
            let error = survey_source(&whole(), &path).unwrap_err();
            assert_eq!(error.code, Code::Data, "{}", path.display());
            assert!(error.message.contains(expected), "{}: {error}", path.display());
            assert!(error.remedy.is_some(), "{}", path.display());
        }
    }

    #[test]
    fn regular_files_have_their_sizes_and_empty_ones_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("empty"), "").unwrap();
        fs::write(at("three"), "abc").unwrap();
        std::os::unix::fs::symlink(at("three"), at("link")).unwrap();
        let facts = |name: &str| survey_source(&whole(), &at(name)).unwrap();
        for (name, bytes) in [("empty", 0), ("three", 3), ("link", 3)] {
            assert_eq!(facts(name).bytes, bytes, "{name}");
        }
        assert_eq!(facts("link"), facts("three"));
        let there = survey_destination(&whole(), &at("link")).unwrap();
        assert_eq!(there.identity, Some(facts("three").identity));
    }

    #[test]
    fn a_destination_is_a_directory_or_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "x").unwrap();
        fs::create_dir(at("d")).unwrap();
        std::os::unix::fs::symlink(at("d"), at("link")).unwrap();
        let facts = |name: &str| survey_destination(&whole(), &at(name));
        for (name, is_directory) in
            [("d", true), ("link", true), ("d/", true), ("file", false), ("new", false)]
        {
            assert_eq!(facts(name).unwrap().is_directory, is_directory, "{name}");
        }
        for (name, said) in [("missing/x", "missing"), ("file/x", "not a directory")] {
            let error = facts(name).unwrap_err();
            assert!(error.code == Code::Data && error.message.contains(said), "{name}: {error}");
        }
    }

    #[test]
    fn a_token_is_seen_in_its_directory_alone_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&one, folder.path().join("link")).unwrap();
        let token = DirectoryToken::make(&whole(), &one, &[7; 16]).unwrap();
        let is_there = |path: &Path| DirectoryToken::is_there(&whole(), path, &[7; 16]).unwrap();
        assert!(is_there(&one) && is_there(&folder.path().join("link")) && !is_there(&other));
        drop(token);
        assert!(!is_there(&one));
        let token = DirectoryToken::make(&whole(), &one, &[7; 16]).unwrap();
        DirectoryToken::remove(&whole(), &one, &[7; 16]).unwrap();
        assert!(!is_there(&one));
        drop(token);
        assert_eq!(fs::read_dir(&one).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_told_of_what_lies_out_of_the_roots() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", folder.path().join("root/link")).unwrap();
        let roots = StoreRoots::of(&folder.path().join("root")).unwrap();
        for path in ["/../secret", "/link", "/../nothing"] {
            assert_eq!(survey_source(&roots, Path::new(path)).unwrap_err().code, Code::Refused);
        }
        for path in ["/../secret", "/../d/x"] {
            let error = survey_destination(&roots, Path::new(path)).unwrap_err();
            assert_eq!(error.code, Code::Refused);
        }
    }
}

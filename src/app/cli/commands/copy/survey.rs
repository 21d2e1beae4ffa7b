//! Size of a file, verified before the copy.
//!
//! The size in a file's inode is not reliable: it is 0 for a device, a pipe and the files of /proc,
//! and a page for those of /sys.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;
use nix::sys::statfs::{self, FsType, fstatfs};

use crate::core::error::{Code, Error, Result};

/// Size and time of a file before it is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileSurvey {
    pub(super) bytes: u64,
    /// Whole seconds: tools that preserve the time of a copy often keep no more.
    pub(super) modified_seconds: i64,
}

/// Examines the file that `path` leads to.
///
/// # Errors
/// `Data` for a file that is missing, unreadable, or neither a regular file nor a block device, and
/// for a file that the kernel generates when it is read.
pub(super) fn of(path: &Path) -> Result<FileSurvey> {
    let cannot = |error: io::Error| {
        Error::new(Code::Data, format!("cannot be read: {error}"))
            .remedy("check the path and its permissions")
    };
    // Examined before it is opened: opening a pipe would wait for its writer, and opening a device
    // may have side effects.
    let about = fs::metadata(path).map_err(cannot)?;
    let kind = about.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(refused(kind));
    }
    let mut file = open(path).map_err(cannot)?;
    let opened = file.metadata().map_err(cannot)?;
    if (opened.dev(), opened.ino()) != (about.dev(), about.ino()) {
        return Err(
            Error::new(Code::Data, "was replaced while it was looked at").remedy("copy it again")
        );
    }
    let bytes = if kind.is_block_device() {
        file.seek(SeekFrom::End(0)).map_err(cannot)?
    } else {
        believable(&mut file, opened.len())?
    };
    Ok(FileSurvey { bytes, modified_seconds: about.mtime() })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
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
            Err(error) => Err(Error::new(Code::Data, format!("cannot be read: {error}"))
                .remedy("check the path and its permissions")),
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

fn refused(kind: fs::FileType) -> Error {
    let (what, remedy) = if kind.is_dir() {
        ("is a directory", "copy its files one by one, or pack them first")
    } else if kind.is_fifo() {
        ("is a pipe, whose bytes come once and whose end nobody knows", SAVE_IT)
    } else if kind.is_socket() {
        ("is a socket", "name a regular file or a block device")
    } else {
        (
            "is a character device, which has no size",
            "save what is wanted of it first (head -c BYTES SRC > FILE)",
        )
    };
    Error::new(Code::Data, what).remedy(remedy)
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
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_has_no_size_is_refused_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
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
            let error = of(&path).unwrap_err();
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
        for (name, bytes) in [("empty", 0), ("three", 3), ("link", 3)] {
            assert_eq!(of(&at(name)).unwrap().bytes, bytes, "{name}");
        }
    }
}

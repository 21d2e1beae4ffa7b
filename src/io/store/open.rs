//! Descriptors of one open file: one through the page cache, and one past it where that is
//! possible.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use crate::core::store::io_steps::PAGE_BYTES;

/// One open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    buffered: Arc<OwnedFd>,
    direct: Option<Arc<OwnedFd>>,
}

impl OpenFile {
    /// A file, and a second descriptor of it with `O_DIRECT` that `reopen_direct` opens.
    ///
    /// There is none where the file system refuses it, and where it is of another file because the
    /// name changed hands in between.
    pub(super) fn new(
        buffered: OwnedFd,
        reopen_direct: impl FnOnce() -> Option<OwnedFd>,
    ) -> OpenFile {
        // Files of a tmpfs are the page cache: its O_DIRECT saves nothing and would cost three
        // operations for one.
        let in_memory =
            fstatfs(&buffered).is_ok_and(|about| about.filesystem_type() == TMPFS_MAGIC);
        let direct = if in_memory {
            None
        } else {
            reopen_direct().filter(|other| same_file(&buffered, other))
        };
        OpenFile { buffered: Arc::new(buffered), direct: direct.map(Arc::new) }
    }

    /// A file in memory.
    pub(super) fn in_memory(buffered: OwnedFd) -> OpenFile {
        OpenFile { buffered: Arc::new(buffered), direct: None }
    }

    /// The descriptor for reads and writes of any alignment.
    pub(crate) fn buffered(&self) -> BorrowedFd<'_> {
        self.buffered.as_fd()
    }

    /// The descriptor opened with `O_DIRECT`, where the file system has that.
    pub(crate) fn direct(&self) -> Option<BorrowedFd<'_>> {
        self.direct.as_ref().map(AsFd::as_fd)
    }

    /// Both descriptors. The file is closed with the last of their owners.
    pub(crate) fn share(&self) -> (Arc<OwnedFd>, Option<Arc<OwnedFd>>) {
        (Arc::clone(&self.buffered), self.direct.clone())
    }

    /// Alignment of direct I/O in the file and in memory, in bytes; `None` where there is none.
    ///
    /// A page satisfies every file system with direct I/O whose blocks are no larger than a page.
    pub(crate) fn direct_alignment(&self) -> Option<usize> {
        self.direct.as_ref().map(|_| PAGE_BYTES)
    }
}

/// Device and inode of a file.
pub(super) fn identity(about: &FileStat) -> (u64, u64) {
    (about.st_dev, about.st_ino)
}

/// Clears `O_NONBLOCK` of a file that was opened with it: rings would fail reads and writes that
/// have to wait.
pub(super) fn let_wait(file: impl AsFd) -> nix::Result<()> {
    let file = file.as_fd();
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK)).map(drop)
}

/// Repeats a call that a signal interrupted.
pub(super) fn retried<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

fn same_file(one: &OwnedFd, other: &OwnedFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => identity(&one) == identity(&other),
        _ => false,
    }
}

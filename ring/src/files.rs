//! The files that a ring works on, by typed name.
//!
//! A file descriptor is a number that the next `open` may reuse. A [`FileId`] carries a generation as well, so that a
//! name used after its file was closed is noticed instead of reaching a stranger's file.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

/// The name of a file registered with a ring. It means nothing to another ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    index: u32,
    generation: u32,
}

impl FileId {
    /// The place in the ring's table, and so in the kernel's.
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

/// A table of files, allocated once.
///
/// Invariant: an index is on the free list exactly if its entry has no file.
#[derive(Debug)]
pub(crate) struct FileTable {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    /// Grows each time the entry loses its file.
    generation: u32,
    file: Option<OwnedFd>,
}

const INT_BYTES: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

impl FileTable {
    pub(crate) fn new(capacity: u32) -> Self {
        let entries = (0..capacity).map(|_| Entry { generation: 0, file: None }).collect();
        Self { entries, free: (0..capacity).rev().collect() }
    }

    /// Takes a file in; `ENFILE` if the table is full.
    pub(crate) fn insert(&mut self, file: OwnedFd) -> Result<FileId, Errno> {
        let index = self.free.pop().ok_or(Errno::ENFILE)?;
        let entry = &mut self.entries[index as usize];
        entry.file = Some(file);
        Ok(FileId { index, generation: entry.generation })
    }

    /// Gives a file back; `EBADF` if the name is stale.
    pub(crate) fn remove(&mut self, id: FileId) -> Result<OwnedFd, Errno> {
        let entry = self.entries.get_mut(id.index as usize).filter(|entry| entry.generation == id.generation);
        let entry = entry.ok_or(Errno::EBADF)?;
        let file = entry.file.take().ok_or(Errno::EBADF)?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.index);
        Ok(file)
    }

    /// Makes room for `bytes` unread; see [`crate::Io::widen`].
    pub(crate) fn widen(&self, id: FileId, bytes: usize) -> Result<usize, Errno> {
        // Linux widens the buffer to twice a low-water mark that would not fit, without taking it out of its own
        // management as SO_RCVBUF would.
        self.wake_at(id, bytes)?;
        self.wake_at(id, 1)?;
        Ok(getsockopt(&self.fd(id)?, sockopt::RcvBuf)? / 6)
    }

    /// Sets how many bytes wake a receiver; see [`crate::Io::wake_at`].
    pub(crate) fn wake_at(&self, id: FileId, bytes: usize) -> Result<(), Errno> {
        let bytes = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        let (fd, value) = (self.fd(id)?.as_raw_fd(), (&raw const bytes).cast());
        // SAFETY: the descriptor is open for as long as this table holds it, and `value` points to an int that outlives
        // the call, as SO_RCVLOWAT wants it.
        let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, INT_BYTES) };
        Errno::result(result).map(drop)
    }

    /// Borrows a file; `EBADF` if the name is stale.
    pub(crate) fn fd(&self, id: FileId) -> Result<BorrowedFd<'_>, Errno> {
        let entry = self.entries.get(id.index as usize).filter(|entry| entry.generation == id.generation);
        entry.and_then(|entry| entry.file.as_ref()).map(AsFd::as_fd).ok_or(Errno::EBADF)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::{Errno, FileTable, OwnedFd};

    fn file() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_stale_name_is_noticed() {
        let mut table = FileTable::new(1);
        let first = table.insert(file()).unwrap();
        assert!(table.fd(first).is_ok());
        table.remove(first).unwrap();
        let second = table.insert(file()).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.fd(first).unwrap_err(), Errno::EBADF);
        assert_eq!(table.remove(first).unwrap_err(), Errno::EBADF);
        assert!(table.fd(second).is_ok());
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = FileTable::new(1);
        let id = table.insert(file()).unwrap();
        assert_eq!(table.insert(file()).unwrap_err(), Errno::ENFILE);
        table.remove(id).unwrap();
        assert!(table.insert(file()).is_ok());
    }
}

//! Files of a ring, by typed id.
//!
//! A file descriptor is a number that the next `open` may reuse. A [`FileId`] has a generation as
//! well, so that an id used after its file was closed is an error instead of reaching another file.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::uio::pread;

use crate::slots::PAGE_BYTES;

/// Id of a file registered with a ring. It is only valid for this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    index: u32,
    generation: u32,
}

/// State of a range of a file in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedPages {
    /// All of it is cached.
    Whole,
    /// Not all of it is cached, and some cached pages are dirty: a direct read would have to wait
    /// for their writeback.
    Dirty,
    /// Not all of it is cached, perhaps nothing; no page is dirty.
    Clean,
}

impl FileId {
    /// Returns the index in the ring's table, and so in the kernel's.
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

/// A table of files, allocated once. It grows if more are open than its initial capacity.
///
/// Invariant: an index is on the free list exactly if its entry has no file.
#[derive(Debug)]
pub(crate) struct FileTable {
    entries: Vec<FileEntry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct FileEntry {
    /// Grows each time the entry loses its file.
    generation: u32,
    file: Option<Arc<OwnedFd>>,
}

/// Default limit on the descriptors of a process (`fs.nr_open`).
const FILES_MAX: u32 = 1 << 20;

/// Size of the value of a socket option that is an int.
pub(crate) const INT_BYTES: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

impl FileTable {
    pub(crate) fn new(capacity: u32) -> Self {
        let entries = (0..capacity).map(|_| FileEntry { generation: 0, file: None }).collect();
        Self { entries, free: (0..capacity).rev().collect() }
    }

    /// Adds a file; `ENFILE` beyond the limit of open files.
    pub(crate) fn insert(&mut self, file: Arc<OwnedFd>) -> Result<FileId, Errno> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let next = u32::try_from(self.entries.len()).ok().filter(|next| *next < FILES_MAX);
                let next = next.ok_or(Errno::ENFILE)?;
                self.entries.push(FileEntry { generation: 0, file: None });
                next
            }
        };
        let entry = &mut self.entries[index as usize];
        entry.file = Some(file);
        Ok(FileId { index, generation: entry.generation })
    }

    /// Removes and returns a file; `EBADF` if the id is stale.
    pub(crate) fn remove(&mut self, id: FileId) -> Result<Arc<OwnedFd>, Errno> {
        let entry = self
            .entries
            .get_mut(id.index as usize)
            .filter(|entry| entry.generation == id.generation);
        let entry = entry.ok_or(Errno::EBADF)?;
        let file = entry.file.take().ok_or(Errno::EBADF)?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.index);
        Ok(file)
    }

    /// Makes room for `bytes` unread; see [`crate::RingIo::set_recv_buffer`].
    pub(crate) fn set_recv_buffer(&self, id: FileId, bytes: usize) -> Result<usize, Errno> {
        // Linux grows the buffer to twice a low-water mark that would not fit, without disabling
        // autotuning as SO_RCVBUF would.
        self.set_recv_lowat(id, bytes)?;
        self.set_recv_lowat(id, 1)?;
        Ok(getsockopt(&self.fd(id)?, sockopt::RcvBuf)? / 6)
    }

    /// Sets the low-water mark of receives; see [`crate::RingIo::set_recv_lowat`].
    pub(crate) fn set_recv_lowat(&self, id: FileId, bytes: usize) -> Result<(), Errno> {
        self.set_bytes(id, (libc::SOL_SOCKET, libc::SO_RCVLOWAT), bytes)
    }

    /// Sets the low-water mark of unsent bytes; see [`crate::RingIo::set_notsent_lowat`].
    pub(crate) fn set_notsent_lowat(&self, id: FileId, bytes: usize) -> Result<(), Errno> {
        self.set_bytes(id, (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT), bytes)
    }

    /// Reads the path of a connection; see [`crate::RingIo::path`].
    pub(crate) fn path(&self, id: FileId) -> Result<TcpPath, Errno> {
        let fd = self.fd(id)?.as_raw_fd();
        let mut info = [0_u8; TCP_INFO_BYTES];
        let mut bytes = TCP_INFO_BYTES as libc::socklen_t;
        let (into, length) = (info.as_mut_ptr().cast(), &raw mut bytes);
        // SAFETY: the descriptor is open for as long as this table holds it; the kernel writes no
        // more than `bytes` bytes into an array that has as many, and both outlive the call.
        let result =
            unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, into, length) };
        Errno::result(result)?;
        TcpPath::new(&info[..(bytes as usize).min(TCP_INFO_BYTES)]).ok_or(Errno::ENOTSUP)
    }

    fn set_bytes(
        &self,
        id: FileId,
        (level, name): (libc::c_int, libc::c_int),
        bytes: usize,
    ) -> Result<(), Errno> {
        let bytes = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        let (fd, value) = (self.fd(id)?.as_raw_fd(), (&raw const bytes).cast());
        // SAFETY: the descriptor is open for as long as this table holds it, and `value` points to
        // an int that outlives the call, as the options that count bytes want it.
        let result = unsafe { libc::setsockopt(fd, level, name, value, INT_BYTES) };
        Errno::result(result).map(drop)
    }

    /// Returns the cache state of a range; see [`crate::RingIo::cachestat`].
    pub(crate) fn cachestat(
        &self,
        id: FileId,
        offset: u64,
        bytes: usize,
    ) -> Result<CachedPages, Errno> {
        let range = CachestatRange { offset, bytes: bytes as u64 };
        let mut found = Cachestat::default();
        let (fd, range, into) = (self.fd(id)?.as_raw_fd(), &raw const range, &raw mut found);
        // SAFETY: the descriptor is open for as long as this table holds it; the kernel reads one
        // structure and writes the other, both of which have its layout and outlive the call.
        let result = unsafe { libc::syscall(CACHESTAT, fd, range, into, 0) };
        Errno::result(result)?;
        let first = offset / PAGE_BYTES as u64;
        let pages = (offset + bytes as u64).div_ceil(PAGE_BYTES as u64) - first;
        Ok(match found {
            found if found.cached_pages >= pages => CachedPages::Whole,
            Cachestat { dirty_pages: 0, writeback_pages: 0, .. } => CachedPages::Clean,
            _ => CachedPages::Dirty,
        })
    }

    /// Reads cached bytes; see [`crate::RingIo::read_cached`].
    pub(crate) fn read_cached(
        &self,
        id: FileId,
        offset: u64,
        to: &mut [u8],
    ) -> Result<usize, Errno> {
        let fd = self.fd(id)?;
        let at = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        match unless_interrupted(|| pread_cached(fd, to, at)) {
            // A tmpfs does not support this flag. Its pages are in memory unless they were swapped
            // out.
            Err(Errno::EOPNOTSUPP)
                if self.cachestat(id, offset, to.len())? == CachedPages::Whole =>
            {
                unless_interrupted(|| pread(fd, to, at))
            }
            result => result,
        }
    }

    /// Borrows a file; `EBADF` if the id is stale.
    pub(crate) fn fd(&self, id: FileId) -> Result<BorrowedFd<'_>, Errno> {
        let entry =
            self.entries.get(id.index as usize).filter(|entry| entry.generation == id.generation);
        entry.and_then(|entry| entry.file.as_deref()).map(AsFd::as_fd).ok_or(Errno::EBADF)
    }
}

/// `preadv2` with `RWF_NOWAIT`: returns cached bytes, or `EAGAIN`.
pub(crate) fn pread_cached(fd: BorrowedFd<'_>, to: &mut [u8], offset: i64) -> nix::Result<usize> {
    let vector = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    // SAFETY: one vector over a slice that is borrowed exclusively for the call, and an open
    // descriptor.
    let read =
        unsafe { libc::preadv2(fd.as_raw_fd(), &raw const vector, 1, offset, libc::RWF_NOWAIT) };
    Errno::result(read).map(isize::cast_unsigned)
}

/// Repeats a call that a signal interrupted.
pub(crate) fn unless_interrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Bytes of `struct tcp_info` up to its last field that is read here (Linux 5.4).
const TCP_INFO_BYTES: usize = 228;

/// A connection as this machine's TCP sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPath {
    /// Smoothed round-trip time.
    pub delay: Duration,
    /// The least round-trip time.
    pub delay_min: Duration,
    /// Bytes that have come, in order.
    pub received_bytes: u64,
    /// Packets that came while one before them was missing.
    pub late_packets: u64,
}

impl TcpPath {
    /// Reads the beginning of a `struct tcp_info`. `None` where the kernel is older than the fields
    /// that are needed, or has measured nothing.
    fn new(info: &[u8]) -> Option<TcpPath> {
        let number = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        let [delay, delay_min, late_packets] = [number(68)?, number(148)?, number(224)?];
        let received_bytes = u64::from_ne_bytes(*info.get(128..)?.first_chunk()?);
        let micros = |micros: u32| Duration::from_micros(micros.into());
        (delay_min != u32::MAX).then(|| TcpPath {
            delay: micros(delay),
            delay_min: micros(delay_min),
            received_bytes,
            late_packets: late_packets.into(),
        })
    }
}

/// `struct cachestat_range`.
#[repr(C)]
struct CachestatRange {
    offset: u64,
    bytes: u64,
}

/// `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached_pages: u64,
    dirty_pages: u64,
    writeback_pages: u64,
    evicted_pages: u64,
    recently_evicted_pages: u64,
}

/// Number of the system call (Linux 6.5), the same on every architecture; some libcs lack it.
const CACHESTAT: libc::c_long = 451;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::io::{Read, Write};

    use super::{Arc, Duration, Errno, FileTable, OwnedFd, TCP_INFO_BYTES, TcpPath};

    fn file() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn the_path_of_a_connection_is_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(&[7; 1000]).unwrap();
        (&client).read_exact(&mut [0; 1000]).unwrap();
        let mut table = FileTable::new(2);
        let id = table.insert(Arc::new(client.into())).unwrap();
        let path = table.path(id).unwrap();
        assert_eq!((path.received_bytes, path.late_packets), (1000, 0));
        assert!(path.delay_min <= path.delay && path.delay > Duration::ZERO, "{path:?}");
        let id = table.insert(file()).unwrap();
        assert_eq!(table.path(id), Err(Errno::ENOTSOCK));
    }

    #[test]
    fn an_old_kernel_tells_no_path() {
        let mut info = [1; TCP_INFO_BYTES];
        assert!(TcpPath::new(&info).is_some());
        assert_eq!(TcpPath::new(&info[..104]), None, "Linux 4.1");
        info[148..152].fill(u8::MAX);
        assert_eq!(TcpPath::new(&info), None, "no round trip was measured");
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
    fn a_full_table_grows_and_its_places_are_used_again() {
        let mut table = FileTable::new(1);
        let ids: Vec<_> = (0..3).map(|_| table.insert(file()).unwrap()).collect();
        assert_eq!(ids.iter().map(|id| id.index()).collect::<Vec<_>>(), [0, 1, 2]);
        table.remove(ids[1]).unwrap();
        let again = table.insert(file()).unwrap();
        assert_eq!(again.index(), 1);
        assert!(table.fd(again).is_ok() && table.fd(ids[1]).is_err());
    }
}

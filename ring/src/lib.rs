//! `io_uring` and nothing else: slots, typed operations, completions.
//!
//! The kernel works on memory asynchronously, so a ring is sound only if the program cannot reach
//! the memory it has lent. The types ensure this: a buffer is a [`Slot`], a token that moves into a
//! [`RingOp`] and out of a [`Completion`]; files are [`FileId`]s that detect when they are stale;
//! no safe function takes an address.
//!
//! - [`Uring`]: the kernel's ring, made in the thread that uses it.
//! - [`PlainRing`]: the same interface over plain calls and `poll`, for machines that forbid
//!   `io_uring`.
//! - [`FaultyRing`]: any of them with seeded faults; [`FakeRing`] is the one for tests.
//! - [`probe()`]: abilities of this kernel, and remedies for missing ones.
//!
//! A turn of a driver:
//!
//! ```
//! use std::io::{Seek, Write};
//! use ring::{PlainRing, RingIo, RingOp, SlotPool};
//!
//! let mut file = tempfile::tempfile()?;
//! file.write_all(b"seven")?;
//!
//! let pool = SlotPool::new(1, 4096)?;
//! let mut io = PlainRing::new(8, 8)?;
//! let file = io.register(file.into())?;
//! let slot = pool.take().expect("no slot is taken yet");
//! io.submit(1, RingOp::Read { file, slot, range: 0..5, offset: 0, nowait: false })?;
//!
//! let mut completions = Vec::with_capacity(8);
//! io.wait(None, &mut completions)?;
//! let done = completions.pop().expect("wait returned without a waker or a timeout");
//! assert_eq!((done.token, done.result), (1, Ok(5)));
//! assert_eq!(&done.slot.expect("the final completion")
//!     .as_slice()[..5], b"seven");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

mod entry;
mod faulty;
mod files;
mod op;
mod plain;
mod probe;
mod sendfile;
mod setup;
mod slots;
mod table;
mod uring;
mod waker;

pub use nix::errno::Errno;

pub use faulty::{FakeRing, FaultyRing, RingFaults};
pub use files::{CachedPages, FileId, TcpPath};
pub use op::{Completion, CompletionStage, RefusedOp, RingOp};
pub use plain::PlainRing;
pub use probe::{ProbeCause, ProbeError, RingProbe, probe};
pub use slots::{PAGE_BYTES, POOL_BYTES_MAX, Slot, SlotPool};
pub use uring::{RingConfig, Uring};
pub use waker::Waker;

/// Interface of a ring for a driver.
///
/// The order of a turn: `submit` all operations, `wait`, then handle the completions. No handler
/// runs inside the ring, and nothing is submitted before `wait` (or a full queue) passes it to the
/// kernel.
pub trait RingIo {
    /// Registers a file for operations.
    ///
    /// # Errors
    /// See [`RingIo::register_shared`].
    fn register(&mut self, fd: OwnedFd) -> io::Result<FileId> {
        self.register_shared(Arc::new(fd))
    }

    /// Registers a file that others use as well, without another descriptor.
    ///
    /// # Errors
    /// `ENFILE` beyond a million files; else the kernel's error.
    fn register_shared(&mut self, fd: Arc<OwnedFd>) -> io::Result<FileId>;

    /// Closes a file. Operations in flight on it are cancelled as far as possible; they keep the
    /// file itself alive until they complete, and return their slots as always. If the kernel
    /// cannot close the file at once, later waits try again.
    ///
    /// # Errors
    /// `EBADF` if the file is not registered, or no longer.
    fn unregister(&mut self, file: FileId) -> io::Result<()>;

    /// Makes room in a socket for `bytes` unread, as far as the system allows. Returns the largest
    /// value for [`RingIo::set_recv_lowat`]: a sixth of the room, so that the low-water mark never
    /// exceeds the window.
    ///
    /// # Errors
    /// See [`RingIo::set_recv_lowat`].
    fn set_recv_buffer(&mut self, file: FileId, bytes: usize) -> io::Result<usize>;

    /// Sets the low-water mark of a socket (`SO_RCVLOWAT`): a receive completes once `bytes` are
    /// available, or no more can come. A receiver that knows the number of bytes it needs is woken
    /// once, not for every packet. Holds for the operations that are submitted after it, until it
    /// is set again. A receive that need not be whole takes nothing before.
    ///
    /// # Errors
    /// `EBADF` if the file is not registered, or no longer; the kernel's error if it is not a
    /// socket, unless the ring has the kernel set it later: then nothing is set.
    fn set_recv_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()>;

    /// Sets the low-water mark of a socket's unsent bytes (`TCP_NOTSENT_LOWAT`): it only accepts
    /// bytes to send while fewer than `bytes` wait in it. So sends complete late, and a sender with
    /// several sockets can still choose the next one.
    ///
    /// # Errors
    /// `EBADF` if the file is not registered; the system's error if it is not a TCP socket.
    fn set_notsent_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()>;

    /// Reads what the system knows of the path of a connection that receives (`TCP_INFO`).
    ///
    /// # Errors
    /// `EBADF` if the file is not registered; the system's error if it is not a TCP socket;
    /// `ENOTSUP` if the system does not tell.
    fn path(&self, file: FileId) -> io::Result<TcpPath>;

    /// Returns the cache state of a range of a file (`cachestat`, Linux 6.5). It may be outdated at
    /// once.
    ///
    /// # Errors
    /// The kernel's: `ENOSYS` without this call, `EPERM` if it is reserved for the file's owner.
    /// Then only [`RingIo::read_cached`] can tell.
    fn cachestat(&self, file: FileId, offset: u64, bytes: usize) -> io::Result<CachedPages>;

    /// Reads cached bytes at once in this thread: as many bytes of `to` as are cached.
    ///
    /// # Errors
    /// `EAGAIN` if the first byte is not cached.
    fn read_cached(&self, file: FileId, offset: u64, to: &mut [u8]) -> io::Result<usize>;

    /// Queues an operation. Its completions have its `token`. Tokens in flight should differ: a
    /// cancellation takes any one of several equal ones.
    ///
    /// # Errors
    /// [`RefusedOp`], with the operation, if the ring is full or the file unknown.
    ///
    /// # Panics
    /// If a range is not within its slot.
    #[allow(
        clippy::result_large_err,
        reason = "the operation is returned by value; nothing is allocated"
    )]
    fn submit(&mut self, token: u64, op: RingOp) -> Result<(), RefusedOp>;

    /// Submits queued operations and appends completions to `out`. Returns when there are some,
    /// when a [`Waker`] was used, when `timeout` has passed (`None`: never; zero: at once), and
    /// occasionally without reason.
    ///
    /// # Errors
    /// The ring itself failed: it can only be dropped.
    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()>;

    /// Returns a handle for other threads that makes `wait` return.
    fn waker(&self) -> Waker;

    /// Returns the reason why the slots of its pools are not registered, which is slower; `None` if
    /// they are registered, or if this ring never registers.
    fn registration_error(&self) -> Option<Errno> {
        None
    }

    /// Returns the number of operations whose final completion has not been returned.
    fn in_flight(&self) -> usize;
}

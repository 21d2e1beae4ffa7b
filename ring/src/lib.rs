//! `io_uring` and nothing else: slots, typed operations, completions.
//!
//! The kernel works on memory behind the program's back, so a ring is sound only if the program
//! cannot reach what it has lent. Here that is a matter of types: a buffer is a [`Slot`], a token
//! that moves into an [`Op`] and out of a [`Completion`]; files are [`FileId`]s that notice when
//! they are stale; no safe function takes an address.
//!
//! - [`Uring`]: the kernel's ring, made in the thread that uses it.
//! - [`Plain`]: the same interface over plain calls and `poll`, for machines that forbid
//!   `io_uring`.
//! - [`Faulty`]: any of them with seeded faults; [`Fake`] is the one for tests.
//! - [`probe()`]: what this kernel allows, and the remedy for what it does not.
//!
//! A turn of a driver:
//!
//! ```
//! use std::io::{Seek, Write};
//! use ring::{Io, Op, Plain, Pool};
//!
//! let mut file = tempfile::tempfile()?;
//! file.write_all(b"seven")?;
//!
//! let pool = Pool::new(1, 4096)?;
//! let mut io = Plain::new(8, 8)?;
//! let file = io.register(file.into())?;
//! let slot = pool.take().expect("nothing is out yet");
//! io.submit(1, Op::Read { file, slot, range: 0..5, offset: 0, nowait: false })?;
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
pub use files::{CachedPages, FileId};
pub use op::{Completion, CompletionStage, RefusedOp, RingOp};
pub use plain::PlainRing;
pub use probe::{ProbeCause, ProbeError, RingProbe, probe};
pub use setup::CompletionMode;
pub use slots::{PAGE_BYTES, POOL_BYTES_MAX, Slot, SlotPool};
pub use uring::{RingConfig, Uring};
pub use waker::Waker;

/// What a driver asks of a ring.
///
/// The order of a turn: `submit` as much as there is to do, `wait`, then handle the completions.
/// Nothing runs where it is reaped, and nothing is submitted before `wait` (or a full queue) hands
/// it to the kernel.
pub trait RingIo {
    /// Takes a file in, to be named by operations.
    ///
    /// # Errors
    /// As [`Io::register_shared`].
    fn register(&mut self, fd: OwnedFd) -> io::Result<FileId> {
        self.register_shared(Arc::new(fd))
    }

    /// The same for a file that others use as well: no descriptor more is spent on it.
    ///
    /// # Errors
    /// `ENFILE` beyond a million files; what the kernel says.
    fn register_shared(&mut self, fd: Arc<OwnedFd>) -> io::Result<FileId>;

    /// Closes a file. What is in flight on it is cancelled as far as it can be and keeps the file
    /// itself alive until it completes; its slots come back with its completions, as ever. Where
    /// the kernel will not let go of it at once, the next waits try again.
    ///
    /// # Errors
    /// `EBADF` if the file is not registered, or no longer.
    fn unregister(&mut self, file: FileId) -> io::Result<()>;

    /// Makes room in a socket for `bytes` to wait unread, as far as the system allows, and tells
    /// how many may be asked of [`Io::set_recv_lowat`] then: an eighth of it, so that the peer can
    /// always send what the receiver rests for.
    ///
    /// # Errors
    /// As [`Io::set_recv_lowat`].
    fn set_recv_buffer(&mut self, file: FileId, bytes: usize) -> io::Result<usize>;

    /// Lets a socket rest until `bytes` are there to be received (`SO_RCVLOWAT`), or no more can
    /// come: a receiver that knows how much it waits for is woken once, and not for every packet.
    /// Holds until it is set anew.
    ///
    /// # Errors
    /// `EBADF` if the file is not registered, or no longer; what the kernel says if it is no
    /// socket.
    fn set_recv_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()>;

    /// Lets a socket take in what is to be sent only while fewer than `bytes` wait in it that have
    /// never left (`TCP_NOTSENT_LOWAT`). Sends end late, then, and whoever has several sockets
    /// still decides which is next.
    ///
    /// # Errors
    /// `EBADF` if the file is not registered, and what the system says of other than TCP sockets.
    fn set_notsent_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()>;

    /// What the page cache holds of a range of a file (`cachestat`, Linux 6.5). The answer may be
    /// over at once.
    ///
    /// # Errors
    /// What the kernel says: `ENOSYS` where it has no such call, `EPERM` where it keeps this to the
    /// file's owner. Then only [`Io::read_cached`] tells.
    fn cachestat(&self, file: FileId, offset: u64, bytes: usize) -> io::Result<CachedPages>;

    /// Reads what the page cache holds, at once and in this thread: as many bytes of `to` as are
    /// there.
    ///
    /// # Errors
    /// `EAGAIN` if the first byte is not there.
    fn read_cached(&self, file: FileId, offset: u64, to: &mut [u8]) -> io::Result<usize>;

    /// Queues an operation. `token` comes back with its completions; tokens in flight should
    /// differ, or a cancellation takes any of those that are equal.
    ///
    /// # Errors
    /// [`Refused`], with the operation, if the ring is full or the file unknown.
    ///
    /// # Panics
    /// If a range is not a range of its slot.
    #[allow(
        clippy::result_large_err,
        reason = "the operation goes back by value, as it came; nothing is allocated"
    )]
    fn submit(&mut self, token: u64, op: RingOp) -> Result<(), RefusedOp>;

    /// Hands over what is queued and appends what has completed to `out`. Returns when something
    /// has, when a [`Waker`] was used, when `timeout` has passed (`None`: never; zero: at once),
    /// and now and then without a reason.
    ///
    /// # Errors
    /// The ring itself failed: it cannot be used any more, only dropped.
    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()>;

    /// A handle that makes `wait` return, for other threads.
    fn waker(&self) -> Waker;

    /// Why the slots of the pools that it was made with are used unregistered, which is slower;
    /// `None` where they are registered, or where nothing ever is.
    fn registration_error(&self) -> Option<Errno> {
        None
    }

    /// Number of operations whose final completion has not been handed out.
    fn in_flight(&self) -> usize;
}

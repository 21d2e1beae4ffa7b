//! Ring of the kernel.
//!
//! One thread creates, uses and drops it. All memory that the kernel may still access belongs to
//! the table of operations in flight, which is private; a slot leaves the table with the final
//! completion and not before.

mod file_sends;

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;

use crate::RingIo;
use crate::entry::{self, EntryContext};
use crate::files::{CachedPages, FileId, FileTable, TcpPath};
use crate::op::{Completion, RefusedOp, RingOp};
use crate::setup::{self, errno};
use crate::slots::{SlotMapping, SlotPool};
use crate::table::{CAPACITY_MAX, InFlight, InFlightTable};
use crate::waker::Waker;

/// Size of a ring. [`Uring::new`] allocates all of it.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig<'a> {
    /// Limit on operations in flight.
    pub entries: u32,
    /// Number of files that the kernel looks up once, not at each operation. More may be
    /// registered.
    pub files: u32,
    /// Number of operations on files that may block at once. Each blocks a thread of the kernel,
    /// which has few of them for a ring unless it is told: four for each CPU.
    pub blocking: u32,
    /// Pools to register as fixed buffers: those used most. Slots of others work, too.
    pub pools: &'a [&'a SlotPool],
}

/// A ring of the kernel.
///
/// Dropping it cancels the operations in flight and waits for them, at most two seconds. Memory
/// that the kernel still uses after that is never reused: it is leaked on purpose.
///
/// Invariant: every slot in an entry of `ring` is in `table`, until its final completion.
pub struct Uring {
    /// Declared first, so that it is closed before `registered` is unmapped.
    ring: IoUring,
    table: InFlightTable,
    files: FileTable,
    /// Size of the kernel's table of files. Files beyond it are named by their descriptors.
    files_fixed: u32,
    /// Low-water marks of the files in the kernel's table, where the ring sets them itself; else
    /// empty. The kernel reads them when it takes in the entries that name them.
    recv_lowats: Box<[libc::c_int]>,
    /// Memory of each registered buffer, in the order of the kernel's table.
    registered: Vec<Arc<SlotMapping>>,
    registration_error: Option<Errno>,
    /// Completions without the kernel's queue, not returned yet.
    ready: Vec<Completion>,
    /// Sends of files whose socket has room again.
    writable: Vec<u64>,
    /// Files that the caller has closed and the kernel could not close yet: each wait tries again.
    closing: Vec<FileId>,
    waker: Waker,
    waker_armed: bool,
    /// Only the thread that created the ring may use it.
    not_send: PhantomData<Rc<()>>,
}

impl Uring {
    /// Creates a ring for the calling thread.
    ///
    /// If the buffers cannot be registered (usually for lack of locked memory), the ring works
    /// without, somewhat slower, and [`RingIo::registration_error`] has the reason. The same holds,
    /// silently, for the table of files.
    ///
    /// # Errors
    /// The kernel's error; [`crate::ProbeError::explain`] explains it. `EOPNOTSUPP` where its ring
    /// is older than that of Linux 6.1, and lacks something. If even the few pages of the
    /// ring itself exceed the user's locked memory (recent kernels count them), it is `ENOMEM`;
    /// [`crate::PlainRing`] needs none.
    pub fn new(config: &RingConfig<'_>) -> io::Result<Self> {
        if config.entries == 0 || config.entries > CAPACITY_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a ring has 1 to 2^20 entries",
            ));
        }
        // Two completions per operation (for a zero-copy send), and some for the waker and for
        // cancellations.
        let completions = config.entries.saturating_mul(2).saturating_add(64).next_power_of_two();
        let mut ring = setup::build(config.entries.next_power_of_two(), completions)?;
        // Saves the lookup of the ring's descriptor at every call; the ring also works without it.
        let _ = ring.submitter().register_ring_fd();
        setup::allow_blocking(&ring, config.blocking);
        let sets_options = setup::sets_options(&mut ring, KEY_NONE);
        let files_fixed =
            ring.submitter().register_files_sparse(config.files).map_or(0, |()| config.files);
        let (registered, registration_error) = setup::register_pools(&mut ring, config.pools);
        Ok(Self {
            ring,
            table: InFlightTable::new(config.entries),
            files: FileTable::new(config.files),
            files_fixed,
            recv_lowats: vec![0; if sets_options { files_fixed as usize } else { 0 }].into(),
            registered,
            registration_error,
            ready: Vec::with_capacity(config.entries as usize),
            writable: Vec::with_capacity(config.entries as usize),
            closing: Vec::new(),
            waker: Waker::new()?,
            waker_armed: false,
            not_send: PhantomData,
        })
    }

    /// Returns true if every pool of the configuration is registered.
    #[must_use]
    pub fn registered(&self) -> bool {
        self.registration_error.is_none()
    }

    /// Returns the descriptor of a registered file, for calls other than operations (socket
    /// options, `TCP_INFO`).
    ///
    /// # Errors
    /// `EBADF` if the file is not registered, or no longer.
    pub fn fd(&self, file: FileId) -> Result<BorrowedFd<'_>, Errno> {
        self.files.fd(file)
    }

    /// Returns true if a file is in the kernel's table.
    fn is_fixed(&self, id: FileId) -> bool {
        id.index() < self.files_fixed
    }

    /// Returns the data for the entry of `op`; `EBADF` if its file is unknown.
    fn context(&self, op: &RingOp) -> Result<EntryContext, Errno> {
        let file = match op.file() {
            Some(id) if self.is_fixed(id) => self.files.fd(id).map(|_| id.index().cast_signed())?,
            Some(id) => self.files.fd(id)?.as_raw_fd(),
            None => -1,
        };
        let cancel_key = match op {
            RingOp::Cancel { token } => self
                .table
                .find(0, |other| other.token == *token)
                .map_or(KEY_NONE, |(key, _)| self.kernel_key(key)),
            _ => KEY_NONE,
        };
        let buffer = op.buffer().and_then(|(slot, _)| {
            let index =
                self.registered.iter().position(|mapping| Arc::ptr_eq(mapping, slot.mapping()))?;
            u16::try_from(index).ok()
        });
        Ok(EntryContext {
            file,
            fixed_file: op.file().is_some_and(|id| self.is_fixed(id)),
            buffer,
            cancel_key,
        })
    }

    /// Returns the kernel's key of an operation: its own, or that of the poll on the socket of a
    /// file being sent.
    fn kernel_key(&self, key: u64) -> u64 {
        if self.table.is_sending(key) { key | KEY_POLL } else { key }
    }

    /// Ensures that one more entry fits, by submitting queued entries if necessary.
    fn make_room(&mut self) -> Result<(), Errno> {
        if self.ring.submission().is_full() {
            self.ring.submit().map_err(|error| errno(&error))?;
        }
        if self.ring.submission().is_full() { Err(Errno::EBUSY) } else { Ok(()) }
    }

    /// Queues an entry without memory. The caller has made room.
    fn push_plain(&mut self, entry: squeue::Entry, key: u64) {
        let entry = entry.user_data(key);
        // SAFETY: a cancellation or a poll: the kernel reads and writes no memory of ours for it.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the caller has made room");
    }

    /// Queues the setting of a low-water mark. Returns false if that is for a system call to do.
    fn queue_recv_lowat(&mut self, id: FileId, bytes: usize) -> Result<bool, Errno> {
        self.files.fd(id)?;
        let bytes = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        if id.index() as usize >= self.recv_lowats.len() {
            return Ok(false);
        }
        self.make_room()?;
        let value = &mut self.recv_lowats[id.index() as usize];
        *value = bytes;
        let entry = entry::set_recv_lowat(id.index().cast_signed(), value)
            .flags(squeue::Flags::FIXED_FILE | squeue::Flags::SKIP_SUCCESS)
            .user_data(KEY_NONE);
        // SAFETY: the kernel reads the value when the entry is submitted, and not later. The value
        // is on the heap, where nothing moves it, and it is freed after the ring is closed, because
        // fields are dropped in the order of their declarations.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("room has been made");
        Ok(true)
    }

    /// Keeps a poll on the waker in the ring, so that a wake is a completion like any other.
    fn arm_waker(&mut self) -> io::Result<()> {
        if !self.waker_armed {
            self.make_room()?;
            let readable = u32::from(libc::POLLIN.cast_unsigned());
            let poll = opcode::PollAdd::new(types::Fd(self.waker.raw_fd()), readable).build();
            self.push_plain(poll, KEY_WAKER);
            self.waker_armed = true;
        }
        Ok(())
    }

    /// Submits the queued entries and waits for one completion, until `timeout`.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let entered = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(Duration::ZERO) => self.turn(),
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        match entered {
            Ok(_) => Ok(()),
            // The time is up; a signal came; or completions must be reaped or memory freed before
            // more can be submitted. In each case the queue is unchanged, and the next turn
            // continues.
            Err(error)
                if matches!(
                    errno(&error),
                    Errno::ETIME | Errno::EINTR | Errno::EBUSY | Errno::EAGAIN
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Enters the kernel only if there is something to submit or to process there.
    fn turn(&mut self) -> io::Result<usize> {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if idle { Ok(0) } else { self.ring.submit() }
    }

    /// Moves completions into `out`.
    fn reap(&mut self, out: &mut Vec<Completion>) {
        let Self { ring, table, waker, waker_armed, writable, .. } = self;
        for event in ring.completion() {
            match event.user_data() {
                KEY_WAKER => {
                    waker.drain();
                    *waker_armed = false;
                }
                KEY_NONE => {}
                key if key & KEY_POLL != 0 && event.result() < 0 => {
                    let error = Errno::from_raw(-event.result());
                    out.extend(table.end_sending(key & !KEY_POLL, error));
                }
                key if key & KEY_POLL != 0 => writable.push(key & !KEY_POLL),
                _ => out.extend(table.complete(&event)),
            }
        }
        while let Some(key) = self.writable.pop() {
            match self.make_room() {
                Ok(()) => out.extend(self.send_on(key)),
                Err(error) => out.extend(self.table.end_sending(key, error)),
            }
        }
        out.append(&mut self.ready);
    }

    /// Asks the kernel to cancel the operations in flight on `file`.
    fn cancel_file(&mut self, file: FileId) -> Result<(), Errno> {
        let mut start = 0;
        while let Some((key, next)) = self.table.find(start, |operation| operation.works_on(file)) {
            self.make_room()?;
            self.push_plain(opcode::AsyncCancel::new(self.kernel_key(key)).build(), KEY_NONE);
            start = next;
        }
        Ok(())
    }

    /// Cancels the operations in flight on a file, and closes it.
    fn close_file(&mut self, id: FileId) -> io::Result<()> {
        self.cancel_file(id)?;
        // Entries with the file's index must be submitted before the index is free: the kernel then
        // holds the file itself.
        while !self.ring.submission().is_empty() {
            self.ring.submit()?;
        }
        if self.is_fixed(id) {
            self.ring.submitter().register_files_update(id.index(), &[-1])?;
        }
        self.files.remove(id)?;
        Ok(())
    }

    /// Tries again to close the files that could not be closed before.
    fn close_rest(&mut self) {
        for id in std::mem::take(&mut self.closing) {
            if self.close_file(id).is_err() {
                self.closing.push(id);
            }
        }
    }
}

impl RingIo for Uring {
    fn register_shared(&mut self, fd: Arc<OwnedFd>) -> io::Result<FileId> {
        let raw = fd.as_raw_fd();
        let id = self.files.insert(fd)?;
        if self.is_fixed(id)
            && let Err(error) = self.ring.submitter().register_files_update(id.index(), &[raw])
        {
            self.files.remove(id)?;
            return Err(error);
        }
        Ok(id)
    }

    fn unregister(&mut self, id: FileId) -> io::Result<()> {
        self.files.fd(id)?;
        if self.closing.contains(&id) {
            return Err(Errno::EBADF.into());
        }
        // The kernel may be out of memory, or need its completions reaped first. The caller is done
        // with the file in either case.
        if self.close_file(id).is_err() {
            self.closing.push(id);
        }
        Ok(())
    }

    fn set_recv_buffer(&mut self, file: FileId, bytes: usize) -> io::Result<usize> {
        Ok(self.files.set_recv_buffer(file, bytes)?)
    }

    fn set_recv_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()> {
        if !self.queue_recv_lowat(file, bytes)? {
            self.files.set_recv_lowat(file, bytes)?;
        }
        Ok(())
    }

    fn set_notsent_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()> {
        Ok(self.files.set_notsent_lowat(file, bytes)?)
    }

    fn path(&self, file: FileId) -> io::Result<TcpPath> {
        Ok(self.files.path(file)?)
    }

    fn cachestat(&self, file: FileId, offset: u64, bytes: usize) -> io::Result<CachedPages> {
        Ok(self.files.cachestat(file, offset, bytes)?)
    }

    fn read_cached(&self, file: FileId, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        Ok(self.files.read_cached(file, offset, to)?)
    }

    fn submit(&mut self, token: u64, op: RingOp) -> Result<(), RefusedOp> {
        op.assert_in_bounds();
        if self.table.len() + self.ready.len() >= self.ready.capacity() || self.table.is_full() {
            return Err(RefusedOp { op, error: Errno::EBUSY });
        }
        if let RingOp::SendFile { .. } = op {
            return self.submit_file(token, op);
        }
        let context = match self.make_room().and_then(|()| self.context(&op)) {
            Ok(context) => context,
            Err(error) => return Err(RefusedOp { op, error }),
        };
        let entry = entry::build(&op, &context);
        let key = self.table.insert(InFlight {
            token,
            file: op.file(),
            slot: op.into_slot(),
            sending: None,
        });
        let entry = entry.user_data(key);
        // SAFETY: the range lies in the slot, and the slot is now in the table: its memory is
        // mapped and out of everybody's reach until the final completion of `key` takes it out
        // again, or for ever.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("room has been made");
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        self.arm_waker()?;
        let reaped = out.len();
        self.reap(out);
        let timeout = if out.len() > reaped { Some(Duration::ZERO) } else { timeout };
        self.enter(timeout)?;
        self.reap(out);
        self.close_rest();
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn registration_error(&self) -> Option<Errno> {
        self.registration_error
    }

    fn in_flight(&self) -> usize {
        self.table.len() + self.ready.len()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let deadline = Instant::now() + DROP_TIME_MAX;
        let mut completions = Vec::with_capacity(self.table.len());
        let mut start = 0;
        while let Some((key, next)) = self.table.find(start, |_| true) {
            if self.make_room().is_ok() {
                self.push_plain(opcode::AsyncCancel::new(self.kernel_key(key)).build(), KEY_NONE);
            }
            start = next;
        }
        while self.table.len() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.enter(Some(left)).is_err() {
                break;
            }
            self.reap(&mut completions);
        }
        if self.table.len() == 0 {
            // The kernel frees a closed ring later; sockets should close and locked memory be free
            // at once. But not with operations in flight, for which older kernels would wait
            // without limit.
            let _ = self.ring.submitter().unregister_files();
            let _ = self.ring.submitter().unregister_buffers();
        }
        let table = std::mem::replace(&mut self.table, InFlightTable::new(0));
        let left = table.into_in_flight();
        if !left.is_empty() {
            // The kernel may still write to these: their slots must never be returned, nor their
            // memory unmapped. An empty list may own the whole table's memory, which must not be
            // leaked.
            left.leak();
        }
    }
}

/// Added to the key of a send of a file, it makes the key of the poll on its socket. Indices of the
/// table are below it.
const KEY_POLL: u64 = 1 << 31;
const _: () = assert!(CAPACITY_MAX as u64 <= KEY_POLL);

/// Key of the poll on the waker. Keys of the table are below it, because its capacity is.
const KEY_WAKER: u64 = u64::MAX;

/// Key of operations whose completion is ignored, and of no operation: cancelling it returns
/// `ENOENT`.
const KEY_NONE: u64 = u64::MAX - 1;

/// Time that a dropped ring waits for the kernel. A disk that takes longer is broken, as is a peer
/// that acknowledges nothing; their memory is leaked.
const DROP_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_file_that_could_not_be_closed_is_closed_by_the_next_wait() {
        let Ok(mut io) = Uring::new(&RingConfig { entries: 4, files: 1, blocking: 0, pools: &[] })
        else {
            return;
        };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let file = io.register(ours.into()).unwrap();
        // The state that `unregister` leaves if the kernel has no memory.
        io.closing.push(file);
        assert!(io.unregister(file).is_err(), "it was given up before");
        io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0, "the socket is closed");
        let place = io.register(std::fs::File::open("/dev/null").unwrap().into());
        assert!(place.is_ok(), "and its place is free");
    }
}

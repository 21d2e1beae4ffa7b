//! The same interface without `io_uring`: plain calls, and `poll` to wait.
//!
//! Containers often forbid `io_uring`; callers must not notice a difference other than speed.
//! Sockets are non-blocking; files use blocking calls, because `poll` cannot wait for them.
//! [`crate::FakeRing`] is based on it, too: in one thread, the order of its completions depends
//! only on the order of submission.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::fdatasync;

use crate::RingIo;
use crate::files::{CachedPages, FileId, FileTable, TcpPath, pread_cached, unless_interrupted};
use crate::op::{Completion, CompletionStage, RefusedOp, RingOp};
use crate::sendfile::SendfileProgress;
use crate::slots::Slot;
use crate::waker::Waker;

/// A ring of plain calls.
#[derive(Debug)]
pub struct PlainRing {
    files: FileTable,
    /// In the order of submission. Invariant: no longer than `entries_max`, for which it was
    /// allocated.
    pending: Vec<PendingOp>,
    entries_max: usize,
    /// Completions since the last wait.
    ready: Vec<Completion>,
    waker: Waker,
}

/// An operation that has not completed, and the bytes it has moved so far.
#[derive(Debug)]
struct PendingOp {
    token: u64,
    op: RingOp,
    moved: usize,
}

impl PlainRing {
    /// Creates a ring for at most `entries` operations in flight and about `files` files.
    ///
    /// # Errors
    /// If no event counter for the waker can be created.
    pub fn new(entries: u32, files: u32) -> io::Result<Self> {
        let entries_max = entries as usize;
        Ok(Self {
            files: FileTable::new(files),
            pending: Vec::with_capacity(entries_max),
            entries_max,
            ready: Vec::with_capacity(2 * entries_max),
            waker: Waker::new()?,
        })
    }

    /// Tries every pending operation once, in order, and appends completions to `ready`.
    fn turn(&mut self) {
        let Self { files, pending, ready, .. } = self;
        let mut index = 0;
        while index < pending.len() {
            match attempt(files, &mut pending[index]) {
                Ok(None) => index += 1,
                Ok(Some(bytes)) => finish(pending.remove(index), Ok(bytes), ready),
                Err(error) => finish(pending.remove(index), Err(error), ready),
            }
        }
    }

    /// Sleeps until a socket with pending operations is ready, the waker was used, or the time is
    /// up.
    fn sleep(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut fds = Vec::with_capacity(self.pending.len() + 1);
        fds.push(PollFd::new(self.waker.fd(), PollFlags::POLLIN));
        for pending in &self.pending {
            let interest = match pending.op {
                RingOp::Recv { .. } => PollFlags::POLLIN,
                _ => PollFlags::POLLOUT,
            };
            // A file cannot be unregistered while an operation is pending on it.
            fds.extend(
                pending
                    .op
                    .file()
                    .and_then(|id| self.files.fd(id).ok())
                    .map(|fd| PollFd::new(fd, interest)),
            );
        }
        match poll(&mut fds, milliseconds_up(timeout)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the operations that `chosen` accepts with `ECANCELED`, or with the bytes moved so far.
    /// Returns their number.
    fn cancel(&mut self, chosen: impl Fn(&PendingOp) -> bool) -> usize {
        let Self { pending, ready, .. } = self;
        let mut cancelled = 0;
        for pending in pending.extract_if(.., |pending| chosen(pending)) {
            let result = if pending.moved > 0 { Ok(pending.moved) } else { Err(Errno::ECANCELED) };
            finish(pending, result, ready);
            cancelled += 1;
        }
        cancelled
    }
}

impl RingIo for PlainRing {
    fn register_shared(&mut self, fd: Arc<OwnedFd>) -> io::Result<FileId> {
        Ok(self.files.insert(fd)?)
    }

    fn unregister(&mut self, id: FileId) -> io::Result<()> {
        self.files.fd(id)?;
        self.cancel(|pending| pending.op.works_on(id));
        self.files.remove(id)?;
        Ok(())
    }

    fn set_recv_buffer(&mut self, file: FileId, bytes: usize) -> io::Result<usize> {
        Ok(self.files.set_recv_buffer(file, bytes)?)
    }

    fn set_recv_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()> {
        Ok(self.files.set_recv_lowat(file, bytes)?)
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
        if self.in_flight() >= self.entries_max {
            return Err(RefusedOp { op, error: Errno::EBUSY });
        }
        if let Some(Err(error)) = op.file().map(|file| self.files.fd(file)) {
            return Err(RefusedOp { op, error });
        }
        if let RingOp::SendFile { source, .. } = op
            && let Err(error) = self.files.fd(source)
        {
            return Err(RefusedOp { op, error });
        }
        if let RingOp::Cancel { token: wanted } = op {
            let result = if self.cancel(|pending| pending.token == wanted) > 0 {
                Ok(0)
            } else {
                Err(Errno::ENOENT)
            };
            self.ready.push(Completion { token, result, stage: CompletionStage::Done, slot: None });
        } else {
            self.pending.push(PendingOp { token, op, moved: 0 });
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            self.turn();
            let woken = self.waker.drain();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if woken || !self.ready.is_empty() || left == Some(Duration::ZERO) {
                out.append(&mut self.ready);
                return Ok(());
            }
            self.sleep(left)?;
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
            + self.ready.iter().filter(|completion| completion.stage.is_final()).count()
    }
}

/// Makes progress on one operation. Returns its bytes if it is complete, `None` if it must wait.
fn attempt(files: &FileTable, pending: &mut PendingOp) -> Result<Option<usize>, Errno> {
    let PendingOp { op, moved, .. } = pending;
    let fd = op.file().ok_or(Errno::EINVAL).and_then(|id| files.fd(id))?;
    match op {
        RingOp::Recv { slot, range, wait_all, .. } => {
            transfer(*wait_all, range.len(), moved, |moved| {
                let rest = &mut slot.as_mut_slice()[range.start + moved..range.end];
                recv(fd.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT)
            })
        }
        RingOp::Send { slot, range, more, .. } => {
            let flags = if *more {
                SEND_FLAGS | MsgFlags::from_bits_retain(libc::MSG_MORE)
            } else {
                SEND_FLAGS
            };
            transfer(true, range.len(), moved, |moved| {
                send_rest(fd, slot, range.start + moved..range.end, flags)
            })
        }
        RingOp::SendZc { slot, range, .. } => transfer(true, range.len(), moved, |moved| {
            send_rest(fd, slot, range.start + moved..range.end, SEND_FLAGS)
        }),
        &mut RingOp::SendFile { file: socket, ref slot, ref range, source, offset, bytes } => {
            let mut sending = SendfileProgress {
                socket,
                range: range.clone(),
                source,
                offset,
                bytes,
                moved: *moved,
            };
            let result = sending.attempt(files, slot);
            *moved = sending.moved;
            result
        }
        RingOp::Read { slot, range, offset, nowait: false, .. } => {
            let (to, offset) = (&mut slot.as_mut_slice()[range.clone()], file_offset(*offset)?);
            unless_interrupted(|| pread(fd, to, offset)).map(Some)
        }
        RingOp::Read { slot, range, offset, nowait: true, .. } => {
            let (to, offset) = (&mut slot.as_mut_slice()[range.clone()], file_offset(*offset)?);
            unless_interrupted(|| pread_cached(fd, to, offset)).map(Some)
        }
        RingOp::Write { slot, range, offset, .. } => {
            let (from, offset) = (&slot.as_slice()[range.clone()], file_offset(*offset)?);
            unless_interrupted(|| pwrite(fd, from, offset)).map(Some)
        }
        RingOp::Sync { .. } => unless_interrupted(|| fdatasync(fd)).map(|()| Some(0)),
        RingOp::Cancel { .. } => Err(Errno::EINVAL),
    }
}

/// Moves bytes over a socket until `bytes` are moved or it must wait, like the kernel with
/// `MSG_WAITALL`; without `all`, any bytes are enough. An error after some bytes returns the bytes:
/// the next call returns the error.
fn transfer(
    all: bool,
    bytes: usize,
    moved: &mut usize,
    mut call: impl FnMut(usize) -> nix::Result<usize>,
) -> Result<Option<usize>, Errno> {
    loop {
        match call(*moved) {
            Ok(0) => return Ok(Some(*moved)),
            Ok(step) => *moved += step,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(_) if *moved > 0 => return Ok(Some(*moved)),
            Err(error) => return Err(error),
        }
        if !all || *moved == bytes {
            return Ok(Some(*moved));
        }
    }
}

fn send_rest(
    fd: BorrowedFd<'_>,
    slot: &Slot,
    rest: std::ops::Range<usize>,
    flags: MsgFlags,
) -> nix::Result<usize> {
    send(fd.as_raw_fd(), &slot.as_slice()[rest], flags)
}

fn file_offset(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// Converts a finished operation into its completions: two for a successful zero-copy send, like
/// the kernel.
fn finish(pending: PendingOp, result: Result<usize, Errno>, ready: &mut Vec<Completion>) {
    let PendingOp { token, op, .. } = pending;
    let result = result.map(|bytes| u32::try_from(bytes).expect("a slot has at most 1 GiB"));
    let zero_copy = matches!(op, RingOp::SendZc { .. }) && result.is_ok();
    let slot = op.into_slot();
    if zero_copy {
        ready.push(Completion { token, result, stage: CompletionStage::NoticeFollows, slot: None });
        ready.push(Completion {
            token,
            result: Ok(0),
            stage: CompletionStage::Notice { copied: true },
            slot,
        });
    } else {
        ready.push(Completion { token, result, stage: CompletionStage::Done, slot });
    }
}

/// Rounds up to milliseconds, so that a shorter wait does not spin.
fn milliseconds_up(timeout: Option<Duration>) -> PollTimeout {
    let Some(timeout) = timeout else { return PollTimeout::NONE };
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

const SEND_FLAGS: MsgFlags = MsgFlags::MSG_NOSIGNAL.union(MsgFlags::MSG_DONTWAIT);

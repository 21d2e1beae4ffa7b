//! Operations of a ring, and their completions.
//!
//! An operation takes its slot by value: from submission to the *final* completion the kernel owns
//! the memory. If submission fails, the whole operation is returned inside [`RefusedOp`].

use std::fmt;
use std::ops::Range;

use nix::errno::Errno;

use crate::files::FileId;
use crate::slots::Slot;

/// One operation. Ranges are byte ranges of the slot; offsets are byte offsets in the file.
#[derive(Debug)]
pub enum RingOp {
    /// Receives from a socket into `range`. With `wait_all`, completes when the range is full, the
    /// stream has ended or an error occurred (`MSG_WAITALL`); otherwise as soon as any bytes have
    /// arrived. 0 bytes: the peer has closed.
    Recv {
        /// The socket.
        file: FileId,
        /// Destination of the bytes.
        slot: Slot,
        /// Bytes of the slot that are written.
        range: Range<usize>,
        /// Wait until the range is full.
        wait_all: bool,
    },
    /// Sends `range` to a socket. The kernel continues short sends itself; fewer bytes mean that
    /// the flow broke.
    Send {
        /// The socket.
        file: FileId,
        /// Source of the bytes.
        slot: Slot,
        /// Bytes of the slot that are sent.
        range: Range<usize>,
        /// More bytes follow at once, so the last segment may wait for them (`MSG_MORE`).
        more: bool,
    },
    /// Like [`RingOp::Send`], without a copy if the device supports it (Linux 6.2). The result
    /// comes first, as [`CompletionStage::NoticeFollows`]. The slot comes with the
    /// [`CompletionStage::Notice`], once the last byte is acknowledged. `ENOMEM` means too little
    /// locked memory, which slots of a registered pool do not need: use a plain send.
    SendZc {
        /// The socket.
        file: FileId,
        /// Source of the bytes.
        slot: Slot,
        /// Bytes of the slot that are sent.
        range: Range<usize>,
    },
    /// Sends `range` to a socket, followed by `bytes` bytes of another file, without a copy
    /// (`sendfile`). The result counts both; fewer bytes mean that the flow broke. `ENODATA` means
    /// that the file did not provide all of them: it was truncated, failed, or does not support it.
    /// The calling thread does the work, so the bytes should be in the page cache: see
    /// [`crate::RingIo::read_cached`].
    SendFile {
        /// The socket.
        file: FileId,
        /// Source of the first bytes.
        slot: Slot,
        /// Bytes of the slot that are sent.
        range: Range<usize>,
        /// The other file.
        source: FileId,
        /// Offset of the bytes in the other file.
        offset: u64,
        /// Number of bytes of the other file.
        bytes: u32,
    },
    /// Reads from a file at `offset` into `range`. 0 bytes: the end of the file.
    Read {
        /// The file.
        file: FileId,
        /// Destination of the bytes.
        slot: Slot,
        /// Bytes of the slot that are written.
        range: Range<usize>,
        /// Offset in the file.
        offset: u64,
        /// Only read cached bytes (`RWF_NOWAIT`): `EAGAIN` or fewer bytes instead of waiting for
        /// the disk.
        nowait: bool,
    },
    /// Writes `range` to a file at `offset`.
    Write {
        /// The file.
        file: FileId,
        /// Source of the bytes.
        slot: Slot,
        /// Bytes of the slot that are written to the file.
        range: Range<usize>,
        /// Offset in the file.
        offset: u64,
    },
    /// Makes written bytes durable, with the metadata needed to read them back (`fdatasync`). It
    /// orders nothing: submit it after the writes have completed.
    Sync {
        /// The file.
        file: FileId,
    },
    /// Cancels the operation that was submitted with `token`. Its slot still comes with its own
    /// completion, whose result is `ECANCELED` or that of the finished part. The cancellation
    /// completes with 0, `ENOENT` (no such operation) or `EALREADY` (too late).
    Cancel {
        /// Token of the operation to cancel.
        token: u64,
    },
}

impl RingOp {
    /// Returns the file of the operation.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        match self {
            Self::Recv { file, .. }
            | Self::Send { file, .. }
            | Self::SendZc { file, .. }
            | Self::SendFile { file, .. }
            | Self::Read { file, .. }
            | Self::Write { file, .. }
            | Self::Sync { file } => Some(*file),
            Self::Cancel { .. } => None,
        }
    }

    /// Returns true if the operation uses file `id`.
    pub(crate) fn works_on(&self, id: FileId) -> bool {
        self.file() == Some(id) || matches!(self, Self::SendFile { source, .. } if *source == id)
    }

    /// Returns the slot and the range of the operation.
    #[must_use]
    pub fn buffer(&self) -> Option<(&Slot, &Range<usize>)> {
        match self {
            Self::Recv { slot, range, .. }
            | Self::Send { slot, range, .. }
            | Self::SendZc { slot, range, .. }
            | Self::SendFile { slot, range, .. }
            | Self::Read { slot, range, .. }
            | Self::Write { slot, range, .. } => Some((slot, range)),
            Self::Sync { .. } | Self::Cancel { .. } => None,
        }
    }

    /// Takes the slot out of an operation that is not submitted.
    #[must_use]
    pub fn into_slot(self) -> Option<Slot> {
        match self {
            Self::Recv { slot, .. }
            | Self::Send { slot, .. }
            | Self::SendZc { slot, .. }
            | Self::SendFile { slot, .. }
            | Self::Read { slot, .. }
            | Self::Write { slot, .. } => Some(slot),
            Self::Sync { .. } | Self::Cancel { .. } => None,
        }
    }

    /// Returns the range, which may be changed.
    pub(crate) fn range_mut(&mut self) -> Option<&mut Range<usize>> {
        match self {
            Self::Recv { range, .. }
            | Self::Send { range, .. }
            | Self::SendZc { range, .. }
            | Self::Read { range, .. }
            | Self::Write { range, .. } => Some(range),
            Self::SendFile { .. } | Self::Sync { .. } | Self::Cancel { .. } => None,
        }
    }

    /// Panics if the range is not within the slot: the caller's arithmetic is wrong, and the kernel
    /// would access memory outside it. Also panics if the result could exceed its type.
    pub(crate) fn assert_in_bounds(&self) {
        if let Some((slot, range)) = self.buffer() {
            assert!(
                range.start <= range.end && range.end <= slot.len(),
                "range {range:?} of {} bytes",
                slot.len()
            );
        }
        if let Self::SendFile { range, bytes, .. } = self {
            assert!(
                *bytes as usize + range.len() <= i32::MAX as usize,
                "{bytes} bytes of a file in one send"
            );
        }
    }
}

/// Completion of an operation.
#[derive(Debug)]
pub struct Completion {
    /// Token of the operation.
    pub token: u64,
    /// Bytes moved, or the kernel's error. A notification has `Ok(0)`.
    pub result: Result<u32, Errno>,
    /// Position among the operation's completions.
    pub stage: CompletionStage,
    /// The slot, if the operation had one and this is its final completion.
    pub slot: Option<Slot>,
}

/// Position of a completion among those of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionStage {
    /// The only completion.
    Done,
    /// The result of a zero-copy send; the notification with the slot follows.
    NoticeFollows,
    /// The final notification of a zero-copy send.
    Notice {
        /// True if the kernel copied the bytes after all: a plain send would have been cheaper.
        copied: bool,
    },
}

impl CompletionStage {
    /// Returns true if no completion follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        self != Self::NoticeFollows
    }
}

/// An operation that was not submitted, with the reason.
pub struct RefusedOp {
    /// The operation, including its slot.
    pub op: RingOp,
    /// `EBUSY`: the ring is full. `EBADF`: the file is not registered, or no longer. Anything else
    /// is the kernel's error.
    pub error: Errno,
}

impl fmt::Debug for RefusedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).field("op", &self.op).finish()
    }
}

impl fmt::Display for RefusedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the ring refused an operation: {}", self.error.desc())
    }
}

impl std::error::Error for RefusedOp {}

//! What can be asked of a ring, and what comes back.
//!
//! An operation takes its slot by value: from submission to the *final* completion the kernel owns
//! the memory. If submission fails, the operation comes back whole inside [`Refused`].

use std::fmt;
use std::ops::Range;

use nix::errno::Errno;

use crate::files::FileId;
use crate::slots::Slot;

/// One operation. Ranges are byte ranges of the slot; offsets are byte offsets in the file.
#[derive(Debug)]
pub enum RingOp {
    /// Receives from a socket into `range`. With `wait_all`, completes when the range is full, the
    /// stream has ended or an error came (`MSG_WAITALL`); otherwise as soon as there is anything. 0
    /// bytes: the peer has closed.
    Recv {
        /// The socket.
        file: FileId,
        /// Where the bytes go.
        slot: Slot,
        /// Which bytes of the slot are written.
        range: Range<usize>,
        /// Whether to wait until the range is full.
        wait_all: bool,
    },
    /// Sends `range` to a socket. The kernel itself goes on after a short send; fewer bytes mean
    /// that the flow broke.
    Send {
        /// The socket.
        file: FileId,
        /// Where the bytes are.
        slot: Slot,
        /// Which bytes of the slot are sent.
        range: Range<usize>,
        /// Whether more follows at once, so that the last segment may wait for it (`MSG_MORE`).
        more: bool,
    },
    /// As [`Op::Send`] without a copy where the device can (Linux 6.2). Its result comes first, as
    /// [`Stage::NoticeFollows`]; the slot comes with the [`Stage::Notice`], when the last byte is
    /// acknowledged. `ENOMEM` means too little locked memory, which slots of a registered pool need
    /// none of here: a plain send will do.
    SendZc {
        /// The socket.
        file: FileId,
        /// Where the bytes are.
        slot: Slot,
        /// Which bytes of the slot are sent.
        range: Range<usize>,
    },
    /// Sends `range` to a socket, and behind it `bytes` bytes of another file, which are not copied
    /// on the way (`sendfile`). The result counts both; fewer bytes mean that the flow broke.
    /// `ENODATA` means that the other file did not give all of them, because it has become shorter,
    /// failed, or cannot be sent from. The calling thread does the work, so what is sent should be
    /// in the page cache: see [`crate::Io::read_cached`].
    SendFile {
        /// The socket.
        file: FileId,
        /// Where the bytes in front are.
        slot: Slot,
        /// Which bytes of the slot are sent.
        range: Range<usize>,
        /// The other file.
        source: FileId,
        /// Where in the other file the bytes behind start.
        offset: u64,
        /// How many bytes of the other file are sent.
        bytes: u32,
    },
    /// Reads from a file at `offset` into `range`. 0 bytes: the end of the file.
    Read {
        /// The file.
        file: FileId,
        /// Where the bytes go.
        slot: Slot,
        /// Which bytes of the slot are written.
        range: Range<usize>,
        /// Where in the file to read.
        offset: u64,
        /// Only what the page cache holds (`RWF_NOWAIT`): `EAGAIN` or fewer bytes instead of
        /// waiting for the disk.
        nowait: bool,
    },
    /// Writes `range` to a file at `offset`.
    Write {
        /// The file.
        file: FileId,
        /// Where the bytes are.
        slot: Slot,
        /// Which bytes of the slot are written to the file.
        range: Range<usize>,
        /// Where in the file to write.
        offset: u64,
    },
    /// Makes what was written durable, with the metadata needed to read it back (`fdatasync`).
    /// Orders nothing: ask when the writes it is for have completed.
    Sync {
        /// The file.
        file: FileId,
    },
    /// Cancels the operation that was submitted with `token`. Its slot still comes with its own
    /// completion, whose result is `ECANCELED` or whatever it managed to do. This one completes
    /// with 0, `ENOENT` (nothing by that name) or `EALREADY` (too late to stop).
    Cancel {
        /// The token of the operation to stop.
        token: u64,
    },
}

impl RingOp {
    /// The file that the operation works on.
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

    /// Whether the operation works on `id`.
    pub(crate) fn works_on(&self, id: FileId) -> bool {
        self.file() == Some(id) || matches!(self, Self::SendFile { source, .. } if *source == id)
    }

    /// The slot and the range of it that the operation works on.
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

    /// Takes the slot out of an operation that will not be done.
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

    /// The range, for whoever wants to change what an operation moves.
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

    /// Panics if the range is not a range of the slot: the caller's arithmetic is wrong, and the
    /// kernel would be let loose on memory that nobody lent it. Nor may a result be larger than it
    /// can say.
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

/// What became of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The token it was submitted with.
    pub token: u64,
    /// Bytes moved, or the kernel's error. A notice carries `Ok(0)`.
    pub result: Result<u32, Errno>,
    /// Whether more follows.
    pub stage: CompletionStage,
    /// The slot, if the operation had one and this is its final completion.
    pub slot: Option<Slot>,
}

/// Which of an operation's completions this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionStage {
    /// The only one: nothing follows.
    Done,
    /// The result of a zero-copy send; the notice with the slot follows.
    NoticeFollows,
    /// The end of a zero-copy send: nothing follows.
    Notice {
        /// Whether the kernel copied the bytes after all, so that a plain send would have been
        /// cheaper.
        copied: bool,
    },
}

impl CompletionStage {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        self != Self::NoticeFollows
    }
}

/// An operation that was not submitted, and why.
pub struct RefusedOp {
    /// The operation as it was given, slot and all.
    pub op: RingOp,
    /// `EBUSY`: as many in flight as the ring has room for. `EBADF`: the file is not registered, or
    /// no longer. Anything else is the kernel's word.
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

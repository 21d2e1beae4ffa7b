//! Sending from the page cache, in the calling thread.
//!
//! The kernel's ring can splice, but it passes every splice to a worker thread. `sendfile` in this
//! thread is faster, as long as it does not block: on the disk, which is why the caller checks the
//! page cache first, or on the socket. `sendfile` has no flag for that and uses the mode of the
//! socket, which is therefore non-blocking. Sends and receives are unaffected: their flags say
//! whether they wait.

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, send};

use crate::files::{FileId, FileTable, unless_interrupted};
use crate::slots::Slot;

/// Progress of a send of first bytes followed by bytes of a file.
#[derive(Debug)]
pub(crate) struct SendfileProgress {
    pub(crate) socket: FileId,
    pub(crate) range: Range<usize>,
    pub(crate) source: FileId,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) moved: usize,
}

impl SendfileProgress {
    /// Moves as many bytes as the socket accepts. Returns the total once all are moved, `None` if
    /// the socket is full.
    pub(crate) fn attempt(
        &mut self,
        files: &FileTable,
        slot: &Slot,
    ) -> Result<Option<usize>, Errno> {
        let (Ok(socket), Ok(source)) = (files.fd(self.socket), files.fd(self.source)) else {
            return self.end(Errno::ECANCELED).map(Some);
        };
        match self.send(socket, source, slot) {
            Ok(()) => Ok(Some(self.moved)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(Errno::ENODATA) => Err(Errno::ENODATA),
            Err(error) => self.end(error).map(Some),
        }
    }

    /// Returns the result of a send that ends early with `error`: the bytes moved so far, if any.
    pub(crate) fn end(&self, error: Errno) -> Result<usize, Errno> {
        if self.moved > 0 { Ok(self.moved) } else { Err(error) }
    }

    fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        source: BorrowedFd<'_>,
        slot: &Slot,
    ) -> nix::Result<()> {
        while self.moved < self.range.len() {
            let front = &slot.as_slice()[self.range.start + self.moved..self.range.end];
            self.moved += unless_interrupted(|| send(socket.as_raw_fd(), front, FRONT_FLAGS))?;
        }
        let whole = self.range.len() + self.bytes as usize;
        if self.moved == whole {
            return Ok(());
        }
        fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        while self.moved < whole {
            let at = self.offset + (self.moved - self.range.len()) as u64;
            let mut at = libc::off64_t::try_from(at).map_err(|_| Errno::EINVAL)?;
            match unless_interrupted(|| {
                sendfile64(socket, source, Some(&mut at), whole - self.moved)
            }) {
                // The file, its file system, or a filter of system calls does not support it: the
                // bytes take another path.
                Ok(0)
                | Err(
                    Errno::EINVAL
                    | Errno::EIO
                    | Errno::EOPNOTSUPP
                    | Errno::ENOSYS
                    | Errno::EPERM
                    | Errno::EACCES,
                ) => {
                    return Err(Errno::ENODATA);
                }
                sent => self.moved += sent?,
            }
        }
        Ok(())
    }
}

/// The first bytes wait for the following ones, so that both leave in full segments.
const FRONT_FLAGS: MsgFlags = MsgFlags::MSG_NOSIGNAL
    .union(MsgFlags::MSG_DONTWAIT)
    .union(MsgFlags::from_bits_retain(libc::MSG_MORE));

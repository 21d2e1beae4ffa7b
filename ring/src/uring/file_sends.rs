//! Sends of files from the page cache: attempts by this thread, and polls of full sockets between
//! them.

use std::os::fd::AsRawFd;

use io_uring::{opcode, types};
use nix::errno::Errno;

use super::{KEY_POLL, Uring};
use crate::files::FileId;
use crate::op::{Completion, CompletionStage, RefusedOp, RingOp};
use crate::sendfile::SendfileProgress;
use crate::table::InFlight;

impl Uring {
    /// Sends more of a file, as far as the socket accepts it, and polls the socket if it is full.
    /// The caller has made room for an entry. Returns the completion once all is sent.
    pub(super) fn send_on(&mut self, key: u64) -> Option<Completion> {
        let Self { table, files, .. } = self;
        let InFlight { slot, sending, .. } = table.get_mut(key)?;
        let (slot, sending) = (slot.as_ref()?, sending.as_mut()?);
        let socket = sending.socket;
        let result = match sending.attempt(files, slot) {
            Ok(None) => {
                self.poll_writable(socket, key);
                return None;
            }
            Ok(Some(bytes)) => Ok(u32::try_from(bytes).expect("checked when it was submitted")),
            Err(error) => Err(error),
        };
        let InFlight { token, slot, .. } = self.table.remove(key)?;
        Some(Completion { token, result, stage: CompletionStage::Done, slot })
    }

    fn poll_writable(&mut self, socket: FileId, key: u64) {
        let writable = u32::from(libc::POLLOUT.cast_unsigned());
        let poll = if self.is_fixed(socket) {
            opcode::PollAdd::new(types::Fixed(socket.index()), writable).build()
        } else {
            let fd = self.files.fd(socket).map_or(-1, |fd| fd.as_raw_fd());
            opcode::PollAdd::new(types::Fd(fd), writable).build()
        };
        self.push_plain(poll, key | KEY_POLL);
    }

    /// Starts the send of a file, which may complete at once.
    pub(super) fn submit_file(&mut self, token: u64, op: RingOp) -> Result<(), RefusedOp> {
        let RingOp::SendFile { file: socket, ref range, source, offset, bytes, .. } = op else {
            return Err(RefusedOp { op, error: Errno::EINVAL });
        };
        let known = self.files.fd(socket).and(self.files.fd(source)).map(drop);
        if let Err(error) = known.and_then(|()| self.make_room()) {
            return Err(RefusedOp { op, error });
        }
        let sending = Some(SendfileProgress {
            socket,
            range: range.clone(),
            source,
            offset,
            bytes,
            moved: 0,
        });
        let key = self.table.insert(InFlight {
            token,
            file: Some(socket),
            slot: op.into_slot(),
            sending,
        });
        if let Some(completion) = self.send_on(key) {
            self.ready.push(completion);
        }
        Ok(())
    }
}

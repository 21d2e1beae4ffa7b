//! Sending pieces from where they lie in the page cache.
//!
//! A piece is looked at first: its check is computed from small reads that stay in the processor's
//! cache and wait for nothing. A file that shrinks or changes meanwhile is a short read or a check
//! that fails at the receiver, never a fault of this process, as a mapping would have it. What is
//! sent then is the pages themselves: bytes that change between the look and the wire are noticed
//! by their check, and without one not before the source is looked at again at the end.

use ring::{FileId, RingIo, Slot};

use super::operations::{RailOps, piece_bytes};
use super::send::{SendingOps, extent};
use crate::core::check::CheckMethod;
use crate::core::error::Code;
use crate::core::rail::{CacheState, LoadingPiece, RailEvent, ReadOutcome, SlotIx};
use crate::core::wire::Check;

/// Bytes read at once to compute a check: they fit the cache that
/// each core has for itself.
const LOOK_BYTES: usize = 64 * 1024;

impl SendingOps {
    /// Checks a piece in the page cache and gets it ready to be sent from there.
    pub(super) fn load_cached<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        loading: LoadingPiece,
        mut memory: Slot,
    ) -> RailEvent {
        let job = self.slots.job(slot);
        job.prefilled = None;
        let cached = job.cached;
        let state = &ops.transfers[&loading.transfer];
        let extent = extent(state, loading);
        let (source, _) = state.registered[extent.file];
        let check = match state.files.method {
            CheckMethod::None if cached == CacheState::Whole => Some(Check::None),
            _ => self.look(ops, loading, source, extent.offset_bytes, &mut memory),
        };
        let Some(check) = check else {
            self.slots.put(slot, memory);
            return RailEvent::ReadDone { slot, outcome: ReadOutcome::NotCached };
        };
        if !self.is_unchanged(ops, loading) {
            return self.not_read(slot, memory, Code::Data);
        }
        self.ready(slot, loading, check, 0, Some((source, extent.offset_bytes)), memory)
    }

    /// The check of a piece, if the page cache holds all of it.
    fn look<I: RingIo>(
        &self,
        ops: &mut RailOps<I>,
        loading: LoadingPiece,
        source: FileId,
        offset: u64,
        memory: &mut Slot,
    ) -> Option<Check> {
        let span = loading.request.span;
        let bytes = piece_bytes(span);
        let mut running = ops.transfers[&loading.transfer].files.method.running(span);
        let mut done = 0;
        while done < bytes {
            let part = LOOK_BYTES.min(bytes - done).min(memory.len());
            let to = &mut memory.as_mut_slice()[..part];
            let read = ops.io.read_cached(source, offset + done as u64, to).ok();
            let read = read.filter(|read| *read > 0)?;
            running.update(&to[..read]);
            done += read;
        }
        Some(running.finish())
    }
}

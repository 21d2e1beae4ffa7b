//! Sending pieces from where they lie in the page cache.
//!
//! A piece is looked at first: its check is computed from small reads that stay in the processor's
//! cache and wait for nothing. A file that shrinks or changes meanwhile is a short read or a check
//! that fails at the receiver, never a fault of this process, as a mapping would have it. What is
//! sent then is the pages themselves: bytes that change between the look and the wire are noticed
//! by their check, and without one not before the source is looked at again at the end.

use ring::{CachedPages, FileId, RingIo, Slot};

use super::RailEvents;
use super::contexts::LoadingPiece;
use super::driver::RailDriver;
use super::paths::KernelRoute;
use super::send::{LoadedPiece, extent, piece_bytes};
use crate::core::check::CheckMethod;
use crate::core::error::Code;
use crate::core::wire::{Check, DataPath};

/// What is read at once to compute a check: a piece's worth in flight of it fits the cache that
/// each core has for itself.
const LOOK_BYTES: usize = 64 * 1024;

impl<I: RingIo, M: RailEvents> RailDriver<I, M> {
    /// What the page cache holds of a piece, where the kernel tells. Asking by a read would have
    /// the kernel read ahead what is not there, and the disk work for nothing.
    pub(super) fn cachestat(&self, loading: LoadingPiece) -> Option<CachedPages> {
        let rail_transfer = &self.rail_transfers[&loading.transfer];
        let extent = extent(rail_transfer, loading);
        let (file, _) = rail_transfer.files[extent.file];
        self.io.cachestat(file, extent.offset_bytes, piece_bytes(loading.ask)).ok()
    }

    /// Whether a piece that is in the page cache is to be sent from there.
    pub(super) fn may_splice(&self, loading: LoadingPiece) -> bool {
        let rail_transfer = &self.rail_transfers[&loading.transfer];
        matches!(rail_transfer.transfer_files.path, DataPath::Auto | DataPath::Splice)
            && !rail_transfer.splice_failed
    }

    /// Checks a piece in the page cache and gets it ready to be sent from there; `cachestat` is
    /// what is known of it. The slot comes back where the page cache does not hold all of it.
    pub(super) fn load_cached(
        &mut self,
        loading: LoadingPiece,
        cachestat: Option<CachedPages>,
        mut slot: Slot,
    ) -> Option<Slot> {
        self.prefilled_slots.remove(&(slot.as_slice().as_ptr() as usize));
        let rail_transfer = &self.rail_transfers[&loading.transfer];
        let extent = extent(rail_transfer, loading);
        let (source, _) = rail_transfer.files[extent.file];
        let check = match (rail_transfer.transfer_files.method, cachestat) {
            (CheckMethod::None, Some(CachedPages::Whole)) => Some(Check::None),
            _ => self.look(loading, source, extent.offset_bytes, &mut slot),
        };
        let Some(check) = check else { return Some(slot) };
        if !self.is_unchanged(loading) {
            drop(slot);
            self.load_failed(loading, Code::Data);
            return None;
        }
        let behind = Some((source, extent.offset_bytes));
        self.ready(
            loading,
            check,
            LoadedPiece { slot, start: 0, behind, route: KernelRoute::Splice },
        );
        None
    }

    /// The check of a piece, if the page cache holds all of it.
    fn look(
        &self,
        loading: LoadingPiece,
        source: FileId,
        offset: u64,
        slot: &mut Slot,
    ) -> Option<Check> {
        let bytes = piece_bytes(loading.ask);
        let mut running =
            self.rail_transfers[&loading.transfer].transfer_files.method.running(loading.ask.span);
        let mut done = 0;
        while done < bytes {
            let part = LOOK_BYTES.min(bytes - done).min(slot.len());
            let to = &mut slot.as_mut_slice()[..part];
            let read = self
                .io
                .read_cached(source, offset + done as u64, to)
                .ok()
                .filter(|read| *read > 0)?;
            running.update(&to[..read]);
            done += read;
        }
        Some(running.finish())
    }
}

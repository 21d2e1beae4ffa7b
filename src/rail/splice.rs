//! Sending pieces from where they lie in the page cache.
//!
//! A piece is looked at first: its check is computed from small reads that stay in the processor's
//! cache and wait for nothing. A file that shrinks or changes meanwhile is a short read or a check
//! that fails at the receiver, never a fault of this process, as a mapping would have it. What is
//! sent then is the pages themselves: bytes that change between the look and the wire are noticed
//! by their check, and without one not before the source is looked at again at the end.

use ring::{Cached, FileId, Io, Slot};

use super::Mailbox;
use super::contexts::Loading;
use super::driver::Driver;
use super::feed::{Loaded, extent, piece_bytes};
use super::paths::Route;
use crate::engine::check::Method;
use crate::error::Code;
use crate::wire::{Check, DataPath};

/// What is read at once to compute a check: a piece's worth in flight of it fits the cache that
/// each core has for itself.
const LOOK_BYTES: usize = 64 * 1024;

impl<I: Io, M: Mailbox> Driver<I, M> {
    /// What the page cache holds of a piece, where the kernel tells. Asking by a read would have
    /// the kernel read ahead what is not there, and the disk work for nothing.
    pub(super) fn cached(&self, loading: Loading) -> Option<Cached> {
        let tenant = &self.tenants[&loading.transfer];
        let extent = extent(tenant, loading);
        let (file, _) = tenant.files[extent.file];
        self.io.cached(file, extent.offset_bytes, piece_bytes(loading.ask)).ok()
    }

    /// Whether a piece that is in the page cache is to be sent from there.
    pub(super) fn may_splice(&self, loading: Loading) -> bool {
        let tenant = &self.tenants[&loading.transfer];
        matches!(tenant.desk.path, DataPath::Auto | DataPath::Splice) && !tenant.splice_failed
    }

    /// Checks a piece in the page cache and gets it ready to be sent from there; `cached` is what
    /// is known of it. The slot comes back where the page cache does not hold all of it.
    pub(super) fn load_cached(
        &mut self,
        loading: Loading,
        cached: Option<Cached>,
        mut slot: Slot,
    ) -> Option<Slot> {
        self.dressed.remove(&(slot.as_slice().as_ptr() as usize));
        let tenant = &self.tenants[&loading.transfer];
        let extent = extent(tenant, loading);
        let (source, _) = tenant.files[extent.file];
        let check = match (tenant.desk.method, cached) {
            (Method::None, Some(Cached::Whole)) => Some(Check::None),
            _ => self.look(loading, source, extent.offset_bytes, &mut slot),
        };
        let Some(check) = check else { return Some(slot) };
        if !self.is_unchanged(loading) {
            drop(slot);
            self.load_failed(loading, Code::Data);
            return None;
        }
        let behind = Some((source, extent.offset_bytes));
        self.ready(loading, check, Loaded { slot, start: 0, behind, route: Route::Splice });
        None
    }

    /// The check of a piece, if the page cache holds all of it.
    fn look(
        &self,
        loading: Loading,
        source: FileId,
        offset: u64,
        slot: &mut Slot,
    ) -> Option<Check> {
        let bytes = piece_bytes(loading.ask);
        let mut running = self.tenants[&loading.transfer].desk.method.running(loading.ask.span);
        let mut done = 0;
        while done < bytes {
            let part = LOOK_BYTES.min(bytes - done).min(slot.len());
            let to = &mut slot.as_mut_slice()[..part];
            let read =
                self.io.peek(source, offset + done as u64, to).ok().filter(|read| *read > 0)?;
            running.update(&to[..read]);
            done += read;
        }
        Some(running.finish())
    }
}

//! Sending pieces from where they lie in the page cache.
//!
//! A piece is looked at first: that finds out whether the page cache holds it, and computes its check from small
//! reads that stay in the processor's cache. A file that shrinks or changes meanwhile is a short read or a check that
//! fails at the receiver, never a fault of this process, as a mapping would have it. What is sent then is the pages
//! themselves.

use ring::{Io, Slot};

use super::Mailbox;
use super::contexts::Loading;
use super::driver::Driver;
use super::feed::{Loaded, extent, piece_bytes};
use super::paths::{Reason, Route};
use crate::engine::check::Method;
use crate::store::layout::Extent;
use crate::wire::{Check, DataPath};

/// What is read at once to compute a check: it fits the cache that each core has for itself, twice.
const LOOK_BYTES: usize = 64 * 1024;

impl<I: Io, M: Mailbox> Driver<I, M> {
    /// Whether a piece is to be sent from the page cache, if it is there.
    pub(super) fn may_splice(&self, loading: Loading) -> bool {
        let tenant = &self.tenants[&loading.transfer];
        let wanted = match tenant.desk.path {
            DataPath::Splice => true,
            DataPath::Auto => AUTO_SPLICES,
            DataPath::Direct | DataPath::Zerocopy | DataPath::Copy => false,
        };
        wanted && !tenant.splice_failed
    }

    /// Checks a piece in the page cache and gets it ready to be sent from there. The slot comes back where the page cache
    /// does not hold all of it.
    pub(super) fn load_cached(&mut self, loading: Loading, mut slot: Slot) -> Option<Slot> {
        self.dressed.remove(&(slot.as_slice().as_ptr() as usize));
        let extent = extent(&self.tenants[&loading.transfer], loading);
        let Some(check) = self.look(loading, extent, &mut slot) else {
            let tenant = &self.tenants[&loading.transfer];
            if tenant.desk.path == DataPath::Splice {
                tenant.paths().because(Reason::NotCached);
            }
            return Some(slot);
        };
        let (source, _) = self.tenants[&loading.transfer].files[extent.file];
        let behind = Some((source, extent.offset_bytes));
        self.ready(loading, check, Loaded { slot, start: 0, behind, route: Route::Splice });
        None
    }

    /// The check of a piece, if the page cache holds all of it.
    fn look(&self, loading: Loading, extent: Extent, slot: &mut Slot) -> Option<Check> {
        let tenant = &self.tenants[&loading.transfer];
        let (file, _) = tenant.files[extent.file];
        let bytes = piece_bytes(loading.ask);
        let method = tenant.desk.method;
        if method == Method::None
            && let Ok(cached) = self.io.is_cached(file, extent.offset_bytes, bytes)
        {
            return cached.then_some(Check::None);
        }
        let mut running = method.running(loading.ask.span);
        let mut done = 0;
        while done < bytes {
            let part = LOOK_BYTES.min(bytes - done).min(slot.len());
            let to = &mut slot.as_mut_slice()[..part];
            let read = self.io.peek(file, extent.offset_bytes + done as u64, to).ok().filter(|read| *read > 0)?;
            running.update(&to[..read]);
            done += read;
        }
        Some(running.finish())
    }
}

/// Whether the way of the user's choice `auto` is this one; see docs/decisions/0016-data-paths.md.
const AUTO_SPLICES: bool = false;

//! Progress of a worker that reads what a transfer needs before its node is prepared.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Interval at which the master is told how far it is: its patience is forty times as long.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Counts what is read, and tells of it now and then, so that nobody takes much work for none.
pub(crate) struct ReadProgress<'a> {
    read_bytes: u64,
    told: Instant,
    tell: &'a mut dyn FnMut(u64),
    quits: &'a AtomicBool,
}

impl ReadProgress<'_> {
    /// Nothing is read yet. `tell` hears how many bytes were read; reading stops where `quits` is
    /// set.
    pub(crate) fn new<'a>(tell: &'a mut dyn FnMut(u64), quits: &'a AtomicBool) -> ReadProgress<'a> {
        ReadProgress { read_bytes: 0, told: Instant::now(), tell, quits }
    }

    /// Counts bytes that were read.
    pub(super) fn count(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            (self.tell)(self.read_bytes);
        }
    }

    /// The transfer has ended meanwhile: nobody waits for what is read.
    pub(super) fn is_over(&self) -> bool {
        self.quits.load(Ordering::Relaxed)
    }
}

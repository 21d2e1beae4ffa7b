//! A ring with injected faults, from a seed.
//!
//! Everything that a kernel may do occasionally (short reads, errors, completions in another order,
//! late notifications) this ring does often, so that tests encounter it. It wraps any ring. With
//! the same seed and the same ring below, the same calls have the same completions.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use random::SplitMix;

use crate::RingIo;
use crate::files::{CachedPages, FileId, TcpPath};
use crate::op::{Completion, CompletionStage, RefusedOp, RingOp};
use crate::plain::PlainRing;
use crate::slots::PAGE_BYTES;
use crate::waker::Waker;

/// Faults of a [`FaultyRing`]. The default has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingFaults {
    /// Number of 1000 reads and receives without `wait_all` that move only a part.
    pub short_reads_per_mille: u16,
    /// Number of 1000 writes and sends that move only a part.
    pub short_writes_per_mille: u16,
    /// Number of 1000 operations, except cancellations, that do nothing and fail with `EIO`.
    pub errors_per_mille: u16,
    /// Completions come in any order and later than necessary.
    pub reorder: bool,
    /// Notifications of zero-copy sends are delayed over several waits.
    pub late_notices: bool,
}

/// A ring over another, with faults.
#[derive(Debug)]
pub struct FaultyRing<I> {
    inner: I,
    random: SplitMix,
    faults: RingFaults,
    /// Completions from below or injected, not returned yet.
    held: Vec<Completion>,
}

/// Ring for tests: plain calls below, faults above. Files and sockets are real; `memfd` and socket
/// pairs are sufficient.
pub type FakeRing = FaultyRing<PlainRing>;

impl FaultyRing<PlainRing> {
    /// Creates a ring over plain calls, with room for 256 operations and 256 files.
    ///
    /// # Errors
    /// If no event counter for the waker can be created.
    pub fn new(seed: u64, faults: RingFaults) -> io::Result<Self> {
        Ok(Self::over(PlainRing::new(256, 256)?, seed, faults))
    }
}

impl<I: RingIo> FaultyRing<I> {
    /// Wraps a ring.
    pub fn over(inner: I, seed: u64, faults: RingFaults) -> Self {
        Self { inner, random: SplitMix::new(seed), faults, held: Vec::with_capacity(512) }
    }

    /// Shortens an operation, sometimes.
    fn shorten(&mut self, op: &mut RingOp) {
        let per_mille = match op {
            RingOp::Read { .. } | RingOp::Recv { wait_all: false, .. } => {
                self.faults.short_reads_per_mille
            }
            RingOp::Write { .. }
            | RingOp::Send { .. }
            | RingOp::SendZc { .. }
            | RingOp::SendFile { .. } => self.faults.short_writes_per_mille,
            RingOp::Recv { .. } | RingOp::Sync { .. } | RingOp::Cancel { .. } => 0,
        };
        let per_mille = u64::from(per_mille);
        if let RingOp::SendFile { bytes, .. } = op {
            if *bytes > 1 && self.random.chance(per_mille) {
                *bytes = 1 + self.random.below(u64::from(*bytes) - 1) as u32;
            }
            return;
        }
        let Some(range) = op.range_mut().filter(|range| range.len() > 1) else { return };
        if self.random.chance(per_mille) {
            // Whole pages if there are any, because a file may be open for O_DIRECT.
            let unit = if range.len() > PAGE_BYTES { PAGE_BYTES } else { 1 };
            let units = range.len().div_ceil(unit) - 1;
            range.end = range.start + unit * (1 + self.random.index(units));
        }
    }

    /// Returns the completions that are due: at least one if there is any, so that none is held
    /// forever.
    fn release(&mut self, out: &mut Vec<Completion>) {
        let mut must = !self.held.is_empty();
        while !self.held.is_empty() {
            let at = if self.faults.reorder { self.random.index(self.held.len()) } else { 0 };
            // A notification never overtakes its result.
            let token = self.held[at].token;
            let at =
                self.held.iter().position(|completion| completion.token == token).unwrap_or(at);
            let held_back = match self.held[at].stage {
                CompletionStage::Notice { .. } if self.faults.late_notices => {
                    self.random.chance(750)
                }
                _ => self.faults.reorder && self.random.chance(500),
            };
            if held_back && !must {
                return;
            }
            must = false;
            out.push(self.held.remove(at));
        }
    }
}

impl<I: RingIo> RingIo for FaultyRing<I> {
    fn register_shared(&mut self, fd: Arc<OwnedFd>) -> io::Result<FileId> {
        self.inner.register_shared(fd)
    }

    fn unregister(&mut self, file: FileId) -> io::Result<()> {
        self.inner.unregister(file)
    }

    fn set_notsent_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()> {
        self.inner.set_notsent_lowat(file, bytes)
    }

    fn path(&self, file: FileId) -> io::Result<TcpPath> {
        self.inner.path(file)
    }

    fn set_recv_buffer(&mut self, file: FileId, bytes: usize) -> io::Result<usize> {
        self.inner.set_recv_buffer(file, bytes)
    }

    fn set_recv_lowat(&mut self, file: FileId, bytes: usize) -> io::Result<()> {
        self.inner.set_recv_lowat(file, bytes)
    }

    fn cachestat(&self, file: FileId, offset: u64, bytes: usize) -> io::Result<CachedPages> {
        self.inner.cachestat(file, offset, bytes)
    }

    fn read_cached(&self, file: FileId, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        self.inner.read_cached(file, offset, to)
    }

    fn submit(&mut self, token: u64, mut op: RingOp) -> Result<(), RefusedOp> {
        op.assert_in_bounds();
        if op.file().is_some() && self.random.chance(self.faults.errors_per_mille.into()) {
            let failed = Completion {
                token,
                result: Err(Errno::EIO),
                stage: CompletionStage::Done,
                slot: op.into_slot(),
            };
            self.held.push(failed);
            return Ok(());
        }
        let whole = op.buffer().map(|(_, range)| range.clone());
        let whole_bytes = if let RingOp::SendFile { bytes, .. } = op { bytes } else { 0 };
        self.shorten(&mut op);
        self.inner.submit(token, op).map_err(|mut refused| {
            if let (Some(range), Some(whole)) = (refused.op.range_mut(), whole) {
                *range = whole;
            }
            if let RingOp::SendFile { bytes, .. } = &mut refused.op {
                *bytes = whole_bytes;
            }
            refused
        })
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let timeout = if self.held.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.inner.wait(timeout, &mut self.held)?;
        self.release(out);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
            + self.held.iter().filter(|completion| completion.stage.is_final()).count()
    }
}

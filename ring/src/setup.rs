//! Creation of a ring with the best flags that the kernel supports.

use std::io;

use io_uring::{IoUring, squeue};

/// Delivery of completions by the kernel, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionMode {
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN` (Linux 6.1): completions are processed together, where
    /// the thread waits.
    Deferred,
    /// `COOP_TASKRUN` (Linux 5.19): at the next system call, without interrupting the thread.
    Cooperative,
    /// No flags: at any time.
    Plain,
}

impl CompletionMode {
    /// Every mode, best first.
    pub(crate) const LADDER: [Self; 3] = [Self::Deferred, Self::Cooperative, Self::Plain];

    /// Creates a ring in exactly this mode. With `TASKRUN_FLAG`, a turn that need not wait skips
    /// its system call.
    pub(crate) fn build(self, entries: u32, completions: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::<squeue::Entry>::builder();
        builder.setup_clamp().setup_cqsize(completions);
        match self {
            Self::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag()
            }
            Self::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
            Self::Plain => &mut builder,
        };
        builder.build(entries)
    }
}

/// Creates a ring in the best mode that works. Only `EINVAL`, which means an unknown flag, leads to
/// the next mode: any other error would repeat.
pub(crate) fn build(entries: u32, completions: u32) -> io::Result<(IoUring, CompletionMode)> {
    for mode in CompletionMode::LADDER {
        match mode.build(entries, completions) {
            Ok(ring) => {
                // A filter may allow creating rings but not entering them: this detects it at once.
                ring.submitter().submit_and_wait(0)?;
                return Ok((ring, mode));
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

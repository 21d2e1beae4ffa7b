//! Making a ring with the best flags that the kernel has.

use std::io;

use io_uring::{IoUring, squeue};

/// How the kernel delivers completions, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionMode {
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN` (Linux 6.1): completions are worked off where the thread
    /// waits, together.
    Deferred,
    /// `COOP_TASKRUN` (Linux 5.19): at the next system call, without interrupting the thread.
    Cooperative,
    /// No flags: whenever the kernel likes.
    Plain,
}

impl CompletionMode {
    /// Every mode, best first.
    pub(crate) const LADDER: [Self; 3] = [Self::Deferred, Self::Cooperative, Self::Plain];

    /// Makes a ring in exactly this mode. `TASKRUN_FLAG` lets a turn that need not wait skip its
    /// system call.
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

/// Makes a ring in the best mode that works. Only `EINVAL`, which means an unknown flag, leads to
/// the next mode: any other error would come again.
pub(crate) fn build(entries: u32, completions: u32) -> io::Result<(IoUring, CompletionMode)> {
    for mode in CompletionMode::LADDER {
        match mode.build(entries, completions) {
            Ok(ring) => {
                // A filter may let rings be made and not be entered: that is found out now, and not
                // by what never ends.
                ring.submitter().submit_and_wait(0)?;
                return Ok((ring, mode));
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

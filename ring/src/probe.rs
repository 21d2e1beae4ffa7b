//! Abilities of this kernel, and remedies for missing ones.
//!
//! `io_uring` is missing for different reasons that look alike: an old kernel, a ban, too little
//! locked memory. Each has its own remedy, so each has its own cause here.

use std::fs;
use std::io;

use io_uring::IoUring;
use nix::errno::Errno;

use crate::setup;
use crate::slots::SlotPool;

/// Abilities of a ring in this process. All operations of [`crate::RingOp`] are among them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RingProbe {
    /// True if the ring itself sets low-water marks of sockets (Linux 6.7), without a system call.
    pub sets_options: bool,
    /// Result of registering the requested number of bytes as buffers.
    pub locked_memory: Result<(), ProbeError>,
}

/// Reason why a ring, or its buffers, cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct ProbeError {
    /// The obstacle.
    pub cause: ProbeCause,
    /// The remedy, as a clause: "run with …".
    pub remedy: &'static str,
}

/// An obstacle to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeCause {
    /// `ENOSYS`.
    #[error("this kernel has no io_uring, or a filter of system calls hides it")]
    Missing,
    /// `EOPNOTSUPP` of [`crate::Uring::new`].
    #[error("the io_uring of this kernel is older than that of Linux 6.1")]
    Old,
    /// `EPERM` with `kernel.io_uring_disabled` at 2.
    #[error("io_uring is disabled on this machine (kernel.io_uring_disabled = 2)")]
    Disabled,
    /// `EPERM` with `kernel.io_uring_disabled` at 1.
    #[error("io_uring is only for privileged users on this machine (kernel.io_uring_disabled = 1)")]
    Privileged,
    /// `EPERM` or `EACCES` without such a setting: a filter.
    #[error("a filter of system calls forbids io_uring")]
    Filtered,
    /// `ENOMEM`.
    #[error("the limit of locked memory is too low")]
    LockedMemory,
    /// `EMFILE` or `ENFILE`.
    #[error("too many open files")]
    Files,
    /// Something else.
    #[error("io_uring failed: {0}")]
    Other(Errno),
}

impl ProbeError {
    /// Explains an error of creating a ring or of registering its buffers.
    #[must_use]
    pub fn explain(error: Errno) -> Self {
        let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        let cause = cause(error, setting.trim());
        Self { cause, remedy: remedy(cause) }
    }
}

/// Asks the kernel for the abilities of a ring, and tries to register `locked_bytes` of buffers.
///
/// It creates a small ring and, for a moment, a pool of `locked_bytes` (at most
/// [`crate::POOL_BYTES_MAX`]).
///
/// # Errors
/// If no ring can be created at all.
pub fn probe(locked_bytes: usize) -> Result<RingProbe, ProbeError> {
    let mut ring = setup::build(4, 8).map_err(|error| explain(&error))?;
    let sets_options = setup::sets_options(&mut ring, 0);
    Ok(RingProbe { sets_options, locked_memory: lock(&ring, locked_bytes) })
}

/// Registers a pool of `bytes` bytes: the limit depends on the user's other processes, too, so only
/// a trial can tell.
fn lock(ring: &IoUring, bytes: usize) -> Result<(), ProbeError> {
    if bytes == 0 {
        return Ok(());
    }
    let pool = SlotPool::new(1, bytes).map_err(|error| explain(&error))?;
    // SAFETY: the vector is the pool's whole mapping, which outlives the registration below.
    let registered = unsafe { ring.submitter().register_buffers(&[pool.mapping().iovec()]) };
    registered.and_then(|()| ring.submitter().unregister_buffers()).map_err(|error| explain(&error))
}

fn explain(error: &io::Error) -> ProbeError {
    ProbeError::explain(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

fn cause(error: Errno, setting: &str) -> ProbeCause {
    match (error, setting) {
        (Errno::ENOSYS, _) => ProbeCause::Missing,
        (Errno::EOPNOTSUPP, _) => ProbeCause::Old,
        (Errno::EPERM, "2") => ProbeCause::Disabled,
        (Errno::EPERM, "1") => ProbeCause::Privileged,
        (Errno::EPERM | Errno::EACCES, _) => ProbeCause::Filtered,
        (Errno::ENOMEM, _) => ProbeCause::LockedMemory,
        (Errno::EMFILE | Errno::ENFILE, _) => ProbeCause::Files,
        (other, _) => ProbeCause::Other(other),
    }
}

fn remedy(cause: ProbeCause) -> &'static str {
    match cause {
        ProbeCause::Missing => {
            "run Linux 6.1 or later, and allow io_uring in the container's seccomp profile"
        }
        ProbeCause::Old => "run Linux 6.1 or later",
        ProbeCause::Disabled => "ask the administrator for `sysctl kernel.io_uring_disabled=0`",
        ProbeCause::Privileged => {
            "join the group of `sysctl kernel.io_uring_group`, or ask for \
             `kernel.io_uring_disabled=0`"
        }
        ProbeCause::Filtered => {
            "allow io_uring in the container's seccomp profile (`--security-opt seccomp=…`)"
        }
        ProbeCause::LockedMemory => {
            "raise the limit with `ulimit -l unlimited` or LimitMEMLOCK, or use fewer slots"
        }
        ProbeCause::Files => "raise the limit with `ulimit -n`",
        ProbeCause::Other(_) => "look the error up in io_uring_setup(2)",
    }
}

#[cfg(test)]
mod tests {
    use super::{Errno, ProbeCause, cause, remedy};

    #[test]
    fn each_error_has_its_cause() {
        let table = [
            (Errno::ENOSYS, "", ProbeCause::Missing),
            (Errno::EOPNOTSUPP, "", ProbeCause::Old),
            (Errno::EPERM, "2", ProbeCause::Disabled),
            (Errno::EPERM, "1", ProbeCause::Privileged),
            (Errno::EPERM, "0", ProbeCause::Filtered),
            (Errno::EPERM, "", ProbeCause::Filtered),
            (Errno::EACCES, "0", ProbeCause::Filtered),
            (Errno::ENOMEM, "0", ProbeCause::LockedMemory),
            (Errno::EMFILE, "0", ProbeCause::Files),
            (Errno::EINVAL, "0", ProbeCause::Other(Errno::EINVAL)),
        ];
        for (error, setting, expected) in table {
            assert_eq!(cause(error, setting), expected, "{error} with the setting {setting:?}");
        }
    }

    #[test]
    fn causes_of_one_errno_differ_in_their_remedy() {
        let remedies =
            [ProbeCause::Disabled, ProbeCause::Privileged, ProbeCause::Filtered].map(remedy);
        assert!(
            remedies[0] != remedies[1] && remedies[1] != remedies[2] && remedies[0] != remedies[2]
        );
    }
}

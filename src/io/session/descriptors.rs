//! File descriptors of this process: their limit and their number.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Returns the soft and the hard limit of this process.
///
/// # Errors
/// The kernel's error; it has none for this call.
pub(crate) fn limits() -> Result<(u64, u64), Errno> {
    getrlimit(Resource::RLIMIT_NOFILE)
}

/// Raises the soft limit to `wanted`, or to the hard limit if that is lower. Returns the resulting
/// limit.
pub(crate) fn raise(wanted: u64) -> u64 {
    let Ok((soft, hard)) = limits() else { return u64::MAX };
    let target = wanted.min(hard);
    if soft >= target {
        return soft;
    }
    // A kernel that allows less than the hard limit (fs.nr_open was lowered) does not change the
    // soft limit.
    setrlimit(Resource::RLIMIT_NOFILE, target, hard).map_or(soft, |()| target)
}

/// Returns the number of open descriptors of this process, or that of a small process if /proc is
/// unavailable.
pub(crate) fn in_use() -> u64 {
    // The directory being read is one of them.
    std::fs::read_dir("/proc/self/fd")
        .map_or(IN_USE_UNKNOWN, |entries| (entries.count() as u64).saturating_sub(1))
}

const IN_USE_UNKNOWN: u64 = 32;

/// A reserved descriptor. Freed for a moment, it lets a process without other descriptors accept a
/// connection and close it, so that the peer is notified and the listener's queue advances.
#[derive(Debug)]
pub(crate) struct SpareDescriptor(Option<OwnedFd>);

impl SpareDescriptor {
    pub(crate) fn new() -> SpareDescriptor {
        SpareDescriptor(spare())
    }

    /// Runs `with` while the descriptor is free.
    pub(super) fn lend<T>(&mut self, with: impl FnOnce() -> T) -> T {
        self.0 = None;
        let result = with();
        self.0 = spare();
        result
    }
}

fn spare() -> Option<OwnedFd> {
    File::open("/dev/null").ok().map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_as_far_as_the_hard_one_and_never_lowered() {
        let (soft, hard) = limits().expect("every process has limits");
        assert_eq!(raise(0), soft);
        assert_eq!(raise(soft), soft);
        assert!(raise(u64::MAX) <= hard);
        let in_use = in_use();
        assert!(in_use >= 3 && in_use < limits().expect("as above").0, "{in_use}");
    }
}

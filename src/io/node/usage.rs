//! Processor time and memory of this process.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// Processor time of the whole process, user and system.
pub(crate) fn cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let seconds = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs())
            + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The most memory that was ever resident, in bytes; 0 where the system does not say.
pub(crate) fn memory_bytes_max() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss().unsigned_abs() * 1024)
}

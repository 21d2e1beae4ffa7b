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

/// The most memory that this program ever had resident, in bytes; 0 where the system does not say.
/// `ru_maxrss` of getrusage(2) is inherited: a launched node would report that of its launcher.
pub(crate) fn memory_bytes_max() -> u64 {
    std::fs::read_to_string("/proc/self/status").map_or(0, |status| peak_bytes(&status))
}

/// Reads `VmHWM:      1234 kB` of a process's status.
fn peak_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_status_of_a_process() {
        assert_eq!(
            peak_bytes("VmPeak:\t  99 kB\nVmHWM:\t   23552 kB\nVmRSS:\t 7 kB\n"),
            24_117_248
        );
        assert_eq!(peak_bytes("Name:\tcep-fast\n"), 0);
        assert!(memory_bytes_max() > 1 << 20);
    }
}

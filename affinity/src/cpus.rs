//! CPUs by number: those allowed to this thread, and pinning to one.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// Returns the CPUs that the calling thread may run on, ascending, as limited by the job's
/// launcher.
///
/// # Errors
/// The error of `sched_getaffinity`: usually the machine has more than 1024 CPUs.
pub fn cpus_allowed() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect())
}

/// Error of a thread that could not be pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot run on CPU {cpu}; allowed are {allowed:?}")]
pub struct PinError {
    /// The requested CPU.
    pub cpu: usize,
    /// The CPUs that the thread may run on.
    pub allowed: Vec<usize>,
}

/// Pins the calling thread to one CPU, and with it the threads that it spawns later.
///
/// # Errors
/// If the thread may not run there, or the CPU does not exist.
pub fn pin(cpu: usize) -> Result<(), PinError> {
    let allowed = cpus_allowed().unwrap_or_default();
    // Checked against the mask first: the kernel would widen it again, against the intention of a
    // launcher.
    if allowed.contains(&cpu) && core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        return Ok(());
    }
    Err(PinError { cpu, allowed })
}

/// Parses a list as sysfs prints it, `0-3,8,10-11`; an empty text has no CPU. Returns `None` if it
/// is not such a list.
pub(crate) fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for item in list.trim().split(',').filter(|item| !item.is_empty()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CPU_COUNT_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Limit on CPUs, above that of any kernel (8192): a list beyond it is invalid.
const CPU_COUNT_MAX: usize = 1 << 16;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::{cpus_allowed, parse_list, pin};

    #[test]
    fn lists_of_cpus() {
        let table: [(&str, Option<&[usize]>); 9] = [
            ("0-3\n", Some(&[0, 1, 2, 3])),
            ("0,2-3,7\n", Some(&[0, 2, 3, 7])),
            ("5", Some(&[5])),
            ("\n", Some(&[])),
            ("3-1", None),
            ("a", None),
            ("1-", None),
            ("-1", None),
            ("0-4000000000", None),
        ];
        for (list, expected) in table {
            assert_eq!(parse_list(list).as_deref(), expected, "{list:?}");
        }
    }

    #[test]
    fn a_pinned_thread_is_allowed_one_cpu() {
        // In a thread of its own, whose end undoes the pinning.
        std::thread::spawn(|| {
            let last = *cpus_allowed().unwrap().last().unwrap();
            pin(last).unwrap();
            assert_eq!(cpus_allowed().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_cpu_that_is_not_allowed_is_an_error_that_says_which_are() {
        let error = pin(1023).unwrap_err();
        assert_eq!((error.cpu, error.allowed), (1023, cpus_allowed().unwrap()));
    }
}

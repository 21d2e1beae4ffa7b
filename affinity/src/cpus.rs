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

/// Parses CPUs in the form of sysfs and of taskset: `0-3,8,10-11`, in the order of the text. An
/// empty text has no CPU. Returns `None` if it is not such a list.
pub fn parse_cpus(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for item in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CPUS_MAX || cpus.len() + (last - first) >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Limit on the CPUs of a list: the largest `CONFIG_NR_CPUS` of Linux.
const CPUS_MAX: usize = 8192;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::{cpus_allowed, parse_cpus, pin};

    #[test]
    fn lists_of_cpus() {
        let table: [(&str, Option<&[usize]>); 12] = [
            ("0-3", Some(&[0, 1, 2, 3])),
            ("0,2-3,7", Some(&[0, 2, 3, 7])),
            ("5", Some(&[5])),
            ("", Some(&[])),
            ("1,", None),
            (",", None),
            ("3-1", None),
            ("a", None),
            ("1-", None),
            ("-1", None),
            ("0-4000000000", None),
            ("0-8191,0-8191", None),
        ];
        for (list, expected) in table {
            assert_eq!(parse_cpus(list).as_deref(), expected, "{list:?}");
        }
        assert_eq!(parse_cpus("0-8191").map(|cpus| cpus.len()), Some(8192));
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

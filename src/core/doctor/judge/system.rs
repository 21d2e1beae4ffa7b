//! Findings about the kernel: ring, locked memory, filters, clocks.

use crate::core::doctor::diagnosis::{DoctorFinding, FindingLevel, finding, list};
use crate::core::doctor::readings::{CpuGovernor, IoUring, MachineReadings, RingObstacle};
use crate::core::units::{KIB, human_bytes};

pub(super) fn judge(machine: &MachineReadings) -> Vec<DoctorFinding> {
    let mut findings = match &machine.io_uring {
        Ok(io_uring) => with_ring(machine, io_uring),
        Err(obstacle) => vec![without_ring(obstacle)],
    };
    findings.extend(filter(machine));
    findings.extend(governor(&machine.governors));
    findings
}

fn without_ring(RingObstacle { cause, remedy }: &RingObstacle) -> DoctorFinding {
    let cost = "rails use plain calls: a system call for every step, and more processor time for \
                every byte";
    finding(FindingLevel::Shortfall, "io_uring", cause).costs(cost).mended_by(remedy)
}

fn with_ring(machine: &MachineReadings, io_uring: &IoUring) -> Vec<DoctorFinding> {
    let whole = finding(FindingLevel::Ok, "io_uring", "allowed, with all that is needed");
    vec![whole, memlock(machine, &io_uring.locked)]
}

/// Judges by a trial: the limit does not apply to privileged users, and is shared with the user's
/// other processes.
fn memlock(machine: &MachineReadings, locked: &Result<(), RingObstacle>) -> DoctorFinding {
    let wanted = human_bytes(machine.locked_bytes_wanted);
    let limit = machine.memlock_bytes.map_or_else(|| "unlimited".into(), human_bytes);
    let is_enough = machine.memlock_bytes.is_none_or(|limit| limit >= machine.locked_bytes_wanted);
    let raised = format!(
        "ulimit -l unlimited ({} is the least; before srun, too), LimitMEMLOCK=infinity in a unit \
         of systemd, or fewer --slots",
        machine.locked_bytes_wanted.div_ceil(KIB)
    );
    match locked {
        Err(RingObstacle { cause, .. }) => {
            let found = format!(
                "{wanted} for a node that sends and receives were refused, the limit being \
                 {limit}: {cause}"
            );
            let cost = "slots are not registered: the kernel looks up and pins their pages at \
                        every operation";
            finding(FindingLevel::Shortfall, "memlock", found).costs(cost).mended_by(raised)
        }
        Ok(()) if is_enough => {
            finding(FindingLevel::Ok, "memlock", format!("{wanted} wanted, limit {limit}"))
        }
        Ok(()) => {
            let found = format!("{wanted} wanted, limit {limit}, which does not bind this user");
            let cost = "nothing to this user; slots of users without privileges are not registered";
            finding(FindingLevel::Note, "memlock", found).costs(cost).mended_by(raised)
        }
    }
}

/// A filter that forbids rings is found by a trial; this finds one that allows them.
fn filter(machine: &MachineReadings) -> Option<DoctorFinding> {
    let filtered = |found: &str| finding(FindingLevel::Note, "seccomp", found);
    Some(if !machine.is_filtered? {
        finding(FindingLevel::Ok, "seccomp", "no filter")
    } else if machine.io_uring.is_ok() {
        filtered("a filter of system calls is on, and lets io_uring pass")
            .costs("a little at every system call")
    } else {
        let remedy = "allow io_uring_setup, io_uring_enter and io_uring_register in the \
                      container's profile";
        filtered("a filter of system calls is on")
            .costs("it may be what forbids io_uring")
            .mended_by(remedy)
    })
}

fn governor(governors: &[CpuGovernor]) -> Option<DoctorFinding> {
    if governors.is_empty() {
        return None;
    }
    let lazy: Vec<&CpuGovernor> =
        governors.iter().filter(|governor| governor.name != "performance").collect();
    let Some(first) = lazy.first() else {
        return Some(finding(FindingLevel::Ok, "governor", "performance"));
    };
    let cpus: Vec<usize> = lazy.iter().map(|governor| governor.cpu).collect();
    let found =
        finding(worst(&lazy), "governor", format!("{} on CPUs {}", first.name, list(&cpus)));
    let found = match found.level {
        FindingLevel::Shortfall => found.costs("these CPUs stay at their lowest clock"),
        _ => found.costs("CPUs take a while to speed up, in which a queue runs full or dry"),
    };
    Some(found.mended_by("cpupower frequency-set -g performance"))
}

/// Returns the level for `powersave`, which is the lowest clock, except where the processor decides
/// itself and takes it as a hint.
fn worst(lazy: &[&CpuGovernor]) -> FindingLevel {
    let decides_itself =
        |driver: &str| driver.starts_with("intel_pstate") || driver.starts_with("amd-pstate-epp");
    let is_slowest = |governor: &&&CpuGovernor| {
        governor.name == "powersave" && !governor.driver.as_deref().is_some_and(decides_itself)
    };
    if lazy.iter().any(|governor| is_slowest(&governor)) {
        FindingLevel::Shortfall
    } else {
        FindingLevel::Note
    }
}

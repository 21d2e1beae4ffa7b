//! Findings about rights: what a node gives up, and what capabilities would buy it.

use crate::core::doctor::diagnosis::{DoctorFinding, FindingLevel, finding};
use crate::core::doctor::readings::MachineReadings;

pub(super) fn judge(machine: &MachineReadings) -> Vec<DoctorFinding> {
    let mut findings = vec![confinement(machine)];
    findings.extend(machine.capabilities.map(capabilities));
    findings
}

fn confinement(machine: &MachineReadings) -> DoctorFinding {
    let obstacles = &machine.confinement_obstacles;
    let noted = |found| finding(FindingLevel::Note, "confinement", found);
    if !obstacles.is_empty() {
        let cost = "a fault in a node reaches all that its user may; --confine required does not \
                    start";
        return noted(obstacles.join("; ")).costs(cost).mended_by(
            "run Linux 6.2 or later (5.13 binds all but truncation), with landlock in CONFIG_LSM \
             or lsm= of the kernel",
        );
    }
    if let Some(weakness) = &machine.confinement_weakness {
        let cost = "a fault in a node can empty files that it may only read; --confine required \
                    does not start";
        return noted(weakness.clone()).costs(cost).mended_by("run Linux 6.2 or later");
    }
    let found = "a node is bound to its roots (Landlock) and to the calls it needs (seccomp)";
    finding(FindingLevel::Ok, "confinement", found)
}

/// A node needs no capability. Each of these buys something.
fn capabilities(effective: u64) -> DoctorFinding {
    let (held, lacked): (Vec<_>, Vec<_>) =
        BUYS.iter().partition(|(number, ..)| effective >> number & 1 == 1);
    let listed = |of: &[&(u32, &str, &str)]| {
        let of: Vec<String> =
            of.iter().map(|(_, name, buys)| format!("CAP_{name} ({buys})")).collect();
        if of.is_empty() { "none".into() } else { of.join(", ") }
    };
    let found = format!(
        "none is needed; this process has {}; it could use {}",
        listed(&held),
        listed(&lacked)
    );
    finding(FindingLevel::Ok, "capabilities", found)
}

/// Number, name, and what a node can do with it (capabilities(7)). Others buy nothing: NICs are
/// bound to sockets and threads to CPUs without `CAP_NET_RAW`, `CAP_NET_ADMIN` and `CAP_SYS_NICE`.
const BUYS: [(u32, &str, &str); 7] = [
    (0, "CHOWN", "a replaced file keeps its owner"),
    (1, "DAC_OVERRIDE", "write where its user may not"),
    (2, "DAC_READ_SEARCH", "read files of all users"),
    (3, "FOWNER", "replace files of others in sticky directories"),
    (10, "NET_BIND_SERVICE", "listen on a port below 1024"),
    (14, "IPC_LOCK", "lock slots beyond ulimit -l"),
    (24, "SYS_RESOURCE", "open files beyond the hard limit"),
];

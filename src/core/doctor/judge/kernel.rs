//! Findings about what a kernel lacks besides `io_uring` and Landlock: each is done in another way.

use crate::core::doctor::diagnosis::{DoctorFinding, FindingLevel, finding};
use crate::core::doctor::readings::{KernelFeature, MachineReadings};

pub(super) fn judge(machine: &MachineReadings) -> Vec<DoctorFinding> {
    machine.lacks.iter().map(|feature| lacking(*feature, machine)).collect()
}

fn lacking(feature: KernelFeature, machine: &MachineReadings) -> DoctorFinding {
    let LostFeature { about, what, costs, since } = of(feature);
    let found = format!("Linux {} lacks {what}, or a filter hides it", machine.kernel);
    let remedy = match feature {
        KernelFeature::BindToNic => format!("run Linux {since} or later, or give CAP_NET_RAW"),
        KernelFeature::Cachestat => format!("run Linux {since} or later, or --path direct"),
        _ => format!("run Linux {since} or later"),
    };
    finding(FindingLevel::Note, about, found).costs(costs).mended_by(remedy)
}

/// What is lost with a feature.
struct LostFeature {
    about: &'static str,
    what: &'static str,
    costs: &'static str,
    since: &'static str,
}

fn of(feature: KernelFeature) -> LostFeature {
    let lost = |about, what, costs, since| LostFeature { about, what, costs, since };
    match feature {
        KernelFeature::PacketOrder => lost(
            "TCP_INFO",
            "the count of packets that come out of order",
            "a receiver opens no further flows on a long path that loses packets",
            "5.4",
        ),
        KernelFeature::Openat2 => lost(
            "openat2",
            "openat2",
            "paths below a root are opened name by name, by as many calls; nothing of their safety",
            "5.6",
        ),
        KernelFeature::BindToNic => lost(
            "SO_BINDTODEVICE",
            "the binding of sockets to NICs without a capability",
            "source addresses and the kernel's routes choose the NICs of flows",
            "5.7",
        ),
        KernelFeature::Cachestat => lost(
            "cachestat",
            "cachestat",
            "a file that is not in the page cache is mostly read through it, which is slower",
            "6.5",
        ),
        KernelFeature::RingOptions => lost(
            "io_uring",
            "options of sockets that io_uring sets",
            "one more system call for each piece that is received",
            "6.7",
        ),
    }
}

//! Reader of a machine's readings. Its roots are arguments, so that tests can use their own trees.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use affinity::{NicInfo, SysfsTree};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use ring::{Errno, ProbeError, RingConfig, RingProbe, Uring};

use super::kernel_features;
use crate::core::doctor::readings::{
    CpuGovernor, IoUring, KernelFeature, MachineReadings, NicReading, NicUse, RingObstacle,
};
use crate::io::confine;
use crate::io::node::{
    INSIDE_PREFIXES, LOOPBACK, NicLine, ThreadCount, is_link_local, locked_bytes, threads,
};

/// If set to `plain`, rails do not use `io_uring`.
const IO_VARIABLE: &str = "CEP_FAST_IO";

/// Default number of operations in flight in a rail's ring: three for each of 128 flows, four for
/// each of 16 slots.
const RAIL_ENTRIES: u32 = 3 * 128 + 4 * 16;
/// Number of files in its table.
const RAIL_FILES: u32 = 128 + 1024;

/// Roots of the files to read.
pub(super) struct MachineReader {
    sys: PathBuf,
    proc: PathBuf,
}

impl MachineReader {
    /// Creates a reader of the kernel's own trees.
    pub(super) fn of_this_machine() -> MachineReader {
        MachineReader { sys: "/sys".into(), proc: "/proc".into() }
    }

    /// Reads everything. An unreadable value is omitted, or has a reason.
    pub(super) fn read(&self) -> MachineReadings {
        let (nics, nics_error) = match affinity::nics(&SysfsTree::at(&self.sys)) {
            Ok(nics) => (nics.into_iter().map(|nic| self.nic(nic)).collect(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let cpus_allowed = affinity::cpus_allowed().unwrap_or_default();
        let locked_bytes_wanted = locked_bytes(rails(&nics, &cpus_allowed));
        let (io_uring, ring_lacks) = io_uring(locked_bytes_wanted);
        let mut lacks = kernel_features::lacking();
        lacks.extend(ring_lacks);
        MachineReadings {
            kernel: kernel(),
            nics_error,
            netlink_error: affinity::netlink_obstacle().map(|error| error.to_string()),
            governors: self.governors(&cpus_allowed),
            numa_node_count: entries(&self.sys.join("devices/system/node"), "node").max(1),
            io_uring,
            lacks,
            locked_bytes_wanted,
            memlock_bytes: memlock_bytes(),
            is_filtered: self.is_filtered(),
            confinement_obstacles: [confine::files_obstacle(), confine::calls_obstacle()]
                .into_iter()
                .flatten()
                .collect(),
            confinement_weakness: confine::files_weakness(),
            capabilities: self.capabilities(),
            congestion_control: text(&self.proc.join("sys/net/ipv4/tcp_congestion_control")),
            tcp_rmem: self.sizes("tcp_rmem"),
            tcp_wmem: self.sizes("tcp_wmem"),
            nics,
            cpus_allowed,
        }
    }

    fn nic(&self, nic: NicInfo) -> NicReading {
        let directory = self.sys.join("class/net").join(&nic.name);
        let driver = fs::read_link(directory.join("device/driver")).ok();
        let driver =
            driver.and_then(|driver| Some(driver.file_name()?.to_string_lossy().into_owned()));
        NicReading {
            usage: usage(&nic),
            driver,
            rx_queues: entries(&directory.join("queues"), "rx-"),
            tx_queues: entries(&directory.join("queues"), "tx-"),
            addresses: nic
                .addresses
                .iter()
                .map(|own| format!("{}/{}", own.ip, own.prefix_bits))
                .collect(),
            arp_ignore: self.arp_ignore("all").max(self.arp_ignore(&nic.name)),
            name: nic.name,
            speed_mbit: nic.speed_mbit,
            mtu: nic.mtu,
            numa_node: nic.numa_node,
            cpus: nic.cpus,
        }
    }

    fn arp_ignore(&self, nic: &str) -> Option<u32> {
        text(&self.proc.join(format!("sys/net/ipv4/conf/{nic}/arp_ignore")))?.parse().ok()
    }

    fn governors(&self, cpus: &[usize]) -> Vec<CpuGovernor> {
        let of = |cpu: &usize| {
            let directory = self.sys.join(format!("devices/system/cpu/cpu{cpu}/cpufreq"));
            let name = text(&directory.join("scaling_governor"))?;
            Some(CpuGovernor { cpu: *cpu, name, driver: text(&directory.join("scaling_driver")) })
        };
        cpus.iter().filter_map(of).collect()
    }

    fn capabilities(&self) -> Option<u64> {
        let status = text(&self.proc.join("self/status"))?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(effective.trim(), 16).ok()
    }

    /// Returns true if a filter is active. Mode 0 is none; 1 is strict, which would end this
    /// process; 2 is a filter.
    fn is_filtered(&self) -> Option<bool> {
        let status = text(&self.proc.join("self/status"))?;
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?;
        Some(mode.trim() != "0")
    }

    fn sizes(&self, name: &str) -> Option<[u64; 3]> {
        let text = text(&self.proc.join("sys/net/ipv4").join(name))?;
        let sizes: Vec<u64> =
            text.split_whitespace().map(u64::from_str).collect::<Result<_, _>>().ok()?;
        sizes.try_into().ok()
    }
}

/// Returns the default number of rails of a node.
fn rails(nics: &[NicReading], cpus_allowed: &[usize]) -> usize {
    let used = nics.iter().filter(|nic| nic.usage == NicUse::Rail);
    let lines: Vec<NicLine> =
        used.map(|nic| NicLine { speed_mbit: nic.speed_mbit, near: &nic.cpus }).collect();
    threads(ThreadCount::Auto, &lines, cpus_allowed)
        .map_or(lines.len(), |threads| threads.iter().sum())
}

/// Returns the use of a NIC by a node without `--nic`, by the node's rule.
fn usage(nic: &NicInfo) -> NicUse {
    if nic.name == LOOPBACK {
        NicUse::Loopback
    } else if INSIDE_PREFIXES.iter().any(|prefix| nic.name.starts_with(prefix)) {
        NicUse::Inside
    } else if !nic.up {
        NicUse::Down
    } else if nic.addresses.iter().any(|own| !is_link_local(own.ip)) {
        NicUse::Rail
    } else {
        NicUse::NoAddress
    }
}

/// Returns the abilities of a ring, or the reason why there is none, and what a ring does without.
fn io_uring(locked_bytes: u64) -> (Result<IoUring, RingObstacle>, Option<KernelFeature>) {
    match probe(locked_bytes) {
        Ok(RingProbe { sets_options, locked_memory, .. }) => {
            let locked = locked_memory.map_err(|error| obstacle(&error));
            (Ok(IoUring { locked }), (!sets_options).then_some(KernelFeature::RingOptions))
        }
        Err(obstacle) => (Err(obstacle), None),
    }
}

fn probe(locked_bytes: u64) -> Result<RingProbe, RingObstacle> {
    if std::env::var_os(IO_VARIABLE).is_some_and(|value| value == "plain") {
        let cause = format!("{IO_VARIABLE}=plain is set");
        return Err(RingObstacle { cause, remedy: format!("unset {IO_VARIABLE}") });
    }
    // Recent kernels count the queues of a ring as locked memory, so a small ring may be allowed
    // where a rail's is not.
    Uring::new(&RingConfig { entries: RAIL_ENTRIES, files: RAIL_FILES, blocking: 0, pools: &[] })
        .map_err(|error| {
        obstacle(&ProbeError::explain(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))
    })?;
    let bytes = usize::try_from(locked_bytes).unwrap_or(usize::MAX).min(ring::POOL_BYTES_MAX);
    ring::probe(bytes).map_err(|error| obstacle(&error))
}

fn obstacle(error: &ProbeError) -> RingObstacle {
    RingObstacle { cause: error.cause.to_string(), remedy: error.remedy.into() }
}

/// Returns the effective limit of this process; `None` if there is none.
fn memlock_bytes() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

fn kernel() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "unknown".into(), |name| name.release().to_string_lossy().into_owned())
}

/// Counts the entries of a directory whose names are `prefix` and a number.
fn entries(directory: &Path, prefix: &str) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| {
            name.strip_prefix(prefix).is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .count()
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;

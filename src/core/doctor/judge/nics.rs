//! Findings about NICs: their existence, and the shortcomings of each.

use std::net::Ipv4Addr;

use crate::core::doctor::diagnosis::{DoctorFinding, FindingLevel, finding, list};
use crate::core::doctor::readings::{MachineReadings, NicReading, NicUse};
use crate::core::units::BitRate;

/// The usual size of jumbo frames.
const MTU_JUMBO: u32 = 9000;
/// Speed above which one queue, and so one CPU for all interrupts of a NIC, becomes the limit:
/// about the rate that a CPU takes from a driver in small frames.
const QUEUE_MBIT_MAX: u32 = 10_000;

pub(super) fn judge(machine: &MachineReadings) -> Vec<DoctorFinding> {
    let mut findings = Vec::new();
    if let Some(error) = &machine.nics_error {
        let found =
            finding(FindingLevel::Shortfall, "NICs", format!("they cannot be listed: {error}"));
        findings.push(
            found
                .costs("nodes use one address and know nothing of its NIC")
                .mended_by("mount -t sysfs sysfs /sys"),
        );
    } else if machine.rails().next().is_none() {
        let found = finding(
            FindingLevel::Shortfall,
            "NICs",
            "none is up, has an address and leads out of this machine",
        );
        findings.push(
            found
                .costs("nodes can only listen on 127.0.0.1, or on what --nic names")
                .mended_by("ip link set dev NIC up && ip address add ADDRESS/PREFIX dev NIC"),
        );
    }
    if let Some(error) = &machine.netlink_error {
        let found = finding(
            FindingLevel::Note,
            "NICs",
            format!("their addresses cannot be asked for by netlink: {error}"),
        );
        findings.push(
            found
                .costs(
                    "addresses are pieced together from /proc/net, and one in a subnet of its own \
                     may be missed",
                )
                .mended_by(
                    "allow AF_NETLINK in RestrictAddressFamilies= of systemd, or in the \
                     container's profile",
                ),
        );
    }
    for nic in &machine.nics {
        match nic.usage {
            NicUse::Rail => findings.extend(rail(machine, nic)),
            NicUse::Down if nic.driver.is_some() => {
                findings.push(unused(nic, "down").mended_by(format!(
                    "ip link set dev {} up, if there is a cable in it",
                    nic.name
                )));
            }
            NicUse::NoAddress if nic.driver.is_some() => {
                findings.push(unused(nic, "up, but without an address").mended_by(format!(
                    "ip address add ADDRESS/PREFIX dev {}, unless it is part of a bond or a bridge",
                    nic.name
                )));
            }
            // These never carry traffic to another machine.
            NicUse::Down | NicUse::NoAddress | NicUse::Loopback | NicUse::Inside => {}
        }
    }
    findings.extend(one_for_the_other(machine));
    findings.extend(cpus_for_rails(machine));
    findings
}

fn unused(nic: &NicReading, why: &str) -> DoctorFinding {
    finding(FindingLevel::Note, &nic.name, why)
        .costs("it is not used, so its line rate does not count")
}

/// Returns the shortcomings of a NIC in use, or an `Ok` finding.
fn rail(machine: &MachineReadings, nic: &NicReading) -> Vec<DoctorFinding> {
    let findings: Vec<DoctorFinding> =
        [speed(nic), mtu(nic), queues(machine, nic), memory_node(machine, nic), near(machine, nic)]
            .into_iter()
            .flatten()
            .collect();
    if !findings.is_empty() {
        return findings;
    }
    let speed = nic
        .speed_mbit
        .map_or_else(|| "-".into(), |mbit| BitRate(u64::from(mbit) * 1_000_000).to_string());
    vec![finding(FindingLevel::Ok, &nic.name, format!("{speed}, MTU {}", nic.mtu))]
}

fn speed(nic: &NicReading) -> Option<DoctorFinding> {
    if nic.speed_mbit.is_some() {
        return None;
    }
    let found = finding(FindingLevel::Note, &nic.name, "its driver does not say how fast it is");
    Some(
        found
            .costs("plans assume 100 Gbit/s of it, and no share of line rate can be told")
            .mended_by("declare speed=RATE in a row of this node, such as speed=25G"),
    )
}

/// Only a note: line rate is possible with 1500, and every switch must support larger frames.
fn mtu(nic: &NicReading) -> Option<DoctorFinding> {
    if nic.mtu >= MTU_JUMBO {
        return None;
    }
    let found = finding(FindingLevel::Note, &nic.name, format!("MTU {}", nic.mtu));
    Some(
        found
            .costs(format!(
                "{:.1} % of the line is headers, and every packet costs processor time",
                headers(nic.mtu)
            ))
            .mended_by(format!(
                "ip link set dev {} mtu {MTU_JUMBO}, if all switches and peers have it too",
                nic.name
            )),
    )
}

/// Returns the share of a line, in percent, that headers of TCP over IPv4 with timestamps take.
fn headers(mtu: u32) -> f64 {
    const WIRE_BYTES: f64 = 38.0;
    const HEADER_BYTES: f64 = 52.0;
    100.0 * (WIRE_BYTES + HEADER_BYTES) / (f64::from(mtu) + WIRE_BYTES)
}

fn queues(machine: &MachineReadings, nic: &NicReading) -> Option<DoctorFinding> {
    let is_fast = nic.speed_mbit.is_some_and(|mbit| mbit > QUEUE_MBIT_MAX);
    if nic.rx_queues != 1 || !is_fast || machine.cpus_allowed.len() < 2 {
        return None;
    }
    let found = finding(FindingLevel::Note, &nic.name, "one queue for all that it receives");
    Some(found.costs("one CPU takes all of its interrupts").mended_by(format!(
        "ethtool -L {} combined {}",
        nic.name,
        machine.cpus_allowed.len().min(QUEUES_MAX)
    )))
}

/// Number of queues above which a few flows gain nothing.
const QUEUES_MAX: usize = 8;

fn memory_node(machine: &MachineReadings, nic: &NicReading) -> Option<DoctorFinding> {
    if nic.numa_node.is_some() || machine.numa_node_count < 2 {
        return None;
    }
    let found = format!(
        "this machine has {} memory nodes, and the NIC does not say on which it is",
        machine.numa_node_count
    );
    let cost = "its rail may run on the far one, where every byte crosses between sockets";
    Some(
        finding(FindingLevel::Note, &nic.name, found)
            .costs(cost)
            .mended_by("cep-fast node --pin LIST, with CPUs near the NIC"),
    )
}

/// Detects a launcher that only left CPUs of the other socket.
fn near(machine: &MachineReadings, nic: &NicReading) -> Option<DoctorFinding> {
    let is_far =
        !nic.cpus.is_empty() && !nic.cpus.iter().any(|cpu| machine.cpus_allowed.contains(cpu));
    if !is_far || machine.cpus_allowed.is_empty() {
        return None;
    }
    let (near, allowed) = (list(&nic.cpus), list(&machine.cpus_allowed));
    let found = format!("the CPUs near it are {near}, but this process may run on {allowed} only");
    let cost = "its rail runs on another socket, and every byte crosses between sockets";
    let remedy =
        format!("taskset -c {near} cep-fast …, or srun --cpu-bind=map_cpu:{}", nic.cpus[0]);
    Some(finding(FindingLevel::Shortfall, &nic.name, found).costs(cost).mended_by(remedy))
}

/// Detects two NICs in one subnet that answer for each other's addresses: peers then send to
/// either.
fn one_for_the_other(machine: &MachineReadings) -> Option<DoctorFinding> {
    let rails: Vec<&NicReading> = machine.rails().filter(|nic| nic.arp_ignore == Some(0)).collect();
    let subnets =
        |nic: &NicReading| nic.addresses.iter().filter_map(|own| subnet(own)).collect::<Vec<_>>();
    let is_shared = |nic: &&&NicReading| {
        let others = rails.iter().filter(|other| other.name != nic.name);
        others.flat_map(|other| subnets(other)).any(|theirs| subnets(nic).contains(&theirs))
    };
    let names: Vec<&str> = rails.iter().filter(is_shared).map(|nic| nic.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let found = format!(
        "{} are in one subnet, and each answers for the others' addresses",
        names.join(" and ")
    );
    Some(
        finding(FindingLevel::Shortfall, names[0], found)
            .costs(
                "what is sent to one may arrive by another, so that together they may carry no \
                 more than one does",
            )
            .mended_by(
                "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 \
                 net.ipv4.conf.all.rp_filter=2",
            ),
    )
}

/// Returns the subnet of an IPv4 `address/prefix`; in IPv6 no NIC answers for another.
fn subnet(own: &str) -> Option<(u32, u32)> {
    let (ip, bits) = own.split_once('/')?;
    let (ip, bits): (Ipv4Addr, u32) = (ip.parse().ok()?, bits.parse().ok()?);
    let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
    Some((ip.to_bits() & mask, bits))
}

/// Checks the number of CPUs: one for each rail, and a part of another for the control thread.
fn cpus_for_rails(machine: &MachineReadings) -> Option<DoctorFinding> {
    let (rails, cpus) = (machine.rails().count(), machine.cpus_allowed.len());
    if cpus == 0 || rails == 0 {
        return None;
    }
    let found = format!("{cpus} for {rails} NICs in use: {}", list(&machine.cpus_allowed));
    if cpus >= rails {
        return Some(finding(FindingLevel::Ok, "CPUs", found));
    }
    let found = finding(FindingLevel::Shortfall, "CPUs", found)
        .costs("rails share CPUs, each for the work of one");
    Some(found.mended_by(format!(
        "srun --cpus-per-task={rails}, or taskset -c with {rails} CPUs at least"
    )))
}

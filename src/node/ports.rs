//! The NICs that a node moves data over: which they are, where each thread of each listens, and the rail behind it.

use std::net::{IpAddr, SocketAddr};

use affinity::{Cores, Nic, NicAddress, Pinning, Sysfs, Wish};

use super::listen;
use super::options::Options;
use super::threads::{Line, threads};
use crate::clock::Clock;
use crate::error::{Code, Error, Result};
use crate::rail::{Command, Mailbox, Place, Rail, Size};
use crate::session::Listener;
use crate::units::BitRate;
use crate::wire::control;

/// Interfaces that only ever lead to guests and containers of the same machine.
pub(crate) const INSIDE_PREFIXES: [&str; 6] = ["docker", "virbr", "br-", "cni", "veth", "tap"];
/// The interface that leads back to the machine itself.
pub(crate) const LOOPBACK: &str = "lo";
/// NICs that one node uses; the densest machines have eight with two ports each.
const PORTS_MAX: usize = 16;

/// One thread of a NIC: its listener for data flows, and its rail while a transfer is under way.
pub(super) struct Port {
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    pub(super) nic: String,
    pub(super) own: NicAddress,
    line: Option<BitRate>,
    mtu: Option<u32>,
    place: Place,
    rail: Option<(Rail, Size)>,
}

impl Port {
    /// What other nodes are told of it.
    pub(super) fn advert(&self) -> control::Rail {
        let Port { address, line, mtu, place: Place { numa, .. }, .. } = *self;
        control::Rail { nic: self.nic.clone(), address, line, mtu, numa }
    }

    /// Its address, and the subnet that it is in.
    pub(super) fn own(&self) -> NicAddress {
        self.own
    }

    pub(super) fn nic(&self) -> &str {
        &self.nic
    }

    /// The rail, started if there is none.
    pub(super) fn rail_for(&mut self, clock: Clock, size: Size, mailbox: impl Mailbox) -> Result<&Rail> {
        if self.rail.as_ref().is_some_and(|(_, has)| has.block_bytes < size.block_bytes) {
            return Err(Error::new(Code::Refused, "another transfer with smaller blocks is under way on this node")
                .remedy("run it again when that one has ended"));
        }
        if self.rail.is_none() {
            self.rail = Some((Rail::spawn(clock, size, self.place, mailbox)?, size));
        }
        Ok(&self.rail.as_ref().expect("made above").0)
    }

    pub(super) fn tell(&self, command: Command) {
        if let Some((rail, _)) = &self.rail {
            rail.tell(command);
        }
    }

    /// The rail, to be ended: a node at rest is small. Dropping it waits for its thread.
    pub(super) fn rest(&mut self) -> Option<Rail> {
        self.rail.take().map(|(rail, _)| rail)
    }
}

/// Opens a port for each thread of every NIC that the options choose.
///
/// # Errors
/// `Code::Usage` where a chosen NIC is not there or has no address, a chosen CPU is not ours, or the threads are too many, `Code::Unreachable` where
/// it cannot be listened on.
pub(super) fn open(options: &Options, control: IpAddr) -> Result<Vec<Port>> {
    let sysfs = Sysfs::at("/sys");
    let nics = affinity::nics(&sysfs).unwrap_or_default();
    let chosen = choose(options, control, &nics)?;
    let allowed = affinity::cpus_allowed().unwrap_or_default();
    check_pinning(&options.pinning, &allowed)?;
    let near = |nic: &Option<&Nic>| nic.map_or(Vec::new(), |nic| nic.cpus.clone());
    let near: Vec<Vec<usize>> = chosen.iter().map(|(nic, _)| near(nic)).collect();
    let lines = chosen.iter().zip(&near);
    let lines: Vec<Line> =
        lines.map(|((nic, _), near)| Line { speed_mbit: nic.and_then(|nic| nic.speed_mbit), near }).collect();
    let threads = threads(options.threads, &lines, &allowed)?;
    let wishes: Vec<Wish> = near.into_iter().zip(threads).map(|(near, threads)| Wish { near, threads }).collect();
    let cpus = affinity::place(&wishes, &Cores::of(&sysfs, &allowed), &options.pinning);
    let mut ports = Vec::with_capacity(chosen.len());
    for ((nic, own), cpus) in chosen.into_iter().zip(cpus) {
        for cpu in cpus {
            let (listener, address) = listen(SocketAddr::new(own.ip, 0))?;
            ports.push(Port {
                listener,
                address,
                own,
                nic: nic.map_or_else(|| "unknown".into(), |nic| nic.name.clone()),
                line: nic.and_then(|nic| nic.speed_mbit).map(|mbit| BitRate(u64::from(mbit) * 1_000_000)),
                mtu: nic.map(|nic| nic.mtu),
                place: Place { cpu, numa: nic.and_then(|nic| nic.numa_node) },
                rail: None,
            });
        }
    }
    Ok(ports)
}

/// What is asked for by name is never ignored: each CPU of a list must be one that we may use.
fn check_pinning(pinning: &Pinning, allowed: &[usize]) -> Result<()> {
    let Pinning::List(cpus) = pinning else { return Ok(()) };
    // On a machine that is too large for us to know the mask, the kernel decides when the rail starts.
    match cpus.iter().find(|cpu| !allowed.is_empty() && !allowed.contains(cpu)) {
        None => Ok(()),
        Some(cpu) => Err(Error::new(Code::Usage, format!("--pin names CPU {cpu}, which this process may not run on"))
            .remedy(format!("choose among {allowed:?}, or start it with more CPUs: taskset -c, srun --cpus-per-task"))),
    }
}

/// A NIC, where it is known, and the address of it to use.
type Chosen<'a> = (Option<&'a Nic>, NicAddress);

/// Those named; else, on loopback, only that; else all that are up, have an address, and lead out of this machine.
fn choose<'a>(options: &Options, control: IpAddr, nics: &'a [Nic]) -> Result<Vec<Chosen<'a>>> {
    let first = |nic: &'a Nic| {
        let mut of_family = nic.addresses.iter().filter(|address| address.ip.is_ipv4() == control.is_ipv4());
        of_family.next().map(|address| (Some(nic), *address))
    };
    if !options.nics.is_empty() {
        return options.nics.iter().map(|name| named(name, nics, first)).collect();
    }
    if control.is_loopback() {
        let nic = nics.iter().find(|nic| nic.name == LOOPBACK);
        // All of 127/8 belongs to the loopback device, though only one address of it is listed.
        return Ok(vec![(nic, NicAddress { ip: control, prefix_bits: if control.is_ipv4() { 8 } else { 128 } })]);
    }
    let leads_out =
        |nic: &&Nic| nic.up && nic.name != LOOPBACK && !INSIDE_PREFIXES.iter().any(|it| nic.name.starts_with(it));
    let found: Vec<Chosen> = nics.iter().filter(leads_out).filter_map(first).take(PORTS_MAX).collect();
    if found.is_empty() {
        return Err(Error::new(Code::Usage, "no NIC of this machine is up and has an address")
            .remedy("bring one up, name one with --nic, or listen on 127.0.0.1"));
    }
    Ok(found)
}

fn named<'a>(name: &str, nics: &'a [Nic], first: impl Fn(&'a Nic) -> Option<Chosen<'a>>) -> Result<Chosen<'a>> {
    if let Some(nic) = nics.iter().find(|nic| nic.name == *name) {
        return first(nic).ok_or_else(|| {
            Error::new(Code::Usage, format!("{name} has no address of the family that the node listens in"))
                .remedy("give it one, or choose another NIC")
        });
    }
    let by_address = nics.iter().find_map(|nic| {
        let address = nic.addresses.iter().find(|address| address.ip.to_string() == *name)?;
        Some((Some(nic), *address))
    });
    by_address.ok_or_else(|| {
        let names: Vec<&str> = nics.iter().map(|nic| nic.name.as_str()).collect();
        Error::new(Code::Usage, format!("there is no NIC {name}"))
            .remedy(format!("this machine has {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(name: &str, up: bool, ip: [u8; 4]) -> Nic {
        let addresses = vec![NicAddress { ip: ip.into(), prefix_bits: 24 }];
        Nic { name: name.into(), up, mtu: 1500, speed_mbit: None, numa_node: None, cpus: Vec::new(), addresses }
    }

    fn chosen(names: &[&str], control: [u8; 4]) -> Result<Vec<String>> {
        let nics = [
            nic("docker0", true, [172, 17, 0, 1]),
            nic("eth0", true, [10, 0, 0, 5]),
            nic("eth1", true, [10, 0, 1, 5]),
            nic("eth2", false, [10, 0, 2, 5]),
            nic("lo", true, [127, 0, 0, 1]),
        ];
        let options = Options { nics: names.iter().map(ToString::to_string).collect(), ..Options::for_tests() };
        let chosen = choose(&options, control.into(), &nics)?;
        Ok(chosen.iter().map(|(nic, own)| format!("{} {}", nic.map_or("?", |nic| &nic.name), own.ip)).collect())
    }

    #[test]
    fn all_that_lead_out_are_used() {
        assert_eq!(chosen(&[], [10, 0, 0, 5]).expect("two"), ["eth0 10.0.0.5", "eth1 10.0.1.5"]);
    }

    #[test]
    fn a_node_on_loopback_touches_nothing_else() {
        assert_eq!(chosen(&[], [127, 9, 9, 9]).expect("one"), ["lo 127.9.9.9"]);
    }

    #[test]
    fn a_list_of_cpus_names_those_that_we_have() {
        let pinned = |cpus: &[usize]| check_pinning(&Pinning::List(cpus.into()), &[2, 3]);
        assert!(pinned(&[3, 2, 3]).is_ok());
        let error = pinned(&[2, 5]).expect_err("not ours");
        assert!(error.code == Code::Usage && error.to_string().contains("CPU 5"), "{error}");
        assert!(check_pinning(&Pinning::List(vec![5]), &[]).is_ok(), "where the mask is not known");
    }

    #[test]
    fn names_and_addresses_choose() {
        assert_eq!(
            chosen(&["10.0.1.5", "docker0"], [10, 0, 0, 5]).expect("two"),
            ["eth1 10.0.1.5", "docker0 172.17.0.1"]
        );
        let error = chosen(&["eth9"], [10, 0, 0, 5]).expect_err("not there");
        assert!(error.to_string().contains("eth9") && error.to_string().contains("eth1"), "{error}");
    }
}

//! The NICs that a node moves data over: which they are, where each listens, and the rail behind each.

use std::net::{IpAddr, SocketAddr};

use affinity::{Nic, NicAddress, Sysfs};
use mio::net::TcpListener;

use super::listen;
use super::options::{Options, Pinning};
use crate::clock::Clock;
use crate::error::{Code, Error, Result};
use crate::rail::{Command, Mailbox, Rail, Size};
use crate::units::BitRate;
use crate::wire::control;

/// Interfaces that only ever lead to guests and containers of the same machine.
pub(crate) const INSIDE_PREFIXES: [&str; 6] = ["docker", "virbr", "br-", "cni", "veth", "tap"];
/// The interface that leads back to the machine itself.
pub(crate) const LOOPBACK: &str = "lo";
/// NICs that one node uses; the densest machines have eight with two ports each.
const PORTS_MAX: usize = 16;

/// One NIC: its listener for data flows, and its rail while a transfer is under way.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) nic: String,
    own: NicAddress,
    line: Option<BitRate>,
    mtu: Option<u32>,
    numa: Option<u32>,
    /// The CPU for the rail's thread.
    cpu: Option<usize>,
    rail: Option<(Rail, Size)>,
}

impl Port {
    /// What other nodes are told of it.
    pub(super) fn advert(&self) -> control::Rail {
        let Port { address, line, mtu, numa, .. } = *self;
        control::Rail { nic: self.nic.clone(), address, line, mtu, numa }
    }

    /// Its address, and the subnet that it is in.
    pub(super) fn own(&self) -> NicAddress {
        self.own
    }

    pub(super) fn nic(&self) -> &str {
        &self.nic
    }

    /// Whether its NIC and `ip` are in one subnet.
    pub(super) fn reaches(&self, ip: IpAddr) -> bool {
        self.own.reaches(ip)
    }

    /// The rail, started if there is none.
    pub(super) fn rail_for(&mut self, clock: Clock, size: Size, mailbox: impl Mailbox) -> Result<&Rail> {
        if self.rail.as_ref().is_some_and(|(_, has)| has.block_bytes < size.block_bytes) {
            return Err(Error::new(Code::Refused, "another transfer with smaller blocks is under way on this node")
                .remedy("run it again when that one has ended"));
        }
        if self.rail.is_none() {
            self.rail = Some((Rail::spawn(clock, size, self.cpu, mailbox)?, size));
        }
        Ok(&self.rail.as_ref().expect("made above").0)
    }

    pub(super) fn tell(&self, command: Command) {
        if let Some((rail, _)) = &self.rail {
            rail.tell(command);
        }
    }

    /// Ends the rail and gives its slots back: a node at rest is small.
    pub(super) fn rest(&mut self) {
        self.rail = None;
    }
}

/// Opens a port on every NIC that the options choose.
///
/// # Errors
/// `Code::Usage` where a chosen NIC is not there or has no address, `Code::Unreachable` where it cannot be listened on.
pub(super) fn open(options: &Options, control: IpAddr) -> Result<Vec<Port>> {
    let nics = affinity::nics(&Sysfs::at("/sys")).unwrap_or_default();
    let chosen = choose(options, control, &nics)?;
    let mut ports = Vec::with_capacity(chosen.len());
    for (index, (nic, own)) in chosen.into_iter().enumerate() {
        let (listener, address) = listen(SocketAddr::new(own.ip, 0))?;
        ports.push(Port {
            listener,
            address,
            own,
            nic: nic.map_or_else(|| "unknown".into(), |nic| nic.name.clone()),
            line: nic.and_then(|nic| nic.speed_mbit).map(|mbit| BitRate(u64::from(mbit) * 1_000_000)),
            mtu: nic.map(|nic| nic.mtu),
            numa: nic.and_then(|nic| nic.numa_node),
            cpu: cpu(&options.pinning, nic, index),
            rail: None,
        });
    }
    Ok(ports)
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

/// The CPU of a rail: near its NIC, and spread so that neither the rails of a node nor the nodes of a machine pile up.
fn cpu(pinning: &Pinning, nic: Option<&Nic>, index: usize) -> Option<usize> {
    match pinning {
        Pinning::None => None,
        Pinning::List(cpus) => (!cpus.is_empty()).then(|| cpus[index % cpus.len()]),
        Pinning::Auto { spread } => {
            let allowed = affinity::cpus_allowed().unwrap_or_default();
            let near: Vec<usize> = nic.map_or(Vec::new(), |nic| nic.cpus.clone());
            let near: Vec<usize> = near.into_iter().filter(|cpu| allowed.contains(cpu)).collect();
            let cpus = if near.is_empty() { allowed } else { near };
            (!cpus.is_empty()).then(|| cpus[(spread + index) % cpus.len()])
        }
    }
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
    fn names_and_addresses_choose() {
        assert_eq!(
            chosen(&["10.0.1.5", "docker0"], [10, 0, 0, 5]).expect("two"),
            ["eth1 10.0.1.5", "docker0 172.17.0.1"]
        );
        let error = chosen(&["eth9"], [10, 0, 0, 5]).expect_err("not there");
        assert!(error.to_string().contains("eth9") && error.to_string().contains("eth1"), "{error}");
    }
}

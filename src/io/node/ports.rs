//! The NICs that a node moves data over: which they are, where each thread of each listens, and the
//! rails behind it.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use affinity::{FreeCores, NicAddress, NicInfo, NicRequest, PinningPolicy, SysfsTree};

use super::listening::{CONTROL, ListenAddresses, ListenerIx};
use super::options::NodeOptions;
use super::port_rails::PortRails;
use super::threads::{NicLine, threads};
use crate::core::error::{Code, Error, Result};
use crate::core::units::BitRate;
use crate::core::wire::control;
use crate::io::log;
use crate::io::session::Listener;

/// Interfaces that only ever lead to guests and containers of the same machine.
pub(crate) const INSIDE_PREFIXES: [&str; 6] = ["docker", "virbr", "br-", "cni", "veth", "tap"];
/// The interface that leads back to the machine itself.
pub(crate) const LOOPBACK: &str = "lo";
/// NICs that one node uses; the densest machines have eight with two ports each.
const PORTS_MAX: usize = 16;

/// One thread of a NIC: the address that it listens at for data flows, and its rails.
pub(super) struct RailPort {
    address: SocketAddr,
    listener: ListenerIx,
    nic: String,
    own: NicAddress,
    line: Option<BitRate>,
    mtu: Option<u32>,
    pub(super) rails: PortRails,
}

impl RailPort {
    /// The advert of this port to other nodes.
    pub(super) fn advert(&self) -> control::RailAdvert {
        let RailPort { address, line, mtu, .. } = *self;
        let (nic, numa) = (self.nic.clone(), self.rails.numa());
        control::RailAdvert { nic, address, line, mtu, numa }
    }

    /// Its address, and the subnet that it is in.
    pub(super) fn own(&self) -> NicAddress {
        self.own
    }

    /// The listener of its connections.
    pub(super) fn listener(&self) -> ListenerIx {
        self.listener
    }

    /// The address that it listens at.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn nic(&self) -> &str {
        &self.nic
    }
}

/// Opens a port for each thread of every NIC that the options choose. Gives the listeners, too,
/// which follow that of the control address.
///
/// # Errors
/// `Code::Usage` where a chosen NIC is not there or has no address, a chosen CPU is not ours, or
/// the threads are too many, `Code::Unreachable` where it cannot be listened on.
pub(super) fn open(
    options: &NodeOptions,
    listening: &mut ListenAddresses,
) -> Result<(Vec<RailPort>, Vec<Listener>)> {
    let control = listening.control().ip();
    let sysfs = SysfsTree::at("/sys");
    let listed = if options.nics.is_empty() && control.is_loopback() {
        // The others are not chosen, and to read them all takes longer than to listen.
        Ok(sysfs.nic(LOOPBACK).into_iter().collect())
    } else {
        affinity::nics(&sysfs)
    };
    let (nics, obstacle) =
        listed.map_or_else(|error| (Vec::new(), Some(error)), |nics| (nics, None));
    let NicChoice { chosen, left_out } =
        choose(options, control, &nics).map_err(|error| match obstacle {
            None => error,
            Some(obstacle) => Error::new(
                error.code,
                format!("the NICs of this machine cannot be listed: {obstacle}"),
            )
            .remedy(
                "allow AF_NETLINK (RestrictAddressFamilies= of systemd, a container's seccomp \
                 profile), and mount /sys and /proc",
            ),
        })?;
    left_out.iter().for_each(|what| log::say(what));
    let allowed = affinity::cpus_allowed().unwrap_or_default();
    check_pinning(&options.pinning, &allowed)?;
    let near = |nic: &Option<&NicInfo>| nic.map_or(Vec::new(), |nic| nic.cpus.clone());
    let near: Vec<Vec<usize>> = chosen.iter().map(|(nic, _)| near(nic)).collect();
    let lines = chosen.iter().zip(&near);
    let lines: Vec<NicLine> = lines
        .map(|((nic, _), near)| NicLine { speed_mbit: nic.and_then(|nic| nic.speed_mbit), near })
        .collect();
    let threads = threads(options.threads, &lines, &allowed)?;
    let transfer_options: Vec<NicRequest> =
        near.into_iter().zip(threads).map(|(near, threads)| NicRequest { near, threads }).collect();
    let cpus =
        affinity::place(&transfer_options, &FreeCores::of(&sysfs, &allowed), &options.pinning);
    let (mut ports, mut listeners) = (Vec::with_capacity(chosen.len()), Vec::new());
    for ((nic, own), cpus) in chosen.into_iter().zip(cpus) {
        for cpus in cpus {
            let (listener, address, new) = listening.open(own.ip)?;
            listeners.extend(new);
            ports.push(RailPort {
                address,
                listener,
                own,
                nic: nic.map_or_else(|| "unknown".into(), |nic| nic.name.clone()),
                line: nic
                    .and_then(|nic| nic.speed_mbit)
                    .map(|mbit| BitRate(u64::from(mbit) * 1_000_000)),
                mtu: nic.map(|nic| nic.mtu),
                rails: PortRails::new(cpus, nic.and_then(|nic| nic.numa_node)),
            });
        }
    }
    Ok((ports, listeners))
}

impl RailPort {
    /// Listens anew where the NIC no longer has the port's address, but another one of its family.
    /// Gives the new listener, unless it is shared.
    ///
    /// # Errors
    /// `Code::Unreachable` where the new address cannot be listened on. The port is what it was.
    pub(super) fn follow(
        &mut self,
        addresses: &[(String, NicAddress)],
        listening: &mut ListenAddresses,
    ) -> Result<Option<Listener>> {
        let of_nic =
            || addresses.iter().filter(|(nic, _)| *nic == self.nic).map(|(_, address)| *address);
        if self.own.ip.is_loopback() || of_nic().any(|address| address.ip == self.own.ip) {
            return Ok(None);
        }
        let is_like = |address: &NicAddress| {
            let is_local = matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            address.ip.is_ipv4() == self.own.ip.is_ipv4() && !is_local
        };
        let Some(own) = of_nic().find(is_like) else { return Ok(None) };
        let (listener, address, new) = listening.open(own.ip)?;
        if self.listener != CONTROL {
            // It goes with the old address.
            listening.forget(self.listener);
        }
        (self.address, self.own, self.listener) = (address, own, listener);
        Ok(new)
    }
}

/// A CPU that is asked for by name is never ignored: each one of a list must be one that we may
/// use.
fn check_pinning(pinning: &PinningPolicy, allowed: &[usize]) -> Result<()> {
    let PinningPolicy::List(cpus) = pinning else { return Ok(()) };
    // On a machine that is too large for us to know the mask, the kernel decides when the rail
    // starts.
    match cpus.iter().find(|cpu| !allowed.is_empty() && !allowed.contains(cpu)) {
        None => Ok(()),
        Some(cpu) => Err(Error::new(
            Code::Usage,
            format!("--pin names CPU {cpu}, which this process may not run on"),
        )
        .remedy(format!(
            "choose among {allowed:?}, or start it with more CPUs: taskset -c, srun --cpus-per-task"
        ))),
    }
}

/// A NIC, where it is known, and the address of it to use.
type ChosenNic<'a> = (Option<&'a NicInfo>, NicAddress);

/// The NICs that are used, and what is to be said about those that are not.
struct NicChoice<'a> {
    chosen: Vec<ChosenNic<'a>>,
    left_out: Option<String>,
}

/// Those named; else, on loopback, only that; else all that are up, have an address, and lead out
/// of this machine.
fn choose<'a>(
    options: &NodeOptions,
    control: IpAddr,
    nics: &'a [NicInfo],
) -> Result<NicChoice<'a>> {
    let first = |nic: &'a NicInfo| usable(nic, control, &[]).map(|address| (Some(nic), address));
    if !options.nics.is_empty() {
        let chosen =
            options.nics.iter().map(|name| named(name, nics, first)).collect::<Result<_>>()?;
        return Ok(NicChoice { chosen, left_out: None });
    }
    if control.is_loopback() {
        let nic = nics.iter().find(|nic| nic.name == LOOPBACK);
        // All of 127/8 belongs to the loopback device, though only one address of it is listed.
        let own = NicAddress { ip: control, prefix_bits: if control.is_ipv4() { 8 } else { 128 } };
        return Ok(NicChoice { chosen: vec![(nic, own)], left_out: None });
    }
    let mut found: Vec<(&NicInfo, NicAddress)> = Vec::new();
    // The NIC of the control address comes first: masters have proved that it leads out, whatever
    // its name says.
    let mut ordered: Vec<&NicInfo> =
        nics.iter().filter(|nic| nic.up && leads_out(nic, control)).collect();
    ordered.sort_by_cached_key(|nic| {
        (!has(nic, control), Reverse(nic.speed_mbit), natural(&nic.name))
    });
    for nic in ordered {
        let taken: Vec<IpAddr> = found.iter().map(|(_, own)| own.ip).collect();
        found.extend(usable(nic, control, &taken).map(|own| (nic, own)));
    }
    if found.is_empty() {
        let family = if control.is_ipv4() {
            "an IPv4 address"
        } else {
            "an IPv6 address that is not link-local"
        };
        return Err(Error::new(
            Code::Usage,
            format!("no NIC of this machine is up and has {family}"),
        )
        .remedy("bring one up, name one with --nic, or listen on a loopback address"));
    }
    let left_out = found.split_off(found.len().min(PORTS_MAX));
    let names: Vec<&str> = left_out.iter().map(|(nic, _)| nic.name.as_str()).collect();
    let left_out = (!names.is_empty()).then(|| {
        let names = names.join(", ");
        format!(
            "{PORTS_MAX} NICs are the most that a node uses, the fastest of them; left out: \
             {names} (--nic chooses)"
        )
    });
    found.sort_by_cached_key(|(nic, _)| natural(&nic.name));
    Ok(NicChoice {
        chosen: found.into_iter().map(|(nic, own)| (Some(nic), own)).collect(),
        left_out,
    })
}

/// Returns true if a NIC may lead out of this machine. The name is a guess; that it has the control
/// address is none.
fn leads_out(nic: &NicInfo, control: IpAddr) -> bool {
    nic.name != LOOPBACK
        && (has(nic, control) || !INSIDE_PREFIXES.iter().any(|it| nic.name.starts_with(it)))
}

fn has(nic: &NicInfo, ip: IpAddr) -> bool {
    nic.addresses.iter().any(|own| own.ip == ip)
}

/// The address of a NIC that data comes and goes by: the control address, or else the first one of
/// its family that no other NIC has `taken`. A link-local address leads nowhere without the name of
/// the interface, which peers do not know.
fn usable(nic: &NicInfo, control: IpAddr, taken: &[IpAddr]) -> Option<NicAddress> {
    let of_family = nic.addresses.iter().filter(|own| own.ip.is_ipv4() == control.is_ipv4());
    let fit = of_family.filter(|own| !is_link_local(own.ip) && !taken.contains(&own.ip));
    fit.min_by_key(|own| own.ip != control).copied()
}

/// Returns true if every IPv6 interface gives itself such an address, which says nothing about
/// where it leads.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The order of people, for whom eth2 comes before eth10: the text before the first number, the
/// number, and the whole.
fn natural(name: &str) -> (String, u64, String) {
    let text = name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let digits = &text[..text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len())];
    (name[..name.len() - text.len()].into(), digits.parse().unwrap_or(0), name.into())
}

fn named<'a>(
    name: &str,
    nics: &'a [NicInfo],
    first: impl Fn(&'a NicInfo) -> Option<ChosenNic<'a>>,
) -> Result<ChosenNic<'a>> {
    if let Some(nic) = nics.iter().find(|nic| nic.name == *name) {
        return first(nic).ok_or_else(|| {
            Error::new(
                Code::Usage,
                format!(
                    "{name} has no address of the family that the node listens in, but link-local \
                     ones"
                ),
            )
            .remedy("give it one, or choose another NIC")
        });
    }
    let by_address = nics.iter().find_map(|nic| {
        let usable = nic.addresses.iter().filter(|address| !is_link_local(address.ip));
        let address = usable.into_iter().find(|address| address.ip.to_string() == *name)?;
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

    fn nic(name: &str, up: bool, ip: [u8; 4]) -> NicInfo {
        let addresses = vec![NicAddress { ip: ip.into(), prefix_bits: 24 }];
        NicInfo {
            name: name.into(),
            up,
            mtu: 1500,
            speed_mbit: None,
            numa_node: None,
            cpus: Vec::new(),
            addresses,
        }
    }

    fn chosen(names: &[&str], control: [u8; 4]) -> Result<Vec<String>> {
        let nics = [
            nic("docker0", true, [172, 17, 0, 1]),
            nic("eth0", true, [10, 0, 0, 5]),
            nic("eth1", true, [10, 0, 1, 5]),
            nic("eth2", false, [10, 0, 2, 5]),
            nic("lo", true, [127, 0, 0, 1]),
        ];
        let options = NodeOptions {
            nics: names.iter().map(ToString::to_string).collect(),
            ..NodeOptions::for_tests()
        };
        let chosen = choose(&options, control.into(), &nics)?.chosen;
        Ok(chosen
            .iter()
            .map(|(nic, own)| format!("{} {}", nic.map_or("?", |nic| &nic.name), own.ip))
            .collect())
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
        let pinned = |cpus: &[usize]| check_pinning(&PinningPolicy::List(cpus.into()), &[2, 3]);
        assert!(pinned(&[3, 2, 3]).is_ok());
        let error = pinned(&[2, 5]).expect_err("not ours");
        assert!(error.code == Code::Usage && error.to_string().contains("CPU 5"), "{error}");
        assert!(
            check_pinning(&PinningPolicy::List(vec![5]), &[]).is_ok(),
            "where the mask is not known"
        );
    }

    #[test]
    fn names_and_addresses_choose() {
        assert_eq!(
            chosen(&["10.0.1.5", "docker0"], [10, 0, 0, 5]).expect("two"),
            ["eth1 10.0.1.5", "docker0 172.17.0.1"]
        );
        let error = chosen(&["eth9"], [10, 0, 0, 5]).expect_err("not there");
        assert!(
            error.to_string().contains("eth9") && error.to_string().contains("eth1"),
            "{error}"
        );
    }

    /// A NIC with addresses in the notation of `ip address`.
    fn nic_with(name: &str, speed_mbit: Option<u32>, addresses: &[&str]) -> NicInfo {
        let address = |text: &&str| {
            let (ip, bits) = text.split_once('/').expect("a prefix");
            NicAddress {
                ip: ip.parse().expect("an address"),
                prefix_bits: bits.parse().expect("bits"),
            }
        };
        let addresses = addresses.iter().map(address).collect();
        NicInfo {
            name: name.into(),
            up: true,
            mtu: 1500,
            speed_mbit,
            numa_node: None,
            cpus: Vec::new(),
            addresses,
        }
    }

    /// Names of the NICs that a node at `control` uses of these, and its warning about the others.
    fn used(nics: &[NicInfo], control: &str) -> Result<(Vec<String>, Option<String>)> {
        let choice = choose(&NodeOptions::for_tests(), control.parse().expect("an address"), nics)?;
        let used = choice
            .chosen
            .iter()
            .map(|(nic, own)| format!("{} {}", nic.map_or("?", |nic| &nic.name), own.ip));
        Ok((used.collect(), choice.left_out))
    }

    #[test]
    fn a_nic_that_has_only_a_link_local_address_is_no_reason_not_to_start() {
        let nics = [
            nic_with("eth0", None, &["fe80::1/64", "2001:db8::1/64"]),
            nic_with("eth1", None, &["fe80::2/64", "10.0.0.1/24"]),
        ];
        assert_eq!(used(&nics, "2001:db8::1").expect("one").0, ["eth0 2001:db8::1"]);
        assert_eq!(used(&nics, "::").expect("one").0, ["eth0 2001:db8::1"]);
        let error = used(&nics[1..], "2001:db8::9").expect_err("none");
        assert!(error.to_string().contains("link-local"), "{error}");
    }

    #[test]
    fn the_nic_of_the_control_address_counts_whatever_its_name() {
        for name in ["br-lan", "veth7", "tap0", "docker0", "virbr0", "cni0"] {
            let nics =
                [nic_with("eth0", None, &["10.0.0.1/24"]), nic_with(name, None, &["10.0.1.1/24"])];
            assert_eq!(used(&nics, "10.0.0.1").expect("one").0, ["eth0 10.0.0.1"]);
            let both = used(&nics, "10.0.1.1").expect("two").0;
            assert!(both.len() == 2 && both.contains(&format!("{name} 10.0.1.1")), "{both:?}");
        }
    }

    #[test]
    fn the_control_address_is_used_where_a_nic_has_several_and_no_address_twice() {
        let nics = [
            nic_with("eth0", None, &["10.0.0.1/24", "10.0.0.2/24"]),
            nic_with("eth1", None, &["10.0.0.1/24", "10.0.1.7/24"]),
            nic_with("eth2", None, &["10.0.0.1/24"]),
        ];
        assert_eq!(used(&nics, "10.0.0.2").expect("two").0, ["eth0 10.0.0.2", "eth1 10.0.0.1"]);
        assert_eq!(used(&nics, "10.0.1.7").expect("two").0, ["eth0 10.0.0.1", "eth1 10.0.1.7"]);
    }

    #[test]
    fn of_too_many_nics_the_fastest_are_kept_with_that_of_the_control_address() {
        let nic =
            |at: u32, speed| nic_with(&format!("eth{at}"), speed, &[&format!("10.0.{at}.1/24")]);
        let same: Vec<NicInfo> = (0..18).map(|at| nic(at, None)).collect();
        let (kept, said) = used(&same, "10.0.17.1").expect("some");
        let expected =
            (0..15).chain([17]).map(|at| format!("eth{at} 10.0.{at}.1")).collect::<Vec<_>>();
        assert_eq!(kept, expected, "in the order of people");
        assert!(said.is_some_and(|said| said.contains("left out: eth15, eth16 ")));
        let fast: Vec<NicInfo> =
            (0..18).map(|at| nic(at, Some(if at < 2 { 1_000 } else { 100_000 }))).collect();
        let (kept, said) = used(&fast, "10.0.5.1").expect("some");
        assert!(kept.len() == 16 && kept[0] == "eth2 10.0.2.1", "{kept:?}");
        assert!(said.is_some_and(|said| said.contains("left out: eth0, eth1 ")));
        assert_eq!(used(&fast[..16], "10.0.5.1").expect("all").1, None);
    }
}

//! Addresses in the lists of `/proc/net`, for processes that may not use netlink.
//!
//! IPv6 addresses are listed with their interfaces. IPv4 addresses are listed without (`fib_trie`),
//! and interfaces with the subnets that they lead to (`route`): an address belongs to the interface
//! that leads to its own subnet. An address in a subnet without an interface is omitted.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::nic_info::NicAddress;

/// Returns every address with its interface.
pub(crate) fn addresses(proc_net: &Path) -> Vec<(String, NicAddress)> {
    let text = |name: &str| fs::read_to_string(proc_net.join(name)).unwrap_or_default();
    let subnets = subnets(&text("route"));
    let v4 = local_v4(&text("fib_trie")).into_iter().filter_map(|ip| of_subnet(ip, &subnets));
    v4.chain(text("if_inet6").lines().filter_map(v6)).collect()
}

/// An interface and a subnet that it reaches without a router.
struct LinkedSubnet {
    interface: String,
    start: u32,
    mask: u32,
}

fn subnets(route: &str) -> Vec<LinkedSubnet> {
    let subnet = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, start, gateway, _, _, _, _, mask, ..] = fields[..] else { return None };
        let number = |text| u32::from_str_radix(text, 16).ok().map(u32::from_be);
        let (start, mask) = (number(start)?, number(mask)?);
        (number(gateway)? == 0 && mask != 0).then(|| LinkedSubnet {
            interface: interface.into(),
            start,
            mask,
        })
    };
    route.lines().skip(1).filter_map(subnet).collect()
}

/// Returns the kernel's local addresses: each is in the line above its `/32 host LOCAL`.
fn local_v4(fib_trie: &str) -> Vec<Ipv4Addr> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

fn of_subnet(ip: Ipv4Addr, subnets: &[LinkedSubnet]) -> Option<(String, NicAddress)> {
    let own = |prefix_bits| NicAddress { ip: IpAddr::V4(ip), prefix_bits };
    if ip.is_loopback() {
        // The kernel lists no route to it.
        return Some(("lo".into(), own(8)));
    }
    let reaching = subnets.iter().filter(|subnet| ip.to_bits() & subnet.mask == subnet.start);
    let nearest = reaching.max_by_key(|subnet| subnet.mask.leading_ones())?;
    let prefix_bits = u8::try_from(nearest.mask.leading_ones()).expect("a mask has 32 bits");
    Some((nearest.interface.clone(), own(prefix_bits)))
}

/// Parses `fe80000000000000021a2bfffe3c4d5e 02 40 20 80     eth0`: address, index, prefix, scope,
/// flags, interface.
fn v6(line: &str) -> Option<(String, NicAddress)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [address, _, prefix_bits, _, _, interface] = fields[..] else { return None };
    let ip = Ipv6Addr::from_bits(u128::from_str_radix(address, 16).ok()?).into();
    Some((
        interface.into(),
        NicAddress { ip, prefix_bits: u8::from_str_radix(prefix_bits, 16).ok()? },
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lists_is_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let word = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
        let row = |interface: &str, start, gateway, mask| {
            format!(
                "{interface}\t{}\t{}\t0001\t0\t0\t0\t{}\t0\t0\t0\n",
                word(start),
                word(gateway),
                word(mask)
            )
        };
        let route = [
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
                .into(),
            row("eth0", [0; 4], [10, 0, 0, 1], [0; 4]),
            row("eth0", [10, 0, 0, 0], [0; 4], [255, 255, 0, 0]),
            row("eth1", [10, 0, 7, 0], [0; 4], [255, 255, 255, 0]),
        ];
        fs::write(folder.path().join("route"), route.concat()).unwrap();
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.3.4\n        /32 host LOCAL\n     \
                    |-- 10.0.7.9\n        /32 host LOCAL\n     |-- 10.0.255.255\n        /32 link \
                    BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
                    Local:\n     |-- 10.0.3.4\n        /32 host LOCAL\n     |-- \
                    192.168.0.1\n        /32 host LOCAL\n";
        fs::write(folder.path().join("fib_trie"), trie).unwrap();
        let v6 = "20010db8000000000000000000000007 02 40 00 80     eth1\n\
                  00000000000000000000000000000001 01 80 10 80 lo\n";
        fs::write(folder.path().join("if_inet6"), v6).unwrap();
        let found: Vec<String> = addresses(folder.path())
            .iter()
            .map(|(interface, own)| format!("{interface} {}/{}", own.ip, own.prefix_bits))
            .collect();
        let expected = [
            "eth0 10.0.3.4/16",
            "eth1 10.0.7.9/24",
            "lo 127.0.0.1/8",
            "eth1 2001:db8::7/64",
            "lo ::1/128",
        ];
        assert_eq!(found, expected, "192.168.0.1 is in nobody's subnet");
    }

    #[test]
    fn nothing_is_listed_where_there_is_nothing() {
        assert!(addresses(Path::new("/nowhere")).is_empty());
        assert_eq!(local_v4("|-- \n/32 host LOCAL\n|-- x\n/32 host LOCAL").len(), 0);
        assert!(subnets("x\ny z\n").is_empty() && v6("1 2 3").is_none());
    }

    /// If netlink is available, both sources agree.
    #[test]
    fn this_machines_lists_name_its_loopback_address() {
        let found = addresses(Path::new("/proc/net"));
        let localhost = NicAddress { ip: [127, 0, 0, 1].into(), prefix_bits: 8 };
        assert!(found.contains(&("lo".into(), localhost)), "{found:?}");
    }
}

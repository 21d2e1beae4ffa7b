//! NICs of the machine: sysfs information joined with addresses.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::listed;
use crate::nic_info::{NicAddress, NicInfo};
use crate::sysfs::SysfsTree;

/// Returns all NICs of the machine, sorted by name, with their addresses. A NIC that vanishes
/// meanwhile is omitted.
///
/// With the feature `hwloc`, hwloc is asked for positions that the kernel does not know, if this
/// machine has more than one NUMA node.
///
/// # Errors
/// If sysfs or the list of addresses cannot be read.
pub fn nics(sysfs: &SysfsTree) -> io::Result<Vec<NicInfo>> {
    let mut nics: Vec<NicInfo> =
        sysfs.nic_names()?.iter().filter_map(|name| sysfs.nic(name).ok()).collect();
    #[cfg(feature = "hwloc")]
    ask_hwloc(sysfs, &mut nics);
    for (name, address) in addresses()? {
        if let Some(nic) = nics.iter_mut().find(|nic| nic.name == name) {
            nic.addresses.push(address);
        }
    }
    Ok(nics)
}

/// Returns every address of the machine with its interface. If netlink is filtered, as by
/// `RestrictAddressFamilies` of systemd, reads `/proc/net`.
///
/// # Errors
/// If both fail.
pub fn addresses() -> io::Result<Vec<(String, NicAddress)>> {
    match getifaddrs() {
        Ok(interfaces) => Ok(interfaces
            .filter_map(|interface| {
                let ip = interface.address.as_ref().and_then(ip_of)?;
                let prefix_bits =
                    interface.netmask.as_ref().and_then(ip_of).map_or(host_bits(ip), prefix_bits);
                Some((interface.interface_name, NicAddress { ip, prefix_bits }))
            })
            .collect()),
        Err(errno) => {
            let listed = listed::addresses(Path::new("/proc/net"));
            let told = format!("netlink does not list the addresses: {}", errno.desc());
            if listed.is_empty() {
                Err(io::Error::new(io::Error::from(errno).kind(), told))
            } else {
                Ok(listed)
            }
        }
    }
}

/// Returns the reason why addresses are read from `/proc/net`, if so.
#[must_use]
pub fn netlink_obstacle() -> Option<io::Error> {
    getifaddrs().err().map(io::Error::from)
}

/// Asks hwloc only if its answer can matter: it examines all buses, which takes longer than
/// anything else here.
#[cfg(feature = "hwloc")]
fn ask_hwloc(sysfs: &SysfsTree, nics: &mut [NicInfo]) {
    let is_missing = |nic: &NicInfo| nic.cpus.is_empty() && !sysfs.carriers(&nic.name).is_empty();
    if sysfs.is_this_machine() && sysfs.node_count() > 1 && nics.iter().any(is_missing) {
        // A recorded machine may have NICs of the same names in other positions.
        let hwloc = crate::HwlocTopology::load().filter(crate::HwlocTopology::is_this_machine);
        if let Some(hwloc) = hwloc {
            hwloc.complete(sysfs, nics);
        }
    }
}

/// Returns the IP address in a socket address; other families have none.
fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn prefix_bits(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    u8::try_from(ones).expect("an address has at most 128 bits")
}

/// Without a mask, an address is a subnet by itself.
fn host_bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::net::IpAddr;

    use super::{NicAddress, nics, prefix_bits};
    use crate::sysfs::SysfsTree;

    #[test]
    fn masks() {
        for (mask, bits) in
            [("255.255.255.0", 24), ("0.0.0.0", 0), ("255.255.255.255", 32), ("ffff:ffff::", 32)]
        {
            assert_eq!(prefix_bits(mask.parse().unwrap()), bits, "{mask}");
        }
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let nics = nics(&SysfsTree::at("/sys")).unwrap();
        let loopback = nics.iter().find(|nic| nic.name == "lo").unwrap();
        let localhost = NicAddress { ip: IpAddr::from([127, 0, 0, 1]), prefix_bits: 8 };
        assert!(loopback.addresses.contains(&localhost), "{loopback:?}");
        assert!(nics.is_sorted_by_key(|nic| &nic.name));
    }
}

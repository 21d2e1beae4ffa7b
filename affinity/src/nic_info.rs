//! Description of a NIC: its position, its speed and its addresses.

use std::net::IpAddr;

/// A network interface and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicInfo {
    /// The interface's name.
    pub name: String,
    /// True if it can carry traffic: its state is `up`, or it is `unknown`, as for the loopback
    /// interface, and there is a carrier.
    pub up: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Line rate in 10^6 bits per second; `None` if the driver does not report it.
    pub speed_mbit: Option<u32>,
    /// NUMA node that it is attached to; `None` if unknown.
    pub numa_node: Option<u32>,
    /// CPUs of that node, ascending; empty if it is unknown, and then all CPUs are equal.
    pub cpus: Vec<usize>,
    /// Its addresses, in the kernel's order. [`crate::SysfsTree::nic`] leaves them empty;
    /// [`crate::nics()`] fills them in.
    pub addresses: Vec<NicAddress>,
}

/// An address of a NIC, with the length of its subnet prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicAddress {
    /// The address.
    pub ip: IpAddr,
    /// Leading bits that all addresses of the subnet share.
    pub prefix_bits: u8,
}

impl NicAddress {
    /// Returns true if a peer's address is in the same subnet, so that it is reached without a
    /// router.
    ///
    /// ```
    /// let ours = affinity::NicAddress { ip: [10, 0, 1, 5].into(), prefix_bits: 24 };
    /// assert!(ours.reaches([10, 0, 1, 200].into()));
    /// assert!(!ours.reaches([10, 0, 2, 5].into()));
    /// ```
    #[must_use]
    pub fn reaches(&self, peer: IpAddr) -> bool {
        let difference = match (self.ip, peer) {
            // Shifted, so that both families have their leading bits in the same place.
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                u128::from(ours.to_bits() ^ theirs.to_bits()) << 96
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => ours.to_bits() ^ theirs.to_bits(),
            _ => return false,
        };
        difference.leading_zeros() >= u32::from(self.prefix_bits)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::NicAddress;

    #[test]
    fn subnets() {
        let table = [
            ("10.0.0.1", 24, "10.0.0.254", true),
            ("10.0.0.1", 24, "10.0.1.1", false),
            ("10.0.0.1", 32, "10.0.0.1", true),
            ("10.0.0.1", 32, "10.0.0.2", false),
            ("10.0.0.1", 0, "192.168.1.1", true),
            ("fe80::1", 64, "fe80::2:3", true),
            ("fe80::1", 64, "fe80:0:0:1::1", false),
            ("10.0.0.1", 0, "fe80::1", false),
        ];
        for (ours, prefix_bits, theirs, expected) in table {
            let ours = NicAddress { ip: ours.parse().unwrap(), prefix_bits };
            assert_eq!(ours.reaches(theirs.parse().unwrap()), expected, "{ours:?} to {theirs}");
        }
    }
}

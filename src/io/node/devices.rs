//! The NIC that a flow is bound to: an address alone says where packets come from, and not by which
//! NIC they leave.
//!
//! The kernel chooses a NIC by the destination, so that of two NICs in one subnet the first carries
//! everything, whatever address a flow has. A flow whose peer is in the subnet of its rail is
//! therefore bound to the rail's NIC at both ends; the decision page on binding says why not
//! everywhere.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Once;

use affinity::NicAddress;
use nix::sys::socket::{setsockopt, sockopt};

use super::ports::LOOPBACK;
use crate::io::log::say;

/// The addresses of this machine, each with its interface, and which of them answer for others.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct LocalAddresses {
    interfaces: Vec<LocalInterface>,
}

#[derive(PartialEq, Eq, Debug)]
struct LocalInterface {
    name: String,
    own: NicAddress,
    /// It answers when other NICs' addresses are asked for in its subnet, as Linux does unless told
    /// otherwise.
    answers_for_others: bool,
}

impl LocalAddresses {
    /// Reads the addresses of this moment. Where the system does not say, flows are bound by their
    /// addresses alone.
    pub(super) fn read() -> LocalAddresses {
        let all = arp_ignore("all");
        let mut of_nics: BTreeMap<String, Vec<NicAddress>> = BTreeMap::new();
        for (name, own) in affinity::addresses().unwrap_or_default() {
            // An address may have a label, which begins with its interface: `eth0:1`.
            let name = name.split(':').next().unwrap_or_default();
            of_nics.entry(name.into()).or_default().push(own);
        }
        let mut interfaces = Vec::new();
        for (name, addresses) in of_nics {
            let answers_for_others = all.max(arp_ignore(&name)) == 0;
            interfaces.extend(addresses.into_iter().map(|own| LocalInterface {
                name: name.clone(),
                own,
                answers_for_others,
            }));
        }
        LocalAddresses { interfaces }
    }

    /// Returns true if a flow that leaves from `own`, on `nic`, is bound to that NIC.
    pub(super) fn bind_dialled(&self, nic: &str, own: NicAddress, peer: IpAddr) -> bool {
        let is_known = self.interfaces.iter().any(|interface| interface.name == nic);
        // Packets to an address of this machine go over its loopback, whichever NIC has the
        // address.
        let is_here =
            peer.is_loopback() || self.interfaces.iter().any(|interface| interface.own.ip == peer);
        is_known && nic != LOOPBACK && !is_here && own.reaches(peer)
    }

    /// The same for a flow that arrived at `own`. Its peer may have been told by another NIC that
    /// `own` is found there; then packets come in by that one, and a socket that is bound to `nic`
    /// would never see them.
    pub(super) fn bind_accepted(&self, nic: &str, own: NicAddress, peer: IpAddr) -> bool {
        let answers = |other: &LocalInterface| {
            other.name != nic && other.own.reaches(own.ip) && other.answers_for_others
        };
        let is_answered_for = own.ip.is_ipv4() && self.interfaces.iter().any(answers);
        self.bind_dialled(nic, own, peer) && !is_answered_for
    }
}

/// Binds a socket to a NIC. Where that is denied, its source address alone decides, and that is
/// said once.
pub(super) fn bind(socket: &impl AsFd, nic: &str) {
    static SAID: Once = Once::new();
    if let Err(errno) = setsockopt(socket, sockopt::BindToDevice, &OsString::from(nic)) {
        // A weaker way is taken without being asked for.
        let why = errno.desc();
        let what = format!(
            "flows cannot be bound to {nic} and other NICs ({why}), so the kernel's routes choose \
             the NIC"
        );
        SAID.call_once(|| {
            say(&format!("{what}; it takes Linux 5.7, or the capability CAP_NET_RAW"));
        });
    }
}

/// 0 is the kernel's default, also where it does not say.
fn arp_ignore(nic: &str) -> u32 {
    let path = format!("/proc/sys/net/ipv4/conf/{nic}/arp_ignore");
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: [u8; 4]) -> NicAddress {
        NicAddress { ip: host.into(), prefix_bits: 24 }
    }

    fn devices(answers_for_others: bool) -> LocalAddresses {
        let interface = |name: &str, host| LocalInterface {
            name: name.into(),
            own: address(host),
            answers_for_others,
        };
        let hosts = [
            ("eth0", [10, 0, 0, 1]),
            ("eth1", [10, 0, 0, 2]),
            ("eth2", [10, 0, 2, 1]),
            ("lo", [127, 0, 0, 1]),
        ];
        LocalAddresses { interfaces: hosts.map(|(name, host)| interface(name, host)).into() }
    }

    #[test]
    fn flows_of_one_subnet_are_bound_at_both_ends() {
        let bound = |nic, own, peer: [u8; 4], quiet: bool| {
            let (devices, own) = (devices(!quiet), address(own));
            (
                devices.bind_dialled(nic, own, peer.into()),
                devices.bind_accepted(nic, own, peer.into()),
            )
        };
        assert_eq!(
            bound("eth2", [10, 0, 2, 1], [10, 0, 2, 9], false),
            (true, true),
            "alone in its subnet"
        );
        assert_eq!(
            bound("eth1", [10, 0, 0, 2], [10, 0, 0, 9], true),
            (true, true),
            "NICs answer for themselves"
        );
        assert_eq!(
            bound("eth1", [10, 0, 0, 2], [10, 0, 0, 9], false),
            (true, false),
            "eth0 answers for eth1"
        );
        assert_eq!(
            bound("eth2", [10, 0, 2, 1], [10, 9, 9, 9], false),
            (false, false),
            "behind a router"
        );
        assert_eq!(
            bound("eth1", [10, 0, 0, 2], [10, 0, 0, 1], true),
            (false, false),
            "an address of this machine"
        );
        assert_eq!(bound("lo", [127, 0, 0, 1], [127, 0, 0, 9], true), (false, false));
        assert_eq!(
            bound("unknown", [10, 0, 2, 1], [10, 0, 2, 9], true),
            (false, false),
            "no such interface"
        );
    }
}

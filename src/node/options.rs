//! What a daemon is told: where to listen, below which root, with which key.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use affinity::{Nic, Sysfs};

use crate::error::{Code, Error, Result};
use crate::session::Key;
use crate::units::BitRate;
use crate::wire::control::{Advert, Rail};

/// The options of a daemon.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) root: PathBuf,
    /// The site key; the open one where there is none.
    pub(crate) key: Key,
    /// Whether a master has started it, so that it ends when that master is gone.
    pub(crate) launched: bool,
    pub(crate) slots: Option<u32>,
    /// The CPU for the rail's thread.
    pub(crate) cpu: Option<usize>,
    /// The one NIC to use, by name or address; without it, the one that the control address belongs to.
    pub(crate) nic: Option<String>,
}

impl Options {
    /// Refuses to listen beyond this machine where anybody could come in.
    ///
    /// # Errors
    /// `Code::Refused`, with the remedy.
    pub(crate) fn check_key(listen: SocketAddr, has_key: bool) -> Result<()> {
        if has_key || listen.ip().is_loopback() {
            return Ok(());
        }
        Err(Error::new(Code::Refused, format!("{listen} can be reached from other machines, and there is no key"))
            .remedy("make one with `cep-fast keygen FILE`, copy it to every node, and pass --key-file FILE"))
    }

    /// The address that data goes by: that of the chosen NIC, that of the control address, or, where that is any, that
    /// of the first NIC that is up.
    ///
    /// # Errors
    /// `Code::Usage` where no such NIC has an address.
    pub(super) fn data_ip(&self, control: IpAddr) -> Result<IpAddr> {
        if self.nic.is_none() && !control.is_unspecified() {
            return Ok(control);
        }
        let nics = affinity::nics(&Sysfs::at("/sys")).unwrap_or_default();
        let is_chosen = |nic: &Nic, ip: IpAddr| match &self.nic {
            Some(chosen) => nic.name == *chosen || ip.to_string() == *chosen,
            None => nic.up && !ip.is_loopback(),
        };
        let addresses = nics.iter().flat_map(|nic| nic.addresses.iter().map(move |address| (nic, address.ip)));
        let mut found = addresses.filter(|&(nic, ip)| ip.is_ipv4() == control.is_ipv4() && is_chosen(nic, ip));
        found.next().map(|(_, ip)| ip).ok_or_else(|| {
            let wanted = self.nic.as_deref().unwrap_or("any NIC that is up");
            let names: Vec<&str> = nics.iter().map(|nic| nic.name.as_str()).collect();
            Error::new(Code::Usage, format!("{wanted} has no address to send from"))
                .remedy(format!("this machine has {}", names.join(", ")))
        })
    }

    /// What this node says of itself.
    pub(super) fn advert(&self, data_address: SocketAddr) -> Advert {
        let nics = affinity::nics(&Sysfs::at("/sys")).unwrap_or_default();
        let owns = |nic: &&Nic| nic.addresses.iter().any(|address| address.ip == data_address.ip());
        // All of 127/8 belongs to the loopback device, though only one address of it is listed.
        let is_loopback = |nic: &&Nic| data_address.ip().is_loopback() && nic.name == "lo";
        let nic = nics.iter().find(owns).or_else(|| nics.iter().find(is_loopback));
        let rail = Rail {
            nic: nic.map_or_else(|| "unknown".into(), |nic| nic.name.clone()),
            address: data_address,
            line: nic.and_then(|nic| nic.speed_mbit).map(|mbit| BitRate(u64::from(mbit) * 1_000_000)),
            mtu: nic.map(|nic| nic.mtu),
            numa: nic.and_then(|nic| nic.numa_node),
        };
        Advert {
            software: format!("cep-fast {}", env!("CARGO_PKG_VERSION")),
            rails: vec![rail],
            cores: affinity::cpus_allowed().map_or(1, |cpus| u32::try_from(cpus.len()).unwrap_or(u32::MAX)),
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into(),
            incarnation: u64::from(std::process::id()),
        }
    }
}

//! Listeners of a node: one for control, and those for data.
//!
//! Without `--ports` each thread of each NIC has a listener of its own. Within a range, each
//! address has one, and the control address has that for control: one port is enough for a node.
//! Whoever dials says which rail is meant.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};

use crate::core::error::{Code, Error, Result};
use crate::core::launch::port_range::PortRange;
use crate::io::session::Listener;

/// Index of a listener; [`CONTROL`] is that of the control address.
pub(super) type ListenerIx = usize;
/// The listener at the control address.
pub(super) const CONTROL: ListenerIx = 0;

/// Addresses at which a node listens.
#[derive(Debug)]
pub(super) struct ListenAddresses {
    range: Option<PortRange>,
    /// By their indices.
    addresses: Vec<SocketAddr>,
}

impl ListenAddresses {
    /// Listens for control at an address: at port 0, at one of the range.
    ///
    /// # Errors
    /// `Code::Unreachable` where that cannot be.
    pub(super) fn at(
        control: SocketAddr,
        range: Option<PortRange>,
    ) -> Result<(ListenAddresses, Listener)> {
        let (listener, address) = match range {
            Some(range) if control.port() == 0 => listen_within(control.ip(), None, range)?,
            _ => listen(control)?,
        };
        Ok((ListenAddresses { range, addresses: vec![address] }, listener))
    }

    /// Returns the control address.
    pub(super) fn control(&self) -> SocketAddr {
        self.addresses[CONTROL]
    }

    /// Returns a listener for data at `ip`, and the address there; a new one is given, too.
    ///
    /// # Errors
    /// `Code::Unreachable` where that cannot be.
    pub(super) fn open(
        &mut self,
        ip: IpAddr,
    ) -> Result<(ListenerIx, SocketAddr, Option<Listener>)> {
        let (listener, address) = match self.range {
            None => listen(SocketAddr::new(ip, 0))?,
            Some(range) => {
                if let Some(known) = self.shared_at(ip, range) {
                    return Ok((known, SocketAddr::new(ip, self.addresses[known].port()), None));
                }
                listen_within(ip, Some(self.control().port()), range)?
            }
        };
        let count = self.addresses.len();
        let index = self.addresses.iter().position(|known| known.port() == 0).unwrap_or(count);
        match self.addresses.get_mut(index) {
            Some(forgotten) => *forgotten = address,
            None => self.addresses.push(address),
        }
        Ok((index, address, Some(listener)))
    }

    /// Forgets a listener for data whose address is gone: the next one takes its place.
    pub(super) fn forget(&mut self, listener: ListenerIx) {
        if listener != CONTROL {
            self.addresses[listener] = SocketAddr::new(self.addresses[listener].ip(), 0);
        }
    }

    /// The listener within the range that takes connections to `ip`.
    fn shared_at(&self, ip: IpAddr, range: PortRange) -> Option<ListenerIx> {
        let takes = |address: &SocketAddr| {
            let is_at = address.ip() == ip || address.ip().is_unspecified();
            is_at && address.is_ipv4() == ip.is_ipv4() && range.contains(address.port())
        };
        self.addresses.iter().position(takes)
    }
}

/// Listens at an address. Gives the one that the system chose.
///
/// # Errors
/// `Code::Unreachable` where it cannot be listened on.
fn listen(address: SocketAddr) -> Result<(Listener, SocketAddr)> {
    let bound = StdListener::bind(address).and_then(Listener::new);
    bound.and_then(with_address).map_err(|error| failed(address, &error))
}

/// Listens at a free port of a range: the `first` one, if it is one of them, or the lowest.
///
/// # Errors
/// `Code::Unreachable` where none is free.
fn listen_within(
    ip: IpAddr,
    first: Option<u16>,
    range: PortRange,
) -> Result<(Listener, SocketAddr)> {
    let first = first.filter(|port| range.contains(*port));
    for port in first.into_iter().chain(range.all()) {
        let address = SocketAddr::new(ip, port);
        match StdListener::bind(address).and_then(Listener::new).and_then(with_address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            other => return other.map_err(|error| failed(address, &error)),
        }
    }
    let what = format!("cannot listen on {ip}: none of the ports of --ports {range} is free there");
    Err(Error::new(Code::Unreachable, what)
        .remedy("widen --ports: each node of a host takes one, or end what uses them (ss -ltnp)"))
}

fn with_address(listener: Listener) -> std::io::Result<(Listener, SocketAddr)> {
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn failed(address: SocketAddr, error: &std::io::Error) -> Error {
    let what = Error::new(Code::Unreachable, format!("cannot listen on {address}: {error}"));
    let what = what.remedy("choose another address or port, or end what uses it");
    crate::io::system_calls::perhaps_filtered(what, error, "socket, setsockopt, bind or listen")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const HERE: [u8; 4] = [127, 40, 7, 1];
    const OTHER: [u8; 4] = [127, 40, 7, 2];

    fn one_free() -> PortRange {
        let port = StdListener::bind((IpAddr::from(HERE), 0)).unwrap().local_addr().unwrap().port();
        port.to_string().parse().unwrap()
    }

    #[test]
    fn one_port_is_enough_for_control_and_for_the_data_of_every_nic() {
        let range = one_free();
        let (mut listening, _control) =
            ListenAddresses::at(SocketAddr::from((HERE, 0)), Some(range)).unwrap();
        let port = listening.control().port();
        assert!(range.contains(port));
        for _ in 0..2 {
            let (listener, address, new) = listening.open(HERE.into()).unwrap();
            assert_eq!((listener, address), (CONTROL, listening.control()));
            assert!(new.is_none());
        }
        let (listener, address, new) = listening.open(OTHER.into()).unwrap();
        assert_eq!((listener, address), (1, SocketAddr::from((OTHER, port))));
        let _kept = new.unwrap();
        assert!(listening.open(OTHER.into()).unwrap().2.is_none(), "threads of a NIC share it");
        listening.forget(1);
        drop(_kept);
        assert!(listening.open(OTHER.into()).unwrap().2.is_some());
    }

    #[test]
    fn a_node_at_all_addresses_has_one_listener() {
        let range = one_free();
        let (mut listening, _control) =
            ListenAddresses::at(SocketAddr::from(([0; 4], 0)), Some(range)).unwrap();
        let (listener, address, _) = listening.open(HERE.into()).unwrap();
        assert_eq!(
            (listener, address),
            (CONTROL, SocketAddr::from((HERE, listening.control().port())))
        );
    }

    #[test]
    fn a_range_without_a_free_port_is_named() {
        let range = one_free();
        let (_first, _control) =
            ListenAddresses::at(SocketAddr::from((HERE, 0)), Some(range)).unwrap();
        let error = ListenAddresses::at(SocketAddr::from((HERE, 0)), Some(range)).unwrap_err();
        assert_eq!(error.code, Code::Unreachable);
        assert!(error.message.contains(&format!("--ports {range}")), "{error}");
        assert!(error.message.contains("127.40.7.1"), "{error}");
    }
}

//! Non-blocking start of a TCP connection, optionally from a given local address and over a given
//! NIC.

use std::net::{IpAddr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};

use crate::core::error::{Code, Error, Result};

/// Starts to connect to `remote`, over any NIC.
pub(crate) fn dial(remote: SocketAddr, from: Option<IpAddr>) -> Result<TcpStream> {
    dial_over(remote, from, |_| {})
}

/// Starts to connect to `remote`. A data flow passes the address of its rail as `from`, and `bind`s
/// the socket to its NIC.
pub(crate) fn dial_over(
    remote: SocketAddr,
    from: Option<IpAddr>,
    bind: impl FnOnce(&OwnedFd),
) -> Result<TcpStream> {
    let failed = |errno: Errno| {
        Error::new(Code::Unreachable, format!("cannot connect to {remote}: {}", errno.desc()))
    };
    let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(family, SockType::Stream, flags, None).map_err(failed)?;
    bind(&socket);
    if let Some(from) = from {
        let local = SockaddrStorage::from(SocketAddr::new(from, 0));
        let refused = |errno: Errno| {
            Error::new(Code::Unreachable, format!("cannot send from {from}: {}", errno.desc()))
        };
        socket::bind(socket.as_raw_fd(), &local).map_err(refused)?;
    }
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(remote)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from_std(StdTcpStream::from(socket))),
        Err(errno) => Err(failed(errno)),
    }
}

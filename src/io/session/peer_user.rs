//! User at the other end of a connection within this machine.
//!
//! Without a key, every process that reaches the port could connect. The kernel knows the owner of
//! the other socket of a local connection: `sock_diag` returns it for one pair of addresses. Where
//! netlink is filtered, `/proc/net/tcp` lists all of them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, getsockopt,
};
use nix::unistd::geteuid;

/// Returns true if the socket at `remote`, connected to the `local` address, belongs to a process
/// of the same user.
///
/// Root is no exception, in either direction: another user needs a key. Also returns false if the
/// owner is unknown.
pub(super) fn is_own(local: SocketAddr, remote: SocketAddr) -> bool {
    let (local, remote) = (plain(local), plain(remote));
    let owner = match by_netlink(local, remote) {
        Ok(owner) => owner,
        Err(_) => by_proc(local, remote),
    };
    owner == Some(geteuid().as_raw()) && users_have_numbers_of_their_own()
}

/// Returns true if the process at the other end of a connection within this machine is this user's.
pub(crate) fn is_of_this_user(stream: &TcpStream) -> bool {
    let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
    ends.is_ok_and(|(local, remote)| is_own(local, remote))
}

/// Returns true if the process at the other end of a Unix socket may ask for what belongs to this
/// process's user: the same user, or root.
pub(crate) fn may_ask_owner(socket: &impl AsFd) -> bool {
    let Ok(peer) = getsockopt(socket, PeerCredentials) else { return false };
    let is_own = peer.uid() == geteuid().as_raw() && users_have_numbers_of_their_own();
    is_own || peer.uid() == 0
}

/// Normalizes an IPv4 address in the form of a dual-stack socket.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns true if every user has a distinct number. In a user namespace that does not map all
/// users, the others share one number, which may be ours.
fn users_have_numbers_of_their_own() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let others = read("/proc/sys/kernel/overflowuid");
    let is_others = others.trim().parse() == Ok(geteuid().as_raw()) || others.is_empty();
    !is_others || read("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"])
}

/// Asks netlink for one socket. Returns `Ok(None)` if there is none, or if its process has closed
/// it: the kernel attributes such a socket to root.
fn by_netlink(local: SocketAddr, remote: SocketAddr) -> nix::Result<Option<u32>> {
    let netlink = socket::socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        Some(SockProtocol::NetlinkSockDiag),
    )?;
    socket::send(netlink.as_raw_fd(), &request(local, remote), MsgFlags::empty())?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    // The kernel has answered by the time the request is sent.
    let length = socket::recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    read_answer(&answer[..length], local, remote)
}

/// Builds a `nlmsghdr` and an `inet_diag_req_v2` for the socket whose own address is `remote` and
/// whose peer is `local`.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST_BYTES);
    bytes.extend(u32::to_ne_bytes(REQUEST_BYTES as u32));
    bytes.extend(u16::to_ne_bytes(SOCK_DIAG_BY_FAMILY));
    bytes.extend(u16::to_ne_bytes(NLM_F_REQUEST));
    bytes.extend([0; 8]);
    let family = if remote.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    bytes.extend([u8::try_from(family).expect("families are few"), IPPROTO_TCP, 0, 0]);
    bytes.extend(u32::to_ne_bytes(u32::MAX));
    bytes.extend(socket_id(local, remote));
    bytes
}

/// Builds the ports and addresses of an `inet_diag_sockid`, for any interface, without a cookie.
fn socket_id(local: SocketAddr, remote: SocketAddr) -> [u8; SOCKET_ID_BYTES] {
    let mut id = [0xff; SOCKET_ID_BYTES];
    id[..2].copy_from_slice(&remote.port().to_be_bytes());
    id[2..4].copy_from_slice(&local.port().to_be_bytes());
    id[4..20].copy_from_slice(&address_bytes(remote.ip()));
    id[20..36].copy_from_slice(&address_bytes(local.ip()));
    id[36..40].fill(0);
    id
}

fn address_bytes(ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes = ip.octets(),
    }
    bytes
}

fn read_answer(bytes: &[u8], local: SocketAddr, remote: SocketAddr) -> nix::Result<Option<u32>> {
    let word = |at: usize| {
        bytes.get(at..at + 4).map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")))
    };
    let kind = bytes.get(4..6).map(|kind| u16::from_ne_bytes(kind.try_into().expect("two bytes")));
    match kind {
        Some(NLMSG_ERROR) => match word(16).map_or(0, u32::cast_signed) {
            code if code == -libc::ENOENT => Ok(None),
            code => Err(Errno::from_raw(-code)),
        },
        Some(SOCK_DIAG_BY_FAMILY) => {
            // A listener may answer for a closed connection; the addresses differ then.
            let wanted = socket_id(local, remote);
            let is_meant = bytes.get(20..20 + ADDRESSES_BYTES) == Some(&wanted[..ADDRESSES_BYTES]);
            let (owner, inode) = (word(16 + 64), word(16 + 68));
            Ok(owner.filter(|_| is_meant && inode.is_some_and(|inode| inode != 0)))
        }
        _ => Err(Errno::EBADMSG),
    }
}

/// Looks for the socket in the list of all connections.
fn by_proc(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let tables = if remote.is_ipv4() {
        &["/proc/net/tcp", "/proc/net/tcp6"][..]
    } else {
        &["/proc/net/tcp6"]
    };
    tables.iter().find_map(|table| {
        let lines = BufReader::new(File::open(table).ok()?).lines().map_while(Result::ok);
        lines.skip(1).find_map(|line| owner_in(&line, local, remote))
    })
}

/// Returns the owner in a line of the list, if the line is that of the connection.
fn owner_in(line: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, own, peer, _, _, _, _, owner, _, inode, ..] = fields[..] else { return None };
    let is_meant = listed_address(own)? == remote && listed_address(peer)? == local && inode != "0";
    owner.parse().ok().filter(|_| is_meant)
}

/// Parses `0100007F:1F90`: the address in words of this machine's byte order, and the port.
fn listed_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Vec<[u8; 4]> = (0..ip.len() / 8)
        .map(|at| u32::from_str_radix(ip.get(8 * at..8 * at + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    let ip = match *words.as_slice() {
        [ip] => Ipv4Addr::from(ip).into(),
        [a, b, c, d] => {
            Ipv6Addr::from(<[u8; 16]>::try_from([a, b, c, d].concat()).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
/// Ports, addresses, interface and cookie.
const SOCKET_ID_BYTES: usize = 48;
/// Ports and addresses alone.
const ADDRESSES_BYTES: usize = 36;
const REQUEST_BYTES: usize = 16 + 8 + SOCKET_ID_BYTES;
/// The answer takes 88 bytes; unrequested attributes are cut off.
const ANSWER_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Creates a connection within this machine. Returns the addresses as the listener sees them,
    /// and both ends.
    fn connected(at: &str) -> Option<(SocketAddr, SocketAddr, TcpStream, TcpStream)> {
        let listener = TcpListener::bind((at, 0)).ok()?;
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, remote) = listener.accept().unwrap();
        Some((accepted.local_addr().unwrap(), remote, dialled, accepted))
    }

    #[test]
    fn a_connection_of_our_own_is_ours_by_either_way_of_asking() {
        for at in ["127.0.0.1", "127.9.8.7", "::1"] {
            // Without IPv6 there is no such connection.
            let Some((local, remote, _dialled, _accepted)) = connected(at) else { continue };
            let ours = Some(geteuid().as_raw());
            // Netlink may be filtered; then only the list is tested.
            if let Ok(owner) = by_netlink(local, remote) {
                assert_eq!(owner, ours, "{at}");
            }
            assert_eq!(by_proc(local, remote), ours, "{at}");
            assert_eq!(by_proc(remote, local), ours, "the other end of {at}");
        }
    }

    #[test]
    fn a_socket_that_its_process_has_given_up_is_nobodys() {
        let (local, remote, dialled, _accepted) = connected("127.0.0.1").unwrap();
        drop(dialled);
        // The kernel lists it as root's, and this test may run as root.
        assert_eq!(by_netlink(local, remote).unwrap_or_default(), None);
        assert_eq!(by_proc(local, remote), None);
        assert!(!is_own(local, remote));
    }

    #[test]
    fn a_listener_does_not_answer_for_a_connection_that_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (local, remote) =
            (SocketAddr::from(([127, 0, 0, 1], 9)), listener.local_addr().unwrap());
        assert!(!is_own(local, remote));
    }

    #[test]
    fn addresses_are_read_as_the_kernel_lists_them() {
        let listed = |word: u32| format!("{word:08X}");
        let v4 = format!("{}:1F90", listed(u32::from_ne_bytes([127, 0, 0, 1])));
        assert_eq!(listed_address(&v4), Some(SocketAddr::from(([127, 0, 0, 1], 8080))));
        let mapped =
            [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), u32::from_ne_bytes([10, 0, 0, 7])];
        let mapped: String = mapped.into_iter().map(listed).collect();
        assert_eq!(
            listed_address(&format!("{mapped}:0001")),
            Some(SocketAddr::from(([10, 0, 0, 7], 1)))
        );
        for strange in ["", ":", "7F:1", "0100007F", "0100007F:fffff", "zzzzzzzz:1"] {
            assert_eq!(listed_address(strange), None, "{strange}");
        }
    }
}

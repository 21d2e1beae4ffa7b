//! Connections whose data is sent again and again and never acknowledged, by the kernel's own
//! table.
//!
//! A hole in the path MTU looks like a silent sender to its receiver: handshakes and requests are
//! small and pass, data fills whole packets and does not. The sender's kernel knows. It is asked
//! when a receiver comes back on a rail pair that has brought nothing, so that a handshake has just
//! gone through where data does not.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Retransmissions from which data is stuck: more than a lost packet or two.
const RESENT_MIN: u32 = 2;
/// Unacknowledged bytes that are no handshake, and fill a packet.
const BYTES_MIN: u64 = 1000;

/// Data that does not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StuckData {
    /// Retransmissions of its beginning.
    pub(super) resent: u32,
    pub(super) bytes: u64,
}

/// The worst connection from `own` to any port of `peer`, if there is one.
pub(super) fn find(own: SocketAddr, peer: IpAddr) -> Option<StuckData> {
    let table = if own.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    stuck_in(&std::fs::read_to_string(table).ok()?, own, peer)
}

/// A line of headings, then a line for each connection: its number, both addresses, its state, the
/// bytes that wait to be acknowledged and to be read, its timer, and how often it has sent again in
/// a row.
fn stuck_in(table: &str, own: SocketAddr, peer: IpAddr) -> Option<StuckData> {
    let line = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().take(7).collect();
        let &[_, local, remote, _, queues, _, resent] = &columns[..] else { return None };
        if address(local)? != own || address(remote)?.ip() != peer {
            return None;
        }
        let bytes = u64::from_str_radix(queues.split_once(':')?.0, 16).ok()?;
        let resent = u32::from_str_radix(resent, 16).ok()?;
        (resent >= RESENT_MIN && bytes >= BYTES_MIN).then_some(StuckData { resent, bytes })
    };
    table.lines().skip(1).filter_map(line).max_by_key(|stuck| stuck.resent)
}

/// An address as the kernel prints it: words of 32 bits in the machine's byte order, in hex.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word =
        |at: usize| Some(u32::from_str_radix(ip.get(8 * at..8 * at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => word(0)?.into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A line as the kernel writes it, with this many bytes unacknowledged and retransmissions.
    fn line(local: &str, remote: &str, bytes: u64, resent: u32) -> String {
        format!(
            "   1: {local} {remote} 01 {bytes:08X}:00000000 01:00000014 {resent:08X}     0        \
             0 7 2 0 100\n"
        )
    }

    fn v4(ip: [u8; 4], port: u16) -> String {
        format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip))
    }

    #[test]
    fn only_data_that_was_sent_again_to_that_peer_counts() {
        let (own, peer) = (v4([10, 0, 0, 1], 4000), v4([10, 0, 0, 2], 5000));
        let other = v4([10, 0, 0, 3], 5000);
        let found = |lines: &[String]| {
            stuck_in(
                &format!("headings\n{}", lines.concat()),
                ([10, 0, 0, 1], 4000).into(),
                [10, 0, 0, 2].into(),
            )
        };
        let lines = [
            line(&own, &peer, 96, 9),
            line(&own, &peer, 1 << 20, 1),
            line(&own, &other, 1 << 20, 9),
        ];
        assert_eq!(found(&lines), None, "a handshake, a lost packet, another peer");
        let lines = [line(&own, &peer, 1448, 2), line(&own, &peer, 1 << 20, 5)];
        assert_eq!(found(&lines), Some(StuckData { resent: 5, bytes: 1 << 20 }));
        assert_eq!(found(&["nonsense\n".into(), "1: a b c d:e f g\n".into()]), None);
    }

    #[test]
    fn the_kernels_table_has_our_own_connections_of_both_families() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let own = listener.local_addr().expect("it is bound");
            let client = TcpStream::connect(own).expect("it listens");
            let (mut served, peer) = listener.accept().expect("one waits");
            served.write_all(b"small").expect("there is room");
            let table = if own.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
            let text = std::fs::read_to_string(table).expect("Linux has it");
            let pair = |line: &str| {
                let mut columns = line.split_ascii_whitespace().skip(1);
                Some((address(columns.next()?)?, address(columns.next()?)?))
            };
            assert!(
                text.lines().filter_map(pair).any(|it| it == (own, peer)),
                "{own} {peer}\n{text}"
            );
            assert_eq!(find(own, peer.ip()), None, "what arrives is not stuck");
            drop(client);
        }
    }
}

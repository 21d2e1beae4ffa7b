//! A capture of all packets that a node sends and receives.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::lab::Lab;

/// A capture that has begun.
pub(crate) struct PacketCapture {
    thread: JoinHandle<Vec<Vec<u8>>>,
    ends: Arc<AtomicBool>,
}

impl PacketCapture {
    /// Begins to capture the packets of `node`.
    pub(crate) fn begin(lab: &Lab, node: u32) -> PacketCapture {
        let open = || -> nix::Result<OwnedFd> {
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
            let packets = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)?;
            setsockopt(&packets, sockopt::RcvBufForce, &(64 << 20))?;
            setsockopt(&packets, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))?;
            Ok(packets)
        };
        let packets = lab.network.inside(node, open).unwrap().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let thread = std::thread::spawn(move || read_all(&packets, &is_over));
        PacketCapture { thread, ends }
    }

    /// Ends the capture. Returns the packets.
    pub(crate) fn end(self) -> Vec<Vec<u8>> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Reads packets until the end was asked for and none is left.
fn read_all(packets: &OwnedFd, ends: &AtomicBool) -> Vec<Vec<u8>> {
    let (mut captured, mut packet) = (Vec::new(), vec![0; 1 << 17]);
    loop {
        let is_last = ends.load(Ordering::Relaxed);
        match recv(packets.as_raw_fd(), &mut packet, nix::sys::socket::MsgFlags::empty()) {
            Ok(bytes) => captured.push(packet[..bytes].to_vec()),
            Err(Errno::EAGAIN) if is_last => return captured,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// Returns how many runs of 16 bytes of the packets are runs of `data`.
pub(crate) fn runs_of(data: &[u8], packets: &[Vec<u8>]) -> usize {
    let runs: HashSet<&[u8]> = data.windows(RUN_BYTES).collect();
    let seen = packets.iter().flat_map(|packet| packet.windows(RUN_BYTES));
    seen.filter(|run| runs.contains(run)).count()
}

const RUN_BYTES: usize = 16;

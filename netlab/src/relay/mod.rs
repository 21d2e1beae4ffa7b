//! A long path between two nodes of a lab, in user space: each node has a TUN device, and a thread
//! for each direction carries packets between them with the rate, delay, queue and loss of the
//! path. For kernels without `netem`.
//!
//! The devices have no offloads: every packet is one of the MTU.

mod queue;
mod tun;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::{NetworkLab, address};
use queue::PathQueue;
pub use queue::{PathCounts, PathShape};

/// Nodes at the two ends.
const ENDS: [u32; 2] = [1, 2];
/// Packets that are read before those that have arrived are written.
const BATCH: usize = 64;
/// Longest wait, after which a thread looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// More than a packet of any MTU of these devices.
const PACKET_BYTES_MAX: usize = 2048;

/// A path between nodes 1 and 2 of a lab, in place of their NIC 0. It is gone on drop.
#[derive(Debug)]
pub struct PathRelay {
    is_over: Arc<AtomicBool>,
    directions: Vec<RelayDirection>,
}

#[derive(Debug)]
struct RelayDirection {
    counts: Arc<Mutex<PathCounts>>,
    thread: Option<JoinHandle<()>>,
}

impl PathRelay {
    /// Replaces eth0 of nodes 1 and 2 by the ends of a path; the addresses are the same.
    ///
    /// # Errors
    /// There are no such nodes, or TUN devices are not permitted.
    pub fn start(lab: &NetworkLab, shape: PathShape) -> io::Result<PathRelay> {
        let devices = ENDS.map(|node| -> io::Result<File> {
            lab.shell(node, "ip link delete eth0")?;
            let device = lab.inside(node, || tun::create("eth0"))??;
            // A queue that never fills: that of the path is here.
            let address = address(node, 0);
            lab.shell(
                node,
                &format!(
                    "ip address add {address}/24 dev eth0; ip link set eth0 mtu 1500 txqueuelen \
                     10000 up"
                ),
            )?;
            Ok(device)
        });
        let [first, second] = devices;
        let (first, second) = (first?, second?);
        let is_over = Arc::new(AtomicBool::new(false));
        let mut directions = Vec::new();
        for (direction, from, to) in [(0, &first, &second), (1, &second, &first)] {
            let counts = Arc::new(Mutex::new(PathCounts::default()));
            let carrier = PacketCarrier {
                from: from.try_clone()?,
                to: to.try_clone()?,
                queue: PathQueue::new(shape, direction),
                start: Instant::now(),
                counts: Arc::clone(&counts),
                is_over: Arc::clone(&is_over),
            };
            let thread = thread::Builder::new()
                .name(format!("path{direction}"))
                .spawn(move || carrier.carry())?;
            directions.push(RelayDirection { counts, thread: Some(thread) });
        }
        Ok(PathRelay { is_over, directions })
    }

    /// Returns the counters from node 1 to node 2, and back.
    #[must_use]
    pub fn counts(&self) -> [PathCounts; 2] {
        [0, 1].map(|direction| {
            let counts: &Mutex<PathCounts> = &self.directions[direction].counts;
            *counts.lock().unwrap_or_else(PoisonError::into_inner)
        })
    }
}

impl Drop for PathRelay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for direction in &mut self.directions {
            // One that panicked has said so.
            let _ = direction.thread.take().map(JoinHandle::join);
        }
    }
}

/// One direction of a path.
struct PacketCarrier {
    from: File,
    to: File,
    queue: PathQueue,
    start: Instant,
    counts: Arc<Mutex<PathCounts>>,
    is_over: Arc<AtomicBool>,
}

impl PacketCarrier {
    /// Carries packets until the relay is dropped, or the devices are gone.
    fn carry(mut self) {
        let mut packet = [0; PACKET_BYTES_MAX];
        while !self.is_over.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                match self.from.read(&mut packet) {
                    Ok(bytes) => self.queue.push(self.start.elapsed(), &packet[..bytes]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return,
                }
            }
            while let Some(packet) = self.queue.pop(self.start.elapsed()) {
                // A device that is down, or a node that has no room, loses it.
                let _ = self.to.write(&packet);
            }
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.queue.counts();
            self.wait();
        }
    }

    /// Waits for the next packet at either end.
    fn wait(&self) {
        let left = self.queue.due().map(|due| due.saturating_sub(self.start.elapsed()));
        let patience = TimeSpec::from_duration(left.unwrap_or(PATIENCE).min(PATIENCE));
        let mut readable = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        // A signal ends it early.
        let _ = ppoll(&mut readable, Some(patience), None);
    }
}

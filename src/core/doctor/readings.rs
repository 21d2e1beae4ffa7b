//! Readings of a machine. An unknown value is `None`, never a guess.

use serde::Serialize;

/// All readings for the judgement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MachineReadings {
    /// Version as in `uname -r`.
    pub(crate) kernel: String,
    /// Reason why the NICs could not be listed, if so; then `nics` is empty.
    pub(crate) nics_error: Option<String>,
    /// Reason why addresses were read from `/proc/net` instead of netlink, if so.
    pub(crate) netlink_error: Option<String>,
    /// Every network interface, by name.
    pub(crate) nics: Vec<NicReading>,
    /// The CPUs that this process may run on, ascending.
    pub(crate) cpus_allowed: Vec<usize>,
    /// Memory nodes of the machine.
    pub(crate) numa_node_count: usize,
    /// Abilities of a ring of this process, or the reason why there is none.
    pub(crate) io_uring: Result<IoUring, RingObstacle>,
    /// What this kernel lacks besides.
    pub(crate) lacks: Vec<KernelFeature>,
    /// Memory that a node locks for its NICs.
    pub(crate) locked_bytes_wanted: u64,
    /// The limit of locked memory; `None` if there is none.
    pub(crate) memlock_bytes: Option<u64>,
    /// True if a filter of system calls is active for this process.
    pub(crate) is_filtered: Option<bool>,
    /// Reasons why this kernel cannot confine a node, if so: its files, its system calls.
    pub(crate) confinement_obstacles: Vec<String>,
    /// What it leaves a confined node that it should not, if so.
    pub(crate) confinement_weakness: Option<String>,
    /// Effective capabilities of this process, a bit each; `None` if unknown.
    pub(crate) capabilities: Option<u64>,
    /// Congestion control of TCP.
    pub(crate) congestion_control: Option<String>,
    /// Limits on the received bytes in a socket: least, initial, most.
    pub(crate) tcp_rmem: Option<[u64; 3]>,
    /// Limits on the bytes to be sent in a socket: least, initial, most.
    pub(crate) tcp_wmem: Option<[u64; 3]>,
    /// Clock governor of each allowed CPU; empty if unknown.
    pub(crate) governors: Vec<CpuGovernor>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NicReading {
    /// The interface's name.
    pub(crate) name: String,
    /// Use of the interface by a node.
    #[serde(rename = "use")]
    pub(crate) usage: NicUse,
    /// Line rate in 10⁶ bits per second.
    pub(crate) speed_mbit: Option<u32>,
    /// Largest packet in bytes.
    pub(crate) mtu: u32,
    /// NUMA node that it is attached to.
    pub(crate) numa_node: Option<u32>,
    /// The CPUs of that node; empty if it is unknown.
    pub(crate) cpus: Vec<usize>,
    /// The kernel's driver; virtual interfaces have none.
    pub(crate) driver: Option<String>,
    /// Receive queues, each with its own interrupt.
    pub(crate) rx_queues: usize,
    /// Transmit queues.
    pub(crate) tx_queues: usize,
    /// Its addresses, as `address/prefix`.
    pub(crate) addresses: Vec<String>,
    /// The larger of its own `arp_ignore` and that of all interfaces; at 0, the machine answers for
    /// every NIC on it.
    #[serde(skip)]
    pub(crate) arp_ignore: Option<u32>,
}

/// Use of an interface by a node without `--nic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NicUse {
    /// One rail.
    Rail,
    /// None: it leads back to this machine.
    Loopback,
    /// None: it leads to guests and containers of this machine.
    Inside,
    /// None: it is down.
    Down,
    /// None: it has no address to listen on.
    NoAddress,
}

/// A ring that could be created.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IoUring {
    /// Result of registering `locked_bytes_wanted`.
    pub(crate) locked: Result<(), RingObstacle>,
}

/// A feature of newer kernels for which a node has another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelFeature {
    /// Packets that came out of order are counted (`TCP_INFO`, Linux 5.4).
    PacketOrder,
    /// `openat2` (Linux 5.6).
    Openat2,
    /// `SO_BINDTODEVICE` without a capability (Linux 5.7).
    BindToNic,
    /// `cachestat` (Linux 6.5).
    Cachestat,
    /// A ring sets options of sockets (Linux 6.7).
    RingOptions,
}

/// An obstacle and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RingObstacle {
    pub(crate) cause: String,
    pub(crate) remedy: String,
}

/// Clock governor of a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuGovernor {
    pub(crate) cpu: usize,
    pub(crate) name: String,
    /// Some drivers use the same name for something else.
    pub(crate) driver: Option<String>,
}

impl MachineReadings {
    /// Returns the NICs that a node uses.
    pub(crate) fn rails(&self) -> impl Iterator<Item = &NicReading> {
        self.nics.iter().filter(|nic| nic.usage == NicUse::Rail)
    }

    /// Returns the highest known rate of the NICs that a node uses, in bits per second.
    pub(crate) fn line_bits_max(&self) -> Option<u64> {
        self.rails().filter_map(|nic| nic.speed_mbit).max().map(|mbit| u64::from(mbit) * 1_000_000)
    }
}

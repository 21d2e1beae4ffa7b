//! What there is to know of a machine. What the machine does not say is `None`, not a guess.

use serde::Serialize;

/// Everything that is judged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MachineReadings {
    /// As `uname -r` prints it.
    pub(crate) kernel: String,
    /// Why the NICs could not be listed, if so; then `nics` is empty.
    pub(crate) nics_error: Option<String>,
    /// Why addresses were read from `/proc/net` instead of asked for by netlink, if so.
    pub(crate) netlink_error: Option<String>,
    /// Every network interface, by name.
    pub(crate) nics: Vec<NicReading>,
    /// The CPUs that this process may run on, ascending.
    pub(crate) cpus_allowed: Vec<usize>,
    /// Memory nodes of the machine.
    pub(crate) numa_node_count: usize,
    /// What a ring of this process can do, or why there is none.
    pub(crate) io_uring: Result<IoUring, RingObstacle>,
    /// What a node locks for the NICs that it would use.
    pub(crate) locked_bytes_wanted: u64,
    /// The limit of locked memory; `None` if there is none.
    pub(crate) memlock_bytes: Option<u64>,
    /// Whether a filter of system calls is on this process.
    pub(crate) is_filtered: Option<bool>,
    /// How TCP reacts to loss and delay.
    pub(crate) congestion_control: Option<String>,
    /// What a socket may hold of received bytes: least, at first, most.
    pub(crate) tcp_rmem: Option<[u64; 3]>,
    /// The same of bytes to be sent.
    pub(crate) tcp_wmem: Option<[u64; 3]>,
    /// Who sets the clock of which allowed CPU; empty where nobody says.
    pub(crate) governors: Vec<CpuGovernor>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NicReading {
    /// The interface's name.
    pub(crate) name: String,
    /// What a node does with it.
    #[serde(rename = "use")]
    pub(crate) usage: NicUse,
    /// Line rate in 10⁶ bits per second.
    pub(crate) speed_mbit: Option<u32>,
    /// Largest packet in bytes.
    pub(crate) mtu: u32,
    /// The memory node that it hangs on.
    pub(crate) numa_node: Option<u32>,
    /// The CPUs of that node; empty if it is unknown.
    pub(crate) cpus: Vec<usize>,
    /// The kernel's driver; virtual interfaces have none.
    pub(crate) driver: Option<String>,
    /// Queues that packets arrive in, each with an interrupt of its own.
    pub(crate) rx_queues: usize,
    /// Queues that packets leave by.
    pub(crate) tx_queues: usize,
    /// Its addresses, as `address/prefix`.
    pub(crate) addresses: Vec<String>,
    /// The larger of its own and everybody's setting of whom it answers for; at 0, for every NIC of
    /// the machine.
    #[serde(skip)]
    pub(crate) arp_ignore: Option<u32>,
}

/// What a node does with an interface when nobody names NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NicUse {
    /// A rail of its own.
    Rail,
    /// Nothing: it leads back to this machine.
    Loopback,
    /// Nothing: it leads to guests and containers of this machine.
    Inside,
    /// Nothing: it is down.
    Down,
    /// Nothing: it has no address to listen on.
    NoAddress,
}

/// A ring that could be made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IoUring {
    /// Whether completions are worked off where the rail waits (Linux 6.1).
    pub(crate) is_deferred: bool,
    /// Operations that the kernel does not have.
    pub(crate) missing: Vec<&'static str>,
    /// Whether `locked_bytes_wanted` could be registered, or why not.
    pub(crate) locked: Result<(), RingObstacle>,
}

/// What is in the way, and what removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RingObstacle {
    pub(crate) cause: String,
    pub(crate) remedy: String,
}

/// Who sets the clock of a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuGovernor {
    pub(crate) cpu: usize,
    pub(crate) name: String,
    /// Some drivers mean other things by the same name.
    pub(crate) driver: Option<String>,
}

impl MachineReadings {
    /// The NICs that a node uses.
    pub(crate) fn rails(&self) -> impl Iterator<Item = &NicReading> {
        self.nics.iter().filter(|nic| nic.usage == NicUse::Rail)
    }

    /// The rate of the fastest NIC that a node uses and whose rate is known, in bits per second.
    pub(crate) fn line_bits_max(&self) -> Option<u64> {
        self.rails().filter_map(|nic| nic.speed_mbit).max().map(|mbit| u64::from(mbit) * 1_000_000)
    }
}

//! Options of a transfer: one struct from the command line to the machines that obey it.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::core::units::BitRate;

/// Default time without progress after which a transfer fails.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of a transfer, besides its rows. The defaults are fast and safe.
///
/// The master sends them to every node, except for `verify_replicas`, `limit`, `timeout` and
/// `scheduler`, which are its own. A node's machines and stores have them as they came.
///
/// ```
/// use cep_fast::{CheckKind, TransferOptions};
/// let options = TransferOptions { check: CheckKind::Blake3, ..TransferOptions::default() };
/// assert!(options.resume && !options.overwrite);
/// assert_eq!(options.stall_timeout.as_secs(), 30);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransferOptions {
    /// Check that is computed over every piece, and verified before the piece is written. CRC-64 by
    /// default.
    pub check: CheckKind,
    /// Make files and names survive a power failure before the transfer counts as complete. Off by
    /// default.
    pub fsync: bool,
    /// Read every file back from its disk, past the page cache, and check it again before it is
    /// renamed. Requires a check. Off by default.
    pub verify: bool,
    /// Compare all bytes that several senders offer, not a sample, before any byte moves. Off by
    /// default.
    pub verify_replicas: bool,
    /// Replace files that exist. Off by default: such a file is an error.
    pub overwrite: bool,
    /// Resume an earlier attempt, and keep landed bytes for a later one. On by default; otherwise
    /// start over and keep nothing.
    pub resume: bool,
    /// Slots of one block that each node's rail may have in each direction, at most 65,536; `None`
    /// for the node's choice.
    pub slots: Option<u32>,
    /// Number of NICs that each node may use, from its first one on; `None` for all.
    pub rails_max: Option<NonZeroU32>,
    /// Number of threads that each NIC may use, from its first one on; `None` for all.
    pub threads_max: Option<NonZeroU32>,
    /// Data path through the kernel of each node.
    pub path: DataPath,
    /// Protection of the bytes between hosts; `None` for [`WireLevel::Sealed`] wherever bytes leave
    /// the machine, and [`WireLevel::Clear`] between two loopback addresses.
    pub wire: Option<WireLevel>,
    /// Cipher of that protection; `None` for the fastest that both ends of a flow have.
    pub cipher: Option<Cipher>,
    /// Limit on the rate of all receivers together, in bits per second; `None` for no limit. Each
    /// receiver has a share in proportion to its wanted bytes, and runs at most a block ahead of
    /// it.
    pub limit: Option<BitRate>,
    /// Time without progress after which the transfer fails, in whole milliseconds; 30 s by
    /// default. A flow that owes an answer is abandoned after a third of it.
    pub stall_timeout: Duration,
    /// Limit on the whole duration; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Scheduler of the plan.
    pub scheduler: Scheduler,
}

impl Default for TransferOptions {
    fn default() -> TransferOptions {
        TransferOptions {
            check: CheckKind::default(),
            fsync: false,
            verify: false,
            verify_replicas: false,
            overwrite: false,
            resume: true,
            slots: None,
            rails_max: None,
            threads_max: None,
            path: DataPath::default(),
            wire: None,
            cipher: None,
            limit: None,
            stall_timeout: STALL_TIMEOUT,
            timeout: None,
            scheduler: Scheduler::default(),
        }
    }
}

impl TransferOptions {
    /// Returns the options as nodes have them: with defaults for those of the master alone.
    #[must_use]
    pub(crate) fn of_nodes(self) -> TransferOptions {
        TransferOptions {
            verify_replicas: false,
            limit: None,
            timeout: None,
            scheduler: Scheduler::default(),
            ..self
        }
    }

    /// Returns the time for which a flow may owe an answer without receiving a byte: short of the
    /// stall timeout, so that a replica can still take over.
    pub(crate) fn silence(&self) -> Duration {
        self.stall_timeout / 3
    }

    /// Returns the rails that a node uses, where `nics` are the names of the rails' NICs: the first
    /// rails of each of the first NICs, of those that are `named` if any is.
    pub(crate) fn rails<'a>(
        &self,
        named: &[String],
        nics: impl Iterator<Item = &'a str>,
    ) -> Vec<usize> {
        let most = |most: Option<NonZeroU32>| most.map_or(usize::MAX, |most| most.get() as usize);
        let (nics_max, threads_max) = (most(self.rails_max), most(self.threads_max));
        let mut counts: Vec<(&str, usize)> = Vec::new();
        let mut used = Vec::new();
        let is_named = |nic: &str| named.is_empty() || named.iter().any(|name| name == nic);
        for (rail, name) in nics.enumerate().filter(|(_, nic)| is_named(nic)) {
            let place = counts.iter().position(|(nic, _)| *nic == name).unwrap_or_else(|| {
                counts.push((name, 0));
                counts.len() - 1
            });
            counts[place].1 += 1;
            if place < nics_max && counts[place].1 <= threads_max {
                used.push(rail);
            }
        }
        used
    }
}

/// Check that is computed over every piece. The number is that on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u8)]
pub enum CheckKind {
    /// Nothing: network and memory are trusted.
    None = 0,
    /// CRC-64/NVME, which composes over any ranges (what S3 calls CRC64NVME).
    #[default]
    Crc64 = 1,
    /// BLAKE3, whose subtrees merge into the `b3sum` of a whole object.
    Blake3 = 2,
}

impl CheckKind {
    /// Returns the name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CheckKind::None => "none",
            CheckKind::Crc64 => "crc64",
            CheckKind::Blake3 => "blake3",
        }
    }
}

/// Data path of payload through a node's kernel. A path that a source or a machine does not support
/// is replaced by the next best one, and the report says so. The number is that on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum DataPath {
    /// From the page cache the pieces that it holds wholly, past it all others.
    #[default]
    Auto = 0,
    /// Reads and writes that bypass the page cache (`O_DIRECT`) into registered buffers, and plain
    /// sends.
    Direct = 1,
    /// From the page cache to the socket without a copy (`sendfile`); uncached data goes through
    /// buffers.
    Splice = 2,
    /// Buffers, and sends without a copy where the device supports them.
    Zerocopy = 3,
    /// Plain reads and writes through the page cache.
    Copy = 4,
}

impl DataPath {
    /// Returns the name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DataPath::Auto => "auto",
            DataPath::Direct => "direct",
            DataPath::Splice => "splice",
            DataPath::Zerocopy => "zerocopy",
            DataPath::Copy => "copy",
        }
    }
}

/// Protection of the bytes on the wire, from none to all. The number is that on the wire.
///
/// ```
/// use cep_fast::WireLevel;
/// assert!(WireLevel::Sealed > WireLevel::Signed && WireLevel::Signed > WireLevel::Clear);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum WireLevel {
    /// Anybody between the hosts can read the bytes, and change them unnoticed.
    Clear = 1,
    /// Anybody can read the bytes; a change is noticed. For networks that nobody else listens to.
    Signed = 2,
    /// Nobody can read the bytes or change them unnoticed.
    Sealed = 3,
}

impl WireLevel {
    /// Returns the name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WireLevel::Clear => "clear",
            WireLevel::Signed => "signed",
            WireLevel::Sealed => "sealed",
        }
    }
}

/// Cipher that seals or signs the bytes on the wire. The number is that on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Cipher {
    /// AES-256-GCM; for processors with instructions for AES.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305; for all others.
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    /// Returns the name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// Algorithm that weighs the senders.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheduler {
    /// Greedy if its plan is optimal, or if the optimum would take long to find; else the optimum.
    /// The plan names the algorithm that was used.
    #[default]
    Auto,
    /// In proportion to demand and speed, then balanced: the CEP paper's greedy algorithm (section
    /// 3.2), followed by rounds that move load from busy nodes to idle ones. Linear in the size of
    /// the plan.
    Greedy,
    /// The exact optimum of the paper's linear program, by parametric maximum flow.
    Lp,
    /// Equal stripes regardless of speed, as striped `GridFTP` does: a baseline for comparison.
    Uniform,
}

impl Scheduler {
    /// Returns the name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scheduler::Auto => "auto",
            Scheduler::Greedy => "greedy",
            Scheduler::Lp => "lp",
            Scheduler::Uniform => "uniform",
        }
    }
}

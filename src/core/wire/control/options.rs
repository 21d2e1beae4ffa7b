//! Options of the data path that the master sets for all nodes.

use std::time::Duration;

use crate::core::units::Span;
use crate::core::wire::{CheckKind, DataPath};

/// Options of the data path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WireOptions {
    /// Size of a block of the grid; between 1 and the largest payload of a frame.
    pub(crate) block_bytes: u32,
    /// Origin of the grid.
    pub(crate) origin: u64,
    /// Check that is computed over each piece.
    pub(crate) check: CheckKind,
    /// Range whose BLAKE3 digest can be computed, because the pieces are subtrees of it.
    pub(crate) object: Option<Span>,
    /// Sync files before they are renamed.
    pub(crate) fsync: bool,
    /// Replace files that exist.
    pub(crate) overwrite: bool,
    /// Keep what an earlier attempt landed.
    pub(crate) resume: bool,
    /// Number of slots, if set by the user.
    pub(crate) slots: Option<u32>,
    /// Stall timeout.
    pub(crate) stall_timeout_ms: u64,
    /// Data path through the kernel.
    pub(crate) path: DataPath,
    /// Number of NICs to use, the first that the node advertised; at least one.
    pub(crate) rails_max: Option<u32>,
    /// Number of threads of each NIC to use, the first of its rails; at least one.
    pub(crate) threads_max: Option<u32>,
    /// Read written data back from the disk and check it before a file is renamed.
    pub(crate) verify: bool,
}

impl WireOptions {
    /// Returns the rails that a node uses, where `nics` are the names of the rails' NICs: the first
    /// rails of each of the first NICs.
    pub(crate) fn rails<'a>(&self, nics: impl Iterator<Item = &'a str>) -> Vec<usize> {
        let most = |most: Option<u32>| most.map_or(usize::MAX, |most| most as usize);
        let (nics_max, threads_max) = (most(self.rails_max), most(self.threads_max));
        let mut counts: Vec<(&str, usize)> = Vec::new();
        let mut used = Vec::new();
        for (rail, name) in nics.enumerate() {
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

    /// Returns the time for which a flow may owe an answer without receiving a byte: short of the
    /// stall timeout, so that a replica can still take over.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_millis(self.stall_timeout_ms) / 3
    }
}

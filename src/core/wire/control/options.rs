//! How the bytes of a transfer are moved: what the master decides for all nodes.

use std::time::Duration;

use crate::core::units::Span;
use crate::core::wire::{CheckKind, DataPath};

/// How the bytes are moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WireOptions {
    /// One cell of the grid; between 1 and the largest payload of a frame.
    pub(crate) block_bytes: u32,
    /// Where the grid starts.
    pub(crate) origin: u64,
    /// What is computed over each piece.
    pub(crate) check: CheckKind,
    /// What the pieces are subtrees of, where a BLAKE3 digest of the whole can be had.
    pub(crate) object: Option<Span>,
    /// Sync before the end.
    pub(crate) fsync: bool,
    /// Replace files that exist.
    pub(crate) overwrite: bool,
    /// Keep what an earlier attempt landed.
    pub(crate) resume: bool,
    /// How many slots, if the user said so.
    pub(crate) slots: Option<u32>,
    /// How long nothing may move.
    pub(crate) stall_timeout_ms: u64,
    /// Which way bytes take through the kernel.
    pub(crate) path: DataPath,
    /// Use only this many NICs, the first that the node advertised; at least one.
    pub(crate) rails_max: Option<u32>,
    /// Use only this many threads of each NIC, the first of its rails; at least one.
    pub(crate) threads_max: Option<u32>,
    /// Read back from the disk what was written, and check it, before it gets its name.
    pub(crate) verify: bool,
}

impl WireOptions {
    /// Which of its rails a node uses, when `nics` are the names of the rails' NICs: those of the
    /// first NICs, and of each NIC the first ones.
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

    /// How long a flow may owe an answer in silence: short of the stall timeout, so that a replica
    /// can still step in.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_millis(self.stall_timeout_ms) / 3
    }
}

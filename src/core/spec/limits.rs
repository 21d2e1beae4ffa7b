//! Limits of specifications, for text and for rows that are built in code.

use crate::core::units::{BitRate, KIB, MIB};

/// Limit on rows, which hostlists can multiply from a short file.
pub(super) const ROWS_MAX: usize = 1 << 20;

/// Limit on ids, which travel in control messages to every node, and on names of groups and stores.
pub(crate) const ID_BYTES_MAX: usize = 1024;

/// Limit on stores: every row is looked up among them, and a cluster has a few.
pub(super) const STORES_MAX: usize = 1024;

/// Limit on rates: a thousand times the fastest NIC there is. Beyond it, rounding errors dominate a
/// plan.
pub(super) const RATE_MAX: BitRate = BitRate(1_000_000_000_000_000);

/// Smallest block: a page, below which direct I/O is impossible.
const BLOCK_BYTES_MIN: u64 = 4 * KIB;

/// Largest block: every slot holds a block, and a node has dozens of slots.
const BLOCK_BYTES_MAX: u64 = 64 * MIB;

/// Returns true if a block of the grid may have this size.
pub(super) fn block_bytes_fit(bytes: u64) -> bool {
    bytes.is_power_of_two() && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes)
}

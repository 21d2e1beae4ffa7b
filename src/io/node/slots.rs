//! Slots of the rails that a transfer joins: its blocks on the wire, being checked or written.

use super::node_transfer::{NodeTransfer, SMALL_PIECES};
use crate::core::store::io_steps::PAGE_BYTES;
use crate::core::units::MIB;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::rail::{RailSize, slots_max};

/// The rail that a transfer needs on each of its ports, within the node's limit.
pub(super) fn rail_size(
    node_transfer: &NodeTransfer,
    transfer_files: &TransferFiles,
    allowed: Option<u32>,
) -> RailSize {
    let options = &node_transfer.prepare.options;
    let block_bytes = options.block_bytes.into();
    let rails = node_transfer.flows.ports().len();
    let slots = match (options.transfer.slots, allowed) {
        (None, None) if node_transfer.is_small(block_bytes) => SLOTS_SMALL,
        (asked, allowed) => slots(asked, allowed, rails, block_bytes),
    };
    RailSize {
        slots,
        receives: !transfer_files.sinks.is_empty(),
        sends: !transfer_files.offers.is_empty(),
        block_bytes,
    }
}

/// Slots of one rail: the master's wish, within the node's limit and that of a rail, shared by its
/// rails.
fn slots(asked: Option<u32>, allowed: Option<u32>, rails: usize, block_bytes: u64) -> u32 {
    let usual = u32::try_from(MIB / block_bytes).unwrap_or(1).clamp(1, SMALLER_MAX) * SLOTS;
    let slots = asked.or(allowed).unwrap_or(usual).min(allowed.unwrap_or(u32::MAX));
    let each = slots / u32::try_from(rails).expect("ports are few");
    let each = match asked.or(allowed) {
        Some(_) => each.max(2),
        // Nobody asked for gigabytes.
        None => {
            each.min(u32::try_from(SLOTS_BYTES / block_bytes).unwrap_or(SLOTS)).max(SLOTS_EACH_MIN)
        }
    };
    // A quarter of a rail's slots, one at least, is for the next transfer. One in a few would be
    // missed.
    let spare = u32::from(each < SLOTS_FEW);
    (each + spare).min(slots_max(block_bytes))
}

/// Slots of a rail for a transfer that is small at a node: its pieces have one each.
const SLOTS_SMALL: u32 = SMALL_PIECES as u32 + 1;
/// Slots of a rail where nobody says: one on the wire, one being checked or written, and as much
/// again.
const SLOTS_EACH_MIN: u32 = 4;
/// Fewer slots than this are few.
const SLOTS_FEW: u32 = 8;
/// Slots of each kind where nobody says: with 1 MiB blocks, 32 MiB for a node that sends and
/// receives.
const SLOTS: u32 = 16;
/// Smaller blocks have more slots, up to so many times: what a disk is late with is bytes.
const SMALLER_MAX: u32 = 4;
/// The same in bytes, which large blocks come to before.
const SLOTS_BYTES: u64 = 256 * MIB;

/// Memory that a node with `rails` rails locks by default: slots that serve and slots
/// that receive, each a block of 1 MiB with a page of slack at either end, and each rail's
/// cells and rings.
pub(crate) fn locked_bytes(rails: usize) -> u64 {
    let rails = rails.max(1);
    let slot_bytes = MIB + 2 * PAGE_BYTES as u64;
    rails as u64 * (2 * u64::from(slots(None, None, rails, MIB)) * slot_bytes + RAIL_BYTES)
}

/// A rail's cells (1 MiB), and the queues of its ring.
const RAIL_BYTES: u64 = MIB + 256 * 1024;

//! The memory of a rail: its size, and the buffers that are registered with the ring.

use ring::{POOL_BYTES_MAX, SlotPool};

use super::operations::{HEADER_BUFFER_BYTES, HEADER_BUFFERS};
use crate::core::rail::FLOWS_MAX;
use crate::core::store::io_steps::PAGE_BYTES;

/// Size of a rail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RailSize {
    /// Slots to receive into, and as many to serve from.
    pub(crate) slots: u32,
    /// True if the first transfer receives; if not, those slots are made when one does.
    pub(crate) receives: bool,
    /// True if the first transfer sends.
    pub(crate) sends: bool,
    /// The largest piece.
    pub(crate) block_bytes: u64,
}

/// The buffers of a rail.
pub(super) struct RailBuffers {
    pub(super) header_buffers: SlotPool,
    pub(super) landing_slots: Option<SlotPool>,
    pub(super) serving_slots: Option<SlotPool>,
    /// Driver of the operations on them, for the report.
    pub(super) driven_by: String,
}

impl RailBuffers {
    pub(super) fn new(size: RailSize) -> std::io::Result<RailBuffers> {
        let pool = |wanted: bool| wanted.then(|| slots(size)).transpose();
        Ok(RailBuffers {
            header_buffers: SlotPool::new(HEADER_BUFFERS, HEADER_BUFFER_BYTES)?,
            landing_slots: pool(size.receives)?,
            serving_slots: pool(size.sends)?,
            driven_by: "io_uring".into(),
        })
    }

    pub(super) fn pools(&self) -> Vec<&SlotPool> {
        let pools =
            [Some(&self.header_buffers), self.landing_slots.as_ref(), self.serving_slots.as_ref()];
        pools.into_iter().flatten().collect()
    }
}

/// As many slots as one rail can have for blocks of this size: what one registered buffer may hold.
pub(crate) fn slots_max(block_bytes: u64) -> u32 {
    u32::try_from(POOL_BYTES_MAX / slot_bytes(block_bytes))
        .expect("a buffer of a GiB has fewer pages than that")
}

/// A block, and a page of slack at either end.
fn slot_bytes(block_bytes: u64) -> usize {
    let block = usize::try_from(block_bytes).expect("blocks are at most 64 MiB");
    block.next_multiple_of(PAGE_BYTES) + 2 * PAGE_BYTES
}

pub(super) fn slots(size: RailSize) -> std::io::Result<SlotPool> {
    SlotPool::new(size.slots as usize, slot_bytes(size.block_bytes))
}

/// Operations in flight: three for each flow, and for each slot what reads, sends or writes it.
pub(super) fn entries(size: RailSize) -> u32 {
    3 * FLOWS_MAX as u32 + 4 * size.slots
}

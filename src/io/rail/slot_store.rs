//! The slots of one direction that no operation has, and what each holds.

use ring::{Slot, SlotPool};

use super::buffers::{RailSize, slots};
use crate::core::rail::SlotIx;

/// The slots of one direction, by the machine's number, and a job of the driver's for each.
///
/// The memory is made when the first slot is needed: a node that only sends has none to receive
/// into.
#[derive(Debug)]
pub(super) struct SlotStore<J> {
    size: RailSize,
    pool: Option<SlotPool>,
    slots: Vec<Option<Slot>>,
    jobs: Vec<J>,
}

impl<J: Default> SlotStore<J> {
    pub(super) fn new(size: RailSize, pool: Option<SlotPool>) -> SlotStore<J> {
        let slots = (0..size.slots).map(|_| None).collect();
        let jobs = (0..size.slots).map(|_| J::default()).collect();
        let mut store = SlotStore { size, pool: None, slots, jobs };
        if let Some(pool) = pool {
            store.fill(pool);
        }
        store
    }

    /// Takes the memory of a slot out, or says that there is none to be had.
    ///
    /// # Panics
    /// If an operation has it: the machine gives a slot one operation at a time.
    pub(super) fn take(&mut self, slot: SlotIx) -> std::io::Result<Slot> {
        if self.pool.is_none() {
            let pool = slots(self.size)?;
            self.fill(pool);
        }
        Ok(self.slots[slot.at()].take().expect("a slot has one operation at a time"))
    }

    /// Puts the memory of a slot back.
    pub(super) fn put(&mut self, slot: SlotIx, memory: Slot) {
        self.slots[slot.at()] = Some(memory);
    }

    /// The driver's job for a slot.
    pub(super) fn job(&mut self, slot: SlotIx) -> &mut J {
        &mut self.jobs[slot.at()]
    }

    fn fill(&mut self, pool: SlotPool) {
        for slot in &mut self.slots {
            *slot = Some(pool.take().expect("a pool has as many slots as its rail"));
        }
        self.pool = Some(pool);
    }
}

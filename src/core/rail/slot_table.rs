//! Slots of one direction of a rail, and the part of them that each transfer may hold.
//!
//! A disk that hangs keeps the slots that it was given, and so does a peer that reads nothing. The
//! transfers of a rail therefore hold equal parts of its slots, and a quarter of them is nobody's:
//! a transfer that begins beside one that hangs has at least that quarter.

use crate::core::piece::TransferIx;

/// A slot of one direction of a rail, by its place in the rail's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SlotIx(pub(crate) u32);

impl SlotIx {
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

/// The slots of one direction of a rail.
///
/// Invariant: `free` names exactly the places of `owners` that are `None`.
/// Invariant: `held` of a user is how many places of `owners` name it.
#[derive(Debug)]
pub(crate) struct SlotTable {
    owners: Vec<Option<TransferIx>>,
    free: Vec<SlotIx>,
    users: Vec<SlotUser>,
}

/// A transfer that has flows or slots in this direction.
#[derive(Debug)]
struct SlotUser {
    transfer: TransferIx,
    flows: u32,
    held: u32,
}

/// Part of the slots that is kept for the next transfer: one in four.
const RESERVED_PART: u32 = 4;

impl SlotTable {
    pub(crate) fn new(slots: u32) -> SlotTable {
        assert!(slots > 0, "a rail has slots");
        SlotTable {
            owners: vec![None; slots as usize],
            free: (0..slots).rev().map(SlotIx).collect(),
            users: Vec::with_capacity(8),
        }
    }

    pub(crate) fn total(&self) -> u32 {
        self.owners.len() as u32
    }

    pub(crate) fn held(&self) -> u32 {
        self.total() - self.free.len() as u32
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Returns the number of slots that a transfer holds.
    pub(crate) fn held_by(&self, transfer: TransferIx) -> u32 {
        let user = self.users.iter().find(|user| user.transfer == transfer);
        user.map_or(0, |user| user.held)
    }

    /// Returns the number of slots that each transfer may hold.
    pub(crate) fn share(&self) -> u32 {
        let users = (self.users.len() as u32).max(1);
        ((self.total() - self.reserve()) / users).max(1)
    }

    /// Returns the number of slots that are kept for the next transfer.
    fn reserve(&self) -> u32 {
        (self.total() / RESERVED_PART).max(1)
    }

    /// A flow of a transfer stands: it takes part in the sharing.
    pub(crate) fn flow_up(&mut self, transfer: TransferIx) {
        self.user(transfer).flows += 1;
    }

    /// A flow is gone. The transfer counts as a user for as long as it holds slots.
    pub(crate) fn flow_down(&mut self, transfer: TransferIx) {
        let user = self.user(transfer);
        user.flows = user.flows.checked_sub(1).expect("a flow ends once");
        self.forget_idle();
    }

    /// Returns whether `take` would give a slot.
    pub(crate) fn has_room(&self, transfer: TransferIx) -> bool {
        self.has_free() && self.held_by(transfer) < self.share()
    }

    /// A free slot, unless the transfer holds its share.
    pub(crate) fn take(&mut self, transfer: TransferIx) -> Option<SlotIx> {
        if !self.has_room(transfer) {
            return None;
        }
        let slot = self.free.pop()?;
        self.owners[slot.at()] = Some(transfer);
        self.user(transfer).held += 1;
        Some(slot)
    }

    /// A slot is free again.
    ///
    /// # Panics
    /// If it was free.
    pub(crate) fn give_back(&mut self, slot: SlotIx) {
        let owner = self.owners[slot.at()].take().expect("a slot comes back once");
        self.free.push(slot);
        self.user(owner).held -= 1;
        self.forget_idle();
    }

    fn user(&mut self, transfer: TransferIx) -> &mut SlotUser {
        let at = self.users.iter().position(|user| user.transfer == transfer);
        let at = at.unwrap_or_else(|| {
            self.users.push(SlotUser { transfer, flows: 0, held: 0 });
            self.users.len() - 1
        });
        &mut self.users[at]
    }

    fn forget_idle(&mut self) {
        self.users.retain(|user| user.flows > 0 || user.held > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TransferIx = TransferIx(1);
    const B: TransferIx = TransferIx(2);
    const C: TransferIx = TransferIx(3);

    fn take_all(slots: &mut SlotTable, transfer: TransferIx) -> Vec<SlotIx> {
        std::iter::from_fn(|| slots.take(transfer)).collect()
    }

    #[test]
    fn a_transfer_alone_leaves_a_quarter_of_the_slots_to_the_next() {
        let mut slots = SlotTable::new(16);
        slots.flow_up(A);
        assert_eq!(take_all(&mut slots, A).len(), 12);
        slots.flow_up(B);
        assert_eq!(take_all(&mut slots, B).len(), 4, "they wait for it");
    }

    #[test]
    fn transfers_hold_equal_parts_and_what_one_gives_back_is_for_the_other() {
        let mut slots = SlotTable::new(10);
        slots.flow_up(A);
        let mut of_a = take_all(&mut slots, A);
        slots.flow_up(B);
        assert_eq!(slots.share(), 4);
        assert_eq!(take_all(&mut slots, B).len(), 2);
        for _ in 0..2 {
            slots.give_back(of_a.pop().expect("eight"));
            assert!(!slots.has_room(A), "it holds more than its part");
            assert_eq!(take_all(&mut slots, B).len(), 1);
        }
        assert_eq!((slots.held_by(A), slots.held_by(B)), (6, 4));
        for _ in 0..2 {
            slots.give_back(of_a.pop().expect("six"));
        }
        assert!(!slots.has_room(A) && !slots.has_room(B), "the last two are nobody's");
        slots.flow_up(C);
        assert_eq!((slots.share(), take_all(&mut slots, C).len()), (2, 2));
    }

    #[test]
    fn a_transfer_without_flows_counts_while_it_holds_slots() {
        let mut slots = SlotTable::new(10);
        slots.flow_up(A);
        slots.flow_up(B);
        let held = slots.take(B).expect("four");
        slots.flow_down(B);
        assert_eq!(slots.share(), 4);
        slots.give_back(held);
        assert_eq!((slots.share(), slots.held()), (8, 0));
    }

    #[test]
    fn the_only_slot_of_a_rail_can_be_had() {
        let mut slots = SlotTable::new(1);
        slots.flow_up(A);
        assert_eq!(take_all(&mut slots, A), [SlotIx(0)]);
    }

    #[test]
    #[should_panic(expected = "comes back once")]
    fn a_slot_comes_back_once() {
        let mut slots = SlotTable::new(2);
        let slot = slots.take(A).expect("two");
        slots.give_back(slot);
        slots.give_back(slot);
    }
}

//! Slots of the sending half of a rail: the piece in each of them, and how far it is.

use super::messages::{KernelRoute, LoadingPiece};
use super::read_mode::ReadMode;
use super::slot_table::SlotIx;

/// Stage of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LoadingStage {
    /// The page cache is looked at.
    Probing,
    Reading(ReadMode),
    /// It is ready, and waits for its flow.
    Loaded(KernelRoute),
    Sending(KernelRoute),
    /// The kernel still reads it. `again` where nothing was sent, and it is to be sent plainly.
    Held {
        again: bool,
    },
}

impl LoadingStage {
    /// Returns true from the beginning of a send without a copy until its notification.
    fn is_zerocopy(self) -> bool {
        matches!(self, LoadingStage::Sending(KernelRoute::Zerocopy) | LoadingStage::Held { .. })
    }
}

/// The piece in each slot, with its stage.
///
/// Every question about a slot panics if its piece is in another stage: a rail has one operation on
/// a slot at a time, and knows which.
///
/// Invariant: `zerocopy_in_flight` is the number of slots whose stage `is_zerocopy`.
pub(super) struct LoadingTable {
    slots: Vec<Option<(LoadingStage, LoadingPiece)>>,
    zerocopy_in_flight: usize,
}

impl LoadingTable {
    pub(super) fn new(slots: u32) -> LoadingTable {
        LoadingTable { slots: vec![None; slots as usize], zerocopy_in_flight: 0 }
    }

    pub(super) fn set(&mut self, slot: SlotIx, stage: LoadingStage, loading: LoadingPiece) {
        self.clear(slot);
        self.zerocopy_in_flight += usize::from(stage.is_zerocopy());
        self.slots[slot.at()] = Some((stage, loading));
    }

    pub(super) fn clear(&mut self, slot: SlotIx) {
        let before = self.slots[slot.at()].take();
        let was_zerocopy = before.is_some_and(|(stage, _)| stage.is_zerocopy());
        self.zerocopy_in_flight -= usize::from(was_zerocopy);
    }

    /// Takes the piece out of a slot, in any stage.
    pub(super) fn take(&mut self, slot: SlotIx) -> LoadingPiece {
        let (_, loading) = self.content(slot);
        self.clear(slot);
        loading
    }

    /// Returns the piece in a slot for which the page cache is looked at.
    pub(super) fn probing(&self, slot: SlotIx) -> LoadingPiece {
        match self.content(slot) {
            (LoadingStage::Probing, loading) => loading,
            (stage, _) => panic!("{slot:?} is {stage:?}"),
        }
    }

    /// Returns the piece in a slot that is read into.
    pub(super) fn reading(&self, slot: SlotIx) -> (ReadMode, LoadingPiece) {
        match self.content(slot) {
            (LoadingStage::Reading(mode), loading) => (mode, loading),
            (stage, _) => panic!("{slot:?} is {stage:?}"),
        }
    }

    /// Returns the piece in a slot that waits for its flow.
    pub(super) fn loaded(&self, slot: SlotIx) -> (KernelRoute, LoadingPiece) {
        match self.content(slot) {
            (LoadingStage::Loaded(route), loading) => (route, loading),
            (stage, _) => panic!("{slot:?} is {stage:?}"),
        }
    }

    /// Returns the piece in a slot that is sent.
    pub(super) fn sending(&self, slot: SlotIx) -> (KernelRoute, LoadingPiece) {
        match self.content(slot) {
            (LoadingStage::Sending(route), loading) => (route, loading),
            (stage, _) => panic!("{slot:?} is {stage:?}"),
        }
    }

    /// Returns the piece in a slot that the kernel holds, and whether it is to be sent again.
    pub(super) fn held(&self, slot: SlotIx) -> (bool, LoadingPiece) {
        match self.content(slot) {
            (LoadingStage::Held { again }, loading) => (again, loading),
            (stage, _) => panic!("{slot:?} is {stage:?}"),
        }
    }

    /// Returns true if another send without a copy may begin. At most half of the slots wait for a
    /// notification, so that a rail whose notifications are late has slots to read into.
    pub(super) fn may_hold_another(&self) -> bool {
        2 * (self.zerocopy_in_flight + 1) <= self.slots.len()
    }

    pub(super) fn piece_count(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Returns the number of slots that an operation has.
    pub(super) fn count_at_work(&self) -> usize {
        let stages = self.slots.iter().flatten().map(|(stage, _)| stage);
        stages.filter(|stage| !matches!(stage, LoadingStage::Loaded(_))).count()
    }

    fn content(&self, slot: SlotIx) -> (LoadingStage, LoadingPiece) {
        self.slots[slot.at()].expect("a piece is in the slot")
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow_table::FlowTable;
    use super::super::piece_map::PieceLocation;
    use super::super::piece_sender::PieceRequest;
    use super::*;
    use crate::core::piece::{FlowIx, TransferIx};
    use crate::core::units::Span;

    fn piece() -> LoadingPiece {
        let mut flows = FlowTable::new(1);
        LoadingPiece {
            transfer: TransferIx(1),
            flow: flows.insert(FlowIx(2), TransferIx(1), ()).expect("it is empty"),
            request: PieceRequest { request: 3, span: Span::new(0, 10), stolen: false },
            location: PieceLocation::Source(0),
        }
    }

    #[test]
    fn half_of_the_slots_may_wait_for_notifications() {
        let mut table = LoadingTable::new(5);
        let zerocopy = LoadingStage::Sending(KernelRoute::Zerocopy);
        for slot in [0, 1].map(SlotIx) {
            assert!(table.may_hold_another());
            table.set(slot, LoadingStage::Loaded(KernelRoute::ReadSend), piece());
            table.set(slot, zerocopy, piece());
        }
        assert!(!table.may_hold_another());
        table.set(SlotIx(0), LoadingStage::Held { again: true }, piece());
        assert!(!table.may_hold_another(), "the kernel still reads it");
        assert!(table.held(SlotIx(0)).0);
        table.set(SlotIx(0), LoadingStage::Sending(KernelRoute::ReadSend), piece());
        assert!(table.may_hold_another(), "it is sent plainly");
        table.set(SlotIx(0), zerocopy, piece());
        table.take(SlotIx(1));
        assert!(table.may_hold_another());
    }

    #[test]
    fn a_loaded_piece_waits_without_an_operation() {
        let mut table = LoadingTable::new(3);
        table.set(SlotIx(0), LoadingStage::Probing, piece());
        table.set(SlotIx(1), LoadingStage::Loaded(KernelRoute::Splice), piece());
        assert_eq!((table.piece_count(), table.count_at_work()), (2, 1));
        assert_eq!(table.loaded(SlotIx(1)), (KernelRoute::Splice, piece()));
        table.clear(SlotIx(0));
        assert_eq!((table.piece_count(), table.count_at_work()), (1, 0));
    }

    #[test]
    #[should_panic(expected = "is Probing")]
    fn a_piece_in_another_stage_is_a_broken_promise() {
        let mut table = LoadingTable::new(1);
        table.set(SlotIx(0), LoadingStage::Probing, piece());
        table.sending(SlotIx(0));
    }
}

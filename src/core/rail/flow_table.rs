//! The flows of one direction of a rail, each at a place of its own.
//!
//! Places are small and used again; the index of a flow never is. What is told of a flow carries
//! both, so that a table needs no search and what comes late of a flow that is gone is noticed.

use crate::core::piece::{FlowIx, TransferIx};

/// Flows of one rail at once, over both directions.
pub(crate) const FLOWS_MAX: usize = 96;
/// Flows of one rail up to which it takes in those that are beside others of their rail pair: the
/// own flows of others find places.
pub(super) const FURTHER_UP_TO: usize = FLOWS_MAX / 2;
/// Places of flows: those of either direction have a range of their own.
pub(crate) const FLOW_PLACES: usize = 2 * FLOWS_MAX;

/// A flow, and its place at its rail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FlowPlace {
    pub(crate) flow: FlowIx,
    place: u16,
}

impl FlowPlace {
    /// The place, below [`FLOW_PLACES`].
    pub(crate) fn at(self) -> usize {
        self.place.into()
    }
}

/// The flows of one direction, with what the rail knows of each.
///
/// Invariant: `order` ascends, and names exactly the places that hold a flow.
#[derive(Debug)]
pub(super) struct FlowTable<T> {
    places: Vec<Option<(FlowPlace, TransferIx, T)>>,
    order: Vec<FlowPlace>,
    /// The first place of this direction.
    first: u16,
}

impl<T> FlowTable<T> {
    pub(super) fn new(first: usize) -> FlowTable<T> {
        let places = (0..FLOWS_MAX).map(|_| None).collect();
        let first = u16::try_from(first).expect("places are few");
        FlowTable { places, order: Vec::with_capacity(FLOWS_MAX), first }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Takes a flow in, where there is a place.
    pub(super) fn insert(
        &mut self,
        flow: FlowIx,
        transfer: TransferIx,
        state: T,
    ) -> Option<FlowPlace> {
        let free = self.places.iter().position(Option::is_none)?;
        let place = FlowPlace { flow, place: self.first + free as u16 };
        let at = self.order.binary_search_by_key(&flow, |it| it.flow);
        let at = at.expect_err("the index of a flow is used once");
        self.order.insert(at, place);
        self.places[free] = Some((place, transfer, state));
        Some(place)
    }

    pub(super) fn remove(&mut self, place: FlowPlace) -> Option<(TransferIx, T)> {
        self.get(place)?;
        let (_, transfer, state) = self.places[place.at() - usize::from(self.first)].take()?;
        self.order.retain(|it| *it != place);
        Some((transfer, state))
    }

    /// The transfer and the state of a flow that stands.
    pub(super) fn get(&mut self, place: FlowPlace) -> Option<(TransferIx, &mut T)> {
        let at = place.at().checked_sub(self.first.into())?;
        let (found, transfer, state) = self.places.get_mut(at)?.as_mut()?;
        (*found == place).then_some((*transfer, state))
    }

    /// The states of all flows.
    pub(super) fn states(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten().map(|(.., state)| state)
    }

    /// The same, to be changed, with the places.
    pub(super) fn states_mut(&mut self) -> impl Iterator<Item = (FlowPlace, &mut T)> {
        self.places.iter_mut().flatten().map(|(place, _, state)| (*place, state))
    }

    /// The place of a flow that stands.
    pub(super) fn find(&self, flow: FlowIx) -> Option<FlowPlace> {
        let at = self.order.binary_search_by_key(&flow, |it| it.flow).ok()?;
        Some(self.order[at])
    }

    /// The places of all flows, in the order of their indices.
    pub(super) fn places(&self) -> &[FlowPlace] {
        &self.order
    }

    /// The first flow of a transfer.
    pub(super) fn first_of(&self, transfer: TransferIx) -> Option<FlowPlace> {
        let of_transfer = self.places.iter().flatten().filter(|(_, of, _)| *of == transfer);
        of_transfer.map(|(place, ..)| *place).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_and_its_old_flow_is_not_found_there() {
        let mut flows = FlowTable::new(FLOWS_MAX);
        let transfer = TransferIx(1);
        let first = flows.insert(FlowIx(7), transfer, 'a').expect("there is room");
        let second = flows.insert(FlowIx(5), transfer, 'b').expect("there is room");
        assert_eq!((first.at(), second.at()), (FLOWS_MAX, FLOWS_MAX + 1));
        assert_eq!(flows.places(), [second, first]);
        assert_eq!(flows.first_of(transfer), Some(second));
        assert_eq!(flows.remove(first), Some((transfer, 'a')));
        let third = flows.insert(FlowIx(9), transfer, 'c').expect("there is room");
        assert_eq!(third.at(), FLOWS_MAX);
        assert_eq!(flows.get(first), None);
        assert_eq!(flows.remove(first), None);
        assert_eq!(flows.get(third), Some((transfer, &mut 'c')));
        assert_eq!((flows.find(FlowIx(9)), flows.find(FlowIx(7))), (Some(third), None));
    }

    #[test]
    fn a_rail_has_so_many_flows_and_no_more() {
        let mut flows = FlowTable::new(0);
        for flow in 0..FLOWS_MAX as u32 {
            assert!(flows.insert(FlowIx(flow), TransferIx(1), ()).is_some());
        }
        assert_eq!(flows.insert(FlowIx(1000), TransferIx(1), ()), None);
        assert_eq!(flows.len(), FLOWS_MAX);
    }
}

//! Purposes of the operations in flight. The token of an operation is a place in this table.

use crate::core::rail::{FlowPlace, SlotIx};

/// The purpose of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum OpContext {
    /// Receiving the header of an answer, of which `early` bytes were there before.
    Header { flow: FlowPlace, early: usize },
    /// Receiving a payload, of which `done` bytes are there.
    Payload { slot: SlotIx, done: usize },
    /// Writing step `step` of a landed piece, of which `done` bytes are written.
    Write { slot: SlotIx, sink: usize, step: usize, done: usize },
    /// Sending requests.
    SendRequests { flow: FlowPlace },
    /// Receiving requests.
    ReceiveRequests { flow: FlowPlace },
    /// Reading a piece, of which `done` bytes of the step are there.
    Read { slot: SlotIx, done: usize },
    /// Sending a piece.
    Send { slot: SlotIx },
    /// Sending a refusal.
    Refusal { flow: FlowPlace },
}

/// The table of operations in flight.
///
/// Invariant: `free` names exactly the places that hold `None`.
#[derive(Debug)]
pub(super) struct OpContexts {
    places: Vec<Option<OpContext>>,
    free: Vec<u32>,
}

impl OpContexts {
    pub(super) fn new(places: u32) -> OpContexts {
        OpContexts { places: vec![None; places as usize], free: (0..places).rev().collect() }
    }

    /// Keeps `context` and gives its token, or `None` where the table is full.
    pub(super) fn put(&mut self, context: OpContext) -> Option<u64> {
        let place = self.free.pop()?;
        self.places[place as usize] = Some(context);
        Some(u64::from(place))
    }

    /// The purpose of `token`, which is over.
    ///
    /// # Panics
    /// If no operation with that token is in flight: the ring answers once.
    pub(super) fn take(&mut self, token: u64) -> OpContext {
        let place = usize::try_from(token).expect("tokens are places");
        let context = self.places[place].take().expect("an operation completes once");
        self.free.push(place as u32);
        context
    }

    /// The purpose of `token`, which is not over yet.
    ///
    /// # Panics
    /// If no operation with that token is in flight.
    pub(super) fn get(&self, token: u64) -> OpContext {
        let place = usize::try_from(token).expect("tokens are places");
        self.places[place].expect("an operation has a result before its end")
    }
}

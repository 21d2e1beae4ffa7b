//! What each operation in flight is for. The token of an operation is a place in this table.

use super::TransferIx;
use super::paths::KernelRoute;
use super::transfer_files::PieceLocation;
use crate::core::piece::{FlowIx, Piece};
use crate::core::rail::piece_sender::PieceRequest;
use crate::core::wire::Check;

/// The purpose of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum OpContext {
    /// Receiving the header of an answer.
    Header { flow: FlowIx },
    /// Receiving a payload, of which `done` bytes are there.
    Payload { landing: LandingPiece, done: usize },
    /// Writing step `step` of a landed piece, of which `done` bytes are written.
    Write { landing: LandingPiece, sink: usize, step: usize, done: usize },
    /// Sending requests.
    Asking { flow: FlowIx },
    /// Receiving requests.
    Requests { flow: FlowIx },
    /// Reading a piece, at first only what the page cache holds.
    Load { loading: LoadingPiece, way: ReadMode, done: usize },
    /// Sending an answer.
    Answer(SendingPiece),
}

/// Which way a piece is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadMode {
    /// Only what the page cache holds.
    Cached,
    /// Past the page cache.
    Direct,
    /// Through the page cache, waiting for the disk.
    Buffered,
}

/// A piece on its way from a flow to the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct LandingPiece {
    pub(super) transfer: TransferIx,
    pub(super) flow: FlowIx,
    pub(super) piece: Piece,
    pub(super) check: Check,
}

/// A piece on its way from the disk to a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadingPiece {
    pub(super) transfer: TransferIx,
    pub(super) flow: FlowIx,
    pub(super) ask: PieceRequest,
    /// Where at the transfer's files it is.
    pub(super) held: PieceLocation,
}

/// An answer on its way to a receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendingPiece {
    pub(super) transfer: TransferIx,
    pub(super) flow: FlowIx,
    /// 0 for a refusal.
    pub(super) piece_bytes: u64,
    /// Where the header lies in the slot.
    pub(super) start: usize,
    pub(super) route: KernelRoute,
    /// Whether the kernel refused to send without a copy, and the slot is to be sent plainly once
    /// it is back.
    pub(super) again: bool,
}

impl OpContext {
    /// The transfer that the operation lands a piece of.
    fn lands(&self) -> Option<TransferIx> {
        match self {
            OpContext::Payload { landing, .. } | OpContext::Write { landing, .. } => {
                Some(landing.transfer)
            }
            _ => None,
        }
    }
}

/// The table of operations in flight.
///
/// Invariant: `free` names exactly the places that hold `None`.
#[derive(Debug)]
pub(super) struct OpContexts {
    places: Vec<Option<OpContext>>,
    free: Vec<u32>,
    /// How many of them land a piece.
    landing: u32,
}

impl OpContexts {
    pub(super) fn new(places: u32) -> OpContexts {
        OpContexts {
            places: vec![None; places as usize],
            free: (0..places).rev().collect(),
            landing: 0,
        }
    }

    /// Keeps `context` and gives its token, or `None` where the table is full.
    pub(super) fn put(&mut self, context: OpContext) -> Option<u64> {
        let place = self.free.pop()?;
        self.landing += u32::from(context.lands().is_some());
        self.places[place as usize] = Some(context);
        Some(u64::from(place))
    }

    /// What `token` was for.
    ///
    /// # Panics
    /// If no operation with that token is in flight: the ring answers once.
    pub(super) fn take(&mut self, token: u64) -> OpContext {
        let place = usize::try_from(token).expect("tokens are places");
        let context = self.places[place].take().expect("an operation completes once");
        self.free.push(place as u32);
        self.landing -= u32::from(context.lands().is_some());
        context
    }

    /// The answer that `token` sends, which is not over yet.
    ///
    /// # Panics
    /// If `token` sends none: only a send has a result before its end.
    pub(super) fn sending(&mut self, token: u64) -> &mut SendingPiece {
        let place = usize::try_from(token).expect("tokens are places");
        match self.places[place].as_mut() {
            Some(OpContext::Answer(sending)) => sending,
            other => panic!("{other:?} is no send"),
        }
    }

    /// Whether nothing in flight lands a piece.
    pub(super) fn is_quiet(&self) -> bool {
        self.landing == 0
    }

    /// Whether an operation in flight lands a piece of `transfer`.
    pub(super) fn lands(&self, transfer: TransferIx) -> bool {
        self.places.iter().flatten().any(|context| context.lands() == Some(transfer))
    }
}

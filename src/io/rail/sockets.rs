//! A rail's flows: what each socket is for, and what waits to go out on it.

use std::collections::VecDeque;

use ring::FileId;

use super::TransferIx;
use crate::core::error::Code;
use crate::core::rail::piece_sender::PieceRequest;
use crate::core::wire::Frame;

/// One flow of this rail.
#[derive(Debug)]
pub(super) struct RailFlow {
    pub(super) transfer: TransferIx,
    pub(super) socket: FileId,
    pub(super) half: FlowHalf,
}

/// Which half of the rail a flow belongs to, and its state there.
#[derive(Debug)]
pub(super) enum FlowHalf {
    Fetch(ReceivingFlow),
    Feed(SendingFlow),
}

/// A flow to a sender.
#[derive(Debug)]
pub(super) struct ReceivingFlow {
    /// Requests that have not left. Bounded by the flow's credit.
    pub(super) requests: VecDeque<Frame>,
    /// Whether a send of requests is in flight.
    pub(super) asking: bool,
    /// How many bytes the rail may wait for at once: each wake costs as much as copying some tens
    /// of kilobytes.
    pub(super) wake_bytes_max: usize,
}

/// A flow from a receiver.
#[derive(Debug, Default)]
pub(super) struct SendingFlow {
    /// Answers that have not left; a piece has its slot in the rail's table of loaded pieces.
    pub(super) answers: VecDeque<QueuedAnswer>,
    pub(super) answering: bool,
    /// Whether the kernel copies what is sent on this flow, whatever is asked of it.
    pub(super) copies: bool,
    /// Bytes of a request that has not wholly arrived, at the front of the cell.
    pub(super) partial_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum QueuedAnswer {
    Piece(PieceRequest),
    Refusal(PieceRequest, Code),
}

impl RailFlow {
    pub(super) fn fetch(&mut self) -> Option<&mut ReceivingFlow> {
        match &mut self.half {
            FlowHalf::Fetch(fetch) => Some(fetch),
            FlowHalf::Feed(_) => None,
        }
    }

    pub(super) fn feed(&mut self) -> Option<&mut SendingFlow> {
        match &mut self.half {
            FlowHalf::Feed(feed) => Some(feed),
            FlowHalf::Fetch(_) => None,
        }
    }
}

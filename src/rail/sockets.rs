//! A rail's flows: what each socket is for, and what waits to go out on it.

use std::collections::VecDeque;

use ring::FileId;

use super::TransferIx;
use crate::engine::serve::Ask;
use crate::error::Code;
use crate::wire::Frame;

/// One flow of this rail.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) transfer: TransferIx,
    pub(super) socket: FileId,
    pub(super) half: Half,
}

/// Which half of the rail a flow belongs to, and its state there.
#[derive(Debug)]
pub(super) enum Half {
    Fetch(Fetch),
    Feed(Feed),
}

/// A flow to a sender.
#[derive(Debug)]
pub(super) struct Fetch {
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
pub(super) struct Feed {
    /// Answers that have not left; a piece has its slot in the rail's table of loaded pieces.
    pub(super) answers: VecDeque<Answer>,
    pub(super) answering: bool,
    /// Whether the kernel copies what is sent on this flow, whatever is asked of it.
    pub(super) copies: bool,
    /// Bytes of a request that has not wholly arrived, at the front of the cell.
    pub(super) partial_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Piece(Ask),
    Refusal(Ask, Code),
}

impl Flow {
    pub(super) fn fetch(&mut self) -> Option<&mut Fetch> {
        match &mut self.half {
            Half::Fetch(fetch) => Some(fetch),
            Half::Feed(_) => None,
        }
    }

    pub(super) fn feed(&mut self) -> Option<&mut Feed> {
        match &mut self.half {
            Half::Feed(feed) => Some(feed),
            Half::Fetch(_) => None,
        }
    }
}

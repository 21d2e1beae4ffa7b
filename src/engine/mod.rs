//! The state machines that move bytes. Pure: time, sizes and results are arguments; no clock,
//! socket, file, thread or hash map, so that a whole cluster runs in the seeded simulator exactly
//! as it runs on a network.
//!
//! The way of a byte, as the machines see it:
//!
//! 1. [`scheduler::Owner`] (one a node and transfer) holds the extent map: which pieces have
//!    landed, and a queue of pieces for each sender, cut by the plan's weights. It leases runs of
//!    pieces to flows that have room.
//! 2. [`piece_receiver::Pull`] (one a rail and transfer) turns leases into requests, as many as
//!    [`credit`] allows.
//! 3. [`piece_sender::Serve`] (one a rail) chooses which request is read next: firm ones by weight,
//!    stolen ones when nothing else is asked. It sends each piece behind a header that carries its
//!    position and its check value.
//! 4. [`piece_receiver::Pull`] sees the header, has a slot bound and the payload received, checked
//!    and written; the scheduler then marks the piece landed and composes its check value with its
//!    neighbours' ([`check`]).
//! 5. [`relay::Relay`] (one a rail and transfer) lets other receivers wait for what has not landed
//!    yet, and hands their requests to [`piece_sender::Serve`] once it has.
//!
//! Every machine has the same shape: `handle(now, event)`, then `poll_action()` until it gives
//! `None`, and `poll_timeout()` for the moment at which `handle(now, Tick)` is due.

mod bucket;
pub(crate) mod check;
mod crc;
pub(crate) mod credit;
mod extents;
mod grid;
mod meter;
mod pace;
pub(crate) mod participant;
pub(crate) mod piece_receiver;
pub(crate) mod piece_sender;
pub(crate) mod rail_pairs;
pub(crate) mod relay;
pub(crate) mod replay_buffer;
pub(crate) mod replicas;
pub(crate) mod scheduler;
mod shares;

pub(crate) use grid::BlockGrid;

use crate::units::Span;

/// A flow of this node: one TCP connection between a rail here and a rail of a peer. Never reused
/// within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct FlowIx(pub(crate) u32);

/// A piece on its way: the unit of scheduling, checking and stealing. Its position is its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Piece {
    pub(crate) span: Span,
    /// Taken over from another sender's share: the sender serves it only when nobody asks for their
    /// own share.
    pub(crate) stolen: bool,
}

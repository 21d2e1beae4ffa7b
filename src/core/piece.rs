//! Pieces and flows: types that all machines share.

use crate::core::units::Span;
use crate::core::wire::Check;
use crate::core::wire::control::SourceOrigin;

/// A flow of this node: one TCP connection between a local rail and a rail of a peer. Never reused
/// within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct FlowIx(pub(crate) u32);

/// A transfer of this node: an index that is never used twice within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct TransferIx(pub(crate) u32);

/// Command from a receiver's scheduler to a flow, passed unchanged to the flow's rail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FlowCommand {
    /// Request these pieces.
    Lease { flow: FlowIx, pieces: Vec<Piece> },
    /// Give back up to `pieces` pieces that were not requested. The answer is `Returned`.
    Revoke { flow: FlowIx, pieces: u32 },
    /// Close the flow: it has nothing left to do, and others wait for its place.
    Close { flow: FlowIx },
}

impl FlowCommand {
    /// Returns the flow of the command.
    pub(crate) fn flow(&self) -> FlowIx {
        match self {
            FlowCommand::Lease { flow, .. }
            | FlowCommand::Revoke { flow, .. }
            | FlowCommand::Close { flow } => *flow,
        }
    }
}

/// A piece in flight: the unit of scheduling, checking and stealing. Its position is its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Piece {
    pub(crate) span: Span,
    /// True for a piece stolen from another sender's share: its sender serves it only when no
    /// assigned request waits.
    pub(crate) stolen: bool,
}

/// A piece that has landed, in this attempt or in an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LandedPiece {
    pub(crate) span: Span,
    pub(crate) check: Check,
    pub(crate) origin: SourceOrigin,
}

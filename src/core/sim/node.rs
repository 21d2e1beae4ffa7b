//! One simulated node: its machines, its disk, and what befalls it.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::{PiecePayload, SimDisk, VoidDisk};
use super::rails::SimRail;
use crate::core::node::participant::{Participant, ParticipantState};
use crate::core::node::replay_buffer::ReplayBuffer;
use crate::core::piece::{FlowIx, LandedPiece, Piece};
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::Frame;

/// What goes wrong, in parts of a thousand of the pieces that it could happen to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PieceFaults {
    /// A piece arrives changed, and TCP does not notice.
    pub(crate) changed: u64,
    /// A flow breaks while a piece is on it.
    pub(crate) broken: u64,
    /// A sender cannot read a piece.
    pub(crate) unreadable: u64,
    /// A receiver cannot write a piece.
    pub(crate) unwritable: u64,
    /// An operation of a kernel does not go the way that was tried first.
    pub(crate) detours: u64,
}

/// Slots of a rail for each direction.
const SLOTS: u32 = 16;

/// One end of a flow, as its node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowEnd {
    pub(super) peer: NodeIx,
    /// The flow's index at the peer.
    pub(super) there: FlowIx,
}

pub(super) struct SimNode {
    pub(super) participant: Option<Participant>,
    /// In the order of the rails that it is known by.
    pub(super) rails: Vec<SimRail>,
    /// The rail of each flow that this node opened.
    pub(super) flow_rails: BTreeMap<FlowIx, usize>,
    pub(super) disk: Box<dyn SimDisk>,
    pub(super) flows: u32,
    /// Rails that have not drained yet, while they do.
    pub(super) draining: usize,
    /// That its files are complete is remembered until the master says good-bye.
    pub(super) remembers: bool,
    /// The master has said good-bye.
    pub(super) is_dismissed: bool,
    pub(super) alive: bool,
    /// It does nothing until then.
    pub(super) frozen_until: Moment,
    /// The master has met it.
    pub(super) met: bool,
    /// Its control session is broken.
    pub(super) parted: bool,
    /// Its master has given it up.
    pub(super) lost: bool,
    pub(super) replay_buffer: ReplayBuffer,
    /// How many of its messages the master has heard.
    pub(super) heard_of: u32,
    pub(super) landed: BTreeSet<Span>,
    /// What an earlier attempt has left.
    pub(super) found: Vec<LandedPiece>,
    /// When everything had landed.
    pub(super) committed: Option<Moment>,
    pub(super) wanted: Vec<Span>,
    pub(super) offered: Vec<Span>,
}

impl SimNode {
    pub(super) fn new(
        rails: usize,
        block_bytes: u64,
        wanted: Vec<Span>,
        offered: Vec<Span>,
    ) -> SimNode {
        SimNode {
            participant: None,
            rails: (0..rails).map(|_| SimRail::new(SLOTS, block_bytes)).collect(),
            flow_rails: BTreeMap::new(),
            disk: Box::new(VoidDisk),
            flows: 0,
            draining: 0,
            remembers: false,
            is_dismissed: false,
            alive: true,
            frozen_until: Moment(0),
            met: false,
            parted: false,
            lost: false,
            replay_buffer: ReplayBuffer::default(),
            heard_of: 0,
            landed: BTreeSet::new(),
            found: Vec::new(),
            committed: None,
            wanted,
            offered,
        }
    }

    pub(super) fn next_flow(&mut self) -> FlowIx {
        self.flows += 1;
        FlowIx(self.flows)
    }

    /// Whether its master reaches it.
    pub(super) fn is_reached(&self) -> bool {
        self.alive && !self.lost && !self.parted
    }

    /// Whether it has work for its attempt left.
    pub(super) fn is_in_attempt(&self) -> bool {
        self.alive
            && self
                .participant
                .as_ref()
                .is_some_and(|participant| participant.state() != ParticipantState::Ended)
    }

    /// A piece reaches the disk; whether it is news.
    ///
    /// # Panics
    /// If that breaks a promise: it is not wanted here, or this node has said that it is done.
    pub(super) fn land(&mut self, piece: Piece) -> bool {
        assert!(
            self.wanted.iter().any(|wanted| wanted.contains(piece.span)),
            "{} is not wanted here",
            piece.span
        );
        assert!(self.committed.is_none(), "{} lands after the commit", piece.span);
        let state = self.participant.as_ref().map(Participant::state);
        assert!(
            matches!(state, Some(ParticipantState::Moving | ParticipantState::Draining)),
            "{} lands while {state:?}",
            piece.span
        );
        self.landed.insert(piece.span)
    }
}

/// What travels over a flow from a sender to a receiver.
#[derive(Clone, Debug)]
pub(super) struct FlowMessage {
    pub(super) frame: Frame,
    /// Behind a header that brings a piece.
    pub(super) payload: Option<PiecePayload>,
}

//! One simulated node: its machines, and what its driver would hold for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::disk::{PiecePayload, SimDisk, VoidDisk};
use crate::core::node::participant::{Participant, ParticipantState};
use crate::core::node::replay_buffer::ReplayBuffer;
use crate::core::piece::LandedPiece;
use crate::core::piece::{FlowIx, Piece};
use crate::core::rail::piece_receiver::PieceReceiver;
use crate::core::rail::piece_sender::{PieceRequest, PieceSender};
use crate::core::rail::relay_queue::RelayQueue;
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::Check;

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
}

/// Slots of a node for each direction.
const SLOTS: u32 = 16;

/// One end of a flow, as its node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowEnd {
    pub(super) peer: NodeIx,
    /// The flow's index at the peer.
    pub(super) there: FlowIx,
}

/// A payload that waits for a slot.
pub(super) struct ParkedPayload {
    pub(super) flow: FlowIx,
    pub(super) piece: Piece,
    pub(super) check: Check,
    pub(super) payload: PiecePayload,
}

pub(super) struct SimNode {
    pub(super) participant: Option<Participant>,
    pub(super) piece_receiver: PieceReceiver,
    pub(super) piece_sender: PieceSender,
    pub(super) relay: RelayQueue,
    pub(super) disk: Box<dyn SimDisk>,
    /// Flows to senders.
    pub(super) fetching: BTreeMap<FlowIx, FlowEnd>,
    /// Flows from receivers.
    pub(super) serving: BTreeMap<FlowIx, FlowEnd>,
    pub(super) flows: u32,
    /// Pieces that are read, by flow and request.
    pub(super) loaded: BTreeMap<(FlowIx, u32), (Check, PiecePayload)>,
    /// Pieces that are being read.
    pub(super) loading: u32,
    /// Flows on which a piece is being sent.
    pub(super) sending: BTreeSet<FlowIx>,
    pub(super) slots_free: u32,
    pub(super) parked: VecDeque<ParkedPayload>,
    /// What has arrived on each flow behind one of those.
    pub(super) unread: BTreeMap<FlowIx, VecDeque<FlowMessage>>,
    /// Pieces being written.
    pub(super) writing: u32,
    pub(super) draining: bool,
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
        block_bytes: u64,
        silence: Duration,
        wanted: Vec<Span>,
        offered: Vec<Span>,
    ) -> SimNode {
        SimNode {
            participant: None,
            piece_receiver: PieceReceiver::new(block_bytes, silence),
            piece_sender: PieceSender::new(SLOTS),
            relay: RelayQueue::default(),
            disk: Box::new(VoidDisk),
            fetching: BTreeMap::new(),
            serving: BTreeMap::new(),
            flows: 0,
            loaded: BTreeMap::new(),
            loading: 0,
            sending: BTreeSet::new(),
            slots_free: SLOTS,
            parked: VecDeque::new(),
            unread: BTreeMap::new(),
            writing: 0,
            draining: false,
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

    /// What a driver has slots for, it has slots for.
    pub(super) fn check_slots(&self) {
        let sending = self.loading as usize + self.loaded.len() + self.sending.len();
        assert!(sending <= SLOTS as usize, "{sending} slots hold what is sent, of {SLOTS}");
        assert_eq!(self.slots_free + self.writing, SLOTS, "slots of what is received");
    }
}

/// What travels over a flow from a sender to a receiver.
#[derive(Clone, Debug)]
pub(super) enum FlowMessage {
    Data { ask: PieceRequest, check: Check, payload: PiecePayload, sender_flow: FlowIx },
    Refusal { ask: PieceRequest, code: crate::core::error::Code },
}

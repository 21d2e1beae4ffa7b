//! One simulated node: its machines, its flows, its slots and its disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::engine::check::Method;
use crate::engine::member::{Kept, Member, State};
use crate::engine::pull::Pull;
use crate::engine::relay::Relay;
use crate::engine::serve::{Ask, Serve};
use crate::engine::talk::Talk;
use crate::engine::{FlowIx, Piece};
use crate::units::{Moment, NodeIx, Span};
use crate::wire::Check;

/// What goes wrong, in parts of a thousand of the pieces that it could happen to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Faults {
    /// A piece arrives changed, and TCP does not notice.
    pub(crate) changed: u64,
    /// A flow breaks while a piece is on it.
    pub(crate) broken: u64,
    /// A sender cannot read a piece.
    pub(crate) unreadable: u64,
}

/// Slots of a node for each direction.
const SLOTS: u32 = 16;

/// One end of a flow, as its node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    pub(super) peer: NodeIx,
    /// The flow's index at the peer.
    pub(super) there: FlowIx,
}

pub(super) struct Node {
    pub(super) member: Option<Member>,
    pub(super) pull: Pull,
    pub(super) serve: Serve,
    pub(super) relay: Relay,
    /// Flows to senders.
    pub(super) fetching: BTreeMap<FlowIx, End>,
    /// Flows from receivers.
    pub(super) serving: BTreeMap<FlowIx, End>,
    pub(super) flows: u32,
    pub(super) slots_free: u32,
    /// Payloads that wait for a slot.
    pub(super) parked: VecDeque<(FlowIx, Piece, Check, bool)>,
    /// Pieces being written.
    pub(super) writing: u32,
    pub(super) draining: bool,
    pub(super) alive: bool,
    /// Its control session is broken.
    pub(super) parted: bool,
    pub(super) talk: Talk,
    /// How many of its messages the master has heard.
    pub(super) heard_of: u32,
    pub(super) landed: BTreeSet<Span>,
    /// What is written down for another attempt.
    pub(super) kept: Vec<Kept>,
    /// What its sources look like.
    pub(super) state: u64,
    /// When everything had landed.
    pub(super) committed: Option<Moment>,
    pub(super) wanted: Vec<Span>,
    pub(super) offered: Vec<Span>,
}

impl Node {
    pub(super) fn new(block_bytes: u64, silence: Duration, wanted: Vec<Span>, offered: Vec<Span>) -> Node {
        Node {
            member: None,
            pull: Pull::new(block_bytes, silence),
            serve: Serve::new(SLOTS),
            relay: Relay::default(),
            fetching: BTreeMap::new(),
            serving: BTreeMap::new(),
            flows: 0,
            slots_free: SLOTS,
            parked: VecDeque::new(),
            writing: 0,
            draining: false,
            alive: true,
            parted: false,
            talk: Talk::default(),
            heard_of: 0,
            landed: BTreeSet::new(),
            kept: Vec::new(),
            state: 1,
            committed: None,
            wanted,
            offered,
        }
    }

    pub(super) fn next_flow(&mut self) -> FlowIx {
        self.flows += 1;
        FlowIx(self.flows)
    }

    /// A piece reaches the disk; whether it is news.
    ///
    /// # Panics
    /// If that breaks a promise: it is not wanted here, or this node has said that it is done.
    pub(super) fn write(&mut self, piece: Piece) -> bool {
        assert!(self.wanted.iter().any(|wanted| wanted.contains(piece.span)), "{} is not wanted here", piece.span);
        assert!(self.committed.is_none(), "{} lands after the commit", piece.span);
        let state = self.member.as_ref().map(Member::state);
        assert!(matches!(state, Some(State::Moving | State::Draining)), "{} lands while {state:?}", piece.span);
        self.landed.insert(piece.span)
    }
}

/// The check value of a piece, over bytes that differ at every place.
pub(super) fn check_of(method: Method, span: Span) -> Check {
    match method {
        Method::None => Check::None,
        _ => {
            let bytes: Vec<u8> = (span.start..span.end).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
            method.of(span, &bytes)
        }
    }
}

/// What travels over a flow from a sender to a receiver.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parcel {
    Data { ask: Ask, check: Check, changed: bool, sender_flow: FlowIx },
    Refusal { ask: Ask, code: crate::error::Code },
}

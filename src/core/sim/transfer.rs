//! One attempt at a transfer as a simulated node carries it out: its files, and what has become of
//! its bytes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::disk::SimDisk;
use super::messages::SimRailIx;
use crate::core::check::CheckMethod;
use crate::core::node::participant::ParticipantState;
use crate::core::piece::{FlowIx, LandedPiece, Piece, TransferIx};
use crate::core::rail::{MappedDestination, MappedSource, PieceMap, SourceKind};
use crate::core::spec::RowRole;
use crate::core::units::{Moment, NodeIx, Span, covers, union};
use crate::core::wire::control::{Prepare, Start, WireRow};

/// The files of an attempt: workers that are late have them, too.
pub(super) type SharedDisk = Rc<RefCell<Box<dyn SimDisk>>>;

/// The attempts of one node.
pub(super) type SimTransfers = BTreeMap<TransferIx, SimTransfer>;

/// One attempt. It is kept when it is over, for what has landed.
pub(super) struct SimTransfer {
    pub(super) prepare: Prepare,
    pub(super) method: CheckMethod,
    /// Its files, as long as it is under way or they are remembered.
    pub(super) disk: Option<SharedDisk>,
    /// The ports that it uses, and the rail of each once it has joined.
    pub(super) ports: Vec<usize>,
    pub(super) rails: Vec<SimRailIx>,
    /// The rail of each flow that this node opened.
    pub(super) flows: BTreeMap<FlowIx, SimRailIx>,
    /// Peers that pass on what they receive.
    relays: BTreeSet<NodeIx>,
    /// True if its node has forgotten it, but for its files.
    pub(super) is_over: bool,
    /// State of its participant; `None` when it has ended.
    pub(super) state: Option<ParticipantState>,
    wanted: Vec<Span>,
    /// Ranges that room is made for: those that the plan has given to this node.
    pub(super) owned: Vec<Span>,
    offered: Vec<Span>,
    pub(super) landed: BTreeSet<Span>,
    /// Pieces that an earlier attempt has left.
    pub(super) found: Vec<LandedPiece>,
    /// The moment at which everything had landed.
    pub(super) committed: Option<Moment>,
    pub(super) sent_bytes: u64,
    received_bytes: u64,
    /// The moment at which bytes moved last.
    pub(super) moved_at: Moment,
}

impl SimTransfer {
    pub(super) fn new(now: Moment, prepare: Prepare, disk: SharedDisk, ports: Vec<usize>) -> Self {
        let spans = |role| {
            let rows = prepare.rows.iter().filter(|row| row.role == role);
            union(rows.map(|row| row.span).collect())
        };
        SimTransfer {
            method: CheckMethod::new(prepare.options.transfer.check, prepare.options.object),
            wanted: spans(RowRole::Receiver),
            owned: Vec::new(),
            offered: spans(RowRole::Sender),
            prepare,
            disk: Some(disk),
            ports,
            rails: Vec::new(),
            flows: BTreeMap::new(),
            relays: BTreeSet::new(),
            is_over: false,
            state: Some(ParticipantState::Preparing),
            landed: BTreeSet::new(),
            found: Vec::new(),
            committed: None,
            sent_bytes: 0,
            received_bytes: 0,
            moved_at: now,
        }
    }

    pub(super) fn moved_bytes(&self) -> u64 {
        self.sent_bytes + self.received_bytes
    }

    pub(super) fn count_sent(&mut self, now: Moment, bytes: u64) {
        self.sent_bytes += bytes;
        self.moved_at = now;
    }

    pub(super) fn count_received(&mut self, now: Moment, bytes: u64) {
        self.received_bytes += bytes;
        self.moved_at = now;
    }

    /// Takes in whom the plan lets it ask.
    pub(super) fn plan(&mut self, start: &Start) {
        let relays = start.peers.iter().filter(|peer| peer.relays);
        self.relays.extend(relays.map(|peer| NodeIx(peer.index)));
    }

    pub(super) fn is_relayed_by(&self, peer: NodeIx) -> bool {
        self.relays.contains(&peer)
    }

    /// The destinations have their space: what is kept and what is zeros has landed.
    pub(super) fn begin(&mut self, wanted: &[Span], holes: &[Span], kept: &[Span]) {
        self.owned = union(self.owned.iter().chain(wanted).copied().collect());
        let found = self.found.iter().map(|piece| piece.span);
        let found: Vec<Span> = found.filter(|span| covers(kept, *span)).collect();
        let empty = holes
            .iter()
            .flat_map(|hole| wanted.iter().filter_map(move |it| it.intersection(*hole)));
        self.landed.extend(found.into_iter().chain(empty));
    }

    /// A piece reaches the disk. Returns true if it is news.
    ///
    /// # Panics
    /// If that breaks a promise: it is not wanted here, or this node has said that it is done.
    pub(super) fn land(&mut self, piece: Piece) -> bool {
        let span = piece.span;
        assert!(self.wanted.iter().any(|it| it.contains(span)), "{span} is not wanted here");
        assert!(covers(&self.owned, span), "{span} lands where there is no room for it");
        assert!(self.committed.is_none(), "{span} lands after the commit");
        assert!(
            matches!(self.state, Some(ParticipantState::Moving | ParticipantState::Draining)),
            "{span} lands while {:?}",
            self.state
        );
        self.landed.insert(span)
    }

    /// Returns true if the node has what it is about to send.
    pub(super) fn has(&self, span: Span) -> bool {
        // A part of a piece may be asked for, where bytes change on the way.
        covers(&self.offered, span)
            || self.landed.contains(&span)
            || covers(&union(self.landed.iter().copied().collect()), span)
    }

    /// The places of its pieces.
    pub(super) fn piece_map(&self) -> PieceMap {
        let rows = |role| self.prepare.rows.iter().filter(move |row| row.role == role);
        let source = |row: &WireRow| MappedSource {
            range: row.span,
            kind: SourceKind::File { direct: true },
        };
        let kept = rows(RowRole::Receiver).filter(|row| !row.uri.starts_with("null:"));
        PieceMap {
            method: self.method,
            path: self.prepare.options.transfer.path,
            sources: rows(RowRole::Sender).map(source).collect(),
            destinations: kept
                .map(|row| MappedDestination { range: row.span, direct: true })
                .collect(),
        }
    }
}

//! Pieces that a receiver keeps for an attempt that continues this one: with their checks and the
//! senders that they came from.
//!
//! A piece that another receiver passed on counts as coming from the first of the senders that
//! offer it: replicas are alike, and if that one is what it was, so is the piece.

use std::collections::BTreeMap;

use crate::core::piece::LandedPiece;
use crate::core::units::{NodeIx, Span, covers};
use crate::core::wire::Check;
use crate::core::wire::control::{OfferedSource, SourceOrigin};

/// Pieces to keep, at a node that keeps any. By default it keeps none.
#[derive(Debug, Default)]
pub(super) struct JournalQueue {
    keeps: bool,
    /// Pieces that an earlier attempt has left, until the plan says which are still good.
    found: Vec<LandedPiece>,
    /// Ranges that each sender offers.
    offers: BTreeMap<NodeIx, Vec<(Span, SourceOrigin)>>,
    /// Pieces that have landed and are not yet in the journal.
    fresh: Vec<LandedPiece>,
    /// A worker is writing to the journal.
    writing: bool,
}

impl JournalQueue {
    /// Creates the queue of a node that keeps pieces, and has `found` some of an earlier attempt.
    pub(super) fn new(found: Vec<LandedPiece>) -> JournalQueue {
        JournalQueue { keeps: true, found, ..JournalQueue::default() }
    }

    /// Returns true if pieces are kept for another attempt.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// The plan says what the senders offer.
    pub(super) fn learn(&mut self, offered: &[OfferedSource]) {
        for OfferedSource { index, span, origin } in offered.iter().filter(|_| self.keeps) {
            let offers = self.offers.entry(NodeIx(*index)).or_default();
            if !offers.contains(&(*span, *origin)) {
                offers.push((*span, *origin));
            }
        }
    }

    /// Takes the pieces of an earlier attempt that lie in `kept` (ascending, apart from each
    /// other), which is still good.
    pub(super) fn take_found(&mut self, kept: &[Span]) -> Vec<LandedPiece> {
        let mut found = std::mem::take(&mut self.found);
        found.retain(|piece| covers(kept, piece.span));
        found
    }

    /// A piece has landed, from a sender that may be unknown.
    pub(super) fn land(&mut self, sender: Option<NodeIx>, span: Span, check: Check) {
        let holds = |offers: &Vec<(Span, SourceOrigin)>| {
            offers.iter().find(|(offer, _)| offer.contains(span)).map(|it| it.1)
        };
        let own = sender.and_then(|sender| self.offers.get(&sender)).and_then(holds);
        // A piece without a known sender could not be told from one that has changed since.
        if let Some(origin) = own.or_else(|| self.offers.values().find_map(holds)) {
            self.fresh.push(LandedPiece { span, check, origin });
        }
    }

    /// Takes the landed pieces for a worker, unless one is at work or there are none.
    pub(super) fn take_batch(&mut self) -> Option<Vec<LandedPiece>> {
        if self.writing || self.fresh.is_empty() {
            return None;
        }
        self.writing = true;
        Some(std::mem::take(&mut self.fresh))
    }

    /// Takes the landed pieces for the last time, also while a worker is at work.
    pub(super) fn take_rest(&mut self) -> Vec<LandedPiece> {
        std::mem::take(&mut self.fresh)
    }

    /// A worker has written what it took.
    pub(super) fn written(&mut self) {
        self.writing = false;
    }
}

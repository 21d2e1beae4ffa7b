//! Pieces that a receiver keeps for an attempt that continues this one: with their checks and the
//! senders that they came from.
//!
//! A piece that another receiver passed on counts as coming from the first of the senders that
//! offer it: replicas are alike, and if that one is what it was, so is the piece.

use std::collections::BTreeMap;

use super::{Participant, ParticipantAction, ParticipantState};
use crate::core::error::{Code, Error};
use crate::core::piece::LandedPiece;
use crate::core::receiver::scheduler;
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::Check;
use crate::core::wire::control::{OfferedSource, SourceOrigin, ToMaster};

/// Pieces to keep, at a node that keeps any.
#[derive(Debug, Default)]
pub(super) struct JournalQueue {
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
    pub(super) fn new(found: Vec<LandedPiece>) -> JournalQueue {
        JournalQueue { found, ..JournalQueue::default() }
    }

    /// The plan says what the senders offer.
    pub(super) fn learn(&mut self, offered: &[OfferedSource]) {
        for OfferedSource { index, span, origin } in offered {
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
        found.retain(|piece| crate::core::units::covers(kept, piece.span));
        found
    }

    fn land(&mut self, sender: Option<NodeIx>, span: Span, check: Check) {
        let holds = |offers: &Vec<(Span, SourceOrigin)>| {
            offers.iter().find(|(offer, _)| offer.contains(span)).map(|it| it.1)
        };
        let own = sender.and_then(|sender| self.offers.get(&sender)).and_then(holds);
        // A piece without a known sender could not be told from one that has changed since.
        if let Some(origin) = own.or_else(|| self.offers.values().find_map(holds)) {
            self.fresh.push(LandedPiece { span, check, origin });
        }
    }
}

impl Participant {
    /// Hands an event to the scheduler, and remembers what has landed by it.
    pub(super) fn tell_scheduler(&mut self, now: Moment, event: scheduler::SchedulerEvent) {
        let scheduler = self.scheduler.as_mut().expect("a moving member has an owner");
        let landed = match event {
            scheduler::SchedulerEvent::Landed { flow, piece, check } => {
                Some((scheduler.sender_of(flow), piece.span, check))
            }
            _ => None,
        };
        let before = scheduler.counts().kept_bytes;
        scheduler.handle(now, event);
        let is_news = scheduler.counts().kept_bytes > before;
        if let (Some((sender, span, check)), Some(journal_queue)) =
            (landed.filter(|_| is_news), &mut self.journal_queue)
        {
            journal_queue.land(sender, span, check);
        }
    }

    /// Has what has landed written down, unless that is under way already.
    pub(super) fn keep(&mut self) {
        if let Some(journal_queue) = self
            .journal_queue
            .as_mut()
            .filter(|journal_queue| !journal_queue.writing && !journal_queue.fresh.is_empty())
        {
            journal_queue.writing = true;
            self.actions.push_back(ParticipantAction::Keep {
                pieces: std::mem::take(&mut journal_queue.fresh),
            });
        }
    }

    /// The same for the last time, whatever is under way.
    pub(super) fn keep_rest(&mut self) {
        let fresh = self
            .journal_queue
            .as_mut()
            .map(|journal_queue| std::mem::take(&mut journal_queue.fresh));
        if let Some(pieces) = fresh.filter(|fresh| !fresh.is_empty()) {
            self.actions.push_back(ParticipantAction::Keep { pieces });
        }
    }

    pub(super) fn kept(&mut self) {
        self.journal_queue.iter_mut().for_each(|journal_queue| journal_queue.writing = false);
    }

    /// Ends without having landed everything: what has is kept first.
    pub(super) fn leave(&mut self) {
        if self.journal_queue.is_none() {
            return self.left();
        }
        self.keep_rest();
        self.state = ParticipantState::Leaving;
        self.actions.push_back(ParticipantAction::Leave);
    }

    pub(super) fn left(&mut self) {
        match self.error.take() {
            Some(error) if !self.dismissed => self.refuse(error),
            // Nobody knows better than this node what it lacks; its report follows.
            Some(error) => {
                self.tell(ToMaster::Failed {
                    error: Error { code: Code::Cancelled, ..error },
                    stats: None,
                });
                self.dismiss();
            }
            None => self.dismiss(),
        }
    }
}

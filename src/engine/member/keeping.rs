//! What a receiver keeps for an attempt that continues this one: what has landed, with its check
//! and where it came from.
//!
//! A piece that another receiver passed on counts as coming from the first of the senders that
//! offer it: replicas are alike, and if that one is what it was, so is the piece.

use std::collections::BTreeMap;

use super::{Action, Member, State};
use crate::engine::owner;
use crate::error::{Code, Error};
use crate::units::{Moment, NodeIx, Span};
use crate::wire::Check;
use crate::wire::control::{Offered, Origin, ToMaster};

/// A piece that has landed, in this attempt or in an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) span: Span,
    pub(crate) check: Check,
    pub(crate) origin: Origin,
}

/// What is kept, at a node that keeps anything.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// What an earlier attempt has left, until the plan says what is still good.
    found: Vec<Kept>,
    /// What each sender offers.
    offers: BTreeMap<NodeIx, Vec<(Span, Origin)>>,
    /// What has landed and is not yet written down.
    fresh: Vec<Kept>,
    /// Whether something is being written down.
    writing: bool,
}

impl Keeper {
    pub(super) fn new(found: Vec<Kept>) -> Keeper {
        Keeper { found, ..Keeper::default() }
    }

    /// The plan says what the senders offer.
    pub(super) fn learn(&mut self, offered: &[Offered]) {
        for Offered { index, span, origin } in offered {
            let offers = self.offers.entry(NodeIx(*index)).or_default();
            if !offers.contains(&(*span, *origin)) {
                offers.push((*span, *origin));
            }
        }
    }

    /// What an earlier attempt has left, of which `kept` (ascending, apart from each other) is
    /// still good.
    pub(super) fn take_found(&mut self, kept: &[Span]) -> Vec<Kept> {
        let mut found = std::mem::take(&mut self.found);
        found.retain(|piece| crate::units::covers(kept, piece.span));
        found
    }

    fn land(&mut self, sender: Option<NodeIx>, span: Span, check: Check) {
        let holds = |offers: &Vec<(Span, Origin)>| {
            offers.iter().find(|(offer, _)| offer.contains(span)).map(|it| it.1)
        };
        let own = sender.and_then(|sender| self.offers.get(&sender)).and_then(holds);
        // What nobody is known to offer could not be told from what has changed since.
        if let Some(origin) = own.or_else(|| self.offers.values().find_map(holds)) {
            self.fresh.push(Kept { span, check, origin });
        }
    }
}

impl Member {
    /// Hands an event to the owner, and remembers what has landed by it.
    pub(super) fn tell_owner(&mut self, now: Moment, event: owner::Event) {
        let owner = self.owner.as_mut().expect("a moving member has an owner");
        let landed = match event {
            owner::Event::Landed { flow, piece, check } => {
                Some((owner.sender_of(flow), piece.span, check))
            }
            _ => None,
        };
        let before = owner.counts().kept_bytes;
        owner.handle(now, event);
        let is_news = owner.counts().kept_bytes > before;
        if let (Some((sender, span, check)), Some(keeper)) =
            (landed.filter(|_| is_news), &mut self.keeper)
        {
            keeper.land(sender, span, check);
        }
    }

    /// Has what has landed written down, unless that is under way already.
    pub(super) fn keep(&mut self) {
        if let Some(keeper) =
            self.keeper.as_mut().filter(|keeper| !keeper.writing && !keeper.fresh.is_empty())
        {
            keeper.writing = true;
            self.actions.push_back(Action::Keep { pieces: std::mem::take(&mut keeper.fresh) });
        }
    }

    /// The same for the last time, whatever is under way.
    pub(super) fn keep_rest(&mut self) {
        let fresh = self.keeper.as_mut().map(|keeper| std::mem::take(&mut keeper.fresh));
        if let Some(pieces) = fresh.filter(|fresh| !fresh.is_empty()) {
            self.actions.push_back(Action::Keep { pieces });
        }
    }

    pub(super) fn kept(&mut self) {
        self.keeper.iter_mut().for_each(|keeper| keeper.writing = false);
    }

    /// Ends without having landed everything: what has is kept first.
    pub(super) fn leave(&mut self) {
        if self.keeper.is_none() {
            return self.left();
        }
        self.keep_rest();
        self.state = State::Leaving;
        self.actions.push_back(Action::Leave);
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

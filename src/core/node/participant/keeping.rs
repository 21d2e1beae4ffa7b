//! Pieces that a participant keeps for another attempt: as they land, and at an early end.

use super::{Participant, ParticipantAction, ParticipantState};
use crate::core::error::{Code, Error};
use crate::core::receiver::scheduler;
use crate::core::units::Moment;
use crate::core::wire::control::ToMaster;

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
        if let Some((sender, span, check)) = landed.filter(|_| is_news) {
            self.journal_queue.land(sender, span, check);
        }
    }

    /// Has what has landed written down, unless that is under way already.
    pub(super) fn keep(&mut self) {
        if let Some(pieces) = self.journal_queue.take_batch() {
            self.actions.push_back(ParticipantAction::Keep { pieces });
        }
    }

    /// The same for the last time, whatever is under way.
    pub(super) fn keep_rest(&mut self) {
        let pieces = self.journal_queue.take_rest();
        if !pieces.is_empty() {
            self.actions.push_back(ParticipantAction::Keep { pieces });
        }
    }

    /// Ends without having landed everything: what has is kept first.
    pub(super) fn leave(&mut self) {
        if !self.journal_queue.keeps() {
            return self.left();
        }
        self.keep_rest();
        self.state = ParticipantState::Leaving;
        self.actions.push_back(ParticipantAction::Leave);
    }

    pub(super) fn left(&mut self) {
        match self.error.take() {
            Some(error) if !self.dismissed => self.refuse(error),
            // Nobody knows better than this node what it has and what it lacks; its report follows.
            Some(error) => {
                if self.scheduler.is_some() {
                    self.tell_progress();
                }
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

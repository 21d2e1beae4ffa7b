//! End of a participant: by an error, by the master, or by a worker that hangs.

use super::{Participant, ParticipantAction, ParticipantState};
use crate::core::error::{Code, Error};
use crate::core::receiver::scheduler::PieceScheduler;
use crate::core::units::{Span, union};
use crate::core::wire::control::ToMaster;

impl Participant {
    /// The master hears why, and, once bytes moved, what had landed and what that cost.
    pub(super) fn refuse(&mut self, error: Error) {
        let stats = self.scheduler.is_some().then(|| Box::new(self.stats()));
        if stats.is_some() {
            self.tell_progress();
        }
        self.actions.push_back(ParticipantAction::Discard);
        self.tell(ToMaster::Failed { error, stats });
        self.end();
    }

    /// Ranges that would be missing if it ended now.
    fn lacking(&self) -> Vec<Span> {
        let lacking = match &self.scheduler {
            Some(scheduler) => scheduler.extents().lacking(),
            None => self.plan.wanted(),
        };
        let waiting = self.growth.lacking(self.scheduler.as_ref());
        union(waiting.into_iter().chain(lacking).collect())
    }

    /// The rails cannot take the files in, or a destination failed under them.
    pub(super) fn rails_broken(&mut self, error: Error) {
        match self.state {
            ParticipantState::Ready => self.refuse(error),
            // The worker still makes room: the end comes with its answer.
            ParticipantState::Starting => self.error = Some(error),
            ParticipantState::Moving => self.abort(error),
            ParticipantState::Preparing
            | ParticipantState::Draining
            | ParticipantState::Leaving
            | ParticipantState::Committing
            | ParticipantState::Landed
            | ParticipantState::Ended => {}
        }
    }

    pub(super) fn abort(&mut self, error: Error) {
        self.error = Some(error.missing(self.lacking()));
        self.state = ParticipantState::Draining;
        self.actions.push_back(ParticipantAction::Drain);
    }

    /// A worker or a rail hangs. It ends what it does without this participant, or never; a worker
    /// that was to remove something now would hang, too.
    pub(super) fn overdue(&mut self, error: Error) {
        match self.state {
            ParticipantState::Preparing
            | ParticipantState::Starting
            | ParticipantState::Draining
            | ParticipantState::Leaving
            | ParticipantState::Committing => {}
            // It makes room for further segments.
            ParticipantState::Moving => return self.abort(error),
            ParticipantState::Ready | ParticipantState::Landed | ParticipantState::Ended => return,
        }
        let missing = self.error.take().map_or_else(|| self.lacking(), |first| first.missing);
        let stats = self.scheduler.is_some().then(|| Box::new(self.stats()));
        self.tell(ToMaster::Failed { error: error.missing(missing), stats });
        self.end();
    }

    pub(super) fn finish(&mut self) {
        match self.state {
            ParticipantState::Landed => {
                self.actions.push_back(ParticipantAction::Confirm);
                self.dismiss();
            }
            ParticipantState::Ready => self.dismiss(),
            _ => self.cancel("the master ended the transfer"),
        }
    }

    pub(super) fn cancel(&mut self, reason: &str) {
        self.dismissed = true;
        match self.state {
            ParticipantState::Ready | ParticipantState::Starting | ParticipantState::Landed => {
                self.dismiss();
            }
            ParticipantState::Moving => {
                // The master is told why nothing landed any more.
                let trouble = self
                    .scheduler
                    .as_ref()
                    .and_then(PieceScheduler::trouble)
                    .map(|error| error.message.clone());
                self.abort(Error::new(Code::Cancelled, trouble.unwrap_or_else(|| reason.into())));
            }
            // Half-made destinations are removed when they are made, and not by leaving them to
            // chance.
            ParticipantState::Preparing
            | ParticipantState::Draining
            | ParticipantState::Leaving
            | ParticipantState::Committing
            | ParticipantState::Ended => {}
        }
    }

    /// The last words: a report, and the removal of what has no final name.
    pub(super) fn dismiss(&mut self) {
        self.actions.push_back(ParticipantAction::Discard);
        let report = ToMaster::Report(self.stats());
        self.tell(report);
        self.end();
    }

    fn end(&mut self) {
        self.state = ParticipantState::Ended;
        self.actions.push_back(ParticipantAction::End);
    }
}

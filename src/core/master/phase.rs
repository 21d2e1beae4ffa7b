//! Phases of a transfer at its master, and their times.

use std::time::Duration;

use crate::core::units::Moment;

/// Phase of the transfer as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TransferPhase {
    Meeting,
    Preparing,
    Moving,
    Committing,
    Finishing,
    Done,
}

impl TransferPhase {
    /// Returns its name for `status` and events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TransferPhase::Meeting => "meeting",
            TransferPhase::Preparing => "preparing",
            TransferPhase::Moving => "moving",
            TransferPhase::Committing => "committing",
            TransferPhase::Finishing => "finishing",
            TransferPhase::Done => "done",
        }
    }
}

/// Time that a master has spent in each phase, in which it waited for nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhaseTimes {
    phase: TransferPhase,
    since: Moment,
    spent: [Duration; TransferPhase::Done as usize + 1],
}

impl PhaseTimes {
    /// Creates the times of a transfer that begins.
    pub(super) fn new(now: Moment) -> PhaseTimes {
        let spent = [Duration::ZERO; TransferPhase::Done as usize + 1];
        PhaseTimes { phase: TransferPhase::Meeting, since: now, spent }
    }

    /// Records the phase at a moment.
    pub(super) fn record(&mut self, now: Moment, phase: TransferPhase) {
        if phase != self.phase {
            self.spent[self.phase as usize] += now.since(self.since);
            (self.phase, self.since) = (phase, now);
        }
    }

    /// Returns the time spent in a phase that is over.
    pub(super) fn of(&self, phase: TransferPhase) -> Duration {
        self.spent[phase as usize]
    }
}

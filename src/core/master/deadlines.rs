//! Deadlines of the master.

use std::time::Duration;

use super::attempt::AttemptConfig;
use super::phase::TransferPhase;
use crate::core::units::Moment;

/// Time for nodes to answer the dial and its handshake, and to open their files.
pub(super) const PREPARE_WITHIN: Duration = Duration::from_secs(20);

/// Deadlines of one transfer at its master.
#[derive(Debug)]
pub(super) struct MasterDeadlines {
    /// Deadline of the phase.
    pub(super) phase: Option<Moment>,
    /// Deadline for good-byes, once nodes are asked for them.
    pub(super) shutdown: Moment,
    /// Deadline of the whole transfer.
    pub(super) overall: Option<Moment>,
    pub(super) last_news: Moment,
    /// Longest time without news while bytes should move.
    pub(super) stall_timeout: Duration,
}

impl MasterDeadlines {
    pub(super) fn new(now: Moment, terms: &AttemptConfig) -> MasterDeadlines {
        MasterDeadlines {
            phase: Some(now + PREPARE_WITHIN),
            shutdown: now,
            overall: terms.options().timeout.map(|timeout| now + timeout),
            last_news: now,
            stall_timeout: terms.options().stall_timeout,
        }
    }

    /// Returns the earliest deadline in a phase.
    pub(super) fn next(&self, phase: TransferPhase) -> Option<Moment> {
        let stall = (phase == TransferPhase::Moving).then(|| self.last_news + self.stall_timeout);
        [self.phase, self.overall, stall]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| phase != TransferPhase::Done)
    }
}

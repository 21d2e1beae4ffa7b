//! Waits of the master that are over, and the nodes that it waited for.

use super::coordinator::Coordinator;
use super::peer::PeerStage;
use super::phase::TransferPhase;
use super::shutdown::COMMIT_WITHIN;
use crate::core::error::{Code, Error};
use crate::core::units::{Moment, NodeIx};

impl Coordinator {
    pub(super) fn tick(&mut self, now: Moment) {
        if self.deadlines.overall.is_some_and(|due| now >= due)
            && self.phase < TransferPhase::Finishing
        {
            self.deadlines.overall = None;
            let seconds = self.terms.options().timeout.unwrap_or_default().as_secs_f64();
            self.fail(
                now,
                Error::new(Code::Stalled, format!("the transfer took longer than {seconds} s")),
            );
        }
        if self.phase == TransferPhase::Moving
            && now >= self.deadlines.last_news + self.deadlines.stall_timeout
        {
            self.stalled(now);
        }
        if self.deadlines.phase.is_some_and(|due| now >= due) {
            self.deadlines.phase = None;
            self.overdue(now);
        }
    }

    /// Ends a transfer in which nothing landed for a while. If all bytes have landed, nodes are
    /// still syncing or verifying.
    fn stalled(&mut self, now: Moment) {
        let seconds = self.deadlines.stall_timeout.as_secs_f64();
        let waited = self.names(PeerStage::Moving);
        let is_through =
            |node: NodeIx| self.peers[node].stage != PeerStage::Moving || self.has_landed_all(node);
        let what = if !self.peers.indices().all(is_through) {
            format!("no byte landed for {seconds} s at {waited}")
        } else if self.deadlines.stall_timeout < COMMIT_WITHIN {
            self.deadlines.stall_timeout = COMMIT_WITHIN;
            return;
        } else {
            format!("{waited} did not sync or verify what has landed within {seconds} s")
        };
        self.fail(now, Error::new(Code::Stalled, what));
    }

    /// Returns true if a receiver has reported all its bytes as landed.
    pub(super) fn has_landed_all(&self, node: NodeIx) -> bool {
        self.peers[node].landed_bytes >= self.planning.bytes_of(node)
    }

    fn overdue(&mut self, now: Moment) {
        let error = match self.phase {
            TransferPhase::Meeting => {
                let silent = self.names(PeerStage::Absent);
                Error::new(Code::Unreachable, format!("no answer from {silent}"))
                    .remedy("is `cep-fast node` running there, with the same key?")
            }
            TransferPhase::Preparing => {
                let silent = self.names(PeerStage::Asked);
                Error::new(Code::Stalled, format!("{silent} did not open its files in time"))
            }
            TransferPhase::Committing => {
                let silent = self.names(PeerStage::Committing);
                Error::new(Code::Stalled, format!("{silent} did not commit in time"))
            }
            TransferPhase::Finishing => return self.end_overdue_good_byes(now),
            TransferPhase::Moving | TransferPhase::Done => return,
        };
        self.fail(now, error);
    }

    /// Returns the addresses of the nodes in a stage.
    fn names(&self, stage: PeerStage) -> String {
        self.roster.names(self.peers.indices().filter(|node| self.peers[*node].stage == stage))
    }
}

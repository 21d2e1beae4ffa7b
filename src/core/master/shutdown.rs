//! End of a transfer at its master: files are renamed, nodes report, or all nodes are cancelled.

use std::time::Duration;

use super::coordinator::Coordinator;
use super::peer::PeerStage;
use super::phase::TransferPhase;
use crate::core::error::Error;
use crate::core::units::{Moment, NodeIx};

/// Time for nodes to commit and report. Syncing a large file takes long.
pub(super) const COMMIT_WITHIN: Duration = Duration::from_secs(600);
/// Time for nodes to send their good-bye.
const FINISH_WITHIN: Duration = Duration::from_secs(10);
/// Time for the good-byes of nodes that were silent before.
const FINISH_SILENT_WITHIN: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Asks the elected nodes to rename shared files, once all their writers have landed. Files of
    /// receivers that could have received differing bytes are renamed at this point, too.
    pub(super) fn commit(&mut self, now: Moment) {
        self.planning.undealt().into_iter().for_each(|error| self.ending.record(error));
        self.phase = TransferPhase::Committing;
        self.deadlines.phase = Some(now + COMMIT_WITHIN);
        if self.replicas.differ {
            // The correct replica is unknown.
            return;
        }
        self.peers.commit(&self.roster, |node| self.replicas.names_wait(node));
    }

    pub(super) fn finish(&mut self, now: Moment) {
        self.begin_finishing(now);
        self.ending.cancel_reason = "not everything has landed elsewhere".into();
        // A node that has landed remembers it until all nodes have.
        if self.ending.error.is_some() {
            self.peers.cancel();
        } else {
            self.peers.finish(&self.roster, |node| self.planning.relays(node));
        }
    }

    /// Ends the transfer for all nodes, with `error` as its cause unless there is an earlier one.
    pub(super) fn fail(&mut self, now: Moment, error: Error) {
        if self.phase < TransferPhase::Finishing {
            let reason = error.to_string();
            self.ending.record(error);
            self.cancel_all(now, &reason);
        }
    }

    pub(super) fn cancel_all(&mut self, now: Moment, reason: &str) {
        self.planning.undealt().into_iter().for_each(|error| self.ending.record(error));
        self.begin_finishing(now);
        self.ending.cancel_reason = reason.into();
        self.peers.cancel();
    }

    fn begin_finishing(&mut self, now: Moment) {
        self.phase = TransferPhase::Finishing;
        self.deadlines.shutdown = now + FINISH_WITHIN;
        self.deadlines.phase = Some(now + FINISH_SILENT_WITHIN);
    }

    /// Stops waiting for missing good-byes: of nodes that were silent before, and at the deadline
    /// of all others. A node that does not answer cannot report its ranges.
    pub(super) fn end_overdue_good_byes(&mut self, now: Moment) {
        let is_last = now >= self.deadlines.shutdown;
        for node in self
            .peers
            .indices()
            .filter(|node| is_last || self.is_silent(now, *node))
            .collect::<Vec<_>>()
        {
            if std::mem::replace(&mut self.peers[node].stage, PeerStage::Gone) == PeerStage::Moving
            {
                let missing = self.planning.unsettled(self.planning_input(), node);
                self.ending.missing.extend(missing);
            }
        }
        self.deadlines.phase = (!is_last).then_some(self.deadlines.shutdown);
    }

    fn is_silent(&self, now: Moment, node: NodeIx) -> bool {
        match self.peers[node].stage {
            // A receiver that syncs or verifies sends no reports meanwhile.
            PeerStage::Moving => !self.has_landed_all(node) && self.silence.is_receiver(now, node),
            _ => self.silence.is_sender(node),
        }
    }
}

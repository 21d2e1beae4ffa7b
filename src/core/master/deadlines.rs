//! Deadlines of the master: which wait ends when, and the nodes it was for.

use std::time::Duration;

use super::attempt::AttemptConfig;
use super::coordinator::{Coordinator, TransferPhase};
use super::peer::{PeerRecord, PeerStage};
use super::shutdown::COMMIT_WITHIN;
use crate::core::error::{Code, Error};
use crate::core::units::{Moment, NodeIx};

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
    overall: Option<Moment>,
    pub(super) last_news: Moment,
    /// Longest time without news while bytes should move.
    stall_timeout: Duration,
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
        let waited = self.names(|peer| peer.stage == PeerStage::Moving);
        let is_through =
            |node: NodeIx| self.peers[node].stage != PeerStage::Moving || self.has_landed_all(node);
        let has_landed = self.peers.indices().all(is_through);
        if has_landed && self.deadlines.stall_timeout < COMMIT_WITHIN {
            self.deadlines.stall_timeout = COMMIT_WITHIN;
        } else if has_landed {
            let what =
                format!("{waited} did not sync or verify what has landed within {seconds} s");
            self.fail(now, Error::new(Code::Stalled, what));
        } else {
            self.fail(
                now,
                Error::new(Code::Stalled, format!("no byte landed for {seconds} s at {waited}")),
            );
        }
    }

    /// Returns true if a receiver has reported all its bytes as landed.
    pub(super) fn has_landed_all(&self, node: NodeIx) -> bool {
        self.peers[node].landed_bytes >= self.current.bytes_of(node)
    }

    fn overdue(&mut self, now: Moment) {
        match self.phase {
            TransferPhase::Meeting => {
                let silent = self.names(|peer| peer.stage == PeerStage::Absent);
                let error = Error::new(Code::Unreachable, format!("no answer from {silent}"));
                self.fail(
                    now,
                    error.remedy("is `cep-fast node` running there, with the same key?"),
                );
            }
            TransferPhase::Preparing => {
                let silent = self.names(|peer| peer.stage == PeerStage::Asked);
                self.fail(
                    now,
                    Error::new(Code::Stalled, format!("{silent} did not open its files in time")),
                );
            }
            TransferPhase::Committing => {
                let silent = self.names(|peer| peer.stage == PeerStage::Committing);
                self.fail(
                    now,
                    Error::new(Code::Stalled, format!("{silent} did not commit in time")),
                );
            }
            TransferPhase::Finishing => self.end_overdue_good_byes(now),
            TransferPhase::Moving | TransferPhase::Done => {}
        }
    }

    fn names(&self, which: impl Fn(&PeerRecord) -> bool) -> String {
        let nodes = self.roster.nodes().filter(|(node, _)| which(&self.peers[*node]));
        let names: Vec<String> = nodes.map(|(_, entry)| entry.address.to_string()).collect();
        match names.len() {
            0..=4 => names.join(", "),
            more => format!("{} and {} more", names[..4].join(", "), more - 4),
        }
    }
}

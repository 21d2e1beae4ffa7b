//! The end of a transfer at its master: files get their names, nodes hand in their reports, or
//! everybody is sent home.

use std::time::Duration;

use super::coordinator::{Coordinator, TransferPhase};
use super::peer::{PeerStage, SentMessage};
use crate::core::error::Error;
use crate::core::units::{Moment, NodeIx};

/// How long nodes may take to commit and to hand in their reports. Syncing a large file takes its
/// time.
pub(super) const COMMIT_WITHIN: Duration = Duration::from_secs(600);
/// How long nodes may take to say good-bye.
const FINISH_WITHIN: Duration = Duration::from_secs(10);
/// The same for those that were silent already.
const FINISH_SILENT_WITHIN: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Shared files get their name from the elected node, once everybody who writes them has
    /// landed; and so do files of receivers that could have received other bytes than others.
    pub(super) fn commit(&mut self, now: Moment) {
        self.phase = TransferPhase::Committing;
        self.deadline = Some(now + COMMIT_WITHIN);
        if self.replicas.differ {
            // Nobody knows whose bytes are right.
            return;
        }
        let is_one_short = self.peers.iter().any(|peer| peer.failed && peer.shares_any());
        for node in self.indices() {
            let is_elected = self.roster.get(node).is_elected();
            let waits = is_elected || self.replicas.names_wait(node);
            if self.peers[node.at()].stage == PeerStage::Landed
                && waits
                && !(is_elected && is_one_short)
            {
                self.peers[node.at()].stage = PeerStage::Committing;
                self.say(node, SentMessage::Commit);
            }
        }
    }

    pub(super) fn finish(&mut self, now: Moment) {
        self.begin_finishing(now);
        // Who has landed keeps in mind that it has, until everybody has.
        let said = if self.error.is_some() { SentMessage::Cancel } else { SentMessage::Finish };
        self.dismissal = "not everything has landed elsewhere".into();
        for node in self.indices() {
            let peer = &self.peers[node.at()];
            match peer.stage {
                PeerStage::Gone => {}
                // It has said everything with `Landed`, and keeps nothing that could be in
                // anybody's way: it forgets the transfer when its session is closed.
                PeerStage::Landed
                    if said == SentMessage::Finish
                        && !self.roster.get(node).sends()
                        && !peer.shares_any()
                        && !self.relays(node) =>
                {
                    self.peers[node.at()].stage = PeerStage::Gone;
                }
                _ => self.say(node, said),
            }
        }
    }

    /// Ends the transfer for everybody, with `error` as its cause unless there was one before.
    pub(super) fn fail(&mut self, now: Moment, error: Error) {
        if self.phase < TransferPhase::Finishing {
            self.missing.extend(&error.missing);
            let reason = error.to_string();
            self.error.get_or_insert(error);
            self.dismiss(now, &reason);
        }
    }

    pub(super) fn dismiss(&mut self, now: Moment, reason: &str) {
        self.begin_finishing(now);
        self.dismissal = reason.into();
        for node in self.indices() {
            match self.peers[node.at()].stage {
                PeerStage::Absent | PeerStage::Met => self.peers[node.at()].stage = PeerStage::Gone,
                PeerStage::Gone => {}
                _ => self.say(node, SentMessage::Cancel),
            }
        }
    }

    fn begin_finishing(&mut self, now: Moment) {
        self.phase = TransferPhase::Finishing;
        self.exit_message = now + FINISH_WITHIN;
        self.deadline = Some(now + FINISH_SILENT_WITHIN);
    }

    /// Good-byes that have not come are waited for no longer: those of nodes that were silent
    /// already, and when it is time all the others. Who does not answer cannot say what it has.
    pub(super) fn wait_no_longer(&mut self, now: Moment) {
        let is_last = now >= self.exit_message;
        for node in
            self.indices().filter(|node| is_last || self.is_silent(now, *node)).collect::<Vec<_>>()
        {
            if std::mem::replace(&mut self.peers[node.at()].stage, PeerStage::Gone)
                == PeerStage::Moving
            {
                let missing = self.unsettled(node);
                self.missing.extend(missing);
            }
        }
        self.deadline = (!is_last).then_some(self.exit_message);
    }

    fn is_silent(&self, now: Moment, node: NodeIx) -> bool {
        match self.peers[node.at()].stage {
            // Who makes sure of what has landed says nothing meanwhile.
            PeerStage::Moving => !self.has_landed_all(node) && self.silence.is_receiver(now, node),
            _ => self.silence.is_sender(node),
        }
    }

    /// A receiver that was told to leave while bytes moved says what it lacks and what it had
    /// waited for. Its report follows.
    pub(super) fn left_short(&mut self, node: NodeIx, error: &Error) {
        self.missing.extend(&error.missing);
        if error.message != self.dismissal {
            let address = &self.roster.get(node).address;
            self.trouble.get_or_insert_with(|| format!("{address}: {}", error.message));
        }
    }

    pub(super) fn done(&mut self) {
        self.phase = TransferPhase::Done;
    }
}

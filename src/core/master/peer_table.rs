//! The records of all nodes at the master, and the messages on their way to them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::{Deref, Index, IndexMut};

use super::flow_calls::{FlowCalls, passed_on};
use super::peer::{PeerRecord, PeerStage, SentMessage};
use super::phase::TransferPhase;
use super::roster::{Roster, RosterEntry};
use crate::core::units::NodeIx;
use crate::core::wire::control::ToNode;

/// The records of all nodes, by their index in the roster.
///
/// Invariant: `landed_bytes` is the sum of what the records have, which may be any numbers.
pub(super) struct PeerTable {
    records: Vec<PeerRecord>,
    /// Index of the peer that the phase waited for when it was examined last.
    waits_for: Cell<usize>,
    landed_bytes: u128,
    /// Messages to send. Each is built when it is polled: messages to ten thousand nodes at once
    /// would fill tens of megabytes.
    unsent: VecDeque<(NodeIx, SentMessage)>,
    pub(super) calls: FlowCalls,
}

impl PeerTable {
    /// Creates the records of `count` nodes that have not connected.
    pub(super) fn new(count: usize) -> PeerTable {
        PeerTable {
            records: (0..count).map(|_| PeerRecord::absent()).collect(),
            waits_for: Cell::new(0),
            landed_bytes: 0,
            unsent: VecDeque::new(),
            calls: FlowCalls::default(),
        }
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = NodeIx> + use<> {
        (0..self.records.len() as u32).map(NodeIx)
    }

    /// Returns the next message to send.
    pub(super) fn poll_unsent(&mut self) -> Option<(NodeIx, SentMessage)> {
        self.unsent.pop_front()
    }

    /// Returns the next call whose sender is still there, as a message to that.
    pub(super) fn next_call(&mut self, roster: &Roster) -> Option<(NodeIx, ToNode)> {
        loop {
            let (receiver, call) = self.calls.next()?;
            let message = passed_on(roster, &self.records, receiver, call);
            if message.is_some() {
                return message;
            }
        }
    }

    /// Queues a message, and records it for a session that resumes.
    pub(super) fn send(&mut self, node: NodeIx, sent: SentMessage) {
        self[node].sent.push(sent);
        self.unsent.push_back((node, sent));
    }

    /// Queues a message that is never sent again.
    pub(super) fn send_once(&mut self, node: NodeIx, sent: SentMessage) {
        self.unsent.push_back((node, sent));
    }

    /// Queues the messages again that a node had not received on a broken session; `heard` counts
    /// those that it had.
    pub(super) fn resend(&mut self, node: NodeIx, heard: u32) {
        let sent = &self.records[node.at()].sent;
        self.unsent.extend(sent.iter().skip(heard as usize).map(|sent| (node, *sent)));
    }

    /// Returns the bytes that receivers have reported as landed.
    pub(super) fn landed_bytes(&self) -> u64 {
        u64::try_from(self.landed_bytes).unwrap_or(u64::MAX)
    }

    /// Records the bytes that a receiver has landed.
    pub(super) fn count(&mut self, node: NodeIx, landed_bytes: u64) {
        let before = std::mem::replace(&mut self[node].landed_bytes, landed_bytes);
        self.landed_bytes = self.landed_bytes - u128::from(before) + u128::from(landed_bytes);
    }

    pub(super) fn move_to(&mut self, node: NodeIx, from: PeerStage, to: PeerStage) {
        let peer = &mut self[node];
        if peer.stage == from {
            peer.stage = to;
        }
    }

    /// Asks the nodes of a wave to open their files. Nodes of later waves are told at the first one
    /// to make way.
    pub(super) fn prepare(&mut self, wave: u32, roster: &Roster) {
        for node in self.indices() {
            let wave_of_node = roster.get(node).wave;
            if wave_of_node == wave {
                self[node].stage = PeerStage::Asked;
                self.send(node, SentMessage::Prepare);
            } else if wave == 0 {
                // Never sent again: a node that misses it delays the transfer a little.
                self.send_once(node, SentMessage::MakeWay);
            }
        }
    }

    /// Sends every receiver its part of the first plan.
    pub(super) fn start(&mut self, roster: &Roster) {
        for node in self.indices().filter(|node| roster.get(*node).receives()) {
            self[node].stage = PeerStage::Moving;
            self.send(node, SentMessage::Start);
        }
    }

    /// Sends a newer plan to all that still follow one.
    pub(super) fn start_again(&mut self, relays: impl Fn(NodeIx) -> bool) {
        for node in self.indices() {
            let stage = self[node].stage;
            if stage == PeerStage::Moving || (stage == PeerStage::Landed && relays(node)) {
                self.send(node, SentMessage::Start);
            }
        }
    }

    /// Asks the elected nodes to rename shared files, unless a writer of them failed, and nodes
    /// whose `names_wait` to rename theirs.
    pub(super) fn commit(&mut self, roster: &Roster, names_wait: impl Fn(NodeIx) -> bool) {
        let is_one_short = self.records.iter().any(|peer| peer.failed && peer.shares_any());
        for node in self.indices() {
            let is_elected = roster.get(node).is_elected();
            let waits = is_elected || names_wait(node);
            if self[node].stage == PeerStage::Landed && waits && !(is_elected && is_one_short) {
                self[node].stage = PeerStage::Committing;
                self.send(node, SentMessage::Commit);
            }
        }
    }

    /// Asks all nodes for their good-bye after a complete transfer.
    pub(super) fn finish(&mut self, roster: &Roster, relays: impl Fn(NodeIx) -> bool) {
        for node in self.indices() {
            let peer = &self[node];
            match peer.stage {
                PeerStage::Gone => {}
                // Such a receiver has reported everything with `Landed` and holds nothing that
                // others need: it forgets the transfer when its session closes.
                PeerStage::Landed
                    if !roster.get(node).sends() && !peer.shares_any() && !relays(node) =>
                {
                    self[node].stage = PeerStage::Gone;
                }
                _ => self.send(node, SentMessage::Finish),
            }
        }
    }

    /// Cancels all nodes that were asked for anything.
    pub(super) fn cancel(&mut self) {
        for node in self.indices() {
            match self[node].stage {
                PeerStage::Absent | PeerStage::Met => self[node].stage = PeerStage::Gone,
                PeerStage::Gone => {}
                _ => self.send(node, SentMessage::Cancel),
            }
        }
    }

    /// Returns true if a phase has no node to wait for.
    pub(super) fn are_through(&self, phase: TransferPhase, wave: u32, roster: &Roster) -> bool {
        self.all(&roster.entries, |peer, entry| match phase {
            TransferPhase::Meeting => peer.stage == PeerStage::Met,
            TransferPhase::Preparing => peer.stage == PeerStage::Prepared || entry.wave > wave,
            TransferPhase::Moving => !entry.receives() || peer.stage >= PeerStage::Landed,
            TransferPhase::Committing => peer.stage != PeerStage::Committing,
            TransferPhase::Finishing => peer.stage == PeerStage::Gone,
            TransferPhase::Done => false,
        })
    }

    /// Returns true if `is_through` holds for every node.
    ///
    /// Starts at the peer that was waited for last, and wraps around: each phase examines every
    /// peer about once.
    fn all(
        &self,
        entries: &[RosterEntry],
        is_through: impl Fn(&PeerRecord, &RosterEntry) -> bool,
    ) -> bool {
        let waits_for = self.waits_for.get();
        let mut round = (waits_for..self.records.len()).chain(0..waits_for);
        let late = round.find(|&at| !is_through(&self.records[at], &entries[at]));
        self.waits_for.set(late.unwrap_or(0));
        late.is_none()
    }
}

impl Deref for PeerTable {
    type Target = [PeerRecord];

    fn deref(&self) -> &[PeerRecord] {
        &self.records
    }
}

impl Index<NodeIx> for PeerTable {
    type Output = PeerRecord;

    fn index(&self, node: NodeIx) -> &PeerRecord {
        &self.records[node.at()]
    }
}

impl IndexMut<NodeIx> for PeerTable {
    fn index_mut(&mut self, node: NodeIx) -> &mut PeerRecord {
        &mut self.records[node.at()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::spec::Spec;

    /// A sender (node 0) and two receivers, all in one stage.
    fn table(stage: PeerStage) -> (Roster, PeerTable) {
        let rows = "writer a:1 pattern:1 0 0-9\nreader b:1 null: 0 0-9\nreader c:1 null: 0 0-9\n";
        let spec = Spec::parse("test", &format!("id test\n{rows}")).expect("a specification");
        let mut peers = PeerTable::new(3);
        for node in peers.indices() {
            peers[node].stage = stage;
        }
        (Roster::new(&spec), peers)
    }

    fn unsent(peers: &mut PeerTable) -> Vec<(u32, SentMessage)> {
        std::iter::from_fn(|| peers.poll_unsent()).map(|(node, sent)| (node.0, sent)).collect()
    }

    #[test]
    fn nodes_that_were_asked_nothing_are_gone_without_a_message_when_all_are_cancelled() {
        let (_, mut peers) = table(PeerStage::Met);
        peers[NodeIx(0)].stage = PeerStage::Asked;
        peers[NodeIx(2)].stage = PeerStage::Gone;
        peers.cancel();
        assert_eq!(unsent(&mut peers), [(0, SentMessage::Cancel)]);
        assert!(!peers[NodeIx(0)].is_gone() && peers[NodeIx(1)].is_gone());
    }

    #[test]
    fn a_landed_receiver_says_good_bye_only_where_others_may_still_ask_it() {
        let (roster, mut peers) = table(PeerStage::Landed);
        peers.finish(&roster, |node| node == NodeIx(1));
        let asked = [(0, SentMessage::Finish), (1, SentMessage::Finish)];
        assert_eq!(unsent(&mut peers), asked);
        assert!(peers[NodeIx(2)].is_gone());
    }

    #[test]
    fn a_newer_plan_goes_to_all_that_move_and_to_landed_relays() {
        let (roster, mut peers) = table(PeerStage::Prepared);
        peers.start(&roster);
        assert_eq!(unsent(&mut peers), [(1, SentMessage::Start), (2, SentMessage::Start)]);
        peers[NodeIx(1)].stage = PeerStage::Landed;
        peers.start_again(|_| false);
        assert_eq!(unsent(&mut peers), [(2, SentMessage::Start)]);
        peers.start_again(|node| node == NodeIx(1));
        assert_eq!(unsent(&mut peers), [(1, SentMessage::Start), (2, SentMessage::Start)]);
    }

    #[test]
    fn a_phase_is_through_once_no_node_is_waited_for() {
        let (roster, mut peers) = table(PeerStage::Moving);
        let is_moving_over =
            |peers: &PeerTable| peers.are_through(TransferPhase::Moving, 0, &roster);
        peers[NodeIx(1)].stage = PeerStage::Landed;
        assert!(!is_moving_over(&peers), "node 2 still receives");
        peers[NodeIx(2)].stage = PeerStage::Gone;
        assert!(is_moving_over(&peers), "one landed, one is lost, and the other one sends");
        assert!(!peers.are_through(TransferPhase::Finishing, 0, &roster));
        assert!(!peers.are_through(TransferPhase::Done, 0, &roster), "nothing follows");
    }
}

//! The records of all nodes at the master, and the messages on their way to them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::{Deref, Index, IndexMut};

use super::peer::{PeerRecord, PeerStage, SentMessage};
use super::roster::RosterEntry;
use crate::core::units::NodeIx;

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
}

impl PeerTable {
    /// Creates the records of `count` nodes that have not connected.
    pub(super) fn new(count: usize) -> PeerTable {
        PeerTable {
            records: (0..count).map(|_| PeerRecord::absent()).collect(),
            waits_for: Cell::new(0),
            landed_bytes: 0,
            unsent: VecDeque::new(),
        }
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = NodeIx> + use<> {
        (0..self.records.len() as u32).map(NodeIx)
    }

    /// Returns the next message to send.
    pub(super) fn poll_unsent(&mut self) -> Option<(NodeIx, SentMessage)> {
        self.unsent.pop_front()
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

    /// Returns true if `is_through` holds for every node.
    ///
    /// Starts at the peer that was waited for last, and wraps around: each phase examines every
    /// peer about once.
    pub(super) fn all(
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

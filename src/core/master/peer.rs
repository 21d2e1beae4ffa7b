//! Record of one node at the master: its stage, the messages sent to it, and what it has reported.

use crate::core::wire::control;
use crate::core::wire::control::{NodeAdvert, NodeStats, RowState};

/// Stage of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum PeerStage {
    Absent,
    Met,
    Asked,
    Prepared,
    Moving,
    Landed,
    Committing,
    Committed,
    Gone,
}

/// Kind of a message sent to a node. The message can be built again: its contents are in the
/// roster, the settings and the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SentMessage {
    MakeWay,
    Prepare,
    Start,
    Commit,
    Finish,
    Cancel,
}

/// Record of one node. There may be tens of thousands, idle for hours: large parts are on the heap,
/// and only once they are known.
pub(crate) struct PeerRecord {
    pub(super) stage: PeerStage,
    pub(super) failed: bool,
    /// Messages sent to the node, in order, whether or not they have arrived.
    pub(super) sent: Vec<SentMessage>,
    /// Advert of the node, encoded.
    advert: Option<Box<[u8]>>,
    /// For each row, true if it shares its file with other nodes; empty if no row does.
    shared: Box<[bool]>,
    /// True if an earlier attempt has completed a file of it.
    has_complete_file: bool,
    pub(crate) landed_bytes: u64,
    stats: Option<Box<NodeStats>>,
}

impl PeerRecord {
    /// Creates the record of a node that has not connected.
    pub(super) fn absent() -> PeerRecord {
        PeerRecord {
            stage: PeerStage::Absent,
            failed: false,
            sent: Vec::new(),
            advert: None,
            shared: Box::default(),
            has_complete_file: false,
            landed_bytes: 0,
            stats: None,
        }
    }

    /// Records the advert of a node that has connected.
    pub(super) fn meet(&mut self, advert: &NodeAdvert) {
        self.stage = PeerStage::Met;
        self.advert = Some(
            control::encode(advert).expect("an advert came in a handshake, which is small").into(),
        );
    }

    /// Returns the advert, once the node has connected.
    pub(crate) fn advert(&self) -> Option<NodeAdvert> {
        self.advert.as_ref().map(|bytes| control::decode(bytes).expect("it was encoded here"))
    }

    /// Returns true once the node has connected.
    pub(super) fn was_met(&self) -> bool {
        self.advert.is_some()
    }

    /// Records the states of the node's rows.
    pub(super) fn share(&mut self, rows: &[RowState]) {
        if rows.iter().any(|row| row.shared) {
            self.shared = rows.iter().map(|row| row.shared).collect();
        }
        self.has_complete_file = rows.iter().any(|row| row.complete);
    }

    /// Returns true if an earlier attempt has completed a file of the node.
    pub(super) fn has_complete_file(&self) -> bool {
        self.has_complete_file
    }

    /// Returns true if a row shares its file with other nodes.
    pub(super) fn shares(&self, row: usize) -> bool {
        self.shared.get(row).is_some_and(|shared| *shared)
    }

    pub(super) fn shares_any(&self) -> bool {
        self.shared.contains(&true)
    }

    pub(super) fn report(&mut self, stats: NodeStats) {
        self.stats = Some(Box::new(stats));
    }

    /// Returns the number of counted messages to the node, whether or not they have arrived.
    pub(crate) fn sent_count(&self) -> u32 {
        u32::try_from(self.sent.len()).expect("a node is sent few messages")
    }

    /// Returns the node's statistics, as far as they are reported.
    pub(crate) fn stats(&self) -> &NodeStats {
        self.stats.as_deref().unwrap_or(const { &NO_STATS })
    }

    /// Returns the memory that the record takes, with the allocator's overhead for each part.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let heap =
            |bytes: usize| if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) };
        let advert = self.advert.as_ref().map_or(0, |advert| advert.len());
        let stats = self.stats.as_ref().map_or(0, |stats| size_of_val(&**stats));
        let parts =
            [self.sent.capacity() * size_of::<SentMessage>(), advert, self.shared.len(), stats];
        size_of::<PeerRecord>() + parts.into_iter().map(heap).sum::<usize>()
    }

    /// Returns true if no further message is expected.
    pub(crate) fn is_gone(&self) -> bool {
        self.stage == PeerStage::Gone
    }
}

const NO_STATS: NodeStats = NodeStats {
    received_bytes: 0,
    sent_bytes: 0,
    wasted_bytes: 0,
    stolen_bytes: 0,
    retries: 0,
    resumed_bytes: 0,
    active_ns: 0,
    room_ns: 0,
    commit_ns: 0,
    epoch: 0,
    cpu_ns: 0,
    memory_bytes_max: 0,
    rails: Vec::new(),
    warnings: Vec::new(),
    load: None,
};

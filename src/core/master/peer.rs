//! What the master keeps of one node: where it stands, what it was told, and what it has reported.

use crate::core::wire::control;
use crate::core::wire::control::{NodeAdvert, NodeStats, RowState};

/// Where one node stands.
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

/// What a node was told. It can be told again: all that a message says is in the roster, the terms
/// and the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SentMessage {
    MakeWay,
    Prepare,
    Start,
    Commit,
    Finish,
    Cancel,
}

/// What the master knows of one node. There may be tens of thousands, at rest for hours: what is
/// large is on the heap, and there only once it is known.
pub(crate) struct PeerRecord {
    pub(super) stage: PeerStage,
    pub(super) failed: bool,
    /// What it was told, in order, whether or not it has heard it.
    pub(super) said: Vec<SentMessage>,
    /// What it said of itself, as it travels.
    advert: Option<Box<[u8]>>,
    /// Which of its rows share a file with other nodes; empty where none does.
    shared: Box<[bool]>,
    pub(crate) landed_bytes: u64,
    stats: Option<Box<NodeStats>>,
}

impl PeerRecord {
    /// A node that has not been met.
    pub(super) fn absent() -> PeerRecord {
        PeerRecord {
            stage: PeerStage::Absent,
            failed: false,
            said: Vec::new(),
            advert: None,
            shared: Box::default(),
            landed_bytes: 0,
            stats: None,
        }
    }

    /// Its session stands, and this is what it says of itself.
    pub(super) fn meet(&mut self, advert: &NodeAdvert) {
        self.stage = PeerStage::Met;
        self.advert = Some(
            control::encode(advert).expect("an advert came in a handshake, which is small").into(),
        );
    }

    /// What it said of itself, once it was met.
    pub(crate) fn advert(&self) -> Option<NodeAdvert> {
        self.advert.as_ref().map(|bytes| control::decode(bytes).expect("it was encoded here"))
    }

    pub(super) fn share(&mut self, rows: &[RowState]) {
        if rows.iter().any(|row| row.shared) {
            self.shared = rows.iter().map(|row| row.shared).collect();
        }
    }

    /// Whether a row shares its file with other nodes.
    pub(super) fn shares(&self, row: usize) -> bool {
        self.shared.get(row).is_some_and(|shared| *shared)
    }

    pub(super) fn shares_any(&self) -> bool {
        self.shared.contains(&true)
    }

    pub(super) fn report(&mut self, stats: NodeStats) {
        self.stats = Some(Box::new(stats));
    }

    /// What the transfer has cost it, as far as it has told.
    pub(crate) fn stats(&self) -> &NodeStats {
        self.stats.as_deref().unwrap_or(const { &NO_STATS })
    }

    /// The memory that it takes, with what the allocator adds to each of its parts.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let heap =
            |bytes: usize| if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) };
        let advert = self.advert.as_ref().map_or(0, |advert| advert.len());
        let stats = self.stats.as_ref().map_or(0, |stats| size_of_val(&**stats));
        let parts =
            [self.said.capacity() * size_of::<SentMessage>(), advert, self.shared.len(), stats];
        size_of::<PeerRecord>() + parts.into_iter().map(heap).sum::<usize>()
    }

    /// Whether nothing more is expected of it.
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
    cpu_ns: 0,
    memory_bytes_max: 0,
    rails: Vec::new(),
    warnings: Vec::new(),
};

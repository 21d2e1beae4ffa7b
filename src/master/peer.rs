//! What the master keeps of one node: where it stands, what it was told, and what it has reported.

use super::roster::Entry;
use crate::wire::control::{Advert, Stats};

/// Where one node stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
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

/// What a node was told. It can be told again: all that a message says is in the roster, the terms and the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Prepare,
    Start,
    Commit,
    Finish,
    Cancel,
}

/// What the master knows of one node.
pub(crate) struct Peer {
    pub(super) stage: Stage,
    /// What it was told, in order, whether or not it has heard it.
    pub(super) said: Vec<Said>,
    pub(super) failed: bool,
    pub(crate) advert: Option<Advert>,
    /// Which of its rows share a file with other nodes.
    pub(super) shared: Vec<bool>,
    pub(crate) landed_bytes: u64,
    pub(crate) stats: Stats,
}

impl Peer {
    /// A node that has not been met.
    pub(super) fn absent(entry: &Entry) -> Peer {
        Peer {
            stage: Stage::Absent,
            said: Vec::new(),
            failed: false,
            advert: None,
            shared: vec![false; entry.rows.len()],
            landed_bytes: 0,
            stats: Stats::default(),
        }
    }

    /// Whether nothing more is expected of it.
    pub(super) fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }
}

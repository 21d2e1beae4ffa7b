//! One transfer on this node: its member, its files, its master, and the senders that it may ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::{Token, Waker};

use super::prepare::Opened;
use super::usage;
use crate::engine::FlowIx;
use crate::engine::member::Member;
use crate::error::{Error, Result};
use crate::rail::desk::{Desk, Tally};
use crate::rail::{self, TransferIx};
use crate::session::Key;
use crate::units::NodeIx;
use crate::wire::control::{Peer, Prepare, RailStats, Stats};

/// What arrives in the control thread's inbox.
#[derive(Debug)]
pub(super) enum Note {
    /// A rail says something.
    Rail(Vec<rail::Event>),
    /// Sources and destinations are open, or not.
    Prepared { transfer: TransferIx, result: Result<Box<Opened>> },
    /// Destinations have their space, or not.
    Preallocated { transfer: TransferIx, result: Result<()> },
    /// Files have their names, or not.
    Committed { transfer: TransferIx, result: Result<()> },
    /// A signal asks the node to end.
    Stop,
}

impl Note {
    /// Whether a worker sends it, as its last act.
    pub(super) fn is_work(&self) -> bool {
        matches!(self, Note::Prepared { .. } | Note::Preallocated { .. } | Note::Committed { .. })
    }
}

/// The way into the inbox, from any thread.
#[derive(Clone, Debug)]
pub(super) struct Post {
    notes: Sender<Note>,
    waker: Arc<Waker>,
}

impl Post {
    pub(super) fn new(notes: Sender<Note>, waker: Waker) -> Post {
        Post { notes, waker: Arc::new(waker) }
    }

    /// Delivers a note. A node that is ending reads no more of them.
    pub(super) fn send(&self, note: Note) {
        if self.notes.send(note).is_ok() {
            // The queue of events is the node's own; it fails only when the node is gone.
            let _ = self.waker.wake();
        }
    }
}

impl rail::Mailbox for Post {
    fn deliver(&self, events: Vec<rail::Event>) {
        self.send(Note::Rail(events));
    }
}

/// One transfer on this node.
pub(super) struct Tenancy {
    pub(super) prepare: Prepare,
    pub(super) flow_key: Key,
    /// The master's session.
    pub(super) master: Token,
    pub(super) member: Member,
    /// Open once the member is prepared.
    pub(super) desk: Option<Arc<Desk>>,
    /// Whom the plan lets this node ask.
    pub(super) peers: BTreeMap<NodeIx, Peer>,
    /// The sender at the other end of each flow that this node opened.
    pub(super) flows: BTreeMap<FlowIx, NodeIx>,
    /// How many rails have not drained yet, while they do.
    pub(super) draining: usize,
    cpu_before: Duration,
}

impl Tenancy {
    pub(super) fn new(prepare: Prepare, master: Token, member: Member) -> Tenancy {
        let flow_key = Key::from_bytes(prepare.flow_key.0);
        let (desk, peers) = (None, BTreeMap::new());
        Tenancy {
            prepare,
            flow_key,
            master,
            member,
            desk,
            peers,
            flows: BTreeMap::new(),
            draining: 0,
            cpu_before: usage::cpu(),
        }
    }

    /// How many rails the transfer uses of the `rails` that the node has: the first ones.
    pub(super) fn rails(&self, rails: usize) -> usize {
        self.prepare.options.rails(rails)
    }

    /// How the transfer calls another node.
    pub(super) fn name_of(&self, node: NodeIx) -> String {
        self.peers.get(&node).map_or_else(|| format!("node {}", node.0), |peer| peer.name.clone())
    }

    /// Whether every source is still what it was when it was opened: one that was written to in between may have been
    /// sent half old, half new.
    pub(super) fn check_sources(&self) -> Result<()> {
        self.desk.iter().flat_map(|desk| &desk.offers).try_for_each(|offer| offer.source.check_unchanged())
    }

    /// Adds to the member's counts what the rails and the process counted; `nics` are the rails' names.
    pub(super) fn complete<'a>(&self, stats: &mut Stats, nics: impl Iterator<Item = &'a str>) {
        stats.cpu_ns = u64::try_from(usage::cpu().saturating_sub(self.cpu_before).as_nanos()).unwrap_or(u64::MAX);
        stats.memory_bytes_max = usage::memory_bytes_max();
        let Some(desk) = &self.desk else { return };
        let rail = |(nic, tally): (&str, &Tally)| RailStats {
            nic: nic.into(),
            sent_bytes: tally.sent_bytes(),
            received_bytes: tally.received_bytes(),
            path: tally.paths.describe(),
            driver: tally.paths.driver(),
        };
        stats.rails = nics.zip(&desk.tallies).map(rail).collect();
        stats.received_bytes = stats.rails.iter().map(|rail| rail.received_bytes).sum();
        stats.sent_bytes = stats.rails.iter().map(|rail| rail.sent_bytes).sum();
        stats.active_ns = desk.activity.active_ns();
    }

    /// Payload sent so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.desk.iter().flat_map(|desk| &desk.tallies).map(Tally::sent_bytes).sum()
    }

    /// Puts a sender's name in front of what it did.
    pub(super) fn blame(&self, sender: NodeIx, error: Error) -> Error {
        error.at(self.name_of(sender))
    }

    /// The same for the sender at the other end of a flow.
    pub(super) fn blame_flow(&self, flow: FlowIx, error: Error) -> Error {
        match self.flows.get(&flow) {
            Some(&sender) => self.blame(sender, error),
            None => error,
        }
    }
}

//! State machine of the master's side of a transfer: phases, messages to nodes, and the outcome.
//!
//! ```text
//! Meeting ──all nodes up──▶ Preparing (in waves) ──all prepared──▶ Moving
//!        ──all receivers landed or lost──▶ Committing (shared files only)
//!        ──▶ Finishing (reports) ──▶ Done
//! ```
//!
//! Without incidents, a transfer takes four messages a node. A receiver is sent `Prepare` and
//! `Start`, and answers `Prepared` and `Landed`. A sender is sent `Prepare` and `Finish`, and
//! answers `Prepared` and `Report`. An error before any byte moves ends the transfer for all nodes.
//! After that, every node that can still finish does, and the outcome names the missing ranges.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::attempt::AttemptConfig;
use super::file_modes::FileModes;
use super::peer::{PeerRecord, PeerStage, SentMessage};
use super::replicas::ReplicaSet;
use super::resume::ResumeState;
use super::roster::{Roster, RosterEntry};
use super::silent_senders::SilentSenders;
use super::speed_feedback::SpeedFeedback;
use crate::core::error::{Code, Error};
use crate::core::plan::{ByReceiver, Plan};
use crate::core::spec::DataUri;
use crate::core::units::{Moment, NodeIx, Span, union};
use crate::core::wire::control::{NodeAdvert, Prepared, SegmentChecks, ToMaster, ToNode};

/// Time for nodes to answer the dial and its handshake, and to open their files.
pub(super) const PREPARE_WITHIN: Duration = Duration::from_secs(20);

/// Input of a [`Coordinator`].
#[derive(Clone, Debug)]
pub(crate) enum CoordinatorEvent {
    /// A node's control session is up.
    NodeUp { node: NodeIx, advert: NodeAdvert },
    /// A node cannot be reached, or its session broke and could not be resumed.
    NodeDown { node: NodeIx, error: Error },
    /// A node's session resumed over another connection, on which the node reported the number of
    /// messages it had `heard`.
    NodeBack { node: NodeIx, heard: u32 },
    /// A message from a node.
    Message { node: NodeIx, message: ToMaster },
    /// A message to a node is larger than a message may be.
    Oversized { node: NodeIx, error: Error },
    /// The user, or a signal, ends the transfer.
    Cancel { reason: String },
    /// The moment of `poll_timeout` has come.
    Tick,
}

/// Output of a [`Coordinator`]: send a message to a node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct CoordinatorAction {
    pub(crate) node: NodeIx,
    pub(crate) message: ToNode,
}

/// Phase of the transfer as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TransferPhase {
    Meeting,
    Preparing,
    Moving,
    Committing,
    Finishing,
    Done,
}

/// State machine of one transfer at its master.
///
/// Events: `handle`. Actions: `poll_action`, until `None`. Time: `poll_timeout`. Questions:
/// `phase`, `peers`, `plan`, `error`, `digest`.
pub(crate) struct Coordinator {
    pub(super) roster: Roster,
    pub(super) terms: AttemptConfig,
    pub(super) phase: TransferPhase,
    wave: u32,
    pub(super) peers: Vec<PeerRecord>,
    /// Index of the peer that the phase was last found to wait for.
    waits_for: Cell<usize>,
    /// Sum of the landed bytes that peers reported. 128 bits, because peers may report any number.
    landed_bytes: u128,
    pub(super) holes: Vec<Span>,
    /// Files that several nodes write and that no later attempt can resume.
    pub(super) unkept: BTreeSet<DataUri>,
    pub(super) plan: Option<Plan>,
    /// The plan's segments by receiver.
    pub(super) by_receiver: ByReceiver,
    /// Ranges that other receivers request from each relay.
    pub(super) relayed: BTreeMap<NodeIx, Vec<Span>>,
    /// Planned duration of each node's part, in seconds.
    pub(super) receiver_seconds: Vec<f64>,
    /// The plan's version.
    pub(super) epoch: u32,
    pub(super) feedback: SpeedFeedback,
    pub(super) silence: SilentSenders,
    pub(super) resuming: ResumeState,
    pub(super) replicas: ReplicaSet,
    /// The permissions of what is written.
    pub(super) modes: FileModes,
    /// What the plan's receivers want, each counted for itself.
    pub(super) planned_bytes: u64,
    /// Check values of each segment, from the first receiver that landed it.
    pub(super) checks: Vec<Option<SegmentChecks>>,
    pub(super) error: Option<Error>,
    /// Reason that is sent to cancelled nodes.
    pub(super) cancel_reason: String,
    pub(super) missing: Vec<Span>,
    /// Error that the first cancelled receiver had waited with.
    pub(super) trouble: Option<String>,
    pub(super) deadline: Option<Moment>,
    /// Deadline for good-byes, once nodes are asked for them.
    pub(super) shutdown_deadline: Moment,
    pub(super) overall: Option<Moment>,
    pub(super) last_news: Moment,
    /// Longest time without news while bytes should move.
    pub(super) stall_timeout: Duration,
    /// Messages to send. Each is built when it is polled: messages to ten thousand nodes at once
    /// would fill tens of megabytes.
    unsent: VecDeque<(NodeIx, SentMessage)>,
}

impl Coordinator {
    /// Creates a coordinator that waits for the nodes of `roster`.
    pub(crate) fn new(now: Moment, roster: Roster, terms: AttemptConfig) -> Coordinator {
        Coordinator {
            peers: roster.entries.iter().map(|_| PeerRecord::absent()).collect(),
            overall: terms.timeout.map(|timeout| now + timeout),
            deadline: Some(now + PREPARE_WITHIN),
            stall_timeout: terms.stall_timeout,
            roster,
            terms,
            phase: TransferPhase::Meeting,
            wave: 0,
            waits_for: Cell::new(0),
            landed_bytes: 0,
            holes: Vec::new(),
            unkept: BTreeSet::new(),
            plan: None,
            by_receiver: ByReceiver::default(),
            relayed: BTreeMap::new(),
            receiver_seconds: Vec::new(),
            epoch: 1,
            feedback: SpeedFeedback::default(),
            silence: SilentSenders::default(),
            resuming: ResumeState::default(),
            replicas: ReplicaSet::default(),
            modes: FileModes::default(),
            planned_bytes: 0,
            checks: Vec::new(),
            error: None,
            cancel_reason: String::new(),
            missing: Vec::new(),
            trouble: None,
            shutdown_deadline: now,
            last_news: now,
            unsent: VecDeque::new(),
        }
    }

    /// Handles one event.
    pub(crate) fn handle(&mut self, now: Moment, event: CoordinatorEvent) {
        match event {
            CoordinatorEvent::NodeUp { node, advert } => self.node_up(now, node, advert),
            CoordinatorEvent::NodeDown { node, error } => self.node_down(node, error),
            CoordinatorEvent::NodeBack { node, heard } => self.node_back(node, heard),
            CoordinatorEvent::Message { node, message } => self.message(now, node, message),
            CoordinatorEvent::Oversized { node, error } => {
                self.peers[node.at()].stage = PeerStage::Gone;
                let remedy = "split the transfer, or give it fewer rows and shorter paths";
                self.node_failed(node, error.remedy(remedy));
            }
            CoordinatorEvent::Cancel { reason } => {
                self.fail(now, Error::new(Code::Cancelled, reason))
            }
            CoordinatorEvent::Tick => self.tick(now),
        }
        self.advance(now);
    }

    /// Returns the next message to send.
    pub(crate) fn poll_action(&mut self) -> Option<CoordinatorAction> {
        let (node, sent) = self.unsent.pop_front()?;
        Some(CoordinatorAction { node, message: self.message_of(node, sent) })
    }

    /// Returns the moment at which `Tick` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        let stall =
            (self.phase == TransferPhase::Moving).then(|| self.last_news + self.stall_timeout);
        [self.deadline, self.overall, stall]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| self.phase != TransferPhase::Done)
    }

    pub(crate) fn phase(&self) -> TransferPhase {
        self.phase
    }

    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(crate) fn terms(&self) -> &AttemptConfig {
        &self.terms
    }

    pub(crate) fn peers(&self) -> &[PeerRecord] {
        &self.peers
    }

    pub(crate) fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Returns the cause of an incomplete transfer, with the missing ranges.
    pub(crate) fn error(&self) -> Option<Error> {
        let mut error = self.error.clone()?.missing(union(self.missing.clone()));
        if let Some(trouble) = self.trouble.as_ref().filter(|_| error.code == Code::Stalled) {
            error.message += &format!(" ({trouble})");
        }
        Some(error)
    }

    fn node_up(&mut self, now: Moment, node: NodeIx, advert: NodeAdvert) {
        let peer = &mut self.peers[node.at()];
        if peer.stage == PeerStage::Absent {
            peer.meet(&self.terms.admit(advert));
            // Thousands of handshakes take long. The deadline is for the time in which no node
            // answers.
            self.deadline = Some(now + PREPARE_WITHIN);
        }
    }

    fn node_down(&mut self, node: NodeIx, error: Error) {
        let peer = &mut self.peers[node.at()];
        if peer.stage == PeerStage::Gone {
            return;
        }
        let was = std::mem::replace(&mut peer.stage, PeerStage::Gone);
        // A sender lost in mid-transfer may be replaced by a replica: its receivers find out and
        // report.
        let harmless = self.phase >= TransferPhase::Finishing
            || (self.phase >= TransferPhase::Moving
                && (was == PeerStage::Committed || !self.roster.get(node).receives()));
        if was == PeerStage::Moving {
            self.missing.extend(self.unsettled(node));
        }
        if !harmless {
            self.node_failed(node, error);
        }
    }

    pub(super) fn node_failed(&mut self, node: NodeIx, error: Error) {
        let address = &self.roster.get(node).address;
        self.peers[node.at()].failed = true;
        self.missing.extend(&error.missing);
        let error = error.at(address);
        // The first error is the cause: later ones may follow from it.
        self.error.get_or_insert(error);
    }

    fn message(&mut self, now: Moment, node: NodeIx, message: ToMaster) {
        let landed_before = self.landed_bytes();
        let is_progress = matches!(message, ToMaster::Progress { .. } | ToMaster::Comparing { .. });
        match message {
            ToMaster::Prepared(prepared) => self.prepared(node, prepared),
            ToMaster::Progress { received_bytes, delivered, left, .. } => {
                self.count(node, received_bytes);
                self.silence.reported(now, node, &delivered, self.terms.stall_timeout);
                self.feedback.left(node, left);
                self.replan_if_slow(now, node, &delivered);
            }
            ToMaster::Comparing { read_bytes } => self.comparing(now, node, read_bytes),
            ToMaster::Landed { segments, stats } => self.landed(node, segments, stats),
            ToMaster::Committed => self.move_to(node, PeerStage::Committing, PeerStage::Committed),
            ToMaster::Report(stats) if self.phase >= TransferPhase::Finishing => {
                self.peers[node.at()].report(stats);
                self.peers[node.at()].stage = PeerStage::Gone;
            }
            ToMaster::Report(_) => {
                self.node_down(
                    node,
                    Error::new(Code::Internal, "it sent its good-bye before it was asked to"),
                );
            }
            ToMaster::Failed { error, .. } if error.code == Code::Cancelled => {
                self.cancelled_short(node, &error)
            }
            ToMaster::Failed { error, stats } => {
                self.peers[node.at()].stage = PeerStage::Gone;
                if let Some(stats) = stats {
                    self.peers[node.at()].report(*stats);
                }
                self.node_failed(node, error);
            }
            // The event loop turns this message into `NodeBack`.
            ToMaster::Resumed { .. } => {}
        }
        if !is_progress || self.landed_bytes() > landed_before {
            self.last_news = now;
        }
    }

    /// Returns the bytes that receivers want, summed over receivers. A group's bytes count once,
    /// from planning on.
    pub(crate) fn wanted_bytes(&self) -> u64 {
        match &self.plan {
            Some(_) => self.planned_bytes,
            None => self.roster.nodes().map(|(_, entry)| entry.wanted_bytes()).sum(),
        }
    }

    /// Returns the bytes that receivers have reported as landed.
    pub(crate) fn landed_bytes(&self) -> u64 {
        u64::try_from(self.landed_bytes).unwrap_or(u64::MAX)
    }

    pub(super) fn count(&mut self, node: NodeIx, landed_bytes: u64) {
        let before = std::mem::replace(&mut self.peers[node.at()].landed_bytes, landed_bytes);
        self.landed_bytes = self.landed_bytes - u128::from(before) + u128::from(landed_bytes);
    }

    fn move_to(&mut self, node: NodeIx, from: PeerStage, to: PeerStage) {
        let peer = &mut self.peers[node.at()];
        if peer.stage == from {
            peer.stage = to;
        }
    }

    fn prepared(&mut self, node: NodeIx, mut prepared: Prepared) {
        let peer = &mut self.peers[node.at()];
        if peer.stage != PeerStage::Asked || prepared.rows.len() != self.roster.get(node).rows.len()
        {
            return;
        }
        peer.stage = PeerStage::Prepared;
        peer.share(&prepared.rows);
        let rows = self.roster.get(node).rows.iter().zip(&prepared.rows);
        self.unkept.extend(
            rows.filter(|(_, state)| state.shared && !state.kept).map(|(row, _)| row.uri.clone()),
        );
        let compared = self.replicas.compare(&self.roster, node, &prepared.replicas);
        self.modes.prepared(self.roster.get(node), &prepared);
        self.resuming.prepared(node, self.roster.get(node), &mut prepared);
        self.holes.extend(prepared.holes);
        if let Err(error) = compared {
            self.missing.extend(&error.missing);
            self.error.get_or_insert(error);
        }
    }

    /// Returns true if other receivers request from this node what it has landed.
    pub(crate) fn relays(&self, node: NodeIx) -> bool {
        self.relayed.contains_key(&node)
    }

    /// Advances as long as all nodes of the phase are done. A phase may have no nodes to wait for.
    fn advance(&mut self, now: Moment) {
        loop {
            let phase = (self.phase, self.wave);
            self.advance_once(now);
            if (self.phase, self.wave) == phase {
                return;
            }
        }
    }

    fn advance_once(&mut self, now: Moment) {
        if self.error.is_some() && self.phase < TransferPhase::Moving {
            self.cancel_all(now, "the transfer failed before it started");
        }
        match self.phase {
            TransferPhase::Meeting if self.all(|peer, _| peer.stage == PeerStage::Met) => {
                let (compares_all, seed) =
                    (self.terms.compares_all(), self.terms.identity().attempt);
                match ReplicaSet::of(&self.roster, compares_all, seed) {
                    Ok(replicas) => self.replicas = replicas,
                    Err(error) => return self.fail(now, error),
                }
                self.phase = TransferPhase::Preparing;
                self.deadline = Some(now + PREPARE_WITHIN);
                self.prepare_wave();
            }
            TransferPhase::Preparing
                if self.all(|peer, entry| {
                    peer.stage == PeerStage::Prepared || entry.wave > self.wave
                }) =>
            {
                if self.roster.entries.iter().any(|entry| entry.wave > self.wave) {
                    self.wave += 1;
                    self.deadline = Some(now + PREPARE_WITHIN);
                    self.prepare_wave();
                } else if let Err(error) = self.start(now) {
                    self.fail(now, error);
                }
            }
            TransferPhase::Moving
                if self.all(|peer, entry| !entry.receives() || peer.stage >= PeerStage::Landed) =>
            {
                self.commit(now);
            }
            TransferPhase::Committing
                if self.all(|peer, _| peer.stage != PeerStage::Committing) =>
            {
                self.finish(now);
            }
            TransferPhase::Finishing if self.all(|peer, _| peer.stage == PeerStage::Gone) => {
                self.done()
            }
            _ => {}
        }
    }

    fn all(&self, is_through: impl Fn(&PeerRecord, &RosterEntry) -> bool) -> bool {
        // Starts at the peer that was waited for last, and wraps around: each phase examines every
        // peer about once.
        let waits_for = self.waits_for.get();
        let round = (waits_for..self.peers.len()).chain(0..waits_for);
        let late =
            round.into_iter().find(|&at| !is_through(&self.peers[at], &self.roster.entries[at]));
        self.waits_for.set(late.unwrap_or(0));
        late.is_none()
    }

    fn prepare_wave(&mut self) {
        for node in self.indices() {
            let wave = self.roster.get(node).wave;
            if wave == self.wave {
                self.peers[node.at()].stage = PeerStage::Asked;
                self.send(node, SentMessage::Prepare);
            } else if self.wave == 0 {
                // Never sent again: a node that misses it delays the transfer a little.
                self.unsent.push_back((node, SentMessage::MakeWay));
            }
        }
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = NodeIx> + use<> {
        (0..self.peers.len() as u32).map(NodeIx)
    }

    pub(super) fn send(&mut self, node: NodeIx, sent: SentMessage) {
        self.peers[node.at()].sent.push(sent);
        self.unsent.push_back((node, sent));
    }

    fn message_of(&self, node: NodeIx, sent: SentMessage) -> ToNode {
        match sent {
            SentMessage::MakeWay => ToNode::MakeWay { id: self.terms.identity().id.clone() },
            SentMessage::Prepare => {
                let entry = self.roster.get(node);
                ToNode::Prepare(self.terms.prepare(
                    node,
                    entry,
                    self.replicas.ranges_of(entry),
                    self.replicas.names_wait(node),
                ))
            }
            SentMessage::Start => ToNode::Start(
                self.start_of(self.plan.as_ref().expect("made before anybody starts"), node),
            ),
            SentMessage::Commit => ToNode::Commit,
            SentMessage::Finish => ToNode::Finish,
            SentMessage::Cancel => {
                ToNode::Cancel { reason: self.cancel_reason.clone(), forgets: self.replicas.differ }
            }
        }
    }

    /// Sends the messages again that a node had not received on the broken session.
    fn node_back(&mut self, node: NodeIx, heard: u32) {
        let sent = &self.peers[node.at()].sent;
        self.unsent.extend(sent.iter().skip(heard as usize).map(|sent| (node, *sent)));
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;

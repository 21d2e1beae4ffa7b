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

use super::attempt::AttemptConfig;
use super::deadlines::{MasterDeadlines, PREPARE_WITHIN};
use super::ending::EndingCause;
use super::group_dealing::MemberReport;
use super::incidents::{IncidentList, NodeIncident};
use super::landing::LandedChecks;
use super::peer::{PeerRecord, PeerStage, SentMessage};
use super::peer_table::PeerTable;
use super::phase::PhaseTimes;
pub(crate) use super::phase::TransferPhase;
use super::planning::{PlanningInput, TransferPlanning};
use super::replicas::ReplicaSet;
use super::roster::Roster;
use super::silent_senders::SilentSenders;
use crate::core::error::{Code, Error};
use crate::core::plan::Plan;
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::{
    LandedSegment, NodeAdvert, NodeStats, Prepared, ToMaster, ToNode,
};

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

/// State machine of one transfer at its master.
///
/// Events: `handle`. Actions: `poll_action`, until `None`. Time: `poll_timeout`. Questions:
/// `phase`, `peers`, `plan`, `error`, `digest`.
pub(crate) struct Coordinator {
    pub(super) roster: Roster,
    pub(super) terms: AttemptConfig,
    pub(super) phase: TransferPhase,
    pub(super) times: PhaseTimes,
    wave: u32,
    pub(super) peers: PeerTable,
    pub(super) planning: TransferPlanning,
    pub(super) silence: SilentSenders,
    pub(super) replicas: ReplicaSet,
    pub(super) landings: LandedChecks,
    pub(super) ending: EndingCause,
    pub(super) incidents: IncidentList,
    pub(super) deadlines: MasterDeadlines,
}

impl Coordinator {
    /// Creates a coordinator that waits for the nodes of `roster`.
    pub(crate) fn new(now: Moment, roster: Roster, terms: AttemptConfig) -> Coordinator {
        Coordinator {
            peers: PeerTable::new(roster.entries.len()),
            deadlines: MasterDeadlines::new(now, &terms),
            roster,
            terms,
            phase: TransferPhase::Meeting,
            times: PhaseTimes::new(now),
            wave: 0,
            planning: TransferPlanning::default(),
            silence: SilentSenders::default(),
            replicas: ReplicaSet::default(),
            landings: LandedChecks::default(),
            ending: EndingCause::default(),
            incidents: IncidentList::default(),
        }
    }

    /// Handles one event.
    pub(crate) fn handle(&mut self, now: Moment, event: CoordinatorEvent) {
        match event {
            CoordinatorEvent::NodeUp { node, advert } => self.node_up(now, node, advert),
            CoordinatorEvent::NodeDown { node, error } => self.node_down(node, error),
            CoordinatorEvent::NodeBack { node, heard } => {
                self.incidents.add(NodeIncident::Restored { node });
                self.peers.resend(node, heard);
            }
            CoordinatorEvent::Message { node, message } => self.message(now, node, message),
            CoordinatorEvent::Oversized { node, error } => {
                self.peers[node].stage = PeerStage::Gone;
                let remedy = "split the transfer, or give it fewer rows and shorter paths";
                self.node_failed(node, error.remedy(remedy));
            }
            CoordinatorEvent::Cancel { reason } => {
                self.fail(now, Error::new(Code::Cancelled, reason));
            }
            CoordinatorEvent::Tick => self.tick(now),
        }
        self.advance(now);
        self.times.record(now, self.phase);
    }

    /// Returns the next message to send.
    pub(crate) fn poll_action(&mut self) -> Option<CoordinatorAction> {
        let sent = self.peers.poll_unsent().map(|(node, sent)| (node, self.message_of(node, sent)));
        let (node, message) = sent.or_else(|| self.peers.next_call(&self.roster))?;
        Some(CoordinatorAction { node, message })
    }

    /// Returns the moment at which `Tick` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        self.deadlines.next(self.phase)
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
        self.planning.plan()
    }

    /// Returns the cause of an incomplete transfer, with the missing ranges.
    pub(crate) fn error(&self) -> Option<Error> {
        self.ending.error()
    }

    fn node_up(&mut self, now: Moment, node: NodeIx, advert: NodeAdvert) {
        if self.peers[node].stage == PeerStage::Absent {
            let named = match self.roster.get(node).nics_of(&advert) {
                Ok(named) => named,
                Err(error) => {
                    self.node_failed(node, error);
                    Vec::new()
                }
            };
            self.peers[node].meet(&self.terms.admit(&named, advert));
            // Thousands of handshakes take long. The deadline is for the time in which no node
            // answers.
            self.deadlines.phase = Some(now + PREPARE_WITHIN);
        }
    }

    fn node_down(&mut self, node: NodeIx, error: Error) {
        let peer = &mut self.peers[node];
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
            self.ending.missing.extend(self.planning.unsettled(self.planning_input(), node));
        }
        if harmless {
            self.incidents.add(NodeIncident::Lost { node, error });
        } else {
            self.node_failed(node, error);
        }
    }

    pub(super) fn node_failed(&mut self, node: NodeIx, error: Error) {
        let address = &self.roster.get(node).address;
        self.peers[node].failed = true;
        self.incidents.add(NodeIncident::Lost { node, error: error.clone() });
        self.ending.record(error.at(address));
    }

    fn message(&mut self, now: Moment, node: NodeIx, message: ToMaster) {
        let (landed_before, is_news) = (self.landed_bytes(), message.is_news());
        match message {
            ToMaster::Prepared(prepared) => self.prepared(node, prepared),
            ToMaster::Progress { received_bytes, delivered, left, missing_bytes, .. } => {
                self.peers.count(node, received_bytes);
                self.silence.reported(now, node, &delivered, self.terms.options().stall_timeout);
                self.planning.left(node, left);
                let (landed_bytes, delivered) = (received_bytes, &delivered[..]);
                let report = MemberReport { landed_bytes, missing_bytes, delivered };
                self.progressed(now, node, &report);
            }
            ToMaster::Comparing { read_bytes } => self.comparing(now, node, read_bytes),
            ToMaster::Landed { segments, stats } => self.landed(node, segments, stats),
            ToMaster::Committed => {
                self.peers.move_to(node, PeerStage::Committing, PeerStage::Committed);
            }
            ToMaster::Report(stats) if self.phase >= TransferPhase::Finishing => {
                self.peers[node].report(stats);
                self.peers[node].stage = PeerStage::Gone;
            }
            ToMaster::Report(_) => {
                self.node_down(
                    node,
                    Error::new(Code::Internal, "it sent its good-bye before it was asked to"),
                );
            }
            ToMaster::Failed { error, .. } if error.code == Code::Cancelled => {
                self.ending.cancelled_short(&self.roster.get(node).address, &error);
            }
            ToMaster::Failed { error, stats } => {
                let stated = stats.as_deref();
                let error = self.planning.all_missing(self.planning_input(), node, error, stated);
                self.peers[node].stage = PeerStage::Gone;
                if let Some(stats) = stats {
                    self.peers[node].report(*stats);
                }
                self.node_failed(node, error);
            }
            ToMaster::Call(call) => self.peers.calls.add(self.phase, node, call),
            // The event loop makes `NodeBack` of the first; surveys come before transfers.
            ToMaster::Resumed { .. } | ToMaster::Surveyed(_) => {}
        }
        if is_news || self.landed_bytes() > landed_before {
            self.deadlines.last_news = now;
        }
    }

    /// Returns the bytes that receivers want, summed over receivers. A group's bytes count once,
    /// from planning on.
    pub(crate) fn wanted_bytes(&self) -> u64 {
        let of_rows = || self.roster.nodes().map(|(_, entry)| entry.wanted_bytes()).sum();
        self.planning.wanted_bytes().unwrap_or_else(of_rows)
    }

    /// Returns the bytes that receivers have reported as landed.
    pub(crate) fn landed_bytes(&self) -> u64 {
        self.peers.landed_bytes()
    }

    fn prepared(&mut self, node: NodeIx, prepared: Prepared) {
        let peer = &mut self.peers[node];
        if peer.stage != PeerStage::Asked || prepared.rows.len() != self.roster.get(node).rows.len()
        {
            return;
        }
        peer.stage = PeerStage::Prepared;
        peer.share(&prepared.rows);
        if let Err(error) = self.replicas.compare(&self.roster, node, &prepared.replicas) {
            self.ending.record(error);
        }
        self.planning.prepared(node, &self.roster, prepared);
    }

    /// Makes the plan and sends every receiver its part.
    fn start(&mut self, now: Moment) -> Result<(), Error> {
        let (roster, terms, peers) = (&self.roster, &self.terms, &*self.peers);
        self.planning.begin(now, PlanningInput { roster, terms, peers })?;
        self.peers.start(&self.roster);
        self.phase = TransferPhase::Moving;
        self.deadlines.phase = None;
        self.deadlines.last_news = now;
        Ok(())
    }

    /// Passes a receiver's progress on, and tells receivers if it leads to a newer plan, or to
    /// further parts of groups.
    fn progressed(&mut self, now: Moment, node: NodeIx, report: &MemberReport<'_>) {
        if self.phase != TransferPhase::Moving || self.peers[node].stage != PeerStage::Moving {
            return;
        }
        let (roster, terms, peers) = (&self.roster, &self.terms, &*self.peers);
        let input = PlanningInput { roster, terms, peers };
        let is_new = self.planning.report(input, now, node, report.delivered, &self.silence);
        for node in self.planning.deal_further(now, node, report, input) {
            self.peers.send(node, SentMessage::Start);
        }
        if is_new {
            self.peers.start_again(|node| self.planning.relays(node));
        }
    }

    /// Returns the records that planning reads.
    pub(super) fn planning_input(&self) -> PlanningInput<'_> {
        PlanningInput { roster: &self.roster, terms: &self.terms, peers: &self.peers }
    }

    fn landed(&mut self, node: NodeIx, segments: Vec<LandedSegment>, stats: NodeStats) {
        let peer = &mut self.peers[node];
        if peer.stage != PeerStage::Moving {
            return;
        }
        peer.stage = PeerStage::Landed;
        peer.report(stats);
        if self.planning.may_grow(node) {
            let what = "it ended before it was told that no more of its group will come";
            return self.node_failed(node, Error::new(Code::Internal, what));
        }
        self.peers.count(node, segments.iter().map(|segment| segment.span.bytes()).sum());
        let planned = &self.planning.plan().expect("receivers land what was planned").planned;
        if let Err(error) = self.landings.compare(planned, segments) {
            self.replicas.differ |= error.code == Code::Integrity;
            self.node_failed(node, error);
        }
    }

    /// Returns the digest of all wanted bytes, if their checks join into one.
    pub(crate) fn digest(&self) -> Option<String> {
        self.landings.digest(self.terms.method)
    }

    /// Extends the deadline of a node that compares replicas, as long as it makes progress.
    fn comparing(&mut self, now: Moment, node: NodeIx, read_bytes: u64) {
        let is_asked =
            self.phase == TransferPhase::Preparing && self.peers[node].stage == PeerStage::Asked;
        if is_asked && self.replicas.reads(node, read_bytes) {
            self.deadlines.phase = Some(now + PREPARE_WITHIN);
        }
    }

    /// Returns the bytes that senders have read to compare replicas and their total, while the
    /// transfer waits for the comparison.
    pub(crate) fn comparison(&self) -> Option<(u64, u64)> {
        if self.phase == TransferPhase::Preparing {
            self.replicas.progress(&self.roster)
        } else {
            None
        }
    }

    /// Adds a warning for the user.
    pub(crate) fn warn(&mut self, what: String) {
        self.planning.warn(what);
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
        if self.ending.error.is_some() && self.phase < TransferPhase::Moving {
            self.cancel_all(now, "the transfer failed before it started");
        }
        if !self.peers.are_through(self.phase, self.wave, &self.roster) {
            return;
        }
        match self.phase {
            TransferPhase::Meeting => {
                let (compares_all, seed) =
                    (self.terms.options().verify_replicas, self.terms.identity().attempt);
                match ReplicaSet::of(&self.roster, compares_all, seed) {
                    Ok(replicas) => self.replicas = replicas,
                    Err(error) => return self.fail(now, error),
                }
                self.phase = TransferPhase::Preparing;
                self.prepare_wave(now);
            }
            TransferPhase::Preparing => {
                if self.roster.entries.iter().any(|entry| entry.wave > self.wave) {
                    self.wave += 1;
                    self.prepare_wave(now);
                } else if let Err(error) = self.start(now) {
                    self.fail(now, error);
                }
            }
            TransferPhase::Moving => self.commit(now),
            TransferPhase::Committing => self.finish(now),
            TransferPhase::Finishing => self.phase = TransferPhase::Done,
            TransferPhase::Done => {}
        }
    }

    fn prepare_wave(&mut self, now: Moment) {
        self.deadlines.phase = Some(now + PREPARE_WITHIN);
        self.peers.prepare(self.wave, &self.roster);
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
                    entry.nics_told(self.peers[node].advert()),
                ))
            }
            SentMessage::Start => {
                ToNode::Start(self.planning.start_of(self.planning_input(), node))
            }
            SentMessage::Commit => ToNode::Commit,
            SentMessage::Finish => ToNode::Finish,
            SentMessage::Cancel => ToNode::Cancel {
                reason: self.ending.cancel_reason.clone(),
                forgets: self.replicas.differ,
            },
        }
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;

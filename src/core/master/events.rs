//! Events of a transfer for whoever watches it: which there are, decided from the states of the
//! coordinator that are looked at one after the other.
//!
//! Time is an argument, and a look may come late: nothing is missed between two, because plans and
//! incidents are kept in order.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::coordinator::{Coordinator, TransferPhase};
use super::incidents::NodeIncident;
use super::peer::PeerRecord;
use super::roster::{Roster, RosterEntry};
use super::summary::bound;
use crate::core::error::{Code, Error};
use crate::core::report::{Report, TransferState, gbit_per_s};
use crate::core::spec::Spec;
use crate::core::units::NodeIx;
use crate::core::wire::control::NodeAdvert;

/// Limit on the nodes that one event names.
const NAMED_MAX: usize = 1024;
/// Interval of events about progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Something that a watcher is told. Its fields are those of the JSON object.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum TransferEvent {
    /// The transfer begins.
    Start {
        transfer: String,
        version: String,
        pid: u32,
        nodes_total: usize,
        rows: usize,
        bytes_total: u64,
    },
    /// Nodes have answered.
    Reached { nodes: Vec<String>, reached: usize, nodes_total: usize },
    /// The first plan.
    Plan {
        plan: usize,
        scheduler: String,
        predicted_seconds: f64,
        bound_seconds: Option<f64>,
        bottleneck: Option<String>,
        bytes_total: u64,
    },
    /// A newer plan.
    Replan {
        plan: usize,
        why: String,
        slow: Vec<String>,
        lost: Vec<String>,
        predicted_seconds: f64,
    },
    /// The progress; once a second.
    Progress {
        phase: &'static str,
        bytes: u64,
        bytes_total: u64,
        gbit_per_s: f64,
        compared_bytes: Option<u64>,
        nodes: Vec<ReceiverRate>,
        nodes_total: usize,
    },
    /// A node is lost, its control session, or one of its flows.
    Loss {
        what: LostKind,
        node: String,
        nic: Option<String>,
        peer: Option<String>,
        code: u8,
        reason: String,
    },
    /// A control session is resumed.
    Restored { node: String },
    /// A sentence of the report's warnings.
    Warning { message: String },
    /// Events could not be written in time.
    Dropped { count: u64 },
    /// The transfer has ended, or could not begin.
    End { state: TransferState, report: Box<Report> },
}

/// The kind of what is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LostKind {
    /// A node takes no further part.
    Node,
    /// A control session broke; the node goes on, and the session is resumed.
    Session,
    /// A flow of a NIC to a peer broke, or could not be opened; others may carry on.
    Flow,
}

/// What a receiver has landed, and its rate since the event before.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ReceiverRate {
    name: String,
    bytes: u64,
    gbit_per_s: f64,
}

/// The program that tells the events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventTeller<'a> {
    /// Its version.
    pub(crate) version: &'a str,
    /// Its process.
    pub(crate) pid: u32,
}

impl TransferEvent {
    /// Returns the first event of a transfer, whose specification is valid.
    pub(crate) fn start(teller: EventTeller<'_>, spec: &Spec) -> TransferEvent {
        let roster = Roster::new(spec);
        TransferEvent::Start {
            transfer: spec.id.clone(),
            version: teller.version.to_owned(),
            pid: teller.pid,
            nodes_total: roster.entries.len(),
            rows: spec.rows.len(),
            bytes_total: roster.entries.iter().map(RosterEntry::wanted_bytes).sum(),
        }
    }

    /// Returns the last event of a transfer.
    pub(crate) fn end(report: &Report) -> TransferEvent {
        TransferEvent::End { state: report.state, report: Box::new(report.clone()) }
    }
}

/// Returns a number that grows with every plan, and with every incident at a node.
pub(crate) fn news_count(coordinator: &Coordinator) -> usize {
    coordinator.planning.made().len() + coordinator.incidents.count()
}

/// What a watcher has been told of one transfer.
#[derive(Debug, Default)]
pub(crate) struct EventWatch {
    reached: BTreeSet<NodeIx>,
    plans: usize,
    incidents: usize,
    warned: BTreeSet<String>,
    /// The moment of the last progress, since the start, and the bytes of each node by then.
    progress: (Duration, Vec<u64>),
}

impl EventWatch {
    /// Returns the events since the last look, in their order. `elapsed` is the time since the
    /// start.
    pub(crate) fn look(
        &mut self,
        elapsed: Duration,
        coordinator: &Coordinator,
    ) -> Vec<TransferEvent> {
        let mut events = Vec::new();
        events.extend(self.reached(coordinator));
        let planned = coordinator.planning.made().len();
        events.extend((self.plans..planned).map(|at| plan(coordinator, at)));
        self.plans = planned;
        events.extend(self.incidents(coordinator));
        let own = coordinator.planning.warnings().iter().cloned();
        let peers = coordinator.roster().entries.iter().zip(coordinator.peers());
        let of_nodes = peers.flat_map(|(entry, peer)| {
            peer.stats().warnings.iter().map(move |it| format!("{}: {it}", entry.address))
        });
        events.extend(own.chain(of_nodes).filter_map(|it| self.warning(&it)));
        events.extend(self.progress(elapsed, coordinator));
        events
    }

    /// Returns the events of the end: warnings that only the report has, and the report.
    pub(crate) fn end(&mut self, report: &Report) -> Vec<TransferEvent> {
        let warnings = report.warnings.iter().filter_map(|it| self.warning(it));
        let mut events: Vec<TransferEvent> = warnings.collect();
        events.push(TransferEvent::end(report));
        events
    }

    fn reached(&mut self, coordinator: &Coordinator) -> Option<TransferEvent> {
        let roster = coordinator.roster();
        if self.reached.len() == roster.entries.len() {
            return None;
        }
        let known = coordinator.peers().iter().map(PeerRecord::was_met);
        let new: Vec<NodeIx> = roster
            .nodes()
            .zip(known)
            .filter(|((node, _), was_met)| *was_met && !self.reached.contains(node))
            .map(|((node, _), _)| node)
            .collect();
        self.reached.extend(&new);
        (!new.is_empty()).then(|| TransferEvent::Reached {
            nodes: names(coordinator, &new),
            reached: self.reached.len(),
            nodes_total: roster.entries.len(),
        })
    }

    fn incidents(&mut self, coordinator: &Coordinator) -> Vec<TransferEvent> {
        let kept = coordinator.incidents.kept();
        let new = kept.iter().skip(self.incidents).map(|it| incident(coordinator, it));
        let mut events: Vec<TransferEvent> = new.collect();
        let count = coordinator.incidents.count();
        if count > kept.len() && self.incidents <= kept.len() {
            events.extend(self.warning("further losses of this transfer are not told one by one"));
        }
        self.incidents = count;
        events
    }

    fn warning(&mut self, message: &str) -> Option<TransferEvent> {
        let is_new = self.warned.insert(message.to_owned());
        is_new.then(|| TransferEvent::Warning { message: message.to_owned() })
    }

    fn progress(&mut self, elapsed: Duration, coordinator: &Coordinator) -> Option<TransferEvent> {
        let since = elapsed.checked_sub(self.progress.0)?;
        if since < PROGRESS_EVERY || coordinator.phase() == TransferPhase::Done {
            return None;
        }
        let seconds = since.as_secs_f64();
        let landed: Vec<u64> = coordinator.peers().iter().map(|peer| peer.landed_bytes).collect();
        let before = std::mem::replace(&mut self.progress, (elapsed, landed.clone())).1;
        let rate = |at: usize| {
            let before = before.get(at).copied().unwrap_or(0);
            gbit_per_s(landed[at].saturating_sub(before), seconds)
        };
        let entries = &coordinator.roster().entries;
        let receivers = entries.iter().enumerate().filter(|(_, entry)| entry.receives());
        let nodes = receivers.clone().take(NAMED_MAX).map(|(at, entry)| ReceiverRate {
            name: entry.address.to_string(),
            bytes: landed[at],
            gbit_per_s: rate(at),
        });
        Some(TransferEvent::Progress {
            phase: coordinator.phase().name(),
            bytes: coordinator.landed_bytes(),
            bytes_total: coordinator.wanted_bytes(),
            gbit_per_s: (0..landed.len()).map(rate).sum(),
            compared_bytes: coordinator.comparison().map(|(compared, _)| compared),
            nodes: nodes.collect(),
            nodes_total: receivers.count(),
        })
    }
}

/// Returns the event of a plan, by its place.
fn plan(coordinator: &Coordinator, at: usize) -> TransferEvent {
    let made = &coordinator.planning.made()[at];
    let (plan, predicted_seconds) = (at + 1, made.seconds);
    if at > 0 {
        let [slow, lost] = [&made.slow, &made.lost].map(|nodes| names(coordinator, nodes));
        let why = match (slow.is_empty(), lost.is_empty()) {
            (true, true) => "nodes are faster than the plan assumed",
            (false, true) => "nodes are slower than the plan assumed",
            (true, false) => "nodes that pass bytes on are lost",
            (false, false) => "nodes are slower than the plan assumed, and others are lost",
        };
        return TransferEvent::Replan { plan, why: why.into(), slow, lost, predicted_seconds };
    }
    let adverts: Vec<Option<NodeAdvert>> =
        coordinator.peers().iter().map(PeerRecord::advert).collect();
    let bound = bound(coordinator, coordinator.roster().assumes_speed(&adverts));
    let (bound_seconds, bottleneck) = bound.unzip();
    TransferEvent::Plan {
        plan,
        scheduler: coordinator.plan().map_or("", |plan| plan.scheduler.name()).into(),
        // A limit is none of the planner's.
        predicted_seconds: predicted_seconds.max(bound_seconds.unwrap_or(0.0)),
        bound_seconds,
        bottleneck,
        bytes_total: coordinator.wanted_bytes(),
    }
}

fn incident(coordinator: &Coordinator, incident: &NodeIncident) -> TransferEvent {
    let name = |node: &NodeIx| coordinator.roster().get(*node).address.to_string();
    let loss = |what: LostKind, node: &NodeIx, error: &Error| {
        let Error { code, message, .. } = error;
        let (code, reason) = (Code::number(*code), message.clone());
        TransferEvent::Loss { what, node: name(node), nic: None, peer: None, code, reason }
    };
    match incident {
        NodeIncident::Lost { node, error } => loss(LostKind::Node, node, error),
        NodeIncident::Broken { node, error } => loss(LostKind::Session, node, error),
        NodeIncident::Flow { node, loss } => TransferEvent::Loss {
            what: LostKind::Flow,
            node: name(node),
            nic: Some(loss.nic.clone()),
            peer: Some(loss.peer.clone()),
            code: Code::number(Code::Unreachable),
            reason: loss.reason.clone(),
        },
        NodeIncident::Restored { node } => TransferEvent::Restored { node: name(node) },
    }
}

/// Returns the names of the first nodes.
fn names(coordinator: &Coordinator, nodes: &[NodeIx]) -> Vec<String> {
    let named = nodes.iter().take(NAMED_MAX);
    named.map(|node| coordinator.roster().get(*node).address.to_string()).collect()
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;

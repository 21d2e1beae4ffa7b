//! A simulated cluster: its masters and nodes, and the loop that takes events to them.

use std::collections::BTreeMap;
#[cfg(test)]
use std::rc::Rc;
use std::time::Duration;

use super::context::SimContext;
use super::dues::NodeDues;
use super::flows::answer_flow;
use super::master::SimMaster;
use super::messages::{FlowTransit, OrderedChannel};
use super::messages::{SessionEnd, SessionRef, SimEvent};
use super::node::SimNode;
use super::schedule::EventLog;
use super::timeline::{TimelineEntry, TransferTimeline};
use super::world::{MasterIx, SimEndpoint, SimWorld};
#[cfg(test)]
use super::{net::NodeLinks, node::DiskOpener, world::InjectedFault};
use crate::core::error::{Code, Error};
use crate::core::master::attempt::AttemptConfig;
use crate::core::master::coordinator::TransferPhase;
use crate::core::master::roster::Roster;
use crate::core::master::summary;
use crate::core::piece::FlowIx;
use crate::core::receiver::scheduler::SchedulerCounts;
use crate::core::spec::RowRole;
use crate::core::units::{Moment, NodeIx, Span, union};

/// A transfer that takes longer than this on the virtual clock, and than [`LONGEST_BOUNDS`], is
/// stuck.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Number of bounds that a transfer may take.
const LONGEST_BOUNDS: f64 = 1e4;
/// Time for nodes to end when no master is left: a lease, and waits for what is under way.
const ENDED_WITHIN: Duration = Duration::from_secs(300);
/// A cluster that will run one transfer, in one attempt or more.
pub(crate) struct SimCluster {
    pub(super) cx: SimContext,
    pub(super) nodes: Vec<SimNode>,
    pub(super) masters: Vec<SimMaster>,
    /// Masters that have not begun.
    pending: BTreeMap<MasterIx, (Roster, AttemptConfig)>,
    /// Brought up to date after every event of a node.
    dues: NodeDues,
    /// Events that happen so long after the first bytes may move.
    later: Vec<(Duration, SimEvent)>,
    /// Latest end of the transfer, good or bad.
    pub(crate) deadline: Option<Moment>,
    log: EventLog,
}

/// End of a simulated transfer: that of the attempt that completed, or else of the last one.
#[derive(Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "a forecast needs less than tests do"))]
pub(crate) struct SimOutcome {
    pub(crate) seconds: f64,
    pub(crate) error: Option<Error>,
    pub(crate) digest: Option<String>,
    /// The same for each node that everything landed at.
    pub(crate) node_seconds: Vec<Option<f64>>,
    pub(crate) bound_seconds: f64,
    /// Number of plans that were made.
    pub(crate) plans: u32,
    pub(crate) counts: SchedulerCounts,
    pub(crate) history: TransferTimeline,
    /// Nodes that have heard the good-bye of the master.
    pub(crate) heard_out: Vec<bool>,
    pub(crate) log: Vec<String>,
}

impl SimCluster {
    /// A cluster of the nodes of `roster` in `world`.
    pub(crate) fn new(roster: Roster, terms: AttemptConfig, world: SimWorld) -> SimCluster {
        assert_eq!(roster.entries.len(), world.links.len(), "every node has links");
        let rails = |at: usize| world.rails.get(at).copied().unwrap_or(1);
        let nodes = (0..world.links.len())
            .map(|at| SimNode::new(NodeIx(at as u32), rails(at), world.launched))
            .collect();
        let mut cluster = SimCluster {
            dues: NodeDues::new(world.links.len()),
            cx: SimContext::new(world),
            nodes,
            masters: Vec::new(),
            pending: BTreeMap::new(),
            later: Vec::new(),
            deadline: None,
            log: EventLog::default(),
        };
        let master = SimMaster::begin(&mut cluster.cx, MasterIx(0), roster, terms);
        cluster.masters.push(master);
        for node in (0..cluster.nodes.len() as u32).map(NodeIx) {
            cluster.rearm(node);
        }
        cluster
    }

    /// Another master begins an attempt at `moment`.
    #[cfg(test)]
    pub(crate) fn add_master(&mut self, moment: Moment, roster: Roster, terms: AttemptConfig) {
        let master = MasterIx((self.masters.len() + self.pending.len()) as u32);
        self.pending.insert(master, (roster, terms));
        self.cx.schedule.at(moment, SimEvent::MasterBegins(master));
    }

    /// Something happens so long after the first bytes may move.
    pub(super) fn later(&mut self, after: Duration, event: SimEvent) {
        self.later.push((after, event));
    }

    /// Gives a node something to read from and write to, in each attempt.
    #[cfg(test)]
    pub(crate) fn set_disks(&mut self, node: NodeIx, open_disk: DiskOpener) {
        self.nodes[node.at()].set_disks(open_disk);
    }

    /// Has a worker of a node that opens files read for so long.
    #[cfg(test)]
    pub(crate) fn read_for(&mut self, node: NodeIx, reads_for: Duration) {
        self.nodes[node.at()].read_for(reads_for);
    }

    /// The log of events, also where a promise is broken.
    #[cfg(test)]
    pub(super) fn log(&self) -> EventLog {
        Rc::clone(&self.log)
    }

    /// A fault befalls the cluster at `moment`.
    #[cfg(test)]
    pub(crate) fn fault(&mut self, moment: Moment, fault: InjectedFault) {
        self.cx.schedule.at(moment, SimEvent::Fault(fault));
    }

    /// A node's links change at `moment`.
    #[cfg(test)]
    pub(crate) fn relink(&mut self, node: NodeIx, moment: Moment, links: NodeLinks) {
        self.cx.schedule.at(moment, SimEvent::Relink { node, links, told: None });
    }

    /// Returns true if every receiver has what it wants of an attempt, and every group between its
    /// participants.
    fn is_complete(&self, master: &SimMaster) -> bool {
        let attempt = master.coordinator().terms().identity().attempt;
        let entries = || master.coordinator().roster().entries.iter().zip(&self.nodes);
        let rows =
            || entries().flat_map(|(entry, node)| entry.rows.iter().map(move |row| (row, node)));
        let landed = |node: &SimNode| -> Vec<Span> {
            node.find(&attempt).map_or(Vec::new(), |(_, it)| it.landed.iter().copied().collect())
        };
        rows().filter(|(row, _)| row.role == RowRole::Receiver).all(|(row, node)| {
            let mates = rows().filter(|(mate, _)| mate.group.is_some() && mate.group == row.group);
            let mut have = landed(node);
            have.extend(mates.flat_map(|(_, mate)| landed(mate)));
            union(have).iter().any(|have| have.contains(row.range))
        })
    }

    fn is_over(&self) -> bool {
        self.pending.is_empty() && !self.masters.iter().any(SimMaster::is_running)
    }

    /// Runs until every master has ended, and until its nodes have left the transfer then.
    ///
    /// # Panics
    /// If a promise is broken, or the transfer hangs.
    pub(crate) fn run(mut self) -> SimOutcome {
        let mut began = None;
        while !self.is_over() {
            assert!(self.step(), "a master waits, and nothing is due");
            let is_moving = |it: &SimMaster| it.coordinator().phase() == TransferPhase::Moving;
            if began.is_none() && self.masters.iter().any(is_moving) {
                let now = self.cx.now();
                began = Some(now);
                for (after, event) in std::mem::take(&mut self.later) {
                    self.cx.schedule.at(now + after, event);
                }
            }
            let longest = LONGEST.as_secs_f64().max(self.bound_seconds() * LONGEST_BOUNDS);
            let now = self.cx.now();
            let is_late = now.since(began.unwrap_or_default()).as_secs_f64() > longest;
            let is_late = is_late || self.deadline.is_some_and(|deadline| now >= deadline);
            assert!(!is_late, "the transfer hangs");
        }
        self.cx.history.began = began.unwrap_or(self.cx.now());
        for master in &self.masters {
            let coordinator = master.coordinator();
            let is_everywhere =
                coordinator.error().is_none() && coordinator.phase() >= TransferPhase::Finishing;
            assert!(!is_everywhere || self.is_complete(master), "complete is complete");
        }
        self.wind_down();
        self.outcome()
    }

    /// No master is left: every node ends its attempts, and holds nothing then. Workers that hang
    /// are not waited for, and end after that.
    fn wind_down(&mut self) {
        let deadline = self.deadline.unwrap_or_default().max(self.cx.now()) + ENDED_WITHIN;
        while let Some(held) = self.held() {
            assert!(self.step(), "{held}, and nothing is due");
            assert!(self.cx.now() < deadline, "{held} for {ENDED_WITHIN:?} without a master");
        }
        while self.nodes.iter().any(SimNode::has_work) {
            assert!(self.step(), "a worker is at work, and nothing is due");
        }
    }

    /// Returns a part of the cluster that holds anything although no master is left.
    fn held(&self) -> Option<String> {
        let mut nodes = self.nodes.iter().enumerate();
        let held = nodes.find_map(|(at, node)| Some(format!("node {at} holds {}", node.held()?)));
        held.or_else(|| {
            let session = self.cx.sessions.held().next()?;
            Some(format!("{session:?} stands"))
        })
    }

    fn outcome(self) -> SimOutcome {
        let bound_seconds = self.bound_seconds();
        let told = self.masters.iter().position(SimMaster::is_complete);
        let told = told.unwrap_or(self.masters.len() - 1);
        let coordinator = self.masters[told].coordinator();
        let error = match coordinator.error() {
            None if !self.masters[told].is_complete() => {
                Some(Error::new(Code::Unreachable, "the master died"))
            }
            error => error,
        };
        let mut counts = SchedulerCounts::default();
        for peer in coordinator.peers() {
            counts.stolen_bytes += peer.stats().stolen_bytes;
            counts.wasted_bytes += peer.stats().wasted_bytes;
            counts.retries += peer.stats().retries;
            counts.resumed_bytes += peer.stats().resumed_bytes;
        }
        let (began, attempt) = (self.cx.history.began, coordinator.terms().identity().attempt);
        let node_seconds = self.nodes.iter().map(|node| {
            let committed = node.find(&attempt)?.1.committed?;
            Some(committed.since(began).as_secs_f64())
        });
        let heard_out = self.nodes.iter().map(|node| node.has_heard_out(MasterIx(told as u32)));
        SimOutcome {
            seconds: self.cx.history.seconds(),
            error,
            digest: coordinator.digest(),
            node_seconds: node_seconds.collect(),
            bound_seconds,
            plans: summary::plan_count(coordinator),
            counts,
            heard_out: heard_out.collect(),
            log: self.log.take(),
            history: self.cx.history,
        }
    }

    fn bound_seconds(&self) -> f64 {
        let plan = self.masters.last().and_then(|master| master.coordinator().plan());
        plan.map_or(0.0, |plan| plan.bound.seconds)
    }

    /// Goes to the next moment at which anything happens. Returns false if there is none.
    fn step(&mut self) -> bool {
        let due = self.dues.first().map(|(moment, _)| moment);
        let masters = self.masters.iter().filter_map(SimMaster::poll_timeout).min();
        let next = [self.cx.schedule.next(), self.cx.net.next_arrival(), due, masters];
        let Some(next) = next.into_iter().flatten().min() else { return false };
        let next = next.max(self.cx.now());
        self.cx.schedule.now = next;
        for (receiver, flow, transit) in self.cx.net.advance(next) {
            self.through(receiver, flow, transit);
        }
        while let Some((sequence, event)) = self.cx.schedule.take_due() {
            match self.cx.held(&event) {
                Some(until) => self.cx.schedule.put_off(until, sequence, event),
                None => {
                    if self.cx.world.keeps_log {
                        self.log.borrow_mut().push(format!("{} {event:?}", next.0));
                    }
                    self.happen(event);
                }
            }
        }
        self.tick();
        true
    }

    fn tick(&mut self) {
        let now = self.cx.now();
        while let Some((_, node)) = self.dues.first().filter(|&(due, _)| due <= now) {
            self.nodes[node.at()].tick(&mut self.cx);
            self.rearm(node);
        }
        for master in &mut self.masters {
            master.tick(&mut self.cx);
        }
    }

    /// Notes when a node's machines want their next tick.
    pub(super) fn rearm(&mut self, node: NodeIx) {
        let due = self.nodes[node.at()].poll_timeout();
        let due = due.map(|due| due.max(self.cx.reach.frozen_until(node)));
        self.dues.set(node, due);
    }

    /// Carries out all that a node wants after something happened to its rails.
    pub(super) fn follow(&mut self, node: NodeIx) {
        self.nodes[node.at()].follow(&mut self.cx);
        self.rearm(node);
    }

    fn happen(&mut self, event: SimEvent) {
        let now = self.cx.now();
        match event {
            SimEvent::MasterBegins(master) => {
                let (roster, terms) = self.pending.remove(&master).expect("it was added");
                if self.masters.iter().any(SimMaster::is_complete) {
                    // Nobody runs again what is complete.
                    return;
                }
                let master = SimMaster::begin(&mut self.cx, master, roster, terms);
                self.masters.push(master);
            }
            SimEvent::Connect(_)
            | SimEvent::Connected(_)
            | SimEvent::Refused(_)
            | SimEvent::DialOver(_)
            | SimEvent::ToNode { .. }
            | SimEvent::ToMaster { .. }
            | SimEvent::EndClosed { .. }
            | SimEvent::Breaks { .. } => self.session_event(event),
            SimEvent::Node(node, event) => {
                self.nodes[node.at()].handle(&mut self.cx, event);
                self.rearm(node);
            }
            SimEvent::JobDone { node, job } => {
                self.nodes[node.at()].job_done(&mut self.cx, job);
                self.rearm(node);
            }
            SimEvent::FlowOpened(opening) => {
                for node in
                    answer_flow(&mut self.cx, &mut self.nodes, opening).into_iter().flatten()
                {
                    self.rearm(node);
                }
            }
            SimEvent::Request { sender, flow, frame, .. } => {
                self.nodes[sender.at()].rails.requested(now, flow, frame);
                self.follow(sender);
            }
            SimEvent::Arrived { receiver, flow, message, .. } => {
                self.nodes[receiver.at()].rails.arrived(&mut self.cx, flow, message);
                self.follow(receiver);
            }
            SimEvent::Kernel { node, rail, op } => {
                self.nodes[node.at()].rails.end_op(&mut self.cx, rail, op);
                self.follow(node);
            }
            SimEvent::FlowClosed { node, flow, error } => {
                self.nodes[node.at()].rails.break_flow(now, flow, error);
                self.follow(node);
            }
            SimEvent::Relink { node, links, told } => {
                let news = told.map(TimelineEntry::Rate);
                news.into_iter().for_each(|news| self.cx.history.tell(now, node, news));
                self.cx.net.set_links(node, links);
            }
            SimEvent::Fault(fault) => self.inject(fault),
        }
    }

    fn session_event(&mut self, event: SimEvent) {
        let cx = &mut self.cx;
        let node_of = |session: SessionRef| session.node.at();
        let touched = match event {
            SimEvent::Connect(session) => return self.connect(session),
            SimEvent::Connected(session) => {
                let rails = cx.world.rails.get(node_of(session)).copied().unwrap_or(1);
                return self.masters[session.master.at()].connected(cx, session, rails);
            }
            SimEvent::Refused(session) | SimEvent::DialOver(session) => {
                if cx.sessions.is_dialling(session) {
                    let why = "no answer in time, or the connection was refused";
                    self.masters[session.master.at()].session_broken(cx, session, why);
                }
                return;
            }
            SimEvent::ToNode { session, index, message } => {
                if cx.sessions.receives(session, SessionEnd::Node) {
                    self.nodes[node_of(session)].hear(cx, session, index, message);
                }
                session.node
            }
            SimEvent::ToMaster { session, index, message } => {
                if cx.sessions.receives(session, SessionEnd::Master) {
                    self.masters[session.master.at()].hear(cx, session, index, message);
                }
                return;
            }
            SimEvent::EndClosed { session, at: SessionEnd::Node, close } => {
                self.nodes[node_of(session)].session_closed(cx, session, close);
                session.node
            }
            SimEvent::EndClosed { session, at: SessionEnd::Master, close } => {
                return self.masters[session.master.at()].session_closed(cx, session, close);
            }
            SimEvent::Breaks { session, at, if_silent } => {
                let [one, other] =
                    [SessionEnd::Master, SessionEnd::Node].map(|it| session.place(it));
                if if_silent && !cx.reach.is_silent(cx.now(), one, other) {
                    return;
                }
                match at {
                    SessionEnd::Node => self.nodes[node_of(session)].session_broken(cx, session),
                    SessionEnd::Master => {
                        let why = "connection timed out";
                        self.masters[session.master.at()].session_broken(cx, session, why);
                    }
                }
                session.node
            }
            _ => unreachable!("sorted out before"),
        };
        self.rearm(touched);
    }

    /// A master's dialling reaches a node.
    fn connect(&mut self, session: SessionRef) {
        let (cx, node) = (&mut self.cx, &mut self.nodes[session.node.at()]);
        let place = SimEndpoint::Node(session.node);
        if cx.reach.is_off(place) || cx.sessions.is_lost(session) {
            return;
        }
        if !node.is_running() {
            let channel = OrderedChannel::Session(session.session, SessionEnd::Master);
            return cx.schedule.in_order(channel, cx.world.latency, SimEvent::Refused(session));
        }
        cx.sessions.accept(&mut cx.schedule, session);
        if cx.reach.is_silent(cx.now(), SimEndpoint::Master(session.master), place) {
            cx.sessions.watch(&mut cx.schedule, session);
        }
        node.session_up(cx, session);
        self.rearm(session.node);
    }

    /// The last byte of a message has left its sender.
    fn through(&mut self, receiver: NodeIx, flow: FlowIx, transit: FlowTransit) {
        let FlowTransit { sender, from, message } = transit;
        self.nodes[sender.at()].rails.sent(&mut self.cx, from);
        let arrived = SimEvent::Arrived { sender, receiver, flow, message };
        let latency = self.cx.world.latency;
        self.cx.schedule.in_order(OrderedChannel::Data(receiver, flow), latency, arrived);
    }
}

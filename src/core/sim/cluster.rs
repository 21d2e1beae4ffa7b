//! The simulated world: one clock, one queue of happenings, the network, and what connects the
//! machines.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use random::SplitMix;

use super::injected_faults::NetworkCuts;
use super::net::{NodeLinks, SimNetwork, SimStore};
use super::node::{FlowMessage, PieceFaults, SimNode};
use super::rails::KernelOp;
use super::timeline::{TimelineEntry, TransferTimeline};
use crate::core::error::{Code, Error};
use crate::core::master::attempt::AttemptConfig;
use crate::core::master::coordinator;
use crate::core::master::coordinator::{Coordinator, TransferPhase};
use crate::core::master::roster::Roster;
use crate::core::node::participant;
use crate::core::node::participant::Participant;
use crate::core::piece::FlowIx;
use crate::core::rail::RailEvent;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler;
use crate::core::spec::RowRole;
use crate::core::units::{BitRate, Moment, NodeIx, Span, union};
use crate::core::wire::control;
use crate::core::wire::control::ToNode;
use crate::core::wire::{Check, Frame};

/// A transfer that takes longer than this on the virtual clock, and than [`LONGEST_BOUNDS`], is
/// stuck.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How many times its bound a transfer may take.
const LONGEST_BOUNDS: f64 = 1e4;
/// How long nodes go on by themselves, at most.
const ALONE_MAX: Duration = Duration::from_secs(20);
/// How long a node may take to end when its master is gone.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// The world that the machines run in.
#[derive(Clone, Debug)]
pub(crate) struct SimWorld {
    /// The links of every node.
    pub(crate) links: Vec<NodeLinks>,
    /// Rails of every node; they share its links. One where this says nothing.
    pub(crate) rails: Vec<usize>,
    pub(crate) stores: Vec<SimStore>,
    /// One way between any two nodes.
    pub(crate) latency: Duration,
    /// What a disk takes for one piece, besides its bytes.
    pub(crate) disk_latency: Duration,
    /// What a disk moves.
    pub(crate) disk_bytes_per_second: f64,
    /// What a disk may take longer, by chance.
    pub(crate) disk_whims: Duration,
    /// How long the master may take to notice that a node is gone.
    pub(crate) noticed_within: Duration,
    pub(crate) faults: PieceFaults,
    /// Where chance starts.
    pub(crate) seed: u64,
    /// Whether every event is written down.
    pub(crate) keeps_log: bool,
}

/// Something that will happen at a moment.
#[derive(Clone, Debug)]
pub(super) enum SimEvent {
    NodeUp(NodeIx),
    ToNode(NodeIx, Vec<u8>),
    ToMaster(NodeIx, Vec<u8>),
    GoodBye(NodeIx),
    Member(NodeIx, participant::ParticipantEvent),
    /// A node's disk has done what its participant wants of it.
    Done(NodeIx, DiskJob),
    FlowOpened {
        receiver: NodeIx,
        rail_pair: RailPair,
        weight: u64,
    },
    Request {
        receiver: NodeIx,
        sender: NodeIx,
        flow: FlowIx,
        frame: Frame,
    },
    Arrived {
        sender: NodeIx,
        receiver: NodeIx,
        flow: FlowIx,
        message: FlowMessage,
    },
    /// An operation of a node's kernel ends.
    Kernel {
        node: NodeIx,
        rail: usize,
        op: KernelOp,
    },
    /// A node hears that the peer has closed a flow.
    FlowClosed {
        node: NodeIx,
        flow: FlowIx,
        error: Error,
    },
    /// A node's links change; `told` is the line rate by which they do.
    Relink(NodeIx, NodeLinks, Option<BitRate>),
    Trouble(InjectedFault),
}

/// What a participant asks of its disk.
#[derive(Clone, Debug)]
pub(super) enum DiskJob {
    Preallocate { wanted: Vec<Span>, holes: Vec<Span>, kept: Vec<Span>, forgets: bool },
    Flush,
    Commit { landed_everywhere: bool, checks: Vec<(Span, Check)> },
    Leave,
}

/// What befalls a cluster; see [`super::injected_faults`].
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "a forecast has deaths alone"))]
pub(crate) enum InjectedFault {
    Kill(NodeIx),
    /// A node does nothing for so long.
    Freeze(NodeIx, Duration),
    /// Nothing gets from one place to another for so long.
    Cut(SimEndpoint, SimEndpoint, Duration),
    Heal(SimEndpoint, SimEndpoint),
    /// All flows of a node break.
    Reset(NodeIx),
    /// A control session breaks, with all that is on its way.
    Part(NodeIx),
    /// The session stands again, over another connection.
    Rejoin(NodeIx),
    /// The master gives a node up.
    Lose(NodeIx),
    /// Somebody cancels the transfer.
    Cancel,
}

/// A node, or the master.
pub(crate) type SimEndpoint = Option<NodeIx>;

/// What keeps to its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum OrderedChannel {
    ToNode(NodeIx),
    ToMaster(NodeIx),
    Requests(NodeIx, FlowIx),
    Data(NodeIx, FlowIx),
}

/// A cluster that will run one transfer.
pub(crate) struct SimCluster {
    pub(super) now: Moment,
    sequence: u64,
    pub(super) queue: BTreeMap<(Moment, u64), SimEvent>,
    pub(super) net: SimNetwork<FlowMessage>,
    pub(super) nodes: Vec<SimNode>,
    pub(super) coordinator: Coordinator,
    pub(super) world: SimWorld,
    pub(super) random: SplitMix,
    pub(super) cuts: NetworkCuts,
    /// When the last of what keeps to its order arrives.
    ways: BTreeMap<OrderedChannel, Moment>,
    /// The master is gone: what it is told it does not hear.
    pub(super) is_orphaned: bool,
    /// When the master dies.
    pub(crate) master_dies: Option<Moment>,
    /// When the transfer must have ended, well or not.
    pub(crate) deadline: Option<Moment>,
    /// When a machine of a node wants a tick, and the same by node. Brought up to date when the
    /// node is followed, as it must be after every event of its machines.
    due: BTreeSet<(Moment, NodeIx)>,
    due_of: Vec<Option<Moment>>,
    /// What happens so long after the first bytes may move.
    later: Vec<(Duration, SimEvent)>,
    pub(super) history: TransferTimeline,
    log: EventLog,
}

/// Every event of every machine, in order, where the world keeps it.
pub(super) type EventLog = Rc<RefCell<Vec<String>>>;

/// How a simulated transfer ended.
#[derive(Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "a forecast needs less than tests do"))]
pub(crate) struct SimOutcome {
    pub(crate) seconds: f64,
    pub(crate) error: Option<Error>,
    pub(crate) digest: Option<String>,
    /// The same for each node that everything landed at.
    pub(crate) node_seconds: Vec<Option<f64>>,
    pub(crate) bound_seconds: f64,
    pub(crate) counts: scheduler::SchedulerCounts,
    pub(crate) history: TransferTimeline,
    /// Which nodes were heard to the end: the others died, or lost their master.
    pub(crate) heard_out: Vec<bool>,
    pub(crate) log: Vec<String>,
}

impl SimCluster {
    /// A cluster of the nodes of `roster` in `world`.
    pub(crate) fn new(roster: Roster, terms: AttemptConfig, world: SimWorld) -> SimCluster {
        assert_eq!(roster.entries.len(), world.links.len(), "every node has links");
        let nodes = roster.entries.iter().enumerate().map(|(at, entry)| {
            let rails = world.rails.get(at).copied().unwrap_or(1);
            let of = |role: RowRole| {
                entry.rows.iter().filter(move |row| row.role == role).map(|row| row.range)
            };
            let [wanted, offered] =
                [RowRole::Receiver, RowRole::Sender].map(|role| union(of(role).collect()));
            SimNode::new(rails, terms.block_bytes(), wanted, offered)
        });
        let mut cluster = SimCluster {
            now: Moment(0),
            sequence: 0,
            queue: BTreeMap::new(),
            net: SimNetwork::new(&world.links, &world.stores),
            nodes: nodes.collect(),
            coordinator: Coordinator::new(Moment(0), roster, terms),
            random: SplitMix::new(world.seed),
            cuts: NetworkCuts::default(),
            ways: BTreeMap::new(),
            is_orphaned: false,
            master_dies: None,
            deadline: None,
            due: BTreeSet::new(),
            due_of: vec![None; world.links.len()],
            later: Vec::new(),
            history: TransferTimeline::default(),
            log: EventLog::default(),
            world,
        };
        for node in (0..cluster.nodes.len() as u32).map(NodeIx) {
            cluster.after(cluster.world.latency, SimEvent::NodeUp(node));
        }
        cluster
    }

    /// Something happens so long after the first bytes may move.
    pub(super) fn later(&mut self, after: Duration, happening: SimEvent) {
        self.later.push((after, happening));
    }

    /// Gives a node something to read from and write to.
    #[cfg(test)]
    pub(crate) fn set_disk(&mut self, node: NodeIx, disk: Box<dyn super::disk::SimDisk>) {
        self.nodes[node.at()].disk = disk;
    }

    /// What is written down, also where a promise is broken.
    #[cfg(test)]
    pub(super) fn log(&self) -> EventLog {
        Rc::clone(&self.log)
    }

    /// Something befalls the cluster at `moment`.
    #[cfg(test)]
    pub(crate) fn trouble(&mut self, moment: Moment, trouble: InjectedFault) {
        self.at(moment, SimEvent::Trouble(trouble));
    }

    /// A node's links change at `moment`.
    #[cfg(test)]
    pub(crate) fn relink(&mut self, node: NodeIx, moment: Moment, links: NodeLinks) {
        self.at(moment, SimEvent::Relink(node, links, None));
    }

    /// Whether every reader has what it wants, and every group between its participants.
    fn is_complete(&self) -> bool {
        let entries = || self.coordinator.roster().entries.iter().zip(&self.nodes);
        let readers =
            || entries().flat_map(|(entry, node)| entry.rows.iter().map(move |row| (row, node)));
        readers().filter(|(row, _)| row.role == RowRole::Receiver).all(|(row, node)| {
            let mates =
                readers().filter(|(mate, _)| mate.group.is_some() && mate.group == row.group);
            let have = union(
                node.landed
                    .iter()
                    .chain(mates.flat_map(|(_, mate)| &mate.landed))
                    .copied()
                    .collect(),
            );
            have.iter().any(|have| have.contains(row.range))
        })
    }

    /// Runs until the master is done, or dies, and until its nodes have left the transfer then.
    ///
    /// # Panics
    /// If a promise is broken, or the transfer hangs.
    pub(crate) fn run(mut self) -> SimOutcome {
        let mut began = None;
        while self.coordinator.phase() != TransferPhase::Done
            && self.master_dies.is_none_or(|dies| self.now < dies)
        {
            self.step();
            if began.is_none() && self.coordinator.phase() == TransferPhase::Moving {
                began = Some(self.now);
                for (after, happening) in std::mem::take(&mut self.later) {
                    self.at(self.now + after, happening);
                }
            }
            let longest = LONGEST.as_secs_f64().max(self.bound_seconds() * LONGEST_BOUNDS);
            let is_late = self.now.since(began.unwrap_or_default()).as_secs_f64() > longest;
            assert!(
                !is_late && self.deadline.is_none_or(|deadline| self.now < deadline),
                "the transfer hangs"
            );
        }
        self.history.began = began.unwrap_or(self.now);
        let is_done = self.coordinator.phase() == TransferPhase::Done;
        let error = match self.coordinator.error() {
            None if !is_done => Some(Error::new(Code::Unreachable, "the master died")),
            error => error,
        };
        let is_everywhere = self.coordinator.error().is_none()
            && self.coordinator.phase() >= TransferPhase::Finishing;
        assert!(!is_everywhere || self.is_complete(), "complete is complete");
        self.wind_down(error.is_none(), !is_done);
        let mut counts = scheduler::SchedulerCounts::default();
        for peer in self.coordinator.peers() {
            counts.stolen_bytes += peer.stats().stolen_bytes;
            counts.wasted_bytes += peer.stats().wasted_bytes;
            counts.retries += peer.stats().retries;
            counts.resumed_bytes += peer.stats().resumed_bytes;
        }
        let began = self.history.began;
        let node_seconds =
            self.nodes.iter().map(|node| node.committed.map(|at| at.since(began).as_secs_f64()));
        SimOutcome {
            seconds: self.history.seconds(),
            node_seconds: node_seconds.collect(),
            error,
            digest: self.coordinator.digest(),
            bound_seconds: self.bound_seconds(),
            counts,
            heard_out: self.nodes.iter().map(SimNode::is_reached).collect(),
            history: self.history,
            log: self.log.take(),
        }
    }

    /// The master is gone, and its sessions with it: every node that lives ends its attempt.
    fn wind_down(&mut self, is_complete: bool, died: bool) {
        self.is_orphaned = true;
        for node in (0..self.nodes.len() as u32).map(NodeIx) {
            // Nodes without a master go on, until another attempt takes their place or nothing
            // moves any more.
            let alone = if died && self.random.chance(500) { ALONE_MAX } else { Duration::ZERO };
            let within = (self.world.noticed_within + alone).as_nanos() as u64;
            let delay = self.world.latency + Duration::from_nanos(self.random.below(within + 1));
            let cancel = ToNode::Cancel { reason: "the master is gone".into(), forgets: false };
            let happening = match self.nodes[node.at()].parted {
                true => SimEvent::Member(node, participant::ParticipantEvent::Master(cancel)),
                false if is_complete => SimEvent::GoodBye(node),
                false => SimEvent::ToNode(node, control::encode(&cancel).expect("a reason is cut")),
            };
            self.in_order(OrderedChannel::ToNode(node), delay, happening);
        }
        let deadline = self.deadline.unwrap_or(self.now).max(self.now) + ENDED_WITHIN;
        let waits = |node: &SimNode| {
            node.is_in_attempt() || (is_complete && node.is_reached() && node.remembers)
        };
        while self.nodes.iter().any(waits) {
            self.step();
            assert!(self.now < deadline, "nodes do not end");
        }
    }

    fn bound_seconds(&self) -> f64 {
        self.coordinator.plan().map_or(0.0, |plan| plan.bound.seconds)
    }

    pub(super) fn at(&mut self, moment: Moment, happening: SimEvent) {
        self.sequence += 1;
        self.queue.insert((moment, self.sequence), happening);
    }

    pub(super) fn after(&mut self, delay: Duration, happening: SimEvent) {
        let moment = self.soon(delay);
        self.at(moment, happening);
    }

    /// The same for what is never overtaken by what comes later on the same way.
    pub(super) fn in_order(&mut self, way: OrderedChannel, delay: Duration, happening: SimEvent) {
        let soon = self.soon(delay);
        let moment = self.ways.get(&way).map_or(soon, |&last| soon.max(last));
        self.ways.insert(way, moment);
        self.at(moment, happening);
    }

    /// A little jitter, so that seeds differ in the order of things.
    fn soon(&mut self, delay: Duration) -> Moment {
        self.now + delay + Duration::from_nanos(self.random.below(10_000))
    }

    /// Goes to the next moment at which anything happens.
    pub(super) fn step(&mut self) {
        let queued = self.queue.first_key_value().map(|(&(moment, _), _)| moment);
        let due = self.due.first().map(|&(moment, _)| moment);
        let master = self.coordinator.poll_timeout().filter(|_| !self.is_orphaned);
        let next = [queued, self.net.next_arrival(), due, master].into_iter().flatten().min();
        let next = next.expect("a transfer that is not done waits for something").max(self.now);
        self.now = next;
        for (receiver, flow, message) in self.net.advance(next) {
            self.through(receiver, flow, message);
        }
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= next) {
            let ((_, sequence), happening) = entry.remove_entry();
            match self.held(&happening) {
                // In its old place: what was sent first arrives first, however long it was on the
                // way.
                Some(until) => _ = self.queue.insert((until, sequence), happening),
                None => {
                    if self.world.keeps_log {
                        self.log.borrow_mut().push(format!("{} {happening:?}", self.now.0));
                    }
                    self.happen(happening);
                }
            }
        }
        self.tick();
    }

    fn tick(&mut self) {
        while let Some(&(_, node)) = self.due.first().filter(|&&(due, _)| due <= self.now) {
            let state = &mut self.nodes[node.at()];
            for rail in &mut state.rails {
                if rail.machine.poll_timeout().is_some_and(|due| self.now >= due) {
                    rail.machine.handle(self.now, RailEvent::Tick);
                }
            }
            let participant = state.participant.as_mut();
            if let Some(participant) = participant
                .filter(|participant| participant.poll_timeout().is_some_and(|due| self.now >= due))
            {
                participant.handle(self.now, participant::ParticipantEvent::Tick);
            }
            self.follow(node);
        }
        let due = self.coordinator.poll_timeout().filter(|_| !self.is_orphaned);
        if due.is_some_and(|due| self.now >= due) {
            self.coordinator.handle(self.now, coordinator::CoordinatorEvent::Tick);
            self.follow_master();
        }
    }

    /// Takes down when a node's machines want their next tick.
    pub(super) fn rearm(&mut self, node: NodeIx) {
        let state = &self.nodes[node.at()];
        let participant = state.participant.as_ref().and_then(Participant::poll_timeout);
        let rails = state.rails.iter().filter_map(|rail| rail.machine.poll_timeout());
        let due = rails.chain(participant).min().filter(|_| state.alive);
        let due = due.map(|due| due.max(state.frozen_until));
        let before = std::mem::replace(&mut self.due_of[node.at()], due);
        if before != due {
            before.iter().for_each(|&before| _ = self.due.remove(&(before, node)));
            self.due.extend(due.map(|due| (due, node)));
        }
    }

    fn happen(&mut self, happening: SimEvent) {
        match happening {
            SimEvent::NodeUp(node) => self.node_up(node),
            SimEvent::ToNode(node, message) => self.node_hears(node, &message),
            SimEvent::ToMaster(node, message) => self.master_hears(node, &message),
            SimEvent::GoodBye(node) => self.good_bye(node),
            SimEvent::Member(node, event) => self.participant(node, event),
            SimEvent::Done(node, job) => self.done(node, job),
            SimEvent::FlowOpened { receiver, rail_pair, weight } => {
                self.flow_opened(receiver, rail_pair, weight);
            }
            SimEvent::Request { sender, flow, frame, .. } => self.requested(sender, flow, frame),
            SimEvent::Arrived { receiver, flow, message, .. } => {
                self.arrived(receiver, flow, message);
            }
            SimEvent::Kernel { node, rail, op } => self.kernel(node, rail, op),
            SimEvent::FlowClosed { node, flow, error } => {
                if self.nodes[node.at()].alive {
                    self.break_flow(node, flow, error);
                }
            }
            SimEvent::Relink(node, links, rate) => {
                rate.iter()
                    .for_each(|&rate| self.history.tell(self.now, node, TimelineEntry::Rate(rate)));
                self.net.set_links(node, links);
            }
            SimEvent::Trouble(trouble) => self.inject(trouble),
        }
    }
}

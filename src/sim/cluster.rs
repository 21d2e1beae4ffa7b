//! The simulated world: one clock, one queue of happenings, the network, and what connects the machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::{History, News};
use super::net::{Links, Net, Store};
use super::node::{End, Faults, Node, Parcel};
use super::random::Random;
use crate::engine::lanes::Lane;
use crate::engine::member::{self, Kept, Member};
use crate::engine::pull;
use crate::engine::serve::{self, Ask};
use crate::engine::{FlowIx, Piece, owner};
use crate::error::{Code, Error};
use crate::master::conduct::{self, Conductor, Phase};
use crate::master::roster::Roster;
use crate::master::terms::Terms;
use crate::spec::Role;
use crate::units::{BitRate, Moment, NodeIx, union};
use crate::wire::Check;
use crate::wire::control::{self, Advert, Rail, ToMaster, ToNode};

/// A transfer that takes longer than this on the virtual clock, and than [`LONGEST_BOUNDS`], is stuck.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How many times its bound a transfer may take.
const LONGEST_BOUNDS: f64 = 1e4;

/// The world that the machines run in.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The links of every node.
    pub(crate) links: Vec<Links>,
    pub(crate) stores: Vec<Store>,
    /// One way between any two nodes.
    pub(crate) latency: Duration,
    /// What a disk takes for one piece, besides its bytes.
    pub(crate) disk_latency: Duration,
    /// What a disk moves.
    pub(crate) disk_bytes_per_second: f64,
    pub(crate) faults: Faults,
    /// Where chance starts.
    pub(crate) seed: u64,
    /// Whether every event is written down.
    pub(crate) keeps_log: bool,
}

/// Something that will happen at a moment.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    NodeUp(NodeIx),
    ToNode(NodeIx, Vec<u8>),
    ToMaster(NodeIx, Vec<u8>),
    Member(NodeIx, member::Event),
    FlowOpened {
        receiver: NodeIx,
        lane: Lane,
        weight: u64,
    },
    Request {
        sender: NodeIx,
        flow: FlowIx,
        ask: Ask,
    },
    Arrived {
        receiver: NodeIx,
        flow: FlowIx,
        parcel: Parcel,
    },
    Loaded {
        sender: NodeIx,
        flow: FlowIx,
        ask: Ask,
    },
    Written {
        receiver: NodeIx,
        flow: FlowIx,
        piece: Piece,
        check: Check,
    },
    Kill(NodeIx),
    #[cfg_attr(not(test), allow(dead_code, reason = "tests break sessions"))]
    /// A control session breaks, with all that is on its way.
    Part(NodeIx),
    #[cfg_attr(not(test), allow(dead_code, reason = "tests break sessions"))]
    /// The session stands again, over another connection.
    Rejoin(NodeIx),
    /// A node's links change; `told` is the line rate by which they do.
    Relink(NodeIx, Links, Option<BitRate>),
}

/// A cluster that will run one transfer.
pub(crate) struct Cluster {
    pub(super) now: Moment,
    sequence: u64,
    queue: BTreeMap<(Moment, u64), Happening>,
    pub(super) net: Net<Parcel>,
    pub(super) nodes: Vec<Node>,
    pub(super) conductor: Conductor,
    pub(super) world: World,
    pub(super) random: Random,
    /// When a machine of a node wants a tick, and the same by node. Brought up to date when the node is followed, as it must be
    /// after every event of its machines.
    due: BTreeSet<(Moment, NodeIx)>,
    due_of: Vec<Option<Moment>>,
    /// What happens so long after the first bytes may move.
    later: Vec<(Duration, Happening)>,
    pub(super) history: History,
    log: Vec<String>,
}

/// How a simulated transfer ended.
#[derive(Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "a forecast needs less than tests do"))]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) error: Option<Error>,
    pub(crate) digest: Option<String>,
    /// The same for each node that everything landed at.
    pub(crate) node_seconds: Vec<Option<f64>>,
    pub(crate) bound_seconds: f64,
    pub(crate) counts: owner::Counts,
    pub(crate) history: History,
    /// What each node keeps for another attempt.
    pub(crate) kept: Vec<Vec<Kept>>,
    /// Every event of every machine, in order, where the world keeps it.
    pub(crate) log: Vec<String>,
}

/// What a simulated node says of itself: one NIC whose speed it does not know.
fn advert() -> Advert {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let rail = Rail { nic: "sim0".into(), address, line: None, mtu: None, numa: None };
    Advert { software: "simulator".into(), rails: vec![rail], cores: 1, boot_id: String::new(), incarnation: 1 }
}

impl Cluster {
    /// A cluster of the nodes of `roster` in `world`.
    pub(crate) fn new(roster: Roster, terms: Terms, world: World) -> Cluster {
        assert_eq!(roster.entries.len(), world.links.len(), "every node has links");
        let nodes = roster.entries.iter().map(|entry| {
            let of = |role: Role| entry.rows.iter().filter(move |row| row.role == role).map(|row| row.range);
            let [wanted, offered] = [Role::Receiver, Role::Sender].map(|role| union(of(role).collect()));
            Node::new(terms.block_bytes(), terms.silence(), wanted, offered)
        });
        let mut cluster = Cluster {
            now: Moment(0),
            sequence: 0,
            queue: BTreeMap::new(),
            net: Net::new(&world.links, &world.stores),
            nodes: nodes.collect(),
            conductor: Conductor::new(Moment(0), roster, terms),
            random: Random::new(world.seed),
            due: BTreeSet::new(),
            due_of: vec![None; world.links.len()],
            later: Vec::new(),
            history: History::default(),
            log: Vec::new(),
            world,
        };
        for node in (0..cluster.nodes.len() as u32).map(NodeIx) {
            cluster.after(cluster.world.latency, Happening::NodeUp(node));
        }
        cluster
    }

    /// Something happens so long after the first bytes may move.
    pub(super) fn later(&mut self, after: Duration, happening: Happening) {
        self.later.push((after, happening));
    }

    /// A node dies at `moment`.
    #[cfg(test)]
    pub(crate) fn kill(&mut self, node: NodeIx, moment: Moment) {
        self.at(moment, Happening::Kill(node));
    }

    /// A node's control session breaks at `moment`, and is resumed after `away`.
    #[cfg(test)]
    pub(crate) fn part(&mut self, node: NodeIx, moment: Moment, away: Duration) {
        self.at(moment, Happening::Part(node));
        self.at(moment + away, Happening::Rejoin(node));
    }

    /// A node's links change at `moment`.
    #[cfg(test)]
    pub(crate) fn relink(&mut self, node: NodeIx, moment: Moment, links: Links) {
        self.at(moment, Happening::Relink(node, links, None));
    }

    /// Whether every reader has what it wants, and every group between its members.
    fn is_complete(&self) -> bool {
        let entries = || self.conductor.roster().entries.iter().zip(&self.nodes);
        let readers = || entries().flat_map(|(entry, node)| entry.rows.iter().map(move |row| (row, node)));
        readers().filter(|(row, _)| row.role == Role::Receiver).all(|(row, node)| {
            let mates = readers().filter(|(mate, _)| mate.group.is_some() && mate.group == row.group);
            let have = union(node.landed.iter().chain(mates.flat_map(|(_, mate)| &mate.landed)).copied().collect());
            have.iter().any(|have| have.contains(row.range))
        })
    }

    /// Runs until the master is done.
    ///
    /// # Panics
    /// If a promise is broken, or the transfer hangs.
    pub(crate) fn run(mut self) -> Outcome {
        let mut began = None;
        while self.conductor.phase() != Phase::Done {
            self.step();
            if began.is_none() && self.conductor.phase() == Phase::Moving {
                began = Some(self.now);
                for (after, happening) in std::mem::take(&mut self.later) {
                    self.at(self.now + after, happening);
                }
            }
            let longest = LONGEST.as_secs_f64().max(self.bound_seconds() * LONGEST_BOUNDS);
            assert!(self.now.since(began.unwrap_or_default()).as_secs_f64() < longest, "the transfer hangs");
        }
        self.history.began = began.unwrap_or(self.now);
        let error = self.conductor.error();
        if error.is_none() {
            assert!(self.is_complete(), "complete is complete");
        }
        let mut counts = owner::Counts::default();
        for peer in self.conductor.peers() {
            counts.stolen_bytes += peer.stats().stolen_bytes;
            counts.wasted_bytes += peer.stats().wasted_bytes;
            counts.retries += peer.stats().retries;
            counts.resumed_bytes += peer.stats().resumed_bytes;
        }
        let began = self.history.began;
        let node_seconds = self.nodes.iter().map(|node| node.committed.map(|at| at.since(began).as_secs_f64()));
        Outcome {
            seconds: self.history.seconds(),
            node_seconds: node_seconds.collect(),
            error,
            digest: self.conductor.digest(),
            bound_seconds: self.bound_seconds(),
            counts,
            history: self.history,
            kept: self.nodes.into_iter().map(|node| node.kept).collect(),
            log: self.log,
        }
    }

    fn bound_seconds(&self) -> f64 {
        self.conductor.plan().map_or(0.0, |plan| plan.bound.seconds)
    }

    pub(super) fn at(&mut self, moment: Moment, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((moment, self.sequence), happening);
    }

    pub(super) fn after(&mut self, delay: Duration, happening: Happening) {
        // A little jitter, so that seeds differ in the order of things.
        let jitter = Duration::from_nanos(self.random.below(10_000));
        self.at(self.now + delay + jitter, happening);
    }

    /// Goes to the next moment at which anything happens.
    fn step(&mut self) {
        let queued = self.queue.first_key_value().map(|(&(moment, _), _)| moment);
        let due = self.due.first().map(|&(moment, _)| moment);
        let next = [queued, self.net.next_arrival(), due, self.conductor.poll_timeout()].into_iter().flatten().min();
        let next = next.expect("a transfer that is not done waits for something").max(self.now);
        self.now = next;
        for (receiver, flow, parcel) in self.net.advance(next) {
            self.through(receiver, flow, parcel);
        }
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= next) {
            let happening = entry.remove();
            if self.world.keeps_log {
                self.log.push(format!("{} {happening:?}", self.now.0));
            }
            self.happen(happening);
        }
        self.tick();
    }

    fn tick(&mut self) {
        while let Some(&(_, node)) = self.due.first().filter(|&&(due, _)| due <= self.now) {
            let state = &mut self.nodes[node.at()];
            if state.pull.poll_timeout().is_some_and(|due| self.now >= due) {
                state.pull.handle(self.now, pull::Event::Tick);
            }
            let member = state.member.as_mut();
            if let Some(member) = member.filter(|member| member.poll_timeout().is_some_and(|due| self.now >= due)) {
                member.handle(self.now, member::Event::Tick);
            }
            self.follow(node);
        }
        if self.conductor.poll_timeout().is_some_and(|due| self.now >= due) {
            self.conductor.handle(self.now, conduct::Event::Tick);
            self.follow_master();
        }
    }

    /// Takes down when a node's machines want their next tick.
    fn rearm(&mut self, node: NodeIx) {
        let state = &self.nodes[node.at()];
        let member = state.member.as_ref().and_then(Member::poll_timeout);
        let due = [state.pull.poll_timeout(), member].into_iter().flatten().min().filter(|_| state.alive);
        let before = std::mem::replace(&mut self.due_of[node.at()], due);
        if before != due {
            before.iter().for_each(|&before| _ = self.due.remove(&(before, node)));
            self.due.extend(due.map(|due| (due, node)));
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::NodeUp(node) => {
                self.conductor.handle(self.now, conduct::Event::NodeUp { node, advert: advert() });
                self.follow_master();
            }
            Happening::ToNode(node, message) if self.nodes[node.at()].alive => {
                let message = control::decode::<ToNode>(&message).expect("the master speaks the protocol");
                self.nodes[node.at()].talk.hear();
                self.node_hears(node, message);
            }
            Happening::ToMaster(node, message) => {
                let message = control::decode::<ToMaster>(&message).expect("nodes speak the protocol");
                self.nodes[node.at()].heard_of += u32::from(message.is_counted());
                self.history.hear(self.now, node, &message);
                self.conductor.handle(self.now, conduct::Event::Message { node, message });
                self.follow_master();
            }
            Happening::Member(node, event) => self.member(node, event),
            Happening::FlowOpened { receiver, lane, weight } => self.flow_opened(receiver, lane, weight),
            Happening::Request { sender, flow, ask } => {
                if self.nodes[sender.at()].serving.contains_key(&flow) {
                    self.requested(sender, flow, ask);
                    self.follow(sender);
                }
            }
            Happening::Arrived { receiver, flow, parcel } => self.arrived(receiver, flow, parcel),
            Happening::Loaded { sender, flow, ask } => {
                let result = if self.random.chance(self.world.faults.unreadable) { Err(Code::Data) } else { Ok(()) };
                self.nodes[sender.at()].serve.handle(serve::Event::Loaded { flow, ask, result });
                self.follow(sender);
            }
            Happening::Written { receiver, flow, piece, check } => self.written(receiver, flow, piece, check),
            Happening::Kill(node) => {
                self.history.tell(self.now, node, News::Died);
                self.die(node);
            }
            Happening::Part(node) => self.part_now(node),
            Happening::Rejoin(node) => self.rejoin(node),
            Happening::Relink(node, links, rate) => {
                rate.iter().for_each(|&rate| self.history.tell(self.now, node, News::Rate(rate)));
                self.net.set_links(node, links);
            }
            Happening::ToNode(..) => {}
        }
    }

    fn node_hears(&mut self, node: NodeIx, message: ToNode) {
        if let ToNode::Prepare(prepare) = message {
            self.prepare(node, &prepare);
        } else {
            self.member(node, member::Event::Master(message));
        }
    }

    pub(super) fn member(&mut self, node: NodeIx, event: member::Event) {
        let state = &mut self.nodes[node.at()];
        if let Some(member) = state.member.as_mut().filter(|_| state.alive) {
            member.handle(self.now, event);
            self.follow(node);
        }
    }

    fn follow_master(&mut self) {
        while let Some(action) = self.conductor.poll_action() {
            let conduct::Action { node, message } = action;
            if !self.nodes[node.at()].parted {
                let bytes = control::encode(&message);
                self.after(self.world.latency, Happening::ToNode(node, bytes));
            }
        }
    }

    fn part_now(&mut self, node: NodeIx) {
        self.nodes[node.at()].parted = true;
        self.queue.retain(|_, it| !matches!(it, Happening::ToNode(of, _) | Happening::ToMaster(of, _) if *of == node));
    }

    /// Both sides say again what the other has not heard.
    fn rejoin(&mut self, node: NodeIx) {
        let state = &mut self.nodes[node.at()];
        state.parted = false;
        let (heard, unheard) = (state.talk.heard(), state.talk.unheard(state.heard_of).to_vec());
        for message in unheard {
            self.after(self.world.latency, Happening::ToMaster(node, message));
        }
        self.conductor.handle(self.now, conduct::Event::NodeBack { node, heard });
        self.follow_master();
    }

    /// Carries out everything that a node's machines want, until they want nothing.
    pub(super) fn follow(&mut self, node: NodeIx) {
        loop {
            let state = &mut self.nodes[node.at()];
            if let Some(event) = state.pull.poll_owner() {
                if let Some(member) = &mut state.member {
                    member.handle(self.now, member::Event::Owner(event));
                }
            } else if let Some(action) = state.member.as_mut().and_then(Member::poll_action) {
                self.member_action(node, action);
            } else if let Some(action) = state.pull.poll_action() {
                self.pull_action(node, action);
            } else if let Some(action) = state.serve.poll_action() {
                self.serve_action(node, action);
            } else {
                break;
            }
        }
        let state = &mut self.nodes[node.at()];
        if state.draining && state.writing == 0 {
            state.draining = false;
            self.after(Duration::ZERO, Happening::Member(node, member::Event::Drained));
        }
        self.rearm(node);
    }

    fn member_action(&mut self, node: NodeIx, action: member::Action) {
        use member::Action;
        let now = self.now;
        let state = &mut self.nodes[node.at()];
        match action {
            Action::Preallocate { kept, .. } => {
                self.begin(node, &kept);
                self.after(self.world.disk_latency, Happening::Member(node, member::Event::Preallocated(Ok(()))));
            }
            Action::Open { lane, weight, .. } => {
                self.after(3 * self.world.latency, Happening::FlowOpened { receiver: node, lane, weight });
            }
            Action::Lease { flow, pieces } => state.pull.handle(now, pull::Event::Lease { flow, pieces }),
            Action::Revoke { flow, pieces } => state.pull.handle(now, pull::Event::Revoke { flow, pieces }),
            Action::Close { flow } => self.close(node, flow, &Error::new(Code::Cancelled, "closed")),
            Action::Offer { span } => {
                state.relay.land(span);
                while let Some((flow, ask)) = state.relay.poll_ready() {
                    state.serve.handle(serve::Event::Request { flow, ask });
                }
            }
            Action::Withdraw { span } => {
                for (flow, ask) in state.relay.give_up(span) {
                    self.serve_action(node, serve::Action::Refuse { flow, ask, code: Code::Data });
                }
            }
            Action::Drain => {
                let flows: Vec<FlowIx> = state.fetching.keys().copied().collect();
                state.parked.clear();
                state.draining = true;
                for flow in flows {
                    self.close(node, flow, &Error::new(Code::Cancelled, "drained"));
                }
            }
            Action::Commit { .. } => {
                state.committed.get_or_insert(now);
                self.after(self.world.disk_latency, Happening::Member(node, member::Event::Committed(Ok(()))));
            }
            Action::Tell(message) => {
                let bytes = control::encode(&message);
                if message.is_counted() {
                    state.talk.say(bytes.clone());
                }
                if !state.parted {
                    self.after(self.world.latency, Happening::ToMaster(node, bytes));
                }
            }
            Action::Keep { pieces } => {
                state.kept.extend(pieces);
                self.after(Duration::ZERO, Happening::Member(node, member::Event::Kept));
            }
            Action::Leave => self.after(Duration::ZERO, Happening::Member(node, member::Event::Left)),
            Action::Confirm | Action::Discard | Action::End => {}
        }
    }

    fn die(&mut self, node: NodeIx) {
        self.nodes[node.at()].alive = false;
        self.rearm(node);
        let fetching: Vec<FlowIx> = self.nodes[node.at()].fetching.keys().copied().collect();
        let serving: Vec<End> = self.nodes[node.at()].serving.values().copied().collect();
        let error = Error::new(Code::Unreachable, "connection reset");
        for flow in fetching {
            self.close(node, flow, &error);
        }
        for end in serving {
            self.close(end.peer, end.there, &error);
        }
        let error = Error::new(Code::Unreachable, "the control session broke");
        self.conductor.handle(self.now, conduct::Event::NodeDown { node, error });
        self.follow_master();
    }
}

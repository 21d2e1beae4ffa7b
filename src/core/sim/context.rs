//! The surroundings of the machines of a cluster: time, network, sessions, and what is in their
//! way.

use std::time::Duration;

use super::messages::{FlowTransit, SessionEnd, SessionRef, SimEvent};
use super::net::SimNetwork;
use super::schedule::SimSchedule;
use super::sessions::SimSessions;
use super::timeline::TransferTimeline;
use super::world::{DiskUse, SimEndpoint, SimReach, SimWorld};
use crate::core::units::{Moment, NodeIx};

/// Payload of a packet.
pub(super) const PACKET_BYTES: u64 = 1448;

/// Everything that nodes and masters share.
pub(super) struct SimContext {
    pub(super) schedule: SimSchedule,
    pub(super) net: SimNetwork<FlowTransit>,
    pub(super) sessions: SimSessions,
    pub(super) reach: SimReach,
    pub(super) history: TransferTimeline,
    pub(super) world: SimWorld,
    /// Moments at which serial disks are through with what they were given: reads and writes.
    disks_free: Vec<[Moment; 2]>,
}

impl SimContext {
    pub(super) fn new(world: SimWorld) -> SimContext {
        let mut net = SimNetwork::new(&world.links, &world.stores);
        world.lossy.into_iter().for_each(|path| net.limit_flows(path.bytes_per_second));
        SimContext {
            schedule: SimSchedule::new(world.seed, world.latency),
            net,
            sessions: SimSessions::default(),
            reach: SimReach::default(),
            history: TransferTimeline::default(),
            disks_free: vec![[Moment(0); 2]; world.links.len()],
            world,
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.schedule.now
    }

    /// True `per_mille` times in a thousand.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.schedule.random.chance(per_mille)
    }

    /// Returns true if one of the packets of so many bytes is changed on the way.
    pub(super) fn has_changed_packet(&mut self, bytes: u64) -> bool {
        let one_in = self.world.faults.changed_packet_in;
        let mut packets = 0..if one_in > 0 { bytes.div_ceil(PACKET_BYTES) } else { 0 };
        packets.any(|_| self.schedule.random.one_in(one_in))
    }

    pub(super) fn after(&mut self, delay: Duration, event: SimEvent) {
        self.schedule.after(delay, event);
    }

    /// The time of a disk for so many bytes.
    pub(super) fn disk_seconds(&mut self, bytes: u64) -> Duration {
        let jitter = self.schedule.within(self.world.disk_whims);
        self.world.disk_latency
            + jitter
            + Duration::from_secs_f64(bytes as f64 / self.world.disk_bytes_per_second)
    }

    /// The time of the disk of a node for a piece of so many bytes.
    pub(super) fn piece_seconds(&mut self, node: NodeIx, used: DiskUse, bytes: u64) -> Duration {
        let seconds = self.disk_seconds(bytes);
        let Some(disk) = self.world.disks.get(node.at()).copied().flatten() else { return seconds };
        let (at, rate) = match used {
            DiskUse::Read => (0, disk.reads),
            DiskUse::Write => (1, disk.writes),
        };
        let now = self.now();
        let free = &mut self.disks_free[node.at()][at];
        *free = (*free).max(now) + Duration::from_secs_f64(bytes as f64 / rate);
        seconds + free.since(now)
    }

    /// Returns the moment until which two nodes cannot make a flow between each other, if they
    /// cannot.
    pub(super) fn apart(&self, receiver: NodeIx, sender: NodeIx) -> Option<Moment> {
        let [to, from] = [SimEndpoint::Node(receiver), SimEndpoint::Node(sender)];
        let cut = self.reach.cut_until(to, from).max(self.reach.cut_until(from, to));
        Some(cut.max(self.reach.frozen_until(sender))).filter(|until| *until > self.now())
    }

    /// Returns the moment until which an event that is due has to wait, because the one that is to
    /// take it in is frozen, hangs, or is out of reach.
    pub(super) fn held(&self, event: &SimEvent) -> Option<Moment> {
        let between = |from: SimEndpoint, to: SimEndpoint| {
            let frozen = match to {
                SimEndpoint::Node(node) => self.reach.frozen_until(node),
                SimEndpoint::Master(_) => Moment(0),
            };
            frozen.max(self.reach.cut_until(from, to))
        };
        let to_end = |session: SessionRef, end: SessionEnd| {
            between(session.place(end.other()), session.place(end))
        };
        let nodes = |from, to| between(SimEndpoint::Node(from), SimEndpoint::Node(to));
        let until = match *event {
            SimEvent::Connect(session) | SimEvent::ToNode { session, .. } => {
                to_end(session, SessionEnd::Node)
            }
            SimEvent::Connected(session)
            | SimEvent::Refused(session)
            | SimEvent::ToMaster { session, .. } => to_end(session, SessionEnd::Master),
            SimEvent::EndClosed { session, at, .. } => to_end(session, at),
            SimEvent::Breaks { session, at: SessionEnd::Node, .. } => {
                self.reach.frozen_until(session.node)
            }
            SimEvent::JobDone { node, .. } => self.reach.hung_until(node),
            SimEvent::Request { receiver, sender, .. } => nodes(receiver, sender),
            SimEvent::Arrived { receiver, sender, .. } => nodes(sender, receiver),
            SimEvent::FlowOpened(opening) => self.reach.frozen_until(opening.receiver),
            SimEvent::Node(node, _)
            | SimEvent::Kernel { node, .. }
            | SimEvent::FlowClosed { node, .. } => self.reach.frozen_until(node),
            SimEvent::MasterBegins(_)
            | SimEvent::DialOver(_)
            | SimEvent::Breaks { at: SessionEnd::Master, .. }
            | SimEvent::Relink { .. }
            | SimEvent::Fault(_) => Moment(0),
        };
        (until > self.now()).then_some(until)
    }
}

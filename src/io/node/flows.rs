//! Flows: opened to senders, taken in from receivers, and handed to the rail once they have proved
//! themselves.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Instant;

use affinity::NicAddress;
use mio::Token;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};

use super::node_transfer::NodeTransfer;
use super::openings::{CONNECT_WITHIN, FlowOpening, FlowOutcome, FlowRoute, RailPairHistory, ways};
use super::ports::RailPort;
use super::{HANDSHAKE_WITHIN, Node, SessionRole};
use super::{devices, stuck};
use crate::core::error::{Code, Error, Result};
use crate::core::node::machine::NodeEvent;
use crate::core::piece::TransferIx;
use crate::core::rail::FlowDirection;
use crate::core::receiver::rail_pairs::{RailPair, pair_by};
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::wire::control;
use crate::core::wire::control::FlowHello;
use crate::core::wire::version::ConnectionKind;
use crate::io::clock::awake;
use crate::io::rail::RailCommand;
use crate::io::session::{Connection, ConnectionHello, dial_over};

impl Node {
    /// Starts to open a flow on a rail pair.
    pub(super) fn open_flow(
        &mut self,
        transfer: TransferIx,
        rail_pair: RailPair,
        weight_bytes: u64,
        pace_bytes_per_second: u64,
    ) {
        let node_transfer = &self.transfers[&transfer];
        let rails = node_transfer.peers.get(&rail_pair.sender).map_or(&[][..], |peer| &peer.rails);
        let own: Vec<NicAddress> =
            node_transfer.ports.iter().map(|&port| self.ports[port].own).collect();
        let binds = |place: usize, peer: IpAddr| {
            let port = &self.ports[node_transfer.ports[place]];
            self.devices.bind_dialled(port.nic(), port.own(), peer)
        };
        let mut ways = ways(&own, rails, rail_pair.index as usize, binds);
        ways.iter_mut().for_each(|way| way.port = node_transfer.ports[way.port]);
        let remembered = self.detours.recall(&ways, |port| self.nic_of(port));
        if node_transfer.stories.get(&rail_pair).is_some_and(RailPairHistory::has_brought) {
            // One of these works: it is cut off now, and other pairs of rails would be in each
            // other's way.
            let usual = (ways[0].port, ways[0].address);
            ways.retain(|way| (way.port, way.address) == usual || Some(*way) == remembered);
        }
        let now = awake();
        let Some(opening) =
            FlowOpening::new(now, ways, remembered, weight_bytes, pace_bytes_per_second)
        else {
            let error = Error::new(Code::Internal, "the plan names a sender without an address");
            return self.lane_failed(transfer, rail_pair, error);
        };
        let usual = opening.usual();
        let nic = self.nic_of(usual.port);
        let node_transfer = self.transfers.get_mut(&transfer).expect("looked up above");
        node_transfer
            .stories
            .entry(rail_pair)
            .or_insert_with(|| RailPairHistory::new(nic, usual.address));
        node_transfer.openings.insert(rail_pair, opening);
        self.try_next_way(transfer, rail_pair);
    }

    /// Tries the next way to open a flow, beside those that are still waited for.
    pub(super) fn try_next_way(&mut self, transfer: TransferIx, rail_pair: RailPair) {
        let now = awake();
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        let Some(opening) = node_transfer.openings.get_mut(&rail_pair) else { return };
        let Some(way) = opening.next(now) else { return };
        let hello = FlowHello {
            transfer: node_transfer.prepare.transfer,
            attempt: node_transfer.prepare.attempt,
            from_node: node_transfer.prepare.node_index,
            to_node: rail_pair.sender.0,
            rail: u32::try_from(way.port).expect("ports are few"),
            weight_bytes: opening.weight_bytes,
            pace_bytes_per_second: opening.pace_bytes_per_second,
            silent_flows: node_transfer
                .stories
                .get(&rail_pair)
                .map_or(0, RailPairHistory::silent_flows),
        };
        let connection = self.dial_sender(transfer, way, &hello);
        let token = self.next_token();
        self.add_session(token, connection, SessionRole::Flow { transfer, rail_pair, way });
    }

    fn dial_sender(
        &self,
        transfer: TransferIx,
        way: FlowRoute,
        hello: &FlowHello,
    ) -> Result<Connection> {
        let node_transfer = &self.transfers[&transfer];
        let RailPort { nic, address: own, .. } = &self.ports[way.port];
        let bind = |socket: &OwnedFd| {
            if way.is_bound {
                devices::bind(socket, nic);
            }
        };
        let stream = dial_over(way.address, local_end(own.ip(), way.address), bind)?;
        let open = ConnectionHello { kind: ConnectionKind::Data, key_id: hello.transfer };
        let now = awake();
        let payload = control::encode(hello)?;
        let connection = Connection::initiate(
            stream,
            open,
            &node_transfer.flow_key,
            &payload,
            now + HANDSHAKE_WITHIN,
        )?;
        Ok(connection.connected_by(now + CONNECT_WITHIN))
    }

    /// The instant at which the next way of some flow is to be tried.
    pub(super) fn way_due(&self) -> Option<Instant> {
        let openings =
            self.transfers.values().flat_map(|node_transfer| node_transfer.openings.values());
        openings.filter_map(FlowOpening::due).min()
    }

    /// Tries the ways whose time has come.
    pub(super) fn try_due_ways(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (&transfer, node_transfer) in &self.transfers {
            let of = node_transfer
                .openings
                .iter()
                .filter(|(_, opening)| opening.due().is_some_and(|due| now >= due));
            due.extend(of.map(|(&rail_pair, _)| (transfer, rail_pair)));
        }
        for (transfer, rail_pair) in due {
            self.opening_is_slow(transfer, rail_pair);
            self.try_next_way(transfer, rail_pair);
        }
    }

    /// The master will want to know what is waited for, should nothing land any more.
    fn opening_is_slow(&mut self, transfer: TransferIx, rail_pair: RailPair) {
        let node_transfer = &self.transfers[&transfer];
        let so_far = node_transfer
            .openings
            .get(&rail_pair)
            .and_then(|it| it.so_far(awake(), |port| self.nic_of(port)));
        if let Some(error) = so_far {
            let event = SchedulerEvent::OpenSlow { rail_pair, error };
            self.handle(NodeEvent::Flow { transfer, event });
        }
    }

    /// A flow that this node opened stands.
    pub(super) fn flow_opened(
        &mut self,
        token: Token,
        transfer: TransferIx,
        rail_pair: RailPair,
        way: FlowRoute,
    ) {
        let session = self.sessions.remove(token).expect("called for a session that is up");
        let opening = self
            .transfers
            .get_mut(&transfer)
            .and_then(|node_transfer| node_transfer.openings.remove(&rail_pair));
        // One that comes up beside another that was faster is not needed.
        let Some(opening) = opening else { return };
        let is_rival = |role: SessionRole| match role {
            SessionRole::Flow { transfer: of, rail_pair: to, .. } => {
                (of, to) == (transfer, rail_pair)
            }
            _ => false,
        };
        self.sessions.remove_all(|session| is_rival(session.role));
        match session.connection.into_stream(self.poll.registry()) {
            Ok((socket, _)) => {
                self.way_came_up(transfer, rail_pair, &opening, way);
                let flow = self.next_flow();
                let mut relays = false;
                if let Some(node_transfer) = self.transfers.get_mut(&transfer) {
                    node_transfer.flows.insert(flow, (rail_pair, way.port));
                    relays =
                        node_transfer.peers.get(&rail_pair.sender).is_some_and(|peer| peer.relays);
                }
                let event = SchedulerEvent::FlowUp { flow, rail_pair };
                self.handle(NodeEvent::Flow { transfer, event });
                let direction = FlowDirection::Receive { relays };
                self.ports[way.port].rails.tell(
                    transfer,
                    RailCommand::FlowUp { transfer, flow, socket: socket.into(), direction },
                );
            }
            Err(error) => self.lane_failed(transfer, rail_pair, error),
        }
    }

    /// Notes how a flow came up, for later ones and for the report.
    fn way_came_up(
        &mut self,
        transfer: TransferIx,
        rail_pair: RailPair,
        opening: &FlowOpening,
        way: FlowRoute,
    ) {
        let names: Vec<String> = self.ports.iter().map(|port| port.nic().to_owned()).collect();
        self.detours.remember(opening.usual(), way, |port| names[port].clone());
        let FlowOutcome { took, is_detour } = opening.came_up(awake(), way);
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        if let (Some(took), Some(story)) = (took, node_transfer.stories.get_mut(&rail_pair)) {
            let FlowRoute { port, address, .. } = way;
            let how = if !is_detour {
                "it took so long to be answered".into()
            } else if (port, address) == (opening.usual().port, opening.usual().address) {
                "bound to the NIC it was not answered; not bound it was, by the kernel's routes"
                    .into()
            } else {
                format!("this pair was not answered, {} to {address} was", names[port])
            };
            story.came_up(took, how);
        }
    }

    /// One way to open a flow failed; others may be left.
    pub(super) fn flow_failed(
        &mut self,
        transfer: TransferIx,
        rail_pair: RailPair,
        way: FlowRoute,
        error: Error,
    ) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        let Some(opening) = node_transfer.openings.get_mut(&rail_pair) else { return };
        if opening.fail(way, error) {
            let opening = node_transfer.openings.remove(&rail_pair).expect("looked up above");
            let error = opening.error(|port| self.nic_of(port));
            self.lane_failed(transfer, rail_pair, error);
        } else if opening.is_idle() {
            self.try_next_way(transfer, rail_pair);
        }
    }

    /// No way is left to open a flow.
    fn lane_failed(&mut self, transfer: TransferIx, rail_pair: RailPair, error: Error) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        node_transfer.stories.entry(rail_pair).and_modify(|story| story.failed(&error));
        let event = SchedulerEvent::OpenFailed { rail_pair, error };
        self.handle(NodeEvent::Flow { transfer, event });
    }

    fn nic_of(&self, port: usize) -> String {
        self.ports[port].nic().to_owned()
    }

    /// A receiver's flow stands. One that is for another node, for an attempt that is over, or over
    /// a rail that the transfer does not use, is closed.
    pub(super) fn flow_arrived(&mut self, token: Token, port: usize) {
        let session = self.sessions.remove(token).expect("called for a session that is up");
        let Ok((socket, hello)) = session.connection.into_stream(self.poll.registry()) else {
            return;
        };
        let Ok(hello) = control::decode::<FlowHello>(&hello) else { return };
        let is_meant = |node_transfer: &NodeTransfer| {
            let prepare = &node_transfer.prepare;
            node_transfer.ports.contains(&port)
                && prepare.transfer == hello.transfer
                && prepare.attempt == hello.attempt
                && prepare.node_index == hello.to_node
        };
        let transfer = self
            .transfers
            .iter()
            .find(|(_, node_transfer)| is_meant(node_transfer))
            .map(|(&at, _)| at);
        if let Some(transfer) = transfer {
            let RailPort { nic, .. } = &self.ports[port];
            let peer = socket.peer_addr().map(|peer| peer.ip());
            if let (Ok(own), Ok(peer)) = (socket.local_addr(), &peer)
                && hello.silent_flows >= SILENT_FLOWS_MIN
                && let Some(stuck) = stuck::find(own, *peer)
                && let Some(node_transfer) = self.transfers.get_mut(&transfer)
            {
                let mtu =
                    self.ports[port].advert().mtu.map_or(String::new(), |mtu| format!(" of {mtu}"));
                node_transfer.large_packets_lost(nic, *peer, &mtu, stuck);
            }
            if peer.is_ok_and(|peer| self.devices.bind_accepted(nic, self.ports[port].own(), peer))
            {
                devices::bind(&socket, nic);
            }
            if hello.pace_bytes_per_second > 0 {
                // A kernel that cannot sends as fast as it goes; the receiver asks for no more than
                // it wants anyway.
                let pace = usize::try_from(hello.pace_bytes_per_second).unwrap_or(usize::MAX);
                let _ = setsockopt(&socket, MaxPacingRate, &pace);
            }
            let flow = self.next_flow();
            let direction = FlowDirection::Send { weight: hello.weight_bytes };
            self.ports[port].rails.tell(
                transfer,
                RailCommand::FlowUp { transfer, flow, socket: socket.into(), direction },
            );
        }
    }

    /// Notes what the report will tell of a flow.
    pub(super) fn note_flow(&mut self, transfer: TransferIx, event: &SchedulerEvent) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        match event {
            SchedulerEvent::Landed { flow, .. } => {
                node_transfer.story_of(*flow).into_iter().for_each(RailPairHistory::brought);
            }
            SchedulerEvent::FlowDown { flow, error } => {
                node_transfer.story_of(*flow).into_iter().for_each(|story| story.failed(error));
                node_transfer.flows.remove(flow);
            }
            SchedulerEvent::FlowUp { .. }
            | SchedulerEvent::Room { .. }
            | SchedulerEvent::Failed { .. }
            | SchedulerEvent::Returned { .. }
            | SchedulerEvent::OpenFailed { .. }
            | SchedulerEvent::OpenSlow { .. }
            | SchedulerEvent::Tick => {}
        }
    }
}

/// Silent flows of a rail pair after which its data is looked for in the kernel's table: after one,
/// the network may have been away for a moment.
const SILENT_FLOWS_MIN: u32 = 2;

// The kernel takes it as an unsigned long.
sockopt_impl!(MaxPacingRate, SetOnly, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, usize);

/// The port here and the rail there that make up rail pair `index`: rails of one subnet where there
/// are such, else those of one index, so that a router between them may carry it.
///
/// The threads of a NIC are rails of one subnet, so that they spread over the threads of the NIC at
/// the other end.
pub(super) fn pair(
    ports: &[NicAddress],
    rails: &[SocketAddr],
    index: usize,
) -> Option<(usize, SocketAddr)> {
    let (port, rail) = pair_by(ports.len(), rails.len(), index, |port, rail| {
        ports[port].reaches(rails[rail].ip())
    })?;
    Some((port, rails[rail]))
}

/// The local address that a flow leaves from: that of the rail, where it can reach the peer at all.
fn local_end(rail: IpAddr, peer: SocketAddr) -> Option<IpAddr> {
    let reaches = !rail.is_unspecified()
        && rail.is_ipv4() == peer.is_ipv4()
        && rail.is_loopback() == peer.ip().is_loopback();
    reaches.then_some(rail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NIC with `threads` threads in subnet 10.0.`subnet`.0/24.
    fn ports(nics: &[(u8, u8, usize)]) -> Vec<NicAddress> {
        let own = |&(subnet, host, threads): &(u8, u8, usize)| {
            vec![NicAddress { ip: [10, 0, subnet, host].into(), prefix_bits: 24 }; threads]
        };
        nics.iter().flat_map(own).collect()
    }

    /// The same as others see it: one address, a port of its own for each thread.
    fn rails(nics: &[(u8, u8, usize)]) -> Vec<SocketAddr> {
        let port = |(at, own): (usize, NicAddress)| {
            SocketAddr::new(own.ip, 1000 + u16::try_from(at).expect("few"))
        };
        ports(nics).into_iter().enumerate().map(port).collect()
    }

    /// The pairs that the rail pairs of `here` and `there` make up: rails by index.
    fn pairs(here: &[(u8, u8, usize)], there: &[(u8, u8, usize)]) -> Vec<(usize, usize)> {
        let (own, rails) = (ports(here), rails(there));
        let rail_pair = |index| {
            let (port, rail) = pair(&own, &rails, index).expect("there are rails");
            (port, rails.iter().position(|known| *known == rail).expect("one of them"))
        };
        (0..own.len().max(rails.len())).map(rail_pair).collect()
    }

    #[test]
    fn threads_of_one_nic_pair_with_threads_of_one_nic() {
        let nic = |host, threads| [(0, host, threads)];
        assert_eq!(pairs(&nic(1, 1), &nic(2, 1)), [(0, 0)]);
        assert_eq!(pairs(&nic(1, 1), &nic(2, 2)), [(0, 0), (0, 1)]);
        assert_eq!(pairs(&nic(1, 2), &nic(2, 1)), [(0, 0), (1, 0)]);
        assert_eq!(pairs(&nic(1, 2), &nic(2, 2)), [(0, 0), (1, 1)]);
        assert_eq!(pairs(&nic(1, 2), &nic(2, 3)), [(0, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn threads_of_several_nics_stay_within_their_subnets() {
        let node = |host, a, b| [(0, host, a), (1, host, b)];
        assert_eq!(pairs(&node(1, 2, 2), &node(2, 2, 2)), [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert_eq!(pairs(&node(1, 2, 2), &node(2, 1, 1)), [(0, 0), (1, 0), (2, 1), (3, 1)]);
        assert_eq!(pairs(&node(1, 1, 1), &node(2, 2, 2)), [(0, 0), (0, 1), (1, 2), (1, 3)]);
        // A group that does not begin at a multiple of its size pairs crosswise, and still one to
        // one.
        assert_eq!(pairs(&node(1, 1, 2), &node(2, 1, 2)), [(0, 0), (1, 2), (2, 1)]);
        assert_eq!(pairs(&node(1, 3, 1), &node(2, 1, 3)), [(0, 0), (1, 0), (2, 0), (3, 1)]);
        // The other way round in the advert.
        assert_eq!(
            pairs(&[(1, 1, 2), (0, 1, 2)], &node(2, 2, 2)),
            [(0, 2), (1, 3), (2, 0), (3, 1)]
        );
    }

    #[test]
    fn every_nic_is_used_where_subnets_say_nothing() {
        // All NICs in one subnet: the second thread of each finds the other NIC.
        let here = [(0, 1, 2), (0, 2, 2)];
        assert_eq!(pairs(&here, &[(0, 3, 1), (0, 4, 1)]), [(0, 0), (1, 1), (2, 0), (3, 1)]);
        assert_eq!(pairs(&here, &[(0, 3, 2), (0, 4, 2)]), [(0, 0), (1, 1), (2, 2), (3, 3)]);
        // A router between all of them.
        assert_eq!(pairs(&here, &[(8, 3, 2), (9, 4, 2)]), [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert_eq!(pairs(&here, &[(8, 3, 1)]), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    }

    #[test]
    fn nobody_to_pair_with() {
        assert_eq!(pair(&[], &rails(&[(0, 1, 1)]), 0), None);
        assert_eq!(pair(&ports(&[(0, 1, 1)]), &[], 0), None);
    }
}

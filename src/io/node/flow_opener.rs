//! The opener of flows: it dials senders by the ways that there are, remembers which of them came
//! up, and sets the sockets of flows up.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use affinity::NicAddress;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};

use super::devices::LocalAddresses;
use super::openings::{CONNECT_WITHIN, FlowOpening, FlowOutcome, OpeningWays};
use super::port_set::PortSet;
use super::routes::{FlowRoute, KnownDetours, KnownRoute, ways, ways_to};
use super::sessions::HANDSHAKE_WITHIN;
use super::transfer_flows::TransferFlows;
use super::{call_answers, devices, stuck};
use crate::core::error::{Code, Error, Result};
use crate::core::piece::FlowIx;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::wire::control;
use crate::core::wire::control::{FlowCall, FlowHello, PeerNode};
use crate::core::wire::version::ConnectionKind;
use crate::io::clock::awake;
use crate::io::session::{Connection, ConnectionHello, dial_over};

/// Silent flows of a rail pair after which its data is looked for in the kernel's table: after one,
/// the network may have been away for a moment.
const SILENT_FLOWS_MIN: u32 = 2;

/// Time that a sender that is called has to come: to be told, and to dial.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// The same where it may have to come through the launcher, which logs in for it. Three of them are
/// within the stall timeout.
const FAR_CALL_WITHIN: Duration = Duration::from_secs(9);
/// Rail pairs of two nodes that may go through the launcher, which is one program for all.
const CHANNEL_PAIRS: u32 = 2;

/// Opens flows, of all transfers.
pub(super) struct FlowOpener {
    /// The machine's interfaces, as they were when the last transfer began.
    devices: LocalAddresses,
    /// Ways that came up where the usual ones did not.
    detours: KnownDetours,
    /// Flows so far.
    flow_count: u32,
    /// Time that a sender has to come once it is called.
    call_within: Duration,
}

/// A flow that a receiver wants.
pub(super) struct WantedFlow {
    pub(super) rail_pair: RailPair,
    pub(super) weight_bytes: u64,
    pub(super) pace_bytes_per_second: u64,
}

impl FlowOpener {
    /// The opener of a node. One that was launched on another host may be reached through its
    /// launcher alone, if that is `far`.
    pub(super) fn new(is_far: bool) -> FlowOpener {
        FlowOpener {
            devices: LocalAddresses::default(),
            detours: KnownDetours::default(),
            flow_count: 0,
            call_within: if is_far { FAR_CALL_WITHIN } else { CALL_WITHIN },
        }
    }

    /// Reads the interfaces of this moment: a transfer begins. Flows that stay inside this machine
    /// are bound to none.
    pub(super) fn follow_devices(&mut self, ports: &PortSet) {
        if ports.are_inside() {
            return;
        }
        let devices = LocalAddresses::read();
        if devices != self.devices {
            self.detours.forget();
        }
        self.devices = devices;
    }

    /// An index for a flow that stands.
    pub(super) fn next_flow(&mut self) -> FlowIx {
        self.flow_count += 1;
        FlowIx(self.flow_count)
    }

    /// Starts to open a flow on a rail pair of a transfer. Its first way is to be dialled next.
    ///
    /// # Errors
    /// `Internal` where the plan names a sender that has no address.
    pub(super) fn open(
        &self,
        ports: &PortSet,
        flows: &mut TransferFlows,
        wanted: &WantedFlow,
    ) -> Result<()> {
        let &WantedFlow { rail_pair, weight_bytes, pace_bytes_per_second } = wanted;
        let rails = flows.peer(rail_pair.sender).map_or(&[][..], |peer| &peer.rails);
        let used = flows.ports();
        let own: Vec<NicAddress> = used.iter().map(|&port| ports.get(port).own()).collect();
        let binds = |place: usize, peer: IpAddr| {
            let port = ports.get(used[place]);
            self.devices.bind_dialled(port.nic(), port.own(), peer)
        };
        let mut ways = ways(&own, rails, rail_pair.index as usize, binds);
        ways.iter_mut().for_each(|way| way.port = used[way.port]);
        let Some(&usual) = ways.first() else {
            return Err(Error::new(Code::Internal, "the plan names a sender without an address"));
        };
        let channel = flows.peer(rail_pair.sender).and_then(|peer| peer.channel);
        let mut channel = channel_way(usual, channel, rail_pair);
        let all: Vec<FlowRoute> = ways.iter().copied().chain(channel).collect();
        let remembered = self.detours.recall(usual, &all, |port| ports.nic_of(port));
        let mut call_within = Some(self.call_within);
        if flows.has_brought(rail_pair) || rail_pair != rail_pair.own() {
            // One of these works: it is cut off now, and other pairs of rails would be in each
            // other's way.
            let is_known = |way: &FlowRoute| remembered == Some(KnownRoute::Dialled(*way));
            let usual = (usual.port, usual.address);
            ways.retain(|way| (way.port, way.address) == usual || is_known(way));
            channel = channel.filter(is_known);
            call_within = call_within.filter(|_| remembered == Some(KnownRoute::Called));
        }
        let ways = OpeningWays { ways, channel, call_within, remembered };
        let opening = FlowOpening::new(awake(), ways, weight_bytes, pace_bytes_per_second);
        if let Some(opening) = opening {
            flows.begin(rail_pair, opening, ports.nic_of(usual.port));
        }
        Ok(())
    }

    /// Starts to open a flow to a receiver that calls. Returns false if it has no address, or too
    /// many call.
    pub(super) fn answer(
        &self,
        ports: &PortSet,
        flows: &mut TransferFlows,
        call: FlowCall,
        receiver: &PeerNode,
    ) -> bool {
        let used = flows.ports();
        let Some(&at) = used.get(call.sender_rail as usize).or(used.first()) else { return false };
        let port = ports.get(at);
        let binds = |peer: IpAddr| self.devices.bind_dialled(port.nic(), port.own(), peer);
        let ways = ways_to(at, &receiver.rails, call.receiver_rail as usize, binds);
        let Some(&usual) = ways.first() else { return false };
        let channel = channel_way(usual, receiver.channel, call_answers::place_of(&call));
        let all: Vec<FlowRoute> = ways.iter().copied().chain(channel).collect();
        let remembered = self.detours.recall(usual, &all, |port| ports.nic_of(port));
        let ways = OpeningWays { ways, channel, call_within: None, remembered };
        let FlowCall { weight_bytes, pace_bytes_per_second, .. } = call;
        let opening = FlowOpening::new(awake(), ways, weight_bytes, pace_bytes_per_second);
        opening.is_some_and(|opening| flows.answers.begin(call, opening))
    }

    /// Notes how a flow came up, for later ones and for the report: by a way from here, or by none,
    /// because the sender was called.
    pub(super) fn came_up(
        &mut self,
        ports: &PortSet,
        flows: &mut TransferFlows,
        rail_pair: RailPair,
        opening: &FlowOpening,
        way: Option<FlowRoute>,
    ) {
        let usual = opening.usual();
        self.detours.remember(usual, way, |port| ports.nic_of(port));
        let FlowOutcome { took, is_detour } = opening.came_up(awake(), way);
        // Nothing waits for a further flow.
        let took = took.filter(|_| rail_pair == rail_pair.own());
        if let (Some(took), Some(history)) = (took, flows.history(rail_pair)) {
            let how = match way {
                _ if !is_detour => "it took so long to be answered".into(),
                None => "this node was not answered, and so it was dialled".into(),
                Some(way) if way.is_channel => {
                    "neither side was answered, and so it goes through the launcher".into()
                }
                Some(FlowRoute { port, address, .. })
                    if (port, address) == (usual.port, usual.address) =>
                {
                    "bound to the NIC it was not answered; not bound it was, by the kernel's routes"
                        .into()
                }
                Some(FlowRoute { port, address, .. }) => {
                    let nic = ports.nic_of(port);
                    format!("this pair was not answered, {nic} to {address} was")
                }
            };
            history.came_up(took, how);
        }
    }

    /// Notes how a flow to a receiver that called came up.
    pub(super) fn answered(&mut self, ports: &PortSet, opening: &FlowOpening, way: FlowRoute) {
        self.detours.remember(opening.usual(), Some(way), |port| ports.nic_of(port));
    }

    /// Sets up the socket of a receiver's flow, which has come in at `port`.
    pub(super) fn take_in(
        &self,
        ports: &PortSet,
        flows: &mut TransferFlows,
        port: usize,
        hello: &FlowHello,
        socket: &std::net::TcpStream,
    ) {
        let port = ports.get(port);
        let peer = socket.peer_addr().map(|peer| peer.ip());
        if let (Ok(own), Ok(peer)) = (socket.local_addr(), &peer)
            && hello.silent_flows >= SILENT_FLOWS_MIN
            && let Some(stuck) = stuck::find(own, *peer)
        {
            flows.large_packets_lost(port.nic(), *peer, port.advert().mtu, stuck);
        }
        if peer.is_ok_and(|peer| self.devices.bind_accepted(port.nic(), port.own(), peer)) {
            devices::bind(&socket.as_fd(), port.nic());
        }
        pace(socket, hello.pace_bytes_per_second);
    }
}

/// Limits the rate at which a sender's socket sends; 0 is none.
pub(super) fn pace(socket: &std::net::TcpStream, bytes_per_second: u64) {
    if bytes_per_second > 0 {
        // A kernel that cannot sends as fast as it goes; the receiver asks for no more than it
        // wants anyway.
        let _ = setsockopt(socket, MaxPacingRate, &pacing_rate(bytes_per_second));
    }
}

/// The way through the launcher, of few rail pairs.
fn channel_way(
    usual: FlowRoute,
    channel: Option<SocketAddr>,
    rail_pair: RailPair,
) -> Option<FlowRoute> {
    let address = channel.filter(|_| rail_pair.index < CHANNEL_PAIRS && rail_pair.further == 0)?;
    Some(FlowRoute { address, is_bound: false, is_channel: true, ..usual })
}

/// Before Linux 4.20 the kernel read the low half of a rate. One that is larger is rounded up to
/// where that half means no limit.
fn pacing_rate(bytes_per_second: u64) -> usize {
    const LOW: u64 = u32::MAX as u64;
    let rate = if bytes_per_second > LOW { bytes_per_second | LOW } else { bytes_per_second };
    usize::try_from(rate).unwrap_or(usize::MAX)
}

// The kernel takes it as an unsigned long.
sockopt_impl!(MaxPacingRate, SetOnly, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, usize);

/// Dials a way.
pub(super) fn dial(
    ports: &PortSet,
    flows: &TransferFlows,
    way: FlowRoute,
    hello: &FlowHello,
) -> Result<Connection> {
    let port = ports.get(way.port);
    let bind = |socket: &OwnedFd| {
        if way.is_bound {
            devices::bind(socket, port.nic());
        }
    };
    let stream = dial_over(way.address, local_end(port.address().ip(), way.address), bind)?;
    let open = ConnectionHello { kind: ConnectionKind::Data, key_id: hello.transfer };
    let now = awake();
    let payload = control::encode(hello)?;
    let deadline = now + HANDSHAKE_WITHIN;
    let connection = Connection::initiate(stream, open, flows.key(), &payload, deadline)?;
    Ok(connection.connected_by(now + CONNECT_WITHIN))
}

/// The local address that a flow leaves from: that of the rail, where it can reach the peer at all.
fn local_end(rail: IpAddr, peer: SocketAddr) -> Option<IpAddr> {
    let reaches = !rail.is_unspecified()
        && rail.is_ipv4() == peer.is_ipv4()
        && rail.is_loopback() == peer.ip().is_loopback();
    reaches.then_some(rail)
}

//! The flows of one transfer on this node: its peers, the flows that it opens to them, those that
//! stand, and what the report tells of each rail pair.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, TcpStream};
use std::time::Instant;

use super::call_answers::CallAnswers;
use super::histories::RailPairHistory;
use super::openings::{FlowOpening, WayStep};
use super::routes::FlowRoute;
use super::stuck::StuckData;
use crate::core::error::{Code, Error, Result};
use crate::core::piece::{FlowCommand, FlowIx};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::seal::FlowSeal;
use crate::core::units::{NodeIx, human_bytes};
use crate::core::wire::control;
use crate::core::wire::control::{FlowCall, FlowHello, FlowLoss, FlowReply, PeerNode, Prepare};
use crate::core::wire::limits::FLOW_LOSSES_MAX;
use crate::core::wire::terms::{FlowTerms, WirePolicy};
use crate::io::clock::awake;
use crate::io::session::{FlowStream, Key, is_loopback};

/// The flows of one transfer.
pub(super) struct TransferFlows {
    transfer: [u8; 16],
    attempt: [u8; 16],
    node_index: u32,
    key: Key,
    /// Demands on their protection.
    wire: WirePolicy,
    /// The ports that it uses, ascending.
    ports: Vec<usize>,
    /// Peers that the plan lets this node request from.
    peers: BTreeMap<NodeIx, PeerNode>,
    /// The rail pair of each flow that this node opened, and the port that it goes over.
    flows: BTreeMap<FlowIx, (RailPair, usize)>,
    /// Flows that are being opened.
    openings: BTreeMap<RailPair, FlowOpening>,
    /// Flows that are being opened because their receivers call.
    pub(super) answers: CallAnswers,
    /// Histories of the flows of each rail pair that was wanted.
    histories: BTreeMap<RailPair, RailPairHistory>,
    /// Notes about large packets that do not arrive, by NIC and peer.
    mtu_holes: BTreeMap<(String, IpAddr), String>,
    /// Flows that were lost since the last report.
    lost: RefCell<Vec<FlowLoss>>,
}

impl TransferFlows {
    /// None yet, of a transfer over some `ports`.
    pub(super) fn new(prepare: &Prepare, wire: WirePolicy, ports: Vec<usize>) -> TransferFlows {
        TransferFlows {
            transfer: prepare.transfer,
            attempt: prepare.attempt,
            node_index: prepare.node_index,
            key: Key::from_bytes(prepare.flow_key.0),
            wire,
            ports,
            peers: BTreeMap::new(),
            flows: BTreeMap::new(),
            openings: BTreeMap::new(),
            answers: CallAnswers::default(),
            histories: BTreeMap::new(),
            mtu_holes: BTreeMap::new(),
            lost: RefCell::default(),
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn ports(&self) -> &[usize] {
        &self.ports
    }

    /// A plan names senders.
    pub(super) fn add_peers(&mut self, peers: Vec<PeerNode>) {
        self.peers.extend(peers.into_iter().map(|peer| (NodeIx(peer.index), peer)));
    }

    pub(super) fn peer(&self, node: NodeIx) -> Option<&PeerNode> {
        self.peers.get(&node)
    }

    /// The name of another node in the transfer.
    fn name_of(&self, node: NodeIx) -> String {
        self.peers.get(&node).map_or_else(|| format!("node {}", node.0), |peer| peer.name.clone())
    }

    /// Returns true if a receiver that says this is one of this transfer's.
    pub(super) fn is_meant(&self, hello: &FlowHello) -> bool {
        self.transfer == hello.transfer
            && self.attempt == hello.attempt
            && self.node_index == hello.to_node
    }

    /// Returns true if a flow of the rail pair has brought something.
    pub(super) fn has_brought(&self, rail_pair: RailPair) -> bool {
        self.histories.get(&rail_pair.own()).is_some_and(RailPairHistory::has_brought)
    }

    /// A flow is to be opened; `nic` is that of its usual way.
    pub(super) fn begin(&mut self, rail_pair: RailPair, opening: FlowOpening, nic: String) {
        let usual = opening.usual();
        self.histories
            .entry(rail_pair.own())
            .or_insert_with(|| RailPairHistory::new(nic, usual.address));
        self.openings.insert(rail_pair, opening);
    }

    /// The next step to open a flow.
    pub(super) fn step(
        &mut self,
        place: OpeningPlace,
        now: Instant,
        nic_of: impl Fn(usize) -> String,
    ) -> Option<FlowStep> {
        let OpeningPlace { rail_pair, is_answer } = place;
        if is_answer {
            return match self.answers.step(rail_pair, now)? {
                WayStep::Dial(way) => Some(FlowStep::Dial(way, self.answer(rail_pair, way))),
                WayStep::Call | WayStep::Fail => None,
            };
        }
        let opening = self.openings.get_mut(&rail_pair)?;
        if self.flows.values().any(|(other, _)| other.sender == rail_pair.sender) {
            opening.other_is_up();
        }
        Some(match opening.step(now)? {
            WayStep::Dial(way) => FlowStep::Dial(way, self.hello(rail_pair, way)),
            WayStep::Call => FlowStep::Call(self.call(rail_pair)?),
            WayStep::Fail => {
                let error = opening.error(nic_of);
                self.openings.remove(&rail_pair);
                FlowStep::Ends(self.failed(rail_pair, error))
            }
        })
    }

    /// The first message to a sender over a way.
    fn hello(&self, rail_pair: RailPair, way: FlowRoute) -> FlowHello {
        let opening = &self.openings[&rail_pair];
        let history = self.histories.get(&rail_pair.own());
        FlowHello {
            weight_bytes: opening.weight_bytes,
            pace_bytes_per_second: opening.pace_bytes_per_second,
            silent_flows: history.map_or(0, RailPairHistory::silent_flows),
            call: None,
            ..self.answer(rail_pair, way)
        }
    }

    /// The first message to a receiver that has called, over a way.
    fn answer(&self, rail_pair: RailPair, way: FlowRoute) -> FlowHello {
        FlowHello {
            transfer: self.transfer,
            attempt: self.attempt,
            from_node: self.node_index,
            to_node: rail_pair.sender.0,
            rail: u32::try_from(way.port).expect("ports are few"),
            to_rail: u32::try_from(way.rail).expect("rails are few"),
            weight_bytes: 0,
            pace_bytes_per_second: 0,
            silent_flows: 0,
            further: rail_pair.further,
            terms: self.terms(way),
            call: Some(rail_pair.index),
        }
    }

    /// The call to the sender of a rail pair.
    fn call(&self, rail_pair: RailPair) -> Option<FlowCall> {
        let opening = self.openings.get(&rail_pair)?;
        let FlowRoute { port, rail, .. } = opening.usual();
        let own = self.ports.iter().position(|used| *used == port)?;
        Some(FlowCall {
            peer: rail_pair.sender.0,
            pair: rail_pair.index,
            further: rail_pair.further,
            receiver_rail: u32::try_from(own).expect("ports are few"),
            sender_rail: u32::try_from(rail).expect("rails are few"),
            weight_bytes: opening.weight_bytes,
            pace_bytes_per_second: opening.pace_bytes_per_second,
        })
    }

    /// The instant at which the next way of some flow is to be tried.
    pub(super) fn way_due(&self) -> Option<Instant> {
        self.openings.values().filter_map(FlowOpening::due).chain(self.answers.due()).min()
    }

    /// The flows whose next way is to be tried.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = OpeningPlace> {
        let is_due = move |opening: &FlowOpening| opening.due().is_some_and(|due| now >= due);
        let opened = self.openings.iter().filter(move |(_, it)| is_due(it));
        let opened = opened.map(|(&rail_pair, _)| OpeningPlace { rail_pair, is_answer: false });
        let answers = self.answers.due_at(now);
        opened.chain(answers.map(|rail_pair| OpeningPlace { rail_pair, is_answer: true }))
    }

    /// The error so far of a flow that has been opened for long: the master will want to know what
    /// is waited for, should nothing land any more.
    pub(super) fn slow(
        &self,
        place: OpeningPlace,
        now: Instant,
        nic_of: impl Fn(usize) -> String,
    ) -> Option<SchedulerEvent> {
        let rail_pair = (!place.is_answer).then_some(place.rail_pair)?;
        let error = self.openings.get(&rail_pair)?.so_far(now, nic_of)?;
        Some(SchedulerEvent::OpenSlow { rail_pair, error })
    }

    /// A connection to the sender stands. The opening ends, if it is one still.
    pub(super) fn end_opening(&mut self, rail_pair: RailPair) -> Option<FlowOpening> {
        self.openings.remove(&rail_pair)
    }

    /// The sender that was called has dialled. The opening ends, if it is one still.
    pub(super) fn take_called(&mut self, hello: &FlowHello) -> Option<(RailPair, FlowOpening)> {
        let (sender, index, further) = (NodeIx(hello.from_node), hello.call?, hello.further);
        let rail_pair = RailPair { sender, index, further };
        self.openings.get(&rail_pair).filter(|opening| opening.is_called())?;
        Some((rail_pair, self.openings.remove(&rail_pair)?))
    }

    /// One way to open a flow failed. The event of a flow for which none is left.
    pub(super) fn way_failed(
        &mut self,
        place: OpeningPlace,
        way: FlowRoute,
        error: Error,
        nic_of: impl Fn(usize) -> String,
    ) -> Option<SchedulerEvent> {
        let OpeningPlace { rail_pair, is_answer } = place;
        if is_answer {
            // The receiver finds out by itself.
            self.answers.fail(rail_pair, awake(), way, error);
            return None;
        }
        let opening = self.openings.get_mut(&rail_pair)?;
        if !opening.fail(awake(), way, error) {
            return None;
        }
        let error = opening.error(nic_of);
        self.openings.remove(&rail_pair);
        Some(self.failed(rail_pair, error))
    }

    /// No way is left to open a flow.
    pub(super) fn failed(&mut self, rail_pair: RailPair, error: Error) -> SchedulerEvent {
        self.histories.entry(rail_pair.own()).and_modify(|history| history.failed(&error));
        self.lose(rail_pair, &error);
        SchedulerEvent::OpenFailed { rail_pair, error }
    }

    /// A flow that this node opened stands, over one of its ports. Returns true if the sender
    /// relays.
    pub(super) fn stands(&mut self, flow: FlowIx, rail_pair: RailPair, port: usize) -> bool {
        self.flows.insert(flow, (rail_pair, port));
        self.peers.get(&rail_pair.sender).is_some_and(|peer| peer.relays)
    }

    /// Protects a flow that this node opened by `way`, after what both ends said in its handshake.
    pub(super) fn seal_opened(
        &self,
        stream: FlowStream,
        way: FlowRoute,
    ) -> Result<(TcpStream, FlowSeal)> {
        let demanded = self.wire.terms(stream.is_inside && !way.is_channel);
        if demanded != self.terms(way) {
            return Err(Error::new(Code::Refused, "the flow left this machine by another address"));
        }
        let FlowReply { terms } = control::decode(&stream.payload)?;
        Ok((stream.socket, FlowSeal::new(stream.secrets, demanded.agree(terms)?)))
    }

    /// Protects a flow that a receiver has opened.
    pub(super) fn seal_arrived(
        &self,
        stream: FlowStream,
        hello: &FlowHello,
    ) -> Result<(TcpStream, FlowSeal)> {
        let wire = self.wire.terms(stream.is_inside).agree(hello.terms)?;
        Ok((stream.socket, FlowSeal::new(stream.secrets, wire)))
    }

    /// What this node demands of a flow before it has its addresses.
    fn terms(&self, way: FlowRoute) -> FlowTerms {
        self.wire.terms(is_loopback(way.address.ip()) && !way.is_channel)
    }

    /// The history of a rail pair that was wanted.
    pub(super) fn history(&mut self, rail_pair: RailPair) -> Option<&mut RailPairHistory> {
        self.histories.get_mut(&rail_pair.own())
    }

    /// The history of the rail pair of a flow that this node opened.
    fn history_of(&mut self, flow: FlowIx) -> Option<&mut RailPairHistory> {
        let (rail_pair, _) = self.flows.get(&flow)?;
        self.histories.get_mut(&rail_pair.own())
    }

    /// Notes a lost flow for the next report, unless it has only ended.
    fn lose(&mut self, rail_pair: RailPair, error: &Error) {
        let nic = self.histories.get(&rail_pair.own()).map_or("", RailPairHistory::nic);
        if error.code != Code::Cancelled && self.lost.borrow().len() < FLOW_LOSSES_MAX {
            let (nic, peer) = (nic.to_owned(), self.name_of(rail_pair.sender));
            self.lost.get_mut().push(FlowLoss { nic, peer, reason: error.message.clone() });
        }
    }

    /// Returns the flows that were lost since the last call; the first ones.
    pub(super) fn take_lost(&self) -> Vec<FlowLoss> {
        self.lost.take()
    }

    /// Notes a command to a flow that this node opened. Returns the port that the flow goes over.
    pub(super) fn commanded(&mut self, command: &FlowCommand, now: Instant) -> Option<usize> {
        if matches!(command, FlowCommand::Lease { .. })
            && let Some(history) = self.history_of(command.flow())
        {
            history.asked(now);
        }
        self.flows.get(&command.flow()).map(|&(_, port)| port)
    }

    /// Notes what the report will tell of a flow.
    pub(super) fn note(&mut self, event: &SchedulerEvent) {
        match event {
            SchedulerEvent::Landed { flow, .. } => {
                self.history_of(*flow).into_iter().for_each(RailPairHistory::brought);
            }
            SchedulerEvent::FlowDown { flow, error } => {
                self.history_of(*flow).into_iter().for_each(|history| history.failed(error));
                if let Some((rail_pair, _)) = self.flows.remove(flow) {
                    self.lose(rail_pair, error);
                }
            }
            SchedulerEvent::Changed { flow } => {
                self.history_of(*flow).into_iter().for_each(RailPairHistory::changed);
            }
            SchedulerEvent::Failed { flow, error, .. } if error.code == Code::Integrity => {
                self.history_of(*flow).into_iter().for_each(RailPairHistory::changed);
            }
            SchedulerEvent::FlowUp { .. }
            | SchedulerEvent::PartLanded { .. }
            | SchedulerEvent::PathRead { .. }
            | SchedulerEvent::Room { .. }
            | SchedulerEvent::Failed { .. }
            | SchedulerEvent::Returned { .. }
            | SchedulerEvent::OpenFailed { .. }
            | SchedulerEvent::OpenSlow { .. }
            | SchedulerEvent::Tick => {}
        }
    }

    /// A receiver came back on a rail pair that has brought nothing, and data that was sent on it
    /// before is still sent again.
    pub(super) fn large_packets_lost(
        &mut self,
        nic: &str,
        peer: IpAddr,
        mtu: Option<u32>,
        stuck: StuckData,
    ) {
        let StuckData { resent, bytes } = stuck;
        let mtu = mtu.map_or(String::new(), |mtu| format!(" of {mtu}"));
        let found = format!(
            "{nic} to {peer}: small packets pass, large ones do not: handshakes go through, and {} \
             was sent {resent} times again and never acknowledged; some hop carries less than \
             {nic}'s MTU{mtu} and does not say so (sysctl -w net.ipv4.tcp_mtu_probing=1 on both \
             nodes, or a smaller MTU)",
            human_bytes(bytes)
        );
        self.mtu_holes.insert((nic.to_owned(), peer), found);
    }

    /// Warnings of the report about packets that were lost here, and about NICs that carried
    /// nothing. `nics` are the names of the ports' NICs.
    pub(super) fn warnings(&self, now: Instant, nics: &[&str]) -> Vec<String> {
        let mut warnings: Vec<String> = self.mtu_holes.values().cloned().collect();
        // The threads of a NIC have a rail pair each, and mostly the same to tell.
        let mut told = BTreeSet::new();
        for (rail_pair, history) in &self.histories {
            let is_same =
                |(other, _): &(&RailPair, &RailPairHistory)| other.sender == rail_pair.sender;
            let of_nic = self
                .histories
                .iter()
                .filter(is_same)
                .filter(|(_, other)| other.nic() == history.nic());
            let others_brought = of_nic.clone().any(|(_, other)| other.has_brought());
            let opening = self
                .openings
                .get(rail_pair)
                .and_then(|it| it.so_far(now, |port| nics[port].to_owned()));
            let name = self.name_of(rail_pair.sender);
            warnings.extend(history.changed_warning(&name));
            let warning = history.warning(now, &name, opening, others_brought);
            if warning.is_some() && told.insert((history.nic(), rail_pair.sender)) {
                warnings.extend(warning);
            }
        }
        warnings
    }
}

/// A flow that is being opened: on a rail pair to a sender, or, as the answer to a call, on that of
/// a receiver, which is in the place of the sender then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OpeningPlace {
    pub(super) rail_pair: RailPair,
    pub(super) is_answer: bool,
}

/// Next step to open a flow.
pub(super) enum FlowStep {
    /// Dial, and say this.
    Dial(FlowRoute, FlowHello),
    /// Have the master call the sender.
    Call(FlowCall),
    /// No way is left.
    Ends(SchedulerEvent),
}

//! One transfer as the control thread carries it out: its files, its flows, and the senders that it
//! may ask. What it does next is decided by the node's machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::counters::NicCounters;
use super::openings::{FlowOpening, RailPairHistory};
use super::stuck::StuckData;
use super::usage;
use crate::core::piece::FlowIx;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::spec::RowRole;
use crate::core::units::{NodeIx, human_bytes};
use crate::core::wire::control::{NodeStats, PeerNode, Prepare, RailStats};
use crate::io::clock;
use crate::io::rail::paths;
use crate::io::rail::paths::PathStats;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::session::Key;
use crate::io::store::DestinationClaim;

/// One transfer on this node.
pub(super) struct NodeTransfer {
    pub(super) prepare: Prepare,
    pub(super) flow_key: Key,
    /// The ports that it uses, ascending.
    pub(super) ports: Vec<usize>,
    /// Open once the participant is prepared.
    pub(super) transfer_files: Option<Arc<TransferFiles>>,
    /// Files that this node has claimed, until bytes move.
    pub(super) claims: Vec<DestinationClaim>,
    /// Whom the plan lets this node ask.
    pub(super) peers: BTreeMap<NodeIx, PeerNode>,
    /// The rail pair of each flow that this node opened, and the port that it goes over.
    pub(super) flows: BTreeMap<FlowIx, (RailPair, usize)>,
    /// Flows that are being opened.
    pub(super) openings: BTreeMap<RailPair, FlowOpening>,
    /// Histories of the flows of each rail pair that was wanted.
    pub(super) stories: BTreeMap<RailPair, RailPairHistory>,
    /// Notes about large packets that do not arrive, by NIC and peer.
    mtu_holes: BTreeMap<(String, IpAddr), String>,
    /// Set when nobody waits any more for the worker that opens the transfer.
    pub(super) quits: Arc<AtomicBool>,
    cpu_before: Duration,
    /// Time for which the process had been stopped before.
    stopped_before: Duration,
    /// Counters of the NICs before any byte of the transfer moved.
    counters_before: NicCounters,
}

/// Pieces of a transfer that is small at a node.
pub(super) const SMALL_PIECES: u64 = 4;

impl NodeTransfer {
    pub(super) fn new(prepare: Prepare, ports: Vec<usize>) -> NodeTransfer {
        let flow_key = Key::from_bytes(prepare.flow_key.0);
        let (transfer_files, peers) = (None, BTreeMap::new());
        NodeTransfer {
            prepare,
            flow_key,
            ports,
            transfer_files,
            claims: Vec::new(),
            peers,
            flows: BTreeMap::new(),
            openings: BTreeMap::new(),
            stories: BTreeMap::new(),
            mtu_holes: BTreeMap::new(),
            quits: Arc::default(),
            cpu_before: usage::cpu(),
            stopped_before: clock::stopped(),
            counters_before: NicCounters::read(),
        }
    }

    /// Its files, which are open.
    pub(super) fn files(&self) -> Arc<TransferFiles> {
        Arc::clone(self.transfer_files.as_ref().expect("a prepared transfer has its files open"))
    }

    /// Returns true if this node has few pieces of up to `block_bytes` to send and to receive.
    pub(super) fn is_small(&self, block_bytes: u64) -> bool {
        let rows = |role| self.prepare.rows.iter().filter(move |row| row.role == role);
        let bytes = |role| rows(role).fold(0_u64, |sum, row| sum.saturating_add(row.span.bytes()));
        let bytes = bytes(RowRole::Sender).max(bytes(RowRole::Receiver));
        bytes <= SMALL_PIECES * block_bytes
    }

    /// Has the worker that opens the transfer end soon.
    pub(super) fn quit(&self) {
        self.quits.store(true, Ordering::Relaxed);
    }

    /// The name of another node in the transfer.
    pub(super) fn name_of(&self, node: NodeIx) -> String {
        self.peers.get(&node).map_or_else(|| format!("node {}", node.0), |peer| peer.name.clone())
    }

    /// Adds to the participant's counts what the rails and the process counted; `nics` are the
    /// names of the ports' NICs. The threads of one NIC count as one.
    pub(super) fn complete(&self, stats: &mut NodeStats, nics: &[&str]) {
        stats.cpu_ns = u64::try_from(usage::cpu().saturating_sub(self.cpu_before).as_nanos())
            .unwrap_or(u64::MAX);
        stats.memory_bytes_max = usage::memory_bytes_max();
        stats.warnings = self.warnings(nics);
        let Some(transfer_files) = &self.transfer_files else { return };
        let counters = NicCounters::read();
        stats.rails.clear();
        for &port in &self.ports {
            let (nic, tally) = (nics[port], &transfer_files.tallies[port]);
            let (sent_bytes, received_bytes) = (tally.sent_bytes(), tally.received_bytes());
            match stats.rails.iter_mut().find(|rail| rail.nic == nic) {
                Some(rail) => {
                    rail.sent_bytes += sent_bytes;
                    rail.received_bytes += received_bytes;
                }
                None => {
                    let counted = counters.since(&self.counters_before, nic);
                    let counted = counted.map(|it| (it.sent_bytes, it.received_bytes));
                    let same = self.ports.iter().filter(|&&port| nics[port] == nic);
                    let paths: Vec<&PathStats> =
                        same.map(|&port| &transfer_files.tallies[port].paths).collect();
                    let (path, driver) = (paths::describe(&paths), tally.paths.driver());
                    stats.rails.push(RailStats {
                        nic: nic.into(),
                        sent_bytes,
                        received_bytes,
                        counted,
                        path,
                        driver,
                    });
                }
            }
        }
        // Bytes that came twice, or changed, or after the end, are more than was kept.
        let kept_bytes = stats.received_bytes;
        stats.received_bytes = stats.rails.iter().map(|rail| rail.received_bytes).sum();
        stats.wasted_bytes = stats.received_bytes.saturating_sub(kept_bytes);
        stats.sent_bytes = stats.rails.iter().map(|rail| rail.sent_bytes).sum();
        stats.active_ns = transfer_files.activity.active_ns();
    }

    /// Warnings of the report about time that was lost here, and about NICs that carried nothing.
    fn warnings(&self, nics: &[&str]) -> Vec<String> {
        let stopped = clock::stopped().saturating_sub(self.stopped_before);
        let mut warnings: Vec<String> =
            clock::stop_warning("the node", stopped).into_iter().collect();
        warnings.extend(self.mtu_holes.values().cloned());
        let now = clock::awake();
        // The threads of a NIC have a rail pair each, and mostly the same to tell.
        let mut told = BTreeSet::new();
        for (rail_pair, story) in &self.stories {
            let is_same =
                |(other, _): &(&RailPair, &RailPairHistory)| other.sender == rail_pair.sender;
            let of_nic =
                self.stories.iter().filter(is_same).filter(|(_, other)| other.nic() == story.nic());
            let others_brought = of_nic.clone().any(|(_, other)| other.has_brought());
            let opening = self
                .openings
                .get(rail_pair)
                .and_then(|it| it.so_far(now, |port| nics[port].to_owned()));
            let warning =
                story.warning(now, &self.name_of(rail_pair.sender), opening, others_brought);
            if warning.is_some() && told.insert((story.nic(), rail_pair.sender)) {
                warnings.extend(warning);
            }
        }
        warnings
    }

    /// A receiver came back on a rail pair that has brought nothing, and data that was sent on it
    /// before is still sent again.
    pub(super) fn large_packets_lost(
        &mut self,
        nic: &str,
        peer: IpAddr,
        mtu: &str,
        stuck: StuckData,
    ) {
        let StuckData { resent, bytes } = stuck;
        let found = format!(
            "{nic} to {peer}: small packets pass, large ones do not: handshakes go through, and {} \
             was sent {resent} times again and never acknowledged; some hop carries less than \
             {nic}'s MTU{mtu} and does not say so (sysctl -w net.ipv4.tcp_mtu_probing=1 on both \
             nodes, or a smaller MTU)",
            human_bytes(bytes)
        );
        self.mtu_holes.insert((nic.to_owned(), peer), found);
    }

    /// The history of the rail pair of a flow that this node opened.
    pub(super) fn story_of(&mut self, flow: FlowIx) -> Option<&mut RailPairHistory> {
        let (rail_pair, _) = self.flows.get(&flow)?;
        self.stories.get_mut(rail_pair)
    }

    /// Payload sent so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.transfer_files
            .iter()
            .flat_map(|transfer_files| &transfer_files.tallies)
            .map(|tally| tally.sent_bytes())
            .sum()
    }

    /// Payload sent and received so far.
    pub(super) fn moved_bytes(&self) -> u64 {
        let tallies = self.transfer_files.iter().flat_map(|transfer_files| &transfer_files.tallies);
        tallies.map(|tally| tally.sent_bytes() + tally.received_bytes()).sum()
    }
}

//! Reports of rounds as measures of nodes.

use super::rounds::RoundSize;
use crate::core::fleet::measure::{FleetNic, FleetNode, FleetRound, LoadShares, NicRate};
use crate::core::fleet::schedule::RoundPairs;
use crate::core::fleet::spread::median;
use crate::core::load::MachineLoad;
use crate::core::report::{NodeReport, RailReport, Report, gbit_per_s};
use crate::core::spec::NodeAddress;
use crate::core::units::BitRate;

/// Measures of a fleet, which grow by rounds.
pub(crate) struct FleetMeter {
    /// Addresses of the nodes in rows.
    addresses: Vec<NodeAddress>,
    /// The user's line rate of every NIC.
    line_rate: Option<BitRate>,
    nodes: Vec<FleetNode>,
}

impl FleetMeter {
    /// Creates one without measures.
    pub(crate) fn new(addresses: Vec<NodeAddress>, line_rate: Option<BitRate>) -> FleetMeter {
        let node = |address: &NodeAddress| FleetNode {
            name: address.host.clone(),
            nics: Vec::new(),
            cpus: None,
            rounds: Vec::new(),
        };
        let nodes = addresses.iter().map(node).collect();
        FleetMeter { addresses, line_rate, nodes }
    }

    /// Returns what was measured so far.
    pub(crate) fn nodes(&self) -> &[FleetNode] {
        &self.nodes
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, pairs: &RoundPairs, report: &Report) {
        let both = pairs.iter().flat_map(|&(one, other)| [(one, other), (other, one)]);
        for (node, partner) in both {
            let name = self.addresses[node].to_string();
            if let Some(told) = report.nodes.iter().find(|told| told.name == name) {
                self.add_node(node, partner, told, report.seconds);
            }
        }
    }

    fn add_node(&mut self, node: usize, partner: usize, told: &NodeReport, seconds: f64) {
        let declared = self.line_rate.map(|rate| rate.0 as f64 / 1e9);
        let node = &mut self.nodes[node];
        // A node to which nothing has come has the time of the others.
        let seconds = if told.seconds > 0.0 { told.seconds } else { seconds };
        for rail in &told.rails {
            match node.nics.iter_mut().find(|nic| nic.name == rail.nic) {
                Some(nic) => nic.faults += rail.faults,
                None => node.nics.push(nic(rail, declared)),
            }
        }
        let rate = |nic: &FleetNic| {
            let rail = told.rails.iter().find(|rail| rail.nic == nic.name);
            rail.map_or_else(NicRate::default, |rail| NicRate {
                sent_gbit_per_s: gbit_per_s(rail.bytes_sent, seconds),
                received_gbit_per_s: gbit_per_s(rail.bytes_received, seconds),
            })
        };
        let rates = node.nics.iter().map(rate).collect();
        let load = told.load.filter(|load| load.window_ns > 0);
        node.cpus = node.cpus.or(load.map(|load| load.cpus).filter(|cpus| *cpus > 0));
        let load = load.map(|load| shares(&load, told.cpu_seconds));
        node.rounds.push(FleetRound { partner, rates, load });
    }

    /// Returns the size of the rounds after a first, short one.
    pub(crate) fn size(&self, seconds: std::time::Duration) -> RoundSize {
        let rounds = || self.nodes.iter().flat_map(|node| &node.rounds);
        let both = |rate: &NicRate| [rate.sent_gbit_per_s, rate.received_gbit_per_s];
        let node = |round: &FleetRound| {
            let sums = round.rates.iter().map(both);
            sums.fold([0.0, 0.0], |sum, rate| [sum[0] + rate[0], sum[1] + rate[1]])
        };
        let node_max = rounds().flat_map(node).fold(0.0, f64::max);
        let nics = rounds().flat_map(|round| &round.rates).flat_map(both);
        RoundSize::of(node_max, median(nics).unwrap_or(0.0), seconds)
    }

    /// Forgets all rounds.
    pub(crate) fn forget(&mut self) {
        for node in &mut self.nodes {
            node.rounds.clear();
            node.nics.iter_mut().for_each(|nic| nic.faults = 0);
        }
    }
}

fn nic(rail: &RailReport, declared: Option<f64>) -> FleetNic {
    FleetNic {
        name: rail.nic.clone(),
        line_gbit_per_s: declared.or(rail.line_gbit_per_s),
        mtu: rail.mtu,
        driver: rail.driver.clone(),
        threads: rail.threads,
        faults: rail.faults,
    }
}

fn shares(load: &MachineLoad, cpu_seconds: f64) -> LoadShares {
    let part = |of: u64, whole: f64| if whole > 0.0 { of as f64 / whole } else { 0.0 };
    let window = load.window_ns as f64;
    let cpu_ns = cpu_seconds * 1e9;
    let of_cpus = window * load.cpus as f64;
    LoadShares {
        cores: cpu_ns / window,
        wait: part(load.wait_ns, cpu_ns + load.wait_ns as f64),
        others: part(load.others_ns, of_cpus).min(1.0),
        stolen: part(load.stolen_ns, of_cpus).min(1.0),
        resent: part(load.resent_segments, load.sent_segments as f64),
    }
}

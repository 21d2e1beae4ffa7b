//! Random fleets with faults from a seed: the faulty are named, and nobody else.

use std::collections::BTreeSet;

use proptest::prelude::*;
use random::SplitMix;

use super::judge::{FleetTerms, FleetVerdict, judge};
use super::measure::{FleetNic, FleetNode, FleetRound, LoadShares, NicRate};
use super::schedule::{RoundPairs, clearing_round, rounds};

/// Most that a measure differs from the truth by.
const NOISE: f64 = 0.05;

/// A fleet whose truth is known.
struct TrueFleet {
    random: SplitMix,
    /// Of each node and NIC: what it can send and receive, in Gbit/s.
    can: Vec<Vec<[f64; 2]>>,
    /// Waiting of each node.
    wait: Vec<f64>,
    slow: BTreeSet<usize>,
    busy: BTreeSet<usize>,
}

impl TrueFleet {
    fn new(seed: u64, count: usize, nics: usize, faulty: usize) -> TrueFleet {
        let mut random = SplitMix::new(seed);
        let line = 0.05 * 4000_f64.powf(part(&mut random));
        let base_wait = 0.6 * part(&mut random);
        let mut fleet = TrueFleet {
            can: vec![vec![[line; 2]; nics]; count],
            wait: vec![base_wait; count],
            slow: BTreeSet::new(),
            busy: BTreeSet::new(),
            random,
        };
        while fleet.slow.len() + fleet.busy.len() < faulty {
            let node = (part(&mut fleet.random) * count as f64) as usize;
            if !fleet.slow.contains(&node) && !fleet.busy.contains(&node) {
                fleet.spoil(node, base_wait);
            }
        }
        fleet
    }

    fn spoil(&mut self, node: usize, base_wait: f64) {
        let random = &mut self.random;
        let left = 0.02 + 0.5 * part(random);
        if part(random) < 0.4 {
            // Its rate may bear it.
            let left = if part(random) < 0.5 { 1.0 } else { left };
            self.wait[node] = 1.0 - (1.0 - base_wait) / (4.0 + 20.0 * part(random));
            self.can[node].iter_mut().flatten().for_each(|can| *can *= left);
            self.busy.insert(node);
            return;
        }
        let nic = (part(random) * self.can[node].len() as f64) as usize;
        let can = &mut self.can[node][nic];
        match (part(random) * 3.0) as usize {
            0 => can[0] *= left,
            1 => can[1] *= left,
            _ => can.iter_mut().for_each(|can| *can *= left),
        }
        self.slow.insert(node);
    }

    fn noisy(&mut self, value: f64) -> f64 {
        value * (1.0 - NOISE * part(&mut self.random))
    }

    fn measured(&mut self, partners: usize) -> Vec<FleetNode> {
        let mut nodes: Vec<FleetNode> = (0..self.can.len()).map(|at| self.node(at)).collect();
        for pairs in rounds(nodes.len(), partners) {
            self.play(&pairs, &mut nodes);
        }
        nodes
    }

    fn play(&mut self, pairs: &RoundPairs, nodes: &mut [FleetNode]) {
        for (one, other) in pairs.iter().flat_map(|&(a, b)| [(a, b), (b, a)]) {
            let round = self.round(one, other);
            nodes[one].rounds.push(round);
        }
    }

    fn node(&self, at: usize) -> FleetNode {
        let nic = |nic: usize| FleetNic {
            name: format!("eth{nic}"),
            line_gbit_per_s: None,
            mtu: Some(1500),
            driver: Some("io_uring".into()),
            threads: 1,
            faults: 0,
        };
        FleetNode {
            name: at.to_string(),
            nics: (0..self.can[at].len()).map(nic).collect(),
            cpus: Some(8),
            rounds: Vec::new(),
        }
    }

    fn round(&mut self, node: usize, partner: usize) -> FleetRound {
        let mut rates = Vec::new();
        for nic in 0..self.can[node].len() {
            let ([sends, receives], [others_send, others_receive]) =
                (self.can[node][nic], self.can[partner][nic]);
            rates.push(NicRate {
                sent_gbit_per_s: self.noisy(sends.min(others_receive)),
                received_gbit_per_s: self.noisy(receives.min(others_send)),
            });
        }
        let wait = 1.0 - self.noisy(1.0 - self.wait[node]);
        let others = if self.busy.contains(&node) { 0.9 } else { 0.6 };
        let load = LoadShares { cores: 0.5, wait, others, stolen: 0.0, resent: 0.0 };
        FleetRound { partner, rates, load: Some(load) }
    }
}

fn part(random: &mut SplitMix) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

fn named(verdict: &FleetVerdict) -> BTreeSet<usize> {
    let nodes = verdict.nodes.iter().enumerate();
    nodes.filter(|(_, node)| node.is_slow()).map(|(at, _)| at).collect()
}

proptest! {
    #[test]
    fn the_faulty_are_named_and_nobody_else(
        seed: u64,
        count in 3_usize..40,
        nics in 1_usize..4,
        faulty in 0.0..0.34_f64,
    ) {
        let faulty = ((count as f64 * faulty) as usize).min((count - 1) / 2);
        let mut fleet = TrueFleet::new(seed, count, nics, faulty);
        let mut nodes = fleet.measured(3);
        let before = judge(&nodes, &FleetTerms::default());
        fleet.play(&clearing_round(&before.unclear, &before.good), &mut nodes);
        let verdict = judge(&nodes, &FleetTerms::default());
        let named = named(&verdict);
        let all: BTreeSet<usize> = fleet.slow.union(&fleet.busy).copied().collect();
        prop_assert!(named.is_subset(&all), "{named:?} of {all:?}");
        let was_cleared = before.unclear.len() <= before.good.len();
        prop_assert!(!was_cleared || named == all, "{named:?} instead of {all:?}");
        for &node in &fleet.busy {
            let causes = &verdict.nodes[node].causes;
            prop_assert!(
                causes.iter().any(|cause| cause.cause.starts_with("CPU busy")),
                "{node}: {causes:?}"
            );
        }
        for &node in fleet.slow.intersection(&named) {
            let causes = &verdict.nodes[node].causes;
            prop_assert!(causes.iter().all(|cause| cause.cause.starts_with("eth")), "{causes:?}");
        }
    }

    #[test]
    fn a_healthy_fleet_is_as_good_as_its_median(seed: u64, count in 2_usize..40) {
        let nodes = TrueFleet::new(seed, count, 2, 0).measured(3);
        let verdict = judge(&nodes, &FleetTerms { efficiency_min: Some(0.9), is_declared: false });
        prop_assert_eq!(named(&verdict), BTreeSet::new());
        for node in &verdict.nodes {
            prop_assert!(node.efficiency.is_some_and(|it| (0.9..1.1).contains(&it)));
        }
    }
}

//! Results of a fleet: the object for `--json`.

use serde::Serialize;

use crate::core::fleet::judge::{FleetVerdict, NicClass};
use crate::core::fleet::measure::{FleetNic, FleetNode, LoadShares, RateDirection};
use crate::core::fleet::spread::Spread;
use crate::core::fleet::verdict::{FleetCause, NicVerdict, NodeVerdict, RateBasis};

/// Results of `bench` for a fleet.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct FleetFigures {
    /// Intended duration of each round.
    pub(crate) seconds_asked: f64,
    pub(crate) rounds: usize,
    pub(crate) min_efficiency: Option<f64>,
    /// NICs of one name on all nodes.
    pub(crate) nics: Vec<FleetNicFigures>,
    /// Distribution of the efficiency of nodes.
    pub(crate) efficiency: Option<Spread>,
    /// The worst first.
    pub(crate) nodes: Vec<FleetNodeFigures>,
}

/// Distribution of NICs of one name.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct FleetNicFigures {
    pub(crate) nic: String,
    pub(crate) count: usize,
    /// Line rate that most claim.
    pub(crate) line_gbit_per_s: Option<f64>,
    #[serde(flatten)]
    pub(crate) expected: ExpectedFigures,
    pub(crate) sent_gbit_per_s: Option<Spread>,
    pub(crate) received_gbit_per_s: Option<Spread>,
    pub(crate) efficiency: Option<Spread>,
}

/// Rates that are expected of a NIC.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct ExpectedFigures {
    pub(crate) expected_sent_gbit_per_s: Option<f64>,
    pub(crate) expected_received_gbit_per_s: Option<f64>,
    pub(crate) expected_by: Option<RateBasis>,
}

/// Verdict in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FleetWord {
    Ok,
    Slow,
}

/// One node.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct FleetNodeFigures {
    pub(crate) node: String,
    pub(crate) verdict: FleetWord,
    pub(crate) efficiency: Option<f64>,
    pub(crate) sent_gbit_per_s: f64,
    pub(crate) received_gbit_per_s: f64,
    pub(crate) cpus: Option<u64>,
    /// Medians over its rounds.
    pub(crate) cores_used: Option<f64>,
    pub(crate) cpu_wait: Option<f64>,
    pub(crate) cpu_others: Option<f64>,
    pub(crate) cpu_stolen: Option<f64>,
    pub(crate) resent: Option<f64>,
    pub(crate) nics: Vec<FleetRailFigures>,
    pub(crate) causes: Vec<FleetCause>,
}

/// One NIC of a node.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct FleetRailFigures {
    pub(crate) nic: String,
    pub(crate) sent_gbit_per_s: f64,
    pub(crate) received_gbit_per_s: f64,
    #[serde(flatten)]
    pub(crate) expected: ExpectedFigures,
    pub(crate) efficiency: Option<f64>,
    pub(crate) line_gbit_per_s: Option<f64>,
    pub(crate) mtu: Option<u32>,
    pub(crate) driver: Option<String>,
    pub(crate) faults: u64,
}

impl FleetFigures {
    /// Creates the figures of a fleet.
    pub(crate) fn new(
        (seconds_asked, rounds): (f64, usize),
        min_efficiency: Option<f64>,
        nodes: &[FleetNode],
        verdict: &FleetVerdict,
    ) -> FleetFigures {
        let mut figures: Vec<FleetNodeFigures> = nodes
            .iter()
            .zip(&verdict.nodes)
            .map(|(node, verdict)| FleetNodeFigures::new(node, verdict))
            .collect();
        let rank = |node: &FleetNodeFigures| (node.verdict != FleetWord::Slow, node.efficiency);
        figures.sort_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal));
        FleetFigures {
            seconds_asked,
            rounds,
            min_efficiency,
            nics: verdict.classes.iter().map(|class| nic_figures(class, nodes, verdict)).collect(),
            efficiency: Spread::of(verdict.nodes.iter().filter_map(|node| node.efficiency)),
            nodes: figures,
        }
    }

    /// Returns the nodes that are named.
    pub(crate) fn slow(&self) -> impl Iterator<Item = &FleetNodeFigures> {
        self.nodes.iter().filter(|node| node.verdict == FleetWord::Slow)
    }
}

impl ExpectedFigures {
    fn of(expected: Option<crate::core::fleet::verdict::ExpectedRates>) -> ExpectedFigures {
        ExpectedFigures {
            expected_sent_gbit_per_s: expected.map(|it| it.sent),
            expected_received_gbit_per_s: expected.map(|it| it.received),
            expected_by: expected.map(|it| it.basis),
        }
    }
}

impl FleetNodeFigures {
    fn new(node: &FleetNode, verdict: &NodeVerdict) -> FleetNodeFigures {
        let share = |of: fn(&LoadShares) -> f64| node.share(of);
        let sum = |of: fn(&NicVerdict) -> f64| verdict.nics.iter().map(of).sum();
        FleetNodeFigures {
            node: node.name.clone(),
            verdict: if verdict.is_slow() { FleetWord::Slow } else { FleetWord::Ok },
            efficiency: verdict.efficiency,
            sent_gbit_per_s: sum(|nic| nic.sent),
            received_gbit_per_s: sum(|nic| nic.received),
            cpus: node.cpus,
            cores_used: share(|load| load.cores),
            cpu_wait: share(|load| load.wait),
            cpu_others: share(|load| load.others),
            cpu_stolen: share(|load| load.stolen),
            resent: share(|load| load.resent),
            nics: node.nics.iter().zip(&verdict.nics).map(rail_figures).collect(),
            causes: verdict.causes.clone(),
        }
    }
}

fn rail_figures((nic, verdict): (&FleetNic, &NicVerdict)) -> FleetRailFigures {
    FleetRailFigures {
        nic: nic.name.clone(),
        sent_gbit_per_s: verdict.sent,
        received_gbit_per_s: verdict.received,
        expected: ExpectedFigures::of(verdict.expected),
        efficiency: verdict.efficiency,
        line_gbit_per_s: nic.line_gbit_per_s,
        mtu: nic.mtu,
        driver: nic.driver.clone(),
        faults: nic.faults,
    }
}

fn nic_figures(class: &NicClass, nodes: &[FleetNode], verdict: &FleetVerdict) -> FleetNicFigures {
    let members = || class.members.iter();
    let best =
        |direction| Spread::of(members().map(|&(node, nic)| nodes[node].best(nic, direction)));
    let efficiencies =
        members().filter_map(|&(node, nic)| verdict.nodes[node].nics[nic].efficiency);
    FleetNicFigures {
        nic: class.label.clone(),
        count: class.members.len(),
        line_gbit_per_s: class.line,
        expected: ExpectedFigures::of(class.expected),
        sent_gbit_per_s: best(RateDirection::Out),
        received_gbit_per_s: best(RateDirection::In),
        efficiency: Spread::of(efficiencies),
    }
}

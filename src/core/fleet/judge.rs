//! Judgement of a fleet: what is expected of each NIC, and which nodes are below the rest.
//!
//! A NIC is compared with NICs of its class: those of the same name on the other nodes, or, where
//! names differ, of the same line rate. Its value is its best over its partners, because one slow
//! node makes another slow only where the two meet. Where even that is low and no partner was good
//! with anybody, nothing is known: the node is not named, and another round tells.

use std::collections::{BTreeMap, BTreeSet};

use super::causes;
use super::causes::{FleetNorms, SlowNic};
use super::measure::{FleetNic, FleetNode, RateDirection};
use super::spread::{RobustCentre, median};
use super::verdict::{ExpectedRates, NicVerdict, NodeVerdict, RateBasis};
use crate::core::units::goodput;

/// NICs that a class needs, so that one can be told from the rest.
const CLASS_MIN: usize = 3;
/// Part of the nodes that have a NIC of a name, so that those without one lack it.
const USUAL_PART: f64 = 0.66;
/// Part below the median of its class that is within what healthy NICs differ by.
const SLOW_PART_MIN: f64 = 0.2;
/// The same in deviations of the class, where NICs differ by more.
const SLOW_SIGMAS: f64 = 5.0;
/// Part below the median that is slow however much the class differs.
const SLOW_PART_MAX: f64 = 0.5;
/// Part of a claimed line rate that the best NICs of a class must reach, or the claim is not
/// believed: virtual NICs claim any rate.
const BELIEVED_PART: f64 = 0.5;
/// MTU of Ethernet, where a NIC says none.
const ETHERNET_MTU: u32 = 1500;

/// Terms of a judgement.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct FleetTerms {
    /// The line rates are the user's: they are believed.
    pub(crate) is_declared: bool,
    /// Efficiency below which a node is named, whatever the others do.
    pub(crate) efficiency_min: Option<f64>,
}

/// Verdict on a fleet, in the order of its nodes.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct FleetVerdict {
    pub(crate) nodes: Vec<NodeVerdict>,
    pub(crate) classes: Vec<NicClass>,
    /// Nodes that were slow with partners of which nothing good is known: another round tells.
    pub(crate) unclear: Vec<usize>,
    /// Nodes none of whose NICs is slow.
    pub(crate) good: Vec<usize>,
}

/// NICs that are compared with each other.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct NicClass {
    /// Their name, or their line rate.
    pub(crate) label: String,
    /// Places of node and NIC.
    pub(crate) members: Vec<(usize, usize)>,
    /// Line rate that most of them claim, in Gbit/s.
    pub(crate) line: Option<f64>,
    pub(crate) expected: Option<ExpectedRates>,
    /// Rates below which a member is slow: of bytes out, and in.
    slow_below: [Option<f64>; 2],
    /// True if most nodes have a member, and its name is what they have in common.
    is_usual: bool,
}

/// Judges a fleet.
pub(crate) fn judge(nodes: &[FleetNode], terms: &FleetTerms) -> FleetVerdict {
    let classes = classes(nodes, terms);
    let fleet = Fleet { nodes, classes: &classes };
    let (found, norms) = (fleet.slow(), FleetNorms::of(nodes));
    let verdict = |node: usize| {
        let nics: Vec<NicVerdict> =
            (0..nodes[node].nics.len()).map(|nic| fleet.nic_verdict(node, nic)).collect();
        let missing = fleet.missing(node);
        let efficiency = efficiency(&nics, &missing);
        let mut slow: BTreeSet<usize> = found.proven.get(&node).cloned().unwrap_or_default();
        let is_below = |value: Option<f64>| {
            terms.efficiency_min.is_some_and(|least| value.is_some_and(|value| value < least))
        };
        if is_below(efficiency) {
            let below = (0..nics.len()).filter(|&nic| is_below(nics[nic].efficiency));
            slow.extend(below.filter(|&nic| !found.is_unclear(node, nic)));
        }
        let slow_nics: Vec<SlowNic<'_>> = slow
            .into_iter()
            .map(|nic| SlowNic {
                nic: &nodes[node].nics[nic],
                verdict: &nics[nic],
                peers: fleet.peers(node, nic),
                class_line: fleet.class_of(node, nic).line,
            })
            .collect();
        let mut causes = causes::causes(&nodes[node], &norms, &slow_nics);
        causes.extend(
            missing
                .iter()
                .map(|class| causes::of_missing(&class.label, class.members.len(), nodes.len())),
        );
        NodeVerdict { efficiency, nics, causes }
    };
    let verdicts = (0..nodes.len()).map(verdict).collect();
    let is_slow =
        |node: &usize| found.proven.contains_key(node) || found.unclear.contains_key(node);
    let good = (0..nodes.len()).filter(|node| !is_slow(node)).collect();
    let unclear = found.unclear.keys().copied().collect();
    FleetVerdict { nodes: verdicts, classes, unclear, good }
}

/// A fleet and the classes of its NICs.
struct Fleet<'a> {
    nodes: &'a [FleetNode],
    classes: &'a [NicClass],
}

impl<'a> Fleet<'a> {
    fn class_of(&self, node: usize, nic: usize) -> &'a NicClass {
        let is_in = |class: &&NicClass| class.members.contains(&(node, nic));
        self.classes.iter().find(is_in).expect("each NIC is of a class")
    }

    /// Returns the other NICs of its class.
    fn peers(&self, node: usize, nic: usize) -> Vec<&'a FleetNic> {
        let nodes = self.nodes;
        let members = self.class_of(node, nic).members.iter();
        let others = members.filter(|&&member| member != (node, nic));
        others.map(|&(node, nic)| &nodes[node].nics[nic]).collect()
    }

    fn nic_verdict(&self, node: usize, nic: usize) -> NicVerdict {
        let best = |direction| self.nodes[node].best(nic, direction);
        let (sent, received) = (best(RateDirection::Out), best(RateDirection::In));
        let expected = self.class_of(node, nic).expected;
        let efficiency = expected.map(|it| part(sent, it.sent).min(part(received, it.received)));
        NicVerdict { sent, received, expected, efficiency }
    }

    /// Returns the classes of which a node has no NIC, where most others have one, and more NICs.
    fn missing(&self, node: usize) -> Vec<&'a NicClass> {
        let counts = self.nodes.iter().map(|node| node.nics.len() as f64);
        let has_fewer = (self.nodes[node].nics.len() as f64) < median(counts).unwrap_or(0.0);
        let lacks = |class: &&NicClass| {
            class.is_usual && class.members.iter().all(|(member, _)| *member != node)
        };
        self.classes.iter().filter(|_| has_fewer).filter(lacks).collect()
    }

    /// Returns the NICs that are below their classes.
    fn slow(&self) -> SlowNics {
        let mut found = SlowNics::default();
        for class in self.classes {
            for direction in RateDirection::BOTH {
                self.find_slow(class, direction, &mut found);
            }
        }
        found
    }

    /// Finds the members of a class that are slow in a direction.
    fn find_slow(&self, class: &NicClass, direction: RateDirection, found: &mut SlowNics) {
        let is_slow = |&(node, nic): &(usize, usize), direction: RateDirection| {
            let below = class.slow_below[direction as usize];
            below.is_some_and(|below| self.nodes[node].best(nic, direction) < below)
        };
        // A partner was good enough if its own NIC of this class was, with somebody.
        let is_good = |partner: usize| {
            let mut members = class.members.iter().filter(|(node, _)| *node == partner);
            members.all(|member| !is_slow(member, direction.other_end()))
        };
        for &(node, nic) in class.members.iter().filter(|member| is_slow(member, direction)) {
            let mut rounds = self.nodes[node].rounds.iter();
            let is_proven = rounds.any(|round| is_good(round.partner));
            let of_kind = if is_proven { &mut found.proven } else { &mut found.unclear };
            of_kind.entry(node).or_default().insert(nic);
        }
    }
}

/// NICs below their classes, by node.
#[derive(Default)]
struct SlowNics {
    /// They were slow with a partner that was good with somebody else.
    proven: BTreeMap<usize, BTreeSet<usize>>,
    /// They were only tried with partners of which nothing good is known.
    unclear: BTreeMap<usize, BTreeSet<usize>>,
}

impl SlowNics {
    fn is_unclear(&self, node: usize, nic: usize) -> bool {
        let has = |of: &BTreeMap<usize, BTreeSet<usize>>| {
            of.get(&node).is_some_and(|nics| nics.contains(&nic))
        };
        has(&self.unclear) && !has(&self.proven)
    }
}

/// Returns the classes of all NICs.
fn classes(nodes: &[FleetNode], terms: &FleetTerms) -> Vec<NicClass> {
    let mut by_name: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    for (node, it) in nodes.iter().enumerate() {
        for (nic, it) in it.nics.iter().enumerate() {
            by_name.entry(&it.name).or_default().push((node, nic));
        }
    }
    let (named, rest): (Vec<_>, Vec<_>) =
        by_name.into_iter().partition(|(_, members)| members.len() >= CLASS_MIN);
    let mut classes: Vec<NicClass> = named
        .into_iter()
        .map(|(name, members)| {
            let is_usual = members.len() as f64 >= USUAL_PART * nodes.len() as f64;
            NicClass { is_usual, ..NicClass::new(name.to_owned(), members, nodes, terms) }
        })
        .collect();
    let mut by_line: BTreeMap<u64, Vec<(usize, usize)>> = BTreeMap::new();
    for (_, members) in rest {
        for (node, nic) in members {
            let line = nodes[node].nics[nic].line_gbit_per_s.unwrap_or(0.0);
            by_line.entry((line * 1000.0) as u64).or_default().push((node, nic));
        }
    }
    classes.extend(by_line.into_iter().map(|(line, members)| {
        let label = match line {
            0 => "others".to_owned(),
            line => format!("{} Gbit/s", line as f64 / 1000.0),
        };
        NicClass::new(label, members, nodes, terms)
    }));
    classes
}

impl NicClass {
    fn new(
        label: String,
        members: Vec<(usize, usize)>,
        nodes: &[FleetNode],
        terms: &FleetTerms,
    ) -> NicClass {
        let nic = |&(node, nic): &(usize, usize)| &nodes[node].nics[nic];
        let best =
            |direction| members.iter().map(move |&(node, nic)| nodes[node].best(nic, direction));
        let line = median(members.iter().filter_map(|member| nic(member).line_gbit_per_s));
        let mtu = median(members.iter().filter_map(|member| nic(member).mtu).map(f64::from));
        let of_line = line.map(|line| line * goodput(mtu.map_or(ETHERNET_MTU, |mtu| mtu as u32)));
        let centres = RateDirection::BOTH.map(|direction| RobustCentre::of(best(direction)));
        let reached = RateDirection::BOTH.into_iter().flat_map(best).fold(0.0, f64::max);
        let believed =
            of_line.filter(|of_line| terms.is_declared || reached >= BELIEVED_PART * of_line);
        let basis = if terms.is_declared { RateBasis::Declared } else { RateBasis::Line };
        let expected = match (believed, centres) {
            (Some(rate), _) => Some(ExpectedRates { sent: rate, received: rate, basis }),
            (None, [Some(sent), Some(received)]) if members.len() > 1 => Some(ExpectedRates {
                sent: sent.median,
                received: received.median,
                basis: RateBasis::Peers,
            }),
            _ => None,
        };
        let slow_below = centres.map(|centre| {
            centre.filter(|_| members.len() >= CLASS_MIN).map(|centre| slow_below(&centre))
        });
        NicClass { label, members, line, expected, slow_below, is_usual: false }
    }
}

/// Returns the rate below which a NIC is slow.
fn slow_below(centre: &RobustCentre) -> f64 {
    let spread = part(SLOW_SIGMAS * centre.sigma, centre.median);
    centre.median * (1.0 - spread.clamp(SLOW_PART_MIN, SLOW_PART_MAX))
}

/// Returns the rate of NICs together over what is expected, also of those that are `missing`, in
/// the worse direction.
fn efficiency(nics: &[NicVerdict], missing: &[&NicClass]) -> Option<f64> {
    let mut sums = [[0.0; 2]; 2];
    for nic in nics {
        let expected = nic.expected?;
        for (sum, rates) in
            sums.iter_mut().zip([[nic.sent, expected.sent], [nic.received, expected.received]])
        {
            sum[0] += rates[0];
            sum[1] += rates[1];
        }
    }
    for expected in missing.iter().filter_map(|class| class.expected) {
        sums[0][1] += expected.sent;
        sums[1][1] += expected.received;
    }
    let [sent, received] = sums.map(|[rate, expected]| part(rate, expected));
    (!nics.is_empty()).then(|| sent.min(received))
}

fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { of / whole } else { 0.0 }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

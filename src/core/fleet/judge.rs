//! Judgement of a fleet: what is expected of each NIC, and which nodes are below the rest.
//!
//! A NIC is compared with NICs of its class: those of the same name on the other nodes, or, where
//! names differ, of the same line rate. Its value is its best over its partners, because one slow
//! node makes another slow only where the two meet. Where even that is low and every partner is
//! named itself, nothing is known, and it is not named.

use std::collections::BTreeMap;

use super::causes;
use super::causes::{FleetNorms, SlowNic};
use super::measure::{FleetNic, FleetNode, RateDirection};
use super::spread::{RobustCentre, median};
use super::verdict::{ExpectedRates, NicVerdict, NodeVerdict, RateBasis};
use crate::core::units::goodput;

/// NICs that a class needs, so that one can be told from the rest.
const CLASS_MIN: usize = 3;
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
}

/// Judges a fleet.
pub(crate) fn judge(nodes: &[FleetNode], terms: &FleetTerms) -> FleetVerdict {
    let classes = classes(nodes, terms);
    let fleet = Fleet { nodes, classes: &classes };
    let (slow, norms) = (fleet.slow(), FleetNorms::of(nodes));
    let verdict = |node: usize| {
        let nics: Vec<NicVerdict> =
            (0..nodes[node].nics.len()).map(|nic| fleet.nic_verdict(node, nic)).collect();
        let efficiency = efficiency(&nics);
        let mut slow = slow.get(&node).cloned().unwrap_or_default();
        let is_below = |value: Option<f64>| {
            terms.efficiency_min.is_some_and(|least| value.is_some_and(|value| value < least))
        };
        if is_below(efficiency) {
            let below = (0..nics.len()).filter(|&nic| is_below(nics[nic].efficiency));
            slow.extend(below.filter(|nic| !slow.contains(nic)).collect::<Vec<usize>>());
        }
        slow.sort_unstable();
        let slow_nics: Vec<SlowNic<'_>> = slow
            .into_iter()
            .map(|nic| SlowNic {
                nic: &nodes[node].nics[nic],
                verdict: &nics[nic],
                peers: fleet.peers(node, nic),
                class_line: fleet.class_of(node, nic).line,
            })
            .collect();
        let causes = causes::causes(&nodes[node], &norms, &slow_nics);
        NodeVerdict { efficiency, nics, causes }
    };
    FleetVerdict { nodes: (0..nodes.len()).map(verdict).collect(), classes }
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

    /// Returns the NICs that are below their classes, by node.
    fn slow(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for class in self.classes {
            for direction in RateDirection::BOTH {
                for (node, nic) in self.guilty(class, direction) {
                    let nics = found.entry(node).or_default();
                    if !nics.contains(&nic) {
                        nics.push(nic);
                    }
                }
            }
        }
        found
    }

    /// Returns the members of a class that are slow in a direction by themselves.
    fn guilty(&self, class: &NicClass, direction: RateDirection) -> Vec<(usize, usize)> {
        let is_slow = |&(node, nic): &(usize, usize), direction: RateDirection| {
            let below = class.slow_below[direction as usize];
            below.is_some_and(|below| self.nodes[node].best(nic, direction) < below)
        };
        // A partner was good enough if its own NIC of this class was, with somebody else.
        let is_good = |partner: usize| {
            let mut members = class.members.iter().filter(|(node, _)| *node == partner);
            members.all(|member| !is_slow(member, direction.other_end()))
        };
        let candidates: Vec<(usize, usize)> =
            class.members.iter().filter(|member| is_slow(member, direction)).copied().collect();
        let has_good_partner =
            |node: usize| self.nodes[node].rounds.iter().any(|round| is_good(round.partner));
        // Slow at the other end with good partners: named there.
        let is_named = |partner: usize| !is_good(partner) && has_good_partner(partner);
        let all_named =
            |node: usize| self.nodes[node].rounds.iter().all(|round| is_named(round.partner));
        let is_guilty = |&(node, _): &(usize, usize)| has_good_partner(node) || !all_named(node);
        candidates.into_iter().filter(is_guilty).collect()
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
        .map(|(name, members)| NicClass::new(name.to_owned(), members, nodes, terms))
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
        NicClass { label, members, line, expected, slow_below }
    }
}

/// Returns the rate below which a NIC is slow.
fn slow_below(centre: &RobustCentre) -> f64 {
    let spread = part(SLOW_SIGMAS * centre.sigma, centre.median);
    centre.median * (1.0 - spread.clamp(SLOW_PART_MIN, SLOW_PART_MAX))
}

/// Returns the rate of NICs together over what is expected, in the worse direction.
fn efficiency(nics: &[NicVerdict]) -> Option<f64> {
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
    let [sent, received] = sums.map(|[rate, expected]| part(rate, expected));
    (!nics.is_empty()).then(|| sent.min(received))
}

fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { of / whole } else { 0.0 }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

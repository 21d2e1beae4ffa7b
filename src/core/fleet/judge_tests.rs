//! The judgement of fleets that are written down.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::super::measure::{FleetRound, LoadShares, NicRate};
use super::super::schedule::rounds;
use super::*;

/// Four nodes with one NIC of 10 Gbit/s that reach 9, each measured with all others.
fn fleet(change: impl Fn(usize, &mut FleetNode)) -> Vec<FleetNode> {
    let mut nodes: Vec<FleetNode> = (0..4).map(node).collect();
    for pairs in rounds(4, 3) {
        for (one, partner) in pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            nodes[one].rounds.push(FleetRound {
                partner,
                rates: vec![NicRate { sent_gbit_per_s: 9.0, received_gbit_per_s: 9.0 }],
                load: Some(LoadShares { cores: 0.5, wait: 0.02, ..LoadShares::default() }),
            });
        }
    }
    nodes.iter_mut().enumerate().for_each(|(at, node)| change(at, node));
    nodes
}

fn node(at: usize) -> FleetNode {
    let nic = FleetNic {
        name: "eth0".into(),
        line_gbit_per_s: Some(10.0),
        mtu: Some(9000),
        driver: Some("io_uring".into()),
        threads: 1,
        faults: 0,
    };
    FleetNode { name: format!("n{at}"), nics: vec![nic], cpus: Some(8), rounds: Vec::new() }
}

/// Makes all rates of a node the same.
fn slow(node: &mut FleetNode, gbit_per_s: f64) {
    for rate in node.rounds.iter_mut().flat_map(|round| &mut round.rates) {
        *rate = NicRate { sent_gbit_per_s: gbit_per_s, received_gbit_per_s: gbit_per_s };
    }
}

fn load(node: &mut FleetNode, change: impl Fn(&mut LoadShares)) {
    node.rounds.iter_mut().filter_map(|round| round.load.as_mut()).for_each(change);
}

/// Returns the nodes that are named, with all that is said of them.
fn said(nodes: &[FleetNode], terms: &FleetTerms) -> Vec<String> {
    let verdict = judge(nodes, terms);
    let causes = |(node, it): (&FleetNode, &NodeVerdict)| {
        let causes = it.causes.iter().map(|cause| format!("{} ({})", cause.cause, cause.remedy));
        let causes: Vec<String> = causes.collect();
        (!causes.is_empty()).then(|| format!("{}: {}", node.name, causes.join(", ")))
    };
    nodes.iter().zip(&verdict.nodes).filter_map(causes).collect()
}

/// Fault, the cause that is found, and a word of the remedy.
type FaultCase = (fn(&mut FleetNode), &'static str, &'static str);

fn said_of(change: impl Fn(&mut FleetNode)) -> String {
    let nodes = fleet(|at, node| {
        if at == 2 {
            change(node);
        }
    });
    let said = said(&nodes, &FleetTerms::default());
    let [only] = &said[..] else { panic!("{said:?}") };
    assert!(only.starts_with("n2: "), "{only}");
    only.clone()
}

#[test]
fn nobody_is_named_in_a_fleet_that_is_alike() {
    assert_eq!(said(&fleet(|_, _| {}), &FleetTerms::default()), [] as [String; 0]);
    // All of them wait.
    let waiting = fleet(|at, node| load(node, |load| load.wait = 0.7 + 0.05 * at as f64));
    assert_eq!(said(&waiting, &FleetTerms::default()), [] as [String; 0]);
}

#[test]
fn a_slow_nic_is_named_with_what_differs() {
    let plain = said_of(|node| slow(node, 4.0));
    assert!(
        plain.starts_with(
            "n2: eth0 sends 4.00 Gbit/s and receives 4.00 Gbit/s; expected 9.93 Gbit/s, the line \
             rate of its peers (look at its cable"
        ),
        "{plain}"
    );
    let cases: [FaultCase; 7] = [
        (
            |node| node.nics[0].line_gbit_per_s = Some(1.0),
            "its link is at 1.00 Gbit/s, those of its peers at 10.00 Gbit/s",
            "ethtool eth0",
        ),
        (
            |node| node.nics[0].mtu = Some(1500),
            "its MTU is 1500, that of its peers 9000",
            "ip link set eth0 mtu 9000",
        ),
        (|node| node.nics[0].faults = 5000, "5000 errors and drops", "ethtool -S eth0"),
        (
            |node| node.nics[0].driver = Some("epoll: no io_uring".into()),
            "its operations are done by epoll: no io_uring",
            "doctor",
        ),
        (
            |node| load(node, |load| load.resent = 0.05),
            "5 % of its TCP segments were sent again",
            "cables",
        ),
        (
            |node| load(node, |load| (load.wait, load.others) = (0.4, 0.5)),
            "CPU busy: others take 50 % of its 8 CPUs; its threads waited for a CPU in 40 %",
            "`top`",
        ),
        (|node| load(node, |load| load.cores = 0.97), "CPU bound", "threads-per-nic"),
    ];
    for (change, cause, remedy) in cases {
        let said = said_of(|node| {
            slow(node, 0.9);
            change(node);
        });
        assert!(said.contains(cause) && said.contains(remedy), "{said}");
    }
}

#[test]
fn a_busy_cpu_is_named_where_it_stands_out() {
    let busy = |change: fn(&mut LoadShares)| {
        said_of(|node| {
            load(node, |load| load.wait = 0.8);
            load(node, change);
        })
    };
    assert!(busy(|load| load.others = 0.9).starts_with("n2: CPU busy: others take 90 %"));
    assert!(busy(|load| load.stolen = 0.5).starts_with("n2: CPU busy: the hypervisor takes 50 %"));
    let limited = busy(|load| load.others = 0.01);
    assert!(limited.starts_with("n2: CPU limited") && limited.contains("cpu.max"), "{limited}");
    // What others take on every node is not why this one waits.
    let all = fleet(|at, node| {
        load(node, |load| (load.wait, load.others) = (if at == 2 { 0.9 } else { 0.1 }, 0.5));
    });
    let named = said(&all, &FleetTerms::default());
    assert!(matches!(&named[..], [only] if only.starts_with("n2: CPU limited")), "{named:?}");
    // Some waiting that costs no rate is nobody's matter.
    let some = fleet(|at, node| load(node, |load| load.wait = if at == 2 { 0.4 } else { 0.02 }));
    assert_eq!(said(&some, &FleetTerms::default()), [] as [String; 0]);
}

#[test]
fn a_partner_of_slow_nodes_alone_is_not_named_and_tried_again() {
    // Of six nodes with two partners each, both of one are slow, and it is slow with them.
    let mut nodes: Vec<FleetNode> = (0..6).map(node).collect();
    for pairs in rounds(6, 2) {
        for (one, partner) in pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            let rates = vec![NicRate { sent_gbit_per_s: 9.0, received_gbit_per_s: 9.0 }];
            nodes[one].rounds.push(FleetRound { partner, rates, load: None });
        }
    }
    let bad: Vec<usize> = nodes[0].rounds.iter().map(|round| round.partner).collect();
    for (at, node) in nodes.iter_mut().enumerate() {
        for round in &mut node.rounds {
            if bad.contains(&at) || bad.contains(&round.partner) {
                round.rates[0] = NicRate { sent_gbit_per_s: 1.0, received_gbit_per_s: 1.0 };
            }
        }
    }
    let verdict = judge(&nodes, &FleetTerms::default());
    let named: Vec<usize> = (0..6).filter(|&at| verdict.nodes[at].is_slow()).collect();
    let mut expected = bad;
    expected.sort_unstable();
    assert_eq!((named, verdict.unclear), (expected, vec![0]));
    assert_eq!(verdict.good.len(), 3);
}

#[test]
fn claims_are_believed_once_they_are_reached() {
    let efficiency = |gbit_per_s: f64, terms: &FleetTerms| {
        let verdict = judge(&fleet(|_, node| slow(node, gbit_per_s)), terms);
        let node = &verdict.nodes[0];
        (node.efficiency.unwrap(), node.nics[0].expected.unwrap().basis)
    };
    let terms = FleetTerms::default();
    let (of_line, basis) = efficiency(6.0, &terms);
    assert_eq!(basis, RateBasis::Line);
    assert!((of_line - 6.0 / (10.0 * goodput(9000))).abs() < 1e-9);
    assert_eq!(efficiency(0.1, &terms), (1.0, RateBasis::Peers));
    let declared = FleetTerms { is_declared: true, ..terms };
    assert_eq!(efficiency(0.1, &declared).1, RateBasis::Declared);
}

#[test]
fn a_least_efficiency_names_those_below_it_too() {
    let nodes = fleet(|at, node| slow(node, [9.0, 8.5, 9.0, 9.0][at]));
    let terms = |least: f64| FleetTerms { efficiency_min: Some(least), ..FleetTerms::default() };
    assert_eq!(said(&nodes, &terms(0.8)), [] as [String; 0]);
    let named = said(&nodes, &terms(0.88));
    assert!(matches!(&named[..], [only] if only.starts_with("n1: eth0 sends 8.50")), "{named:?}");
    assert_eq!(said(&nodes, &terms(1.0)).len(), 4);
}

#[test]
fn nics_of_other_names_are_compared_by_their_line() {
    let nodes = fleet(|at, node| {
        node.nics[0].name = format!("enp{at}");
        if at == 1 {
            slow(node, 3.0);
        }
    });
    let verdict = judge(&nodes, &FleetTerms::default());
    assert_eq!(verdict.classes.len(), 1);
    assert_eq!(verdict.classes[0].label, "10 Gbit/s");
    assert!(verdict.nodes[1].is_slow() && !verdict.nodes[0].is_slow());
}

#[test]
fn a_nic_that_a_node_lacks_is_named() {
    let two_nics = |at: usize, node: &mut FleetNode| {
        if at != 3 {
            node.nics.push(FleetNic { name: "eth1".into(), ..node.nics[0].clone() });
            node.rounds.iter_mut().for_each(|round| round.rates.push(round.rates[0]));
        }
    };
    let nodes = fleet(two_nics);
    let said = said(&nodes, &FleetTerms::default());
    let [only] = &said[..] else { panic!("{said:?}") };
    assert!(only.starts_with("n3: eth1 is missing: 3 of 4 nodes use one"), "{only}");
    let half = judge(&nodes, &FleetTerms::default()).nodes[3].efficiency.unwrap();
    assert!((0.4..0.5).contains(&half), "{half}");
    // One more than the others have is nobody's lack.
    let more = fleet(|at, node| {
        if at == 3 {
            two_nics(0, node);
        }
    });
    assert!(judge(&more, &FleetTerms::default()).nodes.iter().all(|node| !node.is_slow()));
}

#[test]
fn a_nic_that_carries_nothing_is_named_as_such() {
    let said = said_of(|node| slow(node, 0.0));
    assert!(said.contains("it carries nothing") && said.contains("firewall"), "{said}");
}

/// A thousand nodes are judged as four are.
#[test]
fn of_a_thousand_nodes_the_two_are_named() {
    let mut nodes: Vec<FleetNode> = (0..1000).map(node).collect();
    for pairs in rounds(1000, 3) {
        for (one, partner) in pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            let is_slow = |at| at == 77 || at == 500;
            let rate = if is_slow(one) || is_slow(partner) { 5.0 } else { 9.0 };
            let rates = vec![NicRate { sent_gbit_per_s: rate, received_gbit_per_s: rate }];
            nodes[one].rounds.push(FleetRound { partner, rates, load: None });
        }
    }
    let verdict = judge(&nodes, &FleetTerms::default());
    let named: Vec<usize> = (0..1000).filter(|&at| verdict.nodes[at].is_slow()).collect();
    assert_eq!(named, [77, 500]);
}

#[test]
fn two_nodes_have_no_peers_and_a_line_all_the_same() {
    let mut nodes = fleet(|at, node| slow(node, if at == 0 { 9.0 } else { 2.0 }));
    nodes.truncate(2);
    assert_eq!(said(&nodes, &FleetTerms::default()), [] as [String; 0]);
    let terms = FleetTerms { efficiency_min: Some(0.5), ..FleetTerms::default() };
    assert_eq!(said(&nodes, &terms).len(), 1);
}

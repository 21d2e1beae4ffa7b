//! Synthetic runs between two machines: their pairs, the NICs that carried them, and the findings.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::core::doctor::diagnosis::FindingLevel;
use crate::core::doctor::judge::judge_peer;
use crate::core::doctor::peer::*;
use crate::core::report::NodeRole;

/// Creates a rail from the third and fourth byte of its address, the MiB sent and received, and the
/// counters of its NIC for each.
fn rail(nic: &str, host: [u8; 2], moved: (u64, u64), counted: (u64, u64)) -> RailReport {
    RailReport {
        threads: 1,
        nic: nic.into(),
        bytes_sent: moved.0 * MIB,
        bytes_received: moved.1 * MIB,
        line_gbit_per_s: Some(1.0),
        efficiency: None,
        mtu: Some(1500),
        address: Some(([10, 0, host[0], host[1]], 1).into()),
        counted: Some((counted.0 * MIB, counted.1 * MIB)),
        faults: 0,
        path: None,
        driver: None,
        wire: None,
        cipher: None,
    }
}

fn node(rails: Vec<RailReport>) -> NodeReport {
    NodeReport {
        name: "n".into(),
        role: NodeRole::Both,
        bytes_sent: 0,
        bytes_received: 0,
        cpu_seconds: 0.0,
        memory_bytes_max: 0,
        seconds: 1.0,
        load: None,
        rails,
    }
}

fn near(own: IpAddr, far: IpAddr) -> bool {
    own.to_string().rsplit_once('.').unwrap().0 == far.to_string().rsplit_once('.').unwrap().0
}

fn out(here: Vec<RailReport>, there: Vec<RailReport>) -> Vec<TriedPair> {
    pairs(PairDirection::Out, (&node(here), &node(there)), 1.0, near)
}

fn said(pairs: Vec<TriedPair>) -> Vec<(FindingLevel, String)> {
    let findings = judge_peer(&DoctorPeer { name: "p:1".into(), pairs, warnings: Vec::new() });
    assert!(findings.iter().all(|it| (it.level == FindingLevel::Ok) == it.remedy.is_none()
        && it.remedy.is_none() == it.cost.is_none()));
    findings
        .into_iter()
        .map(|finding| (finding.level, format!("{}: {}", finding.about, finding.found)))
        .collect()
}

#[test]
fn pairs_are_of_one_subnet_and_every_rail_is_in_one() {
    let here =
        vec![rail("eth0", [0, 1], (112, 0), (113, 1)), rail("eth1", [1, 1], (111, 0), (112, 1))];
    let there =
        vec![rail("ib1", [1, 2], (0, 111), (1, 112)), rail("ib0", [0, 2], (0, 112), (1, 113))];
    let pairs = out(here, there);
    let named: Vec<(&str, &str, u64)> = pairs
        .iter()
        .map(|pair| (pair.nic.as_str(), pair.peer_nic.as_str(), pair.bytes / MIB))
        .collect();
    assert_eq!(named, [("eth0", "ib0", 112), ("eth1", "ib1", 111)]);
    assert_eq!(
        (&pairs[1].carried_by, &pairs[1].peer_carried_by),
        (&Some("eth1".into()), &Some("ib1".into()))
    );
    assert!(
        (pairs[0].gbit_per_s - 0.9395).abs() < 1e-3
            && (pairs[0].goodput_gbit_per_s.unwrap() - 0.956).abs() < 1e-3
    );
    for (level, text) in said(pairs) {
        assert!(
            level == FindingLevel::Ok && text.contains("98 %") || text.contains("97 %"),
            "{text}"
        );
    }
}

#[test]
fn the_side_with_more_rails_tells_what_went_over_each_pair() {
    let here = vec![rail("eth0", [0, 1], (30, 0), (31, 1))];
    let there = vec![rail("a", [0, 2], (0, 20), (1, 21)), rail("b", [0, 3], (0, 10), (1, 11))];
    let moved: Vec<u64> =
        out(here.clone(), there.clone()).iter().map(|pair| pair.bytes / MIB).collect();
    assert_eq!(moved, [20, 10]);
    // Two rails of one NIC on either side are one pair of NICs.
    let twice = |rail: &RailReport| vec![rail.clone(), rail.clone()];
    let pairs = out(twice(&here[0]), twice(&there[0]));
    assert_eq!((pairs.len(), pairs[0].bytes / MIB), (1, 60));
}

#[test]
fn what_another_nic_carried_is_named_with_both() {
    let there =
        vec![rail("eth0", [0, 2], (0, 50), (1, 102)), rail("eth1", [1, 2], (0, 50), (1, 0))];
    let here = vec![rail("eth0", [0, 1], (50, 0), (51, 1)), rail("eth1", [1, 1], (50, 0), (0, 1))];
    let pairs = out(here, there);
    assert_eq!(pairs[1].carried_by.as_deref(), Some(ANOTHER));
    assert_eq!(pairs[1].peer_carried_by.as_deref(), Some("eth0"));
    let said = said(pairs);
    let expected =
        "eth1 → peer's eth1: here, none of the NICs in use carried what eth1 should have";
    assert_eq!(said[1], (FindingLevel::Shortfall, expected.into()));
}

#[test]
fn nothing_little_and_less_than_the_others_are_shortfalls() {
    let pair = |bytes_per_second: u64, line: Option<f64>| {
        let rail = |nic: &str, moved: (u64, u64)| RailReport {
            line_gbit_per_s: line,
            ..rail(nic, [0, 1], moved, moved)
        };
        let (here, there) =
            (rail("eth0", (bytes_per_second, 0)), rail("eth0", (0, bytes_per_second)));
        out(vec![here], vec![there]).remove(0)
    };
    let texts = |pairs: Vec<TriedPair>| {
        said(pairs)
            .into_iter()
            .map(|(level, text)| (level == FindingLevel::Ok, text))
            .collect::<Vec<_>>()
    };
    let dead = texts(vec![pair(110, Some(1.0)), pair(1, Some(1.0))]);
    assert!(
        dead[0].0
            && !dead[1].0
            && dead[1]
                .1
                .contains("it carried nothing, while eth0 → peer's eth0 carried 922.75 Mbit/s"),
        "{dead:?}"
    );
    let slow = texts(vec![pair(110, Some(10.0))]);
    assert!(
        !slow[0].0 && slow[0].1.contains("922.75 Mbit/s of a line of 10.00 Gbit/s"),
        "{slow:?}"
    );
    let uneven = texts(vec![pair(110, None), pair(40, None)]);
    assert!(uneven[0].0 && uneven[0].1.contains("not known") && !uneven[1].0, "{uneven:?}");
    let of_its_kind = texts(vec![pair(1100, Some(10.0)), pair(110, Some(1.0))]);
    assert!(of_its_kind.iter().all(|(is_well, _)| *is_well), "{of_its_kind:?}");
}

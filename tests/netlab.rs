//! Clusters of network namespaces with shaped NICs: correct bytes over real links, and a NIC that
//! dies. Skipped with a note where namespaces are not permitted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;

use random::SplitMix;
use support::lab::Lab;
use support::{code, json, pattern, stderr};

#[test]
fn four_senders_and_three_receivers_with_random_overlapping_ranges() {
    let Some(lab) = Lab::up(7, 1, "1gbit") else { return };
    let total = 64_u64 << 20;
    let mut random = SplitMix::new(4);
    let mut part = || {
        let from = random.below(total / 2);
        (from, from + total / 4 + random.below(total / 4))
    };
    let mut spec = format!("id lab\nwriter 10.200.0.1:7000 pattern:5 0 0-{} speed=1G\n", total - 1);
    for node in 2..=4 {
        let (from, to) = part();
        spec += &format!("writer 10.200.0.{node}:7000 pattern:5 0 {from}-{to} speed=1G\n");
    }
    let wants: Vec<(u64, u64)> = (5..=7).map(|_| part()).collect();
    for (node, (from, to)) in (5..).zip(&wants) {
        spec += &format!("reader 10.200.0.{node}:7000 file:///copy{node} 0 {from}-{to} speed=1G\n");
    }
    let output = lab.run(&spec);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for (node, (from, to)) in (5..).zip(&wants) {
        let copy = fs::read(lab.path(&format!("copy{node}"))).unwrap();
        assert!(copy == pattern(5, *from, to - from + 1), "node {node}\n{spec}");
    }
    let report = json(&output);
    let moved: u64 = wants.iter().map(|(from, to)| to - from + 1).sum();
    assert_eq!(report["bytes"], moved);
    assert_eq!(report["warnings"], serde_json::json!([]), "every NIC counted what its rail moved");
    // Two blocks of each receiver, or one byte in a hundred, may always be requested twice.
    assert!(report["wasted_bytes"].as_u64().unwrap() <= (moved / 100).max(6 << 20), "{report}");
}

#[test]
fn every_nic_carries_its_part_and_one_that_dies_costs_only_itself() {
    let Some(lab) = Lab::up(2, 3, "200mbit") else { return };
    let spec = |bytes: u64| {
        format!(
            "id nics\n\
             writer 10.200.0.1:7000 pattern:5 0 0-{0}\n\
             reader 10.200.0.2:7000 file:///copy 0 0-{0}\n",
            bytes - 1
        )
    };
    let output = lab.run(&spec(48 << 20));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["warnings"], serde_json::json!([]));
    for rail in report["nodes"][1]["rails"].as_array().unwrap() {
        let bytes = rail["bytes_received"].as_u64().unwrap();
        assert!(bytes > 10 << 20, "a third of it, about: {rail}");
    }
    // 192 MiB over three such links take 2.7 s; the NIC dies while pieces are in flight on it.
    let output =
        lab.while_it_moves(&spec(192 << 20), |lab| lab.network.fault(2, 1, &["down"]).unwrap());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(lab.path("copy")).unwrap() == pattern(5, 0, 192 << 20));
}

#[test]
fn the_nic_of_the_control_address_dies_at_a_receiver_and_at_a_sender_and_nothing_is_lost() {
    let Some(lab) = Lab::up(2, 2, "400mbit") else { return };
    let bytes: u64 = 192 << 20;
    let spec = format!(
        "id control\n\
         writer 10.200.0.1:7000 pattern:5 0 0-{0}\n\
         reader 10.200.0.2:7000 file:///copy 0 0-{0}\n",
        bytes - 1
    );
    let output = lab.while_it_moves(&spec, |lab| lab.network.fault(2, 0, &["down"]).unwrap());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(lab.path("copy")).unwrap() == pattern(5, 0, bytes));
    lab.network.fault(2, 0, &["up"]).unwrap();
    // The sender's NIC falls silent, as behind a switch that lost its power.
    let output = lab.while_it_moves(&spec, |lab| lab.network.nft(1, SILENCE).unwrap());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(lab.path("copy")).unwrap() == pattern(5, 0, bytes));
}

/// Rules by which eth0 drops everything silently.
const SILENCE: &str = "add table inet silence
add chain inet silence in { type filter hook input priority 0; }
add chain inet silence out { type filter hook output priority 0; }
add rule inet silence in iifname eth0 drop
add rule inet silence out oifname eth0 drop
";

/// Without an option: with blocks of 1 MiB each part has two of them, and eight copies take twice
/// as long as one.
#[test]
fn copies_to_eight_nodes_take_about_the_time_of_one() {
    let Some(lab) = Lab::up(9, 1, "25mbit") else { return };
    let bytes = 16_u64 << 20;
    let copies = |count: u32| {
        let row = |node: u32, role: &str, uri: &str| {
            format!("{role} 10.200.0.{node}:7000 {uri} 0 0-{} speed=25M\n", bytes - 1)
        };
        let mut spec = format!("id copies{count}\n{}", row(1, "writer", "pattern:5"));
        for node in 2..2 + count {
            spec += &row(node, "reader", &format!("file:///copy{node}"));
        }
        let output = lab.run(&spec);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let report = json(&output);
        (report["seconds"].as_f64().unwrap(), report["block_bytes"].clone())
    };
    let ((one, large), (eight, small)) = (copies(1), copies(8));
    assert_eq!((large, small), ((256 << 10).into(), (64 << 10).into()));
    let right = pattern(5, 0, bytes);
    assert!((2..=9).all(|node| fs::read(lab.path(&format!("copy{node}"))).unwrap() == right));
    assert!(eight < 1.25 * one, "eight copies take {eight} s, and one takes {one} s");
}

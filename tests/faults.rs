//! Networks and nodes that fail while bytes move, in labs: all received data is correct, or the
//! transfer ends in bounded time with a name in its message, and running it again completes it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::lab::Lab;
use support::{
    JOURNAL_HEADER_BYTES, JOURNAL_RECORD_BYTES, beside, code, end_of, json, pattern, stderr,
    wait_for,
};

const SEED: u64 = 5;
/// Short timeout for silent nodes, so that these tests are quick.
const STALL: [&str; 2] = ["--stall-timeout", "3s"];
/// TCP doubles its pause with every retry while a NIC is down: it may miss one return after
/// another.
const FLAPPING_STALL: [&str; 2] = ["--stall-timeout", "15s"];
/// Limit for the end of a failed transfer.
const FAILS_WITHIN: Duration = Duration::from_secs(20);
/// Limit for nodes that freeze: the master does not wait for their good-byes, which would take ten
/// seconds.
const FROZEN_WITHIN: Duration = Duration::from_secs(10);
/// veth carries up to 64 KiB at once by default, so that one fault is not one packet's. No checksum
/// is recomputed then.
const SINGLE_PACKETS: &str = "ethtool -K eth0 tso off gso off gro off tx off";

/// Rows for everything from each of `senders` to each of `receivers`, which write `copyN`.
fn spec(senders: &[u32], receivers: &[u32], bytes: u64) -> String {
    let last = bytes - 1;
    let writer = |node: &u32| format!("writer 10.200.0.{node}:7000 pattern:{SEED} 0 0-{last}\n");
    let reader =
        |node: &u32| format!("reader 10.200.0.{node}:7000 file:///copy{node} 0 0-{last}\n");
    let rows = senders.iter().map(writer).chain(receivers.iter().map(reader));
    format!("id faults\n{}", rows.collect::<String>())
}

/// Begins a transfer, and waits until each of `receivers` has recorded some pieces.
fn begin(lab: &Lab, spec: &str, receivers: &[u32]) -> Child {
    begin_with(lab, spec, receivers, &STALL)
}

fn begin_with(lab: &Lab, spec: &str, receivers: &[u32], options: &[&str]) -> Child {
    let mut child = lab.start_with(spec, options);
    for node in receivers {
        let name = format!(".copy{node}.cep-");
        wait_for("a journal", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
            beside(lab.folder.path(), ".journal").iter().any(|path| {
                let is_its = path.file_name().unwrap().to_string_lossy().starts_with(&name);
                is_its
                    && fs::metadata(path).is_ok_and(|about| {
                        about.len() > JOURNAL_HEADER_BYTES + 2 * JOURNAL_RECORD_BYTES
                    })
            })
        });
    }
    child
}

fn has_copy(lab: &Lab, node: u32, bytes: u64) -> bool {
    fs::read(lab.path(&format!("copy{node}"))).is_ok_and(|copy| copy == pattern(SEED, 0, bytes))
}

/// Checks that a transfer has succeeded, with correct bytes at each of `receivers` and no other
/// files.
fn assert_complete(lab: &Lab, output: &Output, receivers: &[u32], bytes: u64) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    for node in receivers {
        assert!(has_copy(lab, *node, bytes), "node {node} has other bytes: {}", json(output));
    }
    wait_for("the end of the last records", || beside(lab.folder.path(), "").is_empty());
    json(output)
}

/// Checks that a transfer has failed `within` a time after it was `struck`, with one of `codes`,
/// naming each of `culprits`.
fn assert_failed(
    output: &Output,
    struck: Instant,
    within: Duration,
    codes: &[i32],
    culprits: &[&str],
) {
    assert!(codes.contains(&code(output)), "{}: {}", code(output), stderr(output));
    assert!(struck.elapsed() < within, "after {:?}: {}", struck.elapsed(), stderr(output));
    for culprit in culprits {
        assert!(stderr(output).contains(culprit), "{culprit} is not in {}", stderr(output));
    }
    assert!(
        !json(output)["error"]["missing_ranges"].as_array().unwrap().is_empty(),
        "{}",
        json(output)
    );
}

/// Runs the transfer again after the fault: it resumes.
fn assert_resumes(lab: &Lab, spec: &str, receivers: &[u32], bytes: u64) {
    let report = assert_complete(lab, &lab.run(spec), receivers, bytes);
    assert!(report["resumed_bytes"].as_u64().unwrap() > 0, "{report}");
}

/// Rules for incoming data packets at a node, before any other rules.
fn on_data(what: &str) -> String {
    format!(
        "add table inet wire
add counter inet wire hits
add chain inet wire in {{ type filter hook prerouting priority -300; }}
add rule inet wire in tcp dport != 7000 tcp sport != 7000 meta length > 1000 {what}
"
    )
}

/// Returns the number of packets that `on_data` has matched.
fn hits(lab: &Lab, node: u32) -> u64 {
    let listed = lab.network.shell(node, "nft -j list counters").unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let hits = listed["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|entry| entry["counter"]["packets"].as_u64());
    hits.unwrap()
}

/// Changes a byte in every 4000th packet, undetected by TCP.
const CHANGED: &str = "numgen inc mod 4000 0 counter name hits @ih,64,8 set 0xaa";

#[test]
fn bytes_that_change_on_the_way_are_caught_and_fetched_again() {
    let single = [1, 2, 3].map(|node| (node, SINGLE_PACKETS));
    let Some(lab) = Lab::changed(3, 1, "200mbit", &single) else { return };
    let bytes = 48 << 20;
    lab.network.nft(3, &on_data(CHANGED)).unwrap();
    let output = lab.run(&spec(&[1, 2], &[3], bytes));
    let (report, hits) = (assert_complete(&lab, &output, &[3], bytes), hits(&lab, 3));
    let retries = report["retries"].as_u64().unwrap();
    assert!(hits >= 5, "the fault did not work: {hits}");
    // A corrupted header ends its flow, and all its requests.
    assert!(
        retries >= 3 && retries <= 16 * hits,
        "{retries} retries of {hits} changed packets: {report}"
    );
    // In clear and without a check the change is undetected: packets were indeed changed.
    let unnoticed = ["--check", "none", "--wire", "clear"];
    let output = end_of(lab.start_with(&spec(&[1, 2], &[3], bytes), &unnoticed));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(json(&output)["retries"], 0);
    let copy = fs::read(lab.path("copy3")).unwrap();
    let right = pattern(SEED, 0, bytes);
    let wrong = copy.iter().zip(&right).filter(|(one, other)| one != other);
    assert!(wrong.clone().count() >= 3 && wrong.map(|(one, _)| *one).all(|byte| byte == 0xaa));
}

/// Hardly any piece of a mebibyte arrives as it was sent, and after three tries at one the transfer
/// failed.
#[test]
fn one_packet_in_200_is_changed_and_all_of_it_arrives() {
    arrives_although_one_packet_is_changed_in(200, 64 << 20);
}

/// Headers change so often that no flow lives for a whole piece.
#[test]
fn one_packet_in_20_is_changed_and_all_of_it_arrives() {
    arrives_although_one_packet_is_changed_in(20, 8 << 20);
}

fn arrives_although_one_packet_is_changed_in(packets: u64, bytes: u64) {
    let Some(lab) = Lab::changed(2, 1, "200mbit", &[(1, SINGLE_PACKETS), (2, SINGLE_PACKETS)])
    else {
        return;
    };
    let changed = CHANGED.replace("inc mod 4000 0", &format!("random mod {packets} < 1"));
    lab.network.nft(2, &on_data(&changed)).unwrap();
    let output = lab.run(&spec(&[1], &[2], bytes));
    let (report, hits) = (assert_complete(&lab, &output, &[2], bytes), hits(&lab, 2));
    assert!(hits >= bytes / 1500 / packets / 3, "the fault did not work: {hits}");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("eth0: ") && warnings.contains("arrived changed"), "{warnings}");
}

/// Everything that passes one of two NICs is changed: the other one brings it all.
#[test]
fn a_nic_that_changes_every_packet_is_named_and_the_other_brings_everything() {
    let changes = [(1, SINGLE_PACKETS), (2, SINGLE_PACKETS)];
    let Some(lab) = Lab::changed(2, 2, "200mbit", &changes) else { return };
    let bytes = 32 << 20;
    let changed = on_data(&CHANGED.replace("numgen inc mod 4000 0", "iifname eth1"));
    lab.network.nft(2, &changed).unwrap();
    let output = lab.run(&spec(&[1], &[2], bytes));
    let report = assert_complete(&lab, &output, &[2], bytes);
    let warnings = report["warnings"].to_string();
    assert!(hits(&lab, 2) > 0 && warnings.contains("eth1"), "{warnings}");
}

fn with_losses(percent: u32) {
    let Some(lab) = Lab::changed(2, 1, "200mbit", &[(1, SINGLE_PACKETS), (2, SINGLE_PACKETS)])
    else {
        return;
    };
    let bytes = 32 << 20;
    let losing = on_data(&format!("numgen random mod 100 < {percent} counter name hits drop"));
    lab.network.nft(2, &losing).unwrap();
    let output = lab.run(&spec(&[1], &[2], bytes));
    assert_complete(&lab, &output, &[2], bytes);
    let (hits, packets) = (hits(&lab, 2), bytes / 1448);
    assert!(hits > packets * u64::from(percent) / 200, "the fault did not work: {hits}");
}

#[test]
fn one_packet_in_a_hundred_is_lost() {
    with_losses(1);
}

#[test]
fn five_packets_in_a_hundred_are_lost() {
    with_losses(5);
}

/// Resets connections that have carried 5 MB: the receiver gets a reset in answer to its
/// acknowledgement, and its system sends one to the sender.
const RESETS: &str = "add table inet wire
add counter inet wire hits
add chain inet wire in { type filter hook input priority 0; }
add rule inet wire in tcp flags & rst == 0 ct reply bytes > 5000000 counter name hits reject with \
tcp reset
";

#[test]
fn connections_are_reset_every_five_megabytes() {
    let counted = [(1, "sysctl -q net.netfilter.nf_conntrack_acct=1")];
    let Some(lab) = Lab::changed(2, 1, "200mbit", &counted) else { return };
    let bytes = 48 << 20;
    lab.network.nft(1, RESETS).unwrap();
    let output = lab.run(&spec(&[1], &[2], bytes));
    assert_complete(&lab, &output, &[2], bytes);
    assert!(hits(&lab, 1) >= bytes / 6_000_000, "the fault did not work: {}", hits(&lab, 1));
}

/// A NIC of the receiver goes down and up until the transfer has ended.
fn with_a_nic_that_flaps(nics: u32) {
    let Some(lab) = Lab::up(2, nics, "200mbit") else { return };
    let bytes = 48 << 20;
    let mut child = begin_with(&lab, &spec(&[1], &[2], bytes), &[2], &FLAPPING_STALL);
    let mut times = 0;
    // The interval is part of the fault; there is no event to wait for.
    while child.try_wait().unwrap().is_none() && times < 60 {
        lab.network.fault(2, 0, &["down"]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        lab.network.fault(2, 0, &["up"]).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        times += 1;
    }
    let report = assert_complete(&lab, &end_of(child), &[2], bytes);
    assert!(times >= 2, "it was over before the NIC could flap: {report}");
}

#[test]
fn one_of_two_nics_flaps() {
    with_a_nic_that_flaps(2);
}

#[test]
fn the_only_nic_flaps() {
    with_a_nic_that_flaps(1);
}

/// Drops packets from `from` at `node`; the other direction works.
fn cut(lab: &Lab, node: u32, from: u32) {
    let rule = format!("add rule inet cut in ip saddr 10.200.0.{from} drop\n");
    let chain = "add chain inet cut in { type filter hook input priority 0; }";
    lab.network.nft(node, &format!("add table inet cut\n{chain}\n{rule}")).unwrap();
}

fn heal(lab: &Lab, node: u32) {
    lab.network.nft(node, "delete table inet cut\n").unwrap();
}

/// Directions between sender and receiver that can fail: the node that receives nothing, and its
/// peer.
const ONE_WAY: [(u32, u32); 2] = [(2, 1), (1, 2)];

#[test]
fn one_direction_fails_and_heals() {
    let Some(lab) = Lab::up(2, 1, "200mbit") else { return };
    let bytes = 48 << 20;
    for (deaf, mute) in ONE_WAY {
        let child = begin(&lab, &spec(&[1], &[2], bytes), &[2]);
        cut(&lab, deaf, mute);
        // Longer than a flow may be silent, shorter than the transfer may stand still.
        std::thread::sleep(Duration::from_millis(1500));
        heal(&lab, deaf);
        let output = end_of(child);
        assert_complete(&lab, &output, &[2], bytes);
    }
}

#[test]
fn one_direction_fails_and_a_replica_stands_in() {
    let Some(lab) = Lab::up(3, 1, "200mbit") else { return };
    let bytes = 48 << 20;
    for (deaf, mute) in ONE_WAY {
        let child = begin(&lab, &spec(&[1, 3], &[2], bytes), &[2]);
        cut(&lab, deaf, mute);
        let output = end_of(child);
        assert_complete(&lab, &output, &[2], bytes);
        heal(&lab, deaf);
    }
}

#[test]
fn one_direction_fails_for_good_and_what_is_missing_is_named() {
    let Some(lab) = Lab::up(2, 1, "200mbit") else { return };
    let bytes = 48 << 20;
    for (deaf, mute) in ONE_WAY {
        let spec = spec(&[1], &[2], bytes);
        let child = begin(&lab, &spec, &[2]);
        let struck = Instant::now();
        cut(&lab, deaf, mute);
        let output = end_of(child);
        assert_failed(&output, struck, FAILS_WITHIN, &[3, 7], &["10.200.0.1:7000"]);
        heal(&lab, deaf);
        assert_resumes(&lab, &spec, &[2], bytes);
    }
}

#[test]
fn a_sender_freezes_and_a_replica_stands_in() {
    let Some(lab) = Lab::up(3, 1, "200mbit") else { return };
    let bytes = 48 << 20;
    let child = begin(&lab, &spec(&[1, 3], &[2], bytes), &[2]);
    let struck = Instant::now();
    lab.signal(1, Signal::SIGSTOP);
    let output = end_of(child);
    assert!(struck.elapsed() < FROZEN_WITHIN, "after {:?}", struck.elapsed());
    assert_complete(&lab, &output, &[2], bytes);
}

#[test]
fn the_only_sender_freezes_and_what_is_missing_is_named() {
    let Some(lab) = Lab::up(2, 1, "200mbit") else { return };
    let (bytes, spec) = (48 << 20, spec(&[1], &[2], 48 << 20));
    let child = begin(&lab, &spec, &[2]);
    let struck = Instant::now();
    lab.signal(1, Signal::SIGSTOP);
    let output = end_of(child);
    assert_failed(&output, struck, FROZEN_WITHIN, &[3, 7], &["10.200.0.1:7000"]);
    lab.signal(1, Signal::SIGCONT);
    assert_resumes(&lab, &spec, &[2], bytes);
}

#[test]
fn the_only_sender_freezes_and_thaws() {
    let Some(lab) = Lab::up(2, 1, "200mbit") else { return };
    let bytes = 48 << 20;
    let child = begin(&lab, &spec(&[1], &[2], bytes), &[2]);
    lab.signal(1, Signal::SIGSTOP);
    // Longer than a flow may be silent, shorter than the transfer may stand still.
    std::thread::sleep(Duration::from_millis(1500));
    lab.signal(1, Signal::SIGCONT);
    let output = end_of(child);
    assert_complete(&lab, &output, &[2], bytes);
}

/// One of three receivers of the same bytes, which feed each other, freezes: the other two
/// complete.
#[test]
fn a_relay_freezes_and_the_others_finish() {
    let Some(lab) = Lab::up(4, 1, "100mbit") else { return };
    let (bytes, spec) = (32 << 20, spec(&[1], &[2, 3, 4], 32 << 20));
    let child = begin(&lab, &spec, &[2, 3, 4]);
    let struck = Instant::now();
    lab.signal(3, Signal::SIGSTOP);
    let output = end_of(child);
    assert_failed(&output, struck, FROZEN_WITHIN, &[3, 7], &["10.200.0.3:7000"]);
    assert!(has_copy(&lab, 2, bytes) && has_copy(&lab, 4, bytes), "{}", json(&output));
    assert!(
        !stderr(&output).contains("10.200.0.2:7000"),
        "who has finished is not named: {}",
        stderr(&output)
    );
    lab.signal(3, Signal::SIGCONT);
    assert_resumes(&lab, &spec, &[2, 3, 4], bytes);
}

/// Two receivers without common bytes.
#[test]
fn a_receiver_freezes_and_the_other_finishes() {
    let Some(lab) = Lab::up(3, 1, "100mbit") else { return };
    let half = 16 << 20;
    let spec = format!(
        "id faults\n\
         writer 10.200.0.1:7000 pattern:{SEED} 0 0-{}\n\
         reader 10.200.0.2:7000 file:///copy2 0 0-{}\n\
         reader 10.200.0.3:7000 file:///copy3 0 {half}-{}\n",
        2 * half - 1,
        half - 1,
        2 * half - 1
    );
    let child = begin(&lab, &spec, &[2, 3]);
    let struck = Instant::now();
    lab.signal(3, Signal::SIGSTOP);
    let output = end_of(child);
    assert_failed(&output, struck, FROZEN_WITHIN, &[3, 7], &["10.200.0.3:7000"]);
    assert!(has_copy(&lab, 2, half), "{}", json(&output));
    lab.signal(3, Signal::SIGCONT);
    let output = lab.run(&spec);
    assert_complete(&lab, &output, &[2], half);
    assert!(fs::read(lab.path("copy3")).unwrap() == pattern(SEED, half, half));
}

/// A master dies while its nodes feed each other: they continue without it.
#[test]
fn relays_whose_master_is_killed_finish_what_the_plan_gives_them() {
    let Some(lab) = Lab::up(4, 1, "100mbit") else { return };
    let (bytes, receivers) = (32 << 20, [2, 3, 4]);
    let spec = spec(&[1], &receivers, bytes);
    let mut child = begin(&lab, &spec, &receivers);
    child.kill().unwrap();
    child.wait().unwrap();
    let is_done = |node| lab.path(&format!("copy{node}")).exists();
    assert!(!receivers.iter().any(is_done), "it was killed too late");
    wait_for("the end without a master", || receivers.iter().all(is_done));
    let report = assert_complete(&lab, &lab.continue_run(&spec), &receivers, bytes);
    let sent =
        report["nodes"].as_array().unwrap().iter().map(|node| node["bytes_sent"].as_u64().unwrap());
    assert_eq!((&report["resumed_bytes"], sent.sum::<u64>()), (&(3 * bytes).into(), 0), "{report}");
}

/// A master dies while its nodes move bytes and feed each other, and continue; the next master
/// takes over with their bytes by then.
#[test]
fn a_second_master_takes_over_from_relays_that_still_move() {
    let Some(lab) = Lab::up(4, 1, "100mbit") else { return };
    let (bytes, spec) = (32 << 20, spec(&[1], &[2, 3, 4], 32 << 20));
    let mut child = begin(&lab, &spec, &[2, 3, 4]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_resumes(&lab, &spec, &[2, 3, 4], bytes);
}

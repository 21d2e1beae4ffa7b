//! Promises of a simulated cluster, whatever the seed.
#![allow(
    clippy::print_stdout,
    reason = "campaigns and trials that are played again print what they saw"
)]

use std::time::Duration;

mod campaign;
mod checks;
mod copies;
mod draw;
mod files;
mod lossy;
mod resumed;
mod sessions;
mod trial;
mod troubles;
mod undeclared;

use super::cluster::{SimCluster, SimOutcome};
use super::disk::{PiecePayload, PreparedDisk, SimDisk, VoidDisk};
use super::net::NodeLinks;
use super::world::{InjectedFault, PieceFaults, SimWorld};
use crate::core::check::CheckMethod;
use crate::core::error::{Code, Result};
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::roster::Roster;
use crate::core::options::{CheckKind, Scheduler, TransferOptions};
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole, Spec};
use crate::core::units::{BitRate, Moment, NodeIx, Span};
use crate::core::wire::Check;
use crate::core::wire::control::Prepare;

const BLOCK: u64 = 64 << 10;
const GBIT: f64 = 125e6;

fn row(role: RowRole, node: u32, start: u64, end: u64) -> Row {
    let uri = if role == RowRole::Sender { DataUri::Pattern(1) } else { DataUri::Null };
    let node = NodeAddress { host: format!("n{node}"), port: 1 };
    let (range, speed) = (Span::new(start, end), Some(BitRate(1_000_000_000)));
    Row {
        role,
        node,
        uri,
        offset_bytes: 0,
        range,
        speed,
        nics: Vec::new(),
        group: None,
        store: None,
        line: 0,
    }
}

fn cluster(rows: Vec<Row>, check: CheckKind, faults: PieceFaults, seed: u64) -> SimCluster {
    limited(rows, check, faults, seed, None)
}

fn limited(
    rows: Vec<Row>,
    check: CheckKind,
    faults: PieceFaults,
    seed: u64,
    limit: Option<BitRate>,
) -> SimCluster {
    with(TransferOptions { check, limit, ..TransferOptions::default() }, rows, faults, seed)
}

/// The terms of an attempt with this number.
fn attempt_terms(
    transfer_options: TransferOptions,
    rows: Vec<Row>,
    attempt: u8,
) -> (Roster, AttemptConfig) {
    let spec = Spec { rows, block_bytes: Some(BLOCK), ..Spec::default() };
    let roster = Roster::new(&spec);
    let terms = AttemptConfig::new(&spec, &roster, identity(attempt), transfer_options);
    (roster, terms)
}

fn identity(attempt: u8) -> TransferIdentity {
    TransferIdentity {
        id: "test".into(),
        transfer: [1; 16],
        attempt: [attempt; 16],
        flow_key: [3; 32],
    }
}

fn with(
    transfer_options: TransferOptions,
    rows: Vec<Row>,
    faults: PieceFaults,
    seed: u64,
) -> SimCluster {
    let (roster, terms) = attempt_terms(transfer_options, rows, 2);
    // Payload on a 1 Gbit/s line, as the plan counts it.
    let goodput = GBIT * crate::core::units::goodput(1500);
    let links = vec![NodeLinks { up: goodput, down: goodput }; roster.entries.len()];
    let world = SimWorld { links, faults, seed, keeps_log: true, ..quiet_world() };
    SimCluster::new(roster, terms, world)
}

/// A world without nodes, in which nothing goes wrong.
fn quiet_world() -> SimWorld {
    SimWorld {
        links: Vec::new(),
        rails: Vec::new(),
        claims: Vec::new(),
        stores: Vec::new(),
        latency: Duration::from_micros(100),
        disk_latency: Duration::from_micros(80),
        disk_bytes_per_second: 2e9,
        disks: Vec::new(),
        disk_whims: Duration::ZERO,
        faults: PieceFaults::default(),
        lossy: None,
        launched: false,
        seed: 1,
        keeps_log: false,
    }
}

/// Four senders with overlapping halves and three receivers that want different parts.
fn overlapping(mib: u64) -> Vec<Row> {
    let total = mib << 20;
    let mut rows: Vec<Row> = [(0, 0, 50), (1, 25, 75), (2, 50, 100), (3, 0, 100)]
        .map(|(node, from, to)| {
            row(
                RowRole::Sender,
                node,
                total * from / 100,
                total * to / 100 + 7 * u64::from(node) % 5,
            )
        })
        .into();
    rows[2].range.end = total;
    rows[3].range.end = total;
    rows.push(row(RowRole::Receiver, 4, 0, total * 2 / 3 + 11));
    rows.push(row(RowRole::Receiver, 5, total / 3 + 1, total));
    rows.push(row(RowRole::Receiver, 6, total / 10 + 3, total * 9 / 10 + 5));
    rows
}

fn run(rows: Vec<Row>, faults: PieceFaults, seed: u64) -> SimOutcome {
    cluster(rows, CheckKind::Crc64, faults, seed).run()
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_seed_does_not() {
    let faults = PieceFaults {
        changed: 20,
        broken: 10,
        unreadable: 5,
        detours: 50,
        ..PieceFaults::default()
    };
    let first = run(overlapping(8), faults, 7);
    let again = run(overlapping(8), faults, 7);
    assert_eq!(first.log, again.log);
    assert_ne!(first.log, run(overlapping(8), faults, 8).log);
}

#[test]
fn a_quiet_cluster_comes_within_five_per_cent_of_the_bound() {
    let outcome = cluster(overlapping(256), CheckKind::None, PieceFaults::default(), 1).run();
    assert_eq!(outcome.error, None);
    let efficiency = outcome.bound_seconds / outcome.seconds;
    assert!(
        efficiency > 0.95,
        "{efficiency} of the bound in {} s: {:?}",
        outcome.seconds,
        outcome.counts
    );
    assert!(outcome.counts.wasted_bytes <= (256 << 20) / 100, "{:?}", outcome.counts);
}

#[test]
fn changed_bytes_are_fetched_again_and_breaks_are_survived() {
    for seed in 0..30 {
        let outcome = run(
            overlapping(4),
            PieceFaults { changed: 30, broken: 5, ..PieceFaults::default() },
            seed,
        );
        match outcome.error {
            None => assert!(outcome.digest.is_some(), "seed {seed}"),
            Some(error) => assert!(!error.missing.is_empty(), "seed {seed}: {error}"),
        }
    }
}

/// With one packet in 2,000 changed, three pieces of 1 MiB in ten arrive changed, and with one in
/// 200 hardly any arrives as it was sent: a transfer failed after three tries at a piece.
#[test]
fn one_packet_in_200_is_changed_and_all_of_it_arrives_in_parts() {
    let run = |changed_packet_in, seed| {
        let mut rows = vec![row(RowRole::Sender, 0, 0, 32 << 20)];
        rows.push(row(RowRole::Receiver, 1, 0, 32 << 20));
        let spec = Spec { rows, block_bytes: Some(1 << 20), ..Spec::default() };
        let roster = Roster::new(&spec);
        let terms = AttemptConfig::new(&spec, &roster, identity(2), TransferOptions::default());
        let links = vec![NodeLinks { up: GBIT, down: GBIT }; roster.entries.len()];
        let faults = PieceFaults { changed_packet_in, ..PieceFaults::default() };
        let outcome =
            SimCluster::new(roster, terms, SimWorld { links, faults, seed, ..quiet_world() }).run();
        assert_eq!(outcome.error, None, "one in {changed_packet_in}, seed {seed}");
        outcome
    };
    let whole = run(0, 0);
    for seed in 0..2 {
        for (one_in, least) in [(2000, 0.85), (200, 0.75), (30, 0.6)] {
            let outcome = run(one_in, seed);
            assert_eq!(outcome.digest, whole.digest);
            let rate = whole.seconds / outcome.seconds;
            assert!(rate > least, "one in {one_in}, seed {seed}: {rate} of the rate");
        }
    }
}

/// A disk whose replica differs from others in one place.
struct Differing;

impl SimDisk for Differing {
    fn prepare(&mut self, prepare: &Prepare) -> Result<PreparedDisk> {
        let mut ready = VoidDisk.prepare(prepare)?;
        ready.prepared.replicas[3] += 1;
        Ok(ready)
    }

    fn read(&mut self, method: CheckMethod, span: Span) -> Result<(Check, PiecePayload)> {
        VoidDisk.read(method, span)
    }
}

#[test]
fn a_replica_that_differs_ends_the_transfer_before_a_byte_moves() {
    for differs in [false, true] {
        let mut rows: Vec<Row> =
            (0..3).map(|node| row(RowRole::Sender, node, 0, 16 << 20)).collect();
        rows.iter_mut().for_each(|row| row.uri = DataUri::File("/x".into()));
        rows.push(row(RowRole::Receiver, 3, 0, 16 << 20));
        let mut cluster = cluster(rows, CheckKind::Crc64, PieceFaults::default(), 1);
        if differs {
            cluster.set_disks(NodeIx(1), Box::new(|| Box::new(Differing)));
        }
        let outcome = cluster.run();
        assert_eq!(outcome.error.map(|error| error.code), differs.then_some(Code::Integrity));
        assert_eq!(outcome.node_seconds[3].is_some(), !differs, "nothing lands");
    }
}

#[test]
fn a_sender_that_dies_is_replaced_where_a_replica_is_left() {
    for seed in 0..10 {
        let rows = vec![
            row(RowRole::Sender, 0, 0, 16 << 20),
            row(RowRole::Sender, 1, 0, 16 << 20),
            row(RowRole::Receiver, 2, 0, 16 << 20),
        ];
        let mut cluster = cluster(rows, CheckKind::Crc64, PieceFaults::default(), seed);
        cluster.fault(Moment((20 + seed * 5) * 1_000_000), InjectedFault::Kill(NodeIx(0)));
        let outcome = cluster.run();
        assert_eq!(outcome.error, None, "seed {seed}");
    }
}

#[test]
fn without_a_replica_the_rest_arrives_and_the_missing_ranges_are_named() {
    let rows = vec![
        row(RowRole::Sender, 0, 0, 8 << 20),
        row(RowRole::Sender, 1, 8 << 20, 16 << 20),
        row(RowRole::Receiver, 2, 0, 16 << 20),
    ];
    let mut cluster = cluster(rows, CheckKind::Crc64, PieceFaults::default(), 3);
    cluster.fault(Moment(40_000_000), InjectedFault::Kill(NodeIx(0)));
    let error = cluster.run().error.expect("half of it is lost");
    assert_eq!(error.code, Code::Unreachable);
    assert!(error.missing.iter().all(|span| span.end <= 8 << 20), "{:?}", error.missing);
}

#[test]
fn a_receiver_that_dies_does_not_take_the_others_with_it() {
    let mut cluster = cluster(overlapping(16), CheckKind::Crc64, PieceFaults::default(), 5);
    cluster.fault(Moment(50_000_000), InjectedFault::Kill(NodeIx(4)));
    let error = cluster.run().error.expect("a receiver is lost");
    assert!(error.message.contains("n4:1"), "{error}");
}

#[test]
fn a_limited_transfer_takes_the_time_that_the_limit_says() {
    let wanted = |rows: &[Row]| {
        let wanted = rows.iter().filter(|row| row.role == RowRole::Receiver);
        wanted.map(|row| row.range.bytes()).sum::<u64>() as f64
    };
    for (seed, mbit) in [(1, 400), (2, 40), (3, 4)] {
        let rows = overlapping(mbit);
        let expected = wanted(&rows) * 8.0 / (mbit as f64 * 1e6);
        let limit = Some(BitRate(mbit * 1_000_000));
        let outcome = limited(rows, CheckKind::None, PieceFaults::default(), seed, limit).run();
        assert_eq!(outcome.error, None);
        let ratio = outcome.seconds / expected;
        assert!(
            (0.97..1.03).contains(&ratio),
            "{mbit} Mbit/s: {} s, not {expected} s",
            outcome.seconds
        );
    }
}

#[test]
fn a_limit_holds_while_work_is_stolen_from_a_sender_that_slows_down() {
    let rows = vec![
        row(RowRole::Sender, 0, 0, 256 << 20),
        row(RowRole::Sender, 1, 0, 256 << 20),
        row(RowRole::Receiver, 2, 0, 256 << 20),
    ];
    let limit = BitRate(500_000_000);
    let mut cluster = limited(rows, CheckKind::None, PieceFaults::default(), 2, Some(limit));
    cluster.relink(NodeIx(0), Moment(100_000_000), NodeLinks { up: GBIT / 50.0, down: GBIT });
    let outcome = cluster.run();
    assert_eq!(outcome.error, None);
    let ratio = outcome.seconds * limit.bytes_per_second() / f64::from(256 << 20);
    assert!((0.97..1.1).contains(&ratio), "{ratio} of the time, {:?}", outcome.counts);
    let is_relieved = outcome.counts.stolen_bytes > 0 || outcome.plans > 1;
    assert!(is_relieved, "{:?}", outcome.counts);
}

#[test]
fn a_sender_that_slows_down_is_relieved() {
    let rows = vec![
        row(RowRole::Sender, 0, 0, 64 << 20),
        row(RowRole::Sender, 1, 0, 64 << 20),
        row(RowRole::Receiver, 2, 0, 64 << 20),
    ];
    let mut cluster = cluster(rows, CheckKind::None, PieceFaults::default(), 2);
    cluster.relink(NodeIx(0), Moment(100_000_000), NodeLinks { up: GBIT / 20.0, down: GBIT });
    let outcome = cluster.run();
    assert_eq!(outcome.error, None);
    // One line's worth reaches the receiver throughout; the slow sender's share must not be waited
    // for.
    assert!(
        outcome.seconds < 1.15 * outcome.bound_seconds,
        "{} s, bound {}",
        outcome.seconds,
        outcome.bound_seconds
    );
    let is_relieved = outcome.counts.stolen_bytes > 0 || outcome.plans > 1;
    assert!(is_relieved, "{:?}", outcome.counts);
}

#[test]
fn blake3_merges_to_the_digest_of_the_whole() {
    let rows = vec![
        row(RowRole::Sender, 0, 0, 1_000_000),
        row(RowRole::Receiver, 1, 0, 8 * BLOCK),
        row(RowRole::Receiver, 2, 8 * BLOCK, 1_000_000),
    ];
    let bytes: Vec<u8> = (0..1_000_000_u64).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
    let outcome = cluster(rows, CheckKind::Blake3, PieceFaults::default(), 1).run();
    assert_eq!(outcome.digest, Some(blake3::hash(&bytes).to_hex().to_string()));
}

#[test]
fn a_group_takes_each_byte_once() {
    let grouped =
        |node| Row { group: Some("g".into()), ..row(RowRole::Receiver, node, 0, 64 << 20) };
    let rows = vec![
        row(RowRole::Sender, 0, 0, 64 << 20),
        row(RowRole::Sender, 1, 0, 64 << 20),
        grouped(2),
        grouped(3),
    ];
    let outcome = cluster(rows, CheckKind::Crc64, PieceFaults::default(), 1).run();
    assert_eq!(outcome.error, None);
    assert!(outcome.digest.is_some(), "the members' parts make a whole");
    assert!(
        outcome.seconds < 1.1 * outcome.bound_seconds,
        "{} s, bound {}",
        outcome.seconds,
        outcome.bound_seconds
    );
}

/// Two senders, each of them needed by a receiver of its own as well: one of them slows down to a
/// tenth. Whoever knew from the beginning could do no better than plan with the speed that it has
/// on average.
#[test]
fn a_sender_that_slows_to_a_tenth_costs_little_more_than_if_it_had_been_known() {
    let mib: u32 = 1024;
    let rows = vec![
        row(RowRole::Sender, 0, 0, u64::from(mib) << 20),
        row(RowRole::Sender, 1, 0, u64::from(mib) << 20),
        row(RowRole::Sender, 2, 0, u64::from(mib) << 20),
        row(RowRole::Receiver, 3, 0, u64::from(mib) << 20),
        row(RowRole::Receiver, 4, 0, u64::from(mib) << 20),
        row(RowRole::Receiver, 5, 0, u64::from(mib) << 20),
    ];
    let goodput = GBIT * crate::core::units::goodput(1500);
    let mut cluster = cluster(rows, CheckKind::None, PieceFaults::default(), 1);
    cluster.relink(
        NodeIx(0),
        Moment(2_000_000_000),
        NodeLinks { up: goodput / 10.0, down: goodput },
    );
    let outcome = cluster.run();
    assert_eq!(outcome.error, None);
    // Three lines for two seconds, 2.1 lines after.
    let bytes = 3.0 * f64::from(mib << 20);
    let oracle = 2.0 + (bytes - 2.0 * 3.0 * goodput) / (2.1 * goodput);
    assert!(
        outcome.seconds < 1.1 * oracle,
        "{} s, an oracle needs {oracle} s; {:?}",
        outcome.seconds,
        outcome.counts
    );
}

/// Of the first two thirds of the bytes one sender is left when another one slows down, and of the
/// last two thirds another: what they bring of the third that both have decides whether they end
/// together.
#[test]
fn a_newer_plan_is_made_for_what_is_left() {
    let third: u64 = 640 << 20;
    let receiver = |node, start, end| Row {
        speed: Some(BitRate(1_500_000_000)),
        ..row(RowRole::Receiver, node, start, end)
    };
    let rows = vec![
        row(RowRole::Sender, 0, 0, 3 * third),
        row(RowRole::Sender, 1, 0, 2 * third),
        row(RowRole::Sender, 2, third, 3 * third),
        receiver(3, 0, 3 * third / 2),
        receiver(4, 3 * third / 2, 3 * third),
    ];
    let goodput = GBIT * crate::core::units::goodput(1500);
    for struck in 1..6 {
        let mut cluster = cluster(rows.clone(), CheckKind::None, PieceFaults::default(), 1);
        for node in [NodeIx(3), NodeIx(4)] {
            cluster.relink(node, Moment(0), NodeLinks { up: goodput, down: 1.5 * goodput });
        }
        cluster.relink(
            NodeIx(0),
            Moment(struck * 1_000_000_000),
            NodeLinks { up: goodput / 10.0, down: goodput },
        );
        let outcome = cluster.run();
        assert_eq!(outcome.error, None);
        let before = struck as f64;
        let oracle = before + (3.0 * third as f64 - before * 3.0 * goodput) / (2.1 * goodput);
        let (seconds, counts) = (outcome.seconds, outcome.counts);
        assert!(
            seconds < 1.1 * oracle,
            "struck at {struck} s: {seconds} s, an oracle needs {oracle} s; {counts:?}"
        );
    }
}

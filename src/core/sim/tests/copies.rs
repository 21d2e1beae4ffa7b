//! Receivers that keep a copy each, and feed each other.

use super::*;
use crate::core::sim::world::{MasterIx, SimEndpoint};

/// One sender, and so many receivers that keep a copy each.
fn copies(count: u32, mib: u64) -> Vec<Row> {
    let keeps = |node| Row {
        uri: DataUri::File("/copy".into()),
        ..row(RowRole::Receiver, node, 0, mib << 20)
    };
    std::iter::once(row(RowRole::Sender, 0, 0, mib << 20)).chain((1..=count).map(keeps)).collect()
}

fn cluster_seconds(rows: Vec<Row>) -> f64 {
    let outcome = cluster(rows, CheckKind::None, PieceFaults::default(), 1).run();
    assert_eq!(outcome.error, None);
    outcome.seconds
}

#[test]
fn receivers_that_feed_each_other_take_about_the_time_of_one_copy() {
    for (count, most) in [(2, 1.1), (4, 1.1), (8, 1.15), (16, 1.25), (24, 1.3)] {
        let ratio = cluster_seconds(copies(count, 64)) / cluster_seconds(copies(1, 64));
        assert!(ratio < most, "{count} copies take {ratio} times as long as one");
    }
}

/// Seconds of so many copies over NICs of `mbit`, without an option.
fn seconds_by_default(count: u32, mib: u64, mbit: u64) -> f64 {
    let rate = BitRate(mbit * 1_000_000);
    let rows = copies(count, mib).into_iter().map(|row| Row { speed: Some(rate), ..row });
    let spec = Spec { rows: rows.collect(), ..Spec::default() };
    let roster = Roster::new(&spec);
    let goodput = rate.bytes_per_second() * crate::core::units::goodput(1500);
    let links = vec![NodeLinks { up: goodput, down: goodput }; roster.entries.len()];
    let world = SimWorld { links, ..quiet_world() };
    let options = TransferOptions { check: CheckKind::None, ..TransferOptions::default() };
    let terms = AttemptConfig::new(&spec, &roster, identity(2), options);
    let outcome = SimCluster::new(roster, terms, world).run();
    assert_eq!(outcome.error, None);
    outcome.seconds
}

/// With blocks of 1 MiB the last block of each part, which goes to all others one after the other,
/// was a sixteenth of a part and more. The largest cases run where the simulator is fast.
#[test]
fn copies_take_about_the_time_of_one_with_the_block_that_is_chosen() {
    let all = [(8, 192, 300, 1.1), (16, 64, 100, 1.15), (32, 64, 50, 1.2), (64, 64, 50, 1.25)];
    let cases = if cfg!(debug_assertions) { &all[..2] } else { &all[..] };
    for &(count, mib, mbit, most) in cases {
        let ratio = seconds_by_default(count, mib, mbit) / seconds_by_default(1, mib, mbit);
        assert!(ratio < most, "{count} copies of {mib} MiB take {ratio} times as long as one");
    }
}

#[test]
fn copies_do_not_wait_for_a_receiver_that_is_ten_times_slower() {
    let mut rows = copies(8, 64);
    rows[8].speed = Some(BitRate(100_000_000));
    let mut cluster = cluster(rows, CheckKind::None, PieceFaults::default(), 1);
    let goodput = GBIT * crate::core::units::goodput(1500);
    cluster.relink(NodeIx(8), Moment(0), NodeLinks { up: goodput / 10.0, down: goodput / 10.0 });
    let outcome = cluster.run();
    assert_eq!(outcome.error, None);
    let one = cluster_seconds(copies(1, 64));
    let others = outcome.node_seconds[1..8].iter().map(|seconds| seconds.expect("all is landed"));
    let latest = others.fold(0.0, f64::max);
    assert!(latest < 1.15 * one, "{latest} s, where one copy takes {one} s");
    assert!(
        outcome.seconds < 10.5 * one,
        "{} s for the slow one, where one copy takes {one} s",
        outcome.seconds
    );
}

/// Its NIC claims to be as fast as the others': the plan finds out.
#[test]
fn copies_do_not_wait_for_a_receiver_that_turns_out_to_be_ten_times_slower() {
    let goodput = GBIT * crate::core::units::goodput(1500);
    let rows = || copies(8, 1024);
    let mut cluster = cluster(rows(), CheckKind::None, PieceFaults::default(), 1);
    cluster.relink(NodeIx(8), Moment(0), NodeLinks { up: goodput / 10.0, down: goodput / 10.0 });
    let outcome = cluster.run();
    assert_eq!(outcome.error, None);
    let one = cluster_seconds(copies(1, 1024));
    let others = outcome.node_seconds[1..8].iter().map(|seconds| seconds.expect("all is landed"));
    let latest = others.fold(0.0, f64::max);
    assert!(latest < 1.15 * one, "{latest} s, where one copy takes {one} s; {:?}", outcome.counts);
    assert!(
        outcome.seconds < 10.5 * one,
        "{} s for the slow one, where one copy takes {one} s",
        outcome.seconds
    );
}

/// Each waited for the part that the other one should have had from the sender, for as long as the
/// stall timeout.
#[test]
fn receivers_whose_only_sender_dies_do_not_wait_for_each_other() {
    for seed in 0..10 {
        let mut cluster = cluster(copies(3, 16), CheckKind::Crc64, PieceFaults::default(), seed);
        cluster.fault(Moment((20 + seed * 12) * 1_000_000), InjectedFault::Kill(NodeIx(0)));
        let error = cluster.run().error.expect("the only sender is lost");
        assert_ne!(error.code, Code::Stalled, "seed {seed}: {error}");
        assert!(!error.missing.is_empty(), "seed {seed}: {error}");
    }
}

/// One receiver turns out to be slow, and a newer plan has another pass on its part. What it was
/// asked for by the older plan it then asks the other one for, which waits for it: as long as there
/// is a sender neither has to wait, and there is none.
#[test]
fn receivers_that_follow_a_newer_plan_do_not_wait_for_each_other_when_the_only_sender_dies() {
    let goodput = GBIT / 5.0 * crate::core::units::goodput(1500);
    for (receivers, from) in [(2, 2_270), (3, 2_280)] {
        for step in 0..10 {
            let mut cluster =
                cluster(copies(receivers, 80), CheckKind::None, PieceFaults::default(), step);
            for node in 0..=receivers {
                let rate = if node == receivers { goodput / 4.0 } else { goodput };
                cluster.relink(NodeIx(node), Moment(0), NodeLinks { up: rate, down: rate });
            }
            cluster.fault(Moment((from + step * 30) * 1_000_000), InjectedFault::Kill(NodeIx(0)));
            let outcome = cluster.run();
            assert!(
                outcome.error.is_some(),
                "{receivers} receivers, step {step}: the only sender is lost"
            );
            let last =
                outcome.log.last().and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
            let seconds = last.expect("a log of moments") * 1e-9;
            // The slow one takes nine for the rest; a relay is waited for for twenty.
            assert!(seconds < 13.0, "{receivers} receivers, step {step}: {seconds} s");
        }
    }
}

#[test]
fn a_relay_that_dies_is_replaced_by_the_senders() {
    for seed in 0..10 {
        let mut cluster = cluster(copies(4, 16), CheckKind::Crc64, PieceFaults::default(), seed);
        cluster.fault(Moment((20 + seed * 12) * 1_000_000), InjectedFault::Kill(NodeIx(2)));
        let outcome = cluster.run();
        let error = outcome.error.expect("a receiver is lost");
        assert!(error.message.contains("n2:1"), "{error}");
        assert_eq!(error.missing, [Span::new(0, 16 << 20)], "its copy is missing");
        assert!(outcome.history.landed_bytes() >= 3 * (16 << 20), "the others have all: {error}");
    }
}

/// So many copies of 32 MiB over NICs of 50 Mbit/s, with troubles.
fn copies_with(count: u32, check: CheckKind, trouble: impl Fn(&mut SimCluster)) -> SimOutcome {
    let rate = BitRate(50_000_000);
    let rows = copies(count, 32).into_iter().map(|row| Row { speed: Some(rate), ..row });
    let spec = Spec { rows: rows.collect(), ..Spec::default() };
    let roster = Roster::new(&spec);
    let goodput = rate.bytes_per_second() * crate::core::units::goodput(1500);
    let links = vec![NodeLinks { up: goodput, down: goodput }; roster.entries.len()];
    let world = SimWorld { links, ..quiet_world() };
    let options = TransferOptions { check, ..TransferOptions::default() };
    let terms = AttemptConfig::new(&spec, &roster, identity(2), options);
    let mut cluster = SimCluster::new(roster, terms, world);
    trouble(&mut cluster);
    cluster.run()
}

/// Returns the seconds until the last of so many receivers has all, except for `lost`.
fn seconds_with(count: u32, lost: Option<u32>, trouble: impl Fn(&mut SimCluster)) -> f64 {
    let outcome = copies_with(count, CheckKind::None, trouble);
    assert_eq!(outcome.error.is_some(), lost.is_some(), "{:?}", outcome.error);
    let others = (1..=count).filter(|node| Some(*node) != lost);
    let seconds = others.map(|node| outcome.node_seconds[node as usize].expect("it has all"));
    seconds.fold(0.0, f64::max)
}

/// All others had the part of a dead relay from the sender, once each: nearly twice the time with
/// 16 receivers. Of a machine without power no flow tells that it is gone.
#[test]
fn a_relay_that_dies_costs_the_others_a_tenth_at_most() {
    let counts = if cfg!(debug_assertions) { &[8][..] } else { &[8, 16] };
    for &count in counts {
        let whole = seconds_with(count, None, |_| {});
        for (ms, is_off) in [(1000, false), (1000, true), (2400, true), (3000, false), (3250, true)]
        {
            let dies = |cluster: &mut SimCluster| {
                let node = NodeIx(5);
                let fault =
                    if is_off { InjectedFault::PowerOff(node) } else { InjectedFault::Kill(node) };
                cluster.fault(Moment(ms * 1_000_000), fault);
            };
            let ratio = seconds_with(count, Some(5), dies) / whole;
            assert!(ratio < 1.1, "{count} copies, dead at {ms} ms, off {is_off}: {ratio}");
        }
    }
}

#[test]
fn a_flow_between_relays_that_opens_late_costs_a_tenth_at_most() {
    let whole = seconds_with(8, None, |_| {});
    for ms in [1000, 3000] {
        let late = |cluster: &mut SimCluster| {
            let (one, other) = (SimEndpoint::Node(NodeIx(4)), SimEndpoint::Node(NodeIx(5)));
            cluster.fault(Moment(0), InjectedFault::Cut(one, other, Duration::from_millis(ms)));
        };
        let ratio = seconds_with(8, None, late) / whole;
        assert!(ratio < 1.1, "late by {ms} ms: {ratio}");
    }
}

/// Its reports are held up, or it does nothing at all for a while: others pass on its part, and it
/// is a receiver like others when it comes back.
#[test]
fn a_relay_that_is_taken_for_lost_and_is_not_gets_its_copy_like_the_others() {
    let wanted = 8 * (32 << 20);
    let whole = copies_with(8, CheckKind::Crc64, |_| {});
    assert!(whole.error.is_none() && whole.digest.is_some() && whole.plans == 1);
    for (ms, freezes) in
        [(2000, false), (3000, false), (4000, false), (2000, true), (3000, true), (4000, true)]
    {
        let late = |cluster: &mut SimCluster| {
            let (node, length) = (NodeIx(5), Duration::from_millis(ms));
            let (relay, master) = (SimEndpoint::Node(node), SimEndpoint::Master(MasterIx(0)));
            let fault = if freezes {
                InjectedFault::Freeze(node, length)
            } else {
                InjectedFault::Cut(relay, master, length)
            };
            cluster.fault(Moment(1_000_000_000), fault);
        };
        let outcome = copies_with(8, CheckKind::Crc64, late);
        let told = format!("late by {ms} ms, freezes {freezes}: {:?}", outcome.counts);
        assert_eq!((&outcome.error, &outcome.digest), (&None, &whole.digest), "{told}");
        assert_eq!(outcome.node_seconds[1..].iter().flatten().count(), 8, "{told}");
        assert!(ms < 3000 || outcome.plans > 1, "its part is given away: {told}");
        assert!(outcome.counts.wasted_bytes <= wanted / 50, "{told}");
        // A frozen node receives nothing meanwhile, and has a whole copy to receive.
        let most = 1.1 * whole.seconds + if freezes { ms as f64 / 1000.0 } else { 0.0 };
        assert!(outcome.seconds < most, "{} s of {most}: {told}", outcome.seconds);
    }
}

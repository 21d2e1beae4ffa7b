//! Random transfers, run to their end: simple weights come near to the optimum, once work is
//! stolen.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use random::SplitMix;

use super::{SimScenario, forecast};
use crate::core::master::roster::Roster;
use crate::core::options::Scheduler;
use crate::core::plan::plan;
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole, Spec};
use crate::core::units::{BitRate, Span};

/// Seconds that each would take at best.
const SECONDS: f64 = 4.0;
/// Pieces that all receivers of one want together, about: what 8 GiB have.
const PIECES: u64 = 8192;

/// A transfer of a few nodes whose speeds differ by up to a hundred. Somebody offers everything.
fn instance(seed: u64) -> Spec {
    let spec = scaled(seed, 1 << 40);
    let roster = Roster::new(&spec);
    let problem = roster.problem(&vec![None; roster.entries.len()]);
    let optimum = plan(&problem, Scheduler::Lp).unwrap();
    let part = SECONDS / optimum.bound.seconds;
    let mut spec = scaled(seed, ((1_u64 << 40) as f64 * part) as u64);
    spec.block_bytes =
        Some((optimum.wanted_bytes() as f64 * part / PIECES as f64).log2().round().exp2() as u64);
    spec
}

fn scaled(seed: u64, space: u64) -> Spec {
    let random = &mut SplitMix::new(seed);
    let (senders, receivers) = (1 + random.below(6) as u32, 1 + random.below(6) as u32);
    let unit = space / 1000;
    let window = |random: &mut SplitMix| {
        let (a, b) = (random.below(1000), random.below(1000));
        Span::new(a.min(b) * unit, (a.max(b) + 1) * unit)
    };
    let whole = Span::new(0, 1000 * unit);
    let mut rows = Vec::new();
    for at in 0..senders + receivers {
        let role = if at < senders { RowRole::Sender } else { RowRole::Receiver };
        let speed = Some(BitRate((1e9 * 10_f64.powf(random.below(2001) as f64 / 1000.0)) as u64));
        let is_whole = at == 0 || random.below(if at < senders { 4 } else { 3 }) == 0;
        let range = if is_whole { whole } else { window(random) };
        let uri = if role == RowRole::Sender { DataUri::Pattern(1) } else { DataUri::Null };
        let node = NodeAddress { host: format!("n{at}"), port: 1 };
        let (offset_bytes, nics, group, store, line) = (0, Vec::new(), None, None, 0);
        rows.push(Row { role, node, uri, offset_bytes, range, speed, nics, group, store, line });
    }
    Spec { rows, ..Spec::default() }
}

/// Time of one transfer over its optimum: by weights alone, and run to its end.
struct Ratios {
    alone: f64,
    run: f64,
    wasted: f64,
}

fn ratios(spec: &Spec, scheduler: Scheduler) -> Ratios {
    let roster = Roster::new(spec);
    let problem = roster.problem(&vec![None; roster.entries.len()]);
    let planned = plan(&problem, scheduler).unwrap();
    let scenario =
        SimScenario { scheduler, delay: Duration::from_micros(100), seed: 1, changes: Vec::new() };
    let run = forecast(spec, &problem, &planned, &scenario).unwrap();
    assert_eq!(run.error, None);
    Ratios {
        alone: planned.predicted_seconds / planned.bound.seconds,
        run: run.seconds / planned.bound.seconds,
        wasted: run.counts.wasted_bytes as f64 / planned.wanted_bytes() as f64,
    }
}

/// Number of transfers that are looked at; `CEP_FAST_INSTANCES=1000` looks at more.
fn count() -> u64 {
    std::env::var("CEP_FAST_INSTANCES").ok().and_then(|count| count.parse().ok()).unwrap_or(50)
}

#[test]
#[allow(clippy::print_stdout, reason = "figures for documents")]
fn a_transfer_comes_near_the_optimum_however_it_is_shaped() {
    let mut runs = Vec::new();
    for scheduler in [Scheduler::Auto, Scheduler::Greedy] {
        let all: Vec<Ratios> =
            (0..count()).map(|seed| ratios(&instance(seed), scheduler)).collect();
        let told = |what: &str, of: fn(&Ratios) -> f64| {
            let mean = all.iter().map(of).sum::<f64>() / count() as f64;
            let (at, worst) =
                (0..).zip(all.iter().map(of)).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            println!("{}: {what}: mean {mean:.4}, worst {worst:.4} (seed {at})", scheduler.name());
            (mean, worst)
        };
        told("the weights alone / the optimum", |it| it.alone);
        runs.push((
            told("the run / the optimum", |it| it.run),
            told("wasted / wanted", |it| it.wasted),
        ));
    }
    for ((mean, worst), (wasted, _)) in runs {
        assert!(mean <= 1.05 && worst <= 1.2, "mean {mean}, worst {worst}");
        assert!(wasted <= 0.001, "{wasted} of the bytes came twice");
    }
}

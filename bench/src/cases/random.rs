//! Four senders of random overlapping windows, three receivers of random ranges: the distance to
//! the plan's bound.

use anyhow::{Context, Result};
use random::SplitMix;

use super::book::BenchResults;
use super::fixture::CaseFixture;
use crate::bar::Threshold;
use crate::cluster::{CompletedTransfer, address};

const SENDERS: u32 = 4;
const RECEIVERS: u32 = 3;
const SPACE_BYTES: u64 = 1 << 30;

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    let cluster = bench.cluster(SENDERS + RECEIVERS, &[1000])?;
    for &seed in &bench.options.seeds {
        book.now(&format!("seed {seed}"));
        let (rows, bytes) = specification(seed);
        let ended = cluster.start(&format!("seed-{seed}"), &rows)?.wait()?;
        let transferred = CompletedTransfer::of(&ended, bytes)?;
        let bound =
            transferred.report["bound_seconds"].as_f64().context("the report has no bound")?;
        let what = format!("seed {seed}: the bound / the time taken");
        let note = format!("{:.2} s, {}", transferred.seconds, transferred.cost());
        book.ratio(what, bound / transferred.seconds, Threshold::AtLeast(0.95), note);
        book.keep(transferred.report);
    }
    Ok(())
}

/// Returns the rows of a seed, and the bytes that they move. One sender has everything, so that
/// nothing is missing.
fn specification(seed: u64) -> (String, u64) {
    let mut random = SplitMix::new(seed);
    let mut part = || {
        let from = random.below(SPACE_BYTES / 2);
        (from, from + SPACE_BYTES / 4 + random.below(SPACE_BYTES / 4))
    };
    let mut rows = format!("writer {} pattern:5 0 0-{} speed=1G\n", address(1), SPACE_BYTES - 1);
    for node in 2..=SENDERS {
        let (from, to) = part();
        rows += &format!("writer {} pattern:5 0 {from}-{to} speed=1G\n", address(node));
    }
    let mut bytes = 0;
    for node in SENDERS + 1..=SENDERS + RECEIVERS {
        let (from, to) = part();
        bytes += to - from + 1;
        rows += &format!("reader {} null: 0 {from}-{to} speed=1G\n", address(node));
    }
    (rows, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_specification() {
        let (rows, bytes) = specification(1);
        assert_eq!(rows, specification(1).0);
        assert_ne!(rows, specification(2).0);
        assert_eq!(rows.lines().count(), 7);
        assert!((3 * SPACE_BYTES / 4..3 * SPACE_BYTES / 2).contains(&bytes), "{bytes}");
    }
}

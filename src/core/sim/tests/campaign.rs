//! Many random transfers: a fixed set in every test run, fresh ones for as long as one likes
//! (`tools/sim`), and one again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::draw::draw;
use super::trial::Tally;

/// Trials in every test run.
const FIXED: u64 = 2000;

/// Attempts that may meet with trouble before one that does not.
const TROUBLED_MAX: u64 = 3;

/// Plays the transfer of a seed to its end.
///
/// # Panics
/// If a promise is broken.
fn play(seed: u64, keeps_log: bool) -> Tally {
    let mut trial = draw(seed);
    trial.keeps_log = keeps_log;
    trial.tally.trials = 1;
    let troubled = trial.random.below(TROUBLED_MAX + 1);
    for attempt in 0..troubled {
        if trial.attempt(attempt, true).is_ok() {
            trial.tally.survived += 1;
            trial.check_all();
            return trial.tally.clone();
        }
        trial.between();
    }
    if let Err(error) = trial.attempt(troubled, false) {
        panic!("an attempt without trouble fails: {error:?}");
    }
    trial.check_all();
    trial.tally.clone()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Plays trials from a seed on, on every core, until `is_enough`; what they came to, and the seeds
/// of those that broke a promise, with what they said.
fn campaign(first: u64, is_enough: impl Fn(u64) -> bool + Sync) -> (Tally, BTreeMap<u64, String>) {
    let (next, results) = (AtomicU64::new(first), Mutex::new((Tally::default(), BTreeMap::new())));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if is_enough(seed - first) {
                        break;
                    }
                    match catch_unwind(AssertUnwindSafe(|| play(seed, false))) {
                        Ok(played) => tally.add(&played),
                        Err(cause) => {
                            let said = cause.downcast_ref::<String>().cloned();
                            let said = said.or_else(|| {
                                cause.downcast_ref::<&str>().map(|said| (*said).into())
                            });
                            let mut results = results.lock().expect("nobody panics with it");
                            results.1.insert(seed, said.unwrap_or_default());
                        }
                    }
                }
                results.lock().expect("nobody panics with it").0.add(&tally);
            });
        }
    });
    results.into_inner().expect("nobody panics with it")
}

/// The fixed set, or, for so many `CEP_FAST_SIM_MINUTES`, fresh ones from the seed
/// `CEP_FAST_SIM_FIRST` on.
#[test]
fn random_transfers_with_random_troubles_end_with_every_byte_right() {
    let first = number("CEP_FAST_SIM_FIRST").unwrap_or(0);
    let began = Instant::now();
    let (tally, broken) = match number("CEP_FAST_SIM_MINUTES") {
        Some(minutes) => campaign(first, |_| began.elapsed() >= Duration::from_secs(60 * minutes)),
        None => campaign(first, |done| done >= FIXED),
    };
    println!(
        "{} transfers in {:.0} s from seed {first} on: {tally:#?}",
        tally.trials,
        began.elapsed().as_secs_f64()
    );
    broken.iter().for_each(|(seed, said)| println!("seed {seed}: {said}"));
    assert!(
        broken.is_empty(),
        "a promise was broken {} times; CEP_FAST_SIM_SEED=N plays one again",
        broken.len()
    );
}

/// One trial again, with every event: `CEP_FAST_SIM_SEED`.
#[test]
fn one_random_transfer_is_played_again() {
    if let Some(seed) = number("CEP_FAST_SIM_SEED") {
        play(seed, true);
    }
}

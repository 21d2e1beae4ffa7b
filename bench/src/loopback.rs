//! Scenarios over loopback: all contenders in turn, round by round, on one machine in one run.
//!
//! Rounds are interleaved, so that a neighbour's load or a warm disk cache falls on all alike;
//! medians stand for all rounds.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::contenders::{Contender, RunTiming};
use crate::lab::WorkDir;
use crate::process;
use crate::scenario::{BenchScenario, WorkItem};

const GIB: f64 = (1u64 << 30) as f64;

/// One run of one contender.
#[derive(Clone, Copy, Serialize, Debug)]
pub(crate) struct RunSample {
    /// From the first byte to the last; absent where the program does not tell.
    pub(crate) seconds: Option<f64>,
    /// The whole command.
    pub(crate) wall_seconds: f64,
    /// Over `seconds`.
    pub(crate) gbit_per_s: Option<f64>,
    /// Over `wall_seconds`.
    pub(crate) wall_gbit_per_s: f64,
    /// User and system time of all processes involved, per GiB moved.
    pub(crate) cpu_seconds_per_gib: f64,
}

impl RunSample {
    fn new(bytes: u64, timing: RunTiming, cpu: Duration) -> RunSample {
        let gigabits = bytes as f64 * 8.0 / 1e9;
        RunSample {
            seconds: timing.data_seconds,
            wall_seconds: timing.wall_seconds,
            gbit_per_s: timing.data_seconds.map(|seconds| gigabits / seconds),
            wall_gbit_per_s: gigabits / timing.wall_seconds,
            cpu_seconds_per_gib: cpu.as_secs_f64() / (bytes as f64 / GIB),
        }
    }
}

/// Outcome of one contender in one scenario.
#[derive(Serialize, Debug)]
pub(crate) struct ContenderOutcome {
    pub(crate) scenario: BenchScenario,
    pub(crate) contender: &'static str,
    pub(crate) samples: Vec<RunSample>,
    /// Reason why there are no samples, or no more of them.
    pub(crate) note: Option<String>,
}

/// Gives every contender its turn in every scenario that it supports, `rounds` times. `turn`
/// receives the round's number.
///
/// A contender that is missing or fails gets a note and no further turn; the others continue.
pub(crate) fn rounds(
    contenders: &[Box<dyn Contender>],
    scenarios: &[BenchScenario],
    rounds: u32,
    mut turn: impl FnMut(&dyn Contender, BenchScenario, u32) -> Result<RunSample>,
) -> Vec<ContenderOutcome> {
    let mut outcomes: Vec<(&dyn Contender, ContenderOutcome)> = scenarios
        .iter()
        .flat_map(|&scenario| {
            contenders.iter().filter(move |who| who.plays(scenario)).map(move |who| (scenario, who))
        })
        .map(|(scenario, who)| {
            (
                who.as_ref(),
                ContenderOutcome {
                    scenario,
                    contender: who.name(),
                    samples: Vec::new(),
                    note: who.missing(),
                },
            )
        })
        .collect();
    for round in 1..=rounds {
        for (contender, outcome) in
            outcomes.iter_mut().filter(|(_, outcome)| outcome.note.is_none())
        {
            match turn(*contender, outcome.scenario, round) {
                Ok(sample) => outcome.samples.push(sample),
                Err(error) => outcome.note = Some(format!("{error:#}")),
            }
        }
    }
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// One run, and everything around it that is not timed; `compare` has the files compared too.
pub(crate) fn turn(
    lab: &WorkDir,
    contender: &dyn Contender,
    scenario: BenchScenario,
    compare: bool,
) -> Result<RunSample> {
    let work = lab.prepare(scenario)?;
    let sample = measure(lab, contender, &work).and_then(|sample| {
        lab.clear(&work, compare)?;
        Ok(sample)
    });
    if sample.is_err() {
        lab.discard(&work);
    }
    sample
}

fn measure(lab: &WorkDir, contender: &dyn Contender, work: &WorkItem) -> Result<RunSample> {
    let cpu_before = process::cpu_spent()?;
    let timing = contender.run(lab, work);
    // Servers have been told to leave; what they forked is waited for here, so that its time
    // counts.
    process::reap()?;
    Ok(RunSample::new(work.bytes, timing?, process::cpu_spent()?.saturating_sub(cpu_before)))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    struct StubContender {
        name: &'static str,
        missing: bool,
    }

    impl Contender for StubContender {
        fn name(&self) -> &'static str {
            self.name
        }
        fn plays(&self, scenario: BenchScenario) -> bool {
            scenario == BenchScenario::MemoryToMemory
        }
        fn missing(&self) -> Option<String> {
            self.missing.then(|| "not installed".to_owned())
        }
        fn run(&self, _: &WorkDir, _: &WorkItem) -> Result<RunTiming> {
            bail!("no turn is taken here")
        }
    }

    #[test]
    fn the_missing_and_the_failing_do_not_stop_the_others() {
        let stub =
            |name, missing| -> Box<dyn Contender> { Box::new(StubContender { name, missing }) };
        let contenders = [stub("missing", true), stub("failing", false), stub("good", false)];
        let mut turns = Vec::new();
        let outcomes = rounds(&contenders, &BenchScenario::ALL, 2, |contender, _, round| {
            turns.push((contender.name(), round));
            anyhow::ensure!(contender.name() != "failing", "broken");
            Ok(RunSample::new(
                1,
                RunTiming { data_seconds: None, wall_seconds: 1.0 },
                Duration::ZERO,
            ))
        });
        let found: Vec<(&str, usize, Option<&str>)> =
            outcomes.iter().map(|o| (o.contender, o.samples.len(), o.note.as_deref())).collect();
        assert_eq!(
            found,
            [
                ("missing", 0, Some("not installed")),
                ("failing", 0, Some("broken")),
                ("good", 2, None)
            ]
        );
        assert_eq!(turns, [("failing", 1), ("good", 1), ("good", 2)]);
    }

    #[test]
    fn rates_are_decimal_and_cpu_is_per_binary_gigabyte() {
        let timing = RunTiming { data_seconds: Some(1.0), wall_seconds: 2.0 };
        let sample = RunSample::new(2 << 30, timing, Duration::from_secs(3));
        let expected = (2u64 << 30) as f64 * 8.0 / 1e9;
        assert!((sample.gbit_per_s.unwrap_or(0.0) - expected).abs() < 1e-9);
        assert!((sample.wall_gbit_per_s - expected / 2.0).abs() < 1e-9);
        assert!((sample.cpu_seconds_per_gib - 1.5).abs() < 1e-9);
    }
}

//! The program itself, through its command line and JSON output.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::contender::{Contender, RunTiming};
use crate::lab::WorkDir;
use crate::process;
use crate::scenario::{BenchScenario, WorkItem};

pub(super) struct CepFast {
    pub(super) program: PathBuf,
    /// True if it checks the bytes, as by default.
    pub(super) checks: bool,
    /// Protection of the bytes on the wire. Loopback is clear by default, hosts are sealed.
    pub(super) wire: &'static str,
}

/// Used fields of the object of `--json`.
#[derive(Deserialize)]
struct TransferSummary {
    state: String,
    bytes: u64,
    seconds: f64,
    wall_seconds: f64,
}

impl Contender for CepFast {
    fn name(&self) -> &'static str {
        match (self.wire, self.checks) {
            ("sealed", _) => "ours-sealed",
            ("signed", _) => "ours-signed",
            (_, true) => "ours",
            (_, false) => "ours-unchecked",
        }
    }

    fn plays(&self, _: BenchScenario) -> bool {
        true
    }

    fn missing(&self) -> Option<String> {
        let absent = !self.program.is_file();
        absent.then(|| format!("no {} (cargo build --release)", self.program.display()))
    }

    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming> {
        let mut command = process::command(&self.program);
        match &work.files {
            None => {
                let spec = lab.path("memory.spec");
                fs::write(&spec, memory_spec(work.bytes))?;
                command.arg("run").arg(spec);
            }
            Some(files) => {
                command.arg("copy").arg(&files.source).arg(&files.destination);
            }
        }
        command.args(["--launch", "local", "--progress", "never", "--json"]);
        command.args(["--wire", self.wire]);
        if !self.checks {
            command.args(["--check", "none"]);
        }
        let finished = lab.start("cep-fast", command)?.finish()?;
        let line = finished.output.lines().last().context("cep-fast printed nothing")?;
        timing(line, work.bytes)
    }
}

/// Returns rows without disks: a pattern to a receiver that checks and discards it.
fn memory_spec(bytes: u64) -> String {
    let last = bytes - 1;
    format!(
        "id \"bench memory to memory\"\nmaster localhost:0\n\
         writer a:5001 pattern:7 0 0-{last}\nreader b:5002 null: 0 0-{last}\n"
    )
}

fn timing(line: &str, bytes: u64) -> Result<RunTiming> {
    let report: TransferSummary =
        serde_json::from_str(line).with_context(|| format!("cep-fast's report reads {line:?}"))?;
    ensure!(report.state == "complete" && report.bytes == bytes, "cep-fast's report reads {line}");
    Ok(RunTiming { data_seconds: Some(report.seconds), wall_seconds: report.wall_seconds })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_report_of_all_bytes_counts() {
        let line = |state: &str, bytes: u64| {
            format!(
                "{{\"transfer\":\"x\",\"state\":\"{state}\",\"bytes\":{bytes},\"seconds\":2.0,\
                 \"wall_seconds\":2.5}}"
            )
        };
        let good = timing(&line("complete", 8), 8).unwrap();
        assert_eq!((good.data_seconds, good.wall_seconds), (Some(2.0), 2.5));
        assert!(timing(&line("failed", 8), 8).is_err());
        assert!(timing(&line("complete", 7), 8).is_err());
        assert!(timing("not an object", 8).is_err());
    }
}

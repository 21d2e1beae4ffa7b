//! Thousands of small transfers with the same two daemons: leaks of each transfer add up and become
//! visible.
//!
//! Transfers differ: from a pattern and from files, to nothing and to files, with small and large
//! blocks, over one or two threads of the NIC; some of them fail or are cancelled. Once the daemons
//! are warm, their resident memory, descriptors and threads must stay level.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cep_fast::{Settings, Spec, Transfer, TransferOptions};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;

use crate::lab::WorkDir;
use crate::options::CommonOptions;
use crate::process::{self, RunningProcess};

#[derive(Args)]
pub(crate) struct SoakOptions {
    /// Transfers in all.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(2..))]
    transfers: u32,
    /// Number of transfers after which the daemons are warm.
    #[arg(long, default_value_t = 500)]
    warm: u32,
    /// Only transfers of these kinds, to find the one that leaks; can be repeated.
    #[arg(long, value_parser = clap::value_parser!(u32).range(..i64::from(KINDS)))]
    kind: Vec<u32>,
    /// Allowed growth of resident memory at the end, in KiB.
    #[arg(long, default_value_t = 1024)]
    growth_kib: u64,
    /// Folder of the files.
    #[arg(long, default_value = "build/bench")]
    dir: PathBuf,
    #[command(flatten)]
    common: CommonOptions,
}

/// Kinds of transfers: two to nothing, two to files, one between two replicas, two that fail, one
/// that is cancelled.
const KINDS: u32 = 8;
/// Number of samples of the daemons.
const LOOKS: u32 = 10;
/// Samples, 50 ms apart, for which a daemon that is idle stays as it is: it keeps rails for five
/// seconds.
const QUIET: u32 = 120;
/// Time for a daemon to free the resources of a transfer.
const REST_WITHIN: Duration = Duration::from_secs(30);
/// Time for one transfer.
const TRANSFER_WITHIN: Duration = Duration::from_secs(60);
/// Sizes of the copied files: odd, one larger than the usual block.
const FILES: [u64; 3] = [1, 70_001, 3_000_001];

impl SoakOptions {
    /// Returns the kind of one of the transfers.
    fn kind_of(&self, number: u32) -> u32 {
        match self.kind.len() {
            0 => number % KINDS,
            some => self.kind[number as usize % some],
        }
    }
}

/// Resources of a daemon.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
struct DaemonUsage {
    resident_kib: u64,
    descriptors: usize,
    threads: u64,
}

/// Resources of both daemons after a number of transfers.
#[derive(Serialize, Clone, Debug)]
struct SoakSample {
    transfers: u32,
    daemons: Vec<DaemonUsage>,
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to standard output, progress beside them"
)]
pub(crate) fn run(options: &SoakOptions) -> Result<()> {
    let program = options.common.program()?;
    crate::options::adopt_orphans()?;
    let lab = WorkDir::new(&options.dir, 0, Duration::from_secs(24 * 3600))?;
    let soak = SoakDaemons::begin(&lab, &program)?;
    let warm = options.warm.clamp(1, options.transfers - 1);
    let step = ((options.transfers - warm) / LOOKS).max(1);
    let mut looks = Vec::new();
    for number in 0..options.transfers {
        soak.transfer(number, options.kind_of(number))
            .with_context(|| format!("transfer {number}"))?;
        let done = number + 1;
        if done == warm
            || done == options.transfers
            || (done > warm && (done - warm).is_multiple_of(step))
        {
            let look = soak.look(done)?;
            eprintln!("{done} transfers: {:?}", look.daemons);
            looks.push(look);
        }
    }
    println!("{}", table(&looks));
    options.common.keep(&looks)?;
    drop(soak);
    drop(lab);
    let grown = growth(&looks, options.growth_kib);
    ensure!(grown.is_empty(), "not level: {}", grown.join("; "));
    println!("level");
    Ok(())
}

/// Two daemons, and the files that they copy.
struct SoakDaemons<'a> {
    lab: &'a WorkDir,
    daemons: [RunningProcess; 2],
    addresses: [String; 2],
}

impl<'a> SoakDaemons<'a> {
    fn begin(lab: &'a WorkDir, program: &Path) -> Result<SoakDaemons<'a>> {
        let mut keygen = process::command(program);
        keygen.arg("keygen").arg(lab.path("key"));
        lab.start("keygen", keygen)?.finish()?;
        for (at, bytes) in FILES.into_iter().enumerate() {
            let content: Vec<u8> =
                (0..bytes).map(|place| (place * 7 + place / 251) as u8).collect();
            fs::write(lab.path(&format!("source{at}")), content)?;
        }
        let daemon = |name: &str| -> Result<(RunningProcess, String)> {
            let port = process::free_port()?;
            let address = format!("127.0.0.1:{port}");
            let mut command = process::command(program);
            command
                .args(["node", "--listen", &address, "--threads-per-nic", "2", "--root"])
                .arg(lab.path(""));
            command.arg("--key-file").arg(lab.path("key"));
            let daemon = lab.start(name, command)?;
            daemon.until_ready()?;
            Ok((daemon, address))
        };
        let ((one, at_one), (other, at_other)) = (daemon("sender")?, daemon("receiver")?);
        Ok(SoakDaemons { lab, daemons: [one, other], addresses: [at_one, at_other] })
    }

    /// Rows of one transfer, and its expected exit status.
    fn rows(&self, number: u32, kind: u32) -> (String, u8) {
        let [from, to] = &self.addresses;
        let file = number as usize % FILES.len();
        let last = FILES[file] - 1;
        match kind {
            0 | 1 => (
                format!("writer {from} pattern:{number} 0 0-{last}\nreader {to} null: 0 0-{last}"),
                0,
            ),
            2 | 3 => {
                let to_file = format!("reader {to} file:///copy{file} 0 0-{last}");
                (format!("writer {from} file:///source{file} 0 0-{last}\n{to_file}"), 0)
            }
            4 => {
                let both = format!("writer {to} file:///source{file} 0 0-{last}");
                (
                    format!(
                        "writer {from} file:///source{file} 0 0-{last}\n\
                         {both}\n\
                         reader {to} null: 0 0-{last}"
                    ),
                    0,
                )
            }
            5 => (
                format!(
                    "writer {from} file:///missing 0 0-{last}\nreader {to} file:///copy 0 0-{last}"
                ),
                5,
            ),
            6 => (
                format!(
                    "writer {from} pattern:1 0 0-{last}\nreader {to} file:///none/copy 0 0-{last}"
                ),
                5,
            ),
            _ => (
                format!("writer {from} pattern:1 0 0-64M\nreader {to} file:///cancelled 0 0-64M"),
                130,
            ),
        }
    }

    /// Runs one transfer to its expected outcome.
    fn transfer(&self, number: u32, kind: u32) -> Result<()> {
        let (rows, code) = self.rows(number, kind);
        let block = ["4K", "64K", "1M", "4M"][(number / KINDS) as usize % 4];
        let text = format!("id \"soak {}\"\noption block {block}\n{rows}\n", number % 16);
        let settings = Settings {
            key_file: Some(self.lab.path("key")),
            options: TransferOptions {
                overwrite: true,
                resume: !number.is_multiple_of(3),
                limit: (code == 130).then_some(cep_fast::units::BitRate(80_000_000)),
                timeout: Some(TRANSFER_WITHIN),
                ..TransferOptions::default()
            },
            ..Settings::default()
        };
        let transfer = Transfer::from_spec(Spec::parse("soak", &text)?, settings);
        let handle = transfer.handle();
        if code == 130 {
            // Before it has begun, or in the middle.
            let begun = (number / KINDS).is_multiple_of(2);
            std::thread::scope(|scope| -> Result<()> {
                let running = scope.spawn(|| transfer.transfer());
                let deadline = Instant::now() + TRANSFER_WITHIN;
                while begun
                    && handle.data_sent() == 0
                    && !running.is_finished()
                    && Instant::now() < deadline
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                handle.cancel();
                let report = running.join().map_err(|_| anyhow::anyhow!("the master panicked"))?;
                expect(&report, code)
            })
        } else {
            expect(&transfer.transfer(), code)
        }
    }

    /// Returns the daemons' resources once they are idle: as few descriptors and threads as in the
    /// sample before, or a stable number.
    fn look(&self, transfers: u32) -> Result<SoakSample> {
        let deadline = Instant::now() + REST_WITHIN;
        let usage = || -> Result<Vec<DaemonUsage>> {
            self.daemons.iter().map(|daemon| DaemonUsage::of(daemon.id())).collect()
        };
        let counts = |held: &[DaemonUsage]| -> Vec<(usize, u64)> {
            held.iter().map(|it| (it.descriptors, it.threads)).collect()
        };
        let mut daemons = usage()?;
        let mut quiet = 0;
        // After a master's good-bye, workers still close files, and idle rails are kept.
        while quiet < QUIET && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            let now = usage()?;
            quiet = if counts(&now) == counts(&daemons) { quiet + 1 } else { 0 };
            daemons = now;
        }
        Ok(SoakSample { transfers, daemons })
    }
}

fn expect(outcome: &cep_fast::Result<cep_fast::Report>, code: u8) -> Result<()> {
    let found = match outcome {
        Ok(report) => report.error.as_ref().map(|error| (error.code, &error.message)),
        Err(error) => Some((error.code, &error.message)),
    };
    match found {
        None if code == 0 => Ok(()),
        Some((found, _)) if found.number() == code => Ok(()),
        Some((found, message)) => {
            bail!("expected {code}, it ended with {}: {message}", found.number())
        }
        None => bail!("expected {code}, it completed"),
    }
}

impl DaemonUsage {
    fn of(pid: u32) -> Result<DaemonUsage> {
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).context("the daemon is gone")?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        };
        let missing = || format!("/proc/{pid}/status has no such line");
        Ok(DaemonUsage {
            resident_kib: number("VmRSS:").with_context(missing)?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: number("Threads:").with_context(missing)?,
        })
    }
}

/// Returns the growth since the first sample, in words.
fn growth(looks: &[SoakSample], growth_kib: u64) -> Vec<String> {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return Vec::new() };
    let mut grown = Vec::new();
    for (at, (before, after)) in first.daemons.iter().zip(&last.daemons).enumerate() {
        let name = ["the sender", "the receiver"][at];
        if after.resident_kib > before.resident_kib + growth_kib {
            grown.push(format!(
                "{name} had {} KiB and has {} KiB",
                before.resident_kib, after.resident_kib
            ));
        }
        if after.descriptors != before.descriptors {
            grown.push(format!(
                "{name} had {} descriptors and has {}",
                before.descriptors, after.descriptors
            ));
        }
        if after.threads != before.threads {
            grown.push(format!("{name} had {} threads and has {}", before.threads, after.threads));
        }
    }
    grown
}

fn table(looks: &[SoakSample]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "transfers",
        "sender KiB, fds, threads",
        "receiver KiB, fds, threads",
    ]);
    for look in looks {
        let held =
            |it: &DaemonUsage| format!("{}, {}, {}", it.resident_kib, it.descriptors, it.threads);
        let mut row = vec![look.transfers.to_string()];
        row.extend(look.daemons.iter().map(held));
        table.add_row(row);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_named_and_what_is_level_is_not() {
        let held =
            |resident_kib, descriptors, threads| DaemonUsage { resident_kib, descriptors, threads };
        let look = |transfers, one, other| SoakSample { transfers, daemons: vec![one, other] };
        let first = look(500, held(6000, 11, 2), held(6000, 11, 2));
        let level = look(5000, held(7024, 11, 2), held(5000, 11, 2));
        assert!(growth(&[first.clone(), level], 1024).is_empty());
        let grown = growth(&[first, look(5000, held(7025, 12, 2), held(6000, 11, 3))], 1024);
        assert_eq!(grown.len(), 3, "{grown:?}");
        assert!(
            grown[0].contains("the sender had 6000 KiB")
                && grown[2].contains("the receiver had 2 threads")
        );
    }
}

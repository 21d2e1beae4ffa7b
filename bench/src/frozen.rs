//! A transfer beside another one whose destination hangs: the file system under it is frozen, so
//! that its writes neither fail nor end. Both are received by the same daemon.
//!
//! In each round the healthy transfer runs alone, from before the freeze, and from after it. Its
//! rates beside the frozen one are given as parts of its rate alone.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cep_fast::units::BitRate;
use cep_fast::{Settings, Spec, Transfer, TransferOptions};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;

use crate::lab::WorkDir;
use crate::options::CommonOptions;
use crate::process::{self, RunningProcess};

#[derive(Args)]
pub(crate) struct FrozenOptions {
    /// Bytes of the healthy transfer; K, M, G are powers of 1024. Whole MiB.
    #[arg(long, default_value = "1G", value_parser = crate::options::whole_mebibytes)]
    bytes: u64,
    /// Number of rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Folder of the files.
    #[arg(long, default_value = "build/bench")]
    dir: std::path::PathBuf,
    #[command(flatten)]
    common: CommonOptions,
}

/// Part of its rate that a transfer keeps beside a destination that hangs.
const KEPT_MIN: f64 = 0.9;
/// Bytes of the transfer to the disk that is frozen: more than it moves before that.
const FROZEN_BYTES: u64 = 64 << 20;
/// Rate of that transfer before.
const FROZEN_RATE: BitRate = BitRate(400_000_000);
/// Time for each step.
const WITHIN: Duration = Duration::from_secs(120);

/// Rates of one round, in Gbit/s.
#[derive(Serialize, Clone, Copy, Debug)]
struct FrozenRound {
    alone: f64,
    begun_before: f64,
    begun_after: f64,
}

#[allow(clippy::print_stdout, reason = "results go to standard output")]
pub(crate) fn run(options: &FrozenOptions) -> Result<()> {
    crate::options::adopt_orphans()?;
    let lab = WorkDir::new(&options.dir, options.bytes, WITHIN)?;
    let disk = FreezableDisk::new(&lab)?;
    let daemons = FrozenDaemons::begin(&lab, &options.common.program()?)?;
    let mut rounds = Vec::new();
    // The first one warms caches and pools.
    daemons.healthy(options.bytes)?;
    for _ in 0..options.rounds {
        let alone = daemons.healthy(options.bytes)?;
        let begun_before = daemons.beside_frozen(&disk, options.bytes, true)?;
        let begun_after = daemons.beside_frozen(&disk, options.bytes, false)?;
        rounds.push(FrozenRound { alone, begun_before, begun_after });
    }
    drop(daemons);
    drop(disk);
    drop(lab);
    println!("{}", table(&rounds));
    options.common.keep(&rounds)?;
    let kept = [kept(&rounds, |it| it.begun_before), kept(&rounds, |it| it.begun_after)];
    println!(
        "kept, medians: {:.2} begun before the freeze, {:.2} after it; at least {KEPT_MIN}",
        kept[0], kept[1]
    );
    options.common.judge(kept.iter().any(|&part| part < KEPT_MIN));
    Ok(())
}

/// Returns the median of a rate's parts of the rate alone.
fn kept(rounds: &[FrozenRound], rate: impl Fn(&FrozenRound) -> f64) -> f64 {
    let mut parts: Vec<f64> = rounds.iter().map(|it| rate(it) / it.alone).collect();
    parts.sort_by(f64::total_cmp);
    parts[parts.len() / 2]
}

fn table(rounds: &[FrozenRound]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "round",
        "alone, Gbit/s",
        "begun before the freeze",
        "begun after it",
    ]);
    for (at, round) in rounds.iter().enumerate() {
        let rates = [round.alone, round.begun_before, round.begun_after];
        let mut row = vec![(at + 1).to_string()];
        row.extend(rates.map(|rate| format!("{rate:.2}")));
        table.add_row(row);
    }
    table.to_string()
}

/// An ext4 on a loop device in the working folder, mounted at `disk`.
struct FreezableDisk<'a> {
    lab: &'a WorkDir,
}

impl FreezableDisk<'_> {
    fn new(lab: &WorkDir) -> Result<FreezableDisk<'_>> {
        let (image, at) = (lab.path("image"), lab.path("disk"));
        File::create(&image)?.set_len(4 * FROZEN_BYTES)?;
        fs::create_dir(&at)?;
        command(lab, "mkfs.ext4", &[Path::new("-qF"), &image])?;
        command(lab, "mount", &[Path::new("-oloop"), &image, &at])
            .context("no right to mount a loop device")?;
        Ok(FreezableDisk { lab })
    }

    fn freeze(&self) -> Result<FrozenDisk<'_>> {
        command(self.lab, "fsfreeze", &[Path::new("-f"), &self.lab.path("disk")])?;
        Ok(FrozenDisk(self))
    }
}

impl Drop for FreezableDisk<'_> {
    fn drop(&mut self) {
        // The folder is removed by the next benchmark where this fails.
        let _ = command(self.lab, "umount", &[Path::new("-l"), &self.lab.path("disk")]);
    }
}

/// A frozen disk; it thaws on drop.
struct FrozenDisk<'a>(&'a FreezableDisk<'a>);

impl Drop for FrozenDisk<'_> {
    fn drop(&mut self) {
        let lab = self.0.lab;
        let _ = command(lab, "fsfreeze", &[Path::new("-u"), &lab.path("disk")]);
    }
}

fn command(lab: &WorkDir, program: &str, arguments: &[&Path]) -> Result<()> {
    let mut command = process::command(program);
    command.args(arguments);
    lab.start(program, command)?.finish()?;
    Ok(())
}

/// A daemon that sends and one that receives.
struct FrozenDaemons {
    _daemons: [RunningProcess; 2],
    addresses: [String; 2],
}

impl FrozenDaemons {
    fn begin(lab: &WorkDir, program: &Path) -> Result<FrozenDaemons> {
        let daemon = |name: &str| -> Result<(RunningProcess, String)> {
            let address = format!("127.0.0.1:{}", process::free_port()?);
            let mut command = process::command(program);
            command
                .args(["node", "--insecure-no-key", "--listen", &address, "--root"])
                .arg(lab.path(""));
            let daemon = lab.start(name, command)?;
            daemon.until_ready()?;
            Ok((daemon, address))
        };
        let ((one, at_one), (other, at_other)) = (daemon("sender")?, daemon("receiver")?);
        Ok(FrozenDaemons { _daemons: [one, other], addresses: [at_one, at_other] })
    }

    fn transfer(&self, to: &str, bytes: u64, limit: Option<BitRate>) -> Result<Transfer> {
        let ([from, at], last) = (&self.addresses, bytes - 1);
        let text = format!(
            "id \"{to}\"\nwriter {from} pattern:1 0 0-{last}\nreader {at} file:///{to} 0 0-{last}\n"
        );
        let options = TransferOptions {
            overwrite: true,
            limit,
            stall_timeout: WITHIN,
            timeout: Some(WITHIN),
            ..TransferOptions::default()
        };
        let settings = Settings { options, ..Settings::default() };
        Ok(Transfer::from_spec(Spec::parse("frozen", &text)?, settings))
    }

    /// Returns the rate of the healthy transfer.
    fn healthy(&self, bytes: u64) -> Result<f64> {
        rate(&self.transfer("healthy", bytes, None)?, bytes)
    }

    /// Returns the rate of the healthy transfer while another one hangs.
    fn beside_frozen(&self, disk: &FreezableDisk<'_>, bytes: u64, is_first: bool) -> Result<f64> {
        let slow = self.transfer("disk/copy", FROZEN_BYTES, Some(FROZEN_RATE))?;
        let (handle, healthy) = (slow.handle(), self.transfer("healthy", bytes, None)?);
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| slow.transfer());
            until("the transfer to the disk", || handle.data_sent() > FROZEN_BYTES / 8)?;
            let begun = is_first.then(|| scope.spawn(move || rate(&healthy, bytes)));
            let frozen = disk.freeze()?;
            if !is_first {
                // All that it may hold hangs.
                let mut before = None;
                until("its end of progress", || {
                    let sent = handle.data_sent();
                    std::thread::sleep(Duration::from_millis(300));
                    before.replace(sent) == Some(sent)
                })?;
            }
            let rate = match begun {
                Some(begun) => begun.join().map_err(|_| anyhow::anyhow!("the master panicked"))?,
                None => self.healthy(bytes),
            };
            let is_over = slow.is_finished();
            drop(frozen);
            let report = slow.join().map_err(|_| anyhow::anyhow!("the master panicked"))??;
            ensure!(!is_over, "the transfer to the frozen disk ended: {:?}", report.error);
            ensure!(report.error.is_none(), "after the thaw: {:?}", report.error);
            rate
        })
    }
}

/// Runs a transfer, and returns its rate in Gbit/s.
fn rate(transfer: &Transfer, bytes: u64) -> Result<f64> {
    let started = Instant::now();
    let report = transfer.transfer()?;
    ensure!(report.error.is_none(), "the healthy transfer: {:?}", report.error);
    Ok(bytes as f64 * 8e-9 / started.elapsed().as_secs_f64())
}

/// Waits for something to happen.
fn until(what: &str, mut happened: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + WITHIN;
    while !happened() {
        ensure!(Instant::now() < deadline, "{what}: not within {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

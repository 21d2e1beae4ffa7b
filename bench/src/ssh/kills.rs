//! Kills at random moments of a copy over ssh: within some seconds nothing of it is left on any
//! host, and the same line, typed again, completes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use random::SplitMix;

use super::login::{LoopbackHosts, SshFixture};
use crate::cases::book::BenchResults;
use crate::lab::WorkDir;
use crate::process::{self, RunningProcess};

/// Bytes and rate of a copy: it takes about 1.6 s.
const BYTES: u64 = 64 << 20;
const LIMIT: &str = "320M";
/// Most of the time from the start to the kill.
const KILL_WITHIN: Duration = Duration::from_millis(2200);
/// Time in which everything must be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Victim of a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum SshVictim {
    /// The command, by SIGKILL.
    Command,
    /// Ctrl-C.
    Interrupted,
    /// A terminal that is closed.
    HungUp,
    /// The `ssh` of the command.
    Client,
    /// The session of sshd.
    Session,
    /// The node on the other host.
    RemoteNode,
    /// The node of the local end.
    LocalNode,
}

const VICTIMS: [SshVictim; 7] = [
    SshVictim::Command,
    SshVictim::Interrupted,
    SshVictim::HungUp,
    SshVictim::Client,
    SshVictim::Session,
    SshVictim::RemoteNode,
    SshVictim::LocalNode,
];

/// Counts of the rounds with one victim.
#[derive(Default)]
struct VictimOutcomes {
    rounds: u32,
    /// Victims that were there to be killed.
    struck: u32,
    /// Transfers that were not complete before the second run.
    broken: u32,
    resumed_bytes: u64,
    gone_after: f64,
}

pub(super) fn run(fixture: SshFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let SshFixture { options, lab, .. } = fixture;
    let hosts = [("there".to_owned(), "127.1.0.1".to_owned())];
    let there = fixture.loopback(&hosts, true)?;
    let mut content = vec![0; BYTES as usize];
    SplitMix::new(options.seed).fill(&mut content);
    fs::write(lab.path("whole"), content)?;
    let bench = KillBench { lab, there: &there };
    let (mut by_victim, mut failed) = (BTreeMap::<SshVictim, VictimOutcomes>::new(), 0);
    for round in 0..options.kills {
        let mut random = SplitMix::new(options.seed ^ (u64::from(round) << 32));
        let victim = VICTIMS[random.below(VICTIMS.len() as u64) as usize];
        let after = Duration::from_micros(random.below(KILL_WITHIN.as_micros() as u64));
        book.now(&format!("round {round}: {victim:?} after {after:?}"));
        let outcomes = by_victim.entry(victim).or_default();
        outcomes.rounds += 1;
        if let Err(error) = bench.round(victim, after, outcomes) {
            failed += 1;
            book.failed(format!("round {round}, {victim:?} after {after:?}"), &error);
            bench.clean()?;
        }
    }
    for (victim, outcomes) in by_victim {
        let VictimOutcomes { rounds, struck, broken, resumed_bytes, gone_after } = outcomes;
        let note = format!(
            "{struck} of {rounds} struck, {broken} not complete by then, {} MiB resumed",
            resumed_bytes >> 20
        );
        book.figure(format!("{victim:?}: all gone after"), gone_after, "s", note);
    }
    book.must(format!("{} rounds", options.kills), failed == 0, format!("{failed} failed"));
    Ok(())
}

struct KillBench<'a> {
    lab: &'a WorkDir,
    there: &'a LoopbackHosts,
}

impl KillBench<'_> {
    fn round(
        &self,
        victim: SshVictim,
        after: Duration,
        outcomes: &mut VictimOutcomes,
    ) -> Result<()> {
        let mut copy = self.copy(&["--limit", LIMIT])?;
        copy.has_ended(after);
        let struck = self.strike(victim, &copy)?;
        outcomes.struck += u32::from(struck);
        let struck_at = Instant::now();
        let ended = copy.wait()?;
        while let Some(process) = self.processes()?.first() {
            ensure!(
                struck_at.elapsed() < GONE_WITHIN,
                "{} is still there after {GONE_WITHIN:?}; the command ended with {}{}",
                process.words,
                ended.status,
                ended.complaint
            );
            thread::sleep(LOOK);
        }
        outcomes.gone_after = outcomes.gone_after.max(struck_at.elapsed().as_secs_f64());
        if ended.status.success() {
            return self.compare();
        }
        outcomes.broken += 1;
        let again = self.copy(&[])?.finish().context("the same line again")?;
        let report: serde_json::Value = serde_json::from_str(again.output.trim())?;
        outcomes.resumed_bytes += report["resumed_bytes"].as_u64().unwrap_or_default();
        self.compare()
    }

    fn copy(&self, options: &[&str]) -> Result<RunningProcess> {
        let mut command = process::command(&self.there.remote.program);
        command
            .args(["copy", "--json", "--progress", "never", "--ssh"])
            .arg(self.there.ssh.client());
        command.args(options).arg(self.lab.path("whole"));
        command.arg(format!("there:{}", self.lab.path("copied").display()));
        self.lab.start("copy", command)
    }

    /// Compares the copy, and removes it. Nothing else may lie beside it.
    fn compare(&self) -> Result<()> {
        let (from, to) = (self.lab.path("whole"), self.lab.path("copied"));
        ensure!(fs::read(from)? == fs::read(&to)?, "the copy differs");
        fs::remove_file(to)?;
        let left = self.partial_files()?;
        ensure!(left.is_empty(), "{left:?} is left");
        Ok(())
    }

    fn clean(&self) -> Result<()> {
        let _ = fs::remove_file(self.lab.path("copied"));
        for name in self.partial_files()? {
            fs::remove_file(self.lab.path(&name))?;
        }
        for process in self.processes()? {
            let _ = kill(process.id, Signal::SIGKILL);
        }
        Ok(())
    }

    fn partial_files(&self) -> Result<Vec<String>> {
        let names = fs::read_dir(self.lab.path(""))?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<Result<Vec<_>>>()?;
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        Ok(names.filter(|name| name.starts_with(".copied.")).collect())
    }

    /// Kills the victim, if it is there.
    fn strike(&self, victim: SshVictim, copy: &RunningProcess) -> Result<bool> {
        let command = Pid::from_raw(copy.id().cast_signed());
        let (id, signal) = match victim {
            SshVictim::Command => (Some(command), Signal::SIGKILL),
            SshVictim::Interrupted => (Some(command), Signal::SIGINT),
            SshVictim::HungUp => (Some(command), Signal::SIGHUP),
            SshVictim::Client
            | SshVictim::Session
            | SshVictim::RemoteNode
            | SshVictim::LocalNode => {
                let found = self.processes()?.into_iter().find(|it| it.is(victim, command));
                (found.map(|it| it.id), Signal::SIGKILL)
            }
        };
        Ok(id.is_some_and(|id| kill(id, signal).is_ok()))
    }

    /// The processes of the program, of its ssh, and of sessions of the sshd.
    fn processes(&self) -> Result<Vec<SeenProcess>> {
        let own = [self.there.remote.program.as_path(), self.lab.path("ssh").as_path()]
            .map(|path| path.display().to_string());
        let mut seen = Vec::new();
        for entry in fs::read_dir("/proc").context("/proc is not mounted")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end while the list is read.
            let Some(process) = SeenProcess::look(Pid::from_raw(id)) else { continue };
            let is_session =
                process.words.starts_with("sshd: ") && !process.words.contains("[listener]");
            let is_ours = own.iter().any(|path| process.words.contains(path.as_str()))
                && !process.words.contains("sshd_config");
            if is_session || is_ours {
                seen.push(process);
            }
        }
        Ok(seen)
    }
}

/// A process in `/proc`.
struct SeenProcess {
    id: Pid,
    parent: Pid,
    /// Its command line.
    words: String,
}

impl SeenProcess {
    fn look(id: Pid) -> Option<SeenProcess> {
        let folder = Path::new("/proc").join(id.to_string());
        let words = fs::read(folder.join("cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (!words.is_empty()).then_some(SeenProcess { id, parent: Pid::from_raw(parent), words })
    }

    /// Returns true if this is the victim in a copy by this command. A node is a child of the
    /// command, or of a session.
    fn is(&self, victim: SshVictim, command: Pid) -> bool {
        let is_node = self.words.contains(" node ") || self.words.ends_with(" launched ");
        match victim {
            SshVictim::Client => self.words.contains("/config") && self.parent == command,
            SshVictim::Session => self.words.starts_with("sshd: "),
            SshVictim::RemoteNode => is_node && self.parent != command,
            SshVictim::LocalNode => is_node && self.parent == command,
            SshVictim::Command | SshVictim::Interrupted | SshVictim::HungUp => self.id == command,
        }
    }
}

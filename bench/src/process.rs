//! Processes under a deadline, and the CPU time of everything they start.
//!
//! This process adopts orphans (`PR_SET_CHILD_SUBREAPER`), so it eventually waits for every process
//! that a server forks, and `RUSAGE_CHILDREN` counts it. Kernel threads, such as those for
//! writeback, are not counted.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cep_fast::ready_line;
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;

/// Time for a server to end when asked, before it is killed.
const FAREWELL: Duration = Duration::from_secs(5);
/// Interval of checks whether a starting server is ready.
const LISTEN_POLL: Duration = Duration::from_millis(10);
/// Number of bytes of a failed process's output that are shown.
const LOG_TAIL_BYTES: usize = 2000;

/// Returns a command that the kernel kills if this process dies first, so that an interrupted
/// benchmark leaves nothing running.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    command
}

/// Like [`command`], for a command line of another's making.
pub(crate) fn owned(other: &Command) -> Command {
    let mut command = command(other.get_program());
    command.args(other.get_args());
    command
}

/// A process that was started and has not been waited for.
pub(crate) struct RunningProcess {
    name: String,
    child: Child,
    ended: Receiver<Instant>,
    /// Moment of its end, once it was noticed.
    end: Option<Instant>,
    started: Instant,
    deadline: Instant,
    /// Files of its output and its errors: a pipe without a reader would block it.
    output: PathBuf,
    errors: PathBuf,
}

/// Result of a successful process.
pub(crate) struct FinishedProcess {
    /// Standard output.
    pub(crate) output: String,
    /// Time from its start to its end.
    pub(crate) seconds: f64,
}

/// Result of a process, successful or not.
pub(crate) struct EndedProcess {
    pub(crate) status: ExitStatus,
    /// Standard output.
    pub(crate) output: String,
    /// The end of its standard error, after a colon; empty if there was none.
    pub(crate) complaint: String,
    /// Time from its start to its end.
    pub(crate) seconds: f64,
}

impl RunningProcess {
    /// Starts `command`, which may run for `limit`; its output goes to files in `folder`.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        folder: &Path,
        limit: Duration,
    ) -> Result<RunningProcess> {
        let (output, errors) =
            (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        command.stdout(File::create(&output)?).stderr(File::create(&errors)?);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("{name}: cannot start {command:?}"))?;
        let ended = watch(Pid::from_raw(child.id().cast_signed()));
        let (name, deadline) = (name.to_owned(), started + limit);
        Ok(RunningProcess { name, child, ended, end: None, started, deadline, output, errors })
    }

    /// Waits for a successful end.
    ///
    /// # Errors
    /// The process failed, or its deadline passed: then it is killed first.
    pub(crate) fn finish(self) -> Result<FinishedProcess> {
        let name = self.name.clone();
        let EndedProcess { status, output, complaint, seconds } = self.wait()?;
        ensure!(status.success(), "{name} ended with {status}{complaint}");
        Ok(FinishedProcess { output, seconds })
    }

    /// Waits for the end, successful or not.
    ///
    /// # Errors
    /// The deadline passed: then the process is killed first.
    pub(crate) fn wait(mut self) -> Result<EndedProcess> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if !self.has_ended(left) {
            self.child.kill()?;
            self.child.wait()?;
            bail!(
                "{} did not end within {:?}{}",
                self.name,
                self.deadline - self.started,
                self.log_tail()
            );
        }
        let status = self.child.wait()?;
        let output =
            fs::read_to_string(&self.output).with_context(|| format!("{}: output", self.name))?;
        let seconds = (self.end.unwrap_or(self.deadline) - self.started).as_secs_f64();
        Ok(EndedProcess { status, output, complaint: self.log_tail(), seconds })
    }

    /// Returns true if it has ended; waits up to `patience` for that.
    pub(crate) fn has_ended(&mut self, patience: Duration) -> bool {
        if self.end.is_none() {
            self.end = self.ended.recv_timeout(patience).ok();
        }
        self.end.is_some()
    }

    /// Returns the moment of its start.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Returns its process id, which is valid until it is waited for.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a process listens on this loopback port.
    ///
    /// # Errors
    /// The process ended, or its deadline passed.
    pub(crate) fn until_listening(&self, port: u16) -> Result<()> {
        self.until(&format!("listens on port {port}"), || is_listening(port))
    }

    /// Waits until a process listens on this port, at any address of the network namespace that it
    /// runs in.
    ///
    /// # Errors
    /// The process ended, or its deadline passed.
    pub(crate) fn until_listening_inside(&self, port: u16) -> Result<()> {
        let table = format!("/proc/{}/net/tcp", self.id());
        self.until(&format!("listens on port {port}"), || {
            let table = fs::read_to_string(&table).with_context(|| format!("no {table}"))?;
            Ok(table.lines().any(|line| {
                listener(line).is_some_and(|(_, found)| found == format!("{port:04X}"))
            }))
        })
    }

    /// Waits until it has written `word` to its standard output.
    ///
    /// # Errors
    /// The process ended, or its deadline passed.
    pub(crate) fn until_says(&self, word: &str) -> Result<()> {
        self.until(&format!("says {word:?}"), || {
            Ok(fs::read_to_string(&self.output)?.contains(word))
        })
    }

    /// Waits until a node has written that it listens.
    ///
    /// # Errors
    /// The process ended, or its deadline passed.
    pub(crate) fn until_ready(&self) -> Result<()> {
        self.until("is ready", || {
            let output = fs::read_to_string(&self.output)?;
            Ok(output.lines().any(|line| matches!(ready_line::parse(line), Some(Ok(_)))))
        })
    }

    fn until(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
        while !holds()? {
            if self.ended.recv_timeout(LISTEN_POLL).is_ok() {
                bail!("{} ended before it {what}{}", self.name, self.log_tail());
            }
            if Instant::now() > self.deadline {
                bail!("{} was to come to where it {what}{}", self.name, self.log_tail());
            }
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It was waited for already.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Asks a server to end, and kills it if it does not.
    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        if !self.has_ended(FAREWELL) {
            self.child.kill()?;
        }
        self.child.wait()?;
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.errors)
            .ok()
            .filter(|log| !log.is_empty())
            .or_else(|| fs::read(&self.output).ok());
        let log = log.unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..])
            .trim()
            .to_owned();
        if tail.is_empty() { tail } else { format!(":\n{tail}") }
    }
}

impl Drop for RunningProcess {
    /// A server ends with its user. A server that cannot be stopped is killed by `reap`.
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Waits for every remaining process below this one (orphans of servers), and kills those that do
/// not end.
pub(crate) fn reap() -> Result<()> {
    loop {
        let children = children()?;
        if children.is_empty() {
            return Ok(());
        }
        for pid in children {
            if watch(pid).recv_timeout(FAREWELL).is_err() {
                kill(pid, Signal::SIGKILL)?;
            }
            match waitpid(pid, None) {
                Ok(_) | Err(Errno::ECHILD) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Returns the CPU time, user and system, of all processes that were started and waited for so far.
pub(crate) fn cpu_spent() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

/// Returns a port of the loopback address that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free loopback port")?;
    Ok(listener.local_addr()?.port())
}

/// Returns the path of a program: in PATH, or in root's usual folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Reports when a child ends without reaping it: its process id stays valid until it is waited for.
fn watch(pid: Pid) -> Receiver<Instant> {
    let (sender, ended) = channel();
    thread::spawn(move || {
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR)
        {
        }
        // The receiver may be gone.
        let _ = sender.send(Instant::now());
    });
    ended
}

/// Returns the children of this process.
fn children() -> Result<Vec<Pid>> {
    let own = std::process::id().to_string();
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc is not mounted")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while the list is read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if parent(&stat).ok_or_else(|| anyhow!("/proc/{pid}/stat reads {stat:?}"))? == own {
            children.push(Pid::from_raw(pid));
        }
    }
    Ok(children)
}

/// Returns the parent in a line of `/proc/PID/stat`. The program's name before it is in parentheses
/// and may contain anything.
fn parent(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)
}

/// Returns true if a socket listens on this port of 127.0.0.1 or of every address. Reads the
/// kernel's table, because a trial connection would be the server's first client.
fn is_listening(port: u16) -> Result<bool> {
    let table = fs::read_to_string("/proc/net/tcp").context("/proc is not mounted")?;
    Ok(table.lines().any(|line| listens(line, port)))
}

/// Returns true if a line of `/proc/net/tcp` is a listening socket (state 0A) on this port of one
/// of these addresses.
fn listens(line: &str, port: u16) -> bool {
    listener(line).is_some_and(|(address, found)| {
        ["0100007F", "00000000"].contains(&address) && found == format!("{port:04X}")
    })
}

/// Returns the address and the port, in hexadecimal digits, of a listening socket.
fn listener(line: &str) -> Option<(&str, &str)> {
    let fields: Vec<&str> = line.split_whitespace().take(4).collect();
    let [_, local, _, "0A"] = fields[..] else { return None };
    local.split_once(':')
}

fn duration(time: TimeVal) -> Duration {
    Duration::from_secs(time.tv_sec().cast_unsigned())
        + Duration::from_micros(time.tv_usec().cast_unsigned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<FinishedProcess> {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = command("sh");
        shell.args(["-c", script]);
        RunningProcess::start("shell", shell, folder.path(), limit).unwrap().finish()
    }

    #[test]
    fn output_comes_back_and_failure_shows_its_log() {
        assert_eq!(shell("echo good", Duration::from_secs(60)).unwrap().output, "good\n");
        let error =
            shell("echo because >&2; exit 3", Duration::from_secs(60)).err().unwrap().to_string();
        assert!(error.contains("exit status: 3") && error.contains("because"), "{error}");
    }

    #[test]
    fn a_process_beyond_its_deadline_is_killed() {
        let error = shell("exec sleep 600", Duration::ZERO).err().unwrap().to_string();
        assert!(error.contains("did not end within"), "{error}");
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent("7 (a) b (c)) S 42 7 7 0"), Some("42"));
        assert_eq!(parent("garbage"), None);
    }

    #[test]
    fn only_listeners_on_the_port_count() {
        let line = |address: &str, state: &str| {
            format!("   0: {address} 00000000:0000 {state} 00000000:00000000 00:0")
        };
        assert!(listens(&line("0100007F:1F90", "0A"), 8080));
        assert!(listens(&line("00000000:1F90", "0A"), 8080));
        assert!(!listens(&line("0100007F:1F90", "01"), 8080));
        assert!(!listens(&line("0200007F:1F90", "0A"), 8080));
        assert!(!listens(&line("0100007F:1F91", "0A"), 8080));
        assert!(!listens("sl  local_address rem_address   st tx_queue", 8080));
    }
}

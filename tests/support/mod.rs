//! Helpers of whole-program tests: running the program with a deadline, temporary folders, and test
//! data.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(dead_code, reason = "every test file uses its part")]

pub(crate) mod capture;
pub(crate) mod disk;
pub(crate) mod filter;
pub(crate) mod lab;
pub(crate) mod proxy;
pub(crate) mod sshd;
pub(crate) mod stranger;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use cep_fast::{PatternReader, ready_line};
use random::SplitMix;
use seccompiler::BpfProgram;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_cep-fast");
/// The size of a journal's header, and of each record behind it.
pub(crate) const JOURNAL_HEADER_BYTES: u64 = 112;
pub(crate) const JOURNAL_RECORD_BYTES: u64 = 64;
/// State directory of programs under test, instead of the user's own.
pub(crate) const STATE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/state");
/// Runtime directory of programs under test, instead of the user's own.
const RUNTIME: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/runtime");
/// Far longer than any command here takes.
const DEADLINE: Duration = Duration::from_secs(90);
/// Factor by which deadlines of tests are longer, where the processor is emulated.
const SLOWNESS: &str = "CEP_FAST_TEST_SLOWNESS";

/// Creates a folder that is removed with the test.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Creates a folder in memory, if the system has one.
pub(crate) fn folder_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// Returns a command of the program.
pub(crate) fn cep_fast(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    // If it cannot be made, a transfer does without it.
    let _ = fs::create_dir_all(RUNTIME);
    command.args(args).env("XDG_STATE_HOME", STATE).env("XDG_RUNTIME_DIR", RUNTIME);
    command
}

/// Runs a command to its end, within the deadline.
pub(crate) fn run(command: &mut Command) -> Output {
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    end_of(child)
}

/// Makes a deadline longer where the machine is slower than others.
fn slowed(deadline: Duration) -> Duration {
    deadline * std::env::var(SLOWNESS).map_or(1, |factor| factor.parse().unwrap())
}

/// Waits for the end of a child, within the deadline.
pub(crate) fn end_of(child: Child) -> Output {
    end_within(child, slowed(DEADLINE))
}

/// Waits for the end of a child, no longer than `deadline`.
pub(crate) fn end_within(child: Child, deadline: Duration) -> Output {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let (ended, wait) = channel();
    std::thread::spawn(move || ended.send(child.wait_with_output().unwrap()));
    match wait.recv_timeout(deadline) {
        Ok(output) => output,
        Err(_) => {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            panic!("no end in {deadline:?}: {:?}", wait.recv());
        }
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns standard error without notices about the machine that do not matter here, such as little
/// locked memory.
pub(crate) fn stderr_of_fast(output: &Output) -> String {
    let text = stderr(output);
    text.split_inclusive('\n').filter(|line| !line.contains("which is slower")).collect()
}

/// Returns the exit status.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// Returns the one line of JSON on standard output.
pub(crate) fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "one line of JSON: {text:?}; {}", stderr(output));
    serde_json::from_str(&text).unwrap()
}

/// Runs a specification with its nodes below `root`, with `--json` and the arguments `more`.
pub(crate) fn run_spec(root: &Path, spec: &str, more: &[&str]) -> Output {
    let file = root.join("spec");
    fs::write(&file, spec).unwrap();
    let output =
        run(cep_fast(&["run", "--launch", "local", "--json", "--progress", "never", "--root"])
            .arg(root)
            .args(more)
            .arg(&file));
    fs::remove_file(&file).unwrap();
    output
}

/// Like [`run_spec`], for a transfer that must complete.
pub(crate) fn complete(root: &Path, spec: &str, more: &[&str]) -> serde_json::Value {
    let output = run_spec(root, spec, more);
    assert_eq!(code(&output), 0, "{}\n{spec}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["state"], "complete");
    report
}

/// Returns the pattern of `seed` over `bytes` bytes from `start` on.
pub(crate) fn pattern(seed: u64, start: u64, bytes: u64) -> Vec<u8> {
    let mut content = Vec::new();
    PatternReader::new(seed, start, bytes).read_to_end(&mut content).unwrap();
    content
}

/// Returns bytes in which no two blocks are equal.
pub(crate) fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    SplitMix::new(seed).fill(&mut bytes);
    bytes
}

/// Returns everything below a folder, including hidden files.
pub(crate) fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Returns the files beside destinations below `root` with a name that ends in `suffix`.
pub(crate) fn beside(root: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = listing(root);
    found.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.contains(".cep-") && name.ends_with(end)
    });
    found
}

/// Waits for a condition, within a deadline.
pub(crate) fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + slowed(Duration::from_secs(60));
    while !happened() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::yield_now();
    }
}

/// Waits until a node listens, and returns its address. Its standard output is then closed.
pub(crate) fn ready_address(node: &mut Child) -> SocketAddr {
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = ready_line::parse(&line).unwrap_or_else(|| panic!("{line:?}"));
    address.unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// A daemon that ends with the test.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: String,
}

impl Daemon {
    /// Starts a node on a free loopback port, serving below `root`.
    pub(crate) fn start(root: &Path, more: &[&str]) -> Daemon {
        let mut command = cep_fast(&[]);
        Daemon::spawn(&mut command, root, more)
    }

    /// Starts a node on a machine that seems to have been rebooted: its boot id is in the file
    /// `boot`.
    pub(crate) fn start_booted(root: &Path, boot: &Path) -> Daemon {
        let mut command = Command::new("unshare");
        let script = r#"mount --bind "$0" /proc/sys/kernel/random/boot_id; exec "$@""#;
        command.args(["--mount", "sh", "-ec", script]).arg(boot).arg(PROGRAM);
        Daemon::spawn(&mut command, root, &[])
    }

    /// Starts a node with a hard limit of `descriptors` descriptors.
    pub(crate) fn start_limited(root: &Path, descriptors: u64, more: &[&str]) -> Daemon {
        let mut command = Command::new("sh");
        command
            .args(["-ec", r#"ulimit -n "$0"; exec "$@""#])
            .arg(descriptors.to_string())
            .arg(PROGRAM);
        Daemon::spawn(&mut command, root, more)
    }

    /// Starts a node under filters of system calls. [`Self::log`] has what it says.
    pub(crate) fn start_behind(filters: &[BpfProgram], root: &Path, more: &[&str]) -> Daemon {
        let mut command = cep_fast(&[]);
        Daemon::prepare(&mut command, root, more);
        Daemon::of(filter::behind(filters, &mut command))
    }

    /// Starts a node by `command`, which runs the program with the given arguments.
    pub(crate) fn spawn(command: &mut Command, root: &Path, more: &[&str]) -> Daemon {
        Daemon::prepare(command, root, more);
        Daemon::of(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn prepare(command: &mut Command, root: &Path, more: &[&str]) {
        command.args(["node", "--listen", "127.0.0.1:0", "--root"]).arg(root).args(more);
        if !more.contains(&"--key-file") {
            command.arg("--insecure-no-key");
        }
        command.env("XDG_STATE_HOME", STATE);
    }

    fn of(mut child: Child) -> Daemon {
        let address = ready_address(&mut child).to_string();
        Daemon { child, address }
    }

    /// Ends it. Returns what it has logged, where it was started to have that read.
    pub(crate) fn log(mut self) -> String {
        self.child.kill().unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> std::process::ExitStatus {
        let mut status = None;
        wait_for("the end of a daemon", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

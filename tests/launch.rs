//! Nodes that are started over ssh: a real sshd, real sessions, real files.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::sshd::{SshHost, Sshd};
use support::{
    JOURNAL_HEADER_BYTES, JOURNAL_RECORD_BYTES, PROGRAM, STATE, beside, code, end_of, json,
    listing, random_bytes, run, stderr, stderr_of_fast, wait_for,
};

/// Time within which nothing is left of a launch.
const SOON: Duration = Duration::from_secs(10);
const BYTES: usize = 300_000;

/// Hosts, and a program of their own: its processes are known by their paths.
struct Site {
    sshd: Sshd,
    program: PathBuf,
}

impl Site {
    /// Starts hosts that have the program in their search path.
    fn with_program(hosts: &[SshHost]) -> Option<Site> {
        let site = Site::bare(hosts)?;
        for host in hosts {
            symlink(&site.program, site.sshd.programs(host.name()).join("cep-fast")).unwrap();
        }
        Some(site)
    }

    /// Starts hosts that have no program.
    fn bare(hosts: &[SshHost]) -> Option<Site> {
        let sshd = Sshd::start(hosts)?;
        let program = sshd.folder().join("cep-fast");
        fs::hard_link(PROGRAM, &program).unwrap();
        // What is sent: without the symbols of a test build, which are most of it.
        let name = format!("cep-fast-static-{}", std::env::consts::ARCH);
        let stripped =
            run(Command::new("strip").arg("-o").arg(program.with_file_name(name)).arg(PROGRAM));
        assert_eq!(code(&stripped), 0, "{}", stderr(&stripped));
        Some(Site { sshd, program })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sshd.folder().join(name)
    }

    /// Creates a source of random bytes.
    fn source(&self, bytes: usize) -> Vec<u8> {
        let data = random_bytes(7, bytes);
        fs::write(self.path("source"), &data).unwrap();
        data
    }

    /// Returns the command that carries out a specification.
    fn command(&self, spec: &str, more: &[&str]) -> Command {
        let file = tempfile::Builder::new().prefix("spec").tempfile_in(self.sshd.folder()).unwrap();
        fs::write(file.path(), spec).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["run", "--launch", "ssh", "--json", "--progress", "never", "--ssh"]);
        command.arg(self.sshd.ssh()).args(more).arg(file.keep().unwrap().1);
        command.env("XDG_STATE_HOME", STATE).env_remove("CEP_FAST_SSH");
        command
    }

    fn run(&self, spec: &str, more: &[&str]) -> Output {
        run(&mut self.command(spec, more))
    }

    /// Runs a specification that must complete.
    fn complete(&self, spec: &str, more: &[&str]) {
        let output = self.run(spec, more);
        assert_eq!(code(&output), 0, "{}\n{spec}", stderr(&output));
        assert_eq!(json(&output)["state"], "complete");
    }

    /// Runs a specification that must fail soon, with a sentence and a remedy, and leave nothing.
    fn fail(&self, host: &str, status: i32, more: &[&str]) -> String {
        let (start, spec) = (Instant::now(), self.spec("good", &[host]));
        let output = self.run(&spec, more);
        let took = start.elapsed();
        let said = stderr_of_fast(&output);
        assert_eq!(code(&output), status, "{host}: {said}");
        assert!(took < 2 * SOON, "{host}: {took:?}: {said}");
        assert!(said.starts_with(&format!("cep-fast: {host}")), "{host}: {said}");
        assert!(said.contains("\n  try: "), "{host}: {said}");
        assert!(said.lines().count() <= 3, "{host}: {said}");
        self.assert_nothing_runs();
        said
    }

    /// Returns a specification that copies the source from one host to others.
    fn spec(&self, from: &str, to: &[&str]) -> String {
        let source = self.path("source");
        let bytes = fs::metadata(&source).map_or(BYTES as u64, |about| about.len()) - 1;
        let mut spec =
            format!("id launch\nwriter {from}:7001 file://{} 0 0-{bytes}\n", source.display());
        for host in to {
            let copy = self.path(&format!("copy-{host}"));
            spec += &format!("reader {host}:7002 file://{} 0 0-{bytes}\n", copy.display());
        }
        spec
    }

    /// Returns the processes of this site: programs, and whatever names its folder, other than the
    /// server.
    fn processes(&self) -> Vec<(Pid, String)> {
        let folder = self.sshd.folder().as_os_str().to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            let pid = Pid::from_raw(pid);
            let program = fs::read_link(path.join("exe")).unwrap_or_default();
            let words = fs::read(path.join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if pid != self.sshd.pid() && (program.starts_with(folder) || words.contains(folder)) {
                found.push((pid, format!("{}: {words}", program.display())));
            }
        }
        found
    }

    /// Waits until no process of the site is left.
    fn assert_nothing_runs(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let (left, sessions) = (self.processes(), self.sshd.sessions());
            if left.is_empty() && sessions.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still there: {left:?}, sessions {sessions:?}");
            std::thread::yield_now();
        }
    }

    fn process_of(&self, is_it: impl Fn(&str) -> bool) -> Pid {
        let found = self.processes().into_iter().find(|(_, words)| is_it(words));
        found.unwrap_or_else(|| panic!("{:?}", self.processes())).0
    }
}

/// Returns the program that a host was sent, if it was.
fn stored(home: &Path) -> Vec<PathBuf> {
    let cache = home.join(".cache/cep-fast");
    if cache.exists() { listing(&cache) } else { Vec::new() }
}

#[test]
fn sessions_have_the_home_the_path_and_the_shell_of_their_host() {
    let hosts = hosts_of_every_kind();
    let Some(sshd) = Sshd::start(&hosts) else { return };
    let question = "pwd; printenv HOME PATH; cat /proc/self/stat | cut -d' ' -f4 | xargs -I % \
                    cat /proc/%/comm";
    for (host, shell) in [("plain", "sh"), ("csh", "csh"), ("fish", "fish"), ("loud", "sh")] {
        let output = run(Command::new(sshd.ssh()).args(["-o", "BatchMode=yes", host, question]));
        assert_eq!(code(&output), 0, "{host}: {}", stderr(&output));
        let home = sshd.home(host).display().to_string();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", sshd.programs(host).display());
        let expected = format!("{home}\n{home}\n{path}\n");
        let said = String::from_utf8(output.stdout).unwrap();
        let said = said.strip_prefix("Welcome\n").unwrap_or(&said);
        assert!(said.starts_with(&expected), "{host}: {said}");
        assert!(said[expected.len()..].contains(shell), "{host}: {said}");
    }
}

fn hosts_of_every_kind() -> [SshHost; 4] {
    [
        SshHost::new("plain"),
        SshHost::new("csh").shell("/bin/csh"),
        SshHost::new("fish").shell("/usr/bin/fish"),
        SshHost::new("loud").first("echo Welcome; echo 'cep-fast: not an error' >&2"),
    ]
}

#[test]
fn files_move_between_hosts_whatever_their_shells_are_and_say() {
    let Some(site) = Site::with_program(&hosts_of_every_kind()) else { return };
    let data = site.source(BYTES);
    site.complete(&site.spec("plain", &["csh", "fish", "loud"]), &["--deploy", "never"]);
    for host in ["csh", "fish", "loud"] {
        assert!(fs::read(site.path(&format!("copy-{host}"))).unwrap() == data, "{host}");
    }
    site.assert_nothing_runs();
}

#[test]
fn a_host_that_cannot_be_logged_in_to_is_named_with_a_remedy() {
    let hosts = [
        SshHost::new("good"),
        SshHost::new("deaf").client("Port 1"),
        SshHost::new("keyless").client("PubkeyAuthentication no"),
        SshHost::new("unknown").client("StrictHostKeyChecking yes"),
        SshHost::new("changed")
            .client("StrictHostKeyChecking yes")
            .client("HostKeyAlias changed")
            .client("UserKnownHostsFile FOLDER/known"),
        SshHost::new("closed").shell("/usr/sbin/nologin"),
        SshHost::new("behind").client("ProxyJump deaf"),
        SshHost::new("broken").client("ProxyCommand false").client("LogLevel INFO"),
    ];
    let Some(site) = Site::with_program(&hosts) else { return };
    let other = fs::read_to_string(site.path("stranger.pub")).unwrap();
    fs::write(site.path("known"), format!("changed {other}")).unwrap();
    site.source(BYTES);
    for (host, status, remedy) in [
        ("nowhere.invalid", 3, "check the name"),
        ("deaf", 3, "sshd runs there"),
        ("keyless", 4, "authorized_keys"),
        ("unknown", 4, "ssh unknown true"),
        ("changed", 4, "ssh-keygen -R changed"),
        ("closed", 4, "a shell there"),
        ("behind", 3, "sshd runs there"),
        ("broken", 3, "ProxyCommand"),
    ] {
        let said = site.fail(host, status, &["--deploy", "never"]);
        assert!(said.contains(remedy), "{host}: {said}");
    }
}

#[test]
fn a_name_that_is_an_option_of_ssh_executes_nothing() {
    let Some(site) = Site::with_program(&[SshHost::new("good")]) else { return };
    site.source(BYTES);
    let mark = site.path("mark");
    for name in [
        format!("-oProxyCommand=touch${{IFS}}{}", mark.display()),
        format!("$(touch${{IFS}}{})", mark.display()),
        format!("`touch${{IFS}}{}`", mark.display()),
        "-lroot".into(),
    ] {
        let output = site.run(&site.spec("good", &[&name]), &[]);
        assert_eq!(code(&output), 2, "{name}: {}", stderr(&output));
        assert!(!mark.exists(), "{name}");
        site.assert_nothing_runs();
    }
}

#[test]
fn odd_paths_are_bytes_and_nothing_in_them_is_executed() {
    let Some(site) = Site::with_program(&hosts_of_every_kind()) else { return };
    let data = site.source(BYTES);
    let last = BYTES - 1;
    let source = site.path("source");
    let mut spec = format!(
        "id odd
writer plain:7001 file://{} 0 0-{last}
",
        source.display()
    );
    let names =
        ["a b", "it's \"q\"", "$(touch x)", "`touch x`", "a\nb", "a\\nb", "-rf ~ *?!#", "é%\t|&;"];
    for name in names {
        let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for host in ["plain", "csh", "fish"] {
            let folder = site.path(host);
            fs::create_dir_all(&folder).unwrap();
            spec += &format!("reader {host}:7001 file://{}/{name} 0 0-{last}\n", folder.display());
        }
    }
    site.complete(&spec, &["--deploy", "never"]);
    for host in ["plain", "csh", "fish"] {
        for name in names {
            assert!(fs::read(site.path(host).join(name)).unwrap() == data, "{host}: {name:?}");
        }
        assert_eq!(fs::read_dir(site.path(host)).unwrap().count(), names.len());
    }
    assert!(!listing(site.sshd.folder()).iter().any(|path| path.ends_with("x")));
}

#[test]
fn a_host_without_the_program_is_sent_it_once() {
    let Some(site) = Site::bare(&[SshHost::new("a"), SshHost::new("b")]) else { return };
    let data = site.source(BYTES);
    let spec = site.spec("a", &["b"]);
    let output = site.run(&spec, &["--deploy", "never"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("try: install it there"), "{}", stderr(&output));
    assert_eq!(stored(&site.sshd.home("a")), [] as [PathBuf; 0]);
    let mut before = Vec::new();
    for round in 0..2 {
        site.complete(&spec, &["--overwrite"]);
        assert!(fs::read(site.path("copy-b")).unwrap() == data);
        let about = |host: &str| {
            let found = stored(&site.sshd.home(host));
            assert_eq!(found.len(), 1, "{found:?}");
            let about = fs::metadata(&found[0]).unwrap();
            assert_eq!(about.mode() & 0o777, 0o700);
            (found[0].clone(), about.ino(), about.mtime(), about.mtime_nsec())
        };
        let now = vec![about("a"), about("b")];
        assert!(round == 0 || now == before, "it was sent again: {before:?}, {now:?}");
        before = now;
    }
    site.assert_nothing_runs();
}

#[test]
fn two_deployments_at_once_do_each_other_no_harm() {
    let Some(site) = Site::bare(&[SshHost::new("a")]) else { return };
    let data = site.source(BYTES);
    let last = BYTES - 1;
    let launch = |number: usize| {
        let (source, copy) = (site.path("source"), site.path(&format!("copy{number}")));
        let spec = format!(
            "id twice{number}\nwriter a:710{number} file://{} 0 0-{last}\nreader a:710{number} \
             file://{} 0 0-{last}\n",
            source.display(),
            copy.display()
        );
        started(&mut site.command(&spec, &[]))
    };
    let launches: Vec<Child> = (0..3).map(launch).collect();
    for (number, child) in launches.into_iter().enumerate() {
        let output = end_of(child);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(fs::read(site.path(&format!("copy{number}"))).unwrap() == data);
    }
    site.assert_nothing_runs();
    let found = stored(&site.sshd.home("a"));
    assert_eq!(found.len(), 1, "{found:?}");
}

fn started(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// A file system that is unmounted with the test.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts one in memory; `None` where that is not permitted.
    fn at(path: PathBuf, options: &str) -> Option<Mounted> {
        let mut mount = Command::new("mount");
        let output = run(mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path));
        if code(&output) != 0 {
            eprintln!("skipped: no right to mount a tmpfs");
            return None;
        }
        Some(Mounted(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[test]
fn a_home_that_cannot_hold_the_program_is_named_with_a_remedy() {
    let hosts = ["good", "sealed", "full", "idle"].map(SshHost::new);
    let Some(site) = Site::bare(&hosts) else { return };
    site.source(BYTES);
    symlink(&site.program, site.sshd.programs("good").join("cep-fast")).unwrap();
    for (host, options) in [("sealed", "ro"), ("full", "size=1m"), ("idle", "noexec")] {
        let Some(_mounted) = Mounted::at(site.sshd.home(host), options) else { return };
        let said = site.fail(host, 5, &[]);
        assert!(said.contains(".cache/cep-fast"), "{host}: {said}");
        assert!(stored(&site.sshd.home(host)).is_empty(), "{host}: it leaves parts");
    }
}

/// What is killed in the middle.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Ssh,
    Session,
    Node,
    Launcher(Signal),
}

#[test]
fn whatever_is_killed_nothing_is_left_and_the_same_line_resumes() {
    let Some(site) = Site::with_program(&[SshHost::new("a"), SshHost::new("b")]) else { return };
    let data = site.source(40 << 20);
    let launcher = [Signal::SIGKILL, Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM];
    let victims = [Victim::Ssh, Victim::Session, Victim::Node];
    for victim in victims.into_iter().chain(launcher.map(Victim::Launcher)) {
        let spec = site.spec("a", &["b"]);
        let mut child = started(&mut site.command(&spec, &["--limit", "160M"]));
        wait_for("a journal", || {
            if child.try_wait().unwrap().is_some() {
                let mut said = String::new();
                child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
                panic!("{victim:?}: it ended too early: {said}");
            }
            let is_filled = |path: &PathBuf| {
                let least = JOURNAL_HEADER_BYTES + 2 * JOURNAL_RECORD_BYTES;
                fs::metadata(path).is_ok_and(|about| about.len() > least)
            };
            beside(site.sshd.folder(), ".journal").iter().any(is_filled)
        });
        let master = Pid::from_raw(child.id().cast_signed());
        let (pid, signal) = match victim {
            Victim::Ssh => {
                (site.process_of(|words| words.contains("/usr/bin/ssh: ")), Signal::SIGKILL)
            }
            Victim::Session => (site.sshd.sessions()[0], Signal::SIGKILL),
            Victim::Node => {
                (site.process_of(|words| words.ends_with("cep-fast launched ")), Signal::SIGKILL)
            }
            Victim::Launcher(signal) => (master, signal),
        };
        let start = Instant::now();
        kill(pid, signal).unwrap();
        let output = end_of(child);
        assert!(start.elapsed() < SOON, "{victim:?}: it ends after {:?}", start.elapsed());
        assert!(code(&output) != 0, "{victim:?}: {}", stderr(&output));
        site.assert_nothing_runs();
        let output = site.run(&spec, &["--limit", "10G"]);
        assert_eq!(code(&output), 0, "{victim:?}: {}", stderr(&output));
        let resumed = json(&output)["resumed_bytes"].as_u64().unwrap();
        assert!(resumed > 0, "{victim:?}: {}", json(&output));
        assert!(fs::read(site.path("copy-b")).unwrap() == data, "{victim:?}");
        site.assert_nothing_runs();
        fs::remove_file(site.path("copy-b")).unwrap();
    }
}

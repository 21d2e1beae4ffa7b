//! Watching and stopping transfers of one's own on this machine, without an address.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::any::Any;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};

use nix::sys::signal::Signal;
use support::{cep_fast, code, end_of, folder, json, listing, run, stderr, wait_for};

/// Held by the tests that look at `/tmp/cep-fast-UID` besides their own directory, as all commands
/// do; for writing by the one whose transfers are there, which the others would find and cancel.
static TEMPORARY_PLACE: RwLock<()> = RwLock::new(());

/// A machine with a runtime directory of its own, for one user.
struct Machine {
    folder: tempfile::TempDir,
    /// The lock on [`TEMPORARY_PLACE`].
    _others: Box<dyn Any>,
}

/// A transfer that takes a minute, as a process.
struct Running {
    child: Child,
}

impl Machine {
    fn new() -> Machine {
        let others = TEMPORARY_PLACE.read().unwrap_or_else(PoisonError::into_inner);
        Machine::beside(Box::new(others))
    }

    /// The only machine of this program while it is there.
    fn alone() -> Machine {
        let others = TEMPORARY_PLACE.write().unwrap_or_else(PoisonError::into_inner);
        Machine::beside(Box::new(others))
    }

    fn beside(others: Box<dyn Any>) -> Machine {
        let folder = folder();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("runtime")).unwrap();
        Machine { folder, _others: others }
    }

    fn runtime(&self) -> PathBuf {
        self.folder.path().join("runtime")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = cep_fast(args);
        command.env("XDG_RUNTIME_DIR", self.runtime());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Starts a transfer that takes a minute, and waits until its bytes move.
    fn start(&self, id: &str) -> Running {
        let running = self.spawn(id, &[]);
        wait_for("a transfer that moves", || {
            self.states().iter().any(|state| {
                state["pid"] == running.child.id() && state["gbit_per_s"].as_f64() > Some(0.0)
            })
        });
        running
    }

    fn spawn(&self, id: &str, more: &[&str]) -> Running {
        let spec = self.folder.path().join(format!("{id}.spec"));
        let rows = "writer a:1 pattern:7 0 0-2999999999\nreader b:1 null: 0 0-2999999999\n";
        fs::write(&spec, format!("id \"{id}\"\n{rows}")).unwrap();
        let mut command =
            self.command(&["run", "--launch", "local", "--limit", "400M", "--progress", "never"]);
        command.args(more).arg(&spec).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child }
    }

    /// Returns what `status --json` prints.
    fn states(&self) -> Vec<serde_json::Value> {
        let output = self.run(&["status", "--json"]);
        assert!([0, 3].contains(&code(&output)), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn sockets(&self) -> Vec<PathBuf> {
        listing(&self.runtime()).into_iter().filter(|path| !path.is_dir()).collect()
    }
}

impl Running {
    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn end(self) -> Output {
        end_of(self.child)
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(output)
}

#[test]
fn ones_own_transfers_are_found_and_cancelled_without_an_address() {
    let machine = Machine::new();
    let none = machine.run(&["status"]);
    assert_eq!((code(&none), none.stdout.is_empty()), (0, false), "{}", words(&none));
    let none = machine.run(&["status", "--json"]);
    assert_eq!((code(&none), none.stdout.is_empty()), (0, true), "{}", words(&none));
    for none in [&["cancel"][..], &["cancel", "--all"], &["cancel", "--transfer", "one"]] {
        assert_eq!(code(&machine.run(none)), 3, "{none:?}");
    }

    let one = machine.start("one");
    let output = machine.run(&["status"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with(&format!("one (process {}): moving, ", one.pid())), "{text}");
    assert!(text.contains("bit/s, 2 nodes"), "{text}");

    let two = machine.start("two");
    let mut ids: Vec<String> =
        machine.states().iter().map(|it| it["transfer"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["one", "two"]);
    let asked = machine.run(&["cancel"]);
    let said = words(&asked);
    assert_eq!(code(&asked), 2, "{said}");
    for word in ["one (process ", "two (process ", "--transfer", "--all"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(code(&machine.run(&["cancel", "--transfer", "three"])), 3);
    assert_eq!(code(&machine.run(&["cancel", "--transfer", &one.pid()])), 0);
    assert_eq!(code(&one.end()), 130);
    assert_eq!(code(&machine.run(&["cancel", "--transfer", "two"])), 0);
    assert_eq!(code(&two.end()), 130);
    assert_eq!(machine.sockets(), Vec::<PathBuf>::new());

    let all = [machine.start("same"), machine.start("same")];
    let asked = machine.run(&["cancel", "--transfer", "same"]);
    assert_eq!(code(&asked), 2, "two have this id: {}", words(&asked));
    let asked = machine.run(&["cancel", "--all"]);
    assert_eq!((code(&asked), words(&asked).lines().count()), (0, 2), "{}", words(&asked));
    all.into_iter().for_each(|it| assert_eq!(code(&it.end()), 130));
    assert_eq!(machine.states().len(), 0);
}

#[test]
fn the_only_transfer_is_cancelled_without_its_name_and_a_copy_is_one_too() {
    let machine = Machine::new();
    let big = fs::File::create(machine.folder.path().join("big")).unwrap();
    big.set_len(1 << 30).unwrap();
    // A hole would be no bytes to move.
    std::os::unix::fs::FileExt::write_all_at(&big, &vec![7; 64 << 20], 0).unwrap();
    let mut command = machine.command(&["copy", "--limit", "100M", "--progress", "never"]);
    let paths = ["big", "copied"].map(|name| machine.folder.path().join(name));
    let child = command.args(paths).stdin(Stdio::null()).stdout(Stdio::piped());
    let copy = Running { child: child.stderr(Stdio::piped()).spawn().unwrap() };
    wait_for("a copy that is found", || machine.states().iter().any(|it| it["phase"] == "moving"));
    let asked = machine.run(&["cancel"]);
    assert_eq!(code(&asked), 0, "{}", words(&asked));
    assert!(words(&asked).starts_with("cancelling: "), "{}", words(&asked));
    assert_eq!(code(&copy.end()), 130);
}

#[test]
fn the_socket_of_a_killed_master_is_removed_by_whoever_looks() {
    let machine = Machine::new();
    let (killed, other) = (machine.start("killed"), machine.start("other"));
    assert_eq!(machine.sockets().len(), 2);
    killed.signal(Signal::SIGKILL);
    killed.end();
    assert_eq!(machine.sockets().len(), 2, "nobody has looked yet");
    let states = machine.states();
    assert_eq!((states.len(), &states[0]["transfer"]), (1, &"other".into()));
    assert_eq!(machine.sockets().len(), 1);
    assert_eq!(code(&machine.run(&["cancel"])), 0, "the other one is the only one");
    assert_eq!(code(&other.end()), 130);
}

#[test]
fn a_master_that_is_stopped_is_told_of_and_hides_no_other() {
    let machine = Machine::new();
    let (stopped, other) = (machine.start("stopped"), machine.start("other"));
    stopped.signal(Signal::SIGSTOP);
    let output = machine.run(&["status"]);
    let said = words(&output);
    assert_eq!(code(&output), 3, "{said}");
    assert!(said.contains("other (process ") && said.contains(&stopped.pid()), "{said}");
    stopped.signal(Signal::SIGCONT);
    wait_for("both again", || machine.states().len() == 2);
    assert_eq!(code(&machine.run(&["cancel", "--all"])), 0);
    [stopped, other].into_iter().for_each(|it| assert_eq!(code(&it.end()), 130));
}

/// More clients than a master keeps, and than its queue holds.
#[test]
fn clients_that_say_nothing_hold_up_nobody() {
    let machine = Machine::new();
    let running = machine.start("busy");
    let socket = machine.sockets().pop().unwrap();
    let silent: Vec<UnixStream> = (0..400).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for stream in silent.iter().step_by(2) {
        // Half a length, and then nothing. It may have been closed for another one by now.
        let _ = std::io::Write::write(&mut &*stream, &[1, 0]);
    }
    let moved = |machine: &Machine| machine.states()[0]["bytes"].as_u64().unwrap();
    let before = moved(&machine);
    wait_for("bytes that move meanwhile", || moved(&machine) > before + (20 << 20));
    assert_eq!(code(&machine.run(&["cancel"])), 0);
    drop(silent);
    assert_eq!(code(&running.end()), 130);
}

#[test]
fn a_question_that_is_none_is_not_answered() {
    use std::io::{Read, Write};
    let machine = Machine::new();
    let running = machine.start("asked");
    let socket = machine.sockets().pop().unwrap();
    for question in [&[0, 0, 0, 0][..], &[255; 64], &[2, 0, 0, 0, 255, 255], &[2, 0, 0, 0, 8, 9]] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(question).unwrap();
        let mut answer = Vec::new();
        // Closed with or without having been read.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{question:?}: {answer:?}");
    }
    assert_eq!(code(&machine.run(&["cancel"])), 0);
    assert_eq!(code(&running.end()), 130);
}

/// Somebody may have made the directory, or a link in its place, before.
#[test]
fn a_directory_that_others_could_use_is_not_used() {
    let machine = Machine::alone();
    let elsewhere = machine.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
    let place = machine.runtime().join("cep-fast");
    symlink(&elsewhere, &place).unwrap();
    let found_elsewhere = |id: &str| {
        let running = machine.start(id);
        assert_eq!(machine.sockets(), Vec::<PathBuf>::new(), "{id}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        // By its process: in the other directory there may be those of other programs.
        assert_eq!(code(&machine.run(&["cancel", "--transfer", &running.pid()])), 0);
        assert_eq!(code(&running.end()), 130);
    };
    found_elsewhere("beside a link");
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    found_elsewhere("open to others");
    fs::remove_dir(&place).unwrap();
    fs::set_permissions(machine.runtime(), fs::Permissions::from_mode(0o777)).unwrap();
    found_elsewhere("where others could put another");
}

#[test]
fn keys_and_choices_that_mean_nothing_are_refused() {
    let machine = Machine::new();
    for args in [
        &["status", "--key-file", "k"][..],
        &["cancel", "--allow-file", "k"],
        &["cancel", "--all", "--transfer", "x"],
        &["cancel", "--all", "127.0.0.1:1"],
        &["cancel", "--transfer", "x", "127.0.0.1:1"],
    ] {
        assert_eq!(code(&machine.run(args)), 2, "{args:?}");
    }
}

#[test]
fn other_users_neither_see_nor_cancel_it() {
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can be another user");
    }
    let machine = Machine::new();
    let running = machine.start("mine");
    let as_nobody = |command: &mut Command| run(command.uid(NOBODY).gid(NOBODY));
    let program = machine.folder.path().join("cep-fast");
    fs::copy(support::PROGRAM, &program).unwrap();
    let is_reachable = as_nobody(Command::new(&program).arg("--version")).status.success();
    if !is_reachable {
        machine.run(&["cancel"]);
        return eprintln!("skipped: other users cannot reach {}", program.display());
    }
    let status = |machine: &Machine| {
        let mut command = Command::new(&program);
        command.args(["status", "--json"]).env("XDG_RUNTIME_DIR", machine.runtime());
        as_nobody(&mut command)
    };
    assert_eq!((code(&status(&machine)), status(&machine).stdout.len()), (0, 0));

    // Even where the modes let it in, the master asks the kernel who it is.
    let socket = machine.sockets().pop().unwrap();
    for path in [socket.parent().unwrap(), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  try:\n s.sendall(bytes([2, 0, 0, 0, 8, 2]))\n print(len(s.recv(99)))\n\
                  except OSError:\n print(0)\n";
    let ask = |command: &mut Command| run(command.args(["-c", script]).arg(&socket));
    let nobody = ask(Command::new("python3").uid(NOBODY).gid(NOBODY));
    assert!(nobody.stdout.is_empty() || nobody.stdout == b"0\n", "{}", words(&nobody));
    fs::set_permissions(socket.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(machine.states().len(), 1, "it was not cancelled");
    let own = ask(&mut Command::new("python3"));
    assert!(own.stdout.len() > 2 || !own.status.success(), "{}", words(&own));
    running.signal(Signal::SIGINT);
    assert_eq!(code(&running.end()), 130);
}

#[test]
fn a_benchmark_is_found_too_and_its_process_has_one_socket_at_most() {
    let machine = Machine::new();
    let mut command = machine.command(&["bench", "--launch", "local", "--seconds", "60", "--json"]);
    command.args(["--progress", "never"]).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let bench = Running { child };
    wait_for("a benchmark that is found", || {
        machine.states().first().is_some_and(|state| state["transfer"] == "bench")
    });
    assert!(machine.sockets().len() <= 1);
    // Between two of its runs there is none.
    wait_for("its cancellation", || code(&machine.run(&["cancel"])) == 0);
    let output = bench.end();
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    assert_eq!(json(&output)["error"]["code"], 130);
    assert!(Path::new(&machine.runtime()).exists() && machine.sockets().is_empty());
}

//! Scarce resources of a node (descriptors, threads, file sizes, a log that can be written): a
//! shortage costs at most one transfer, never the node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use support::{
    Daemon, PROGRAM, cep_fast, code, end_of, folder, listing, random_bytes, run, stderr, wait_for,
};

/// Runs a specification between daemons.
fn run_between(root: &Path, spec: &str) -> Output {
    let (file, key) = (root.join("spec"), root.join("key"));
    fs::write(&file, spec).unwrap();
    let mut command = cep_fast(&["run", "--progress", "never"]);
    if key.exists() {
        command.arg("--key-file").arg(key);
    }
    run(command.arg(file))
}

/// A specification for `count` files of a byte each, from one node to another.
fn many_files(count: usize, from: &str, to: &str, source: &str, destination: &str) -> String {
    let mut spec = "id many\noption block 4K\n".to_string();
    for at in 0..count {
        let name = |uri: &str| uri.replace('#', &at.to_string());
        let (source, destination) = (name(source), name(destination));
        writeln!(spec, "writer {from} {source} 0 {at}-{at}\nreader {to} {destination} 0 {at}-{at}")
            .unwrap();
    }
    spec
}

fn copies(root: &Path, from: &Daemon, to: &Daemon) {
    let (from, to) = (&from.address, &to.address);
    let output = run_between(root, &many_files(3, from, to, "file:///s#", "file:///d#"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for at in 0..3 {
        fs::remove_file(root.join(format!("d{at}"))).unwrap();
    }
}

fn with_sources(count: usize) -> tempfile::TempDir {
    let root = folder();
    (0..count).for_each(|at| fs::write(root.path().join(format!("s{at}")), "x").unwrap());
    root
}

#[test]
fn more_files_than_descriptors_are_refused_by_number_before_one_is_opened() {
    let root = with_sources(300);
    let small = Daemon::start_limited(root.path(), 256, &[]);
    let large = Daemon::start(root.path(), &[]);
    let before = listing(root.path());
    for (from, to, source, destination) in
        [(&large, &small, "pattern:1", "file:///d#"), (&small, &large, "file:///s#", "null:")]
    {
        let spec = many_files(300, &from.address, &to.address, source, destination);
        let output = run_between(root.path(), &spec);
        let said = stderr(&output);
        assert_eq!(code(&output), 5, "{said}");
        assert!(said.contains(&small.address) && said.contains("300 files need"), "{said}");
        assert!(said.contains("left of 256") && said.contains("raise the node's limit"), "{said}");
        fs::remove_file(root.path().join("spec")).unwrap();
        assert_eq!(listing(root.path()), before, "something is left");
    }
    copies(root.path(), &large, &small);
    copies(root.path(), &small, &large);
}

/// Regression: descriptors were estimated too low, and ran out during a transfer.
#[test]
fn as_many_files_as_are_said_to_fit_do_fit() {
    let root = with_sources(400);
    let small = Daemon::start_limited(root.path(), 256, &[]);
    let large = Daemon::start(root.path(), &[]);
    for (from, to, source, destination) in
        [(&large, &small, "pattern:1", "file:///d#"), (&small, &large, "file:///s#", "null:")]
    {
        let run_many = |count| {
            let id = format!("id many{count}");
            let spec = many_files(count, &from.address, &to.address, source, destination)
                .replace("id many", &id);
            run_between(root.path(), &spec)
        };
        let refused = run_many(400);
        let said = stderr(&refused);
        let number = |before: &str, after: &str| -> usize {
            let rest = said.split_once(before).unwrap().1;
            rest.split_once(after).unwrap().0.parse().unwrap()
        };
        let (need, left) =
            (number("400 files need ", " open files"), number("here, and ", " are left"));
        // Masters and flows that are about to end may still hold theirs.
        let fit = left * 400 / need - 3;
        let output = run_many(fit);
        assert_eq!(code(&output), 0, "{fit} files: {}", stderr(&output));
    }
}

#[test]
fn a_thread_that_cannot_be_made_costs_one_transfer_and_not_the_node() {
    // Limits on processes do not apply to root, so the node runs as a user without other processes.
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: it takes root to run a node as another user");
    }
    let user = 1_000_000 + std::process::id();
    let root = with_sources(3);
    chown(root.path(), Some(user), Some(user)).unwrap();
    // A key file must belong to its user.
    let (key, own) = (root.path().join("key"), root.path().join("own"));
    assert_eq!(code(&run(cep_fast(&["keygen"]).arg(&key))), 0);
    fs::copy(&key, &own).unwrap();
    chown(&own, Some(user), Some(user)).unwrap();
    let (key, own) = (key.to_str().unwrap(), own.to_str().unwrap());
    let user = user.to_string();
    let as_user = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        command
    };
    let small = Daemon::spawn(as_user().arg(PROGRAM), root.path(), &["--key-file", own]);
    let large = Daemon::start(root.path(), &["--key-file", key]);
    let limit_threads = |count: usize| {
        let mut command = as_user();
        command
            .arg("prlimit")
            .arg(format!("--nproc={count}:"))
            .arg("--pid")
            .arg(small.pid().to_string());
        assert!(command.status().unwrap().success());
    };
    limit_threads(fs::read_dir(format!("/proc/{}/task", small.pid())).unwrap().count());
    for (from, to) in [(&large, &small), (&small, &large)] {
        let output = run_between(
            root.path(),
            &many_files(3, &from.address, &to.address, "pattern:1", "null:"),
        );
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{said}");
        assert!(said.contains(&small.address) && said.contains("ulimit -u"), "{said}");
    }
    limit_threads(1000);
    copies(root.path(), &large, &small);
    copies(root.path(), &small, &large);
}

#[test]
fn a_limit_of_file_sizes_is_an_error_of_the_file_and_not_the_end_of_the_node() {
    let root = folder();
    fs::write(root.path().join("x"), random_bytes(1, 3 << 20)).unwrap();
    let mut command = Command::new("sh");
    command.args(["-ec", r#"ulimit -f 2048; exec "$0" "$@""#, PROGRAM]);
    let small = Daemon::spawn(&mut command, root.path(), &[]);
    let copy = |bytes: usize| {
        let (address, last) = (&small.address, bytes - 1);
        let rows = format!(
            "writer {address} file:///x 0 0-{last}\nreader {address} file:///y 0 0-{last}\n"
        );
        run_between(root.path(), &format!("id large\n{rows}"))
    };
    let output = copy(3 << 20);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(!root.path().join("y").exists());
    let output = copy(1000);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn a_log_that_cannot_be_written_is_no_reason_to_stop() {
    let root = folder();
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    // Little locked memory makes the rails print a notice.
    let mut command = Command::new("sh");
    command.args(["-ec", r#"ulimit -l 64; exec "$0" "$@""#, PROGRAM]).stderr(full());
    let node = Daemon::spawn(&mut command, root.path(), &[]);
    let spec = many_files(3, &node.address, &node.address, "pattern:1", "file:///d#");
    let output = run_between(root.path(), &spec);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    // The same for a master and the nodes that it starts.
    fs::write(root.path().join("x"), random_bytes(1, 100_000)).unwrap();
    let mut command = Command::new("sh");
    command.args(["-ec", r#"ulimit -l 64; exec "$0" copy x y"#, PROGRAM]).current_dir(root.path());
    let status =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(fs::read(root.path().join("y")).unwrap(), random_bytes(1, 100_000));
}

#[test]
fn a_node_whose_terminal_hangs_up_ends_in_good_order() {
    let root = folder();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        let node = Daemon::start(root.path(), &[]);
        node.signal(signal);
        assert_eq!(node.ended().code(), Some(0), "{signal}");
    }
    // A user who ignored the signal wants the node to outlive the terminal.
    let mut command = Command::new("nohup");
    command.arg(PROGRAM).stderr(Stdio::null());
    let node = Daemon::spawn(&mut command, root.path(), &[]);
    node.signal(Signal::SIGHUP);
    let spec = many_files(1, &node.address, &node.address, "pattern:1", "null:");
    assert_eq!(code(&run_between(root.path(), &spec)), 0);
}

#[test]
fn a_second_signal_ends_a_node_at_once() {
    let root = folder();
    let node = Daemon::start(root.path(), &[]);
    // Both wait for it, so that it cannot have ended by the first signal.
    node.signal(Signal::SIGSTOP);
    node.signal(Signal::SIGTERM);
    node.signal(Signal::SIGINT);
    node.signal(Signal::SIGCONT);
    let status = node.ended();
    assert!([Some(143), Some(130)].contains(&status.code()), "{status} {:?}", status.signal());
}

#[test]
fn a_master_whose_terminal_hangs_up_cancels() {
    let root = folder();
    let spec =
        "id long\nwriter a:7001 pattern:1 0 0-1073741823\nreader b:7002 file:///y 0 0-1073741823\n";
    fs::write(root.path().join("spec"), spec).unwrap();
    let mut command =
        cep_fast(&["run", "--launch", "local", "--limit", "400M", "--progress", "never", "--root"]);
    command.arg(root.path()).arg(root.path().join("spec"));
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a partial file", || {
        listing(root.path()).iter().any(|path| path.to_string_lossy().contains(".y.cep-"))
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGHUP)
        .unwrap();
    let output = end_of(child);
    assert_eq!(code(&output), 130, "{}", stderr(&output));
}

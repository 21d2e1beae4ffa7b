//! Log of a daemon, as a journal would record it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{cep_fast, code, folder, random_bytes, ready_address, run, stderr, wait_for};

/// A daemon with a key whose standard error is a file, or something else.
struct Logged {
    child: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Logged {
    fn start(more: &[&str]) -> Logged {
        Logged::into(more, |folder| File::create(folder.join("log")).unwrap().into())
    }

    fn into(more: &[&str], log: impl FnOnce(&Path) -> Stdio) -> Logged {
        Logged::started(|folder| {
            let mut command = cep_fast(more);
            command.stderr(log(folder));
            command
        })
    }

    /// Starts a daemon of the program that `command` runs.
    fn started(command: impl FnOnce(&Path) -> Command) -> Logged {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("data")).unwrap();
        fs::write(at("data/x"), random_bytes(1, 1000)).unwrap();
        for key in ["key", "other"] {
            assert_eq!(code(&run(cep_fast(&["keygen"]).arg(at(key)))), 0);
        }
        let mut command = command(folder.path());
        command
            .args(["node", "--listen", "127.0.0.1:0", "--key-file"])
            .arg(at("key"))
            .arg("--root")
            .arg(at("data"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let address = ready_address(&mut child).to_string();
        Logged { child, address, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a transfer of `from` to `to`, and returns its exit status.
    fn transfer(&self, id: &str, from: &str, to: &str, key: &str) -> i32 {
        let spec = format!(
            "id \"{id}\"\nwriter {0} {from} 0 0-999\nreader {0} {to} 0 0-999\n",
            self.address
        );
        fs::write(self.path("spec"), spec).unwrap();
        let mut command = cep_fast(&["run", "--progress", "never", "--key-file"]);
        code(&run(command.arg(self.path(key)).arg(self.path("spec"))))
    }

    /// Ends the daemon in good order, and returns its log.
    fn log(mut self) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the lines that contain all of `words`.
fn lines<'a>(log: &'a str, words: &[&str]) -> Vec<&'a str> {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

#[test]
fn who_read_and_wrote_what_is_in_the_log() {
    let node = Logged::start(&[]);
    assert_eq!(node.transfer("first one", "file:///x", "file:///y", "key"), 0);
    assert_eq!(node.transfer("second", "file:///x", "file:///nowhere/y", "key"), 5);
    assert_eq!(node.transfer("third", "file:///../secret", "null:", "key"), 4);
    let address = node.address.clone();
    let log = node.log();
    for words in [
        &["listens", address.as_str(), "key=site", "root=", "/data", "nics=lo"][..],
        &[
            "begins",
            "id=\"first one\"",
            "master=127.0.0.1:",
            "reads=file:///x",
            "writes=file:///y",
            "wanted_bytes=1000",
        ],
        &["is complete", "id=\"first one\"", "sent_bytes=1000", "received_bytes=1000"],
        &["begins", "id=second", "file:///nowhere/y"],
        &["WARN", "fails", "id=second", "nowhere", "status=5"],
        &["WARN", "fails", "id=third", "secret", "status=4"],
        &["INFO ends"],
    ] {
        assert_eq!(lines(&log, words).len(), 1, "{words:?} in\n{log}");
    }
}

#[test]
fn a_flood_of_wrong_keys_is_one_line_and_a_count() {
    let node = Logged::start(&[]);
    for _ in 0..20 {
        assert_eq!(node.transfer("x", "file:///x", "null:", "other"), 4);
    }
    let garbage = || TcpStream::connect(&node.address).unwrap().write_all(&[b'?'; 100]).unwrap();
    (0..5).for_each(|_| garbage());
    wait_for("a line for garbage", || {
        !lines(&fs::read_to_string(node.path("log")).unwrap(), &["handshake"]).is_empty()
    });
    let log = node.log();
    assert_eq!(
        lines(&log, &["WARN", "refused: the key differs", "from=127.0.0.1"]).len(),
        1,
        "{log}"
    );
    assert_eq!(
        lines(&log, &["refused: 19 more like that", "kind=key", "from=127.0.0.1"]).len(),
        1,
        "{log}"
    );
    assert!(lines(&log, &["kind=handshake"]).len() <= 2, "{log}");
}

#[test]
fn strangers_who_gave_way_and_a_lack_of_descriptors_are_in_the_log() {
    let node = Logged::started(|folder| {
        let mut command = Command::new("sh");
        command.args(["-ec", r#"ulimit -n 64; exec "$@""#, "sh", support::PROGRAM]);
        command.stderr(File::create(folder.join("log")).unwrap());
        command
    });
    let strangers: Vec<_> = (0..100).map(|_| TcpStream::connect(&node.address).unwrap()).collect();
    let said = || fs::read_to_string(node.path("log")).unwrap();
    wait_for("a line of strangers", || {
        !lines(&said(), &["refused", "gave way", "from=127.0.0.1"]).is_empty()
    });
    drop(strangers);
    let log = node.log();
    assert!(lines(&log, &["refused"]).len() < 20, "{log}");
}

#[test]
fn a_journal_can_have_json() {
    let node = Logged::start(&["--log-json"]);
    assert_eq!(node.transfer("one", "file:///x", "file:///y", "key"), 0);
    let log = node.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let complete: Vec<_> =
        lines.iter().filter(|line| line["message"] == "a transfer is complete").collect();
    assert_eq!(complete.len(), 1, "{log}");
    assert_eq!((&complete[0]["id"], &complete[0]["received_bytes"]), (&"one".into(), &1000.into()));
    assert!(
        lines
            .iter()
            .all(|line| line["level"] != "debug" && line["time"].as_str().unwrap().ends_with('Z'))
    );
}

/// The reader of the log may have stalled or closed.
#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // A pipe that is already full.
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
        .unwrap();
    while (&writer).write(&[b'.'; 4096]).is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let node = Logged::into(&["-v"], |_| writer.into());
    assert_eq!(node.transfer("one", "file:///x", "file:///y", "key"), 0);
    // The reader continues.
    let mut content = [0; 1 << 17];
    let mut said = String::new();
    while !said.contains("a transfer is complete") {
        let length = reader.read(&mut content).unwrap();
        assert!(length > 0);
        said.push_str(&String::from_utf8_lossy(&content[..length]));
    }
    // The reader is closed.
    drop(reader);
    fs::remove_file(node.path("data/y")).unwrap();
    assert_eq!(node.transfer("two", "file:///x", "file:///y", "key"), 0);
    node.log();
    let full =
        Logged::into(&["-v"], |_| File::options().write(true).open("/dev/full").unwrap().into());
    assert_eq!(full.transfer("one", "file:///x", "file:///y", "key"), 0);
    full.log();
}

#[test]
fn launched_nodes_log_where_it_was_asked_for_only() {
    let folder = folder();
    fs::write(folder.path().join("x"), random_bytes(1, 1000)).unwrap();
    for (more, begins) in [(&[][..], 0), (&["-v"][..], 2), (&["-v", "--log-json"][..], 2)] {
        let copy = |command: &mut Command| {
            run(command.arg(folder.path().join("x")).arg(folder.path().join("y")))
        };
        let output = copy(cep_fast(&["copy", "--overwrite", "--progress", "never"]).args(more));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let said = stderr(&output);
        assert_eq!(lines(&said, &["a transfer begins"]).len(), begins, "{more:?}: {said}");
    }
}

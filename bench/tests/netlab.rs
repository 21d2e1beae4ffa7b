//! `tools/netlab`: the rates that it was told hold, a fault is felt, and a healed NIC is as it was.
//! Skipped, with a word on it, where namespaces are not permitted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// A lab that goes with the test.
struct Lab(String);

impl Lab {
    /// A lab of these options; `None` where that is not permitted.
    fn up(letter: char, options: &[&str]) -> Option<Lab> {
        let check = netlab(&["check"]);
        if check.status.code() == Some(77) {
            eprintln!("skipped: {}", String::from_utf8_lossy(&check.stderr));
            return None;
        }
        let lab = Lab(format!("{letter}{}", std::process::id()));
        good(netlab(&[&["up", &lab.0], options].concat()));
        Some(lab)
    }

    fn fault(&self, fault: &[&str]) -> Output {
        netlab(&[&["fault", &self.0, "2", "eth1"], fault].concat())
    }

    /// The rates of a node's NICs, as tc prints them.
    fn rates(&self, node: u32) -> Vec<String> {
        let output = Command::new("tc")
            .args(["-n", &format!("{}-n{node}", self.0), "qdisc", "show"])
            .output();
        let text = String::from_utf8(good(output.unwrap()).stdout).unwrap();
        let after = |line: &str| Some(line.split_once(" rate ")?.1.split(' ').next()?.to_owned());
        text.lines().filter(|line| line.contains(" tbf ")).filter_map(after).collect()
    }

    /// Does something inside a node: a socket belongs to the namespace that it was made in.
    fn inside<T: Send>(&self, node: u32, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}-n{node}", self.0)).unwrap();
        let enter = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// A connection over NIC 1, from node 1 to node 2; `None` where node 2 is silent.
    fn connection(&self) -> Option<(TcpStream, TcpStream)> {
        let listener = self.inside(2, || TcpListener::bind("10.201.0.2:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let stream =
            self.inside(1, || TcpStream::connect_timeout(&address, Duration::from_secs(1))).ok()?;
        Some((stream, listener.accept().unwrap().0))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        netlab(&["down", &self.0]);
    }
}

fn netlab(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/netlab");
    Command::new(script).args(arguments).output().unwrap()
}

fn good(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn rates_are_of_nics_or_of_nodes() {
    let Some(lab) = Lab::up('r', &["--nodes", "2", "--rates", "1gbit,250mbit,100mbit"]) else {
        return;
    };
    assert_eq!(lab.rates(1), ["1Gbit", "250Mbit", "100Mbit"]);
    assert_eq!(lab.rates(2), lab.rates(1));
    assert!(lab.rates(0).is_empty(), "the master's NICs are not shaped");
    good(netlab(&["up", &lab.0, "--node-rates", "1gbit,100mbit", "--nics", "2"]));
    assert_eq!(
        (lab.rates(1), lab.rates(2)),
        (vec!["1Gbit".to_owned(); 2], vec!["100Mbit".to_owned(); 2])
    );
    for wrong in [
        ["--rates", "1gbit", "--nics", "2"],
        ["--rate", "1gbit", "--rates", "1gbit"],
        ["--rate", "5", "--nics", "1"],
    ] {
        assert!(
            !netlab(&[&["up", &lab.0, "--nodes", "1"], &wrong[..]].concat()).status.success(),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_fault_is_felt_and_healed() {
    let Some(lab) = Lab::up('f', &["--nodes", "2", "--rate", "1gbit", "--nics", "2"]) else {
        return;
    };
    for fault in ["down", "drop"] {
        assert!(lab.connection().is_some());
        good(lab.fault(&[fault]));
        assert!(lab.connection().is_none(), "{fault}");
        good(lab.fault(&["heal"]));
    }
    let (mut from, mut to) = lab.connection().unwrap();
    good(lab.fault(&["reset"]));
    // Written bytes are answered with a reset, which both ends see.
    from.write_all(b"any").unwrap();
    assert_eq!(from.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    to.write_all(b"any").unwrap();
    assert_eq!(to.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(lab.connection().is_none());
    good(lab.fault(&["heal"]));
    assert!(lab.connection().is_some());
    good(lab.fault(&["rate", "100mbit"]));
    assert_eq!(lab.rates(2), ["1Gbit", "100Mbit"]);
    good(lab.fault(&["heal"]));
    assert_eq!(lab.rates(2), ["1Gbit", "1Gbit"]);
    for wrong in [&["burn"][..], &["rate"], &["rate", "fast"]] {
        assert!(!lab.fault(wrong).status.success(), "{wrong:?}");
    }
}

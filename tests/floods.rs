//! Connections that send nothing: holders of the key are served during and after a flood.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::lab::Lab;
use support::{Daemon, cep_fast, code, folder, json, random_bytes, run, stderr, wait_for};

/// Silent connections to some ports, reopened as soon as they are closed.
struct Flood {
    ends: Arc<AtomicBool>,
    /// Number of opened connections.
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Keeps `count` connections open, in turn to each of `addresses`.
    fn start(addresses: Vec<SocketAddr>, count: usize) -> Flood {
        let (ends, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, made) = (Arc::clone(&ends), Arc::clone(&opened));
        let thread = std::thread::spawn(move || {
            let mut held: Vec<TcpStream> = Vec::new();
            while !until.load(Ordering::Relaxed) {
                held.retain(is_open);
                for _ in held.len()..count {
                    let address = addresses[made.load(Ordering::Relaxed) % addresses.len()];
                    let Ok(stream) =
                        TcpStream::connect_timeout(&address, Duration::from_millis(20))
                    else {
                        break;
                    };
                    stream.set_nonblocking(true).unwrap();
                    held.push(stream);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Flood { ends, opened, thread: Some(thread) }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn is_open(mut stream: &TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Returns the ports that a process listens at, or `None` if it may not be inspected: for a daemon
/// with a key, only root may.
fn ports_of(pid: u32) -> Option<Vec<u16>> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = links.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let sockets: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let port = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_its = columns[3] == "0A" && sockets.contains(&format!("socket:[{}]", columns[9]));
        is_its.then(|| u16::from_str_radix(columns[1].split_once(':').unwrap().1, 16).unwrap())
    };
    Some(table.lines().skip(1).filter_map(port).collect())
}

/// Copies `x` to `y` by the two daemons, which must succeed.
fn copies(root: &Path, key: &Path, from: &Daemon, to: &Daemon) {
    let _ = fs::remove_file(root.join("y"));
    let (from, to) = (&from.address, &to.address);
    let spec =
        format!("id flood\nwriter {from} file:///x 0 0-99999\nreader {to} file:///y 0 0-99999\n");
    fs::write(root.join("spec"), spec).unwrap();
    let output = run(cep_fast(&["run", "--progress", "never", "--key-file"])
        .arg(key)
        .arg(root.join("spec")));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(fs::read(root.join("y")).unwrap(), random_bytes(1, 100_000));
}

/// Floods all ports of one of two daemons with `count` connections. Each daemon has `descriptors`
/// descriptors.
fn who_holds_the_key_gets_through(descriptors: u64, count: usize) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let root = folder();
    let key = root.path().join("key");
    assert_eq!(code(&run(cep_fast(&["keygen"]).arg(&key))), 0);
    fs::write(root.path().join("x"), random_bytes(1, 100_000)).unwrap();
    let more = ["--key-file", key.to_str().unwrap()];
    let from = Daemon::start_limited(root.path(), descriptors, &more);
    let to = Daemon::start_limited(root.path(), descriptors, &more);
    let Some(ports) = ports_of(to.pid()) else {
        return eprintln!("skipped: only root finds out the ports of a daemon with a key");
    };
    let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let flood = Flood::start(ports.into_iter().map(here).collect(), count);
    wait_for("a flood", || flood.opened() > count);
    for _ in 0..3 {
        let before = flood.opened();
        copies(root.path(), &key, &from, &to);
        wait_for("more of the flood", || flood.opened() > before);
    }
    drop(flood);
    copies(root.path(), &key, &from, &to);
}

#[test]
fn a_flood_of_silent_connections_keeps_nobody_out_who_holds_the_key() {
    who_holds_the_key_gets_through(1024, 1300);
}

#[test]
fn nor_where_a_node_has_few_descriptors() {
    who_holds_the_key_gets_through(256, 325);
    who_holds_the_key_gets_through(64, 81);
}

/// A third host floods the control address of the receiver meanwhile. Of one address the node holds
/// three quarters of the strangers' share, so each connection is closed for a later one.
///
/// `CEP_FAST_FLOOD_MBIT=1000` floods a line of that rate; this test has one of 200 Mbit/s.
#[test]
#[allow(clippy::print_stdout, reason = "figures of a long run")]
fn ten_thousand_silent_connections_cost_a_transfer_nothing() {
    let line = std::env::var("CEP_FAST_FLOOD_MBIT").ok();
    let line: u64 = line.map_or(200, |line| line.parse().unwrap());
    let Some(lab) = Lab::up(3, 1, &format!("{line}mbit")) else { return };
    // Some 1.7 seconds of the line.
    let last = (line << 20) / 5 - 1;
    let spec = format!(
        "id flood\nwriter 10.200.0.1:7000 pattern:5 0 0-{last}\n\
         reader 10.200.0.2:7000 null: 0 0-{last}\n"
    );
    let rate = || {
        let output = lab.run(&spec);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        json(&output)["gbit_per_s"].as_f64().unwrap()
    };
    let alone = rate();
    let receiver = SocketAddr::from((netlab::address(2, 0), 7000));
    let flood = lab.network.inside(3, || Flood::start(vec![receiver], 600)).unwrap();
    wait_for("a flood", || flood.opened() > 600);
    let mut fastest: f64 = 0.0;
    while flood.opened() < 10_000 {
        fastest = fastest.max(rate());
    }
    println!("{fastest} Gbit/s with a flood, {alone} without, on a line of {line} Mbit/s");
    assert!(fastest >= 0.95 * alone, "{fastest} Gbit/s with a flood, {alone} without");
}

//! The path of a lab: its delay, rate and losses are felt by sockets of the two nodes. Skipped,
//! with a word on it, where namespaces or TUN devices are not permitted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use netlab::{LabScript, NetworkLab, PathCounts, PathRelay, PathShape, address};

const SHAPE: PathShape = PathShape {
    rate_mbit: 200,
    round_trip: Duration::from_millis(40),
    loss_per_million: 0,
    seed: 1,
};
/// Packets that are sent to be lost.
const PACKETS: u32 = 2000;
/// Packets that may be on the way: a socket keeps some hundreds that nobody reads.
const ON_THE_WAY: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(20);

/// Creates a lab with a path; `None` where that is not permitted.
fn path(shape: PathShape) -> Option<(PathRelay, NetworkLab)> {
    let script = LabScript::of_repository();
    let no_tun = || (!Path::new("/dev/net/tun").exists()).then(|| "no /dev/net/tun".to_owned());
    if let Some(obstacle) = script.obstacle().unwrap().or_else(no_tun) {
        eprintln!("skipped: {obstacle}");
        return None;
    }
    let lab = script.up("p", &["--nodes", "2", "--rate", "1gbit"]).unwrap();
    Some((PathRelay::start(&lab, shape).unwrap(), lab))
}

/// Returns the two ends of a connection from node 1 to node 2.
fn connection(lab: &NetworkLab) -> (TcpStream, TcpStream) {
    let listener = lab.inside(2, || TcpListener::bind((address(2, 0), 0)).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stream = lab.inside(1, || TcpStream::connect_timeout(&address, PATIENCE).unwrap()).unwrap();
    (stream, listener.accept().unwrap().0)
}

#[test]
fn a_connection_takes_a_round_trip_and_bytes_take_their_time() {
    let Some((relay, lab)) = path(SHAPE) else { return };
    let before = Instant::now();
    let (mut from, mut to) = connection(&lab);
    assert!(before.elapsed() >= SHAPE.round_trip, "{:?}", before.elapsed());
    // The link is the limit, whatever the kernels buffer: 4 MB at 200 Mbit/s.
    let bytes = vec![7; 4_000_000];
    let before = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&bytes).unwrap());
        let mut arrived = vec![0; bytes.len()];
        to.set_read_timeout(Some(PATIENCE)).unwrap();
        to.read_exact(&mut arrived).unwrap();
        assert!(arrived == bytes);
    });
    assert!(before.elapsed() >= Duration::from_millis(160), "{:?}", before.elapsed());
    let [there, back] = relay.counts();
    assert!(there.packets > 2700 && there.lost == 0, "{there:?}");
    assert!(back.packets > 0 && back.lost == 0 && back.dropped == 0, "{back:?}");
}

#[test]
fn packets_are_lost_as_often_as_was_asked() {
    let Some((relay, lab)) = path(PathShape { loss_per_million: 100_000, ..SHAPE }) else {
        return;
    };
    let socket = |node: u32| lab.inside(node, || UdpSocket::bind((address(node, 0), 0)).unwrap());
    let (from, to) = (socket(1).unwrap(), socket(2).unwrap());
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    let peer = to.local_addr().unwrap();
    let arrived = AtomicU32::new(0);
    let seen = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut number = [0; 4];
            let mut arrive = || {
                let number = to.recv(&mut number).map(|_| u32::from_be_bytes(number)).unwrap();
                arrived.fetch_add(1, Ordering::Relaxed);
                number
            };
            std::iter::repeat_with(&mut arrive).take_while(|number| *number < PACKETS).count()
        });
        for number in 0..PACKETS {
            from.send_to(&number.to_be_bytes(), peer).unwrap();
            // None finds a full queue here, or a full socket there.
            let waits = || {
                let PathCounts { packets, lost, .. } = relay.counts()[0];
                let through = lost + u64::from(arrived.load(Ordering::Relaxed));
                packets < u64::from(number) || through + ON_THE_WAY < u64::from(number)
            };
            while waits() {
                std::thread::yield_now();
            }
        }
        while !receiver.is_finished() {
            from.send_to(&PACKETS.to_be_bytes(), peer).unwrap();
            std::thread::sleep(SHAPE.round_trip);
        }
        receiver.join().unwrap()
    });
    let counts = relay.counts()[0];
    assert!((1750..1850).contains(&seen), "{seen} of {PACKETS}: {counts:?}");
    assert!((150..260).contains(&counts.lost) && counts.dropped == 0, "{counts:?}");
}

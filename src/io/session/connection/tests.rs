//! Connections over real sockets on loopback: peers with the key, peers without it, and networks
//! that deliver one byte at a time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::core::wire::version::{PREAMBLE_BYTES, PreambleReply, VERSIONS};
use crate::io::rail::tests::counting::take_largest;
use crate::io::session::connection::*;
use crate::io::session::noise::HelloReply;
use crate::io::session::{Key, KeyPair, dial};

const DATA: ConnectionHello = ConnectionHello { kind: ConnectionKind::Data, key_id: [7; 16] };
const CONTROL: ConnectionHello = ConnectionHello { kind: ConnectionKind::Control, key_id: [0; 16] };

/// Hello for a node without a key.
const KEYLESS: ConnectionHello = ConnectionHello { kind: ConnectionKind::Control, key_id: [9; 16] };

/// Time without an event after which a test counts as hung. No test needs it to pass.
const HUNG: Duration = Duration::from_secs(20);

fn key() -> Key {
    Key::from_bytes([1; 32])
}

fn door(hello: &ConnectionHello) -> Option<HelloReply> {
    if *hello == KEYLESS {
        return Some(HelloReply { keys: vec![Key::open()], payload: Vec::new() });
    }
    (*hello == DATA || *hello == CONTROL)
        .then(|| HelloReply { keys: vec![key()], payload: b"advert".to_vec() })
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn soon() -> Instant {
    Instant::now() + HUNG
}

fn dialled(address: SocketAddr, hello: ConnectionHello, with: &Key) -> Connection {
    Connection::initiate(dial(address, None).unwrap(), hello, with, b"hello", soon()).unwrap()
}

fn accepted(stream: StdTcpStream) -> Connection {
    stream.set_nonblocking(true).unwrap();
    Connection::accept(TcpStream::from_std(stream), soon()).unwrap()
}

/// A loop on the events of one connection.
struct Driver {
    poll: Poll,
    connection: Connection,
}

impl Driver {
    fn new(mut connection: Connection) -> Driver {
        let poll = Poll::new().unwrap();
        connection.register(poll.registry(), Token(0)).unwrap();
        Driver { poll, connection }
    }

    /// Continues until `done` returns true or the connection fails.
    fn until(&mut self, mut done: impl FnMut(&mut Connection) -> Result<bool>) -> Result<()> {
        let mut events = Events::with_capacity(4);
        loop {
            self.connection.ready(&door)?;
            if done(&mut self.connection)? {
                return Ok(());
            }
            self.poll.poll(&mut events, Some(HUNG)).unwrap();
            assert!(!events.is_empty(), "nothing happens any more");
        }
    }

    fn up(&mut self) -> Result<()> {
        self.until(|connection| Ok(connection.is_up()))
    }

    /// Returns the next message, or `None` at the end.
    fn message(&mut self) -> Result<Option<Vec<u8>>> {
        let mut arrived = IncomingData::Pending;
        self.until(|connection| {
            arrived = connection.receive()?;
            Ok(arrived != IncomingData::Pending)
        })?;
        match arrived {
            IncomingData::Message(message) => Ok(Some(message)),
            _ => Ok(None),
        }
    }

    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.connection.send(message)?;
        self.until(|connection| Ok(connection.is_drained()))
    }

    fn into_stream(self) -> (StdTcpStream, Vec<u8>) {
        let flow = self.connection.into_stream(self.poll.registry()).unwrap();
        assert!(flow.is_inside, "both ends are at loopback");
        (flow.socket, flow.payload)
    }
}

/// Starts a node that returns each message until the other side closes. Joining returns how that
/// ended.
fn echo(listener: TcpListener) -> thread::JoinHandle<Result<()>> {
    thread::spawn(move || {
        let mut driver = Driver::new(accepted(listener.accept().unwrap().0));
        driver.up()?;
        while let Some(message) = driver.message()? {
            driver.send(&message)?;
        }
        Ok(())
    })
}

/// Copies from one socket to the other one byte at a time, each in a packet of its own as far as
/// possible.
fn trickle(mut from: StdTcpStream, mut to: StdTcpStream) {
    to.set_nodelay(true).unwrap();
    let mut byte = [0];
    while from.read(&mut byte).is_ok_and(|read| read == 1) && to.write_all(&byte).is_ok() {}
    let _ = to.shutdown(Shutdown::Write);
}

/// Returns an address that forwards everything to `address` byte by byte, in both directions.
fn trickling(address: SocketAddr) -> SocketAddr {
    let (listener, front) = listener();
    thread::spawn(move || {
        let near = listener.accept().unwrap().0;
        let far = StdTcpStream::connect(address).unwrap();
        let (near_again, far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let back = thread::spawn(move || trickle(far_again, near_again));
        trickle(near, far);
        back.join().unwrap();
    });
    front
}

#[test]
fn messages_of_many_sizes_go_there_and_back() {
    let (listener, address) = listener();
    let node = echo(listener);
    let mut master = Driver::new(dialled(address, CONTROL, &key()));
    assert_eq!(master.connection.deadline().map(|_| master.connection.is_up()), Some(false));
    master.up().unwrap();
    assert_eq!(master.connection.take_payload(), b"advert");
    assert_eq!((master.connection.hello(), master.connection.deadline()), (Some(CONTROL), None));
    for size in [0, 1, 1000, 70_000, MESSAGE_BYTES_MAX] {
        let message = vec![size as u8; size];
        master.connection.send(&message).unwrap();
        assert!(master.message().unwrap() == Some(message), "{size} bytes");
    }
    master.connection.close().unwrap();
    node.join().unwrap().unwrap();
    assert_eq!(master.message().unwrap(), None);
}

#[test]
fn a_network_of_single_bytes_is_good_enough() {
    let (listener, address) = listener();
    let node = echo(listener);
    let mut master = Driver::new(dialled(trickling(address), CONTROL, &key()));
    master.up().unwrap();
    for message in [&b"one"[..], b"", &[3; 2000]] {
        master.connection.send(message).unwrap();
        assert_eq!(master.message().unwrap().as_deref(), Some(message));
    }
    master.connection.close().unwrap();
    node.join().unwrap().unwrap();
}

/// The last message of the handshake and the first frames come in one packet, and the frames remain
/// in the socket.
#[test]
fn a_flow_is_handed_over_with_nothing_read_behind_the_handshake() {
    let (node_listener, address) = listener();
    let (front_listener, front) = listener();
    let node = thread::spawn(move || {
        let mut driver = Driver::new(accepted(node_listener.accept().unwrap().0));
        driver.up().unwrap();
        let (mut stream, hello) = driver.into_stream();
        assert!(stream.nodelay().unwrap(), "each message leaves at once, after the hand-over too");
        let mut frames = [0; 6];
        stream.read_exact(&mut frames).unwrap();
        stream.write_all(b"answer").unwrap();
        (hello, frames)
    });
    let between = thread::spawn(move || {
        let (mut near, mut far) =
            (front_listener.accept().unwrap().0, StdTcpStream::connect(address).unwrap());
        let mut first = [0; PREAMBLE_BYTES + 48 + 5];
        near.read_exact(&mut first).unwrap();
        far.write_all(&first).unwrap();
        let mut reply = [0; 16 + 48 + 2 + 6];
        far.read_exact(&mut reply).unwrap();
        near.write_all(&reply).unwrap();
        let mut last = [0; 16 + 6];
        near.read_exact(&mut last).unwrap();
        far.write_all(&last).unwrap();
        io::copy(&mut far, &mut near).unwrap();
    });
    let mut flow = Driver::new(dialled(front, DATA, &key()));
    flow.up().unwrap();
    let (mut stream, advert) = flow.into_stream();
    assert!(stream.nodelay().unwrap());
    assert!(stream.nodelay().unwrap());
    stream.write_all(b"frames").unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!((&answer, advert.as_slice()), (b"answer", &b"advert"[..]));
    assert_eq!(node.join().unwrap(), (b"hello".to_vec(), *b"frames"));
    between.join().unwrap();
}

#[test]
fn the_wrong_key_and_unknown_transfers_are_refused_on_both_sides() {
    let stranger = ConnectionHello { kind: ConnectionKind::Data, key_id: [8; 16] };
    for (hello, with) in [(CONTROL, Key::open()), (DATA, Key::open()), (stranger, key())] {
        let (listener, address) = listener();
        let node = echo(listener);
        let mut master = Driver::new(dialled(address, hello, &with));
        assert_eq!(master.up().unwrap_err().code, Code::Refused);
        assert_eq!(node.join().unwrap().unwrap_err().code, Code::Refused);
    }
}

/// Changes the owner of this thread's future sockets to another user. Returns false if that is not
/// permitted.
fn become_another_user() -> bool {
    let other = nix::unistd::Uid::from_raw(65534);
    nix::unistd::setfsuid(other);
    // Fails for a test that already runs as that user.
    nix::unistd::setfsuid(other) == other && nix::unistd::geteuid() != other
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn without_a_key_neither_side_trusts_another_users_process() {
    if !thread::spawn(become_another_user).join().unwrap() {
        return eprintln!("skipped: no right to own sockets as another user");
    }
    for (node_is_other, master_is_other) in [(false, false), (true, false), (false, true)] {
        let (listener, address) = listener();
        let node = thread::spawn(move || {
            assert!(!node_is_other || become_another_user());
            let mut driver = Driver::new(accepted(listener.accept().unwrap().0));
            driver.up()?;
            // A master sends nothing to a refused peer.
            driver.message().map(|message| assert!(!node_is_other || message.is_none()))
        });
        let master = thread::spawn(move || {
            assert!(!master_is_other || become_another_user());
            let mut driver = Driver::new(dialled(address, KEYLESS, &Key::open()));
            driver.up()?;
            driver.send(b"secret")
        });
        let (master, node) = (master.join().unwrap(), node.join().unwrap());
        if node_is_other || master_is_other {
            assert_eq!(master.unwrap_err().code, Code::Refused);
            assert!(node_is_other || node.is_err_and(|error| error.code == Code::Refused));
        } else {
            master.unwrap();
            node.unwrap();
        }
    }
}

#[test]
fn a_visitor_who_speaks_garbage_or_leaves_early_is_an_error() {
    let recorded = NoiseHandshake::initiate(CONTROL, &DialKey::from(&key()), b"hello").unwrap().1;
    let endless = [&recorded[..], &vec![0; 100_000]].concat();
    let prefixes = [0, 1, PREAMBLE_BYTES, PREAMBLE_BYTES + 5, recorded.len()]
        .map(|length| recorded[..length].to_vec());
    let visits = prefixes.into_iter().chain([
        b"GET / HTTP/1.1\r\n\r\n".repeat(9),
        vec![0xff; 5000],
        endless,
    ]);
    for said in visits {
        let (listener, address) = listener();
        let node = echo(listener);
        let mut visitor = StdTcpStream::connect(address).unwrap();
        // The node may reset the connection before all bytes are sent.
        let _ = visitor.write_all(&said);
        drop(visitor);
        let error = node.join().unwrap().unwrap_err();
        assert!(matches!(error.code, Code::Unreachable | Code::Refused), "{error}");
    }
}

/// What bounds it: a preamble names at most 1120 bytes, a reply at most 65,535.
#[test]
fn nobody_has_more_than_64_kib_allocated_at_once_before_a_key_is_proved() {
    let own = KeyPair::generate().unwrap();
    let pair = DialKey::Pair(std::sync::Arc::new(own), PublicKey([5; 32]));
    let mut visits = vec![vec![0xff; 100_000]];
    for key in [DialKey::from(&key()), DialKey::from(&Key::open()), pair] {
        let recorded = NoiseHandshake::initiate(CONTROL, &key, &[1; 1024]).unwrap().1;
        visits.push([&recorded[..], &[0; 100_000]].concat());
        // A length that is none of ours.
        let mut longer = recorded;
        longer[12..14].copy_from_slice(&[0xff; 2]);
        visits.push([&longer[..], &[0; 100_000]].concat());
    }
    for said in visits {
        let (listener, address) = listener();
        let visitor = thread::spawn(move || {
            let mut visitor = StdTcpStream::connect(address).unwrap();
            let _ = visitor.write_all(&said);
        });
        let accepted = accepted(listener.accept().unwrap().0);
        let mut node = Driver::new(accepted);
        take_largest();
        let error = node.up().unwrap_err();
        let largest = take_largest();
        assert!(largest > 0 && largest <= 64 << 10, "{largest} bytes: {error}");
        drop(node);
        visitor.join().unwrap();
    }
    // One who listens at the address of a node.
    let (listener, address) = listener();
    let impostor = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let (version, handshake_bytes) = (VERSIONS.max, u16::MAX);
        let reply = PreambleReply::Accepted { version, handshake_bytes };
        let _ = stream.write_all(&[&reply.encode()[..], &[0; 100_000]].concat());
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut master = Driver::new(dialled(address, CONTROL, &key()));
    take_largest();
    let error = master.up().unwrap_err();
    let largest = take_largest();
    assert!((60_000..=64 << 10).contains(&largest), "{largest} bytes: {error}");
    drop(master);
    impostor.join().unwrap();
}

#[test]
fn a_port_of_somebody_else_is_an_error() {
    for said in [
        &b""[..],
        b"220 ready\r\n",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        &[0; 3000],
    ] {
        let (listener, address) = listener();
        let stranger = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut first = [0; PREAMBLE_BYTES + 48 + 5];
            stream.read_exact(&mut first).unwrap();
            let _ = stream.write_all(said);
        });
        let mut master = Driver::new(dialled(address, CONTROL, &key()));
        let error = master.up().unwrap_err();
        assert_eq!(error.code, Code::Unreachable, "{error}");
        stranger.join().unwrap();
    }
}

#[test]
fn nobody_at_the_port_is_an_error() {
    let (listener, address) = listener();
    drop(listener);
    let mut master = Driver::new(dialled(address, CONTROL, &key()));
    let error = master.up().unwrap_err();
    assert_eq!(error.code, Code::Unreachable);
    assert!(error.message.contains("refused") && error.remedy.is_some(), "{error}");
}

#[test]
fn a_silent_peer_leaves_the_deadline_to_the_caller() {
    let (listener, address) = listener();
    let deadline = soon();
    let stream = dial(address, None).unwrap();
    let silent = listener.accept().unwrap().0;
    let mut master =
        Driver::new(Connection::initiate(stream, CONTROL, &key(), b"", deadline).unwrap());
    master.until(|connection| Ok(connection.is_drained())).unwrap();
    assert_eq!(master.connection.deadline(), Some(deadline));
    assert!(!master.connection.is_up());
    assert_eq!(master.connection.overdue().code, Code::Unreachable);
    assert!(master.connection.overdue().message.contains("handshake"));
    drop(silent);
    assert_eq!(master.up().unwrap_err().code, Code::Unreachable);
}

#[test]
fn a_peer_that_never_reads_is_given_up() {
    let (listener, address) = listener();
    let (pause, paused) = std::sync::mpsc::channel::<()>();
    let node = thread::spawn(move || {
        let mut driver = Driver::new(accepted(listener.accept().unwrap().0));
        driver.up().unwrap();
        let _ = paused.recv();
    });
    let mut master = Driver::new(dialled(address, CONTROL, &key()));
    master.up().unwrap();
    let message = vec![0; MESSAGE_BYTES_MAX / 4];
    let error = (0..100).find_map(|_| master.connection.send(&message).err()).unwrap();
    assert!(error.message.contains("does not read"), "{error}");
    drop(pause);
    node.join().unwrap();
}

/// Each half-close is an event, and each event had the connection half-closed again: a whole
/// processor until the peer closed its end.
#[test]
fn a_closed_connection_waits_for_its_peer_without_an_event() {
    let (listener, address) = listener();
    let node = thread::spawn(move || Driver::new(accepted(listener.accept().unwrap().0)));
    let mut master = Driver::new(dialled(address, CONTROL, &key()));
    let mut node = node.join().unwrap();
    let up = thread::spawn(move || {
        node.up().unwrap();
        node
    });
    master.up().unwrap();
    let _open = up.join().unwrap();
    master.connection.close().unwrap();
    let (mut events, mut turns) = (Events::with_capacity(4), 0);
    loop {
        master.connection.ready(&door).unwrap();
        assert_eq!(master.connection.receive().unwrap(), IncomingData::Pending);
        master.poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
        if events.is_empty() {
            break;
        }
        turns += 1;
        assert!(turns < 10, "it is woken again and again");
    }
}

#[test]
fn a_message_cut_short_is_an_error() {
    let (listener, address) = listener();
    let (front_listener, front) = self::listener();
    let node = echo(listener);
    let between = thread::spawn(move || {
        let (mut near, mut far) =
            (front_listener.accept().unwrap().0, StdTcpStream::connect(address).unwrap());
        let (mut near_again, mut far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let back = thread::spawn(move || io::copy(&mut far_again, &mut near_again));
        // The hello, then the confirmation with half of the message.
        for length in [PREAMBLE_BYTES + 48 + 5, 16 + 50] {
            let mut passed = vec![0; length];
            near.read_exact(&mut passed).unwrap();
            far.write_all(&passed).unwrap();
        }
        far.shutdown(Shutdown::Write).unwrap();
        back.join().unwrap()
    });
    let mut master = Driver::new(dialled(front, CONTROL, &key()));
    master.up().unwrap();
    master.send(&[0; 100]).unwrap();
    let error = node.join().unwrap().unwrap_err();
    assert!(error.message.contains("within a message"), "{error}");
    between.join().unwrap().unwrap();
}

#[test]
fn a_flow_leaves_from_the_address_of_its_rail() {
    let (listener, address) = listener();
    let rail = IpAddr::from([127, 0, 0, 77]);
    let stream = dial(address, Some(rail)).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), rail);
    drop(stream);
    let elsewhere = dial(address, Some(IpAddr::from([192, 0, 2, 1]))).unwrap_err();
    assert_eq!(elsewhere.code, Code::Unreachable);
    assert!(elsewhere.message.contains("192.0.2.1"), "{elsewhere}");
}

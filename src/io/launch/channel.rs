//! Channels: where no connection of the network is let through, a further session of the starter
//! carries one connection between this machine and a node on another host.
//!
//! Each host has a listener here, at a loopback address. Whoever connects to it, the master or a
//! node of this machine, is connected to the node on that host: a session runs the program there,
//! which dials the node. What goes through is protected end to end as it is everywhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use super::channel_end::{CHUNK_BYTES, pass_on};
use super::child;
use super::config::LAUNCHED;
use super::lifeline::TimedInput;
use crate::core::launch::host_script::{HostLine, LINE_BYTES_MAX};
use crate::core::launch::orders::NodeOrders;
use crate::core::units::{BitRate, human_bytes};
use crate::core::wire::version::{ConnectionKind, PREAMBLE_BYTES, Preamble};
use crate::io::clock::awake;
use crate::io::log;
use crate::io::session::is_of_this_user;

/// Connections of one host at once, with those that log in: an sshd begins to refuse at ten.
const CONNECTIONS_MAX: usize = 8;
/// Time for whoever connects to say what for.
const FIRST_WITHIN: Duration = Duration::from_secs(2);
/// Time for a session to log in, and to dial the node.
const LEADS_WITHIN: Duration = Duration::from_secs(9);
/// Time in which a node may still answer its master over the network, before a session is opened.
const CONTROL_AFTER: Duration = Duration::from_millis(750);
/// Bytes of one connection above which it is no handshake that another way was faster than.
const HANDSHAKE_BYTES_MAX: u64 = 64 << 10;

/// A host with a node that a channel may lead to.
pub(super) struct ChannelHost {
    pub(super) name: String,
    /// The words that start the host script there.
    pub(super) words: Vec<String>,
    /// The node's own address there.
    pub(super) node: SocketAddr,
}

/// The channels to the hosts of a launch. They end on drop.
pub(super) struct HostChannels {
    addresses: Vec<SocketAddr>,
    shared: Arc<ChannelSharing>,
    waker: Arc<Waker>,
}

/// What the threads of channels share.
struct ChannelSharing {
    hosts: Vec<ChannelHost>,
    traffic: Vec<Mutex<ChannelTraffic>>,
    is_over: AtomicBool,
    sessions: Mutex<BTreeMap<u64, Child>>,
}

/// What has gone through the channels of one host.
#[derive(Default)]
struct ChannelTraffic {
    connections: usize,
    data_bytes: u64,
    began: Option<Instant>,
    last: Option<Instant>,
}

impl HostChannels {
    /// Listens for each host.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn start(hosts: Vec<ChannelHost>) -> io::Result<HostChannels> {
        let poll = Poll::new()?;
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for at in 0..hosts.len() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            addresses.push(listener.local_addr()?);
            listener.set_nonblocking(true)?;
            let mut listener = mio::net::TcpListener::from_std(listener);
            poll.registry().register(&mut listener, Token(at), Interest::READABLE)?;
            listeners.push(listener);
        }
        let waker = Arc::new(Waker::new(poll.registry(), Token(hosts.len()))?);
        let traffic = hosts.iter().map(|_| Mutex::default()).collect();
        let (is_over, sessions) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(ChannelSharing { hosts, traffic, is_over, sessions });
        let accepting = Arc::clone(&shared);
        let accept = move || accept(poll, &listeners, &accepting);
        thread::Builder::new().name("channels".into()).spawn(accept)?;
        Ok(HostChannels { addresses, shared, waker })
    }

    /// Returns the addresses here that lead to the hosts.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns what is to be said of hosts whose data went through a channel.
    pub(super) fn warnings(&self) -> Vec<String> {
        let hosts = self.shared.hosts.iter().zip(&self.shared.traffic);
        let warning = |(host, traffic): (&ChannelHost, &Mutex<ChannelTraffic>)| {
            let traffic = locked(traffic);
            let (began, last) = traffic.began.zip(traffic.last)?;
            let bytes = traffic.data_bytes;
            let seconds = (last - began).as_secs_f64().max(1e-3);
            let rate = BitRate((bytes as f64 * 8.0 / seconds) as u64);
            Some(format!(
                "{}: {} of data went through {} at {rate}, because neither side can dial the \
                 other: let connections to one port of either through (--ports)",
                host.name,
                human_bytes(bytes),
                host.starter()
            ))
        };
        hosts.filter_map(warning).collect()
    }
}

impl Drop for HostChannels {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // Only a thread that has ended cannot be woken.
        let _ = self.waker.wake();
        let mut sessions: Vec<Child> =
            std::mem::take(&mut *locked(&self.shared.sessions)).into_values().collect();
        child::ask_to_end(&mut sessions);
        child::end(&mut sessions, awake() + child::END_WITHIN);
    }
}

impl ChannelHost {
    fn starter(&self) -> &str {
        self.words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in connections until the channels end.
fn accept(mut poll: Poll, listeners: &[mio::net::TcpListener], shared: &Arc<ChannelSharing>) {
    let mut events = Events::with_capacity(64);
    let mut count = 0;
    while !shared.is_over.load(Ordering::Acquire) {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return log::say(&format!("channels to other hosts end: {error}"));
        }
        for Token(at) in events.iter().map(mio::event::Event::token) {
            let Some(listener) = listeners.get(at) else { continue };
            while let Ok((stream, _)) = listener.accept() {
                count += 1;
                let (shared, id) = (Arc::clone(shared), count);
                let name = format!("channel {count}");
                // One that has no thread is closed: its dialler tries other ways.
                let _ = thread::Builder::new().name(name).spawn(move || {
                    let stream = TcpStream::from(stream);
                    if let Err(error) = shared.carry(at, id, &stream) {
                        let host = &shared.hosts[at].name;
                        tracing::info!("{host}: no connection through its session: {error}");
                    }
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        }
    }
}

impl ChannelSharing {
    /// Carries one connection to a host, from its first byte to its end.
    fn carry(&self, at: usize, id: u64, stream: &TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        if !is_of_this_user(stream) {
            return Err(io::Error::other("somebody else's process"));
        }
        let Some(first) = first_message(stream)? else { return Ok(()) };
        {
            let mut traffic = locked(&self.traffic[at]);
            if traffic.connections >= CONNECTIONS_MAX {
                return Err(io::Error::other("it carries as many connections as it may"));
            }
            traffic.connections += 1;
        }
        let carried = self.carry_through(at, id, stream, first);
        locked(&self.traffic[at]).connections -= 1;
        // Whatever still runs here is of no use any more.
        if let Some(child) = locked(&self.sessions).remove(&id) {
            let mut children = [child];
            child::ask_to_end(&mut children);
            child::end(&mut children, awake() + child::END_WITHIN);
        }
        carried
    }

    fn carry_through(
        &self,
        at: usize,
        id: u64,
        stream: &TcpStream,
        (kind, message): (ConnectionKind, Vec<u8>),
    ) -> io::Result<()> {
        let host = &self.hosts[at];
        let mut child = Command::new(&host.words[0])
            .args(&host.words[1..])
            .env_remove(LAUNCHED)
            // A Ctrl-C is for the master, which then lets the nodes clean up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let streams = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((mut stdin, stdout), stderr) = streams.expect("they are pipes");
        locked(&self.sessions).insert(id, child);
        if self.is_over.load(Ordering::Acquire) {
            return Ok(());
        }
        let name = host.name.clone();
        let words = move || {
            for line in BufReader::new(stderr.take(LINE_BYTES_MAX as u64 * 16)).lines() {
                let Ok(line) = line else { return };
                tracing::debug!("{name}: {line:?}");
            }
        };
        thread::Builder::new().name("channel's words".into()).spawn(words)?;
        let stdout = TimedInput::of(File::from(OwnedFd::from(stdout)), LEADS_WITHIN);
        let mut stdout = BufReader::with_capacity(CHUNK_BYTES, stdout);
        dial(host.node, &mut stdin, &mut stdout)?;
        stdout.get_mut().wait_on();
        let is_data = kind == ConnectionKind::Data;
        stdin.write_all(&message)?;
        thread::scope(|scope| {
            let up = thread::Builder::new().spawn_scoped(scope, || {
                let mut sent = 0;
                pass_on(stream, stdin, |part| {
                    sent += part.len() as u64;
                    self.count(at, is_data && sent > HANDSHAKE_BYTES_MAX, part.len());
                });
                // Its end is the session's.
            });
            let mut received = 0;
            pass_on(stdout, stream, |part| {
                received += part.len() as u64;
                self.count(at, is_data && received > HANDSHAKE_BYTES_MAX, part.len());
            });
            let _ = stream.shutdown(Shutdown::Both);
            up.map(drop)
        })
    }

    /// Counts a part of a connection, if it counts. The first one is told.
    fn count(&self, at: usize, counts: bool, bytes: usize) {
        if !counts {
            return;
        }
        let (now, mut traffic) = (awake(), locked(&self.traffic[at]));
        traffic.data_bytes += bytes as u64;
        traffic.last = Some(now);
        if traffic.began.is_none() {
            traffic.began = Some(now);
            drop(traffic);
            let host = &self.hosts[at];
            log::say(&format!(
                "{}: neither side can dial the other, so that data goes through {}, which is \
                 slower: let connections to one port of either through (--ports)",
                host.name,
                host.starter()
            ));
        }
    }
}

/// Reads the first message of a connection with its kind, and waits until it is clear that the
/// channel is needed; `None` if it is not.
fn first_message(mut stream: &TcpStream) -> io::Result<Option<(ConnectionKind, Vec<u8>)>> {
    let mut message = vec![0; PREAMBLE_BYTES];
    stream.set_read_timeout(Some(FIRST_WITHIN))?;
    stream.read_exact(&mut message)?;
    let Preamble { kind, handshake_bytes, .. } =
        Preamble::decode(&message).map_err(io::Error::other)?;
    message.resize(PREAMBLE_BYTES + usize::from(handshake_bytes), 0);
    stream.read_exact(&mut message[PREAMBLE_BYTES..])?;
    if kind == ConnectionKind::Control {
        // Nothing more is said before the answer: what comes is the end.
        stream.set_read_timeout(Some(CONTROL_AFTER))?;
        if stream.peek(&mut [0]).is_ok() {
            return Ok(None);
        }
    }
    stream.set_read_timeout(None)?;
    Ok(Some((kind, message)))
}

/// Has the program on the host dial the node.
fn dial(node: SocketAddr, stdin: &mut impl Write, stdout: &mut impl BufRead) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        stdout.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::Error::other("the session ended before it led anywhere"));
        }
        match HostLine::parse(String::from_utf8_lossy(&line).trim_end()) {
            Some(HostLine::Runs { .. }) => {
                let orders = NodeOrders { dial: Some(node), ..NodeOrders::default() };
                stdin.write_all(orders.line().as_bytes())?;
            }
            Some(HostLine::Dialled) => return Ok(()),
            Some(HostLine::Needs { .. } | HostLine::Stored) => {
                return Err(io::Error::other("the program is not there any more"));
            }
            // A banner may say anything.
            None => {}
        }
    }
}

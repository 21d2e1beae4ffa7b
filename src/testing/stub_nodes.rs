//! Nodes that say what nodes say and move nothing: with them one process can be ten thousand nodes,
//! and a master can be measured. For `cep-bench` alone; everything here is behind the feature
//! `stand-ins`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{Backlog, listen};

use crate::core::check::replica_hash::value_count;
use crate::core::error::{Code, Error, Result};
use crate::core::spec::RowRole;
use crate::core::units::BitRate;
use crate::core::wire::Check;
use crate::core::wire::control;
use crate::core::wire::control::{
    CheckValue, LandedSegment, NodeAdvert, NodeStats, Prepared, RailAdvert, RailStats, RowState,
    SegmentChecks, Start, ToMaster, ToNode,
};
use crate::io::master::file_limit;
use crate::io::session;
use crate::io::session::{
    Connection, ConnectionHello, HelloReply, IncomingData, Key, sealed_bytes,
};

/// The kernel's limit is usually this.
const BACKLOG: i32 = 4096;

/// Milestones of a master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MasterMilestone {
    /// It dialled the first node.
    FirstCall,
    /// All sessions stand.
    AllMet,
    /// Every node was told to prepare. None has answered yet; they do when the call with this
    /// returns.
    AllAsked,
    /// A first receiver has its part of the plan.
    FirstStart,
    /// A first receiver has a byte from a sender.
    FirstByte,
    /// Every receiver has its part of the plan.
    LastStart,
    /// A first node has heard of the end.
    FirstFinish,
    /// The last session is closed.
    AllClosed,
}

/// Tally of messages. Bytes are those of whole messages on the wire, sealed; the handshake is not
/// among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageTally {
    /// Nodes that receive.
    pub receivers: u64,
    /// Messages, of both sides.
    pub messages: u64,
    /// Bytes, of both sides.
    pub bytes: u64,
    /// Bytes of plans among them.
    pub start_bytes: u64,
    /// Senders of segments in all plans: their entries.
    pub entries: u64,
    /// Messages of the node that has most.
    pub messages_max: u64,
    /// Bytes of the node that has most.
    pub bytes_max: u64,
}

/// Bytes of memory that the crate lays out for each node of a transfer before its session stands,
/// and what of them is the connection.
#[must_use]
pub fn laid_out_bytes() -> (usize, usize) {
    crate::io::master::laid_out_bytes()
}

/// Raises this process's limit of open files to hold so many sockets.
///
/// # Errors
/// `Code::Internal` where it may not.
pub fn make_room(sockets: usize) -> Result<()> {
    file_limit::make(sockets, 1)
}

/// The ciphers of so many sessions at rest, for weighing them.
///
/// # Errors
/// `Code::Internal` if the system gives no randomness.
pub fn ciphers(count: usize) -> Result<impl Sized> {
    let key = Key::open();
    (0..count).map(|_| session::at_rest(&key)).collect::<Result<Vec<_>>>()
}

/// Stands in for `count` nodes, all at one port of different loopback addresses, until their master
/// has closed every session.
///
/// # Errors
/// What breaks a session, `Code::Stalled` after `within`, and what the system refuses.
pub fn serve(
    listener: StdListener,
    count: usize,
    within: Duration,
    watch: &mut dyn FnMut(MasterMilestone),
) -> Result<MessageTally> {
    file_limit::make(count, 1)?;
    let rails = StdListener::bind(("0.0.0.0", 0)).map_err(failed)?;
    let rail_port = rails.local_addr().map_err(failed)?.port();
    std::thread::spawn(move || rails.incoming().flatten().try_for_each(give_a_byte));
    listener.set_nonblocking(true).map_err(failed)?;
    // Everybody is dialled at this one socket, whose queue is short unless one asks.
    let backlog = Backlog::new(BACKLOG).map_err(|errno| failed(errno.into()))?;
    listen(&listener, backlog).map_err(|errno| failed(errno.into()))?;
    let mut stub_nodes = StubNodes {
        listener: TcpListener::from_std(listener),
        poll: Poll::new().map_err(failed)?,
        rail_port,
        nodes: Vec::with_capacity(count),
        count,
        met: 0,
        asked: 0,
        started: 0,
        finished: false,
        closed: 0,
        tally: MessageTally::default(),
        watch,
    };
    stub_nodes
        .poll
        .registry()
        .register(&mut stub_nodes.listener, Token(count), Interest::READABLE)
        .map_err(failed)?;
    stub_nodes.run(Instant::now() + within)?;
    (stub_nodes.watch)(MasterMilestone::AllClosed);
    for node in &stub_nodes.nodes {
        stub_nodes.tally.messages_max = stub_nodes.tally.messages_max.max(node.messages);
        stub_nodes.tally.bytes_max = stub_nodes.tally.bytes_max.max(node.bytes);
    }
    Ok(stub_nodes.tally)
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn failed(error: std::io::Error) -> Error {
    Error::new(Code::Internal, format!("cannot stand in for nodes: {error}"))
}

struct StubNodes<'a> {
    listener: TcpListener,
    poll: Poll,
    /// The port at which senders are asked for bytes.
    rail_port: u16,
    nodes: Vec<StubNode>,
    count: usize,
    met: usize,
    asked: usize,
    started: u64,
    finished: bool,
    closed: usize,
    tally: MessageTally,
    watch: &'a mut dyn FnMut(MasterMilestone),
}

struct StubNode {
    connection: Option<Connection>,
    advert: Vec<u8>,
    /// The answer to `Prepare`.
    prepared: Vec<u8>,
    messages: u64,
    bytes: u64,
}

impl StubNodes<'_> {
    /// Answers until the master has closed every session, or `end` has come.
    fn run(&mut self, end: Instant) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        while self.closed < self.count {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = format!("{} of {} nodes have met their master", self.met, self.count);
                return Err(Error::new(Code::Stalled, text));
            }
            match self.poll.poll(&mut events, Some(left)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(failed(error));
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    Token(token) if token == self.count => self.accept()?,
                    Token(at) => self.ready(at)?,
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        while self.nodes.len() < self.count
            && let Ok((stream, _)) = self.listener.accept()
        {
            if self.nodes.is_empty() {
                (self.watch)(MasterMilestone::FirstCall);
            }
            let local = stream
                .local_addr()
                .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
            let advert = control::encode(&advert(SocketAddr::new(local.ip(), self.rail_port)))?;
            let mut connection =
                Connection::accept(stream, Instant::now() + Duration::from_secs(10))?;
            let at = self.nodes.len();
            connection.register(self.poll.registry(), Token(at))?;
            let connection = Some(connection);
            self.nodes.push(StubNode {
                connection,
                advert,
                prepared: Vec::new(),
                messages: 0,
                bytes: 0,
            });
            self.ready(at)?;
        }
        Ok(())
    }

    fn ready(&mut self, at: usize) -> Result<()> {
        let node = &mut self.nodes[at];
        let Some(connection) = &mut node.connection else { return Ok(()) };
        let was_up = connection.is_up();
        let advert = &node.advert;
        connection.ready(&|_: &ConnectionHello| {
            Some(HelloReply { keys: vec![Key::open()], payload: advert.clone() })
        })?;
        if !connection.is_up() {
            return Ok(());
        }
        if !was_up {
            self.met += 1;
            if self.met == self.count {
                (self.watch)(MasterMilestone::AllMet);
            }
        }
        while let Some(connection) = &mut self.nodes[at].connection {
            match connection.receive()? {
                IncomingData::Pending => return Ok(()),
                IncomingData::Message(bytes) => self.hears(at, &bytes)?,
                IncomingData::Closed { .. } => {
                    self.nodes[at].connection = None;
                    self.closed += 1;
                }
            }
        }
        Ok(())
    }

    fn hears(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.count(at, bytes.len());
        match control::decode::<ToNode>(bytes)? {
            ToNode::Prepare(prepare) => {
                self.tally.receivers +=
                    u64::from(prepare.rows.iter().any(|row| row.role == RowRole::Receiver));
                let rows = vec![RowState::default(); prepare.rows.len()];
                let replicas = vec![1; value_count(&prepare.replicas)];
                let prepared =
                    ToMaster::Prepared(Prepared { rows, replicas, ..Prepared::default() });
                self.nodes[at].prepared = control::encode(&prepared)?;
                self.asked += 1;
                if self.asked == self.count {
                    (self.watch)(MasterMilestone::AllAsked);
                    for at in 0..self.count {
                        let prepared = std::mem::take(&mut self.nodes[at].prepared);
                        self.say(at, &prepared)?;
                    }
                }
                Ok(())
            }
            ToNode::Start(start) => self.start(at, &start, bytes.len()),
            ToNode::Finish => {
                if !std::mem::replace(&mut self.finished, true) {
                    (self.watch)(MasterMilestone::FirstFinish);
                }
                self.tell(at, &ToMaster::Report(stats("pattern+send")))
            }
            ToNode::Commit => self.tell(at, &ToMaster::Committed),
            ToNode::Cancel { reason, .. } => Err(Error::new(Code::Cancelled, reason)),
            ToNode::MakeWay { .. } | ToNode::Called { .. } => Ok(()),
            ToNode::Survey(_) => Err(Error::new(Code::Internal, "there are no paths here")),
            ToNode::Resume(_) => Err(Error::new(Code::Internal, "no session broke here")),
        }
    }

    fn start(&mut self, at: usize, start: &Start, bytes: usize) -> Result<()> {
        if self.started == 0 {
            (self.watch)(MasterMilestone::FirstStart);
        }
        take_a_byte(start)?;
        if self.started == 0 {
            (self.watch)(MasterMilestone::FirstByte);
        }
        self.started += 1;
        if self.started == self.tally.receivers {
            (self.watch)(MasterMilestone::LastStart);
        }
        self.tally.start_bytes += sealed_bytes(bytes) as u64;
        self.tally.entries +=
            start.segments.iter().map(|segment| segment.senders.len() as u64).sum::<u64>();
        let landed = start.segments.iter().map(|segment| {
            let checks = vec![CheckValue { span: segment.span, check: Check::Crc64(u64::MAX) }];
            LandedSegment { span: segment.span, checks: SegmentChecks::Listed(checks) }
        });
        self.tell(at, &ToMaster::Landed { segments: landed.collect(), stats: stats("recv") })
    }

    fn tell(&mut self, at: usize, message: &ToMaster) -> Result<()> {
        self.say(at, &control::encode(message)?)
    }

    fn say(&mut self, at: usize, message: &[u8]) -> Result<()> {
        self.count(at, message.len());
        self.nodes[at].connection.as_mut().map_or(Ok(()), |connection| connection.send(message))
    }

    fn count(&mut self, at: usize, message_bytes: usize) {
        let bytes = sealed_bytes(message_bytes) as u64;
        self.tally.messages += 1;
        self.tally.bytes += bytes;
        self.nodes[at].messages += 1;
        self.nodes[at].bytes += bytes;
    }
}

/// One NIC of 10 Gbit/s.
fn advert(address: SocketAddr) -> NodeAdvert {
    let line = Some(BitRate(10_000_000_000));
    let rail = RailAdvert { nic: "eth0".into(), address, line, mtu: Some(1500), numa: Some(0) };
    NodeAdvert {
        software: concat!("cep-fast ", env!("CARGO_PKG_VERSION")).into(),
        rails: vec![rail],
        cores: 64,
        boot_id: "2c6b1a5e-7b39-4c8a-9d67-1f0e5d3c2b1a".into(),
        incarnation: 123_456,
    }
}

/// Statistics of a node in a transfer of some gigabytes.
fn stats(path: &str) -> NodeStats {
    let (sent_bytes, received_bytes) = (3 << 30, 3 << 30);
    let counted = Some((3_300_000_000, 3_300_000_000));
    let rails = vec![RailStats {
        nic: "eth0".into(),
        sent_bytes,
        received_bytes,
        counted,
        faults: 0,
        path: path.into(),
        driver: "io_uring".into(),
        wire: None,
    }];
    NodeStats {
        received_bytes,
        sent_bytes,
        active_ns: 3_000_000_000,
        room_ns: 0,
        commit_ns: 0,
        epoch: 1,
        cpu_ns: 1_000_000_000,
        memory_bytes_max: 24 << 20,
        rails,
        ..NodeStats::default()
    }
}

/// A receiver's first request: to the first sender of its plan.
fn take_a_byte(start: &Start) -> Result<()> {
    let rail = start.peers.first().and_then(|peer| peer.rails.first());
    let rail = rail.ok_or_else(|| Error::new(Code::Internal, "a plan without senders"))?;
    let ask = || -> std::io::Result<()> {
        let mut flow = StdStream::connect(rail)?;
        flow.write_all(&[0; 96])?;
        flow.read_exact(&mut [0])
    };
    ask().map_err(|error| Error::new(Code::Unreachable, format!("{rail}: {error}")))
}

/// A sender's answer to that.
fn give_a_byte(mut flow: StdStream) -> std::io::Result<()> {
    flow.read_exact(&mut [0; 96])?;
    flow.write_all(&[1])
}

//! The node daemon: one control thread that listens, shakes hands and keeps each transfer's member,
//! and one rail or more for each NIC.
//!
//! The loop is thin: sockets become messages and flows here, and everything that decides is in
//! [`crate::core`]. Work that may block (opening, preallocating, syncing, renaming) is done by
//! short-lived worker threads, which answer through the same inbox as the rails.
//!
//! - [`options`]: what the daemon is told on its command line
//! - `keyring`: who may connect, with which key
//! - `node_transfer`: one transfer on this node
//! - `ports`: the NICs and their listeners; `port_rails`: the rails of each
//! - `threads`: how many of them each NIC gets
//! - `devices`: which NIC a flow is bound to
//! - `counters`: what the NICs counted
//! - `rails`: what rails are told and tell
//! - `workers`: threads for what may block
//! - `file_budget`: descriptors for the files of transfers
//! - `prepare`: opening sources and destinations
//! - `claims`: whether rows of other nodes name a file by another URI
//! - `reading`: how far a worker has read before its node is prepared
//! - `replicas`: what is compared of sources that others offer, too
//! - `keeping`: what is kept for another attempt, and found of an earlier one
//! - `events`: the loop's turn
//! - `arrivals`: connections that are taken in
//! - `sessions`: the connections of the control thread
//! - `control`: what the machine wants done, as calls
//! - `inbox`: what rails and workers tell the control thread
//! - `transfer_log`: what the log says of transfers
//! - `usage`: processor time and memory

mod arrivals;
mod claims;
mod control;
mod counters;
mod devices;
mod events;
mod file_budget;
mod flows;
mod inbox;
pub(crate) mod keeping;
mod keyring;
mod node_transfer;
mod openings;
mod port_rails;
mod ports;
pub(crate) mod prepare;
mod rails;
pub(crate) mod reading;
pub(crate) mod replicas;
mod sessions;
mod stuck;
mod threads;
mod transfer_log;
mod usage;
mod verify;
mod workers;

pub(crate) mod options;

pub(crate) use crate::io::store::AllowedKinds;
pub(crate) use control::locked_bytes;
pub(crate) use ports::{INSIDE_PREFIXES, LOOPBACK, is_link_local};
pub(crate) use threads::{NicLine, ThreadCount, threads};

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::{Poll, Token, Waker};

use crate::core::error::{Code, Error, Result};
use crate::core::node::machine::NodeMachine;
use crate::core::node::ready_line;
use crate::core::piece::FlowIx;
use crate::core::piece::TransferIx;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::wire::control::NodeAdvert;
use crate::io::clock::{Clock, awake, wait_until};
use crate::io::node::devices::LocalAddresses;
use crate::io::node::file_budget::FileBudget;
use crate::io::node::inbox::{EventSender, InboxEvent};
use crate::io::node::keyring::Keyring;
use crate::io::node::node_transfer::NodeTransfer;
use crate::io::node::openings::{FlowRoute, KnownDetours};
use crate::io::node::options::NodeOptions;
use crate::io::node::ports::RailPort;
use crate::io::node::sessions::SessionTable;
use crate::io::node::workers::WorkerPool;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::session::descriptors;
use crate::io::session::descriptors::SpareDescriptor;
use crate::io::session::{Connection, Listener, strangers};
use crate::io::store::StoreRoot;

/// Time that a connection may take to be up.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Time that a node that ends waits for workers that are still opening or naming files.
const WIND_DOWN_WITHIN: Duration = Duration::from_secs(5);
/// Notes that wait for the control thread. It never waits for those who write them; rails keep back
/// what does not fit.
const NOTES_MAX: usize = 1024;
/// Connections at once of those who have proved that they hold a key. Strangers have a share of
/// their own beside it.
const CONNECTIONS_MAX: usize = 4096;

const CONTROL: Token = Token(0);
const INBOX: Token = Token(1);
const FIRST_PORT: usize = 16;
const FIRST_SESSION: usize = 128;

/// A running node.
struct Node {
    options: NodeOptions,
    clock: Clock,
    poll: Poll,
    control: Listener,
    /// Ends of flows, one for each thread of each NIC.
    ports: Vec<RailPort>,
    /// The machine's interfaces, as they were when the last transfer began.
    devices: LocalAddresses,
    /// Ways that came up where the usual ones did not.
    detours: KnownDetours,
    keyring: Keyring,
    /// The advert that masters get of this node.
    advert: NodeAdvert,
    /// The instant at which the addresses of the NICs were read last.
    addresses_read: Instant,
    sessions: SessionTable,
    /// The listener that was served last, of those that have somebody waiting.
    next_listener: usize,
    spare: SpareDescriptor,
    next_token: usize,
    transfers: BTreeMap<TransferIx, NodeTransfer>,
    /// Files of transfers that are over, until their masters say good-bye.
    remembered: BTreeMap<TransferIx, Arc<TransferFiles>>,
    /// The machine that decides.
    machine: NodeMachine,
    next_flow: u32,
    post: EventSender,
    inbox: Receiver<InboxEvent>,
    /// Set by the first signal that asks for the end.
    stopped: Arc<AtomicBool>,
    ends: bool,
    workers: WorkerPool,
    file_budget: FileBudget,
}

/// One connection of the control thread, and what it is for.
struct NodeSession {
    connection: Connection,
    role: SessionRole,
}

impl NodeSession {
    /// The address of a stranger whose connection was accepted.
    fn from(&self) -> Option<IpAddr> {
        match self.role {
            SessionRole::Visitor { from, .. } => Some(from),
            SessionRole::Master | SessionRole::Leaving | SessionRole::Flow { .. } => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SessionRole {
    /// Accepted, on a port or (`None`) at the control address; what it is for is known when it is
    /// up.
    Visitor { port: Option<usize>, from: IpAddr },
    /// A master.
    Master,
    /// A master that has closed its session, or said good-bye: it waits until its files are
    /// confirmed.
    Leaving,
    /// A flow that this node opens to a sender, over one of its ports.
    Flow { transfer: TransferIx, rail_pair: RailPair, way: FlowRoute },
}

/// Ends a node in good order, from any thread.
pub(crate) struct NodeStop {
    stopped: Arc<AtomicBool>,
    post: EventSender,
}

impl NodeStop {
    /// Wakes the control thread and has it remove what cannot be resumed on its way out.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.post.wake();
    }
}

/// Runs a node until it is stopped. `on_start` gets the handle that stops it; an error of it ends
/// the node at once.
///
/// # Errors
/// `Code::Unreachable` where the port is in use, `Code::Refused` where it would listen beyond this
/// machine without a key, `Code::Data` where the root is missing.
pub(crate) fn run(
    options: NodeOptions,
    on_start: impl FnOnce(NodeStop) -> Result<()>,
) -> Result<()> {
    // The control thread has one, and short-lived workers share the other. Rails allocate nothing
    // while bytes move.
    affinity::share_arenas(2);
    let mut node = Node::new(options, on_start)?;
    node.announce()?;
    node.log_start();
    while !node.ends {
        node.turn()?;
    }
    node.wind_down();
    tracing::info!(transfers = node.transfers.len(), "ends");
    Ok(())
}

impl Node {
    fn new(
        mut options: NodeOptions,
        on_start: impl FnOnce(NodeStop) -> Result<()>,
    ) -> Result<Node> {
        let descriptors = descriptors::raise(u64::MAX);
        // Each transfer opens it; that it is there is found out now.
        StoreRoot::open(&options.root)?;
        options.root = std::path::absolute(&options.root).unwrap_or(options.root);
        let failed = |error: std::io::Error| {
            let what = Error::new(Code::Internal, format!("no event queue: {error}"));
            crate::io::system_calls::perhaps_filtered(what, &error, "epoll or eventfd2")
        };
        let poll = Poll::new().map_err(failed)?;
        let (control, control_address) = listen(options.listen)?;
        let ports = ports::open(&options, control_address.ip())?;
        let advert = NodeOptions::advert(ports.iter().map(RailPort::advert).collect());
        let (notes, inbox) = crossbeam_channel::bounded(NOTES_MAX);
        let waker = Waker::new(poll.registry(), INBOX).map_err(failed)?;
        let post = EventSender::new(notes, waker);
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = NodeStop { stopped: Arc::clone(&stopped), post: post.clone() };
        on_start(stop)?;
        let clock = Clock::start();
        let nics = ports.iter().map(|port| port.nic().to_owned()).collect();
        let mut node = Node {
            keyring: Keyring::new(options.key.clone(), &advert),
            advert,
            addresses_read: awake(),
            clock,
            poll,
            control,
            ports,
            devices: LocalAddresses::default(),
            detours: KnownDetours::default(),
            sessions: SessionTable::new(strangers::share(descriptors)),
            next_listener: 0,
            spare: SpareDescriptor::new(),
            next_token: FIRST_SESSION,
            transfers: BTreeMap::new(),
            remembered: BTreeMap::new(),
            machine: NodeMachine::new(clock.now(), nics, options.launched),
            next_flow: 0,
            inbox,
            stopped,
            ends: false,
            workers: WorkerPool::start(post.clone())?,
            file_budget: FileBudget::default(),
            post,
            options,
        };
        let registry = node.poll.registry();
        node.control.register(registry, CONTROL).map_err(failed)?;
        for (index, port) in node.ports.iter_mut().enumerate() {
            port.listener.register(registry, Token(FIRST_PORT + index)).map_err(failed)?;
        }
        Ok(node)
    }

    /// Says on standard output where it listens: a launcher waits for that line.
    fn announce(&self) -> Result<()> {
        let address = self.control.local_addr();
        let address =
            address.map_err(|error| Error::new(Code::Internal, format!("no address: {error}")))?;
        // A launcher that is gone is noticed by the lease, and a log that cannot be written is no
        // reason to stop.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", ready_line::print(address)).and_then(|()| out.flush());
        Ok(())
    }

    /// Waits for the workers: what they have made is removed with their notes, and would stay
    /// behind without them.
    fn wind_down(&mut self) {
        self.transfers.values().for_each(NodeTransfer::quit);
        let deadline = awake() + WIND_DOWN_WITHIN;
        while self.workers.busy > 0 {
            let Some(note) = wait_until(deadline, |wait| self.inbox.recv_timeout(wait).ok()) else {
                return;
            };
            self.workers.busy -= usize::from(note.is_work());
        }
    }

    fn next_flow(&mut self) -> FlowIx {
        self.next_flow += 1;
        FlowIx(self.next_flow)
    }

    fn next_token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }
}

fn listen(address: SocketAddr) -> Result<(Listener, SocketAddr)> {
    let failed = |error: std::io::Error| {
        let what = Error::new(Code::Unreachable, format!("cannot listen on {address}: {error}"));
        let what = what.remedy("choose another address or port, or end what uses it");
        crate::io::system_calls::perhaps_filtered(
            what,
            &error,
            "socket, setsockopt, bind or listen",
        )
    };
    let listener = StdListener::bind(address).and_then(Listener::new).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

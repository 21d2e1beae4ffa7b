//! Event loop of the master: turns sockets into events of the [`MasterMachine`], and its actions
//! into calls.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use zeroize::Zeroizing;

use super::client_door::ClientDoor;
use super::dialing::{NodeDialing, PLACES};
use super::file_limit;
use super::host_log;
use super::local_socket::LocalSocket;
use super::local_visitors::{FIRST_LOCAL, LocalVisitors};
use super::pending_connections::PendingConnections;
use crate::core::error::{Code, Error, Result};
use crate::core::master::coordinator::Coordinator;
use crate::core::master::events::news_count;
use crate::core::master::machine::{MasterAction, MasterEvent, MasterMachine};
use crate::core::master::recent_rate::RecentRate;
use crate::core::master::status::status;
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control;
use crate::core::wire::control::{MasterQuery, ToMaster, ToNode};
use crate::core::wire::version::ConnectionKind;
use crate::io::clock::{Clock, awake};
use crate::io::session::{
    Connection, ConnectionHello, DialKey, HelloReply, IncomingData, Listener, SiteAccess, dial,
};

/// Interval of the progress display.
const SHOW_EVERY: Duration = Duration::from_millis(200);

const LISTENER: Token = Token(0);
const WAKE: Token = Token(1);
pub(super) const FIRST_NODE: usize = 2;

/// State of a running transfer that other threads read, and their requests.
#[derive(Debug, Default)]
pub(crate) struct MasterShared {
    /// Bytes that receivers have landed.
    pub(crate) landed_bytes: AtomicU64,
    pub(crate) cancelled: AtomicBool,
    /// Set with `cancelled`, and never reset.
    pub(crate) was_cancelled: AtomicBool,
    /// Address for `status` and `cancel`.
    pub(crate) address: OnceLock<SocketAddr>,
    pub(crate) waker: std::sync::Mutex<Option<Arc<Waker>>>,
}

impl MasterShared {
    /// Asks the master to end the transfer.
    pub(crate) fn cancel(&self) {
        self.ask_to_end();
        let waker = self.waker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(waker) = waker.as_ref() {
            // Only a loop that has ended cannot be woken, and it need not be.
            let _ = waker.wake();
        }
    }

    /// Has the master end the transfer at the next turn of its loop.
    fn ask_to_end(&self) {
        self.was_cancelled.store(true, Ordering::Release);
        self.cancelled.store(true, Ordering::Release);
    }
}

/// Resources of a master's loop besides its state machine.
pub(crate) struct MasterSetup {
    /// All addresses of each node's name, or the error of resolving it.
    pub(crate) nodes: Vec<Result<Vec<SocketAddr>>>,
    /// The key that each node is dialled with; one for each node that has addresses.
    pub(crate) keys: Vec<Option<DialKey>>,
    /// Listener for `status` and `cancel`, and who may ask.
    pub(crate) visitors: Option<(StdListener, SiteAccess)>,
    /// Socket for those of the same user on this machine, without an address.
    pub(crate) local: Option<LocalSocket>,
    pub(crate) shared: Arc<MasterShared>,
}

struct MasterLoop<'a> {
    clock: Clock,
    poll: Poll,
    /// State machine that decides.
    machine: MasterMachine,
    nodes: Vec<NodeConnection>,
    /// Nodes that are being dialled: a deadline runs for their connections.
    dialled: BTreeSet<usize>,
    /// The key that each node is dialled with.
    keys: Vec<Option<DialKey>>,
    visitors: PendingConnections,
    local: LocalVisitors,
    shared: Arc<MasterShared>,
    rate: RecentRate,
    show: &'a mut dyn FnMut(&Coordinator),
    shown: Instant,
    /// What the coordinator had to tell when it was shown.
    news: usize,
}

/// Runs a transfer to its end. `show` is called a few times a second with its progress, when there
/// is news, and at the end.
///
/// # Errors
/// `Code::Internal` if this process has no event queue, or may not open a socket for every node.
/// The outcome of the transfer is in the coordinator.
pub(crate) fn conduct(
    clock: Clock,
    coordinator: Coordinator,
    setup: MasterSetup,
    show: &mut dyn FnMut(&Coordinator),
) -> Result<Coordinator> {
    let failed = |error: std::io::Error| {
        let what = Error::new(Code::Internal, format!("no event queue: {error}"));
        crate::io::system_calls::perhaps_filtered(what, &error, "epoll or eventfd2")
    };
    file_limit::make(setup.nodes.len(), 1)?;
    let poll = Poll::new().map_err(failed)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(failed)?);
    *setup.shared.waker.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(waker);
    let listener = match setup.visitors {
        Some((listener, access)) => {
            let mut listener = Listener::new(listener).map_err(failed)?;
            listener.register(poll.registry(), LISTENER).map_err(failed)?;
            Some((listener, ClientDoor::new(access)))
        }
        None => None,
    };
    let next_visitor = FIRST_NODE + PLACES * setup.nodes.len();
    let nodes = setup.nodes.iter().map(|_| NodeConnection::default()).collect();
    let local = LocalVisitors::new(setup.local, poll.registry()).map_err(failed)?;
    let mut the_loop = MasterLoop {
        machine: MasterMachine::new(clock.now(), coordinator, setup.nodes),
        clock,
        poll,
        nodes,
        dialled: BTreeSet::new(),
        keys: setup.keys,
        visitors: PendingConnections::new(listener, next_visitor),
        local,
        shared: setup.shared,
        rate: RecentRate::default(),
        show,
        shown: awake(),
        news: 0,
    };
    the_loop.follow();
    the_loop.run()?;
    (the_loop.show)(the_loop.machine.coordinator());
    Ok(the_loop.machine.into_coordinator())
}

impl MasterLoop<'_> {
    fn run(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut is_closing = false;
        while !self.machine.is_over() {
            match self.poll.poll(&mut events, Some(self.timeout())) {
                Ok(()) => {}
                // A process that was stopped handles all pending events before it judges deadlines.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Error::new(
                        Code::Internal,
                        format!("the event queue failed: {error}"),
                    ));
                }
            }
            let now = awake();
            for event in &events {
                match event.token() {
                    LISTENER => self.visitors.wake(now),
                    WAKE => {}
                    Token(token) if token < FIRST_NODE + PLACES * self.nodes.len() => {
                        let (at, nodes) = (token - FIRST_NODE, self.nodes.len());
                        self.node_ready(at % nodes, at / nodes);
                    }
                    token => {
                        let answer = |query| answer(&self.machine, &self.shared, &self.rate, query);
                        if token < Token(FIRST_LOCAL) {
                            self.visitors.ready(token, &answer);
                        } else {
                            self.local.ready(now, token, &answer);
                        }
                    }
                }
            }
            let answer = |query| answer(&self.machine, &self.shared, &self.rate, query);
            self.visitors.accept(self.poll.registry(), now, &answer);
            self.local.tick(self.poll.registry(), now, &answer);
            self.tick();
            if self.machine.is_closing() && !std::mem::replace(&mut is_closing, true) {
                self.visitors.close_all();
            }
        }
        Ok(())
    }

    fn timeout(&self) -> Duration {
        let now = awake();
        let dialled = self.dialled.iter().filter_map(|&index| self.nodes[index].due());
        let sessions = dialled
            .chain(self.visitors.due())
            .chain(self.local.due())
            .map(|due| due.saturating_duration_since(now));
        let machine = self.machine.poll_timeout().map(|due| due.since(self.clock.now()));
        let show = (self.shown + SHOW_EVERY).saturating_duration_since(now);
        sessions.chain(machine).min().unwrap_or(show).min(show)
    }

    fn tick(&mut self) {
        let now = awake();
        for index in self.dialled.iter().copied().collect::<Vec<_>>() {
            if let Some(error) = self.nodes[index].overdue(now) {
                self.broken(index, error);
            }
            if let Some(dialing) = &mut self.nodes[index].dialing {
                dialing.fail_overdue(now);
                self.dial_addresses(index, now);
            }
        }
        self.visitors.close_overdue(now);
        if self.shared.cancelled.swap(false, Ordering::AcqRel) {
            self.handle(MasterEvent::Cancel { reason: "cancelled".into() });
        }
        let moment = self.clock.now();
        if self.machine.poll_timeout().is_some_and(|due| moment >= due) {
            self.handle(MasterEvent::Tick);
        }
        let coordinator = self.machine.coordinator();
        self.shared.landed_bytes.store(coordinator.landed_bytes(), Ordering::Relaxed);
        let news = news_count(coordinator);
        if now >= self.shown + SHOW_EVERY || news != self.news {
            (self.shown, self.news) = (now, news);
            self.rate.add(moment, coordinator.landed_bytes());
            (self.show)(self.machine.coordinator());
        }
    }

    /// Hands an event to the machine, and carries out what it wants.
    fn handle(&mut self, event: MasterEvent) {
        self.machine.handle(self.clock.now(), event);
        self.follow();
    }

    fn follow(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: MasterAction) {
        let coordinator = self.machine.coordinator();
        match action {
            MasterAction::Meet { node, addresses, until } => {
                host_log::dialled(coordinator, node, &addresses);
                let (now, deadline) = (awake(), self.deadline(until));
                let dialing = NodeDialing::new(now, &addresses, deadline);
                self.nodes[node.at()].dialing = Some(Box::new(dialing));
                self.dialled.insert(node.at());
                self.dial_addresses(node.at(), now);
            }
            MasterAction::Dial { node, address, until } => {
                host_log::dialled(coordinator, node, &[address]);
                self.dialled.insert(node.at());
                if let Err(error) = self.dial(node.at(), address, self.deadline(until)) {
                    self.broken(node.at(), error);
                }
            }
            MasterAction::Send { node, message } => {
                host_log::told(coordinator, node, &message);
                self.send(node.at(), &message);
            }
            MasterAction::Close { node } => {
                host_log::closed(coordinator, node);
                if let Some(connection) = &mut self.nodes[node.at()].connection {
                    // Everything has been said; a peer that is gone already needs no good-bye.
                    let _ = connection.close();
                }
            }
            MasterAction::Drop { node } => {
                self.nodes[node.at()] = NodeConnection::default();
                self.dialled.remove(&node.at());
            }
        }
    }

    /// A moment of the machine's on the clock of connections.
    fn deadline(&self, until: Moment) -> Instant {
        awake() + until.since(self.clock.now())
    }

    /// Dials those addresses of a node that has not been met whose time has come.
    fn dial_addresses(&mut self, index: usize, now: Instant) {
        let (registry, nodes) = (self.poll.registry(), self.nodes.len());
        let Some(dialing) = &mut self.nodes[index].dialing else { return };
        let token = |place: usize| Token(FIRST_NODE + place * nodes + index);
        let key = self.keys[index].as_ref().expect("a node with addresses has a key");
        while dialing
            .dial_next(now, key, |connection, place| connection.register(registry, token(place)))
        {
        }
        if dialing.is_over() {
            let roster = self.machine.coordinator().roster();
            let error = dialing.error(&roster.entries[index].address.to_string());
            self.broken(index, error);
        }
    }

    /// Dials one address, and waits for the events of the connection.
    fn dial(&mut self, index: usize, address: SocketAddr, deadline: Instant) -> Result<()> {
        let hello = ConnectionHello { kind: ConnectionKind::Control, key_id: [0; 16] };
        let key = self.keys[index].as_ref().expect("a node with addresses has a key");
        let mut connection = Connection::initiate(dial(address, None)?, hello, key, &[], deadline)?;
        connection.register(self.poll.registry(), Token(FIRST_NODE + index))?;
        self.nodes[index].connection = Some(connection);
        Ok(())
    }

    fn send(&mut self, index: usize, message: &ToNode) {
        let Some(connection) = &mut self.nodes[index].connection else { return };
        match control::encode(message) {
            Ok(bytes) => {
                if let Err(error) = connection.send(&Zeroizing::new(bytes)) {
                    self.broken(index, error);
                }
            }
            Err(error) => {
                let error = error.into();
                self.handle(MasterEvent::Oversized { node: node_ix(index), error });
            }
        }
    }

    /// A connection to a node broke, or could not be had.
    fn broken(&mut self, index: usize, error: Error) {
        host_log::broken(self.machine.coordinator(), node_ix(index), &error);
        self.nodes[index] = NodeConnection::default();
        self.dialled.remove(&index);
        self.handle(MasterEvent::Broken { node: node_ix(index), error });
    }

    /// Something happened to a connection to a node that has not been met. The address of the
    /// connection that is up, when one is.
    fn dialing_ready(&mut self, index: usize, place: usize) -> Option<SocketAddr> {
        let dialing = self.nodes[index].dialing.as_mut()?;
        let connection = dialing.connection(place)?;
        let nobody = |_: &ConnectionHello| None::<HelloReply>;
        match connection.ready(&nobody) {
            Ok(()) if connection.is_up() => {
                let (address, connection) = self.nodes[index].dialing.take()?.take(place)?;
                self.nodes[index].connection = Some(connection);
                Some(address)
            }
            Ok(()) => None,
            Err(error) => {
                let now = awake();
                dialing.fail(now, place, error);
                self.dial_addresses(index, now);
                None
            }
        }
    }

    fn node_ready(&mut self, index: usize, place: usize) {
        let met = match self.nodes[index].dialing {
            Some(_) => match self.dialing_ready(index, place) {
                Some(address) => Some(address),
                None => return,
            },
            None => None,
        };
        let Some(connection) = self.nodes[index].connection.as_mut() else { return };
        let nobody = |_: &ConnectionHello| None::<HelloReply>;
        if let Err(error) = connection.ready(&nobody) {
            return self.broken(index, error);
        }
        if !connection.is_up() {
            return;
        }
        if self.dialled.remove(&index) {
            let node = node_ix(index);
            let event = match (control::decode(&connection.take_payload()), met) {
                (Ok(advert), Some(address)) => {
                    host_log::met(self.machine.coordinator(), node, address, &advert);
                    MasterEvent::Met { node, address, advert }
                }
                (Ok(_), None) => MasterEvent::Reconnected { node },
                (Err(error), _) => MasterEvent::Unusable { node, error: error.into() },
            };
            self.handle(event);
        }
        self.receive(index);
    }

    fn receive(&mut self, index: usize) {
        let node = node_ix(index);
        while let Some(connection) = self.nodes[index].connection.as_mut() {
            let event = match connection.receive() {
                Ok(IncomingData::Message(bytes)) => match control::decode::<ToMaster>(&bytes) {
                    Ok(message) => {
                        host_log::heard(self.machine.coordinator(), node, &message);
                        MasterEvent::Message { node, message }
                    }
                    Err(error) => MasterEvent::Unusable { node, error: error.into() },
                },
                Ok(IncomingData::Pending) => return,
                Ok(IncomingData::Closed { .. }) => {
                    self.nodes[index] = NodeConnection::default();
                    MasterEvent::Closed { node }
                }
                Err(error) => return self.broken(index, error),
            };
            self.handle(event);
        }
    }
}

/// The connection to one node, or those that are being tried.
#[derive(Default)]
pub(super) struct NodeConnection {
    connection: Option<Connection>,
    /// The node has not been met, and is dialled over all its addresses.
    dialing: Option<Box<NodeDialing>>,
}

impl NodeConnection {
    /// The instant at which its dialling has something to do.
    fn due(&self) -> Option<Instant> {
        let connection = self.connection.as_ref().and_then(Connection::deadline);
        connection.into_iter().chain(self.dialing.as_ref().and_then(|it| it.due())).min()
    }

    /// The error of a connection that has had its time.
    fn overdue(&self, now: Instant) -> Option<Error> {
        let connection = self.connection.as_ref()?;
        connection.deadline().filter(|due| now >= *due).map(|_| connection.overdue())
    }
}

/// Answers a client with the status of the transfer. A cancellation ends it at the next turn.
fn answer(
    machine: &MasterMachine,
    shared: &MasterShared,
    rate: &RecentRate,
    query: MasterQuery,
) -> String {
    if query == MasterQuery::Cancel {
        shared.ask_to_end();
    }
    status(machine.coordinator(), rate.bytes_per_second())
}

fn node_ix(index: usize) -> NodeIx {
    NodeIx(u32::try_from(index).expect("nodes are counted so"))
}

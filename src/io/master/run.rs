//! Event loop of the master: passes messages from sockets to the [`Coordinator`], and sends its
//! actions.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use zeroize::Zeroizing;

use super::dialing::PLACES;
use super::file_limit;
use super::node_links::NodeLink;
use super::pending_connections::PendingConnections;
use crate::core::error::{Code, Error, Result};
use crate::core::master::coordinator::{
    Coordinator, CoordinatorAction, CoordinatorEvent, TransferPhase,
};
use crate::core::units::NodeIx;
use crate::core::wire::control;
use crate::core::wire::control::{NodeAdvert, ResumeSession, ToMaster, ToNode};
use crate::io::clock::{Clock, awake};
use crate::io::session::{Connection, ConnectionHello, HelloReply, IncomingData, Key, Listener};

/// Time for a node to be connected and to complete the handshake.
pub(super) const SESSION_WITHIN: Duration = Duration::from_secs(10);
/// Number of nodes dialled at once. Each has [`SESSION_WITHIN`], and a handshake takes this thread
/// a fraction of a millisecond: if all were dialled at once, the last of thousands would be late.
const DIALS_MAX: usize = 256;
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
    /// Address for `status` and `cancel`.
    pub(crate) address: OnceLock<SocketAddr>,
    pub(crate) waker: std::sync::Mutex<Option<Arc<Waker>>>,
}

impl MasterShared {
    /// Asks the master to end the transfer.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(waker) = waker.as_ref() {
            // Only a loop that has ended cannot be woken, and it need not be.
            let _ = waker.wake();
        }
    }
}

/// Resources of a master's loop besides its state machine.
pub(crate) struct MasterSetup {
    /// All addresses of each node's name, or the error of resolving it.
    pub(crate) nodes: Vec<Result<Vec<SocketAddr>>>,
    /// The key of the control sessions.
    pub(crate) key: Key,
    /// Listener for `status` and `cancel`, and their key.
    pub(crate) visitors: Option<(StdListener, Key)>,
    pub(crate) shared: Arc<MasterShared>,
}

pub(super) struct MasterLoop<'a> {
    clock: Clock,
    pub(super) poll: Poll,
    pub(super) coordinator: Coordinator,
    pub(super) nodes: Vec<NodeLink>,
    /// First node that has not been dialled.
    next_to_dial: usize,
    /// Nodes with a deadline: they are being dialled, or their sessions broke.
    unsettled: BTreeSet<usize>,
    /// The key of the control sessions.
    key: Key,
    pub(super) listener: Option<(Listener, Key)>,
    pub(super) visitors: PendingConnections,
    pub(super) shared: Arc<MasterShared>,
    show: &'a mut dyn FnMut(&Coordinator),
    shown: Instant,
}

/// Runs a transfer to its end. `show` is called now and then with its progress.
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
        Some((listener, key)) => {
            let mut listener = Listener::new(listener).map_err(failed)?;
            listener.register(poll.registry(), LISTENER).map_err(failed)?;
            Some((listener, key))
        }
        None => None,
    };
    let next_visitor = FIRST_NODE + PLACES * setup.nodes.len();
    let mut the_loop = MasterLoop {
        clock,
        poll,
        nodes: setup
            .nodes
            .iter()
            .map(|addresses| NodeLink::new(addresses.as_deref().unwrap_or_default()))
            .collect(),
        next_to_dial: 0,
        unsettled: BTreeSet::new(),
        key: setup.key,
        coordinator,
        listener,
        visitors: PendingConnections::new(next_visitor),
        shared: setup.shared,
        show,
        shown: awake(),
    };
    the_loop.dial_all(setup.nodes);
    the_loop.run()?;
    Ok(the_loop.coordinator)
}

impl MasterLoop<'_> {
    fn dial_all(&mut self, nodes: Vec<Result<Vec<SocketAddr>>>) {
        for (index, addresses) in nodes.into_iter().enumerate() {
            if let Err(error) = addresses {
                self.node_lost(index, error);
            }
        }
        self.dial_some();
    }

    /// Dials further nodes, up to the limit.
    fn dial_some(&mut self) {
        while self.unsettled.len() < DIALS_MAX && self.coordinator.phase() == TransferPhase::Meeting
        {
            let index = self.next_to_dial;
            let Some(link) = self.nodes.get_mut(index) else { return };
            self.next_to_dial += 1;
            let now = awake();
            link.meet(now, now + SESSION_WITHIN);
            if link.meeting_due().is_some() {
                self.unsettled.insert(index);
                self.dial_addresses(index, now);
            }
        }
    }

    /// Dials those addresses of an unconnected node that are due.
    fn dial_addresses(&mut self, index: usize, now: Instant) {
        let (registry, nodes) = (self.poll.registry(), self.nodes.len());
        let Some(meeting) = self.nodes[index].meeting() else { return };
        let token = |place: usize| Token(FIRST_NODE + place * nodes + index);
        while meeting.dial_next(now, &self.key, |connection, place| {
            connection.register(registry, token(place))
        }) {}
        if meeting.is_over() {
            let error =
                meeting.error(&self.coordinator.roster().entries[index].address.to_string());
            self.node_lost(index, error);
        }
    }

    /// Handles an event of a connection to an unconnected node. Returns true once the node is
    /// connected.
    fn meeting_ready(&mut self, index: usize, place: usize) -> bool {
        let Some(meeting) = self.nodes[index].meeting() else { return true };
        let Some(connection) = meeting.connection(place) else { return false };
        let nobody = |_: &ConnectionHello| None::<HelloReply>;
        match connection.ready(&nobody) {
            Ok(()) if connection.is_up() => {
                self.nodes[index].met(place);
                true
            }
            Ok(()) => false,
            Err(error) => {
                let now = awake();
                meeting.fail(now, place, error);
                self.dial_addresses(index, now);
                false
            }
        }
    }

    /// Registers a dialled connection for its events.
    fn register(&mut self, index: usize, dialled: Result<()>) {
        self.unsettled.insert(index);
        let registered = dialled.and_then(|()| match &mut self.nodes[index].connection {
            Some(connection) => {
                connection.register(self.poll.registry(), Token(FIRST_NODE + index))
            }
            None => Ok(()),
        });
        if let Err(error) = registered {
            self.session_broke(index, error);
        }
    }

    fn run(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        while self.coordinator.phase() != TransferPhase::Done {
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
                    LISTENER => {
                        if let Some((listener, _)) = &mut self.listener {
                            listener.wake(now);
                        }
                    }
                    WAKE => {}
                    Token(token) if token < FIRST_NODE + PLACES * self.nodes.len() => {
                        let (at, nodes) = (token - FIRST_NODE, self.nodes.len());
                        self.node_ready(at % nodes, at / nodes);
                    }
                    token => self.visitor_ready(token),
                }
            }
            self.accept(now);
            self.tick();
            self.dial_some();
        }
        self.say_goodbye();
        Ok(())
    }

    fn timeout(&self) -> Duration {
        let now = awake();
        let unsettled = || self.unsettled.iter().map(|index| &self.nodes[*index]);
        let connections = unsettled().filter_map(|link| link.connection.as_ref());
        let retries = unsettled()
            .filter_map(NodeLink::retry_at)
            .chain(unsettled().filter_map(NodeLink::meeting_due));
        let visits = self.visitors.deadlines.first().into_iter();
        let visits = visits
            .chain(self.listener.as_ref().and_then(|(listener, _)| self.visitors.due(listener)));
        let sessions = connections.filter_map(Connection::deadline).chain(retries).chain(visits);
        let sessions = sessions.map(|due| due.saturating_duration_since(now));
        let moment = self.clock.now();
        let coordinator = self.coordinator.poll_timeout().map(|due| due.since(moment));
        let show = (self.shown + SHOW_EVERY).saturating_duration_since(now);
        sessions.chain(coordinator).min().unwrap_or(show).min(show)
    }

    fn tick(&mut self) {
        let now = awake();
        let is_overdue =
            |connection: &Connection| connection.deadline().is_some_and(|due| now >= due);
        for index in self.unsettled.iter().copied().collect::<Vec<_>>() {
            let overdue =
                self.nodes[index].connection.as_ref().filter(|connection| is_overdue(connection));
            if let Some(error) = overdue.map(Connection::overdue) {
                self.session_broke(index, error);
            }
            if let Some(meeting) = self.nodes[index].meeting() {
                meeting.fail_overdue(now);
                self.dial_addresses(index, now);
            }
            if self.nodes[index].retry_at().is_some_and(|due| now >= due) {
                let dialled = self.nodes[index].retry(now, &self.key);
                self.register(index, dialled);
            }
        }
        while let Some(token) = self.visitors.deadlines.next_over(now) {
            self.visitors.remove(token);
        }
        if self.shared.cancelled.swap(false, Ordering::AcqRel) {
            self.tell(CoordinatorEvent::Cancel { reason: "cancelled".into() });
        }
        let moment = self.clock.now();
        if self.coordinator.poll_timeout().is_some_and(|due| moment >= due) {
            self.tell(CoordinatorEvent::Tick);
        }
        self.shared.landed_bytes.store(self.coordinator.landed_bytes(), Ordering::Relaxed);
        if now >= self.shown + SHOW_EVERY {
            self.shown = now;
            (self.show)(&self.coordinator);
        }
    }

    /// Passes an event to the coordinator and sends its messages.
    fn tell(&mut self, event: CoordinatorEvent) {
        self.coordinator.handle(self.clock.now(), event);
        while let Some(action) = self.coordinator.poll_action() {
            let CoordinatorAction { node, message } = action;
            // A message that cannot be sent now is sent when the session is resumed: the
            // coordinator remembers it.
            let link = &mut self.nodes[node.at()];
            if link.takes_messages() {
                self.send(node.at(), &message);
            }
        }
    }

    fn send(&mut self, index: usize, message: &ToNode) {
        let Some(connection) = &mut self.nodes[index].connection else { return };
        match control::encode(message) {
            Ok(bytes) => {
                if let Err(error) = connection.send(&Zeroizing::new(bytes)) {
                    self.session_broke(index, error);
                }
            }
            Err(error) => self.tell(CoordinatorEvent::Oversized {
                node: NodeIx(index as u32),
                error: error.into(),
            }),
        }
    }

    /// Handles a broken connection to a node: the session is resumed over another one, unless the
    /// node is done or lost.
    fn session_broke(&mut self, index: usize, error: Error) {
        let peer = &self.coordinator.peers()[index];
        let rails = peer.advert().map_or(Vec::new(), |advert| advert.rails);
        if self.nodes[index].broke(awake(), &rails) && !peer.is_gone() {
            self.unsettled.insert(index);
            tracing::debug!("the session of node {index} broke and is dialled again: {error}");
        } else {
            self.node_lost(index, error);
        }
    }

    fn node_lost(&mut self, index: usize, error: Error) {
        self.nodes[index] = NodeLink::new(&[]);
        self.unsettled.remove(&index);
        self.tell(CoordinatorEvent::NodeDown { node: NodeIx(index as u32), error });
    }

    fn node_ready(&mut self, index: usize, place: usize) {
        let is_new = self.nodes[index].connection.is_none();
        if is_new && !self.meeting_ready(index, place) {
            return;
        }
        let Some(connection) = self.nodes[index].connection.as_mut() else { return };
        let was_up = !is_new && connection.is_up();
        let nobody = |_: &ConnectionHello| None::<HelloReply>;
        if let Err(error) = connection.ready(&nobody) {
            return self.session_broke(index, error);
        }
        if !connection.is_up() {
            return;
        }
        if !was_up {
            self.unsettled.remove(&index);
            match control::decode::<NodeAdvert>(&connection.take_payload()) {
                Ok(advert) => self.node_up(index, advert),
                Err(error) => return self.node_lost(index, error.into()),
            }
        }
        while let Some(connection) = self.nodes[index].connection.as_mut() {
            match connection.receive() {
                Ok(IncomingData::Message(bytes)) => match control::decode::<ToMaster>(&bytes) {
                    Ok(message) => self.node_says(index, message),
                    Err(error) => return self.node_lost(index, error.into()),
                },
                Ok(IncomingData::Pending) => return,
                Ok(IncomingData::Closed { .. }) => {
                    let error = Error::new(Code::Unreachable, "the node ended its control session");
                    return self.node_lost(index, error);
                }
                Err(error) => return self.session_broke(index, error),
            }
        }
    }

    fn node_up(&mut self, index: usize, advert: NodeAdvert) {
        if self.nodes[index].up() {
            return self.tell(CoordinatorEvent::NodeUp { node: NodeIx(index as u32), advert });
        }
        let (identity, heard) = (self.coordinator.terms().identity(), self.nodes[index].heard());
        let resume =
            ResumeSession { transfer: identity.transfer, attempt: identity.attempt, heard };
        self.send(index, &ToNode::Resume(resume));
    }

    fn node_says(&mut self, index: usize, message: ToMaster) {
        let node = NodeIx(index as u32);
        if message.is_counted() {
            self.nodes[index].hear();
        }
        match message {
            ToMaster::Resumed { heard } => {
                self.nodes[index].resumed();
                self.tell(CoordinatorEvent::NodeBack { node, heard });
            }
            // The node was restarted and has lost its state, as if it had not answered. The
            // consequence depends on the phase of the transfer.
            ToMaster::Failed { error, .. } if self.nodes[index].is_resuming() => {
                self.node_lost(index, error)
            }
            message => self.tell(CoordinatorEvent::Message { node, message }),
        }
    }
}

//! The intake of connections: listeners, the keys that open them, and every connection of the
//! control thread until it is up, and those of masters after it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use zeroize::Zeroizing;

use super::keyring::{Keyring, OpenTransfer};
use super::listening::{CONTROL, ListenerIx};
use super::port_set::PortSet;
use super::sessions::{DialledFlow, HANDSHAKE_WITHIN, NodeSession, SessionRole, SessionTable};
use super::transfer_flows::OpeningPlace;
use super::transfer_log;
use crate::core::access::PublicKey;
use crate::core::error::{Code, Error, Result};
use crate::core::node::machine::{MasterOrigin, NodeEvent, SessionIx};
use crate::core::piece::TransferIx;
use crate::core::wire::control;
use crate::core::wire::control::{NodeAdvert, SurveyQuestion, ToNode, WireRow};
use crate::core::wire::limits::share_of_one;
use crate::core::wire::terms::WirePolicy;
use crate::core::wire::version::ConnectionKind;
use crate::io::clock::awake;
use crate::io::log;
use crate::io::session::descriptors::SpareDescriptor;
use crate::io::session::strangers;
use crate::io::session::{
    Connection, FlowStream, IncomingData, Key, Listener, NotAccepted, SiteAccess,
};
use crate::io::store::RootOptions;

/// The token of the inbox.
pub(super) const INBOX: Token = Token(1);
/// The token of the listener at the control address; those of the others follow.
const FIRST_LISTENER: usize = 16;
const FIRST_SESSION: usize = 1024;

/// Connections at once of those who have proved that they hold a key. Strangers have a share of
/// their own beside it.
const CONNECTIONS_MAX: usize = 4096;
/// Shortest interval at which addresses are read, which takes some 50 µs: whoever connects may be a
/// stranger.
const READ_ADDRESSES_EVERY: Duration = Duration::from_millis(10);

/// The intake of connections.
pub(super) struct ConnectionIntake {
    registry: Registry,
    /// The listener at the control address, and those of the ports.
    listeners: Vec<Listener>,
    /// The listener that was served last, of those that have somebody waiting.
    next_listener: usize,
    spare: SpareDescriptor,
    next_token: usize,
    sessions: SessionTable,
    keyring: Keyring,
    /// The advert that masters get of this node.
    advert: NodeAdvert,
    /// The instant at which the addresses of the NICs were read last.
    addresses_read: Instant,
}

/// The connections that are taken in in one turn.
pub(super) struct AcceptTurn {
    now: Instant,
    /// Listeners with somebody waiting.
    due: Vec<ListenerIx>,
    left: usize,
}

/// A connection that has come a step further.
pub(super) enum SessionStep {
    /// A receiver's flow has come in at a listener, and stands.
    FlowArrived { listener: ListenerIx, connection: Connection },
    /// A flow that this node dialled stands.
    FlowOpened { dialled: DialledFlow, connection: Connection },
    /// A master's session stands.
    MasterUp { origin: MasterOrigin },
    /// A master may have said something.
    MasterReady,
    /// It broke.
    Over(EndedConnection),
}

/// A connection that broke.
pub(super) struct EndedConnection {
    pub(super) token: Token,
    pub(super) role: SessionRole,
    pub(super) error: Error,
}

impl ConnectionIntake {
    /// Listens at the control address, by the first of the listeners, and at the ports.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn new(
        registry: Registry,
        mut listeners: Vec<Listener>,
        access: SiteAccess,
        advert: NodeAdvert,
        strangers_max: usize,
    ) -> std::io::Result<ConnectionIntake> {
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(&registry, Token(FIRST_LISTENER + index))?;
        }
        Ok(ConnectionIntake {
            registry,
            listeners,
            next_listener: 0,
            spare: SpareDescriptor::new(),
            next_token: FIRST_SESSION,
            sessions: SessionTable::new(strangers_max),
            keyring: Keyring::new(access, &advert),
            advert,
            addresses_read: awake(),
        })
    }

    /// The listener at the control address.
    pub(super) fn control(&self) -> &Listener {
        &self.listeners[CONTROL]
    }

    /// The keys that open this node.
    pub(super) fn keyring(&mut self) -> &mut Keyring {
        &mut self.keyring
    }

    /// Takes in an event of a listener. Returns false if it is one of a connection.
    pub(super) fn wake(&mut self, token: Token, now: Instant) -> bool {
        let Token(token) = token;
        if token >= FIRST_SESSION {
            return false;
        }
        self.listeners[token - FIRST_LISTENER].wake(now);
        true
    }

    /// The instant at which a connection is to be given up, or from which others may be taken in.
    pub(super) fn due(&self) -> Option<Instant> {
        let arrival = self.listeners.iter().filter_map(Listener::due).min();
        let full_until = self.sessions.full_until();
        let arrival = arrival.map(|due| full_until.map_or(due, |full| full.max(due)));
        arrival.into_iter().chain(self.sessions.due()).min()
    }

    /// Begins to take in connections that wait, of all listeners in turn. Those beyond this turn's
    /// number wait for the next one.
    pub(super) fn begin_turn(&mut self, now: Instant) -> AcceptTurn {
        let all = self.listeners.iter().enumerate();
        let due = all.filter(|(_, it)| is_due(it, now)).map(|(listener, _)| listener).collect();
        AcceptTurn { now, due, left: self.sessions.burst_max(now) }
    }

    /// Takes in the next connection of a turn.
    pub(super) fn accept_next(
        &mut self,
        turn: &mut AcceptTurn,
        ports: &mut PortSet,
    ) -> Option<Token> {
        while turn.left > 0 && !turn.due.is_empty() {
            self.next_listener = (self.next_listener + 1) % turn.due.len();
            let listener = turn.due[self.next_listener];
            turn.left -= 1;
            let accepted = self.accept_one(listener, turn.now, ports);
            if !is_due(&self.listeners[listener], turn.now) {
                turn.due.swap_remove(self.next_listener);
            }
            if accepted.is_some() {
                return accepted;
            }
        }
        None
    }

    fn accept_one(
        &mut self,
        listener: ListenerIx,
        now: Instant,
        ports: &mut PortSet,
    ) -> Option<Token> {
        match self.listeners[listener].accept(now) {
            Ok((_, from)) if self.sessions.member_count() >= CONNECTIONS_MAX => {
                log::refused(
                    "connections",
                    Some(from.ip()),
                    &"all connections that a node may have are in use",
                );
            }
            Ok((stream, from)) => {
                self.follow_addresses(now, ports);
                let token = self.next_token();
                // One that is broken already is forgotten.
                let mut connection = Connection::accept(stream, now + HANDSHAKE_WITHIN).ok()?;
                connection.register(&self.registry, token).ok()?;
                let role = SessionRole::Visitor { listener, from: from.ip() };
                let origin = Some(strangers::origin(from.ip()));
                let session = NodeSession { connection, role, origin };
                self.sessions.admit(token, session, from.ip(), now);
                return Some(token);
            }
            Err(NotAccepted::NoDescriptor) if self.sessions.make_room() => {}
            Err(NotAccepted::NoDescriptor) => {
                log::refused(
                    "descriptors",
                    None,
                    &"no file descriptor is left: raise the limit of open files",
                );
                self.listeners[listener].shed(now, &mut self.spare);
            }
            Err(NotAccepted::Gone | NotAccepted::Nobody) => {}
        }
        None
    }

    /// Listens anew at NICs whose addresses have changed, before a master is told of them.
    fn follow_addresses(&mut self, now: Instant, ports: &mut PortSet) {
        if now < self.addresses_read + READ_ADDRESSES_EVERY {
            return;
        }
        self.addresses_read = now;
        let (has_changed, new) = ports.follow();
        if !has_changed {
            return;
        }
        for (index, mut listener) in new {
            // One without events takes in nobody, as if it could not be listened on.
            let _ = listener.register(&self.registry, Token(FIRST_LISTENER + index));
            match self.listeners.get_mut(index) {
                Some(gone) => *gone = listener,
                None => self.listeners.push(listener),
            }
        }
        self.advert.rails = ports.adverts();
        self.keyring.tell(&self.advert);
    }

    fn next_token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    /// Takes in a connection that was dialled.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(super) fn add_dialled(
        &mut self,
        connection: Result<Connection>,
        dialled: DialledFlow,
    ) -> Result<Token> {
        let token = self.next_token();
        let mut connection = connection?;
        connection.register(&self.registry, token)?;
        let role = SessionRole::Flow(dialled);
        self.sessions.insert(token, NodeSession { connection, role, origin: None });
        Ok(token)
    }

    /// Has a connection read and write all that it can.
    pub(super) fn advance(&mut self, token: Token) -> Option<SessionStep> {
        let session = self.sessions.get_mut(token)?;
        if matches!(session.role, SessionRole::Visitor { .. }) {
            self.keyring.refresh(awake());
        }
        if let Err(error) = session.connection.ready(&self.keyring) {
            return self.end(token, error).map(SessionStep::Over);
        }
        self.sessions.settle(token);
        let session = self.sessions.get_mut(token)?;
        if !session.connection.is_up() {
            return None;
        }
        let kind = session.connection.hello().map(|hello| hello.kind);
        match (session.role, kind) {
            (SessionRole::Visitor { listener, .. }, Some(ConnectionKind::Data)) => {
                let connection = self.sessions.remove(token)?.connection;
                Some(SessionStep::FlowArrived { listener, connection })
            }
            (SessionRole::Flow(dialled), _) => {
                let connection = self.sessions.remove(token)?.connection;
                Some(SessionStep::FlowOpened { dialled, connection })
            }
            // A master may come over any of the listeners: its first way may be gone.
            (SessionRole::Visitor { .. }, _)
                if self.sessions.masters_of_one(token) >= share_of_one(CONNECTIONS_MAX) =>
            {
                let what = "all connections that masters of one address may have are in use";
                self.end(token, Error::new(Code::Refused, what)).map(SessionStep::Over)
            }
            (SessionRole::Visitor { .. }, _) => {
                let session = self.sessions.get_mut(token)?;
                session.role = SessionRole::Master;
                Some(SessionStep::MasterUp { origin: self.origin(token) })
            }
            (SessionRole::Master, _) => Some(SessionStep::MasterReady),
            (SessionRole::Leaving, _) => None,
        }
    }

    /// The next connection that has had its time. [`ConnectionIntake::advance`] it: its event may
    /// be among those that this turn had no time for.
    pub(super) fn next_over(&mut self, now: Instant) -> Option<Token> {
        self.sessions.next_over(now)
    }

    /// Ends a connection that has had its time, and has still not come up.
    pub(super) fn end_overdue(&mut self, token: Token, now: Instant) -> Option<EndedConnection> {
        let NodeSession { connection, role, .. } = self.sessions.get(token)?;
        // A flow that is connected at last has the time of its handshake before it.
        let is_dialled = matches!(role, SessionRole::Flow(_));
        let goes_on = is_dialled && connection.deadline().is_none_or(|due| due > now);
        if connection.is_up() || goes_on {
            return None;
        }
        let error = connection.overdue();
        self.end(token, error)
    }

    fn end(&mut self, token: Token, error: Error) -> Option<EndedConnection> {
        let NodeSession { role, .. } = self.sessions.remove(token)?;
        if let SessionRole::Visitor { from, .. } = role {
            transfer_log::log_refused(from, &error);
        }
        Some(EndedConnection { token, role, error })
    }

    /// The next thing that a master says, or that its session ends.
    pub(super) fn hear_master(&mut self, token: Token) -> Option<NodeEvent> {
        let session = session_ix(token);
        let NodeSession { connection, role, .. } = self.sessions.get_mut(token)?;
        if *role != SessionRole::Master {
            return None;
        }
        match connection.receive() {
            // It may hold the key of a transfer's flows.
            Ok(IncomingData::Message(bytes)) => {
                Some(match control::decode::<ToNode>(&Zeroizing::new(bytes)) {
                    Ok(message) => NodeEvent::Message { session, message },
                    Err(error) => NodeEvent::Garbled { session, error: error.into() },
                })
            }
            Ok(IncomingData::Pending) => None,
            Ok(IncomingData::Closed { in_order }) => {
                // It stays open until the machine closes it: that tells the master something.
                *role = SessionRole::Leaving;
                Some(NodeEvent::Closed { session, in_order })
            }
            Err(_) => {
                self.sessions.remove(token);
                Some(NodeEvent::SessionBroken { session })
            }
        }
    }

    /// Sends a master something. Where its session breaks, the machine is to be told so.
    pub(super) fn send(&mut self, session: SessionIx, message: &[u8]) -> Option<NodeEvent> {
        let token = token_of(session);
        let NodeSession { connection, role, .. } = self.sessions.get_mut(token)?;
        let role = *role;
        connection.send(message).err()?;
        self.sessions.remove(token);
        (role == SessionRole::Master).then_some(NodeEvent::SessionBroken { session })
    }

    /// Closes a master's session.
    pub(super) fn close(&mut self, session: SessionIx) {
        self.sessions.remove(token_of(session));
    }

    /// Where a master's connection comes from: a number for its address.
    fn origin(&self, token: Token) -> MasterOrigin {
        let origin = self.sessions.get(token).and_then(|it| it.origin);
        MasterOrigin(match origin {
            None => 0,
            Some(IpAddr::V4(address)) => address.to_bits().into(),
            // Its network: `strangers::origin` has left nothing else.
            Some(IpAddr::V6(address)) => (address.to_bits() >> 64) as u64,
        })
    }

    /// The address of a master.
    pub(super) fn peer(&self, session: SessionIx) -> Option<std::net::SocketAddr> {
        self.sessions.get(token_of(session))?.connection.peer()
    }

    /// Refuses rows that the master of a session has no right to.
    ///
    /// # Errors
    /// `Code::Refused`, with the first such row; `Code::Unreachable` if the session is gone.
    pub(super) fn check_rows(
        &self,
        session: SessionIx,
        rows: &[WireRow],
        roots: &RootOptions,
    ) -> Result<()> {
        let master = self
            .master_key(session)
            .ok_or_else(|| Error::new(Code::Unreachable, "the session of its master is over"))?;
        self.keyring.check_rows(master.as_ref(), rows, roots)
    }

    /// Judges which questions the master of a session may ask: about what it may read, or write.
    pub(super) fn judge_questions(
        &self,
        session: SessionIx,
        questions: Vec<SurveyQuestion>,
        roots: &RootOptions,
    ) -> Vec<(SurveyQuestion, Result<bool>)> {
        let master = self.master_key(session);
        let judged = questions.into_iter().map(|question| {
            let master = master
                .ok_or_else(|| Error::new(Code::Unreachable, "the session of its master is over"));
            let verdict = master
                .and_then(|master| self.keyring.check_question(master.as_ref(), &question, roots));
            (question, verdict)
        });
        judged.collect()
    }

    /// Lets flows of a transfer in, which the master of a session begins.
    pub(super) fn open_flows(
        &mut self,
        session: SessionIx,
        transfer: [u8; 16],
        key: Key,
        policy: WirePolicy,
    ) {
        let master = self.master_key(session).flatten();
        self.keyring.open(transfer, OpenTransfer { key, policy, master });
    }

    /// Refuses to let a master resume the transfer of another key.
    pub(super) fn judge_resume(&self, event: NodeEvent) -> NodeEvent {
        let NodeEvent::Message { session, message: ToNode::Resume(resume) } = &event else {
            return event;
        };
        let Some(meant) = self.keyring.transfer(&resume.transfer) else { return event };
        if self.master_key(*session) == Some(meant.master) {
            return event;
        }
        let error = Error::new(Code::Refused, "this transfer is that of another key");
        NodeEvent::Garbled { session: *session, error }
    }

    /// The public key of a master, if it has one; `None` if its session is gone.
    pub(super) fn master_key(&self, session: SessionIx) -> Option<Option<PublicKey>> {
        let NodeSession { connection, .. } = self.sessions.get(token_of(session))?;
        connection.is_up().then(|| connection.initiator().copied())
    }

    /// Closes the connections of flows that are still being opened for a transfer: those of one
    /// place, or all.
    pub(super) fn close_dialled(&mut self, transfer: TransferIx, place: Option<OpeningPlace>) {
        self.sessions.remove_all(|session| match session.role {
            SessionRole::Flow(dialled) => {
                dialled.transfer == transfer && place.is_none_or(|place| dialled.place == place)
            }
            SessionRole::Visitor { .. } | SessionRole::Master | SessionRole::Leaving => false,
        });
    }

    /// Takes a flow that stands out of its connection.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) fn release_stream(&self, connection: Connection) -> Result<FlowStream> {
        connection.into_stream(&self.registry)
    }
}

fn is_due(listener: &Listener, now: Instant) -> bool {
    listener.due().is_some_and(|due| due <= now)
}

/// The machine's index for the session of a connection.
pub(super) fn session_ix(token: Token) -> SessionIx {
    SessionIx(token.0 as u64)
}

/// The connection of a session of the machine's.
fn token_of(session: SessionIx) -> Token {
    Token(usize::try_from(session.0).expect("it was made of one"))
}

//! First dialling of a node, over all addresses of its name.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::core::error::{Error, Result};
use crate::core::wire::version::ConnectionKind;
use crate::io::session::{Connection, ConnectionHello, DialKey, PeerDialer, dial};

/// Limit on dialled addresses of a name, which is the number of tokens for their connections.
pub(super) const PLACES: usize = 8;
/// Time for a kernel to answer at one of several addresses.
const CONNECT_WITHIN: Duration = Duration::from_secs(4);

/// Dialling of one node.
pub(super) struct NodeDialing {
    reach: PeerDialer,
    attempts: Vec<DialAttempt>,
    has_others: bool,
}

struct DialAttempt {
    place: usize,
    address: SocketAddr,
    connection: Connection,
}

impl NodeDialing {
    pub(super) fn new(now: Instant, addresses: &[SocketAddr], deadline: Instant) -> NodeDialing {
        let addresses = &addresses[..addresses.len().min(PLACES)];
        let reach = PeerDialer::new(now, addresses, deadline);
        NodeDialing { reach, attempts: Vec::new(), has_others: addresses.len() > 1 }
    }

    /// Dials the next address if it is due. `register` receives the connection and its place.
    pub(super) fn dial_next(
        &mut self,
        now: Instant,
        key: &DialKey,
        register: impl FnOnce(&mut Connection, usize) -> Result<()>,
    ) -> bool {
        let Some(address) = self.reach.next(now) else { return false };
        let place =
            (0..PLACES).find(|place| self.attempts.iter().all(|attempt| attempt.place != *place));
        let place = place.expect("no more attempts than addresses");
        let connect = || {
            let hello = ConnectionHello { kind: ConnectionKind::Control, key_id: [0; 16] };
            let mut connection =
                Connection::initiate(dial(address, None)?, hello, key, &[], self.reach.deadline())?;
            if self.has_others {
                connection = connection.connected_by(now + CONNECT_WITHIN);
            }
            register(&mut connection, place)?;
            Ok(connection)
        };
        match connect() {
            Ok(connection) => self.attempts.push(DialAttempt { place, address, connection }),
            Err(error) => {
                self.reach.fail(now, address, crate::io::session::DialProgress::Connecting, error);
            }
        }
        true
    }

    pub(super) fn connection(&mut self, place: usize) -> Option<&mut Connection> {
        let attempt = self.attempts.iter_mut().find(|attempt| attempt.place == place)?;
        Some(&mut attempt.connection)
    }

    /// Takes the connection at a place, which is up. The others are dropped.
    pub(super) fn take(self, place: usize) -> Option<(SocketAddr, Connection)> {
        let attempt = self.attempts.into_iter().find(|attempt| attempt.place == place)?;
        Some((attempt.address, attempt.connection))
    }

    /// Records that the connection at a place failed.
    pub(super) fn fail(&mut self, now: Instant, place: usize, error: Error) {
        let Some(at) = self.attempts.iter().position(|attempt| attempt.place == place) else {
            return;
        };
        let DialAttempt { address, connection, .. } = self.attempts.swap_remove(at);
        self.reach.fail(now, address, connection.progress(), error);
    }

    /// Fails the connections whose deadline has passed.
    pub(super) fn fail_overdue(&mut self, now: Instant) {
        let is_over =
            |attempt: &&DialAttempt| attempt.connection.deadline().is_some_and(|due| now >= due);
        while let Some(attempt) = self.attempts.iter().find(is_over) {
            let (place, error) = (attempt.place, attempt.connection.overdue());
            self.fail(now, place, error);
        }
    }

    /// Returns the moment of the next action.
    pub(super) fn due(&self) -> Option<Instant> {
        let attempts = self.attempts.iter().filter_map(|attempt| attempt.connection.deadline());
        attempts.chain(self.reach.due()).min()
    }

    pub(super) fn is_over(&self) -> bool {
        self.reach.is_over()
    }

    pub(super) fn error(&self, name: &str) -> Error {
        self.reach.error(name)
    }
}

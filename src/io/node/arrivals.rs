//! Connections that arrive: taken in a few at a time, within the share of strangers.

use std::time::{Duration, Instant};

use super::ports;
use super::ports::RailPort;
use super::{CONNECTIONS_MAX, FIRST_PORT, HANDSHAKE_WITHIN, Node, NodeSession, SessionRole};
use crate::io::log;
use crate::io::session::{AcceptOutcome, Connection, Listener};

/// Shortest interval at which addresses are read, which takes some 50 µs: whoever connects may be a
/// stranger.
const READ_ADDRESSES_EVERY: Duration = Duration::from_millis(10);

impl Node {
    /// The listener of a port, or that at the control address.
    pub(super) fn listener(&mut self, port: Option<usize>) -> &mut Listener {
        port.map_or(&mut self.control, |port| &mut self.ports[port].listener)
    }

    /// The instant from which connections may be taken in.
    pub(super) fn arrivals_due(&self) -> Option<Instant> {
        let ports = self.ports.iter().filter_map(|port| port.listener.due());
        let due = ports.chain(self.control.due()).min()?;
        Some(self.sessions.full_until().map_or(due, |full| full.max(due)))
    }

    /// Takes in connections that wait, of all listeners in turn. Those beyond this turn's number
    /// wait for the next one.
    pub(super) fn accept(&mut self, now: Instant) {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let ports =
            (0..self.ports.len()).filter(|&port| is_due(self.ports[port].listener.due())).map(Some);
        let control = is_due(self.control.due()).then_some(None);
        let mut due: Vec<Option<usize>> = control.into_iter().chain(ports).collect();
        let mut left = self.sessions.burst_max(now);
        while left > 0 && !due.is_empty() {
            self.next_listener = (self.next_listener + 1) % due.len();
            let port = due[self.next_listener];
            left -= 1;
            self.accept_one(port, now);
            if !is_due(self.listener(port).due()) {
                due.swap_remove(self.next_listener);
            }
        }
    }

    /// Opens NICs anew whose addresses have changed, before a master is told of them.
    fn follow_addresses(&mut self, now: Instant) {
        if now < self.addresses_read + READ_ADDRESSES_EVERY {
            return;
        }
        self.addresses_read = now;
        if ports::follow(&mut self.ports, self.poll.registry(), FIRST_PORT) {
            self.advert.rails = self.ports.iter().map(RailPort::advert).collect();
            self.keyring.tell(&self.advert);
        }
    }

    fn accept_one(&mut self, port: Option<usize>, now: Instant) {
        match self.listener(port).accept(now) {
            AcceptOutcome::Stream(_, from) if self.sessions.member_count() >= CONNECTIONS_MAX => {
                log::refused(
                    "connections",
                    Some(from.ip()),
                    &"all connections that a node may have are in use",
                );
            }
            AcceptOutcome::Stream(stream, from) => {
                self.follow_addresses(now);
                let token = self.next_token();
                // One that is broken already is forgotten.
                let connection = Connection::accept(stream, now + HANDSHAKE_WITHIN).and_then(
                    |mut connection| {
                        connection.register(self.poll.registry(), token)?;
                        Ok(connection)
                    },
                );
                if let Ok(connection) = connection {
                    let session = NodeSession {
                        connection,
                        role: SessionRole::Visitor { port, from: from.ip() },
                    };
                    self.sessions.admit(token, session, from.ip(), now);
                    self.session_ready(token);
                }
            }
            AcceptOutcome::NoDescriptor if self.sessions.make_room() => {}
            AcceptOutcome::NoDescriptor => {
                log::refused(
                    "descriptors",
                    None,
                    &"no file descriptor is left: raise the limit of open files",
                );
                let Node { control, ports, spare, .. } = self;
                let listener = port.map_or(control, |port| &mut ports[port].listener);
                listener.shed(now, spare);
            }
            AcceptOutcome::Gone | AcceptOutcome::Nobody => {}
        }
    }
}

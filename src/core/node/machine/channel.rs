//! The channel of an attempt to its master: the session that stands, or that is waited for, and the
//! messages that the master may not have received.

use super::events::{NodeAction, SessionIx};
use super::lease::MasterLease;
use crate::core::error::Error;
use crate::core::node::replay_buffer::ReplayBuffer;
use crate::core::units::Moment;
use crate::core::wire::control::{self, ToMaster};

/// The way to the master of an attempt.
///
/// ```text
///          broken            resumed
///    Up ──────────▶ Lost ──────────────▶ Up
///    │ good-bye      │ lease over, or another attempt takes its place
///    ▼               ▼
/// Leaving           Gone
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MasterLink {
    /// Its session stands.
    Up(SessionIx),
    /// Its session broke. The attempt goes on as long as the lease lets it.
    Lost(MasterLease),
    /// It has said good-bye. The session is closed when nothing is left of the transfer.
    Leaving(SessionIx),
    /// Nobody is left who could be told.
    Gone,
}

impl MasterLink {
    /// The session on which messages are sent now.
    pub(super) fn session(self) -> Option<SessionIx> {
        match self {
            MasterLink::Up(session) => Some(session),
            MasterLink::Lost(_) | MasterLink::Leaving(_) | MasterLink::Gone => None,
        }
    }

    /// Returns true if the master receives messages now, or may come back and receive them then.
    pub(super) fn is_told(self) -> bool {
        matches!(self, MasterLink::Up(_) | MasterLink::Lost(_))
    }
}

/// The channel of an attempt to its master.
pub(super) struct MasterChannel {
    pub(super) link: MasterLink,
    replay: ReplayBuffer,
}

impl MasterChannel {
    /// A channel whose first message, that of the attempt, has come.
    pub(super) fn new(session: SessionIx) -> MasterChannel {
        let mut replay = ReplayBuffer::default();
        replay.hear();
        MasterChannel { link: MasterLink::Up(session), replay }
    }

    /// The session on which messages are sent now.
    pub(super) fn session(&self) -> Option<SessionIx> {
        self.link.session()
    }

    /// Returns true if the master receives messages now, or may come back and receive them then.
    pub(super) fn is_told(&self) -> bool {
        self.link.is_told()
    }

    /// Returns the number of counted messages.
    pub(super) fn told_count(&self) -> u32 {
        self.replay.count()
    }

    /// A message has come.
    pub(super) fn hear(&mut self) {
        self.replay.hear();
    }

    /// Sends a message, and keeps it to be sent again on another session.
    #[expect(clippy::needless_pass_by_value, reason = "a message is made to be sent")]
    pub(super) fn send(&mut self, message: ToMaster) -> Option<NodeAction> {
        let mut is_counted = message.is_counted();
        let message = control::encode(&message).unwrap_or_else(|error| {
            // It costs this transfer, and no other one. Ranges and statistics may be what is too
            // large.
            let error = Error::from(error).remedy("split the transfer, or give it larger blocks");
            is_counted = true;
            control::encode(&ToMaster::Failed { error, stats: None }).expect("it has no lists")
        });
        if is_counted {
            self.replay.push(message.clone());
        }
        let session = self.session()?;
        Some(NodeAction::Send { session, message })
    }

    /// The master comes back on a new session, and has `heard` so many messages. Gives what is sent
    /// to it, and the session that stood here until now: it broke at the other end, and here nobody
    /// had noticed.
    pub(super) fn resume(
        &mut self,
        session: SessionIx,
        heard: u32,
    ) -> (impl Iterator<Item = NodeAction>, Option<SessionIx>) {
        let replaced = std::mem::replace(&mut self.link, MasterLink::Up(session)).session();
        let resumed = ToMaster::Resumed { heard: self.replay.heard() };
        let resumed = control::encode(&resumed).expect("it has no lists");
        let again = self.replay.unheard(heard).iter().cloned();
        let sent = [resumed].into_iter().chain(again);
        (sent.map(move |message| NodeAction::Send { session, message }), replaced)
    }

    /// The session broke.
    pub(super) fn lose(&mut self, now: Moment, launched: bool) {
        self.link = MasterLink::Lost(MasterLease::new(now, launched));
    }

    /// Nobody is told anything any more.
    pub(super) fn give_up(&mut self) {
        if self.is_told() {
            self.link = MasterLink::Gone;
        }
    }

    /// So many bytes have moved. Returns true if the master is lost and its lease is over.
    pub(super) fn is_over(&mut self, now: Moment, moved_bytes: u64) -> bool {
        match &mut self.link {
            MasterLink::Lost(lease) => lease.is_over(now, moved_bytes),
            MasterLink::Up(_) | MasterLink::Leaving(_) | MasterLink::Gone => false,
        }
    }

    /// The moment of the next look at the bytes that have moved, while the master is lost.
    pub(super) fn due(&self) -> Option<Moment> {
        match &self.link {
            MasterLink::Lost(lease) => Some(lease.due()),
            MasterLink::Up(_) | MasterLink::Leaving(_) | MasterLink::Gone => None,
        }
    }

    /// Closes the session of a master that has said good-bye.
    pub(super) fn close(&mut self) -> Option<NodeAction> {
        let MasterLink::Leaving(session) = self.link else { return None };
        self.link = MasterLink::Gone;
        Some(NodeAction::CloseSession { session })
    }
}

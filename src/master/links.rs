//! The master's way to one node: a session that is dialled again, over any of the node's NICs, when it breaks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::session::{Connection, Hello, Key, dial};
use crate::wire::control::Advert;
use crate::wire::version::Kind;

/// How long one address may take to answer when a session is resumed: a live node on a network of this world needs
/// milliseconds, and there are other addresses to try.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The pause between two tries, so that a node that turns us away is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(200);
/// How often each address of a node is tried before the node counts as lost.
const PASSES: usize = 2;

/// A node as the master reaches it.
pub(super) struct Link {
    pub(super) connection: Option<Connection>,
    /// Where the node can be reached: its control address, and one of each of its NICs.
    addresses: Vec<SocketAddr>,
    /// The address of the connection.
    at: Option<SocketAddr>,
    stage: Stage,
    /// Messages of the node's that were counted.
    heard: u32,
    /// When the next address of a broken session is tried.
    retry_at: Option<Instant>,
}

enum Stage {
    /// The node has not been met: a session that never stood cannot be resumed.
    Meeting,
    Up,
    /// The session broke, and has not been resumed; these addresses are still to be tried.
    Broken {
        to_try: VecDeque<SocketAddr>,
    },
}

impl Link {
    /// A node that nobody has dialled.
    pub(super) fn new() -> Link {
        Link { connection: None, addresses: Vec::new(), at: None, stage: Stage::Meeting, heard: 0, retry_at: None }
    }

    /// Starts to connect to a node for the first time.
    pub(super) fn dial(&mut self, address: SocketAddr, key: &Key, deadline: Instant) -> Result<()> {
        self.addresses = vec![address];
        self.connect(address, key, deadline)
    }

    fn connect(&mut self, address: SocketAddr, key: &Key, deadline: Instant) -> Result<()> {
        let hello = Hello { kind: Kind::Control, key_id: [0; 16] };
        self.at = Some(address);
        self.connection = Some(Connection::initiate(dial(address, None)?, hello, key, &[], deadline)?);
        Ok(())
    }

    /// A connection came up. Whether it is the first one; on a later one the session has to be resumed.
    pub(super) fn up(&mut self, advert: &Advert) -> bool {
        if !matches!(self.stage, Stage::Meeting) {
            return false;
        }
        self.stage = Stage::Up;
        for rail in &advert.rails {
            // Of several ports at one address, the first will do.
            if self.addresses[1..].iter().all(|known| known.ip() != rail.address.ip()) {
                self.addresses.push(rail.address);
            }
        }
        true
    }

    /// Whether messages can be sent: on a session that is being resumed they would overtake older ones.
    pub(super) fn takes_messages(&self) -> bool {
        matches!(self.stage, Stage::Up) && self.connection.as_ref().is_some_and(Connection::is_up)
    }

    /// The node has said how far it heard us: the session goes on.
    pub(super) fn resumed(&mut self) {
        self.stage = Stage::Up;
    }

    /// Counts a message of the node's.
    pub(super) fn hear(&mut self) {
        self.heard += 1;
    }

    pub(super) fn heard(&self) -> u32 {
        self.heard
    }

    /// The connection broke, or was not to be had. Whether there is something left to try; [`Link::retry_at`] says when.
    pub(super) fn broke(&mut self, now: Instant) -> bool {
        self.connection = None;
        match &self.stage {
            Stage::Meeting => {}
            Stage::Up => {
                self.stage = Stage::Broken { to_try: self.to_try() };
                self.retry_at = Some(now);
            }
            Stage::Broken { to_try } => self.retry_at = (!to_try.is_empty()).then(|| now + PAUSE),
        }
        self.retry_at.is_some()
    }

    /// Every address, those of other NICs first: the one that the session went over is likely what broke.
    fn to_try(&self) -> VecDeque<SocketAddr> {
        let broken = self.at.map(|at| at.ip());
        let (same, others): (Vec<_>, Vec<_>) = self.addresses.iter().partition(|it| Some(it.ip()) == broken);
        let pass = others.into_iter().chain(same);
        std::iter::repeat_n(pass, PASSES).flatten().collect()
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tries the next address.
    pub(super) fn retry(&mut self, now: Instant, key: &Key) -> Result<()> {
        self.retry_at = None;
        let Stage::Broken { to_try } = &mut self.stage else { return Ok(()) };
        let address = to_try.pop_front().expect("a retry is due only while there is something to try");
        self.connect(address, key, now + ANSWER_WITHIN)
    }
}

//! Link from the master to one node: a session that is dialled again, over any of the node's NICs,
//! if it breaks.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::dialing::NodeDialing;
use crate::core::error::Result;
use crate::core::wire::control::RailAdvert;
use crate::core::wire::version::ConnectionKind;
use crate::io::session::{Connection, ConnectionHello, Key, dial};

/// Time for one address to answer when a session is resumed: a live node needs milliseconds, and
/// there are other addresses to try.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two attempts, so that a node that refuses is not dialled in a tight loop.
const PAUSE: Duration = Duration::from_millis(200);
/// Number of attempts for each address of a node before the node counts as lost.
const PASSES: usize = 2;

/// Link to one node.
pub(super) struct NodeLink {
    pub(super) connection: Option<Connection>,
    /// Its control addresses: all addresses of its name, and only the right one once it has
    /// connected.
    addresses: Box<[SocketAddr]>,
    /// Peer address of the connection.
    at: Option<IpAddr>,
    stage: LinkStage,
    /// Number of counted messages from the node.
    heard: u32,
}

// Tens of thousands of links exist: a link without its connection, together with `PeerRecord`,
// stays within 256 bytes.
const _: () = assert!(size_of::<NodeLink>() - size_of::<Option<Connection>>() <= 96);

enum LinkStage {
    /// The node has not connected yet, and may be dialled: a session that was never up cannot be
    /// resumed.
    Meeting(Option<Box<NodeDialing>>),
    Up,
    Broken(Box<BrokenSession>),
}

/// A broken session that has not been resumed.
struct BrokenSession {
    /// Addresses that are still to be tried.
    to_try: VecDeque<SocketAddr>,
    /// Moment of the next attempt.
    retry_at: Option<Instant>,
}

impl NodeLink {
    /// Creates the link to a node that has not been dialled.
    pub(super) fn new(addresses: &[SocketAddr]) -> NodeLink {
        NodeLink {
            connection: None,
            addresses: addresses.into(),
            at: None,
            stage: LinkStage::Meeting(None),
            heard: 0,
        }
    }

    /// Begins to dial a node for the first time, if its addresses are known.
    pub(super) fn meet(&mut self, now: Instant, deadline: Instant) {
        if !self.addresses.is_empty() {
            self.stage = LinkStage::Meeting(Some(Box::new(NodeDialing::new(
                now,
                &self.addresses,
                deadline,
            ))));
        }
    }

    /// Returns the dialling of a node that has not connected yet.
    pub(super) fn meeting(&mut self) -> Option<&mut NodeDialing> {
        match &mut self.stage {
            LinkStage::Meeting(meeting) => meeting.as_deref_mut(),
            LinkStage::Up | LinkStage::Broken(_) => None,
        }
    }

    /// Returns the moment of the dialling's next action.
    pub(super) fn meeting_due(&self) -> Option<Instant> {
        match &self.stage {
            LinkStage::Meeting(meeting) => meeting.as_ref()?.due(),
            LinkStage::Up | LinkStage::Broken(_) => None,
        }
    }

    /// Takes the connection at a place of the dialling, which is up, as the node's.
    pub(super) fn met(&mut self, place: usize) {
        let LinkStage::Meeting(meeting) = &mut self.stage else { return };
        if let Some((address, connection)) = meeting.take().and_then(|meeting| meeting.take(place))
        {
            self.connection = Some(connection);
            (self.at, self.addresses) = (Some(address.ip()), [address].into());
        }
    }

    fn connect(&mut self, address: SocketAddr, key: &Key, deadline: Instant) -> Result<()> {
        let hello = ConnectionHello { kind: ConnectionKind::Control, key_id: [0; 16] };
        self.at = Some(address.ip());
        self.connection =
            Some(Connection::initiate(dial(address, None)?, hello, key, &[], deadline)?);
        Ok(())
    }

    /// Records that a connection is up. Returns true for the first one; on a later one, the session
    /// must be resumed.
    pub(super) fn up(&mut self) -> bool {
        let is_first = matches!(self.stage, LinkStage::Meeting(_));
        if is_first {
            self.stage = LinkStage::Up;
        }
        is_first
    }

    /// Returns true if messages can be sent. On a session that is being resumed they would overtake
    /// older ones.
    pub(super) fn takes_messages(&self) -> bool {
        matches!(self.stage, LinkStage::Up)
            && self.connection.as_ref().is_some_and(Connection::is_up)
    }

    /// Returns true on a replacement session until the node reports the number of messages it
    /// received.
    pub(super) fn is_resuming(&self) -> bool {
        matches!(self.stage, LinkStage::Broken(_))
    }

    /// Continues the session: the node has reported the number of messages it received.
    pub(super) fn resumed(&mut self) {
        self.stage = LinkStage::Up;
    }

    /// Counts a message of the node.
    pub(super) fn hear(&mut self) {
        self.heard += 1;
    }

    pub(super) fn heard(&self) -> u32 {
        self.heard
    }

    /// Records that the connection broke or failed. Returns true if an address is left to try, at
    /// [`NodeLink::retry_at`]. `rails` are those of the node's advert.
    pub(super) fn broke(&mut self, now: Instant, rails: &[RailAdvert]) -> bool {
        self.connection = None;
        match &mut self.stage {
            LinkStage::Meeting(_) => false,
            LinkStage::Up => {
                let to_try = self.to_try(rails);
                self.stage =
                    LinkStage::Broken(Box::new(BrokenSession { to_try, retry_at: Some(now) }));
                true
            }
            LinkStage::Broken(broken) => {
                broken.retry_at = (!broken.to_try.is_empty()).then(|| now + PAUSE);
                broken.retry_at.is_some()
            }
        }
    }

    /// Returns its control address and one address of each of its NICs. NICs other than that of the
    /// broken session come first: that one is likely the cause.
    fn to_try(&self, rails: &[RailAdvert]) -> VecDeque<SocketAddr> {
        let mut nics: Vec<SocketAddr> = Vec::new();
        for rail in rails {
            // One of several ports at an address is enough.
            if nics.iter().all(|known| known.ip() != rail.address.ip()) {
                nics.push(rail.address);
            }
        }
        let all = self.addresses.iter().copied().chain(nics);
        let (same, others): (Vec<_>, Vec<_>) = all.partition(|it| Some(it.ip()) == self.at);
        let pass = others.into_iter().chain(same);
        std::iter::repeat_n(pass, PASSES).flatten().collect()
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        match &self.stage {
            LinkStage::Broken(broken) => broken.retry_at,
            LinkStage::Meeting(_) | LinkStage::Up => None,
        }
    }

    /// Tries the next address.
    pub(super) fn retry(&mut self, now: Instant, key: &Key) -> Result<()> {
        let LinkStage::Broken(broken) = &mut self.stage else { return Ok(()) };
        broken.retry_at = None;
        let address =
            broken.to_try.pop_front().expect("a retry is due only while there is something to try");
        self.connect(address, key, now + ANSWER_WITHIN)
    }
}

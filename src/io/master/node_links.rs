//! The master's way to one node: a session that is dialled again, over any of the node's NICs, when
//! it breaks.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::dialing::NodeDialing;
use crate::core::error::Result;
use crate::core::wire::control::RailAdvert;
use crate::core::wire::version::ConnectionKind;
use crate::io::session::{Connection, ConnectionHello, Key, dial};

/// How long one address may take to answer when a session is resumed: a live node on a network of
/// this world needs milliseconds, and there are other addresses to try.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The pause between two tries, so that a node that turns us away is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(200);
/// How often each address of a node is tried before the node counts as lost.
const PASSES: usize = 2;

/// A node as the master reaches it.
pub(super) struct NodeLink {
    pub(super) connection: Option<Connection>,
    /// Its control addresses: those of its name, and only the right one once it was met.
    addresses: Box<[SocketAddr]>,
    /// Where the connection leads.
    at: Option<IpAddr>,
    stage: LinkStage,
    /// Messages of the node's that were counted.
    heard: u32,
}

// Tens of thousands of nodes are kept: what a link takes beside its connection, with `Peer`, stays
// within 256 bytes.
const _: () = assert!(size_of::<NodeLink>() - size_of::<Option<Connection>>() <= 96);

enum LinkStage {
    /// The node has not been met, and may be dialled: a session that never stood cannot be resumed.
    Meeting(Option<Box<NodeDialing>>),
    Up,
    Broken(Box<BrokenSession>),
}

/// A session that broke, and has not been resumed.
struct BrokenSession {
    /// The addresses that are still to be tried.
    to_try: VecDeque<SocketAddr>,
    /// When the next of them is tried.
    retry_at: Option<Instant>,
}

impl NodeLink {
    /// A node that nobody has dialled, or that nobody can.
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

    /// The dialling of a node that has not been met.
    pub(super) fn meeting(&mut self) -> Option<&mut NodeDialing> {
        match &mut self.stage {
            LinkStage::Meeting(meeting) => meeting.as_deref_mut(),
            LinkStage::Up | LinkStage::Broken(_) => None,
        }
    }

    /// When the dialling of a node has something to do.
    pub(super) fn meeting_due(&self) -> Option<Instant> {
        match &self.stage {
            LinkStage::Meeting(meeting) => meeting.as_ref()?.due(),
            LinkStage::Up | LinkStage::Broken(_) => None,
        }
    }

    /// The connection at a place of the dialling is up: it becomes the node's.
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

    /// A connection came up. Whether it is the first one; on a later one the session has to be
    /// resumed.
    pub(super) fn up(&mut self) -> bool {
        let is_first = matches!(self.stage, LinkStage::Meeting(_));
        if is_first {
            self.stage = LinkStage::Up;
        }
        is_first
    }

    /// Whether messages can be sent: on a session that is being resumed they would overtake older
    /// ones.
    pub(super) fn takes_messages(&self) -> bool {
        matches!(self.stage, LinkStage::Up)
            && self.connection.as_ref().is_some_and(Connection::is_up)
    }

    /// Whether the node has yet to say how far it heard us, on a session that takes the place of
    /// one that broke.
    pub(super) fn is_resuming(&self) -> bool {
        matches!(self.stage, LinkStage::Broken(_))
    }

    /// The node has said how far it heard us: the session goes on.
    pub(super) fn resumed(&mut self) {
        self.stage = LinkStage::Up;
    }

    /// Counts a message of the node's.
    pub(super) fn hear(&mut self) {
        self.heard += 1;
    }

    pub(super) fn heard(&self) -> u32 {
        self.heard
    }

    /// The connection broke, or was not to be had. Whether there is something left to try;
    /// [`Link::retry_at`] says when. `rails` are those that the node has advertised.
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

    /// Its control address and one of each of its NICs, those of other NICs than the one that the
    /// session went over first: that one is likely what broke.
    fn to_try(&self, rails: &[RailAdvert]) -> VecDeque<SocketAddr> {
        let mut nics: Vec<SocketAddr> = Vec::new();
        for rail in rails {
            // Of several ports at one address, the first will do.
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

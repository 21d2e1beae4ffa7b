//! The master's side of all its sessions: which node is dialled when, how often a session that
//! broke is resumed, what is said on it, and how sessions end. Pure: sockets are the loop's.
//!
//! ```text
//!            met                broken                resumed
//! Meeting ─────────▶ Up ─────────────────▶ Broken ──────────────▶ Up
//!    │ failed                                 │ all addresses tried, each of them twice
//!    ▼                                        ▼
//!   Lost                                     Lost
//! ```

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::coordinator::{Coordinator, CoordinatorAction, CoordinatorEvent, TransferPhase};
use super::incidents::NodeIncident;
use crate::core::error::{Code, Error};
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::{NodeAdvert, RailAdvert, ResumeSession, ToMaster, ToNode};

/// Time for a node to be connected and to shake hands.
pub(crate) const SESSION_WITHIN: Duration = Duration::from_secs(10);
/// Limit on the nodes that are dialled at once. Each has [`SESSION_WITHIN`], of which a handshake
/// takes a fraction of a millisecond of the master's thread: all at once, the last of thousands
/// would be late.
const DIALS_MAX: usize = 256;
/// Time for one address to answer when a session is resumed: a live node on a network of
/// this world needs milliseconds, and there are other addresses to try.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The pause between two tries, so that a node that turns us away is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(200);
/// Number of times that each address of a node is tried before the node counts as lost.
const PASSES: usize = 2;
/// Time for receivers to confirm the end.
const GOODBYE_WITHIN: Duration = Duration::from_secs(10);

/// Input of a [`MasterMachine`].
#[derive(Clone, Debug)]
pub(crate) enum MasterEvent {
    /// A node is met: the connection to this address is up, and it says this of itself.
    Met { node: NodeIx, address: SocketAddr, advert: NodeAdvert },
    /// A connection is up that takes the place of one that broke.
    Reconnected { node: NodeIx },
    /// A connection broke, or could not be had.
    Broken { node: NodeIx, error: Error },
    /// A node closed its connection.
    Closed { node: NodeIx },
    /// A node says what has no meaning, or cannot be dialled at all.
    Unusable { node: NodeIx, error: Error },
    /// A node says something.
    Message { node: NodeIx, message: ToMaster },
    /// The message to a node exceeds the largest size.
    Oversized { node: NodeIx, error: Error },
    /// The user, or a signal, ends the transfer.
    Cancel { reason: String },
    /// The moment of `poll_timeout` has come.
    Tick,
}

/// Output of a [`MasterMachine`].
#[derive(Clone, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "an action is carried out as soon as it is there")]
pub(crate) enum MasterAction {
    /// Dial all addresses of a node, until one answers; answered by `Met` or `Broken`.
    Meet { node: NodeIx, addresses: Vec<SocketAddr>, until: Moment },
    /// Dial one address of a node; answered by `Reconnected` or `Broken`.
    Dial { node: NodeIx, address: SocketAddr, until: Moment },
    /// Send a message to a node.
    Send { node: NodeIx, message: ToNode },
    /// Close a connection in good order; answered by `Closed` or `Broken`.
    Close { node: NodeIx },
    /// Forget a connection.
    Drop { node: NodeIx },
}

/// The way to one node.
#[derive(Debug)]
pub(crate) struct NodeLink {
    /// Its control addresses: those of its name, and only the right one once it was met.
    addresses: Box<[SocketAddr]>,
    /// Remote address of the connection.
    at: Option<IpAddr>,
    stage: LinkStage,
    /// Number of counted messages that the node has sent.
    heard: u32,
}

// Tens of thousands of nodes are kept: what a link takes beside its connection, with `PeerRecord`,
// stays within 256 bytes.
const _: () = assert!(size_of::<NodeLink>() <= 88);

#[derive(Debug)]
enum LinkStage {
    /// Nobody has dialled it yet.
    Absent,
    /// It is dialled, and has not been met: a session that never stood cannot be resumed.
    Meeting,
    Up,
    /// Its session broke.
    Broken(Box<BrokenSession>),
    /// It has said good-bye, or cannot be reached.
    Gone,
}

/// A session that broke, and has not been resumed.
#[derive(Debug)]
struct BrokenSession {
    /// The addresses that are still to be tried.
    to_try: VecDeque<SocketAddr>,
    /// Moment of the next try; `None` while an address is being dialled.
    retry_at: Option<Moment>,
}

impl NodeLink {
    /// A node that nobody has dialled.
    fn new(addresses: &[SocketAddr]) -> NodeLink {
        NodeLink { addresses: addresses.into(), at: None, stage: LinkStage::Absent, heard: 0 }
    }

    /// Returns true if messages can be sent: on a session that is being resumed they would overtake
    /// older ones.
    fn takes_messages(&self) -> bool {
        matches!(self.stage, LinkStage::Up)
    }

    /// The addresses to try when the session broke: its control address and one of each of its
    /// NICs, those of other NICs than the one that the session went over first: that one is likely
    /// what broke.
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

    /// Returns the moment at which the next address is tried.
    fn retry_at(&self) -> Option<Moment> {
        match &self.stage {
            LinkStage::Broken(broken) => broken.retry_at,
            LinkStage::Absent | LinkStage::Meeting | LinkStage::Up | LinkStage::Gone => None,
        }
    }
}

/// A master: the coordinator of a transfer, and its sessions with the nodes.
///
/// Events: `handle`. Actions: `poll_action`, until `None`. Time: `poll_timeout`. Questions:
/// `coordinator`, `is_over`.
pub(crate) struct MasterMachine {
    coordinator: Coordinator,
    links: Vec<NodeLink>,
    /// The first node that nobody has dialled.
    next_to_dial: usize,
    /// Nodes that are being met, or whose sessions broke.
    unsettled: BTreeSet<NodeIx>,
    actions: VecDeque<MasterAction>,
    /// Sessions are being closed: until when, and which nodes have yet to close their ends.
    closing: Option<(Moment, BTreeSet<NodeIx>)>,
}

impl MasterMachine {
    /// A master that dials the nodes of its coordinator's roster; `addresses` are those of their
    /// names, or why they are not known.
    pub(crate) fn new(
        now: Moment,
        coordinator: Coordinator,
        addresses: Vec<Result<Vec<SocketAddr>, Error>>,
    ) -> MasterMachine {
        let known = |addresses: &Result<Vec<SocketAddr>, Error>| {
            NodeLink::new(addresses.as_deref().unwrap_or_default())
        };
        let mut machine = MasterMachine {
            links: addresses.iter().map(known).collect(),
            coordinator,
            next_to_dial: 0,
            unsettled: BTreeSet::new(),
            actions: VecDeque::new(),
            closing: None,
        };
        let nodes = (0..).map(NodeIx);
        for (node, error) in nodes.zip(addresses).filter_map(|(node, it)| Some((node, it.err()?))) {
            machine.lose(now, node, error);
        }
        machine.go_on(now);
        machine
    }

    pub(crate) fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    pub(crate) fn into_coordinator(self) -> Coordinator {
        self.coordinator
    }

    /// Returns true if the transfer has ended and sessions are being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns true if the transfer and all sessions have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.closing.as_ref().is_some_and(|(_, awaited)| awaited.is_empty())
    }

    /// Takes in what happened.
    pub(crate) fn handle(&mut self, now: Moment, event: MasterEvent) {
        match event {
            MasterEvent::Met { node, address, advert } => self.met(now, node, address, advert),
            MasterEvent::Reconnected { node } => self.reconnected(node),
            MasterEvent::Broken { node, error } => self.broken(now, node, error),
            MasterEvent::Closed { node } => {
                let what = "the node ended its control session";
                self.lose(now, node, Error::new(Code::Unreachable, what));
            }
            MasterEvent::Unusable { node, error } => self.lose(now, node, error),
            MasterEvent::Message { node, message } => self.message(now, node, message),
            MasterEvent::Oversized { node, error } => {
                self.coordinator.handle(now, CoordinatorEvent::Oversized { node, error });
            }
            MasterEvent::Cancel { reason } => self.cancel(now, reason),
            MasterEvent::Tick => self.tick(now),
        }
        self.go_on(now);
    }

    /// The next thing to do. The coordinator's messages are made as they are asked for.
    pub(crate) fn poll_action(&mut self) -> Option<MasterAction> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        loop {
            let CoordinatorAction { node, message } = self.coordinator.poll_action()?;
            // A node that takes no messages is told when its session is resumed: the coordinator
            // remembers.
            if self.links[node.at()].takes_messages() {
                return Some(MasterAction::Send { node, message });
            }
        }
    }

    /// Returns the moment at which `Tick` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        if let Some((until, awaited)) = &self.closing {
            return (!awaited.is_empty()).then_some(*until);
        }
        let retries = self.unsettled.iter().filter_map(|node| self.links[node.at()].retry_at());
        retries.chain(self.coordinator.poll_timeout()).min()
    }

    fn go_on(&mut self, now: Moment) {
        self.dial_some(now);
        if self.coordinator.phase() == TransferPhase::Done && self.closing.is_none() {
            self.close(now);
        }
    }

    /// Dials as many nodes as may be dialled at once.
    fn dial_some(&mut self, now: Moment) {
        while self.unsettled.len() < DIALS_MAX
            && self.coordinator.phase() == TransferPhase::Meeting
            && let Some(link) = self.links.get_mut(self.next_to_dial)
        {
            let node = NodeIx(u32::try_from(self.next_to_dial).expect("nodes are counted so"));
            self.next_to_dial += 1;
            if matches!(link.stage, LinkStage::Absent) {
                link.stage = LinkStage::Meeting;
                self.unsettled.insert(node);
                let (addresses, until) = (link.addresses.to_vec(), now + SESSION_WITHIN);
                self.actions.push_back(MasterAction::Meet { node, addresses, until });
            }
        }
    }

    fn met(&mut self, now: Moment, node: NodeIx, address: SocketAddr, advert: NodeAdvert) {
        let link = &mut self.links[node.at()];
        if matches!(link.stage, LinkStage::Meeting) {
            link.stage = LinkStage::Up;
            (link.at, link.addresses) = (Some(address.ip()), [address].into());
            self.unsettled.remove(&node);
            self.coordinator.handle(now, CoordinatorEvent::NodeUp { node, advert });
        }
    }

    /// Asks a node to go on where the session broke.
    fn reconnected(&mut self, node: NodeIx) {
        let link = &self.links[node.at()];
        if matches!(link.stage, LinkStage::Broken(_)) {
            let (identity, heard) = (self.coordinator.terms().identity(), link.heard);
            let (transfer, attempt) = (identity.transfer, identity.attempt);
            let message = ToNode::Resume(ResumeSession { transfer, attempt, heard });
            self.actions.push_back(MasterAction::Send { node, message });
        }
    }

    /// A connection to a node broke: the session is resumed over another one, unless the node is
    /// done, or not to be had.
    fn broken(&mut self, now: Moment, node: NodeIx, error: Error) {
        if self.closing.is_some() {
            return self.lose(now, node, error);
        }
        let peer = &self.coordinator.peers()[node.at()];
        let is_gone = peer.is_gone();
        let rails = peer.advert().map_or(Vec::new(), |advert| advert.rails);
        let link = &mut self.links[node.at()];
        let retry_at = match &mut link.stage {
            LinkStage::Up => {
                if !is_gone {
                    let error = error.clone();
                    self.coordinator.incidents.add(NodeIncident::Broken { node, error });
                }
                let to_try = link.to_try(&rails);
                link.stage =
                    LinkStage::Broken(Box::new(BrokenSession { to_try, retry_at: Some(now) }));
                Some(now)
            }
            LinkStage::Broken(broken) => {
                broken.retry_at = (!broken.to_try.is_empty()).then(|| now + PAUSE);
                broken.retry_at
            }
            LinkStage::Absent | LinkStage::Meeting | LinkStage::Gone => None,
        };
        match retry_at {
            Some(_) if !is_gone => _ = self.unsettled.insert(node),
            _ => self.lose(now, node, error),
        }
    }

    fn lose(&mut self, now: Moment, node: NodeIx, error: Error) {
        let link = &mut self.links[node.at()];
        if matches!(link.stage, LinkStage::Gone) {
            return;
        }
        *link = NodeLink { stage: LinkStage::Gone, ..NodeLink::new(&[]) };
        self.unsettled.remove(&node);
        self.actions.push_back(MasterAction::Drop { node });
        if let Some((_, awaited)) = &mut self.closing {
            awaited.remove(&node);
        } else {
            self.coordinator.handle(now, CoordinatorEvent::NodeDown { node, error });
        }
    }

    fn message(&mut self, now: Moment, node: NodeIx, message: ToMaster) {
        let link = &mut self.links[node.at()];
        let is_resuming = matches!(link.stage, LinkStage::Broken(_));
        // On a session that is being resumed nothing of the attempt comes before `Resumed`.
        link.heard += u32::from(message.is_counted() && !is_resuming);
        if let ToMaster::Progress { lost, .. } = &message {
            let lost = lost.iter().cloned().map(|loss| NodeIncident::Flow { node, loss });
            lost.for_each(|incident| self.coordinator.incidents.add(incident));
        }
        match message {
            _ if self.closing.is_some() => {}
            ToMaster::Resumed { heard } if is_resuming => {
                link.stage = LinkStage::Up;
                self.unsettled.remove(&node);
                self.coordinator.handle(now, CoordinatorEvent::NodeBack { node, heard });
            }
            ToMaster::Resumed { .. } => {}
            // The session broke before the node was prepared, or before that was known here.
            ToMaster::Failed { .. } if is_resuming && link.heard == 0 => {
                link.stage = LinkStage::Up;
                self.unsettled.remove(&node);
                self.coordinator.handle(now, CoordinatorEvent::NodeBack { node, heard: 0 });
            }
            // It was started anew, and what we knew is lost, no less than if nobody had answered.
            // Whether that matters depends on how far the transfer is.
            ToMaster::Failed { error, .. } if is_resuming => self.lose(now, node, error),
            message => self.coordinator.handle(now, CoordinatorEvent::Message { node, message }),
        }
    }

    fn cancel(&mut self, now: Moment, reason: String) {
        match &mut self.closing {
            // Nobody waits any longer for good-byes.
            Some((_, awaited)) => awaited.clear(),
            None => self.coordinator.handle(now, CoordinatorEvent::Cancel { reason }),
        }
    }

    fn tick(&mut self, now: Moment) {
        if self.closing.as_ref().is_some_and(|(until, _)| now >= *until) {
            return self.stop_waiting();
        }
        let is_due = |node: &&NodeIx| self.links[node.at()].retry_at().is_some_and(|it| now >= it);
        let due: Vec<NodeIx> = self.unsettled.iter().filter(is_due).copied().collect();
        for node in due {
            if let LinkStage::Broken(broken) = &mut self.links[node.at()].stage {
                broken.retry_at = None;
                let address = broken.to_try.pop_front().expect("a retry is due while one is left");
                self.links[node.at()].at = Some(address.ip());
                let until = now + ANSWER_WITHIN;
                self.actions.push_back(MasterAction::Dial { node, address, until });
            }
        }
        if self.coordinator.poll_timeout().is_some_and(|due| now >= due) {
            self.coordinator.handle(now, CoordinatorEvent::Tick);
        }
    }

    /// Closes every session in good order. A receiver closes its end when no record of the transfer
    /// is left beside its files: that is waited for, so that nothing is left when this process says
    /// that all is done.
    fn close(&mut self, now: Moment) {
        let mut awaited = BTreeSet::new();
        for (node, link) in (0..).map(NodeIx).zip(&mut self.links) {
            match link.stage {
                LinkStage::Up => {
                    self.actions.push_back(MasterAction::Close { node });
                    let receives = self.coordinator.roster().get(node).receives();
                    if receives && self.coordinator.error().is_none() {
                        awaited.insert(node);
                    }
                }
                // An answer that comes now has nobody to go to: the transfer is over.
                LinkStage::Meeting | LinkStage::Broken(_) => {
                    link.stage = LinkStage::Gone;
                    self.actions.push_back(MasterAction::Drop { node });
                }
                LinkStage::Absent | LinkStage::Gone => {}
            }
        }
        self.unsettled.clear();
        self.closing = Some((now + GOODBYE_WITHIN, awaited));
    }

    fn stop_waiting(&mut self) {
        let Some((_, awaited)) = &mut self.closing else { return };
        for node in std::mem::take(awaited) {
            let name = &self.coordinator.roster().get(node).address;
            let what = format!(
                "{name} has not confirmed the end: until then, records are left beside its files"
            );
            self.coordinator.warn(what);
        }
    }
}

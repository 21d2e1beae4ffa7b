//! The vocabulary of the simulator: events that are to happen, and the names of the parts that they
//! happen to.

use super::disk::PiecePayload;
use super::net::NodeLinks;
use super::world::{InjectedFault, MasterIx, SimEndpoint};
use crate::core::error::Error;
use crate::core::node::machine::{NodeEvent, SessionIx};
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::rail::{FlowPlace, LoadingPiece, ReadMode, SendOutcome, SlotIx};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::units::{BitRate, NodeIx};
use crate::core::wire::Frame;
use crate::core::wire::control::{ToMaster, ToNode};

/// A control session, with the places at its ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SessionRef {
    pub(super) session: SessionIx,
    pub(super) master: MasterIx,
    pub(super) node: NodeIx,
}

impl SessionRef {
    pub(super) fn place(self, end: SessionEnd) -> SimEndpoint {
        match end {
            SessionEnd::Master => SimEndpoint::Master(self.master),
            SessionEnd::Node => SimEndpoint::Node(self.node),
        }
    }
}

/// One end of a control session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum SessionEnd {
    Master,
    Node,
}

impl SessionEnd {
    pub(super) fn other(self) -> SessionEnd {
        match self {
            SessionEnd::Master => SessionEnd::Node,
            SessionEnd::Node => SessionEnd::Master,
        }
    }
}

/// The way in which a session ended at its other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionClose {
    /// With the good-bye of the protocol.
    GoodBye,
    /// Between two messages, without a good-bye.
    Closed,
    /// By an error.
    Reset,
}

/// One rail of a node. Never reused within a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SimRailIx(pub(super) u32);

/// One end of a flow, as its node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowEnd {
    pub(super) peer: NodeIx,
    /// The flow's index at the peer.
    pub(super) there: FlowIx,
}

/// A message on a flow from a sender to a receiver.
#[derive(Clone, Debug)]
pub(super) struct FlowMessage {
    pub(super) frame: Frame,
    /// Behind a header that brings a piece.
    pub(super) payload: Option<PiecePayload>,
}

/// A message in the network, with the end that it comes from.
#[derive(Clone, Debug)]
pub(super) struct FlowTransit {
    pub(super) sender: NodeIx,
    /// The flow's index at the sender.
    pub(super) from: FlowIx,
    pub(super) message: FlowMessage,
}

/// A flow that is being opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimOpening {
    pub(super) receiver: NodeIx,
    pub(super) transfer: TransferIx,
    pub(super) rail_pair: RailPair,
    pub(super) weight: u64,
}

/// An operation of a simulated kernel that ends.
#[derive(Clone, Debug)]
pub(super) enum KernelOp {
    RequestsSent(FlowPlace),
    Payload(SlotIx),
    Write(SlotIx),
    Read(SlotIx, LoadingPiece, ReadMode),
    Sent(SlotIx, SendOutcome, bool),
    RefusalSent(FlowPlace),
    Released(SlotIx),
}

/// An event that will happen at a moment.
#[derive(Clone, Debug)]
pub(super) enum SimEvent {
    /// A master that was added begins its attempt.
    #[cfg_attr(not(test), allow(dead_code, reason = "a forecast has one master"))]
    MasterBegins(MasterIx),
    /// A master's dialling reaches a node.
    Connect(SessionRef),
    /// The node's side of the handshake reaches the master.
    Connected(SessionRef),
    /// The node's kernel turns the master away.
    Refused(SessionRef),
    /// The time for a handshake is over.
    DialOver(SessionRef),
    /// A message arrives. `index` counts the messages of its direction that both ends count.
    ToNode {
        session: SessionRef,
        index: Option<u32>,
        message: ToNode,
    },
    ToMaster {
        session: SessionRef,
        index: Option<u32>,
        message: ToMaster,
    },
    /// The end `at` finds that the other end is closed.
    EndClosed {
        session: SessionRef,
        at: SessionEnd,
        close: SessionClose,
    },
    /// The end `at` finds that its session is broken; with `if_silent` only if it still is.
    Breaks {
        session: SessionRef,
        at: SessionEnd,
        if_silent: bool,
    },
    /// An event of a node's machine.
    Node(NodeIx, NodeEvent),
    /// A worker of a node has done a piece of work.
    JobDone {
        node: NodeIx,
        job: u64,
    },
    FlowOpened(SimOpening),
    Request {
        receiver: NodeIx,
        sender: NodeIx,
        flow: FlowIx,
        frame: Frame,
    },
    Arrived {
        sender: NodeIx,
        receiver: NodeIx,
        flow: FlowIx,
        message: FlowMessage,
    },
    /// An operation of a node's kernel ends.
    Kernel {
        node: NodeIx,
        rail: SimRailIx,
        op: KernelOp,
    },
    /// A node finds that the peer has closed a flow.
    FlowClosed {
        node: NodeIx,
        flow: FlowIx,
        error: Error,
    },
    /// A node's links change; `told` is the line rate by which they do.
    Relink {
        node: NodeIx,
        links: NodeLinks,
        told: Option<BitRate>,
    },
    Fault(InjectedFault),
}

/// A way on which nothing overtakes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum OrderedChannel {
    /// To one end of a session.
    Session(SessionIx, SessionEnd),
    Requests(NodeIx, FlowIx),
    Data(NodeIx, FlowIx),
}

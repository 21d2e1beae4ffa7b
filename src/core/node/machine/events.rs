//! Events and actions of a node's machine.

use super::jobs::{JobAnswer, NodeJob};
use crate::core::error::Error;
use crate::core::piece::{FlowCommand, TransferIx};
use crate::core::rail::TransferCommand;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::wire::control::{
    FlowCall, PeerNode, Prepare, Start, SurveyAnswer, SurveyQuestion, ToMaster, ToNode,
};

/// A control session of this node. Never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct SessionIx(pub(crate) u64);

/// Origin of a master's session: equal for sessions of one address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct MasterOrigin(pub(crate) u64);

/// Input of a node's machine.
#[derive(Clone, Debug)]
pub(crate) enum NodeEvent {
    /// A master's session stands.
    SessionUp { session: SessionIx, origin: MasterOrigin },
    /// A master says something.
    Message { session: SessionIx, message: ToNode },
    /// A message came in that has no meaning.
    Garbled { session: SessionIx, error: Error },
    /// A session broke.
    SessionBroken { session: SessionIx },
    /// The master closed a session: with a good-bye, or without one.
    Closed { session: SessionIx, in_order: bool },
    /// So many bytes of payload were sent and received until now; answers `CountMoved`.
    Moved { transfer: TransferIx, moved_bytes: u64 },
    /// A message with its numbers; answers `Complete`.
    Completed { transfer: TransferIx, message: ToMaster },
    /// A worker that opens a transfer reads what is there already, so far.
    Reading { transfer: TransferIx, read_bytes: u64 },
    /// A worker answers.
    Worker { transfer: TransferIx, answer: JobAnswer },
    /// The rails have taken the files in, or cannot; answers `Join`.
    Joined { transfer: TransferIx, result: Result<(), Error> },
    /// Something happened to a flow or a piece.
    Flow { transfer: TransferIx, event: SchedulerEvent },
    /// A sender is not reached: it is to be asked to dial.
    Call { transfer: TransferIx, call: FlowCall },
    /// A destination failed under the rails: nothing more can land.
    Broken { transfer: TransferIx, error: Error },
    /// A rail holds nothing of a transfer any more.
    Drained { transfer: TransferIx, rail: usize },
    /// A rail itself failed, and with it its flows for these transfers.
    RailFailed { rail: usize, transfers: Vec<TransferIx>, error: Error },
    /// Paths of a survey were looked at; answers `Survey`.
    Surveyed { session: SessionIx, answers: Vec<SurveyAnswer> },
    /// Rails that no transfer needs are being ended.
    RailsEnding,
    /// They have ended.
    RailsEnded,
    /// The launcher of a launched node is out of reach over its own channel, or is there again.
    Launcher { is_silent: bool },
    /// Somebody asks the node to end.
    Stop,
    /// The moment of `poll_timeout` has come.
    Tick,
}

/// Output of a node's machine.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum NodeAction {
    /// A transfer begins over some of the node's rails: open what its rows name; answered by
    /// `Opened`.
    Begin { transfer: TransferIx, session: SessionIx, prepare: Box<Prepare>, rails: Vec<usize> },
    /// Nobody waits any more for what the worker that opens a transfer reads.
    Quit { transfer: TransferIx },
    /// Hand the files of a transfer to its rails; answered by `Joined`.
    Join { transfer: TransferIx },
    /// A plan says whom a transfer may ask, and what is zeros.
    Plan { transfer: TransferIx, start: Box<Start> },
    /// Have a worker do something.
    Work { transfer: TransferIx, job: NodeJob },
    /// Open a flow to a sender; answered by `FlowUp` or `OpenFailed`.
    OpenFlow { transfer: TransferIx, rail_pair: RailPair, weight: u64, pace_bytes_per_second: u64 },
    /// Open a flow to a receiver that calls.
    Call { transfer: TransferIx, call: FlowCall, receiver: PeerNode },
    /// Tell the rail of a flow.
    Flow { transfer: TransferIx, command: FlowCommand },
    /// Tell all rails of a transfer.
    Rails { transfer: TransferIx, command: TransferCommand },
    /// Say how many bytes have moved; answered by `Moved`.
    CountMoved { transfer: TransferIx },
    /// Fill in the numbers that rails and process have counted; answered by `Completed`.
    Complete { transfer: TransferIx, message: ToMaster },
    /// Look at paths for the master of a session; answered by `Surveyed`.
    Survey { session: SessionIx, questions: Vec<SurveyQuestion> },
    /// Remove what surveys of a session have made.
    EndSurvey { session: SessionIx },
    /// Send a message on a session.
    Send { session: SessionIx, message: Vec<u8> },
    /// Close a session.
    CloseSession { session: SessionIx },
    /// A transfer is over: forget all of it, but its files where those are remembered.
    Forget { transfer: TransferIx, keeps_files: bool, failure: Option<Error> },
    /// Close the remembered files of a transfer.
    Release { transfer: TransferIx },
    /// The node ends.
    Exit,
}

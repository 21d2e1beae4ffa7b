//! The vocabulary of the rail machine: what happens to a rail, what it wants done, and what it
//! tells the control thread.

use super::flow_table::FlowPlace;
use super::piece_map::PieceLocation;
use super::piece_sender::PieceRequest;
use super::read_mode::{CacheState, FallbackReason, ReadMode};
use super::slot_table::SlotIx;
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowCommand, Piece, TransferIx};
use crate::core::receiver::flow_growth::PathReading;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::Span;
use crate::core::wire::{Check, Frame};

/// The direction in which pieces go on a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlowDirection {
    /// This node asks and receives; `relays` where the peer passes on what it receives itself.
    Receive { relays: bool },
    /// This node is asked and sends; the plan wants `weight` bytes of it. Frames that are not in
    /// clear are sealed in a slot, and never sent from the page cache. `is_further` where the flow
    /// is beside the own one of its rail pair.
    Send { weight: u64, in_clear: bool, is_further: bool },
}

/// Command of the control thread for a transfer that the rail has joined.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TransferCommand {
    /// Other receivers will ask for these ranges: what lands of them is passed on.
    Relay { spans: Vec<Span> },
    /// A command of the scheduler for one flow.
    Flow(FlowCommand),
    /// A piece that other receivers may ask for has landed, over whichever rail.
    Offer { span: Span },
    /// Such a piece will never be here.
    Withdraw { span: Span },
    /// Close the flows that receive; answered by [`RailNotice::Drained`].
    Drain,
    /// Close what is left and forget the transfer.
    Leave,
}

/// Input of a [`super::RailMachine`].
#[derive(Clone, Debug)]
pub(crate) enum RailEvent {
    /// The control thread wants something.
    Command { transfer: TransferIx, command: TransferCommand },
    /// A flow broke, or an operation on it could not be begun.
    FlowBroken { flow: FlowPlace, error: Error },
    /// A `SendRequests` ended well.
    RequestsSent { flow: FlowPlace },
    /// A `ReceiveHeader` ended: the header of an answer.
    Header { flow: FlowPlace, frame: Frame },
    /// A `ReceivePayload` ended.
    PayloadDone { slot: SlotIx, outcome: PayloadOutcome },
    /// A `Write` ended: all of the piece is at all its places, or one place failed.
    WriteDone { slot: SlotIx, result: Result<(), Error> },
    /// A `ReceiveRequests` brought a header.
    Request { flow: FlowPlace, frame: Frame },
    /// All that a `ReceiveRequests` brought has been told.
    RequestsRead { flow: FlowPlace },
    /// A `Probe` ended.
    Probed { slot: SlotIx, cached: CacheState },
    /// A `Read` ended.
    ReadDone { slot: SlotIx, outcome: ReadOutcome },
    /// A `SendRefusal` ended well.
    RefusalSent { flow: FlowPlace },
    /// A `Send` ended; `is_held` where the kernel still reads the slot: `SlotReleased` follows.
    SendDone { slot: SlotIx, outcome: SendOutcome, is_held: bool },
    /// A `ReadPath` ended; `None` where the kernel does not tell.
    PathRead { flow: FlowPlace, reading: Option<PathReading> },
    /// The kernel reads a slot no more; `copied` where it had copied what was in it after all.
    SlotReleased { slot: SlotIx, copied: bool },
    /// The moment of `poll_timeout` has come.
    Tick,
}

/// Outcome of receiving the payload of a piece.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum PayloadOutcome {
    /// All of it, with its check where it is intact; `None` where it was changed.
    Whole { check: Option<Check> },
    /// The flow broke before.
    Broken(Error),
}

/// Outcome of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadOutcome {
    /// The piece and its header are ready to be sent.
    Loaded,
    /// The page cache does not hold all of it.
    NotCached,
    /// The file refuses to be read past the page cache.
    NotDirect,
    /// It cannot be had.
    Failed(Code),
}

/// Outcome of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendOutcome {
    Sent,
    /// The flow broke.
    Broken,
    /// The flow broke because the file gave less to a splice than it has.
    NotSpliced,
    /// Nothing was sent: the kernel does not send this without a copy.
    NoZerocopy,
}

/// The way that bytes take through the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum KernelRoute {
    /// From the page cache to the socket, without a copy.
    Splice,
    /// Read through the page cache into a slot, and sent.
    ReadSend,
    /// Read past the page cache into a slot, and sent.
    DirectSend,
    /// Made in a slot, and sent.
    PatternSend,
    /// Sent from a slot by a send that copies nothing where the device can do without.
    Zerocopy,
    /// Received and written past the page cache.
    ReceiveDirect,
    /// Received and written through the page cache.
    ReceiveWrite,
    /// Received, checked and dropped.
    Receive,
}

/// Output of a [`super::RailMachine`]. A flow has one operation of each kind at a time, a slot one
/// in all.
#[derive(Clone, Debug)]
pub(crate) enum RailAction {
    /// Send requests as [`super::RailMachine::poll_request`] gives them, as many as fit one send.
    SendRequests { flow: FlowPlace },
    /// Receive the header of an answer.
    ReceiveHeader { flow: FlowPlace },
    /// Receive the payload of a piece into a slot, and check it.
    ReceivePayload { slot: SlotIx, landing: LandingPiece },
    /// Write the piece in a slot to its places. `cached` where it is read again soon.
    Write { slot: SlotIx, transfer: TransferIx, piece: Span, cached: bool },
    /// Receive requests, as many as there are.
    ReceiveRequests { flow: FlowPlace },
    /// Look at what the page cache holds of a piece.
    Probe { slot: SlotIx, loading: LoadingPiece },
    /// Get a piece ready to be sent, in the slot.
    Read { slot: SlotIx, loading: LoadingPiece, mode: ReadMode },
    /// Send the piece in a slot behind its header.
    Send { slot: SlotIx, flow: FlowPlace, transfer: TransferIx, bytes: u64, route: KernelRoute },
    /// Send a header that refuses a request.
    SendRefusal { flow: FlowPlace, frame: Frame },
    /// Keep at most so many bytes unsent in the socket of a flow.
    SetUnsentMax { flow: FlowPlace, bytes: usize },
    /// Read the path of a flow that receives.
    ReadPath { flow: FlowPlace },
    /// Close a flow.
    CloseFlow { flow: FlowPlace },
    /// Note why another way was taken than the one that was asked for.
    NoteFallback { transfer: TransferIx, reason: FallbackReason },
    /// Let the files of a transfer go.
    Forget { transfer: TransferIx },
}

/// A piece on its way from a flow to the disk.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct LandingPiece {
    pub(crate) transfer: TransferIx,
    pub(crate) flow: FlowPlace,
    pub(crate) piece: Piece,
    /// That of its header; once the payload is here, its own.
    pub(crate) check: Check,
}

/// A piece on its way from the disk to a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LoadingPiece {
    pub(crate) transfer: TransferIx,
    pub(crate) flow: FlowPlace,
    pub(crate) request: PieceRequest,
    pub(crate) location: PieceLocation,
}

/// Notice of a rail to the control thread.
#[derive(Clone, Debug)]
pub(crate) enum RailNotice {
    /// Something for the scheduler of a transfer's pieces.
    Scheduler { transfer: TransferIx, event: SchedulerEvent },
    /// A destination failed.
    Broken { transfer: TransferIx, error: Error },
    /// Nothing of the transfer is about to land, and its flows are closed.
    Drained { transfer: TransferIx },
    /// The rail itself failed, and its flows with it. Told by what drives the machine.
    Failed { error: Error },
}

//! One rail: its two directions, as machines, and the machine that is both.
//!
//! 1. [`piece_receiver::PieceReceiver`] (one a rail and transfer) turns leases into requests, as
//!    many as [`flow_credit`] allows.
//! 2. [`piece_sender::PieceSender`] (one a rail) chooses which request is read next: assigned ones
//!    by weight, stolen ones when nothing else is asked. It sends each piece behind a header that
//!    carries its position and its check value.
//! 3. The receiver sees the header, has a slot bound and the payload received, checked and written.
//! 4. [`relay_queue::RelayQueue`] (one a rail and transfer) lets other receivers wait for what has
//!    not landed yet, and hands their requests to the sender once it has.

//! 5. [`RailMachine`] is all of that for one rail, with what is between these machines and a
//!    kernel: flows, slots and who may hold them, lines of answers, the way in which each piece is
//!    read and sent, and draining. A driver, the simulator and the fuzzers carry out the same
//!    actions.

mod flow_credit;
mod flow_table;
mod loading_table;
mod machine;
#[cfg(test)]
mod machine_tests;
mod messages;
mod piece_map;
mod piece_parts;
pub(crate) mod piece_receiver;
pub(crate) mod piece_sender;
mod read_mode;
mod receiving_rail;
mod relay_queue;
mod report_queue;
mod sending_rail;
mod slot_table;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use flow_credit::REQUESTS_MAX;
pub(crate) use flow_table::{FLOW_PLACES, FLOWS_MAX, FlowPlace};
pub(crate) use machine::RailMachine;
pub(crate) use messages::{
    FlowDirection, KernelRoute, LandingPiece, LoadingPiece, PayloadOutcome, RailAction, RailEvent,
    RailNotice, ReadOutcome, SendOutcome, TransferCommand,
};
pub(crate) use piece_map::{MappedDestination, MappedSource, PieceLocation, PieceMap, SourceKind};
pub(crate) use read_mode::{CacheState, FallbackReason, ReadMode};
pub(crate) use slot_table::SlotIx;

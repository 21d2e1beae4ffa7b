//! The two directions of one rail, as machines.
//!
//! 1. [`piece_receiver::PieceReceiver`] (one a rail and transfer) turns leases into requests, as
//!    many as [`flow_credit`] allows.
//! 2. [`piece_sender::PieceSender`] (one a rail) chooses which request is read next: assigned ones
//!    by weight, stolen ones when nothing else is asked. It sends each piece behind a header that
//!    carries its position and its check value.
//! 3. The receiver sees the header, has a slot bound and the payload received, checked and written.
//! 4. [`relay_queue::RelayQueue`] (one a rail and transfer) lets other receivers wait for what has
//!    not landed yet, and hands their requests to the sender once it has.

pub(crate) mod flow_credit;
pub(crate) mod piece_receiver;
pub(crate) mod piece_sender;
pub(crate) mod relay_queue;

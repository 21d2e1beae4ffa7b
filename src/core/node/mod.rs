//! A node's part in its transfers.
//!
//! - [`machine`]: all of it: sessions of masters, attempts, leases, deadlines
//! - [`participant`]: its part in one transfer
//! - [`ready_line`]: the line of a node that listens
//! - [`replay_buffer`]: messages that are sent again on another session

pub(crate) mod machine;
pub(crate) mod participant;
pub mod ready_line;
pub(crate) mod replay_buffer;

//! A node's part in its transfers.
//!
//! - [`machine`]: all of it: sessions of masters, attempts, leases, deadlines
//! - [`participant`]: its part in one transfer
//! - [`replay_buffer`]: messages that are sent again on another session

pub(crate) mod machine;
pub(crate) mod participant;
pub(crate) mod replay_buffer;

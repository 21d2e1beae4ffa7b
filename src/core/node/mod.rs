//! A node's part in one transfer.

pub(crate) mod participant;
pub(crate) mod replay_buffer;

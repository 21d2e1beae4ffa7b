//! User interfaces: the library's transfer, the command line, and the logic of its commands.

pub(crate) mod bench;
pub mod cli;
pub(crate) mod doctor;
pub(crate) mod transfer;

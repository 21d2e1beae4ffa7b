//! What users call: the library's transfer, the command line, and the commands' own rooms.

pub(crate) mod bench;
pub mod cli;
pub(crate) mod doctor;
pub(crate) mod transfer;

//! User interfaces: the library's transfer, the command line, and the logic of its commands.

#[cfg(feature = "cli")]
pub(crate) mod bench;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub(crate) mod doctor;
#[cfg(feature = "cli")]
mod report_table;
mod report_text;
pub(crate) mod transfer;

//! The command line: what was typed → what it means → what is printed.
//!
//! [`args`] and [`operand`] read what was typed, [`support`] refuses what this version does not
//! carry out, [`progress`] draws on standard error while bytes move, and [`exit`] turns the ending
//! into an exit status.

pub mod args;
pub mod exit;
pub mod operand;
pub mod progress;
pub mod support;

mod commands;
mod values;

pub use args::{Args, CliCommand};
pub use commands::main;
pub use exit::{exit_code, fail};
pub use operand::Operand;
pub use progress::{NodeProgress, ProgressDisplay, ProgressSnapshot};
pub use support::unsupported;

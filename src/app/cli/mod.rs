//! Command line: parsing, commands, output.
//!
//! [`args`] and [`operand`] parse the command line, [`support`] refuses features that this version
//! does not implement, [`progress`] draws on standard error while bytes move, `signals` cancel or
//! stop, and [`exit`] converts the outcome into an exit status.

pub mod args;
pub mod exit;
pub mod manual;
pub mod operand;
pub mod progress;
pub mod support;

mod bench_args;
mod commands;
mod events;
pub(crate) mod host_operand;
mod key_args;
mod launch_args;
mod root_arg;
mod signals;
mod transfer_args;
mod values;

pub use args::{Args, CliCommand};
pub use commands::main;
pub use exit::{exit_code, fail};
pub use operand::Operand;
pub use progress::{NodeProgress, ProgressDisplay, ProgressSnapshot};
pub use support::unsupported;

//! Moves a logical range of bytes from N sender nodes to M receiver nodes as fast as their NICs allow.

pub mod cli;
pub mod error;
pub mod report;
pub mod spec;
pub mod units;

mod clock;
mod engine;
mod launch;
mod master;
mod node;
mod plan;
mod rail;
mod session;
#[cfg(test)]
mod sim;
mod store;
mod transfer;
mod wire;

pub use error::{Code, Error, Result};
pub use report::Report;
pub use spec::Spec;
pub use store::PatternReader;
pub use transfer::{Checking, Handle, Settings, Transfer};

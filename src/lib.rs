//! Moves a logical range of bytes from N sender nodes to M receiver nodes as fast as their NICs allow.

pub mod cli;
pub mod error;
pub mod report;
pub mod spec;
pub mod units;

mod engine;
mod plan;
mod session;
mod store;
mod wire;

pub use error::{Code, Error, Result};

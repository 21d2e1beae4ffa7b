//! Moves a logical range of bytes from N sender nodes to M receiver nodes as fast as their NICs allow.

pub mod error;
pub mod units;

mod engine;
mod plan;
mod session;
mod spec;
mod store;
mod wire;

pub use error::{Code, Error, Result};
pub use store::PatternReader;

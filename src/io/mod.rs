//! Drivers around the pure core. They turn completions, messages and timeouts into events, and
//! actions into operations and messages.
//!
//! - [`clock`], [`log`], [`system_calls`]: time, lines on standard error, errors in words
//! - [`event_writer`]: lines for whoever watches a transfer
//! - [`store`]: sources and destinations
//! - [`confine`]: what the kernel lets this process do
//! - [`session`]: one secured connection
//! - [`rail`]: one thread, one ring, one NIC
//! - [`node`], [`master`]: the two event loops
//! - [`launch`]: starting nodes

pub(crate) mod clock;
pub(crate) mod confine;
pub(crate) mod event_writer;
pub(crate) mod launch;
pub(crate) mod log;
pub(crate) mod master;
pub(crate) mod node;
pub(crate) mod rail;
pub(crate) mod session;
pub(crate) mod store;
pub(crate) mod system_calls;

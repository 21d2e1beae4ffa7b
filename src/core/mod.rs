//! Pure core: everything that decides. Time, sizes, randomness and results are arguments; nothing
//! here uses a clock, socket, file, thread or hash map, so a whole cluster runs in the seeded
//! simulator exactly as on a network.
//!
//! - [`units`], [`error`], [`options`], [`piece`], [`block_grid`]: the vocabulary
//! - [`spec`], [`wire`], [`report`]: text, bytes and results
//! - [`load`]: what a machine did besides a transfer
//! - [`seal`]: frames are encrypted and authenticated
//! - [`access`]: public keys and their rights
//! - [`plan`]: rows and speeds in; segments, weights and the bound out
//! - [`check`]: check values of pieces, and their composition
//! - [`receiver`]: extent map and piece scheduler of one receiver
//! - [`rail`]: requests, answers and credit on the flows of one rail
//! - [`node`]: a node's part in one transfer
//! - [`master`]: the coordinator of one transfer
//! - [`launch`]: who starts the nodes, and what they are told
//! - [`store`]: offsets of bytes in files, and the aligned steps that move them
//! - [`sim`]: a cluster of these machines on virtual time
//! - [`doctor`]: judgement of a machine's readings against line rate
//! - [`fleet`]: judgement of many nodes against each other
//!
//! Every machine has the same shape: `handle(now, event)`, then `poll_action()` until it gives
//! `None`, and `poll_timeout()` for the moment at which `handle(now, Tick)` is due.

pub(crate) mod access;
pub(crate) mod block_grid;
pub(crate) mod check;
#[cfg(feature = "cli")]
pub(crate) mod doctor;
pub mod error;
#[cfg(feature = "cli")]
pub(crate) mod fleet;
pub(crate) mod launch;
pub(crate) mod load;
pub(crate) mod master;
pub(crate) mod node;
pub(crate) mod options;
pub(crate) mod piece;
pub(crate) mod plan;
pub(crate) mod rail;
pub(crate) mod receiver;
pub mod report;
pub(crate) mod seal;
pub(crate) mod sim;
pub mod spec;
pub(crate) mod store;
pub mod units;
pub(crate) mod wire;

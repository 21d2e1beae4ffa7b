//! Wire formats: data frames, control messages, and the preamble of every connection.
//!
//! Each part has two layers: a checked view over the bytes, and a typed message whose values are
//! valid. Input from peers is never trusted: lengths and counts are compared with [`limits`] before
//! anything is allocated for them. Nothing here uses clocks, sockets, files or threads.

pub(crate) mod check;
pub(crate) mod control;
mod convert;
mod error;
pub(crate) mod frame;
pub(crate) mod limits;
mod path;
mod proto;
mod scan;
pub(crate) mod terms;
pub(crate) mod version;

pub(crate) use check::Check;
pub(crate) use error::WireError;
pub(crate) use frame::Frame;

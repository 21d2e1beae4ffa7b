//! Start of nodes: what is decided about it.
//!
//! - [`method`]: where the nodes of a transfer come from

pub(crate) mod method;

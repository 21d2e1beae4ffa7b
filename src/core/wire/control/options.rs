//! Options of an attempt that the master sends to all nodes.

use crate::core::options::TransferOptions;
use crate::core::units::Span;

/// Options of an attempt: those of the transfer, and the cut of its data space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WireOptions {
    /// Size of a block of the grid; between 1 and the largest payload of a frame.
    pub(crate) block_bytes: u32,
    /// Origin of the grid.
    pub(crate) origin: u64,
    /// Range whose BLAKE3 digest can be computed, because the pieces are subtrees of it.
    pub(crate) object: Option<Span>,
    /// Options of the transfer, as nodes have them: [`TransferOptions::of_nodes`].
    pub(crate) transfer: TransferOptions,
}

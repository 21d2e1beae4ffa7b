//! Event loop of the master ([`run`]): control sessions to all nodes ([`node_links`]), and clients
//! that ask for its status ([`pending_connections`]). It is not on the data path, and a node needs
//! nothing from it between two plans.

mod close;
mod dialing;
pub(crate) mod file_limit;
mod node_links;
mod pending_connections;
pub(crate) mod run;

/// Returns the memory of a node without a session, and the part of it that is its connection.
#[cfg(feature = "stand-ins")]
pub(crate) fn laid_out_bytes() -> (usize, usize) {
    let connection = size_of::<Option<crate::io::session::Connection>>();
    (
        size_of::<crate::core::master::peer::PeerRecord>() + size_of::<node_links::NodeLink>(),
        connection,
    )
}

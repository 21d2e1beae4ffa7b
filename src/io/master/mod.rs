//! Event loop of the master ([`run`]): connections to all nodes, and clients that ask for its
//! status ([`pending_connections`], `client_door`), also those of its user on this machine
//! (`local_visitors`, `local_socket`, `private_directory`; their side is [`local_client`]). It is
//! not on the data path, and a node needs nothing from it between two plans. `host_log` is what
//! `-v` shows of it.

mod client_door;
mod dialing;
pub(crate) mod file_limit;
mod host_log;
pub(crate) mod local_client;
mod local_frames;
pub(crate) mod local_socket;
mod local_visitors;
mod pending_connections;
mod private_directory;
pub(crate) mod run;
pub(crate) mod survey;

/// Returns the memory of a node without a session, and the part of it that is its connection.
#[cfg(feature = "stand-ins")]
pub(crate) fn laid_out_bytes() -> (usize, usize) {
    let connection = size_of::<Option<crate::io::session::Connection>>();
    let record = size_of::<crate::core::master::peer::PeerRecord>();
    let link = size_of::<crate::core::master::machine::NodeLink>();
    (record + link + size_of::<run::NodeConnection>(), connection)
}

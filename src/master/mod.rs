//! The master: who takes part ([`roster`]), on which terms ([`terms`]), who is asked what and
//! when ([`conduct`]), the loop around that ([`run`]), and what it came to ([`summary`]).
//! It is not on the data path, and a node needs nothing of it between two plans.

pub(crate) mod conduct;
mod counted;
mod ending;
mod farewell;
mod feedback;
mod landing;
mod links;
mod meeting;
mod modes;
mod overdue;
pub(crate) mod peer;
mod planning;
mod replicas;
mod resuming;
pub(crate) mod room;
pub(crate) mod roster;
pub(crate) mod run;
mod silence;
mod status;
pub(crate) mod summary;
pub(crate) mod terms;
mod visitors;

/// Memory that a node takes before its session stands, and what of that is its connection.
#[cfg(feature = "stand-ins")]
pub(crate) fn laid_out_bytes() -> (usize, usize) {
    let connection = size_of::<Option<crate::session::Connection>>();
    (size_of::<peer::PeerRecord>() + size_of::<links::NodeLink>(), connection)
}

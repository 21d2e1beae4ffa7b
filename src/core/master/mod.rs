//! The master's machine: who takes part ([`roster`]), on which terms ([`attempt`]), who is asked
//! what and when ([`coordinator`]), and what it came to ([`summary`]).

pub(crate) mod attempt;
pub(crate) mod coordinator;
mod counter_check;
mod deadlines;
pub(crate) mod file_modes;
mod landing;
pub(crate) mod peer;
mod planning;
mod replicas;
mod resume;
pub(crate) mod roster;
mod shutdown;
mod silent_senders;
mod speed_feedback;
pub(crate) mod status;
pub(crate) mod summary;

//! State machines of the master: participants ([`roster`]), their settings ([`attempt`]), messages
//! and phases ([`coordinator`]), control sessions ([`machine`]), and the result ([`summary`]).

pub(crate) mod attempt;
mod block_size;
pub(crate) mod channels;
pub(crate) mod coordinator;
mod counter_check;
mod current_plan;
mod deadlines;
mod ending;
pub(crate) mod events;
pub(crate) mod file_modes;
mod flow_calls;
mod group_dealing;
mod incidents;
mod landing;
pub(crate) mod machine;
mod overdue;
pub(crate) mod peer;
mod peer_table;
mod phase;
mod plan_context;
mod planning;
pub(crate) mod recent_rate;
mod replicas;
mod resume;
pub(crate) mod roster;
mod shutdown;
mod silent_senders;
mod speed_estimates;
mod speed_feedback;
pub(crate) mod status;
pub(crate) mod summary;

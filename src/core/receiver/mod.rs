//! Extent map of one receiver and the scheduler that asks senders for its pieces.
//!
//! [`scheduler::PieceScheduler`] (one a node and transfer) holds the extent map: which pieces have
//! landed, and a queue of pieces for each sender, cut by the plan's weights. It leases runs of
//! pieces to flows that have room, steals for flows that run dry, and composes the check values of
//! what has landed.

pub(crate) mod delivery_meter;
pub(crate) mod extent_map;
pub(crate) mod flow_growth;
mod flow_leases;
mod lease_limit;
mod plan_pacing;
pub(crate) mod rail_pairs;
pub(crate) mod rate_meter;
pub(crate) mod scheduler;
mod second_requests;
mod sender_faults;
mod sender_shares;
mod token_bucket;

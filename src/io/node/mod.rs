//! The node daemon: one control thread that listens, shakes hands and keeps each transfer's member,
//! and one rail or more for each NIC.
//!
//! The loop is thin: sockets become messages and flows here, and everything that decides is in
//! [`crate::core`]. Work that may block (opening, preallocating, syncing, renaming) is done by
//! short-lived worker threads, which answer through the same inbox as the rails.
//!
//! The loop, and what it is made of:
//!
//! - `daemon`: the node, and its turn
//! - `control`: what the machine wants done, as calls
//! - `intake`: connections, until they are up; `sessions`: the table of them; `keyring`: who may
//!   connect, with which key
//! - `flow_desk`: flows between sockets and rails
//! - `flow_opener`: flows that are dialled; `routes`: the ways of each; `openings`: the ways that
//!   one flow has tried; `call_answers`: flows to receivers that call; `devices`: which NIC a flow
//!   is bound to; `stuck`: data that does not arrive
//! - `listening`: where it listens
//! - `port_set`: all ports; `ports`: the NICs and where they listen; `port_rails`: the rails of
//!   each; `threads`: how many of them each NIC gets; `slots`: how large they are
//! - `file_workers`: work on files; `workers`: threads for what may block; `file_budget`:
//!   descriptors for the files of transfers
//! - `confinement`: what a node may open once it listens
//! - `inbox`: what rails and workers tell the control thread; `node_stop`: what ends the node
//!
//! One transfer:
//!
//! - `node_transfer`: one transfer on this node
//! - `transfer_flows`: its flows; `histories`: what the report tells of them
//! - `prepare`: opening sources and destinations
//! - `claims`: whether rows of other nodes name a file by another URI
//! - `reading`: how far a worker has read before its node is prepared
//! - `replicas`: what is compared of sources that others offer, too
//! - `keeping`: what is kept for another attempt, and found of an earlier one
//! - `verify`: bytes that are read again
//!
//! Besides:
//!
//! - [`options`]: what the daemon is told on its command line
//! - `ciphers`: which of them the processor is fast at
//! - `counters`: what the NICs counted
//! - `machine_load`: what the machine did besides, where a node is measured
//! - `transfer_log`: what the log says of transfers
//! - `usage`: processor time and memory

mod call_answers;
mod ciphers;
mod claims;
mod confinement;
mod control;
mod counters;
mod daemon;
mod devices;
mod file_budget;
mod file_workers;
mod flow_desk;
mod flow_opener;
mod histories;
mod inbox;
mod intake;
pub(crate) mod keeping;
mod keyring;
mod listening;
mod machine_load;
mod node_stop;
mod node_transfer;
mod openings;
mod port_rails;
mod port_set;
mod ports;
pub(crate) mod prepare;
pub(crate) mod reading;
pub(crate) mod replicas;
mod routes;
mod sessions;
mod slots;
mod stuck;
mod surveys;
mod threads;
mod transfer_flows;
mod transfer_log;
mod usage;
mod verify;
mod workers;

pub(crate) mod options;

pub(crate) use crate::io::store::AllowedKinds;
pub(crate) use daemon::run;
pub(crate) use node_stop::NodeStop;
pub(crate) use ports::{INSIDE_PREFIXES, LOOPBACK, is_link_local};
pub(crate) use slots::locked_bytes;
pub(crate) use threads::{NicLine, ThreadCount, threads};

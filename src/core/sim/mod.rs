//! A whole cluster on virtual time, from one seed: a fluid network, disks that take their time, and
//! whatever may befall all of them. Masters and nodes are the pure machines of real ones: each node
//! holds a `NodeMachine` with its `Participant`s and `RailMachine`s, each master a `MasterMachine`
//! with its `Coordinator`. The simulator carries out their actions and feeds them their events, as
//! `io/node`, `io/rail` and `io/master` do, and decides nothing for them. `plan --simulate` runs
//! it; so do tests, with real files (`tests/files.rs`) and random troubles (`tests/trial.rs`).
//!
//! Simulated are sockets, kernels, disks and threads: [`sessions`] and [`net`], [`rail`],
//! [`disk`], [`workers`]. What `io` itself does with real ones, such as handshakes, and the ways
//! that are tried to open a flow, is not run here.
//!
//! After every event the promises are asserted:
//!
//! - a byte that lands is the byte of its place, lands where it is wanted, and nothing lands after
//!   its receiver has said that it is done;
//! - every slot of a rail that is held is lent to the kernel;
//! - the messages that a master and a node count are applied in their order, each of them once,
//!   over however many sessions;
//! - a node gives up an attempt without a master only when nothing has moved for a lease.
//!
//! A transfer that is not over waits for something, and so does a node that holds anything when no
//! master is left. In the end no node holds a session, an attempt, a rail, a worker or a file.

mod cluster;
mod context;
mod disk;
mod dues;
mod faults;
mod flows;
mod forecast;
mod master;
mod messages;
mod net;
mod node;
mod rail;
mod rails;
mod schedule;
mod sessions;
mod timeline;
mod transfer;
mod workers;
mod world;

#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod tests;

pub(crate) use forecast::{NodeChange, SimScenario, TransferForecast, forecast};
pub(crate) use timeline::TimelineEntry;

//! A whole cluster on virtual time, from one seed: the real master and node machines, a fluid
//! network, disks that take their time, and whatever may befall all of them. Nothing here is a
//! model of our own code: it is our code, fed by a simulated world. `plan --simulate` runs it; so
//! do tests, with real files (`tests/files.rs`) and random troubles (`tests/trial.rs`).
//!
//! After every event the safety promises are asserted: a byte that lands is the byte of its place,
//! lands where it is wanted, and nothing lands after its receiver has said that it is done.

mod cluster;
mod control;
mod disk;
mod forecast;
mod injected_faults;
mod net;
mod node;
mod rails;
mod timeline;

#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod tests;

pub(crate) use forecast::{NodeChange, SimScenario, TransferForecast, forecast};
pub(crate) use timeline::TimelineEntry;
#[cfg(test)]
pub(crate) use {
    cluster::{InjectedFault, SimCluster, SimOutcome, SimWorld},
    net::NodeLinks,
    node::PieceFaults,
};

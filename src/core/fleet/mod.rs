//! Nodes of one fleet against each other: which of them is below the rest, and why.
//!
//! - [`schedule`]: who is tried with whom, in rounds
//! - [`measure`]: what was measured of a node
//! - [`spread`]: median, quantiles and the deviation that outliers do not move
//! - [`judge`]: what is expected of each NIC, and who is named
//! - [`causes`]: the causes, with their remedies
//! - [`verdict`]: what is said of a node and its NICs

pub(crate) mod causes;
pub(crate) mod judge;
pub(crate) mod measure;
pub(crate) mod schedule;
pub(crate) mod spread;
pub(crate) mod verdict;

#[cfg(test)]
mod simulated_tests;

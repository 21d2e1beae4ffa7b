//! What readings of a machine mean for line rate.
//!
//! - [`readings`]: what there is to know of a machine, as plain values
//! - [`judge`]: readings in, findings out; touches nothing, so that tables of made-up machines test
//!   it
//! - [`peer`]: what went between this machine and another one, rail by rail
//! - [`diagnosis`]: the findings, for people and for scripts

pub(crate) mod diagnosis;
pub(crate) mod judge;
pub(crate) mod peer;
pub(crate) mod readings;

//! Judgement of a machine's readings against line rate.
//!
//! - [`readings`]: readings of a machine, as plain values
//! - [`judge`]: readings in, findings out; pure, so that tables of synthetic machines test it
//! - [`peer`]: transfers between this machine and another one, rail by rail
//! - [`diagnosis`]: the findings, for people and for scripts
//! - [`hosts`]: what differs between diagnoses of many hosts

pub(crate) mod diagnosis;
pub(crate) mod hosts;
pub(crate) mod judge;
pub(crate) mod peer;
pub(crate) mod readings;

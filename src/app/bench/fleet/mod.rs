//! Each node of a fleet against the others: rounds as rows, reports as measures, and the verdict
//! for people and programs.
//!
//! - `rounds`: rows of one round, and its size
//! - `meter`: reports of rounds as measures of nodes
//! - `figures`: the object for `--json`
//! - `text`: tables for people

mod figures;
mod meter;
mod rounds;
mod text;

pub(crate) use figures::FleetFigures;
pub(crate) use meter::FleetMeter;
pub(crate) use rounds::{RoundSize, rows_of_round};

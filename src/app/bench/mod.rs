//! The pure part of `cep-fast bench`: rows, amount of data, figures compared with line rate, and
//! the picture.
//!
//! - `layout`: nodes to rows, so that every sender is asked by every receiver
//! - `sizing`: from a short run to one that lasts as long as was asked for
//! - `figures`: a transfer's report as rates, efficiency and processor time for each node and NIC
//! - `table`: the figures for people
//! - `fleet`: each node of a fleet against the others
//! - `chart`: the figures as a curve

mod chart;
mod figures;
mod fleet;
mod layout;
mod sizing;
mod table;

pub(crate) use chart::svg;
pub(crate) use figures::{BenchFigures, BenchStep, threads_enough};
pub(crate) use fleet::{FleetFigures, FleetMeter, RoundSize, rows_of_round};
pub(crate) use layout::rows;
pub(crate) use sizing::{NextRun, PROBE_BYTES, parts};

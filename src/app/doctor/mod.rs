//! `doctor`: problems that keep a machine from line rate, with the commands that solve them.
//!
//! - [`readings`]: readings of a machine, as plain values
//! - [`reader`]: takes the readings of this machine; decides nothing
//! - [`judge`]: readings in, findings out; pure, so that tables of synthetic machines test it
//! - [`peer`]: transfers between this machine and another one, rail by rail
//! - [`diagnosis`]: the findings, for people and for scripts
//!
//! A finding has a problem, its cost and a command. Only a problem that limits transfers is a
//! shortfall.

mod reader;
mod text;

pub(crate) use crate::core::doctor::diagnosis::Diagnosis;
use crate::core::doctor::judge;
pub(crate) use crate::core::doctor::peer::{DoctorPeer, PairDirection, pairs};

/// Examines this machine.
pub(crate) fn examine() -> Diagnosis {
    judge::judge(reader::MachineReader::of_this_machine().read())
}

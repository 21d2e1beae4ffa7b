//! `doctor`: problems that keep a machine from line rate, with the commands that solve them.
//!
//! [`reader`] takes the readings of this machine and decides nothing;
//! [`doctor`](crate::core::doctor) judges them.
//!
//! A finding has a problem, its cost and a command. Only a problem that limits transfers is a
//! shortfall.

mod kernel_features;
mod reader;
mod text;

pub(crate) use crate::core::doctor::diagnosis::Diagnosis;
use crate::core::doctor::judge;
pub(crate) use crate::core::doctor::peer::{DoctorPeer, PairDirection, pairs};

/// Examines this machine.
pub(crate) fn examine() -> Diagnosis {
    judge::judge(reader::MachineReader::of_this_machine().read())
}

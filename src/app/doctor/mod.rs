//! Why a machine will not reach line rate, and the command that mends it.
//!
//! - [`readings`]: what there is to know of a machine, as plain values
//! - [`reader`]: takes the readings of this one; decides nothing
//! - [`judge`]: readings in, findings out; touches nothing, so that tables of made-up machines test
//!   it
//! - [`peer`]: what went between this machine and another one, rail by rail
//! - [`diagnosis`]: what came out, for people and for scripts
//!
//! A finding says what was found, what it costs, and what to type. Only what would hold a transfer
//! back is a shortfall.

mod reader;

pub(crate) use crate::core::doctor::diagnosis::Diagnosis;
use crate::core::doctor::judge;
pub(crate) use crate::core::doctor::peer::{DoctorPeer, PairDirection, pairs};

/// Examines this machine.
pub(crate) fn examine() -> Diagnosis {
    judge::judge(reader::MachineReader::of_this_machine().read())
}

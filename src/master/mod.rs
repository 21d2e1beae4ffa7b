//! The master: who takes part ([`roster`]), on which terms ([`terms`]), and who is asked what and when ([`conduct`]).
//! It is not on the data path, and a node needs nothing of it between two plans.

pub(crate) mod conduct;
pub(crate) mod roster;
pub(crate) mod terms;

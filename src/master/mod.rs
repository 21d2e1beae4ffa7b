//! The master: who takes part ([`roster`]), on which terms ([`terms`]), who is asked what and
//! when ([`conduct`]), the loop around that ([`run`]), and what it came to ([`summary`]).
//! It is not on the data path, and a node needs nothing of it between two plans.

pub(crate) mod conduct;
mod counted;
mod ending;
mod links;
mod overdue;
pub(crate) mod peer;
mod room;
pub(crate) mod roster;
pub(crate) mod run;
pub(crate) mod summary;
pub(crate) mod terms;

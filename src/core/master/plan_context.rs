//! Records of the master that every receiver's part of the plan is made from.

use super::attempt::AttemptConfig;
use super::file_modes::FileModes;
use super::peer::PeerRecord;
use super::resume::ResumeState;
use super::roster::Roster;
use crate::core::units::NodeIx;

/// Data of a receiver's part of the plan, besides the plan.
#[derive(Clone, Copy)]
pub(super) struct PlanContext<'a> {
    pub(super) roster: &'a Roster,
    pub(super) terms: &'a AttemptConfig,
    pub(super) peers: &'a [PeerRecord],
    pub(super) resuming: &'a ResumeState,
    pub(super) modes: &'a FileModes,
}

impl PlanContext<'_> {
    /// Returns all nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeIx> + use<> {
        (0..self.peers.len() as u32).map(NodeIx)
    }
}

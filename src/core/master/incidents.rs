//! What happens to nodes and their sessions in a transfer, for its events.

use crate::core::error::Error;
use crate::core::units::NodeIx;
use crate::core::wire::control::FlowLoss;

/// Limit on the incidents that are kept: a transfer of thousands of nodes may lose them all.
const INCIDENTS_MAX: usize = 1024;

/// Something that happened to a node.
#[derive(Clone, Debug)]
pub(crate) enum NodeIncident {
    /// It cannot go on, or cannot be reached any more.
    Lost { node: NodeIx, error: Error },
    /// Its control session broke, and is to be resumed.
    Broken { node: NodeIx, error: Error },
    /// Its control session is resumed.
    Restored { node: NodeIx },
    /// One of its flows broke, or could not be opened.
    Flow { node: NodeIx, loss: FlowLoss },
}

/// Incidents of a transfer in their order.
#[derive(Debug, Default)]
pub(crate) struct IncidentList {
    first: Vec<NodeIncident>,
    count: usize,
}

impl IncidentList {
    /// Adds an incident; only the first ones are kept.
    pub(super) fn add(&mut self, incident: NodeIncident) {
        self.count += 1;
        if self.first.len() < INCIDENTS_MAX {
            self.first.push(incident);
        }
    }

    /// Returns the incidents that are kept.
    pub(super) fn kept(&self) -> &[NodeIncident] {
        &self.first
    }

    /// Returns the number of all incidents.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

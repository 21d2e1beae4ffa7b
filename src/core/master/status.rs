//! How far a transfer is, for whoever asks its master.

use super::coordinator::Coordinator;
use crate::core::wire::limits::{NAME_BYTES_MAX, STATUS_BYTES_MAX};

/// What one node takes in the answer to `status` at most.
const STATUS_NODE_BYTES: usize = NAME_BYTES_MAX + 64;

/// How far a transfer is, as one JSON object.
pub(crate) fn status(coordinator: &Coordinator) -> String {
    let nodes: Vec<serde_json::Value> = coordinator
        .roster()
        .entries
        .iter()
        .zip(coordinator.peers())
        .map(|(entry, peer)| serde_json::json!({ "name": entry.address.to_string(), "bytes": peer.landed_bytes }))
        .collect();
    let mut status = serde_json::json!({
        "transfer": coordinator.terms().identity().id,
        "phase": format!("{:?}", coordinator.phase()).to_lowercase(),
        "bytes": coordinator.landed_bytes(),
        "bytes_total": coordinator.wanted_bytes(),
        "nodes": nodes,
    });
    let mut json = status.to_string();
    if json.len() > STATUS_BYTES_MAX {
        // As many of the first nodes as certainly fit, and how many there are.
        status["nodes_total"] = coordinator.peers().len().into();
        if let Some(nodes) = status["nodes"].as_array_mut() {
            nodes.truncate(STATUS_BYTES_MAX / 2 / STATUS_NODE_BYTES);
        }
        json = status.to_string();
    }
    json
}

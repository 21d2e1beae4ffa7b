//! Progress of a transfer, for `status` requests to its master.

use super::coordinator::Coordinator;
use crate::core::report::gbit_per_s;
use crate::core::wire::limits::{NAME_BYTES_MAX, STATUS_BYTES_MAX};

/// Largest encoded size of one node in the answer to `status`.
const STATUS_NODE_BYTES: usize = NAME_BYTES_MAX + 64;

/// Returns the progress of a transfer as one JSON object. `rate` is that of the last few seconds,
/// in bytes per second, if it is known.
pub(crate) fn status(coordinator: &Coordinator, rate: Option<f64>) -> String {
    let nodes: Vec<serde_json::Value> = coordinator
        .roster()
        .entries
        .iter()
        .zip(coordinator.peers())
        .map(|(entry, peer)| {
            let name = entry.address.to_string();
            serde_json::json!({ "name": name, "bytes": peer.landed_bytes })
        })
        .collect();
    let mut status = serde_json::json!({
        "transfer": coordinator.terms().identity().id,
        "phase": coordinator.phase().name(),
        "bytes": coordinator.landed_bytes(),
        "bytes_total": coordinator.wanted_bytes(),
        "gbit_per_s": rate.map(|rate| gbit_per_s(rate as u64, 1.0)),
        "nodes": nodes,
    });
    let mut json = status.to_string();
    if json.len() > STATUS_BYTES_MAX {
        // Keeps the first nodes that are certain to fit, and the number of all nodes.
        status["nodes_total"] = coordinator.peers().len().into();
        if let Some(nodes) = status["nodes"].as_array_mut() {
            nodes.truncate(STATUS_BYTES_MAX / 2 / STATUS_NODE_BYTES);
        }
        json = status.to_string();
    }
    json
}

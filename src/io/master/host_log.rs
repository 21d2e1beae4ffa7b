//! What `-v` shows of a master's dealings with its nodes: a line for each step, which begins with
//! the node.

use std::fmt::Display;
use std::net::SocketAddr;

use crate::core::error::Error;
use crate::core::master::coordinator::Coordinator;
use crate::core::units::NodeIx;
use crate::core::wire::control::{NodeAdvert, ToMaster, ToNode};

/// Logs that a node is dialled.
pub(super) fn dialled(coordinator: &Coordinator, node: NodeIx, addresses: &[SocketAddr]) {
    log(coordinator, node, || {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("dialled at {}", addresses.join(", "))
    });
}

/// Logs that the session with a node is up.
pub(super) fn met(coordinator: &Coordinator, node: NodeIx, at: SocketAddr, advert: &NodeAdvert) {
    log(coordinator, node, || {
        let nics: Vec<String> =
            advert.rails.iter().map(|it| format!("{} {}", it.nic, it.address.ip())).collect();
        format!("session up at {at}; {}; NICs: {}", advert.software, nics.join(", "))
    });
}

/// Logs that the connection of a session, or an attempt at one, broke.
pub(super) fn broken(coordinator: &Coordinator, node: NodeIx, error: &Error) {
    log(coordinator, node, || format!("connection broken or not made: {error}"));
}

/// Logs a message to a node.
pub(super) fn told(coordinator: &Coordinator, node: NodeIx, message: &ToNode) {
    log(coordinator, node, || match message {
        ToNode::MakeWay { .. } => "told to end an earlier attempt".into(),
        ToNode::Prepare(prepare) => format!("sent its rows: {}", prepare.rows.len()),
        ToNode::Start(start) => {
            let segments = start.segments.len();
            format!("sent its part of plan {}, segments: {segments}", start.epoch)
        }
        ToNode::Commit => "told to commit".into(),
        ToNode::Finish => "told to finish".into(),
        ToNode::Cancel { reason, .. } => format!("told to cancel: {reason}"),
        ToNode::Survey(questions) => format!("asked about {} paths", questions.len()),
        ToNode::Called { receiver, .. } => {
            format!("asked to dial {}, which does not reach it", receiver.name)
        }
        ToNode::Resume(_) => "asked to go on where the session broke".into(),
    });
}

/// Logs a message of a node, unless it is one of many about its progress.
pub(super) fn heard(coordinator: &Coordinator, node: NodeIx, message: &ToMaster) {
    let what: &dyn Display = match message {
        ToMaster::Progress { .. } | ToMaster::Comparing { .. } => return,
        ToMaster::Prepared(_) => &"prepared",
        ToMaster::Landed { .. } => &"has landed all that it wants",
        ToMaster::Report(_) => &"has ended and reported",
        ToMaster::Committed => &"has committed",
        ToMaster::Failed { error, .. } => &format!("failed: {error}"),
        ToMaster::Resumed { .. } => &"session resumed",
        ToMaster::Surveyed(_) => &"has answered",
        ToMaster::Call(_) => &"does not reach a sender",
    };
    log(coordinator, node, || what.to_string());
}

/// Logs the end of a session.
pub(super) fn closed(coordinator: &Coordinator, node: NodeIx) {
    log(coordinator, node, || "session closed".into());
}

fn log(coordinator: &Coordinator, node: NodeIx, what: impl FnOnce() -> String) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        tracing::debug!("{}: {}", coordinator.roster().get(node).address, what());
    }
}

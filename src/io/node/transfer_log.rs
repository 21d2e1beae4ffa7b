//! Log lines of a node about itself and its transfers: who had what read and written here, and how
//! it ended.

use std::net::{IpAddr, SocketAddr};

use super::node_transfer::NodeTransfer;
use super::options::NodeOptions;
use crate::core::error::{Code, Error};
use crate::core::options::WireLevel;
use crate::core::piece::TransferIx;
use crate::core::spec::RowRole;
use crate::core::wire::control::{Prepare, WireRow};
use crate::io::confine::{ConfineMode, Confinement};
use crate::io::log;

/// The node listens; `nics` are the names of its ports' NICs.
pub(super) fn log_start(
    address: SocketAddr,
    mut nics: Vec<&str>,
    options: &NodeOptions,
    confinement: &Confinement,
) {
    let threads = nics.len();
    nics.dedup();
    let roots: Vec<String> = options.roots.declared.iter().map(ToString::to_string).collect();
    let (root, key) = (roots.join(" "), options.access.identity.names());
    let (wire_min, nics) = (options.wire_min.name(), nics.join(","));
    let confined = confinement.to_string();
    tracing::info!(%address, %root, key, wire_min, nics, threads, confined, "listens");
    if let Some(why) = confinement.obstacle().filter(|_| options.confine != ConfineMode::Off) {
        tracing::warn!("the kernel does not confine this node wholly: {why}");
    }
}

/// A master has a transfer prepared here.
pub(super) fn log_begin(transfer: TransferIx, prepare: &Prepare, master: Option<SocketAddr>) {
    let of = |role| prepare.rows.iter().filter(move |row| row.role == role);
    let bytes = |role| of(role).fold(0_u64, |sum, row| sum.saturating_add(row.span.bytes()));
    tracing::info!(
        transfer = transfer.0,
        id = prepare.id,
        attempt = attempt(prepare),
        master = master.map_or_else(|| "gone".into(), |master| master.to_string()),
        reads = listed(&prepare.rows, RowRole::Sender),
        writes = listed(&prepare.rows, RowRole::Receiver),
        offered_bytes = bytes(RowRole::Sender),
        wanted_bytes = bytes(RowRole::Receiver),
        "a transfer begins"
    );
}

/// A transfer is over here.
pub(super) fn log_end(transfer: TransferIx, node_transfer: &NodeTransfer, failure: Option<Error>) {
    let (transfer, id, attempt) =
        (transfer.0, &node_transfer.prepare.id, attempt(&node_transfer.prepare));
    let sent_bytes = node_transfer.sent_bytes();
    let received_bytes = node_transfer.moved_bytes().saturating_sub(sent_bytes);
    let wire = node_transfer.wire().map_or("none", WireLevel::name);
    match failure {
        None => tracing::info!(
            transfer,
            id,
            attempt,
            sent_bytes,
            received_bytes,
            wire,
            "a transfer is complete"
        ),
        Some(Error { code: Code::Cancelled, message, .. }) => {
            tracing::info!(
                transfer,
                id,
                attempt,
                sent_bytes,
                received_bytes,
                wire,
                "a transfer ends: {message}"
            );
        }
        Some(Error { code, message, .. }) => {
            let status = code.number();
            tracing::warn!(
                transfer,
                id,
                attempt,
                sent_bytes,
                received_bytes,
                wire,
                status,
                "a transfer fails: {message}"
            );
        }
    }
}

/// Somebody came no further than the handshake.
pub(super) fn log_refused(from: IpAddr, error: &Error) {
    let kind = if error.code == Code::Refused { "key" } else { "handshake" };
    log::refused(kind, Some(from), &error.message);
}

/// The first bytes of the attempt's id: enough to tell attempts apart.
fn attempt(prepare: &Prepare) -> String {
    prepare.attempt[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The data of a node's rows in one role, those of the first few rows by name.
fn listed(rows: &[WireRow], role: RowRole) -> String {
    let mut uris: Vec<&str> =
        rows.iter().filter(|row| row.role == role).map(|row| row.uri.as_str()).collect();
    uris.dedup();
    let more = uris.len().saturating_sub(ROWS_NAMED_MAX);
    uris.truncate(ROWS_NAMED_MAX);
    let named = uris.join(" ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

/// A line of the log is for people.
const ROWS_NAMED_MAX: usize = 8;

//! Result of a transfer: one JSON object for scripts, a few tables for people.
//!
//! The achieved time is always shown beside the lower bound of any schedule, and beside the
//! bottleneck that sets the bound.

use std::net::SocketAddr;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::core::error::{Code, Error};
use crate::core::load::MachineLoad;
use crate::core::units::Span;

/// The result of one transfer that began. It may have failed: see [`Report::into_result`].
/// `Display` writes the form for people, [`Report::json`] the one for scripts.
#[must_use = "a transfer that failed has a report too: see `into_result`"]
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The transfer's id, from the specification.
    pub transfer: String,
    /// Outcome.
    pub state: TransferState,
    /// Bytes delivered, summed over receivers; includes those of an earlier attempt.
    pub bytes: u64,
    /// Bytes of `bytes` that an earlier attempt had delivered.
    pub resumed_bytes: u64,
    /// Time from the first request for data to the last written piece, by the receivers' monotonic
    /// clocks.
    pub seconds: f64,
    /// Duration of the whole command.
    pub wall_seconds: f64,
    /// Parts of `wall_seconds`, if bytes moved.
    pub phases: Option<PhaseReport>,
    /// Rate of the bytes that this attempt delivered, over `seconds`, in 10⁹ bits per second.
    pub gbit_per_s: f64,
    /// Lower bound of any schedule, if a plan was made.
    pub bound_seconds: Option<f64>,
    /// The limit behind the bound, as a phrase for people: `receiver c:1`, `receivers c:1, d:1
    /// together`, `the limit`, `nothing to move`. A phrase that ends with `(its speed is assumed)`
    /// rests on a NIC whose speed neither its row nor its kernel gave.
    pub bottleneck: Option<String>,
    /// The scheduler that made the plan: `greedy`, `lp` or `uniform`. Of a transfer that failed
    /// before its plan, the one that was asked for, which may be `auto`.
    pub scheduler: String,
    /// Size of a block: the specification's, or the chosen one.
    pub block_bytes: Option<u64>,
    /// `crc64`, `blake3` or `none`.
    pub check: String,
    /// Checksum of the whole object in hexadecimal, if the check and the ranges allow one.
    pub digest: Option<String>,
    /// Protection of the bytes on the wire: `sealed`, `signed` or `clear`, that of the least
    /// protected flow; `None` if there was none.
    pub wire: Option<String>,
    /// Bytes that crossed the network and were not needed.
    pub wasted_bytes: u64,
    /// Bytes fetched by another flow than planned.
    pub stolen_bytes: u64,
    /// Repeated requests.
    pub retries: u64,
    /// Comparison of the senders' replicas before bytes moved; `None` if each byte has one source.
    pub replicas: Option<ReplicaReport>,
    /// Every node, in the order of the specification.
    pub nodes: Vec<NodeReport>,
    /// Deviations from the expected course, also of a completed transfer: a sentence each.
    pub warnings: Vec<String>,
    /// Cause of an incomplete transfer.
    pub error: Option<ReportError>,
}

/// Parts of the duration of a command, in seconds; together they are all of it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct PhaseReport {
    /// Until all nodes have answered.
    pub connect_seconds: f64,
    /// Until all nodes have opened their files, replicas are compared and the plan is made.
    pub prepare_seconds: f64,
    /// Until destinations have their room on disk: of the receiver that took longest.
    pub preallocate_seconds: f64,
    /// Until the last byte is written.
    pub move_seconds: f64,
    /// Until files are synced, if asked for, and have their names: of the receiver that took
    /// longest, and of files that several nodes write.
    pub commit_seconds: f64,
    /// Until all nodes have reported.
    pub finish_seconds: f64,
}

/// Extent of the comparison of replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ReplicaReport {
    /// Bytes of the data space that at least two sources have read, and found equal.
    pub compared_bytes: u64,
    /// Bytes that several sources offer and some receiver wants.
    pub of_bytes: u64,
    /// Requested comparison.
    pub mode: ReplicaComparison,
}

/// Selection of the compared bytes of replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaComparison {
    /// Several places of every range.
    Sample,
    /// All bytes.
    All,
}

/// Outcome of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferState {
    /// Every wanted byte has been delivered.
    Complete,
    /// It ended early; `error` has the cause and the missing ranges.
    Failed,
    /// The user cancelled it.
    Cancelled,
}

impl TransferState {
    /// Returns the outcome of a transfer that ended with `error`.
    #[must_use]
    pub fn of(error: &Error) -> TransferState {
        if error.code == Code::Cancelled { TransferState::Cancelled } else { TransferState::Failed }
    }
}

/// Role of a node in a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// It only offered bytes.
    Sender,
    /// It only wanted bytes.
    Receiver,
    /// It did both.
    Both,
}

/// Part of one node in the transfer.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct NodeReport {
    /// Its host:port.
    pub name: String,
    /// Its role.
    pub role: NodeRole,
    /// Payload sent.
    pub bytes_sent: u64,
    /// Payload received.
    pub bytes_received: u64,
    /// User and system time of the node's process.
    pub cpu_seconds: f64,
    /// Its largest resident memory.
    pub memory_bytes_max: u64,
    /// Time from its first request to its last written piece, by its own clock. Not part of the
    /// JSON object.
    #[serde(skip)]
    pub seconds: f64,
    /// Load of its machine, if it was started to be measured. Not part of the JSON object.
    #[serde(skip)]
    pub load: Option<MachineLoad>,
    /// Its NICs.
    pub rails: Vec<RailReport>,
}

/// Part of one NIC in the transfer.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RailReport {
    /// The NIC's name.
    pub nic: String,
    /// Threads that served it, if its node connected.
    pub threads: usize,
    /// Payload sent.
    pub bytes_sent: u64,
    /// Payload received.
    pub bytes_received: u64,
    /// Its line rate in 10⁹ bits per second, if it has one: loopback has none.
    pub line_gbit_per_s: Option<f64>,
    /// The busier direction's rate over the line rate, 0 to 1.
    pub efficiency: Option<f64>,
    /// Data path of its bytes, with the reason if it is not the requested one; `None` if no bytes
    /// moved.
    pub path: Option<String>,
    /// Driver of its operations: `io_uring`, or the replacement for all or some of them, with the
    /// reason.
    pub driver: Option<String>,
    /// Protection of its least protected flow: `sealed`, `signed` or `clear`; `None` if it had no
    /// flow.
    pub wire: Option<String>,
    /// The cipher of that protection; `None` in clear.
    pub cipher: Option<String>,
    /// Its largest packet, if known. Not part of the JSON object.
    #[serde(skip)]
    pub mtu: Option<u32>,
    /// Its address for flows. Not part of the JSON object.
    #[serde(skip)]
    pub address: Option<SocketAddr>,
    /// Bytes that the NIC counted meanwhile, sent and received, with headers and other traffic;
    /// `None` if the system does not report them. Not part of the JSON object.
    #[serde(skip)]
    pub counted: Option<(u64, u64)>,
    /// Errors and drops that the NIC counted meanwhile; 0 where the node was not started to be
    /// measured. Not part of the JSON object.
    #[serde(skip)]
    pub faults: u64,
}

/// Cause of an incomplete transfer. In the JSON object, `message` includes the remedy in
/// parentheses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportError {
    /// The exit status.
    pub code: Code,
    /// Event and culprit.
    pub message: String,
    /// Remedy for the user, if any.
    pub remedy: Option<String>,
    /// The ranges of the data space that are missing, inclusive as in a specification:
    /// `["0-1023"]`.
    pub missing_ranges: Vec<Span>,
}

impl ReportError {
    /// Converts the cause to an error.
    #[must_use]
    pub fn to_error(&self) -> Error {
        let ReportError { code, message, remedy, missing_ranges } = self.clone();
        Error { code, message, remedy, missing: missing_ranges }
    }
}

impl Serialize for ReportError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = match &self.remedy {
            Some(remedy) => format!("{} ({remedy})", self.message),
            None => self.message.clone(),
        };
        let ranges: Vec<String> = self.missing_ranges.iter().map(ToString::to_string).collect();
        let mut object = serializer.serialize_struct("ReportError", 3)?;
        object.serialize_field("code", &self.code.number())?;
        object.serialize_field("message", &message)?;
        object.serialize_field("missing_ranges", &ranges)?;
        object.end()
    }
}

impl Report {
    /// Creates the report of a transfer that could not begin.
    pub(crate) fn failed(transfer: &str, scheduler: &str, check: &str, error: &Error) -> Report {
        Report {
            transfer: transfer.into(),
            state: TransferState::of(error),
            bytes: 0,
            resumed_bytes: 0,
            seconds: 0.0,
            wall_seconds: 0.0,
            phases: None,
            gbit_per_s: 0.0,
            bound_seconds: None,
            bottleneck: None,
            scheduler: scheduler.into(),
            block_bytes: None,
            check: check.into(),
            digest: None,
            wire: None,
            wasted_bytes: 0,
            stolen_bytes: 0,
            retries: 0,
            nodes: Vec::new(),
            replicas: None,
            warnings: Vec::new(),
            error: Some(error.into()),
        }
    }

    /// Returns the report of a completed transfer, or the error of any other.
    ///
    /// # Errors
    /// The cause and the missing ranges, if its state is not [`TransferState::Complete`].
    pub fn into_result(self) -> Result<Report, Error> {
        match (&self.error, self.state) {
            (Some(error), _) => Err(error.to_error()),
            (None, TransferState::Complete) => Ok(self),
            (None, _) => Err(Error::new(
                Code::Internal,
                "the transfer did not complete, and its report has no cause",
            )),
        }
    }

    /// Returns true if the report contains more than its error: some bytes moved, or were there
    /// before.
    pub(crate) fn tells(&self) -> bool {
        self.state == TransferState::Complete || self.bytes > 0 || self.wasted_bytes > 0
    }

    /// Returns the object for `--json`: one line, without a line break.
    ///
    /// # Panics
    /// Never: all its values can be written in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers, strings and lists have a form in JSON")
    }
}

impl From<&Error> for ReportError {
    fn from(error: &Error) -> ReportError {
        let Error { code, message, remedy, missing } = error.clone();
        ReportError { code, message, remedy, missing_ranges: missing }
    }
}

/// Returns the rate in 10⁹ bits per second; 0 for a duration of 0.
#[must_use]
pub fn gbit_per_s(bytes: u64, seconds: f64) -> f64 {
    let rate = bytes as f64 * 8.0 / seconds / 1e9;
    if rate.is_finite() { rate } else { 0.0 }
}

#[cfg(test)]
#[path = "report_tests.rs"]
pub(crate) mod tests;

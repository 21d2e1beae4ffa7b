//! What a transfer came to: one JSON object for scripts, a few tables for people.
//!
//! The achieved time always stands beside the bound that no schedule can beat, and beside what sets that bound.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::{Serialize, Serializer};

use crate::error::{Code, Error};
use crate::units::{BitRate, Span, human_bytes};

/// The result of one transfer. `Display` gives the form for people, [`Report::json`] the one for scripts.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The transfer's id, from the specification.
    pub transfer: String,
    /// How it ended.
    pub state: State,
    /// Bytes delivered, summed over receivers; those that an earlier attempt had delivered are included.
    pub bytes: u64,
    /// Of `bytes`, those that an earlier attempt had delivered.
    pub resumed_bytes: u64,
    /// From the first request for data to the last piece written, by the receivers' monotonic clocks.
    pub seconds: f64,
    /// The whole command.
    pub wall_seconds: f64,
    /// What this attempt delivered, over `seconds`, in 10⁹ bits per second.
    pub gbit_per_s: f64,
    /// What no schedule can beat, where a plan was made.
    pub bound_seconds: Option<f64>,
    /// The node or NIC that sets the bound.
    pub bottleneck: Option<String>,
    /// `greedy`, `lp` or `uniform`.
    pub scheduler: String,
    /// `crc64`, `blake3` or `none`.
    pub check: String,
    /// The checksum of the whole object, in hexadecimal, where the check and the ranges allow one.
    pub digest: Option<String>,
    /// Bytes that crossed the network and were not needed.
    pub wasted_bytes: u64,
    /// Bytes that another flow fetched than the plan had said.
    pub stolen_bytes: u64,
    /// Requests made again.
    pub retries: u64,
    /// Every node, in the order of the specification.
    pub nodes: Vec<NodeReport>,
    /// Why it did not complete.
    pub error: Option<ReportError>,
}

/// How a transfer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every wanted byte is at its place.
    Complete,
    /// It ended early; what was received is kept for a rerun.
    Failed,
    /// The user ended it; what was received is kept for a rerun.
    Cancelled,
}

/// What a node did in a transfer.
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

/// One node's part.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct NodeReport {
    /// Its host:port.
    pub name: String,
    /// What it did.
    pub role: NodeRole,
    /// Payload sent.
    pub bytes_sent: u64,
    /// Payload received.
    pub bytes_received: u64,
    /// User and system time of the node's process.
    pub cpu_seconds: f64,
    /// Its largest resident memory.
    pub memory_bytes_max: u64,
    /// Its NICs.
    pub rails: Vec<RailReport>,
}

/// One NIC's part.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RailReport {
    /// The NIC's name.
    pub nic: String,
    /// Payload sent.
    pub bytes_sent: u64,
    /// Payload received.
    pub bytes_received: u64,
    /// Its line rate in 10⁹ bits per second, where it has one: loopback has none.
    pub line_gbit_per_s: Option<f64>,
    /// The busier direction's rate over the line rate, 0 to 1.
    pub efficiency: Option<f64>,
}

/// Why a transfer did not complete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ReportError {
    /// The exit status.
    #[serde(serialize_with = "as_number")]
    pub code: Code,
    /// What happened, to whom, and what to do about it.
    pub message: String,
    /// The ranges of the data space that are missing, inclusive as in a specification: `["0-1023"]`.
    #[serde(serialize_with = "as_ranges")]
    pub missing_ranges: Vec<Span>,
}

impl Report {
    /// The object that `--json` prints: one line, without the line's end.
    ///
    /// # Panics
    /// Never: all that it holds has a form in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers, strings and lists have a form in JSON")
    }

    /// The bytes that this attempt delivered.
    fn moved_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.resumed_bytes)
    }

    fn write_result(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Complete => "complete",
            State::Failed => "FAILED",
            State::Cancelled => "cancelled",
        };
        let moved = human_bytes(self.moved_bytes());
        write!(f, "{} {state}: {moved} in {:.3} s, {:.2} Gbit/s", self.transfer, self.seconds, self.gbit_per_s)?;
        if self.resumed_bytes > 0 {
            write!(f, "; {} more were there from before", human_bytes(self.resumed_bytes))?;
        }
        writeln!(f, " ({:.3} s with start and end)", self.wall_seconds)
    }

    fn write_bound(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bound_seconds) = self.bound_seconds else { return Ok(()) };
        write!(f, "bound: {bound_seconds:.3} s")?;
        if let Some(bottleneck) = &self.bottleneck {
            write!(f, ", set by {bottleneck}")?;
        }
        match percent(bound_seconds, self.seconds) {
            Some(percent) if self.state == State::Complete => writeln!(f, "; {percent:.1} % of it achieved"),
            _ => writeln!(f),
        }
    }

    fn write_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.as_deref().unwrap_or("no digest of the whole");
        writeln!(f, "scheduler: {}; check: {}, {digest}", self.scheduler, self.check)?;
        let (wasted, stolen) = (human_bytes(self.wasted_bytes), human_bytes(self.stolen_bytes));
        writeln!(f, "wasted: {wasted}; stolen: {stolen}; retries: {}", self.retries)
    }

    fn write_nodes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(HEADINGS);
        for node in &self.nodes {
            table.add_row(self.node_cells(node));
            for rail in &node.rails {
                table.add_row(self.rail_cells(rail));
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "\n{}", table.trim_fmt())
    }

    fn node_cells(&self, node: &NodeReport) -> [String; COLUMNS] {
        let role = match node.role {
            NodeRole::Sender => "sender",
            NodeRole::Receiver => "receiver",
            NodeRole::Both => "both",
        };
        [
            node.name.clone(),
            role.into(),
            human_bytes(node.bytes_sent),
            human_bytes(node.bytes_received),
            self.rate(node.bytes_sent, node.bytes_received),
            String::new(),
            format!("{:.2}", node.cpu_seconds),
            human_bytes(node.memory_bytes_max),
        ]
    }

    fn rail_cells(&self, rail: &RailReport) -> [String; COLUMNS] {
        let of_line = match (rail.line_gbit_per_s, rail.efficiency) {
            (Some(line), Some(efficiency)) => format!("{:.1} % of {line} Gbit/s", efficiency * 100.0),
            _ => "-".into(),
        };
        [
            format!("  {}", rail.nic),
            "rail".into(),
            human_bytes(rail.bytes_sent),
            human_bytes(rail.bytes_received),
            self.rate(rail.bytes_sent, rail.bytes_received),
            of_line,
            String::new(),
            String::new(),
        ]
    }

    /// The rate of the busier direction: links carry both at once.
    fn rate(&self, sent_bytes: u64, received_bytes: u64) -> String {
        let bits = sent_bytes.max(received_bytes) as f64 * 8.0 / self.seconds;
        if bits.is_finite() { BitRate(bits as u64).to_string() } else { "-".into() }
    }

    fn write_error(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = &self.error else { return Ok(()) };
        writeln!(f, "\nerror {}: {}", error.code.number(), error.message)?;
        if error.missing_ranges.is_empty() {
            return Ok(());
        }
        let missing_bytes: u128 = error.missing_ranges.iter().map(|span| u128::from(span.bytes())).sum();
        write!(f, "missing: {missing_bytes} bytes:")?;
        for span in error.missing_ranges.iter().take(RANGES_SHOWN_MAX) {
            write!(f, " {span}")?;
        }
        match error.missing_ranges.len().saturating_sub(RANGES_SHOWN_MAX) {
            0 => writeln!(f),
            more => writeln!(f, " and {more} more ranges (--json lists them all)"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_result(f)?;
        self.write_bound(f)?;
        self.write_work(f)?;
        self.write_nodes(f)?;
        self.write_error(f)
    }
}

impl From<&Error> for ReportError {
    fn from(error: &Error) -> ReportError {
        ReportError { code: error.code, message: error.to_string(), missing_ranges: error.missing.clone() }
    }
}

/// The rate in 10⁹ bits per second; 0 where no time has passed.
#[must_use]
pub fn gbit_per_s(bytes: u64, seconds: f64) -> f64 {
    let rate = bytes as f64 * 8.0 / seconds / 1e9;
    if rate.is_finite() { rate } else { 0.0 }
}

fn percent(part: f64, whole: f64) -> Option<f64> {
    let percent = part / whole * 100.0;
    percent.is_finite().then_some(percent)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn as_number<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(code.number())
}

fn as_ranges<S: Serializer>(spans: &[Span], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(spans.iter().map(ToString::to_string))
}

const COLUMNS: usize = 8;
const HEADINGS: [&str; COLUMNS] = ["node", "role", "sent", "received", "rate", "of line", "CPU s", "memory"];
const RANGES_SHOWN_MAX: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn node(name: &str, role: NodeRole, bytes_sent: u64, bytes_received: u64, line: Option<f64>) -> NodeReport {
        let rail = RailReport {
            nic: "eth0".into(),
            bytes_sent,
            bytes_received,
            line_gbit_per_s: line,
            efficiency: line.map(|_| 0.8),
        };
        let (cpu_seconds, memory_bytes_max) = (0.25, 48 << 20);
        let name = name.into();
        NodeReport { name, role, bytes_sent, bytes_received, cpu_seconds, memory_bytes_max, rails: vec![rail] }
    }

    fn report() -> Report {
        Report {
            transfer: "My Data File".into(),
            state: State::Complete,
            bytes: 1_000_000_000,
            resumed_bytes: 0,
            seconds: 1.0,
            wall_seconds: 1.5,
            gbit_per_s: gbit_per_s(1_000_000_000, 1.0),
            bound_seconds: Some(0.8),
            bottleneck: Some("node6:55558".into()),
            scheduler: "greedy".into(),
            check: "crc64".into(),
            digest: Some("0123456789abcdef".into()),
            wasted_bytes: 0,
            stolen_bytes: 1 << 20,
            retries: 2,
            nodes: vec![
                node("node1:55553", NodeRole::Sender, 1_000_000_000, 0, Some(10.0)),
                node("node6:55558", NodeRole::Receiver, 0, 1_000_000_000, None),
            ],
            error: None,
        }
    }

    fn failed() -> Report {
        let missing = (0..20).map(|i| Span::of(i * 10, 5)).collect();
        let error =
            Error::new(Code::Unreachable, "node1:55553 was lost").remedy("run again to resume").missing(missing);
        let error = Some(ReportError::from(&error));
        Report {
            state: State::Failed,
            digest: None,
            bound_seconds: None,
            bottleneck: None,
            nodes: vec![],
            error,
            ..report()
        }
    }

    #[test]
    fn json_has_exactly_the_promised_fields_in_one_line() {
        let json = report().json();
        assert!(!json.contains('\n'));
        let expected = concat!(
            r#"{"transfer":"My Data File","state":"complete","bytes":1000000000,"resumed_bytes":0,"seconds":1.0,"#,
            r#""wall_seconds":1.5,"gbit_per_s":8.0,"bound_seconds":0.8,"bottleneck":"node6:55558","scheduler":"greedy","#,
            r#""check":"crc64","digest":"0123456789abcdef","wasted_bytes":0,"stolen_bytes":1048576,"retries":2,"#,
            r#""nodes":[{"name":"node1:55553","role":"sender","bytes_sent":1000000000,"bytes_received":0,"#,
            r#""cpu_seconds":0.25,"memory_bytes_max":50331648,"rails":[{"nic":"eth0","bytes_sent":1000000000,"#,
            r#""bytes_received":0,"line_gbit_per_s":10.0,"efficiency":0.8}]},"#,
        );
        assert!(json.starts_with(expected), "{json}");
        assert!(json.contains(r#""line_gbit_per_s":null,"efficiency":null"#));
        assert!(json.ends_with(r#""error":null}"#));
    }

    #[test]
    fn a_failure_in_json_has_code_message_and_ranges() {
        let value: serde_json::Value = serde_json::from_str(&failed().json()).unwrap();
        assert_eq!(value["state"], "failed");
        assert_eq!(value["error"]["code"], 3);
        assert_eq!(value["error"]["message"], "node1:55553 was lost (run again to resume)");
        assert_eq!(value["error"]["missing_ranges"][1], "10-14");
        assert!(value["digest"].is_null() && value["bound_seconds"].is_null());
    }

    #[test]
    fn people_read_result_bound_and_nodes() {
        let text = report().to_string();
        for expected in [
            "My Data File complete: 953.67 MiB in 1.000 s, 8.00 Gbit/s (1.500 s with start and end)\n",
            "bound: 0.800 s, set by node6:55558; 80.0 % of it achieved\n",
            "scheduler: greedy; check: crc64, 0123456789abcdef\n",
            "wasted: 0 B; stolen: 1.00 MiB; retries: 2\n",
            "80.0 % of 10 Gbit/s",
            "48.00 MiB",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("error"));
    }

    #[test]
    fn people_read_what_is_missing_and_what_to_do() {
        let text = failed().to_string();
        assert!(text.contains("error 3: node1:55553 was lost (run again to resume)\n"), "{text}");
        assert!(text.contains("missing: 100 bytes: 0-4 10-14 "), "{text}");
        assert!(text.contains("150-154 and 4 more ranges"), "{text}");
        assert!(!text.contains("bound") && !text.contains("achieved"), "{text}");
    }

    #[test]
    fn no_time_passed_is_no_division_by_zero() {
        let report = Report { seconds: 0.0, gbit_per_s: gbit_per_s(5, 0.0), ..report() };
        assert_eq!(gbit_per_s(5, 0.0).to_bits(), 0f64.to_bits());
        let text = report.to_string();
        assert!(!text.contains("inf") && !text.contains("NaN"), "{text}");
    }
}

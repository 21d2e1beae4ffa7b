//! A report as people read it: `Display` of [`Report`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::core::report::{ReplicaComparison, ReplicaReport, Report, TransferState};
use crate::core::units::{human_bytes, printable};

impl Report {
    /// Returns the form for people without the error, which goes to standard error.
    pub(crate) fn tables(&self) -> String {
        Report { error: None, ..self.clone() }.to_string()
    }

    /// Returns the bytes that this attempt delivered.
    fn moved_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.resumed_bytes)
    }

    fn write_result(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            TransferState::Complete => "complete",
            TransferState::Failed => "FAILED",
            TransferState::Cancelled => "cancelled",
        };
        let moved = human_bytes(self.moved_bytes());
        let transfer = printable(&self.transfer);
        write!(
            f,
            "{transfer} {state}: {moved} in {:.3} s, {:.2} Gbit/s",
            self.seconds, self.gbit_per_s
        )?;
        if self.resumed_bytes > 0 {
            write!(f, "; {} more were there from before", human_bytes(self.resumed_bytes))?;
        }
        write!(f, " ({:.3} s with start and end", self.wall_seconds)?;
        for (at, (name, seconds)) in self.long_phases().into_iter().enumerate() {
            write!(f, "{} {name} {seconds:.3} s", if at == 0 { ":" } else { "," })?;
        }
        writeln!(f, ")")
    }

    /// The phases beside the moving of bytes that took a notable part of the whole.
    fn long_phases(&self) -> Vec<(&'static str, f64)> {
        let Some(phases) = self.phases else { return Vec::new() };
        let named = [
            ("connect", phases.connect_seconds),
            ("prepare", phases.prepare_seconds),
            ("preallocate", phases.preallocate_seconds),
            ("commit", phases.commit_seconds),
            ("finish", phases.finish_seconds),
        ];
        let notable = (NOTABLE_PART * self.wall_seconds).max(NOTABLE_SECONDS);
        named.into_iter().filter(|(_, seconds)| *seconds >= notable).collect()
    }

    /// The ciphers of all rails, in parentheses, if there are any.
    fn ciphers(&self) -> String {
        let rails = self.nodes.iter().flat_map(|node| &node.rails);
        let ciphers: BTreeSet<&str> = rails.filter_map(|rail| rail.cipher.as_deref()).collect();
        let ciphers: Vec<&str> = ciphers.into_iter().collect();
        if ciphers.is_empty() { String::new() } else { format!(" ({})", ciphers.join(", ")) }
    }

    fn write_bound(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bound_seconds) = self.bound_seconds else { return Ok(()) };
        write!(f, "bound: {bound_seconds:.3} s")?;
        if let Some(bottleneck) = &self.bottleneck {
            write!(f, ", set by {}", printable(bottleneck))?;
        }
        match percent(bound_seconds, self.seconds) {
            Some(percent) if self.state == TransferState::Complete => {
                writeln!(f, "; {percent:.1} % of it achieved")
            }
            _ => writeln!(f),
        }
    }

    fn write_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.as_deref().unwrap_or("no digest of the whole");
        write!(f, "scheduler: {}; ", self.scheduler)?;
        if let Some(block_bytes) = self.block_bytes {
            write!(f, "blocks of {}; ", human_bytes(block_bytes))?;
        }
        writeln!(f, "check: {}, {digest}", self.check)?;
        if let Some(wire) = &self.wire {
            writeln!(f, "wire: {wire}{}", self.ciphers())?;
        }
        let (wasted, stolen) = (human_bytes(self.wasted_bytes), human_bytes(self.stolen_bytes));
        writeln!(f, "wasted: {wasted}; stolen: {stolen}; retries: {}", self.retries)?;
        let Some(ReplicaReport { compared_bytes, of_bytes, mode }) = self.replicas else {
            return Ok(());
        };
        let how = match mode {
            ReplicaComparison::Sample => "a sample",
            ReplicaComparison::All => "all",
        };
        let (compared, of) = (human_bytes(compared_bytes), human_bytes(of_bytes));
        writeln!(f, "replicas: {compared} of {of} compared ({how})")
    }

    fn write_nodes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return Ok(());
        }
        #[cfg(feature = "cli")]
        write!(f, "\n{}", super::report_table::node_table(self))?;
        writeln!(f)?;
        self.write_paths(f)
    }

    /// Writes one line for each data path, with its rails.
    fn write_paths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ways: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (node, rail) in
            self.nodes.iter().flat_map(|node| node.rails.iter().map(move |rail| (node, rail)))
        {
            if let (Some(path), Some(driver)) = (&rail.path, &rail.driver) {
                let way = printable(&format!("{path} ({driver})")).into_owned();
                let rail = printable(&format!("{} {}", node.name, rail.nic)).into_owned();
                ways.entry(way).or_default().push(rail);
            }
        }
        for (way, rails) in ways.iter().take(WAYS_SHOWN_MAX) {
            match rails.as_slice() {
                [first, second, _, rest @ ..] => {
                    writeln!(f, "path: {way}: {first}, {second} and {} more", rest.len() + 1)?;
                }
                few => writeln!(f, "path: {way}: {}", few.join(", "))?,
            }
        }
        match ways.len().saturating_sub(WAYS_SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "path: {more} more ways (--json lists them all)"),
        }
    }

    fn write_error(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = &self.error else { return Ok(()) };
        writeln!(f, "\nerror {}: {}", error.code.number(), error.to_error())?;
        if error.missing_ranges.is_empty() {
            return Ok(());
        }
        let missing_bytes: u128 =
            error.missing_ranges.iter().map(|span| u128::from(span.bytes())).sum();
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
        for warning in &self.warnings {
            writeln!(f, "\nwarning: {}", printable(warning))?;
        }
        self.write_error(f)
    }
}

fn percent(part: f64, whole: f64) -> Option<f64> {
    let percent = part / whole * 100.0;
    percent.is_finite().then_some(percent)
}

/// Parts of a command's duration that are named are at least so long, and so much of it.
const NOTABLE_SECONDS: f64 = 0.05;
const NOTABLE_PART: f64 = 0.05;
const RANGES_SHOWN_MAX: usize = 16;
const WAYS_SHOWN_MAX: usize = 16;

#[cfg(test)]
#[path = "report_text_tests.rs"]
mod tests;

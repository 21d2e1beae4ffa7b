//! Histories of rail pairs: what came of the flows of each, for the report.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::openings::LATE;
use crate::core::error::{Code, Error};

/// The history of the flows of one rail pair, for the report.
#[derive(Debug)]
pub(super) struct RailPairHistory {
    nic: String,
    address: SocketAddr,
    has_brought: bool,
    /// Flows that stood, owed an answer, and were given up.
    silent_flows: u32,
    /// The reason why the last flow did not come up, or brought nothing.
    trouble: Option<String>,
    /// The instant at which the flow that stands was asked for something first.
    asked: Option<Instant>,
    /// A flow that came up late: the time that it took, and the way that it took at last.
    late: Option<(Duration, String)>,
    /// Pieces, and parts of pieces, that arrived changed.
    changed: u64,
    /// Headers that did, each of which has ended its flow.
    changed_headers: u64,
}

/// Who may have changed what arrived changed, for warnings.
pub(super) const CHANGERS: &str = "somebody or something between them changes bytes: a program, a \
                                   switch, a cable or a NIC";

impl RailPairHistory {
    pub(super) fn new(nic: String, address: SocketAddr) -> RailPairHistory {
        RailPairHistory {
            nic,
            address,
            has_brought: false,
            silent_flows: 0,
            trouble: None,
            asked: None,
            late: None,
            changed: 0,
            changed_headers: 0,
        }
    }

    pub(super) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    pub(super) fn brought(&mut self) {
        (self.has_brought, self.silent_flows, self.trouble) = (true, 0, None);
    }

    pub(super) fn nic(&self) -> &str {
        &self.nic
    }

    pub(super) fn silent_flows(&self) -> u32 {
        self.silent_flows
    }

    pub(super) fn has_brought(&self) -> bool {
        self.has_brought
    }

    /// A flow did not come up, or ended.
    pub(super) fn failed(&mut self, error: &Error) {
        self.silent_flows += u32::from(error.code == Code::Stalled && !self.has_brought);
        self.asked = None;
        self.changed_headers += u64::from(error.code == Code::Integrity);
        if error.code != Code::Cancelled && !self.has_brought {
            self.trouble = Some(error.to_string());
        }
    }

    /// A piece arrived changed.
    pub(super) fn changed(&mut self) {
        self.changed += 1;
    }

    /// The warning of the report about bytes that changed on the way, with the peer's name.
    pub(super) fn changed_warning(&self, peer: &str) -> Option<String> {
        let RailPairHistory { nic, address, changed, changed_headers, .. } = self;
        let what = match (changed, changed_headers) {
            (0, 0) => return None,
            (pieces, 0) => format!("{pieces} pieces"),
            (0, headers) => format!("{headers} frame headers"),
            (pieces, headers) => format!("{pieces} pieces and {headers} frame headers"),
        };
        Some(format!(
            "{nic}: {what} from {address} of {peer} arrived changed and were requested again; \
             {CHANGERS}"
        ))
    }

    pub(super) fn came_up(&mut self, took: Duration, how: String) {
        self.late.get_or_insert((took, how));
    }

    /// The warning of the report, with the peer's name. `opening` is what is known of a flow that
    /// is still being opened; `others_brought` is true if another rail pair of the NIC to the peer
    /// brought something.
    pub(super) fn warning(
        &self,
        now: Instant,
        peer: &str,
        opening: Option<Error>,
        others_brought: bool,
    ) -> Option<String> {
        let RailPairHistory { nic, address, .. } = self;
        if self.has_brought || others_brought {
            let (took, how) = self.late.as_ref()?;
            let seconds = took.as_secs_f64();
            return Some(format!(
                "{nic} lost {seconds:.1} s before its flow to {address} of {peer} stood: {how}"
            ));
        }
        let waited = self
            .asked
            .map(|asked| now.saturating_duration_since(asked))
            .filter(|waited| *waited >= LATE);
        let silent = waited.map(|waited| {
            format!("nothing came for {:.1} s of what it was asked for", waited.as_secs_f64())
        });
        let why =
            opening.map(|error| error.to_string()).or(silent).or_else(|| self.trouble.clone())?;
        Some(format!("{nic} carried nothing from {peer}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::wire::WireError;

    #[test]
    fn a_nic_that_changes_bytes_is_named() {
        let mut history = RailPairHistory::new("eth1".into(), ([10, 0, 1, 1], 1001).into());
        assert_eq!(history.changed_warning("a:1"), None);
        history.changed();
        history.changed();
        let warning = history.changed_warning("a:1").unwrap_or_default();
        assert!(warning.starts_with("eth1: 2 pieces from 10.0.1.1:1001 of a:1"), "{warning}");
    }

    /// The flow that it ended was opened again, and the report said nothing.
    #[test]
    fn a_nic_over_which_the_seal_of_a_header_broke_is_named() {
        let mut history = RailPairHistory::new("eth1".into(), ([10, 0, 1, 1], 1001).into());
        history.failed(&Error::new(Code::Unreachable, "the peer closed the flow"));
        assert_eq!(history.changed_warning("a:1"), None);
        history.failed(&Error::from(WireError::SealBroken));
        let warning = history.changed_warning("a:1").unwrap_or_default();
        assert!(warning.starts_with("eth1: 1 frame headers from 10.0.1.1:1001 of"), "{warning}");
        history.changed();
        let warning = history.changed_warning("a:1").unwrap_or_default();
        assert!(warning.starts_with("eth1: 1 pieces and 1 frame headers from"), "{warning}");
    }

    #[test]
    fn a_lane_that_brought_nothing_says_why_and_one_that_was_late_how_long() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let story = || RailPairHistory::new("eth1".into(), ([10, 0, 1, 1], 1001).into());
        let said = |story: &RailPairHistory, others: bool| {
            story.warning(at(5000), "a:1", None, others).unwrap_or_default()
        };
        assert_eq!(said(&story(), false), "", "it had nothing to do");
        let mut failed = story();
        failed.failed(&Error::new(Code::Cancelled, "everything has landed"));
        assert_eq!(said(&failed, false), "");
        failed.failed(&Error::new(Code::Stalled, "the sender was silent for 10 s"));
        assert_eq!(
            said(&failed, false),
            "eth1 carried nothing from a:1: the sender was silent for 10 s"
        );
        assert_eq!(said(&failed, true), "", "another thread of the NIC carried what there was");
        let mut silent = story();
        silent.asked(at(1500));
        assert!(said(&silent, false).contains("nothing came for 3.5 s of what it was asked for"));
        silent.came_up(Duration::from_millis(1040), "not bound".into());
        silent.brought();
        assert_eq!(
            said(&silent, false),
            "eth1 lost 1.0 s before its flow to 10.0.1.1:1001 of a:1 stood: not bound"
        );
    }
}

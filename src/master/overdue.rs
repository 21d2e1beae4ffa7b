//! The master's deadlines: what ends when which time is up, and who was waited for.

use super::conduct::{Conductor, Phase};
use super::ending::COMMIT_WITHIN;
use super::peer::{Peer, Stage};
use crate::error::{Code, Error};
use crate::units::{Moment, NodeIx, Span};

impl Conductor {
    pub(super) fn tick(&mut self, now: Moment) {
        if self.overall.is_some_and(|due| now >= due) && self.phase < Phase::Finishing {
            self.overall = None;
            let seconds = self.terms.timeout.unwrap_or_default().as_secs_f64();
            self.fail(now, Error::new(Code::Stalled, format!("the transfer took longer than {seconds} s")));
        }
        if self.phase == Phase::Moving && now >= self.last_news + self.patience {
            self.stalled(now);
        }
        if self.deadline.is_some_and(|due| now >= due) {
            self.deadline = None;
            self.overdue(now);
        }
    }

    /// Nothing landed for a while. Where everything has, nodes sync their disks, or read them back.
    fn stalled(&mut self, now: Moment) {
        let seconds = self.patience.as_secs_f64();
        let waited = self.names(|peer| peer.stage == Stage::Moving);
        let planned = |node| {
            let planned = self.plan.as_ref().map_or(&[][..], |plan| &plan.planned);
            self.by_receiver.segments(planned, node).map(|planned| planned.segment.span.bytes()).sum::<u64>()
        };
        let is_done = |node: NodeIx| self.peers[node.at()].landed_bytes >= planned(node);
        let has_landed = self.indices().all(|node| self.peers[node.at()].stage != Stage::Moving || is_done(node));
        if has_landed && self.patience < COMMIT_WITHIN {
            self.patience = COMMIT_WITHIN;
        } else if has_landed {
            let what = format!("{waited} did not make sure within {seconds} s of what has landed");
            self.fail(now, Error::new(Code::Stalled, what));
        } else {
            self.fail(now, Error::new(Code::Stalled, format!("no byte landed for {seconds} s at {waited}")));
        }
    }

    fn overdue(&mut self, now: Moment) {
        match self.phase {
            Phase::Meeting => {
                let silent = self.names(|peer| peer.stage == Stage::Absent);
                let error = Error::new(Code::Unreachable, format!("no answer from {silent}"));
                self.fail(now, error.remedy("is `cep-fast node` running there, with the same key?"));
            }
            Phase::Preparing => {
                let silent = self.names(|peer| peer.stage == Stage::Asked);
                self.fail(now, Error::new(Code::Stalled, format!("{silent} did not open its files in time")));
            }
            Phase::Committing => {
                let silent = self.names(|peer| peer.stage == Stage::Committing);
                self.fail(now, Error::new(Code::Stalled, format!("{silent} did not commit in time")));
            }
            Phase::Finishing => {
                // Who does not answer cannot say what it has.
                let silent = self.indices().filter(|node| self.peers[node.at()].stage == Stage::Moving);
                let missing: Vec<Span> = silent.flat_map(|node| self.unsettled(node)).collect();
                self.missing.extend(missing);
                self.done();
            }
            Phase::Moving | Phase::Done => {}
        }
    }

    fn names(&self, which: impl Fn(&Peer) -> bool) -> String {
        let nodes = self.roster.nodes().filter(|(node, _)| which(&self.peers[node.at()]));
        let names: Vec<String> = nodes.map(|(_, entry)| entry.address.to_string()).collect();
        match names.len() {
            0..=4 => names.join(", "),
            more => format!("{} and {} more", names[..4].join(", "), more - 4),
        }
    }
}

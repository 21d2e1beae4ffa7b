//! The master's deadlines: what ends when which time is up, and who was waited for.

use super::conduct::{Conductor, Phase};
use super::peer::{Peer, Stage};
use crate::error::{Code, Error};
use crate::units::{Moment, Span};

impl Conductor {
    pub(super) fn tick(&mut self, now: Moment) {
        if self.overall.is_some_and(|due| now >= due) && self.phase < Phase::Finishing {
            self.overall = None;
            let seconds = self.terms.timeout.unwrap_or_default().as_secs_f64();
            self.fail(now, Error::new(Code::Stalled, format!("the transfer took longer than {seconds} s")));
        }
        if self.phase == Phase::Moving && now >= self.last_news + self.terms.stall_timeout {
            let seconds = self.terms.stall_timeout.as_secs_f64();
            let waited = self.names(|peer| peer.stage == Stage::Moving);
            self.fail(now, Error::new(Code::Stalled, format!("no byte landed for {seconds} s at {waited}")));
        }
        if self.deadline.is_some_and(|due| now >= due) {
            self.deadline = None;
            self.overdue(now);
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

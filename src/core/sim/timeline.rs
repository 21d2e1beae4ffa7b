//! The story of a simulated transfer: landings over time, and news of the nodes.

use crate::core::units::{BitRate, Moment, NodeIx};
use crate::core::wire::control::ToMaster;

/// Something that befell a node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TimelineEntry {
    Died,
    /// Its line has another rate from now on, where it was told as one.
    Rate(BitRate),
    /// It has everything that it takes.
    Done,
    /// It could not have everything; why.
    Failed(String),
}

/// The course of a transfer.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct TransferTimeline {
    /// The moment at which bytes might move first.
    pub(crate) began: Moment,
    /// Bytes that have landed somewhere by each moment, each counted once at each receiver.
    landed: Vec<(Moment, u64)>,
    pub(crate) news: Vec<(Moment, NodeIx, TimelineEntry)>,
}

impl TransferTimeline {
    pub(super) fn landed(&mut self, now: Moment, bytes: u64) {
        let before = self.landed.last().map_or(0, |&(_, bytes)| bytes);
        self.landed.push((now, before + bytes));
    }

    pub(super) fn tell(&mut self, now: Moment, node: NodeIx, news: TimelineEntry) {
        self.news.push((now, node, news));
    }

    /// Takes in what a node tells its master.
    pub(super) fn hear(&mut self, now: Moment, node: NodeIx, message: &ToMaster) {
        match message {
            ToMaster::Landed { .. } => self.tell(now, node, TimelineEntry::Done),
            ToMaster::Failed { error, .. } => {
                self.tell(now, node, TimelineEntry::Failed(error.to_string()));
            }
            _ => {}
        }
    }

    /// Seconds between the moment at which bytes might move and the last landing.
    pub(crate) fn seconds(&self) -> f64 {
        self.landed.last().map_or(0.0, |&(last, _)| last.since(self.began).as_secs_f64())
    }

    pub(crate) fn landed_bytes(&self) -> u64 {
        self.landed.last().map_or(0, |&(_, bytes)| bytes)
    }

    /// Bytes that have landed `seconds` after the beginning. What lands between two moments of the
    /// story lands evenly: pieces are large where a transfer is, and would make the rate of a short
    /// time jump.
    pub(crate) fn landed_by(&self, seconds: f64) -> u64 {
        let since = |at: usize| self.landed[at].0.since(self.began).as_secs_f64();
        let after = self
            .landed
            .partition_point(|&(moment, _)| moment.since(self.began).as_secs_f64() <= seconds);
        if after == self.landed.len() {
            return self.landed_bytes();
        }
        let (start, before) =
            after.checked_sub(1).map_or((0.0, 0), |at| (since(at), self.landed[at].1));
        let part = (seconds - start) / (since(after) - start);
        before + ((self.landed[after].1 - before) as f64 * part) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_between_the_moments_at_which_pieces_land() {
        let mut history =
            TransferTimeline { began: Moment(1_000_000_000), ..TransferTimeline::default() };
        history.landed(Moment(2_000_000_000), 100);
        history.landed(Moment(4_000_000_000), 300);
        let by = [0.0, 0.5, 1.0, 2.0, 3.0, 9.0].map(|seconds| history.landed_by(seconds));
        assert_eq!(by, [0, 50, 100, 250, 400, 400]);
        assert!((history.seconds() - 3.0).abs() < 1e-9);
        assert_eq!(TransferTimeline::default().landed_by(1.0), 0);
    }
}

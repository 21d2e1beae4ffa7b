//! Shares of one receiver's senders: a queue of pieces for each sender, cut by the plan's weights.
//!
//! A share is a soft limit. When a share runs dry, its sender takes pieces from the end of the
//! share of another sender whose segments it also offers (stealing).

use std::collections::{BTreeMap, VecDeque};

use super::extent_map::{ExtentMap, PieceRun};
use super::flow_leases::FlowLeases;
use crate::core::units::{Moment, NodeIx, Span};

/// Runs that a thief examines in a share, from the end.
const STEAL_LOOK_RUNS: usize = 64;

/// Pieces that are still to be requested, by sender.
pub(super) struct SenderShares {
    queues: BTreeMap<NodeIx, ShareQueue>,
    /// Pieces that each sender should have had by the weights, beyond those that it had.
    due: BTreeMap<NodeIx, f64>,
}

#[derive(Default)]
struct ShareQueue {
    runs: VecDeque<PieceRun>,
    bytes: u64,
}

impl SenderShares {
    /// Cuts every segment of `extents` by the weights of its senders.
    ///
    /// Weights are kept over the whole transfer, not in every segment alone: a sender that loses a
    /// piece to rounding in one segment gets it in a later one. So segments of a single piece are
    /// spread by weight, too.
    ///
    /// Within a share, segments with the fewest senders come first: others can take over the rest.
    pub(super) fn cut<'a>(
        extents: &ExtentMap,
        weights: impl Iterator<Item = &'a [(NodeIx, u32)]>,
    ) -> SenderShares {
        let runs = (0..extents.segment_count()).map(|segment| extents.open_runs(segment));
        SenderShares::cut_runs(extents, runs, weights)
    }

    /// Creates shares without any sender.
    pub(super) fn empty() -> SenderShares {
        SenderShares { queues: BTreeMap::new(), due: BTreeMap::new() }
    }

    /// Cuts the remaining pieces of all shares again, by other weights.
    pub(super) fn cut_again<'a>(
        self,
        extents: &ExtentMap,
        weights: impl Iterator<Item = &'a [(NodeIx, u32)]>,
    ) -> SenderShares {
        let mut runs: Vec<Vec<PieceRun>> = vec![Vec::new(); extents.segment_count() as usize];
        for run in self.queues.into_values().flat_map(|queue| queue.runs) {
            runs[run.segment as usize].push(run);
        }
        runs.iter_mut().for_each(|runs| runs.sort_unstable_by_key(|run| run.first));
        SenderShares::cut_runs(extents, runs.into_iter(), weights)
    }

    fn cut_runs<'a>(
        extents: &ExtentMap,
        runs: impl Iterator<Item = Vec<PieceRun>>,
        weights: impl Iterator<Item = &'a [(NodeIx, u32)]>,
    ) -> SenderShares {
        let mut shares = SenderShares { queues: BTreeMap::new(), due: BTreeMap::new() };
        for (runs, weights) in runs.zip(weights) {
            shares.share_out(extents, runs, weights);
        }
        shares.put_rare_first(extents);
        shares
    }

    /// Shares out the runs of one segment by its weights.
    fn share_out(&mut self, extents: &ExtentMap, runs: Vec<PieceRun>, weights: &[(NodeIx, u32)]) {
        let pieces: u64 = runs.iter().map(|run| run.end - run.first).sum();
        accrue(pieces, weights, &mut self.due);
        let mut runs = VecDeque::from(runs);
        for (sender, count) in apportion(pieces, weights, &mut self.due) {
            for run in take_pieces(&mut runs, count) {
                self.push_back(extents, sender, run);
            }
        }
        assert!(runs.is_empty(), "every piece is in one share");
    }

    fn put_rare_first(&mut self, extents: &ExtentMap) {
        let rarity = |run: &PieceRun| extents.senders(run.segment).len();
        for queue in self.queues.values_mut() {
            queue.runs.make_contiguous().sort_by_key(rarity);
        }
    }

    /// Adds the pieces of new segments, each with the weights of its senders, to the shares as they
    /// are. `moved` has the new index of each old segment.
    pub(super) fn extend<'a>(
        &mut self,
        extents: &ExtentMap,
        moved: &[u32],
        segments: impl Iterator<Item = (u32, &'a [(NodeIx, u32)])>,
    ) {
        for run in self.queues.values_mut().flat_map(|queue| &mut queue.runs) {
            run.segment = moved[run.segment as usize];
        }
        for (segment, weights) in segments {
            self.share_out(extents, extents.open_runs(segment), weights);
        }
        self.put_rare_first(extents);
    }

    /// Returns the senders that have a share, and its bytes.
    pub(super) fn bytes(&self) -> impl Iterator<Item = (NodeIx, u64)> {
        self.queues.iter().map(|(&sender, queue)| (sender, queue.bytes))
    }

    /// Returns the senders that have a share, the one with the largest first.
    pub(super) fn largest_first(&self) -> Vec<NodeIx> {
        let mut shares: Vec<(NodeIx, u64)> = self.bytes().filter(|(_, bytes)| *bytes > 0).collect();
        shares.sort_unstable_by_key(|&(sender, bytes)| (std::cmp::Reverse(bytes), sender));
        shares.into_iter().map(|(sender, _)| sender).collect()
    }

    pub(super) fn bytes_of(&self, sender: NodeIx) -> u64 {
        self.queues.get(&sender).map_or(0, |queue| queue.bytes)
    }

    /// Adds a run at the end of a sender's share.
    pub(super) fn push_back(&mut self, extents: &ExtentMap, sender: NodeIx, run: PieceRun) {
        let queue = self.queues.entry(sender).or_default();
        queue.bytes += extents.run_bytes(run);
        queue.runs.push_back(run);
    }

    /// Adds a run at the front of a sender's share: it was requested once and comes first.
    fn push_front(&mut self, extents: &ExtentMap, sender: NodeIx, run: PieceRun) {
        let queue = self.queues.entry(sender).or_default();
        queue.bytes += extents.run_bytes(run);
        queue.runs.push_front(run);
    }

    /// Adds a run that was requested once: at the end of the share of a sender that only stands in
    /// for a relay. What is planned from it comes first, because others wait for that, and a newer
    /// plan may name another relay.
    pub(super) fn put_back(
        &mut self,
        extents: &ExtentMap,
        sender: NodeIx,
        run: PieceRun,
        stands_in: bool,
    ) {
        if stands_in {
            self.push_back(extents, sender, run);
        } else {
            self.push_front(extents, sender, run);
        }
    }

    /// Returns the segment of the next piece of a sender's own share.
    pub(super) fn next_segment(&self, sender: NodeIx) -> Option<u32> {
        Some(self.queues.get(&sender)?.runs.front()?.segment)
    }

    /// Takes the next piece of a sender's own share.
    pub(super) fn take(&mut self, extents: &ExtentMap, sender: NodeIx) -> Option<Span> {
        let queue = self.queues.get_mut(&sender)?;
        let run = queue.runs.front_mut()?;
        let piece = extents.piece(run.segment, run.first);
        run.first += 1;
        if run.first == run.end {
            queue.runs.pop_front();
        }
        queue.bytes -= piece.bytes();
        Some(piece)
    }

    /// Takes a piece from the end of `victim`'s share that `thief` offers, too.
    pub(super) fn steal(
        &mut self,
        extents: &ExtentMap,
        thief: NodeIx,
        victim: NodeIx,
    ) -> Option<Span> {
        let queue = self.queues.get_mut(&victim)?;
        let looked = queue.runs.len().saturating_sub(STEAL_LOOK_RUNS);
        let at = (looked..queue.runs.len())
            .rev()
            .find(|&at| extents.offers(thief, queue.runs[at].segment))?;
        let run = &mut queue.runs[at];
        run.end -= 1;
        let piece = extents.piece(run.segment, run.end);
        if run.first == run.end {
            queue.runs.remove(at);
        }
        queue.bytes -= piece.bytes();
        Some(piece)
    }

    /// Takes a piece off the share that would take longest, among those that a sender can bring.
    pub(super) fn steal_latest(
        &mut self,
        now: Moment,
        extents: &ExtentMap,
        flows: &FlowLeases,
        thief: NodeIx,
    ) -> Option<Span> {
        let others = self.bytes().filter(|&(victim, bytes)| victim != thief && bytes > 0);
        let mut victims: Vec<(f64, NodeIx)> = others
            .map(|(victim, bytes)| (bytes as f64 / flows.sender_rate(now, victim), victim))
            .collect();
        victims.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        victims.into_iter().find_map(|(_, victim)| self.steal(extents, thief, victim))
    }

    /// Removes the whole share of a lost sender.
    pub(super) fn remove(&mut self, sender: NodeIx) -> Vec<PieceRun> {
        self.queues.remove(&sender).map(|queue| queue.runs.into()).unwrap_or_default()
    }
}

/// Adds each sender's part of `pieces` to its due pieces. Weights that are all zero share equally.
fn accrue(pieces: u64, weights: &[(NodeIx, u32)], due: &mut BTreeMap<NodeIx, f64>) {
    let sum: f64 = weights.iter().map(|&(_, weight)| f64::from(weight)).sum();
    for &(sender, weight) in weights {
        let part = if sum > 0.0 { f64::from(weight) / sum } else { 1.0 / weights.len() as f64 };
        *due.entry(sender).or_insert(0.0) += part * pieces as f64;
    }
}

/// Takes the first `count` pieces off `runs`.
fn take_pieces(runs: &mut VecDeque<PieceRun>, mut count: u64) -> Vec<PieceRun> {
    let mut taken = Vec::new();
    while count > 0 {
        let run = runs.front_mut().expect("as many pieces as were apportioned");
        let pieces = count.min(run.end - run.first);
        taken.push(PieceRun { end: run.first + pieces, ..*run });
        run.first += pieces;
        count -= pieces;
        if run.first == run.end {
            runs.pop_front();
        }
    }
    taken
}

/// Returns the number of a segment's `pieces` for each sender: integers as close as possible to the
/// due pieces.
fn apportion(
    pieces: u64,
    weights: &[(NodeIx, u32)],
    due: &mut BTreeMap<NodeIx, f64>,
) -> Vec<(NodeIx, u64)> {
    let mut counts: Vec<(NodeIx, u64)> = Vec::with_capacity(weights.len());
    let mut left = pieces;
    for &(sender, _) in weights {
        let count = (due[&sender].max(0.0).floor() as u64).min(left);
        left -= count;
        counts.push((sender, count));
    }
    while left > 0 {
        // Rounding leaves fewer pieces than there are senders; a first sender that was owed many
        // pieces may leave more.
        let behind = |at: &usize| due[&counts[*at].0] - counts[*at].1 as f64;
        let next = (0..counts.len())
            .max_by(|a, b| behind(a).total_cmp(&behind(b)))
            .expect("a segment has senders");
        let missing = (behind(&next).floor().max(1.0) as u64).min(left);
        counts[next].1 += missing;
        left -= missing;
    }
    for (sender, count) in &counts {
        *due.get_mut(sender).expect("due was added above") -= *count as f64;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::block_grid::BlockGrid;
    use crate::core::check::CheckMethod;

    const A: NodeIx = NodeIx(0);
    const B: NodeIx = NodeIx(1);

    fn map(segments: &[(u64, u64)]) -> ExtentMap {
        let segments = segments.iter().map(|&(start, end)| (Span::new(start, end), vec![A, B]));
        ExtentMap::new(BlockGrid::new(0, 10), CheckMethod::None, segments)
    }

    #[test]
    fn segments_of_one_piece_are_spread_by_weight() {
        let extents = map(&(0..100).map(|at| (at * 10, at * 10 + 10)).collect::<Vec<_>>());
        let weights = [(A, 3), (B, 1)];
        let shares = SenderShares::cut(&extents, (0..100).map(|_| weights.as_slice()));
        assert_eq!(shares.bytes().collect::<Vec<_>>(), [(A, 750), (B, 250)]);
    }

    #[test]
    fn a_thief_takes_from_the_end_and_the_owner_from_the_front() {
        let extents = map(&[(0, 100)]);
        let mut shares = SenderShares::cut(&extents, [[(A, 1), (B, 0)].as_slice()].into_iter());
        assert_eq!(shares.bytes_of(A), 100);
        assert_eq!(shares.steal(&extents, B, A), Some(Span::new(90, 100)));
        assert_eq!(shares.take(&extents, A), Some(Span::new(0, 10)));
        assert_eq!(shares.steal(&extents, NodeIx(7), A), None);
        assert_eq!(shares.bytes_of(A), 80);
        assert_eq!(shares.take(&extents, B), None);
    }

    #[test]
    fn every_piece_is_taken_exactly_once() {
        let extents = map(&[(3, 47), (50, 51), (60, 200)]);
        let weights = [(A, 1), (B, 2)];
        let mut shares = SenderShares::cut(&extents, (0..3).map(|_| weights.as_slice()));
        let mut taken = Vec::new();
        while let Some(piece) = shares.take(&extents, A).or_else(|| shares.steal(&extents, A, B)) {
            taken.push(piece);
        }
        taken.sort_unstable();
        assert_eq!(
            crate::core::units::union(taken.clone()),
            [Span::new(3, 47), Span::new(50, 51), Span::new(60, 200)]
        );
        assert_eq!(taken.iter().map(|piece| piece.bytes()).sum::<u64>(), extents.wanted_bytes());
    }
}

//! Extent map of one receiver: the pieces it wants and which of them have landed.
//!
//! One scheduler per node holds it. Rails only hold leases on parts of it.

use crate::core::block_grid::BlockGrid;
use crate::core::check::{CheckComposer, CheckMethod};
use crate::core::units::{NodeIx, Span, union};
use crate::core::wire::Check;
use crate::core::wire::limits::LEFT_MAX;

mod kept;

/// A run of neighbouring pieces of one segment.
///
/// Invariant: `first < end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PieceRun {
    pub(super) segment: u32,
    pub(super) first: u64,
    pub(super) end: u64,
}

/// Wanted ranges and the pieces of them that have landed.
pub(crate) struct ExtentMap {
    grid: BlockGrid,
    method: CheckMethod,
    /// Invariant: ascending and disjoint.
    segments: Vec<SegmentExtents>,
    wanted_bytes: u64,
    landed_bytes: u64,
    /// Bytes of abandoned pieces: no sender is left for them.
    missing_bytes: u64,
}

struct SegmentExtents {
    span: Span,
    /// Nodes that offer it, ascending by index.
    senders: Vec<NodeIx>,
    settled: BitSet,
    /// Bytes that have neither landed nor been abandoned.
    left_bytes: u64,
    missing: Vec<u64>,
    checks: CheckComposer,
}

impl SegmentExtents {
    /// A segment of which nothing has landed.
    fn new(grid: BlockGrid, method: CheckMethod, span: Span, mut senders: Vec<NodeIx>) -> Self {
        senders.sort_unstable();
        let settled = BitSet::new(grid.piece_count(span));
        let (left_bytes, checks) = (span.bytes(), CheckComposer::of_segment(method, grid, span));
        SegmentExtents { span, senders, settled, left_bytes, missing: Vec::new(), checks }
    }
}

impl ExtentMap {
    /// Creates the map of `segments`, ascending and disjoint, of which nothing has landed.
    pub(super) fn new(
        grid: BlockGrid,
        method: CheckMethod,
        segments: impl Iterator<Item = (Span, Vec<NodeIx>)>,
    ) -> ExtentMap {
        let segment = |(span, senders)| SegmentExtents::new(grid, method, span, senders);
        let segments: Vec<SegmentExtents> = segments.map(segment).collect();
        assert!(
            segments.is_sorted_by(|a, b| a.span.end <= b.span.start),
            "segments ascend and share no byte"
        );
        let wanted_bytes = segments.iter().map(|segment| segment.span.bytes()).sum();
        ExtentMap { grid, method, segments, wanted_bytes, landed_bytes: 0, missing_bytes: 0 }
    }

    /// Puts further segments in between, which share no byte with each other or with those of the
    /// map. Returns the new index of each old segment, by its old index.
    pub(super) fn extend(
        &mut self,
        segments: impl Iterator<Item = (Span, Vec<NodeIx>)>,
    ) -> Vec<u32> {
        let old: Vec<u64> = self.spans().map(|span| span.start).collect();
        for (span, senders) in segments {
            self.wanted_bytes += span.bytes();
            self.segments.push(SegmentExtents::new(self.grid, self.method, span, senders));
        }
        self.segments.sort_by_key(|segment| segment.span.start);
        assert!(
            self.segments.is_sorted_by(|a, b| a.span.end <= b.span.start),
            "segments ascend and share no byte"
        );
        let index =
            |start: u64| self.segments.partition_point(|segment| segment.span.start < start) as u32;
        old.into_iter().map(index).collect()
    }

    pub(crate) fn grid(&self) -> BlockGrid {
        self.grid
    }

    pub(super) fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }

    pub(crate) fn landed_bytes(&self) -> u64 {
        self.landed_bytes
    }

    /// Returns the bytes of abandoned pieces.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.missing_bytes
    }

    /// Returns the bytes that have neither landed nor been abandoned.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.wanted_bytes - self.landed_bytes - self.missing_bytes
    }

    /// Returns, for each segment, the bytes that have neither landed nor been abandoned. Empty if
    /// there are more segments than may be reported.
    pub(crate) fn left_of_segments(&self) -> Vec<u64> {
        let segments = if self.segments.len() > LEFT_MAX { &[] } else { self.segments.as_slice() };
        segments.iter().map(|segment| segment.left_bytes).collect()
    }

    /// Returns the fraction of all wanted bytes that has not landed.
    pub(crate) fn part_left(&self) -> f64 {
        1.0 - self.landed_bytes as f64 / self.wanted_bytes.max(1) as f64
    }

    /// Returns true if every piece has landed or was abandoned.
    pub(super) fn is_settled(&self) -> bool {
        self.left_bytes() == 0
    }

    pub(super) fn segment_count(&self) -> u32 {
        u32::try_from(self.segments.len()).expect("segments are counted in 32 bits")
    }

    /// Returns the runs of a segment's pieces that have not landed.
    pub(super) fn open_runs(&self, segment: u32) -> Vec<PieceRun> {
        let end = self.grid.piece_count(self.segments[segment as usize].span);
        self.open_runs_of(PieceRun { segment, first: 0, end })
    }

    /// Returns the parts of a run that have not landed.
    fn open_runs_of(&self, run: PieceRun) -> Vec<PieceRun> {
        let PieceRun { segment, first, end } = run;
        let settled = &self.segments[segment as usize].settled;
        let mut runs: Vec<PieceRun> = Vec::new();
        for index in (first..end).filter(|&index| !settled.contains(index)) {
            match runs.last_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => runs.push(PieceRun { segment, first: index, end: index + 1 }),
            }
        }
        runs
    }

    /// Marks the pieces that lie wholly in `holes` (ascending, disjoint) as landed: they are zeros,
    /// and a new file's holes read as zeros. Returns the newly landed bytes.
    pub(super) fn land_holes(&mut self, holes: &[Span]) -> u64 {
        let mut bytes = 0;
        for segment in 0..self.segment_count() {
            let span = self.segments[segment as usize].span;
            let first = holes.partition_point(|hole| hole.end <= span.start);
            for hole in holes[first..].iter().take_while(|hole| hole.start < span.end) {
                let Some(part) = hole.intersection(span) else { continue };
                let (first, last) =
                    (self.grid.index_of(span, part.start), self.grid.index_of(span, part.end - 1));
                let is_cut = |index| u64::from(!hole.contains(self.grid.piece(span, index)));
                let run = PieceRun {
                    segment,
                    first: first + is_cut(first),
                    end: last + 1 - is_cut(last),
                };
                if run.first < run.end {
                    bytes += self.land_zeros(run);
                }
            }
        }
        bytes
    }

    /// Marks those pieces of a run of zeros as landed that have not. A run may have tens of
    /// millions of pieces: where checks of zeros join at any length, one check is computed for all
    /// that are neighbours.
    fn land_zeros(&mut self, run: PieceRun) -> u64 {
        let joins = !matches!(self.method, CheckMethod::Blake3(_));
        let mut bytes = 0;
        for open in self.open_runs_of(run) {
            if joins {
                let span = self.run_span(open);
                self.land_run(open, self.method.of_zeros(span));
                bytes += span.bytes();
                continue;
            }
            for index in open.first..open.end {
                let piece = self.piece(open.segment, index);
                self.land(piece, self.method.of_zeros(piece));
                bytes += piece.bytes();
            }
        }
        bytes
    }

    /// Marks a run of pieces as landed, of which none has.
    fn land_run(&mut self, run: PieceRun, check: Check) {
        let span = self.run_span(run);
        let segment = &mut self.segments[run.segment as usize];
        segment.settled.insert_all(run.first, run.end);
        segment.checks.add(span, check);
        segment.left_bytes -= span.bytes();
        self.landed_bytes += span.bytes();
    }

    fn run_span(&self, run: PieceRun) -> Span {
        Span::new(
            self.piece(run.segment, run.first).start,
            self.piece(run.segment, run.end - 1).end,
        )
    }

    pub(super) fn piece(&self, segment: u32, index: u64) -> Span {
        self.grid.piece(self.segments[segment as usize].span, index)
    }

    /// Returns the bytes of `run`.
    pub(super) fn run_bytes(&self, run: PieceRun) -> u64 {
        self.run_span(run).bytes()
    }

    /// Returns the segment and index of a piece that this map handed out.
    ///
    /// # Panics
    /// If `piece` is not a piece of the map.
    pub(super) fn place(&self, piece: Span) -> (u32, u64) {
        let at = self.segments.partition_point(|segment| segment.span.end <= piece.start);
        let index = self.grid.index_of(self.segments[at].span, piece.start);
        assert_eq!(self.grid.piece(self.segments[at].span, index), piece, "a piece of this map");
        (at as u32, index)
    }

    /// Returns the nodes that offer a segment.
    pub(super) fn senders(&self, segment: u32) -> &[NodeIx] {
        &self.segments[segment as usize].senders
    }

    /// Replaces the senders of a segment, as a newer plan says.
    pub(super) fn set_senders(&mut self, segment: u32, mut senders: Vec<NodeIx>) {
        senders.sort_unstable();
        self.segments[segment as usize].senders = senders;
    }

    /// Returns the ranges of the segments, ascending.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        self.segments.iter().map(|segment| segment.span)
    }

    /// Returns the landed parts of the segments within `span`, cut where segments are cut.
    pub(crate) fn landed_within(&self, span: Span) -> Vec<Span> {
        let first = self.segments.partition_point(|segment| segment.span.end <= span.start);
        let mut landed = Vec::new();
        for segment in
            self.segments[first..].iter().take_while(|segment| segment.span.start < span.end)
        {
            let has_landed =
                |&index: &u64| segment.settled.contains(index) && !segment.missing.contains(&index);
            let pieces = (0..self.grid.piece_count(segment.span)).filter(has_landed);
            let pieces = pieces.map(|index| self.grid.piece(segment.span, index));
            landed.extend(pieces.filter(|piece| span.contains(*piece)));
        }
        union(landed)
    }

    pub(super) fn offers(&self, sender: NodeIx, segment: u32) -> bool {
        self.senders(segment).binary_search(&sender).is_ok()
    }

    /// Returns true if the piece has landed or was abandoned.
    pub(super) fn is_settled_piece(&self, segment: u32, index: u64) -> bool {
        self.segments[segment as usize].settled.contains(index)
    }

    /// Marks a piece as landed. Returns false if it had landed before: a piece may land twice when
    /// two senders were asked for it.
    pub(super) fn land(&mut self, piece: Span, check: Check) -> bool {
        let (segment, index) = self.place(piece);
        let segment = &mut self.segments[segment as usize];
        if !segment.settled.insert(index) {
            return false;
        }
        segment.checks.add(piece, check);
        segment.left_bytes -= piece.bytes();
        self.landed_bytes += piece.bytes();
        true
    }

    /// Abandons a piece.
    pub(super) fn give_up(&mut self, segment: u32, index: u64) {
        let bytes = self.piece(segment, index).bytes();
        let segment = &mut self.segments[segment as usize];
        if segment.settled.insert(index) {
            segment.missing.push(index);
            segment.left_bytes -= bytes;
            self.missing_bytes += bytes;
        }
    }

    /// Returns the abandoned ranges, ascending and joined.
    pub(super) fn missing(&self) -> Vec<Span> {
        let pieces = self.segments.iter().flat_map(|segment| {
            segment.missing.iter().map(|&index| self.grid.piece(segment.span, index))
        });
        union(pieces.collect())
    }

    /// Returns the ranges that have not landed, abandoned or not, ascending and joined: those that
    /// would be missing if the transfer ended now.
    pub(crate) fn lacking(&self) -> Vec<Span> {
        let open = (0..self.segment_count()).flat_map(|segment| self.open_runs(segment));
        let open = open.map(|run| self.run_span(run));
        union(open.chain(self.missing()).collect())
    }

    /// Returns the composed check values, segment by segment.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (Span, Vec<(Span, Check)>)> {
        self.segments.iter().map(|segment| (segment.span, segment.checks.checks().collect()))
    }
}

/// A set of small numbers, one bit each.
struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    fn new(count: u64) -> BitSet {
        BitSet { words: vec![0; usize::try_from(count.div_ceil(64)).expect("pieces fit memory")] }
    }

    fn contains(&self, index: u64) -> bool {
        self.words[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    /// Adds every index from `first` up to, but not including, `end`.
    fn insert_all(&mut self, first: u64, end: u64) {
        for at in first / 64..end.div_ceil(64) {
            let (low, high) = (first.saturating_sub(at * 64), (end - at * 64).min(64));
            self.words[at as usize] |= u64::MAX >> (64 - (high - low)) << low;
        }
    }

    /// Adds `index`. Returns true if it is new.
    fn insert(&mut self, index: u64) -> bool {
        let word = &mut self.words[(index / 64) as usize];
        let bit = 1 << (index % 64);
        let news = *word & bit == 0;
        *word |= bit;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extents() -> ExtentMap {
        let segments =
            [(Span::new(5, 25), vec![NodeIx(1), NodeIx(0)]), (Span::new(30, 40), vec![NodeIx(2)])];
        ExtentMap::new(BlockGrid::new(0, 10), CheckMethod::Crc64, segments.into_iter())
    }

    #[test]
    fn a_piece_lands_once() {
        let mut map = extents();
        let piece = map.piece(0, 1);
        assert_eq!(piece, Span::new(10, 20));
        assert!(map.land(piece, Check::None));
        assert!(!map.land(piece, Check::None));
        assert_eq!(map.landed_bytes(), 10);
        assert_eq!(map.left_of_segments(), [10, 10]);
        assert!(map.is_settled_piece(0, 1) && !map.is_settled_piece(0, 0));
    }

    #[test]
    fn what_is_given_up_is_missing_and_settles_the_rest() {
        let mut map = extents();
        map.land(Span::new(30, 40), Check::None);
        for index in [1, 0, 2] {
            map.give_up(0, index);
        }
        assert_eq!(map.missing(), [Span::new(5, 25)]);
        assert!(map.is_settled());
    }

    /// Regression: a sparse file of this size in the smallest blocks kept a node's control thread
    /// busy for 15 s.
    #[test]
    fn the_hole_of_a_huge_file_lands_as_one() {
        let bytes = 200 << 30;
        let segment = (Span::new(0, bytes), vec![NodeIx(0)]);
        let mut map =
            ExtentMap::new(BlockGrid::new(0, 4096), CheckMethod::Crc64, [segment].into_iter());
        assert_eq!(map.land_holes(&[Span::new(1, bytes - 1)]), bytes - 2 * 4096);
        let checks: Vec<_> = map.checks().flat_map(|(_, checks)| checks).collect();
        let zeros = Span::new(4096, bytes - 4096);
        assert_eq!(checks, [(zeros, CheckMethod::Crc64.of_zeros(zeros))]);
        assert_eq!(map.left_bytes(), 2 * 4096);
    }

    proptest! {
        #[test]
        fn holes_land_as_their_pieces_do(
            start in 0u64..40, bytes in 1u64..3000,
            cuts in proptest::collection::vec(0u64..3040, 0..12),
        ) {
            let span = Span::of(start, bytes);
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.dedup();
            let holes: Vec<Span> =
                cuts.chunks_exact(2).map(|ends| Span::new(ends[0], ends[1])).collect();
            for method in [CheckMethod::None, CheckMethod::Crc64] {
                let segments = || [(span, vec![NodeIx(0)])].into_iter();
                let map = || ExtentMap::new(BlockGrid::new(0, 10), method, segments());
                let (mut whole, mut pieces) = (map(), map());
                let landed = whole.land_holes(&holes);
                for index in 0..pieces.grid.piece_count(span) {
                    let piece = pieces.piece(0, index);
                    if holes.iter().any(|hole| hole.contains(piece)) {
                        pieces.land(piece, method.of_zeros(piece));
                    }
                }
                prop_assert_eq!(landed, pieces.landed_bytes());
                prop_assert_eq!(whole.left_bytes(), pieces.left_bytes());
                prop_assert_eq!(whole.open_runs(0), pieces.open_runs(0));
                let checks = |map: &ExtentMap| map.checks().collect::<Vec<_>>();
                prop_assert_eq!(checks(&whole), checks(&pieces));
            }
        }
    }

    #[test]
    #[should_panic(expected = "a piece of this map")]
    fn a_piece_of_another_grid_is_a_broken_promise() {
        extents().place(Span::new(5, 11));
    }
}

//! Pieces of an earlier attempt in an extent map, whichever grid they were cut by.
//!
//! Blocks may have had another size, and segments other ends. A record that covers several pieces
//! lands them all, and records that make a piece together land it, as long as their checks join.
//! Pieces that are known in part are fetched again.

use super::{ExtentMap, PieceRun};
use crate::core::check::{CheckComposer, CheckMethod};
use crate::core::piece::LandedPiece;
use crate::core::units::{Span, covers};
use crate::core::wire::Check;

/// Neighbouring bytes that are known, from the start of a piece on.
struct KnownRange {
    segment: u32,
    span: Span,
    checks: CheckComposer,
}

impl KnownRange {
    fn add(&mut self, span: Span, check: Check) {
        if !span.is_empty() {
            self.checks.add(span, check);
            self.span.end = span.end;
        }
    }
}

fn are_zeros(holes: &[Span], span: Span) -> bool {
    span.is_empty() || covers(holes, span)
}

impl ExtentMap {
    /// Marks the pieces that an earlier attempt had landed: `kept` ascends. Parts of pieces in
    /// `holes` (ascending, disjoint) are known zeros. Returns the newly landed bytes. Call it
    /// before anything else lands.
    pub(in crate::core::receiver) fn land_kept(
        &mut self,
        kept: &[LandedPiece],
        holes: &[Span],
    ) -> u64 {
        if matches!(self.method, CheckMethod::Blake3(_)) {
            return kept.iter().map(|it| self.land_kept_piece(it)).sum();
        }
        let mut bytes = 0;
        let mut known: Option<KnownRange> = None;
        for (at, it) in kept.iter().enumerate() {
            let before = known.take();
            let Some(segment) = self.segment_of(it.span) else { continue };
            let follows =
                |known: &KnownRange| known.segment == segment && known.span.end == it.span.start;
            let begun =
                before.filter(follows).or_else(|| self.begin_known(segment, it.span, holes));
            let Some(mut range) = begun else { continue };
            range.add(it.span, it.check);
            let last = self.piece_at(segment, it.span.end - 1);
            let next = kept.get(at + 1).map_or(last.end, |next| next.span.start.min(last.end));
            let gap = Span::new(it.span.end, next.max(it.span.end));
            if are_zeros(holes, gap) {
                range.add(gap, self.method.of_zeros(gap));
            }
            if range.span.end == last.end {
                bytes += self.land_known(&range);
            } else {
                known = Some(range);
            }
        }
        bytes
    }

    /// Lands a record that is one of the pieces, whose check joins with no other grid's.
    fn land_kept_piece(&mut self, kept: &LandedPiece) -> u64 {
        let is_piece = self
            .segment_of(kept.span)
            .is_some_and(|segment| self.piece_at(segment, kept.span.start) == kept.span);
        if is_piece && self.land(kept.span, kept.check) { kept.span.bytes() } else { 0 }
    }

    /// Returns the known range before a record, from the start of its first piece on: nothing, or
    /// zeros.
    fn begin_known(&self, segment: u32, record: Span, holes: &[Span]) -> Option<KnownRange> {
        let start = self.piece_at(segment, record.start).start;
        let before = Span::new(start, record.start);
        let (span, checks) = (Span::new(start, start), CheckComposer::new(self.method));
        let mut range = KnownRange { segment, span, checks };
        are_zeros(holes, before).then(|| {
            range.add(before, self.method.of_zeros(before));
            range
        })
    }

    /// Lands the pieces of a range that is known to the end of a piece.
    fn land_known(&mut self, range: &KnownRange) -> u64 {
        let segment = self.segments[range.segment as usize].span;
        let index = |position| self.grid.index_of(segment, position);
        let (first, end) = (index(range.span.start), index(range.span.end - 1) + 1);
        let run = PieceRun { segment: range.segment, first, end };
        let is_open = self.open_runs_of(run) == [run];
        match range.checks.checks().next() {
            Some((span, check)) if is_open && span == range.span => {
                self.land_run(run, check);
                span.bytes()
            }
            _ => 0,
        }
    }

    /// Returns the segment that contains `span`.
    fn segment_of(&self, span: Span) -> Option<u32> {
        let at = self.segments.partition_point(|segment| segment.span.end <= span.start);
        let segment = self.segments.get(at).filter(|it| it.span.contains(span));
        segment.map(|_| at as u32)
    }

    fn piece_at(&self, segment: u32, position: u64) -> Span {
        self.piece(segment, self.grid.index_of(self.segments[segment as usize].span, position))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::block_grid::BlockGrid;
    use crate::core::units::NodeIx;
    use crate::core::wire::control::SourceOrigin;

    /// Every byte is its position, but zeros in `holes`.
    fn check(method: CheckMethod, span: Span, holes: &[Span]) -> Check {
        let byte = |at: u64| if covers(holes, Span::of(at, 1)) { 0 } else { at as u8 | 1 };
        method.of(span, &(span.start..span.end).map(byte).collect::<Vec<u8>>())
    }

    fn map(method: CheckMethod, block: u64, segments: &[Span]) -> ExtentMap {
        let segments = segments.iter().map(|span| (*span, vec![NodeIx(0)]));
        ExtentMap::new(BlockGrid::new(3, block), method, segments)
    }

    /// Spans that begin at 5 and end at the cuts.
    fn segments(cuts: &[u64]) -> Vec<Span> {
        let starts = std::iter::once(5).chain(cuts.iter().copied());
        starts.zip(cuts).map(|(start, end)| Span::new(start, *end)).collect()
    }

    fn pieces(map: &ExtentMap) -> impl Iterator<Item = Span> {
        let runs = (0..map.segment_count()).flat_map(|segment| map.open_runs(segment));
        runs.flat_map(move |run| {
            (run.first..run.end).map(move |index| map.piece(run.segment, index))
        })
    }

    fn kept(method: CheckMethod, span: Span, holes: &[Span]) -> LandedPiece {
        LandedPiece {
            span,
            check: check(method, span, holes),
            origin: SourceOrigin { who: 0, state: 0 },
        }
    }

    #[test]
    fn larger_and_smaller_records_land_the_pieces_that_they_make() {
        let method = CheckMethod::Crc64;
        let whole = [Span::new(3, 67)];
        let of = |spans: &[(u64, u64)]| -> Vec<LandedPiece> {
            spans.iter().map(|&(from, to)| kept(method, Span::new(from, to), &[])).collect()
        };
        let mut fine = map(method, 8, &whole);
        assert_eq!(fine.land_kept(&of(&[(19, 35), (51, 67)]), &[]), 32);
        assert_eq!(fine.lacking(), [Span::new(3, 19), Span::new(35, 51)]);
        let mut coarse = map(method, 16, &whole);
        let records = of(&[(11, 19), (19, 27), (27, 35), (35, 43), (51, 59), (59, 67)]);
        assert_eq!(coarse.land_kept(&records, &[]), 32, "in two pieces, and two halves are lost");
        assert_eq!(coarse.lacking(), [Span::new(3, 19), Span::new(35, 51)]);
        // A half beside a hole is whole.
        let mut holed = map(method, 16, &whole);
        let holes = [Span::new(0, 11), Span::new(43, 51)];
        assert_eq!(holed.land_kept(&records, &holes), 64);
    }

    #[test]
    fn values_of_blake3_land_the_same_pieces_alone() {
        let method = CheckMethod::Blake3(None);
        let mut fine = map(method, 8, &[Span::new(3, 67)]);
        let records = [kept(method, Span::new(3, 19), &[]), kept(method, Span::new(19, 27), &[])];
        assert_eq!(fine.land_kept(&records, &[]), 8);
    }

    proptest! {
        /// Whatever the grids: a piece lands if all of it is known, and what has landed has the
        /// check of its bytes.
        #[test]
        fn what_is_known_lands_with_its_check(
            (old, new) in (0..5u32, 0..5u32),
            (old_cuts, new_cuts) in (cuts(), cuts()),
            lost in proptest::collection::vec(0usize..40, 0..6),
            holes in proptest::collection::vec(0u64..300, 0..6),
        ) {
            let method = CheckMethod::Crc64;
            let mut ends = holes;
            ends.sort_unstable();
            ends.dedup();
            let holes: Vec<Span> =
                ends.chunks_exact(2).map(|ends| Span::new(ends[0], ends[1])).collect();
            let before = map(method, 4 << old, &segments(&old_cuts));
            let records: Vec<LandedPiece> = pieces(&before)
                .enumerate()
                .filter(|(at, piece)| !lost.contains(at) && !covers(&holes, *piece))
                .map(|(_, piece)| kept(method, piece, &holes))
                .collect();
            let mut after = map(method, 4 << new, &segments(&new_cuts));
            let all = after.left_bytes();
            let landed = after.land_kept(&records, &holes);
            prop_assert_eq!(landed, after.landed_bytes());
            let zeros = after.land_holes(&holes);
            prop_assert_eq!(landed + zeros + after.left_bytes(), all);
            for (span, values) in after.checks() {
                for (part, value) in values {
                    prop_assert!(span.contains(part));
                    prop_assert_eq!(value, check(method, part, &holes));
                }
            }
            let same_cuts = old_cuts == new_cuts;
            let known = |piece: &Span| {
                let there = records.iter().map(|it| it.span).chain(holes.iter().copied());
                let there = crate::core::units::union(there.collect());
                covers(&there, *piece)
            };
            // Nothing that is known whole is fetched again, if no cut is in the way.
            prop_assert!(!same_cuts || pieces(&after).all(|piece| !known(&piece)));
        }
    }

    fn cuts() -> impl Strategy<Value = Vec<u64>> {
        prop_oneof![
            Just(vec![120, 290]),
            proptest::collection::btree_set(6u64..300, 1..5)
                .prop_map(|cuts| cuts.into_iter().collect()),
        ]
    }
}

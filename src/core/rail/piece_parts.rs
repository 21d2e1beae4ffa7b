//! Parts of pieces on flows whose bytes change on the way.
//!
//! TCP does not notice every change, and the larger a piece, the likelier one of its packets is
//! changed. A piece that arrives changed is requested again in parts, and so are the next pieces of
//! its flow: smaller parts after each change, larger ones once many have come as they were sent.
//! Each part has a check of its own, and their checks join into the piece's.

use std::collections::VecDeque;

use crate::core::check::{CheckComposer, CheckMethod};
use crate::core::error::Error;
use crate::core::piece::Piece;
use crate::core::units::{Span, subtract};
use crate::core::wire::Check;

/// Smallest part: three packets.
pub(super) const PART_BYTES_MIN: u64 = 4 << 10;
/// A part that changed is followed by parts of this part of its size.
const SMALLER: u64 = 4;
/// Parts that come unchanged in a row, after which they are twice as large.
const INTACT_IN_ROW: u32 = 32;
/// Parts of one piece that arrive changed with none unchanged between them, after which the piece
/// has failed on this flow.
const CHANGED_IN_ROW_MAX: u32 = 16;

/// Largest part that is requested at once on one flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartSize {
    bytes_max: u64,
    intact: u32,
}

impl PartSize {
    /// Pieces are requested whole.
    pub(super) fn whole() -> PartSize {
        PartSize { bytes_max: u64::MAX, intact: 0 }
    }

    pub(super) fn bytes_max(self) -> u64 {
        self.bytes_max
    }

    /// A part of this size arrived changed.
    pub(super) fn changed(&mut self, bytes: u64) {
        let smaller = 1 << (bytes / SMALLER).max(PART_BYTES_MIN).ilog2();
        (self.bytes_max, self.intact) = (self.bytes_max.min(smaller), 0);
    }

    /// A part arrived as it was sent.
    pub(super) fn intact(&mut self) {
        self.intact += 1;
        if self.intact >= INTACT_IN_ROW {
            (self.bytes_max, self.intact) = (self.bytes_max.saturating_mul(2), 0);
        }
    }
}

/// A piece that is requested in parts.
pub(super) struct SplitPiece {
    piece: Piece,
    /// Ranges that are to be requested.
    missing: VecDeque<Span>,
    /// Parts that are requested, and neither written nor failed.
    out: u32,
    /// Parts of these that are being written.
    writing: u32,
    /// Joined checks of what is written.
    checks: CheckComposer,
    changed_in_row: u32,
    /// Why the piece has failed.
    error: Option<Error>,
    /// True if its flow is gone: nobody waits for it.
    is_dropped: bool,
}

/// Pieces whose flows ended while parts of them were written. A flow that gets one of them requests
/// what is not written: where headers change so often that no flow lives for a whole piece, the
/// transfer goes on by parts.
pub(super) struct BegunPieces {
    pieces: VecDeque<SplitPiece>,
}

/// Begun pieces that are remembered.
const BEGUN_MAX: usize = 64;

impl BegunPieces {
    pub(super) fn new() -> BegunPieces {
        BegunPieces { pieces: VecDeque::new() }
    }

    /// Remembers what is written of a piece, and forgets the oldest of too many.
    pub(super) fn keep(&mut self, split: SplitPiece) {
        if split.checks.checks().next().is_none() {
            return;
        }
        self.pieces.retain(|other| other.piece.span != split.piece.span);
        self.pieces.push_back(split);
        if self.pieces.len() > BEGUN_MAX {
            self.pieces.pop_front();
        }
    }

    /// Takes a piece that was begun, to be requested without what is written.
    pub(super) fn resume(&mut self, piece: Piece) -> Option<SplitPiece> {
        let at = self.pieces.iter().position(|begun| begun.piece.span == piece.span)?;
        let SplitPiece { checks, .. } = self.pieces.remove(at)?;
        let written: Vec<Span> = checks.checks().map(|(span, _)| span).collect();
        let missing = subtract(piece.span, &written).into();
        Some(SplitPiece {
            piece,
            missing,
            out: 0,
            writing: 0,
            checks,
            changed_in_row: 0,
            error: None,
            is_dropped: false,
        })
    }
}

/// End of a piece that was requested in parts.
pub(super) enum SplitEnd {
    Landed(Piece, Check),
    Failed(Piece, Error),
    /// Its flow is gone; the scheduler has heard of that.
    Dropped,
}

impl SplitPiece {
    /// Creates a split of a piece, of which nothing is requested. Checks of `method` must join.
    pub(super) fn new(piece: Piece, method: CheckMethod) -> SplitPiece {
        SplitPiece {
            piece,
            missing: VecDeque::from([piece.span]),
            out: 0,
            writing: 0,
            checks: CheckComposer::new(method),
            changed_in_row: 0,
            error: None,
            is_dropped: false,
        }
    }

    /// Returns true if `part` is one of its parts.
    pub(super) fn has(&self, part: Span) -> bool {
        self.piece.span.contains(part)
    }

    /// Takes the next part of at most `bytes_max`, a power of two, to be requested.
    pub(super) fn take(&mut self, bytes_max: u64) -> Option<Piece> {
        let missing = self.missing.pop_front()?;
        let line = (missing.start / bytes_max + 1).saturating_mul(bytes_max);
        let part = Span::new(missing.start, missing.end.min(line));
        if part.end < missing.end {
            self.missing.push_front(Span::new(part.end, missing.end));
        }
        self.out += 1;
        Some(Piece { span: part, stolen: self.piece.stolen })
    }

    /// A part arrived as it was sent, and is being written.
    pub(super) fn received(&mut self) {
        self.writing += 1;
        self.changed_in_row = 0;
    }

    /// A part arrived changed. After too many in a row the piece fails with `error`.
    pub(super) fn changed(&mut self, part: Span, error: Error) {
        self.changed_in_row += 1;
        if self.changed_in_row >= CHANGED_IN_ROW_MAX {
            self.fail(error);
        } else {
            self.out -= 1;
            self.missing.push_front(part);
        }
    }

    /// A part was refused, or changed too often: the whole piece is given back.
    pub(super) fn fail(&mut self, error: Error) {
        self.out -= 1;
        self.missing.clear();
        self.error.get_or_insert(error);
    }

    /// A part is written.
    pub(super) fn written(&mut self, part: Span, check: Check) {
        self.out -= 1;
        self.writing -= 1;
        self.checks.add(part, check);
    }

    /// Its flow is gone: only parts that are being written come to an end.
    pub(super) fn drop_flow(&mut self) {
        self.missing.clear();
        self.out = self.writing;
        self.is_dropped = true;
    }

    /// Returns the end of the piece, once nothing of it is out.
    pub(super) fn end(&mut self) -> Option<SplitEnd> {
        if self.out > 0 || !self.missing.is_empty() {
            return None;
        }
        if self.is_dropped {
            return Some(SplitEnd::Dropped);
        }
        Some(match self.error.take() {
            Some(error) => SplitEnd::Failed(self.piece, error),
            None => {
                let mut checks = self.checks.checks();
                let (span, check) = checks.next().expect("a piece has bytes");
                assert_eq!((span, checks.next()), (self.piece.span, None), "all parts join");
                SplitEnd::Landed(self.piece, check)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::error::Code;

    const METHOD: CheckMethod = CheckMethod::Crc64;
    const PIECE: Piece = Piece { span: Span { start: 5000, end: 30_000 }, stolen: true };

    fn bytes(span: Span) -> Vec<u8> {
        (span.start..span.end).map(|at| (at * 7 / 3) as u8).collect()
    }

    fn changed() -> Error {
        Error::new(Code::Integrity, "changed")
    }

    #[test]
    fn parts_shrink_with_each_change_and_grow_when_many_come_unchanged() {
        let mut size = PartSize::whole();
        size.changed(1 << 20);
        assert_eq!(size.bytes_max(), 256 << 10);
        size.changed(1 << 20);
        assert_eq!(size.bytes_max(), 256 << 10, "another large one that was on its way");
        size.changed(256 << 10);
        (0..INTACT_IN_ROW - 1).for_each(|_| size.intact());
        assert_eq!(size.bytes_max(), 64 << 10);
        size.intact();
        assert_eq!(size.bytes_max(), 128 << 10);
        (0..3000).for_each(|_| size.intact());
        assert_eq!(size.bytes_max(), u64::MAX);
        (0..20).for_each(|_| size.changed(5000));
        assert_eq!(size.bytes_max(), PART_BYTES_MIN);
    }

    #[test]
    fn parts_of_any_size_in_any_order_make_the_piece_with_its_check() {
        let mut split = SplitPiece::new(PIECE, METHOD);
        let mut parts: Vec<Span> = Vec::new();
        for size in [4096, 8192, 1 << 20] {
            parts.extend(split.take(size).map(|part| part.span));
        }
        assert_eq!(
            parts,
            [Span::new(5000, 8192), Span::new(8192, 16_384), Span::new(16_384, 30_000)]
        );
        split.changed(parts[2], changed());
        assert_eq!(split.take(8192).map(|part| part.span), Some(Span::new(16_384, 24_576)));
        assert_eq!(split.take(8192).map(|part| part.span), Some(Span::new(24_576, 30_000)));
        assert!(split.take(8192).is_none() && split.end().is_none());
        for (start, end) in [(24_576, 30_000), (5000, 8192), (16_384, 24_576), (8192, 16_384)] {
            assert!(split.end().is_none());
            let part = Span::new(start, end);
            split.received();
            split.written(part, METHOD.of(part, &bytes(part)));
        }
        let Some(SplitEnd::Landed(piece, check)) = split.end() else { panic!("all is written") };
        assert_eq!((piece, check), (PIECE, METHOD.of(PIECE.span, &bytes(PIECE.span))));
    }

    #[test]
    fn a_piece_whose_parts_all_change_fails_once_what_is_written_has_ended() {
        let mut split = SplitPiece::new(PIECE, METHOD);
        let first = split.take(4096).expect("a part");
        split.received();
        for _ in 0..CHANGED_IN_ROW_MAX {
            assert!(split.end().is_none());
            let part = split.take(4096).expect("it is tried again");
            split.changed(part.span, changed());
        }
        assert!(split.take(4096).is_none() && split.end().is_none(), "the first is being written");
        split.written(first.span, METHOD.of(first.span, &bytes(first.span)));
        assert!(matches!(split.end(), Some(SplitEnd::Failed(PIECE, _))));
    }

    #[test]
    fn a_piece_whose_flow_is_gone_ends_with_its_writes() {
        let mut split = SplitPiece::new(PIECE, METHOD);
        let parts = [split.take(4096), split.take(4096)].map(|part| part.expect("a part").span);
        split.received();
        split.drop_flow();
        assert!(split.end().is_none());
        split.written(parts[0], Check::Crc64(0));
        assert!(matches!(split.end(), Some(SplitEnd::Dropped)));
    }

    #[test]
    fn a_piece_that_was_begun_is_requested_without_what_is_written_of_it() {
        let mut begun = BegunPieces::new();
        let mut dropped = SplitPiece::new(PIECE, METHOD);
        let parts: Vec<Span> =
            (0..3).filter_map(|_| dropped.take(4096)).map(|part| part.span).collect();
        dropped.received();
        dropped.drop_flow();
        dropped.written(parts[1], METHOD.of(parts[1], &bytes(parts[1])));
        begun.keep(dropped);
        begun.keep(SplitPiece::new(Piece { span: Span::new(0, 9), stolen: false }, METHOD));
        assert!(begun.resume(Piece { span: Span::new(0, 9), stolen: false }).is_none(), "nothing");
        let again = Piece { stolen: false, ..PIECE };
        let mut split = begun.resume(again).expect("a part is written");
        assert!(begun.resume(again).is_none(), "it is another flow's");
        let rest: Vec<Span> =
            std::iter::from_fn(|| split.take(1 << 20)).map(|part| part.span).collect();
        assert_eq!(rest, [parts[0], Span::new(parts[1].end, PIECE.span.end)]);
        for part in rest {
            split.received();
            split.written(part, METHOD.of(part, &bytes(part)));
        }
        let Some(SplitEnd::Landed(piece, check)) = split.end() else { panic!("all is written") };
        assert_eq!((piece, check), (again, METHOD.of(PIECE.span, &bytes(PIECE.span))));
    }

    #[test]
    fn the_oldest_of_too_many_begun_pieces_is_forgotten() {
        let mut begun = BegunPieces::new();
        let piece = |at: usize| Piece { span: Span::of(at as u64 * 8192, 8192), stolen: false };
        for at in 0..=BEGUN_MAX {
            let mut split = SplitPiece::new(piece(at), METHOD);
            let part = split.take(4096).expect("a part").span;
            split.received();
            split.written(part, METHOD.of(part, &bytes(part)));
            split.drop_flow();
            begun.keep(split);
        }
        assert!(begun.resume(piece(0)).is_none() && begun.resume(piece(1)).is_some());
    }
}

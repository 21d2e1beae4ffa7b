//! Block grid: it cuts the data space into pieces.

use crate::core::units::{KIB, Span};

/// Smallest block that is chosen where the specification gives none. Half of it saves no measurable
/// time, and pays the same for each piece.
pub(crate) const BLOCK_BYTES_MIN: u64 = 64 * KIB;
/// Pieces of one receiver, beyond which larger blocks are chosen: their bits, and 64 bytes in a
/// journal each, are as much as a receiver should hold.
pub(crate) const PIECES_MAX: u64 = 1 << 20;

/// A grid with a line every `block_bytes`, through the origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockGrid {
    origin: u64,
    block_bytes: u64,
}

impl BlockGrid {
    /// # Panics
    /// If `block_bytes` is zero.
    pub(crate) fn new(origin: u64, block_bytes: u64) -> BlockGrid {
        assert!(block_bytes > 0, "a block has bytes");
        BlockGrid { origin, block_bytes }
    }

    pub(crate) fn origin(self) -> u64 {
        self.origin
    }

    pub(crate) fn block_bytes(self) -> u64 {
        self.block_bytes
    }

    /// Returns the bytes from the grid line at or below `position`.
    fn phase(self, position: u64) -> u64 {
        let block = self.block_bytes;
        (position % block + block - self.origin % block) % block
    }

    /// Returns true if a grid line runs through `position`.
    pub(crate) fn is_line(self, position: u64) -> bool {
        self.phase(position) == 0
    }

    /// Returns the number of pieces that the grid cuts `segment` into.
    pub(crate) fn piece_count(self, segment: Span) -> u64 {
        if segment.is_empty() {
            return 0;
        }
        let reach = u128::from(self.phase(segment.start)) + u128::from(segment.bytes());
        u64::try_from(reach.div_ceil(u128::from(self.block_bytes)))
            .expect("fewer pieces than bytes")
    }

    /// Returns piece `index` of `segment`.
    ///
    /// # Panics
    /// If the segment has no such piece.
    pub(crate) fn piece(self, segment: Span, index: u64) -> Span {
        let phase = self.phase(segment.start);
        let line = |index: u64| (index * self.block_bytes).saturating_sub(phase);
        let start = segment.start + line(index);
        assert!(start < segment.end, "piece {index} lies beyond {segment}");
        let end = segment.start.saturating_add(line(index + 1));
        Span::new(start, end.min(segment.end))
    }

    /// Returns the index of the piece of `segment` that contains `position`.
    pub(crate) fn index_of(self, segment: Span, position: u64) -> u64 {
        (position - segment.start + self.phase(segment.start)) / self.block_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_segment_across_lines_is_cut_at_them() {
        let grid = BlockGrid::new(10, 100);
        let segment = Span::new(50, 320);
        let pieces: Vec<Span> =
            (0..grid.piece_count(segment)).map(|index| grid.piece(segment, index)).collect();
        assert_eq!(
            pieces,
            [Span::new(50, 110), Span::new(110, 210), Span::new(210, 310), Span::new(310, 320)]
        );
    }

    proptest! {
        #[test]
        fn pieces_tile_the_segment(
            origin in 0u64..10_000, block in 1u64..5_000, start in 0u64..100_000,
            bytes in 1u64..100_000,
        ) {
            let grid = BlockGrid::new(origin, block);
            let segment = Span::of(start, bytes);
            let mut next = segment.start;
            for index in 0..grid.piece_count(segment) {
                let piece = grid.piece(segment, index);
                prop_assert_eq!(piece.start, next);
                prop_assert!(piece.bytes() <= block && !piece.is_empty());
                prop_assert!(piece.end == segment.end || grid.is_line(piece.end));
                prop_assert_eq!(grid.index_of(segment, piece.start), index);
                prop_assert_eq!(grid.index_of(segment, piece.end - 1), index);
                next = piece.end;
            }
            prop_assert_eq!(next, segment.end);
        }
    }
}

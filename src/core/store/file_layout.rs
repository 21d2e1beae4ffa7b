//! Map from the data space to files: a piece is made of extents.
//!
//! A row maps its range to one file today. A tree of files laid end to end will map one piece to
//! many, so everything above speaks of extents in the plural and indexes a list of files.

use crate::core::units::Span;

/// A byte range of one file or memory region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileExtent {
    /// Index of the file in its owner's list.
    pub(crate) file: usize,
    /// Start of the range in the file.
    pub(crate) offset_bytes: u64,
    /// Length of the range.
    pub(crate) bytes: u64,
}

/// Place of a row's range of the data space in files.
///
/// Invariant: `offset_bytes + range.bytes()` fits 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileLayout {
    file: usize,
    offset_bytes: u64,
    range: Span,
}

impl FileLayout {
    /// Layout of a row that keeps `range` of the data space at `offset_bytes` of one file.
    ///
    /// # Panics
    /// If the end of the range in the file does not fit 64 bits; opening the file has refused that
    /// before.
    pub(crate) fn of_file(file: usize, offset_bytes: u64, range: Span) -> FileLayout {
        assert!(
            offset_bytes.checked_add(range.bytes()).is_some(),
            "a row's end in its file fits 64 bits"
        );
        FileLayout { file, offset_bytes, range }
    }

    /// Index of the file that it is laid out in.
    pub(crate) fn file(&self) -> usize {
        self.file
    }

    /// Range of the data space that is laid out here.
    pub(crate) fn range(&self) -> Span {
        self.range
    }

    /// Extents that together are `piece`, in the order of the data space.
    ///
    /// # Panics
    /// If the piece is not inside the layout's range: pieces are cut at row boundaries.
    pub(crate) fn extents(&self, piece: Span) -> impl Iterator<Item = FileExtent> + use<> {
        assert!(
            self.range.contains(piece),
            "piece {piece} is cut at the boundaries of row {}",
            self.range
        );
        let offset_bytes = self.offset_bytes + (piece.start - self.range.start);
        std::iter::once(FileExtent { file: self.file, offset_bytes, bytes: piece.bytes() })
            .filter(|one| one.bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_lies_at_the_rows_offset() {
        let layout = FileLayout::of_file(3, 100, Span::new(1000, 2000));
        let extents: Vec<FileExtent> = layout.extents(Span::new(1001, 1011)).collect();
        assert_eq!(extents, [FileExtent { file: 3, offset_bytes: 101, bytes: 10 }]);
        assert_eq!(layout.extents(Span::new(1500, 1500)).count(), 0);
    }

    #[test]
    #[should_panic(expected = "cut at the boundaries")]
    fn a_piece_never_crosses_its_row() {
        let _ = FileLayout::of_file(0, 0, Span::new(10, 20)).extents(Span::new(5, 15));
    }
}

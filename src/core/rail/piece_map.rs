//! Origins of a transfer's ranges at one node, as far as its rails decide by them.

use crate::core::check::CheckMethod;
use crate::core::options::DataPath;
use crate::core::units::Span;

/// The ranges that a node offers and keeps in one transfer.
#[derive(Clone, Debug)]
pub(crate) struct PieceMap {
    pub(crate) method: CheckMethod,
    /// The way that bytes are to take through the kernel.
    pub(crate) path: DataPath,
    /// One entry a sender row.
    pub(crate) sources: Vec<MappedSource>,
    /// One entry a receiver row that keeps bytes.
    pub(crate) destinations: Vec<MappedDestination>,
}

/// A range that this node offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappedSource {
    pub(crate) range: Span,
    pub(crate) kind: SourceKind,
}

/// Origin of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SourceKind {
    /// It is computed.
    Pattern,
    /// It lies in a file; `direct` where that can be read past the page cache.
    File { direct: bool },
}

/// A range that lands in a file of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappedDestination {
    pub(crate) range: Span,
    /// True if the file can be read past the page cache.
    pub(crate) direct: bool,
}

/// The place of a piece at this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PieceLocation {
    /// In one of the sources.
    Source(usize),
    /// In a file that it lands in, by one of the destinations.
    Destination(usize),
}

impl PieceMap {
    /// The location of all of `span`: a source, or else where it lands.
    pub(crate) fn locate(&self, span: Span) -> Option<PieceLocation> {
        let source = self.sources.iter().position(|source| source.range.contains(span));
        source.map(PieceLocation::Source).or_else(|| {
            let at = self.destinations.iter().position(|it| it.range.contains(span));
            at.map(PieceLocation::Destination)
        })
    }

    pub(crate) fn kind(&self, location: PieceLocation) -> SourceKind {
        match location {
            PieceLocation::Source(at) => self.sources[at].kind,
            PieceLocation::Destination(at) => {
                SourceKind::File { direct: self.destinations[at].direct }
            }
        }
    }
}

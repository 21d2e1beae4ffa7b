//! The way in which a piece gets ready to be sent: which one comes first, and which one next.

use super::piece_map::SourceKind;
use crate::core::options::DataPath;

/// Way in which a piece is made ready to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadMode {
    /// It is computed.
    Pattern,
    /// It is checked where it lies in the page cache, and sent from there without a copy.
    Splice,
    /// It is read as far as the page cache holds it, without waiting for the disk.
    Cached,
    /// It is read past the page cache.
    Direct,
    /// It is read through the page cache, waiting for the disk.
    Buffered,
}

/// The part of a range that is in the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum CacheState {
    /// All of it.
    Whole,
    /// Not all of it, and some of what is there is not on the disk yet.
    Dirty,
    /// Not all of it, and the disk has everything.
    Clean,
    /// The kernel does not tell.
    #[default]
    Unknown,
}

/// Reason for another path than the one asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum FallbackReason {
    NoFile = 1,
    NotCached = 2,
    NotSpliced = 4,
    NoDirect = 8,
    Copied = 16,
    Late = 32,
    NoZerocopy = 64,
    NotClear = 128,
}

/// The mode to begin with, or `None` where it depends on what the page cache holds.
pub(super) fn first(path: DataPath, kind: SourceKind) -> Option<ReadMode> {
    match (kind, path) {
        (SourceKind::Pattern, _) => Some(ReadMode::Pattern),
        (SourceKind::File { .. }, DataPath::Direct) => Some(past_cache(kind)),
        (SourceKind::File { .. }, DataPath::Copy) => Some(ReadMode::Buffered),
        (SourceKind::File { .. }, DataPath::Auto | DataPath::Splice | DataPath::Zerocopy) => None,
    }
}

/// The mode for a piece of a file of which the page cache holds so much; `splices` where files of
/// this transfer can be sent from there.
pub(super) fn after_probe(
    path: DataPath,
    kind: SourceKind,
    cached: CacheState,
    splices: bool,
) -> ReadMode {
    match cached {
        CacheState::Clean => past_cache(kind),
        // A read past the page cache would have to wait until what is dirty is written.
        CacheState::Dirty => ReadMode::Buffered,
        CacheState::Whole | CacheState::Unknown => {
            let may_splice = splices && matches!(path, DataPath::Auto | DataPath::Splice);
            if may_splice { ReadMode::Splice } else { ReadMode::Cached }
        }
    }
}

/// The mode for a piece that the page cache turned out not to hold all of.
pub(super) fn past_cache(kind: SourceKind) -> ReadMode {
    match kind {
        SourceKind::File { direct: true } => ReadMode::Direct,
        SourceKind::File { direct: false } | SourceKind::Pattern => ReadMode::Buffered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT: SourceKind = SourceKind::File { direct: true };
    const BUFFERED: SourceKind = SourceKind::File { direct: false };

    #[test]
    fn every_path_has_its_first_mode() {
        use DataPath::{Auto, Copy, Direct, Splice, Zerocopy};
        for path in [Auto, Direct, Splice, Zerocopy, Copy] {
            assert_eq!(first(path, SourceKind::Pattern), Some(ReadMode::Pattern), "{path:?}");
        }
        assert_eq!(first(Direct, DIRECT), Some(ReadMode::Direct));
        assert_eq!(first(Direct, BUFFERED), Some(ReadMode::Buffered));
        assert_eq!(first(Copy, DIRECT), Some(ReadMode::Buffered));
        for path in [Auto, Splice, Zerocopy] {
            assert_eq!(first(path, DIRECT), None, "{path:?}");
        }
    }

    #[test]
    fn the_page_cache_decides_between_the_others() {
        use CacheState::{Clean, Dirty, Unknown, Whole};
        use DataPath::{Auto, Splice, Zerocopy};
        for path in [Auto, Splice, Zerocopy] {
            assert_eq!(after_probe(path, DIRECT, Clean, true), ReadMode::Direct);
            assert_eq!(after_probe(path, BUFFERED, Clean, true), ReadMode::Buffered);
            assert_eq!(after_probe(path, DIRECT, Dirty, true), ReadMode::Buffered);
            for cached in [Whole, Unknown] {
                let spliced = after_probe(path, DIRECT, cached, true);
                let expected = if path == Zerocopy { ReadMode::Cached } else { ReadMode::Splice };
                assert_eq!(spliced, expected, "{path:?}");
                assert_eq!(after_probe(path, DIRECT, cached, false), ReadMode::Cached);
            }
        }
    }
}

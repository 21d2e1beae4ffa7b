//! Data URIs: from `file:`, `mem:`, `pattern:` and `null:` to descriptors and a final name.
//!
//! Two kinds of work never mix. Calls that may block (open, preallocate, sync, rename) are made by
//! [`Source`] and [`Sink`], on a worker thread before and after the bytes move. The work for each
//! piece is pure and does not allocate: [`file_layout`] maps a piece to extents of files, and
//! [`io_steps`] maps an extent to aligned reads and writes. The rail submits those to its own ring
//! with the descriptors of [`Source::files`] and [`Sink::files`].
//!
//! [`file_layout`]: crate::core::store::file_layout
//! [`io_steps`]: crate::core::store::io_steps

pub(crate) mod pattern;

mod claim;
mod destination_file;
mod destination_path;
mod fault;
mod holes;
mod identity;
pub(crate) mod journal;
mod journal_file;
mod memory_object;
mod neighbours;
mod open;
mod open_destination;
mod partial_file;
mod permissions;
mod region;
mod root;
mod roots;
mod seal;
mod sidecar;
mod sink;
mod source;
mod space;
mod survey;
mod token;
mod trust;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use claim::DestinationClaim;
pub(crate) use identity::FileNames;
pub(crate) use journal::{JournalRecord, RangeOrigin};
pub(crate) use journal_file::{JournalDoubt, JournalIdentity};
pub(crate) use neighbours::partials_of_others;
pub(crate) use open::OpenFile;
pub(crate) use open_destination::SinkOptions;
pub use pattern::PatternReader;
pub(crate) use root::{RootPlace, StoreRoot};
pub(crate) use roots::{AllowedKinds, DeclaredRoot, RootOptions, RootRights, StoreRoots};
pub(crate) use seal::SealKey;
pub(crate) use sink::{ReusedRanges, Sink};
pub(crate) use source::Source;
pub(crate) use survey::{DirectoryToken, check_kind, survey_destination, survey_source};

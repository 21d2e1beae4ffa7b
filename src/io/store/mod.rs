//! Data URIs: from `file:`, `mem:`, `pattern:` and `null:` to descriptors and exact steps, and to a
//! final name.
//!
//! Two kinds of work live here and never mix. What may block (open, preallocate, sync, rename) is
//! done by [`Source`] and [`Sink`], called from a worker thread before and after the bytes move.
//! What a rail needs for each piece is pure and does not allocate: [`layout`] says which extents of
//! which files a piece is, [`steps`] says which aligned reads and writes move an extent. The rail
//! submits those to its own ring with the descriptors that it finds here.

pub(crate) mod pattern;

mod beside;
mod claim;
mod fault;
mod finding;
mod holes;
mod identity;
pub(crate) mod journal;
mod keep;
mod open;
mod partial;
mod permissions;
mod region;
mod root;
mod seal;
mod sink;
mod source;
mod space;
mod token;
mod trust;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use claim::DestinationClaim;
pub(crate) use identity::FileNames;
pub(crate) use journal::{JournalRecord, RangeOrigin};
pub(crate) use keep::{JournalDoubt, JournalIdentity};
pub(crate) use open::OpenFile;
pub use pattern::PatternReader;
pub(crate) use root::{AllowedKinds, StoreRoot};
pub(crate) use seal::SealKey;
pub(crate) use sink::{SharedRole, Sink, SinkOptions};
pub(crate) use source::Source;

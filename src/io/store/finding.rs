//! Opens the file of a destination: what an earlier attempt has left of it, another node's, or a
//! new one.

use std::path::Path;

use nix::sys::stat::{FileStat, fstat};

use super::StoreRoot;
use super::fault::fault;
use super::journal::FileState;
use super::keep;
use super::keep::{FoundJournal, JournalFile, JournalIdentity, NewJournal, state_of};
use super::partial::{DestinationPath, Leftover, PartialFile};
use super::sink::{SharedRole, SinkOptions, SinkTarget};
use super::trust::may_others_write;
use crate::core::error::Result;

/// Opens the file at `path`, which will have `file_bytes` bytes, and its journal, where it has one.
pub(super) fn find_file(
    root: &StoreRoot,
    path: &Path,
    file_bytes: u64,
    options: &SinkOptions,
) -> Result<(SinkTarget, Option<JournalFile>)> {
    let tag = &options.tag;
    assert!((1..=TAG_BYTES_MAX).contains(&tag.len()), "a tag has 1 to {TAG_BYTES_MAX} bytes");
    assert!(
        tag.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "a tag is made of letters and digits"
    );
    let (place, existing) = DestinationPath::look(root, path, tag)?;
    if let SharedRole::Member(number) = options.shared
        && place.has_token(&options.attempt)?
    {
        // Whether it may be replaced, the elected node has looked.
        return join_file(place, number, options);
    }
    if let Some(keeping) = options.keep {
        return continue_file((place, existing), file_bytes, options, keeping);
    }
    place.accept(existing.as_ref(), options.overwrite)?;
    place
        .create(options.shared == SharedRole::Elected)
        .map(|partial| (SinkTarget::Owned(partial), None))
}

/// Opens the file that the elected node has made, and finds what this node has left in it.
fn join_file(
    place: DestinationPath,
    number: u32,
    options: &SinkOptions,
) -> Result<(SinkTarget, Option<JournalFile>)> {
    let partial = place.join(number)?;
    let about = examined(&partial)?;
    let journal = options.keep.filter(|_| partial.is_locked).map(|keeping| {
        let writing = NewJournal {
            salt: keep::salt_of(&options.attempt, number),
            ..writing(options, keeping)
        };
        if keep::is_gone_on_with(&partial.place, about.st_ino) {
            JournalFile::find(&partial.place, &about, &writing)
        } else {
            // A new file, which may have the number of one that is gone.
            JournalFile::new(about.st_ino, &writing, FoundJournal::default())
        }
    });
    Ok((SinkTarget::Joined(partial), journal))
}

fn writing(options: &SinkOptions, keeping: JournalIdentity) -> NewJournal {
    let SinkOptions { fsync, overwrite, shared, attempt: salt, .. } = *options;
    NewJournal { keeping, salt, fsync, overwrite, is_of_several: shared != SharedRole::Alone }
}

/// Opens what an earlier attempt has left at a place, or makes a new file.
fn continue_file(
    (mut place, existing): (DestinationPath, Option<FileStat>),
    file_bytes: u64,
    options: &SinkOptions,
    keeping: JournalIdentity,
) -> Result<(SinkTarget, Option<JournalFile>)> {
    let writing = writing(options, keeping);
    let is_elected = options.shared == SharedRole::Elected;
    if let Some(existing) = &existing {
        let journal = JournalFile::find(&place, existing, &writing);
        // Rows of other nodes, which the journal does not know, may make it another one.
        let has_size = existing.st_size.unsigned_abs() == file_bytes;
        if has_size && journal.found.complete.is_some_and(|complete| is_like(&complete, existing)) {
            if options.overwrite {
                // The new file is written beside it. Its journal stays until that begins.
                place.accept(Some(existing), true)?;
                let found =
                    FoundJournal { complete: journal.found.complete, ..FoundJournal::default() };
                return with_new_journal(place.create_beside()?, found, &writing);
            }
            // Where several nodes have written it, somebody must know who wrote what.
            let is_known = !is_elected || keep::is_kept(&place, existing.st_ino);
            // One that others may write to is as it was left, or it is theirs.
            if is_known && (journal.found.doubt.is_none() || !may_others_write(existing)) {
                match place.reopen_named(existing) {
                    Ok(partial) => return Ok((SinkTarget::Owned(partial), Some(journal))),
                    Err(unopened) => place = unopened,
                }
            }
        }
    }
    let (place, refused) = match place.reopen()? {
        Leftover::Nothing(place, why) => (place, why),
        Leftover::Partial(partial) => {
            let about = examined(&partial)?;
            let journal = JournalFile::find(&partial.place, &about, &writing);
            let is_kept = match options.shared {
                SharedRole::Elected => {
                    journal.found.refused.is_none() && keep::is_kept(&partial.place, about.st_ino)
                }
                _ => !journal.found.records.is_empty(),
            };
            if is_kept && about.st_size.unsigned_abs() == file_bytes {
                partial.place.accept(existing.as_ref(), journal.overwrites())?;
                if options.shared == SharedRole::Alone {
                    partial.place.remove_other_journals();
                }
                return Ok((SinkTarget::Owned(partial), Some(journal)));
            }
            let cut = is_kept.then(|| "the partial file has another size".into());
            (partial.place, cut.or(journal.found.refused))
        }
    };
    place.accept(existing.as_ref(), options.overwrite)?;
    with_new_journal(place.create(is_elected)?, FoundJournal::nothing(refused), &writing)
}

/// A new file and its journal; there is none where nobody could know who else writes to the file.
fn with_new_journal(
    partial: PartialFile,
    found: FoundJournal,
    writing: &NewJournal,
) -> Result<(SinkTarget, Option<JournalFile>)> {
    let journal = JournalFile::new(examined(&partial)?.st_ino, writing, found);
    let journal = Some(journal).filter(|_| partial.is_locked);
    Ok((SinkTarget::Owned(partial), journal))
}

fn examined(partial: &PartialFile) -> Result<FileStat> {
    fstat(partial.file.buffered()).map_err(|errno| fault(errno, &partial.place.path, "examined"))
}

/// Whether what has the final name was completed by an earlier attempt, and this one writes another
/// file to replace it. The journal speaks of the former until then.
pub(super) fn replaces_own(target: &SinkTarget, journal: Option<&JournalFile>) -> bool {
    let is_another = matches!(target, SinkTarget::Owned(partial) if partial.is_new);
    is_another
        && journal.is_some_and(|journal| journal.found.complete.is_some() && !journal.has_begun())
}

/// Whether a file that has its final name can be the one that was complete: getting a name changes
/// no more of it than the time of its last change.
fn is_like(complete: &FileState, existing: &FileStat) -> bool {
    let now = state_of(existing);
    (now.size_bytes, now.modified) == (complete.size_bytes, complete.modified)
}

/// Leaves most of a name of 255 bytes to the user's.
const TAG_BYTES_MAX: usize = 64;

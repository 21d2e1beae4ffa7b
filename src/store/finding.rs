//! Opens the file of a destination: what an earlier attempt has left of it, another node's, or a new one.

use std::path::Path;

use nix::sys::stat::{FileStat, fstat};

use super::Root;
use super::fault::fault;
use super::journal::Complete;
use super::keep::{self, Found, Journal, Keeping};
use super::partial::{Left, Partial, Place};
use super::sink::{Shared, SinkOptions, Target};
use crate::error::Result;

/// Opens the file at `path`, which will have `file_bytes` bytes, and its journal, where it has one.
pub(super) fn find_file(
    root: &Root,
    path: &Path,
    file_bytes: u64,
    options: &SinkOptions,
) -> Result<(Target, Option<Journal>)> {
    let tag = &options.tag;
    assert!((1..=TAG_BYTES_MAX).contains(&tag.len()), "a tag has 1 to {TAG_BYTES_MAX} bytes");
    assert!(tag.bytes().all(|byte| byte.is_ascii_alphanumeric()), "a tag is made of letters and digits");
    let (place, existing) = Place::look(root, path, tag)?;
    if let Shared::Member(number) = options.shared
        && place.has_token(&options.attempt)?
    {
        // Whether it may be replaced, the elected node has looked.
        return join_file(place, number, options);
    }
    if let Some(keeping) = options.keep {
        return continue_file((place, existing), file_bytes, options, keeping);
    }
    place.accept(existing.as_ref(), options.overwrite)?;
    place.create(options.shared == Shared::Elected).map(|partial| (Target::Owned(partial), None))
}

/// Opens the file that the elected node has made, and finds what this node has left in it.
fn join_file(place: Place, number: u32, options: &SinkOptions) -> Result<(Target, Option<Journal>)> {
    let partial = place.join(number)?;
    let inode = examined(&partial)?.st_ino;
    let salt = keep::salt_of(&options.attempt, number);
    let journal = options.keep.filter(|_| partial.is_locked).map(|keeping| {
        if keep::is_gone_on_with(&partial.place, inode) {
            Journal::find(&partial.place, keeping, inode, salt, options.fsync)
        } else {
            // A new file, which may have the number of one that is gone.
            Journal::new(keeping, inode, salt, options.fsync, Found::default())
        }
    });
    Ok((Target::Joined(partial), journal))
}

/// Opens what an earlier attempt has left at a place, or makes a new file.
fn continue_file(
    (mut place, existing): (Place, Option<FileStat>),
    file_bytes: u64,
    options: &SinkOptions,
    keeping: Keeping,
) -> Result<(Target, Option<Journal>)> {
    let find = |place: &Place, inode| Journal::find(place, keeping, inode, options.attempt, options.fsync);
    if let Some(existing) = &existing {
        let journal = find(&place, existing.st_ino);
        // Rows of other nodes, which the journal does not know, may make it another one.
        let has_size = existing.st_size.unsigned_abs() == file_bytes;
        if has_size && journal.found.complete == Some(completion(existing)) {
            if options.shared == Shared::Elected && !keep::is_kept(&place, existing.st_ino) {
                // Who has written what of it nobody knows: it starts again, beside what is complete. That stays until it is
                // replaced.
                place.accept(Some(existing), true)?;
                let found = Found { complete: journal.found.complete, ..Found::default() };
                return with_new_journal(place.create_beside()?, found, options, keeping);
            }
            match place.reopen_named(existing) {
                Ok(partial) => {
                    if options.shared == Shared::Elected {
                        // Other nodes may have to write to it.
                        partial.take_name()?;
                    }
                    return Ok((Target::Owned(partial), Some(journal)));
                }
                Err(unopened) => place = unopened,
            }
        }
    }
    place.accept(existing.as_ref(), options.overwrite)?;
    let (place, refused) = match place.reopen()? {
        Left::Nothing(place, why) => (place, why.map(String::from)),
        Left::Partial(partial) => {
            let about = examined(&partial)?;
            let journal = find(&partial.place, about.st_ino);
            let is_kept = match options.shared {
                Shared::Elected => journal.found.refused.is_none() && keep::is_kept(&partial.place, about.st_ino),
                _ => !journal.found.records.is_empty(),
            };
            if is_kept && about.st_size.unsigned_abs() == file_bytes {
                if options.shared == Shared::Alone {
                    partial.place.remove_other_journals();
                }
                return Ok((Target::Owned(partial), Some(journal)));
            }
            let cut = is_kept.then(|| "the partial file has another size".into());
            (partial.place, cut.or(journal.found.refused))
        }
    };
    let partial = place.create(options.shared == Shared::Elected)?;
    with_new_journal(partial, Found { refused, ..Found::default() }, options, keeping)
}

/// A new file and its journal; there is none where nobody could know who else writes to the file.
fn with_new_journal(
    partial: Partial,
    found: Found,
    options: &SinkOptions,
    keeping: Keeping,
) -> Result<(Target, Option<Journal>)> {
    let journal = Journal::new(keeping, examined(&partial)?.st_ino, options.attempt, options.fsync, found);
    let journal = Some(journal).filter(|_| partial.is_locked);
    Ok((Target::Owned(partial), journal))
}

fn examined(partial: &Partial) -> Result<FileStat> {
    fstat(partial.file.buffered()).map_err(|errno| fault(errno, &partial.place.path, "examined"))
}

/// Whether what has the final name was completed by an earlier attempt, and this one writes another file to replace it. The
/// journal speaks of the former until then.
pub(super) fn replaces_own(target: &Target, journal: Option<&Journal>) -> bool {
    let is_another = matches!(target, Target::Owned(partial) if partial.is_new);
    is_another && journal.is_some_and(|journal| journal.found.complete.is_some() && !journal.has_begun())
}

/// How a complete file looks from outside.
pub(super) fn completion(about: &FileStat) -> Complete {
    Complete { size_bytes: about.st_size.unsigned_abs(), modified: (about.st_mtime, about.st_mtime_nsec) }
}

/// Leaves most of a name of 255 bytes to the user's.
const TAG_BYTES_MAX: usize = 64;

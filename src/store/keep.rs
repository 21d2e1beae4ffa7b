//! The journal of a partial file as a file beside it: found, begun, added to, and removed.
//!
//! What it found stays as it was until the attempt begins, so that one which fails before has lost nothing. Then a new
//! journal takes its place in one step, with what is still good; only after that may a byte of the rest be written over.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::journal::{self, Complete, HEADER_BYTES, Header, RECORD_BYTES, Read, Record};
use super::open::OpenFile;
use super::partial::Place;

/// How a destination is kept for an attempt that continues this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Keeping {
    /// The hash of all that must be the same for what is kept to mean the same.
    pub(crate) identity: [u8; 32],
}

/// What was found of an earlier attempt.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    /// Whether the machine cannot have lost what the records speak of.
    pub(super) is_certain: bool,
    pub(super) complete: Option<Complete>,
    /// Why what was there is not continued.
    pub(super) refused: Option<String>,
}

/// The journal of one partial file.
#[derive(Debug)]
pub(super) struct Journal {
    header: Header,
    pub(super) found: Found,
    file: Mutex<Written>,
    /// Records that wait to be written.
    pending: Mutex<Vec<Record>>,
}

/// The journal of this attempt, once it has begun.
#[derive(Debug, Default)]
struct Written {
    file: Option<File>,
    records: u64,
    /// Whether nothing is to be kept after all.
    forgotten: bool,
}

impl Written {
    fn has_begun(&self) -> bool {
        // One that could not be written to any more has what was written before.
        self.file.is_some() || self.records > 0
    }
}

/// A journal larger than this is none of ours: 2²⁴ records, a partial file of 16 TiB in the usual pieces.
const BYTES_MAX: u64 = (HEADER_BYTES + (RECORD_BYTES << 24)) as u64;

impl Journal {
    /// The journal for the file `inode` at a place, with what an earlier attempt left; `salt` is random.
    pub(super) fn find(place: &Place, keeping: Keeping, inode: u64, salt: [u8; 16], fsync: bool) -> Journal {
        let header = Header { identity: keeping.identity, boot: boot(salt), inode, synced: fsync, salt };
        let found = match read(place, place.member, BYTES_MAX) {
            Ok(None) => Found::default(),
            Ok(Some(read)) if read.header.identity != header.identity => {
                refused("it is of a transfer with other rows or options")
            }
            Ok(Some(read)) if read.header.inode != inode => {
                refused("the partial file is not the one it was written for")
            }
            Ok(Some(Read { header: old, records, complete })) => {
                Found { records, is_certain: old.synced || old.boot == header.boot, complete, refused: None }
            }
            Err(reason) => refused(&reason),
        };
        Journal { header, found, file: Mutex::default(), pending: Mutex::default() }
    }

    /// A journal for a new file, of which nothing is there.
    pub(super) fn new(keeping: Keeping, inode: u64, salt: [u8; 16], fsync: bool, found: Found) -> Journal {
        let header = Header { identity: keeping.identity, boot: boot(salt), inode, synced: fsync, salt };
        Journal { header, found, file: Mutex::default(), pending: Mutex::default() }
    }

    /// Begins the journal of this attempt with the records that are still good. What was found is gone then.
    pub(super) fn begin(&self, place: &Place, is_good: impl Fn(&Record) -> bool) -> io::Result<()> {
        let good: Vec<&Record> = self.found.records.iter().filter(|record| is_good(record)).collect();
        let mut bytes = journal::encode_header(&self.header).to_vec();
        for (at, record) in (0..).zip(&good) {
            bytes.extend(journal::encode(&self.header, at, record));
        }
        let file = place.write_journal()?;
        file.write_all_at(&bytes, 0)?;
        // An older journal that came back with a power cut would vouch for what is written over from now on.
        let lasts = self.header.synced || !self.found.records.is_empty();
        if lasts {
            file.sync_all()?;
        }
        place.name_journal(lasts)?;
        *self.written() = Written { file: Some(file), records: good.len() as u64, forgotten: false };
        Ok(())
    }

    /// Whether it says anything of this attempt.
    pub(super) fn has_begun(&self) -> bool {
        self.written().has_begun()
    }

    /// Keeps nothing from now on.
    pub(super) fn forget(&self) {
        *self.written() = Written { forgotten: true, ..Written::default() };
    }

    /// Takes in records, to be written by the next `flush`.
    pub(super) fn add(&self, records: impl Iterator<Item = Record>) {
        lock(&self.pending).extend(records);
    }

    /// Writes what was added. Where that fails no more is written: what was, stays good.
    pub(super) fn flush(&self, partial: &OpenFile) -> io::Result<()> {
        let mut written = self.written();
        let pending = std::mem::take(&mut *lock(&self.pending));
        let Some(file) = written.file.as_ref().filter(|_| !pending.is_empty()) else { return Ok(()) };
        let mut bytes = Vec::with_capacity(pending.len() * RECORD_BYTES);
        for (at, record) in (written.records..).zip(&pending) {
            bytes.extend(journal::encode(&self.header, at, record));
        }
        let done = self.append(file, written.records, &bytes, partial);
        match &done {
            Ok(()) => written.records += pending.len() as u64,
            Err(_) => written.file = None,
        }
        done
    }

    /// Says that the file is complete and about to get its name.
    pub(super) fn complete(&self, place: &Place, partial: &OpenFile, complete: &Complete) -> io::Result<()> {
        if self.written().forgotten {
            // Pieces of a file that several nodes write are not recorded; that it is complete is.
            self.begin(place, |_| false)?;
        }
        let mut written = self.written();
        let Some(file) = written.file.as_ref() else { return Ok(()) };
        let bytes = journal::encode_complete(&self.header, written.records, complete);
        let done = self.append(file, written.records, &bytes, partial);
        written.records += 1;
        done
    }

    fn append(&self, file: &File, at: u64, bytes: &[u8], partial: &OpenFile) -> io::Result<()> {
        if self.header.synced {
            nix::unistd::fdatasync(partial.buffered())?;
        }
        file.write_all_at(bytes, HEADER_BYTES as u64 + at * RECORD_BYTES as u64)?;
        if self.header.synced { file.sync_data() } else { Ok(()) }
    }

    /// Whether the journal at a place is this one, and not one of a newer attempt.
    pub(super) fn is_ours(&self, place: &Place) -> bool {
        if self.written().forgotten {
            return false;
        }
        let named = place.open_journal_of(place.member).ok().flatten().and_then(|file| file.metadata().ok());
        match (named, self.written().file.as_ref().map(File::metadata)) {
            (Some(named), Some(Ok(ours))) => (named.dev(), named.ino()) == (ours.dev(), ours.ino()),
            // Never begun: the file was complete from the start.
            (_, own) => own.is_none(),
        }
    }

    /// Whether there is anything that another attempt could continue with.
    pub(super) fn is_worth_keeping(&self) -> bool {
        let written = self.written();
        let found_any = !self.found.records.is_empty() || self.found.complete.is_some();
        let has_any = if written.has_begun() { written.records > 0 } else { found_any };
        has_any && !written.forgotten
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        lock(&self.file)
    }
}

/// The random bytes of a member's journal, which nobody else in the attempt has.
pub(super) fn salt_of(attempt: &[u8; 16], member: u32) -> [u8; 16] {
    let hash = blake3::keyed_hash(blake3::hash(attempt).as_bytes(), &member.to_le_bytes());
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Whether the node that makes the file goes on with the partial file `inode`, as long as it has not begun.
pub(super) fn is_gone_on_with(place: &Place, inode: u64) -> bool {
    beginning_of(place, None).is_some_and(|first| first.header.inode == inode)
}

/// Whether any node has recorded something of the partial file `inode`. Without the journal of the one that made it nobody's
/// counts.
pub(super) fn is_kept(place: &Place, inode: u64) -> bool {
    is_gone_on_with(place, inode) && beginnings(place, inode).any(|(_, read)| !read.records.is_empty())
}

/// Whether the file `inode`, which looks like `now`, is complete, and nobody has begun to write to it again.
pub(super) fn is_complete(place: &Place, inode: u64, now: Complete) -> bool {
    read(place, None, BYTES_MAX).ok().flatten().is_some_and(|first| {
        let is_of_then = |(member, read): (Option<u32>, Read)| {
            member.is_none_or(|member| read.header.salt == salt_of(&first.header.salt, member))
        };
        first.header.inode == inode && first.complete == Some(now) && beginnings(place, inode).all(is_of_then)
    })
}

/// Removes the journals of all nodes that speak of the partial file `inode`.
pub(super) fn remove_all(place: &Place, inode: u64) {
    beginnings(place, inode).for_each(|(member, _)| place.remove_journal_of(member));
}

/// The beginnings of the journals that speak of the partial file `inode`, by the member that writes them, or the node that
/// makes the file.
fn beginnings(place: &Place, inode: u64) -> impl Iterator<Item = (Option<u32>, Read)> {
    let all = place.journals().unwrap_or_default().into_iter();
    let all = all.filter_map(|member| Some((member, beginning_of(place, member)?)));
    all.filter(move |(_, read)| read.header.inode == inode)
}

/// The header of a journal, and its first record: there may be many nodes, and long journals.
fn beginning_of(place: &Place, member: Option<u32>) -> Option<Read> {
    read(place, member, (HEADER_BYTES + RECORD_BYTES) as u64).ok()?
}

fn refused(reason: &str) -> Found {
    Found { refused: Some(reason.into()), ..Found::default() }
}

/// Reads a member's journal, or that of the node that makes the file, if there is one: up to so many bytes.
fn read(place: &Place, member: Option<u32>, bytes_max: u64) -> Result<Option<Read>, String> {
    let unreadable = |error: io::Error| format!("it cannot be read: {error}");
    let Some(file) = place.open_journal_of(member).map_err(unreadable)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).map_err(unreadable)?;
    journal::decode(&bytes).map(Some).map_err(|refusal| refusal.to_string())
}

/// What tells this boot of the machine from every other; where the system does not say, no two are the same.
fn boot(unknown: [u8; 16]) -> [u8; 16] {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id");
    id.map_or(unknown, |id| *blake3::hash(&id).as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// A panic elsewhere leaves no half-made state: each holder only adds to it or takes it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Journal of a partial file as a file beside it: found, begun, and added to.
//!
//! A journal that was found stays as it is until the attempt begins, so that an attempt which fails
//! before then loses nothing. A new journal then takes its place in one step, with the records that
//! are still good. Only after that may bytes of the other ranges be written over.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::stat::{FileStat, fstat};
use nix::unistd::fdatasync;

use super::destination_path::DestinationPath;
use super::journal;
use super::journal::{
    FileState, HEADER_BYTES, JournalContent, JournalFault, JournalHeader, JournalRecord,
    JournalSeal, RECORD_BYTES,
};
use super::open::{OpenFile, retried};
use super::seal::SealKey;
use crate::core::options::TransferOptions;

/// Identity of a destination's journal. A later attempt with the same one continues this attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct JournalIdentity {
    /// Hash of all that must be the same for a record to mean the same.
    pub(crate) identity: [u8; 32],
    /// Limit of records. The rows cannot make more, so a longer journal is not this transfer's.
    pub(crate) records_max: u64,
    /// Key that journals are sealed with, where there is one.
    pub(crate) key: Option<SealKey>,
}

/// Header of a journal that is going to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewJournal {
    pub(super) identity: JournalIdentity,
    /// Random bytes.
    pub(super) salt: [u8; 16],
    pub(super) transfer: TransferOptions,
    /// Other nodes write the same file, and keep journals of their own.
    pub(super) is_of_several: bool,
}

impl NewJournal {
    fn header(&self, inode: u64, overwrite: bool) -> JournalHeader {
        let NewJournal { identity, salt, transfer, .. } = *self;
        JournalHeader {
            identity: identity.identity,
            boot: boot(salt),
            inode,
            synced: transfer.fsync,
            overwrite,
            salt,
        }
    }
}

/// Reason to read the ranges of a journal before they are believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum JournalDoubt {
    /// The machine was restarted and nothing had been made durable, or it is another machine.
    Restart,
    /// The file is not as the node that recorded it left it, or that node was killed before it
    /// could record how it left the file.
    Change,
    /// There is no key to seal journals with.
    Seal,
}

/// Journal of an earlier attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundJournal {
    pub(super) records: Vec<JournalRecord>,
    /// Reason to hold the records against the file; `None` where they are certain.
    pub(super) doubt: Option<JournalDoubt>,
    pub(super) complete: Option<FileState>,
    /// That attempt made what it recorded durable.
    pub(super) synced: bool,
    /// That attempt could replace a file that has the final name.
    pub(super) overwrite: bool,
    /// Reason why what was there is not continued.
    pub(super) refused: Option<String>,
}

impl FoundJournal {
    /// Nothing that can be continued, and the reason.
    pub(super) fn nothing(refused: Option<String>) -> FoundJournal {
        FoundJournal { refused, ..FoundJournal::default() }
    }
}

/// Journal of one partial file.
#[derive(Debug)]
pub(super) struct JournalFile {
    header: JournalHeader,
    key: Option<SealKey>,
    pub(super) found: FoundJournal,
    file: Mutex<StartedJournal>,
    /// Records that wait to be written.
    pending: Mutex<Vec<JournalRecord>>,
}

/// Journal of this attempt, once it has begun.
#[derive(Debug, Default)]
struct StartedJournal {
    file: Option<(File, JournalSeal)>,
    records: u64,
    /// Nothing is to be kept after all.
    forgotten: bool,
}

impl StartedJournal {
    fn has_begun(&self) -> bool {
        // A journal that could no longer be written to has what was written before.
        self.file.is_some() || self.records > 0
    }
}

impl JournalFile {
    /// Finds the journal of the file at a place that looks like `about`.
    pub(super) fn find(
        place: &DestinationPath,
        about: &FileStat,
        writing: &NewJournal,
    ) -> JournalFile {
        let identity = &writing.identity;
        let found = match read(place, place.follower, identity) {
            Ok(None) => FoundJournal::default(),
            Ok(Some(read)) if read.header.identity != identity.identity => {
                refused("it is of a transfer with other rows or options")
            }
            Ok(Some(read)) if read.header.inode != about.st_ino => {
                refused("the partial file is not the one it was written for")
            }
            Ok(Some(read)) => {
                let is_as_left = |key: &SealKey| {
                    let now = state_of(about);
                    read.left == Some(now)
                        || (writing.is_of_several && was_left_as(place, about.st_ino, now, key))
                };
                let doubt = match &identity.key {
                    None => Some(JournalDoubt::Seal),
                    Some(_) if !read.header.synced && read.header.boot != boot(writing.salt) => {
                        Some(JournalDoubt::Restart)
                    }
                    Some(key) if !is_as_left(key) => Some(JournalDoubt::Change),
                    Some(_) => None,
                };
                let JournalHeader { synced, overwrite, .. } = read.header;
                let (records, complete) = (read.records, read.complete);
                FoundJournal { records, doubt, complete, synced, overwrite, refused: None }
            }
            Err(reason) => refused(&reason),
        };
        let overwrite = writing.transfer.overwrite || found.overwrite;
        JournalFile::made(writing.header(about.st_ino, overwrite), identity.key, found)
    }

    /// A journal for a new file.
    pub(super) fn new(inode: u64, writing: &NewJournal, found: FoundJournal) -> JournalFile {
        JournalFile::made(
            writing.header(inode, writing.transfer.overwrite),
            writing.identity.key,
            found,
        )
    }

    fn made(header: JournalHeader, key: Option<SealKey>, found: FoundJournal) -> JournalFile {
        JournalFile { header, key, found, file: Mutex::default(), pending: Mutex::default() }
    }

    /// Begins the journal of this attempt with the records that are still good. It replaces the one
    /// that was found.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn begin(
        &self,
        place: &DestinationPath,
        partial: &OpenFile,
        is_good: impl Fn(&JournalRecord) -> bool,
    ) -> io::Result<()> {
        let good: Vec<&JournalRecord> =
            self.found.records.iter().filter(|record| is_good(record)).collect();
        if self.header.synced && !self.found.synced && !good.is_empty() {
            // The new journal says of these records too that they are durable.
            retried(|| fdatasync(partial.buffered()))?;
        }
        let (head, seal) = journal::encode_header(&self.header, self.key.as_ref());
        let mut bytes = head.to_vec();
        for (at, record) in (0..).zip(&good) {
            bytes.extend(journal::encode(&seal, at, record));
        }
        let file = place.write_journal()?;
        file.write_all_at(&bytes, 0)?;
        // An older journal that came back after a power cut would vouch for ranges that are written
        // over from now on.
        let lasts = self.header.synced || !self.found.records.is_empty();
        if lasts {
            file.sync_all()?;
        }
        place.name_journal(lasts)?;
        *self.written() = StartedJournal {
            file: Some((file, seal)),
            records: good.len() as u64,
            forgotten: false,
        };
        Ok(())
    }

    /// This attempt, or the one that it continues, may replace a file that has the final name.
    pub(super) fn overwrites(&self) -> bool {
        self.header.overwrite
    }

    /// It is sealed, so that nobody else can have written what was found.
    pub(super) fn is_sealed(&self) -> bool {
        self.key.is_some()
    }

    /// Records nothing from now on.
    pub(super) fn forget(&self) {
        *self.written() = StartedJournal { forgotten: true, ..StartedJournal::default() };
    }

    /// Takes in records for the next `flush`.
    pub(super) fn add(&self, records: impl Iterator<Item = JournalRecord>) {
        lock(&self.pending).extend(records);
    }

    /// Writes what was added. After a failure nothing more is written; the records before stay
    /// good.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn flush(&self, partial: &OpenFile) -> io::Result<()> {
        let pending = std::mem::take(&mut *lock(&self.pending));
        self.append(partial, pending.len(), |seal, at, bytes| {
            for (at, record) in (at..).zip(&pending) {
                bytes.extend(journal::encode(seal, at, record));
            }
            Ok(())
        })
    }

    /// Records that the file is complete and about to get its name.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn complete(&self, partial: &OpenFile) -> io::Result<()> {
        self.append_state(partial, journal::encode_complete)
    }

    /// Records size and times of the file, to which this node writes no more.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn leave(&self, partial: &OpenFile) -> io::Result<()> {
        if self.written().records == 0 {
            return Ok(());
        }
        self.append_state(partial, journal::encode_left)
    }

    fn append_state(
        &self,
        partial: &OpenFile,
        encode: fn(&JournalSeal, u64, &FileState) -> [u8; RECORD_BYTES],
    ) -> io::Result<()> {
        self.append(partial, 1, |seal, at, bytes| {
            bytes.extend(encode(seal, at, &state_of(&fstat(partial.buffered())?)));
            Ok(())
        })
    }

    /// Appends `count` records that `encode` makes, once the ranges that they describe are durable.
    fn append(
        &self,
        partial: &OpenFile,
        count: usize,
        encode: impl FnOnce(&JournalSeal, u64, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut written = self.written();
        let Some((file, seal)) = written.file.as_ref().filter(|_| count > 0) else { return Ok(()) };
        let write = || {
            if self.header.synced {
                retried(|| fdatasync(partial.buffered()))?;
            }
            let mut bytes = Vec::with_capacity(count * RECORD_BYTES);
            encode(seal, written.records, &mut bytes)?;
            file.write_all_at(&bytes, HEADER_BYTES as u64 + written.records * RECORD_BYTES as u64)?;
            if self.header.synced { file.sync_data() } else { Ok(()) }
        };
        let done = write();
        match &done {
            Ok(()) => written.records += count as u64,
            Err(_) => written.file = None,
        }
        done
    }

    /// The journal at a place is this one, and not one of a newer attempt.
    pub(super) fn is_ours(&self, place: &DestinationPath) -> bool {
        if self.written().forgotten {
            return false;
        }
        let named = place
            .open_journal_of(place.follower)
            .ok()
            .flatten()
            .and_then(|file| file.metadata().ok());
        match (named, self.written().file.as_ref().map(|(file, _)| file.metadata())) {
            (Some(named), Some(Ok(ours))) => (named.dev(), named.ino()) == (ours.dev(), ours.ino()),
            // It has not begun, so what is there is what was found.
            (_, own) => own.is_none(),
        }
    }

    /// Another attempt could continue from it.
    pub(super) fn is_worth_keeping(&self) -> bool {
        let written = self.written();
        let found_any = !self.found.records.is_empty() || self.found.complete.is_some();
        let has_any = if written.has_begun() { written.records > 0 } else { found_any };
        has_any && !written.forgotten
    }

    fn written(&self) -> MutexGuard<'_, StartedJournal> {
        lock(&self.file)
    }
}

/// Random bytes of a follower's journal, which nobody else in the attempt has.
pub(super) fn salt_of(attempt: &[u8; 16], follower: u32) -> [u8; 16] {
    let hash = blake3::keyed_hash(blake3::hash(attempt).as_bytes(), &follower.to_le_bytes());
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The leader's journal describes the file `inode`.
pub(super) fn is_led_to(place: &DestinationPath, inode: u64) -> bool {
    header_of(place, None).is_some_and(|(header, _)| header.inode == inode)
}

/// Some node has recorded something of the file `inode`. Without the leader's journal none counts.
pub(super) fn is_kept(place: &DestinationPath, inode: u64) -> bool {
    let has_records = |bytes: u64| bytes >= (HEADER_BYTES + RECORD_BYTES) as u64;
    is_led_to(place, inode) && headers(place, inode).any(|(_, _, bytes)| has_records(bytes))
}

/// Removes the journals of all nodes that describe the file `inode`.
pub(super) fn remove_all(place: &DestinationPath, inode: u64) {
    headers(place, inode).for_each(|(of, ..)| place.remove_journal_of(of));
}

/// One of the nodes that write the file `inode` left it as it is `now`. The last one did, if nobody
/// has changed it since.
fn was_left_as(place: &DestinationPath, inode: u64, now: FileState, key: &SealKey) -> bool {
    headers(place, inode).any(|(of, _, bytes)| {
        let last = (bytes.saturating_sub(HEADER_BYTES as u64) / RECORD_BYTES as u64).checked_sub(1);
        let Some((last, file)) = last.zip(place.open_journal_of(of).ok().flatten()) else {
            return false;
        };
        let (mut head, mut record) = ([0; HEADER_BYTES], [0; RECORD_BYTES]);
        let at = HEADER_BYTES as u64 + last * RECORD_BYTES as u64;
        let is_read =
            file.read_exact_at(&mut head, 0).is_ok() && file.read_exact_at(&mut record, at).is_ok();
        is_read && journal::decode_left(&head, last, &record, key) == Some(now)
    })
}

/// Headers of the journals that describe the file `inode`, with their node and their length.
///
/// Another node may have another key. What is concluded from these alone is whether files are kept,
/// and never which bytes are right.
fn headers(
    place: &DestinationPath,
    inode: u64,
) -> impl Iterator<Item = (Option<u32>, JournalHeader, u64)> {
    let all = place.journals().unwrap_or_default().into_iter();
    let all = all.filter_map(|of| header_of(place, of).map(|(header, bytes)| (of, header, bytes)));
    all.filter(move |(_, header, _)| header.inode == inode)
}

fn header_of(place: &DestinationPath, follower: Option<u32>) -> Option<(JournalHeader, u64)> {
    let file = place.open_journal_of(follower).ok()??;
    let mut head = [0; HEADER_BYTES];
    file.read_exact_at(&mut head, 0).ok()?;
    Some((journal::decode_header(&head).ok()?, file.metadata().ok()?.len()))
}

fn refused(reason: &str) -> FoundJournal {
    FoundJournal::nothing(Some(reason.into()))
}

/// Reads a follower's journal, or the leader's, if it is there and no longer than the rows can make
/// it.
fn read(
    place: &DestinationPath,
    follower: Option<u32>,
    identity: &JournalIdentity,
) -> Result<Option<JournalContent>, String> {
    let unreadable = |error: io::Error| format!("its journal cannot be read: {error}");
    let Some(mut file) = place.open_journal_of(follower)? else { return Ok(None) };
    let mut bytes = Vec::new();
    let refuses = |refusal: JournalFault| refusal.to_string();
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    journal::decode_header(&bytes).map_err(refuses)?;
    let rest_max = (identity.records_max + STATES_MAX).saturating_mul(RECORD_BYTES as u64);
    if file.metadata().map_err(unreadable)?.len() > rest_max.saturating_add(HEADER_BYTES as u64) {
        return Err("its journal is longer than its rows can make it".into());
    }
    file.take(rest_max).read_to_end(&mut bytes).map_err(unreadable)?;
    journal::decode(&bytes, identity.key.as_ref()).map(Some).map_err(refuses)
}

/// Size and times of a file.
pub(super) fn state_of(about: &FileStat) -> FileState {
    FileState {
        size_bytes: about.st_size.unsigned_abs(),
        modified: (about.st_mtime, about.st_mtime_nsec),
        changed: (about.st_ctime, about.st_ctime_nsec),
    }
}

/// Records that describe the file as a whole: that it is complete, and how it was left.
const STATES_MAX: u64 = 2;

/// Identity of this boot of the machine. Where the system does not tell, no two boots are the same.
fn boot(unknown: [u8; 16]) -> [u8; 16] {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id");
    id.map_or(unknown, |id| {
        *blake3::hash(&id).as_bytes().first_chunk().expect("a hash has 32 bytes")
    })
}

/// Locks a mutex. A panic elsewhere leaves no half-made state: each holder only adds to it or takes
/// it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Journal of a partial file as bytes: the ranges of the data space that are in the file, with
//! their checks and their sources.
//!
//! A header identifies the journal. Behind it lie records of one size, each with a sum of its own.
//! Records are only appended, so a process or a machine that dies leaves at most one of them torn,
//! and reading ends at the first whose sum is wrong. The sum includes the header's random salt and
//! the record's place, so that bytes of an older file on the disk are never taken for a record of
//! this one.
//!
//! The header is sealed with a key that other users do not have, where there is one. The sums of
//! records are made with the seal, so that nobody without the key can write one.
//!
//! A record is written when its bytes are in the partial file, and never before. It has 64 bytes
//! for a piece of up to 64 MiB, 64 KiB to 8 MiB unless the user says otherwise. Ranges that start
//! again are dropped when an attempt begins. So a journal has no more records than its rows have
//! pieces, and one for the whole file: 0.006 % of it with pieces of 1 MiB.

use std::collections::BTreeMap;

use super::seal::SealKey;
use crate::core::units::Span;

/// Source that a range came from, and its state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct RangeOrigin {
    /// Hash of the sender's name and the data's URI.
    pub(crate) who: u64,
    /// Hash of the source's size, time of last change, and identity.
    pub(crate) state: u64,
}

/// A range that is in the partial file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct JournalRecord {
    /// Its place in the data space; never empty.
    pub(crate) span: Span,
    /// Its check value in a field of fixed size; zeros where nothing is checked.
    pub(crate) check: [u8; 32],
    pub(crate) origin: RangeOrigin,
}

/// Size and times of a file that nobody writes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileState {
    pub(super) size_bytes: u64,
    /// Time of the last write, which users can set.
    pub(super) modified: (i64, i64),
    /// Time of the last change of anything, which they cannot set.
    pub(super) changed: (i64, i64),
}

/// Identity of a journal, and what holds for all its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct JournalHeader {
    /// Hash of all that must be the same for a record to mean the same: transfer, destination,
    /// rows, the grid's origin, check.
    pub(super) identity: [u8; 32],
    /// Boot of the machine in which it was begun.
    pub(super) boot: [u8; 16],
    /// Inode of the partial file that it describes.
    pub(super) inode: u64,
    /// The bytes of each record were made durable before the record was written.
    pub(super) synced: bool,
    /// The attempt may replace a file that has the final name.
    pub(super) overwrite: bool,
    /// Random bytes, new with every journal.
    pub(super) salt: [u8; 16],
}

/// Content of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct JournalContent {
    pub(super) header: JournalHeader,
    /// Ranges, ascending and apart from each other. Of two that overlap the later one counts: it
    /// was written over the other.
    pub(super) records: Vec<JournalRecord>,
    /// State of the file when it was complete and about to get its name.
    pub(super) complete: Option<FileState>,
    /// State of the file when its node had stopped writing to it.
    pub(super) left: Option<FileState>,
}

/// Reason not to believe a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JournalFault {
    /// It has no header that any version wrote.
    NoJournal,
    /// This program does not know its version.
    Version(u32),
    /// Its header has changed since it was written.
    Damaged,
    /// It is sealed with another key than this user's, or with none.
    Seal,
}

impl std::fmt::Display for JournalFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JournalFault::NoJournal => f.write_str("its journal is none"),
            JournalFault::Version(version) => {
                write!(f, "its journal is of version {version}, and this program knows {VERSION}")
            }
            JournalFault::Damaged => f.write_str("its header is damaged"),
            JournalFault::Seal => {
                f.write_str("its journal is not sealed with this user's key on this machine")
            }
        }
    }
}

/// Seal of one journal and of its records. It cannot be made without the key.
#[derive(Clone, Copy)]
pub(super) struct JournalSeal([u8; 32]);

impl std::fmt::Debug for JournalSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(..)")
    }
}

impl JournalSeal {
    /// Seal of a header. Where there is no key, anybody can make it.
    fn of(key: Option<&SealKey>, head: &[u8]) -> JournalSeal {
        let public = [0; 32];
        JournalSeal(*blake3::keyed_hash(key.map_or(&public, SealKey::bytes), head).as_bytes())
    }

    /// Part of the seal that the header shows.
    fn shown(&self) -> [u8; SEAL_BYTES] {
        field(blake3::keyed_hash(&self.0, b"header").as_bytes(), 0)
    }

    /// Sum of a record's bytes.
    fn sum(&self, place: u64, record: &[u8]) -> [u8; 4] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        field(hasher.update(&place.to_le_bytes()).update(record).finalize().as_bytes(), 0)
    }
}

/// Bytes of a header, and the seal of its records.
pub(super) fn encode_header(
    header: &JournalHeader,
    key: Option<&SealKey>,
) -> ([u8; HEADER_BYTES], JournalSeal) {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12] = (u8::from(header.synced) * SYNCED) | (u8::from(header.overwrite) * OVERWRITE);
    bytes[16..48].copy_from_slice(&header.identity);
    bytes[48..64].copy_from_slice(&header.boot);
    bytes[64..72].copy_from_slice(&header.inode.to_le_bytes());
    bytes[72..88].copy_from_slice(&header.salt);
    let sum = sum(&bytes[..SUMMED_BYTES]);
    bytes[SUMMED_BYTES..SEALED_BYTES].copy_from_slice(&sum);
    let seal = JournalSeal::of(key, &bytes[..SEALED_BYTES]);
    bytes[SEALED_BYTES..].copy_from_slice(&seal.shown());
    (bytes, seal)
}

/// Bytes of the record at `place`, counted from 0.
pub(super) fn encode(seal: &JournalSeal, place: u64, record: &JournalRecord) -> [u8; RECORD_BYTES] {
    let bytes = u32::try_from(record.span.bytes()).expect("a piece is 64 MiB at most");
    let JournalRecord { span, check, origin } = record;
    sealed(seal, place, span.start, bytes, [origin.who, origin.state], check)
}

/// Bytes of the record of a complete file.
pub(super) fn encode_complete(
    seal: &JournalSeal,
    place: u64,
    state: &FileState,
) -> [u8; RECORD_BYTES] {
    encode_state(seal, place, COMPLETE, state)
}

/// Bytes of the record of a file that its node has stopped writing to.
pub(super) fn encode_left(seal: &JournalSeal, place: u64, state: &FileState) -> [u8; RECORD_BYTES] {
    encode_state(seal, place, LEFT, state)
}

fn encode_state(
    seal: &JournalSeal,
    place: u64,
    kind: u32,
    state: &FileState,
) -> [u8; RECORD_BYTES] {
    let numbers = |time: (i64, i64)| [time.0.cast_unsigned(), time.1.cast_unsigned()];
    let mut rest = [0; 32];
    let [seconds, nanoseconds] = numbers(state.changed);
    rest[..8].copy_from_slice(&seconds.to_le_bytes());
    rest[8..16].copy_from_slice(&nanoseconds.to_le_bytes());
    sealed(seal, place, state.size_bytes, kind, numbers(state.modified), &rest)
}

fn sealed(
    seal: &JournalSeal,
    place: u64,
    start: u64,
    bytes: u32,
    two: [u64; 2],
    check: &[u8; 32],
) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&start.to_le_bytes());
    record[8..12].copy_from_slice(&bytes.to_le_bytes());
    record[12..20].copy_from_slice(&two[0].to_le_bytes());
    record[20..28].copy_from_slice(&two[1].to_le_bytes());
    record[28..60].copy_from_slice(check);
    let sum = seal.sum(place, &record[..60]);
    record[60..].copy_from_slice(&sum);
    record
}

/// Header of a journal, whoever has sealed it.
pub(super) fn decode_header(bytes: &[u8]) -> Result<JournalHeader, JournalFault> {
    let (start, head) = (bytes.first_chunk::<12>(), bytes.first_chunk::<HEADER_BYTES>());
    let start = start.filter(|start| start.starts_with(MAGIC)).ok_or(JournalFault::NoJournal)?;
    let version = u32::from_le_bytes(field(start, 8));
    if version != VERSION {
        return Err(JournalFault::Version(version));
    }
    let head = head.ok_or(JournalFault::NoJournal)?;
    if head[SUMMED_BYTES..SEALED_BYTES] != sum(&head[..SUMMED_BYTES]) {
        return Err(JournalFault::Damaged);
    }
    Ok(JournalHeader {
        identity: field(head, 16),
        boot: field(head, 48),
        inode: u64::from_le_bytes(field(head, 64)),
        synced: head[12] & SYNCED != 0,
        overwrite: head[12] & OVERWRITE != 0,
        salt: field(head, 72),
    })
}

/// Content of a journal that was sealed with `key`, without a torn end.
pub(super) fn decode(bytes: &[u8], key: Option<&SealKey>) -> Result<JournalContent, JournalFault> {
    let header = decode_header(bytes)?;
    let (head, rest) = bytes.split_at(HEADER_BYTES);
    let seal = JournalSeal::of(key, &head[..SEALED_BYTES]);
    if head[SEALED_BYTES..] != seal.shown() {
        return Err(JournalFault::Seal);
    }
    let (mut ranges, mut complete, mut left) = (RecordedRanges::default(), None, None);
    for (place, record) in (0_u64..).zip(rest.as_chunks::<RECORD_BYTES>().0) {
        if record[60..] != seal.sum(place, &record[..60]) {
            break;
        }
        let (start, bytes) =
            (u64::from_le_bytes(field(record, 0)), u32::from_le_bytes(field(record, 8)));
        match bytes {
            COMPLETE => complete = Some(state_of(record)),
            LEFT => left = Some(state_of(record)),
            _ => {
                let Some(end) = start.checked_add(bytes.into()) else { break };
                let [who, state] = [12, 20].map(|at| u64::from_le_bytes(field(record, at)));
                let origin = RangeOrigin { who, state };
                ranges.add(JournalRecord {
                    span: Span::new(start, end),
                    check: field(record, 28),
                    origin,
                });
                // Bytes have landed since: the file is neither complete nor left.
                (complete, left) = (None, None);
            }
        }
    }
    Ok(JournalContent { header, records: ranges.0.into_values().collect(), complete, left })
}

/// State of the file in the last record of a journal, where that is the record of its leaving and
/// sealed with `key`. `head` is the journal's header, and `record` lies at `place` behind it.
pub(super) fn decode_left(
    head: &[u8],
    place: u64,
    record: &[u8],
    key: &SealKey,
) -> Option<FileState> {
    decode_header(head).ok()?;
    let seal = JournalSeal::of(Some(key), &head[..SEALED_BYTES]);
    let record = record
        .first_chunk::<RECORD_BYTES>()
        .filter(|record| record[60..] == seal.sum(place, &record[..60]))?;
    (u32::from_le_bytes(field(record, 8)) == LEFT).then(|| state_of(record))
}

fn state_of(record: &[u8; RECORD_BYTES]) -> FileState {
    let [first, second, third, fourth] =
        [12, 20, 28, 36].map(|at| i64::from_le_bytes(field(record, at)));
    let size_bytes = u64::from_le_bytes(field(record, 0));
    FileState { size_bytes, modified: (first, second), changed: (third, fourth) }
}

/// Records by their start; no two overlap.
#[derive(Default)]
struct RecordedRanges(BTreeMap<u64, JournalRecord>);

impl RecordedRanges {
    fn add(&mut self, record: JournalRecord) {
        while let Some((&start, old)) = self.0.range(..record.span.end).next_back()
            && old.span.end > record.span.start
        {
            self.0.remove(&start);
        }
        self.0.insert(record.span.start, record);
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("fields lie within what holds them")
}

fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    field(blake3::hash(bytes).as_bytes(), 0)
}

const MAGIC: &[u8; 8] = b"CEPJRNL\n";
const VERSION: u32 = 2;
const SUM_BYTES: usize = 8;
const SUMMED_BYTES: usize = 88;
const SEALED_BYTES: usize = SUMMED_BYTES + SUM_BYTES;
const SEAL_BYTES: usize = 16;
/// Flags of the header.
const SYNCED: u8 = 1;
const OVERWRITE: u8 = 2;
/// Lengths of records that describe the file as a whole.
const COMPLETE: u32 = 0;
const LEFT: u32 = u32::MAX;
/// Size of a header.
pub(super) const HEADER_BYTES: usize = SEALED_BYTES + SEAL_BYTES;
/// Size of a record.
pub(super) const RECORD_BYTES: usize = 64;

/// Reads `bytes` as they are, and again as records of 60 bytes with good sums behind a header. The
/// records that are read must be ascending, apart from each other, and written.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_anything(bytes: &[u8]) {
    let is_apart = |read: &JournalContent| {
        read.records.is_sorted_by(|left, right| left.span.end <= right.span.start)
    };
    for key in [None, Some(&SealKey::of_test(6))] {
        if let Ok(read) = decode(bytes, key) {
            assert!(is_apart(&read), "{:?}", read.records);
        }
    }
    let key = Some(&SealKey::of_test(5));
    let header = JournalHeader {
        identity: [1; 32],
        boot: [2; 16],
        inode: 3,
        synced: false,
        overwrite: true,
        salt: [4; 16],
    };
    let (head, seal) = encode_header(&header, key);
    let mut journal = head.to_vec();
    for (place, part) in (0_u64..).zip(bytes.as_chunks::<60>().0) {
        let two = [u64::from_le_bytes(field(part, 12)), u64::from_le_bytes(field(part, 20))];
        let (start, length) =
            (u64::from_le_bytes(field(part, 0)), u32::from_le_bytes(field(part, 8)));
        journal.extend(sealed(&seal, place, start, length, two, &field(part, 28)));
    }
    let whole = decode(&journal, key).expect("a header");
    assert!(is_apart(&whole) && whole.header == header, "{:?}", whole.records);
    assert_eq!(decode(&journal, None), Err(JournalFault::Seal));
    // A torn end loses the record that is torn, and no other.
    let torn = decode(&journal[..journal.len() - usize::from(!bytes.is_empty())], key);
    let all_but_last = journal.len().saturating_sub(HEADER_BYTES + 1) / RECORD_BYTES * RECORD_BYTES;
    if let Ok(torn) = torn {
        assert_eq!(
            Ok(torn),
            decode(&journal[..(HEADER_BYTES + all_but_last).min(journal.len())], key)
        );
    }
}

/// A journal of this user with another header; `None` where it has none.
#[cfg(test)]
fn with_header(bytes: &[u8], change: impl FnOnce(&mut JournalHeader)) -> Option<Vec<u8>> {
    let key = SealKey::of_this_user();
    let mut header = decode(bytes, key.as_ref()).ok()?.header;
    let old = JournalSeal::of(key.as_ref(), &bytes[..SEALED_BYTES]);
    change(&mut header);
    let (head, new) = encode_header(&header, key.as_ref());
    let mut changed = head.to_vec();
    for (place, record) in (0..).zip(bytes[HEADER_BYTES..].as_chunks::<RECORD_BYTES>().0) {
        let is_good = record[60..] == old.sum(place, &record[..60]);
        changed.extend_from_slice(&record[..60]);
        changed.extend(if is_good { new.sum(place, &record[..60]) } else { [0; 4] });
    }
    Some(changed)
}

/// The same journal, begun in another boot of the machine; `None` where it has no header.
#[cfg(test)]
pub(crate) fn of_another_boot(bytes: &[u8]) -> Option<Vec<u8>> {
    with_header(bytes, |header| header.boot[0] = header.boot[0].wrapping_add(1))
}

/// The same journal, of another partial file.
#[cfg(test)]
pub(super) fn of_inode(bytes: &[u8], inode: u64) -> Vec<u8> {
    with_header(bytes, |header| header.inode = inode).expect("a journal")
}

/// The same journal by somebody who knows everything but the key: sealed with another key, or with
/// none.
#[cfg(test)]
pub(super) fn forged(bytes: &[u8], key: Option<&SealKey>) -> Vec<u8> {
    let read = decode(bytes, SealKey::of_this_user().as_ref()).expect("a journal");
    let (head, seal) = encode_header(&read.header, key);
    let mut journal = head.to_vec();
    for (place, record) in (0..).zip(&read.records) {
        journal.extend(encode(&seal, place, record));
    }
    let place = read.records.len() as u64;
    journal.extend(read.left.iter().flat_map(|left| encode_left(&seal, place, left)));
    journal
}

/// Ranges that a journal says are there.
#[cfg(test)]
pub(crate) fn spans(bytes: &[u8]) -> Vec<Span> {
    let read = decode(bytes, SealKey::of_this_user().as_ref());
    read.map(|read| read.records.iter().map(|record| record.span).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: SealKey = SealKey::of_test(1);

    fn decode(bytes: &[u8]) -> Result<JournalContent, JournalFault> {
        super::decode(bytes, Some(&KEY))
    }

    fn header(salt: u8) -> JournalHeader {
        JournalHeader {
            identity: [7; 32],
            boot: [8; 16],
            inode: 99,
            synced: false,
            overwrite: false,
            salt: [salt; 16],
        }
    }

    fn record(start: u64, bytes: u32, mark: u8) -> JournalRecord {
        let origin = RangeOrigin { who: 3 + u64::from(mark), state: 5 };
        JournalRecord { span: Span::of(start, bytes.into()), check: [mark; 32], origin }
    }

    fn journal(header: &JournalHeader, records: &[JournalRecord]) -> Vec<u8> {
        let (head, seal) = encode_header(header, Some(&KEY));
        let mut bytes = head.to_vec();
        for (place, record) in (0..).zip(records) {
            bytes.extend(encode(&seal, place, record));
        }
        bytes
    }

    fn apart() -> impl Strategy<Value = Vec<JournalRecord>> {
        prop::collection::vec((0u64..50, 1u32..1000, any::<u8>()), 0..40).prop_map(|parts| {
            let mut start = 0;
            let mut next = |(gap, bytes, mark)| {
                let record = record(start + gap, bytes, mark);
                start = record.span.end;
                record
            };
            parts.into_iter().map(&mut next).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in apart()) {
            let read = decode(&journal(&header(1), &records)).expect("a journal");
            prop_assert_eq!((read.header, read.records), (header(1), records));
            prop_assert_eq!((read.complete, read.left), (None, None));
        }

        #[test]
        fn a_cut_or_changed_journal_is_a_part_of_what_was_written_or_refused(
            records in apart(), at: prop::sample::Index, change in 1u8.., cuts: bool,
        ) {
            let mut bytes = journal(&header(1), &records);
            let at = at.index(bytes.len());
            if cuts { bytes.truncate(at) } else { bytes[at] ^= change }
            match decode(&bytes) {
                Ok(read) => {
                    prop_assert!(records.starts_with(&read.records), "{:?}", read.records);
                    prop_assert_eq!(read.header, header(1));
                    prop_assert!(
                        read.records.len() >= (at.saturating_sub(HEADER_BYTES)) / RECORD_BYTES
                    );
                }
                Err(_) => prop_assert!(at < HEADER_BYTES),
            }
        }

        #[test]
        fn anything_is_read_or_refused(bytes: Vec<u8>, behind: Vec<u8>) {
            let _ = decode(&bytes);
            let (head, _) = encode_header(&header(2), Some(&KEY));
            let read = decode(&[&head[..], &behind].concat()).expect("a header");
            prop_assert!(read.records.is_empty() && read.complete.is_none());
        }
    }

    #[test]
    fn of_two_ranges_that_overlap_the_later_one_counts() {
        let records = [
            record(0, 10, 1),
            record(10, 10, 2),
            record(20, 10, 3),
            record(5, 16, 4),
            record(0, 5, 5),
        ];
        let read = decode(&journal(&header(1), &records)).expect("a journal");
        assert_eq!(read.records, [record(0, 5, 5), record(5, 16, 4)]);
    }

    #[test]
    fn records_of_an_older_journal_behind_the_end_are_none() {
        let old = journal(&header(1), &[record(0, 10, 1), record(10, 10, 2)]);
        let mut new = journal(&header(2), &[record(0, 10, 9)]);
        new.extend(&old[new.len()..]);
        assert_eq!(decode(&new).expect("a journal").records, [record(0, 10, 9)]);
    }

    #[test]
    fn what_is_written_to_after_it_was_complete_or_left_is_neither() {
        let state = FileState { size_bytes: 10, modified: (-5, 7), changed: (6, 8) };
        let mut bytes = journal(&header(1), &[record(0, 10, 1)]);
        let seal = encode_header(&header(1), Some(&KEY)).1;
        bytes.extend(encode_complete(&seal, 1, &state));
        bytes.extend(encode_left(&seal, 2, &FileState { changed: (9, 9), ..state }));
        let read = decode(&bytes).expect("a journal");
        assert_eq!((read.records.len(), read.complete), (1, Some(state)));
        assert_eq!(read.left, Some(FileState { changed: (9, 9), ..state }));
        bytes.extend(encode(&seal, 3, &record(0, 10, 2)));
        let read = decode(&bytes).expect("a journal");
        assert_eq!((read.complete, read.left), (None, None));
    }

    #[test]
    fn a_strange_journal_is_refused_with_a_reason() {
        let good = journal(&header(1), &[]);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            decode(&bytes).expect_err("it is strange")
        };
        assert_eq!(decode(b"").expect_err("nothing"), JournalFault::NoJournal);
        assert_eq!(changed(0, b'x'), JournalFault::NoJournal);
        assert_eq!(changed(8, 9), JournalFault::Version(9));
        assert_eq!(changed(30, 0), JournalFault::Damaged);
        assert_eq!(changed(HEADER_BYTES - 1, !good[HEADER_BYTES - 1]), JournalFault::Seal);
    }

    /// The journals of version 1 had shorter headers.
    #[test]
    fn a_journal_of_an_older_version_is_refused_by_its_version() {
        let mut old = journal(&header(1), &[])[..SEALED_BYTES].to_vec();
        old[8] = 1;
        let refusal = decode(&old).expect_err("it is old");
        assert_eq!(refusal.to_string(), "its journal is of version 1, and this program knows 2");
    }

    #[test]
    fn nobody_without_the_key_can_write_a_header_or_a_record() {
        let own = journal(&header(1), &[record(0, 10, 1)]);
        for key in [None, Some(&SealKey::of_test(2))] {
            assert_eq!(super::decode(&own, key), Err(JournalFault::Seal));
            let (head, seal) = encode_header(&header(1), key);
            let forged = encode(&seal, 1, &record(10, 10, 2));
            assert_eq!(decode(&[&head[..], &forged].concat()), Err(JournalFault::Seal));
            let read = decode(&[&own[..], &forged].concat()).expect("the header is one's own");
            assert_eq!(read.records, [record(0, 10, 1)]);
        }
    }
}

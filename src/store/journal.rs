//! The journal of a partial file as bytes: which ranges of the data space are in it, with their checks and where they came
//! from.
//!
//! A header says whose journal it is; behind it lie records of one size, each with a sum of its own. Records are only ever
//! appended, so a process or a machine that dies leaves at most one of them torn: reading ends at the first whose sum is
//! wrong. The sum takes in the header's random salt and the record's place, so that what an older file left on the disk is
//! never taken for a record of this one.
//!
//! A record is written when its bytes are in the partial file, and never before. It has 64 bytes for a piece of up to
//! 64 MiB, 1 MiB unless the user says otherwise; what starts again is dropped when an attempt begins. So a journal has no
//! more records than its rows have pieces, and one for the whole file: 0.006 % of it.

use std::collections::BTreeMap;

use crate::units::Span;

/// Which source a range came from, and what that looked like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Origin {
    /// The hash of the sender's name and the data's URI.
    pub(crate) who: u64,
    /// The hash of the source's size, time of last change, and identity.
    pub(crate) state: u64,
}

/// A range that is in the partial file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Where it lies in the data space; never empty.
    pub(crate) span: Span,
    /// Its check, in a field of fixed size; zeros where nothing is checked.
    pub(crate) check: [u8; 32],
    pub(crate) origin: Origin,
}

/// The file that was complete and about to get its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Complete {
    pub(super) size_bytes: u64,
    pub(super) modified: (i64, i64),
}

/// Whose journal it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The hash of all that must be the same for a record to mean the same: transfer, destination, rows, grid, check.
    pub(super) identity: [u8; 32],
    /// The boot in which it was begun.
    pub(super) boot: [u8; 16],
    /// The partial file that it speaks of.
    pub(super) inode: u64,
    /// Whether the bytes of each record were made durable before the record was written.
    pub(super) synced: bool,
    /// Random bytes, new with every journal.
    pub(super) salt: [u8; 16],
}

/// What a journal says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Read {
    pub(super) header: Header,
    /// The ranges, ascending and apart from each other: of two that overlap, the later one was written over the other.
    pub(super) records: Vec<Record>,
    pub(super) complete: Option<Complete>,
}

/// Why a journal is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// It has no header, or not one that any version wrote.
    NoJournal,
    /// It is of a version that this one does not know.
    Version(u32),
    /// Its header has changed since it was written.
    Damaged,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NoJournal => f.write_str("it is no journal"),
            Refusal::Version(version) => write!(f, "it is of version {version}, and this program knows {VERSION}"),
            Refusal::Damaged => f.write_str("its header is damaged"),
        }
    }
}

/// The bytes of a header.
pub(super) fn encode_header(header: &Header) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12] = header.synced.into();
    bytes[16..48].copy_from_slice(&header.identity);
    bytes[48..64].copy_from_slice(&header.boot);
    bytes[64..72].copy_from_slice(&header.inode.to_le_bytes());
    bytes[72..88].copy_from_slice(&header.salt);
    let sum = sum(&[&bytes[..SUMMED_BYTES]]);
    bytes[SUMMED_BYTES..].copy_from_slice(&sum);
    bytes
}

/// The bytes of the record at `place`, counted from 0.
pub(super) fn encode(header: &Header, place: u64, record: &Record) -> [u8; RECORD_BYTES] {
    let bytes = u32::try_from(record.span.bytes()).expect("a piece is 64 MiB at most");
    let Record { span, check, origin } = record;
    sealed(header, place, span.start, bytes, [origin.who, origin.state], check)
}

/// The bytes of the record that says the file is complete.
pub(super) fn encode_complete(header: &Header, place: u64, complete: &Complete) -> [u8; RECORD_BYTES] {
    let (seconds, nanoseconds) = complete.modified;
    let numbers = [seconds.cast_unsigned(), nanoseconds.cast_unsigned()];
    sealed(header, place, complete.size_bytes, 0, numbers, &[0; 32])
}

fn sealed(header: &Header, place: u64, start: u64, bytes: u32, two: [u64; 2], check: &[u8; 32]) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&start.to_le_bytes());
    record[8..12].copy_from_slice(&bytes.to_le_bytes());
    record[12..20].copy_from_slice(&two[0].to_le_bytes());
    record[20..28].copy_from_slice(&two[1].to_le_bytes());
    record[28..60].copy_from_slice(check);
    let [a, b, c, d, ..] = sum(&[&header.salt, &place.to_le_bytes(), &record[..60]]);
    record[60..].copy_from_slice(&[a, b, c, d]);
    record
}

/// What the bytes of a journal say; a torn end is left out.
pub(super) fn decode(bytes: &[u8]) -> Result<Read, Refusal> {
    let (head, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(Refusal::NoJournal)?;
    if &head[..8] != MAGIC {
        return Err(Refusal::NoJournal);
    }
    let version = u32::from_le_bytes(field(head, 8));
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    if head[SUMMED_BYTES..] != sum(&[&head[..SUMMED_BYTES]]) {
        return Err(Refusal::Damaged);
    }
    let header = Header {
        identity: field(head, 16),
        boot: field(head, 48),
        inode: u64::from_le_bytes(field(head, 64)),
        synced: head[12] == 1,
        salt: field(head, 72),
    };
    let (mut ranges, mut complete) = (Ranges::default(), None);
    for (place, record) in (0_u64..).zip(rest.as_chunks::<RECORD_BYTES>().0) {
        if record[60..] != sum(&[&header.salt, &place.to_le_bytes(), &record[..60]])[..4] {
            break;
        }
        let (start, bytes) = (u64::from_le_bytes(field(record, 0)), u32::from_le_bytes(field(record, 8)));
        let two = [u64::from_le_bytes(field(record, 12)), u64::from_le_bytes(field(record, 20))];
        if bytes == 0 {
            let modified = (two[0].cast_signed(), two[1].cast_signed());
            complete = Some(Complete { size_bytes: start, modified });
            continue;
        }
        let Some(end) = start.checked_add(bytes.into()) else { break };
        let origin = Origin { who: two[0], state: two[1] };
        ranges.add(Record { span: Span::new(start, end), check: field(record, 28), origin });
        // What is written to is not complete.
        complete = None;
    }
    Ok(Read { header, records: ranges.0.into_values().collect(), complete })
}

/// Records by where they start, none of which overlap.
#[derive(Default)]
struct Ranges(BTreeMap<u64, Record>);

impl Ranges {
    fn add(&mut self, record: Record) {
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

fn sum(parts: &[&[u8]]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    parts.iter().for_each(|part| _ = hasher.update(part));
    field(hasher.finalize().as_bytes(), 0)
}

const MAGIC: &[u8; 8] = b"CEPJRNL\n";
const VERSION: u32 = 1;
const SUM_BYTES: usize = 8;
const SUMMED_BYTES: usize = 88;
/// The size of a header.
pub(super) const HEADER_BYTES: usize = SUMMED_BYTES + SUM_BYTES;
/// The size of a record.
pub(super) const RECORD_BYTES: usize = 64;

/// Reads what `bytes` hold, as they are, and again as records of 60 bytes with good sums behind a header: what is read is
/// ascending and apart, and was written.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_anything(bytes: &[u8]) {
    let is_apart = |read: &Read| read.records.is_sorted_by(|left, right| left.span.end <= right.span.start);
    if let Ok(read) = decode(bytes) {
        assert!(is_apart(&read), "{:?}", read.records);
    }
    let header = Header { identity: [1; 32], boot: [2; 16], inode: 3, synced: false, salt: [4; 16] };
    let mut journal = encode_header(&header).to_vec();
    for (place, part) in (0_u64..).zip(bytes.as_chunks::<60>().0) {
        let two = [u64::from_le_bytes(field(part, 12)), u64::from_le_bytes(field(part, 20))];
        let (start, length) = (u64::from_le_bytes(field(part, 0)), u32::from_le_bytes(field(part, 8)));
        journal.extend(sealed(&header, place, start, length, two, &field(part, 28)));
    }
    let whole = decode(&journal).expect("a header");
    assert!(is_apart(&whole) && whole.header == header, "{:?}", whole.records);
    // A torn end loses the record that it tears, and no other.
    let torn = decode(&journal[..journal.len() - usize::from(!bytes.is_empty())]);
    let all_but_last = journal.len().saturating_sub(HEADER_BYTES + 1) / RECORD_BYTES * RECORD_BYTES;
    if let Ok(torn) = torn {
        assert_eq!(Ok(torn), decode(&journal[..(HEADER_BYTES + all_but_last).min(journal.len())]));
    }
}

/// The same journal, begun in another boot of the machine; `None` where it has no header.
#[cfg(test)]
pub(crate) fn of_another_boot(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut header = decode(bytes).ok()?.header;
    header.boot[0] = header.boot[0].wrapping_add(1);
    Some([&encode_header(&header)[..], &bytes[HEADER_BYTES..]].concat())
}

/// The same journal, of another partial file.
#[cfg(test)]
pub(super) fn of_inode(bytes: &[u8], inode: u64) -> Vec<u8> {
    let header = Header { inode, ..decode(bytes).expect("a journal").header };
    [&encode_header(&header)[..], &bytes[HEADER_BYTES..]].concat()
}

/// What a journal says is there.
#[cfg(test)]
pub(crate) fn spans(bytes: &[u8]) -> Vec<Span> {
    decode(bytes).map(|read| read.records.iter().map(|record| record.span).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(salt: u8) -> Header {
        Header { identity: [7; 32], boot: [8; 16], inode: 99, synced: false, salt: [salt; 16] }
    }

    fn record(start: u64, bytes: u32, mark: u8) -> Record {
        let origin = Origin { who: 3 + u64::from(mark), state: 5 };
        Record { span: Span::of(start, bytes.into()), check: [mark; 32], origin }
    }

    fn journal(header: &Header, records: &[Record]) -> Vec<u8> {
        let mut bytes = encode_header(header).to_vec();
        for (place, record) in (0..).zip(records) {
            bytes.extend(encode(header, place, record));
        }
        bytes
    }

    fn apart() -> impl Strategy<Value = Vec<Record>> {
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
            prop_assert_eq!((read.header, read.records, read.complete), (header(1), records, None));
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
                    prop_assert!(read.records.len() >= (at.saturating_sub(HEADER_BYTES)) / RECORD_BYTES);
                }
                Err(_) => prop_assert!(at < HEADER_BYTES),
            }
        }

        #[test]
        fn anything_is_read_or_refused(bytes: Vec<u8>, behind: Vec<u8>) {
            let _ = decode(&bytes);
            let read = decode(&[&encode_header(&header(2))[..], &behind].concat()).expect("a header");
            prop_assert!(read.records.is_empty() && read.complete.is_none());
        }
    }

    #[test]
    fn of_two_ranges_that_overlap_the_later_one_counts() {
        let records = [record(0, 10, 1), record(10, 10, 2), record(20, 10, 3), record(5, 16, 4), record(0, 5, 5)];
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
    fn what_is_written_to_after_it_was_complete_is_not_complete() {
        let complete = Complete { size_bytes: 10, modified: (-5, 7) };
        let mut bytes = journal(&header(1), &[record(0, 10, 1)]);
        bytes.extend(encode_complete(&header(1), 1, &complete));
        let read = decode(&bytes).expect("a journal");
        assert_eq!((read.records.len(), read.complete), (1, Some(complete)));
        bytes.extend(encode(&header(1), 2, &record(0, 10, 2)));
        assert_eq!(decode(&bytes).expect("a journal").complete, None);
    }

    #[test]
    fn a_strange_journal_is_refused_with_a_reason() {
        let good = journal(&header(1), &[]);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            decode(&bytes).expect_err("it is strange")
        };
        assert_eq!(decode(b"").expect_err("nothing"), Refusal::NoJournal);
        assert_eq!(changed(0, b'x'), Refusal::NoJournal);
        assert_eq!(changed(8, 9), Refusal::Version(9));
        assert_eq!(changed(30, 0), Refusal::Damaged);
    }
}

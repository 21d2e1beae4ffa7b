//! Pieces that a node keeps for another attempt, and those that it finds of an earlier one: pieces
//! here, records in the journals.

use std::collections::{BTreeMap, BTreeSet};

use super::reading::ReadProgress;
use super::verify::reads_as;
use crate::core::block_grid::{BLOCK_BYTES_MIN, PIECES_MAX};
use crate::core::check::CheckMethod;
use crate::core::node::participant::RoomRequest;
use crate::core::options::CheckKind;
use crate::core::piece::LandedPiece;
use crate::core::spec::RowRole;
use crate::core::store::file_layout::FileLayout;
use crate::core::units::{Span, covers, subtract, union};
use crate::core::wire::Check;
use crate::core::wire::control;
use crate::core::wire::control::{KeptRanges, Prepare, WireRow};
use crate::core::wire::limits::HAVE_MAX;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::store::{
    JournalDoubt, JournalIdentity, JournalRecord, RangeOrigin, ReusedRanges, SealKey, Sink,
    partials_of_others,
};

/// Cuts of plans that a journal may show, beside those of the grid.
const CUTS_MAX: u64 = 1 << 16;

/// All that must be the same for what is kept of a destination to mean the same; `rows` are those
/// that write it.
pub(super) fn keeping(prepare: &Prepare, uri: &str, rows: &[(u64, Span)]) -> JournalIdentity {
    let options = &prepare.options;
    let object = options.object.unwrap_or(Span::new(0, 0));
    let mut hasher = blake3::Hasher::new();
    for text in [prepare.id.as_str(), uri] {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    let wanted: Vec<Span> = rows.iter().map(|(_, span)| *span).collect();
    let mut rows = rows.to_vec();
    rows.sort_unstable_by_key(|(offset, span)| (*offset, span.start, span.end));
    let rows = rows.iter().flat_map(|(offset, span)| [*offset, span.start, span.end]);
    let check = options.transfer.check;
    // Values of BLAKE3 are of pieces; others are joined to those of any larger ones.
    let block_bytes = if check == CheckKind::Blake3 { options.block_bytes } else { 0 };
    let options = [options.origin, block_bytes.into(), check as u64, object.start, object.end];
    options.into_iter().chain(rows).for_each(|number| _ = hasher.update(&number.to_le_bytes()));
    let identity = *hasher.finalize().as_bytes();
    JournalIdentity {
        identity,
        records_max: records_max(prepare, &wanted),
        key: SealKey::of_this_user(),
    }
}

/// More records than rows can make: one for each of their pieces, or of those that another attempt
/// may have chosen, twice where an earlier plan cut them otherwise, and as many more as plans have
/// cuts.
fn records_max(prepare: &Prepare, rows: &[Span]) -> u64 {
    let pieces = rows.iter().map(|span| {
        let chosen = (span.bytes() / PIECES_MAX).max(BLOCK_BYTES_MIN);
        span.bytes() / u64::from(prepare.options.block_bytes).clamp(1, chosen) + 2
    });
    pieces.fold(CUTS_MAX, |sum, count| sum.saturating_add(count.saturating_mul(2)))
}

/// The offsets and ranges of the rows that write `uri`.
pub(super) fn rows_of(rows: &[WireRow], uri: &str) -> Vec<(u64, Span)> {
    let rows = rows.iter().filter(|row| row.role == RowRole::Receiver && row.uri == uri);
    rows.map(|row| (row.offset_bytes, row.span)).collect()
}

/// A number for `looks` that differs for a file that looks otherwise.
pub(super) fn state_of(looks: &[u8]) -> u64 {
    u64::from_le_bytes(*blake3::hash(looks).as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Pieces that an earlier attempt has left at a transfer's files.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// The pieces: in every file that they are to go to.
    pub(super) kept: Vec<LandedPiece>,
    /// The same for the master, in as few ranges as they make.
    pub(super) have: Vec<KeptRanges>,
    /// Nobody else can have written the records of these.
    pub(super) sealed: bool,
    /// Notes for people: a sentence each.
    pub(super) notes: Vec<String>,
}

/// Finds what an earlier attempt has left at a transfer's files. Reads what is not certain to be as
/// it was recorded; `reading` counts that, because the master waits for it.
pub(super) fn find(transfer_files: &TransferFiles, reading: &mut ReadProgress<'_>) -> Leftovers {
    let refused = transfer_files.sinks.iter().filter_map(Sink::refused);
    let notes = refused.chain(partials_of_others(&transfer_files.sinks)).collect();
    let sealed = transfer_files.sinks.iter().filter(|sink| sink.keeps()).all(Sink::is_sealed);
    let mut found = Leftovers { notes, sealed, ..Leftovers::default() };
    for sink in &transfer_files.sinks {
        let (mut sound, mut lost_bytes) = (Vec::new(), 0);
        for record in sink.found() {
            match sound_piece(transfer_files, record, reading) {
                Some(piece) => sound.push(piece),
                None => lost_bytes += record.span.bytes(),
            }
        }
        if sink.is_named() && (lost_bytes > 0 || has_unread_holes(transfer_files, sink, &sound)) {
            // Nothing is written to a complete file again: it is whole, or it is replaced.
            lost_bytes = ranges_of(transfer_files, sink).map(Span::bytes).sum();
            sound.clear();
        }
        if let Some(doubt) = sink.doubt().filter(|_| lost_bytes > 0) {
            found.notes.push(note_of(doubt, sink, lost_bytes));
        }
        found.have.extend(have(sink, &sound));
        found.kept.append(&mut sound);
    }
    found.kept.sort_unstable_by_key(|piece| piece.span.start);
    found.kept.dedup_by_key(|piece| piece.span.start);
    if found.have.len() > HAVE_MAX {
        found.have.sort_unstable_by_key(|it| std::cmp::Reverse(it.span.bytes()));
        found.have.truncate(HAVE_MAX);
    }
    found.have.sort_unstable_by_key(|it| it.span.start);
    found
}

/// Returns true if a file that is held against its records has parts that no record speaks of:
/// holes of the source, which nobody can tell here from bytes that somebody has put there.
fn has_unread_holes(transfer_files: &TransferFiles, sink: &Sink, sound: &[LandedPiece]) -> bool {
    let known = union(sound.iter().map(|piece| piece.span).collect());
    sink.doubt().is_some() && ranges_of(transfer_files, sink).any(|range| !covers(&known, range))
}

/// The piece that a record speaks of, if it is in every file that it is to go to.
fn sound_piece(
    transfer_files: &TransferFiles,
    record: &JournalRecord,
    reading: &mut ReadProgress<'_>,
) -> Option<LandedPiece> {
    let mut places =
        transfer_files.layouts.iter().filter(|layout| layout.range().contains(record.span));
    let mut is_there = |layout: &FileLayout| {
        let sink = transfer_files.sink_of(layout);
        holds(sink, record) && is_sound(transfer_files.method, sink, layout, record, reading)
    };
    let is_wanted = places.clone().next().is_some();
    let check = check_of(transfer_files.method, record)
        .filter(|_| is_wanted && places.all(&mut is_there))?;
    let origin = control::SourceOrigin { who: record.origin.who, state: record.origin.state };
    Some(LandedPiece { span: record.span, check, origin })
}

/// A note for people about pieces that are fetched again.
fn note_of(doubt: JournalDoubt, sink: &Sink, lost_bytes: u64) -> String {
    let (name, lost) = (sink.name().display(), crate::core::units::human_bytes(lost_bytes));
    let why = match doubt {
        JournalDoubt::Restart => "the machine was started anew since an earlier attempt",
        JournalDoubt::Change => {
            "the file was changed since an earlier attempt recorded it, or that attempt was killed"
        }
        JournalDoubt::Seal => "an earlier attempt had no key to seal its journal with",
    };
    format!("{why}: of what that left of {name}, {lost} could not be confirmed and starts again")
}

/// The pieces that were found in a file, in as few ranges as they make. A complete file is all or
/// nothing: each of its ranges comes from all of its sources, so that none is good if one of them
/// has changed.
fn have(sink: &Sink, found: &[LandedPiece]) -> Vec<KeptRanges> {
    if sink.is_named() {
        let origins: BTreeSet<(u64, u64)> =
            found.iter().map(|it| (it.origin.who, it.origin.state)).collect();
        let ranges = union(found.iter().map(|it| it.span).collect());
        let of_all = |span: Span| {
            let origins = origins.iter().map(|&(who, state)| control::SourceOrigin { who, state });
            origins.map(move |origin| KeptRanges { span, origin }).collect::<Vec<_>>()
        };
        return ranges.into_iter().flat_map(of_all).collect();
    }
    let mut have: Vec<KeptRanges> = Vec::new();
    for &LandedPiece { span, origin, .. } in found {
        match have.last_mut() {
            Some(last) if last.span.end == span.start && last.origin == origin => {
                last.span.end = span.end;
            }
            _ => have.push(KeptRanges { span, origin }),
        }
    }
    have
}

/// Begins the journals of an attempt, for which so much is `there` already. Files that it shares
/// with other nodes have none where it forgets them. A file may be whole only where no further
/// ranges come.
pub(super) fn begin(
    transfer_files: &TransferFiles,
    room: &RoomRequest,
    there: &[Span],
) -> crate::core::error::Result<()> {
    let RoomRequest { wanted, kept, .. } = room;
    for sink in transfer_files.sinks.iter().filter(|sink| sink.keeps()) {
        if room.forgets && sink.is_of_several() && !sink.is_named() {
            sink.forget()?;
            continue;
        }
        let mut missing = ranges_of(transfer_files, sink).flat_map(|range| {
            let wanted = wanted.iter().filter_map(move |span| span.intersection(range));
            wanted.flat_map(|span| subtract(span, there))
        });
        let is_whole = missing.next().is_none() && !room.grows;
        // A complete file that is replaced has to be copied as far as it is kept.
        let in_file = match sink.is_named() && !is_whole {
            true => extents_of(transfer_files, sink, kept),
            false => Vec::new(),
        };
        sink.begin(ReusedRanges { spans: kept, in_file: &in_file }, is_whole)?;
    }
    Ok(())
}

/// Offsets in a file of the ranges that land in it.
fn extents_of(transfer_files: &TransferFiles, sink: &Sink, spans: &[Span]) -> Vec<Span> {
    let layouts = transfer_files.layouts.iter();
    let own = layouts.filter(|layout| std::ptr::eq(transfer_files.sink_of(layout), sink));
    let extents = own.flat_map(|layout| {
        let within = spans.iter().filter_map(|span| span.intersection(layout.range()));
        within.flat_map(|span| layout.extents(span))
    });
    union(extents.map(|extent| Span::of(extent.offset_bytes, extent.bytes)).collect())
}

/// Hands pieces that have landed to the journals of the files that they went to.
///
/// The control thread does it, so thousands of files cost no more than their number: none is looked
/// for in a list.
pub(crate) fn keep(transfer_files: &TransferFiles, pieces: &[LandedPiece]) {
    let mut pieces = pieces.to_vec();
    pieces.sort_unstable_by_key(|piece| piece.span.start);
    let mut ranges: BTreeMap<usize, Vec<Span>> = BTreeMap::new();
    for layout in &transfer_files.layouts {
        ranges.entry(layout.file()).or_default().push(layout.range());
    }
    for (file, ranges) in ranges {
        let Some(sink) = transfer_files.sink(file).filter(|sink| sink.keeps()) else { continue };
        let within = |range: Span| {
            let first = pieces.partition_point(|piece| piece.span.start < range.start);
            let last = pieces.partition_point(|piece| piece.span.start < range.end);
            pieces[first..last].iter().filter(move |piece| range.contains(piece.span))
        };
        let own = union(ranges).into_iter().flat_map(within);
        sink.keep(own.map(|piece| JournalRecord {
            span: piece.span,
            check: piece.check.to_field(),
            origin: RangeOrigin { who: piece.origin.who, state: piece.origin.state },
        }));
    }
}

/// The ranges that land in a file.
fn ranges_of(transfer_files: &TransferFiles, sink: &Sink) -> impl Iterator<Item = Span> {
    transfer_files
        .layouts
        .iter()
        .filter(|layout| std::ptr::eq(transfer_files.sink_of(layout), sink))
        .map(FileLayout::range)
}

/// Returns true if another file of the same piece has it, too.
fn holds(sink: &Sink, record: &JournalRecord) -> bool {
    let found = sink.found();
    let at = found.partition_point(|it| it.span.start < record.span.start);
    found.get(at).is_some_and(|it| it.span == record.span && it.check == record.check)
}

/// A record is sound where what it speaks of is in its file for certain, or is found to be when it
/// is read.
fn is_sound(
    method: CheckMethod,
    sink: &Sink,
    layout: &FileLayout,
    record: &JournalRecord,
    reading: &mut ReadProgress<'_>,
) -> bool {
    if sink.doubt().is_none() {
        return true;
    }
    let is_right = !reading.is_over() && reads_right(method, sink, layout, record).unwrap_or(false);
    reading.count(record.span.bytes());
    is_right
}

fn reads_right(
    method: CheckMethod,
    sink: &Sink,
    layout: &FileLayout,
    record: &JournalRecord,
) -> std::io::Result<bool> {
    match check_of(method, record).filter(|check| *check != Check::None) {
        Some(check) => reads_as(method, sink, layout, record.span, check, false),
        None => Ok(false),
    }
}

fn check_of(method: CheckMethod, record: &JournalRecord) -> Option<Check> {
    let kind = match method {
        CheckMethod::None => CheckKind::None,
        CheckMethod::Crc64 => CheckKind::Crc64,
        CheckMethod::Blake3(_) => CheckKind::Blake3,
    };
    Check::from_field(kind, &record.check).ok()
}

//! What a node keeps for another attempt, and what it finds of an earlier one: pieces here, records in the journals.

use std::time::{Duration, Instant};

use super::verify::reads_as;
use crate::engine::check::Method;
use crate::engine::member::Kept;
use crate::rail::desk::Desk;
use crate::spec::Role;
use crate::store::layout::Layout;
use crate::store::{Keeping, Origin, Record, Sink};
use crate::units::{Span, covers, subtract, union};
use crate::wire::control::{self, Have, Prepare, WireRow};
use crate::wire::limits::HAVE_MAX;
use crate::wire::{Check, CheckKind};

/// How long what was found may be read, where the machine was started anew in between: the master waits for that. What is
/// beyond is fetched again, which may well be faster than to read it.
const RECHECK_WITHIN: Duration = Duration::from_secs(10);

/// All that must be the same for what is kept of a destination to mean the same; `rows` are those that write it.
pub(super) fn keeping(prepare: &Prepare, uri: &str, rows: &[(u64, Span)]) -> Keeping {
    let options = &prepare.options;
    let object = options.object.unwrap_or(Span::new(0, 0));
    let mut hasher = blake3::Hasher::new();
    for text in [prepare.id.as_str(), uri] {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    let mut rows = rows.to_vec();
    rows.sort_unstable_by_key(|(offset, span)| (*offset, span.start, span.end));
    let rows = rows.iter().flat_map(|(offset, span)| [*offset, span.start, span.end]);
    let options = [options.origin, options.block_bytes.into(), options.check as u64, object.start, object.end];
    options.into_iter().chain(rows).for_each(|number| _ = hasher.update(&number.to_le_bytes()));
    Keeping { identity: *hasher.finalize().as_bytes() }
}

/// The offsets and ranges of the rows that write `uri`.
pub(super) fn rows_of(rows: &[WireRow], uri: &str) -> Vec<(u64, Span)> {
    let rows = rows.iter().filter(|row| row.role == Role::Receiver && row.uri == uri);
    rows.map(|row| (row.offset_bytes, row.span)).collect()
}

/// What looks like `bytes`, in a number that differs for what looks otherwise.
pub(super) fn state_of(looks: &[u8]) -> u64 {
    u64::from_le_bytes(*blake3::hash(looks).as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// The pieces that an earlier attempt has left at a desk: in every file that they are to go to.
pub(super) fn found(desk: &Desk) -> (Vec<Kept>, Vec<String>) {
    let mut notes: Vec<String> = desk.sinks.iter().filter_map(Sink::refused).collect();
    let deadline = Instant::now() + RECHECK_WITHIN;
    let mut found = Vec::new();
    for sink in &desk.sinks {
        let mut dropped_bytes = 0;
        for record in sink.found() {
            let mut places = desk.layouts.iter().filter(|layout| layout.range().contains(record.span));
            let is_there = |layout: &Layout| {
                let sink = desk.sink_of(layout);
                holds(sink, record) && is_sound(desk.method, sink, layout, record, deadline)
            };
            let (is_wanted, is_there) = (places.clone().next().is_some(), places.all(is_there));
            match check_of(desk.method, record) {
                Some(check) if is_wanted && is_there => {
                    let origin = control::Origin { who: record.origin.who, state: record.origin.state };
                    found.push(Kept { span: record.span, check, origin });
                }
                _ => dropped_bytes += record.span.bytes(),
            }
        }
        if dropped_bytes > 0 && !sink.is_certain() {
            notes.push(format!(
                "the machine was started anew since an earlier attempt: of what that left, {} could not be confirmed and starts again",
                crate::units::human_bytes(dropped_bytes)
            ));
        }
    }
    found.sort_unstable_by_key(|piece| piece.span.start);
    found.dedup_by_key(|piece| piece.span.start);
    (found, notes)
}

/// What was found, in as few ranges as it makes.
pub(super) fn have(found: &[Kept]) -> Vec<Have> {
    let mut have: Vec<Have> = Vec::new();
    for &Kept { span, origin, .. } in found {
        match have.last_mut() {
            Some(last) if last.span.end == span.start && last.origin == origin => last.span.end = span.end,
            _ => have.push(Have { span, origin }),
        }
    }
    if have.len() > HAVE_MAX {
        have.sort_unstable_by_key(|it| std::cmp::Reverse(it.span.bytes()));
        have.truncate(HAVE_MAX);
        have.sort_unstable_by_key(|it| it.span.start);
    }
    have
}

/// Begins the journals of an attempt that `wanted`, of which so much is `there` already, and `kept` of that by an earlier one.
/// Files that it shares with other nodes have none where it `forgets` them.
pub(super) fn begin(
    desk: &Desk,
    wanted: &[Span],
    there: &[Span],
    kept: &[Span],
    forgets: bool,
) -> crate::error::Result<()> {
    for sink in desk.sinks.iter().filter(|sink| sink.keeps()) {
        if forgets && sink.is_of_several() {
            sink.forget()?;
            continue;
        }
        let mut missing = ranges_of(desk, sink).flat_map(|range| {
            let wanted = wanted.iter().filter_map(move |span| span.intersection(range));
            wanted.flat_map(|span| subtract(span, there))
        });
        sink.begin(kept, missing.next().is_none())?;
    }
    Ok(())
}

/// Hands pieces that have landed to the journals of the files that they went to.
pub(crate) fn keep(desk: &Desk, pieces: &[Kept]) {
    for sink in desk.sinks.iter().filter(|sink| sink.keeps()) {
        let ranges = union(ranges_of(desk, sink).collect());
        let own = pieces.iter().filter(|piece| covers(&ranges, piece.span));
        sink.keep(own.map(|piece| Record {
            span: piece.span,
            check: piece.check.to_field(),
            origin: Origin { who: piece.origin.who, state: piece.origin.state },
        }));
    }
}

/// The ranges that land in a file.
fn ranges_of(desk: &Desk, sink: &Sink) -> impl Iterator<Item = Span> {
    desk.layouts.iter().filter(|layout| std::ptr::eq(desk.sink_of(layout), sink)).map(Layout::range)
}

/// Whether another file of the same piece has it, too.
fn holds(sink: &Sink, record: &Record) -> bool {
    let found = sink.found();
    let at = found.partition_point(|it| it.span.start < record.span.start);
    found.get(at).is_some_and(|it| it.span == record.span && it.check == record.check)
}

/// Whether what a record speaks of is in its file for certain, or is found to be when it is read.
fn is_sound(method: Method, sink: &Sink, layout: &Layout, record: &Record, deadline: Instant) -> bool {
    sink.is_certain() || (Instant::now() < deadline && reads_right(method, sink, layout, record).unwrap_or(false))
}

fn reads_right(method: Method, sink: &Sink, layout: &Layout, record: &Record) -> std::io::Result<bool> {
    match check_of(method, record).filter(|check| *check != Check::None) {
        Some(check) => reads_as(method, sink, layout, record.span, check, false),
        None => Ok(false),
    }
}

fn check_of(method: Method, record: &Record) -> Option<Check> {
    let kind = match method {
        Method::None => CheckKind::None,
        Method::Crc64 => CheckKind::Crc64,
        Method::Blake3(_) => CheckKind::Blake3,
    };
    Check::from_field(kind, &record.check).ok()
}

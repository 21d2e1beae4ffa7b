//! Opening what the rows of one transfer name, in a worker thread: it may block for as long as
//! disks do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use super::reading::ReadProgress;
use super::{claims, keeping, verify};
use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::error::{Code, Error, Result};
use crate::core::node::participant::RoomRequest;
use crate::core::piece::LandedPiece;
use crate::core::spec::{DataUri, RowRole};
use crate::core::store::file_layout::FileLayout;
use crate::core::store::writer::WriterRole;
use crate::core::units::{Span, largest, subtract, union};
use crate::core::wire::Check;
use crate::core::wire::control::{FileSharing, Prepare, Prepared, RowState, WireRow};
use crate::core::wire::limits::HOLES_MAX;
use crate::io::rail::transfer_files::{RailTally, SourceRow, TransferActivity, TransferFiles};
use crate::io::store::{DestinationClaim, FileNames, Sink, SinkOptions, Source, StoreRoots};

/// Holes that one row may report: what is beyond is moved as the zeros that it reads as.
const ROW_HOLES_MAX: usize = 4096;

/// An open transfer, and what the master is told of it.
#[derive(Debug)]
pub(crate) struct OpenedTransfer {
    pub(crate) transfer_files: TransferFiles,
    pub(crate) prepared: Prepared,
    /// Pieces that an earlier attempt has left, where those that land are kept for another one.
    pub(crate) found: Option<Vec<LandedPiece>>,
    /// Held until bytes move.
    pub(crate) claims: Vec<DestinationClaim>,
}

/// Opens every source, then every destination.
pub(crate) fn open(
    roots: &StoreRoots,
    prepare: &Prepare,
    rails: usize,
    reading: &mut ReadProgress<'_>,
) -> Result<OpenedTransfer> {
    let rows: Vec<(DataUri, &WireRow)> =
        prepare.rows.iter().map(with_uri).collect::<Result<_>>()?;
    check_rights(roots, &rows)?;
    let (offers, holes, files) = open_sources(roots, &rows)?;
    check_names(roots, &rows, &offers)?;
    // Before anything is made or opened for writing.
    let claims = claims::take(roots, prepare)?;
    let OpenedRows { sinks, layouts, shared, states, modes } =
        open_destinations(roots, prepare, &rows, &offers, files)?;
    let method = CheckMethod::new(prepare.options.transfer.check, prepare.options.object);
    let tallies = (0..rails).map(|_| CachePadded::new(RailTally::default())).collect();
    let activity = TransferActivity::default();
    let path = prepare.options.transfer.path;
    let transfer_files = TransferFiles {
        method,
        grid: BlockGrid::new(prepare.options.origin, prepare.options.block_bytes.into()),
        path,
        offers,
        sinks,
        layouts,
        holes: OnceLock::new(),
        tallies,
        activity,
        sink_places: OnceLock::new(),
    };
    let keeping::Leftovers { kept, have, sealed, notes } = keeping::find(&transfer_files, reading);
    let found = transfer_files.sinks.iter().any(Sink::keeps).then_some(kept);
    Ok(OpenedTransfer {
        transfer_files,
        found,
        claims,
        prepared: Prepared {
            rows: shared,
            holes: largest(union(holes), HOLES_MAX),
            error: None,
            states,
            have,
            sealed,
            notes,
            replicas: Vec::new(),
            modes,
        },
    })
}

/// Refuses rows that this node may not carry out, before anything is opened.
fn check_rights(roots: &StoreRoots, rows: &[(DataUri, &WireRow)]) -> Result<()> {
    rows.iter().try_for_each(|(uri, row)| {
        let role = match row.role {
            RowRole::Sender => "writer",
            RowRole::Receiver => "reader",
        };
        let refused = roots.check(uri, row.role);
        refused.map_err(|error| error.at(format!("the {role} row {uri} {}", row.span)))
    })
}

/// Opens the source of each row that sends: with their holes and the number of their files.
fn open_sources(
    roots: &StoreRoots,
    rows: &[(DataUri, &WireRow)],
) -> Result<(Vec<SourceRow>, Vec<Span>, usize)> {
    let (mut offers, mut holes, mut files) = (Vec::new(), Vec::new(), 0);
    for (uri, row) in rows.iter().filter(|(_, row)| row.role == RowRole::Sender) {
        let source = Source::open(roots, uri, row.offset_bytes, row.span.bytes())?;
        let found = source.holes(ROW_HOLES_MAX)?;
        holes.extend(
            found
                .iter()
                .map(|hole| Span::new(row.span.start + hole.start, row.span.start + hole.end)),
        );
        if holes.len() > 2 * HOLES_MAX {
            holes = largest(union(holes), HOLES_MAX);
        }
        let layout = (!source.files().is_empty())
            .then(|| FileLayout::of_file(files, row.offset_bytes, row.span));
        files += source.files().len();
        offers.push(SourceRow { range: row.span, source, layout });
    }
    Ok((offers, holes, files))
}

/// Rows of a node, once sources and destinations are open.
struct OpenedRows {
    sinks: Vec<Sink>,
    /// One for each row that receives into a file.
    layouts: Vec<FileLayout>,
    /// One for each row.
    shared: Vec<RowState>,
    /// One for each row: the state of its source.
    states: Vec<u64>,
    /// One for each row: the permissions of its source.
    modes: Vec<u32>,
}

/// Opens the destination of each row that receives; its files follow `source_files` in the table.
fn open_destinations(
    roots: &StoreRoots,
    prepare: &Prepare,
    rows: &[(DataUri, &WireRow)],
    offers: &[SourceRow],
    source_files: usize,
) -> Result<OpenedRows> {
    let mut files = source_files;
    let mut sinks: Vec<Sink> = Vec::new();
    let mut places: BTreeMap<&DataUri, (usize, usize)> = BTreeMap::new();
    let (mut layouts, mut shared) = (Vec::new(), Vec::new());
    let mut sources = offers.iter();
    let (mut states, mut modes) = (Vec::new(), Vec::new());
    for (uri, row) in rows {
        if row.role == RowRole::Sender {
            let offer: &SourceRow = sources.next().expect("one for each row that offers");
            states.push(keeping::state_of(&offer.source.looks()));
            modes.push(offer.source.mode());
            shared.push(RowState::default());
            continue;
        }
        states.push(0);
        modes.push(0);
        let (sink, file) = match places.get(uri) {
            Some(&place) => place,
            None => {
                let options = sink_options(prepare, uri, row);
                let sink = Sink::prepare(roots, uri, file_bytes(uri, rows), &options);
                // Nothing is left of a node that could not prepare.
                let sink = sink.inspect_err(|_| discard(&sinks, false, false))?;
                let place = (sinks.len(), files);
                files += sink.files().len();
                sinks.push(sink);
                places.insert(uri, place);
                place
            }
        };
        let sink = &sinks[sink];
        let (kept, complete) = (sink.keeps(), sink.is_named());
        shared.push(RowState { shared: sink.is_shared(), kept, complete });
        if !sink.files().is_empty() {
            layouts.push(FileLayout::of_file(file, row.offset_bytes, row.span));
        }
    }
    Ok(OpenedRows { sinks, layouts, shared, states, modes })
}

/// Has each file get the permissions of its rows, as the master says; `modes` has one for each of
/// the node's rows.
pub(crate) fn set_modes(transfer_files: &TransferFiles, prepare: &Prepare, modes: &[u32]) {
    let mut uris: BTreeSet<&str> = BTreeSet::new();
    // Sinks stand in the order in which rows first name them.
    let mut sinks = transfer_files.sinks.iter();
    for (row, &mode) in
        prepare.rows.iter().zip(modes).filter(|(row, _)| row.role == RowRole::Receiver)
    {
        if uris.insert(&row.uri)
            && let Some(sink) = sinks.next()
        {
            sink.set_mode(mode);
        }
    }
}

/// Refuses one file under two names, before anything is made: its halves would replace each other.
fn check_names(
    roots: &StoreRoots,
    rows: &[(DataUri, &WireRow)],
    offers: &[SourceRow],
) -> Result<()> {
    let mut names = FileNames::default();
    let of_role = |role| rows.iter().filter(move |(_, row)| row.role == role).map(|(uri, _)| uri);
    of_role(RowRole::Sender)
        .zip(offers)
        .for_each(|(uri, offer)| names.add_source(uri, &offer.source));
    let destinations: BTreeSet<&DataUri> = of_role(RowRole::Receiver).collect();
    if destinations.len() + offers.len() > 1 {
        destinations.into_iter().try_for_each(|uri| names.add_destination(roots, uri))?;
    }
    Ok(())
}

fn with_uri(row: &WireRow) -> Result<(DataUri, &WireRow)> {
    let uri = row
        .uri
        .parse()
        .map_err(|error| Error::new(Code::Usage, format!("{}: {error}", row.uri)))?;
    Ok((uri, row))
}

/// Bytes of a destination when it is complete, without those of other nodes: as far as any row of
/// this one reaches.
fn file_bytes(uri: &DataUri, rows: &[(DataUri, &WireRow)]) -> u64 {
    let same = rows.iter().filter(|(other, row)| other == uri && row.role == RowRole::Receiver);
    same.map(|(_, row)| row.offset_bytes + row.span.bytes()).max().unwrap_or(0)
}

fn sink_options(prepare: &Prepare, uri: &DataUri, row: &WireRow) -> SinkOptions {
    SinkOptions {
        transfer: prepare.options.transfer,
        tag: tag(&prepare.id, uri),
        attempt: prepare.attempt,
        role: match row.sharing {
            FileSharing::Alone => WriterRole::Sole,
            FileSharing::Elected { .. } => WriterRole::Leader,
            FileSharing::Member => WriterRole::Follower(prepare.node_index),
        },
        others_end: match row.sharing {
            FileSharing::Elected { file_bytes } => file_bytes,
            FileSharing::Alone | FileSharing::Member => 0,
        },
        keep: prepare.options.transfer.resume.then(|| {
            keeping::keeping(prepare, &row.uri, &keeping::rows_of(&prepare.rows, &row.uri))
        }),
    }
}

/// The name part of partial files of a transfer to one destination, in every attempt.
fn tag(id: &str, uri: &DataUri) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(&[0]).update(uri.to_string().as_bytes());
    hasher.finalize().to_hex()[..16].into()
}

/// Begins the journals, and makes room for what is wanted in every destination.
pub(crate) fn preallocate(transfer_files: &TransferFiles, room: &RoomRequest) -> Result<()> {
    let there = union(room.holes.iter().chain(&room.kept).copied().collect());
    keeping::begin(transfer_files, room, &there)?;
    make_room(transfer_files, &room.wanted, &room.holes, &there)
}

/// Makes room for what is wanted in every destination, except for what is `there`, and makes the
/// holes of those that are not new read as zeros.
pub(crate) fn make_room(
    transfer_files: &TransferFiles,
    wanted: &[Span],
    holes: &[Span],
    there: &[Span],
) -> Result<()> {
    let offered: usize = transfer_files.offers.iter().map(|offer| offer.source.files().len()).sum();
    let kept = transfer_files.sinks.iter().filter(|sink| !sink.files().is_empty());
    for (file, sink) in (offered..).zip(kept) {
        let (mut data, mut empty) = (Vec::new(), Vec::new());
        for layout in transfer_files.layouts.iter().filter(|layout| layout.file() == file) {
            let range = layout.range();
            let in_file = |span: &Span| {
                let extents = layout.extents(*span);
                extents
                    .map(|extent| Span::of(extent.offset_bytes, extent.bytes))
                    .collect::<Vec<_>>()
            };
            let wanted = within(wanted, range);
            data.extend(
                wanted.flat_map(|span| subtract(span, there)).flat_map(|span| in_file(&span)),
            );
            empty.extend(within(holes, range).flat_map(|hole| in_file(&hole)));
        }
        if !sink.is_named() {
            sink.zero(&union(empty))?;
        }
        sink.preallocate(&union(data))?;
    }
    Ok(())
}

/// The parts of `spans`, which ascend and share nothing, that lie within `range`.
fn within(spans: &[Span], range: Span) -> impl Iterator<Item = Span> {
    let first = spans.partition_point(|span| span.end <= range.start);
    spans[first..].iter().map_while(move |span| span.intersection(range))
}

/// Gives files their names; see [`crate::core::node::participant::ParticipantAction::Commit`].
pub(crate) fn commit(
    transfer_files: &TransferFiles,
    elected: &[bool],
    landed_everywhere: bool,
    checks: &[(Span, Check)],
) -> Result<()> {
    if !checks.is_empty() {
        transfer_files.sinks.iter().try_for_each(Sink::sync)?;
        verify::disk(transfer_files, checks)?;
    }
    for (sink, &elected) in transfer_files.sinks.iter().zip(elected) {
        match (elected, landed_everywhere) {
            (true, false) => sink.sync()?,
            (true, true) | (false, false) => sink.commit()?,
            (false, true) => {}
        }
    }
    Ok(())
}

/// Leaves what has landed in files to another attempt, or removes it; where it `forgets`, nothing
/// of it is left. A node that `departs` leaves a transfer that its master has not ended.
pub(crate) fn discard(sinks: &[Sink], forgets: bool, departs: bool) {
    for sink in sinks {
        if forgets {
            // Records that cannot be removed are those of a file that is removed.
            let _ = sink.forget();
        }
        sink.discard(departs);
    }
}

/// Returns, for each destination, true if its name waits for the other nodes.
pub(crate) fn elected(prepare: &Prepare) -> Vec<bool> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut elected = Vec::new();
    for row in prepare.rows.iter().filter(|row| row.role == RowRole::Receiver) {
        if seen.insert(row.uri.as_str()) {
            elected.push(prepare.names_wait || matches!(row.sharing, FileSharing::Elected { .. }));
        }
    }
    elected
}

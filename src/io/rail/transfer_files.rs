//! One transfer's data as the node's rails see it: which row holds a piece, and which files and
//! offsets that means.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;

use super::paths::PathStats;
use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::options::DataPath;
use crate::core::rail::{MappedDestination, MappedSource, PieceLocation, PieceMap, SourceKind};
use crate::core::store::file_layout::FileLayout;
use crate::core::units::{Moment, Span};
use crate::core::wire::terms::WireAgreement;
use crate::io::store::{OpenFile, Sink, Source};

/// A sender row: where its bytes come from.
#[derive(Debug)]
pub(crate) struct SourceRow {
    pub(crate) range: Span,
    pub(crate) source: Source,
    /// Layout of the range in the transfer's files; a pattern has none.
    pub(crate) layout: Option<FileLayout>,
}

/// One transfer's files and layouts. The files are those of the offers, then those of the sinks.
#[derive(Debug)]
pub(crate) struct TransferFiles {
    pub(crate) method: CheckMethod,
    /// Grid that cuts the data space into pieces.
    pub(crate) grid: BlockGrid,
    /// Data path that was asked for.
    pub(crate) path: DataPath,
    /// Sources of this node, one entry a sender row.
    pub(crate) offers: Vec<SourceRow>,
    /// Destinations of this node, one entry a file.
    pub(crate) sinks: Vec<Sink>,
    /// Layouts of the destinations, one entry a receiver row that keeps bytes.
    pub(crate) layouts: Vec<FileLayout>,
    /// Ranges that are zeros and are not written; known when the plan is.
    pub(crate) holes: OnceLock<Vec<Span>>,
    /// Counters of each rail, in the order of the node's rails. Neighbours share no cache line.
    pub(crate) tallies: Vec<CachePadded<RailTally>>,
    pub(crate) activity: TransferActivity,
    /// The place among `sinks` of each file of a layout; known when it is first asked for.
    pub(crate) sink_places: OnceLock<Vec<Option<usize>>>,
}

impl TransferFiles {
    /// The files that layouts speak of, in the order of their indices.
    pub(crate) fn files(&self) -> impl Iterator<Item = &OpenFile> {
        let offered = self.offers.iter().flat_map(|offer| offer.source.files());
        offered.chain(self.sinks.iter().flat_map(Sink::files))
    }

    /// Returns the origins of its ranges, for the rails' machines.
    pub(super) fn piece_map(&self) -> PieceMap {
        let direct: Vec<bool> =
            self.files().map(|file| file.direct_alignment().is_some()).collect();
        let is_direct = |layout: &FileLayout| direct[layout.file()] && self.path != DataPath::Copy;
        let source = |row: &SourceRow| MappedSource {
            range: row.range,
            kind: row.layout.as_ref().map_or(SourceKind::Pattern, |layout| SourceKind::File {
                direct: is_direct(layout),
            }),
        };
        let destination = |layout: &FileLayout| MappedDestination {
            range: layout.range(),
            direct: is_direct(layout),
        };
        PieceMap {
            method: self.method,
            path: self.path,
            sources: self.offers.iter().map(source).collect(),
            destinations: self.layouts.iter().map(destination).collect(),
        }
    }

    /// The layout of a location, where that is in files.
    pub(super) fn layout_of(&self, location: PieceLocation) -> Option<&FileLayout> {
        match location {
            PieceLocation::Source(at) => self.offers[at].layout.as_ref(),
            PieceLocation::Destination(at) => Some(&self.layouts[at]),
        }
    }

    /// The next layout from `first` on that a landed piece is written by.
    pub(super) fn layout(&self, piece: Span, first: usize) -> Option<usize> {
        let place =
            self.layouts[first..].iter().position(|layout| layout.range().contains(piece))?;
        Some(first + place)
    }

    /// The sink behind a file of a layout.
    pub(crate) fn sink(&self, file: usize) -> Option<&Sink> {
        let places = self.sink_places.get_or_init(|| {
            let sinks = self.sinks.iter().enumerate().filter(|(_, sink)| !sink.files().is_empty());
            let offered = self.offers.iter().map(|offer| offer.source.files().len()).sum();
            std::iter::repeat_n(None, offered).chain(sinks.map(|(place, _)| Some(place))).collect()
        });
        places.get(file).copied().flatten().map(|place| &self.sinks[place])
    }

    /// Indices of the files that are other ones than when the transfer was prepared.
    pub(crate) fn replaced_files(&self) -> impl Iterator<Item = usize> {
        let offered: usize = self.offers.iter().map(|offer| offer.source.files().len()).sum();
        let written = self.sinks.iter().filter(|sink| !sink.files().is_empty());
        (offered..).zip(written).filter(|(_, sink)| sink.is_replaced()).map(|(file, _)| file)
    }

    /// The sink that a layout of what lands is of.
    ///
    /// # Panics
    /// If the layout is not one of `layouts`.
    pub(crate) fn sink_of(&self, layout: &FileLayout) -> &Sink {
        self.sink(layout.file()).expect("layouts of sinks name files of sinks")
    }

    pub(super) fn holes(&self) -> &[Span] {
        self.holes.get().map_or(&[], Vec::as_slice)
    }
}

/// Counters of one rail and transfer. The rail adds, the control thread reads.
#[derive(Debug, Default)]
pub(crate) struct RailTally {
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Data paths of those bytes.
    pub(crate) paths: PathStats,
    /// Protection of the flows that carried them.
    pub(crate) wire: WireTally,
    /// Requests that arrived changed.
    pub(crate) changed_requests: ChangedRequests,
}

/// Requests that arrived changed, by the address of the receiver that they are of. Each has ended
/// its flow.
#[derive(Debug, Default)]
pub(crate) struct ChangedRequests(Mutex<BTreeMap<IpAddr, u64>>);

impl ChangedRequests {
    /// A request arrived changed.
    pub(super) fn note(&self, receiver: IpAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(receiver).or_default() += 1;
    }

    /// Returns how many of each receiver did.
    pub(crate) fn counts(&self) -> BTreeMap<IpAddr, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Protection of the flows of one rail and transfer: that of the least protected one.
#[derive(Debug, Default)]
pub(crate) struct WireTally(AtomicU32);

impl WireTally {
    /// A flow stands.
    pub(super) fn note(&self, wire: WireAgreement) {
        // Agreements in order of their levels, and 0 before the first flow.
        let number = wire.number();
        let lower = |noted: u32| (noted == 0 || number & 0xff < noted & 0xff).then_some(number);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
    }

    /// Returns the protection of the least protected flow, if there was any.
    pub(crate) fn least(&self) -> Option<WireAgreement> {
        let noted = self.0.load(Ordering::Relaxed);
        (noted != 0).then(|| WireAgreement::of(noted).expect("only agreements are noted"))
    }
}

impl RailTally {
    pub(super) fn received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a piece that is handed to its socket: once its receiver has it, the sender may be
    /// asked for its counts at any moment, and before this rail has heard of the end of the send.
    pub(super) fn sends(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back a piece that did not get through.
    pub(super) fn failed_to_send(&self, bytes: u64) {
        self.sent_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Payload received, wasted bytes included.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Payload sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

/// Times at which a transfer's bytes moved at this node, over all rails.
#[derive(Debug, Default)]
pub(crate) struct TransferActivity {
    /// The first request, in nanoseconds of the clock; 0 where there was none.
    first_request: CachePadded<AtomicU64>,
    /// Every rail writes it, with every piece.
    last_written: CachePadded<AtomicU64>,
}

impl TransferActivity {
    pub(super) fn requested(&self, now: Moment) {
        // All but the first only read it, so that each rail keeps its copy of the cache line.
        if self.first_request.load(Ordering::Relaxed) != 0 {
            return;
        }
        // Losing the race to another rail is fine: that one was first.
        let _ = self.first_request.compare_exchange(
            0,
            now.0.max(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    pub(super) fn written(&self, now: Moment) {
        self.last_written.fetch_max(now.0, Ordering::Relaxed);
    }

    /// From the first request to the last piece written, in nanoseconds.
    pub(crate) fn active_ns(&self) -> u64 {
        let first = self.first_request.load(Ordering::Relaxed);
        if first == 0 { 0 } else { self.last_written.load(Ordering::Relaxed).saturating_sub(first) }
    }
}

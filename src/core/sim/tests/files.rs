//! Real files for simulated nodes, by the code that opens, journals and names those of real nodes;
//! and what befalls files between two attempts.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use random::SplitMix;

use crate::core::check::CheckMethod;
use crate::core::check::replica_hash::ReplicaHasher;
use crate::core::error::{Code, Error, Result};
use crate::core::node::participant::RoomRequest;
use crate::core::piece::LandedPiece;
use crate::core::sim::disk::{PiecePayload, PreparedDisk, SimDisk};
use crate::core::spec::RowRole;
use crate::core::store::file_layout::FileLayout;
use crate::core::units::Span;
use crate::core::wire::Check;
use crate::core::wire::control::{Prepare, ReplicaRange};
use crate::io::node::reading::ReadProgress;
use crate::io::node::{keeping, prepare};
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::store::{Sink, StoreRoots, journal};

/// The bytes of all sources: they differ at every place and in every generation, with holes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Data {
    pub(super) generation: u64,
    /// Of so many stretches one is a hole; 0 where there are none.
    pub(super) hole_every: u64,
}

/// Length of a hole, and of the bytes between two: it fits no block.
const STRETCH: u64 = 10_000;

/// A source that was touched looks like none of any generation.
const TOUCHED: u64 = 1 << 32;

impl Data {
    pub(super) fn bytes(self, span: Span) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(span.bytes() as usize + 16);
        for word in span.start / 8..span.end.div_ceil(8) {
            bytes.extend(SplitMix::new(word ^ self.generation << 40).next_u64().to_le_bytes());
        }
        let skipped = (span.start % 8) as usize;
        bytes.drain(..skipped);
        bytes.truncate(span.bytes() as usize);
        for hole in self.holes(span) {
            bytes[(hole.start - span.start) as usize..(hole.end - span.start) as usize].fill(0);
        }
        bytes
    }

    /// The parts of a range that are zeros.
    fn holes(self, span: Span) -> Vec<Span> {
        let is_hole = |stretch: &u64| {
            self.hole_every > 0 && SplitMix::new(*stretch).below(self.hole_every) == 0
        };
        let stretches = (span.start / STRETCH..span.end.div_ceil(STRETCH)).filter(is_hole);
        stretches.filter_map(|it| Span::of(it * STRETCH, STRETCH).intersection(span)).collect()
    }
}

/// The files of one node in one attempt.
pub(super) struct Files {
    root: StoreRoots,
    data: Data,
    /// True if there is no room for what is wanted.
    pub(super) is_full: bool,
    /// True if its sources look otherwise than those of others.
    pub(super) touched: bool,
    transfer_files: Option<TransferFiles>,
    elected: Vec<bool>,
}

impl Files {
    pub(super) fn new(folder: &Path, data: Data) -> Files {
        let root = StoreRoots::of(folder).expect("the folder is there");
        Files {
            root,
            data,
            is_full: false,
            touched: false,
            transfer_files: None,
            elected: Vec::new(),
        }
    }

    /// The check values of a range that other nodes offer, too.
    fn values(&self, range: &ReplicaRange, seed: &[u8; 16]) -> Vec<u64> {
        let value = |part| {
            let mut hasher = ReplicaHasher::new(seed);
            range.places_of(part, seed).for_each(|place| hasher.place(&self.data.bytes(place)));
            hasher.finish()
        };
        (0..range.value_count()).map(value).collect()
    }

    fn sinks(&self) -> &[Sink] {
        self.transfer_files.as_ref().map_or(&[], |transfer_files| &transfer_files.sinks)
    }

    fn layouts(&self, span: Span) -> impl Iterator<Item = &FileLayout> {
        self.transfer_files
            .iter()
            .flat_map(|transfer_files| &transfer_files.layouts)
            .filter(move |layout| layout.range().contains(span))
    }

    fn file(&self, layout: &FileLayout) -> File {
        let transfer_files = self.transfer_files.as_ref().expect("files are open");
        let file = transfer_files.files().nth(layout.file()).expect("layouts name files");
        file.buffered().try_clone_to_owned().expect("a descriptor is left").into()
    }
}

impl SimDisk for Files {
    fn prepare(&mut self, prepare: &Prepare) -> Result<PreparedDisk> {
        let prepare::OpenedTransfer { transfer_files, mut prepared, found, .. } = {
            let (mut tell, quits) = (|_| {}, AtomicBool::new(false));
            prepare::open(&self.root, prepare, 1, &mut ReadProgress::new(&mut tell, &quits))?
        };
        for (row, state) in prepare
            .rows
            .iter()
            .zip(&mut prepared.states)
            .filter(|(row, _)| row.role == RowRole::Sender)
        {
            *state = self.data.generation + u64::from(self.touched) * TOUCHED;
            prepared.holes.extend(self.data.holes(row.span));
        }
        prepared.holes = crate::core::units::union(prepared.holes);
        prepared.replicas = prepare
            .replicas
            .iter()
            .flat_map(|range| self.values(range, &prepare.attempt))
            .collect();
        self.elected = prepare::elected(prepare);
        self.transfer_files = Some(transfer_files);
        Ok(PreparedDisk { prepared, found })
    }

    fn preallocate(&mut self, room: &RoomRequest) -> Result<()> {
        if self.is_full {
            return Err(Error::new(Code::Data, "No space left on device"));
        }
        prepare::preallocate(self.transfer_files.as_ref().expect("files are open"), room)
    }

    fn extend(&mut self, wanted: &[Span], holes: &[Span]) -> Result<()> {
        let transfer_files = self.transfer_files.as_ref().expect("files are open");
        prepare::make_room(transfer_files, wanted, holes, holes)
    }

    fn read(&mut self, method: CheckMethod, span: Span) -> Result<(Check, PiecePayload)> {
        let transfer_files = self.transfer_files.as_ref().expect("files are open");
        let bytes = if transfer_files.offers.iter().any(|offer| offer.range.contains(span)) {
            self.data.bytes(span)
        } else {
            let layout = self.layouts(span).next().expect("what is passed on is in a file");
            let mut bytes = vec![0; span.bytes() as usize];
            let at = layout.extents(span).next().expect("a piece has bytes").offset_bytes;
            self.file(layout).read_exact_at(&mut bytes, at).expect("what has landed is there");
            bytes
        };
        Ok((method.of(span, &bytes), PiecePayload::Bytes(bytes.into())))
    }

    fn write(&mut self, span: Span, payload: &PiecePayload) -> Result<()> {
        let PiecePayload::Bytes(bytes) = payload else {
            unreachable!("sources of files have bytes")
        };
        for layout in self.layouts(span) {
            for extent in layout.extents(span) {
                let bytes = &bytes[..extent.bytes as usize];
                self.file(layout).write_all_at(bytes, extent.offset_bytes).expect("there is room");
            }
        }
        Ok(())
    }

    fn keep(&mut self, pieces: &[LandedPiece]) {
        keeping::keep(self.transfer_files.as_ref().expect("files are open"), pieces);
    }

    fn flush(&mut self) {
        self.sinks().iter().for_each(Sink::flush);
    }

    fn commit(&mut self, landed_everywhere: bool, checks: &[(Span, Check)]) -> Result<()> {
        prepare::commit(
            self.transfer_files.as_ref().expect("files are open"),
            &self.elected,
            landed_everywhere,
            checks,
        )
    }

    fn confirm(&mut self) {
        self.sinks().iter().for_each(Sink::confirm);
    }

    fn discard(&mut self, forgets: bool, departs: bool) {
        prepare::discard(self.sinks(), forgets, departs);
    }

    fn crash(&mut self) {
        self.sinks().iter().for_each(Sink::crash);
        self.transfer_files = None;
    }
}

/// Paths of all files in a folder.
pub(super) fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.expect("it is listed").path()).collect()
}

pub(super) fn is_journal(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| extension.starts_with("journal"))
}

/// Something happens to a journal: it is cut, changed, or gone.
pub(super) fn damage(folder: &Path, random: &mut SplitMix) {
    for path in listed(folder).into_iter().filter(|path| is_journal(path)) {
        let mut bytes = fs::read(&path).expect("it is there");
        if bytes.is_empty() {
            continue;
        }
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(3) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.below(8),
            _ => {
                fs::remove_file(&path).expect("it may be removed");
                continue;
            }
        }
        fs::write(&path, bytes).expect("it may be written");
    }
}

/// The power fails: what was not made durable is there, or not, page by page, and a journal up to
/// some byte. With `synced`, records and their bytes are there; `in_file` says where ranges lie in
/// the file that a name beginning like that is for.
pub(super) fn cut_power(
    folder: &Path,
    synced: bool,
    random: &mut SplitMix,
    in_file: impl Fn(&str, Span) -> Vec<Span>,
) {
    const PAGE: u64 = 4096;
    for path in listed(folder) {
        let name =
            path.file_name().and_then(|name| name.to_str()).expect("names are ours").to_owned();
        if is_journal(&path) {
            let mut bytes = fs::read(&path).expect("it is there");
            if !synced {
                bytes.truncate(random.below(2 * bytes.len() as u64 + 1) as usize);
            }
            fs::write(&path, journal::of_another_boot(&bytes).unwrap_or(bytes))
                .expect("it may be written");
            continue;
        }
        if !name.starts_with('.') && synced {
            // One that is complete is durable where anything is.
            continue;
        }
        let journals =
            listed(folder).into_iter().filter(|it| is_journal(it) && it.with_extension("") == path);
        let records =
            journals.flat_map(|journal| journal::spans(&fs::read(journal).expect("it is there")));
        let safe: Vec<Span> =
            records.filter(|_| synced).flat_map(|span| in_file(&name, span)).collect();
        let file = File::options().read(true).write(true).open(&path).expect("it is there");
        let about = file.metadata().expect("it is open");
        for page in 0..about.len().div_ceil(PAGE) {
            let page = Span::new(page * PAGE, about.len().min((page + 1) * PAGE));
            if random.chance(300) {
                for lost in
                    crate::core::units::subtract(page, &crate::core::units::union(safe.clone()))
                {
                    file.write_all_at(&vec![0; lost.bytes() as usize], lost.start)
                        .expect("it may be written");
                }
            }
        }
        file.set_modified(about.modified().expect("it has a time")).expect("it may be set");
    }
}

//! Bytes through steps and descriptors, with plain system calls in the place of a ring.

use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::uio::{pread, pwrite};

use super::{Mounted, announce, directory, file_uri, options};
use crate::core::store::file_layout::{FileExtent, FileLayout};
use crate::core::store::io_steps::{PAGE_BYTES, payload_at, read_step, write_steps_around};
use crate::core::units::Span;
use crate::io::store::OpenFile;
use crate::io::store::{PatternReader, Sink, Source, StoreRoots, pattern};

const BLOCK_BYTES: usize = 64 << 10;

/// Memory aligned as a slot is.
struct Slot {
    bytes: Vec<u8>,
    start: usize,
}

impl Slot {
    fn new() -> Slot {
        let bytes = vec![0xee; BLOCK_BYTES + 3 * PAGE_BYTES];
        let start = bytes.as_ptr().align_offset(PAGE_BYTES);
        Slot { bytes, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BLOCK_BYTES + 2 * PAGE_BYTES]
    }
}

fn descriptor(file: &OpenFile, direct: bool) -> BorrowedFd<'_> {
    if direct { file.direct().unwrap() } else { file.buffered() }
}

fn read(file: &OpenFile, extent: FileExtent, slot: &mut Slot) -> Vec<u8> {
    let bytes = extent.bytes as usize;
    let step = read_step(extent.offset_bytes, bytes, file.direct_alignment());
    let target = &mut slot.bytes()[step.slot_range.clone()];
    let count = pread(descriptor(file, step.direct), target, step.file_offset as i64).unwrap();
    assert!(count >= step.needed_bytes, "{count} of {step:?}");
    slot.bytes()[step.payload_at..step.payload_at + bytes].to_vec()
}

fn write(
    file: &OpenFile,
    extent: FileExtent,
    piece: Span,
    holes: &[Span],
    bytes: &[u8],
    slot: &mut Slot,
) {
    let at = payload_at(extent.offset_bytes);
    slot.bytes()[at..at + bytes.len()].copy_from_slice(bytes);
    for step in write_steps_around(piece, holes, extent.offset_bytes, file.direct_alignment(), at) {
        let source = &slot.bytes()[step.slot_range.clone()];
        assert_eq!(
            pwrite(descriptor(file, step.direct), source, step.file_offset as i64).unwrap(),
            source.len()
        );
    }
}

/// Copies the range of `source` to `/copy` at `to`, piece by piece, backwards because any order
/// must do.
fn copy(root: &StoreRoots, source: &Source, from: FileLayout, to: FileLayout, holes: &[Span]) {
    let range = from.range();
    let end_bytes =
        to.extents(range).map(|extent| extent.offset_bytes + extent.bytes).max().unwrap();
    let sink = Sink::prepare(root, &file_uri("/copy"), end_bytes, &options()).unwrap();
    let mut slots = [Slot::new(), Slot::new()];
    let grid: Vec<u64> =
        (range.start / BLOCK_BYTES as u64..=range.end / BLOCK_BYTES as u64).collect();
    for cell in grid.into_iter().rev() {
        let cell = Span::of(cell * BLOCK_BYTES as u64, BLOCK_BYTES as u64);
        let Some(piece) = cell.intersection(range) else { continue };
        for (taken, put) in from.extents(piece).zip(to.extents(piece)) {
            let bytes = read(&source.files()[taken.file], taken, &mut slots[0]);
            write(&sink.files()[put.file], put, piece, holes, &bytes, &mut slots[1]);
        }
    }
    sink.commit().unwrap();
}

fn bytes_arrive_at_any_alignment(directory: &Path) {
    let table = [
        (0, 0, 0, 300_000),
        (1, 0, 1, 1023),
        (4095, 4097, 77, 200_000),
        (512, 513, 65_535, 65_537),
        (3, 3, 5, 1),
    ];
    let root = StoreRoots::of(directory).unwrap();
    for (from_offset, to_offset, start, bytes) in table {
        let mut original = File::create(directory.join("original")).unwrap();
        std::io::copy(&mut PatternReader::new(1, 0, from_offset), &mut original).unwrap();
        std::io::copy(&mut PatternReader::new(2, start, bytes), &mut original).unwrap();
        let range = Span::of(start, bytes);
        let source = Source::open(&root, &file_uri("/original"), from_offset, bytes).unwrap();
        copy(
            &root,
            &source,
            FileLayout::of_file(0, from_offset, range),
            FileLayout::of_file(0, to_offset, range),
            &[],
        );
        let copied = fs::read(directory.join("copy")).unwrap();
        assert_eq!(copied.len() as u64, to_offset + bytes);
        assert!(copied[..to_offset as usize].iter().all(|byte| *byte == 0));
        assert_eq!(pattern::verify(2, start, &copied[to_offset as usize..]), None);
        fs::remove_file(directory.join("copy")).unwrap();
    }
}

#[test]
fn bytes_arrive_on_a_disk() {
    let home = directory();
    let root = StoreRoots::of(home.path()).unwrap();
    let sink = Sink::prepare(&root, &file_uri("/probe"), 1, &options()).unwrap();
    if sink.files()[0].direct().is_none() {
        announce("the build's file system has no direct I/O: only the buffered way is tested");
    }
    drop(sink);
    bytes_arrive_at_any_alignment(home.path());
}

#[test]
fn bytes_arrive_on_a_tmpfs() {
    let Some(disk) = Mounted::tmpfs("size=4m") else { return };
    bytes_arrive_at_any_alignment(disk.path());
}

#[test]
fn holes_stay_holes() {
    let home = directory();
    let path = home.path().join("sparse");
    let (head, hole, tail) = (70_001, 4 << 20, 90_003);
    let bytes = head + hole + tail;
    let mut original = File::create(&path).unwrap();
    std::io::copy(&mut PatternReader::new(3, 0, head), &mut original).unwrap();
    std::io::Seek::seek(&mut original, std::io::SeekFrom::Start(head + hole)).unwrap();
    std::io::copy(&mut PatternReader::new(3, head + hole, tail), &mut original).unwrap();

    let root = StoreRoots::of(home.path()).unwrap();
    let source = Source::open(&root, &file_uri("/sparse"), 0, bytes).unwrap();
    let holes = source.holes(16).unwrap();
    assert_eq!(holes.len(), 1);
    let range = Span::new(0, bytes);
    copy(
        &root,
        &source,
        FileLayout::of_file(0, 0, range),
        FileLayout::of_file(0, 0, range),
        &holes,
    );
    assert!(fs::read(&path).unwrap() == fs::read(home.path().join("copy")).unwrap());
    let blocks = |name: &str| fs::metadata(home.path().join(name)).unwrap().blocks();
    assert!(
        blocks("copy") * 512 < hole,
        "{} blocks, {} in the source",
        blocks("copy"),
        blocks("sparse")
    );
}

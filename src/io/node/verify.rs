//! Reading back what was written: against what the disk has, not what is still in memory.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::uio::pread;
use nix::unistd::fdatasync;

use crate::core::check::{CheckComposer, CheckMethod};
use crate::core::error::{Code, Error, Result};
use crate::core::store::file_layout::{FileExtent, FileLayout};
use crate::core::units::Span;
use crate::core::wire::Check;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::store::Sink;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;
/// Every file system with direct I/O takes reads of whole pages.
const PAGE_BYTES: u64 = 4096;

/// Holds what is on the disk against the checks of what landed: in every file that it went to.
/// Memory has nothing to read back.
///
/// # Errors
/// `Integrity` where the disk has something else, `Data` where it cannot be read. Nothing of that
/// file is kept then.
pub(super) fn disk(transfer_files: &TransferFiles, checks: &[(Span, Check)]) -> Result<()> {
    for layout in &transfer_files.layouts {
        let sink = transfer_files.sink_of(layout);
        if !sink.is_file() {
            continue;
        }
        for &(span, check) in checks.iter().filter(|(span, _)| layout.range().contains(*span)) {
            let wrong = match reads_as_all(transfer_files, sink, layout, span, check) {
                Ok(true) => continue,
                Ok(false) => Error::new(
                    Code::Integrity,
                    format!("{span} reads back from the disk as something else"),
                )
                .remedy("look at that disk and its controller, then run the transfer again"),
                Err(error) => {
                    Error::new(Code::Data, format!("{span} cannot be read back: {error}"))
                }
            };
            // A disk that has changed one piece may have changed others, too.
            sink.forget()?;
            return Err(wrong.missing(vec![span]));
        }
    }
    Ok(())
}

/// Returns true if the disk has bytes with this check where `span` lies, which may be the check of
/// several pieces together.
fn reads_as_all(
    transfer_files: &TransferFiles,
    sink: &Sink,
    layout: &FileLayout,
    span: Span,
    check: Check,
) -> io::Result<bool> {
    let pieces = transfer_files.grid.piece_count(span);
    if transfer_files.method != CheckMethod::Blake3(None) || pieces == 1 {
        return reads_as(transfer_files.method, sink, layout, span, check, true);
    }
    // A run of pieces that have one check is a whole tree, and has the same one as a segment of its
    // own.
    let mut composer = CheckComposer::of_segment(transfer_files.method, transfer_files.grid, span);
    for index in 0..pieces {
        let piece = transfer_files.grid.piece(span, index);
        composer.add(piece, read_check(transfer_files.method, sink, layout, piece, true)?);
    }
    Ok(composer.checks().eq([(span, check)]))
}

/// Returns true if the file of `sink` has bytes with this check where `span` lies; past the page
/// cache if `from_disk`.
pub(super) fn reads_as(
    method: CheckMethod,
    sink: &Sink,
    layout: &FileLayout,
    span: Span,
    check: Check,
    from_disk: bool,
) -> io::Result<bool> {
    Ok(read_check(method, sink, layout, span, from_disk)? == check)
}

/// The check of what the file of `sink` has where `span` lies.
fn read_check(
    method: CheckMethod,
    sink: &Sink,
    layout: &FileLayout,
    span: Span,
    from_disk: bool,
) -> io::Result<Check> {
    let file = &sink.files()[0];
    let direct = if from_disk { file.direct() } else { None };
    let mut running = method.running(span);
    let mut buffer = vec![0; READ_BYTES + 2 * PAGE_BYTES as usize];
    for extent in layout.extents(span) {
        if from_disk && direct.is_none() {
            drop_cached(file.buffered(), extent)?;
        }
        let end = extent.offset_bytes + extent.bytes;
        let mut at = extent.offset_bytes;
        while at < end {
            let bytes = (end - at).min(READ_BYTES as u64) as usize;
            let part = read_at(direct.unwrap_or(file.buffered()), &mut buffer, at, bytes)?;
            running.update(part);
            at += bytes as u64;
        }
    }
    Ok(running.finish())
}

/// Lets the page cache drop written pages, for file systems without direct reads.
fn drop_cached(file: BorrowedFd<'_>, extent: FileExtent) -> io::Result<()> {
    let range = |bytes: u64| i64::try_from(bytes).map_err(|_| io::Error::from(Errno::EFBIG));
    fdatasync(file)?;
    posix_fadvise(
        file,
        range(extent.offset_bytes)?,
        range(extent.bytes)?,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )?;
    Ok(())
}

/// Reads `bytes` bytes at an offset, in whole pages into whole pages, which suits every kind of
/// read.
fn read_at<'a>(
    file: BorrowedFd<'_>,
    buffer: &'a mut [u8],
    offset: u64,
    bytes: usize,
) -> io::Result<&'a [u8]> {
    let to_page =
        (buffer.as_ptr() as usize).next_multiple_of(PAGE_BYTES as usize) - buffer.as_ptr() as usize;
    let first = offset - offset % PAGE_BYTES;
    let skipped = (offset - first) as usize;
    let wanted = (skipped + bytes).next_multiple_of(PAGE_BYTES as usize);
    let mut done = 0;
    while done < skipped + bytes {
        let place = &mut buffer[to_page + done..to_page + wanted];
        let at = i64::try_from(first + done as u64).map_err(|_| io::Error::from(Errno::EFBIG))?;
        match pread(file, place, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(&buffer[to_page + skipped..to_page + skipped + bytes])
}

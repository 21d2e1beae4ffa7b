//! Room for what will be written, and zeros where nothing will be.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::fstat;
use nix::sys::statvfs::fstatvfs;
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;

use super::fault::fault;
use super::open::retried;
use crate::error::{Code, Error, Result};
use crate::units::{Span, human_bytes};

/// Gives `file` its size; what lies behind the old end is a hole.
pub(super) fn size(file: BorrowedFd<'_>, name: &Path, bytes: u64) -> Result<()> {
    retried(|| ftruncate(file, signed(bytes)?)).map_err(|errno| match errno {
        Errno::ENOSPC => full(file, name, bytes),
        other => fault(other, name, "sized"),
    })
}

/// Makes `file` at least `bytes` long, and never shorter, although others may be doing the same: setting a size after
/// looking at it could cut off what they have grown it to.
pub(super) fn grow(file: BorrowedFd<'_>, name: &Path, bytes: u64) -> Result<()> {
    let about = fstat(file).map_err(|errno| fault(errno, name, "examined"))?;
    if about.st_size.unsigned_abs() >= bytes {
        return Ok(());
    }
    let last = Span::new(bytes - 1, bytes);
    match allocate(file, FallocateFlags::empty(), last) {
        Err(Errno::EOPNOTSUPP) => write_zeros(file, last).map_err(|errno| fault(errno, name, "sized")),
        Err(Errno::ENOSPC) => Err(full(file, name, bytes)),
        done => done.map_err(|errno| fault(errno, name, "sized")),
    }
}

/// Reserves the blocks of `spans`, and of nothing else, so that holes stay holes and a full disk is known at once.
pub(super) fn reserve(file: BorrowedFd<'_>, name: &Path, spans: &[Span]) -> Result<()> {
    let needed_bytes = spans.iter().map(|span| span.bytes()).sum();
    for span in spans.iter().filter(|span| !span.is_empty()) {
        match allocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, *span) {
            // Reserving is a service. Where a file system has none, the writes will find out.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
            Err(Errno::ENOSPC) => return Err(full(file, name, needed_bytes)),
            Err(errno) => return Err(fault(errno, name, "given room")),
        }
    }
    Ok(())
}

/// Makes `spans` read as zeros, without occupying blocks where the file system can do that.
pub(super) fn zero(file: BorrowedFd<'_>, name: &Path, spans: &[Span]) -> Result<()> {
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for span in spans.iter().filter(|span| !span.is_empty()) {
        match allocate(file, punch, *span) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => write_zeros(file, *span),
            done => done,
        }
        .map_err(|errno| fault(errno, name, "cleared"))?;
    }
    Ok(())
}

/// The disk is full, with the two numbers that tell how far.
fn full(file: BorrowedFd<'_>, name: &Path, needed_bytes: u64) -> Error {
    let free = fstatvfs(file).map_or(0, |disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
    let (name, needed, free) = (name.display(), human_bytes(needed_bytes), human_bytes(free));
    Error::new(Code::Data, format!("the disk is full: {name} needs {needed}, {free} are free"))
        .remedy("free space or choose another directory")
}

fn allocate(file: BorrowedFd<'_>, how: FallocateFlags, span: Span) -> nix::Result<()> {
    let (start, bytes) = (signed(span.start)?, signed(span.bytes())?);
    retried(|| fallocate(file, how, start, bytes))
}

fn write_zeros(file: BorrowedFd<'_>, span: Span) -> nix::Result<()> {
    let mut position = span.start;
    while position < span.end {
        let bytes = (span.end - position).min(ZEROS.len() as u64);
        let written = retried(|| pwrite(file, &ZEROS[..bytes as usize], signed(position)?))?;
        position += written as u64;
    }
    Ok(())
}

/// Offsets of the kernel's are signed.
fn signed(bytes: u64) -> nix::Result<i64> {
    i64::try_from(bytes).map_err(|_| Errno::EFBIG)
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

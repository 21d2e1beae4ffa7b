//! Room for the bytes to come, zeros for the holes, and copies between files.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::stat::fstat;
use nix::sys::statvfs::{Statvfs, fstatvfs};
use nix::sys::uio::pwrite;
use nix::unistd::{ftruncate, geteuid};

use super::fault::fault;
use super::open::retried;
use crate::core::error::{Code, Error, Result};
use crate::core::units::{Span, human_bytes};

/// Gives `file` its size. Everything behind the old end is a hole.
pub(super) fn size(file: BorrowedFd<'_>, name: &Path, bytes: u64) -> Result<()> {
    check_limit(name, bytes)?;
    let free_bytes = free(file);
    retried(|| ftruncate(file, signed(bytes)?)).map_err(|errno| match errno {
        Errno::ENOSPC => full(name, bytes, free_bytes),
        other => fault(other, name, "sized"),
    })
}

/// Refuses a file that is larger than this process may write. Trying would raise a signal.
fn check_limit(name: &Path, bytes: u64) -> Result<()> {
    match getrlimit(Resource::RLIMIT_FSIZE) {
        Ok((limit, _)) if limit != RLIM_INFINITY && bytes > limit => {
            let (name, needs, limit) = (name.display(), human_bytes(bytes), human_bytes(limit));
            let what =
                format!("{name} needs {needs}, but the node may write files of {limit} at most");
            Err(Error::new(Code::Data, what)
                .remedy("raise its limit of file sizes (ulimit -f, LimitFSIZE=)"))
        }
        _ => Ok(()),
    }
}

/// Makes `file` at least `bytes` long, and never shorter, although others may be doing the same.
/// Setting the size after a look at it could cut off what they have added.
pub(super) fn grow(file: BorrowedFd<'_>, name: &Path, bytes: u64) -> Result<()> {
    let about = fstat(file).map_err(|errno| fault(errno, name, "examined"))?;
    if about.st_size.unsigned_abs() >= bytes {
        return Ok(());
    }
    check_limit(name, bytes)?;
    let last = Span::new(bytes - 1, bytes);
    match allocate(file, FallocateFlags::empty(), last) {
        Err(errno) if UNSUPPORTED.contains(&errno) => {
            write_zeros(file, last).map_err(|errno| fault(errno, name, "sized"))
        }
        Err(Errno::ENOSPC) => Err(full(name, bytes, free(file))),
        done => done.map_err(|errno| fault(errno, name, "sized")),
    }
}

/// Reserves the blocks of `spans`, in which nothing is yet, so that holes stay holes and a full
/// disk is known at once. After a failure the blocks are given back, if no other node writes to the
/// file (`only_here`).
pub(super) fn reserve(
    file: BorrowedFd<'_>,
    name: &Path,
    spans: &[Span],
    only_here: bool,
) -> Result<()> {
    let needed_bytes = spans.iter().map(|span| span.bytes()).sum();
    // Asked before the attempt, because a failed attempt may have used the room up.
    let free_bytes = free(file);
    for span in spans.iter().filter(|span| !span.is_empty()) {
        let errno = match allocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, *span) {
            Ok(()) => continue,
            // The file system cannot reserve; the writes will find out.
            Err(errno) if UNSUPPORTED.contains(&errno) => continue,
            Err(errno) => errno,
        };
        if only_here {
            // The file may stay for another attempt, and must not keep the disk full until then.
            // Blocks that cannot be given back stay too.
            spans.iter().for_each(|span| _ = allocate(file, PUNCH, *span));
        }
        return Err(match errno {
            Errno::ENOSPC => full(name, needed_bytes, free_bytes),
            errno => fault(errno, name, "given room"),
        });
    }
    Ok(())
}

/// Makes `spans` read as zeros, without blocks where the file system can do that.
pub(super) fn zero(file: BorrowedFd<'_>, name: &Path, spans: &[Span]) -> Result<()> {
    for span in spans.iter().filter(|span| !span.is_empty()) {
        match allocate(file, PUNCH, *span) {
            Err(errno) if UNSUPPORTED.contains(&errno) => write_zeros(file, *span),
            done => done,
        }
        .map_err(|errno| fault(errno, name, "cleared"))?;
    }
    Ok(())
}

/// Copies a range of one file to the same place in another. File systems that share blocks between
/// files copy nothing.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, span: Span) -> io::Result<()> {
    let file = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    let (mut from, mut to) = (file(from)?, file(to)?);
    from.seek(SeekFrom::Start(span.start))?;
    to.seek(SeekFrom::Start(span.start))?;
    let copied = io::copy(&mut from.take(span.bytes()), &mut to)?;
    if copied == span.bytes() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Bytes that this user may still write to the file system of `file`; `None` where that is not
/// known.
fn free(file: BorrowedFd<'_>) -> Option<u64> {
    let disk = fstatvfs(file).ok()?;
    // File systems reserve a part for root.
    let blocks = if geteuid().is_root() { disk.blocks_free() } else { disk.blocks_available() };
    Some(blocks.saturating_mul(disk.fragment_size()))
}

/// Error for a disk that has too little room, with the room that is needed and that is free.
fn full(name: &Path, needed_bytes: u64, free_bytes: Option<u64>) -> Error {
    let (name, needed) = (name.display(), human_bytes(needed_bytes));
    let message = match free_bytes.map(|free| (free, human_bytes(free))) {
        Some((free, said)) if free < needed_bytes => {
            format!("the disk is full: {name} needs {needed}, {said} are free")
        }
        // There seems to be room: other writers, metadata, or a project's quota have it.
        Some((_, said)) => {
            format!("the disk has no room: {name} needs {needed}; {said} are said to be free")
        }
        None => format!("the disk is full: {name} needs {needed}"),
    };
    Error::new(Code::Data, message).remedy("free space or choose another directory")
}

/// Like [`fault`], for a file system of `directory` that may have room for bytes but not for
/// another file.
pub(super) fn fault_at<D: AsFd>(directory: D, errno: Errno, path: &Path, done: &str) -> Error {
    // File systems that make inodes as needed count none at all.
    let is_out_of_inodes = |disk: &Statvfs| disk.files() > 0 && disk.files_available() == 0;
    if errno == Errno::ENOSPC && fstatvfs(directory).is_ok_and(|disk| is_out_of_inodes(&disk)) {
        let what = format!(
            "{} cannot be {done}: its file system has no inodes left, so no file more fits",
            path.display()
        );
        return Error::new(Code::Data, what)
            .remedy("remove files there (df -i), or choose another directory");
    }
    fault(errno, path, done)
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

/// Blocks that are given back; the file keeps its size.
const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

/// Errors of file systems without `fallocate`, and of filters of system calls. Where a file really
/// must not be written to (`EPERM`), writing says so.
const UNSUPPORTED: [Errno; 3] = [Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::EPERM];

/// Converts to an offset of the kernel, which is signed.
fn signed(bytes: u64) -> nix::Result<i64> {
    i64::try_from(bytes).map_err(|_| Errno::EFBIG)
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

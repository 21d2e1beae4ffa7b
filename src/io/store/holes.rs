//! Holes of a sparse source, so that they cost no bandwidth and stay holes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::core::units::Span;

/// Finds the largest `count_max` holes of `file` inside `within` (offsets of the file), in order.
///
/// Smaller holes than [`HOLE_BYTES_MIN`] are sent as zeros. So is everything behind the point where
/// a badly fragmented file has used up its steps, and everything where the file system cannot tell.
pub(super) fn find<F: AsFd>(file: F, within: Span, count_max: usize) -> nix::Result<Vec<Span>> {
    let mut largest = BinaryHeap::with_capacity(count_max.min(1024) + 1);
    let mut position = within.start;
    for _ in 0..EXTENTS_LOOKED_AT_MAX {
        let Some(hole) = next_hole(&file, position, within.end)? else { break };
        position = hole.end;
        if hole.bytes() >= HOLE_BYTES_MIN {
            largest.push(Reverse((hole.bytes(), hole.start)));
            if largest.len() > count_max {
                largest.pop();
            }
        }
    }
    let mut holes: Vec<Span> =
        largest.into_iter().map(|Reverse((bytes, start))| Span::of(start, bytes)).collect();
    holes.sort_unstable();
    Ok(holes)
}

/// Finds the first hole that starts in `[position, end)`, cut at `end`.
fn next_hole<F: AsFd>(file: &F, position: u64, end: u64) -> nix::Result<Option<Span>> {
    if position >= end {
        return Ok(None);
    }
    let start = match seek(file, position, Whence::SeekHole) {
        Ok(start) if start < end => start,
        // At or behind the end; the file shrank; the file system has no holes; or a filter hides
        // the call.
        Ok(_)
        | Err(Errno::ENXIO | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => {
            return Ok(None);
        }
        Err(errno) => return Err(errno),
    };
    let data = match seek(file, start, Whence::SeekData) {
        Ok(data) => data.min(end),
        // No data follows: the hole reaches to the end of the file.
        Err(Errno::ENXIO) => end,
        Err(errno) => return Err(errno),
    };
    Ok(Some(Span::new(start, data.max(start))))
}

fn seek<F: AsFd>(file: &F, position: u64, whence: Whence) -> nix::Result<u64> {
    let position = i64::try_from(position).map_err(|_| Errno::EOVERFLOW)?;
    lseek(file, position, whence).map(i64::unsigned_abs)
}

/// A smaller hole costs about as much to name as to send.
pub(super) const HOLE_BYTES_MIN: u64 = 64 << 10;

/// Two system calls each, about a microsecond: at most a second or two before a transfer starts.
const EXTENTS_LOOKED_AT_MAX: u32 = 1 << 20;

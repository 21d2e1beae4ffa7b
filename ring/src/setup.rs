//! Creation of a ring, where the kernel has all that one needs, and what is registered once.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode, squeue};
use nix::errno::Errno;

use crate::entry;
use crate::slots::{SlotMapping, SlotPool};

/// Creates a ring whose completions are processed together, where the thread waits (`SINGLE_ISSUER`
/// and `DEFER_TASKRUN`, Linux 6.1). With `TASKRUN_FLAG`, a turn that need not wait skips its system
/// call.
///
/// There is no ring for older kernels. Theirs lack one thing after the other that operations here
/// count on: waits that end in time (5.11), short sends and receives that are continued, and polls
/// before receives (5.19). [`crate::PlainRing`] needs nothing of that.
///
/// # Errors
/// `EOPNOTSUPP` where the kernel's ring lacks something; else the kernel's.
pub(crate) fn build(entries: u32, completions: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::<squeue::Entry>::builder();
    builder.setup_clamp().setup_cqsize(completions);
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let ring = builder.build(entries).map_err(|error| match errno(&error) {
        // An unknown flag.
        Errno::EINVAL => Errno::EOPNOTSUPP.into(),
        _ => error,
    })?;
    // A filter may allow creating rings but not entering them: this detects it at once.
    ring.submitter().submit_and_wait(0)?;
    let about = ring.params();
    let mut answers = Probe::new();
    ring.submitter().register_probe(&mut answers)?;
    let is_whole = about.is_feature_ext_arg()
        && about.is_feature_nodrop()
        && OPERATIONS.iter().all(|code| answers.is_supported(*code));
    if is_whole { Ok(ring) } else { Err(Errno::EOPNOTSUPP.into()) }
}

/// Lets as many operations on files block as the caller asks for. A file system that hangs would
/// take all threads of the ring otherwise, and stop the operations on every other one.
pub(crate) fn allow_blocking(ring: &IoUring, blocking: u32) {
    // Zero asks for the limit and leaves it. A kernel that does not know the call keeps its own.
    let mut limits = [0, 0];
    let found = ring.submitter().register_iowq_max_workers(&mut limits);
    if found.is_ok() && limits[0] < blocking {
        let _ = ring.submitter().register_iowq_max_workers(&mut [blocking, 0]);
    }
}

/// Returns true if this kernel sets options of sockets through a ring (Linux 6.7): it is tried. A
/// completion that comes late has `ignored_key`.
pub(crate) fn sets_options(ring: &mut IoUring, ignored_key: u64) -> bool {
    static ONE: libc::c_int = 1;
    let Ok((socket, _peer)) = UnixStream::pair() else { return false };
    let entry = entry::set_recv_lowat(socket.as_raw_fd(), &ONE).user_data(ignored_key);
    // SAFETY: the value outlives the entry: it is static.
    if unsafe { ring.submission().push(&entry) }.is_err() {
        return false;
    }
    let entered = ring.submit_and_wait(1);
    let result = ring.completion().next().map(|event| event.result());
    entered.is_ok() && result == Some(0)
}

/// Registers each pool as one fixed buffer. Returns all of them, or none and the error.
pub(crate) fn register_pools(
    ring: &mut IoUring,
    pools: &[&SlotPool],
) -> (Vec<Arc<SlotMapping>>, Option<Errno>) {
    if pools.is_empty() {
        return (Vec::new(), None);
    }
    let buffers: Vec<libc::iovec> = pools.iter().map(|pool| pool.mapping().iovec()).collect();
    // SAFETY: each vector is one whole mapping, which the returned `Arc`s keep until the ring is
    // closed.
    let registered = unsafe { ring.submitter().register_buffers(&buffers) };
    match registered {
        Ok(()) => (pools.iter().map(|pool| Arc::clone(pool.mapping())).collect(), None),
        Err(error) => (Vec::new(), Some(errno(&error))),
    }
}

/// Returns the number of an error, which is `EIO` where the operating system gave none.
pub(crate) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Operations that a ring must have.
const OPERATIONS: [u8; 10] = [
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::SendZc::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::ReadFixed::CODE,
    opcode::WriteFixed::CODE,
    opcode::Fsync::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
];

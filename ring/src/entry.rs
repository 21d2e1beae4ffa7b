//! Operations as submission entries.
//!
//! A slot becomes an address here. Building an entry touches no memory; the safety argument is
//! where it is pushed (`uring.rs`).

use std::ops::Range;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};

use crate::files::INT_BYTES;
use crate::op::RingOp;
use crate::slots::Slot;

/// Data for an entry besides the operation.
pub(crate) struct EntryContext {
    /// Descriptor, or with `fixed_file` the index in the ring's file table; unused by a
    /// cancellation.
    pub(crate) file: i32,
    pub(crate) fixed_file: bool,
    /// Registered buffer that contains the slot, if any.
    pub(crate) buffer: Option<u16>,
    /// The key of the operation to cancel.
    pub(crate) cancel_key: u64,
}

/// Builds the entry of `op`. The range has been checked against the slot.
pub(crate) fn build(op: &RingOp, context: &EntryContext) -> Entry {
    let file = types::Fd(context.file);
    let entry = match op {
        RingOp::Recv { slot, range, wait_all, .. } => {
            // A receive that need not be whole takes what is there once the low-water mark is
            // reached. A first try would take what is there before.
            let (flags, ioprio) =
                if *wait_all { (libc::MSG_WAITALL, 0) } else { (0, RECV_POLL_FIRST) };
            let recv = opcode::Recv::new(file, address(slot, range), bytes(range));
            recv.flags(flags).ioprio(ioprio).build()
        }
        RingOp::Send { slot, range, more, .. } => {
            let flags = if *more { SEND_FLAGS | libc::MSG_MORE } else { SEND_FLAGS };
            opcode::Send::new(file, address(slot, range), bytes(range)).flags(flags).build()
        }
        RingOp::SendZc { slot, range, .. } => {
            opcode::SendZc::new(file, address(slot, range), bytes(range))
                .flags(SEND_FLAGS)
                .zc_flags(SEND_ZC_REPORT_USAGE)
                .buf_index(context.buffer)
                .build()
        }
        RingOp::Read { slot, range, offset, nowait, .. } => {
            read(file, context, address(slot, range), range, *offset, *nowait)
        }
        RingOp::Write { slot, range, offset, .. } => {
            write(file, context, address(slot, range), range, *offset)
        }
        RingOp::SendFile { .. } => unreachable!("the thread sends files itself"),
        RingOp::Sync { .. } => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        RingOp::Cancel { .. } => return opcode::AsyncCancel::new(context.cancel_key).build(),
    };
    if context.fixed_file { entry.flags(Flags::FIXED_FILE) } else { entry }
}

/// Builds the setting of a socket's low-water mark. `file` is a descriptor, or with
/// [`Flags::FIXED_FILE`] an index in the ring's file table. The kernel reads `bytes` when the entry
/// is submitted.
pub(crate) fn set_recv_lowat(file: i32, bytes: &libc::c_int) -> Entry {
    let (level, name) = (libc::SOL_SOCKET.cast_unsigned(), libc::SO_RCVLOWAT.cast_unsigned());
    let value = std::ptr::from_ref(bytes).cast();
    opcode::SetSockOpt::new(types::Fd(file), level, name, value, INT_BYTES).build()
}

/// Builds a read. `READ_FIXED` saves the kernel the lookup and pinning of pages; `READ` returns the
/// same bytes.
fn read(
    file: types::Fd,
    context: &EntryContext,
    to: *mut u8,
    range: &Range<usize>,
    offset: u64,
    nowait: bool,
) -> Entry {
    let flags = if nowait { libc::RWF_NOWAIT } else { 0 };
    match context.buffer {
        Some(buffer) => opcode::ReadFixed::new(file, to, bytes(range), buffer)
            .offset(offset)
            .rw_flags(flags)
            .build(),
        None => opcode::Read::new(file, to, bytes(range)).offset(offset).rw_flags(flags).build(),
    }
}

fn write(
    file: types::Fd,
    context: &EntryContext,
    from: *mut u8,
    range: &Range<usize>,
    offset: u64,
) -> Entry {
    match context.buffer {
        Some(buffer) => {
            opcode::WriteFixed::new(file, from, bytes(range), buffer).offset(offset).build()
        }
        None => opcode::Write::new(file, from, bytes(range)).offset(offset).build(),
    }
}

/// Wrapping arithmetic needs no safety argument; the caller has checked the range.
fn address(slot: &Slot, range: &Range<usize>) -> *mut u8 {
    slot.base().as_ptr().wrapping_add(range.start)
}

fn bytes(range: &Range<usize>) -> u32 {
    u32::try_from(range.len()).expect("a slot is no larger than its pool, which is at most 1 GiB")
}

/// A send to a closed flow is an error of the flow, not a signal; and the kernel continues short
/// sends.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// `IORING_RECVSEND_POLL_FIRST` (Linux 5.19): the socket is polled before the first try.
const RECV_POLL_FIRST: u16 = 1 << 0;

/// `IORING_SEND_ZC_REPORT_USAGE` (Linux 6.2): the notification says whether the kernel copied.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;

/// `IORING_NOTIF_USAGE_ZC_COPIED`: the bit of a notification's result for a copy.
const NOTICE_COPIED: i32 = i32::MIN;

/// Returns true if the result of a notification says that the bytes were copied.
pub(crate) fn notice_says_copied(result: i32) -> bool {
    result & NOTICE_COPIED != 0
}

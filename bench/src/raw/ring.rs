//! As little `io_uring` as the raw limit needs: eight registered blocks, four operations, one completion at a time.
//!
//! It is deliberately not the project's own ring layer: a denominator that shared code with what it measures would hide
//! what that code costs.

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, opcode, squeue, types};

/// The blocks in flight, and the size of each: the shape whose limit measurements.md gives.
pub(super) const SLOT_COUNT: u16 = 8;
pub(super) const BLOCK_BYTES: u32 = 1 << 20;

const PAGE_BYTES: usize = 4096;

/// The registered files, by index: each ring has a socket and, in the file scenario, a file.
const SOCKET: types::Fixed = types::Fixed(0);
const FILE: types::Fixed = types::Fixed(1);

/// Memory aligned as `O_DIRECT` wants it.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// One block's worth of work on one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// The whole slot into the socket.
    Send,
    /// The whole slot from the socket.
    Receive,
    /// The whole slot from the file.
    Read,
    /// The whole slot into the file.
    Write,
}

impl Operation {
    const ALL: [Operation; 4] = [Operation::Send, Operation::Receive, Operation::Read, Operation::Write];
}

/// A ring of one thread with its slots.
pub(super) struct Ring {
    uring: IoUring,
    /// Where slot 0 starts.
    ///
    /// Invariant: it heads `SLOT_COUNT` blocks that are never freed and that no reference of ours points into.
    slots: *mut u8,
}

impl Ring {
    /// A ring over these files: the socket first, then the file if there is one. It must be used by the thread that made it.
    pub(super) fn new(files: &[RawFd]) -> io::Result<Ring> {
        let uring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(u32::from(SLOT_COUNT) * 4)?;
        // Leaked on purpose: an operation that an error leaves in flight may write into its slot until the process ends.
        let pages = Box::leak(vec![Page([0x5a; PAGE_BYTES]); slots_bytes() / PAGE_BYTES].into_boxed_slice());
        let slots = pages.as_mut_ptr().cast::<u8>();
        let blocks: Vec<libc::iovec> = (0..SLOT_COUNT)
            .map(|slot| libc::iovec { iov_base: address(slots, slot).cast(), iov_len: BLOCK_BYTES as usize })
            .collect();
        uring.submitter().register_files(files)?;
        // SAFETY: each iovec covers one block inside the pages leaked above: valid, writable and never freed.
        unsafe { uring.submitter().register_buffers(&blocks) }?;
        Ok(Ring { uring, slots })
    }

    /// Queues an operation on a slot; `offset` is the place in the file and means nothing to a socket.
    pub(super) fn push(&mut self, operation: Operation, slot: u16, offset: u64) {
        let entry = self.entry(operation, slot, offset).user_data((operation as u64) << 16 | u64::from(slot));
        // SAFETY: the entry's address comes from `entry`: a whole block of the leaked pages, so it outlives the operation
        // whatever happens; its files are registered indexes, which the kernel checks.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.expect("the queue holds four entries per slot, and a slot has one operation at a time");
    }

    /// The next whole block that was moved; waits for it.
    ///
    /// # Errors
    /// What the kernel said, or that a block was cut short: the peer left, or the file is shorter than promised.
    pub(super) fn wait(&mut self) -> io::Result<(Operation, u16)> {
        while self.uring.completion().is_empty() {
            match self.uring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => drop(result?),
            }
        }
        let done = self.uring.completion().next().expect("the queue was seen not to be empty");
        let operation = Operation::ALL[(done.user_data() >> 16) as usize];
        match u32::try_from(done.result()) {
            Err(_) => Err(io::Error::from_raw_os_error(-done.result())),
            Ok(BLOCK_BYTES) => Ok((operation, (done.user_data() & 0xffff) as u16)),
            Ok(short) => Err(io::Error::other(format!("{operation:?} moved {short} of {BLOCK_BYTES} bytes"))),
        }
    }

    fn entry(&self, operation: Operation, slot: u16, offset: u64) -> squeue::Entry {
        let block = address(self.slots, slot);
        match operation {
            Operation::Send => opcode::Send::new(SOCKET, block, BLOCK_BYTES).flags(libc::MSG_WAITALL).build(),
            Operation::Receive => opcode::Recv::new(SOCKET, block, BLOCK_BYTES).flags(libc::MSG_WAITALL).build(),
            Operation::Read => opcode::ReadFixed::new(FILE, block, BLOCK_BYTES, slot).offset(offset).build(),
            Operation::Write => opcode::WriteFixed::new(FILE, block, BLOCK_BYTES, slot).offset(offset).build(),
        }
    }
}

fn slots_bytes() -> usize {
    usize::from(SLOT_COUNT) * BLOCK_BYTES as usize
}

/// Where a slot starts.
fn address(slots: *mut u8, slot: u16) -> *mut u8 {
    assert!(slot < SLOT_COUNT, "no slot {slot}");
    slots.wrapping_add(usize::from(slot) * BLOCK_BYTES as usize)
}

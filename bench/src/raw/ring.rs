//! Minimal `io_uring` for the raw limit: eight registered blocks, four operations, one completion
//! at a time.
//!
//! It is deliberately not the project's own ring layer: a denominator that shared code with the
//! measured program would hide the cost of that code.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

/// The blocks in flight, and the size of each: the shape whose limit measurements.md gives.
pub(super) const SLOT_COUNT: u16 = 8;
pub(super) const BLOCK_BYTES: u32 = 1 << 20;

const PAGE_BYTES: usize = 4096;
/// Unread bytes that a waiting socket has room for: the blocks in flight from its sender.
const UNREAD_BYTES: u32 = 4 * BLOCK_BYTES;
/// A socket rests until this part of its buffer is full at most: with more of it, both ends wait
/// for each other.
const REST_PART: u32 = 6;

/// The registered files, by index: each ring has a socket and, in the file scenario, a file.
const SOCKET: types::Fixed = types::Fixed(0);
const FILE: types::Fixed = types::Fixed(1);

/// Memory aligned as `O_DIRECT` wants it.
#[derive(Clone)]
#[repr(C, align(4096))]
struct AlignedPages([u8; PAGE_BYTES]);

/// One block's worth of work on one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BlockOperation {
    /// The whole slot into the socket.
    Send,
    /// The whole slot from the socket.
    Receive,
    /// The whole slot from the file.
    Read,
    /// The whole slot into the file.
    Write,
}

impl BlockOperation {
    const ALL: [BlockOperation; 4] = [
        BlockOperation::Send,
        BlockOperation::Receive,
        BlockOperation::Read,
        BlockOperation::Write,
    ];
}

/// Kinds of waiting for a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum WaitMode {
    /// The kernel gathers the whole block (`MSG_WAITALL`), woken by every few packets.
    Gather,
    /// The socket waits until most of it has arrived (`SO_RCVLOWAT`), and takes what is there.
    Rest,
}

/// A ring of one thread with its slots.
pub(super) struct RawRing {
    uring: IoUring,
    /// The socket that rests, and until how many bytes are there at most.
    rests: Option<(OwnedFd, u32)>,
    /// The bytes of each slot that were received before, where a block comes in parts.
    received: [u32; SLOT_COUNT as usize],
    /// Address of slot 0.
    ///
    /// Invariant: it starts `SLOT_COUNT` blocks that are never freed and that no reference of ours
    /// points into.
    slots: *mut u8,
}

impl RawRing {
    /// A ring over these files: the socket first, then the file if there is one. It must be used by
    /// the thread that made it.
    pub(super) fn new(files: &[RawFd]) -> io::Result<RawRing> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(u32::from(SLOT_COUNT) * 4)?;
        // Leaked on purpose: an operation that an error leaves in flight may write into its slot
        // until the process ends.
        let pages = Box::leak(
            vec![AlignedPages([0x5a; PAGE_BYTES]); slots_bytes() / PAGE_BYTES].into_boxed_slice(),
        );
        let slots = pages.as_mut_ptr().cast::<u8>();
        let blocks: Vec<libc::iovec> = (0..SLOT_COUNT)
            .map(|slot| libc::iovec {
                iov_base: address(slots, slot).cast(),
                iov_len: BLOCK_BYTES as usize,
            })
            .collect();
        uring.submitter().register_files(files)?;
        // SAFETY: each iovec covers one block inside the pages leaked above: valid, writable and
        // never freed.
        unsafe { uring.submitter().register_buffers(&blocks) }?;
        Ok(RawRing { uring, rests: None, received: [0; SLOT_COUNT as usize], slots })
    }

    /// Waits for blocks from this socket, which is the one registered, as `wait` says; without this
    /// it gathers.
    pub(super) fn receive_as(&mut self, socket: &impl AsFd, wait: WaitMode) -> io::Result<()> {
        if wait == WaitMode::Rest {
            // Linux widens the buffer to twice a low-water mark that would not fit.
            set_low_water(socket, UNREAD_BYTES)?;
            set_low_water(socket, 1)?;
            let room = getsockopt(socket, sockopt::RcvBuf)?;
            let rest_bytes = u32::try_from(room).unwrap_or(u32::MAX) / REST_PART;
            self.rests = Some((socket.as_fd().try_clone_to_owned()?, rest_bytes));
        }
        Ok(())
    }

    /// Queues an operation on a slot; `offset` is the place in the file and means nothing to a
    /// socket.
    pub(super) fn push(
        &mut self,
        operation: BlockOperation,
        slot: u16,
        offset: u64,
    ) -> io::Result<()> {
        if operation == BlockOperation::Receive
            && let Some((socket, rest_bytes)) = &self.rests
        {
            set_low_water(
                socket,
                (*rest_bytes).min(BLOCK_BYTES - self.received[usize::from(slot)]),
            )?;
        }
        let entry = self
            .entry(operation, slot, offset)
            .user_data((operation as u64) << 16 | u64::from(slot));
        // SAFETY: the entry's address comes from `entry`: inside a block of the leaked pages up to
        // its end, so it outlives the operation whatever happens; its files are registered indexes,
        // which the kernel checks.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.expect(
            "the queue holds four entries per slot, and a slot has one operation at a time",
        );
        Ok(())
    }

    /// Waits for the next whole block that was moved.
    ///
    /// # Errors
    /// The kernel's error, or a block was cut short: the peer closed, or the file is shorter than
    /// expected.
    pub(super) fn wait(&mut self) -> io::Result<(BlockOperation, u16)> {
        loop {
            let (operation, slot, moved) = self.completion()?;
            let before = std::mem::take(&mut self.received[usize::from(slot)]);
            if before + moved == BLOCK_BYTES {
                return Ok((operation, slot));
            }
            if operation != BlockOperation::Receive || self.rests.is_none() || moved == 0 {
                return Err(io::Error::other(format!(
                    "{operation:?} moved {} of {BLOCK_BYTES} bytes",
                    before + moved
                )));
            }
            self.received[usize::from(slot)] = before + moved;
            self.push(operation, slot, 0)?;
        }
    }

    /// The next completion: what was done on which slot, and how many bytes of it.
    fn completion(&mut self) -> io::Result<(BlockOperation, u16, u32)> {
        while self.uring.completion().is_empty() {
            match self.uring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => drop(result?),
            }
        }
        let done = self.uring.completion().next().expect("the queue was seen not to be empty");
        let operation = BlockOperation::ALL[(done.user_data() >> 16) as usize];
        let moved = u32::try_from(done.result())
            .map_err(|_| io::Error::from_raw_os_error(-done.result()))?;
        Ok((operation, (done.user_data() & 0xffff) as u16, moved))
    }

    fn entry(&self, operation: BlockOperation, slot: u16, offset: u64) -> squeue::Entry {
        let block = address(self.slots, slot);
        match operation {
            BlockOperation::Send => {
                opcode::Send::new(SOCKET, block, BLOCK_BYTES).flags(libc::MSG_WAITALL).build()
            }
            BlockOperation::Receive => {
                let before = self.received[usize::from(slot)];
                let flags = if self.rests.is_some() { 0 } else { libc::MSG_WAITALL };
                let rest = block.wrapping_add(before as usize);
                opcode::Recv::new(SOCKET, rest, BLOCK_BYTES - before).flags(flags).build()
            }
            BlockOperation::Read => {
                opcode::ReadFixed::new(FILE, block, BLOCK_BYTES, slot).offset(offset).build()
            }
            BlockOperation::Write => {
                opcode::WriteFixed::new(FILE, block, BLOCK_BYTES, slot).offset(offset).build()
            }
        }
    }
}

/// Sets how many bytes must be there before a socket counts as readable.
fn set_low_water(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    let (fd, value) = (socket.as_fd().as_raw_fd(), bytes.cast_signed());
    // SAFETY: the descriptor is open while it is borrowed, and the value is an int that outlives
    // the call, of the size told.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

fn slots_bytes() -> usize {
    usize::from(SLOT_COUNT) * BLOCK_BYTES as usize
}

/// Returns the address of a slot.
fn address(slots: *mut u8, slot: u16) -> *mut u8 {
    assert!(slot < SLOT_COUNT, "no slot {slot}");
    slots.wrapping_add(usize::from(slot) * BLOCK_BYTES as usize)
}

//! The two ends of the raw limit: a sender and a receiver of whole blocks with nothing between them
//! but TCP.
//!
//! No header, no request, no check: only the cost of the kernel and the memory remains.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ring::{BLOCK_BYTES, BlockOperation, RawRing, SLOT_COUNT, WaitMode};

/// Sends `blocks` blocks from one slot, over and over.
pub(super) fn send_memory(socket: &impl AsFd, blocks: u64) -> io::Result<()> {
    let mut ring = RawRing::new(&[socket.as_fd().as_raw_fd()])?;
    for _ in 0..blocks {
        ring.push(BlockOperation::Send, 0, 0)?;
        ring.wait()?;
    }
    Ok(())
}

/// Receives `blocks` blocks into one slot, over and over; answers how long that took from the first
/// byte's arrival.
pub(super) fn receive_memory(
    socket: &impl AsFd,
    blocks: u64,
    wait: WaitMode,
) -> io::Result<Duration> {
    let mut ring = RawRing::new(&[socket.as_fd().as_raw_fd()])?;
    ring.receive_as(socket, wait)?;
    let start = first_byte(socket)?;
    for _ in 0..blocks {
        ring.push(BlockOperation::Receive, 0, 0)?;
        ring.wait()?;
    }
    Ok(start.elapsed())
}

/// Sends the first `blocks` blocks of a file in their order, reading ahead into every free slot.
pub(super) fn send_file(socket: &impl AsFd, path: &Path, blocks: u64) -> io::Result<()> {
    let file = File::open(path)?;
    let mut ring = RawRing::new(&[socket.as_fd().as_raw_fd(), file.as_raw_fd()])?;
    let (mut read, mut sent, mut sending) = (0, 0, false);
    let mut ready = [false; SLOT_COUNT as usize];
    while sent < blocks {
        while read < blocks.min(sent + u64::from(SLOT_COUNT)) {
            ring.push(BlockOperation::Read, slot_of(read), read * u64::from(BLOCK_BYTES))?;
            read += 1;
        }
        // One send at a time: two could interleave where the socket's buffer fills.
        if !sending && ready[usize::from(slot_of(sent))] {
            ring.push(BlockOperation::Send, slot_of(sent), 0)?;
            sending = true;
        }
        let (operation, slot) = ring.wait()?;
        ready[usize::from(slot)] = operation == BlockOperation::Read;
        if operation == BlockOperation::Send {
            sending = false;
            sent += 1;
        }
    }
    Ok(())
}

/// Receives `blocks` blocks into a new, preallocated file with `O_DIRECT`; answers how long that
/// took from the first byte's arrival to the last block written.
pub(super) fn receive_file(
    socket: &impl AsFd,
    path: &Path,
    blocks: u64,
    wait: WaitMode,
) -> io::Result<Duration> {
    let file = preallocated(path, blocks * u64::from(BLOCK_BYTES))?;
    let mut ring = RawRing::new(&[socket.as_fd().as_raw_fd(), file.as_raw_fd()])?;
    ring.receive_as(socket, wait)?;
    let mut free: Vec<u16> = (0..SLOT_COUNT).collect();
    let (mut received, mut written, mut receiving) = (0, 0, false);
    let start = first_byte(socket)?;
    while written < blocks {
        if !receiving
            && received < blocks
            && let Some(slot) = free.pop()
        {
            ring.push(BlockOperation::Receive, slot, 0)?;
            receiving = true;
        }
        let (operation, slot) = ring.wait()?;
        if operation == BlockOperation::Receive {
            ring.push(BlockOperation::Write, slot, received * u64::from(BLOCK_BYTES))?;
            received += 1;
            receiving = false;
        } else {
            free.push(slot);
            written += 1;
        }
    }
    Ok(start.elapsed())
}

fn slot_of(block: u64) -> u16 {
    (block % u64::from(SLOT_COUNT)) as u16
}

/// A new file with its blocks allocated, so that the writes extend nothing.
fn preallocated(path: &Path, bytes: u64) -> io::Result<File> {
    let file =
        OpenOptions::new().write(true).create_new(true).custom_flags(libc::O_DIRECT).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes.cast_signed())?;
    Ok(file)
}

/// The moment at which the socket has something to read. Whoever started this process bounds the
/// wait.
fn first_byte(socket: &impl AsFd) -> io::Result<Instant> {
    poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    Ok(Instant::now())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]
mod tests {
    use std::fs;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// Not a multiple of the slots, so that the last round is a partial one.
    const BLOCKS: u64 = 3 * SLOT_COUNT as u64 + 5;

    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (sender, listener.accept().unwrap().0)
    }

    #[test]
    fn a_file_arrives_as_it_was_however_it_is_waited_for() {
        // Below the build's own folder: a tmpfs may refuse O_DIRECT.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let source = folder.path().join("source");
        let content: Vec<u8> =
            (0..BLOCKS * u64::from(BLOCK_BYTES)).map(|at| (at / 8191 % 251) as u8).collect();
        fs::write(&source, &content).unwrap();
        for wait in [WaitMode::Gather, WaitMode::Rest] {
            let (source, copy) = (source.clone(), folder.path().join(format!("{wait:?}")));
            let (sender, receiver) = sockets();
            let sending = thread::spawn(move || send_file(&sender, &source, BLOCKS));
            receive_file(&receiver, &copy, BLOCKS, wait).unwrap();
            sending.join().unwrap().unwrap();
            assert!(fs::read(&copy).unwrap() == content, "{wait:?}: the copy differs");
        }
    }

    #[test]
    fn a_receiver_whose_sender_leaves_early_fails() {
        for wait in [WaitMode::Gather, WaitMode::Rest] {
            let (sender, receiver) = sockets();
            let sending = thread::spawn(move || send_memory(&sender, BLOCKS - 1));
            let error = receive_memory(&receiver, BLOCKS, wait).unwrap_err();
            sending.join().unwrap().unwrap();
            assert_eq!(error.to_string(), format!("Receive moved 0 of {BLOCK_BYTES} bytes"));
        }
    }
}

//! Waker of a thread that waits in its ring.
//!
//! An event counter stays readable until it is drained, so a wake just before the wait is not lost.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Ends the wait of one ring, from any thread. Several wakes before the next wait count as one.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<EventFd>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { event: Arc::new(EventFd::from_value_and_flags(0, flags)?) })
    }

    /// Makes the current or the next `wait` of the ring return.
    ///
    /// # Panics
    /// Never in practice: the counter is open, and a full one (`EAGAIN`) is already awake.
    pub fn wake(&self) {
        match self.event.write(1) {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(error) => panic!("an event counter takes a wake: {error}"),
        }
    }

    /// Clears all wakes so far. Returns true if there were any.
    pub(crate) fn drain(&self) -> bool {
        self.event.read().is_ok()
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.event.as_fd().as_raw_fd()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

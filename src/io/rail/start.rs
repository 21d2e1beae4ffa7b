//! Making a rail: the ring, or what stands in for one.
//!
//! Where the kernel has no `io_uring` for us (containers and hardened systems forbid it), the same
//! driver runs over plain calls and `poll`: it loses speed and nothing else. Where the locked
//! memory is too small, the ring itself does without registered buffers.

use std::sync::Once;

use crossbeam_channel::{Receiver, Sender};
use ring::{Errno, PlainRing, ProbeError, RingConfig, RingIo, Uring, Waker};

use super::buffers::{RailBuffers, RailSize, entries};
use super::command::{RailCommand, ReportSender};
use super::driver::{FILES_FIXED, RailDriver};
use crate::core::error::{Code, Error};
use crate::core::units::human_bytes;
use crate::io::clock::Clock;

/// Set to `plain`, rails do without `io_uring`: for machines where it misbehaves, and for tests.
const IO_VARIABLE: &str = "CEP_FAST_IO";

/// A rail works with one slot on the wire and one that is checked or written.
const SLOTS_MIN: u32 = 3;

/// Runs a rail on the calling thread until it is told to stop. What it needs to begin goes through
/// `ready`.
pub(super) fn start(
    clock: Clock,
    mut size: RailSize,
    inbox: Receiver<RailCommand>,
    reports: impl ReportSender,
    ready: &Sender<Result<Waker, Error>>,
) {
    let mut buffers = loop {
        match RailBuffers::new(size) {
            Ok(buffers) => break buffers,
            // A process whose memory is limited gets along with fewer.
            Err(_) if size.slots > SLOTS_MIN => size.slots = (size.slots / 2).max(SLOTS_MIN),
            Err(error) => {
                let bytes = human_bytes(2 * u64::from(size.slots) * size.block_bytes);
                let error =
                    Error::new(Code::Internal, format!("no memory for slots of {bytes}: {error}"));
                let _ = ready.send(Err(
                    error.remedy("give smaller blocks by option block, or raise ulimit -v")
                ));
                return;
            }
        }
    };
    match ring(size, &buffers) {
        Ok(io) => {
            if let Some(error) = io.registration_error() {
                let explained = ProbeError::explain(error);
                buffers.driven_by = format!("io_uring, slots not registered: {}", explained.cause);
                say(
                    &UNREGISTERED,
                    &format!(
                        "the slots are not registered with the kernel, which is slower \
                         ({explained})"
                    ),
                );
            }
            go(RailDriver::new(clock, size, io, buffers, inbox, reports), ready);
        }
        Err(why) => match PlainRing::new(entries(size), FILES_FIXED) {
            Ok(io) => {
                say(
                    &PLAIN,
                    &format!("no io_uring here, so plain calls are used, which is slower ({why})"),
                );
                buffers.driven_by = format!("plain calls: {why}");
                go(RailDriver::new(clock, size, io, buffers, inbox, reports), ready);
            }
            Err(error) => {
                let _ = ready
                    .send(Err(Error::new(Code::Internal, format!("no event counter: {error}"))));
            }
        },
    }
}

fn go<I: RingIo, M: ReportSender>(driver: RailDriver<I, M>, ready: &Sender<Result<Waker, Error>>) {
    // Whoever waits for the rail may have given up; then the first command is to stop.
    let _ = ready.send(Ok(driver.ops.io.waker()));
    driver.run();
}

/// The kernel's ring, or why there is none.
fn ring(size: RailSize, buffers: &RailBuffers) -> Result<Uring, String> {
    if std::env::var_os(IO_VARIABLE).is_some_and(|value| value == "plain") {
        return Err(format!("{IO_VARIABLE}=plain"));
    }
    let config = RingConfig {
        entries: entries(size),
        files: FILES_FIXED,
        // Each slot of either direction may be read or written.
        blocking: 2 * size.slots,
        pools: &buffers.pools(),
    };
    Uring::new(&config).map_err(|error| {
        let explained =
            ProbeError::explain(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
        explained.to_string()
    })
}

/// Says something once in the life of the node, however many rails meet it.
fn say(said: &Once, what: &str) {
    said.call_once(|| crate::io::log::say(what));
}

static PLAIN: Once = Once::new();
static UNREGISTERED: Once = Once::new();

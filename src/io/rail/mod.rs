//! The driver: one thread, one NIC, one ring.
//!
//! [`crate::core::rail::RailMachine`] decides; this turns its actions into operations of the ring,
//! and completions into its events. A turn of the loop: take in commands of the control thread,
//! carry out what the machine wants, submit and wait, handle what has completed. Nothing runs where
//! it is reaped, and nothing here blocks but that one wait.
//!
//! - [`transfer_files`]: one transfer's files and layouts, shared by the node's rails
//! - `command`: the queues between a rail and its control thread
//! - `driver`: the loop
//! - `operations`: the ring, the files of transfers and the sockets of flows
//! - `receive`: requests out, headers and payloads in, checks, writes
//! - `send`: requests in, reads, checks, sends; `splice`: pieces that are sent from the page cache
//! - `buffers`: the memory of a rail; `slot_store`: that of slots between two operations
//! - `contexts`: the purpose of each operation in flight
//! - `paths`: the ways that bytes took, and their protection, for the report

pub(crate) mod transfer_files;

mod buffers;
mod command;
mod contexts;
mod driver;
mod operations;
pub(crate) mod paths;
mod receive;
mod send;
mod slot_store;
mod splice;
mod start;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};
use nix::sys::signal::{SigSet, Signal};
use ring::Waker;

use crate::core::error::{Code, Error, Result};
use crate::core::rail::RailNotice;
use crate::io::clock::Clock;

pub(crate) use buffers::{RailSize, slots_max};
pub(crate) use command::{RailCommand, ReportSender};

/// Time in which a rail maps and registers its slots. The control thread waits for it.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// CPU of a rail's thread, and NUMA node of its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RailPlacement {
    /// The CPU that its thread stays on; any, where there is none.
    pub(crate) cpu: Option<usize>,
    /// The memory node of its NIC, where that is known.
    pub(crate) numa: Option<u32>,
}

impl RailPlacement {
    /// Takes the calling thread there. Neither step can fail the rail: without them it is slower,
    /// not wrong.
    fn settle(self) {
        if let Some(cpu) = self.cpu {
            // The mask may have changed since the CPU was chosen.
            let _ = affinity::pin(cpu);
        }
        if let Some(node) = self.numa {
            // A thread that is pinned near its NIC gets this by itself; one that is not, or
            // elsewhere, does not.
            affinity::prefer_node(node);
        }
    }
}

/// The control thread's end of a rail.
#[derive(Debug)]
pub(crate) struct RailHandle {
    commands: Sender<RailCommand>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl RailHandle {
    /// Starts a rail on a thread of its own, at `place`.
    ///
    /// # Errors
    /// `Code::Internal` where no ring can be made, with the remedy; the thread has ended then.
    pub(crate) fn spawn(
        clock: Clock,
        size: RailSize,
        place: RailPlacement,
        reports: impl ReportSender,
    ) -> Result<RailHandle> {
        let (commands, inbox) = crossbeam_channel::unbounded();
        let (ready, started) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new().name("rail".into()).spawn(move || {
            // Before anything is mapped: pages come from where the thread is that touches them
            // first.
            place.settle();
            // `sendfile` cannot be told to leave the signal of a closed flow out, as a send can.
            let _ = SigSet::from(Signal::SIGPIPE).thread_block();
            let (last_inbox, last_reports) = (inbox.clone(), reports.clone());
            let work = move || start::start(clock, size, inbox, reports, &ready);
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                let what = "a rail of this node failed: its standard error says where";
                let error = Error::new(Code::Internal, what);
                let mut last_words = VecDeque::from([RailNotice::Failed { error }]);
                driver::post_all(&last_reports, &last_inbox, &mut last_words);
            }
        });
        let thread = thread.map_err(|error| {
            Error::new(Code::Internal, format!("no thread can be made for a rail: {error}"))
                .remedy("raise the node's limit of threads: TasksMax= of a unit, ulimit -u")
        })?;
        match started.recv_timeout(STARTS_WITHIN) {
            Ok(Ok(waker)) => Ok(RailHandle { commands, waker, thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(Code::Internal, "the rail ended before it began"))
            }
            Err(RecvTimeoutError::Timeout) => {
                // It ends by itself, should it begin after all.
                let _ = commands.send(RailCommand::Stop);
                let what = format!("a rail of this node did not start within {STARTS_WITHIN:?}");
                Err(Error::new(Code::Internal, what)
                    .remedy("free memory on the node, or start it with fewer slots (--slots)"))
            }
        }
    }

    /// Tells the rail something. A rail that has failed hears nothing; it has said so in an event.
    pub(crate) fn tell(&self, command: RailCommand) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

impl Drop for RailHandle {
    fn drop(&mut self) {
        self.tell(RailCommand::Stop);
        if let Some(thread) = self.thread.take() {
            // A rail that panicked has printed why, and has reported that it failed.
            let _ = thread.join();
        }
    }
}

//! Work that may block, and how long an attempt waits for each piece of it.
//!
//! The machine of a node hands it out; a worker does it and its answer comes back as an event. A
//! worker may hang with the file system that it works on, so every wait for one has a deadline. An
//! attempt whose worker is overdue ends with an error; what the worker still does is nobody's
//! business then, and the locks of its files keep the next attempt away from them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::error::{Code, Error};
use crate::core::node::participant::RoomRequest;
use crate::core::piece::LandedPiece;
use crate::core::units::{Moment, Span};
use crate::core::wire::Check;
use crate::core::wire::control::{Prepared, ToMaster};

/// Work for a worker of the node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum NodeJob {
    /// Make room in the destinations; answered by `Preallocated`.
    Preallocate(RoomRequest),
    /// Make room for further ranges, except for their `holes`; answered by `Extended`.
    Extend { wanted: Vec<Span>, holes: Vec<Span> },
    /// Hand pieces to the journals before anything else is done, and have a worker write them down;
    /// answered by `Flushed`.
    Keep { pieces: Vec<LandedPiece> },
    /// Give files their final names; answered by `Committed`.
    Commit { landed_everywhere: bool, checks: Vec<(Span, Check)> },
    /// Leave what has landed to another attempt, or remove it; answered by `Left`.
    Leave { forgets: bool },
    /// End all files of the attempt, and look at its sources; answered by `Cleared`.
    Clear(ClearMode),
    /// Forget how the files of an attempt that is over came to be; answered by `Confirmed`.
    Confirm,
}

/// End of the files of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClearMode {
    /// All is complete: how it came to be is forgotten.
    Confirm,
    /// Files without a final name are left to another attempt, or removed if it `forgets`. A node
    /// that `departs` does so before its master has ended the transfer.
    Discard { forgets: bool, departs: bool },
}

/// A worker's answer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum JobAnswer {
    /// Sources and destinations are open, or one of them is not to be had.
    Opened(Result<OpenedFiles, Error>),
    Preallocated(Result<(), Error>),
    Extended(Result<(), Error>),
    Flushed,
    Committed(Result<(), Error>),
    Left,
    /// Files are cleared; the result says whether all sources are still what they were.
    Cleared(Result<(), Error>),
    Confirmed,
}

/// State of the files of an attempt, once they are open.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct OpenedFiles {
    pub(crate) prepared: Prepared,
    /// Pieces of an earlier attempt, if landed pieces are kept for another one.
    pub(crate) found: Option<Vec<LandedPiece>>,
}

/// Kind of a wait of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum JobKind {
    Open,
    Preallocate,
    Extend,
    /// Not a worker's: the rails end their operations.
    Drain,
    Commit,
    Leave,
    Clear,
    Confirm,
}

/// Jobs that an attempt waits for, each with a deadline, and the times of those that are done.
#[derive(Debug)]
pub(super) struct AwaitedJobs {
    stall_timeout: Duration,
    deadlines: BTreeMap<JobKind, Moment>,
    /// Time in which destinations were given their room.
    room: Duration,
    /// Time in which files were synced and named.
    commit: Duration,
}

impl AwaitedJobs {
    pub(super) fn new(stall_timeout: Duration) -> AwaitedJobs {
        let (room, commit) = (Duration::ZERO, Duration::ZERO);
        AwaitedJobs { stall_timeout, deadlines: BTreeMap::new(), room, commit }
    }

    /// Waits for a job from now on, or waits anew after news of it.
    pub(super) fn wait_for(&mut self, now: Moment, job: JobKind) {
        self.deadlines.insert(job, now + job.within(self.stall_timeout));
    }

    /// A job is done. Returns false where nobody waits for it any more.
    pub(super) fn is_done(&mut self, job: JobKind) -> bool {
        self.deadlines.remove(&job).is_some()
    }

    /// A worker's job is done, like [`AwaitedJobs::is_done`]; its time counts.
    pub(super) fn is_worked(&mut self, now: Moment, job: JobKind) -> bool {
        let Some(due) = self.deadlines.remove(&job) else { return false };
        let took = job.within(self.stall_timeout).saturating_sub(due.since(now));
        match job {
            JobKind::Preallocate => self.room += took,
            JobKind::Commit => self.commit += took,
            // Beside bytes that move, before them, or after all have landed.
            JobKind::Open
            | JobKind::Extend
            | JobKind::Drain
            | JobKind::Leave
            | JobKind::Clear
            | JobKind::Confirm => {}
        }
        true
    }

    /// A job whose time is over.
    pub(super) fn take_overdue(&mut self, now: Moment) -> Option<(JobKind, Error)> {
        let job = self.deadlines.iter().find(|(_, due)| **due <= now).map(|(&job, _)| job)?;
        self.deadlines.remove(&job);
        Some((job, job.overdue(job.within(self.stall_timeout))))
    }

    /// Returns the moment of the earliest deadline.
    pub(super) fn due(&self) -> Option<Moment> {
        self.deadlines.values().copied().min()
    }

    /// Writes the times into a message that has statistics.
    pub(super) fn write_times(&self, message: &mut ToMaster) {
        let stats = match message {
            ToMaster::Landed { stats, .. } | ToMaster::Report(stats) => stats,
            ToMaster::Failed { stats: Some(stats), .. } => stats,
            _ => return,
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        (stats.room_ns, stats.commit_ns) = (nanos(self.room), nanos(self.commit));
    }
}

/// Time for opening files without a report of progress. The master gives up earlier.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// Time for rails to end their operations.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// Time for syncing, reading back and renaming: longer than the master waits for it.
const COMMIT_WITHIN: Duration = Duration::from_secs(660);
/// Time for journals and leftovers, with a sync if one was asked for.
const CLEAR_WITHIN: Duration = Duration::from_secs(120);

impl JobKind {
    /// Returns the time that an attempt waits, given its master's `stall_timeout`.
    pub(crate) fn within(self, stall_timeout: Duration) -> Duration {
        match self {
            JobKind::Open => OPEN_WITHIN,
            // It may be all of a file that is zeroed.
            JobKind::Preallocate | JobKind::Extend => OPEN_WITHIN + stall_timeout,
            JobKind::Drain => DRAIN_WITHIN,
            JobKind::Commit => COMMIT_WITHIN,
            JobKind::Leave | JobKind::Clear | JobKind::Confirm => CLEAR_WITHIN,
        }
    }

    /// The error of an attempt that has waited for too long.
    pub(crate) fn overdue(self, within: Duration) -> Error {
        let what = match self {
            JobKind::Open => "opening its files",
            JobKind::Preallocate | JobKind::Extend => "making room in its destinations",
            JobKind::Drain => "ending what is in flight on its rails",
            JobKind::Commit => "syncing and naming its files",
            JobKind::Leave => "leaving its files to another attempt",
            JobKind::Clear | JobKind::Confirm => "removing what is left beside its files",
        };
        let what = format!("{what} took longer than {} s", within.as_secs());
        Error::new(Code::Stalled, what).remedy("look at the file systems of its rows: one hangs")
    }
}

//! One attempt at a transfer, as its node keeps it: the participant, the way to its master, its
//! files, and what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::SessionIx;
use super::jobs::{JobKind, OpenedFiles};
use super::lease::MasterLease;
use crate::core::error::Error;
use crate::core::node::participant::{Participant, ParticipantConfig, ParticipantState};
use crate::core::node::replay_buffer::ReplayBuffer;
use crate::core::spec::RowRole;
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::Prepare;

/// The way to the master of an attempt.
///
/// ```text
///          broken            resumed
///    Up ──────────▶ Lost ──────────────▶ Up
///    │ good-bye      │ lease over, or another attempt takes its place
///    ▼               ▼
/// Leaving           Gone
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MasterLink {
    /// Its session stands.
    Up(SessionIx),
    /// Its session broke. The attempt goes on as long as the lease lets it.
    Lost(MasterLease),
    /// It has said good-bye. The session is closed when nothing is left of the transfer.
    Leaving(SessionIx),
    /// Nobody is left who could be told.
    Gone,
}

impl MasterLink {
    /// The session on which messages are sent now.
    pub(super) fn session(self) -> Option<SessionIx> {
        match self {
            MasterLink::Up(session) => Some(session),
            MasterLink::Lost(_) | MasterLink::Leaving(_) | MasterLink::Gone => None,
        }
    }

    /// Returns true if the master receives messages now, or may come back and receive them then.
    pub(super) fn is_told(self) -> bool {
        matches!(self, MasterLink::Up(_) | MasterLink::Lost(_))
    }
}

/// The files of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AttemptFiles {
    Closed,
    Open,
    /// Complete. How they came to be is remembered until the master says good-bye: one that dies
    /// before has told nobody of the end, and the transfer may be run again.
    Remembered,
    /// The master has said good-bye, and a worker confirms them.
    Confirming,
}

/// Reason for which a participant's next action waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ActionPause {
    /// The numbers of a message.
    Numbers,
    /// A worker that clears its files.
    Clearing,
}

/// One attempt at a transfer.
///
/// Invariant: there is a deadline whenever the participant or its files wait for a worker or for
/// the rails.
pub(super) struct Attempt {
    pub(super) id: String,
    transfer: [u8; 16],
    attempt: [u8; 16],
    pub(super) link: MasterLink,
    pub(super) replay: ReplayBuffer,
    /// `None` when it has ended.
    pub(super) participant: Option<Participant>,
    pub(super) files: AttemptFiles,
    /// Files that were opened while rails ended: they wait for those.
    pub(super) opened: Option<OpenedFiles>,
    pub(super) pause: Option<ActionPause>,
    deadlines: BTreeMap<JobKind, Moment>,
    /// The rails that it is on, and those of them that have not drained yet, while they do.
    pub(super) rails: BTreeSet<usize>,
    pub(super) draining: BTreeSet<usize>,
    /// True if it has receiver rows.
    pub(super) receives: bool,
    /// True if landed ranges must not be resumed.
    pub(super) forgets: bool,
    /// Result of the last check that its sources are unchanged.
    pub(super) sources: Result<(), Error>,
    /// Error that it fails with, for the log.
    pub(super) failure: Option<Error>,
    /// The names of the nodes that it may ask.
    pub(super) names: BTreeMap<NodeIx, String>,
    stall_timeout: Duration,
}

impl Attempt {
    /// An attempt whose files are being opened.
    pub(super) fn new(session: SessionIx, prepare: &Prepare, rails: &[usize]) -> Attempt {
        let rail_count = u32::try_from(rails.len()).expect("rails are few");
        let mut replay = ReplayBuffer::default();
        replay.hear();
        Attempt {
            id: prepare.id.clone(),
            transfer: prepare.transfer,
            attempt: prepare.attempt,
            link: MasterLink::Up(session),
            replay,
            participant: Some(Participant::new(ParticipantConfig::of(prepare, rail_count))),
            files: AttemptFiles::Closed,
            opened: None,
            pause: None,
            deadlines: BTreeMap::new(),
            rails: rails.iter().copied().collect(),
            draining: BTreeSet::new(),
            receives: prepare.rows.iter().any(|row| row.role == RowRole::Receiver),
            forgets: false,
            sources: Ok(()),
            failure: None,
            names: BTreeMap::new(),
            stall_timeout: prepare.options.transfer.stall_timeout,
        }
    }

    /// Returns true if a session that names these means this attempt, and can resume it.
    pub(super) fn is_resumed_by(&self, transfer: &[u8; 16], attempt: &[u8; 16]) -> bool {
        self.link.is_told() && self.transfer == *transfer && self.attempt == *attempt
    }

    /// Returns true if another attempt at the same transfer has to wait for this one.
    pub(super) fn is_in_the_way(&self, id: &str) -> bool {
        let is_led = self.link.session().is_some();
        self.id == id && (self.files == AttemptFiles::Confirming || (!self.is_over() && !is_led))
    }

    /// Returns true if the participant has ended and is forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.participant.is_none()
    }

    pub(super) fn state(&self) -> Option<ParticipantState> {
        self.participant.as_ref().map(Participant::state)
    }

    /// Waits for a job from now on, or waits anew after news of it.
    pub(super) fn wait_for(&mut self, now: Moment, job: JobKind) {
        self.deadlines.insert(job, now + job.within(self.stall_timeout));
    }

    /// A job is done. Returns false where nobody waits for it any more.
    pub(super) fn is_done(&mut self, job: JobKind) -> bool {
        self.deadlines.remove(&job).is_some()
    }

    /// A job whose time is over.
    pub(super) fn take_overdue(&mut self, now: Moment) -> Option<(JobKind, Error)> {
        let job = self.deadlines.iter().find(|(_, due)| **due <= now).map(|(&job, _)| job)?;
        self.deadlines.remove(&job);
        Some((job, job.overdue(job.within(self.stall_timeout))))
    }

    /// Returns the moment of the earliest deadline.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        let lease = match &self.link {
            MasterLink::Lost(lease) => Some(lease.due()),
            MasterLink::Up(_) | MasterLink::Leaving(_) | MasterLink::Gone => None,
        };
        let participant = self.participant.as_ref().and_then(Participant::poll_timeout);
        self.deadlines.values().copied().chain(lease).chain(participant).min()
    }

    /// Puts a peer's name in front of what it did.
    pub(super) fn blame(&self, peer: NodeIx, error: Error) -> Error {
        let name = self.names.get(&peer);
        error.at(name.cloned().unwrap_or_else(|| format!("node {}", peer.0)))
    }
}

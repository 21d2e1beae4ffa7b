//! First state of a destination's file: joined, resumed, found complete, or new.
//!
//! [`step`] is the whole machine, in the shape of [`super::destination`]: the calls to make, and
//! the state once all of them have succeeded. The last call of a step that does not open the file
//! answers with the next event. A call that fails ends the opening with its error.

use super::destination::DestinationState;
use super::writer::{WriterRole, WriterTerms};

use OpeningAction as Do;
use OpeningEvent as Event;
use OpeningState as State;

/// State of the search for a destination's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpeningState {
    /// The directory is open, and nothing in it.
    Closed,
    /// A follower opens the file that its leader has made, or found complete.
    Joining,
    /// Is there a complete file of an earlier attempt?
    FindingComplete,
    /// The complete file of an earlier attempt is being opened to be read.
    OpeningComplete,
    /// Is there a partial file of an earlier attempt?
    FindingLeftover,
    /// The file is open.
    Open(DestinationState),
}

/// Event in the search for a destination's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpeningEvent {
    Open,
    Joined {
        is_complete: bool,
    },
    NoComplete,
    /// The file under the final name was completed by an earlier attempt. It `is_trusted` where
    /// it is as that attempt left it, or only this user may write to it. It `is_recorded` where
    /// the journals say which node has written what.
    CompleteFound {
        is_trusted: bool,
        is_recorded: bool,
    },
    CompleteOpened,
    /// It is another file by now, or not this user's own.
    CompleteUnfit,
    NoLeftover,
    /// A partial file of an earlier attempt is open and locked. It `is_continuable` where
    /// something is recorded of it and it has the right size.
    LeftoverFound {
        is_continuable: bool,
    },
}

/// System calls that belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpeningAction {
    /// Open the leader's file.
    Join,
    /// Hold what has the final name against the journal beside it.
    FindComplete,
    /// Open the complete file, to be read.
    OpenComplete,
    /// Open and lock the partial file of an earlier attempt.
    FindLeftover,
    /// Refuse to replace what has the final name, unless this attempt may.
    CheckReplaceable,
    /// Refuse to replace what has the final name, unless this attempt or the one that it continues
    /// may.
    CheckContinuable,
    /// Remove the journals of nodes that no longer write this file.
    RemoveOtherJournals,
    /// Make a partial file, in the place of what earlier attempts have left.
    Create,
    /// Make a partial file, and leave the journals to the complete file that they describe.
    CreateBeside,
}

/// System calls to make, and the state once all of them have succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpeningStep {
    pub(crate) actions: &'static [OpeningAction],
    pub(crate) next: OpeningState,
}

/// Reaction to an event; `None` where the event cannot come in that state.
pub(crate) fn step(terms: WriterTerms, state: State, event: Event) -> Option<OpeningStep> {
    match state {
        State::Closed => match event {
            Event::Open => Some(closed(terms)),
            Event::Joined { .. }
            | Event::NoComplete
            | Event::CompleteFound { .. }
            | Event::CompleteOpened
            | Event::CompleteUnfit
            | Event::NoLeftover
            | Event::LeftoverFound { .. } => None,
        },
        State::Joining => match event {
            Event::Joined { is_complete: false } => Some(open(DestinationState::Joined, &[])),
            Event::Joined { is_complete: true } => {
                Some(open(DestinationState::JoinedComplete, &[]))
            }
            Event::Open
            | Event::NoComplete
            | Event::CompleteFound { .. }
            | Event::CompleteOpened
            | Event::CompleteUnfit
            | Event::NoLeftover
            | Event::LeftoverFound { .. } => None,
        },
        State::FindingComplete => match event {
            Event::NoComplete => Some(find_leftover()),
            Event::CompleteFound { is_trusted, is_recorded } => {
                Some(complete_found(terms, is_trusted, is_recorded))
            }
            Event::Open
            | Event::Joined { .. }
            | Event::CompleteOpened
            | Event::CompleteUnfit
            | Event::NoLeftover
            | Event::LeftoverFound { .. } => None,
        },
        State::OpeningComplete => match event {
            Event::CompleteOpened => Some(open(DestinationState::Complete, &[])),
            Event::CompleteUnfit if terms.overwrite => {
                Some(open(DestinationState::Replacing, &[Do::CreateBeside]))
            }
            Event::CompleteUnfit => Some(find_leftover()),
            Event::Open
            | Event::Joined { .. }
            | Event::NoComplete
            | Event::CompleteFound { .. }
            | Event::NoLeftover
            | Event::LeftoverFound { .. } => None,
        },
        State::FindingLeftover => match event {
            Event::NoLeftover => Some(create()),
            Event::LeftoverFound { is_continuable } => Some(leftover_found(terms, is_continuable)),
            Event::Open
            | Event::Joined { .. }
            | Event::NoComplete
            | Event::CompleteFound { .. }
            | Event::CompleteOpened
            | Event::CompleteUnfit => None,
        },
        State::Open(_) => None,
    }
}

fn closed(terms: WriterTerms) -> OpeningStep {
    match terms.role {
        // The leader has looked whether the file may be replaced.
        WriterRole::Follower(_) => OpeningStep { actions: &[Do::Join], next: State::Joining },
        WriterRole::Sole | WriterRole::Leader if terms.resumes => {
            OpeningStep { actions: &[Do::FindComplete], next: State::FindingComplete }
        }
        WriterRole::Sole | WriterRole::Leader => create(),
    }
}

/// A complete file is kept as it is, as long as nothing more has to be written. Several nodes
/// cannot agree on that while they open it: with `overwrite` they write a new file.
fn complete_found(terms: WriterTerms, is_trusted: bool, is_recorded: bool) -> OpeningStep {
    let is_leader = terms.role == WriterRole::Leader;
    if terms.overwrite && (is_leader || !is_trusted) {
        open(DestinationState::Replacing, &[Do::CheckReplaceable, Do::CreateBeside])
    } else if terms.overwrite {
        let actions = &[Do::CheckReplaceable, Do::OpenComplete];
        OpeningStep { actions, next: State::OpeningComplete }
    } else if is_trusted && (is_recorded || !is_leader) {
        OpeningStep { actions: &[Do::OpenComplete], next: State::OpeningComplete }
    } else {
        find_leftover()
    }
}

fn leftover_found(terms: WriterTerms, is_continuable: bool) -> OpeningStep {
    let resumed = DestinationState::Resumed;
    match terms.role {
        _ if !is_continuable => create(),
        WriterRole::Sole => open(resumed, &[Do::CheckContinuable, Do::RemoveOtherJournals]),
        WriterRole::Leader | WriterRole::Follower(_) => open(resumed, &[Do::CheckContinuable]),
    }
}

fn find_leftover() -> OpeningStep {
    OpeningStep { actions: &[Do::FindLeftover], next: State::FindingLeftover }
}

fn create() -> OpeningStep {
    open(DestinationState::Fresh, &[Do::CheckReplaceable, Do::Create])
}

fn open(state: DestinationState, actions: &'static [OpeningAction]) -> OpeningStep {
    OpeningStep { actions, next: State::Open(state) }
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;

//! Life of one destination, from its opening to the end of its journal, as a table of states.
//!
//! [`step`] is the whole machine: given a state and an event it names the system calls to make, in
//! order, and the state that the destination has once all of them have succeeded. While they run,
//! and after one has failed, the old state holds. `io/store/sink` makes the calls and decides
//! nothing. How a destination comes to its first state is in [`super::opening`].
//!
//! A file is written under the name of its partial file and gets its final name in one step. Its
//! journal lies beside it from the beginning of an attempt until every node has all it wants.

use super::writer::{WriterRole, WriterTerms};
use DestinationAction as Do;
use DestinationEvent as Event;
use DestinationState as State;

/// State of an open destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DestinationState {
    /// A partial file that this attempt has made. Nothing is recorded of it yet.
    Fresh,
    /// A partial file of an earlier attempt, with its journal as that attempt left it.
    Resumed,
    /// A partial file of this attempt beside a complete one that an earlier attempt has made and
    /// this one will replace. The journal still describes the complete file.
    Replacing,
    /// A complete file of an earlier attempt, under its final name. It is only read.
    Complete,
    /// A follower has the leader's partial file open.
    Joined,
    /// A follower has the complete file of an earlier attempt open, as its leader has.
    JoinedComplete,
    /// The journal of this attempt lies beside the partial file, and bytes may land.
    Writing,
    /// Bytes may land, and no later attempt will continue from them.
    Forgotten,
    /// A follower has written all of its part. The leader gives the file its name.
    Written,
    /// The file has its final name. Its journal lies there until every node has all it wants.
    Committed,
    /// The file has its final name, and nothing of this program lies beside it.
    Confirmed,
    /// The destination is given up. Whether anything of it stays is being found out.
    Releasing,
    /// The destination is given up. What is there may be of use to a later attempt or to another
    /// node.
    Kept,
    /// The destination is given up, and what this attempt made is gone.
    Removed,
    /// A shared memory object that this attempt has made.
    RegionMade,
    /// A shared memory object that was there before.
    RegionFound,
    /// `null:`, of which nothing is kept.
    Null,
}

/// Event in the life of an open destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DestinationEvent {
    /// The destination was opened and needs its size, and its token where others write it.
    MakeRoom,
    /// The plan is there. `is_whole` says that nothing more has to be written.
    Begin { is_whole: bool },
    /// Nothing may be kept for a later attempt.
    Forget,
    /// All bytes have landed.
    Commit,
    /// The final name was taken, or another attempt has replaced the partial file.
    NameRefused,
    /// Every node has all it wants.
    Confirm,
    /// The transfer has ended without this destination, or its owner was dropped.
    Discard,
    /// This node leaves a transfer that its master has not ended: others may still prepare.
    Depart,
    /// Answer to [`DestinationAction::Weigh`].
    Weighed(Remains),
}

/// Findings about a destination that is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Remains {
    /// The partial file's name still means the file that is open here.
    pub(crate) is_ours: bool,
    /// This node's journal has something that a later attempt can continue from.
    pub(crate) is_recorded: bool,
    /// No other node has the file open for writing.
    pub(crate) is_last: bool,
    /// Some node's journal has something that a later attempt can continue from.
    pub(crate) is_recorded_by_any: bool,
}

/// System calls that belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DestinationAction {
    /// Give a new partial file its size.
    Size,
    /// Make the leader's file long enough for this node's rows.
    Grow,
    /// Let followers lock the partial file too.
    ShareLock,
    /// Leave the attempt's token beside the partial file. Followers that see it rely on the file.
    WriteToken,
    /// Remove the token, unless it is a newer attempt's.
    RemoveToken,
    /// Make a partial file beside the complete one, and write to that from now on.
    CreateBeside,
    /// Copy the ranges that are still good from the complete file to the new one.
    CopyKept,
    /// Put this attempt's journal in the place of the one that was found.
    BeginJournal,
    /// Refuse to write to a complete file.
    RefuseComplete,
    /// Record nothing from now on.
    StopRecording,
    /// Record nothing from now on, and remove this node's journal unless it is a newer attempt's.
    ForgetJournal,
    /// Write the records of what has landed.
    Flush,
    /// Make what has landed durable, if that was asked for.
    Sync,
    /// Record that the file is complete and about to get its name.
    RecordCompletion,
    /// Record size and times of the file, to which this node writes no more.
    RecordLeaving,
    /// Give the file its final name. Failure is [`DestinationEvent::NameRefused`].
    Name,
    /// Check that the final name still means this file or this object. Failure is
    /// [`DestinationEvent::NameRefused`].
    CheckName,
    /// Remove this node's journal, unless it is a newer attempt's.
    RemoveJournal,
    /// Remove the journal that described a file which has just been replaced.
    RemoveStaleJournal,
    /// Remove this node's journal, and if that was not a newer attempt's those of all nodes.
    RemoveConfirmedJournals,
    /// Remove the journals of all nodes that describe this partial file.
    RemoveAllJournals,
    /// Remove the partial file, unless it is a newer attempt's.
    RemovePartial,
    /// Remove the shared memory object, unless its name means another one by now.
    RemoveRegion,
    /// Find out the [`Remains`].
    Weigh,
}

impl DestinationEvent {
    /// Returns true if a worker brings the event, which may come after a cancel.
    pub(crate) fn is_of_a_worker(self) -> bool {
        matches!(self, Event::MakeRoom | Event::Begin { .. } | Event::Commit)
    }

    /// Nobody is left to hear of an error: all actions are tried, and the next attempt replaces
    /// what could not be removed.
    pub(crate) fn is_last_word(self) -> bool {
        match self {
            DestinationEvent::NameRefused
            | DestinationEvent::Confirm
            | DestinationEvent::Discard
            | DestinationEvent::Depart
            | DestinationEvent::Weighed(_) => true,
            DestinationEvent::MakeRoom
            | DestinationEvent::Begin { .. }
            | DestinationEvent::Forget
            | DestinationEvent::Commit => false,
        }
    }
}

impl DestinationAction {
    /// Its failure is [`DestinationEvent::NameRefused`].
    pub(crate) fn gives_name(self) -> bool {
        matches!(self, DestinationAction::Name | DestinationAction::CheckName)
    }
}

/// System calls to make, and the state once all of them have succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DestinationStep {
    pub(crate) actions: &'static [DestinationAction],
    pub(crate) next: DestinationState,
    /// Event that follows at once in the new state.
    pub(crate) then: Option<DestinationEvent>,
}

impl DestinationState {
    /// Returns true if the destination was given up, or is about to be.
    pub(crate) fn is_given_up(self) -> bool {
        matches!(self, State::Releasing | State::Kept | State::Removed)
    }

    /// The file has its final name since an earlier attempt.
    pub(crate) fn is_complete(self) -> bool {
        matches!(self, State::Complete | State::JoinedComplete)
    }
}

/// Reaction of a destination to an event; `None` where the event cannot come in that state.
pub(crate) fn step(terms: WriterTerms, state: State, event: Event) -> Option<DestinationStep> {
    if event == Event::Depart {
        return depart(terms, state);
    }
    match state {
        State::Fresh | State::Resumed | State::Replacing if !terms.is_follower() => {
            before_begin(terms, state, event)
        }
        State::Joined if terms.is_follower() => before_begin(terms, state, event),
        State::Complete if !terms.is_follower() => complete(terms, event),
        State::JoinedComplete if terms.is_follower() => joined_complete(event),
        State::Writing | State::Forgotten => writing(terms, state, event),
        State::Written if terms.is_follower() => written(event),
        State::Committed | State::Confirmed if !terms.is_follower() => named(terms, state, event),
        State::Releasing => releasing(terms, event),
        State::Kept | State::Removed => given_up(terms, state, event),
        State::RegionMade | State::RegionFound | State::Null if terms.role == WriterRole::Sole => {
            no_file(state, event)
        }
        State::Fresh
        | State::Resumed
        | State::Replacing
        | State::Joined
        | State::Complete
        | State::JoinedComplete
        | State::Written
        | State::Committed
        | State::Confirmed
        | State::RegionMade
        | State::RegionFound
        | State::Null => None,
    }
}

/// A leader that leaves before the attempt has begun leaves its token there. A node that prepares
/// after it would otherwise take the path for a file of its own, and name it with its own part.
fn depart(terms: WriterTerms, state: State) -> Option<DestinationStep> {
    match (terms.role, state) {
        (WriterRole::Leader, State::Fresh | State::Resumed | State::Replacing) => {
            Some(to(State::Releasing, &[Do::Flush, Do::RecordLeaving, Do::Weigh]))
        }
        (WriterRole::Leader, State::Complete) => Some(to(State::Kept, &[])),
        _ => step(terms, state, Event::Discard),
    }
}

/// A file that is open for writing, and whose journal has not begun.
fn before_begin(terms: WriterTerms, state: State, event: Event) -> Option<DestinationStep> {
    let role = terms.role;
    Some(match event {
        Event::MakeRoom => to(state, room(role, state)),
        Event::Begin { .. } => to(State::Writing, begin(role, state)),
        // The journal of the complete file stays with it.
        Event::Forget if state == State::Replacing => to(State::Forgotten, &[Do::StopRecording]),
        Event::Forget => to(State::Forgotten, &[Do::ForgetJournal]),
        Event::Commit => commit(role, state),
        Event::NameRefused if terms.is_follower() => return None,
        // The complete file keeps its name and its journal.
        Event::NameRefused | Event::Discard
            if state == State::Replacing && role == WriterRole::Sole =>
        {
            to(State::Removed, &[Do::RemovePartial])
        }
        Event::NameRefused | Event::Discard => to(State::Releasing, release(role)),
        Event::Confirm => to(state, confirm(role)),
        Event::Depart | Event::Weighed(_) => return None,
    })
}

/// A file that bytes land in.
fn writing(terms: WriterTerms, state: State, event: Event) -> Option<DestinationStep> {
    let role = terms.role;
    Some(match event {
        Event::Forget => to(State::Forgotten, &[Do::ForgetJournal]),
        Event::Commit => commit(role, state),
        Event::NameRefused if terms.is_follower() => return None,
        Event::NameRefused | Event::Discard => to(State::Releasing, release(role)),
        Event::Confirm => to(state, confirm(role)),
        Event::MakeRoom | Event::Begin { .. } | Event::Depart | Event::Weighed(_) => return None,
    })
}

/// A complete file of an earlier attempt. Only its journal is ever touched.
#[expect(clippy::match_same_arms, reason = "one row of the table for each event")]
fn complete(terms: WriterTerms, event: Event) -> Option<DestinationStep> {
    let (state, is_leader) = (State::Complete, terms.role == WriterRole::Leader);
    Some(match event {
        Event::MakeRoom if is_leader => to(state, &[Do::WriteToken]),
        Event::MakeRoom | Event::Begin { is_whole: true } => to(state, &[]),
        // Followers have the complete file open by now, and would go on with that.
        Event::Begin { is_whole: false } if terms.overwrite && !is_leader => {
            DestinationStep { then: Some(event), ..to(State::Replacing, &[Do::CreateBeside]) }
        }
        Event::Begin { is_whole: false } => to(state, &[Do::RefuseComplete]),
        Event::Forget => to(state, &[Do::ForgetJournal]),
        Event::Commit if is_leader => {
            to(State::Committed, &[Do::Sync, Do::RemoveToken, Do::CheckName])
        }
        Event::Commit => to(State::Committed, &[Do::Sync, Do::CheckName]),
        Event::NameRefused | Event::Discard if is_leader => to(State::Kept, &[Do::RemoveToken]),
        Event::NameRefused | Event::Discard => to(State::Kept, &[]),
        // The master ends a transfer whose names it never asked for.
        Event::Confirm => to(state, &[]),
        Event::Depart | Event::Weighed(_) => return None,
    })
}

/// A complete file of an earlier attempt that several nodes have written, at a follower.
fn joined_complete(event: Event) -> Option<DestinationStep> {
    let state = State::JoinedComplete;
    Some(match event {
        // It has its size. Rows that reach further are not whole.
        Event::MakeRoom | Event::Begin { is_whole: true } => to(state, &[]),
        Event::Begin { is_whole: false } => to(state, &[Do::RefuseComplete]),
        Event::Forget => to(state, &[Do::ForgetJournal]),
        Event::Commit => to(state, &[Do::Sync]),
        Event::Confirm => to(state, &[Do::RemoveJournal]),
        Event::Discard => to(State::Kept, &[]),
        Event::NameRefused | Event::Depart | Event::Weighed(_) => return None,
    })
}

/// A follower's part is complete. The transfer may still fail, and the file with it.
fn written(event: Event) -> Option<DestinationStep> {
    let state = State::Written;
    Some(match event {
        Event::Forget => to(State::Forgotten, &[Do::ForgetJournal]),
        Event::Confirm => to(state, &[Do::RemoveJournal]),
        Event::Discard => to(State::Releasing, &[Do::Flush, Do::RecordLeaving, Do::Weigh]),
        Event::MakeRoom
        | Event::Begin { .. }
        | Event::Commit
        | Event::NameRefused
        | Event::Depart
        | Event::Weighed(_) => return None,
    })
}

/// A file that this attempt has given its final name. Nothing takes it away again.
#[expect(clippy::match_same_arms, reason = "one row of the table for each event")]
fn named(terms: WriterTerms, state: State, event: Event) -> Option<DestinationStep> {
    Some(match event {
        Event::Forget if state == State::Confirmed => to(state, &[]),
        Event::Forget => to(State::Confirmed, &[Do::ForgetJournal]),
        Event::Confirm if state == State::Confirmed => to(state, &[]),
        Event::Confirm => to(State::Confirmed, confirm_named(terms.role)),
        Event::Discard => to(state, &[]),
        Event::MakeRoom
        | Event::Begin { .. }
        | Event::Commit
        | Event::NameRefused
        | Event::Depart
        | Event::Weighed(_) => return None,
    })
}

/// Decides what stays of a file that is given up. Where several nodes write it, only the last one
/// to leave can tell.
fn releasing(terms: WriterTerms, event: Event) -> Option<DestinationStep> {
    let Event::Weighed(remains) = event else { return None };
    let Remains { is_ours, is_recorded, is_last, is_recorded_by_any } = remains;
    let is_useless = is_last && !is_recorded_by_any;
    Some(match terms.role {
        // The file has its final name, or a newer attempt has a file of its own here.
        _ if !is_ours => to(State::Kept, &[]),
        WriterRole::Sole if is_recorded => to(State::Kept, &[]),
        WriterRole::Sole => to(State::Removed, &[Do::RemoveJournal, Do::RemovePartial]),
        WriterRole::Leader if is_useless => {
            to(State::Removed, &[Do::RemoveAllJournals, Do::RemovePartial])
        }
        WriterRole::Leader => to(State::Kept, &[]),
        WriterRole::Follower(_) if is_useless => {
            let all = &[Do::RemoveJournal, Do::RemoveAllJournals, Do::RemovePartial];
            to(State::Removed, all)
        }
        WriterRole::Follower(_) if is_recorded => to(State::Kept, &[]),
        WriterRole::Follower(_) => to(State::Kept, &[Do::RemoveJournal]),
    })
}

/// A destination that was given up. A follower's good-bye may come after it has let go.
#[expect(clippy::match_same_arms, reason = "one row of the table for each event")]
fn given_up(terms: WriterTerms, state: State, event: Event) -> Option<DestinationStep> {
    Some(match event {
        Event::Forget if state == State::Kept => to(state, &[Do::ForgetJournal]),
        Event::Forget => to(state, &[]),
        Event::Confirm => to(state, confirm(terms.role)),
        Event::Discard => to(state, &[]),
        Event::MakeRoom
        | Event::Begin { .. }
        | Event::Commit
        | Event::NameRefused
        | Event::Depart
        | Event::Weighed(_) => return None,
    })
}

/// A shared memory object, written in place, or nothing.
fn no_file(state: State, event: Event) -> Option<DestinationStep> {
    let is_null = state == State::Null;
    Some(match event {
        Event::MakeRoom | Event::Begin { .. } | Event::Forget | Event::Confirm => to(state, &[]),
        Event::Commit if is_null => to(State::Confirmed, &[]),
        Event::Commit => to(State::Confirmed, &[Do::CheckName]),
        Event::NameRefused if is_null => return None,
        Event::NameRefused | Event::Discard if state == State::RegionMade => {
            to(State::Removed, &[Do::RemoveRegion])
        }
        Event::NameRefused | Event::Discard => to(State::Removed, &[]),
        Event::Depart | Event::Weighed(_) => return None,
    })
}

fn to(next: State, actions: &'static [DestinationAction]) -> DestinationStep {
    DestinationStep { actions, next, then: None }
}

/// Size and token. A resumed file has its size.
fn room(role: WriterRole, state: State) -> &'static [DestinationAction] {
    match role {
        WriterRole::Follower(_) => &[Do::Grow],
        WriterRole::Sole if state == State::Resumed => &[],
        WriterRole::Sole => &[Do::Size],
        WriterRole::Leader if state == State::Resumed => &[Do::ShareLock, Do::WriteToken],
        WriterRole::Leader => &[Do::Size, Do::ShareLock, Do::WriteToken],
    }
}

fn begin(role: WriterRole, state: State) -> &'static [DestinationAction] {
    match role {
        WriterRole::Sole if state == State::Replacing => {
            &[Do::Size, Do::CopyKept, Do::BeginJournal]
        }
        WriterRole::Sole | WriterRole::Leader | WriterRole::Follower(_) => &[Do::BeginJournal],
    }
}

/// The token goes before the file gets its name: then nothing but the journal lies beside it.
fn commit(role: WriterRole, state: State) -> DestinationStep {
    match (role, state == State::Forgotten) {
        (WriterRole::Sole, false) => to(
            State::Committed,
            &[Do::Flush, Do::Sync, Do::RecordCompletion, Do::Name, Do::RecordLeaving],
        ),
        (WriterRole::Sole, true) => {
            to(State::Confirmed, &[Do::Sync, Do::Name, Do::RemoveStaleJournal])
        }
        (WriterRole::Leader, false) => to(
            State::Committed,
            &[
                Do::Flush,
                Do::Sync,
                Do::RecordCompletion,
                Do::RemoveToken,
                Do::Name,
                Do::RecordLeaving,
            ],
        ),
        (WriterRole::Leader, true) => {
            to(State::Confirmed, &[Do::Sync, Do::RemoveToken, Do::Name, Do::RemoveStaleJournal])
        }
        (WriterRole::Follower(_), false) => to(State::Written, &[Do::Flush, Do::Sync]),
        (WriterRole::Follower(_), true) => to(State::Forgotten, &[Do::Sync]),
    }
}

/// A good-bye before the file has its name: the leader, or another attempt, may still need it.
fn confirm(role: WriterRole) -> &'static [DestinationAction] {
    match role {
        WriterRole::Sole | WriterRole::Leader => &[],
        WriterRole::Follower(_) => &[Do::RemoveJournal],
    }
}

/// Followers may not hear that everybody is done.
fn confirm_named(role: WriterRole) -> &'static [DestinationAction] {
    match role {
        WriterRole::Leader => &[Do::RemoveConfirmedJournals],
        WriterRole::Sole | WriterRole::Follower(_) => &[Do::RemoveJournal],
    }
}

fn release(role: WriterRole) -> &'static [DestinationAction] {
    match role {
        WriterRole::Sole | WriterRole::Follower(_) => &[Do::Flush, Do::RecordLeaving, Do::Weigh],
        WriterRole::Leader => &[Do::Flush, Do::RecordLeaving, Do::RemoveToken, Do::Weigh],
    }
}

#[cfg(test)]
#[path = "destination_tests.rs"]
mod tests;

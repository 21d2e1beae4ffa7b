//! Every state of the search, every event, every condition.

use super::*;

const STATES: [OpeningState; 6] = [
    OpeningState::Closed,
    OpeningState::Joining,
    OpeningState::FindingComplete,
    OpeningState::OpeningComplete,
    OpeningState::FindingLeftover,
    OpeningState::Open(DestinationState::Fresh),
];

const EVENTS: [OpeningEvent; 13] = [
    Event::Open,
    Event::Joined { is_complete: false },
    Event::Joined { is_complete: true },
    Event::NoComplete,
    Event::CompleteFound { is_trusted: false, is_recorded: false },
    Event::CompleteFound { is_trusted: false, is_recorded: true },
    Event::CompleteFound { is_trusted: true, is_recorded: false },
    Event::CompleteFound { is_trusted: true, is_recorded: true },
    Event::CompleteOpened,
    Event::CompleteUnfit,
    Event::NoLeftover,
    Event::LeftoverFound { is_continuable: false },
    Event::LeftoverFound { is_continuable: true },
];

const NEW: (&[OpeningAction], OpeningState) =
    (&[Do::CheckReplaceable, Do::Create], State::Open(DestinationState::Fresh));
const BESIDE: (&[OpeningAction], OpeningState) =
    (&[Do::CheckReplaceable, Do::CreateBeside], State::Open(DestinationState::Replacing));
const LEFTOVER: (&[OpeningAction], OpeningState) = (&[Do::FindLeftover], State::FindingLeftover);
const READ: (&[OpeningAction], OpeningState) = (&[Do::OpenComplete], State::OpeningComplete);
const READ_IF_REPLACEABLE: (&[OpeningAction], OpeningState) =
    (&[Do::CheckReplaceable, Do::OpenComplete], State::OpeningComplete);

type Expected = Option<(&'static [OpeningAction], OpeningState)>;

/// The right step, in the order in which a person would explain it.
#[expect(clippy::match_same_arms, reason = "one row of the table for each event")]
fn expected(terms: WriterTerms, state: OpeningState, event: OpeningEvent) -> Expected {
    let open = |state| (&[][..], State::Open(state));
    Some(match (state, event) {
        (State::Closed, Event::Open) => match (terms.role, terms.resumes) {
            (WriterRole::Follower(_), _) => (&[Do::Join][..], State::Joining),
            (WriterRole::Sole | WriterRole::Leader, true) => {
                (&[Do::FindComplete][..], State::FindingComplete)
            }
            (WriterRole::Sole | WriterRole::Leader, false) => NEW,
        },
        (State::Joining, Event::Joined { is_complete: false }) => open(DestinationState::Joined),
        (State::Joining, Event::Joined { is_complete: true }) => {
            open(DestinationState::JoinedComplete)
        }
        (State::FindingComplete, Event::NoComplete) => LEFTOVER,
        (State::FindingComplete, Event::CompleteFound { is_trusted, is_recorded }) => {
            match (terms.overwrite, is_trusted, terms.role, is_recorded) {
                (true, true, WriterRole::Sole | WriterRole::Follower(_), _) => READ_IF_REPLACEABLE,
                (true, true, WriterRole::Leader, _) | (true, false, _, _) => BESIDE,
                (false, false, _, _) | (false, true, WriterRole::Leader, false) => LEFTOVER,
                (false, true, _, _) => READ,
            }
        }
        (State::OpeningComplete, Event::CompleteOpened) => open(DestinationState::Complete),
        (State::OpeningComplete, Event::CompleteUnfit) if terms.overwrite => {
            (&[Do::CreateBeside][..], State::Open(DestinationState::Replacing))
        }
        (State::OpeningComplete, Event::CompleteUnfit) => LEFTOVER,
        (State::FindingLeftover, Event::NoLeftover)
        | (State::FindingLeftover, Event::LeftoverFound { is_continuable: false }) => NEW,
        (State::FindingLeftover, Event::LeftoverFound { is_continuable: true }) => {
            let resumed = State::Open(DestinationState::Resumed);
            match terms.role {
                WriterRole::Sole => (&[Do::CheckContinuable, Do::RemoveOtherJournals][..], resumed),
                WriterRole::Leader | WriterRole::Follower(_) => {
                    (&[Do::CheckContinuable][..], resumed)
                }
            }
        }
        _ => return None,
    })
}

#[test]
fn every_state_takes_every_event_or_cannot_have_it() {
    let roles = [WriterRole::Sole, WriterRole::Leader, WriterRole::Follower(7)];
    let mut possible = 0;
    for (role, conditions) in roles.into_iter().flat_map(|role| (0..4).map(move |it| (role, it))) {
        let terms =
            WriterTerms { role, resumes: conditions & 1 != 0, overwrite: conditions & 2 != 0 };
        for (state, event) in STATES.into_iter().flat_map(|it| EVENTS.map(|event| (it, event))) {
            let taken = step(terms, state, event).map(|step| (step.actions, step.next));
            assert_eq!(taken, expected(terms, state, event), "{terms:?} {state:?} {event:?}");
            possible += usize::from(taken.is_some());
        }
    }
    assert_eq!(possible, 12 * 13, "each event has one state that it can come in");
}

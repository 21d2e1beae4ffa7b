//! The table of all transitions, and what must hold for every life of a destination.

use super::*;

/// One line a transition: role, state, event, next state, actions. A pair that is not here is
/// impossible.
const TABLE: &str = include_str!("destination_table.txt");

const ROLES: [(&str, WriterRole); 3] = [
    ("Sole", WriterRole::Sole),
    ("Leader", WriterRole::Leader),
    ("Follower", WriterRole::Follower(7)),
];

const STATES: [DestinationState; 17] = [
    DestinationState::Fresh,
    DestinationState::Resumed,
    DestinationState::Replacing,
    DestinationState::Complete,
    DestinationState::Joined,
    DestinationState::JoinedComplete,
    DestinationState::Writing,
    DestinationState::Forgotten,
    DestinationState::Written,
    DestinationState::Committed,
    DestinationState::Confirmed,
    DestinationState::Releasing,
    DestinationState::Kept,
    DestinationState::Removed,
    DestinationState::RegionMade,
    DestinationState::RegionFound,
    DestinationState::Null,
];

const PLAIN_EVENTS: [(&str, DestinationEvent); 9] = [
    ("MakeRoom", DestinationEvent::MakeRoom),
    ("Begin(whole)", DestinationEvent::Begin { is_whole: true }),
    ("Begin(part)", DestinationEvent::Begin { is_whole: false }),
    ("Forget", DestinationEvent::Forget),
    ("Commit", DestinationEvent::Commit),
    ("NameRefused", DestinationEvent::NameRefused),
    ("Confirm", DestinationEvent::Confirm),
    ("Discard", DestinationEvent::Discard),
    ("Depart", DestinationEvent::Depart),
];

fn terms(role: WriterRole, overwrite: bool) -> WriterTerms {
    WriterTerms { role, resumes: true, overwrite }
}

/// All that can be found when a destination is given up.
fn remains() -> impl Iterator<Item = Remains> {
    (0..16_u8).map(|bits| Remains {
        is_ours: bits & 8 != 0,
        is_recorded: bits & 4 != 0,
        is_last: bits & 2 != 0,
        is_recorded_by_any: bits & 1 != 0,
    })
}

fn events() -> Vec<(String, DestinationEvent)> {
    let plain = PLAIN_EVENTS.iter().map(|(name, event)| ((*name).to_owned(), *event));
    let name = |it: Remains| {
        let words = [
            (it.is_ours, "ours"),
            (it.is_recorded, "recorded"),
            (it.is_last, "last"),
            (it.is_recorded_by_any, "any"),
        ];
        let found: Vec<&str> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        format!("Weighed({})", found.join(","))
    };
    plain.chain(remains().map(|it| (name(it), DestinationEvent::Weighed(it)))).collect()
}

fn line(role: &str, state: DestinationState, event: &str, step: &DestinationStep) -> String {
    let actions: Vec<String> = step.actions.iter().map(|it| format!("{it:?}")).collect();
    let then = if step.then.is_some() { " then it again" } else { "" };
    format!("{role} {state:?} {event} -> {:?}: {}{then}", step.next, actions.join(" "))
        .trim_end()
        .to_owned()
}

#[test]
fn every_state_takes_every_event_as_the_table_says_or_cannot_have_it() {
    let mut lines = Vec::new();
    for (role_name, role) in ROLES {
        for state in STATES {
            for (event_name, event) in events() {
                let plain = step(terms(role, false), state, event);
                lines.extend(plain.map(|step| line(role_name, state, &event_name, &step)));
                let over = step(terms(role, true), state, event);
                if over != plain {
                    let step = over.expect("--overwrite forbids no event");
                    lines.push(line(role_name, state, &format!("{event_name}+overwrite"), &step));
                }
            }
        }
    }
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let told: Vec<String> = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(squeeze)
        .collect();
    for (told, is) in told.iter().zip(&lines) {
        assert_eq!(told, is, "the table's line, and what the code does");
    }
    assert_eq!(told.len(), lines.len(), "{:#?}", lines.get(told.len()));
}

/// States that a destination can be given, by [`super::super::opening`] or by its kind.
const FIRST: [(WriterRole, &[DestinationState]); 3] = [
    (
        WriterRole::Sole,
        &[
            DestinationState::Fresh,
            DestinationState::Resumed,
            DestinationState::Replacing,
            DestinationState::Complete,
            DestinationState::RegionMade,
            DestinationState::RegionFound,
            DestinationState::Null,
        ],
    ),
    (
        WriterRole::Leader,
        &[
            DestinationState::Fresh,
            DestinationState::Resumed,
            DestinationState::Replacing,
            DestinationState::Complete,
        ],
    ),
    (WriterRole::Follower(7), &[DestinationState::Joined, DestinationState::JoinedComplete]),
];

/// Every state that a destination can come to.
fn reachable(terms: WriterTerms) -> Vec<DestinationState> {
    let (_, first) = FIRST.iter().find(|(role, _)| *role == terms.role).expect("three roles");
    let mut found = first.to_vec();
    let mut at = 0;
    while let Some(&state) = found.get(at) {
        at += 1;
        for (_, event) in events() {
            let next = step(terms, state, event).map(|step| step.next);
            found.extend(next.filter(|next| !found.contains(next)).into_iter().collect::<Vec<_>>());
        }
    }
    found
}

/// The three roles, with and without `--overwrite`.
fn all_terms() -> impl Iterator<Item = WriterTerms> {
    ROLES.into_iter().flat_map(|(_, role)| [false, true].map(|overwrite| terms(role, overwrite)))
}

#[test]
fn every_state_but_those_of_other_roles_is_reached_and_can_be_given_up() {
    let mut all: Vec<DestinationState> = Vec::new();
    for terms in all_terms() {
        for state in reachable(terms) {
            all.push(state);
            let role = terms.role;
            if state == DestinationState::Releasing {
                assert!(remains().all(|it| step(terms, state, Event::Weighed(it)).is_some()));
                continue;
            }
            let given_up = step(terms, state, Event::Discard).expect("it can always be dropped");
            match given_up.next {
                State::Releasing => {
                    assert_eq!(given_up.actions.last(), Some(&Do::Weigh), "{state:?}");
                }
                State::Kept | State::Removed | State::Committed | State::Confirmed => {}
                next => panic!("{role:?} {state:?} is still {next:?} after it was given up"),
            }
            // A good-bye is never in the way, and the end of a transfer never comes too often.
            assert!(step(terms, state, Event::Confirm).is_some(), "{role:?} {state:?}");
            assert!(step(terms, state, Event::Forget).is_some(), "{role:?} {state:?}");
        }
    }
    assert!(STATES.iter().all(|state| all.contains(state)), "{all:?}");
}

/// A complete file is read, and its journal may go: nothing else happens to it.
#[test]
fn nothing_writes_to_a_complete_file_or_takes_its_name_away() {
    let harmless = [
        Do::WriteToken,
        Do::RemoveToken,
        Do::CreateBeside,
        Do::RefuseComplete,
        Do::ForgetJournal,
        Do::Grow,
        Do::Sync,
        Do::CheckName,
        Do::RemoveJournal,
    ];
    let named = [Do::ForgetJournal, Do::RemoveJournal, Do::RemoveConfirmedJournals];
    for terms in all_terms() {
        for (_, event) in events() {
            for state in [State::Complete, State::JoinedComplete] {
                let step = step(terms, state, event);
                let actions = step.map_or(&[][..], |step| step.actions);
                assert!(actions.iter().all(|it| harmless.contains(it)), "{state:?} {actions:?}");
            }
            for state in [State::Committed, State::Confirmed] {
                let step = step(terms, state, event);
                let actions = step.map_or(&[][..], |step| step.actions);
                assert!(actions.iter().all(|it| named.contains(it)), "{state:?} {actions:?}");
            }
        }
    }
}

#[test]
fn only_a_node_that_sees_the_leaders_token_follows() {
    for (_, role) in ROLES {
        assert_eq!(role.seeing_token(true), role);
    }
    assert_eq!(WriterRole::Follower(7).seeing_token(false), WriterRole::Sole);
    assert_eq!(WriterRole::Leader.seeing_token(false), WriterRole::Leader);
}

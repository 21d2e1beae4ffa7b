//! Tables of what a member does.

use super::*;

fn member() -> Member {
    Member::new(Terms { grid: Grid::new(0, 10), method: Method::None, rails: 1 })
}

fn actions(member: &mut Member) -> Vec<Action> {
    std::iter::from_fn(|| member.poll_action()).collect()
}

fn cancel() -> Event {
    Event::Master(ToNode::Cancel { reason: "another node failed".into() })
}

fn prepared() -> Event {
    Event::Prepared(Ok(Prepared { rows: Vec::new(), holes: Vec::new(), error: None }))
}

#[test]
fn a_partial_file_that_was_being_made_when_the_transfer_failed_is_removed() {
    let mut member = member();
    member.handle(Moment(0), cancel());
    assert_eq!(actions(&mut member), [], "the worker still makes it");
    member.handle(Moment(1), prepared());
    let done = actions(&mut member);
    assert_eq!(done.first(), Some(&Action::Discard));
    assert!(matches!(done[1], Action::Tell(ToMaster::Report(_))), "{done:?}");
    assert_eq!(done.last(), Some(&Action::End));
    assert_eq!(member.state(), State::Ended);
}

#[test]
fn a_sender_says_good_bye_when_it_is_asked_to() {
    let mut member = member();
    member.handle(Moment(0), prepared());
    assert!(matches!(actions(&mut member)[..], [Action::Tell(ToMaster::Prepared(_))]));
    member.handle(Moment(1), Event::Master(ToNode::Finish));
    assert!(matches!(actions(&mut member)[..], [Action::Discard, Action::Tell(ToMaster::Report(_)), Action::End]));
}

#[test]
fn what_was_over_before_it_began_lands_and_is_committed() {
    let mut member = member();
    member.handle(Moment(0), prepared());
    let start = Start { epoch: 1, peers: Vec::new(), segments: Vec::new(), holes: Vec::new() };
    member.handle(Moment(1), Event::Master(ToNode::Start(start)));
    member.handle(Moment(2), Event::Preallocated(Ok(())));
    actions(&mut member);
    assert_eq!(member.state(), State::Draining);
    member.handle(Moment(3), Event::Drained);
    assert_eq!(actions(&mut member), [Action::Commit { landed_everywhere: false }]);
    member.handle(Moment(4), Event::Committed(Ok(())));
    assert!(matches!(actions(&mut member)[..], [Action::Tell(ToMaster::Landed { .. })]));
}

#[test]
fn in_every_state_a_cancel_leads_to_the_end_without_a_commit() {
    let start = Start { epoch: 1, peers: Vec::new(), segments: Vec::new(), holes: Vec::new() };
    let steps = [prepared(), Event::Master(ToNode::Start(start))];
    for before in 0..=steps.len() {
        let mut member = member();
        for step in &steps[..before] {
            member.handle(Moment(0), step.clone());
        }
        member.handle(Moment(1), cancel());
        member.handle(Moment(2), prepared());
        let done = actions(&mut member);
        assert_eq!(done.last(), Some(&Action::End), "after {before} steps");
        assert!(!done.iter().any(|action| matches!(action, Action::Commit { .. })), "{done:?}");
    }
}

//! Tables of what a member does.

use super::*;
use crate::engine::Grid;
use crate::engine::check::Method;
use crate::wire::control::{Peer, PlanSegment, Share};

fn member() -> Member {
    Member::new(Terms {
        grid: Grid::new(0, 10),
        method: Method::None,
        rails: 1,
        pace: false,
        fsync: false,
        verify: false,
    })
}

fn actions(member: &mut Member) -> Vec<Action> {
    std::iter::from_fn(|| member.poll_action()).collect()
}

fn cancel() -> Event {
    Event::Master(ToNode::Cancel { reason: "another node failed".into(), forgets: false })
}

fn start() -> Start {
    let (peers, segments, holes) = (Vec::new(), Vec::new(), Vec::new());
    Start {
        epoch: 1,
        peers,
        segments,
        holes,
        limit_bytes_per_second: 0,
        bound_us: 0,
        relays: vec![],
        kept: vec![],
        origins: vec![],
        forgets: false,
        modes: vec![],
    }
}

fn prepared() -> Event {
    Event::Prepared(Ok(Prepared { rows: Vec::new(), ..Prepared::default() }))
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
    assert!(matches!(
        actions(&mut member)[..],
        [Action::Discard, Action::Tell(ToMaster::Report(_)), Action::End]
    ));
}

#[test]
fn what_was_over_before_it_began_lands_and_is_committed() {
    let mut member = member();
    member.handle(Moment(0), prepared());
    member.handle(Moment(1), Event::Master(ToNode::Start(start())));
    member.handle(Moment(2), Event::Preallocated(Ok(())));
    actions(&mut member);
    assert_eq!(member.state(), State::Draining);
    member.handle(Moment(3), Event::Drained);
    assert_eq!(actions(&mut member), [Action::Commit { landed_everywhere: false, checks: vec![] }]);
    member.handle(Moment(4), Event::Committed(Ok(())));
    assert!(matches!(actions(&mut member)[..], [Action::Tell(ToMaster::Landed { .. })]));
}

#[test]
fn in_every_state_a_cancel_leads_to_the_end_without_a_commit() {
    let steps = [prepared(), Event::Master(ToNode::Start(start()))];
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

/// A plan of pieces without end made a receiver ask for more memory than there is.
#[test]
fn a_plan_of_too_many_pieces_is_refused() {
    let mut member = Member::new(Terms {
        grid: Grid::new(0, 1),
        method: Method::None,
        rails: 1,
        pace: false,
        fsync: false,
        verify: false,
    });
    member.handle(Moment(0), prepared());
    let segments = vec![PlanSegment {
        span: Span::new(0, u64::MAX),
        senders: vec![Share { index: 0, weight: 1 }],
    }];
    member.handle(Moment(1), Event::Master(ToNode::Start(Start { segments, ..start() })));
    assert_eq!(actions(&mut member).last(), Some(&Action::Drain));
    member.handle(Moment(2), Event::Drained);
    assert_eq!(failure(&mut member), Code::Usage);
}

#[test]
fn a_plan_off_the_grid_of_its_object_is_refused() {
    let method = Method::Blake3(Some(Span::new(0, 8192)));
    for (span, is_followed) in [
        (Span::new(0, 8192), true),
        (Span::new(0, 8193), false),
        (Span::new(1, 4096), false),
        (Span::new(1024, 4096), false),
    ] {
        let mut member = Member::new(Terms {
            grid: Grid::new(0, 4096),
            method,
            rails: 1,
            pace: false,
            fsync: false,
            verify: false,
        });
        member.handle(Moment(0), prepared());
        let segments = vec![PlanSegment { span, senders: vec![Share { index: 0, weight: 1 }] }];
        member.handle(Moment(1), Event::Master(ToNode::Start(Start { segments, ..start() })));
        assert_eq!(member.state() == State::Starting, is_followed, "{span}");
    }
}

/// It was followed, into files that had no room for what the first plan did not speak of.
#[test]
fn a_newer_plan_for_other_bytes_is_refused_also_before_the_first_has_begun() {
    let mut member = member();
    let plan = |end: u64, epoch: u32| {
        let segments = vec![PlanSegment {
            span: Span::new(0, end),
            senders: vec![Share { index: 0, weight: 1 }],
        }];
        Event::Master(ToNode::Start(Start { segments, epoch, ..start() }))
    };
    member.handle(Moment(0), prepared());
    member.handle(Moment(1), plan(100, 1));
    member.handle(Moment(2), plan(100, 2));
    assert_eq!(member.state(), State::Starting);
    member.handle(Moment(3), plan(101, 3));
    assert_eq!(actions(&mut member).last(), Some(&Action::Drain));
    member.handle(Moment(4), Event::Drained);
    assert_eq!(failure(&mut member), Code::Internal);
}

#[test]
fn who_fails_by_itself_says_what_it_had_and_what_that_cost() {
    let mut member = member();
    member.handle(Moment(0), prepared());
    member.handle(Moment(1), Event::Master(ToNode::Start(eighty_megabytes([1, 1]))));
    member.handle(Moment(2), Event::Preallocated(Ok(())));
    member.handle(Moment(3), Event::Broken(Error::new(Code::Data, "the disk is full")));
    actions(&mut member);
    member.handle(Moment(4), Event::Drained);
    let done = actions(&mut member);
    let [
        Action::Tell(ToMaster::Progress { .. }),
        Action::Discard,
        Action::Tell(ToMaster::Failed { error, stats }),
        ..,
    ] = &done[..]
    else {
        panic!("{done:?}")
    };
    assert!(error.code == Code::Data && stats.is_some(), "{done:?}");
}

/// The rails could not take its files in, and it waited for a start, and its master for bytes,
/// until somebody gave up.
#[test]
fn a_node_whose_rails_cannot_take_its_files_in_says_so_at_once() {
    let broken = || Event::Broken(Error::new(Code::Data, "too many open files"));
    let mut ready = member();
    ready.handle(Moment(0), prepared());
    ready.handle(Moment(1), broken());
    assert_eq!(ready.state(), State::Ended);
    assert_eq!(failure(&mut ready), Code::Data);
    let mut starting = member();
    starting.handle(Moment(0), prepared());
    starting.handle(Moment(1), Event::Master(ToNode::Start(eighty_megabytes([1, 1]))));
    starting.handle(Moment(2), broken());
    assert_eq!(starting.state(), State::Starting, "a worker still makes room");
    starting.handle(Moment(3), Event::Preallocated(Ok(())));
    starting.handle(Moment(4), Event::Drained);
    assert_eq!(failure(&mut starting), Code::Data);
    assert_eq!(starting.state(), State::Ended);
}

fn failure(member: &mut Member) -> Code {
    let told = actions(member).into_iter().find_map(|action| match action {
        Action::Tell(ToMaster::Failed { error, .. }) => Some(error.code),
        _ => None,
    });
    told.expect("the master hears why")
}

/// 80 MB of two senders with these weights.
fn eighty_megabytes(weights: [u32; 2]) -> Start {
    let rails = vec!["10.0.0.1:1".parse().expect("an address")];
    let peers = ["a", "b"].into_iter().zip(0..);
    let peer = |(name, index): (&str, u32)| Peer {
        index,
        name: name.into(),
        rails: rails.clone(),
        relays: false,
    };
    let peers = peers.map(peer).collect();
    let senders = (0..).zip(weights).map(|(index, weight)| Share { index, weight }).collect();
    let segments = vec![PlanSegment { span: Span::new(0, 80_000_000), senders }];
    Start { peers, segments, ..start() }
}

/// Every flow that a member with so many rails opens by `plan`: to whom, on which lane, and at
/// which pace.
fn paces(rails: u32, pace: bool, plan: Start) -> Vec<(u32, u32, u64)> {
    let mut member = Member::new(Terms {
        grid: Grid::new(0, 1000),
        method: Method::None,
        rails,
        pace,
        fsync: false,
        verify: false,
    });
    member.handle(Moment(0), prepared());
    member.handle(Moment(1), Event::Master(ToNode::Start(plan)));
    member.handle(Moment(2), Event::Preallocated(Ok(())));
    let paces = actions(&mut member).into_iter().filter_map(|action| match action {
        Action::Open { lane, pace_bytes_per_second, .. } => {
            Some((lane.sender.0, lane.index, pace_bytes_per_second))
        }
        _ => None,
    });
    paces.collect()
}

#[test]
fn receivers_that_feed_each_other_keep_in_step() {
    let plan = |weights| Start {
        bound_us: 2_000_000,
        relays: vec![Span::new(0, 10)],
        ..eighty_megabytes(weights)
    };
    assert_eq!(paces(1, false, plan([3, 1])), [(0, 0, 37_500_000), (1, 0, 12_500_000)]);
    let uneven = [(0, 0, 50_000_000), (0, 1, 50_000_000)];
    assert_eq!(paces(2, false, plan([1, 0]))[..2], uneven, "one lane of two may have to carry all");
    let stands_in = paces(1, false, plan([1, 0])).into_iter().find(|(sender, ..)| *sender == 1);
    assert_eq!(stands_in.map_or(0, |(.., pace)| pace), 0, "for whom nothing is planned");
}

#[test]
fn a_paced_flow_is_told_what_the_plan_wants_of_it_and_a_tenth_more() {
    let paced = |pace: bool, limit_bytes_per_second: u64, bound_us: u64| {
        paces(2, pace, Start { limit_bytes_per_second, bound_us, ..eighty_megabytes([3, 1]) })
    };
    // 60 MB of the first and 20 MB of the second in two seconds, over two lanes each.
    let planned = [(0, 0, 16_500_000), (0, 1, 16_500_000), (1, 0, 5_500_000), (1, 1, 5_500_000)];
    assert_eq!(paced(true, 0, 2_000_000), planned);
    let limited = [(0, 0, 4_125_000), (0, 1, 4_125_000), (1, 0, 1_375_000), (1, 1, 1_375_000)];
    assert_eq!(paced(true, 10_000_000, 2_000_000), limited);
    assert!(
        paced(true, 0, 0)
            .iter()
            .chain(&paced(false, 10_000_000, 2_000_000))
            .all(|&(.., pace)| pace == 0)
    );
}

//! Tables of what a participant does.

use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::error::Code;
use crate::core::node::participant::*;
use crate::core::options::TransferOptions;
use crate::core::wire::control::{PeerNode, PlanSegment, SenderShare};

fn participant() -> Participant {
    Participant::new(ParticipantConfig {
        grid: BlockGrid::new(0, 10),
        method: CheckMethod::None,
        rails: 1,
        options: TransferOptions::default(),
    })
}

fn actions(participant: &mut Participant) -> Vec<ParticipantAction> {
    std::iter::from_fn(|| participant.poll_action()).collect()
}

fn cancel() -> ParticipantEvent {
    ParticipantEvent::Master(ToNode::Cancel {
        reason: "another node failed".into(),
        forgets: false,
    })
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
        more_at: None,
    }
}

fn prepared() -> ParticipantEvent {
    ParticipantEvent::Prepared(Ok(Prepared { rows: Vec::new(), ..Prepared::default() }))
}

#[test]
fn a_partial_file_that_was_being_made_when_the_transfer_failed_is_removed() {
    let mut participant = participant();
    participant.handle(Moment(0), cancel());
    assert_eq!(actions(&mut participant), [], "the worker still makes it");
    participant.handle(Moment(1), prepared());
    let done = actions(&mut participant);
    assert_eq!(done.first(), Some(&ParticipantAction::Discard));
    assert!(matches!(done[1], ParticipantAction::Tell(ToMaster::Report(_))), "{done:?}");
    assert_eq!(done.last(), Some(&ParticipantAction::End));
    assert_eq!(participant.state(), ParticipantState::Ended);
}

#[test]
fn a_sender_says_good_bye_when_it_is_asked_to() {
    let mut participant = participant();
    participant.handle(Moment(0), prepared());
    assert!(matches!(
        actions(&mut participant)[..],
        [ParticipantAction::Tell(ToMaster::Prepared(_))]
    ));
    participant.handle(Moment(1), ParticipantEvent::Master(ToNode::Finish));
    assert!(matches!(
        actions(&mut participant)[..],
        [
            ParticipantAction::Discard,
            ParticipantAction::Tell(ToMaster::Report(_)),
            ParticipantAction::End
        ]
    ));
}

#[test]
fn what_was_over_before_it_began_lands_and_is_committed() {
    let mut participant = participant();
    participant.handle(Moment(0), prepared());
    participant.handle(Moment(1), ParticipantEvent::Master(ToNode::Start(start())));
    participant.handle(Moment(2), ParticipantEvent::Preallocated(Ok(())));
    actions(&mut participant);
    assert_eq!(participant.state(), ParticipantState::Draining);
    participant.handle(Moment(3), ParticipantEvent::Drained);
    assert_eq!(
        actions(&mut participant),
        [ParticipantAction::Commit { landed_everywhere: false, checks: vec![] }]
    );
    participant.handle(Moment(4), ParticipantEvent::Committed(Ok(())));
    assert!(matches!(
        actions(&mut participant)[..],
        [ParticipantAction::Tell(ToMaster::Landed { .. })]
    ));
}

#[test]
fn in_every_state_a_cancel_leads_to_the_end_without_a_commit() {
    let steps = [prepared(), ParticipantEvent::Master(ToNode::Start(start()))];
    for before in 0..=steps.len() {
        let mut participant = participant();
        for step in &steps[..before] {
            participant.handle(Moment(0), step.clone());
        }
        participant.handle(Moment(1), cancel());
        participant.handle(Moment(2), prepared());
        let done = actions(&mut participant);
        assert_eq!(done.last(), Some(&ParticipantAction::End), "after {before} steps");
        assert!(
            !done.iter().any(|action| matches!(action, ParticipantAction::Commit { .. })),
            "{done:?}"
        );
    }
}

/// A plan of pieces without end made a receiver ask for more memory than there is.
#[test]
fn a_plan_of_too_many_pieces_is_refused() {
    let mut participant = Participant::new(ParticipantConfig {
        grid: BlockGrid::new(0, 1),
        method: CheckMethod::None,
        rails: 1,
        options: TransferOptions::default(),
    });
    participant.handle(Moment(0), prepared());
    let segments = vec![PlanSegment {
        span: Span::new(0, u64::MAX),
        senders: vec![SenderShare { index: 0, weight: 1 }],
    }];
    participant
        .handle(Moment(1), ParticipantEvent::Master(ToNode::Start(Start { segments, ..start() })));
    assert_eq!(actions(&mut participant).last(), Some(&ParticipantAction::Drain));
    participant.handle(Moment(2), ParticipantEvent::Drained);
    assert_eq!(failure(&mut participant), Code::Usage);
}

#[test]
fn a_plan_off_the_grid_of_its_object_is_refused() {
    let method = CheckMethod::Blake3(Some(Span::new(0, 8192)));
    for (span, is_followed) in [
        (Span::new(0, 8192), true),
        (Span::new(0, 8193), false),
        (Span::new(1, 4096), false),
        (Span::new(1024, 4096), false),
    ] {
        let mut participant = Participant::new(ParticipantConfig {
            grid: BlockGrid::new(0, 4096),
            method,
            rails: 1,
            options: TransferOptions::default(),
        });
        participant.handle(Moment(0), prepared());
        let segments =
            vec![PlanSegment { span, senders: vec![SenderShare { index: 0, weight: 1 }] }];
        participant.handle(
            Moment(1),
            ParticipantEvent::Master(ToNode::Start(Start { segments, ..start() })),
        );
        assert_eq!(participant.state() == ParticipantState::Starting, is_followed, "{span}");
    }
}

/// A plan of these ranges of one sender, of which more may come if there is a `more_at`.
fn plan(epoch: u32, ranges: &[(u64, u64)], more_at: Option<u64>) -> ParticipantEvent {
    let segment = |&(start, end): &(u64, u64)| PlanSegment {
        span: Span::new(start, end),
        senders: vec![SenderShare { index: 0, weight: 1 }],
    };
    let segments = ranges.iter().map(segment).collect();
    ParticipantEvent::Master(ToNode::Start(Start { segments, epoch, more_at, ..start() }))
}

fn extensions(participant: &mut Participant) -> Vec<Vec<Span>> {
    let wanted = actions(participant).into_iter().filter_map(|action| match action {
        ParticipantAction::Extend { wanted, .. } => Some(wanted),
        _ => None,
    });
    wanted.collect()
}

#[test]
fn further_segments_wait_for_their_room_and_the_end_for_the_last_plan() {
    let mut participant = participant();
    participant.handle(Moment(0), prepared());
    participant.handle(Moment(1), plan(1, &[], Some(0)));
    participant.handle(Moment(2), ParticipantEvent::Preallocated(Ok(())));
    let first = actions(&mut participant);
    assert_eq!(participant.state(), ParticipantState::Moving, "more may come");
    let asks =
        |it: &ParticipantAction| matches!(it, ParticipantAction::Tell(ToMaster::Progress { .. }));
    assert_eq!(first.iter().filter(|it| asks(it)).count(), 1, "it has nothing to do: {first:?}");
    participant.handle(Moment(3), plan(2, &[(0, 100)], Some(0)));
    assert_eq!(extensions(&mut participant), [vec![Span::new(0, 100)]]);
    participant.handle(Moment(4), plan(3, &[(0, 100), (200, 300)], Some(0)));
    participant.handle(Moment(5), plan(4, &[(0, 100), (200, 300), (300, 310)], None));
    assert_eq!(extensions(&mut participant), Vec::<Vec<Span>>::new(), "a worker is at work");
    participant.handle(Moment(6), ParticipantEvent::Extended(Ok(())));
    assert_eq!(extensions(&mut participant), [vec![Span::new(200, 310)]]);
    participant.handle(Moment(7), ParticipantEvent::Extended(Ok(())));
    assert_eq!(participant.state(), ParticipantState::Moving);
    participant.handle(Moment(8), plan(5, &[(0, 100), (200, 300), (300, 310), (400, 401)], None));
    participant.handle(Moment(9), ParticipantEvent::Drained);
    assert_eq!(failure(&mut participant), Code::Internal, "that was the last");
}

#[test]
fn what_a_member_owns_and_has_no_room_for_is_missing_when_it_ends() {
    let mut participant = participant();
    participant.handle(Moment(0), prepared());
    participant.handle(Moment(1), plan(1, &[(0, 100)], Some(0)));
    participant.handle(Moment(2), plan(2, &[(0, 100), (200, 300)], Some(0)));
    participant.handle(Moment(3), ParticipantEvent::Preallocated(Ok(())));
    assert_eq!(extensions(&mut participant), [vec![Span::new(200, 300)]]);
    let full = Error::new(Code::Data, "the disk is full");
    participant.handle(Moment(4), ParticipantEvent::Extended(Err(full)));
    participant.handle(Moment(5), ParticipantEvent::Drained);
    let missing = actions(&mut participant).into_iter().find_map(|action| match action {
        ParticipantAction::Tell(ToMaster::Failed { error, .. }) => Some(error.missing),
        _ => None,
    });
    assert_eq!(missing, Some(vec![Span::new(0, 100), Span::new(200, 300)]));
}

/// It was followed, into files that had no room for what the first plan did not speak of.
#[test]
fn a_newer_plan_for_other_bytes_is_refused_also_before_the_first_has_begun() {
    let mut participant = participant();
    let plan = |end: u64, epoch: u32| {
        let segments = vec![PlanSegment {
            span: Span::new(0, end),
            senders: vec![SenderShare { index: 0, weight: 1 }],
        }];
        ParticipantEvent::Master(ToNode::Start(Start { segments, epoch, ..start() }))
    };
    participant.handle(Moment(0), prepared());
    participant.handle(Moment(1), plan(100, 1));
    participant.handle(Moment(2), plan(100, 2));
    assert_eq!(participant.state(), ParticipantState::Starting);
    participant.handle(Moment(3), plan(101, 3));
    assert_eq!(actions(&mut participant).last(), Some(&ParticipantAction::Drain));
    participant.handle(Moment(4), ParticipantEvent::Drained);
    assert_eq!(failure(&mut participant), Code::Internal);
}

#[test]
fn who_fails_by_itself_says_what_it_had_and_what_that_cost() {
    let mut participant = participant();
    participant.handle(Moment(0), prepared());
    participant
        .handle(Moment(1), ParticipantEvent::Master(ToNode::Start(eighty_megabytes([1, 1]))));
    participant.handle(Moment(2), ParticipantEvent::Preallocated(Ok(())));
    participant
        .handle(Moment(3), ParticipantEvent::Broken(Error::new(Code::Data, "the disk is full")));
    actions(&mut participant);
    participant.handle(Moment(4), ParticipantEvent::Drained);
    let done = actions(&mut participant);
    let [
        ParticipantAction::Tell(ToMaster::Progress { .. }),
        ParticipantAction::Discard,
        ParticipantAction::Tell(ToMaster::Failed { error, stats }),
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
    let broken = || ParticipantEvent::Broken(Error::new(Code::Data, "too many open files"));
    let mut ready = participant();
    ready.handle(Moment(0), prepared());
    ready.handle(Moment(1), broken());
    assert_eq!(ready.state(), ParticipantState::Ended);
    assert_eq!(failure(&mut ready), Code::Data);
    let mut starting = participant();
    starting.handle(Moment(0), prepared());
    starting.handle(Moment(1), ParticipantEvent::Master(ToNode::Start(eighty_megabytes([1, 1]))));
    starting.handle(Moment(2), broken());
    assert_eq!(starting.state(), ParticipantState::Starting, "a worker still makes room");
    starting.handle(Moment(3), ParticipantEvent::Preallocated(Ok(())));
    starting.handle(Moment(4), ParticipantEvent::Drained);
    assert_eq!(failure(&mut starting), Code::Data);
    assert_eq!(starting.state(), ParticipantState::Ended);
}

fn failure(participant: &mut Participant) -> Code {
    let told = actions(participant).into_iter().find_map(|action| match action {
        ParticipantAction::Tell(ToMaster::Failed { error, .. }) => Some(error.code),
        _ => None,
    });
    told.expect("the master hears why")
}

/// 80 MB of two senders with these weights.
fn eighty_megabytes(weights: [u32; 2]) -> Start {
    let rails = vec!["10.0.0.1:1".parse().expect("an address")];
    let peers = ["a", "b"].into_iter().zip(0..);
    let peer = |(name, index): (&str, u32)| PeerNode {
        index,
        name: name.into(),
        rails: rails.clone(),
        relays: false,
        channel: None,
    };
    let peers = peers.map(peer).collect();
    let senders = (0..).zip(weights).map(|(index, weight)| SenderShare { index, weight }).collect();
    let segments = vec![PlanSegment { span: Span::new(0, 80_000_000), senders }];
    Start { peers, segments, ..start() }
}

/// Every flow that a participant with so many rails opens by `plan`: to whom, on which rail pair,
/// and at which pace.
fn paces(rails: u32, plan: Start) -> Vec<(u32, u32, u64)> {
    let mut participant = Participant::new(ParticipantConfig {
        grid: BlockGrid::new(0, 1000),
        method: CheckMethod::None,
        rails,
        options: TransferOptions::default(),
    });
    participant.handle(Moment(0), prepared());
    participant.handle(Moment(1), ParticipantEvent::Master(ToNode::Start(plan)));
    participant.handle(Moment(2), ParticipantEvent::Preallocated(Ok(())));
    let paces = actions(&mut participant).into_iter().filter_map(|action| match action {
        ParticipantAction::Open { rail_pair, pace_bytes_per_second, .. } => {
            Some((rail_pair.sender.0, rail_pair.index, pace_bytes_per_second))
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
    assert_eq!(paces(1, plan([3, 1])), [(0, 0, 37_500_000), (1, 0, 12_500_000)]);
    let uneven = [(0, 0, 50_000_000), (0, 1, 50_000_000)];
    assert_eq!(paces(2, plan([1, 0]))[..2], uneven, "one lane of two may have to carry all");
    let stands_in = paces(1, plan([1, 0])).into_iter().find(|(sender, ..)| *sender == 1);
    assert_eq!(stands_in.map_or(0, |(.., pace)| pace), 0, "for whom nothing is planned");
}

#[test]
fn a_paced_flow_keeps_to_the_limit_and_only_relays_are_paced() {
    let paced = |relays: &[Span], limit_bytes_per_second: u64, bound_us: u64| {
        let plan = eighty_megabytes([3, 1]);
        let relays = relays.to_vec();
        paces(1, Start { limit_bytes_per_second, bound_us, relays, ..plan })
    };
    let relays = [Span::new(0, 10)];
    let limited = [(0, 0, 9_375_000), (1, 0, 3_125_000)];
    assert_eq!(paced(&relays, 10_000_000, 2_000_000), limited);
    let unpaced = [paced(&relays, 0, 0), paced(&[], 10_000_000, 2_000_000)];
    assert!(unpaced.iter().flatten().all(|&(.., pace)| pace == 0), "{unpaced:?}");
}

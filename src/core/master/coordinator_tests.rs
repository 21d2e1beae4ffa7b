//! Messages that the master sends, case by case.

use std::time::Duration;

use crate::core::check::replica_hash::value_count;
use crate::core::master::attempt::TransferIdentity;
use crate::core::master::coordinator::*;
use crate::core::options::{Scheduler, TransferOptions};
use crate::core::spec::Spec;
use crate::core::units::{Span, union};
use crate::core::wire::Check;
use crate::core::wire::control::{
    CheckValue, LandedSegment, NodeStats, PlanSegment, RailAdvert, RowState, SegmentChecks,
    SenderDelivery, SpeedSample,
};
use crate::core::wire::limits::{HOLES_MAX, SEGMENTS_MAX};

const NOW: Moment = Moment(1);

fn coordinator(rows: &str) -> Coordinator {
    let spec = Spec::parse("test", &format!("id test\n{rows}")).expect("a specification");
    let roster = Roster::new(&spec);
    let identity = TransferIdentity {
        id: "test".into(),
        transfer: [1; 16],
        attempt: [2; 16],
        flow_key: [3; 32],
    };
    let transfer_options =
        TransferOptions { scheduler: Scheduler::Greedy, ..TransferOptions::default() };
    let terms = AttemptConfig::new(&spec, &roster, identity, transfer_options);
    Coordinator::new(NOW, roster, terms)
}

fn advert() -> NodeAdvert {
    let address = std::net::SocketAddr::from(([10, 0, 0, 1], 40_000));
    let rail = RailAdvert { nic: "eth0".into(), address, line: None, mtu: Some(1500), numa: None };
    NodeAdvert {
        software: "test".into(),
        rails: vec![rail],
        cores: 1,
        boot_id: "a boot".into(),
        incarnation: 1,
    }
}

/// Returns a node's answer. A node whose rows share files with others reports so if `shared` is
/// true.
fn answer(message: &ToNode, shared: bool) -> Option<ToMaster> {
    match message {
        ToNode::Prepare(prepare) => {
            let rows = vec![RowState { shared, ..RowState::default() }; prepare.rows.len()];
            let replicas = vec![1; value_count(&prepare.replicas)];
            Some(ToMaster::Prepared(Prepared { rows, replicas, ..Prepared::default() }))
        }
        ToNode::Start(start) => {
            let landed = |segment: &PlanSegment| {
                let checks = vec![CheckValue { span: segment.span, check: Check::Crc64(1) }];
                LandedSegment { span: segment.span, checks: SegmentChecks::Listed(checks) }
            };
            let segments = start.segments.iter().map(landed).collect();
            Some(ToMaster::Landed {
                segments,
                stats: NodeStats { received_bytes: 7, ..NodeStats::default() },
            })
        }
        ToNode::Commit => Some(ToMaster::Committed),
        ToNode::Finish => {
            Some(ToMaster::Report(NodeStats { sent_bytes: 9, ..NodeStats::default() }))
        }
        ToNode::Cancel { .. }
        | ToNode::Resume(_)
        | ToNode::MakeWay { .. }
        | ToNode::Survey(_)
        | ToNode::Called { .. } => None,
    }
}

/// Messages from and to each node in a transfer without incident.
fn messages(coordinator: &mut Coordinator, shared: bool) -> Vec<usize> {
    let mut counts = vec![0; coordinator.peers().len()];
    for node in coordinator.peers.indices() {
        coordinator.handle(NOW, CoordinatorEvent::NodeUp { node, advert: advert() });
    }
    while let Some(CoordinatorAction { node, message }) = coordinator.poll_action() {
        counts[node.at()] += 1;
        if let Some(message) = answer(&message, shared) {
            counts[node.at()] += 1;
            coordinator.handle(NOW, CoordinatorEvent::Message { node, message });
        }
    }
    assert_eq!(coordinator.phase(), TransferPhase::Done);
    assert_eq!(coordinator.error(), None);
    counts
}

#[test]
fn four_messages_a_node_in_a_transfer_without_incident() {
    let mut coordinator = coordinator(
        "writer a:1 pattern:1 0 0-99\n\
         writer b:1 pattern:1 0 0-199\n\
         reader c:1 null: 0 0-149\n\
         reader d:1 null: 0 0-199",
    );
    assert_eq!(messages(&mut coordinator, false), [4; 4]);
    assert_eq!(coordinator.landed_bytes(), 350);
    let stats: Vec<(u64, u64)> = coordinator
        .peers()
        .iter()
        .map(|peer| (peer.stats().sent_bytes, peer.stats().received_bytes))
        .collect();
    assert_eq!(stats, [(9, 0), (9, 0), (0, 7), (0, 7)]);
}

/// Two members of a group of 100 blocks, once they have their first parts.
fn group_of_two() -> (Coordinator, Vec<(NodeIx, ToNode)>) {
    let mut coordinator = coordinator(
        "option block 4K\nwriter a:1 pattern:1 0 0-409599\n\
         reader b:1 null: 0 0-409599 group=g\nreader c:1 null: 0 0-409599 group=g",
    );
    for node in coordinator.peers.indices() {
        coordinator.handle(NOW, CoordinatorEvent::NodeUp { node, advert: advert() });
    }
    let mut starts = Vec::new();
    while let Some(CoordinatorAction { node, message }) = coordinator.poll_action() {
        match answer(&message, false) {
            Some(prepared @ ToMaster::Prepared(_)) => {
                coordinator.handle(NOW, CoordinatorEvent::Message { node, message: prepared });
            }
            _ => starts.push((node, message)),
        }
    }
    (coordinator, starts)
}

fn wanted(message: &ToNode) -> (u64, Option<u64>) {
    let ToNode::Start(start) = message else { panic!("{message:?}") };
    (start.segments.iter().map(|segment| segment.span.bytes()).sum(), start.more_at)
}

#[test]
fn a_member_gets_more_as_it_lands_what_it_has_and_all_are_told_when_nothing_is_left() {
    let (mut coordinator, starts) = group_of_two();
    let first: Vec<(u64, Option<u64>)> = starts.iter().map(|(_, it)| wanted(it)).collect();
    assert_eq!(first, [(2 * 4096, Some(4096)); 2]);
    // The other member lands nothing, and owns no more than that.
    let (mut owned, mut turns, member) = (2 * 4096, 0, NodeIx(1));
    let last = loop {
        turns += 1;
        let now = NOW + Duration::from_millis(100 * turns);
        let message = progress(owned, owned, false);
        coordinator.handle(now, CoordinatorEvent::Message { node: member, message });
        let told: Vec<CoordinatorAction> =
            std::iter::from_fn(|| coordinator.poll_action()).collect();
        let (bytes, more_at) = wanted(&told[0].message);
        assert!(told[0].node == member && bytes > owned && bytes <= 3 * owned, "{told:?}");
        owned = bytes;
        if more_at.is_none() {
            break told;
        }
        assert_eq!(told.len(), 1, "the other one has no part in it");
    };
    assert_eq!((last.len(), wanted(&last[1].message)), (2, (2 * 4096, None)));
    assert_eq!((owned, coordinator.wanted_bytes()), (98 * 4096, 100 * 4096));
}

/// Nothing that has no owner may be missed at the end.
#[test]
fn a_member_that_ends_before_the_last_part_has_failed() {
    let (mut coordinator, starts) = group_of_two();
    for (node, start) in starts {
        let message = answer(&start, false).expect("it has landed");
        coordinator.handle(NOW, CoordinatorEvent::Message { node, message });
    }
    let error = coordinator.error().expect("most of it has no owner");
    assert_eq!(error.code, Code::Internal);
    assert_eq!(error.missing.iter().map(|it| it.bytes()).sum::<u64>(), 96 * 4096);
    assert!(coordinator.phase() > TransferPhase::Moving);
}

/// It had not heard of its last part when it failed, and did not name it.
#[test]
fn a_member_that_fails_before_it_hears_of_its_last_part_misses_that_too() {
    let (mut coordinator, starts) = group_of_two();
    let message = progress(2 * 4096, 2 * 4096, false);
    let now = NOW + Duration::from_millis(100);
    coordinator.handle(now, CoordinatorEvent::Message { node: NodeIx(1), message });
    let told = coordinator.poll_action().expect("it gets more");
    let ToNode::Start(second) = told.message else { panic!("{told:?}") };
    let failed = |epoch, missing| {
        let error = Error::new(Code::Data, "the disk is full").missing(missing);
        let stats = Some(Box::new(NodeStats { epoch, ..NodeStats::default() }));
        let message = ToMaster::Failed { error, stats };
        CoordinatorEvent::Message { node: NodeIx(1), message }
    };
    let ToNode::Start(first) = &starts[0].1 else { panic!("the first plan") };
    let known = vec![first.segments[0].span];
    coordinator.handle(now, failed(first.epoch, known.clone()));
    let mut wanted: Vec<Span> = second.segments.iter().map(|segment| segment.span).collect();
    wanted.extend(known);
    let (missing, wanted) = (coordinator.error().expect("it failed").missing, union(wanted));
    assert!(wanted.iter().all(|span| missing.iter().any(|it| it.contains(*span))), "{missing:?}");
}

#[test]
fn what_no_member_is_left_for_is_missing() {
    let (mut coordinator, starts) = group_of_two();
    for (node, _) in starts {
        let error = Error::new(Code::Unreachable, "it is gone");
        coordinator.handle(NOW, CoordinatorEvent::NodeDown { node, error });
    }
    let error = coordinator.error().expect("nobody is left");
    assert_eq!((error.code, error.missing), (Code::Unreachable, vec![Span::new(0, 409_600)]));
}

#[test]
fn who_writes_a_shared_file_or_also_sends_is_told_of_the_end() {
    let mut shared = coordinator(
        "writer a:1 pattern:1 0 0-99\nreader c:1 file:///x 0 0-49\nreader d:1 file:///x 50 50-99",
    );
    assert_eq!(
        messages(&mut shared, true),
        [4, 8, 7],
        "the elected commits, too, and the other one makes way first"
    );
    let mut both = coordinator(
        "writer a:1 pattern:1 0 0-99\nreader b:1 null: 0 0-99\nwriter b:1 file:///x 0 0-9",
    );
    assert_eq!(messages(&mut both, false), [4, 6]);
}

#[test]
fn a_part_of_a_plan_that_fits_no_message_is_refused() {
    // Two writers cut the wanted range into more parts than the reader could report.
    let rows: String = (0..SEGMENTS_MAX as u64 + 2)
        .map(|at| format!("writer w{}:1 pattern:1 0 {at}-{at}\n", at % 100))
        .collect();
    let mut coordinator =
        coordinator(&format!("reader r:1 null: 0 0-{}\n{rows}", SEGMENTS_MAX + 1));
    for node in coordinator.peers.indices() {
        coordinator.handle(NOW, CoordinatorEvent::NodeUp { node, advert: advert() });
    }
    while let Some(CoordinatorAction { node, message }) = coordinator.poll_action() {
        assert!(!matches!(message, ToNode::Start(_)), "nobody starts");
        if let Some(message) = answer(&message, false) {
            coordinator.handle(NOW, CoordinatorEvent::Message { node, message });
        }
    }
    let error = coordinator.error().expect("it is refused");
    assert_eq!(error.code, Code::Usage);
    assert!(
        error.message.contains("line 2: the rows cut what r:1 wants into 131074 parts"),
        "{error}"
    );
}

#[test]
fn a_node_at_rest_takes_little_memory() {
    let mut coordinator = coordinator("writer a:1 pattern:1 0 0-99\nreader b:1 null: 0 0-99");
    for node in coordinator.peers.indices() {
        coordinator.handle(NOW, CoordinatorEvent::NodeUp { node, advert: advert() });
    }
    let peer = &coordinator.peers()[0];
    assert_eq!(peer.advert().expect("it was met").rails, advert().rails);
    // Without its session: the limit is 256 bytes together with the session, and `links` tests the
    // latter.
    assert!(peer.bytes() <= 160, "{} bytes", peer.bytes());
}

/// A relay's sent bytes are known only at the end.
#[test]
fn who_feeds_other_receivers_is_told_of_the_end() {
    let mut coordinator = coordinator(
        "writer a:1 pattern:1 0 0-9999999\n\
         reader b:1 file:///x 0 0-9999999\n\
         reader c:1 file:///y 0 0-9999999\n\
         reader d:1 null: 0 0-9999999",
    );
    assert_eq!(messages(&mut coordinator, false), [4, 6, 6, 4]);
    assert_eq!(coordinator.peers()[1].stats().sent_bytes, 9);
}

/// Creates a coordinator whose nodes have all started.
fn moving(rows: &str) -> Coordinator {
    let mut coordinator = coordinator(rows);
    for node in coordinator.peers.indices() {
        coordinator.handle(NOW, CoordinatorEvent::NodeUp { node, advert: advert() });
    }
    while let Some(CoordinatorAction { node, message }) = coordinator.poll_action() {
        if let Some(message) =
            answer(&message, false).filter(|message| !matches!(message, ToMaster::Landed { .. }))
        {
            coordinator.handle(NOW, CoordinatorEvent::Message { node, message });
        }
    }
    assert_eq!(coordinator.phase(), TransferPhase::Moving);
    coordinator
}

#[test]
fn who_gets_on_with_reading_is_waited_for_and_who_does_not_is_not() {
    // A sender compares replicas; a receiver reads the ranges of an earlier attempt.
    for (slow, name) in [(NodeIx(1), "b:1"), (NodeIx(2), "c:1")] {
        reads_while_it_is_waited_for(slow, name);
    }
}

fn reads_while_it_is_waited_for(slow: NodeIx, name: &str) {
    let rows = "writer a:1 file:///x 0 0-99\nwriter b:1 file:///x 0 0-99\nreader c:1 null: 0 0-99";
    let mut coordinator = coordinator(rows);
    for node in coordinator.peers.indices() {
        coordinator.handle(NOW, CoordinatorEvent::NodeUp { node, advert: advert() });
    }
    while let Some(CoordinatorAction { node, message }) = coordinator.poll_action() {
        if let Some(message) = answer(&message, false).filter(|_| node != slow) {
            coordinator.handle(NOW, CoordinatorEvent::Message { node, message });
        }
    }
    let mut due = NOW;
    for read_bytes in [1, 2, 3] {
        let later = coordinator.poll_timeout().expect("a wait has a deadline");
        assert!(later > due);
        due = later;
        let now = Moment(due.0 - 1);
        coordinator.handle(
            now,
            CoordinatorEvent::Message { node: slow, message: ToMaster::Comparing { read_bytes } },
        );
    }
    let due = coordinator.poll_timeout().expect("a wait has a deadline");
    let again = ToMaster::Comparing { read_bytes: 3 };
    coordinator.handle(Moment(due.0 - 1), CoordinatorEvent::Message { node: slow, message: again });
    assert_eq!(coordinator.poll_timeout(), Some(due), "it has read nothing more");
    coordinator.handle(due, CoordinatorEvent::Tick);
    let error = coordinator.error().expect("it hangs");
    assert_eq!(error.code, Code::Stalled);
    assert!(error.message.contains(&format!("{name} did not open")), "{error}");
}

/// Builds a report: `received_bytes` have landed, and node 0 has delivered `bytes`, with more
/// requested if `busy`.
fn progress(received_bytes: u64, bytes: u64, busy: bool) -> ToMaster {
    let delivered = vec![SenderDelivery { index: 0, bytes, busy, sample: SpeedSample::default() }];
    ToMaster::Progress {
        received_bytes,
        sent_bytes: 0,
        delivered,
        left: Vec::new(),
        missing_bytes: 0,
        lost: Vec::new(),
    }
}

/// Returns the time that a transfer takes to end after the last message, if only `answers` respond.
fn good_byes(coordinator: &mut Coordinator, now: Moment, answers: &[u32]) -> Duration {
    assert_eq!(coordinator.phase(), TransferPhase::Finishing);
    for node in answers {
        let message = ToMaster::Report(NodeStats::default());
        coordinator.handle(now, CoordinatorEvent::Message { node: NodeIx(*node), message });
    }
    let mut ended = now;
    while coordinator.phase() != TransferPhase::Done {
        ended = coordinator.poll_timeout().expect("a wait has a deadline");
        coordinator.handle(ended, CoordinatorEvent::Tick);
    }
    ended.since(now)
}

/// Regression: ten seconds more were spent on a node that had been silent for thirty.
#[test]
fn a_receiver_that_is_silent_already_is_not_waited_for_at_the_end() {
    for (is_frozen, seconds) in [(true, 1), (false, 10)] {
        let mut coordinator = moving("writer a:1 pattern:1 0 0-99\nreader b:1 null: 0 0-99");
        coordinator.handle(
            NOW,
            CoordinatorEvent::Message { node: NodeIx(1), message: progress(50, 50, true) },
        );
        let stalled = coordinator.poll_timeout().expect("a wait has a deadline");
        if !is_frozen {
            coordinator.handle(
                stalled,
                CoordinatorEvent::Message { node: NodeIx(1), message: progress(50, 50, true) },
            );
        }
        coordinator.handle(stalled, CoordinatorEvent::Tick);
        assert_eq!(good_byes(&mut coordinator, stalled, &[0]), Duration::from_secs(seconds));
        let error = coordinator.error().expect("it stalled");
        assert_eq!((error.code, error.missing), (Code::Stalled, vec![Span::new(0, 100)]));
    }
}

#[test]
fn a_sender_that_others_have_stood_in_for_is_not_waited_for_at_the_end() {
    for (is_frozen, seconds) in [(true, 1), (false, 10)] {
        let mut coordinator = moving(
            "writer a:1 pattern:1 0 0-99\nwriter b:1 pattern:1 0 0-99\nreader c:1 null: 0 0-99",
        );
        let later = NOW + Duration::from_secs(6);
        coordinator.handle(
            NOW,
            CoordinatorEvent::Message { node: NodeIx(2), message: progress(50, 50, true) },
        );
        coordinator.handle(
            later,
            CoordinatorEvent::Message { node: NodeIx(2), message: progress(50, 50, is_frozen) },
        );
        let start = coordinator.planning.start_of(coordinator.planning_input(), NodeIx(2));
        let message = answer(&ToNode::Start(start), false).expect("it lands");
        coordinator.handle(later, CoordinatorEvent::Message { node: NodeIx(2), message });
        assert_eq!(good_byes(&mut coordinator, later, &[1]), Duration::from_secs(seconds));
        assert_eq!(coordinator.error(), None);
    }
}

/// Regression: it reported no bytes and no NICs.
#[test]
fn a_receiver_that_fails_by_itself_is_in_the_report_with_what_it_did() {
    let mut coordinator = moving("writer a:1 pattern:1 0 0-99\nreader b:1 null: 0 0-99");
    let stats = Some(Box::new(NodeStats { received_bytes: 50, ..NodeStats::default() }));
    let failed = ToMaster::Failed { error: Error::new(Code::Data, "the disk is full"), stats };
    for message in [progress(50, 50, true), failed] {
        coordinator.handle(NOW, CoordinatorEvent::Message { node: NodeIx(1), message });
    }
    assert_eq!(coordinator.error().map(|error| error.code), Some(Code::Data));
    assert_eq!(
        (coordinator.landed_bytes(), coordinator.peers()[1].stats().received_bytes),
        (50, 50)
    );
}

/// Regression: it counted as done, and the transfer as complete.
#[test]
fn a_receiver_that_says_good_bye_before_it_has_landed_has_failed() {
    let mut coordinator =
        moving("writer a:1 pattern:1 0 0-99\nreader b:1 null: 0 0-99\nreader c:1 null: 0 0-99");
    let message = ToMaster::Report(NodeStats::default());
    coordinator.handle(NOW, CoordinatorEvent::Message { node: NodeIx(1), message });
    let error = coordinator.error().expect("it has not landed");
    assert_eq!((error.code, error.missing), (Code::Internal, vec![Span::new(0, 100)]));
    assert!(error.message.starts_with("b:1: it sent its good-bye before"), "{}", error.message);
    assert_eq!(coordinator.phase(), TransferPhase::Moving, "the other one goes on");
}

/// Their sum did not fit.
#[test]
fn nodes_may_say_any_number() {
    let mut coordinator =
        moving("writer a:1 pattern:1 0 0-99\nreader b:1 null: 0 0-99\nreader c:1 null: 0 0-99");
    for node in [1, 2] {
        coordinator.handle(
            NOW,
            CoordinatorEvent::Message {
                node: NodeIx(node),
                message: progress(u64::MAX, u64::MAX, true),
            },
        );
    }
    assert_eq!(coordinator.landed_bytes(), u64::MAX);
    coordinator.handle(
        NOW,
        CoordinatorEvent::Message { node: NodeIx(1), message: progress(50, 50, true) },
    );
    coordinator.handle(
        NOW,
        CoordinatorEvent::Message { node: NodeIx(2), message: progress(50, 50, true) },
    );
    assert_eq!(coordinator.landed_bytes(), 100);
}

/// A disk may take longer to sync than a network may be silent.
#[test]
fn who_has_landed_everything_has_longer_than_the_stall_timeout_to_make_sure_of_it() {
    let mut coordinator = moving("writer a:1 pattern:1 0 0-99\nreader b:1 null: 0 0-99");
    coordinator.handle(
        NOW,
        CoordinatorEvent::Message { node: NodeIx(1), message: progress(100, 100, true) },
    );
    let stalled = coordinator.poll_timeout().expect("a wait has a deadline");
    coordinator.handle(stalled, CoordinatorEvent::Tick);
    assert_eq!(coordinator.error(), None);
    let overdue = coordinator.poll_timeout().expect("a wait has a deadline");
    assert!(overdue > stalled);
    coordinator.handle(overdue, CoordinatorEvent::Tick);
    let error = coordinator.error().expect("not for ever");
    assert!(
        error.message.starts_with("b:1 did not sync or verify what has landed within 600 s"),
        "{error}"
    );
}

/// The holes of two fragmented senders together were more than a receiver could read: it ended its
/// session.
#[test]
fn holes_of_many_sources_are_cut_to_the_largest() {
    let mut coordinator = coordinator(
        "writer a:1 file:///a 0 0-1G\nwriter b:1 file:///b 0 1G-2G\nreader c:1 null: 0 0-2G",
    );
    for node in coordinator.peers.indices() {
        coordinator.handle(NOW, CoordinatorEvent::NodeUp { node, advert: advert() });
    }
    let half = HOLES_MAX as u64 * 3 / 4;
    let holes =
        |first: u64| (0..half).map(|at| Span::of(first + at * 8192, 4096 + at % 2)).collect();
    let mut start = None;
    while let Some(CoordinatorAction { node, message }) = coordinator.poll_action() {
        match &message {
            ToNode::Start(told) => start = Some(told.clone()),
            _ => {
                let mut message = answer(&message, false).expect("nothing goes wrong");
                if let ToMaster::Prepared(prepared) = &mut message {
                    prepared.holes =
                        if node.0 < 2 { holes(u64::from(node.0) << 30) } else { Vec::new() };
                }
                coordinator.handle(NOW, CoordinatorEvent::Message { node, message });
            }
        }
    }
    let start = start.expect("a plan");
    assert_eq!(start.holes.len(), HOLES_MAX);
    let larger = start.holes.iter().filter(|hole| hole.bytes() == 4097).count() as u64;
    assert_eq!(larger, half, "the larger half of all");
    let bytes = crate::core::wire::control::encode(&ToNode::Start(start)).expect("it fits");
    assert!(crate::core::wire::control::decode::<ToNode>(&bytes).is_ok());
}

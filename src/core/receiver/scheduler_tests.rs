//! Tables of events and actions of a scheduler.

use std::time::Duration;

use crate::core::error::Code;
use crate::core::receiver::scheduler::*;

const A: NodeIx = NodeIx(0);
const B: NodeIx = NodeIx(1);
const FLOW_A: FlowIx = FlowIx(10);
const FLOW_B: FlowIx = FlowIx(11);

fn at(ms: u64) -> Moment {
    Moment(ms * 1_000_000)
}

fn source(start: u64, end: u64, senders: &[(NodeIx, u32)]) -> SegmentSenders {
    SegmentSenders { span: Span::new(start, end), senders: senders.to_vec() }
}

fn scheduler(sources: &[SegmentSenders]) -> PieceScheduler {
    let mut scheduler = PieceScheduler::new(
        BlockGrid::new(0, 10),
        CheckMethod::None,
        sources,
        CompletedBefore::default(),
        |_| 1,
        false,
    );
    let opened: Vec<NodeIx> = actions(&mut scheduler)
        .into_iter()
        .map(|action| match action {
            SchedulerAction::Open { rail_pair } => rail_pair.sender,
            other => panic!("{other:?}"),
        })
        .collect();
    for sender in opened {
        scheduler.handle(
            at(0),
            SchedulerEvent::FlowUp { flow: FlowIx(10 + sender.0), rail_pair: rail_pair(sender) },
        );
    }
    scheduler
}

fn actions(scheduler: &mut PieceScheduler) -> Vec<SchedulerAction> {
    std::iter::from_fn(|| scheduler.poll_action()).collect()
}

fn leased(scheduler: &mut PieceScheduler) -> Vec<(FlowIx, Piece)> {
    let leases = actions(scheduler).into_iter().filter_map(|action| match action {
        SchedulerAction::Flow(FlowCommand::Lease { flow, pieces }) => {
            Some(pieces.into_iter().map(move |piece| (flow, piece)))
        }
        _ => None,
    });
    leases.flatten().collect()
}

fn land(scheduler: &mut PieceScheduler, now: Moment, flow: FlowIx, piece: Piece) {
    scheduler.handle(now, SchedulerEvent::Landed { flow, piece, check: Check::None });
}

fn rail_pair(sender: NodeIx) -> RailPair {
    RailPair::new(sender, 0)
}

fn error(code: Code) -> Error {
    Error::new(code, "node0 failed")
}

#[test]
fn shares_follow_weights_and_everything_lands_once() {
    let mut scheduler = scheduler(&[source(0, 100, &[(A, 3), (B, 1)])]);
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_A, pieces: 4 });
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_B, pieces: 4 });
    let first = leased(&mut scheduler);
    assert_eq!(first.iter().filter(|(flow, _)| *flow == FLOW_A).count(), 4);
    assert!(first.iter().all(|(_, piece)| !piece.stolen));
    let mut flows = first;
    let mut landed = 0;
    while let Some((flow, piece)) = flows.pop() {
        land(&mut scheduler, at(2), flow, piece);
        landed += piece.span.bytes();
        scheduler.handle(at(2), SchedulerEvent::Room { flow, pieces: 1 });
        flows.extend(leased(&mut scheduler));
    }
    assert_eq!((landed, scheduler.extents().landed_bytes()), (100, 100));
    assert_eq!(scheduler.counts().wasted_bytes, 0);
}

#[test]
fn a_dry_flow_steals_from_the_end_of_the_slower_share() {
    let mut scheduler = scheduler(&[source(0, 200, &[(A, 1), (B, 1)])]);
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_B, pieces: 10 });
    for (flow, piece) in leased(&mut scheduler) {
        land(&mut scheduler, at(5), flow, piece);
    }
    scheduler.handle(at(6), SchedulerEvent::Room { flow: FLOW_B, pieces: 4 });
    let stolen = leased(&mut scheduler);
    assert_eq!(stolen, [(FLOW_B, Piece { span: Span::new(90, 100), stolen: true })]);
    land(&mut scheduler, at(7), FLOW_B, stolen[0].1);
    assert_eq!(scheduler.counts().stolen_bytes, 10);
}

/// Regression: on ten-fold uneven nodes, fast receivers stole from a slow sender whose whole NIC
/// was another receiver's share.
#[test]
fn a_dry_flow_steals_nothing_while_the_others_bring_as_much_as_ever() {
    let mut scheduler = scheduler(&[source(0, 1000, &[(A, 9), (B, 1)])]);
    let bring = |scheduler: &mut PieceScheduler, now: u64, flow: FlowIx| {
        scheduler.handle(at(now), SchedulerEvent::Room { flow, pieces: 1 });
        let pieces = leased(scheduler);
        assert_eq!(pieces.len(), 1, "{flow:?} at {now} ms");
        land(scheduler, at(now + 10), flow, pieces[0].1);
        pieces[0].1.stolen
    };
    for tick in 0..10 {
        assert!(
            !bring(&mut scheduler, tick * 10, FLOW_A) && !bring(&mut scheduler, tick * 10, FLOW_B)
        );
    }
    for tick in 10..20 {
        assert!(
            !bring(&mut scheduler, tick * 10, FLOW_A) && !bring(&mut scheduler, tick * 10, FLOW_A)
        );
    }
    scheduler.handle(at(201), SchedulerEvent::Room { flow: FLOW_B, pieces: 1 });
    assert_eq!(leased(&mut scheduler), []);
    // The other sender falls silent.
    scheduler.handle(at(310), SchedulerEvent::Tick);
    assert_eq!(leased(&mut scheduler).len(), 1);
}

#[test]
fn a_broken_flow_gives_its_leases_back_and_is_opened_again() {
    let mut scheduler = scheduler(&[source(0, 20, &[(A, 1)])]);
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_A, pieces: 2 });
    assert_eq!(leased(&mut scheduler).len(), 2);
    scheduler
        .handle(at(2), SchedulerEvent::FlowDown { flow: FLOW_A, error: error(Code::Unreachable) });
    assert_eq!(actions(&mut scheduler), [SchedulerAction::Open { rail_pair: rail_pair(A) }]);
    assert_eq!(scheduler.counts().retries, 2);
    scheduler.handle(at(3), SchedulerEvent::FlowUp { flow: FlowIx(20), rail_pair: rail_pair(A) });
    scheduler.handle(at(3), SchedulerEvent::Room { flow: FlowIx(20), pieces: 2 });
    assert_eq!(leased(&mut scheduler).len(), 2);
}

#[test]
fn a_lost_senders_share_goes_to_the_replica_and_without_one_is_missing() {
    let mut scheduler = scheduler(&[source(0, 40, &[(A, 1), (B, 1)]), source(40, 60, &[(A, 1)])]);
    scheduler
        .handle(at(1), SchedulerEvent::FlowDown { flow: FLOW_A, error: error(Code::Unreachable) });
    for break_ms in [1, 2000] {
        scheduler.handle(at(break_ms), SchedulerEvent::Tick);
        scheduler.handle(
            at(break_ms),
            SchedulerEvent::OpenFailed { rail_pair: rail_pair(A), error: error(Code::Unreachable) },
        );
    }
    actions(&mut scheduler);
    scheduler.handle(at(2001), SchedulerEvent::Room { flow: FLOW_B, pieces: 9 });
    let leases = leased(&mut scheduler);
    assert_eq!(leases.len(), 4, "{leases:?}");
    for (flow, piece) in leases {
        land(&mut scheduler, at(3), flow, piece);
    }
    assert!(actions(&mut scheduler).contains(&SchedulerAction::Settled));
    let missing = scheduler.missing().expect("nobody else holds the second segment");
    assert_eq!(missing.missing, [Span::new(40, 60)]);
    assert_eq!(missing.code, Code::Unreachable);
}

#[test]
fn a_changed_piece_is_asked_for_again_and_a_refused_one_is_not() {
    let mut scheduler = scheduler(&[source(0, 10, &[(A, 1)])]);
    for _ in 0..3 {
        scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_A, pieces: 1 });
        let (flow, piece) = leased(&mut scheduler)[0];
        scheduler
            .handle(at(2), SchedulerEvent::Failed { flow, piece, error: error(Code::Integrity) });
    }
    scheduler.handle(at(2), SchedulerEvent::Changed { flow: FLOW_A });
    assert_eq!((scheduler.missing(), scheduler.counts().retries), (None, 4));

    let mut scheduler = self::scheduler(&[source(0, 10, &[(A, 1)])]);
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_A, pieces: 1 });
    let (flow, piece) = leased(&mut scheduler)[0];
    scheduler.handle(at(2), SchedulerEvent::Failed { flow, piece, error: error(Code::Data) });
    assert_eq!(scheduler.missing().expect("given up").missing, [Span::new(0, 10)]);
}

/// A sender with `pair_count` rail pairs to a receiver of `pieces` pieces; on those at `bad` every
/// piece changes. Returns the scheduler once it is settled, and the number of flows that it closed.
fn with_bad_pairs(pieces: u64, pair_count: u32, bad: &[u32]) -> (PieceScheduler, u32) {
    let segment = source(0, pieces * 10, &[(A, 1)]);
    let (grid, none) = (BlockGrid::new(0, 10), CompletedBefore::default());
    let mut scheduler =
        PieceScheduler::new(grid, CheckMethod::Crc64, &[segment], none, |_| pair_count, false);
    let (mut flows, mut closed, mut now) = (Vec::new(), 0, at(0));
    loop {
        for action in actions(&mut scheduler) {
            match action {
                SchedulerAction::Open { rail_pair } => {
                    let flow = FlowIx(flows.len() as u32);
                    flows.push(rail_pair.index);
                    scheduler.handle(now, SchedulerEvent::FlowUp { flow, rail_pair });
                    scheduler.handle(now, SchedulerEvent::Room { flow, pieces: 2 });
                }
                SchedulerAction::Flow(FlowCommand::Lease { flow, pieces }) => {
                    for piece in pieces {
                        let error = error(Code::Integrity);
                        let event = if bad.contains(&flows[flow.0 as usize]) {
                            SchedulerEvent::Failed { flow, piece, error }
                        } else {
                            SchedulerEvent::Landed { flow, piece, check: Check::Crc64(0) }
                        };
                        scheduler.handle(now, event);
                    }
                    scheduler.handle(now, SchedulerEvent::Room { flow, pieces: 2 });
                }
                SchedulerAction::Flow(FlowCommand::Close { .. }) => closed += 1,
                SchedulerAction::Settled => return (scheduler, closed),
                _ => {}
            }
        }
        now = scheduler.poll_timeout().map_or(now, |due| due.max(now)) + Duration::from_millis(1);
        scheduler.handle(now, SchedulerEvent::Tick);
        assert!(now < at(60_000), "it does not end");
    }
}

#[test]
fn a_rail_on_which_everything_changes_is_left_to_the_others() {
    for bad in [0, 1] {
        let (scheduler, closed) = with_bad_pairs(100, 2, &[bad]);
        assert_eq!((scheduler.missing(), scheduler.extents().landed_bytes()), (None, 1000));
        assert!(closed >= 1, "the rail is closed");
    }
}

#[test]
fn a_transfer_of_which_nothing_gets_through_ends_with_integrity() {
    for pair_count in [1, 2] {
        let (scheduler, closed) = with_bad_pairs(100, pair_count, &[0, 1]);
        let missing = scheduler.missing().expect("nothing gets through");
        assert_eq!((missing.code, missing.missing), (Code::Integrity, vec![Span::new(0, 1000)]));
        assert!(closed >= 3, "each rail is tried again");
    }
}

/// The thief gave it back while the late flow still had it: it was leased to that one again, and
/// came twice.
#[test]
fn a_piece_that_is_given_back_while_another_flow_has_it_is_not_leased_again() {
    let mut scheduler = scheduler(&[source(0, 40, &[(A, 1), (B, 1)])]);
    scheduler.handle(at(0), SchedulerEvent::Room { flow: FLOW_A, pieces: 2 });
    scheduler.handle(at(0), SchedulerEvent::Room { flow: FLOW_B, pieces: 2 });
    for (flow, piece) in leased(&mut scheduler).into_iter().filter(|(flow, _)| *flow == FLOW_B) {
        land(&mut scheduler, at(1), flow, piece);
    }
    scheduler.handle(at(100), SchedulerEvent::Room { flow: FLOW_B, pieces: 2 });
    let twice = leased(&mut scheduler)[0].1;
    scheduler.handle(at(101), SchedulerEvent::Returned { flow: FLOW_B, pieces: vec![twice] });
    scheduler.handle(at(102), SchedulerEvent::Room { flow: FLOW_A, pieces: 9 });
    let again = leased(&mut scheduler);
    assert!(again.iter().all(|(_, piece)| piece.span != twice.span), "{again:?}");
}

/// Each refusal waited for the limit. Relays that all lacked the same pieces, after their origin
/// was lost, took longer to find that out than a stall may last.
#[test]
fn pieces_that_are_refused_cost_a_limit_nothing() {
    let mut scheduler = scheduler(&[source(0, 1000, &[(A, 1), (B, 1)])]);
    scheduler.limit(at(1), 10);
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_A, pieces: 1 });
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_B, pieces: 1 });
    let mut refused = 0;
    loop {
        let leases = leased(&mut scheduler);
        if leases.is_empty() {
            break;
        }
        for (flow, piece) in leases {
            refused += 1;
            scheduler
                .handle(at(2), SchedulerEvent::Failed { flow, piece, error: error(Code::Data) });
            scheduler.handle(at(2), SchedulerEvent::Room { flow, pieces: 1 });
        }
    }
    assert_eq!(refused, 200, "each piece by each sender, within a millisecond");
    assert_eq!(scheduler.missing().expect("given up").missing, [Span::new(0, 1000)]);
}

#[test]
fn a_late_piece_is_asked_for_twice_and_the_loser_is_waste() {
    let mut scheduler = scheduler(&[source(0, 40, &[(A, 1), (B, 1)])]);
    scheduler.handle(at(0), SchedulerEvent::Room { flow: FLOW_A, pieces: 2 });
    scheduler.handle(at(0), SchedulerEvent::Room { flow: FLOW_B, pieces: 2 });
    let leases = leased(&mut scheduler);
    for (flow, piece) in leases.iter().filter(|(flow, _)| *flow == FLOW_B) {
        land(&mut scheduler, at(1), *flow, *piece);
    }
    scheduler.handle(at(100), SchedulerEvent::Room { flow: FLOW_B, pieces: 2 });
    let twice = leased(&mut scheduler);
    assert_eq!(twice.len(), 1, "one flow is asked at a time");
    land(&mut scheduler, at(103), FLOW_B, twice[0].1);
    assert_eq!(scheduler.counts().wasted_bytes, 0);
    land(&mut scheduler, at(104), FLOW_A, Piece { stolen: false, ..twice[0].1 });
    assert_eq!(scheduler.counts().wasted_bytes, 10);
    assert_eq!(scheduler.extents().landed_bytes(), 30);
}

#[test]
fn holes_land_without_being_asked_for() {
    let sources = [source(0, 100, &[(A, 1)])];
    let holes = [Span::new(5, 95)];
    let scheduler = PieceScheduler::new(
        BlockGrid::new(0, 10),
        CheckMethod::Crc64,
        &sources,
        CompletedBefore { holes: &holes, kept: &[] },
        |_| 1,
        false,
    );
    assert_eq!(scheduler.extents().landed_bytes(), 80);
    let mut all = PieceScheduler::new(
        BlockGrid::new(0, 10),
        CheckMethod::Crc64,
        &sources,
        CompletedBefore { holes: &[Span::new(0, 100)], kept: &[] },
        |_| 1,
        false,
    );
    assert_eq!(actions(&mut all), [SchedulerAction::Settled]);
}

#[test]
fn two_rail_pairs_to_one_sender_empty_one_share() {
    let mut scheduler = PieceScheduler::new(
        BlockGrid::new(0, 10),
        CheckMethod::None,
        &[source(0, 1000, &[(A, 1)])],
        CompletedBefore::default(),
        |_| 2,
        false,
    );
    let opened: Vec<RailPair> = actions(&mut scheduler)
        .into_iter()
        .map(|action| match action {
            SchedulerAction::Open { rail_pair } => rail_pair,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(opened, [RailPair::new(A, 0), RailPair::new(A, 1)]);
    for (flow, rail_pair) in [(FLOW_A, opened[0]), (FLOW_B, opened[1])] {
        scheduler.handle(at(0), SchedulerEvent::FlowUp { flow, rail_pair });
    }
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_A, pieces: 4 });
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_B, pieces: 4 });
    let first = leased(&mut scheduler);
    assert_eq!(first.len(), 8);
    scheduler
        .handle(at(2), SchedulerEvent::FlowDown { flow: FLOW_A, error: error(Code::Unreachable) });
    scheduler.handle(at(3), SchedulerEvent::Room { flow: FLOW_B, pieces: 9 });
    let taken_over = leased(&mut scheduler);
    assert_eq!(taken_over.len(), 9);
    let of_broken = first.iter().filter(|(flow, _)| *flow == FLOW_A).map(|(_, piece)| piece.span);
    for span in of_broken {
        assert!(
            taken_over.iter().any(|(flow, piece)| *flow == FLOW_B && piece.span == span),
            "{span} is taken over"
        );
    }
}

#[test]
fn a_revoked_piece_goes_to_whom_it_was_taken_back_for_and_not_round_in_circles() {
    let mut scheduler = scheduler(&[source(0, 160, &[(A, 1), (B, 1)])]);
    scheduler.handle(at(0), SchedulerEvent::Room { flow: FLOW_A, pieces: 8 });
    let held = leased(&mut scheduler);
    scheduler.handle(at(0), SchedulerEvent::Room { flow: FLOW_B, pieces: 8 });
    for (flow, piece) in leased(&mut scheduler) {
        land(&mut scheduler, at(2), flow, piece);
    }
    // Both have room, and all remaining pieces are leased to the first.
    scheduler.handle(at(3), SchedulerEvent::Room { flow: FLOW_A, pieces: 4 });
    scheduler.handle(at(4), SchedulerEvent::Room { flow: FLOW_B, pieces: 4 });
    assert_eq!(leased(&mut scheduler), []);
    scheduler.handle(at(5), SchedulerEvent::Returned { flow: FLOW_A, pieces: vec![held[7].1] });
    assert_eq!(leased(&mut scheduler), [(FLOW_B, Piece { stolen: true, ..held[7].1 })]);
}

/// A plan of these segments, of which more may come if it `grows`.
fn renew(
    scheduler: &mut PieceScheduler,
    sources: &[SegmentSenders],
    holes: &[Span],
    grows: bool,
) -> Result<(), Error> {
    scheduler.reassign(at(1), sources, holes, |_| 1, grows)
}

#[test]
fn a_plan_that_said_it_was_the_last_does_not_grow() {
    let first = source(0, 100, &[(A, 1)]);
    let mut scheduler = scheduler(std::slice::from_ref(&first));
    let longer = [first, source(200, 300, &[(A, 1)])];
    assert!(renew(&mut scheduler, &longer, &[], false).is_err());
    assert_eq!(scheduler.extents().left_bytes(), 100);
}

#[test]
fn nothing_is_settled_before_the_last_plan() {
    let sources = [source(0, 20, &[(A, 1)])];
    let there = CompletedBefore::default();
    let (grid, method) = (BlockGrid::new(0, 10), CheckMethod::None);
    let mut scheduler = PieceScheduler::new(grid, method, &sources, there, |_| 1, true);
    let flow_up = SchedulerEvent::FlowUp { flow: FLOW_A, rail_pair: rail_pair(A) };
    scheduler.handle(at(0), flow_up);
    for _ in 0..2 {
        scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_A, pieces: 4 });
        for (flow, piece) in leased(&mut scheduler) {
            land(&mut scheduler, at(2), flow, piece);
        }
    }
    scheduler.handle(at(3), SchedulerEvent::Room { flow: FLOW_A, pieces: 4 });
    assert!(scheduler.extents().left_bytes() == 0 && scheduler.is_dry());
    assert!(!actions(&mut scheduler).contains(&SchedulerAction::Settled));
    renew(&mut scheduler, &sources, &[], false).expect("the same plan");
    assert!(actions(&mut scheduler).contains(&SchedulerAction::Settled));
}

mod growth {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Segments come in any order, before and between those that are there, while pieces land,
        /// fail, and are given back: each lands once, and zeros are never asked for.
        #[test]
        fn every_piece_of_every_segment_lands_once(
            order in Just((0..12_u64).collect::<Vec<_>>()).prop_shuffle(),
            waves in 1usize..12,
            script in proptest::collection::vec((any::<bool>(), 1u32..5, 0u8..8), 400),
            hole in 0u64..1200,
        ) {
            let hole = Span::of(hole, 95);
            let bytes = |at: u64| Span::new(at * 100 + 3, at * 100 + 90);
            let plan = |count: usize| {
                let mut starts: Vec<u64> = order[..count].to_vec();
                starts.sort_unstable();
                let of = |at: &u64| source(bytes(*at).start, bytes(*at).end, &[(A, 1), (B, 2)]);
                starts.iter().map(of).collect::<Vec<_>>()
            };
            let (grid, method) = (BlockGrid::new(0, 10), CheckMethod::None);
            let there = CompletedBefore { holes: &[hole], kept: &[] };
            let mut scheduler =
                PieceScheduler::new(grid, method, &plan(waves), there, |_| 1, true);
            for (flow, sender) in [(FLOW_A, A), (FLOW_B, B)] {
                let up = SchedulerEvent::FlowUp { flow, rail_pair: rail_pair(sender) };
                scheduler.handle(at(0), up);
            }
            let (mut count, mut held, mut landed) = (waves, Vec::new(), Vec::new());
            let mut is_settled = false;
            for (step, (is_a, pieces, chance)) in script.iter().cycle().take(4000).enumerate() {
                let now = at(1 + step as u64);
                let flow = if *is_a { FLOW_A } else { FLOW_B };
                scheduler.handle(now, SchedulerEvent::Room { flow, pieces: *pieces });
                scheduler.handle(now, SchedulerEvent::Tick);
                for action in actions(&mut scheduler) {
                    match action {
                        SchedulerAction::Flow(FlowCommand::Lease { flow, pieces }) => {
                            held.extend(pieces.into_iter().map(|piece| (flow, piece)));
                        }
                        SchedulerAction::Settled => {
                            prop_assert!(!is_settled && count == 12);
                            is_settled = true;
                        }
                        _ => {}
                    }
                }
                if *chance == 0 {
                    count = (count + 1).min(12);
                    let holes = [hole];
                    scheduler.reassign(now, &plan(count), &holes, |_| 1, count < 12).expect("more");
                } else if let Some((flow, piece)) = held.pop() {
                    prop_assert!(!hole.contains(piece.span), "{} is zeros", piece.span);
                    if *chance == 1 && !piece.stolen {
                        let pieces = vec![piece];
                        scheduler.handle(now, SchedulerEvent::Returned { flow, pieces });
                    } else {
                        let is_first = landed.iter().all(|it| *it != piece.span);
                        prop_assert!(is_first || count == 12, "{} lands again", piece.span);
                        landed.push(piece.span);
                        land(&mut scheduler, now, flow, piece);
                    }
                }
            }
            prop_assert!(is_settled, "{} bytes are left", scheduler.extents().left_bytes());
            prop_assert_eq!(scheduler.extents().landed_bytes(), 12 * 87);
            let spans: Vec<Span> = scheduler.extents().spans().collect();
            prop_assert_eq!(spans, (0..12).map(bytes).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_path_that_loses_packets_gets_further_flows_which_bring_pieces_and_end_with_the_trial() {
    let mut scheduler = scheduler(&[source(0, 10_000, &[(A, 1)])]);
    scheduler.handle(at(1), SchedulerEvent::Room { flow: FLOW_A, pieces: 4 });
    assert_eq!(leased(&mut scheduler).len(), 4);
    let read = |scheduler: &mut PieceScheduler, ms: u64, bytes: u64| {
        let delay = Duration::from_millis(20);
        let reading = PathReading { delay, delay_min: delay, bytes, late_packets: ms };
        scheduler.handle(at(ms), SchedulerEvent::PathRead { flow: FLOW_A, reading });
    };
    (1..10).for_each(|tick| read(&mut scheduler, 50 * tick, 1000 * tick));
    let opened = actions(&mut scheduler);
    let further = |further| RailPair { further, ..rail_pair(A) };
    assert_eq!(opened, [1, 2, 3].map(|it| SchedulerAction::Open { rail_pair: further(it) }));
    for (flow, place) in [(20, 1), (21, 2), (22, 3)] {
        let flow = FlowIx(flow);
        scheduler.handle(at(500), SchedulerEvent::FlowUp { flow, rail_pair: further(place) });
        scheduler.handle(at(500), SchedulerEvent::Room { flow, pieces: 2 });
    }
    let leases = leased(&mut scheduler);
    assert_eq!(leases.len(), 3, "each brings a piece, as long as its rate is not known");
    // All bring less than one before.
    (11..40).for_each(|tick| read(&mut scheduler, 50 * tick, 9000 + 10 * tick));
    assert_eq!(actions(&mut scheduler), []);
    for (flow, piece) in leases {
        land(&mut scheduler, at(2000), flow, piece);
        scheduler.handle(at(2000), SchedulerEvent::Room { flow, pieces: 2 });
    }
    let closed = [20, 21, 22].map(|flow| FlowCommand::Close { flow: FlowIx(flow) });
    assert_eq!(actions(&mut scheduler), closed.map(SchedulerAction::Flow));
    scheduler.handle(at(2001), SchedulerEvent::Room { flow: FLOW_A, pieces: 1 });
    assert_eq!(leased(&mut scheduler).len(), 1, "the own flow goes on");
}

#[test]
fn a_small_rest_is_not_worth_further_flows() {
    let mut scheduler = scheduler(&[source(0, 30, &[(A, 1)])]);
    for tick in 1..20 {
        let delay = Duration::from_millis(20);
        let reading =
            PathReading { delay, delay_min: delay, bytes: 1000 * tick, late_packets: tick };
        scheduler.handle(at(50 * tick), SchedulerEvent::PathRead { flow: FLOW_A, reading });
    }
    assert_eq!(actions(&mut scheduler), []);
}

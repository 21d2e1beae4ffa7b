//! Tables of what an owner does.

use super::*;
use crate::error::Code;

const A: NodeIx = NodeIx(0);
const B: NodeIx = NodeIx(1);
const FLOW_A: FlowIx = FlowIx(10);
const FLOW_B: FlowIx = FlowIx(11);

fn at(ms: u64) -> Moment {
    Moment(ms * 1_000_000)
}

fn source(start: u64, end: u64, senders: &[(NodeIx, u32)]) -> Source {
    Source { span: Span::new(start, end), senders: senders.to_vec() }
}

fn owner(sources: &[Source]) -> Owner {
    let mut owner = Owner::new(Grid::new(0, 10), Method::None, sources, Already::default(), |_| 1);
    let opened: Vec<NodeIx> = actions(&mut owner)
        .into_iter()
        .map(|action| match action {
            Action::Open { lane } => lane.sender,
            other => panic!("{other:?}"),
        })
        .collect();
    for sender in opened {
        owner.handle(at(0), Event::FlowUp { flow: FlowIx(10 + sender.0), lane: lane(sender) });
    }
    owner
}

fn actions(owner: &mut Owner) -> Vec<Action> {
    std::iter::from_fn(|| owner.poll_action()).collect()
}

fn leased(owner: &mut Owner) -> Vec<(FlowIx, Piece)> {
    let leases = actions(owner).into_iter().filter_map(|action| match action {
        Action::Lease { flow, pieces } => Some(pieces.into_iter().map(move |piece| (flow, piece))),
        _ => None,
    });
    leases.flatten().collect()
}

fn land(owner: &mut Owner, now: Moment, flow: FlowIx, piece: Piece) {
    owner.handle(now, Event::Landed { flow, piece, check: Check::None });
}

fn lane(sender: NodeIx) -> Lane {
    Lane { sender, index: 0 }
}

fn error(code: Code) -> Error {
    Error::new(code, "node0 failed")
}

#[test]
fn shares_follow_weights_and_everything_lands_once() {
    let mut owner = owner(&[source(0, 100, &[(A, 3), (B, 1)])]);
    owner.handle(at(1), Event::Room { flow: FLOW_A, pieces: 4 });
    owner.handle(at(1), Event::Room { flow: FLOW_B, pieces: 4 });
    let first = leased(&mut owner);
    assert_eq!(first.iter().filter(|(flow, _)| *flow == FLOW_A).count(), 4);
    assert!(first.iter().all(|(_, piece)| !piece.soft));
    let mut flows = first;
    let mut landed = 0;
    while let Some((flow, piece)) = flows.pop() {
        land(&mut owner, at(2), flow, piece);
        landed += piece.span.bytes();
        owner.handle(at(2), Event::Room { flow, pieces: 1 });
        flows.extend(leased(&mut owner));
    }
    assert_eq!((landed, owner.landed_bytes()), (100, 100));
    assert_eq!(owner.counts().wasted_bytes, 0);
}

#[test]
fn a_dry_flow_steals_from_the_end_of_the_slower_share() {
    let mut owner = owner(&[source(0, 200, &[(A, 1), (B, 1)])]);
    owner.handle(at(1), Event::Room { flow: FLOW_B, pieces: 10 });
    for (flow, piece) in leased(&mut owner) {
        land(&mut owner, at(5), flow, piece);
    }
    owner.handle(at(6), Event::Room { flow: FLOW_B, pieces: 4 });
    let stolen = leased(&mut owner);
    assert_eq!(stolen, [(FLOW_B, Piece { span: Span::new(90, 100), soft: true })]);
    land(&mut owner, at(7), FLOW_B, stolen[0].1);
    assert_eq!(owner.counts().stolen_bytes, 10);
}

/// In a lab of ten-fold uneven nodes, fast receivers stole from a slow sender whose whole NIC was
/// another one's share.
#[test]
fn a_dry_flow_steals_nothing_while_the_others_bring_as_much_as_ever() {
    let mut owner = owner(&[source(0, 1000, &[(A, 9), (B, 1)])]);
    let bring = |owner: &mut Owner, now: u64, flow: FlowIx| {
        owner.handle(at(now), Event::Room { flow, pieces: 1 });
        let pieces = leased(owner);
        assert_eq!(pieces.len(), 1, "{flow:?} at {now} ms");
        land(owner, at(now + 10), flow, pieces[0].1);
        pieces[0].1.soft
    };
    for tick in 0..10 {
        assert!(!bring(&mut owner, tick * 10, FLOW_A) && !bring(&mut owner, tick * 10, FLOW_B));
    }
    for tick in 10..20 {
        assert!(!bring(&mut owner, tick * 10, FLOW_A) && !bring(&mut owner, tick * 10, FLOW_A));
    }
    owner.handle(at(201), Event::Room { flow: FLOW_B, pieces: 1 });
    assert_eq!(leased(&mut owner), []);
    // The other sender falls silent.
    owner.handle(at(310), Event::Tick);
    assert_eq!(leased(&mut owner).len(), 1);
}

#[test]
fn a_broken_flow_gives_its_leases_back_and_is_opened_again() {
    let mut owner = owner(&[source(0, 20, &[(A, 1)])]);
    owner.handle(at(1), Event::Room { flow: FLOW_A, pieces: 2 });
    assert_eq!(leased(&mut owner).len(), 2);
    owner.handle(at(2), Event::FlowDown { flow: FLOW_A, error: error(Code::Unreachable) });
    assert_eq!(actions(&mut owner), [Action::Open { lane: lane(A) }]);
    assert_eq!(owner.counts().retries, 2);
    owner.handle(at(3), Event::FlowUp { flow: FlowIx(20), lane: lane(A) });
    owner.handle(at(3), Event::Room { flow: FlowIx(20), pieces: 2 });
    assert_eq!(leased(&mut owner).len(), 2);
}

#[test]
fn a_lost_senders_share_goes_to_the_replica_and_without_one_is_missing() {
    let mut owner = owner(&[source(0, 40, &[(A, 1), (B, 1)]), source(40, 60, &[(A, 1)])]);
    owner.handle(at(1), Event::FlowDown { flow: FLOW_A, error: error(Code::Unreachable) });
    for break_ms in [1, 2000] {
        owner.handle(at(break_ms), Event::Tick);
        owner.handle(
            at(break_ms),
            Event::OpenFailed { lane: lane(A), error: error(Code::Unreachable) },
        );
    }
    actions(&mut owner);
    owner.handle(at(2001), Event::Room { flow: FLOW_B, pieces: 9 });
    let leases = leased(&mut owner);
    assert_eq!(leases.len(), 4, "{leases:?}");
    for (flow, piece) in leases {
        land(&mut owner, at(3), flow, piece);
    }
    assert!(actions(&mut owner).contains(&Action::Settled));
    let missing = owner.missing().expect("nobody else holds the second segment");
    assert_eq!(missing.missing, [Span::new(40, 60)]);
    assert_eq!(missing.code, Code::Unreachable);
}

#[test]
fn a_changed_piece_is_asked_for_again_and_a_refused_one_is_not() {
    let mut owner = owner(&[source(0, 10, &[(A, 1)])]);
    for _ in 0..FAULTS_MAX {
        owner.handle(at(1), Event::Room { flow: FLOW_A, pieces: 1 });
        let (flow, piece) = leased(&mut owner)[0];
        owner.handle(at(2), Event::Failed { flow, piece, error: error(Code::Integrity) });
    }
    assert_eq!(owner.missing().expect("given up").code, Code::Integrity);
    assert_eq!(owner.counts().retries, u64::from(FAULTS_MAX));

    let mut owner = self::owner(&[source(0, 10, &[(A, 1)])]);
    owner.handle(at(1), Event::Room { flow: FLOW_A, pieces: 1 });
    let (flow, piece) = leased(&mut owner)[0];
    owner.handle(at(2), Event::Failed { flow, piece, error: error(Code::Data) });
    assert_eq!(owner.missing().expect("given up").missing, [Span::new(0, 10)]);
}

#[test]
fn a_late_piece_is_asked_for_twice_and_the_loser_is_waste() {
    let mut owner = owner(&[source(0, 40, &[(A, 1), (B, 1)])]);
    owner.handle(at(0), Event::Room { flow: FLOW_A, pieces: 2 });
    owner.handle(at(0), Event::Room { flow: FLOW_B, pieces: 2 });
    let leases = leased(&mut owner);
    for (flow, piece) in leases.iter().filter(|(flow, _)| *flow == FLOW_B) {
        land(&mut owner, at(1), *flow, *piece);
    }
    owner.handle(at(100), Event::Room { flow: FLOW_B, pieces: 2 });
    let twice = leased(&mut owner);
    assert_eq!(twice.len(), 1, "one flow is asked at a time");
    land(&mut owner, at(103), FLOW_B, twice[0].1);
    assert_eq!(owner.counts().wasted_bytes, 0);
    land(&mut owner, at(104), FLOW_A, Piece { soft: false, ..twice[0].1 });
    assert_eq!(owner.counts().wasted_bytes, 10);
    assert_eq!(owner.landed_bytes(), 30);
}

#[test]
fn holes_land_without_being_asked_for() {
    let sources = [source(0, 100, &[(A, 1)])];
    let holes = [Span::new(5, 95)];
    let owner = Owner::new(
        Grid::new(0, 10),
        Method::Crc64,
        &sources,
        Already { holes: &holes, kept: &[] },
        |_| 1,
    );
    assert_eq!(owner.landed_bytes(), 80);
    let mut all = Owner::new(
        Grid::new(0, 10),
        Method::Crc64,
        &sources,
        Already { holes: &[Span::new(0, 100)], kept: &[] },
        |_| 1,
    );
    assert_eq!(actions(&mut all), [Action::Settled]);
}

#[test]
fn two_lanes_to_one_sender_empty_one_share() {
    let mut owner = Owner::new(
        Grid::new(0, 10),
        Method::None,
        &[source(0, 1000, &[(A, 1)])],
        Already::default(),
        |_| 2,
    );
    let opened: Vec<Lane> = actions(&mut owner)
        .into_iter()
        .map(|action| match action {
            Action::Open { lane } => lane,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(opened, [Lane { sender: A, index: 0 }, Lane { sender: A, index: 1 }]);
    for (flow, lane) in [(FLOW_A, opened[0]), (FLOW_B, opened[1])] {
        owner.handle(at(0), Event::FlowUp { flow, lane });
    }
    owner.handle(at(1), Event::Room { flow: FLOW_A, pieces: 4 });
    owner.handle(at(1), Event::Room { flow: FLOW_B, pieces: 4 });
    let first = leased(&mut owner);
    assert_eq!(first.len(), 8);
    owner.handle(at(2), Event::FlowDown { flow: FLOW_A, error: error(Code::Unreachable) });
    owner.handle(at(3), Event::Room { flow: FLOW_B, pieces: 9 });
    let taken_over = leased(&mut owner);
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
    let mut owner = owner(&[source(0, 160, &[(A, 1), (B, 1)])]);
    owner.handle(at(0), Event::Room { flow: FLOW_A, pieces: 8 });
    let held = leased(&mut owner);
    owner.handle(at(0), Event::Room { flow: FLOW_B, pieces: 8 });
    for (flow, piece) in leased(&mut owner) {
        land(&mut owner, at(2), flow, piece);
    }
    // Both have room, and everything that is left is leased to the first.
    owner.handle(at(3), Event::Room { flow: FLOW_A, pieces: 4 });
    owner.handle(at(4), Event::Room { flow: FLOW_B, pieces: 4 });
    assert_eq!(leased(&mut owner), []);
    owner.handle(at(5), Event::Returned { flow: FLOW_A, pieces: vec![held[7].1] });
    assert_eq!(leased(&mut owner), [(FLOW_B, Piece { soft: true, ..held[7].1 })]);
}

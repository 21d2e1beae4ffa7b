//! One rail with a kernel and peers that do what a test wants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::*;
use crate::core::check::CheckMethod;
use crate::core::error::{Code, Error};
use crate::core::options::DataPath;
use crate::core::piece::{FlowCommand, FlowIx, Piece, TransferIx};
use crate::core::receiver::flow_growth::PathReading;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::{Moment, Span};
use crate::core::wire::Check;
use crate::core::wire::frame::{Frame, FrameKind};

const A: TransferIx = TransferIx(1);
const B: TransferIx = TransferIx(2);
const BLOCK: u64 = 10;

fn block(at: u64) -> Span {
    Span::of(at * BLOCK, BLOCK)
}

fn piece(at: u64) -> Piece {
    Piece { span: block(at), stolen: false }
}

/// Offers the first thousand bytes from a file, and keeps the second thousand.
fn map(path: DataPath) -> PieceMap {
    let kind = SourceKind::File { direct: true };
    PieceMap {
        method: CheckMethod::None,
        path,
        sources: vec![MappedSource { range: Span::new(0, 1000), kind }],
        destinations: vec![MappedDestination { range: Span::new(1000, 2000), direct: true }],
    }
}

struct TestRail {
    machine: RailMachine,
    now: Moment,
    flows: u32,
    /// Requests that left, by flow.
    asked: BTreeMap<FlowPlace, VecDeque<Frame>>,
    awaits_header: BTreeSet<FlowPlace>,
    /// Pieces that are being written.
    writing: Vec<(SlotIx, TransferIx)>,
    /// All other actions.
    done: Vec<RailAction>,
}

impl TestRail {
    fn new(slots: u32, path: DataPath) -> TestRail {
        let mut machine = RailMachine::new(slots, BLOCK);
        for transfer in [A, B] {
            machine.join(transfer, map(path), Duration::from_secs(10));
        }
        TestRail {
            machine,
            now: Moment(1),
            flows: 0,
            asked: BTreeMap::new(),
            awaits_header: BTreeSet::new(),
            writing: Vec::new(),
            done: Vec::new(),
        }
    }

    fn flow(&mut self, transfer: TransferIx, direction: FlowDirection) -> FlowPlace {
        self.flows += 1;
        let flow = self.machine.flow_up(self.now, transfer, FlowIx(self.flows), direction);
        self.follow();
        flow.expect("there is room")
    }

    fn receiving_flow(&mut self, transfer: TransferIx) -> FlowPlace {
        self.flow(transfer, FlowDirection::Receive { relays: false })
    }

    fn sending_flow(&mut self, transfer: TransferIx) -> FlowPlace {
        self.flow(transfer, FlowDirection::Send { weight: 1, in_clear: true, is_further: false })
    }

    fn handle(&mut self, event: RailEvent) {
        self.machine.handle(self.now, event);
        self.follow();
    }

    fn command(&mut self, transfer: TransferIx, command: TransferCommand) {
        self.handle(RailEvent::Command { transfer, command });
    }

    fn request(&mut self, flow: FlowPlace, request: u32, span: Span) {
        let frame = Frame::new(FrameKind::Request { stolen: false }, request, span);
        self.handle(RailEvent::Request { flow, frame });
    }

    /// Payloads come at once, requests leave at once; everything else waits for the test.
    fn follow(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                RailAction::SendRequests { flow } => {
                    let requests = std::iter::from_fn(|| self.machine.poll_request(flow));
                    self.asked.entry(flow).or_default().extend(requests);
                    self.machine.handle(self.now, RailEvent::RequestsSent { flow });
                }
                RailAction::ReceiveHeader { flow } => assert!(self.awaits_header.insert(flow)),
                RailAction::ReceivePayload { slot, landing } => {
                    let outcome = PayloadOutcome::Whole { check: Some(landing.check) };
                    self.machine.handle(self.now, RailEvent::PayloadDone { slot, outcome });
                }
                RailAction::Write { slot, transfer, .. } => self.writing.push((slot, transfer)),
                other => self.done.push(other),
            }
        }
    }

    /// The sender at the other end of a flow answers its oldest request. Returns whether it can.
    fn answer(&mut self, flow: FlowPlace) -> bool {
        if !self.awaits_header.contains(&flow) {
            return false;
        }
        let Some(frame) = self.asked.get_mut(&flow).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.awaits_header.remove(&flow);
        let kind = FrameKind::Data(Check::None);
        self.handle(RailEvent::Header { flow, frame: Frame { kind, ..frame } });
        true
    }

    fn writing_of(&self, transfer: TransferIx) -> usize {
        self.writing.iter().filter(|(_, of)| *of == transfer).count()
    }

    fn written(&mut self, transfer: TransferIx) {
        let at = self.writing.iter().position(|(_, of)| *of == transfer).expect("one is written");
        let (slot, _) = self.writing.remove(at);
        self.handle(RailEvent::WriteDone { slot, result: Ok(()) });
    }

    fn reports(&mut self) -> Vec<RailNotice> {
        std::iter::from_fn(|| self.machine.poll_report()).collect()
    }

    fn take_done(&mut self) -> Vec<RailAction> {
        std::mem::take(&mut self.done)
    }

    /// The slot of the only read that is wanted, and its mode.
    fn read(&mut self) -> (SlotIx, ReadMode) {
        match self.take_done()[..] {
            [RailAction::Read { slot, mode, .. }] => (slot, mode),
            ref other => panic!("{other:?}"),
        }
    }

    /// The slot of the only probe that is wanted.
    fn probe(&mut self) -> SlotIx {
        let done = self.take_done();
        let probe = done.iter().find_map(|action| match action {
            RailAction::Probe { slot, .. } => Some(*slot),
            _ => None,
        });
        probe.unwrap_or_else(|| panic!("{done:?}"))
    }

    /// Has the piece in a slot read, and gives the send of it.
    fn load(&mut self, slot: SlotIx) -> KernelRoute {
        self.handle(RailEvent::Probed { slot, cached: CacheState::Clean });
        let (slot, _) = self.read();
        self.loaded(slot)
    }

    fn loaded(&mut self, slot: SlotIx) -> KernelRoute {
        self.handle(RailEvent::ReadDone { slot, outcome: ReadOutcome::Loaded });
        let done = self.take_done();
        let send = done.iter().find_map(|action| match action {
            RailAction::Send { slot: of, route, .. } if *of == slot => Some(*route),
            _ => None,
        });
        send.unwrap_or_else(|| panic!("{done:?}"))
    }

    fn sent(&mut self, slot: SlotIx, outcome: SendOutcome, is_held: bool) {
        self.handle(RailEvent::SendDone { slot, outcome, is_held });
    }
}

fn lease(flow: FlowIx, pieces: Vec<Piece>) -> TransferCommand {
    TransferCommand::Flow(FlowCommand::Lease { flow, pieces })
}

/// Leases pieces to the flows that have room for them, and has their senders answer.
fn pump(rail: &mut TestRail, flows: &[(TransferIx, FlowPlace)], next: &mut u64) -> u64 {
    let mut landed = 0;
    loop {
        for report in rail.reports() {
            let RailNotice::Scheduler { transfer, event } = report else { panic!("{report:?}") };
            match event {
                SchedulerEvent::Room { flow, pieces } => {
                    let leased = (0..u64::from(pieces)).map(|at| piece(*next + at)).collect();
                    *next += u64::from(pieces);
                    rail.command(transfer, lease(flow, leased));
                }
                SchedulerEvent::Landed { .. } => landed += 1,
                other => panic!("{other:?}"),
            }
        }
        let mut idle = true;
        for (_, flow) in flows {
            idle &= !rail.answer(*flow);
        }
        if idle {
            return landed;
        }
    }
}

/// One destination on a file system that hangs kept every slot of the rail.
#[test]
fn a_destination_that_hangs_leaves_the_others_their_part_of_the_slots() {
    let mut rail = TestRail::new(10, DataPath::Auto);
    let mut next = 0;
    let mut flows: Vec<_> = (0..3).map(|_| (A, rail.receiving_flow(A))).collect();
    pump(&mut rail, &flows, &mut next);
    assert_eq!(rail.writing_of(A), 8, "all but two slots, which A never holds");
    flows.extend((0..3).map(|_| (B, rail.receiving_flow(B))));
    let mut landed = 0;
    for _ in 0..50 {
        landed += pump(&mut rail, &flows, &mut next);
        assert_eq!((rail.writing_of(A), rail.writing_of(B)), (8, 2), "B goes on with these");
        rail.written(B);
    }
    assert!(landed >= 40, "{landed} pieces of B landed");
    // Half of what hung is written: then both hold their parts.
    for _ in 0..4 {
        rail.written(A);
        pump(&mut rail, &flows, &mut next);
    }
    assert_eq!((rail.writing_of(A), rail.writing_of(B)), (4, 4));
    for _ in 0..50 {
        rail.written(B);
        pump(&mut rail, &flows, &mut next);
        assert_eq!((rail.writing_of(A), rail.writing_of(B)), (4, 4), "B keeps its full part");
    }
}

#[test]
fn a_source_that_hangs_leaves_the_others_their_part_of_the_slots() {
    let mut rail = TestRail::new(10, DataPath::Direct);
    let reads = |rail: &mut TestRail| -> Vec<SlotIx> {
        let slot = |action| match action {
            RailAction::Read { slot, .. } => Some(slot),
            _ => None,
        };
        rail.take_done().into_iter().filter_map(slot).collect()
    };
    for _ in 0..3 {
        let flow = rail.sending_flow(A);
        (0..4).for_each(|request| rail.request(flow, request, block(request.into())));
    }
    assert_eq!(reads(&mut rail).len(), 8);
    let flow = rail.sending_flow(B);
    rail.take_done();
    for request in 0..50 {
        rail.request(flow, request, block(u64::from(request) % 100));
        let found = reads(&mut rail);
        assert_eq!(found.len(), 1, "request {request}");
        rail.loaded(found[0]);
        rail.sent(found[0], SendOutcome::Sent, false);
    }
}

/// They waited for a batch that a write to a frozen file system kept from becoming full.
#[test]
fn the_last_pieces_of_a_transfer_are_told_while_a_write_of_another_hangs() {
    let mut rail = TestRail::new(10, DataPath::Auto);
    let (hung, flow) = (rail.receiving_flow(A), rail.receiving_flow(B));
    let mut next = 0;
    pump(&mut rail, &[(A, hung)], &mut next);
    assert!(rail.writing_of(A) > 0);
    let mut answered = 0;
    while rail.answer(flow) {
        answered += 1;
    }
    let is_landed = |notice: &RailNotice| {
        let RailNotice::Scheduler { transfer: B, event } = notice else { return false };
        matches!(event, SchedulerEvent::Landed { .. })
    };
    let mut told = 0;
    while rail.writing_of(B) > 0 {
        rail.written(B);
        told += rail.reports().iter().filter(|it| is_landed(it)).count();
    }
    rail.now = rail.machine.poll_timeout().expect("pieces wait to be told");
    rail.handle(RailEvent::Tick);
    told += rail.reports().iter().filter(|it| is_landed(it)).count();
    assert!((1..8).contains(&answered), "{answered} pieces, less than a batch");
    assert_eq!(told, answered);
}

#[test]
fn a_transfer_has_drained_when_nothing_of_it_is_in_a_slot() {
    let mut rail = TestRail::new(4, DataPath::Auto);
    let flow = rail.receiving_flow(A);
    let mut next = 0;
    pump(&mut rail, &[(A, flow)], &mut next);
    assert_eq!(rail.writing_of(A), 3);
    rail.command(A, TransferCommand::Drain);
    let is_drained = |reports: &[RailNotice]| {
        reports.iter().any(|it| matches!(it, RailNotice::Drained { transfer: A }))
    };
    for _ in 0..3 {
        assert!(!is_drained(&rail.reports()), "pieces are being written");
        rail.written(A);
    }
    assert!(is_drained(&rail.reports()));
    rail.command(A, TransferCommand::Drain);
    assert!(is_drained(&rail.reports()), "there was nothing to wait for");
    rail.command(TransferIx(9), TransferCommand::Drain);
    assert_eq!(rail.reports().len(), 1, "nor of a transfer that is not on");
}

#[test]
fn a_flow_beyond_the_last_place_is_lost_and_its_scheduler_hears_of_it() {
    let mut rail = TestRail::new(4, DataPath::Auto);
    for _ in 0..FLOWS_MAX / 2 {
        rail.receiving_flow(A);
        rail.sending_flow(B);
    }
    let (now, flow) = (rail.now, FlowIx(1000));
    rail.reports();
    assert_eq!(
        rail.machine.flow_up(
            now,
            A,
            flow,
            FlowDirection::Send { weight: 1, in_clear: true, is_further: false }
        ),
        None
    );
    assert!(rail.reports().is_empty(), "nobody here waits for it");
    assert_eq!(rail.machine.flow_up(now, A, flow, FlowDirection::Receive { relays: false }), None);
    let lost = rail.reports();
    assert!(
        matches!(lost[..], [RailNotice::Scheduler { event: SchedulerEvent::FlowDown { .. }, .. }]),
        "{lost:?}"
    );
}

#[test]
fn a_payload_without_an_end_gives_its_slot_to_the_next() {
    let mut rail = TestRail::new(2, DataPath::Auto);
    let (first, second) = (rail.receiving_flow(A), rail.receiving_flow(A));
    let mut next = 0;
    pump(&mut rail, &[(A, first), (A, second)], &mut next);
    assert_eq!(rail.writing_of(A), 1, "the other piece waits for a slot");
    let error = Error::new(Code::Data, "the disk is full");
    let (slot, _) = rail.writing.remove(0);
    rail.handle(RailEvent::WriteDone { slot, result: Err(error) });
    assert_eq!(rail.writing_of(A), 1);
    assert!(rail.reports().iter().any(|it| matches!(it, RailNotice::Broken { transfer: A, .. })));
}

#[test]
fn a_relay_passes_on_what_it_has_just_written() {
    let mut rail = TestRail::new(4, DataPath::Auto);
    let (from, to) = (rail.receiving_flow(A), rail.sending_flow(A));
    let wanted = block(150);
    rail.command(A, TransferCommand::Relay { spans: vec![wanted] });
    rail.request(to, 7, wanted);
    rail.take_done();
    let flow = from.flow;
    rail.command(A, lease(flow, vec![piece(150)]));
    assert!(rail.answer(from));
    rail.written(A);
    let slot = rail.probe();
    assert_eq!(rail.load(slot), KernelRoute::DirectSend);
    rail.request(to, 8, block(151));
    assert!(rail.take_done().is_empty(), "it waits until it has landed");
    rail.command(A, TransferCommand::Withdraw { span: block(151) });
    rail.sent(slot, SendOutcome::Sent, false);
    let done = rail.take_done();
    assert!(
        matches!(done[..], [RailAction::SendRefusal { frame: Frame { request: 8, .. }, .. }]),
        "{done:?}"
    );
}

#[test]
fn a_piece_is_read_by_the_next_way_until_one_serves() {
    let mut rail = TestRail::new(4, DataPath::Auto);
    let flow = rail.sending_flow(A);
    rail.take_done();
    rail.request(flow, 1, block(1));
    let slot = rail.probe();
    rail.handle(RailEvent::Probed { slot, cached: CacheState::Unknown });
    assert_eq!(rail.read(), (slot, ReadMode::Splice));
    rail.handle(RailEvent::ReadDone { slot, outcome: ReadOutcome::NotCached });
    assert_eq!(rail.read(), (slot, ReadMode::Direct));
    rail.handle(RailEvent::ReadDone { slot, outcome: ReadOutcome::NotDirect });
    let done = rail.take_done();
    let expected = matches!(
        done[..],
        [
            RailAction::NoteFallback { reason: FallbackReason::NoDirect, .. },
            RailAction::Read { mode: ReadMode::Buffered, .. },
        ]
    );
    assert!(expected, "{done:?}");
    rail.handle(RailEvent::ReadDone { slot, outcome: ReadOutcome::Failed(Code::Data) });
    let done = rail.take_done();
    assert!(matches!(done[..], [RailAction::SendRefusal { .. }]), "{done:?}");
}

#[test]
fn a_file_that_gives_less_to_a_splice_is_read_from_then_on() {
    let mut rail = TestRail::new(4, DataPath::Auto);
    let flow = rail.sending_flow(A);
    rail.take_done();
    rail.request(flow, 1, block(1));
    let slot = rail.probe();
    rail.handle(RailEvent::Probed { slot, cached: CacheState::Whole });
    let (slot, mode) = rail.read();
    assert_eq!((mode, rail.loaded(slot)), (ReadMode::Splice, KernelRoute::Splice));
    rail.sent(slot, SendOutcome::NotSpliced, false);
    let closed = |action: &RailAction| matches!(action, RailAction::CloseFlow { .. });
    assert!(rail.take_done().iter().any(closed));
    let flow = rail.sending_flow(A);
    rail.take_done();
    rail.request(flow, 1, block(1));
    let slot = rail.probe();
    rail.handle(RailEvent::Probed { slot, cached: CacheState::Whole });
    assert_eq!(rail.read(), (slot, ReadMode::Cached));
}

/// The routes of pieces that are sent one after another, and held by the kernel.
#[test]
fn at_most_half_of_the_slots_wait_for_notifications() {
    let mut rail = TestRail::new(5, DataPath::Zerocopy);
    let flow = rail.sending_flow(A);
    rail.take_done();
    let mut held = Vec::new();
    for request in 0..3 {
        rail.request(flow, request, block(request.into()));
        let slot = rail.probe();
        let route = rail.load(slot);
        let expected = if request < 2 { KernelRoute::Zerocopy } else { KernelRoute::DirectSend };
        assert_eq!(route, expected, "request {request}");
        let is_held = route == KernelRoute::Zerocopy;
        rail.sent(slot, SendOutcome::Sent, is_held);
        held.extend(is_held.then_some(slot));
    }
    // The kernel had copied: it is not asked again on this flow.
    rail.handle(RailEvent::SlotReleased { slot: held[0], copied: true });
    rail.take_done();
    rail.request(flow, 9, block(9));
    let slot = rail.probe();
    assert_eq!(rail.load(slot), KernelRoute::DirectSend);
}

#[test]
fn what_the_kernel_would_not_send_without_a_copy_is_sent_plainly() {
    for is_held in [false, true] {
        let mut rail = TestRail::new(4, DataPath::Zerocopy);
        let flow = rail.sending_flow(A);
        rail.take_done();
        rail.request(flow, 1, block(1));
        let slot = rail.probe();
        assert_eq!(rail.load(slot), KernelRoute::Zerocopy);
        rail.sent(slot, SendOutcome::NoZerocopy, is_held);
        if is_held {
            assert!(rail.take_done().is_empty(), "the kernel still has the slot");
            rail.handle(RailEvent::SlotReleased { slot, copied: false });
        }
        let done = rail.take_done();
        let is_plain = |action: &RailAction| {
            matches!(action, RailAction::Send { route: KernelRoute::ReadSend, .. })
        };
        assert!(done.iter().any(is_plain), "{done:?}");
        rail.sent(slot, SendOutcome::Sent, false);
        rail.request(flow, 2, block(2));
        let slot = rail.probe();
        assert_eq!(rail.load(slot), KernelRoute::DirectSend);
    }
}

#[test]
fn slots_come_back_however_their_flow_ends() {
    let mut rail = TestRail::new(2, DataPath::Direct);
    for request in 0..20 {
        let flow = rail.sending_flow(A);
        rail.take_done();
        rail.request(flow, request, block(1));
        let (slot, mode) = rail.read();
        assert_eq!(mode, ReadMode::Direct, "a slot is free");
        let broken = RailEvent::FlowBroken { flow, error: Error::new(Code::Unreachable, "gone") };
        match request % 4 {
            // While it is read, and well.
            0 => {
                rail.handle(broken);
                rail.handle(RailEvent::ReadDone { slot, outcome: ReadOutcome::Loaded });
            }
            1 => {
                rail.handle(broken);
                let outcome = ReadOutcome::Failed(Code::Data);
                rail.handle(RailEvent::ReadDone { slot, outcome });
            }
            // While it is sent.
            2 => {
                rail.loaded(slot);
                rail.handle(broken);
                rail.sent(slot, SendOutcome::Broken, false);
            }
            _ => {
                rail.loaded(slot);
                rail.sent(slot, SendOutcome::Broken, false);
            }
        }
        rail.machine.slots_at_work();
    }
}

#[test]
fn a_receiver_that_asks_for_no_piece_is_closed() {
    for frame in [
        Frame::new(FrameKind::Request { stolen: false }, 1, Span::of(0, BLOCK + 1)),
        Frame::new(FrameKind::Data(Check::None), 1, Span::of(0, BLOCK)),
    ] {
        let mut rail = TestRail::new(2, DataPath::Auto);
        let flow = rail.sending_flow(A);
        rail.take_done();
        rail.handle(RailEvent::Request { flow, frame });
        let done = rail.take_done();
        assert!(matches!(done[..], [RailAction::CloseFlow { .. }]), "{done:?}");
        // Requests behind that one are not looked at.
        rail.handle(RailEvent::RequestsRead { flow });
        assert!(rail.take_done().is_empty());
    }
}

#[test]
fn a_sender_that_asks_is_closed() {
    let mut rail = TestRail::new(2, DataPath::Auto);
    let flow = rail.receiving_flow(A);
    let frame = Frame::new(FrameKind::Request { stolen: false }, 1, block(1));
    rail.handle(RailEvent::Header { flow, frame });
    assert!(matches!(rail.take_done()[..], [RailAction::CloseFlow { .. }]));
}

#[test]
fn a_transfer_that_is_left_is_forgotten_last() {
    let mut rail = TestRail::new(2, DataPath::Direct);
    let flow = rail.sending_flow(A);
    rail.receiving_flow(A);
    rail.take_done();
    rail.request(flow, 1, block(1));
    let (slot, _) = rail.read();
    rail.command(A, TransferCommand::Leave);
    let done = rail.take_done();
    let expected = matches!(
        done[..],
        [
            RailAction::CloseFlow { .. },
            RailAction::CloseFlow { .. },
            RailAction::Forget { transfer: A }
        ]
    );
    assert!(expected, "{done:?}");
    rail.handle(RailEvent::ReadDone { slot, outcome: ReadOutcome::Loaded });
    rail.machine.slots_at_work();
    assert!(rail.take_done().is_empty());
}

#[test]
fn a_far_path_is_read_again_and_again_and_a_near_one_once() {
    let mut rail = TestRail::new(4, DataPath::Auto);
    let (far, near) = (rail.receiving_flow(A), rail.receiving_flow(A));
    rail.sending_flow(A);
    let tick = |rail: &mut TestRail| {
        rail.now = rail.now.max(rail.machine.poll_timeout().unwrap_or(rail.now));
        rail.done.clear();
        rail.handle(RailEvent::Tick);
        let read = rail.done.iter().filter_map(|action| match action {
            RailAction::ReadPath { flow } => Some(*flow),
            _ => None,
        });
        read.collect::<Vec<FlowPlace>>()
    };
    while rail.machine.poll_report().is_some() {}
    assert_eq!(tick(&mut rail), [far, near]);
    for (flow, ms) in [(far, 50), (near, 1)] {
        let delay = Duration::from_millis(ms);
        let reading = Some(PathReading { delay, delay_min: delay, bytes: 1, late_packets: 0 });
        rail.handle(RailEvent::PathRead { flow, reading });
    }
    let told: Vec<RailNotice> = std::iter::from_fn(|| rail.machine.poll_report()).collect();
    let [RailNotice::Scheduler { event: SchedulerEvent::PathRead { flow, .. }, .. }] = &told[..]
    else {
        panic!("the scheduler hears of the far one: {told:?}");
    };
    assert_eq!(*flow, far.flow);
    assert_eq!(tick(&mut rail), [far]);
    // Its kernel does not tell any more.
    rail.handle(RailEvent::PathRead { flow: far, reading: None });
    assert_eq!(rail.machine.poll_timeout(), None);
}

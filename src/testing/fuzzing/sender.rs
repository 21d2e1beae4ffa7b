//! A rail that sends, with receivers that ask for anything at any time and a kernel that ends
//! operations in any order.

use std::collections::BTreeSet;
use std::time::Duration;

use super::byte_source::ByteSource;
use super::rail::{FuzzedRail, TRANSFER};
use crate::core::check::CheckMethod;
use crate::core::error::Code;
use crate::core::options::DataPath;
use crate::core::piece::FlowIx;
use crate::core::rail::{
    CacheState, FlowDirection, FlowPlace, KernelRoute, MappedDestination, MappedSource, PieceMap,
    RailEvent, ReadMode, ReadOutcome, SendOutcome, SourceKind, TransferCommand,
};
use crate::core::units::{Moment, Span};
use crate::core::wire::frame::{Frame, FrameKind};

/// The largest piece.
const BLOCK: u64 = 100;
/// Pieces that begin below this have yet to land.
const LANDS_BELOW: u64 = 512;
const NOW: Moment = Moment(1);

/// No more slots are in use than there are, no flow has two sends at once, and every request of a
/// flow that stands is answered once.
pub fn sender(bytes: &[u8]) {
    let mut script = ByteSource::new(bytes);
    let mut world = SenderWorld::new(&mut script);
    while !script.is_over() {
        world.step(&mut script);
        world.rail.follow(None);
    }
    world.end();
}

struct SenderWorld {
    rail: FuzzedRail,
    flow_count: u32,
}

impl SenderWorld {
    fn new(script: &mut ByteSource<'_>) -> SenderWorld {
        use DataPath::{Auto, Copy, Direct, Splice, Zerocopy};
        let mut rail = FuzzedRail::new(1 + script.below(8) as u32, BLOCK);
        let kinds = [
            SourceKind::File { direct: true },
            SourceKind::File { direct: false },
            SourceKind::Pattern,
        ];
        let map = PieceMap {
            method: CheckMethod::None,
            path: script.pick(&[Zerocopy, Auto, Splice, Direct, Copy]),
            sources: vec![MappedSource {
                range: Span::new(LANDS_BELOW, u64::MAX),
                kind: script.pick(&kinds),
            }],
            destinations: vec![MappedDestination {
                range: Span::new(0, LANDS_BELOW + BLOCK),
                direct: script.coin(),
            }],
        };
        rail.machine.join(TRANSFER, map, Duration::from_secs(10));
        SenderWorld { rail, flow_count: 0 }
    }

    fn step(&mut self, script: &mut ByteSource<'_>) {
        match script.below(16) {
            0 => {
                let flow = FlowIx(self.flow_count);
                self.flow_count += 1;
                let weight = script.pick(&[0, 1, 1000, u64::MAX]);
                // Further flows are those that nobody plans for.
                let (in_clear, is_further) = (weight.is_multiple_of(2), weight == 1);
                let direction = FlowDirection::Send { weight, in_clear, is_further };
                self.rail.flow_up(NOW, flow, direction);
            }
            1..=4 => self.ask(script),
            5 => self.probed(script),
            6 | 7 => self.read(script),
            8 | 9 => self.sent(script),
            10 => {
                if let Some(at) = script.place(self.rail.held.len()) {
                    let slot = self.rail.held.swap_remove(at);
                    let copied = script.coin();
                    self.handle(RailEvent::SlotReleased { slot, copied });
                }
            }
            11 => {
                let start = u64::from(script.byte()) * 2;
                let span = Span::of(start, 1 + u64::from(script.byte()));
                let is_lost = script.below(4) == 3;
                let command = match is_lost {
                    true => TransferCommand::Withdraw { span },
                    false => TransferCommand::Offer { span },
                };
                self.rail.command(NOW, command);
            }
            12 => {
                if let Some(flow) = self.flow(script) {
                    self.rail.break_flow(NOW, flow, Code::Unreachable);
                }
            }
            13 => {
                if let Some(flow) = self.flow(script) {
                    self.refusal_sent(flow);
                }
            }
            _ => {}
        }
    }

    fn flow(&self, script: &mut ByteSource<'_>) -> Option<FlowPlace> {
        let at = script.place(self.rail.flows.len())?;
        self.rail.flows.keys().nth(at).copied()
    }

    fn handle(&mut self, event: RailEvent) {
        self.rail.machine.handle(NOW, event);
    }

    /// A receiver asks: for one piece or for several at once, and not always for what it may.
    fn ask(&mut self, script: &mut ByteSource<'_>) {
        let Some(flow) = self.flow(script) else { return };
        let state = self.rail.flows.get_mut(&flow).expect("one of them");
        if !state.awaits_requests {
            return;
        }
        state.awaits_requests = false;
        for _ in 0..1 + script.below(3) {
            let start = script.pick(&[0, 7, 1000, u64::MAX - 400]) + u64::from(script.byte());
            let span = Span::of(start, 1 + script.below(103) as u64);
            let kind = match script.below(64) {
                63 => FrameKind::Refuse(Code::Data),
                other => FrameKind::Request { stolen: other % 2 == 1 },
            };
            let frame = Frame::new(kind, script.below(64) as u32, span);
            if let Some(state) = self.rail.flows.get_mut(&flow) {
                // One that asks twice under one number is closed by it, and has no answer.
                state.asked.push(frame);
            }
            self.handle(RailEvent::Request { flow, frame });
            self.rail.follow(None);
        }
        self.handle(RailEvent::RequestsRead { flow });
    }

    fn probed(&mut self, script: &mut ByteSource<'_>) {
        let Some(at) = script.place(self.rail.probing.len()) else { return };
        let (slot, _) = self.rail.probing.swap_remove(at);
        let states = [CacheState::Whole, CacheState::Dirty, CacheState::Clean, CacheState::Unknown];
        let cached = script.pick(&states);
        self.handle(RailEvent::Probed { slot, cached });
    }

    fn read(&mut self, script: &mut ByteSource<'_>) {
        let Some(at) = script.place(self.rail.reading.len()) else { return };
        let (slot, _, mode) = self.rail.reading.swap_remove(at);
        let outcome = match (script.below(4), mode) {
            (3, _) => ReadOutcome::Failed(Code::Data),
            (2, ReadMode::Splice | ReadMode::Cached) => ReadOutcome::NotCached,
            (2, ReadMode::Direct) => ReadOutcome::NotDirect,
            _ => ReadOutcome::Loaded,
        };
        self.handle(RailEvent::ReadDone { slot, outcome });
    }

    fn sent(&mut self, script: &mut ByteSource<'_>) {
        let Some(at) = script.place(self.rail.sending.len()) else { return };
        let (_, _, route) = self.rail.sending[at];
        let outcome = match (script.below(8), route) {
            (7, _) => SendOutcome::Broken,
            (5 | 6, KernelRoute::Zerocopy) => SendOutcome::NoZerocopy,
            (6, KernelRoute::Splice) => SendOutcome::NotSpliced,
            _ => SendOutcome::Sent,
        };
        let is_held = route == KernelRoute::Zerocopy && script.coin();
        self.send_ended(at, outcome, is_held);
    }

    fn send_ended(&mut self, at: usize, outcome: SendOutcome, is_held: bool) {
        let (slot, flow, _) = self.rail.sending.swap_remove(at);
        if let Some(state) = self.rail.flows.get_mut(&flow) {
            state.is_sending = outcome == SendOutcome::NoZerocopy;
        }
        if is_held {
            self.rail.held.push(slot);
        }
        self.handle(RailEvent::SendDone { slot, outcome, is_held });
    }

    fn refusal_sent(&mut self, flow: FlowPlace) {
        let Some(state) = self.rail.flows.get_mut(&flow).filter(|it| it.sends_refusal) else {
            return;
        };
        (state.is_sending, state.sends_refusal) = (false, false);
        self.handle(RailEvent::RefusalSent { flow });
    }

    /// The kernel ends what it has begun, and everything lands: nobody waits any more then.
    fn end(&mut self) {
        self.rail.command(NOW, TransferCommand::Offer { span: Span::new(0, LANDS_BELOW + BLOCK) });
        loop {
            self.rail.follow(None);
            if let Some((slot, _)) = self.rail.probing.pop() {
                self.handle(RailEvent::Probed { slot, cached: CacheState::Unknown });
            } else if let Some((slot, ..)) = self.rail.reading.pop() {
                self.handle(RailEvent::ReadDone { slot, outcome: ReadOutcome::Loaded });
            } else if !self.rail.sending.is_empty() {
                self.send_ended(0, SendOutcome::Sent, false);
            } else if let Some(slot) = self.rail.held.pop() {
                self.handle(RailEvent::SlotReleased { slot, copied: false });
            } else {
                let refuses = self.rail.flows.iter().find(|(_, it)| it.sends_refusal);
                let Some(flow) = refuses.map(|(&flow, _)| flow) else { break };
                self.refusal_sent(flow);
            }
        }
        let flows = self.rail.flows.iter();
        let waiting: BTreeSet<FlowPlace> =
            flows.filter(|(_, flow)| !flow.asked.is_empty()).map(|(&flow, _)| flow).collect();
        assert!(waiting.is_empty(), "{waiting:?} wait");
        assert_eq!(self.rail.machine.slots_at_work(), (0, 0));
    }
}

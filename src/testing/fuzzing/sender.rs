//! The sending half of a rail, with receivers that ask for anything at any time and a kernel that
//! answers in any order.
//!
//! What the driver promises the machines is kept here: an answer to each `Load` and each `Send`,
//! and a slot that is held is freed once.

use std::collections::{BTreeMap, BTreeSet};

use super::byte_source::ByteSource;
use crate::core::error::Code;
use crate::core::piece::FlowIx;
use crate::core::rail::piece_sender::{PieceRequest, PieceSender, SenderAction, SenderEvent};
use crate::core::rail::relay_queue::{RelayDecision, RelayQueue};
use crate::core::units::Span;

/// No more slots are in use than there are, no flow has two sends at once, and every request of a
/// flow that stands is answered once.
pub fn sender(bytes: &[u8]) {
    let mut script = ByteSource::new(bytes);
    let slots = 1 + script.below(8);
    let mut world = SenderWorld {
        slots,
        piece_sender: PieceSender::new(slots as u32),
        ..SenderWorld::default()
    };
    while !script.is_over() {
        world.step(&mut script);
        world.follow();
    }
    world.end();
}

struct SenderWorld {
    slots: usize,
    piece_sender: PieceSender,
    relay: RelayQueue,
    flows: BTreeMap<FlowIx, RequestedFlow>,
    flow_count: u32,
    loading: Vec<(FlowIx, PieceRequest)>,
    loaded: Vec<(FlowIx, PieceRequest)>,
    sending: Vec<(FlowIx, PieceRequest)>,
    /// Slots that are sent and that the kernel still reads.
    held: usize,
}

/// What a flow that stands has asked for and got no answer to.
#[derive(Default)]
struct RequestedFlow {
    asked: Vec<PieceRequest>,
    /// Of these, what waits until it lands.
    parked: Vec<PieceRequest>,
}

impl Default for SenderWorld {
    fn default() -> SenderWorld {
        SenderWorld {
            slots: 1,
            piece_sender: PieceSender::new(1),
            relay: RelayQueue::default(),
            flows: BTreeMap::new(),
            flow_count: 0,
            loading: Vec::new(),
            loaded: Vec::new(),
            sending: Vec::new(),
            held: 0,
        }
    }
}

impl SenderWorld {
    fn step(&mut self, script: &mut ByteSource<'_>) {
        match script.below(8) {
            0 => self.flow_up(script),
            1 | 2 => self.ask(script),
            3 => self.loaded(script),
            4 => {
                let Some(at) = script.place(self.sending.len()) else { return };
                let (flow, _) = self.sending.swap_remove(at);
                let held = script.coin();
                self.held += usize::from(held);
                self.piece_sender.handle(if held {
                    SenderEvent::SentHeld { flow }
                } else {
                    SenderEvent::Sent { flow }
                });
            }
            5 if self.held > 0 => {
                self.held -= 1;
                self.piece_sender.handle(SenderEvent::Freed);
            }
            6 => {
                let start = u64::from(script.byte());
                let span = Span::of(start, 1 + u64::from(script.byte()));
                if script.below(4) == 3 { self.give_up(span) } else { self.land(span) }
            }
            7 => {
                let Some(at) = script.place(self.flows.len()) else { return };
                let flow = *self.flows.keys().nth(at).expect("one of them");
                self.flow_down(flow);
            }
            _ => {}
        }
    }

    fn flow_up(&mut self, script: &mut ByteSource<'_>) {
        let flow = FlowIx(self.flow_count);
        self.flow_count += 1;
        self.flows.insert(flow, RequestedFlow::default());
        let weight = script.pick(&[0, 1, 1000, u64::MAX]);
        self.piece_sender.handle(SenderEvent::FlowUp { flow, weight });
    }

    /// A receiver asks; what begins below 256 is what this node has yet to land.
    fn ask(&mut self, script: &mut ByteSource<'_>) {
        let Some(at) = script.place(self.flows.len()) else { return };
        let flow = *self.flows.keys().nth(at).expect("one of them");
        let start = script.pick(&[0, 7, 1000, u64::MAX - 400]) + u64::from(script.byte());
        let span = Span::of(start, 1 + script.below(100) as u64);
        let ask = PieceRequest { request: script.below(8) as u32, span, stolen: script.coin() };
        let state = self.flows.get_mut(&flow).expect("one of them");
        let now =
            if span.start < 256 { self.relay.ask(flow, ask) } else { Ok(RelayDecision::Ready) };
        match now {
            Ok(RelayDecision::Ready) => {
                state.asked.push(ask);
                self.piece_sender.handle(SenderEvent::Request { flow, ask });
            }
            Ok(RelayDecision::Waits) => {
                state.asked.push(ask);
                state.parked.push(ask);
            }
            // The rail refuses it at once.
            Ok(RelayDecision::Never) => {}
            Err(_) => self.flow_down(flow),
        }
    }

    fn land(&mut self, span: Span) {
        self.relay.land(span);
        while let Some((flow, ask)) = self.relay.poll_ready() {
            let state = self.flows.get_mut(&flow).expect("nobody waits on a flow that is gone");
            let at = state
                .parked
                .iter()
                .position(|parked| *parked == ask)
                .expect("it waited, and for once");
            state.parked.remove(at);
            self.piece_sender.handle(SenderEvent::Request { flow, ask });
            self.follow();
        }
    }

    fn give_up(&mut self, span: Span) {
        for (flow, ask) in self.relay.give_up(span) {
            let state = self.flows.get_mut(&flow).expect("nobody waits on a flow that is gone");
            let at = state
                .parked
                .iter()
                .position(|parked| *parked == ask)
                .expect("it waited, and for once");
            state.parked.remove(at);
            self.answered(flow, ask);
        }
    }

    fn loaded(&mut self, script: &mut ByteSource<'_>) {
        let Some(at) = script.place(self.loading.len()) else { return };
        let (flow, ask) = self.loading.swap_remove(at);
        let result = if script.below(4) == 3 { Err(Code::Data) } else { Ok(()) };
        if result.is_ok() {
            self.loaded.push((flow, ask));
        }
        self.piece_sender.handle(SenderEvent::Loaded { flow, ask, result });
    }

    fn flow_down(&mut self, flow: FlowIx) {
        if self.flows.remove(&flow).is_some() {
            self.relay.flow_down(flow);
            self.piece_sender.handle(SenderEvent::FlowDown { flow });
        }
    }

    fn follow(&mut self) {
        while let Some(action) = self.piece_sender.poll_action() {
            match action {
                SenderAction::Load { flow, ask } => {
                    let mut slots = self.loading.iter().chain(&self.loaded);
                    let is_new = |(of, it): &(FlowIx, PieceRequest)| {
                        (*of, it.request) != (flow, ask.request)
                    };
                    assert!(
                        slots.all(is_new),
                        "the driver knows what is loaded by its flow and number"
                    );
                    self.loading.push((flow, ask));
                }
                SenderAction::Send { flow, ask } => {
                    self.take_loaded(flow, ask);
                    self.answered(flow, ask);
                    assert!(
                        self.sending.iter().all(|(of, _)| *of != flow),
                        "two sends on one flow"
                    );
                    self.sending.push((flow, ask));
                }
                SenderAction::Unload { flow, ask } => {
                    self.take_loaded(flow, ask);
                    assert!(
                        !self.flows.contains_key(&flow),
                        "only what nobody waits for is thrown away"
                    );
                }
                SenderAction::Refuse { flow, ask, .. } => self.answered(flow, ask),
                SenderAction::Close { flow, .. } => self.flow_down(flow),
            }
            let used = self.loading.len() + self.loaded.len() + self.sending.len() + self.held;
            assert!(used <= self.slots, "{used} slots in use of {}", self.slots);
        }
    }

    fn take_loaded(&mut self, flow: FlowIx, ask: PieceRequest) {
        let at = self
            .loaded
            .iter()
            .position(|loaded| *loaded == (flow, ask))
            .expect("a piece that is in a slot");
        self.loaded.remove(at);
    }

    /// A flow may have gone since the machine decided to answer it.
    fn answered(&mut self, flow: FlowIx, ask: PieceRequest) {
        if let Some(state) = self.flows.get_mut(&flow) {
            let at = state
                .asked
                .iter()
                .position(|asked| *asked == ask)
                .expect("an answer to a request, and one only");
            state.asked.remove(at);
        }
    }

    /// The kernel ends what it has begun, and everything lands: nobody waits any more then.
    fn end(&mut self) {
        self.land(Span::new(0, 600));
        self.follow();
        loop {
            if let Some((flow, ask)) = self.loading.pop() {
                self.loaded.push((flow, ask));
                self.piece_sender.handle(SenderEvent::Loaded { flow, ask, result: Ok(()) });
            } else if let Some((flow, _)) = self.sending.pop() {
                self.piece_sender.handle(SenderEvent::Sent { flow });
            } else if self.held > 0 {
                self.held -= 1;
                self.piece_sender.handle(SenderEvent::Freed);
            } else {
                break;
            }
            self.follow();
        }
        let waiting: BTreeSet<FlowIx> = self
            .flows
            .iter()
            .filter(|(_, flow)| !flow.asked.is_empty())
            .map(|(&flow, _)| flow)
            .collect();
        assert!(
            waiting.is_empty() && self.loaded.is_empty(),
            "{waiting:?} wait, {:?} lie",
            self.loaded
        );
    }
}

//! The sending half of a rail, with receivers that ask for anything at any time and a kernel that
//! answers in any order.
//!
//! What the driver promises the machines is kept here: an answer to each `Load` and each `Send`,
//! and a slot that is held is freed once.

use std::collections::{BTreeMap, BTreeSet};

use super::script::Script;
use crate::engine::FlowIx;
use crate::engine::relay::{Asked, Relay};
use crate::engine::serve::{Action, Ask, Event, Serve};
use crate::error::Code;
use crate::units::Span;

/// No more slots are in use than there are, no flow has two sends at once, and every request of a
/// flow that stands is answered once.
pub fn sender(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let slots = 1 + script.below(8);
    let mut world = World { slots, serve: Serve::new(slots as u32), ..World::default() };
    while !script.is_over() {
        world.step(&mut script);
        world.follow();
    }
    world.end();
}

struct World {
    slots: usize,
    serve: Serve,
    relay: Relay,
    flows: BTreeMap<FlowIx, Flow>,
    flow_count: u32,
    loading: Vec<(FlowIx, Ask)>,
    loaded: Vec<(FlowIx, Ask)>,
    sending: Vec<(FlowIx, Ask)>,
    /// Slots that are sent and that the kernel still reads.
    held: usize,
}

/// What a flow that stands has asked for and got no answer to.
#[derive(Default)]
struct Flow {
    asked: Vec<Ask>,
    /// Of these, what waits until it lands.
    parked: Vec<Ask>,
}

impl Default for World {
    fn default() -> World {
        World {
            slots: 1,
            serve: Serve::new(1),
            relay: Relay::default(),
            flows: BTreeMap::new(),
            flow_count: 0,
            loading: Vec::new(),
            loaded: Vec::new(),
            sending: Vec::new(),
            held: 0,
        }
    }
}

impl World {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(8) {
            0 => self.flow_up(script),
            1 | 2 => self.ask(script),
            3 => self.loaded(script),
            4 => {
                let Some(at) = script.place(self.sending.len()) else { return };
                let (flow, _) = self.sending.swap_remove(at);
                let held = script.coin();
                self.held += usize::from(held);
                self.serve.handle(if held {
                    Event::SentHeld { flow }
                } else {
                    Event::Sent { flow }
                });
            }
            5 if self.held > 0 => {
                self.held -= 1;
                self.serve.handle(Event::Freed);
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

    fn flow_up(&mut self, script: &mut Script<'_>) {
        let flow = FlowIx(self.flow_count);
        self.flow_count += 1;
        self.flows.insert(flow, Flow::default());
        let weight = script.pick(&[0, 1, 1000, u64::MAX]);
        self.serve.handle(Event::FlowUp { flow, weight });
    }

    /// A receiver asks; what begins below 256 is what this node has yet to land.
    fn ask(&mut self, script: &mut Script<'_>) {
        let Some(at) = script.place(self.flows.len()) else { return };
        let flow = *self.flows.keys().nth(at).expect("one of them");
        let start = script.pick(&[0, 7, 1000, u64::MAX - 400]) + u64::from(script.byte());
        let span = Span::of(start, 1 + script.below(100) as u64);
        let ask = Ask { request: script.below(8) as u32, span, soft: script.coin() };
        let state = self.flows.get_mut(&flow).expect("one of them");
        let now = if span.start < 256 { self.relay.ask(flow, ask) } else { Ok(Asked::Ready) };
        match now {
            Ok(Asked::Ready) => {
                state.asked.push(ask);
                self.serve.handle(Event::Request { flow, ask });
            }
            Ok(Asked::Waits) => {
                state.asked.push(ask);
                state.parked.push(ask);
            }
            // The rail refuses it at once.
            Ok(Asked::Never) => {}
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
            self.serve.handle(Event::Request { flow, ask });
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

    fn loaded(&mut self, script: &mut Script<'_>) {
        let Some(at) = script.place(self.loading.len()) else { return };
        let (flow, ask) = self.loading.swap_remove(at);
        let result = if script.below(4) == 3 { Err(Code::Data) } else { Ok(()) };
        if result.is_ok() {
            self.loaded.push((flow, ask));
        }
        self.serve.handle(Event::Loaded { flow, ask, result });
    }

    fn flow_down(&mut self, flow: FlowIx) {
        if self.flows.remove(&flow).is_some() {
            self.relay.flow_down(flow);
            self.serve.handle(Event::FlowDown { flow });
        }
    }

    fn follow(&mut self) {
        while let Some(action) = self.serve.poll_action() {
            match action {
                Action::Load { flow, ask } => {
                    let mut slots = self.loading.iter().chain(&self.loaded);
                    let is_new =
                        |(of, it): &(FlowIx, Ask)| (*of, it.request) != (flow, ask.request);
                    assert!(
                        slots.all(is_new),
                        "the driver knows what is loaded by its flow and number"
                    );
                    self.loading.push((flow, ask));
                }
                Action::Send { flow, ask } => {
                    self.take_loaded(flow, ask);
                    self.answered(flow, ask);
                    assert!(
                        self.sending.iter().all(|(of, _)| *of != flow),
                        "two sends on one flow"
                    );
                    self.sending.push((flow, ask));
                }
                Action::Unload { flow, ask } => {
                    self.take_loaded(flow, ask);
                    assert!(
                        !self.flows.contains_key(&flow),
                        "only what nobody waits for is thrown away"
                    );
                }
                Action::Refuse { flow, ask, .. } => self.answered(flow, ask),
                Action::Close { flow, .. } => self.flow_down(flow),
            }
            let used = self.loading.len() + self.loaded.len() + self.sending.len() + self.held;
            assert!(used <= self.slots, "{used} slots in use of {}", self.slots);
        }
    }

    fn take_loaded(&mut self, flow: FlowIx, ask: Ask) {
        let at = self
            .loaded
            .iter()
            .position(|loaded| *loaded == (flow, ask))
            .expect("a piece that is in a slot");
        self.loaded.remove(at);
    }

    /// A flow may have gone since the machine decided to answer it.
    fn answered(&mut self, flow: FlowIx, ask: Ask) {
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
                self.serve.handle(Event::Loaded { flow, ask, result: Ok(()) });
            } else if let Some((flow, _)) = self.sending.pop() {
                self.serve.handle(Event::Sent { flow });
            } else if self.held > 0 {
                self.held -= 1;
                self.serve.handle(Event::Freed);
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

//! The flows of the simulated cluster: requests and pieces on their way, and what becomes of them
//! at either end.

use std::collections::VecDeque;

use super::cluster::{Cluster, Happening, Way};
use super::disk::Payload;
use super::node::{End, Parcel, Parked};
use super::troubles::CONNECTED_WITHIN;
use crate::engine::lanes::Lane;
use crate::engine::pull::{self, Answer};
use crate::engine::relay::Asked;
use crate::engine::serve::{self, Ask};
use crate::engine::{FlowIx, Piece, member, owner};
use crate::error::{Code, Error};
use crate::units::{NodeIx, covers};
use crate::wire::Check;

impl Cluster {
    pub(super) fn pull_action(&mut self, node: NodeIx, action: pull::Action) {
        match action {
            pull::Action::Request { flow, request, piece } => {
                if let Some(end) = self.nodes[node.at()].fetching.get(&flow).copied() {
                    let ask = Ask { request, span: piece.span, soft: piece.soft };
                    let happening = Happening::Request {
                        receiver: node,
                        sender: end.peer,
                        flow: end.there,
                        ask,
                    };
                    self.in_order(Way::Requests(node, flow), self.world.latency, happening);
                }
            }
            pull::Action::Land { .. } => unreachable!("payloads arrive with their headers here"),
            pull::Action::Close { flow, error } => self.close_fetching(node, flow, &error),
        }
    }

    /// A request reaches a node: what has yet to land there waits.
    pub(super) fn requested(&mut self, node: NodeIx, flow: FlowIx, ask: Ask) {
        let state = &mut self.nodes[node.at()];
        if !state.serving.contains_key(&flow) {
            return;
        }
        let is_ready = match covers(&state.offered, ask.span) {
            true => Ok(Asked::Ready),
            false => state.relay.ask(flow, ask),
        };
        match is_ready {
            Ok(Asked::Ready) => state.serve.handle(serve::Event::Request { flow, ask }),
            Ok(Asked::Waits) => {}
            Ok(Asked::Never) => {
                self.serve_action(node, serve::Action::Refuse { flow, ask, code: Code::Data })
            }
            Err(error) => panic!("a simulated receiver keeps to its credit: {error}"),
        }
        self.follow(node);
    }

    pub(super) fn serve_action(&mut self, node: NodeIx, action: serve::Action) {
        use serve::Action;
        let state = &mut self.nodes[node.at()];
        match action {
            Action::Load { flow, ask } => {
                state.loading += 1;
                let delay = self.disk_seconds(ask.span.bytes());
                self.after(delay, Happening::Loaded { sender: node, flow, ask });
            }
            Action::Send { flow, ask } => {
                let (check, mut payload) =
                    state.loaded.remove(&(flow, ask.request)).expect("what is sent was read");
                let Some(end) = state.serving.get(&flow).copied() else {
                    return state.serve.handle(serve::Event::Sent { flow });
                };
                state.sending.insert(flow);
                let has = covers(&state.offered, ask.span) || state.landed.contains(&ask.span);
                assert!(has, "node {} sends {}, which it does not have", node.0, ask.span);
                if self.random.chance(self.world.faults.changed) {
                    payload.change(self.random.next());
                }
                let parcel = Parcel::Data { ask, check, payload, sender_flow: flow };
                self.net.send(end.there, end.peer, ask.span.bytes(), parcel);
            }
            Action::Unload { flow, ask } => {
                state.loaded.remove(&(flow, ask.request)).expect("what is thrown away was read");
            }
            Action::Refuse { flow, ask, code } => {
                if let Some(end) = state.serving.get(&flow) {
                    self.net.send(end.there, end.peer, 96, Parcel::Refusal { ask, code });
                }
            }
            Action::Close { flow, error } => self.close_serving(node, flow, &error),
        }
    }

    /// A piece is read, or cannot be.
    pub(super) fn loaded(&mut self, node: NodeIx, flow: FlowIx, ask: Ask) {
        let method = self.conductor.terms().method;
        let state = &mut self.nodes[node.at()];
        if !state.alive {
            return;
        }
        state.loading -= 1;
        let is_readable = !self.random.chance(self.world.faults.unreadable);
        let read = if is_readable {
            state.disk.read(method, ask.span).map_err(|error| error.code)
        } else {
            Err(Code::Data)
        };
        let result = read.map(|read| _ = state.loaded.insert((flow, ask.request), read));
        state.serve.handle(serve::Event::Loaded { flow, ask, result });
        self.follow(node);
    }

    pub(super) fn flow_opened(&mut self, receiver: NodeIx, lane: Lane, weight: u64) {
        let sender = lane.sender;
        if !self.nodes[receiver.at()].is_in_attempt() {
            return;
        }
        let failed = |why: &str| {
            let error = Error::new(Code::Unreachable, why);
            Happening::Member(
                receiver,
                member::Event::Owner(owner::Event::OpenFailed { lane, error }),
            )
        };
        if let Some(until) = self.apart(receiver, sender) {
            let given_up = self.now + CONNECTED_WITHIN;
            if until < given_up {
                return self.at(until, Happening::FlowOpened { receiver, lane, weight });
            }
            return self.at(given_up, failed("no answer"));
        }
        if !self.nodes[sender.at()].is_in_attempt() {
            return self.after(self.world.latency, failed("connection refused"));
        }
        let here = self.nodes[receiver.at()].next_flow();
        let there = self.nodes[sender.at()].next_flow();
        self.net.open(here, sender, receiver);
        self.nodes[receiver.at()].fetching.insert(here, End { peer: sender, there });
        self.nodes[sender.at()].serving.insert(there, End { peer: receiver, there: here });
        self.nodes[sender.at()].serve.handle(serve::Event::FlowUp { flow: there, weight });
        self.follow(sender);
        let event = member::Event::Owner(owner::Event::FlowUp { flow: here, lane });
        self.member(receiver, event);
        if self.nodes[receiver.at()].fetching.contains_key(&here) {
            let relays = self.conductor.relays(sender);
            self.nodes[receiver.at()]
                .pull
                .handle(self.now, pull::Event::FlowUp { flow: here, relays });
        }
        self.follow(receiver);
    }

    /// The last byte of a parcel has left the sender.
    pub(super) fn through(&mut self, receiver: NodeIx, flow: FlowIx, parcel: Parcel) {
        let Some(end) = self.nodes[receiver.at()].fetching.get(&flow).copied() else { return };
        if let Parcel::Data { sender_flow, .. } = parcel {
            self.at(self.now, Happening::Sent { sender: end.peer, flow: sender_flow });
        }
        let happening = Happening::Arrived { sender: end.peer, receiver, flow, parcel };
        self.in_order(Way::Data(receiver, flow), self.world.latency, happening);
    }

    pub(super) fn sent(&mut self, sender: NodeIx, flow: FlowIx) {
        let state = &mut self.nodes[sender.at()];
        if state.alive && state.sending.remove(&flow) {
            state.serve.handle(serve::Event::Sent { flow });
            self.follow(sender);
        }
    }

    pub(super) fn arrived(&mut self, receiver: NodeIx, flow: FlowIx, parcel: Parcel) {
        if !self.nodes[receiver.at()].fetching.contains_key(&flow) {
            return;
        }
        if self.random.chance(self.world.faults.broken) {
            return self.close_fetching(
                receiver,
                flow,
                &Error::new(Code::Unreachable, "connection reset"),
            );
        }
        self.nodes[receiver.at()].unread.entry(flow).or_default().push_back(parcel);
        self.read(receiver, flow);
        self.follow(receiver);
    }

    /// Reads what has arrived on a flow, up to a payload that has no slot.
    fn read(&mut self, receiver: NodeIx, flow: FlowIx) {
        loop {
            let state = &mut self.nodes[receiver.at()];
            let is_parked = state.parked.iter().any(|parked| parked.flow == flow);
            let Some(parcel) =
                state.unread.get_mut(&flow).filter(|_| !is_parked).and_then(VecDeque::pop_front)
            else {
                return;
            };
            match parcel {
                Parcel::Refusal { ask, code } => {
                    let answer = Answer::Refuse { request: ask.request, span: ask.span, code };
                    state.pull.handle(self.now, pull::Event::Answer { flow, answer });
                }
                Parcel::Data { ask, check, payload, .. } => {
                    let answer = Answer::Data { request: ask.request, span: ask.span, check };
                    state.pull.handle(self.now, pull::Event::Answer { flow, answer });
                    while let Some(action) = self.nodes[receiver.at()].pull.poll_action() {
                        let pull::Action::Land { flow, piece, check } = action else {
                            self.pull_action(receiver, action);
                            continue;
                        };
                        assert_eq!(piece.span, ask.span, "what lands is what was asked for");
                        let parked = Parked { flow, piece, check, payload: payload.clone() };
                        self.nodes[receiver.at()].parked.push_back(parked);
                    }
                    self.land_parked(receiver);
                }
            }
        }
    }

    /// Binds free slots to the payloads that wait for one, and reads on where one did.
    fn land_parked(&mut self, receiver: NodeIx) {
        let method = self.conductor.terms().method;
        let state = &mut self.nodes[receiver.at()];
        if state.slots_free == 0 {
            return;
        }
        let Some(Parked { flow, piece, check, payload }) = state.parked.pop_front() else { return };
        let intact = payload.is_intact(method, piece.span, check);
        state.pull.handle(self.now, pull::Event::Received { flow, piece, intact });
        if intact {
            state.slots_free -= 1;
            state.writing += 1;
            let delay = self.disk_seconds(piece.span.bytes());
            self.after(delay, Happening::Written { receiver, flow, piece, check, payload });
        }
        self.read(receiver, flow);
        self.land_parked(receiver);
    }

    pub(super) fn written(
        &mut self,
        receiver: NodeIx,
        flow: FlowIx,
        piece: Piece,
        check: Check,
        payload: &Payload,
    ) {
        let state = &mut self.nodes[receiver.at()];
        state.writing -= 1;
        state.slots_free += 1;
        let written = match self.random.chance(self.world.faults.unwritable) {
            false => state.disk.write(piece.span, payload),
            true => Err(Error::new(Code::Data, "a piece cannot be written: Input/output error")),
        };
        match written {
            Ok(()) => {
                if state.land(piece) {
                    self.history.landed(self.now, piece.span.bytes());
                }
                state.pull.handle(self.now, pull::Event::Written { flow, piece, check });
                self.land_parked(receiver);
                self.follow(receiver);
            }
            Err(error) => self.member(receiver, member::Event::Broken(error)),
        }
    }

    /// A receiver closes a flow; the sender hears of it.
    pub(super) fn close_fetching(&mut self, receiver: NodeIx, flow: FlowIx, error: &Error) {
        if let Some(end) = self.nodes[receiver.at()].fetching.get(&flow).copied() {
            self.after(
                self.world.latency,
                Happening::SenderDown { sender: end.peer, flow: end.there },
            );
            self.receiver_down(receiver, flow, error);
        }
    }

    /// A sender closes a flow; the receiver hears of it. What is on the way gets there before, or
    /// does not.
    pub(super) fn close_serving(&mut self, sender: NodeIx, flow: FlowIx, error: &Error) {
        if let Some(end) = self.nodes[sender.at()].serving.get(&flow).copied() {
            let is_reset = self.random.chance(500);
            if is_reset {
                self.net.close(end.there, end.peer);
            }
            let news = Happening::ReceiverDown {
                receiver: end.peer,
                flow: end.there,
                error: error.clone(),
            };
            self.in_order(Way::Data(end.peer, end.there), self.world.latency, news);
            self.sender_down(sender, flow);
        }
    }

    pub(super) fn sender_down(&mut self, sender: NodeIx, flow: FlowIx) {
        let state = &mut self.nodes[sender.at()];
        if state.serving.remove(&flow).is_none() {
            return;
        }
        state.relay.flow_down(flow);
        state.serve.handle(serve::Event::FlowDown { flow });
        // The send that was under way ends with an error.
        if state.sending.remove(&flow) {
            state.serve.handle(serve::Event::Sent { flow });
        }
        if state.alive {
            self.follow(sender);
        }
    }

    pub(super) fn receiver_down(&mut self, receiver: NodeIx, flow: FlowIx, error: &Error) {
        let state = &mut self.nodes[receiver.at()];
        if state.fetching.remove(&flow).is_none() {
            return;
        }
        self.net.close(flow, receiver);
        state.parked.retain(|parked| parked.flow != flow);
        state.unread.remove(&flow);
        state.pull.handle(self.now, pull::Event::FlowDown { flow, error: error.clone() });
        if state.alive {
            self.follow(receiver);
        }
    }
}

//! The flows of the simulated cluster: requests and pieces on their way, and what becomes of them
//! at either end.

use std::collections::VecDeque;

use super::cluster::{OrderedChannel, SimCluster, SimEvent};
use super::disk::PiecePayload;
use super::injected_faults::CONNECTED_WITHIN;
use super::node::{FlowEnd, FlowMessage, ParkedPayload};
use crate::core::error::{Code, Error};
use crate::core::node::participant;
use crate::core::piece::{FlowIx, Piece};
use crate::core::rail::piece_receiver;
use crate::core::rail::piece_receiver::SenderAnswer;
use crate::core::rail::piece_sender;
use crate::core::rail::piece_sender::PieceRequest;
use crate::core::rail::relay_queue::RelayDecision;
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler;
use crate::core::units::{NodeIx, covers};
use crate::core::wire::Check;

impl SimCluster {
    pub(super) fn receiver_action(&mut self, node: NodeIx, action: piece_receiver::ReceiverAction) {
        match action {
            piece_receiver::ReceiverAction::Request { flow, request, piece } => {
                if let Some(end) = self.nodes[node.at()].fetching.get(&flow).copied() {
                    let ask = PieceRequest { request, span: piece.span, stolen: piece.stolen };
                    let happening = SimEvent::Request {
                        receiver: node,
                        sender: end.peer,
                        flow: end.there,
                        ask,
                    };
                    self.in_order(
                        OrderedChannel::Requests(node, flow),
                        self.world.latency,
                        happening,
                    );
                }
            }
            piece_receiver::ReceiverAction::Land { .. } => {
                unreachable!("payloads arrive with their headers here")
            }
            piece_receiver::ReceiverAction::Close { flow, error } => {
                self.close_fetching(node, flow, &error)
            }
        }
    }

    /// A request reaches a node: what has yet to land there waits.
    pub(super) fn requested(&mut self, node: NodeIx, flow: FlowIx, ask: PieceRequest) {
        let state = &mut self.nodes[node.at()];
        if !state.serving.contains_key(&flow) {
            return;
        }
        let is_ready = match covers(&state.offered, ask.span) {
            true => Ok(RelayDecision::Ready),
            false => state.relay.ask(flow, ask),
        };
        match is_ready {
            Ok(RelayDecision::Ready) => {
                state.piece_sender.handle(piece_sender::SenderEvent::Request { flow, ask })
            }
            Ok(RelayDecision::Waits) => {}
            Ok(RelayDecision::Never) => self.sender_action(
                node,
                piece_sender::SenderAction::Refuse { flow, ask, code: Code::Data },
            ),
            Err(error) => panic!("a simulated receiver keeps to its credit: {error}"),
        }
        self.follow(node);
    }

    pub(super) fn sender_action(&mut self, node: NodeIx, action: piece_sender::SenderAction) {
        use piece_sender::SenderAction;
        let state = &mut self.nodes[node.at()];
        match action {
            SenderAction::Load { flow, ask } => {
                state.loading += 1;
                let delay = self.disk_seconds(ask.span.bytes());
                self.after(delay, SimEvent::Loaded { sender: node, flow, ask });
            }
            SenderAction::Send { flow, ask } => {
                let (check, mut payload) =
                    state.loaded.remove(&(flow, ask.request)).expect("what is sent was read");
                let Some(end) = state.serving.get(&flow).copied() else {
                    return state.piece_sender.handle(piece_sender::SenderEvent::Sent { flow });
                };
                state.sending.insert(flow);
                let has = covers(&state.offered, ask.span) || state.landed.contains(&ask.span);
                assert!(has, "node {} sends {}, which it does not have", node.0, ask.span);
                if self.random.chance(self.world.faults.changed) {
                    payload.change(self.random.next());
                }
                let parcel = FlowMessage::Data { ask, check, payload, sender_flow: flow };
                self.net.send(end.there, end.peer, ask.span.bytes(), parcel);
            }
            SenderAction::Unload { flow, ask } => {
                state.loaded.remove(&(flow, ask.request)).expect("what is thrown away was read");
            }
            SenderAction::Refuse { flow, ask, code } => {
                if let Some(end) = state.serving.get(&flow) {
                    self.net.send(end.there, end.peer, 96, FlowMessage::Refusal { ask, code });
                }
            }
            SenderAction::Close { flow, error } => self.close_serving(node, flow, &error),
        }
    }

    /// A piece is read, or cannot be.
    pub(super) fn loaded(&mut self, node: NodeIx, flow: FlowIx, ask: PieceRequest) {
        let method = self.coordinator.terms().method;
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
        state.piece_sender.handle(piece_sender::SenderEvent::Loaded { flow, ask, result });
        self.follow(node);
    }

    pub(super) fn flow_opened(&mut self, receiver: NodeIx, rail_pair: RailPair, weight: u64) {
        let sender = rail_pair.sender;
        if !self.nodes[receiver.at()].is_in_attempt() {
            return;
        }
        let failed = |why: &str| {
            let error = Error::new(Code::Unreachable, why);
            SimEvent::Member(
                receiver,
                participant::ParticipantEvent::Owner(scheduler::SchedulerEvent::OpenFailed {
                    rail_pair,
                    error,
                }),
            )
        };
        if let Some(until) = self.apart(receiver, sender) {
            let given_up = self.now + CONNECTED_WITHIN;
            if until < given_up {
                return self.at(until, SimEvent::FlowOpened { receiver, rail_pair, weight });
            }
            return self.at(given_up, failed("no answer"));
        }
        if !self.nodes[sender.at()].is_in_attempt() {
            return self.after(self.world.latency, failed("connection refused"));
        }
        let here = self.nodes[receiver.at()].next_flow();
        let there = self.nodes[sender.at()].next_flow();
        self.net.open(here, sender, receiver);
        self.nodes[receiver.at()].fetching.insert(here, FlowEnd { peer: sender, there });
        self.nodes[sender.at()].serving.insert(there, FlowEnd { peer: receiver, there: here });
        self.nodes[sender.at()]
            .piece_sender
            .handle(piece_sender::SenderEvent::FlowUp { flow: there, weight });
        self.follow(sender);
        let event = participant::ParticipantEvent::Owner(scheduler::SchedulerEvent::FlowUp {
            flow: here,
            rail_pair,
        });
        self.participant(receiver, event);
        if self.nodes[receiver.at()].fetching.contains_key(&here) {
            let relays = self.coordinator.relays(sender);
            self.nodes[receiver.at()]
                .piece_receiver
                .handle(self.now, piece_receiver::ReceiverEvent::FlowUp { flow: here, relays });
        }
        self.follow(receiver);
    }

    /// The last byte of a parcel has left the sender.
    pub(super) fn through(&mut self, receiver: NodeIx, flow: FlowIx, parcel: FlowMessage) {
        let Some(end) = self.nodes[receiver.at()].fetching.get(&flow).copied() else { return };
        if let FlowMessage::Data { sender_flow, .. } = parcel {
            self.at(self.now, SimEvent::Sent { sender: end.peer, flow: sender_flow });
        }
        let happening = SimEvent::Arrived { sender: end.peer, receiver, flow, parcel };
        self.in_order(OrderedChannel::Data(receiver, flow), self.world.latency, happening);
    }

    pub(super) fn sent(&mut self, sender: NodeIx, flow: FlowIx) {
        let state = &mut self.nodes[sender.at()];
        if state.alive && state.sending.remove(&flow) {
            state.piece_sender.handle(piece_sender::SenderEvent::Sent { flow });
            self.follow(sender);
        }
    }

    pub(super) fn arrived(&mut self, receiver: NodeIx, flow: FlowIx, parcel: FlowMessage) {
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
                FlowMessage::Refusal { ask, code } => {
                    let answer =
                        SenderAnswer::Refuse { request: ask.request, span: ask.span, code };
                    state
                        .piece_receiver
                        .handle(self.now, piece_receiver::ReceiverEvent::Answer { flow, answer });
                }
                FlowMessage::Data { ask, check, payload, .. } => {
                    let answer = SenderAnswer::Data { request: ask.request, span: ask.span, check };
                    state
                        .piece_receiver
                        .handle(self.now, piece_receiver::ReceiverEvent::Answer { flow, answer });
                    while let Some(action) = self.nodes[receiver.at()].piece_receiver.poll_action()
                    {
                        let piece_receiver::ReceiverAction::Land { flow, piece, check } = action
                        else {
                            self.receiver_action(receiver, action);
                            continue;
                        };
                        assert_eq!(piece.span, ask.span, "what lands is what was asked for");
                        let parked = ParkedPayload { flow, piece, check, payload: payload.clone() };
                        self.nodes[receiver.at()].parked.push_back(parked);
                    }
                    self.land_parked(receiver);
                }
            }
        }
    }

    /// Binds free slots to the payloads that wait for one, and reads on where one did.
    fn land_parked(&mut self, receiver: NodeIx) {
        let method = self.coordinator.terms().method;
        let state = &mut self.nodes[receiver.at()];
        if state.slots_free == 0 {
            return;
        }
        let Some(ParkedPayload { flow, piece, check, payload }) = state.parked.pop_front() else {
            return;
        };
        let intact = payload.is_intact(method, piece.span, check);
        state
            .piece_receiver
            .handle(self.now, piece_receiver::ReceiverEvent::Received { flow, piece, intact });
        if intact {
            state.slots_free -= 1;
            state.writing += 1;
            let delay = self.disk_seconds(piece.span.bytes());
            self.after(delay, SimEvent::Written { receiver, flow, piece, check, payload });
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
        payload: &PiecePayload,
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
                state.piece_receiver.handle(
                    self.now,
                    piece_receiver::ReceiverEvent::Written { flow, piece, check },
                );
                self.land_parked(receiver);
                self.follow(receiver);
            }
            Err(error) => self.participant(receiver, participant::ParticipantEvent::Broken(error)),
        }
    }

    /// A receiver closes a flow; the sender hears of it.
    pub(super) fn close_fetching(&mut self, receiver: NodeIx, flow: FlowIx, error: &Error) {
        if let Some(end) = self.nodes[receiver.at()].fetching.get(&flow).copied() {
            self.after(
                self.world.latency,
                SimEvent::SenderDown { sender: end.peer, flow: end.there },
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
            let news = SimEvent::ReceiverDown {
                receiver: end.peer,
                flow: end.there,
                error: error.clone(),
            };
            self.in_order(OrderedChannel::Data(end.peer, end.there), self.world.latency, news);
            self.sender_down(sender, flow);
        }
    }

    pub(super) fn sender_down(&mut self, sender: NodeIx, flow: FlowIx) {
        let state = &mut self.nodes[sender.at()];
        if state.serving.remove(&flow).is_none() {
            return;
        }
        state.relay.flow_down(flow);
        state.piece_sender.handle(piece_sender::SenderEvent::FlowDown { flow });
        // The send that was under way ends with an error.
        if state.sending.remove(&flow) {
            state.piece_sender.handle(piece_sender::SenderEvent::Sent { flow });
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
        state.piece_receiver.handle(
            self.now,
            piece_receiver::ReceiverEvent::FlowDown { flow, error: error.clone() },
        );
        if state.alive {
            self.follow(receiver);
        }
    }
}

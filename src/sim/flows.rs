//! The flows of the simulated cluster: requests and pieces on their way, and what becomes of them at either end.

use std::time::Duration;

use super::cluster::{Cluster, Happening};
use super::node::{End, Parcel, check_of};
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
                    self.after(self.world.latency, Happening::Request { sender: end.peer, flow: end.there, ask });
                }
            }
            pull::Action::Land { .. } => unreachable!("payloads arrive with their headers here"),
            pull::Action::Close { flow, error } => self.close(node, flow, &error),
        }
    }

    /// A request reaches a node: what has yet to land there waits.
    pub(super) fn requested(&mut self, node: NodeIx, flow: FlowIx, ask: Ask) {
        let state = &mut self.nodes[node.at()];
        let is_ready = match covers(&state.offered, ask.span) {
            true => Ok(Asked::Ready),
            false => state.relay.ask(flow, ask),
        };
        match is_ready {
            Ok(Asked::Ready) => state.serve.handle(serve::Event::Request { flow, ask }),
            Ok(Asked::Waits) => {}
            Ok(Asked::Never) => self.serve_action(node, serve::Action::Refuse { flow, ask, code: Code::Data }),
            Err(error) => panic!("a simulated receiver keeps to its credit: {error}"),
        }
    }

    pub(super) fn serve_action(&mut self, node: NodeIx, action: serve::Action) {
        use serve::Action;
        let state = &mut self.nodes[node.at()];
        let end = |flow: FlowIx| state.serving.get(&flow).copied();
        match action {
            Action::Load { flow, ask } => {
                let read = Duration::from_secs_f64(ask.span.bytes() as f64 / self.world.disk_bytes_per_second);
                self.after(self.world.disk_latency + read, Happening::Loaded { sender: node, flow, ask });
            }
            Action::Send { flow, ask } => {
                let Some(end) = end(flow) else { return state.serve.handle(serve::Event::Sent { flow }) };
                let changed = self.random.chance(self.world.faults.changed);
                let has = covers(&state.offered, ask.span) || state.landed.contains(&ask.span);
                assert!(has, "node {} sends {}, which it does not have", node.0, ask.span);
                let check = check_of(self.conductor.terms().method, ask.span);
                let parcel = Parcel::Data { ask, check, changed, sender_flow: flow };
                self.net.send(end.there, end.peer, ask.span.bytes(), parcel);
            }
            Action::Refuse { flow, ask, code } => {
                if let Some(end) = end(flow) {
                    self.net.send(end.there, end.peer, 96, Parcel::Refusal { ask, code });
                }
            }
            Action::Close { flow, error } => {
                if let Some(end) = end(flow) {
                    self.close(end.peer, end.there, &error);
                }
            }
            Action::Unload { .. } => {}
        }
    }

    pub(super) fn flow_opened(&mut self, receiver: NodeIx, lane: Lane, weight: u64) {
        let sender = lane.sender;
        if !self.nodes[receiver.at()].alive {
            return;
        }
        if !self.nodes[sender.at()].alive {
            let error = Error::new(Code::Unreachable, "connection refused");
            let event = owner::Event::OpenFailed { lane, error };
            return self.after(self.world.latency, Happening::Member(receiver, member::Event::Owner(event)));
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
            self.nodes[receiver.at()].pull.handle(self.now, pull::Event::FlowUp { flow: here, relays });
        }
        self.follow(receiver);
    }

    /// The last byte of a parcel has left the sender.
    pub(super) fn through(&mut self, receiver: NodeIx, flow: FlowIx, parcel: Parcel) {
        if let Some(end) = self.nodes[receiver.at()].fetching.get(&flow).copied()
            && let Parcel::Data { sender_flow, .. } = parcel
        {
            self.nodes[end.peer.at()].serve.handle(serve::Event::Sent { flow: sender_flow });
            self.follow(end.peer);
        }
        self.after(self.world.latency, Happening::Arrived { receiver, flow, parcel });
    }

    pub(super) fn arrived(&mut self, receiver: NodeIx, flow: FlowIx, parcel: Parcel) {
        if !self.nodes[receiver.at()].fetching.contains_key(&flow) {
            return;
        }
        if self.random.chance(self.world.faults.broken) {
            return self.close(receiver, flow, &Error::new(Code::Unreachable, "connection reset"));
        }
        let state = &mut self.nodes[receiver.at()];
        match parcel {
            Parcel::Refusal { ask, code } => {
                let answer = Answer::Refuse { request: ask.request, span: ask.span, code };
                state.pull.handle(self.now, pull::Event::Answer { flow, answer });
            }
            Parcel::Data { ask, check, changed, .. } => {
                let answer = Answer::Data { request: ask.request, span: ask.span, check };
                state.pull.handle(self.now, pull::Event::Answer { flow, answer });
                while let Some(action) = state.pull.poll_action() {
                    let pull::Action::Land { flow, piece, check } = action else {
                        self.pull_action(receiver, action);
                        return self.follow(receiver);
                    };
                    assert_eq!(piece.span, ask.span, "what lands is what was asked for");
                    state.parked.push_back((flow, piece, check, changed));
                }
                self.land_parked(receiver);
            }
        }
        self.follow(receiver);
    }

    /// Binds free slots to the payloads that wait for one.
    fn land_parked(&mut self, receiver: NodeIx) {
        loop {
            let state = &mut self.nodes[receiver.at()];
            if state.slots_free == 0 {
                return;
            }
            let Some((flow, piece, check, changed)) = state.parked.pop_front() else { return };
            state.pull.handle(self.now, pull::Event::Received { flow, piece, intact: !changed });
            if !changed {
                state.slots_free -= 1;
                state.writing += 1;
                let write = Duration::from_secs_f64(piece.span.bytes() as f64 / self.world.disk_bytes_per_second);
                self.after(self.world.disk_latency + write, Happening::Written { receiver, flow, piece, check });
            }
        }
    }

    pub(super) fn written(&mut self, receiver: NodeIx, flow: FlowIx, piece: Piece, check: Check) {
        let state = &mut self.nodes[receiver.at()];
        if !state.alive {
            return;
        }
        state.writing -= 1;
        state.slots_free += 1;
        if state.write(piece) {
            self.history.landed(self.now, piece.span.bytes());
        }
        state.pull.handle(self.now, pull::Event::Written { flow, piece, check });
        self.land_parked(receiver);
        self.follow(receiver);
    }

    /// Closes a flow at both ends.
    pub(super) fn close(&mut self, receiver: NodeIx, flow: FlowIx, error: &Error) {
        let Some(end) = self.nodes[receiver.at()].fetching.remove(&flow) else { return };
        self.net.close(flow, receiver);
        let state = &mut self.nodes[receiver.at()];
        state.parked.retain(|parked| parked.0 != flow);
        state.pull.handle(self.now, pull::Event::FlowDown { flow, error: error.clone() });
        let sender = &mut self.nodes[end.peer.at()];
        sender.serving.remove(&end.there);
        sender.relay.flow_down(end.there);
        sender.serve.handle(serve::Event::FlowDown { flow: end.there });
        if sender.alive {
            self.follow(end.peer);
        }
        self.follow(receiver);
    }
}

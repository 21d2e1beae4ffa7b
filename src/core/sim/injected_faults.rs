//! What befalls a simulated cluster: nodes that die or freeze, places that do not reach each other,
//! sessions that break.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::{InjectedFault, OrderedChannel, SimCluster, SimEndpoint, SimEvent};
use super::rails::KernelOp;
use super::timeline::TimelineEntry;
use crate::core::error::{Code, Error};
use crate::core::master::coordinator;
use crate::core::node::participant;
use crate::core::piece::FlowIx;
use crate::core::units::{Moment, NodeIx, Span};
use crate::core::wire::control::ToNode;

/// Directions in which nothing gets through, and until when.
pub(super) type NetworkCuts = BTreeMap<(SimEndpoint, SimEndpoint), Moment>;

/// How long a session may be silent until it counts as broken.
const SILENT_MAX: Duration = Duration::from_secs(6);
/// How long the master tries to resume it, at least and at most.
const TRIED_FOR: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(12)];
/// How long a node stays in a transfer whose master does not come back. A real one stays for longer
/// where something moves.
const LEASE: Duration = Duration::from_secs(30);
/// How long a flow may take to stand.
pub(super) const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

impl SimCluster {
    pub(super) fn inject(&mut self, trouble: InjectedFault) {
        match trouble {
            InjectedFault::Kill(node) => {
                if self.nodes[node.at()].alive {
                    self.history.tell(self.now, node, TimelineEntry::Died);
                    self.die(node);
                }
            }
            InjectedFault::Freeze(node, length) => {
                let state = &mut self.nodes[node.at()];
                state.frozen_until = state.frozen_until.max(self.now + length);
                self.rearm(node);
                self.silence(node, length);
            }
            InjectedFault::Cut(from, to, length) => {
                let until = self.now + length;
                let cut = self.cuts.entry((from, to)).or_default();
                *cut = until.max(*cut);
                if let (Some(from), Some(to)) = (from, to) {
                    self.net.set_cut(from, to, true);
                }
                self.at(until, SimEvent::Trouble(InjectedFault::Heal(from, to)));
                if let (Some(node), None) | (None, Some(node)) = (from, to) {
                    self.silence(node, length);
                }
            }
            InjectedFault::Heal(from, to) => {
                if self.cuts.get(&(from, to)).is_some_and(|until| *until <= self.now) {
                    self.cuts.remove(&(from, to));
                    if let (Some(from), Some(to)) = (from, to) {
                        self.net.set_cut(from, to, false);
                    }
                }
            }
            InjectedFault::Reset(node) => self.reset(node),
            InjectedFault::Part(node) => self.part(node),
            InjectedFault::Rejoin(node) => self.rejoin(node),
            InjectedFault::Lose(node) => self.lose(node),
            InjectedFault::Cancel => {
                if !self.is_orphaned {
                    self.coordinator.handle(
                        self.now,
                        coordinator::CoordinatorEvent::Cancel { reason: "cancelled".into() },
                    );
                    self.follow_master();
                }
            }
        }
    }

    /// Until when something that would happen now has to wait, because who is to take it in is
    /// frozen, or out of reach.
    #[expect(clippy::match_same_arms, reason = "one row of the table for each event")]
    pub(super) fn held(&self, happening: &SimEvent) -> Option<Moment> {
        let frozen = |node: NodeIx| self.nodes[node.at()].frozen_until;
        let cut = |from: SimEndpoint, to: SimEndpoint| {
            self.cuts.get(&(from, to)).copied().unwrap_or_default()
        };
        let until = match *happening {
            SimEvent::NodeUp(node) | SimEvent::ToNode(node, _) | SimEvent::GoodBye(node) => {
                frozen(node).max(cut(None, Some(node)))
            }
            SimEvent::ToMaster(node, _) => cut(Some(node), None),
            SimEvent::Member(node, _) | SimEvent::Done(node, _) => frozen(node),
            SimEvent::Request { receiver, sender, .. } => {
                frozen(sender).max(cut(Some(receiver), Some(sender)))
            }
            SimEvent::Arrived { receiver, sender, .. } => {
                frozen(receiver).max(cut(Some(sender), Some(receiver)))
            }
            SimEvent::FlowOpened { receiver, .. } => frozen(receiver),
            SimEvent::Kernel { node, .. } | SimEvent::FlowClosed { node, .. } => frozen(node),
            SimEvent::Relink(..) | SimEvent::Trouble(_) => Moment(0),
        };
        (until > self.now).then_some(until)
    }

    /// Until when two nodes cannot make a flow between each other, if they cannot.
    pub(super) fn apart(&self, receiver: NodeIx, sender: NodeIx) -> Option<Moment> {
        let cut = |from, to| self.cuts.get(&(Some(from), Some(to))).copied().unwrap_or_default();
        let frozen = self.nodes[sender.at()].frozen_until;
        Some(cut(receiver, sender).max(cut(sender, receiver)).max(frozen))
            .filter(|until| *until > self.now)
    }

    /// The master and a node do not hear each other for so long: the session breaks, if that is
    /// long enough.
    fn silence(&mut self, node: NodeIx, length: Duration) {
        if length <= SILENT_MAX {
            return;
        }
        let [least, most] = TRIED_FOR.map(|it| it.as_nanos() as u64);
        let tried_for = Duration::from_nanos(least + self.random.below(most - least));
        self.at(self.now + SILENT_MAX, SimEvent::Trouble(InjectedFault::Part(node)));
        let (back, given_up) = (self.now + length, self.now + SILENT_MAX + tried_for);
        let then =
            if back < given_up { InjectedFault::Rejoin(node) } else { InjectedFault::Lose(node) };
        self.at(back.min(given_up), SimEvent::Trouble(then));
    }

    fn part(&mut self, node: NodeIx) {
        if self.is_orphaned {
            return;
        }
        let state = &mut self.nodes[node.at()];
        if !state.met {
            // A session that never stood cannot be resumed.
            return self.lose(node);
        }
        state.parted = true;
        self.queue.retain(|_, it| match it {
            SimEvent::ToNode(of, _) | SimEvent::ToMaster(of, _) => *of != node,
            _ => true,
        });
    }

    /// Both sides say again what the other has not heard.
    fn rejoin(&mut self, node: NodeIx) {
        let state = &mut self.nodes[node.at()];
        if !state.parted || state.lost || !state.alive || self.is_orphaned {
            return;
        }
        state.parted = false;
        let (heard, unheard) =
            (state.replay_buffer.heard(), state.replay_buffer.unheard(state.heard_of).to_vec());
        for message in unheard {
            self.in_order(
                OrderedChannel::ToMaster(node),
                self.world.latency,
                SimEvent::ToMaster(node, message),
            );
        }
        self.coordinator.handle(self.now, coordinator::CoordinatorEvent::NodeBack { node, heard });
        self.follow_master();
    }

    /// The master gives a node up. One that lives ends its attempt some time later.
    fn lose(&mut self, node: NodeIx) {
        let state = &mut self.nodes[node.at()];
        if std::mem::replace(&mut state.lost, true) || self.is_orphaned {
            return;
        }
        state.parted = true;
        let reason = "no master for 30 s".into();
        self.after(
            LEASE,
            SimEvent::Member(
                node,
                participant::ParticipantEvent::Master(ToNode::Cancel { reason, forgets: false }),
            ),
        );
        let error = Error::new(Code::Unreachable, "the control session broke");
        self.coordinator.handle(self.now, coordinator::CoordinatorEvent::NodeDown { node, error });
        self.follow_master();
    }

    fn reset(&mut self, node: NodeIx) {
        let sockets = self.nodes[node.at()].rails.iter().flat_map(|rail| rail.sockets.keys());
        for flow in sockets.copied().collect::<Vec<FlowIx>>() {
            let error = Error::new(Code::Unreachable, "connection reset");
            self.break_flow(node, flow, error);
        }
    }

    fn die(&mut self, node: NodeIx) {
        self.reset(node);
        self.crash(node);
        let within = self.world.noticed_within.as_nanos() as u64;
        match self.random.below(within + 1) {
            0 => self.lose(node),
            soon => self.at(
                self.now + Duration::from_nanos(soon),
                SimEvent::Trouble(InjectedFault::Lose(node)),
            ),
        }
    }

    /// A process ends where it stands. What its kernel had begun to write, it may write, or a part
    /// of it.
    fn crash(&mut self, node: NodeIx) {
        let is_of_node =
            |it: &SimEvent| matches!(it, SimEvent::Kernel { node: of, .. } if *of == node);
        let in_flight: Vec<SimEvent> =
            self.queue.extract_if(.., |_, it| is_of_node(it)).map(|(_, it)| it).collect();
        let state = &mut self.nodes[node.at()];
        for event in in_flight {
            if let SimEvent::Kernel { rail, op: KernelOp::Write(slot), .. } = event {
                let (landing, payload) = &state.rails[rail].landing[&slot];
                let span = landing.piece.span;
                let bytes = self.random.below(2 * span.bytes()).min(span.bytes());
                // Nobody hears of an error any more.
                let _ = state.disk.write(Span::of(span.start, bytes), payload);
            }
        }
        state.disk.crash();
        state.alive = false;
        self.rearm(node);
    }
}

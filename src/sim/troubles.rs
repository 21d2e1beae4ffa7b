//! What befalls a simulated cluster: nodes that die or freeze, places that do not reach each other,
//! sessions that break.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::{Cluster, Happening, Place, Trouble, Way};
use super::history::News;
use crate::engine::FlowIx;
use crate::engine::member;
use crate::error::{Code, Error};
use crate::master::conduct;
use crate::units::{Moment, NodeIx, Span};
use crate::wire::control::ToNode;

/// Directions in which nothing gets through, and until when.
pub(super) type Cuts = BTreeMap<(Place, Place), Moment>;

/// How long a session may be silent until it counts as broken.
const SILENT_MAX: Duration = Duration::from_secs(6);
/// How long the master tries to resume it, at least and at most.
const TRIED_FOR: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(12)];
/// How long a node stays in a transfer whose master does not come back. A real one stays for longer
/// where something moves.
const LEASE: Duration = Duration::from_secs(30);
/// How long a flow may take to stand.
pub(super) const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

impl Cluster {
    pub(super) fn befall(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Kill(node) => {
                if self.nodes[node.at()].alive {
                    self.history.tell(self.now, node, News::Died);
                    self.die(node);
                }
            }
            Trouble::Freeze(node, length) => {
                let state = &mut self.nodes[node.at()];
                state.frozen_until = state.frozen_until.max(self.now + length);
                self.rearm(node);
                self.silence(node, length);
            }
            Trouble::Cut(from, to, length) => {
                let until = self.now + length;
                let cut = self.cuts.entry((from, to)).or_default();
                *cut = until.max(*cut);
                if let (Some(from), Some(to)) = (from, to) {
                    self.net.set_cut(from, to, true);
                }
                self.at(until, Happening::Trouble(Trouble::Heal(from, to)));
                if let (Some(node), None) | (None, Some(node)) = (from, to) {
                    self.silence(node, length);
                }
            }
            Trouble::Heal(from, to) => {
                if self.cuts.get(&(from, to)).is_some_and(|until| *until <= self.now) {
                    self.cuts.remove(&(from, to));
                    if let (Some(from), Some(to)) = (from, to) {
                        self.net.set_cut(from, to, false);
                    }
                }
            }
            Trouble::Reset(node) => self.reset(node),
            Trouble::Part(node) => self.part(node),
            Trouble::Rejoin(node) => self.rejoin(node),
            Trouble::Lose(node) => self.lose(node),
            Trouble::Cancel => {
                if !self.is_orphaned {
                    self.conductor
                        .handle(self.now, conduct::Event::Cancel { reason: "cancelled".into() });
                    self.follow_master();
                }
            }
        }
    }

    /// Until when something that would happen now has to wait, because who is to take it in is
    /// frozen, or out of reach.
    pub(super) fn held(&self, happening: &Happening) -> Option<Moment> {
        let frozen = |node: NodeIx| self.nodes[node.at()].frozen_until;
        let cut = |from: Place, to: Place| self.cuts.get(&(from, to)).copied().unwrap_or_default();
        let until = match *happening {
            Happening::NodeUp(node) | Happening::ToNode(node, _) | Happening::GoodBye(node) => {
                frozen(node).max(cut(None, Some(node)))
            }
            Happening::ToMaster(node, _) => cut(Some(node), None),
            Happening::Member(node, _) | Happening::Done(node, _) => frozen(node),
            Happening::Request { receiver, sender, .. } => {
                frozen(sender).max(cut(Some(receiver), Some(sender)))
            }
            Happening::Arrived { receiver, sender, .. } => {
                frozen(receiver).max(cut(Some(sender), Some(receiver)))
            }
            Happening::Sent { sender, .. }
            | Happening::Loaded { sender, .. }
            | Happening::SenderDown { sender, .. } => frozen(sender),
            Happening::FlowOpened { receiver, .. }
            | Happening::Written { receiver, .. }
            | Happening::ReceiverDown { receiver, .. } => frozen(receiver),
            Happening::Relink(..) | Happening::Trouble(_) => Moment(0),
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
        self.at(self.now + SILENT_MAX, Happening::Trouble(Trouble::Part(node)));
        let (back, given_up) = (self.now + length, self.now + SILENT_MAX + tried_for);
        let then = if back < given_up { Trouble::Rejoin(node) } else { Trouble::Lose(node) };
        self.at(back.min(given_up), Happening::Trouble(then));
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
        self.queue.retain(|_, it| !matches!(it, Happening::ToNode(of, _) | Happening::ToMaster(of, _) if *of == node));
    }

    /// Both sides say again what the other has not heard.
    fn rejoin(&mut self, node: NodeIx) {
        let state = &mut self.nodes[node.at()];
        if !state.parted || state.lost || !state.alive || self.is_orphaned {
            return;
        }
        state.parted = false;
        let (heard, unheard) = (state.talk.heard(), state.talk.unheard(state.heard_of).to_vec());
        for message in unheard {
            self.in_order(
                Way::ToMaster(node),
                self.world.latency,
                Happening::ToMaster(node, message),
            );
        }
        self.conductor.handle(self.now, conduct::Event::NodeBack { node, heard });
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
            Happening::Member(
                node,
                member::Event::Master(ToNode::Cancel { reason, forgets: false }),
            ),
        );
        let error = Error::new(Code::Unreachable, "the control session broke");
        self.conductor.handle(self.now, conduct::Event::NodeDown { node, error });
        self.follow_master();
    }

    fn reset(&mut self, node: NodeIx) {
        let error = Error::new(Code::Unreachable, "connection reset");
        let state = &self.nodes[node.at()];
        let fetching: Vec<FlowIx> = state.fetching.keys().copied().collect();
        let serving: Vec<FlowIx> = state.serving.keys().copied().collect();
        fetching.into_iter().for_each(|flow| self.close_fetching(node, flow, &error));
        serving.into_iter().for_each(|flow| self.close_serving(node, flow, &error));
    }

    fn die(&mut self, node: NodeIx) {
        self.reset(node);
        self.crash(node);
        let within = self.world.noticed_within.as_nanos() as u64;
        match self.random.below(within + 1) {
            0 => self.lose(node),
            soon => self
                .at(self.now + Duration::from_nanos(soon), Happening::Trouble(Trouble::Lose(node))),
        }
    }

    /// A process ends where it stands. What its kernel had begun to write, it may write, or a part
    /// of it.
    fn crash(&mut self, node: NodeIx) {
        let in_flight = self.queue.extract_if(
            ..,
            |_, it| matches!(it, Happening::Written { receiver, .. } if *receiver == node),
        );
        let in_flight: Vec<Happening> = in_flight.map(|(_, it)| it).collect();
        let state = &mut self.nodes[node.at()];
        for happening in in_flight {
            if let Happening::Written { piece, payload, .. } = happening {
                let bytes = self.random.below(2 * piece.span.bytes()).min(piece.span.bytes());
                // Nobody hears of an error any more.
                let _ = state.disk.write(Span::of(piece.span.start, bytes), &payload);
            }
        }
        state.disk.crash();
        state.alive = false;
        self.rearm(node);
    }
}

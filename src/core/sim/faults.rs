//! Faults of a simulated cluster: processes that end, machines that lose their power or freeze,
//! places that do not reach each other, sessions and flows that break.

use super::cluster::SimCluster;
use super::messages::SimEvent;
use super::node::NodeFate;
use super::timeline::TimelineEntry;
use super::world::{InjectedFault, SimEndpoint};
use crate::core::master::machine::MasterEvent;
use crate::core::node::machine::NodeEvent;
use crate::core::units::NodeIx;

impl SimCluster {
    pub(super) fn inject(&mut self, fault: InjectedFault) {
        let now = self.cx.now();
        match fault {
            InjectedFault::Kill(node) => self.kill(node),
            InjectedFault::PowerOff(node) => {
                if self.nodes[node.at()].is_running() {
                    self.cx.reach.power_off(SimEndpoint::Node(node));
                    self.kill(node);
                }
            }
            InjectedFault::Stop(node) => {
                self.nodes[node.at()].handle(&mut self.cx, NodeEvent::Stop);
                self.rearm(node);
            }
            InjectedFault::Freeze(node, length) => {
                self.cx.reach.freeze(node, now + length);
                self.rearm(node);
                self.watch(SimEndpoint::Node(node), None);
            }
            InjectedFault::Hang(node, length) => self.cx.reach.hang(node, now + length),
            InjectedFault::Cut(from, to, length) => {
                self.cx.reach.cut(from, to, now + length);
                if let (SimEndpoint::Node(from), SimEndpoint::Node(to)) = (from, to) {
                    self.cx.net.set_cut(from, to, true);
                }
                let heal = SimEvent::Fault(InjectedFault::Heal(from, to));
                self.cx.schedule.at(now + length, heal);
                self.watch(from, Some(to));
            }
            InjectedFault::Heal(from, to) => {
                if self.cx.reach.heal(now, from, to)
                    && let (SimEndpoint::Node(from), SimEndpoint::Node(to)) = (from, to)
                {
                    self.cx.net.set_cut(from, to, false);
                }
            }
            InjectedFault::Reset(node) => {
                self.nodes[node.at()].rails.reset(now);
                self.follow(node);
            }
            InjectedFault::Part(node) => {
                for session in self.cx.sessions.between(SimEndpoint::Node(node), None) {
                    self.cx.sessions.reset(&mut self.cx.schedule, session);
                }
            }
            InjectedFault::LoseGoodBye(node) => self.cx.sessions.lose_good_bye(node),
            InjectedFault::EndMaster { master, is_off } => {
                if let Some(master) = self.masters.get_mut(master.at()) {
                    master.kill(&mut self.cx, is_off);
                }
            }
            InjectedFault::Cancel(master) => {
                let event = MasterEvent::Cancel { reason: "cancelled".into() };
                if let Some(master) = self.masters.get_mut(master.at()) {
                    master.handle(&mut self.cx, event);
                }
            }
        }
    }

    /// Something is in the way of sessions: their ends notice, if it lasts.
    fn watch(&mut self, one: SimEndpoint, other: Option<SimEndpoint>) {
        for session in self.cx.sessions.between(one, other) {
            self.cx.sessions.watch(&mut self.cx.schedule, session);
        }
    }

    fn kill(&mut self, node: NodeIx) {
        if self.nodes[node.at()].is_running() {
            self.cx.history.tell(self.cx.schedule.now, node, TimelineEntry::Died);
            self.nodes[node.at()].end(&mut self.cx, NodeFate::Killed);
            self.rearm(node);
        }
    }
}

//! Virtual time, chance, and the events that are to happen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use random::SplitMix;

use super::messages::{KernelOp, OrderedChannel, SimEvent, SimRailIx};
use crate::core::units::{Moment, NodeIx};

/// Every event of every machine, in order, where the world keeps it.
pub(super) type EventLog = Rc<RefCell<Vec<String>>>;

/// The clock of a cluster, with one queue of events.
pub(super) struct SimSchedule {
    pub(super) now: Moment,
    pub(super) random: SplitMix,
    /// One way between any two places.
    pub(super) latency: Duration,
    sequence: u64,
    queue: BTreeMap<(Moment, u64), SimEvent>,
    /// The moment at which the last event of each ordered channel arrives.
    channels: BTreeMap<OrderedChannel, Moment>,
}

impl SimSchedule {
    pub(super) fn new(seed: u64, latency: Duration) -> SimSchedule {
        SimSchedule {
            now: Moment(0),
            random: SplitMix::new(seed),
            latency,
            sequence: 0,
            queue: BTreeMap::new(),
            channels: BTreeMap::new(),
        }
    }

    pub(super) fn at(&mut self, moment: Moment, event: SimEvent) {
        self.sequence += 1;
        self.queue.insert((moment, self.sequence), event);
    }

    pub(super) fn after(&mut self, delay: Duration, event: SimEvent) {
        let moment = self.soon(delay);
        self.at(moment, event);
    }

    /// The same for an event that is never overtaken by a later one of its channel.
    pub(super) fn in_order(&mut self, channel: OrderedChannel, delay: Duration, event: SimEvent) {
        let soon = self.soon(delay);
        let moment = self.channels.get(&channel).map_or(soon, |&last| soon.max(last));
        self.channels.insert(channel, moment);
        self.at(moment, event);
    }

    /// A little jitter, so that seeds differ in the order of things.
    fn soon(&mut self, delay: Duration) -> Moment {
        self.now + delay + Duration::from_nanos(self.random.below(10_000))
    }

    /// A time below `most`, by chance.
    pub(super) fn within(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.random.below(most.as_nanos() as u64 + 1))
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.queue.first_key_value().map(|(&(moment, _), _)| moment)
    }

    /// Takes the next event that is due, with its place in the order.
    pub(super) fn take_due(&mut self) -> Option<(u64, SimEvent)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now)?;
        let ((_, sequence), event) = entry.remove_entry();
        Some((sequence, event))
    }

    /// Puts an event off, in its old place: it arrives before any that was sent after it.
    pub(super) fn put_off(&mut self, until: Moment, sequence: u64, event: SimEvent) {
        self.queue.insert((until, sequence), event);
    }

    /// Takes the operations that the kernel of a node has under way.
    pub(super) fn take_kernel_ops(&mut self, node: NodeIx) -> Vec<(SimRailIx, KernelOp)> {
        let is_of_node =
            |event: &SimEvent| matches!(event, SimEvent::Kernel { node: of, .. } if *of == node);
        let taken = self.queue.extract_if(.., |_, event| is_of_node(event));
        let op = |(_, event)| match event {
            SimEvent::Kernel { rail, op, .. } => Some((rail, op)),
            _ => None,
        };
        taken.filter_map(op).collect()
    }
}

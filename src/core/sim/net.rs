//! A fluid network on virtual time: links are shared max–min fairly, as long-lived TCP flows
//! roughly do.
//!
//! A node has one uplink and one downlink, and may read from and write to a store that others
//! share. Bytes in flight are a fluid, so that a transfer of a terabyte costs as many events as it
//! has pieces, not packets. (Progressive filling: Bertsekas and Gallager, Data Networks, section
//! 6.5.2.)

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::core::piece::FlowIx;
use crate::core::units::{Moment, NodeIx};

/// The links of one node, in bytes per second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct NodeLinks {
    pub(crate) up: f64,
    pub(crate) down: f64,
}

/// A store: its rate for all that is read, and again for all that is written, and the nodes that do
/// so.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct SimStore {
    pub(crate) bytes_per_second: f64,
    pub(crate) read_by: Vec<NodeIx>,
    pub(crate) written_by: Vec<NodeIx>,
}

/// Something on its way over a flow; `tag` is what the receiver gets when the last byte is there.
struct QueuedBytes<T> {
    bytes_left: f64,
    tag: T,
}

struct SimPipe<T> {
    from: NodeIx,
    /// Links that it passes through, as places in `SimNetwork::rates`.
    way: Vec<usize>,
    queue: VecDeque<QueuedBytes<T>>,
    bytes_per_second: f64,
    /// True if it had something to send when rates were shared last.
    was_busy: bool,
}

/// The network. Flows are named by the receiver and its flow index.
pub(crate) struct SimNetwork<T> {
    /// Bytes per second of everything that is shared: an uplink, a downlink and the inside of every
    /// node, and both directions of every store.
    rates: Vec<f64>,
    /// The stores that a node reads from and writes to, as places in `rates`.
    stores: Vec<[Option<usize>; 2]>,
    pipes: BTreeMap<(NodeIx, FlowIx), SimPipe<T>>,
    /// Rate that no flow exceeds, in bytes per second.
    flow_rate: Option<f64>,
    /// Pairs of nodes between which nothing gets through, in this direction.
    cuts: BTreeSet<(NodeIx, NodeIx)>,
    now: Moment,
    /// Up to when the fluid has moved; from there on at the rates that the pipes have.
    moved: Moment,
    arrival: Option<Moment>,
    /// True if something was sent, opened, closed or changed since rates were shared.
    is_stale: bool,
    /// True if rates must be shared anew even if the same pipes are busy.
    is_changed: bool,
}

impl<T> SimNetwork<T> {
    pub(crate) fn new(links: &[NodeLinks], stores: &[SimStore]) -> SimNetwork<T> {
        let mut rates: Vec<f64> =
            links.iter().flat_map(|links| [links.up, links.down, INSIDE]).collect();
        let mut behind = vec![[None; 2]; links.len()];
        for store in stores {
            for (direction, nodes) in [&store.read_by, &store.written_by].into_iter().enumerate() {
                nodes.iter().for_each(|node| behind[node.at()][direction] = Some(rates.len()));
                rates.push(store.bytes_per_second);
            }
        }
        let (pipes, cuts, now) = (BTreeMap::new(), BTreeSet::new(), Moment(0));
        SimNetwork {
            rates,
            stores: behind,
            pipes,
            flow_rate: None,
            cuts,
            now,
            moved: now,
            arrival: None,
            is_stale: false,
            is_changed: false,
        }
    }

    /// Limits the rate of each flow that is opened from now on.
    pub(crate) fn limit_flows(&mut self, bytes_per_second: f64) {
        self.flow_rate = Some(bytes_per_second);
    }

    /// Changes a node's links from now on.
    pub(crate) fn set_links(&mut self, node: NodeIx, links: NodeLinks) {
        let first = PLACES * node.at();
        (self.rates[first], self.rates[first + 1]) = (links.up, links.down);
        (self.is_stale, self.is_changed) = (true, true);
    }

    /// Cuts, or mends, the way from one node to another.
    pub(crate) fn set_cut(&mut self, from: NodeIx, to: NodeIx, is_cut: bool) {
        if is_cut {
            self.cuts.insert((from, to));
        } else {
            self.cuts.remove(&(from, to));
        }
        (self.is_stale, self.is_changed) = (true, true);
    }

    /// Opens a flow of data from `from` to `to`.
    pub(crate) fn open(&mut self, flow: FlowIx, from: NodeIx, to: NodeIx) {
        let (sender, receiver) = (PLACES * from.at(), PLACES * to.at());
        // Copies inside a node pass no NIC.
        let mut way = if from == to { vec![sender + 2] } else { vec![sender, receiver + 1] };
        way.extend(self.stores[from.at()][0].into_iter().chain(self.stores[to.at()][1]));
        if let Some(rate) = self.flow_rate {
            way.push(self.rates.len());
            self.rates.push(rate);
        }
        self.pipes.insert(
            (to, flow),
            SimPipe { from, way, queue: VecDeque::new(), bytes_per_second: 0.0, was_busy: false },
        );
    }

    /// Closes a flow; what is on its way is lost.
    pub(crate) fn close(&mut self, flow: FlowIx, to: NodeIx) {
        self.catch_up();
        self.pipes.remove(&(to, flow));
        (self.is_stale, self.is_changed) = (true, true);
    }

    /// Puts `bytes` behind whatever the flow is still sending. Lost where the flow is closed.
    pub(crate) fn send(&mut self, flow: FlowIx, to: NodeIx, bytes: u64, tag: T) {
        self.catch_up();
        if let Some(pipe) = self.pipes.get_mut(&(to, flow)) {
            pipe.queue.push_back(QueuedBytes { bytes_left: bytes as f64, tag });
            self.is_stale = true;
        }
    }

    /// Returns the moment at which the next parcel is through, if nothing else happens before.
    pub(crate) fn next_arrival(&mut self) -> Option<Moment> {
        self.refresh();
        self.arrival
    }

    /// Lets time pass until `to`, which must not lie beyond `next_arrival`, and gives what got
    /// through.
    pub(crate) fn advance(&mut self, to: Moment) -> Vec<(NodeIx, FlowIx, T)> {
        self.refresh();
        self.now = to;
        let mut arrived = Vec::new();
        if self.arrival.is_none_or(|arrival| to < arrival) {
            return arrived;
        }
        self.catch_up();
        for ((node, flow), pipe) in &mut self.pipes {
            let Some(parcel) = pipe.queue.front() else { continue };
            // A nanosecond of rounding must not leave a parcel that never arrives.
            if parcel.bytes_left <= pipe.bytes_per_second * 2e-9 && pipe.bytes_per_second > 0.0 {
                let parcel = pipe.queue.pop_front().expect("it is at the front");
                arrived.push((*node, *flow, parcel.tag));
            }
        }
        self.is_stale = true;
        arrived
    }

    /// Moves the fluid up to now, at the rates of before.
    fn catch_up(&mut self) {
        let seconds = self.now.since(self.moved).as_secs_f64();
        self.moved = self.now;
        if seconds > 0.0 {
            for pipe in self.pipes.values_mut() {
                if let Some(parcel) = pipe.queue.front_mut() {
                    parcel.bytes_left -= pipe.bytes_per_second * seconds;
                }
            }
        }
    }

    /// Finds rates and the next arrival anew, once for all that was changed at one moment.
    fn refresh(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.catch_up();
        let is_other = self.pipes.values().any(|pipe| pipe.was_busy == pipe.queue.is_empty());
        if std::mem::take(&mut self.is_changed) || is_other {
            self.share();
        }
        let arrivals = self.pipes.values().filter_map(|pipe| {
            let parcel = pipe.queue.front()?;
            (pipe.bytes_per_second > 0.0)
                .then(|| parcel.bytes_left.max(0.0) / pipe.bytes_per_second)
        });
        let soonest = arrivals.fold(f64::INFINITY, f64::min);
        self.arrival = soonest
            .is_finite()
            .then(|| Moment(self.now.0.saturating_add((soonest * 1e9).ceil() as u64)));
    }

    /// Progressive filling: raise all flows together; those through a full link stay where they
    /// are.
    fn share(&mut self) {
        let mut left = self.rates.clone();
        let mut through: Vec<Vec<usize>> = vec![Vec::new(); left.len()];
        let mut pipes: Vec<(NodeIx, &mut SimPipe<T>)> =
            self.pipes.iter_mut().map(|(&(to, _), pipe)| (to, pipe)).collect();
        let mut open = 0;
        for (at, (to, pipe)) in pipes.iter_mut().enumerate() {
            (pipe.bytes_per_second, pipe.was_busy) = (0.0, !pipe.queue.is_empty());
            if pipe.was_busy && !self.cuts.contains(&(pipe.from, *to)) {
                pipe.way.iter().for_each(|&place| through[place].push(at));
                open += 1;
            }
        }
        let mut flows: Vec<usize> = through.iter().map(Vec::len).collect();
        let mut is_full = vec![false; pipes.len()];
        while open > 0 {
            // Rounding may leave a full link a little less than nothing.
            let room = |place: usize| (left[place] / flows[place] as f64).max(0.0);
            let used = || (0..left.len()).filter(|&place| flows[place] > 0);
            let least = used().map(room).fold(f64::INFINITY, f64::min);
            let full: Vec<usize> =
                used().filter(|&place| room(place) <= least * (1.0 + 1e-9) + 1e-6).collect();
            for at in full.into_iter().flat_map(|place| std::mem::take(&mut through[place])) {
                if !std::mem::replace(&mut is_full[at], true) {
                    pipes[at].1.bytes_per_second = least;
                    open -= 1;
                    for &place in &pipes[at].1.way {
                        left[place] -= least;
                        flows[place] -= 1;
                    }
                }
            }
        }
    }
}

/// Places of a node in `SimNetwork::rates`.
const PLACES: usize = 3;
/// Copies inside a node, in bytes per second: about the rate of one core.
const INSIDE: f64 = 10e9;

#[cfg(test)]
mod tests {
    use super::*;

    const fn links(up: f64, down: f64) -> NodeLinks {
        NodeLinks { up, down }
    }

    fn rates(net: &mut SimNetwork<u32>) -> Vec<f64> {
        net.next_arrival();
        net.pipes.values().map(|pipe| pipe.bytes_per_second.round()).collect()
    }

    /// Opens flows that have 1000 bytes to send each.
    fn send(net: &mut SimNetwork<u32>, flows: &[(u32, u32, u32)]) {
        for &(flow, from, to) in flows {
            net.open(FlowIx(flow), NodeIx(from), NodeIx(to));
            net.send(FlowIx(flow), NodeIx(to), 1000, flow);
        }
    }

    #[test]
    fn two_flows_share_an_uplink_and_the_rest_goes_to_the_third() {
        let nodes =
            [links(100.0, 100.0), links(100.0, 100.0), links(10.0, 100.0), links(9.0, 30.0)];
        let mut net = SimNetwork::new(&nodes, &[]);
        // Node 0 sends to 2 and 3, node 1 to 3; node 3 takes 30 in all.
        send(&mut net, &[(1, 0, 2), (2, 0, 3), (3, 1, 3)]);
        assert_eq!(rates(&mut net), [85.0, 15.0, 15.0]);
        let arrival = net.next_arrival().expect("bytes move");
        assert_eq!(arrival.0 / 1_000_000, 1000 * 1000 / 85);
        assert_eq!(net.advance(Moment(arrival.0 / 2)), []);
        assert_eq!(net.advance(arrival), [(NodeIx(2), FlowIx(1), 1)]);
    }

    #[test]
    fn a_link_that_changes_half_way_brings_the_rest_at_its_new_rate() {
        let mut net = SimNetwork::new(&[links(100.0, 100.0), links(100.0, 100.0)], &[]);
        send(&mut net, &[(1, 0, 1)]);
        net.advance(Moment(5_000_000_000));
        net.set_links(NodeIx(0), links(10.0, 10.0));
        assert_eq!(net.next_arrival(), Some(Moment(55_000_000_000)));
    }

    #[test]
    fn a_store_is_shared_by_its_readers_and_what_is_copied_inside_passes_no_link() {
        let store = SimStore {
            bytes_per_second: 60.0,
            read_by: vec![NodeIx(0), NodeIx(1)],
            written_by: Vec::new(),
        };
        let mut net = SimNetwork::new(&[links(100.0, 100.0); 4], &[store]);
        send(&mut net, &[(1, 0, 2), (2, 1, 3), (3, 1, 1)]);
        assert_eq!(rates(&mut net), [20.0, 20.0, 20.0]);
        net.close(FlowIx(1), NodeIx(2));
        net.close(FlowIx(2), NodeIx(3));
        assert_eq!(rates(&mut net), [60.0]);
    }
}

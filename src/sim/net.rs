//! A fluid network on virtual time: links are shared max–min fairly, as long-lived TCP flows roughly do.
//!
//! A node has one uplink and one downlink. Bytes in flight are a fluid, so that a transfer of a terabyte costs as many
//! events as it has pieces, not packets. (Progressive filling: Bertsekas and Gallager, Data Networks, section 6.5.2.)

use std::collections::{BTreeMap, VecDeque};

use crate::engine::FlowIx;
use crate::units::{Moment, NodeIx};

/// The links of one node, in bytes per second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Links {
    pub(crate) up: f64,
    pub(crate) down: f64,
}

/// Something on its way over a flow; `tag` is what the receiver gets when the last byte is there.
struct Parcel<T> {
    bytes_left: f64,
    tag: T,
}

struct Pipe<T> {
    from: NodeIx,
    to: NodeIx,
    queue: VecDeque<Parcel<T>>,
    bytes_per_second: f64,
}

/// The network. Flows are named by the receiver and its flow index.
pub(crate) struct Net<T> {
    links: Vec<Links>,
    pipes: BTreeMap<(NodeIx, FlowIx), Pipe<T>>,
    now: Moment,
}

impl<T> Net<T> {
    pub(crate) fn new(links: Vec<Links>) -> Net<T> {
        Net { links, pipes: BTreeMap::new(), now: Moment(0) }
    }

    /// Changes a node's links from now on.
    pub(crate) fn set_links(&mut self, node: NodeIx, links: Links) {
        self.links[node.at()] = links;
        self.share();
    }

    /// Opens a flow of data from `from` to `to`.
    pub(crate) fn open(&mut self, flow: FlowIx, from: NodeIx, to: NodeIx) {
        self.pipes.insert((to, flow), Pipe { from, to, queue: VecDeque::new(), bytes_per_second: 0.0 });
    }

    /// Closes a flow; what is on its way is lost.
    pub(crate) fn close(&mut self, flow: FlowIx, to: NodeIx) {
        self.pipes.remove(&(to, flow));
        self.share();
    }

    /// Puts `bytes` behind whatever the flow is still sending. Lost where the flow is closed.
    pub(crate) fn send(&mut self, flow: FlowIx, to: NodeIx, bytes: u64, tag: T) {
        if let Some(pipe) = self.pipes.get_mut(&(to, flow)) {
            pipe.queue.push_back(Parcel { bytes_left: bytes as f64, tag });
            self.share();
        }
    }

    /// When the next parcel is through, if nothing else happens before.
    pub(crate) fn next_arrival(&self) -> Option<Moment> {
        let arrivals = self.pipes.values().filter_map(|pipe| {
            let parcel = pipe.queue.front()?;
            (pipe.bytes_per_second > 0.0).then(|| parcel.bytes_left / pipe.bytes_per_second)
        });
        let soonest = arrivals.fold(f64::INFINITY, f64::min);
        soonest.is_finite().then(|| Moment(self.now.0 + (soonest * 1e9).ceil() as u64))
    }

    /// Lets time pass until `to`, which must not lie beyond `next_arrival`, and gives what got through.
    pub(crate) fn advance(&mut self, to: Moment) -> Vec<(NodeIx, FlowIx, T)> {
        let seconds = to.since(self.now).as_secs_f64();
        self.now = to;
        let mut arrived = Vec::new();
        for ((node, flow), pipe) in &mut self.pipes {
            let Some(parcel) = pipe.queue.front_mut() else { continue };
            parcel.bytes_left -= pipe.bytes_per_second * seconds;
            // A nanosecond of rounding must not leave a parcel that never arrives.
            if parcel.bytes_left <= pipe.bytes_per_second * 2e-9 && pipe.bytes_per_second > 0.0 {
                let parcel = pipe.queue.pop_front().expect("it is at the front");
                arrived.push((*node, *flow, parcel.tag));
            }
        }
        if !arrived.is_empty() {
            self.share();
        }
        arrived
    }

    /// Progressive filling: raise all flows together; those through a full link stay where they are.
    fn share(&mut self) {
        let mut left: Vec<(f64, f64)> = self.links.iter().map(|links| (links.up, links.down)).collect();
        let mut open: Vec<&mut Pipe<T>> = Vec::new();
        for pipe in self.pipes.values_mut() {
            pipe.bytes_per_second = 0.0;
            if !pipe.queue.is_empty() {
                open.push(pipe);
            }
        }
        while !open.is_empty() {
            let mut flows = vec![(0.0_f64, 0.0_f64); left.len()];
            for pipe in &open {
                flows[pipe.from.at()].0 += 1.0;
                flows[pipe.to.at()].1 += 1.0;
            }
            let room = |pipe: &&mut Pipe<T>| {
                let up = left[pipe.from.at()].0 / flows[pipe.from.at()].0;
                // Rounding may leave a full link a little less than nothing.
                up.min(left[pipe.to.at()].1 / flows[pipe.to.at()].1).max(0.0)
            };
            let least = open.iter().map(room).fold(f64::INFINITY, f64::min);
            let full: Vec<bool> = open.iter().map(|pipe| room(pipe) <= least * (1.0 + 1e-9) + 1e-6).collect();
            for pipe in &mut open {
                pipe.bytes_per_second += least;
                left[pipe.from.at()].0 -= least;
                left[pipe.to.at()].1 -= least;
            }
            let mut full = full.into_iter();
            open.retain(|_| !full.next().expect("one flag a flow"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_flows_share_an_uplink_and_the_rest_goes_to_the_third() {
        let links = |up, down| Links { up, down };
        let mut net = Net::new(vec![links(100.0, 100.0), links(100.0, 100.0), links(10.0, 100.0), links(9.0, 30.0)]);
        // Node 0 sends to 2 and 3, node 1 to 3; node 3 takes 30 in all.
        for (flow, from, to) in [(1, 0, 2), (2, 0, 3), (3, 1, 3)] {
            net.open(FlowIx(flow), NodeIx(from), NodeIx(to));
            net.send(FlowIx(flow), NodeIx(to), 1000, flow);
        }
        let rates: Vec<f64> = net.pipes.values().map(|pipe| pipe.bytes_per_second.round()).collect();
        assert_eq!(rates, [85.0, 15.0, 15.0]);
        let arrival = net.next_arrival().expect("bytes move");
        assert_eq!(arrival.0 / 1_000_000, 1000 * 1000 / 85);
        assert_eq!(net.advance(arrival), [(NodeIx(2), FlowIx(1), 1)]);
    }
}

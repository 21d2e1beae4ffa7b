//! Maximum flow by Dinic's algorithm (1970), on a network that can be preloaded with a flow.
//!
//! Capacities are bytes in floating point. A residual below a rounding error of the arc's whole
//! capacity counts as zero; otherwise full arcs would stay open by their last bit.

/// One arc as it is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowArc {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) capacity: f64,
}

/// A flow in a network, from node [`SOURCE`] to node [`SINK`].
///
/// Build: `new`, then `preload`. Run: `run`; raise capacities with `add_capacity` and run again.
/// Questions: `flow`, `reached`.
pub(super) struct FlowNetwork {
    /// Start of each node's half arcs; one entry more than there are nodes.
    first: Vec<u32>,
    halves: Vec<HalfArc>,
    /// Forward half of each arc, in the order of addition.
    place: Vec<u32>,
    /// Distance from the source over open arcs; [`UNSEEN`] without a path.
    level: Vec<u32>,
    /// Half arc that each node tries next.
    next: Vec<u32>,
    queue: Vec<u32>,
}

pub(super) const SOURCE: u32 = 0;
pub(super) const SINK: u32 = 1;

/// One direction of an arc, stored with the node that it leaves.
#[derive(Clone, Copy)]
struct HalfArc {
    to: u32,
    mate: u32,
    residual: f64,
}

const UNSEEN: u32 = u32::MAX;
/// Part of an arc's capacity that is a rounding error.
const ROUNDING: f64 = 1e-12;

impl FlowNetwork {
    /// Creates the network of `arcs` between `node_count` nodes, without a flow.
    pub(super) fn new(node_count: u32, arcs: &[FlowArc]) -> FlowNetwork {
        let nodes = node_count as usize;
        let mut first = vec![0_u32; nodes + 1];
        for arc in arcs {
            first[arc.from as usize + 1] += 1;
            first[arc.to as usize + 1] += 1;
        }
        for node in 0..nodes {
            first[node + 1] += first[node];
        }
        let mut free = first.clone();
        let mut take = |node: u32| {
            let at = free[node as usize];
            free[node as usize] += 1;
            at
        };
        let mut halves = vec![HalfArc { to: 0, mate: 0, residual: 0.0 }; 2 * arcs.len()];
        let mut place = Vec::with_capacity(arcs.len());
        for arc in arcs {
            let (forward, back) = (take(arc.from), take(arc.to));
            halves[forward as usize] = HalfArc { to: arc.to, mate: back, residual: arc.capacity };
            halves[back as usize] = HalfArc { to: arc.from, mate: forward, residual: 0.0 };
            place.push(forward);
        }
        FlowNetwork {
            first,
            halves,
            place,
            level: vec![UNSEEN; nodes],
            next: vec![0; nodes],
            queue: Vec::new(),
        }
    }

    /// Puts `bytes` on an arc before the first run. The caller keeps the bytes into each node equal
    /// to the bytes out of it.
    pub(super) fn preload(&mut self, arc: usize, bytes: f64) {
        self.push(self.place[arc], bytes);
    }

    /// Adds capacity to an arc.
    pub(super) fn add_capacity(&mut self, arc: usize, bytes: f64) {
        self.halves[self.place[arc] as usize].residual += bytes;
    }

    /// Returns the flow over an arc.
    pub(super) fn flow(&self, arc: usize) -> f64 {
        let forward = self.halves[self.place[arc] as usize];
        self.halves[forward.mate as usize].residual
    }

    /// Returns true if the last search found a path from the source to `node`: after `run`, the
    /// node is on the source's side of a minimum cut.
    pub(super) fn reached(&self, node: u32) -> bool {
        self.level[node as usize] != UNSEEN
    }

    /// Augments the flow until it is a maximum.
    pub(super) fn run(&mut self) {
        while self.search() {
            self.block();
        }
    }

    /// Computes every node's level. Returns true if the sink has one.
    fn search(&mut self) -> bool {
        for &node in &self.queue {
            self.level[node as usize] = UNSEEN;
        }
        self.queue.clear();
        self.queue.push(SOURCE);
        self.level[SOURCE as usize] = 0;
        let mut at = 0;
        let mut enough = UNSEEN;
        while at < self.queue.len() {
            let node = self.queue[at] as usize;
            at += 1;
            self.next[node] = self.first[node];
            let level = self.level[node] + 1;
            if level > enough {
                // Farther than the sink: no shortest path leads through here, but its cursor had to
                // be set.
                continue;
            }
            for half in &self.halves[self.first[node] as usize..self.first[node + 1] as usize] {
                if half.residual > 0.0 && self.level[half.to as usize] == UNSEEN {
                    self.level[half.to as usize] = level;
                    self.queue.push(half.to);
                    if half.to == SINK {
                        enough = level;
                    }
                }
            }
        }
        enough != UNSEEN
    }

    /// Fills the shortest paths until each has a full arc.
    fn block(&mut self) {
        let mut path: Vec<u32> = Vec::new();
        let mut node = SOURCE;
        loop {
            if node == SINK {
                node = self.fill(&mut path);
            } else if let Some(half) = self.step(node) {
                path.push(half);
                node = self.halves[half as usize].to;
            } else {
                // A dead end: no other path comes here in this phase.
                let Some(half) = path.pop() else { return };
                node = self.tail(half);
                self.next[node as usize] += 1;
            }
        }
    }

    /// Returns the next open half arc that leads one level on.
    fn step(&mut self, node: u32) -> Option<u32> {
        let at = node as usize;
        let level = self.level[at] + 1;
        while self.next[at] < self.first[at + 1] {
            let half = self.halves[self.next[at] as usize];
            if half.residual > 0.0 && self.level[half.to as usize] == level {
                return Some(self.next[at]);
            }
            self.next[at] += 1;
        }
        None
    }

    /// Pushes the bytes that the path can carry, and returns to the node where its first full arc
    /// begins.
    fn fill(&mut self, path: &mut Vec<u32>) -> u32 {
        let bytes = path
            .iter()
            .map(|&half| self.halves[half as usize].residual)
            .fold(f64::INFINITY, f64::min);
        for &half in path.iter() {
            self.push(half, bytes);
        }
        let full = path.iter().position(|&half| self.halves[half as usize].residual == 0.0);
        let full = full.expect("the narrowest arc is full now");
        let node = self.tail(path[full]);
        path.truncate(full);
        node
    }

    fn push(&mut self, half: u32, bytes: f64) {
        let HalfArc { mate, residual, .. } = self.halves[half as usize];
        let capacity = residual + self.halves[mate as usize].residual;
        let left = residual - bytes;
        self.halves[half as usize].residual = if left > capacity * ROUNDING { left } else { 0.0 };
        self.halves[mate as usize].residual += bytes;
    }

    fn tail(&self, half: u32) -> u32 {
        self.halves[self.halves[half as usize].mate as usize].to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(nodes: u32, arcs: &[(u32, u32, f64)]) -> FlowNetwork {
        let arcs: Vec<FlowArc> =
            arcs.iter().map(|&(from, to, capacity)| FlowArc { from, to, capacity }).collect();
        FlowNetwork::new(nodes, &arcs)
    }

    #[test]
    fn a_flow_turns_back_where_it_went_wrong() {
        // The first shortest path blocks both others unless it is undone over 2 → 3.
        let mut flow = flow(
            6,
            &[
                (0, 2, 1.0),
                (0, 4, 1.0),
                (2, 3, 1.0),
                (3, 1, 1.0),
                (2, 5, 1.0),
                (5, 1, 1.0),
                (4, 3, 1.0),
            ],
        );
        flow.run();
        assert!((flow.flow(3) + flow.flow(5) - 2.0).abs() < 1e-12);
        assert!(!flow.reached(SINK));
    }

    #[test]
    fn the_cut_is_what_is_full() {
        let mut flow = flow(4, &[(0, 2, 10.0), (2, 3, 4.0), (3, 1, 10.0)]);
        flow.run();
        assert_eq!([2, 3].map(|node| flow.reached(node)), [true, false]);
        flow.add_capacity(1, 3.0);
        flow.run();
        assert!((flow.flow(0) - 7.0).abs() < 1e-12);
    }

    #[test]
    fn a_flow_that_was_loaded_is_kept_and_mended() {
        let mut flow = flow(5, &[(0, 2, 3.0), (2, 3, 3.0), (2, 4, 3.0), (3, 1, 1.0), (4, 1, 5.0)]);
        for (arc, bytes) in [(0, 1.0), (1, 1.0), (3, 1.0)] {
            flow.preload(arc, bytes);
        }
        flow.run();
        let flows = [(0, 3.0), (1, 1.0), (2, 2.0)];
        assert!(
            flows.iter().all(|&(arc, bytes): &(usize, f64)| (flow.flow(arc) - bytes).abs() < 1e-12)
        );
    }
}

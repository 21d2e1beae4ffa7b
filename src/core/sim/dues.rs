//! Moments at which the machines of nodes are due.

use std::collections::BTreeSet;

use crate::core::units::{Moment, NodeIx};

/// The moments, in order and by node.
#[derive(Debug)]
pub(super) struct NodeDues {
    in_order: BTreeSet<(Moment, NodeIx)>,
    of_node: Vec<Option<Moment>>,
}

impl NodeDues {
    pub(super) fn new(nodes: usize) -> NodeDues {
        NodeDues { in_order: BTreeSet::new(), of_node: vec![None; nodes] }
    }

    pub(super) fn first(&self) -> Option<(Moment, NodeIx)> {
        self.in_order.first().copied()
    }

    /// Notes the moment at which a node is due next.
    pub(super) fn set(&mut self, node: NodeIx, due: Option<Moment>) {
        let before = std::mem::replace(&mut self.of_node[node.at()], due);
        if before != due {
            before.iter().for_each(|&before| _ = self.in_order.remove(&(before, node)));
            self.in_order.extend(due.map(|due| (due, node)));
        }
    }
}

//! What a simulated node keeps for another attempt, and what that finds: its journal, without a disk.

use super::cluster::{Cluster, Happening};
use crate::engine::member::{self, Member};
use crate::spec::Role;
use crate::units::{NodeIx, Span, covers};
use crate::wire::control::{Have, Prepare, Prepared, RowState};

impl Cluster {
    /// Has nodes find what they kept in an earlier attempt.
    #[cfg(test)]
    pub(crate) fn resume(&mut self, kept: Vec<Vec<member::Kept>>) {
        assert_eq!(kept.len(), self.nodes.len(), "an attempt at the same transfer has the same nodes");
        for (node, kept) in self.nodes.iter_mut().zip(kept) {
            node.kept = kept;
        }
    }

    /// A node's sources change.
    #[cfg(test)]
    pub(crate) fn change(&mut self, node: NodeIx) {
        self.nodes[node.at()].state += 1;
    }

    /// A node gets ready.
    pub(super) fn prepare(&mut self, node: NodeIx, prepare: &Prepare) {
        let state = &mut self.nodes[node.at()];
        state.member = Some(Member::new(member::Terms::of(prepare, 1)));
        let row_state = |role| if role == Role::Sender { state.state } else { 0 };
        let prepared = Prepared {
            rows: prepare.rows.iter().map(|_| RowState { shared: false }).collect(),
            states: prepare.rows.iter().map(|row| row_state(row.role)).collect(),
            have: state.kept.iter().map(|piece| Have { span: piece.span, origin: piece.origin }).collect(),
            ..Prepared::default()
        };
        if prepare.options.resume {
            let found = state.kept.clone();
            self.member(node, member::Event::Found(found));
        }
        self.after(self.world.disk_latency, Happening::Member(node, member::Event::Prepared(Ok(prepared))));
    }

    /// A node begins with what is still good of an earlier attempt.
    pub(super) fn begin(&mut self, node: NodeIx, kept: &[Span]) {
        let state = &mut self.nodes[node.at()];
        state.kept.retain(|piece| covers(kept, piece.span));
        state.landed.extend(state.kept.iter().map(|piece| piece.span));
    }
}

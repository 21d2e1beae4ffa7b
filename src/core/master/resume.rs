//! Ranges that receivers have from an earlier attempt, and which of them are still valid.
//!
//! A range is valid unless its sender takes part again and its source has changed. For a sender
//! that does not take part, the journal is trusted if it is sealed.

use std::collections::{BTreeMap, BTreeSet};

use super::roster::{Roster, RosterEntry};
use crate::core::options::Scheduler;
use crate::core::plan;
use crate::core::plan::{LowerBound, PlanProblem};
use crate::core::spec::{DataUri, Row, RowRole};
use crate::core::units::{NodeIx, Span, human_bytes, subtract, union};
use crate::core::wire::control::{
    FileSharing, KeptRanges, OfferedSource, Prepared, SourceOrigin, Start,
};
use crate::core::wire::limits::ORIGINS_MAX;

/// Ranges of missing bytes up to which the bound is computed; for more, it would take too long.
const MISSING_MAX: usize = 1 << 12;

/// States of sources, and ranges of an earlier attempt, as the nodes report them.
#[derive(Debug, Default)]
pub(super) struct ResumeState {
    /// Ranges that each sender offers.
    offers: BTreeMap<NodeIx, Vec<(Span, SourceOrigin)>>,
    /// State of each source by its identity, with the row that names it.
    states: BTreeMap<u64, (u64, NodeIx, usize)>,
    have: BTreeMap<NodeIx, Vec<KeptRanges>>,
    /// Files that several nodes write and that another attempt cannot resume.
    unkept: BTreeSet<DataUri>,
    /// The nodes whose journals are not sealed.
    unsealed: BTreeSet<NodeIx>,
    /// Ranges that are still valid: ascending and disjoint.
    kept: BTreeMap<NodeIx, Vec<Span>>,
    /// Warnings for people: a sentence each.
    pub(super) warnings: Vec<String>,
    /// Lower bound for the missing bytes.
    pub(super) bound: Option<LowerBound>,
}

impl ResumeState {
    /// Records the states and ranges of a node that is prepared.
    pub(super) fn prepared(&mut self, node: NodeIx, entry: &RosterEntry, prepared: &mut Prepared) {
        for (at, (row, &state)) in entry.rows.iter().zip(&prepared.states).enumerate() {
            if row.role == RowRole::Sender {
                let origin = SourceOrigin { who: who(entry, row), state };
                self.offers.entry(node).or_default().push((row.range, origin));
                self.states.insert(origin.who, (state, node, at));
            }
        }
        if !prepared.sealed {
            self.unsealed.insert(node);
        }
        if !prepared.have.is_empty() {
            self.have.insert(node, std::mem::take(&mut prepared.have));
        }
        let at = |note: String| format!("{}: {note}", entry.address);
        self.warnings.extend(std::mem::take(&mut prepared.notes).into_iter().map(at));
    }

    /// Marks files that several nodes write and that another attempt cannot resume. A node that
    /// overwrites another node's file may leave it half done.
    pub(super) fn forget(&mut self, files: impl IntoIterator<Item = DataUri>) {
        self.unkept.extend(files);
    }

    /// Returns true if a file that this node writes together with others cannot be resumed.
    pub(super) fn forgets(&self, entry: &RosterEntry) -> bool {
        let mut rows = entry.rows.iter().zip(&entry.sharing);
        rows.any(|(row, sharing)| *sharing != FileSharing::Alone && self.unkept.contains(&row.uri))
    }

    /// Decides which ranges are still valid, once every node is prepared, and the bound without
    /// them.
    pub(super) fn decide(&mut self, roster: &Roster, problem: &PlanProblem) {
        let mut changed: BTreeMap<u64, u64> = BTreeMap::new();
        for (node, have) in std::mem::take(&mut self.have) {
            let is_believed = |it: &KeptRanges| match self.states.get(&it.origin.who) {
                Some(now) => now.0 == it.origin.state,
                None => !self.unsealed.contains(&node),
            };
            let (good, bad): (Vec<KeptRanges>, Vec<KeptRanges>) =
                have.into_iter().partition(is_believed);
            for it in bad.iter().filter(|it| self.states.contains_key(&it.origin.who)) {
                *changed.entry(it.origin.who).or_default() += it.span.bytes();
            }
            // A complete file is all or nothing: each of its ranges is attributed to all of its
            // sources.
            let (good, bad) = (spans(good), spans(bad));
            let kept: Vec<Span> = good.into_iter().flat_map(|span| subtract(span, &bad)).collect();
            if !kept.is_empty() {
                self.kept.insert(node, kept);
            }
        }
        for (who, bytes) in changed {
            let (_, node, row) = self.states[&who];
            let (address, uri) = (&roster.get(node).address, &roster.get(node).rows[row].uri);
            let bytes = human_bytes(bytes);
            self.warnings.push(format!(
                "the source changed: {uri} at {address}; {bytes} that came from it start again"
            ));
        }
        if !self.kept.is_empty() {
            self.bound = self.bound(problem);
        }
    }

    /// Returns the lower bound for the missing bytes, if some are there already.
    fn bound(&self, problem: &PlanProblem) -> Option<LowerBound> {
        let wants = problem.wants.iter().flat_map(|&(node, want)| {
            let kept = self.kept.get(&node).map_or(&[][..], Vec::as_slice);
            subtract(want, kept).into_iter().map(move |missing| (node, missing))
        });
        let wants: Vec<(NodeIx, Span)> = wants.take(MISSING_MAX + 1).collect();
        match wants.len() {
            0 if problem.group_wants.is_empty() => Some(LowerBound {
                seconds: 0.0,
                bottleneck: "nothing: all of it is there".into(),
                parts: Vec::new(),
            }),
            count if count > MISSING_MAX => None,
            _ => plan::plan(&PlanProblem { wants, ..problem.clone() }, Scheduler::Greedy)
                .ok()
                .map(|plan| plan.bound),
        }
    }

    /// Returns the ranges of an earlier attempt that are still valid at a node.
    pub(super) fn kept_of(&self, node: NodeIx) -> &[Span] {
        self.kept.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Adds the resumed ranges and source origins to a receiver's part of the plan.
    pub(super) fn complete(&self, node: NodeIx, entry: &RosterEntry, start: &mut Start) {
        start.kept = self.kept_of(node).to_vec();
        if !keeps(entry) {
            return;
        }
        for peer in &start.peers {
            let offers = self.offers.get(&NodeIx(peer.index)).into_iter().flatten();
            let is_wanted = |span: Span| {
                let next = start.segments.partition_point(|it| it.span.end <= span.start);
                start.segments.get(next).is_some_and(|it| it.span.start < span.end)
            };
            let wanted = offers.filter(|(span, _)| is_wanted(*span));
            start.origins.extend(wanted.map(|&(span, origin)| OfferedSource {
                index: peer.index,
                span,
                origin,
            }));
        }
        if start.origins.len() > ORIGINS_MAX {
            start.origins.sort_by_key(|it| std::cmp::Reverse(it.span.bytes()));
            start.origins.truncate(ORIGINS_MAX);
        }
    }
}

/// Returns true if a node may keep received data for another attempt, which needs a file.
pub(super) fn keeps(entry: &RosterEntry) -> bool {
    entry
        .rows
        .iter()
        .any(|row| row.role == RowRole::Receiver && matches!(row.uri, DataUri::File(_)))
}

fn spans(have: Vec<KeptRanges>) -> Vec<Span> {
    union(have.into_iter().map(|it| it.span).collect())
}

/// Returns the identity of a row's source.
fn who(entry: &RosterEntry, row: &Row) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(entry.address.to_string().as_bytes())
        .update(&[0])
        .update(row.uri.to_string().as_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

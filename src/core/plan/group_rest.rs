//! The rest of a reader group: the part of it that no member owns yet.
//!
//! The members of a group have speeds that nobody knows before bytes move, so the plan's parts are
//! targets only. The group is cut into small parts, one after the other, for the member that runs
//! out of work. A part is never taken back: each byte has one owner or none.

use std::collections::BTreeMap;

use super::{PlanProblem, PlannedSegment, Segment, segments};
use crate::core::error::Result;
use crate::core::units::{NodeIx, Span, subtract};

/// Segments of a plan up to which its groups are dealt late: every part has the plan's index made
/// anew.
const SEGMENTS_MAX: usize = 1 << 12;
/// Members of a group that is dealt late: every part takes a look at all of them.
const MEMBERS_MAX: usize = 1 << 10;
/// Senders of a range that is dealt late: every part is told with all of them.
const SENDERS_MAX: usize = 1 << 8;
/// Stretches that one part is cut from at most: each makes a segment of it.
const SLICES_MAX: usize = 8;

/// The undealt rest of a group.
///
/// Invariant: its stretches share no byte with each other, nor with anything that was dealt.
#[derive(Clone, Debug)]
pub(crate) struct GroupRest {
    /// Members, ascending.
    members: Vec<NodeIx>,
    grid: (u64, u64),
    /// Known zeros, ascending: they cost nobody time.
    holes: Vec<Span>,
    /// Ascending.
    stretches: Vec<RestStretch>,
}

/// A range that the plan would give to one member.
#[derive(Clone, Debug)]
struct RestStretch {
    span: Span,
    data_bytes: u64,
    /// The member that the plan would give it to.
    target: NodeIx,
    senders: Vec<NodeIx>,
    weights: Vec<f64>,
    /// Bytes that parts should have had from this stretch by now, beyond those that they had.
    due_bytes: f64,
}

impl GroupRest {
    /// Takes the parts of groups out of a plan, where they can be dealt late: nobody else wants
    /// them, and no link has a limit of its own.
    ///
    /// # Errors
    /// As [`super::plan`].
    pub(crate) fn take_from(
        problem: &PlanProblem,
        planned: &mut Vec<PlannedSegment>,
        holes: &[Span],
    ) -> Result<Vec<GroupRest>> {
        if problem.group_wants.is_empty()
            || !problem.pairs.is_empty()
            || planned.len() > SEGMENTS_MAX
        {
            return Ok(Vec::new());
        }
        let is_late = |segment: &Segment| {
            let members = segment.groups.first().map_or(0, Vec::len);
            let counts = (segment.receivers.len(), segment.groups.len());
            counts == (0, 1) && members <= MEMBERS_MAX && segment.senders.len() <= SENDERS_MAX
        };
        let mut late = segments::cut(problem)?;
        late.retain(is_late);
        let mut rests: BTreeMap<Vec<NodeIx>, Vec<RestStretch>> = BTreeMap::new();
        let mut stays = Vec::with_capacity(planned.len());
        for part in std::mem::take(planned) {
            let span = part.segment.span;
            let at = late.partition_point(|segment| segment.span.end <= span.start);
            match (late.get(at).filter(|it| it.span.contains(span)), &part.segment.receivers[..]) {
                (Some(of), &[target]) if part.own.is_empty() && part.relays.is_empty() => {
                    let (senders, weights) = (part.segment.senders, part.weights);
                    let stretch = RestStretch {
                        data_bytes: data_bytes(span, holes),
                        due_bytes: 0.0,
                        span,
                        target,
                        senders,
                        weights,
                    };
                    rests.entry(of.groups[0].clone()).or_default().push(stretch);
                }
                _ => stays.push(part),
            }
        }
        *planned = stays;
        let rest = |(members, stretches)| GroupRest {
            members,
            grid: problem.grid,
            holes: holes.to_vec(),
            stretches,
        };
        Ok(rests.into_iter().map(rest).collect())
    }

    /// Returns the members of the group, ascending.
    pub(crate) fn members(&self) -> &[NodeIx] {
        &self.members
    }

    pub(crate) fn is_member(&self, node: NodeIx) -> bool {
        self.members.binary_search(&node).is_ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Returns the ranges without an owner, ascending.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        self.stretches.iter().map(|stretch| stretch.span)
    }

    /// Returns the senders of the rest, each once or more.
    pub(crate) fn senders(&self) -> impl Iterator<Item = NodeIx> {
        self.stretches.iter().flat_map(|stretch| stretch.senders.iter().copied())
    }

    /// Weighs senders by their own speeds, whatever the plan says: it gives members to senders by
    /// speeds that nobody knows.
    pub(crate) fn weigh_by_speed(&mut self, problem: &PlanProblem) {
        for stretch in &mut self.stretches {
            let speed = |node: &NodeIx| problem.nodes[node.at()].send_bytes_per_second;
            let sum: f64 = stretch.senders.iter().map(speed).sum();
            stretch.weights = stretch.senders.iter().map(|node| speed(node) / sum).collect();
        }
    }

    /// Returns the bytes without an owner that are no known zeros.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.stretches.iter().map(|stretch| stretch.data_bytes).sum()
    }

    /// Returns the same of what the plan would give to a member.
    pub(crate) fn target_bytes(&self, member: NodeIx) -> u64 {
        let own = self.stretches.iter().filter(|stretch| stretch.target == member);
        own.map(|stretch| stretch.data_bytes).sum()
    }

    /// Deals to a member what it has of an earlier attempt (`kept`: ascending, disjoint), in whole
    /// blocks.
    pub(crate) fn take_kept(&mut self, member: NodeIx, kept: &[Span]) -> Vec<PlannedSegment> {
        let mut parts = Vec::new();
        for stretch in std::mem::take(&mut self.stretches) {
            let first = kept.partition_point(|kept| kept.end <= stretch.span.start);
            let own = kept[first..].iter().map_while(|kept| kept.intersection(stretch.span));
            let own: Vec<Span> =
                own.filter_map(|span| self.whole_blocks(span, stretch.span)).collect();
            parts.extend(own.iter().map(|&span| stretch.part(span, member)));
            for span in subtract(stretch.span, &own) {
                let data_bytes = data_bytes(span, &self.holes);
                self.stretches.push(RestStretch { span, data_bytes, ..stretch.clone() });
            }
        }
        parts
    }

    /// Deals about so many bytes of data to a member, a block at least: of what the plan would give
    /// to it, and else of what the plan would give to the member that lacks most.
    pub(crate) fn take(&mut self, member: NodeIx, bytes: f64) -> Vec<PlannedSegment> {
        let from = self.slices(member);
        let total: u64 = from.iter().map(|at| self.stretches[*at].data_bytes).sum();
        let block_bytes = self.grid.1.max(1) as f64;
        let mut blocks = (bytes / block_bytes).round().max(1.0);
        for &at in &from {
            let stretch = &mut self.stretches[at];
            stretch.due_bytes +=
                blocks * block_bytes * stretch.data_bytes as f64 / total.max(1) as f64;
        }
        let mut order = from;
        order.sort_by(|a, b| {
            self.stretches[*b].due_bytes.total_cmp(&self.stretches[*a].due_bytes).then(a.cmp(b))
        });
        let mut parts = Vec::new();
        for at in order {
            let due = (self.stretches[at].due_bytes / block_bytes).round().max(1.0);
            let count = due.min(blocks);
            if count < 1.0 {
                break;
            }
            blocks -= count;
            parts.push(self.cut(at, member, (count * block_bytes) as u64));
        }
        self.stretches.retain(|stretch| !stretch.span.is_empty());
        parts
    }

    /// Deals all of the rest: to the members that the plan would give it to, and the parts of those
    /// that are not `able` to the others in turn.
    pub(crate) fn take_all(&mut self, able: &[NodeIx]) -> Vec<PlannedSegment> {
        if able.is_empty() {
            return Vec::new();
        }
        let mut others = able.iter().cycle();
        let mut owner = |target: NodeIx| match able.contains(&target) {
            true => target,
            false => *others.next().expect("a cycle of one or more"),
        };
        let whole = std::mem::take(&mut self.stretches).into_iter();
        whole.map(|stretch| stretch.part(stretch.span, owner(stretch.target))).collect()
    }

    /// Returns the stretches that the next part of a member is cut from.
    fn slices(&self, member: NodeIx) -> Vec<usize> {
        let of = |target: NodeIx| {
            let own = self.stretches.iter().enumerate().filter(move |(_, it)| it.target == target);
            own.map(|(at, _)| at).take(SLICES_MAX).collect::<Vec<usize>>()
        };
        let own = of(member);
        if !own.is_empty() {
            return own;
        }
        let mut lacks: BTreeMap<NodeIx, u64> = BTreeMap::new();
        for stretch in &self.stretches {
            *lacks.entry(stretch.target).or_default() += stretch.data_bytes;
        }
        let most = lacks.into_iter().max_by_key(|(_, bytes)| *bytes);
        most.map_or(Vec::new(), |(target, _)| of(target))
    }

    /// Cuts a part of so many bytes of data, in whole blocks, off the front of a stretch.
    fn cut(&mut self, at: usize, member: NodeIx, bytes: u64) -> PlannedSegment {
        let stretch = &self.stretches[at];
        let end = self.reach(stretch.span, bytes);
        let part = stretch.part(Span::new(stretch.span.start, end), member);
        let stretch = &mut self.stretches[at];
        stretch.span.start = end;
        let left = if stretch.span.is_empty() { 0 } else { data_bytes(stretch.span, &self.holes) };
        stretch.due_bytes -= (stretch.data_bytes - left) as f64;
        stretch.data_bytes = left;
        part
    }

    /// Returns the grid line up to which a span has about so many bytes of data, after its start;
    /// its end where nothing but zeros would be left.
    fn reach(&self, span: Span, bytes: u64) -> u64 {
        let (mut end, mut left) = (span.start, bytes.max(1));
        let first = self.holes.partition_point(|hole| hole.end <= span.start);
        for hole in self.holes[first..].iter().take_while(|hole| hole.start < span.end) {
            let data = hole.start.saturating_sub(end);
            if data >= left {
                break;
            }
            (left, end) = (left - data, hole.end);
        }
        let end = self.line_after(end.saturating_add(left)).min(span.end);
        let is_last = end < span.end && data_bytes(Span::new(end, span.end), &self.holes) == 0;
        if is_last { span.end } else { end }
    }

    /// Returns the first grid line at or after a position.
    fn line_after(&self, position: u64) -> u64 {
        let (origin, block) = self.grid;
        if block == 0 {
            return position;
        }
        let position = position.max(origin);
        origin.saturating_add((position - origin).div_ceil(block).saturating_mul(block))
    }

    /// Returns the whole blocks of a part of `stretch`, if there are any.
    fn whole_blocks(&self, part: Span, stretch: Span) -> Option<Span> {
        let start =
            if part.start == stretch.start { part.start } else { self.line_after(part.start) };
        let after = self.line_after(part.end);
        let before = if after == part.end { after } else { after.saturating_sub(self.grid.1) };
        let end = if part.end == stretch.end { part.end } else { before };
        (start < end).then(|| Span::new(start, end))
    }
}

impl RestStretch {
    /// A part of this stretch that is dealt to a member.
    fn part(&self, span: Span, member: NodeIx) -> PlannedSegment {
        let (senders, receivers) = (self.senders.clone(), vec![member]);
        PlannedSegment {
            segment: Segment { span, senders, receivers, groups: Vec::new() },
            weights: self.weights.clone(),
            own: Vec::new(),
            relays: Vec::new(),
        }
    }
}

/// Returns the bytes of a span that are in none of the `holes` (ascending, disjoint).
fn data_bytes(span: Span, holes: &[Span]) -> u64 {
    let first = holes.partition_point(|hole| hole.end <= span.start);
    let within = holes[first..].iter().map_while(|hole| hole.intersection(span));
    span.bytes() - within.map(Span::bytes).sum::<u64>()
}

#[cfg(test)]
#[path = "group_rest_tests.rs"]
mod tests;

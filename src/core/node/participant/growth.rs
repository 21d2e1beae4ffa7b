//! Growth of a participant's part of the plan. A member of a group is given further segments as it
//! lands those that it has. Room is made for them while bytes move, and only then are they asked
//! for.

use std::collections::BTreeSet;

use super::config::ParticipantConfig;
use super::followed_plan::FollowedPlan;
use crate::core::error::Error;
use crate::core::receiver::scheduler::{PieceScheduler, SegmentSenders, segment_mismatch};
use crate::core::units::Span;

/// Next step of a participant that grows.
#[derive(Debug)]
pub(super) struct GrowthStep {
    /// Segments of the plan that have room.
    pub(super) ready: Vec<SegmentSenders>,
    /// Ranges that room is to be made for.
    pub(super) lacking: Vec<Span>,
}

/// Further segments that newer plans bring.
#[derive(Debug, Default)]
pub(super) struct PlanGrowth {
    /// Bytes left at which the master is told, if further segments may come.
    more_at: Option<u64>,
    /// Bytes left at which it is told next: half as many each time, until a newer plan comes.
    told_at: Option<u64>,
    /// The master has been told that a flow has no work, since the last plan.
    is_told_dry: bool,
    /// The newest plan, while some of its segments have no room.
    waiting: Option<Vec<SegmentSenders>>,
    /// Ranges that a worker makes room for.
    making: Vec<Span>,
}

impl PlanGrowth {
    /// Begins with the first plan.
    pub(super) fn begin(&mut self, more_at: Option<u64>) {
        (self.more_at, self.told_at, self.is_told_dry) = (more_at, more_at, false);
    }

    /// Returns true if segments will come, or may.
    pub(super) fn grows(&self) -> bool {
        self.more_at.is_some() || self.waiting.is_some()
    }

    /// Returns the ranges of the plan that the scheduler does not have yet.
    pub(super) fn lacking(&self, scheduler: Option<&PieceScheduler>) -> Vec<Span> {
        let has: Vec<Span> = scheduler.into_iter().flat_map(|it| it.extents().spans()).collect();
        self.waiting().filter(|span| has.binary_search(span).is_err()).collect()
    }

    fn waiting(&self) -> impl Iterator<Item = Span> {
        self.waiting.iter().flatten().map(|source| source.span)
    }

    /// Follows a newer plan, while bytes move.
    ///
    /// # Errors
    /// It cannot be followed; `Code::Internal` if it lacks segments of the plan before, or has
    /// further ones although that was the last.
    pub(super) fn follow(
        &mut self,
        terms: &ParticipantConfig,
        scheduler: &PieceScheduler,
        sources: Vec<SegmentSenders>,
        more_at: Option<u64>,
    ) -> Result<GrowthStep, Error> {
        terms.judge(sources.iter().map(|source| source.span))?;
        self.take(scheduler.extents().spans(), sources, more_at)?;
        Ok(self.step(scheduler.extents().spans().collect()))
    }

    /// Goes on once a worker has made room, or bytes begin to move, if any segments wait.
    pub(super) fn made(&mut self, scheduler: &PieceScheduler) -> Option<GrowthStep> {
        let mut room: Vec<Span> = scheduler.extents().spans().collect();
        room.append(&mut self.making);
        self.waiting.is_some().then(|| self.step(room))
    }

    fn step(&mut self, room: Vec<Span>) -> GrowthStep {
        let ready = self.ready(&room);
        let starts: BTreeSet<u64> = room.into_iter().map(|span| span.start).collect();
        if self.making.is_empty() {
            let lacking = self.waiting().filter(|span| !starts.contains(&span.start));
            let lacking: Vec<Span> = lacking.collect();
            self.making.clone_from(&lacking);
            return GrowthStep { ready, lacking };
        }
        GrowthStep { ready, lacking: Vec::new() }
    }

    /// Returns true if the master is to be told that little is left to land, again when half of
    /// that is, and once that a flow has no work: what others are late with says nothing of that
    /// one.
    pub(super) fn is_due(&mut self, scheduler: &PieceScheduler) -> bool {
        if self.more_at.is_none() || self.waiting.is_some() {
            return false;
        }
        let left = scheduler.extents().left_bytes();
        let is_low = self.told_at.is_some_and(|at| left <= at);
        let is_dry = !self.is_told_dry && scheduler.is_dry();
        if is_low {
            self.told_at = (left > 0).then_some(left / 2);
        }
        self.is_told_dry |= is_dry;
        is_low || is_dry
    }

    /// Takes in a newer plan. `room` has the segments that room is made for.
    ///
    /// # Errors
    /// `Code::Internal` if it lacks segments of the plan before, or has further ones although that
    /// was the last.
    fn take(
        &mut self,
        room: impl Iterator<Item = Span>,
        sources: Vec<SegmentSenders>,
        more_at: Option<u64>,
    ) -> Result<(), Error> {
        let known: BTreeSet<(u64, u64)> = match &self.waiting {
            Some(waiting) => waiting.iter().map(|it| (it.span.start, it.span.end)).collect(),
            None => room.map(|span| (span.start, span.end)).collect(),
        };
        let is_known = |it: &&SegmentSenders| known.contains(&(it.span.start, it.span.end));
        let is_longer = sources.len() > known.len();
        if sources.iter().filter(is_known).count() < known.len()
            || (is_longer && self.more_at.is_none())
        {
            return Err(segment_mismatch());
        }
        self.begin(more_at);
        self.waiting = Some(sources);
        Ok(())
    }

    /// Takes in a newer plan before bytes move. Segments that room is not made for wait.
    ///
    /// # Errors
    /// As for every newer plan. Nothing is changed then.
    pub(super) fn replace(
        &mut self,
        terms: &ParticipantConfig,
        plan: &mut FollowedPlan,
        sources: Vec<SegmentSenders>,
        more_at: Option<u64>,
    ) -> Result<(), Error> {
        terms.judge(sources.iter().map(|source| source.span))?;
        let room: Vec<Span> = plan.sources().iter().map(|source| source.span).collect();
        self.take(room.iter().copied(), sources, more_at)?;
        plan.set_sources(self.ready(&room));
        Ok(())
    }

    /// Returns the segments of the waiting plan that have room, if `room` is made. It waits no more
    /// if these are all.
    fn ready(&mut self, room: &[Span]) -> Vec<SegmentSenders> {
        let starts: BTreeSet<u64> = room.iter().map(|span| span.start).collect();
        let Some(waiting) = self.waiting.take() else { return Vec::new() };
        let has_room = |source: &&SegmentSenders| starts.contains(&source.span.start);
        let ready: Vec<SegmentSenders> = waiting.iter().filter(has_room).cloned().collect();
        if ready.len() < waiting.len() {
            self.waiting = Some(waiting);
        }
        ready
    }
}

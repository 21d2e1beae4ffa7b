//! The lanes of one receiver: which flows it holds, opens, or rests from, and when a sender counts
//! as lost.
//!
//! A lane is a pair of rails, one here and one at a sender; it carries one flow at a time. A lane
//! whose flow breaks is opened again, at first at once, then after a rest that doubles with every
//! break. Success makes the rest shorter only step by step, so that a link that flaps is not
//! trusted after one good block. But a flow that brought something and was then closed, not silent,
//! cost no time: on a network that resets connections every few megabytes the next one goes on at
//! once. A sender is lost when none of its lanes stands and every one of them has broken too often.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::FlowIx;
use crate::error::{Code, Error};
use crate::units::{Moment, NodeIx};

/// Flows that one receiver holds open at once; further lanes wait until one of these has nothing
/// left to do.
const FLOWS_MAX: usize = 64;
/// How often every lane of a sender may break in a row before the sender counts as lost.
pub(super) const BREAKS_MAX: u32 = 3;
/// The rest after the second break of a lane; after the first there is none.
const REST_MIN: Duration = Duration::from_millis(250);
/// The longest rest: a rail that comes back is used again within that time.
const REST_MAX: Duration = Duration::from_secs(4);
/// Pieces that must land on a lane to make up for one break.
const PIECES_FOR_BREAK: u32 = 16;

/// A pair of rails, one of this node and one of a sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Lane {
    pub(crate) sender: NodeIx,
    pub(crate) index: u32,
}

/// What became of a sender when one of its lanes broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It still has lanes, or they will be opened again.
    Stands,
    /// None of its lanes is to be had.
    Lost,
}

/// All lanes of one receiver.
pub(super) struct Lanes {
    lanes: BTreeMap<Lane, State>,
    lost: Vec<NodeIx>,
    /// Lanes that are wanted but have no place.
    waiting: VecDeque<Lane>,
    to_open: VecDeque<Lane>,
}

#[derive(Clone, Copy, Default)]
struct State {
    stage: Stage,
    breaks: u32,
    landed: u32,
    /// Whether its flow has brought a piece.
    has_brought: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// Not wanted yet, or closed for want of work.
    #[default]
    Idle,
    Waiting,
    Opening,
    Up(FlowIx),
    Resting(Moment),
}

impl Lanes {
    /// The lanes to each of `senders`, as many as it says.
    pub(super) fn new(senders: impl Iterator<Item = (NodeIx, u32)>) -> Lanes {
        let lanes = senders
            .flat_map(|(sender, count)| (0..count.max(1)).map(move |index| Lane { sender, index }));
        let lanes = lanes.map(|lane| (lane, State::default())).collect();
        Lanes { lanes, lost: Vec::new(), waiting: VecDeque::new(), to_open: VecDeque::new() }
    }

    /// Lanes to further senders; those that are known stay what they are.
    pub(super) fn add(&mut self, senders: impl Iterator<Item = (NodeIx, u32)>) {
        for (sender, count) in senders {
            if self.of(sender).next().is_none() {
                self.lanes.extend(
                    (0..count.max(1)).map(|index| (Lane { sender, index }, State::default())),
                );
            }
        }
    }

    /// The next lane that is to be opened now.
    pub(super) fn poll_open(&mut self) -> Option<Lane> {
        self.to_open.pop_front()
    }

    /// When the next rest ends.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.lanes.values().filter_map(State::rests_until).min()
    }

    pub(super) fn is_lost(&self, sender: NodeIx) -> bool {
        self.lost.contains(&sender)
    }

    /// Whether lanes wait for a place.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// There is work for `sender`: its idle lanes are opened, now or when there is a place.
    pub(super) fn want(&mut self, sender: NodeIx) {
        let of_sender: Vec<Lane> = self
            .of(sender)
            .filter(|(_, state)| state.stage == Stage::Idle)
            .map(|it| it.0)
            .collect();
        if !self.is_lost(sender) {
            of_sender.into_iter().for_each(|lane| self.open(lane));
        }
    }

    pub(super) fn up(&mut self, lane: Lane, flow: FlowIx) {
        let state = self.state(lane);
        assert!(state.stage == Stage::Opening, "a lane has one flow, which was asked for");
        (state.stage, state.has_brought) = (Stage::Up(flow), false);
    }

    /// A piece landed on a lane.
    pub(super) fn landed(&mut self, lane: Lane) {
        let state = self.state(lane);
        state.has_brought = true;
        state.landed += 1;
        if state.landed >= PIECES_FOR_BREAK {
            (state.landed, state.breaks) = (0, state.breaks.saturating_sub(1));
        }
    }

    /// A lane has nothing to do and gives its place to one that waits.
    pub(super) fn idle(&mut self, lane: Lane) {
        self.state(lane).stage = Stage::Idle;
        self.fill_places();
    }

    /// A lane's flow broke, or could not be opened.
    pub(super) fn broke(&mut self, now: Moment, lane: Lane, error: &Error) -> Verdict {
        let state = self.state(lane);
        state.landed = 0;
        let has_brought = std::mem::take(&mut state.has_brought);
        state.breaks = match error.code {
            // A peer that turns us away does so again.
            Code::Refused => u32::MAX,
            Code::Unreachable if has_brought => state.breaks,
            _ => state.breaks.saturating_add(1),
        };
        state.stage = Stage::Resting(now + rest(state.breaks));
        if self.of(lane.sender).all(|(_, state)| !state.is_alive() && state.breaks >= BREAKS_MAX) {
            self.lost.push(lane.sender);
            let stages = self.lanes.iter_mut().filter(|(of, _)| of.sender == lane.sender);
            stages.for_each(|(_, state)| state.stage = Stage::Idle);
            self.waiting.retain(|waiting| waiting.sender != lane.sender);
            self.fill_places();
            return Verdict::Lost;
        }
        self.wake(now);
        Verdict::Stands
    }

    /// Opens the lanes whose rest has ended.
    pub(super) fn wake(&mut self, now: Moment) {
        let rested = |state: &State| state.rests_until().is_some_and(|until| now >= until);
        let rested: Vec<Lane> =
            self.lanes.iter().filter(|(_, state)| rested(state)).map(|(&lane, _)| lane).collect();
        rested.into_iter().for_each(|lane| self.open(lane));
    }

    fn of(&self, sender: NodeIx) -> impl Iterator<Item = (Lane, &State)> {
        let (first, last) = (Lane { sender, index: 0 }, Lane { sender, index: u32::MAX });
        self.lanes.range(first..=last).map(|(&lane, state)| (lane, state))
    }

    fn state(&mut self, lane: Lane) -> &mut State {
        self.lanes.get_mut(&lane).expect("a lane of the plan")
    }

    fn open(&mut self, lane: Lane) {
        let places = self.lanes.values().filter(|state| state.has_place()).count() < FLOWS_MAX;
        self.state(lane).stage = if places { Stage::Opening } else { Stage::Waiting };
        if places { &mut self.to_open } else { &mut self.waiting }.push_back(lane);
    }

    fn fill_places(&mut self) {
        if let Some(lane) = self.waiting.pop_front() {
            self.open(lane);
        }
    }
}

impl State {
    fn has_place(&self) -> bool {
        matches!(self.stage, Stage::Opening | Stage::Up(_))
    }

    /// Whether it may still bring something without being opened once more.
    fn is_alive(&self) -> bool {
        matches!(self.stage, Stage::Opening | Stage::Up(_) | Stage::Waiting)
    }

    fn rests_until(&self) -> Option<Moment> {
        match self.stage {
            Stage::Resting(until) => Some(until),
            _ => None,
        }
    }
}

/// How long a lane rests after so many breaks.
fn rest(breaks: u32) -> Duration {
    match breaks {
        0 | 1 => Duration::ZERO,
        more => (REST_MIN * 2_u32.saturating_pow((more - 2).min(16))).min(REST_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeIx = NodeIx(0);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn lane(index: u32) -> Lane {
        Lane { sender: A, index }
    }

    fn opened(lanes: &mut Lanes) -> Vec<u32> {
        std::iter::from_fn(|| lanes.poll_open()).map(|lane| lane.index).collect()
    }

    fn broken() -> Error {
        Error::new(Code::Unreachable, "reset")
    }

    #[test]
    fn one_lane_is_tried_three_times() {
        let mut lanes = Lanes::new([(A, 1)].into_iter());
        lanes.want(A);
        assert_eq!(opened(&mut lanes), [0]);
        assert_eq!(lanes.broke(at(0), lane(0), &broken()), Verdict::Stands);
        assert_eq!(opened(&mut lanes), [0], "the first time at once");
        assert_eq!(lanes.broke(at(1), lane(0), &broken()), Verdict::Stands);
        assert_eq!(opened(&mut lanes), [] as [u32; 0]);
        let until = lanes.poll_timeout().expect("it rests");
        lanes.wake(until);
        assert_eq!(opened(&mut lanes), [0]);
        assert_eq!(lanes.broke(at(900), lane(0), &broken()), Verdict::Lost);
        assert!(lanes.is_lost(A));
    }

    #[test]
    fn a_sender_stands_while_one_lane_does_and_the_broken_one_is_tried_for_ever() {
        let mut lanes = Lanes::new([(A, 2)].into_iter());
        lanes.want(A);
        assert_eq!(opened(&mut lanes), [0, 1]);
        lanes.up(lane(1), FlowIx(7));
        let mut now = at(0);
        for _ in 0..20 {
            assert_eq!(lanes.broke(now, lane(0), &broken()), Verdict::Stands);
            now = lanes.poll_timeout().unwrap_or(now);
            lanes.wake(now);
            assert_eq!(opened(&mut lanes), [0]);
        }
        assert!(now.since(at(0)) > 15 * REST_MAX, "the rest grows");
    }

    #[test]
    fn one_success_does_not_make_up_for_a_break() {
        let mut lanes = Lanes::new([(A, 1)].into_iter());
        lanes.want(A);
        opened(&mut lanes);
        for _ in 0..2 {
            lanes.broke(at(0), lane(0), &broken());
            lanes.wake(at(10_000));
            opened(&mut lanes);
        }
        lanes.up(lane(0), FlowIx(1));
        lanes.landed(lane(0));
        let silent = Error::new(Code::Stalled, "silent");
        assert_eq!(lanes.broke(at(20_000), lane(0), &silent), Verdict::Lost);
    }

    #[test]
    fn a_flow_that_is_reset_after_every_few_pieces_is_opened_again_at_once() {
        let mut lanes = Lanes::new([(A, 1)].into_iter());
        lanes.want(A);
        for flow in 0..100 {
            assert_eq!(opened(&mut lanes), [0]);
            lanes.up(lane(0), FlowIx(flow));
            (0..4).for_each(|_| lanes.landed(lane(0)));
            assert_eq!(lanes.broke(at(0), lane(0), &broken()), Verdict::Stands);
        }
        // One that brings nothing any more is no better than others.
        assert_eq!(opened(&mut lanes), [0]);
        lanes.up(lane(0), FlowIx(100));
        for ms in [0, 10_000] {
            assert_eq!(lanes.broke(at(ms), lane(0), &broken()), Verdict::Stands);
            lanes.wake(at(ms + 10_000));
            assert_eq!(opened(&mut lanes), [0]);
        }
        assert_eq!(lanes.broke(at(20_000), lane(0), &broken()), Verdict::Lost);
    }

    #[test]
    fn lanes_beyond_the_places_wait_for_one() {
        let mut lanes = Lanes::new([(A, FLOWS_MAX as u32 + 1)].into_iter());
        lanes.want(A);
        assert_eq!(opened(&mut lanes).len(), FLOWS_MAX);
        assert!(lanes.are_waiting());
        lanes.up(lane(0), FlowIx(1));
        lanes.idle(lane(0));
        assert_eq!(opened(&mut lanes), [FLOWS_MAX as u32]);
    }
}

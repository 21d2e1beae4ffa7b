//! The rail pairs of one receiver: which flows it holds, opens, or rests from, and when a sender
//! counts as lost.
//!
//! A rail pair is a pair of rails, one here and one at a sender; it carries one flow at a time. A
//! rail pair whose flow breaks is opened again, at first at once, then after a rest that doubles
//! with every break. Success makes the rest shorter only step by step, so that a link that flaps is
//! not trusted after one good block. But a flow that brought something and was then closed, not
//! silent, cost no time: on a network that resets connections every few megabytes the next one goes
//! on at once. A sender is lost when none of its rail pairs stands and every one of them has broken
//! too often.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::error::{Code, Error};
use crate::core::piece::FlowIx;
use crate::core::units::{Moment, NodeIx};

/// Flows that one receiver holds open at once; further rail pairs wait until one of these has
/// nothing left to do.
const FLOWS_MAX: usize = 64;
/// How often every rail pair of a sender may break in a row before the sender counts as lost.
pub(super) const BREAKS_MAX: u32 = 3;
/// The rest after the second break of a rail pair; after the first there is none.
const REST_MIN: Duration = Duration::from_millis(250);
/// The longest rest: a rail that comes back is used again within that time.
const REST_MAX: Duration = Duration::from_secs(4);
/// Pieces that must land on a rail pair to make up for one break.
const PIECES_FOR_BREAK: u32 = 16;

/// A pair of rails, one of this node and one of a sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RailPair {
    pub(crate) sender: NodeIx,
    pub(crate) index: u32,
}

/// What became of a sender when one of its rail pairs broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SenderVerdict {
    /// It still has rail pairs, or they will be opened again.
    Stands,
    /// None of its rail pairs is to be had.
    Lost,
}

/// All rail pairs of one receiver.
pub(super) struct RailPairs {
    rail_pairs: BTreeMap<RailPair, RailPairState>,
    lost: Vec<NodeIx>,
    /// Rail pairs that are wanted but have no place.
    waiting: VecDeque<RailPair>,
    to_open: VecDeque<RailPair>,
}

#[derive(Clone, Copy, Default)]
struct RailPairState {
    stage: RailPairStage,
    breaks: u32,
    landed: u32,
    /// Whether its flow has brought a piece.
    has_brought: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum RailPairStage {
    /// Not wanted yet, or closed for want of work.
    #[default]
    Idle,
    Waiting,
    Opening,
    Up(FlowIx),
    Resting(Moment),
}

impl RailPairs {
    /// The rail pairs to each of `senders`, as many as it says.
    pub(super) fn new(senders: impl Iterator<Item = (NodeIx, u32)>) -> RailPairs {
        let rail_pairs = senders.flat_map(|(sender, count)| {
            (0..count.max(1)).map(move |index| RailPair { sender, index })
        });
        let rail_pairs =
            rail_pairs.map(|rail_pair| (rail_pair, RailPairState::default())).collect();
        RailPairs {
            rail_pairs,
            lost: Vec::new(),
            waiting: VecDeque::new(),
            to_open: VecDeque::new(),
        }
    }

    /// Rail pairs to further senders; those that are known stay what they are.
    pub(super) fn add(&mut self, senders: impl Iterator<Item = (NodeIx, u32)>) {
        for (sender, count) in senders {
            if self.of(sender).next().is_none() {
                self.rail_pairs.extend(
                    (0..count.max(1))
                        .map(|index| (RailPair { sender, index }, RailPairState::default())),
                );
            }
        }
    }

    /// The next rail pair that is to be opened now.
    pub(super) fn poll_open(&mut self) -> Option<RailPair> {
        self.to_open.pop_front()
    }

    /// When the next rest ends.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.rail_pairs.values().filter_map(RailPairState::rests_until).min()
    }

    pub(super) fn is_lost(&self, sender: NodeIx) -> bool {
        self.lost.contains(&sender)
    }

    /// Whether rail pairs wait for a place.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// There is work for `sender`: its idle rail pairs are opened, now or when there is a place.
    pub(super) fn want(&mut self, sender: NodeIx) {
        let of_sender: Vec<RailPair> = self
            .of(sender)
            .filter(|(_, state)| state.stage == RailPairStage::Idle)
            .map(|it| it.0)
            .collect();
        if !self.is_lost(sender) {
            of_sender.into_iter().for_each(|rail_pair| self.open(rail_pair));
        }
    }

    pub(super) fn up(&mut self, rail_pair: RailPair, flow: FlowIx) {
        let state = self.state(rail_pair);
        assert!(state.stage == RailPairStage::Opening, "a lane has one flow, which was asked for");
        (state.stage, state.has_brought) = (RailPairStage::Up(flow), false);
    }

    /// A piece landed on a rail pair.
    pub(super) fn landed(&mut self, rail_pair: RailPair) {
        let state = self.state(rail_pair);
        state.has_brought = true;
        state.landed += 1;
        if state.landed >= PIECES_FOR_BREAK {
            (state.landed, state.breaks) = (0, state.breaks.saturating_sub(1));
        }
    }

    /// A rail pair has nothing to do and gives its place to one that waits.
    pub(super) fn idle(&mut self, rail_pair: RailPair) {
        self.state(rail_pair).stage = RailPairStage::Idle;
        self.fill_places();
    }

    /// A rail pair's flow broke, or could not be opened.
    pub(super) fn broke(
        &mut self,
        now: Moment,
        rail_pair: RailPair,
        error: &Error,
    ) -> SenderVerdict {
        let state = self.state(rail_pair);
        state.landed = 0;
        let has_brought = std::mem::take(&mut state.has_brought);
        state.breaks = match error.code {
            // A peer that turns us away does so again.
            Code::Refused => u32::MAX,
            Code::Unreachable if has_brought => state.breaks,
            _ => state.breaks.saturating_add(1),
        };
        state.stage = RailPairStage::Resting(now + rest(state.breaks));
        if self
            .of(rail_pair.sender)
            .all(|(_, state)| !state.is_alive() && state.breaks >= BREAKS_MAX)
        {
            self.lost.push(rail_pair.sender);
            let stages = self.rail_pairs.iter_mut().filter(|(of, _)| of.sender == rail_pair.sender);
            stages.for_each(|(_, state)| state.stage = RailPairStage::Idle);
            self.waiting.retain(|waiting| waiting.sender != rail_pair.sender);
            self.fill_places();
            return SenderVerdict::Lost;
        }
        self.wake(now);
        SenderVerdict::Stands
    }

    /// Opens the rail pairs whose rest has ended.
    pub(super) fn wake(&mut self, now: Moment) {
        let rested = |state: &RailPairState| state.rests_until().is_some_and(|until| now >= until);
        let rested: Vec<RailPair> = self
            .rail_pairs
            .iter()
            .filter(|(_, state)| rested(state))
            .map(|(&rail_pair, _)| rail_pair)
            .collect();
        rested.into_iter().for_each(|rail_pair| self.open(rail_pair));
    }

    fn of(&self, sender: NodeIx) -> impl Iterator<Item = (RailPair, &RailPairState)> {
        let (first, last) = (RailPair { sender, index: 0 }, RailPair { sender, index: u32::MAX });
        self.rail_pairs.range(first..=last).map(|(&rail_pair, state)| (rail_pair, state))
    }

    fn state(&mut self, rail_pair: RailPair) -> &mut RailPairState {
        self.rail_pairs.get_mut(&rail_pair).expect("a lane of the plan")
    }

    fn open(&mut self, rail_pair: RailPair) {
        let places = self.rail_pairs.values().filter(|state| state.has_place()).count() < FLOWS_MAX;
        self.state(rail_pair).stage =
            if places { RailPairStage::Opening } else { RailPairStage::Waiting };
        if places { &mut self.to_open } else { &mut self.waiting }.push_back(rail_pair);
    }

    fn fill_places(&mut self) {
        if let Some(rail_pair) = self.waiting.pop_front() {
            self.open(rail_pair);
        }
    }
}

impl RailPairState {
    fn has_place(&self) -> bool {
        matches!(self.stage, RailPairStage::Opening | RailPairStage::Up(_))
    }

    /// Whether it may still bring something without being opened once more.
    fn is_alive(&self) -> bool {
        matches!(self.stage, RailPairStage::Opening | RailPairStage::Up(_) | RailPairStage::Waiting)
    }

    fn rests_until(&self) -> Option<Moment> {
        match self.stage {
            RailPairStage::Resting(until) => Some(until),
            _ => None,
        }
    }
}

/// How long a rail pair rests after so many breaks.
fn rest(breaks: u32) -> Duration {
    match breaks {
        0 | 1 => Duration::ZERO,
        more => (REST_MIN * 2_u32.saturating_pow((more - 2).min(16))).min(REST_MAX),
    }
}

/// The port here and the rail there of one rail pair, by indices, out of `ports` and `rails`.
/// `reaches` says of a port and a rail whether they are in one subnet.
pub(crate) fn pair_by(
    ports: usize,
    rails: usize,
    index: usize,
    reaches: impl Fn(usize, usize) -> bool,
) -> Option<(usize, usize)> {
    let nth = |matching: Vec<usize>, of: usize| match matching.len() {
        0 => index % of,
        some => matching[index % some],
    };
    if rails == 0 || ports == 0 {
        None
    } else if ports >= rails {
        let port = index % ports;
        let near = (0..rails).filter(|&rail| reaches(port, rail)).collect();
        Some((port, nth(near, rails)))
    } else {
        let rail = index % rails;
        let near = (0..ports).filter(|&port| reaches(port, rail)).collect();
        Some((nth(near, ports), rail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeIx = NodeIx(0);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn rail_pair(index: u32) -> RailPair {
        RailPair { sender: A, index }
    }

    fn opened(rail_pairs: &mut RailPairs) -> Vec<u32> {
        std::iter::from_fn(|| rail_pairs.poll_open()).map(|rail_pair| rail_pair.index).collect()
    }

    fn broken() -> Error {
        Error::new(Code::Unreachable, "reset")
    }

    #[test]
    fn one_lane_is_tried_three_times() {
        let mut rail_pairs = RailPairs::new([(A, 1)].into_iter());
        rail_pairs.want(A);
        assert_eq!(opened(&mut rail_pairs), [0]);
        assert_eq!(rail_pairs.broke(at(0), rail_pair(0), &broken()), SenderVerdict::Stands);
        assert_eq!(opened(&mut rail_pairs), [0], "the first time at once");
        assert_eq!(rail_pairs.broke(at(1), rail_pair(0), &broken()), SenderVerdict::Stands);
        assert_eq!(opened(&mut rail_pairs), [] as [u32; 0]);
        let until = rail_pairs.poll_timeout().expect("it rests");
        rail_pairs.wake(until);
        assert_eq!(opened(&mut rail_pairs), [0]);
        assert_eq!(rail_pairs.broke(at(900), rail_pair(0), &broken()), SenderVerdict::Lost);
        assert!(rail_pairs.is_lost(A));
    }

    #[test]
    fn a_sender_stands_while_one_lane_does_and_the_broken_one_is_tried_for_ever() {
        let mut rail_pairs = RailPairs::new([(A, 2)].into_iter());
        rail_pairs.want(A);
        assert_eq!(opened(&mut rail_pairs), [0, 1]);
        rail_pairs.up(rail_pair(1), FlowIx(7));
        let mut now = at(0);
        for _ in 0..20 {
            assert_eq!(rail_pairs.broke(now, rail_pair(0), &broken()), SenderVerdict::Stands);
            now = rail_pairs.poll_timeout().unwrap_or(now);
            rail_pairs.wake(now);
            assert_eq!(opened(&mut rail_pairs), [0]);
        }
        assert!(now.since(at(0)) > 15 * REST_MAX, "the rest grows");
    }

    #[test]
    fn one_success_does_not_make_up_for_a_break() {
        let mut rail_pairs = RailPairs::new([(A, 1)].into_iter());
        rail_pairs.want(A);
        opened(&mut rail_pairs);
        for _ in 0..2 {
            rail_pairs.broke(at(0), rail_pair(0), &broken());
            rail_pairs.wake(at(10_000));
            opened(&mut rail_pairs);
        }
        rail_pairs.up(rail_pair(0), FlowIx(1));
        rail_pairs.landed(rail_pair(0));
        let silent = Error::new(Code::Stalled, "silent");
        assert_eq!(rail_pairs.broke(at(20_000), rail_pair(0), &silent), SenderVerdict::Lost);
    }

    #[test]
    fn a_flow_that_is_reset_after_every_few_pieces_is_opened_again_at_once() {
        let mut rail_pairs = RailPairs::new([(A, 1)].into_iter());
        rail_pairs.want(A);
        for flow in 0..100 {
            assert_eq!(opened(&mut rail_pairs), [0]);
            rail_pairs.up(rail_pair(0), FlowIx(flow));
            (0..4).for_each(|_| rail_pairs.landed(rail_pair(0)));
            assert_eq!(rail_pairs.broke(at(0), rail_pair(0), &broken()), SenderVerdict::Stands);
        }
        // One that brings nothing any more is no better than others.
        assert_eq!(opened(&mut rail_pairs), [0]);
        rail_pairs.up(rail_pair(0), FlowIx(100));
        for ms in [0, 10_000] {
            assert_eq!(rail_pairs.broke(at(ms), rail_pair(0), &broken()), SenderVerdict::Stands);
            rail_pairs.wake(at(ms + 10_000));
            assert_eq!(opened(&mut rail_pairs), [0]);
        }
        assert_eq!(rail_pairs.broke(at(20_000), rail_pair(0), &broken()), SenderVerdict::Lost);
    }

    #[test]
    fn lanes_beyond_the_places_wait_for_one() {
        let mut rail_pairs = RailPairs::new([(A, FLOWS_MAX as u32 + 1)].into_iter());
        rail_pairs.want(A);
        assert_eq!(opened(&mut rail_pairs).len(), FLOWS_MAX);
        assert!(rail_pairs.are_waiting());
        rail_pairs.up(rail_pair(0), FlowIx(1));
        rail_pairs.idle(rail_pair(0));
        assert_eq!(opened(&mut rail_pairs), [FLOWS_MAX as u32]);
    }
}

//! Rail pairs of one receiver: which of them hold a flow, open one or back off, and which senders
//! are lost.
//!
//! A rail pair is one local rail and one rail of a sender. It carries one flow at a time. A rail
//! pair whose flow breaks is opened again: at once after the first break, then after a backoff
//! that doubles with every break. A flow that delivered something and was then closed makes up for
//! all breaks before it: on a network that resets connections every few megabytes, or changes a
//! header now and then, the next flow opens at once. After a flow that fell silent, landed pieces
//! shorten the backoff only step by step, so that a flapping link is not trusted after one good
//! block. A sender is lost when none of its rail pairs has a flow and each of them has broken too
//! often.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::error::{Code, Error};
use crate::core::piece::FlowIx;
use crate::core::units::{Moment, NodeIx};

/// Flows that one receiver holds open at once. Further rail pairs wait until one of them has
/// nothing left to do.
const FLOWS_MAX: usize = 64;
/// Flows of one rail pair. The slots of a rail keep about as many pieces on their way.
pub(super) const FLOWS_OF_PAIR_MAX: u32 = 12;
/// Flows up to which pairs get further ones: senders that come later find places.
const FURTHER_UP_TO: usize = FLOWS_MAX / 2;
/// Breaks in a row of every rail pair of a sender, after which the sender counts as lost.
pub(super) const BREAKS_MAX: u32 = 3;
/// Backoff after the second break of a rail pair; there is none after the first.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest backoff: a rail that comes back is used again within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(4);
/// Pieces that must land on a rail pair to make up for one break.
const PIECES_FOR_BREAK: u32 = 16;
/// Time after a delivery in which flows that end with a changed header cost a rail pair nothing.
const GETS_THROUGH: Duration = Duration::from_secs(2);

/// A pair of rails, one of this node and one of a sender, and the place of a flow there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RailPair {
    pub(crate) sender: NodeIx,
    pub(crate) index: u32,
    /// 0 for the pair's own flow; the others are beside it.
    pub(crate) further: u32,
}

impl RailPair {
    /// The place of the own flow of pair `index`.
    pub(crate) fn new(sender: NodeIx, index: u32) -> RailPair {
        RailPair { sender, index, further: 0 }
    }

    /// The part of a flow in what its pair may have: a further flow counts as one of many.
    pub(crate) fn part_of(self, amount: u64) -> u64 {
        match amount {
            0 => 0,
            _ if self.further == 0 => amount,
            _ => (amount / u64::from(FLOWS_OF_PAIR_MAX)).max(1),
        }
    }

    /// The place of the pair's own flow.
    pub(crate) fn own(self) -> RailPair {
        RailPair { further: 0, ..self }
    }
}

/// State of a sender after one of its rail pairs broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SenderVerdict {
    /// It still has rail pairs, or they will be opened again.
    Stands,
    /// None of its rail pairs can be used.
    Lost,
}

/// All rail pairs of one receiver.
pub(super) struct RailPairs {
    rail_pairs: BTreeMap<RailPair, RailPairState>,
    lost: Vec<NodeIx>,
    /// Rail pairs that wait for one of `FLOWS_MAX` places.
    waiting: VecDeque<RailPair>,
    to_open: VecDeque<RailPair>,
}

#[derive(Clone, Copy, Default)]
struct RailPairState {
    stage: RailPairStage,
    breaks: u32,
    landed: u32,
    /// True once its flow has delivered a piece, or a part of one.
    has_brought: bool,
    /// The moment of the last one, of any of its flows.
    brought: Option<Moment>,
    /// True for a further flow that is to end as soon as it owes nothing.
    is_surplus: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum RailPairStage {
    /// Not needed yet, or closed for lack of work.
    #[default]
    Idle,
    Waiting,
    Opening,
    Up(FlowIx),
    BackingOff(Moment),
}

impl RailPairs {
    /// Creates the rail pairs to each of `senders`, with the given count for each.
    pub(super) fn new(senders: impl Iterator<Item = (NodeIx, u32)>) -> RailPairs {
        let rail_pairs = senders.flat_map(|(sender, count)| {
            (0..count.max(1)).map(move |index| RailPair::new(sender, index))
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

    /// Adds the rail pairs to further senders. Known senders are unchanged.
    pub(super) fn add(&mut self, senders: impl Iterator<Item = (NodeIx, u32)>) {
        for (sender, count) in senders {
            if self.of(sender).next().is_none() {
                self.rail_pairs.extend(
                    (0..count.max(1))
                        .map(|index| (RailPair::new(sender, index), RailPairState::default())),
                );
            }
        }
    }

    /// Returns the next rail pair to open now.
    pub(super) fn poll_open(&mut self) -> Option<RailPair> {
        self.to_open.pop_front()
    }

    /// Returns the end of the next backoff.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.rail_pairs.values().filter_map(RailPairState::backoff_until).min()
    }

    pub(super) fn is_lost(&self, sender: NodeIx) -> bool {
        self.lost.contains(&sender)
    }

    /// Returns true if every rail pair of a sender has broken, and brought too little since.
    pub(super) fn has_broken(&self, sender: NodeIx) -> bool {
        self.of(sender).all(|(_, state)| state.breaks > 0)
    }

    /// Returns true if rail pairs wait for a place.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Opens the idle rail pairs of `sender`, now or once there is a place: there is work for it.
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
        assert!(
            state.stage == RailPairStage::Opening,
            "a rail pair has one flow, which was requested"
        );
        (state.stage, state.has_brought) = (RailPairStage::Up(flow), false);
    }

    /// Notes that a part of a piece landed on a rail pair.
    pub(super) fn brought(&mut self, now: Moment, rail_pair: RailPair) {
        let state = self.state(rail_pair);
        (state.has_brought, state.brought) = (true, Some(now));
    }

    /// Counts a piece that landed on a rail pair.
    pub(super) fn landed(&mut self, now: Moment, rail_pair: RailPair) {
        self.brought(now, rail_pair);
        let state = self.state(rail_pair);
        state.landed += 1;
        if state.landed >= PIECES_FOR_BREAK {
            (state.landed, state.breaks) = (0, state.breaks.saturating_sub(1));
        }
    }

    /// Makes a rail pair without work idle, and gives its place to one that waits.
    pub(super) fn idle(&mut self, rail_pair: RailPair) {
        if rail_pair.further > 0 {
            self.rail_pairs.remove(&rail_pair);
        } else {
            self.state(rail_pair).stage = RailPairStage::Idle;
        }
        self.fill_places();
    }

    /// Returns the number of flows of a rail pair that are up or coming up and stay, and whether
    /// some are coming up.
    pub(super) fn flows_of(&self, rail_pair: RailPair) -> (u32, bool) {
        let mut flows = (0, false);
        for (_, state) in self.places_of(rail_pair) {
            flows.0 += u32::from(state.has_place() && !state.is_surplus);
            flows.1 |= state.stage == RailPairStage::Opening;
        }
        flows
    }

    /// Opens further flows of a rail pair, as far as there are places, until it has `count`.
    pub(super) fn open_further(&mut self, rail_pair: RailPair, count: u32) {
        let (mut flows, _) = self.flows_of(rail_pair);
        for further in 1..2 * count {
            let place = RailPair { further, ..rail_pair };
            let has_room = self.waiting.is_empty() && self.places() < FURTHER_UP_TO;
            if flows < count && has_room && !self.rail_pairs.contains_key(&place) {
                self.rail_pairs.insert(place, RailPairState::default());
                self.open(place);
                flows += 1;
            }
        }
    }

    /// Has the further flows of a rail pair end, those beyond `count`.
    pub(super) fn give_up(&mut self, rail_pair: RailPair, count: u32) {
        let last = RailPair { further: u32::MAX, ..rail_pair };
        let flows = self.rail_pairs.range_mut(rail_pair.own()..=last);
        let staying = flows.filter(|(_, state)| !state.is_surplus);
        for (place, state) in staying.skip(count as usize) {
            state.is_surplus = place.further > 0;
        }
    }

    /// Returns true if a flow is to end as soon as it owes nothing.
    pub(super) fn is_surplus(&self, rail_pair: RailPair) -> bool {
        self.rail_pairs.get(&rail_pair).is_some_and(|state| state.is_surplus)
    }

    /// Records that a rail pair's flow broke, or could not be opened.
    pub(super) fn broke(
        &mut self,
        now: Moment,
        rail_pair: RailPair,
        error: &Error,
    ) -> SenderVerdict {
        if rail_pair.further > 0 {
            self.idle(rail_pair);
            return self.judge(rail_pair.sender);
        }
        let state = self.state(rail_pair);
        state.landed = 0;
        let has_brought = std::mem::take(&mut state.has_brought);
        state.breaks = match error.code {
            // A peer that refuses us once does so again.
            Code::Refused => u32::MAX,
            // Something gets through. A header that changes on the way ends a flow, too.
            Code::Unreachable | Code::Integrity if has_brought => 0,
            // It may be the very first header of a flow.
            Code::Integrity if state.gets_through(now) => state.breaks,
            _ => state.breaks.saturating_add(1),
        };
        state.stage = RailPairStage::BackingOff(now + backoff(state.breaks));
        let verdict = self.judge(rail_pair.sender);
        self.open_due(now);
        verdict
    }

    /// Finds out whether a sender is lost, after one of its flows broke.
    fn judge(&mut self, sender: NodeIx) -> SenderVerdict {
        let is_dead = |state: &RailPairState| !state.is_alive() && state.breaks >= BREAKS_MAX;
        if !self.of(sender).all(|(_, state)| is_dead(state)) {
            return SenderVerdict::Stands;
        }
        self.lost.push(sender);
        let stages = self.rail_pairs.iter_mut().filter(|(of, _)| of.sender == sender);
        stages.for_each(|(_, state)| state.stage = RailPairStage::Idle);
        self.waiting.retain(|waiting| waiting.sender != sender);
        self.fill_places();
        SenderVerdict::Lost
    }

    /// Opens the rail pairs whose backoff has ended.
    pub(super) fn open_due(&mut self, now: Moment) {
        let rested =
            |state: &RailPairState| state.backoff_until().is_some_and(|until| now >= until);
        let rested: Vec<RailPair> = self
            .rail_pairs
            .iter()
            .filter(|(_, state)| rested(state))
            .map(|(&rail_pair, _)| rail_pair)
            .collect();
        rested.into_iter().for_each(|rail_pair| self.open(rail_pair));
    }

    fn of(&self, sender: NodeIx) -> impl Iterator<Item = (RailPair, &RailPairState)> {
        let first = RailPair::new(sender, 0);
        let last = RailPair { sender, index: u32::MAX, further: u32::MAX };
        self.rail_pairs.range(first..=last).map(|(&rail_pair, state)| (rail_pair, state))
    }

    fn places_of(&self, pair: RailPair) -> impl Iterator<Item = (&RailPair, &RailPairState)> {
        self.rail_pairs.range(pair.own()..=RailPair { further: u32::MAX, ..pair })
    }

    /// Returns the number of flows that are up or coming up.
    fn places(&self) -> usize {
        self.rail_pairs.values().filter(|state| state.has_place()).count()
    }

    fn state(&mut self, rail_pair: RailPair) -> &mut RailPairState {
        self.rail_pairs.get_mut(&rail_pair).expect("a rail pair of the plan")
    }

    fn open(&mut self, rail_pair: RailPair) {
        let places = self.places() < FLOWS_MAX;
        if !places {
            // It takes the place of a flow that others are beside.
            self.rail_pairs.iter_mut().for_each(|(it, state)| state.is_surplus = it.further > 0);
        }
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

    /// Returns true if it may deliver without being opened again.
    fn is_alive(&self) -> bool {
        matches!(self.stage, RailPairStage::Opening | RailPairStage::Up(_) | RailPairStage::Waiting)
    }

    /// Returns true if something was delivered a moment ago.
    fn gets_through(&self, now: Moment) -> bool {
        self.brought.is_some_and(|brought| now.since(brought) < GETS_THROUGH)
    }

    fn backoff_until(&self) -> Option<Moment> {
        match self.stage {
            RailPairStage::BackingOff(until) => Some(until),
            _ => None,
        }
    }
}

/// Returns the backoff of a rail pair after `breaks` breaks.
fn backoff(breaks: u32) -> Duration {
    match breaks {
        0 | 1 => Duration::ZERO,
        more => (BACKOFF_MIN * 2_u32.saturating_pow((more - 2).min(16))).min(BACKOFF_MAX),
    }
}

/// Returns the local port and the remote rail of one rail pair, as indices into `ports` and
/// `rails`. `reaches` returns true for a port and a rail in one subnet.
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
        RailPair::new(A, index)
    }

    fn opened(rail_pairs: &mut RailPairs) -> Vec<u32> {
        std::iter::from_fn(|| rail_pairs.poll_open()).map(|rail_pair| rail_pair.index).collect()
    }

    fn broken() -> Error {
        Error::new(Code::Unreachable, "reset")
    }

    #[test]
    fn one_rail_pair_is_tried_three_times() {
        let mut rail_pairs = RailPairs::new([(A, 1)].into_iter());
        rail_pairs.want(A);
        assert_eq!(opened(&mut rail_pairs), [0]);
        assert_eq!(rail_pairs.broke(at(0), rail_pair(0), &broken()), SenderVerdict::Stands);
        assert_eq!(opened(&mut rail_pairs), [0], "the first time at once");
        assert_eq!(rail_pairs.broke(at(1), rail_pair(0), &broken()), SenderVerdict::Stands);
        assert_eq!(opened(&mut rail_pairs), [] as [u32; 0]);
        let until = rail_pairs.poll_timeout().expect("it backs off");
        rail_pairs.open_due(until);
        assert_eq!(opened(&mut rail_pairs), [0]);
        assert_eq!(rail_pairs.broke(at(900), rail_pair(0), &broken()), SenderVerdict::Lost);
        assert!(rail_pairs.is_lost(A));
    }

    #[test]
    fn a_sender_stands_while_one_rail_pair_does_and_the_broken_one_is_tried_for_ever() {
        let mut rail_pairs = RailPairs::new([(A, 2)].into_iter());
        rail_pairs.want(A);
        assert_eq!(opened(&mut rail_pairs), [0, 1]);
        rail_pairs.up(rail_pair(1), FlowIx(7));
        let mut now = at(0);
        for _ in 0..20 {
            assert_eq!(rail_pairs.broke(now, rail_pair(0), &broken()), SenderVerdict::Stands);
            now = rail_pairs.poll_timeout().unwrap_or(now);
            rail_pairs.open_due(now);
            assert_eq!(opened(&mut rail_pairs), [0]);
        }
        assert!(now.since(at(0)) > 15 * BACKOFF_MAX, "the backoff grows");
    }

    #[test]
    fn one_success_does_not_make_up_for_a_break() {
        let mut rail_pairs = RailPairs::new([(A, 1)].into_iter());
        rail_pairs.want(A);
        opened(&mut rail_pairs);
        for _ in 0..2 {
            rail_pairs.broke(at(0), rail_pair(0), &broken());
            rail_pairs.open_due(at(10_000));
            opened(&mut rail_pairs);
        }
        rail_pairs.up(rail_pair(0), FlowIx(1));
        rail_pairs.landed(at(0), rail_pair(0));
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
            (0..4).for_each(|_| rail_pairs.landed(at(0), rail_pair(0)));
            assert_eq!(rail_pairs.broke(at(0), rail_pair(0), &broken()), SenderVerdict::Stands);
        }
        // A flow that delivers nothing any more is treated like any other.
        assert_eq!(opened(&mut rail_pairs), [0]);
        rail_pairs.up(rail_pair(0), FlowIx(100));
        for ms in [0, 10_000] {
            assert_eq!(rail_pairs.broke(at(ms), rail_pair(0), &broken()), SenderVerdict::Stands);
            rail_pairs.open_due(at(ms + 10_000));
            assert_eq!(opened(&mut rail_pairs), [0]);
        }
        assert_eq!(rail_pairs.broke(at(20_000), rail_pair(0), &broken()), SenderVerdict::Lost);
    }

    /// With one packet in ten changed, three flows in a row ended with their first header, and the
    /// sender was lost although parts got through all the time.
    #[test]
    fn headers_that_change_cost_nothing_while_something_gets_through() {
        let changed = Error::new(Code::Integrity, "a frame header was corrupted in transit");
        let mut rail_pairs = RailPairs::new([(A, 1)].into_iter());
        rail_pairs.want(A);
        rail_pairs.up(rail_pair(0), FlowIx(0));
        rail_pairs.brought(at(0), rail_pair(0));
        for ms in (0..1900).step_by(100) {
            assert_eq!(rail_pairs.broke(at(ms), rail_pair(0), &changed), SenderVerdict::Stands);
            assert_eq!(opened(&mut rail_pairs).last(), Some(&0), "at once");
        }
        // Nothing has got through for two seconds.
        for ms in [3000, 6000] {
            assert_eq!(rail_pairs.broke(at(ms), rail_pair(0), &changed), SenderVerdict::Stands);
            rail_pairs.open_due(at(ms + 2000));
        }
        assert_eq!(rail_pairs.broke(at(9000), rail_pair(0), &changed), SenderVerdict::Lost);
    }

    #[test]
    fn rail_pairs_beyond_the_places_wait_for_one() {
        let mut rail_pairs = RailPairs::new([(A, FLOWS_MAX as u32 + 1)].into_iter());
        rail_pairs.want(A);
        assert_eq!(opened(&mut rail_pairs).len(), FLOWS_MAX);
        assert!(rail_pairs.are_waiting());
        rail_pairs.up(rail_pair(0), FlowIx(1));
        rail_pairs.idle(rail_pair(0));
        assert_eq!(opened(&mut rail_pairs), [FLOWS_MAX as u32]);
    }

    fn places(rail_pairs: &mut RailPairs) -> Vec<u32> {
        std::iter::from_fn(|| rail_pairs.poll_open()).map(|place| place.further).collect()
    }

    #[test]
    fn a_further_flow_that_breaks_is_forgotten_and_one_that_stands_keeps_its_sender() {
        let mut rail_pairs = RailPairs::new([(A, 1)].into_iter());
        rail_pairs.want(A);
        rail_pairs.up(rail_pair(0), FlowIx(0));
        opened(&mut rail_pairs);
        rail_pairs.open_further(rail_pair(0), 4);
        assert_eq!(places(&mut rail_pairs), [1, 2, 3]);
        let further = |further| RailPair { further, ..rail_pair(0) };
        rail_pairs.up(further(1), FlowIx(1));
        for place in [2, 3] {
            let verdict = rail_pairs.broke(at(0), further(place), &broken());
            assert_eq!(verdict, SenderVerdict::Stands);
        }
        assert_eq!(
            (rail_pairs.flows_of(rail_pair(0)), rail_pairs.poll_timeout()),
            ((2, false), None)
        );
        for ms in [0, 10_000, 20_000, 30_000] {
            let verdict = rail_pairs.broke(at(ms), rail_pair(0), &broken());
            assert_eq!(verdict, SenderVerdict::Stands, "a further flow stands");
            rail_pairs.open_due(at(ms + 9000));
            assert_eq!(places(&mut rail_pairs), [0]);
        }
        rail_pairs.broke(at(40_000), rail_pair(0), &broken());
        let verdict = rail_pairs.broke(at(40_000), further(1), &broken());
        assert_eq!(verdict, SenderVerdict::Lost);
    }

    #[test]
    fn further_flows_end_where_they_are_given_up_or_others_wait() {
        let count = FURTHER_UP_TO as u32 - 2;
        let mut rail_pairs =
            RailPairs::new([(A, 1), (NodeIx(1), count), (NodeIx(2), 64)].into_iter());
        rail_pairs.want(A);
        rail_pairs.open_further(rail_pair(0), 4);
        assert_eq!(places(&mut rail_pairs), [0, 1, 2, 3]);
        rail_pairs.give_up(rail_pair(0), 2);
        let surplus = |rail_pairs: &RailPairs| {
            let further = (0..4).map(|further| RailPair { further, ..rail_pair(0) });
            further.map(|place| rail_pairs.is_surplus(place)).collect::<Vec<_>>()
        };
        assert_eq!(surplus(&rail_pairs), [false, false, true, true]);
        assert_eq!(rail_pairs.flows_of(rail_pair(0)), (2, true));
        rail_pairs.want(NodeIx(1));
        rail_pairs.open_further(rail_pair(0), 4);
        assert_eq!(rail_pairs.flows_of(rail_pair(0)), (2, true), "places are left for others");
        rail_pairs.want(NodeIx(2));
        assert!(rail_pairs.are_waiting());
        assert_eq!(surplus(&rail_pairs), [false, true, true, true]);
    }
}

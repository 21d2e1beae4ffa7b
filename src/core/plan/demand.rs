//! Demand as the senders see it: segments with the same senders are one demand.
//!
//! This keeps the exact plan small. The receiver matters to a flow in two cases only: if the
//! receiver's links have limits, or if a group may choose the receiver. The incoming bytes of all
//! other receivers are fixed.

use std::collections::BTreeMap;

use super::intake::PlanIntake;
use super::{PlanProblem, Segment};
use crate::core::units::NodeIx;

/// Demands of a problem, and the demand of each segment.
pub(super) struct PlanDemand<'a> {
    pub(super) classes: Vec<SenderClass<'a>>,
    pub(super) choices: Vec<MemberChoice<'a>>,
    /// Bytes that are received under any plan, without those of groups.
    pub(super) intake: PlanIntake,
    /// For each segment, the class of its groups and of its receivers without limits; `NONE` if it
    /// has neither.
    class_of: Vec<u32>,
    /// Classes of receivers with limits, and the choices of groups: by segment, ascending.
    own: Vec<(u32, NodeIx, u32)>,
    choice_of: Vec<(u32, u32)>,
}

/// Bytes that any of several senders can send.
pub(super) struct SenderClass<'a> {
    pub(super) senders: &'a [NodeIx],
    /// The only receiver of these bytes, if its links have limits.
    pub(super) receiver: Option<NodeIx>,
    pub(super) bytes: f64,
}

/// Bytes of a class that any of several members can receive.
pub(super) struct MemberChoice<'a> {
    pub(super) class: u32,
    pub(super) members: &'a [NodeIx],
    pub(super) bytes: f64,
}

const NONE: u32 = u32::MAX;

impl<'a> PlanDemand<'a> {
    pub(super) fn of(problem: &PlanProblem, segments: &'a [Segment]) -> PlanDemand<'a> {
        let limited = limited(problem);
        let mut demand = PlanDemand {
            classes: Vec::new(),
            choices: Vec::new(),
            intake: PlanIntake::new(problem),
            class_of: vec![NONE; segments.len()],
            own: Vec::new(),
            choice_of: Vec::new(),
        };
        let mut set = SenderSet::default();
        for (_, place) in by_senders(segments) {
            let segment = &segments[place as usize];
            if set.senders != segment.senders {
                set = SenderSet { senders: &segment.senders, ..SenderSet::default() };
            }
            demand.add(problem, &limited, &mut set, place, segment);
        }
        demand.own.sort_unstable();
        demand.choice_of.sort_by_key(|(place, _)| *place);
        demand
    }

    /// Returns the class of a segment for receivers without limits, or of another receiver if there
    /// is none.
    pub(super) fn class_of(&self, place: usize) -> Option<u32> {
        let class = self.class_of[place];
        let own = || self.own(place).next().map(|(_, class)| class);
        if class == NONE { own() } else { Some(class) }
    }

    /// Returns the receivers of a segment whose links have limits, each with its class.
    pub(super) fn own(&self, place: usize) -> impl Iterator<Item = (NodeIx, u32)> {
        let first = self.own.partition_point(|(at, _, _)| (*at as usize) < place);
        self.own[first..]
            .iter()
            .take_while(move |(at, _, _)| *at as usize == place)
            .map(|(_, node, class)| (*node, *class))
    }

    /// Returns the choices of a segment's groups, in order.
    pub(super) fn choices_of(&self, place: usize) -> impl Iterator<Item = u32> {
        let first = self.choice_of.partition_point(|(at, _)| (*at as usize) < place);
        self.choice_of[first..]
            .iter()
            .take_while(move |(at, _)| *at as usize == place)
            .map(|(_, choice)| *choice)
    }

    /// Returns the bytes that cross the network.
    pub(super) fn bytes(&self) -> f64 {
        let classes: f64 = self.classes.iter().map(|class| class.bytes).sum();
        let choices: f64 = self.choices.iter().map(|choice| choice.bytes).sum();
        classes + choices
    }

    fn add(
        &mut self,
        problem: &PlanProblem,
        limited: &[NodeIx],
        set: &mut SenderSet<'a>,
        place: u32,
        segment: &'a Segment,
    ) {
        let bytes = segment.span.bytes() as f64;
        let mut free = 0;
        for &receiver in &segment.receivers {
            if !self.intake.add(problem, segment, receiver) {
                continue;
            }
            if limited.binary_search(&receiver).is_err() {
                free += 1;
                continue;
            }
            let class = *set
                .own
                .entry(receiver)
                .or_insert_with(|| self.class(&segment.senders, Some(receiver)));
            self.classes[class as usize].bytes += bytes;
            self.own.push((place, receiver, class));
        }
        if free == 0 && segment.groups.is_empty() {
            return;
        }
        let class = *set.class.get_or_insert_with(|| self.class(&segment.senders, None));
        self.classes[class as usize].bytes += f64::from(free) * bytes;
        self.class_of[place as usize] = class;
        for members in &segment.groups {
            let choices = &mut self.choices;
            let choice = *set.choices.entry(members).or_insert_with(|| {
                choices.push(MemberChoice { class, members, bytes: 0.0 });
                index(choices.len())
            });
            self.choices[choice as usize].bytes += bytes;
            self.choice_of.push((place, choice));
        }
    }

    fn class(&mut self, senders: &'a [NodeIx], receiver: Option<NodeIx>) -> u32 {
        self.classes.push(SenderClass { senders, receiver, bytes: 0.0 });
        index(self.classes.len())
    }
}

/// State of one set of senders while its segments are added up.
#[derive(Default)]
struct SenderSet<'a> {
    senders: &'a [NodeIx],
    class: Option<u32>,
    own: BTreeMap<NodeIx, u32>,
    choices: BTreeMap<&'a [NodeIx], u32>,
}

/// Returns the indices of segments, ordered so that those with the same senders are adjacent.
/// Different senders with the same hash may lie between them, which makes more classes than
/// necessary and has no other effect.
fn by_senders(segments: &[Segment]) -> Vec<(u64, u32)> {
    let hash = |senders: &[NodeIx]| {
        senders.iter().fold(HASH_SEED, |hash, sender| {
            (hash ^ u64::from(sender.0)).wrapping_mul(HASH_FACTOR).rotate_left(29)
        })
    };
    let mut places: Vec<(u64, u32)> =
        segments.iter().map(|segment| hash(&segment.senders)).zip(0..).collect();
    places.sort_unstable();
    places
}

/// Returns the receivers that have a link with a limit.
fn limited(problem: &PlanProblem) -> Vec<NodeIx> {
    let mut nodes: Vec<NodeIx> = problem.pairs.iter().map(|pair| pair.to).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Returns the index of the last of `count` elements.
fn index(count: usize) -> u32 {
    u32::try_from(count - 1).expect("fewer classes than incidences")
}

/// The constants of FNV-1a, 64 bits.
const HASH_SEED: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_FACTOR: u64 = 0x0100_0000_01b3;

//! Leases of one receiver's flows: the pieces that each flow was given, its room and its rate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::delivery_meter::DeliveryMeter;
use super::extent_map::ExtentMap;
use super::flow_growth::PathReading;
use super::rail_pairs::RailPair;
use super::rate_meter::{RateMeter, ReceiverIntake};
use crate::core::piece::{FlowCommand, FlowIx, Piece};
use crate::core::units::{Moment, NodeIx, Span};

/// Interval at which flows without work look for a late flow.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Stolen pieces outstanding on one flow: one on the wire and one behind it.
const STOLEN_MAX: usize = 2;
/// Time in which a flow brings what it may have while further segments may come.
const EARLY_SECONDS: f64 = 0.5;
/// Pieces that a flow may have then in any case: one on the wire and one behind it.
const EARLY_PIECES_MIN: usize = 2;
/// Time after which a flow that brings nothing is not waited for where a newer plan has others
/// bring its pieces: as long as its receiver's silence at the master.
const SILENT: Duration = Duration::from_secs(2);
/// A flow is late if it needs this many times as long as the flow that would be asked instead.
const LATE_FACTOR: f64 = 2.0;

/// Flows of one receiver with their leases.
///
/// A piece may be leased to two flows; the extent map tells which copy counts.
#[derive(Default)]
pub(super) struct FlowLeases {
    flows: BTreeMap<FlowIx, LeasingFlow>,
    /// Rate of all flows together.
    intake: ReceiverIntake,
    /// Bytes that each sender has delivered, kept or not.
    delivered: BTreeMap<NodeIx, u64>,
    /// Delivery of each sender while it was never out of requests.
    meters: BTreeMap<NodeIx, DeliveryMeter>,
}

/// Flow whose leases take longest.
pub(super) struct LateFlow<'a> {
    pub(super) flow: FlowIx,
    /// Time that its leases will take.
    pub(super) seconds: f64,
    pub(super) leased: &'a [Piece],
}

struct LeasingFlow {
    rail_pair: RailPair,
    /// Leased and neither landed nor returned.
    leased: Vec<Piece>,
    /// Room in pieces that could not be filled yet.
    room: u32,
    meter: RateMeter,
    up_at: Moment,
    /// The moment at which a piece landed last, or at which it came up.
    heard_at: Moment,
    revoking: bool,
    revoke_again: Moment,
    /// Pieces that arrived changed since one landed.
    changed_in_row: u32,
    path: Option<PathReading>,
}

impl LeasingFlow {
    fn leased_bytes(&self) -> u64 {
        self.leased.iter().map(|piece| piece.span.bytes()).sum()
    }

    /// Returns the seconds until the flow has delivered its leases and `more_bytes`. None if it has
    /// no rate yet.
    fn seconds(&self, now: Moment, more_bytes: u64) -> Option<f64> {
        let bytes = self.leased_bytes() + more_bytes;
        self.meter.bytes_per_second(now).map(|rate| bytes as f64 / rate)
    }

    fn may_steal(&self) -> bool {
        self.leased.iter().filter(|piece| piece.stolen).count() < STOLEN_MAX
    }

    fn lease(&mut self, now: Moment, pieces: &[Piece]) {
        self.room = 0;
        self.meter.start(now);
        self.leased.extend_from_slice(pieces);
    }
}

impl FlowLeases {
    /// Adds a flow that has no room yet.
    pub(super) fn add(&mut self, now: Moment, flow: FlowIx, rail_pair: RailPair) {
        let state = LeasingFlow {
            rail_pair,
            leased: Vec::new(),
            room: 0,
            meter: RateMeter::default(),
            up_at: now,
            heard_at: now,
            revoking: false,
            revoke_again: now,
            changed_in_row: 0,
            path: None,
        };
        self.flows.insert(flow, state);
    }

    /// Removes a flow. Returns its rail pair and the pieces that it had leased.
    pub(super) fn remove(&mut self, flow: FlowIx) -> Option<(RailPair, Vec<Piece>)> {
        let state = self.flows.remove(&flow)?;
        self.lease_ended(state.rail_pair.sender);
        Some((state.rail_pair, state.leased))
    }

    /// Takes in a reading of the path of a flow. Returns its rail pair, and the reading before it.
    pub(super) fn path_read(
        &mut self,
        flow: FlowIx,
        reading: PathReading,
    ) -> Option<(RailPair, Option<PathReading>)> {
        let state = self.flows.get_mut(&flow)?;
        Some((state.rail_pair, state.path.replace(reading)))
    }

    /// Returns the number of pieces that one flow of a sender may take at once, of a share of
    /// `pieces`. Towards the end of the share it falls, so that the flows end together (guided
    /// self-scheduling, Polychronopoulos and Kuck 1987).
    pub(super) fn fair_part(&self, sender: NodeIx, pieces: u64) -> usize {
        match self.count_to(sender) as u64 {
            0 | 1 => usize::MAX,
            flows => usize::try_from(pieces / (2 * flows)).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Sets the room of a flow. Returns false if there is no such flow.
    pub(super) fn set_room(&mut self, flow: FlowIx, pieces: u32) -> bool {
        self.flows.get_mut(&flow).map(|state| state.room = pieces).is_some()
    }

    /// Returns the room of a flow; zero if there is no such flow.
    pub(super) fn room(&self, flow: FlowIx) -> u32 {
        self.flows.get(&flow).map_or(0, |state| state.room)
    }

    /// Returns the flows that have room, ascending.
    pub(super) fn hungry(&self) -> Vec<FlowIx> {
        let hungry = self.flows.iter().filter(|(_, state)| state.room > 0);
        hungry.map(|(&flow, _)| flow).collect()
    }

    /// Returns a flow other than `from` that has room for a piece of `segment` which is not of its
    /// own share.
    pub(super) fn hungry_for(
        &self,
        from: FlowIx,
        segment: u32,
        extents: &ExtentMap,
    ) -> Option<FlowIx> {
        let mut others = self.flows.iter().filter(|(flow, _)| **flow != from);
        let hungry = others.find(|(_, state)| {
            state.room > 0 && state.may_steal() && extents.offers(state.rail_pair.sender, segment)
        });
        hungry.map(|(&flow, _)| flow)
    }

    /// Leases pieces to a flow: its room is used.
    ///
    /// # Panics
    /// If there is no such flow.
    pub(super) fn lease(&mut self, now: Moment, flow: FlowIx, pieces: Vec<Piece>) -> FlowCommand {
        let state = self.flows.get_mut(&flow).expect("the caller looked it up");
        state.lease(now, &pieces);
        let sender = state.rail_pair.sender;
        let is_asked = self.is_asked(sender);
        self.meters.entry(sender).or_default().leased(now, is_asked);
        self.intake.start(now);
        FlowCommand::Lease { flow, pieces }
    }

    /// Ends the lease of a piece that has landed. Returns the rail pair of the flow.
    pub(super) fn landed(&mut self, now: Moment, flow: FlowIx, span: Span) -> Option<RailPair> {
        self.intake.add(now, span.bytes());
        let state = self.flows.get_mut(&flow)?;
        state.leased.retain(|leased| leased.span != span);
        state.meter.add(now, span.bytes());
        state.heard_at = now;
        state.changed_in_row = 0;
        if state.leased.is_empty() {
            state.meter.pause(now);
        }
        let rail_pair = state.rail_pair;
        *self.delivered.entry(rail_pair.sender).or_insert(0) += span.bytes();
        let is_asked = self.is_asked(rail_pair.sender);
        self.meters.entry(rail_pair.sender).or_default().landed(now, span.bytes(), is_asked);
        Some(rail_pair)
    }

    /// Ends the lease of a piece that failed. Returns its sender.
    pub(super) fn failed(&mut self, flow: FlowIx, span: Span) -> Option<NodeIx> {
        let state = self.flows.get_mut(&flow)?;
        state.leased.retain(|leased| leased.span != span);
        let sender = state.rail_pair.sender;
        self.lease_ended(sender);
        Some(sender)
    }

    /// Counts a piece that arrived changed. Returns the number of those since one landed.
    pub(super) fn changed(&mut self, flow: FlowIx) -> u32 {
        self.flows.get_mut(&flow).map_or(0, |state| {
            state.changed_in_row += 1;
            state.changed_in_row
        })
    }

    /// Ends the leases of pieces that a flow gave back when asked. Returns their sender.
    pub(super) fn returned(&mut self, flow: FlowIx, pieces: &[Piece]) -> Option<NodeIx> {
        let state = self.flows.get_mut(&flow)?;
        state.revoking = false;
        state.leased.retain(|leased| pieces.iter().all(|piece| piece.span != leased.span));
        let sender = state.rail_pair.sender;
        self.lease_ended(sender);
        Some(sender)
    }

    /// Asks the latest flow to return half of its unrequested leases.
    pub(super) fn revoke(
        &mut self,
        now: Moment,
        thief: FlowIx,
        block_bytes: u64,
    ) -> Option<FlowCommand> {
        let flow = self.latest(now, thief, block_bytes)?.flow;
        let state = self.flows.get_mut(&flow).expect("latest() names a flow");
        if state.revoking || now < state.revoke_again {
            return None;
        }
        state.revoking = true;
        // A flow with nothing to return is asked again only after a while.
        state.revoke_again = now + LOOK_AGAIN;
        let pieces = state.leased.len().div_ceil(2) as u32;
        Some(FlowCommand::Revoke { flow, pieces })
    }

    /// Returns true if a flow holds the lease of a piece.
    pub(super) fn is_leased(&self, span: Span) -> bool {
        self.leased().any(|(_, piece)| piece.span == span)
    }

    /// Returns all leased pieces with their senders.
    pub(super) fn leased(&self) -> impl Iterator<Item = (NodeIx, &Piece)> {
        self.flows
            .values()
            .flat_map(|state| state.leased.iter().map(|piece| (state.rail_pair.sender, piece)))
    }

    /// Returns the senders of all flows.
    pub(super) fn senders(&self) -> impl Iterator<Item = NodeIx> {
        self.flows.values().map(|state| state.rail_pair.sender)
    }

    /// Returns the flows to some senders that have brought nothing for long.
    pub(super) fn silent(&self, now: Moment, senders: &BTreeSet<NodeIx>) -> Vec<FlowIx> {
        let is_silent = |state: &LeasingFlow| {
            senders.contains(&state.rail_pair.sender) && now.since(state.heard_at) >= SILENT
        };
        let silent = self.flows.iter().filter(|(_, state)| is_silent(state));
        silent.map(|(&flow, _)| flow).collect()
    }

    /// Returns true if nothing is leased to a flow.
    pub(super) fn is_idle(&self, flow: FlowIx) -> bool {
        self.flows.get(&flow).is_none_or(|state| state.leased.is_empty())
    }

    pub(super) fn rail_pair(&self, flow: FlowIx) -> Option<RailPair> {
        self.flows.get(&flow).map(|state| state.rail_pair)
    }

    /// Returns the number of flows to a sender.
    pub(super) fn count_to(&self, sender: NodeIx) -> usize {
        self.flows_to(sender).count()
    }

    /// Returns, for each sender that was asked for bytes, the number of those that it has delivered
    /// and whether some of its pieces are leased.
    pub(super) fn delivered(&self) -> impl Iterator<Item = (NodeIx, u64, bool)> {
        let is_busy = |sender| self.flows_to(sender).any(|state| !state.leased.is_empty());
        let bytes = |sender| self.delivered.get(&sender).copied().unwrap_or(0);
        self.meters.keys().map(move |&sender| (sender, bytes(sender), is_busy(sender)))
    }

    /// Returns what a sender delivered while it was never out of requests.
    pub(super) fn meter(&self, sender: NodeIx) -> DeliveryMeter {
        self.meters.get(&sender).copied().unwrap_or_default()
    }

    /// Returns true if every flow to a sender has leases.
    fn is_asked(&self, sender: NodeIx) -> bool {
        self.flows_to(sender).all(|state| !state.leased.is_empty())
    }

    fn lease_ended(&mut self, sender: NodeIx) {
        let is_asked = self.count_to(sender) > 0 && self.is_asked(sender);
        if let Some(meter) = self.meters.get_mut(&sender) {
            meter.ended(is_asked);
        }
    }

    /// Returns true if a flow may have a piece which is not of its own share.
    pub(super) fn may_steal(&self, now: Moment, flow: FlowIx) -> bool {
        !self.intake.is_full(now) && self.flows.get(&flow).is_some_and(LeasingFlow::may_steal)
    }

    /// Returns true if a flow has room, and nothing to bring.
    pub(super) fn is_any_idle(&self) -> bool {
        self.flows.values().any(|state| state.room > 0 && state.leased.is_empty())
    }

    /// Returns the number of pieces that a flow may have while further segments may come: as many
    /// as it brings in `EARLY_SECONDS`. What it has then is what it is late with at the end.
    pub(super) fn early_room(&self, now: Moment, flow: FlowIx, block_bytes: u64) -> usize {
        let Some(state) = self.flows.get(&flow) else { return 0 };
        let rate = state.meter.bytes_per_second(now);
        let pieces = rate.map_or(1, |rate| (rate * EARLY_SECONDS / block_bytes as f64) as usize);
        let least = if rate.is_some() { EARLY_PIECES_MIN } else { 1 };
        pieces.max(least).saturating_sub(state.leased.len()).min(state.room as usize)
    }

    /// Returns the bytes per second that a sender's flows deliver. A sender that has delivered
    /// nothing counts as very slow.
    pub(super) fn sender_rate(&self, now: Moment, sender: NodeIx) -> f64 {
        let rates = self.flows_to(sender).filter_map(|state| state.meter.bytes_per_second(now));
        rates.sum::<f64>().max(1.0)
    }

    /// Returns true if everything else would have landed before this flow delivered one more piece
    /// of its own, one of `segment`, and another flow could deliver it in half the time. Then the
    /// piece is left for others to steal: pieces requested of a slow flow cannot be taken back.
    pub(super) fn would_be_last(
        &self,
        now: Moment,
        flow: FlowIx,
        segment: u32,
        extents: &ExtentMap,
    ) -> bool {
        let block_bytes = extents.grid().block_bytes();
        let Some(mine_seconds) =
            self.flows.get(&flow).and_then(|mine| mine.seconds(now, block_bytes))
        else {
            return false;
        };
        let rates = self.flows.values().filter_map(|state| state.meter.bytes_per_second(now));
        let rate: f64 = rates.sum();
        let left = extents.left_bytes() as f64;
        let is_better = |(of, state): (&FlowIx, &LeasingFlow)| {
            let offers = *of != flow && extents.offers(state.rail_pair.sender, segment);
            let seconds = state.seconds(now, block_bytes);
            offers && seconds.is_some_and(|seconds| LATE_FACTOR * seconds < mine_seconds)
        };
        mine_seconds > left / rate && self.flows.iter().any(is_better)
    }

    /// Returns the flow whose leases will take longest, among those that hold a piece which `thief`
    /// could deliver much sooner.
    pub(super) fn latest(
        &self,
        now: Moment,
        thief: FlowIx,
        block_bytes: u64,
    ) -> Option<LateFlow<'_>> {
        let rate = self.flows.get(&thief)?.meter.bytes_per_second(now)?;
        let mine_seconds = block_bytes as f64 / rate;
        let seconds_max = LATE_FACTOR * mine_seconds + LOOK_AGAIN.as_secs_f64();
        let others =
            self.flows.iter().filter(|(flow, state)| **flow != thief && !state.leased.is_empty());
        let late = others.map(|(&flow, state)| {
            // A flow that has delivered nothing has no rate; its age is the best estimate.
            let waited = now.since(state.up_at).as_secs_f64();
            let seconds = state.seconds(now, 0).unwrap_or(waited);
            LateFlow { flow, seconds, leased: &state.leased }
        });
        late.filter(|late| late.seconds > seconds_max)
            .max_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }

    fn flows_to(&self, sender: NodeIx) -> impl Iterator<Item = &LeasingFlow> {
        self.flows.values().filter(move |state| state.rail_pair.sender == sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::block_grid::BlockGrid;
    use crate::core::check::CheckMethod;

    const A: FlowIx = FlowIx(1);
    const B: FlowIx = FlowIx(2);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn piece(index: u64, stolen: bool) -> Piece {
        Piece { span: Span::of(index * 10, 10), stolen }
    }

    /// Two flows of two senders, both of which offer the only segment.
    fn flows() -> (FlowLeases, ExtentMap) {
        let mut flows = FlowLeases::default();
        for flow in [A, B] {
            flows.add(at(0), flow, RailPair::new(NodeIx(flow.0), 0));
        }
        let segment = (Span::new(0, 1000), vec![NodeIx(1), NodeIx(2)]);
        let extents =
            ExtentMap::new(BlockGrid::new(0, 10), CheckMethod::None, [segment].into_iter());
        (flows, extents)
    }

    #[test]
    fn a_lease_uses_the_room_and_ends_by_landing_failing_or_return() {
        let (mut flows, _) = flows();
        assert!(flows.set_room(A, 4) && !flows.set_room(FlowIx(9), 4));
        assert_eq!((flows.room(A), flows.room(B), flows.hungry()), (4, 0, vec![A]));
        flows.lease(at(1), A, (0..3).map(|index| piece(index, false)).collect());
        assert_eq!((flows.room(A), flows.hungry()), (0, vec![]));
        assert_eq!(flows.landed(at(2), A, piece(0, false).span).map(|pair| pair.sender.0), Some(1));
        assert_eq!(flows.failed(A, piece(1, false).span), Some(NodeIx(1)));
        assert!(!flows.is_idle(A) && flows.is_leased(piece(2, false).span));
        assert_eq!(flows.returned(A, &[piece(2, false)]), Some(NodeIx(1)));
        assert!(flows.is_idle(A) && flows.leased().count() == 0);
        assert_eq!(flows.delivered().collect::<Vec<_>>(), [(NodeIx(1), 10, false)]);
    }

    #[test]
    fn a_flow_holds_two_stolen_pieces_and_no_more() {
        let (mut flows, extents) = flows();
        for index in 0..2 {
            assert!(flows.may_steal(at(1), A));
            flows.lease(at(1), A, vec![piece(index, true)]);
        }
        assert!(!flows.may_steal(at(1), A));
        flows.set_room(A, 1);
        assert_eq!(flows.hungry_for(B, 0, &extents), None, "its stolen pieces are outstanding");
        flows.landed(at(2), A, piece(0, true).span);
        assert_eq!(flows.hungry_for(B, 0, &extents), Some(A));
        assert_eq!(flows.hungry_for(A, 0, &extents), None, "it gave the piece back itself");
    }

    #[test]
    fn a_late_flow_is_asked_once_for_half_of_its_leases() {
        let (mut flows, _) = flows();
        flows.lease(at(0), A, (0..5).map(|index| piece(index, false)).collect());
        flows.lease(at(0), B, vec![piece(9, false)]);
        assert_eq!(flows.revoke(at(100), B, 10), None, "the thief has no rate yet");
        flows.landed(at(1), B, piece(9, false).span);
        let late = flows.latest(at(100), B, 10).expect("it has delivered nothing");
        assert_eq!((late.flow, late.leased.len()), (A, 5));
        let command = Some(FlowCommand::Revoke { flow: A, pieces: 3 });
        assert_eq!(flows.revoke(at(100), B, 10), command);
        assert_eq!(flows.revoke(at(200), B, 10), None, "the answer is not here");
        flows.returned(A, &[]);
        assert_eq!(flows.revoke(at(110), B, 10), None, "it had nothing to return just now");
        assert_eq!(flows.revoke(at(200), B, 10).map(|command| command.flow()), Some(A));
    }

    #[test]
    fn a_slow_flow_leaves_the_last_piece_to_a_fast_one() {
        let (mut flows, mut extents) = flows();
        flows.lease(at(0), A, vec![piece(0, false)]);
        flows.lease(at(0), B, (1..100).map(|index| piece(index, false)).collect());
        for index in 1..98 {
            flows.landed(at(index), B, piece(index, false).span);
            extents.land(piece(index, false).span, crate::core::wire::Check::None);
        }
        assert!(!flows.would_be_last(at(98), A, 0, &extents), "it has no rate");
        flows.landed(at(98), A, piece(0, false).span);
        extents.land(piece(0, false).span, crate::core::wire::Check::None);
        flows.lease(at(98), A, vec![piece(98, false)]);
        assert!(flows.would_be_last(at(98), A, 0, &extents));
        assert!(!flows.would_be_last(at(98), B, 0, &extents));
    }
}

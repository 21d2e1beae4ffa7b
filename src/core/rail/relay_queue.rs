//! Requests of other receivers for pieces that have not landed yet; they wait until then.
//!
//! One per transfer and rail. It holds no bytes: what has landed is read back from where it was
//! written. A request that waits takes no slot, so nodes that feed each other cannot hold each
//! other up.

use super::piece_sender::{FLOW_REQUESTS_MAX, PieceRequest};
use crate::core::error::{Code, Error};
use crate::core::piece::FlowIx;
use crate::core::units::{Span, covers};

/// The requests of other receivers for what this one will have.
///
/// Events: `ask`, `land`, `give_up`, `flow_down`. Actions: `poll_ready`, until `None`.
#[derive(Debug, Default)]
pub(crate) struct RelayQueue {
    /// Ranges that can be passed on: ascending, disjoint.
    landed: Vec<Span>,
    /// Ranges that never will be: ascending, disjoint.
    given_up: Vec<Span>,
    /// In the order in which they were asked.
    parked: Vec<(FlowIx, PieceRequest)>,
}

/// Decision about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RelayDecision {
    /// The piece has landed.
    Ready,
    /// It will.
    Waits,
    /// It will not: nobody is left who could bring it here.
    Never,
}

impl RelayQueue {
    /// A receiver asks for a piece.
    ///
    /// # Errors
    /// `Code::Refused` where more requests of the flow wait than its credit allows.
    pub(crate) fn ask(&mut self, flow: FlowIx, ask: PieceRequest) -> Result<RelayDecision, Error> {
        if self.has(ask.span) {
            return Ok(RelayDecision::Ready);
        }
        let next = self.given_up.partition_point(|span| span.end <= ask.span.start);
        if self.given_up.get(next).is_some_and(|span| span.start < ask.span.end) {
            return Ok(RelayDecision::Never);
        }
        if self.parked.iter().filter(|(of, _)| *of == flow).count() >= FLOW_REQUESTS_MAX {
            return Err(Error::new(Code::Refused, "the receiver asks for more than its credit"));
        }
        self.parked.push((flow, ask));
        Ok(RelayDecision::Waits)
    }

    /// A range will never land here: those who wait for any of it.
    pub(crate) fn give_up(&mut self, span: Span) -> Vec<(FlowIx, PieceRequest)> {
        join(&mut self.given_up, span);
        let (refused, parked) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(_, ask)| ask.span.intersection(span).is_some());
        self.parked = parked;
        refused
    }

    /// A range has landed, checked and written.
    pub(crate) fn land(&mut self, span: Span) {
        join(&mut self.landed, span);
    }

    /// The next request that waited and can be answered now.
    pub(crate) fn poll_ready(&mut self) -> Option<(FlowIx, PieceRequest)> {
        let at = self.parked.iter().position(|(_, ask)| self.has(ask.span))?;
        Some(self.parked.remove(at))
    }

    /// A flow broke or was closed: nobody waits on it any more.
    pub(crate) fn flow_down(&mut self, flow: FlowIx) {
        self.parked.retain(|(of, _)| *of != flow);
    }

    fn has(&self, span: Span) -> bool {
        covers(&self.landed, span)
    }
}

/// Adds a span to others that ascend and are apart, and stay so.
fn join(spans: &mut Vec<Span>, span: Span) {
    let first = spans.partition_point(|other| other.end < span.start);
    let end = spans.partition_point(|other| other.start <= span.end);
    let touched = &spans[first..end];
    let start = touched.first().map_or(span.start, |other| other.start.min(span.start));
    let joined = Span::new(start, touched.last().map_or(span.end, |other| other.end.max(span.end)));
    spans.splice(first..end, [joined]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: FlowIx = FlowIx(1);
    const B: FlowIx = FlowIx(2);

    fn ask(request: u32, start: u64, bytes: u64) -> PieceRequest {
        PieceRequest { request, span: Span::of(start, bytes), stolen: false }
    }

    fn ready(relay: &mut RelayQueue) -> Vec<(FlowIx, u32)> {
        std::iter::from_fn(|| relay.poll_ready()).map(|(flow, ask)| (flow, ask.request)).collect()
    }

    #[test]
    fn a_request_waits_until_all_of_it_has_landed() {
        let mut relay = RelayQueue::default();
        assert_eq!(relay.ask(A, ask(1, 5, 10)), Ok(RelayDecision::Waits));
        assert_eq!(relay.ask(B, ask(2, 0, 10)), Ok(RelayDecision::Waits));
        relay.land(Span::new(0, 10));
        assert_eq!(ready(&mut relay), [(B, 2)]);
        relay.land(Span::new(10, 20));
        assert_eq!(ready(&mut relay), [(A, 1)]);
        assert_eq!(relay.ask(B, ask(3, 8, 4)), Ok(RelayDecision::Ready));
        assert_eq!(ready(&mut relay), []);
    }

    #[test]
    fn who_waits_for_what_will_never_land_is_told() {
        let mut relay = RelayQueue::default();
        assert_eq!(relay.ask(A, ask(1, 5, 10)), Ok(RelayDecision::Waits));
        assert_eq!(relay.ask(B, ask(2, 20, 10)), Ok(RelayDecision::Waits));
        assert_eq!(relay.give_up(Span::new(0, 10)), [(A, ask(1, 5, 10))]);
        assert_eq!(relay.ask(B, ask(3, 9, 4)), Ok(RelayDecision::Never));
        assert_eq!(
            relay.ask(A, ask(4, 10, 4)),
            Ok(RelayDecision::Waits),
            "the first byte behind it"
        );
        assert_eq!(relay.give_up(Span::new(40, 50)), []);
        assert_eq!(relay.ask(A, ask(5, 35, 6)), Ok(RelayDecision::Never), "of the second range");
        relay.land(Span::new(10, 30));
        assert_eq!(ready(&mut relay), [(B, 2), (A, 4)]);
    }

    #[test]
    fn a_flow_that_is_gone_gets_no_answer() {
        let mut relay = RelayQueue::default();
        assert_eq!(relay.ask(A, ask(1, 0, 10)), Ok(RelayDecision::Waits));
        assert_eq!(relay.ask(B, ask(2, 0, 10)), Ok(RelayDecision::Waits));
        relay.flow_down(A);
        relay.land(Span::new(0, 10));
        assert_eq!(ready(&mut relay), [(B, 2)]);
    }

    #[test]
    fn no_more_requests_wait_than_a_flow_may_have_outstanding() {
        let mut relay = RelayQueue::default();
        for request in 0..FLOW_REQUESTS_MAX as u32 {
            assert_eq!(relay.ask(A, ask(request, 0, 10)), Ok(RelayDecision::Waits));
        }
        assert_eq!(relay.ask(A, ask(99, 0, 10)).expect_err("one too many").code, Code::Refused);
        assert_eq!(relay.ask(B, ask(1, 0, 10)), Ok(RelayDecision::Waits));
    }

    proptest! {
        #[test]
        fn it_knows_exactly_what_has_landed(
            lands in proptest::collection::vec((0_u64..60, 1_u64..9), 0..20),
        ) {
            let mut relay = RelayQueue::default();
            let mut bytes = [false; 80];
            for (start, length) in lands {
                relay.land(Span::of(start, length));
                bytes[start as usize..(start + length) as usize].fill(true);
            }
            prop_assert!(
                relay.landed.windows(2).all(|pair| pair[0].end < pair[1].start),
                "{:?}",
                relay.landed,
            );
            for start in 0..70 {
                for end in start + 1..start + 9 {
                    let has = bytes[start..end].iter().all(|landed| *landed);
                    prop_assert_eq!(
                        relay.has(Span::new(start as u64, end as u64)), has, "{}-{}", start, end
                    );
                }
            }
        }
    }
}

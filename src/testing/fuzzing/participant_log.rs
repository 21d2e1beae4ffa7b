//! Messages to and from a participant, and what must hold of them.

use crate::core::node::participant::ParticipantAction;
use crate::core::units::{Span, covers, union};
use crate::core::wire::control::{SegmentChecks, ToMaster, decode, encode};

/// Messages to and from the participant.
#[derive(Default)]
pub(super) struct ParticipantLog {
    pub(super) wanted: Vec<Span>,
    pub(super) holes: Vec<Span>,
    /// Ranges that are written, and of which the participant knows.
    pub(super) landed: Vec<Span>,
    pub(super) received_bytes: u64,
    pub(super) drained: u32,
    pub(super) ended: bool,
}

impl ParticipantLog {
    /// The participant knows that a piece is written.
    pub(super) fn landed(&mut self, span: Span) {
        self.landed.push(span);
        self.landed = union(std::mem::take(&mut self.landed));
    }

    /// Checks an action: nothing is offered, kept or named that is not there.
    pub(super) fn check(&self, action: &ParticipantAction) {
        assert!(!self.ended, "{action:?} after the end");
        match action {
            ParticipantAction::Offer { span } => {
                assert!(covers(&self.there(), *span), "{span} is offered and not there");
            }
            ParticipantAction::Commit { .. } => {
                assert!(self.has_all(), "{:?} is not all of {:?}", self.landed, self.wanted);
            }
            ParticipantAction::Keep { pieces } => {
                let there = self.there();
                assert!(
                    pieces.iter().all(|piece| covers(&there, piece.span)),
                    "{pieces:?} are kept and not there"
                );
            }
            _ => {}
        }
    }

    /// Checks a message to the master.
    pub(super) fn listen(&mut self, message: &ToMaster) {
        match message {
            ToMaster::Progress { received_bytes, .. } => {
                assert!(*received_bytes >= self.received_bytes, "what has landed stays");
                self.received_bytes = *received_bytes;
            }
            ToMaster::Landed { segments, stats } => {
                assert!(self.has_all());
                let spans: Vec<Span> = segments.iter().map(|segment| segment.span).collect();
                assert_eq!(spans, self.wanted);
                for segment in segments {
                    let SegmentChecks::Listed(checks) = &segment.checks else {
                        panic!("few checks are listed")
                    };
                    let checked = union(checks.iter().map(|check| check.span).collect());
                    assert_eq!(checked, [segment.span], "every byte has a check");
                }
                let wanted: u64 = spans.iter().map(|span| span.bytes()).sum();
                assert!(
                    stats.received_bytes <= wanted && stats.stolen_bytes <= stats.received_bytes,
                    "{stats:?}"
                );
            }
            ToMaster::Failed { error, .. } => {
                let wanted = union(self.wanted.clone());
                assert!(error.missing.iter().all(|span| covers(&wanted, *span)), "{error:?}");
            }
            _ => {}
        }
        let bytes = encode(message).expect("it fits");
        assert_eq!(decode::<ToMaster>(&bytes).as_ref(), Ok(message));
    }

    /// Returns true if every wanted byte has landed, or is a zero.
    pub(super) fn has_all(&self) -> bool {
        let there = self.there();
        self.wanted.iter().all(|span| covers(&there, *span))
    }

    /// Returns the ranges that are there: landed, or zeros.
    pub(super) fn there(&self) -> Vec<Span> {
        union(self.landed.iter().chain(&self.holes).copied().collect())
    }
}

//! A rail of the receiver that is fuzzed: it keeps what the driver promises the machine.

use std::collections::{BTreeMap, VecDeque};

use crate::core::error::{Code, Error};
use crate::core::piece::{FlowCommand, FlowIx, Piece};
use crate::core::rail::flow_credit::REQUESTS_MAX;
use crate::core::rail::piece_receiver;
use crate::core::rail::piece_receiver::{PieceReceiver, SenderAnswer};
use crate::core::units::{Moment, Span};
use crate::core::wire::{Check, CheckKind};

/// One rail: what is between a `Pull` and the kernel.
pub(super) struct FuzzedRail {
    pub(super) piece_receiver: PieceReceiver,
    /// What the participant has told this rail and it has not heard.
    pub(super) commands: VecDeque<FuzzedCommand>,
    pub(super) flows: BTreeMap<FlowIx, FuzzedFlow>,
    /// What is being written.
    pub(super) writing: Vec<(FlowIx, Piece, Check)>,
    pub(super) draining: bool,
}

/// A flow as the kernel and its sender see it.
#[derive(Default)]
pub(super) struct FuzzedFlow {
    pub(super) asked: Vec<(u32, Piece)>,
    pub(super) arriving: Option<(Piece, Check)>,
}

/// What a participant tells a rail.
pub(super) enum FuzzedCommand {
    Up { flow: FlowIx, relays: bool },
    Flow(FlowCommand),
    Drain,
}

impl FuzzedRail {
    pub(super) fn hear(&mut self, now: Moment, command: FuzzedCommand) {
        match command {
            FuzzedCommand::Up { flow, relays } => {
                self.flows.insert(flow, FuzzedFlow::default());
                self.piece_receiver
                    .handle(now, piece_receiver::ReceiverEvent::FlowUp { flow, relays });
            }
            FuzzedCommand::Flow(FlowCommand::Lease { flow, pieces }) => self
                .piece_receiver
                .handle(now, piece_receiver::ReceiverEvent::Lease { flow, pieces }),
            FuzzedCommand::Flow(FlowCommand::Revoke { flow, pieces }) => self
                .piece_receiver
                .handle(now, piece_receiver::ReceiverEvent::Revoke { flow, pieces }),
            FuzzedCommand::Flow(FlowCommand::Close { flow }) => {
                self.close(now, flow, Error::new(Code::Cancelled, "it has nothing to do"))
            }
            FuzzedCommand::Drain => {
                for flow in self.flows.keys().copied().collect::<Vec<_>>() {
                    self.close(now, flow, Error::new(Code::Cancelled, "everything has landed"));
                }
                self.draining = true;
            }
        }
    }

    pub(super) fn close(&mut self, now: Moment, flow: FlowIx, error: Error) {
        if self.flows.remove(&flow).is_some() {
            self.piece_receiver
                .handle(now, piece_receiver::ReceiverEvent::FlowDown { flow, error });
        }
    }

    pub(super) fn received(&mut self, now: Moment, flow: FlowIx, intact: bool) {
        let arrived = self.flows.get_mut(&flow).and_then(|state| state.arriving.take());
        let (piece, check) = arrived.expect("called where something arrives");
        self.piece_receiver
            .handle(now, piece_receiver::ReceiverEvent::Received { flow, piece, intact });
        if intact {
            self.writing.push((flow, piece, check));
        }
    }

    pub(super) fn follow(&mut self, now: Moment, wanted: &[Span], block_bytes: u64) {
        while let Some(action) = self.piece_receiver.poll_action() {
            match action {
                piece_receiver::ReceiverAction::Request { flow, request, piece } => {
                    let Some(state) = self.flows.get_mut(&flow) else { continue };
                    assert!(
                        state.asked.iter().all(|(other, _)| *other != request),
                        "{request} is asked twice"
                    );
                    assert!(
                        wanted.iter().any(|span| span.contains(piece.span)),
                        "{} is not wanted",
                        piece.span
                    );
                    assert!(
                        piece.span.bytes() <= block_bytes && !piece.span.is_empty(),
                        "{}",
                        piece.span
                    );
                    state.asked.push((request, piece));
                    let asked = state.asked.len() + usize::from(state.arriving.is_some());
                    assert!(asked <= REQUESTS_MAX as usize, "{asked} requests");
                }
                piece_receiver::ReceiverAction::Land { flow, piece, check } => {
                    let Some(state) = self.flows.get_mut(&flow) else { continue };
                    let before = state.asked.len();
                    state.asked.retain(|(_, asked)| *asked != piece);
                    assert!(
                        state.arriving.is_none() && state.asked.len() < before,
                        "{} was not asked",
                        piece.span
                    );
                    state.arriving = Some((piece, check));
                }
                piece_receiver::ReceiverAction::Close { flow, error } => {
                    self.close(now, flow, error)
                }
            }
        }
    }

    /// A sender answers what it was asked first, or a payload arrives.
    pub(super) fn advance(&mut self, now: Moment, kind: CheckKind) -> bool {
        let arriving = self.flows.iter().find_map(|(&flow, state)| Some((flow, state.arriving?)));
        if let Some((flow, (piece, check))) = arriving {
            self.received(now, flow, check == check_of(kind, piece.span));
            return true;
        }
        let asked =
            self.flows.iter().find_map(|(&flow, state)| Some((flow, *state.asked.first()?)));
        if let Some((flow, (request, piece))) = asked {
            let answer =
                SenderAnswer::Data { request, span: piece.span, check: check_of(kind, piece.span) };
            self.piece_receiver.handle(now, piece_receiver::ReceiverEvent::Answer { flow, answer });
        }
        asked.is_some()
    }
}

/// What every replica has as the check of a range.
pub(super) fn check_of(kind: CheckKind, span: Span) -> Check {
    match kind {
        CheckKind::None => Check::None,
        CheckKind::Crc64 => Check::Crc64(span.start),
        CheckKind::Blake3 => Check::Blake3([span.start as u8; 32]),
    }
}

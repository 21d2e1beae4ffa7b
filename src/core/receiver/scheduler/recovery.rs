//! Recovery of pieces whose sender failed: another sender brings them, or they are abandoned.

use super::{PieceScheduler, SchedulerAction};
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowCommand, FlowIx, Piece};
use crate::core::receiver::extent_map::{ExtentMap, PieceRun};
use crate::core::receiver::flow_leases::FlowLeases;
use crate::core::receiver::rail_pairs::{RailPair, RailPairs, SenderVerdict};
use crate::core::units::{Moment, NodeIx, Span};

/// Pieces that arrive changed on one flow with none unchanged between them, after which it is
/// closed: nothing gets through whole.
const CHANGED_IN_ROW_MAX: u32 = 4;

impl PieceScheduler {
    pub(super) fn failed(&mut self, now: Moment, flow: FlowIx, piece: Piece, error: &Error) {
        let Some(sender) = self.flows.failed(flow, piece.span) else { return };
        self.counts.retries += 1;
        if error.code == Code::Integrity {
            self.faults.corrupted(piece.span, sender);
            if self.flows.changed(flow) >= CHANGED_IN_ROW_MAX {
                // Other rails, or other senders, are tried.
                self.put_back(piece.span, error);
                self.actions.push_back(SchedulerAction::Flow(FlowCommand::Close { flow }));
                return self.flow_down(now, flow, error);
            }
        } else {
            self.faults.refused(piece.span, sender);
            self.refund(piece.span);
        }
        self.put_back(piece.span, error);
        self.feed_hungry(now);
    }

    pub(super) fn flow_down(&mut self, now: Moment, flow: FlowIx, error: &Error) {
        let Some((rail_pair, leased)) = self.flows.remove(flow) else { return };
        self.rail_pair_broke(now, rail_pair, error);
        for piece in leased.iter().rev() {
            self.refund(piece.span);
            self.counts.retries += u64::from(self.put_back(piece.span, error));
        }
        self.feed_hungry(now);
    }

    /// Gives the limit the bytes back of a piece that did not come.
    pub(super) fn refund(&mut self, piece: Span) {
        if let Some(limit) = &mut self.limit {
            limit.give_back(piece.bytes());
        }
    }

    /// Handles a broken rail pair. If it was the sender's last one, others take over the sender's
    /// share.
    pub(super) fn rail_pair_broke(&mut self, now: Moment, rail_pair: RailPair, error: &Error) {
        self.trouble = Some(error.clone());
        if self.rail_pairs.broke(now, rail_pair, error) == SenderVerdict::Lost {
            // The plan assumes that this sender delivers its part.
            self.pace = None;
            self.redistribute_share(rail_pair.sender, error);
        }
    }

    /// Finds another sender for a piece, or abandons it. Returns false if the piece needs no new
    /// sender: it is leased elsewhere, landed, or abandoned.
    pub(super) fn put_back(&mut self, piece: Span, error: &Error) -> bool {
        let (segment, index) = self.extents.place(piece);
        if self.flows.is_leased(piece) || self.extents.is_settled_piece(segment, index) {
            return false;
        }
        let source = &self.sources[segment as usize];
        let senders = self.extents.senders(segment).iter().copied();
        let usable = senders.filter(|sender| !self.rail_pairs.is_lost(*sender)).filter_map(|it| {
            let faults = self.faults.tolerable(piece, it)?;
            let is_second =
                source.stands_in(it) || (source.has_stand_in() && self.rail_pairs.has_broken(it));
            Some((faults, is_second, self.shares.bytes_of(it), it))
        });
        let best = usable.min().map(|(.., sender)| sender);
        match best {
            Some(sender) => {
                let run = PieceRun { segment, first: index, end: index + 1 };
                self.shares.put_back(&self.extents, sender, run, source.stands_in(sender));
                self.rail_pairs.want(sender);
            }
            None => {
                self.extents.give_up(segment, index);
                self.actions.push_back(SchedulerAction::GiveUp { span: piece });
                self.cause.get_or_insert_with(|| error.clone());
            }
        }
        true
    }

    /// Closes flows to lost relays. What was requested over them is requested of others.
    pub(super) fn leave_silent(&mut self, now: Moment) {
        let error = Error::new(Code::Stalled, "another node brings what was requested of it");
        for flow in silent_flows(self, now) {
            let Some((rail_pair, leased)) = self.flows.remove(flow) else { continue };
            self.actions.push_back(SchedulerAction::Flow(FlowCommand::Close { flow }));
            self.rail_pairs.idle(rail_pair);
            for piece in leased.iter().rev() {
                self.refund(piece.span);
                self.counts.retries += u64::from(self.put_back(piece.span, &error));
            }
        }
    }

    /// Gives the share of a lost sender to the others.
    pub(super) fn redistribute_share(&mut self, sender: NodeIx, error: &Error) {
        for run in self.shares.remove(sender) {
            for index in run.first..run.end {
                let piece = self.extents.piece(run.segment, index);
                self.put_back(piece, error);
            }
        }
        let stuck = withheld(&self.extents, &self.rail_pairs, &self.flows);
        self.actions.extend(stuck.map(|span| SchedulerAction::Withhold { span }));
    }

    pub(super) fn returned(&mut self, now: Moment, flow: FlowIx, pieces: &[Piece]) {
        let Some(sender) = self.flows.returned(flow, pieces) else { return };
        for piece in pieces {
            let (segment, index) = self.extents.place(piece.span);
            let is_settled = self.extents.is_settled_piece(segment, index);
            let is_needed = !is_settled && !self.flows.is_leased(piece.span);
            // The flow that gave it back has room, too, and would just lease it again.
            if is_needed && self.lease_to_hungry(now, flow, piece.span, segment) {
                continue;
            }
            self.refund(piece.span);
            if is_needed {
                let run = PieceRun { segment, first: index, end: index + 1 };
                self.shares.push_back(&self.extents, sender, run);
            }
        }
        if !pieces.is_empty() {
            self.feed_hungry(now);
        }
    }

    /// Leases a piece that `from` gave back to another flow that has room and whose sender offers
    /// it. Returns false if there is none.
    fn lease_to_hungry(&mut self, now: Moment, from: FlowIx, span: Span, segment: u32) -> bool {
        let hungry = self.flows.hungry_for(from, segment, &self.extents);
        hungry.map(|flow| self.lease(now, flow, vec![Piece { span, stolen: true }])).is_some()
    }
}

/// Returns the flows over which nothing comes to nodes that the newer plan names no more, as long
/// as a sender stands in for relays: else two nodes could wait for each other.
fn silent_flows(scheduler: &PieceScheduler, now: Moment) -> Vec<FlowIx> {
    let PieceScheduler { flows, unnamed, sources, rail_pairs, .. } = scheduler;
    let silent = flows.silent(now, unnamed);
    let stands_in = |it: &(NodeIx, u32)| it.1 == 0 && !rail_pairs.is_lost(it.0);
    let is_left = !silent.is_empty() && sources.iter().flat_map(|it| &it.senders).any(stands_in);
    if is_left { silent } else { Vec::new() }
}

/// Returns the pieces that two nodes would wait for from each other. A relay of an older plan still
/// brings the pieces it was asked for; by the newer plan it may itself wait for such a piece to
/// land here. While another sender is left, that sender is asked, too, and both nodes get the
/// piece. Where all others are lost, the piece must not be waited for.
fn withheld(
    extents: &ExtentMap,
    rail_pairs: &RailPairs,
    flows: &FlowLeases,
) -> impl Iterator<Item = Span> {
    let is_stuck = |sender: NodeIx, piece: &Piece| {
        let (segment, _) = extents.place(piece.span);
        let all_lost = || extents.senders(segment).iter().all(|it| rail_pairs.is_lost(*it));
        !extents.offers(sender, segment) && all_lost()
    };
    flows.leased().filter(move |(sender, piece)| is_stuck(*sender, piece)).map(|(_, it)| it.span)
}

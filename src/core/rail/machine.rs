//! One rail: what a thread with one NIC and one ring decides, without the thread, the NIC and the
//! ring.
//!
//! The driver turns [`RailAction`]s into operations and completions into [`RailEvent`]s. The
//! simulator and the fuzzers do the same with a network and disks of their own.

use std::collections::VecDeque;
use std::time::Duration;

use super::flow_table::{FLOWS_MAX, FURTHER_UP_TO, FlowPlace};
use super::messages::{FlowDirection, RailAction, RailEvent, RailNotice, TransferCommand};
use super::piece_map::PieceMap;
use super::piece_receiver::ReceiverEvent;
use super::receiving_rail::ReceivingRail;
use super::sending_rail::SendingRail;
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowCommand, FlowIx, TransferIx};
use crate::core::units::Moment;
use crate::core::wire::Frame;

/// The machine of one rail.
///
/// Events: `join`, `flow_up` and `handle`. Actions: `poll_action`, until `None`, and `poll_request`
/// for each `SendRequests`. For the control thread: `poll_report`, until `None`. Time:
/// `poll_timeout`.
///
/// It receives and sends for any number of transfers. Each direction has slots, flows and actions
/// of its own, so that nodes which feed each other cannot hold each other up; what has landed and
/// is passed on goes from one to the other.
pub(crate) struct RailMachine {
    receiving: ReceivingRail,
    sending: SendingRail,
    /// Transfers that were left, once all other actions are taken.
    left: VecDeque<TransferIx>,
}

impl RailMachine {
    /// A rail with so many slots in each direction, for pieces of up to `block_bytes`.
    pub(crate) fn new(slots: u32, block_bytes: u64) -> RailMachine {
        RailMachine {
            receiving: ReceivingRail::new(slots),
            sending: SendingRail::new(slots, block_bytes),
            left: VecDeque::new(),
        }
    }

    /// A transfer begins; flows of it may follow. A sender that is silent for `silence` while it
    /// owes an answer is given up.
    pub(crate) fn join(&mut self, transfer: TransferIx, map: PieceMap, silence: Duration) {
        self.receiving.join(transfer, (map.method, map.path), silence);
        self.sending.join(transfer, map);
    }

    /// A flow stands. Returns its place, or `None` where it is to be closed: its transfer is not
    /// on, or the rail has as many flows as it can. What it was to receive is reported as lost.
    pub(crate) fn flow_up(
        &mut self,
        now: Moment,
        transfer: TransferIx,
        flow: FlowIx,
        direction: FlowDirection,
    ) -> Option<FlowPlace> {
        let flows = self.receiving.flow_count() + self.sending.flow_count();
        let has_room = flows < FLOWS_MAX;
        let id = (transfer, flow);
        match direction {
            FlowDirection::Receive { relays } => self.receiving.flow_up(now, id, relays, has_room),
            FlowDirection::Send { weight, in_clear, is_further } => {
                let has_room = has_room && !(is_further && flows >= FURTHER_UP_TO);
                self.sending.flow_up(id, (weight, in_clear, is_further), has_room)
            }
        }
    }

    /// Takes in what happened.
    ///
    /// # Panics
    /// If the end of an operation is told twice, or of one that was not asked for.
    pub(crate) fn handle(&mut self, now: Moment, event: RailEvent) {
        match event {
            RailEvent::Command { transfer, command } => self.command(now, transfer, command),
            RailEvent::FlowBroken { flow, error } => self.close(now, flow, error),
            RailEvent::PathRead { flow, reading } => self.receiving.path_read(now, flow, reading),
            RailEvent::RequestsSent { flow } => self.receiving.requests_sent(flow),
            RailEvent::Header { flow, frame } => self.receiving.header(now, flow, frame),
            RailEvent::PayloadDone { slot, outcome } => {
                self.receiving.payload_done(now, slot, outcome);
            }
            RailEvent::WriteDone { slot, result } => {
                if let Some((transfer, span)) = self.receiving.write_done(now, slot, result) {
                    self.sending.offer(transfer, span);
                }
            }
            RailEvent::Request { flow, frame } => self.sending.request(flow, frame),
            RailEvent::RequestsRead { flow } => self.sending.requests_read(flow),
            RailEvent::Probed { slot, cached } => self.sending.probed(slot, cached),
            RailEvent::ReadDone { slot, outcome } => self.sending.read_done(slot, outcome),
            RailEvent::RefusalSent { flow } => self.sending.refusal_sent(flow),
            RailEvent::SendDone { slot, outcome, is_held } => {
                self.sending.send_done(slot, outcome, is_held);
            }
            RailEvent::SlotReleased { slot, copied } => self.sending.slot_released(slot, copied),
            RailEvent::Tick => self.receiving.tick(now),
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<RailAction> {
        let action = self.receiving.poll_action().or_else(|| self.sending.poll_action());
        action.or_else(|| {
            let transfer = self.left.pop_front()?;
            Some(RailAction::Forget { transfer })
        })
    }

    /// The next request that goes out on a flow: as many as fit a send are taken at each
    /// `SendRequests`.
    pub(crate) fn poll_request(&mut self, flow: FlowPlace) -> Option<Frame> {
        self.receiving.poll_request(flow)
    }

    /// The next report to the control thread that is due.
    pub(crate) fn poll_report(&mut self) -> Option<RailNotice> {
        self.receiving.poll_report()
    }

    /// Returns the moment at which `Tick` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        self.receiving.poll_timeout()
    }

    /// Slots of either direction that an operation has which the driver was asked for.
    pub(crate) fn slots_at_work(&self) -> (usize, usize) {
        (self.receiving.slots_at_work(), self.sending.slots_at_work())
    }

    fn command(&mut self, now: Moment, transfer: TransferIx, command: TransferCommand) {
        match command {
            TransferCommand::Relay { spans } => self.receiving.set_relays(transfer, spans),
            TransferCommand::Flow(command) => self.flow_command(now, transfer, command),
            TransferCommand::Offer { span } => self.sending.offer(transfer, span),
            TransferCommand::Withdraw { span } => self.sending.withdraw(transfer, span),
            TransferCommand::Drain => self.receiving.drain(now, transfer),
            TransferCommand::Leave => {
                self.receiving.leave(now, transfer);
                self.sending.leave(transfer);
                self.left.push_back(transfer);
            }
        }
    }

    fn flow_command(&mut self, now: Moment, transfer: TransferIx, command: FlowCommand) {
        let event = match command {
            FlowCommand::Lease { flow, pieces } => ReceiverEvent::Lease { flow, pieces },
            FlowCommand::Revoke { flow, pieces } => ReceiverEvent::Revoke { flow, pieces },
            FlowCommand::Close { flow } => {
                let error = Error::new(Code::Cancelled, "not needed any more");
                let place = self.receiving.find(flow);
                return place.into_iter().for_each(|place| self.close(now, place, error.clone()));
            }
        };
        self.receiving.receiver(now, transfer, event);
    }

    fn close(&mut self, now: Moment, flow: FlowPlace, error: Error) {
        if flow.at() < FLOWS_MAX {
            self.receiving.close(now, flow, error);
        } else {
            self.sending.close(flow);
        }
    }
}

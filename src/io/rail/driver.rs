//! The loop of a rail: commands in, the machine asked, operations submitted, completions handled.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use ring::{Completion, CompletionStage, RingIo};

use super::buffers::{RailBuffers, RailSize, entries};
use super::command::{RailCommand, ReportSender};
use super::contexts::OpContext;
use super::operations::{EarlyHeader, FlowSocket, RailOps, RailTransfer};
use super::receive::{ReceivingOps, header_received, requests_sent};
use super::send::{SendingOps, refusal_sent};
use super::transfer_files::TransferFiles;
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::rail::{FLOWS_MAX, FlowDirection, RailAction, RailEvent, RailMachine, RailNotice};
use crate::core::seal::FlowSeal;
use crate::io::clock::{Clock, LOOK_EVERY};

/// Files of one rail that the kernel is told of once: its flows, and some files with their direct
/// twins. More are named at each operation.
pub(super) const FILES_FIXED: u32 = FLOWS_MAX as u32 + 1024;
/// Bytes that may wait unread in the socket of a flow that receives: a block, so that the sender
/// never waits for this thread to copy one out. A flow's own buffers grow beyond it where the
/// delay asks for more.
const UNREAD_BYTES: usize = 4 << 20;
/// Notices that wait for the control thread without another allocation.
const UNSENT_NOTICES: usize = 256;
/// Pause before notices are delivered again to a control thread whose queue was full.
const POST_AGAIN: Duration = Duration::from_millis(1);
/// Commands taken in one turn, so that a flood of them does not starve the ring.
const COMMANDS_MAX: usize = 256;

/// A rail at work.
pub(super) struct RailDriver<I, M> {
    machine: RailMachine,
    pub(super) ops: RailOps<I>,
    receiving: ReceivingOps,
    sending: SendingOps,
    /// Driver of the operations, for the report.
    driven_by: String,
    commands: Receiver<RailCommand>,
    notice_sender: M,
    unsent_notices: VecDeque<RailNotice>,
}

impl<I: RingIo, M: ReportSender> RailDriver<I, M> {
    pub(super) fn new(
        clock: Clock,
        size: RailSize,
        io: I,
        buffers: RailBuffers,
        commands: Receiver<RailCommand>,
        notice_sender: M,
    ) -> Self {
        let RailBuffers { header_buffers, landing_slots, serving_slots, driven_by } = buffers;
        RailDriver {
            machine: RailMachine::new(size.slots, size.block_bytes),
            ops: RailOps::new(clock, io, header_buffers, entries(size)),
            receiving: ReceivingOps::new(size, landing_slots),
            sending: SendingOps::new(size, serving_slots),
            driven_by,
            commands,
            notice_sender,
            unsent_notices: VecDeque::with_capacity(UNSENT_NOTICES),
        }
    }

    /// Runs until the control thread says to stop, or the ring fails.
    pub(super) fn run(mut self) {
        let mut completions = Vec::with_capacity(1024);
        while self.take_commands() {
            self.post();
            if let Err(error) = self.ops.io.wait(self.timeout(), &mut completions) {
                let error = Error::new(Code::Internal, format!("the ring failed: {error}"));
                self.unsent_notices.push_back(RailNotice::Failed { error });
                return post_all(&self.notice_sender, &self.commands, &mut self.unsent_notices);
            }
            for completion in completions.drain(..) {
                self.complete(completion);
                self.follow();
            }
            self.tick();
        }
    }

    /// Takes in what the control thread says; false when it says to stop.
    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_MAX {
            let Ok(command) = self.commands.try_recv() else { return true };
            match command {
                RailCommand::Join { transfer, rail, transfer_files, silence } => {
                    self.join(transfer, rail, transfer_files, silence);
                }
                RailCommand::Reopen { transfer, file } => {
                    if let Err(error) = self.ops.reopen_file(transfer, file) {
                        self.unsent_notices.push_back(without_files(transfer, &error));
                    }
                }
                RailCommand::FlowUp { transfer, flow, socket, seal, direction } => {
                    self.flow_up(transfer, flow, (socket, seal), direction);
                }
                RailCommand::Transfer { transfer, command } => {
                    self.handle(RailEvent::Command { transfer, command });
                }
                RailCommand::Stop => return false,
            }
            self.follow();
        }
        true
    }

    fn join(
        &mut self,
        transfer: TransferIx,
        rail: usize,
        files: Arc<TransferFiles>,
        silence: Duration,
    ) {
        let registered = match self.ops.register_files(&files) {
            Ok(registered) => registered,
            Err(error) => return self.unsent_notices.push_back(without_files(transfer, &error)),
        };
        let map = files.piece_map();
        let state = RailTransfer { files, rail, registered };
        state.tally().paths.driven_by(&self.driven_by);
        self.ops.transfers.insert(transfer, state);
        self.machine.join(transfer, map, silence);
    }

    fn flow_up(
        &mut self,
        transfer: TransferIx,
        flow: FlowIx,
        (socket, seal): (TcpStream, FlowSeal),
        direction: FlowDirection,
    ) {
        let now = self.ops.clock.now();
        let Some(flow) = self.machine.flow_up(now, transfer, flow, direction) else { return };
        let receiver = match direction {
            FlowDirection::Send { .. } => socket.peer_addr().ok().map(|peer| peer.ip()),
            FlowDirection::Receive { .. } => None,
        };
        let file = match self.ops.io.register(socket.into()) {
            Ok(file) => file,
            Err(error) => {
                let error = Error::new(Code::Unreachable, error.to_string());
                return self.handle(RailEvent::FlowBroken { flow, error });
            }
        };
        if let Some(state) = self.ops.transfers.get(&transfer) {
            state.tally().wire.note(seal.wire);
        }
        let wake_bytes_max = match direction {
            FlowDirection::Receive { .. } => {
                self.ops.io.set_recv_buffer(file, UNREAD_BYTES).unwrap_or(0)
            }
            FlowDirection::Send { .. } => 0,
        };
        self.ops.set_socket(FlowSocket {
            flow,
            transfer,
            file,
            wake_bytes_max,
            wake_bytes: 1,
            early: EarlyHeader::default(),
            requests: None,
            partial_bytes: 0,
            receiver,
            seal,
        });
    }

    /// Tells the machine what happened.
    fn handle(&mut self, event: RailEvent) {
        self.machine.handle(self.ops.clock.now(), event);
    }

    /// Carries out what the machine wants, until it wants nothing.
    fn follow(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            if let Some(event) = self.carry_out(action) {
                self.handle(event);
            }
        }
    }

    /// Begins what the machine wants. Returns how it ended where that is known at once.
    #[expect(clippy::needless_pass_by_value, reason = "an action is carried out once")]
    fn carry_out(&mut self, action: RailAction) -> Option<RailEvent> {
        match action {
            RailAction::SendRequests { flow } => {
                self.receiving.send_requests(&mut self.ops, &mut self.machine, flow)
            }
            RailAction::ReceiveHeader { flow } => {
                self.receiving.receive_header(&mut self.ops, flow)
            }
            RailAction::ReceivePayload { slot, landing } => {
                self.receiving.receive_payload(&mut self.ops, slot, landing)
            }
            RailAction::Write { slot, transfer, piece, cached } => {
                self.receiving.write_piece(&mut self.ops, slot, transfer, piece, cached)
            }
            RailAction::ReceiveRequests { flow } => {
                self.sending.receive_requests(&mut self.ops, flow)
            }
            RailAction::Probe { slot, loading } => {
                Some(self.sending.probe(&mut self.ops, slot, loading))
            }
            RailAction::Read { slot, loading, mode } => {
                self.sending.read_piece(&mut self.ops, slot, loading, mode)
            }
            RailAction::Send { slot, flow, transfer, bytes, route } => {
                self.sending.send_piece(&mut self.ops, slot, flow, transfer, bytes, route)
            }
            RailAction::SendRefusal { flow, frame } => {
                self.sending.send_refusal(&mut self.ops, flow, frame)
            }
            RailAction::SetUnsentMax { flow, bytes } => {
                if let Some(file) = self.ops.socket(flow).map(|socket| socket.file) {
                    // A kernel that does not know the option shares the rail by what sockets hold.
                    let _ = self.ops.io.set_notsent_lowat(file, bytes);
                }
                None
            }
            RailAction::ReadPath { flow } => {
                Some(RailEvent::PathRead { flow, reading: self.ops.read_path(flow) })
            }
            RailAction::CloseFlow { flow } => {
                self.ops.close_socket(flow);
                None
            }
            RailAction::NoteFallback { transfer, reason } => {
                if let Some(state) = self.ops.transfers.get(&transfer) {
                    state.tally().paths.because(reason);
                }
                None
            }
            RailAction::Forget { transfer } => {
                if let Some(state) = self.ops.transfers.remove(&transfer) {
                    self.ops.unregister(state.registered);
                }
                None
            }
        }
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token, result, stage, slot } = completion;
        if stage == CompletionStage::NoticeFollows {
            let OpContext::Send { slot } = self.ops.context(token) else {
                unreachable!("only the send of a piece has a result before its end")
            };
            let event = self.sending.sent(&mut self.ops, slot, result, true);
            return self.handle(event);
        }
        let memory = slot.expect("every operation of a rail has a slot");
        let ops = &mut self.ops;
        let event = match ops.take_context(token) {
            OpContext::Header { flow, early } => {
                Some(header_received(ops, flow, early, result, &memory))
            }
            OpContext::Payload { slot, done } => {
                self.receiving.payload_received(ops, slot, done, result, memory)
            }
            OpContext::Write { slot, sink, step, done } => {
                self.receiving.wrote(ops, slot, (sink, step, done), result, memory)
            }
            OpContext::SendRequests { flow } => Some(requests_sent(flow, result)),
            OpContext::ReceiveRequests { flow } => {
                self.sending.requests_received(ops, &mut self.machine, flow, result, memory)
            }
            OpContext::Read { slot, done } => {
                self.sending.read_done(ops, slot, done, result, memory)
            }
            OpContext::Refusal { flow } => Some(refusal_sent(flow, result)),
            OpContext::Send { slot } => {
                self.sending.put(slot, memory);
                Some(match stage {
                    CompletionStage::Notice { copied } => RailEvent::SlotReleased { slot, copied },
                    CompletionStage::Done | CompletionStage::NoticeFollows => {
                        self.sending.sent(ops, slot, result, false)
                    }
                })
            }
        };
        if let Some(event) = event {
            self.handle(event);
        }
    }

    /// Delivers reports that are due.
    fn post(&mut self) {
        while let Some(report) = self.machine.poll_report() {
            self.unsent_notices.push_back(report);
        }
        if !self.unsent_notices.is_empty() {
            self.notice_sender.deliver(&mut self.unsent_notices);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let due = self.machine.poll_timeout();
        let due = due.map(|due| due.since(self.ops.clock.now()).min(LOOK_EVERY));
        // The control thread's queue was full, and nothing tells when it has room.
        let again = (!self.unsent_notices.is_empty()).then_some(POST_AGAIN);
        // More commands than a turn takes may have come with one waking.
        let more = (!self.commands.is_empty()).then_some(Duration::ZERO);
        due.into_iter().chain(again).chain(more).min()
    }

    fn tick(&mut self) {
        let now = self.ops.clock.now();
        if self.machine.poll_timeout().is_some_and(|due| now >= due) {
            self.machine.handle(now, RailEvent::Tick);
            self.follow();
        }
    }
}

/// Delivers everything before the thread ends, unless the control thread ends it.
pub(super) fn post_all(
    notice_sender: &impl ReportSender,
    commands: &Receiver<RailCommand>,
    unsent_notices: &mut VecDeque<RailNotice>,
) {
    loop {
        notice_sender.deliver(unsent_notices);
        let told = commands.recv_timeout(POST_AGAIN);
        let is_over = matches!(told, Ok(RailCommand::Stop) | Err(RecvTimeoutError::Disconnected));
        if unsent_notices.is_empty() || is_over {
            return;
        }
    }
}

/// A rail without a transfer's files takes no part in it, and refuses its flows.
fn without_files(transfer: TransferIx, error: &std::io::Error) -> RailNotice {
    let what = format!("this rail cannot take in the transfer's files: {error}");
    let error = Error::new(Code::Data, what).remedy("give the node more descriptors (ulimit -n)");
    RailNotice::Broken { transfer, error }
}

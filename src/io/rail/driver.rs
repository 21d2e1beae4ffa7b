//! The loop of a rail: commands in, machines asked, operations submitted, completions handled.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use ring::{Completion, CompletionStage, FileId, RingIo, RingOp, SlotPool};

use super::contexts::{LandingPiece, OpContext, OpContexts};
use super::paths::{FallbackReason, PathStats};
use super::reopen::without_files;
use super::send::LoadedPiece;
use super::sockets::{FlowHalf, RailFlow, ReceivingFlow, SendingFlow};
use super::start::{RailBuffers, entries};
use super::transfer_files::{RailTally, TransferFiles};
use super::{FlowDirection, RailCommand, RailEvent, RailEvents, RailSize, TransferIx};
use crate::core::error::{Code, Error};
use crate::core::piece::{FlowCommand, FlowIx};
use crate::core::rail::flow_credit::REQUESTS_MAX;
use crate::core::rail::piece_receiver::{PieceReceiver, ReceiverEvent};
use crate::core::rail::piece_sender;
use crate::core::rail::piece_sender::{FLOW_REQUESTS_MAX, PieceSender};
use crate::core::rail::relay_queue::RelayQueue;
use crate::core::receiver::scheduler;
use crate::core::wire::DataPath;
use crate::io::clock::{Clock, LOOK_EVERY};
use crate::io::store::OpenFile;

/// Flows of one rail at once: each holds two cells, and three operations at most.
pub(super) const FLOWS_MAX: u32 = 96;
pub(super) const CELLS: u32 = 2 * FLOWS_MAX;
/// Room for headers and requests: a cell takes 42 of them.
pub(super) const CELL_BYTES: usize = 4096;
/// Files of one rail that the kernel is told of once: its flows, and some files with their direct
/// twins. More are named at each operation.
pub(super) const FILES_FIXED: u32 = FLOWS_MAX + 1024;
/// Landed pieces that are told to the scheduler together; the last ones of a flow are told at once.
const LANDED_BATCH: usize = 8;
/// What may wait unread in the socket of a flow that fetches: a block, so that the sender never
/// waits for this thread to copy one out. A flow's own buffers grow beyond it where the delay asks
/// for more.
const UNREAD_BYTES: usize = 4 << 20;
/// What may wait unsent in the sockets of all flows that feed: enough that none runs dry before
/// this thread comes round.
const UNSENT_BYTES: usize = 1 << 20;
/// The same for one of them: a wake for less costs more than what is sent by it.
const UNSENT_BYTES_MIN: usize = 32 * 1024;
/// Events that wait for the event queue without its place having to grow: a batch, and what flows
/// say meanwhile.
const OUTBOX: usize = 256;
/// When a event queue that was full is tried again.
const POST_AGAIN: Duration = Duration::from_millis(1);
/// Commands taken in one turn, so that a flood of them does not starve the ring.
const COMMANDS_MAX: usize = 256;

/// A file registered with the ring: buffered, and direct with the alignment that it wants.
pub(super) type RegisteredFile = (FileId, Option<(FileId, usize)>);

/// One transfer as this rail sees it.
pub(super) struct RailTransfer {
    pub(super) transfer_files: Arc<TransferFiles>,
    /// Which of the node's rails this is.
    rail: usize,
    pub(super) piece_receiver: PieceReceiver,
    pub(super) relay: RelayQueue,
    /// The transfer's files's files, registered with the ring.
    pub(super) files: Vec<RegisteredFile>,
    /// Whether a file gave less to a splice than it has: the others are read from then on.
    pub(super) splice_failed: bool,
    draining: bool,
}

impl RailTransfer {
    /// What this rail counts of the transfer.
    pub(super) fn tally(&self) -> &RailTally {
        &self.transfer_files.tallies[self.rail]
    }

    /// Which way the bytes of this rail took.
    pub(super) fn paths(&self) -> &PathStats {
        &self.tally().paths
    }
}

/// A rail at work.
pub(super) struct RailDriver<I, M> {
    pub(super) clock: Clock,
    pub(super) size: RailSize,
    pub(super) io: I,
    pub(super) cells: SlotPool,
    pub(super) landing_slots: Option<SlotPool>,
    pub(super) serving_slots: Option<SlotPool>,
    pub(super) contexts: OpContexts,
    pub(super) rail_transfers: BTreeMap<TransferIx, RailTransfer>,
    pub(super) flows: HashMap<FlowIx, RailFlow>,
    pub(super) piece_sender: PieceSender,
    /// Payloads whose header has arrived and that wait for a slot.
    pub(super) parked: VecDeque<LandingPiece>,
    /// Pieces that are checked and ready to be sent.
    pub(super) loaded: HashMap<(FlowIx, u32), LoadedPiece>,
    /// Slots that sends without a copy have, until their notices come.
    pub(super) in_kernel: u32,
    /// Which slots hold the filler of the pattern, at which phase and for how many bytes; by
    /// address.
    pub(super) prefilled_slots: HashMap<usize, (usize, usize)>,
    /// What carries out the operations, for the report.
    driven_by: String,
    inbox: Receiver<RailCommand>,
    rail_events: M,
    outbox: VecDeque<RailEvent>,
    /// Whether the scheduler waits for what is in the outbox, or the event queue was full.
    pub(super) urgent: bool,
}

impl<I: RingIo, M: RailEvents> RailDriver<I, M> {
    pub(super) fn new(
        clock: Clock,
        size: RailSize,
        io: I,
        buffers: RailBuffers,
        inbox: Receiver<RailCommand>,
        rail_events: M,
    ) -> Self {
        let RailBuffers { cells, landing_slots, serving_slots, driven_by } = buffers;
        RailDriver {
            clock,
            size,
            io,
            cells,
            landing_slots,
            serving_slots,
            contexts: OpContexts::new(entries(size)),
            rail_transfers: BTreeMap::new(),
            flows: HashMap::new(),
            piece_sender: PieceSender::new(size.slots),
            parked: VecDeque::with_capacity(FLOWS_MAX as usize),
            loaded: HashMap::with_capacity(2 * size.slots as usize),
            in_kernel: 0,
            prefilled_slots: HashMap::with_capacity(2 * size.slots as usize),
            driven_by,
            inbox,
            rail_events,
            outbox: VecDeque::with_capacity(OUTBOX),
            urgent: false,
        }
    }

    /// Runs until the control thread says to stop, or the ring fails.
    pub(super) fn run(mut self) {
        let mut completions = Vec::with_capacity(1024);
        while self.take_commands() {
            self.follow();
            self.drain_ended();
            self.post();
            if let Err(error) = self.io.wait(self.timeout(), &mut completions) {
                self.tell(RailEvent::Failed {
                    error: Error::new(Code::Internal, format!("the ring failed: {error}")),
                });
                return self.post_all();
            }
            for completion in completions.drain(..) {
                self.complete(completion);
            }
            self.tick();
        }
    }

    /// Takes in what the control thread says; false when it says to stop.
    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_MAX {
            let Ok(command) = self.inbox.try_recv() else { return true };
            match command {
                RailCommand::Join { transfer, rail, transfer_files, silence } => {
                    self.join(transfer, rail, transfer_files, silence)
                }
                RailCommand::Reopen { transfer, file } => self.reopen(transfer, file),
                RailCommand::FlowUp { transfer, flow, socket, side } => {
                    self.flow_up(transfer, flow, socket, side)
                }
                RailCommand::Flow { transfer, command } => self.flow_command(transfer, command),
                RailCommand::Offer { transfer, span } => self.offer(transfer, span),
                RailCommand::Withdraw { transfer, span } => self.withdraw(transfer, span),
                RailCommand::Drain { transfer } => self.drain(transfer),
                RailCommand::Leave { transfer } => self.leave(transfer),
                RailCommand::Stop => return false,
            }
        }
        true
    }

    fn flow_command(&mut self, transfer: TransferIx, command: FlowCommand) {
        let event = match command {
            FlowCommand::Lease { flow, pieces } => ReceiverEvent::Lease { flow, pieces },
            FlowCommand::Revoke { flow, pieces } => ReceiverEvent::Revoke { flow, pieces },
            FlowCommand::Close { flow } => {
                let error = Error::new(Code::Cancelled, "not needed any more");
                return self.close(flow, error);
            }
        };
        let now = self.clock.now();
        self.piece_receiver(transfer, |piece_receiver| piece_receiver.handle(now, event));
    }

    fn piece_receiver(&mut self, transfer: TransferIx, with: impl FnOnce(&mut PieceReceiver)) {
        if let Some(rail_transfer) = self.rail_transfers.get_mut(&transfer) {
            with(&mut rail_transfer.piece_receiver);
        }
    }

    fn join(
        &mut self,
        transfer: TransferIx,
        rail: usize,
        transfer_files: Arc<TransferFiles>,
        silence: Duration,
    ) {
        let mut files = Vec::with_capacity(transfer_files.files().count());
        for file in transfer_files.files() {
            match self.register(file, transfer_files.path) {
                Ok(registered) => files.push(registered),
                Err(error) => {
                    // Without its files it is nobody's transfer here: its flows are refused.
                    self.unregister(files);
                    return self.tell(without_files(transfer, &error));
                }
            }
        }
        let piece_receiver = PieceReceiver::new(self.size.block_bytes, silence);
        let rail_transfer = RailTransfer {
            transfer_files,
            rail,
            piece_receiver,
            relay: RelayQueue::default(),
            files,
            splice_failed: false,
            draining: false,
        };
        rail_transfer.paths().driven_by(&self.driven_by);
        if rail_transfer.transfer_files.path == DataPath::Direct
            && rail_transfer.files.iter().any(|(_, direct)| direct.is_none())
        {
            rail_transfer.paths().because(FallbackReason::NoDirect);
        }
        self.rail_transfers.insert(transfer, rail_transfer);
    }

    pub(super) fn register(
        &mut self,
        file: &OpenFile,
        path: DataPath,
    ) -> std::io::Result<RegisteredFile> {
        let (buffered, direct) = file.share();
        let buffered = self.io.register_shared(buffered)?;
        let direct = match (direct, file.direct_alignment()) {
            (Some(direct), Some(align)) if path != DataPath::Copy => {
                match self.io.register_shared(direct) {
                    Ok(direct) => Some((direct, align)),
                    Err(error) => {
                        self.unregister(vec![(buffered, None)]);
                        return Err(error);
                    }
                }
            }
            _ => None,
        };
        Ok((buffered, direct))
    }

    pub(super) fn unregister(&mut self, files: Vec<RegisteredFile>) {
        for (buffered, direct) in files {
            for file in [Some(buffered), direct.map(|(file, _)| file)].into_iter().flatten() {
                // It fails only for a file that is not registered; the ring sees to all else.
                let _ = self.io.unregister(file);
            }
        }
    }

    fn flow_up(
        &mut self,
        transfer: TransferIx,
        flow: FlowIx,
        socket: OwnedFd,
        side: FlowDirection,
    ) {
        let broken = |error: String| scheduler::SchedulerEvent::FlowDown {
            flow,
            error: Error::new(Code::Unreachable, error),
        };
        let fetches = matches!(side, FlowDirection::Fetch { .. });
        let joined = self
            .rail_transfers
            .get(&transfer)
            .is_some_and(|rail_transfer| !rail_transfer.draining || !fetches);
        let registered = match joined && self.flows.len() < FLOWS_MAX as usize {
            true => self.io.register(socket).map_err(|error| error.to_string()),
            false => Err("this rail has no room for another flow".into()),
        };
        let socket = match registered {
            Ok(socket) => socket,
            Err(error) if fetches => {
                return self.tell(RailEvent::Owner { transfer, event: broken(error) });
            }
            Err(_) => return,
        };
        let now = self.clock.now();
        let half = match side {
            FlowDirection::Fetch { .. } => {
                let wake_bytes_max = self.io.set_recv_buffer(socket, UNREAD_BYTES).unwrap_or(0);
                let requests = VecDeque::with_capacity(REQUESTS_MAX as usize);
                FlowHalf::Fetch(ReceivingFlow { requests, asking: false, wake_bytes_max })
            }
            FlowDirection::Feed { .. } => FlowHalf::Feed(SendingFlow {
                answers: VecDeque::with_capacity(FLOW_REQUESTS_MAX),
                ..SendingFlow::default()
            }),
        };
        self.flows.insert(flow, RailFlow { transfer, socket, half });
        self.set_notsent_lowat();
        match side {
            FlowDirection::Fetch { relays } => {
                self.piece_receiver(transfer, |piece_receiver| {
                    piece_receiver.handle(now, ReceiverEvent::FlowUp { flow, relays })
                });
                self.receive_header(flow);
            }
            FlowDirection::Feed { weight } => {
                self.piece_sender.handle(piece_sender::SenderEvent::FlowUp { flow, weight });
                self.receive_requests(flow, None);
            }
        }
    }

    /// Keeps what waits in the sockets of the flows that feed short, so that who is served next is
    /// decided here, by weight, and not by how much of it each socket has swallowed.
    fn set_notsent_lowat(&mut self) {
        let feeds = || self.flows.values().filter(|flow| matches!(flow.half, FlowHalf::Feed(_)));
        let bytes =
            (UNSENT_BYTES / feeds().count().max(1).next_power_of_two()).max(UNSENT_BYTES_MIN);
        for flow in feeds() {
            // A kernel that does not know the option shares the rail by what sockets hold, as it
            // always has.
            let _ = self.io.set_notsent_lowat(flow.socket, bytes);
        }
    }

    fn drain(&mut self, transfer: TransferIx) {
        let is_fetch =
            |flow: &RailFlow| flow.transfer == transfer && matches!(flow.half, FlowHalf::Fetch(_));
        let flows: Vec<FlowIx> =
            self.flows.iter().filter(|(_, flow)| is_fetch(flow)).map(|(&flow, _)| flow).collect();
        for flow in flows {
            self.close(flow, Error::new(Code::Cancelled, "everything has landed"));
        }
        match self.rail_transfers.get_mut(&transfer) {
            Some(rail_transfer) => rail_transfer.draining = true,
            None => self.tell(RailEvent::Drained { transfer }),
        }
    }

    /// Says so where a draining transfer has nothing in flight any more.
    fn drain_ended(&mut self) {
        let RailDriver { rail_transfers, contexts, .. } = self;
        let mut draining =
            rail_transfers.iter_mut().filter(|(_, rail_transfer)| rail_transfer.draining);
        while let Some((&transfer, rail_transfer)) =
            draining.find(|(transfer, _)| !contexts.lands(**transfer))
        {
            rail_transfer.draining = false;
            self.outbox.push_back(RailEvent::Drained { transfer });
            self.urgent = true;
        }
    }

    fn leave(&mut self, transfer: TransferIx) {
        let of_transfer = self.flows.iter().filter(|(_, flow)| flow.transfer == transfer);
        let flows: Vec<FlowIx> = of_transfer.map(|(&flow, _)| flow).collect();
        for flow in flows {
            self.close(flow, Error::new(Code::Cancelled, "the transfer is over"));
        }
        self.follow();
        if let Some(rail_transfer) = self.rail_transfers.remove(&transfer) {
            self.unregister(rail_transfer.files);
        }
    }

    /// Asks every machine what it wants, until none wants anything.
    pub(super) fn follow(&mut self) {
        loop {
            let mut idle = true;
            let mut next = self.rail_transfers.first_key_value().map(|(&transfer, _)| transfer);
            while let Some(transfer) = next {
                while let Some(event) = self
                    .rail_transfers
                    .get_mut(&transfer)
                    .and_then(|rail_transfer| rail_transfer.piece_receiver.poll_scheduler())
                {
                    self.tell(RailEvent::Owner { transfer, event });
                }
                while let Some(action) = self
                    .rail_transfers
                    .get_mut(&transfer)
                    .and_then(|rail_transfer| rail_transfer.piece_receiver.poll_action())
                {
                    idle = false;
                    self.fetch(transfer, action);
                }
                let after = (Bound::Excluded(transfer), Bound::Unbounded);
                next = self.rail_transfers.range(after).next().map(|(&transfer, _)| transfer);
            }
            while let Some(action) = self.piece_sender.poll_action() {
                idle = false;
                self.feed(action);
            }
            if idle {
                return;
            }
        }
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token, result, stage, slot } = completion;
        if stage == CompletionStage::NoticeFollows {
            self.on_zerocopy_sent(token, result);
            return self.follow();
        }
        match self.contexts.take(token) {
            OpContext::Header { flow } => self.header_received(flow, result, slot),
            OpContext::Payload { landing, done } => {
                self.payload_received(landing, done, result, slot)
            }
            OpContext::Write { landing, sink, step, done } => {
                self.wrote(landing, (sink, step, done), result, slot)
            }
            OpContext::Asking { flow } => self.asked(flow, result),
            OpContext::Requests { flow } => self.requests_received(flow, result, slot),
            OpContext::Load { loading, way, done } => self.read(loading, way, done, result, slot),
            OpContext::Answer(sending) => match stage {
                CompletionStage::Notice { copied } => self.on_notification(sending, copied, slot),
                CompletionStage::Done | CompletionStage::NoticeFollows => {
                    self.answered(sending, result, slot)
                }
            },
        }
        self.follow();
    }

    /// Hands an operation to the ring. Where the ring refuses it, its slot goes back to its pool.
    pub(super) fn submit(&mut self, context: OpContext, op: RingOp) -> Result<(), Error> {
        let busy = || Error::new(Code::Internal, "the ring is full");
        let token = self.contexts.put(context).ok_or_else(busy)?;
        self.io.submit(token, op).map_err(|refused| {
            self.contexts.take(token);
            Error::new(Code::Internal, refused.to_string())
        })
    }

    /// Closes a flow and tells its machine.
    pub(super) fn close(&mut self, flow: FlowIx, error: Error) {
        let Some(state) = self.flows.remove(&flow) else { return };
        // Registered by `flow_up` and by nobody else unregistered.
        let _ = self.io.unregister(state.socket);
        self.parked.retain(|landing| landing.flow != flow);
        self.set_notsent_lowat();
        match state.half {
            FlowHalf::Fetch(_) => {
                let now = self.clock.now();
                self.piece_receiver(state.transfer, |piece_receiver| {
                    piece_receiver.handle(now, ReceiverEvent::FlowDown { flow, error })
                });
            }
            FlowHalf::Feed(feed) => {
                // What stood in line has left the machine as sent; its slots are free with the
                // pieces.
                let pieces = feed
                    .answers
                    .iter()
                    .filter(|answer| matches!(answer, super::sockets::QueuedAnswer::Piece(_)));
                let waiting = pieces.count();
                for _ in 0..waiting {
                    self.piece_sender.handle(piece_sender::SenderEvent::Sent { flow });
                }
                self.loaded.retain(|(of, _), _| *of != flow);
                if let Some(rail_transfer) = self.rail_transfers.get_mut(&state.transfer) {
                    rail_transfer.relay.flow_down(flow);
                }
                self.piece_sender.handle(piece_sender::SenderEvent::FlowDown { flow });
            }
        }
    }

    /// Puts an event into the outbox.
    pub(super) fn tell(&mut self, event: RailEvent) {
        self.urgent |= !matches!(
            event,
            RailEvent::Owner { event: scheduler::SchedulerEvent::Landed { .. }, .. }
        );
        self.outbox.push_back(event);
    }

    /// Delivers the outbox, once somebody waits for what is in it.
    fn post(&mut self) {
        let quiet = self.contexts.is_quiet();
        if !self.outbox.is_empty() && (self.urgent || quiet || self.outbox.len() >= LANDED_BATCH) {
            self.rail_events.deliver(&mut self.outbox);
            self.urgent = !self.outbox.is_empty();
        }
    }

    /// Delivers everything before the thread ends, unless the control thread ends it.
    fn post_all(&mut self) {
        loop {
            self.rail_events.deliver(&mut self.outbox);
            let told = self.inbox.recv_timeout(POST_AGAIN);
            if self.outbox.is_empty()
                || matches!(told, Ok(RailCommand::Stop) | Err(RecvTimeoutError::Disconnected))
            {
                return;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let due = self
            .rail_transfers
            .values()
            .filter_map(|rail_transfer| rail_transfer.piece_receiver.poll_timeout())
            .min();
        let due = due.map(|due| due.since(self.clock.now()).min(LOOK_EVERY));
        // The event queue was full, and nobody says when it is not.
        let again = self.urgent.then_some(POST_AGAIN);
        // More commands than a turn takes may have come with one waking.
        let more = (!self.inbox.is_empty()).then_some(Duration::ZERO);
        due.into_iter().chain(again).chain(more).min()
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        for rail_transfer in self.rail_transfers.values_mut() {
            if rail_transfer.piece_receiver.poll_timeout().is_some_and(|due| now >= due) {
                rail_transfer.piece_receiver.handle(now, ReceiverEvent::Tick);
            }
        }
    }
}

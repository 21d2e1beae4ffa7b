//! The receiving operations of a rail: requests out, headers and payloads in, pieces written.

use ring::{Errno, FileId, RingIo, RingOp, Slot, SlotPool};

use super::buffers::RailSize;
use super::contexts::OpContext;
use super::operations::{
    EarlyHeader, RailOps, RailTransfer, broken, first_extent, out_of_buffers, piece_bytes,
};
use super::slot_store::SlotStore;
use crate::core::error::{Code, Error};
use crate::core::piece::TransferIx;
use crate::core::rail::{
    FlowPlace, KernelRoute, LandingPiece, PayloadOutcome, RailEvent, RailMachine, SlotIx,
};
use crate::core::store::io_steps::{PAGE_BYTES, WriteStep, payload_at, write_steps_around};
use crate::core::units::Span;
use crate::core::wire::frame::FRAME_BYTES;

/// Work on a slot that receives.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct LandingJob {
    landing: Option<LandingPiece>,
    /// True if the piece is read again soon.
    cached: bool,
}

/// The next write of a piece: which step of which sink, and what it writes where.
struct NextWrite {
    sink: usize,
    step: usize,
    file: FileId,
    what: WriteStep,
}

/// The slots that a rail receives into.
pub(super) struct ReceivingOps {
    slots: SlotStore<LandingJob>,
}

impl ReceivingOps {
    pub(super) fn new(size: RailSize, pool: Option<SlotPool>) -> ReceivingOps {
        ReceivingOps { slots: SlotStore::new(size, pool) }
    }

    /// Sends the requests that wait, as many as a buffer holds.
    pub(super) fn send_requests<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        machine: &mut RailMachine,
        flow: FlowPlace,
    ) -> Option<RailEvent> {
        ops.socket(flow)?;
        let Some(mut buffer) = ops.header_buffers.take() else { return out_of_buffers(flow) };
        let socket = ops.socket(flow)?;
        let (file, transfer) = (socket.file, socket.transfer);
        let mut bytes = 0;
        for place in buffer.as_mut_slice().as_chunks_mut::<FRAME_BYTES>().0 {
            let Some(frame) = machine.poll_request(flow) else { break };
            socket.seal.sealer.seal(&frame, place, &mut []);
            bytes += FRAME_BYTES;
        }
        if let Some(state) = ops.transfers.get(&transfer) {
            state.files.activity.requested(ops.clock.now());
        }
        let op = RingOp::Send { file, slot: buffer, range: 0..bytes, more: false };
        ops.submit_on(flow, OpContext::SendRequests { flow }, op)
    }

    /// Waits for the next answer on a flow, unless its header came with the payload before it.
    pub(super) fn receive_header<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        flow: FlowPlace,
    ) -> Option<RailEvent> {
        let socket = ops.socket(flow)?;
        let (file, early) = (socket.file, std::mem::take(&mut socket.early));
        if let Some(header) = early.whole() {
            return Some(open_header(ops, flow, header));
        }
        let early = early.as_slice();
        let Some(mut buffer) = ops.header_buffers.take() else { return out_of_buffers(flow) };
        let range = early.len()..FRAME_BYTES;
        buffer.as_mut_slice()[..early.len()].copy_from_slice(early);
        // A low-water mark that is left higher would let a header lie until the payload behind it
        // is there, too.
        ops.wake_at(flow, range.len());
        let context = OpContext::Header { flow, early: early.len() };
        ops.submit_on(flow, context, RingOp::Recv { file, slot: buffer, range, wait_all: true })
    }

    pub(super) fn receive_payload<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        landing: LandingPiece,
    ) -> Option<RailEvent> {
        *self.slots.job(slot) = LandingJob { landing: Some(landing), cached: false };
        match self.slots.take(slot) {
            Ok(memory) => self.receive_on(ops, slot, landing, 0, memory),
            Err(error) => {
                let what = format!("no memory for slots: {error}");
                Some(payload_broken(slot, Error::new(Code::Internal, what)))
            }
        }
    }

    /// Receives a payload from byte `done` on, as much as is there once enough is. The header of
    /// the next answer comes along where it is there, too: that saves a receive for each piece.
    fn receive_on<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        landing: LandingPiece,
        done: usize,
        memory: Slot,
    ) -> Option<RailEvent> {
        let start =
            ops.transfers.get(&landing.transfer).map(|it| payload_start(it, landing.piece.span));
        let socket = ops.socket(landing.flow).map(|it| (it.file, it.wake_bytes_max));
        let (Some(start), Some((file, wake_bytes_max))) = (start, socket) else {
            self.slots.put(slot, memory);
            return Some(payload_broken(slot, closed()));
        };
        let mut range = start + done..start + piece_bytes(landing.piece.span);
        let wake_bytes = wake_bytes_max.min(range.len());
        let waits = wake_bytes > 0 && ops.wake_at(landing.flow, wake_bytes);
        if waits {
            range.end = (range.end + FRAME_BYTES).min(memory.as_slice().len());
        }
        let op = RingOp::Recv { file, slot: memory, range, wait_all: !waits };
        let (error, memory) = ops.submit(OpContext::Payload { slot, done }, op).err()?;
        self.slots.put(slot, memory);
        Some(payload_broken(slot, error))
    }

    pub(super) fn payload_received<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        done: usize,
        result: Result<u32, Errno>,
        mut memory: Slot,
    ) -> Option<RailEvent> {
        let landing = self.slots.job(slot).landing.expect("a slot that receives has a piece");
        let LandingPiece { transfer, flow, piece, check } = landing;
        let received = done + result.unwrap_or(0) as usize;
        let is_whole = result.is_ok() && received >= piece_bytes(piece.span);
        if !is_whole && result.is_ok_and(|received| received > 0) {
            return self.receive_on(ops, slot, landing, received, memory);
        }
        let outcome = match ops.transfer_and_socket(transfer, flow) {
            _ if !is_whole => PayloadOutcome::Broken(broken("receiving a piece", result)),
            Some((state, socket)) => {
                let start = payload_start(state, piece.span);
                let (bytes, behind) = memory.as_mut_slice()[start..start + received]
                    .split_at_mut(piece_bytes(piece.span));
                socket.early = EarlyHeader::new(behind);
                let seal = &mut socket.seal;
                let opened = seal.opener.open_payload(bytes);
                let computed = opened.then(|| state.files.method.of(piece.span, bytes));
                state.tally().received(piece.span.bytes());
                // What opens is what was sent: its header has no check of its own.
                let is_clear = seal.is_clear();
                let check = computed.filter(|computed| !is_clear || *computed == check);
                PayloadOutcome::Whole { check }
            }
            // Nobody wants it any more.
            None => PayloadOutcome::Broken(closed()),
        };
        self.slots.put(slot, memory);
        Some(RailEvent::PayloadDone { slot, outcome })
    }

    pub(super) fn write_piece<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        transfer: TransferIx,
        piece: Span,
        cached: bool,
    ) -> Option<RailEvent> {
        let job = self.slots.job(slot);
        let landing = job.landing.expect("a slot that is written has a piece");
        assert_eq!((landing.transfer, landing.piece.span), (transfer, piece), "what was received");
        job.cached = cached;
        let memory = self.slots.take(slot).expect("a slot that has received has memory");
        self.write_on(ops, slot, (0, 0, 0), memory)
    }

    /// Writes a piece from sink `sink`, step `step`, byte `done` on.
    fn write_on<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        (sink, step, done): (usize, usize, usize),
        memory: Slot,
    ) -> Option<RailEvent> {
        let LandingJob { landing, cached } = *self.slots.job(slot);
        let LandingPiece { transfer, piece, .. } = landing.expect("a slot that is written");
        let Some(state) = ops.transfers.get(&transfer) else {
            self.slots.put(slot, memory);
            return Some(RailEvent::WriteDone { slot, result: Err(closed()) });
        };
        if let Some(NextWrite { sink, step, file, what }) =
            next_write(state, piece.span, cached, sink, step)
        {
            let range = what.slot_range.start + done..what.slot_range.end;
            let offset = what.file_offset + done as u64;
            let op = RingOp::Write { file, slot: memory, range, offset };
            let context = OpContext::Write { slot, sink, step, done };
            let (error, memory) = ops.submit(context, op).err()?;
            self.slots.put(slot, memory);
            return Some(RailEvent::WriteDone { slot, result: Err(error) });
        }
        if (sink, step, done) == (0, 0, 0) {
            state.tally().paths.took(KernelRoute::Receive, piece.span.bytes());
        }
        state.files.activity.written(ops.clock.now());
        self.slots.put(slot, memory);
        Some(RailEvent::WriteDone { slot, result: Ok(()) })
    }

    pub(super) fn wrote<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        (sink, step, done): (usize, usize, usize),
        result: Result<u32, Errno>,
        memory: Slot,
    ) -> Option<RailEvent> {
        let LandingJob { landing, cached } = *self.slots.job(slot);
        let LandingPiece { transfer, piece, .. } = landing.expect("a slot that is written");
        let state = ops.transfers.get(&transfer);
        let error = match (state, result) {
            (None, _) => closed(),
            (Some(_), Err(Errno::EINTR | Errno::EAGAIN)) => {
                return self.write_on(ops, slot, (sink, step, done), memory);
            }
            (Some(state), Ok(written)) if written > 0 => {
                let done = done + written as usize;
                let submitted = next_write(state, piece.span, cached, sink, step);
                let NextWrite { what, .. } = submitted.expect("a step that was submitted");
                let direct = what.direct;
                let route =
                    if direct { KernelRoute::ReceiveDirect } else { KernelRoute::ReceiveWrite };
                state.tally().paths.took(route, u64::from(written));
                let is_over = done >= what.slot_range.len();
                let next = if is_over { (sink, step + 1, 0) } else { (sink, step, done) };
                return self.write_on(ops, slot, next, memory);
            }
            (Some(state), Ok(_)) => write_failed(state, piece.span, sink, Errno::EIO),
            (Some(state), Err(errno)) => write_failed(state, piece.span, sink, errno),
        };
        self.slots.put(slot, memory);
        Some(RailEvent::WriteDone { slot, result: Err(error) })
    }
}

pub(super) fn header_received<I: RingIo>(
    ops: &mut RailOps<I>,
    flow: FlowPlace,
    early: usize,
    result: Result<u32, Errno>,
    buffer: &Slot,
) -> RailEvent {
    if result.map(|received| early + received as usize) != Ok(FRAME_BYTES) {
        return RailEvent::FlowBroken { flow, error: broken("waiting for an answer", result) };
    }
    let header = buffer.as_slice().first_chunk().expect("a buffer has room for a header");
    open_header(ops, flow, *header)
}

/// Event of a header: the frame in it, or a broken flow where it is none.
fn open_header<I: RingIo>(
    ops: &mut RailOps<I>,
    flow: FlowPlace,
    mut header: [u8; FRAME_BYTES],
) -> RailEvent {
    let opened = ops.socket(flow).map(|socket| socket.seal.opener.open_header(&mut header));
    match opened {
        Some(Ok(frame)) => RailEvent::Header { flow, frame },
        Some(Err(error)) => RailEvent::FlowBroken { flow, error: Error::from(error) },
        None => RailEvent::FlowBroken { flow, error: closed() },
    }
}

pub(super) fn requests_sent(flow: FlowPlace, result: Result<u32, Errno>) -> RailEvent {
    match result {
        Ok(sent) if (sent as usize).is_multiple_of(FRAME_BYTES) && sent > 0 => {
            RailEvent::RequestsSent { flow }
        }
        _ => RailEvent::FlowBroken { flow, error: broken("sending a request", result) },
    }
}

/// The place of a payload in its slot: at the phase that it has in the first file it goes to.
fn payload_start(state: &RailTransfer, piece: Span) -> usize {
    let files = &state.files;
    let layout = files.layout(piece, 0).map(|at| &files.layouts[at]);
    let extent = layout.and_then(|layout| layout.extents(piece).next());
    extent.map_or(PAGE_BYTES, |extent| payload_at(extent.offset_bytes))
}

/// Step `step` of writing a piece to sink `sink`, or the first step after it that there is.
fn next_write(
    state: &RailTransfer,
    piece: Span,
    cached: bool,
    mut sink: usize,
    mut step: usize,
) -> Option<NextWrite> {
    let start = payload_start(state, piece);
    let RailTransfer { files, registered, .. } = state;
    while let Some(at) = files.layout(piece, sink) {
        let extent = first_extent(&files.layouts[at], piece);
        let (buffered, direct) = registered[extent.file];
        // Of several sinks, the later ones may have the piece at another phase: those are written
        // buffered.
        let in_phase = |align: usize| start % align == payload_at(extent.offset_bytes) % align;
        let direct = direct.filter(|&(_, align)| !cached && in_phase(align));
        let align = direct.map(|(_, align)| align);
        step = if at == sink { step } else { 0 };
        let mut steps = write_steps_around(piece, files.holes(), extent.offset_bytes, align, start);
        if let Some(what) = steps.nth(step) {
            let file = direct.filter(|_| what.direct).map_or(buffered, |(file, _)| file);
            return Some(NextWrite { sink: at, step, file, what });
        }
        (sink, step) = (at + 1, 0);
    }
    None
}

fn write_failed(state: &RailTransfer, piece: Span, sink: usize, errno: Errno) -> Error {
    let extent = first_extent(&state.files.layouts[sink], piece);
    let sink = state.files.sink(extent.file).expect("layouts of sinks name files of sinks");
    sink.write_failed(errno)
}

fn payload_broken(slot: SlotIx, error: Error) -> RailEvent {
    RailEvent::PayloadDone { slot, outcome: PayloadOutcome::Broken(error) }
}

fn closed() -> Error {
    Error::new(Code::Cancelled, "the flow was closed")
}

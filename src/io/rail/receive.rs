//! The receiving half of a rail: requests out, headers and payloads in, checked and written.

use ring::{Errno, FileId, RingIo, RingOp, Slot};

use super::contexts::{LandingPiece, OpContext};
use super::driver::{CELL_BYTES, RailDriver, RailTransfer};
use super::paths::KernelRoute;
use super::sockets::RailFlow;
use super::start::slots;
use super::{RailEvent, RailEvents, TransferIx};
use crate::core::error::{Code, Error};
use crate::core::piece::FlowIx;
use crate::core::rail::piece_receiver;
use crate::core::rail::piece_receiver::SenderAnswer;
use crate::core::store::io_steps::{PAGE_BYTES, WriteStep, payload_at, write_steps_around};
use crate::core::wire::DataPath;
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind};

/// The next write of a piece: which step of which sink, and what it writes where.
struct NextWrite {
    sink: usize,
    step: usize,
    file: FileId,
    what: WriteStep,
}

impl<I: RingIo, M: RailEvents> RailDriver<I, M> {
    /// Carries out what the receiving machine of a transfer wants.
    pub(super) fn fetch(&mut self, transfer: TransferIx, action: piece_receiver::ReceiverAction) {
        match action {
            piece_receiver::ReceiverAction::Request { flow, request, piece } => {
                let length = u32::try_from(piece.span.bytes()).expect("a piece is a block at most");
                let kind = FrameKind::Request { stolen: piece.stolen };
                let frame = Frame { kind, request, position: piece.span.start, length };
                if let Some(fetch) = self.flows.get_mut(&flow).and_then(RailFlow::fetch) {
                    fetch.requests.push_back(frame);
                    self.rail_transfers[&transfer]
                        .transfer_files
                        .activity
                        .requested(self.clock.now());
                    self.ask(flow);
                }
            }
            piece_receiver::ReceiverAction::Land { flow, piece, check } => {
                self.parked.push_back(LandingPiece { transfer, flow, piece, check });
                self.land_parked();
            }
            piece_receiver::ReceiverAction::Close { flow, error } => self.close(flow, error),
        }
    }

    /// Sends the requests that wait, as many as a cell holds, one send at a time.
    fn ask(&mut self, flow: FlowIx) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let socket = state.socket;
        let Some(fetch) = state.fetch().filter(|fetch| !fetch.asking && !fetch.requests.is_empty())
        else {
            return;
        };
        let Some(mut cell) = self.cells.take() else { return self.out_of_cells(flow) };
        let count = fetch.requests.len().min(CELL_BYTES / FRAME_BYTES);
        for (frame, place) in
            fetch.requests.drain(..count).zip(cell.as_mut_slice().as_chunks_mut::<FRAME_BYTES>().0)
        {
            frame.encode(place);
        }
        fetch.asking = true;
        let op =
            RingOp::Send { file: socket, slot: cell, range: 0..count * FRAME_BYTES, more: false };
        self.submit_or_close(flow, OpContext::Asking { flow }, op);
    }

    pub(super) fn asked(&mut self, flow: FlowIx, result: Result<u32, Errno>) {
        match result {
            Ok(sent) if (sent as usize).is_multiple_of(FRAME_BYTES) && sent > 0 => {
                if let Some(fetch) = self.flows.get_mut(&flow).and_then(RailFlow::fetch) {
                    fetch.asking = false;
                    self.ask(flow);
                }
            }
            _ => self.close(flow, broken("sending a request", result)),
        }
    }

    /// Waits for the next answer on a flow.
    pub(super) fn receive_header(&mut self, flow: FlowIx) {
        let Some(socket) = self.flows.get(&flow).map(|flow| flow.socket) else { return };
        let Some(cell) = self.cells.take() else { return self.out_of_cells(flow) };
        // A low-water mark that is left higher would let a header lie until the payload behind it
        // is there, too.
        let _ = self.io.set_recv_lowat(socket, FRAME_BYTES);
        let op = RingOp::Recv { file: socket, slot: cell, range: 0..FRAME_BYTES, wait_all: true };
        self.submit_or_close(flow, OpContext::Header { flow }, op);
    }

    pub(super) fn header_received(
        &mut self,
        flow: FlowIx,
        result: Result<u32, Errno>,
        cell: Option<Slot>,
    ) {
        let Some(transfer) = self.flows.get(&flow).map(|flow| flow.transfer) else { return };
        let cell = cell.expect("a header comes in a cell");
        if result != Ok(FRAME_BYTES as u32) {
            return self.close(flow, broken("waiting for an answer", result));
        }
        let frame = Frame::decode(&cell.as_slice()[..FRAME_BYTES]);
        drop(cell);
        let (request, span) = match &frame {
            Ok(frame) => (frame.request, frame.span()),
            Err(error) => return self.close(flow, Error::from(error.clone())),
        };
        let answer = match frame.map(|frame| frame.kind) {
            Ok(FrameKind::Data(check)) => SenderAnswer::Data { request, span, check },
            Ok(FrameKind::Refuse(code)) => SenderAnswer::Refuse { request, span, code },
            _ => {
                return self.close(
                    flow,
                    Error::new(Code::Internal, "the sender asks instead of answering"),
                );
            }
        };
        let now = self.clock.now();
        let refused = matches!(answer, SenderAnswer::Refuse { .. });
        if let Some(rail_transfer) = self.rail_transfers.get_mut(&transfer) {
            rail_transfer
                .piece_receiver
                .handle(now, piece_receiver::ReceiverEvent::Answer { flow, answer });
        }
        if refused {
            self.receive_header(flow);
        }
    }

    /// Binds free slots to payloads that wait for one, first come first served.
    fn land_parked(&mut self) {
        while let Some(&landing) = self.parked.front() {
            if self.landing_slots.is_none() {
                self.landing_slots = slots(self.size).ok();
            }
            let Some(slot) = self.landing_slots.as_ref().and_then(ring::SlotPool::take) else {
                return;
            };
            self.parked.pop_front();
            self.receive(landing, 0, slot);
        }
    }

    /// Receives a payload from byte `done` on, as much as is there once enough is.
    fn receive(&mut self, landing: LandingPiece, done: usize, slot: Slot) {
        let start = self.payload_start(landing);
        let range = start + done..start + piece_bytes(landing);
        let Some(flow) = self.flows.get_mut(&landing.flow) else { return };
        let socket = flow.socket;
        let wake_bytes = flow.fetch().map_or(0, |fetch| fetch.wake_bytes_max).min(range.len());
        let rests = wake_bytes > 0 && self.io.set_recv_lowat(socket, wake_bytes).is_ok();
        let op = RingOp::Recv { file: socket, slot, range, wait_all: !rests };
        self.submit_or_close(landing.flow, OpContext::Payload { landing, done }, op);
    }

    /// Where a payload lies in its slot: at the phase that it has in the first file that it goes
    /// to.
    fn payload_start(&self, landing: LandingPiece) -> usize {
        let transfer_files = &self.rail_transfers[&landing.transfer].transfer_files;
        let layout = transfer_files.layout(landing.piece.span, 0);
        let extent =
            layout.and_then(|at| transfer_files.layouts[at].extents(landing.piece.span).next());
        extent.map_or(PAGE_BYTES, |extent| payload_at(extent.offset_bytes))
    }

    pub(super) fn payload_received(
        &mut self,
        landing: LandingPiece,
        done: usize,
        result: Result<u32, Errno>,
        slot: Option<Slot>,
    ) {
        let slot = slot.expect("a payload comes in a slot");
        let LandingPiece { transfer, flow, piece, check } = landing;
        let received = done + result.unwrap_or(0) as usize;
        let whole = result.is_ok() && received == piece_bytes(landing);
        let Some(rail_transfer) =
            self.rail_transfers.get(&transfer).filter(|_| self.flows.contains_key(&flow))
        else {
            drop(slot);
            return self.land_parked();
        };
        if !whole && result.is_ok_and(|received| received > 0) {
            return self.receive(landing, received, slot);
        }
        if !whole {
            drop(slot);
            self.close(flow, broken("receiving a piece", result));
            return self.land_parked();
        }
        let start = self.payload_start(landing);
        let intact = rail_transfer
            .transfer_files
            .method
            .of(piece.span, &slot.as_slice()[start..start + piece_bytes(landing)])
            == check;
        rail_transfer.tally().received(piece.span.bytes());
        let now = self.clock.now();
        let piece_receiver =
            &mut self.rail_transfers.get_mut(&transfer).expect("looked up above").piece_receiver;
        piece_receiver.handle(now, piece_receiver::ReceiverEvent::Received { flow, piece, intact });
        self.receive_header(flow);
        if intact {
            self.write(landing, (0, 0, 0), slot);
        } else {
            drop(slot);
            self.land_parked();
        }
    }

    /// Step `step` of writing a piece to sink `sink`, or the first step after it that there is.
    fn next_write(
        &self,
        landing: LandingPiece,
        mut sink: usize,
        mut step: usize,
    ) -> Option<NextWrite> {
        let start = self.payload_start(landing);
        let piece = landing.piece.span;
        let RailTransfer { transfer_files, files, .. } = &self.rail_transfers[&landing.transfer];
        while let Some(at) = transfer_files.layout(piece, sink) {
            let extent =
                transfer_files.layouts[at].extents(piece).next().expect("a piece is not empty");
            let (buffered, direct) = files[extent.file];
            // Of several sinks, the later ones may have the piece at another phase: those are
            // written buffered. So is what is passed on, for it is read again at once, and as often
            // as others ask.
            let passed_on = transfer_files.path != DataPath::Direct && transfer_files.relays(piece);
            let in_phase = |align: usize| start % align == payload_at(extent.offset_bytes) % align;
            let direct = direct.filter(|&(_, align)| !passed_on && in_phase(align));
            let align = direct.map(|(_, align)| align);
            step = if at == sink { step } else { 0 };
            let found = write_steps_around(
                piece,
                transfer_files.holes(),
                extent.offset_bytes,
                align,
                start,
            )
            .nth(step);
            if let Some(found) = found {
                let file = direct.filter(|_| found.direct).map_or(buffered, |(file, _)| file);
                return Some(NextWrite { sink: at, step, file, what: found });
            }
            (sink, step) = (at + 1, 0);
        }
        None
    }

    /// Writes a piece from sink `sink`, step `step`, byte `done` on.
    fn write(
        &mut self,
        landing: LandingPiece,
        (sink, step, done): (usize, usize, usize),
        slot: Slot,
    ) {
        let LandingPiece { transfer, piece, .. } = landing;
        if let Some(NextWrite { sink, step, file, what }) = self.next_write(landing, sink, step) {
            let range = what.slot_range.start + done..what.slot_range.end;
            let op = RingOp::Write { file, slot, range, offset: what.file_offset + done as u64 };
            if let Err(error) = self.submit(OpContext::Write { landing, sink, step, done }, op) {
                self.tell(RailEvent::Broken { transfer, error });
            }
            return;
        }
        drop(slot);
        let now = self.clock.now();
        let rail_transfer =
            self.rail_transfers.get_mut(&transfer).expect("a transfer outlives its writes");
        if (sink, step, done) == (0, 0, 0) {
            rail_transfer.paths().took(KernelRoute::Receive, piece.span.bytes());
        }
        rail_transfer.transfer_files.activity.written(now);
        rail_transfer.piece_receiver.handle(
            now,
            piece_receiver::ReceiverEvent::Written {
                flow: landing.flow,
                piece,
                check: landing.check,
            },
        );
        if rail_transfer.transfer_files.relays(piece.span) {
            // Flows of the other rails wait for it too, and hear of it by way of the scheduler.
            self.urgent = true;
            self.offer(transfer, piece.span);
        }
        self.land_parked();
    }

    pub(super) fn wrote(
        &mut self,
        landing: LandingPiece,
        (sink, step, done): (usize, usize, usize),
        result: Result<u32, Errno>,
        slot: Option<Slot>,
    ) {
        let slot = slot.expect("a write gives its slot back");
        if !self.rail_transfers.contains_key(&landing.transfer) {
            drop(slot);
            return self.land_parked();
        }
        match result {
            Ok(0) => self.write_failed(landing, sink, Errno::EIO),
            Ok(written) => {
                let done = done + written as usize;
                let submitted =
                    self.next_write(landing, sink, step).expect("a step that was submitted");
                let route = if submitted.what.direct {
                    KernelRoute::ReceiveDirect
                } else {
                    KernelRoute::ReceiveWrite
                };
                self.rail_transfers[&landing.transfer].paths().took(route, u64::from(written));
                let next = if done >= submitted.what.slot_range.len() {
                    (sink, step + 1, 0)
                } else {
                    (sink, step, done)
                };
                return self.write(landing, next, slot);
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {
                return self.write(landing, (sink, step, done), slot);
            }
            Err(errno) => self.write_failed(landing, sink, errno),
        }
        drop(slot);
        self.land_parked();
    }

    fn write_failed(&mut self, landing: LandingPiece, sink: usize, errno: Errno) {
        let transfer_files = &self.rail_transfers[&landing.transfer].transfer_files;
        let extent = transfer_files.layouts[sink]
            .extents(landing.piece.span)
            .next()
            .expect("a piece is not empty");
        let error = transfer_files
            .sink(extent.file)
            .expect("layouts of sinks name files of sinks")
            .write_failed(errno);
        self.tell(RailEvent::Broken { transfer: landing.transfer, error });
    }

    pub(super) fn submit_or_close(&mut self, flow: FlowIx, context: OpContext, op: RingOp) {
        if let Err(error) = self.submit(context, op) {
            self.close(flow, error);
        }
    }

    pub(super) fn out_of_cells(&mut self, flow: FlowIx) {
        self.close(flow, Error::new(Code::Internal, "this rail has no room for another flow"));
    }
}

fn piece_bytes(landing: LandingPiece) -> usize {
    usize::try_from(landing.piece.span.bytes()).expect("a piece fits its slot")
}

/// Why a flow ended, in words.
pub(super) fn broken(doing: &str, result: Result<u32, Errno>) -> Error {
    match result {
        Ok(_) => Error::new(Code::Unreachable, format!("the peer closed the flow while {doing}")),
        Err(errno) => {
            Error::new(Code::Unreachable, format!("the flow broke while {doing}: {}", errno.desc()))
        }
    }
}

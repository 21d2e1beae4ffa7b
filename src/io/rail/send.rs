//! The sending half of a rail: requests in, pieces read, checked and sent behind their headers.

use ring::{CachedPages, Errno, FileId, RingIo, RingOp, Slot};

use super::contexts::{LoadingPiece, OpContext, ReadMode, SendingPiece};
use super::driver::{CELL_BYTES, RailDriver, RailTransfer};
use super::paths::{FallbackReason, KernelRoute};
use super::receive::broken;
use super::sockets::{QueuedAnswer, RailFlow};
use super::start::slots;
use super::transfer_files::PieceLocation;
use super::zerocopy::refuses_zerocopy;
use super::{RailEvents, TransferIx};
use crate::core::error::{Code, Error};
use crate::core::piece::FlowIx;
use crate::core::rail::piece_sender;
use crate::core::rail::piece_sender::{FLOW_REQUESTS_MAX, PieceRequest};
use crate::core::rail::relay_queue::RelayDecision;
use crate::core::store::file_layout::FileExtent;
use crate::core::store::io_steps::{payload_at, read_step};
use crate::core::units::Span;
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind};
use crate::core::wire::{Check, DataPath};
use crate::io::store::{Source, pattern};

impl<I: RingIo, M: RailEvents> RailDriver<I, M> {
    /// Carries out what the sending machine wants.
    pub(super) fn feed(&mut self, action: piece_sender::SenderAction) {
        match action {
            piece_sender::SenderAction::Load { flow, ask } => self.load(flow, ask),
            piece_sender::SenderAction::Send { flow, ask } => {
                self.answer(flow, QueuedAnswer::Piece(ask))
            }
            piece_sender::SenderAction::Refuse { flow, ask, code } => {
                self.answer(flow, QueuedAnswer::Refusal(ask, code))
            }
            piece_sender::SenderAction::Unload { flow, ask } => {
                self.loaded.remove(&(flow, ask.request));
            }
            piece_sender::SenderAction::Close { flow, error } => self.close(flow, error),
        }
    }

    /// Waits for requests, behind what has arrived of one already.
    pub(super) fn receive_requests(&mut self, flow: FlowIx, cell: Option<Slot>) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let socket = state.socket;
        let partial_bytes = state.feed().map_or(0, |feed| feed.partial_bytes);
        let Some(cell) = cell.or_else(|| self.cells.take()) else { return self.out_of_cells(flow) };
        let op = RingOp::Recv {
            file: socket,
            slot: cell,
            range: partial_bytes..CELL_BYTES,
            wait_all: false,
        };
        self.submit_or_close(flow, OpContext::Requests { flow }, op);
    }

    pub(super) fn requests_received(
        &mut self,
        flow: FlowIx,
        result: Result<u32, Errno>,
        cell: Option<Slot>,
    ) {
        let Some(feed) = self.flows.get_mut(&flow).and_then(RailFlow::feed) else { return };
        let mut cell = cell.expect("requests come in a cell");
        let Some(received) = result.ok().filter(|received| *received > 0) else {
            return self.close(flow, broken("waiting for requests", result));
        };
        let filled = feed.partial_bytes + received as usize;
        let whole = filled - filled % FRAME_BYTES;
        feed.partial_bytes = filled - whole;
        for header in cell.as_slice()[..whole].chunks_exact(FRAME_BYTES) {
            match Frame::decode(header).map(|frame| (frame.kind, frame)) {
                Ok((FrameKind::Request { stolen }, frame))
                    if u64::from(frame.length) <= self.size.block_bytes =>
                {
                    let ask = PieceRequest { request: frame.request, span: frame.span(), stolen };
                    if let Err(error) = self.requested(flow, ask) {
                        return self.close(flow, error);
                    }
                }
                Ok(_) => {
                    return self.close(
                        flow,
                        Error::new(Code::Internal, "the receiver asks for what is no piece"),
                    );
                }
                Err(error) => return self.close(flow, Error::from(error)),
            }
        }
        cell.as_mut_slice().copy_within(whole..filled, 0);
        self.receive_requests(flow, Some(cell));
    }

    /// Puts a request in line; one for what has yet to land here waits for that.
    fn requested(&mut self, flow: FlowIx, ask: PieceRequest) -> Result<(), Error> {
        let transfer = self.flows.get(&flow).map(|flow| flow.transfer);
        let rail_transfer = transfer.and_then(|transfer| self.rail_transfers.get_mut(&transfer));
        if rail_transfer
            .as_ref()
            .is_some_and(|rail_transfer| !rail_transfer.transfer_files.method.takes(ask.span))
        {
            return Err(Error::new(Code::Internal, "the receiver asks for what is no piece"));
        }
        let relay = rail_transfer.filter(|rail_transfer| {
            matches!(rail_transfer.transfer_files.held(ask.span), Some(PieceLocation::Landed(_)))
        });
        match relay
            .map_or(Ok(RelayDecision::Ready), |rail_transfer| rail_transfer.relay.ask(flow, ask))?
        {
            RelayDecision::Ready => {
                self.piece_sender.handle(piece_sender::SenderEvent::Request { flow, ask })
            }
            RelayDecision::Waits => {}
            RelayDecision::Never => self.answer(flow, QueuedAnswer::Refusal(ask, Code::Data)),
        }
        Ok(())
    }

    /// A piece will never land here: who waited for it is told.
    pub(super) fn withdraw(&mut self, transfer: TransferIx, span: Span) {
        let Some(rail_transfer) = self.rail_transfers.get_mut(&transfer) else { return };
        for (flow, ask) in rail_transfer.relay.give_up(span) {
            self.answer(flow, QueuedAnswer::Refusal(ask, Code::Data));
        }
    }

    /// A piece has landed, over this rail or another one: who waited for it is served.
    pub(super) fn offer(&mut self, transfer: TransferIx, span: Span) {
        let Some(rail_transfer) = self.rail_transfers.get_mut(&transfer) else { return };
        rail_transfer.relay.land(span);
        while let Some((flow, ask)) = rail_transfer.relay.poll_ready() {
            self.piece_sender.handle(piece_sender::SenderEvent::Request { flow, ask });
        }
    }

    /// Reads a piece into a slot.
    fn load(&mut self, flow: FlowIx, ask: PieceRequest) {
        let transfer = self.flows.get(&flow).map(|flow| flow.transfer);
        let rail_transfer =
            transfer.and_then(|transfer| Some((transfer, self.rail_transfers.get(&transfer)?)));
        let held = rail_transfer.and_then(|(transfer, rail_transfer)| {
            Some((transfer, rail_transfer.transfer_files.held(ask.span)?))
        });
        let Some((transfer, held)) = held else {
            return self.piece_sender.handle(piece_sender::SenderEvent::Loaded {
                flow,
                ask,
                result: Err(Code::Data),
            });
        };
        if self.serving_slots.is_none() {
            self.serving_slots = slots(self.size).ok();
        }
        let Some(slot) = self.serving_slots.as_ref().and_then(ring::SlotPool::take) else {
            return self.piece_sender.handle(piece_sender::SenderEvent::Loaded {
                flow,
                ask,
                result: Err(Code::Internal),
            });
        };
        let loading = LoadingPiece { transfer, flow, ask, held };
        let transfer_files = &self.rail_transfers[&transfer].transfer_files;
        if let PieceLocation::Offered(at) = held
            && let Source::Pattern(seed) = transfer_files.offers[at].source
        {
            return self.make(loading, seed, slot);
        }
        match transfer_files.path {
            DataPath::Direct => self.read_on(loading, ReadMode::Direct, 0, slot),
            DataPath::Copy => self.read_on(loading, ReadMode::Buffered, 0, slot),
            DataPath::Auto | DataPath::Splice | DataPath::Zerocopy => self.load_best(loading, slot),
        }
    }

    /// Gets a piece of a file ready by the way that suits where it is: in the page cache, or not.
    fn load_best(&mut self, loading: LoadingPiece, slot: Slot) {
        let cachestat = self.cachestat(loading);
        if let Some(CachedPages::Dirty | CachedPages::Clean) = cachestat {
            self.not_cached(loading);
            let way = if cachestat == Some(CachedPages::Clean) {
                ReadMode::Direct
            } else {
                ReadMode::Buffered
            };
            return self.read_on(loading, way, 0, slot);
        }
        if !self.may_splice(loading) {
            return self.read_on(loading, ReadMode::Cached, 0, slot);
        }
        if let Some(slot) = self.load_cached(loading, cachestat, slot) {
            self.not_cached(loading);
            self.read_on(loading, ReadMode::Direct, 0, slot);
        }
    }

    fn not_cached(&self, loading: LoadingPiece) {
        let rail_transfer = &self.rail_transfers[&loading.transfer];
        if rail_transfer.transfer_files.path == DataPath::Splice {
            rail_transfer.paths().because(FallbackReason::NotCached);
        }
    }

    /// Makes a piece of the pattern. A slot that holds the filler already needs only its stamps.
    fn make(&mut self, loading: LoadingPiece, seed: u64, mut slot: Slot) {
        let span = loading.ask.span;
        let (start, bytes) = (payload_at(span.start), piece_bytes(loading.ask));
        let address = slot.as_slice().as_ptr() as usize;
        let piece = &mut slot.as_mut_slice()[start..start + bytes];
        match self.prefilled_slots.get(&address) {
            Some(&(phase, prefilled_slots)) if phase == start && prefilled_slots >= bytes => {
                pattern::stamp(seed, span.start, piece)
            }
            _ => {
                pattern::fill(seed, span.start, piece);
                self.prefilled_slots.insert(address, (start, bytes));
            }
        }
        if !matches!(
            self.rail_transfers[&loading.transfer].transfer_files.path,
            DataPath::Auto | DataPath::Zerocopy
        ) {
            self.rail_transfers[&loading.transfer].paths().because(FallbackReason::NoFile);
        }
        self.loaded(loading, start, KernelRoute::PatternSend, slot);
    }

    /// Reads a piece, from byte `done` of the step on.
    fn read_on(&mut self, loading: LoadingPiece, way: ReadMode, done: usize, slot: Slot) {
        self.prefilled_slots.remove(&(slot.as_slice().as_ptr() as usize));
        let rail_transfer = &self.rail_transfers[&loading.transfer];
        let extent = extent(rail_transfer, loading);
        let (buffered, direct) = rail_transfer.files[extent.file];
        let direct = direct.filter(|_| way == ReadMode::Direct);
        let step = read_step(
            extent.offset_bytes,
            piece_bytes(loading.ask),
            direct.map(|(_, align)| align),
        );
        let op = RingOp::Read {
            file: direct.map_or(buffered, |(file, _)| file),
            slot,
            range: step.slot_range.start + done..step.slot_range.end,
            offset: step.file_offset + done as u64,
            nowait: way == ReadMode::Cached,
        };
        if self.submit(OpContext::Load { loading, way, done }, op).is_err() {
            self.load_failed(loading, Code::Internal);
        }
    }

    pub(super) fn read(
        &mut self,
        loading: LoadingPiece,
        way: ReadMode,
        done: usize,
        result: Result<u32, Errno>,
        slot: Option<Slot>,
    ) {
        let slot = slot.expect("a read gives its slot back");
        let Some(rail_transfer) = self.rail_transfers.get(&loading.transfer) else {
            drop(slot);
            return self.load_failed(loading, Code::Cancelled);
        };
        let extent = extent(rail_transfer, loading);
        let direct = rail_transfer.files[extent.file].1.map(|(_, align)| align);
        let align = direct.filter(|_| way == ReadMode::Direct);
        let step = read_step(extent.offset_bytes, piece_bytes(loading.ask), align);
        match result {
            Ok(read) if done + read as usize >= step.needed_bytes => {
                let route =
                    if align.is_some() { KernelRoute::DirectSend } else { KernelRoute::ReadSend };
                self.loaded(loading, step.payload_at, route, slot);
            }
            // Not, or not wholly, in the page cache: past it, rather than through it.
            Ok(_) | Err(Errno::EAGAIN | Errno::EOPNOTSUPP) if way == ReadMode::Cached => {
                let way = if direct.is_some() { ReadMode::Direct } else { ReadMode::Buffered };
                self.read_on(loading, way, 0, slot);
            }
            Err(Errno::EINVAL) if align.is_some() => {
                rail_transfer.paths().because(FallbackReason::NoDirect);
                self.read_on(loading, ReadMode::Buffered, 0, slot);
            }
            Err(Errno::EINTR | Errno::EAGAIN) => self.read_on(loading, way, done, slot),
            // Short, but not at the end of the file: an aligned part of it came.
            Ok(read) if read > 0 && (done + read as usize).is_multiple_of(align.unwrap_or(1)) => {
                self.read_on(loading, way, done + read as usize, slot);
            }
            // The end of the file, where there were bytes when the transfer began; or the disk
            // fails.
            Ok(_) | Err(_) => {
                drop(slot);
                self.load_failed(loading, Code::Data);
            }
        }
    }

    /// Whether the source of a piece that was just read is still what it was when the transfer
    /// began. A write changes what a file looks like before it changes its bytes: what was read
    /// before this is what was there then. It costs less than a microsecond.
    pub(super) fn is_unchanged(&self, loading: LoadingPiece) -> bool {
        match (loading.held, self.rail_transfers.get(&loading.transfer)) {
            (PieceLocation::Offered(at), Some(rail_transfer)) => {
                rail_transfer.transfer_files.offers[at].source.check_unchanged().is_ok()
            }
            _ => true,
        }
    }

    pub(super) fn load_failed(&mut self, loading: LoadingPiece, code: Code) {
        self.piece_sender.handle(piece_sender::SenderEvent::Loaded {
            flow: loading.flow,
            ask: loading.ask,
            result: Err(code),
        });
    }

    /// Checks a piece that is in its slot.
    fn loaded(&mut self, loading: LoadingPiece, start: usize, route: KernelRoute, slot: Slot) {
        let LoadingPiece { transfer, ask, .. } = loading;
        if !self.is_unchanged(loading) {
            drop(slot);
            return self.load_failed(loading, Code::Data);
        }
        let piece = &slot.as_slice()[start..start + piece_bytes(ask)];
        let check = self.rail_transfers[&transfer].transfer_files.method.of(ask.span, piece);
        self.ready(
            loading,
            check,
            LoadedPiece { slot, start: start - FRAME_BYTES, behind: None, route },
        );
    }

    /// Puts the header of a piece in its place, and says that the piece can be sent.
    pub(super) fn ready(&mut self, loading: LoadingPiece, check: Check, mut loaded: LoadedPiece) {
        let LoadingPiece { flow, ask, .. } = loading;
        let header = loaded.start..loaded.start + FRAME_BYTES;
        let place = loaded.slot.as_mut_slice()[header]
            .first_chunk_mut()
            .expect("the slack has room for a header");
        frame(ask, FrameKind::Data(check)).encode(place);
        self.loaded.insert((flow, ask.request), loaded);
        self.piece_sender.handle(piece_sender::SenderEvent::Loaded { flow, ask, result: Ok(()) });
    }

    /// Puts an answer in line; one is sent at a time.
    fn answer(&mut self, flow: FlowIx, answer: QueuedAnswer) {
        match self.flows.get_mut(&flow).and_then(RailFlow::feed) {
            Some(feed) => {
                feed.answers.push_back(answer);
                // Each is the answer to a request that the receiver has outstanding, unless it
                // reads none of them.
                if feed.answers.len() > FLOW_REQUESTS_MAX {
                    let error =
                        Error::new(Code::Refused, "the receiver asks for more than its credit");
                    return self.close(flow, error);
                }
                self.answer_next(flow);
            }
            None if matches!(answer, QueuedAnswer::Piece(_)) => {
                self.piece_sender.handle(piece_sender::SenderEvent::Sent { flow })
            }
            None => {}
        }
    }

    fn answer_next(&mut self, flow: FlowIx) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let (socket, transfer) = (state.socket, state.transfer);
        let Some(feed) = state.feed().filter(|feed| !feed.answering) else { return };
        let Some(answer) = feed.answers.pop_front() else { return };
        feed.answering = true;
        let (loaded, bytes) = match answer {
            QueuedAnswer::Piece(ask) => {
                let loaded = self
                    .loaded
                    .remove(&(flow, ask.request))
                    .expect("a piece is loaded before it is sent");
                (loaded, piece_bytes(ask))
            }
            QueuedAnswer::Refusal(ask, code) => {
                let Some(mut slot) = self.cells.take() else { return self.out_of_cells(flow) };
                let place =
                    slot.as_mut_slice().first_chunk_mut().expect("a cell has room for a header");
                frame(ask, FrameKind::Refuse(code)).encode(place);
                (LoadedPiece { slot, start: 0, behind: None, route: KernelRoute::ReadSend }, 0)
            }
        };
        let LoadedPiece { slot, start, behind, mut route } = loaded;
        let op = match behind {
            Some((source, offset)) => {
                let bytes = u32::try_from(bytes).expect("a piece is a block at most");
                RingOp::SendFile {
                    file: socket,
                    slot,
                    range: start..start + FRAME_BYTES,
                    source,
                    offset,
                    bytes,
                }
            }
            None if bytes > 0 && self.may_send_zerocopy(flow) => {
                route = KernelRoute::Zerocopy;
                RingOp::SendZc { file: socket, slot, range: start..start + FRAME_BYTES + bytes }
            }
            None => RingOp::Send {
                file: socket,
                slot,
                range: start..start + FRAME_BYTES + bytes,
                more: false,
            },
        };
        let sending =
            SendingPiece { transfer, flow, piece_bytes: bytes as u64, start, route, again: false };
        if let Some(rail_transfer) = self.rail_transfers.get(&transfer) {
            rail_transfer.tally().sends(sending.piece_bytes);
        }
        self.send(sending, op);
    }

    /// Hands the send of an answer to the ring.
    pub(super) fn send(&mut self, sending: SendingPiece, op: RingOp) {
        let may_send_zerocopy = matches!(op, RingOp::SendZc { .. });
        match self.submit(OpContext::Answer(sending), op) {
            Ok(()) => self.in_kernel += u32::from(may_send_zerocopy),
            Err(error) => {
                if let Some(rail_transfer) = self.rail_transfers.get(&sending.transfer) {
                    rail_transfer.tally().failed_to_send(sending.piece_bytes);
                }
                self.slot_free(sending);
                self.close(sending.flow, error);
            }
        }
    }

    /// A send ended, and the kernel has no part of its slot any more.
    pub(super) fn answered(
        &mut self,
        sending: SendingPiece,
        result: Result<u32, Errno>,
        slot: Option<Slot>,
    ) {
        let slot = slot.expect("a send gives its slot back");
        if sending.route == KernelRoute::Zerocopy {
            self.in_kernel -= 1;
            if refuses_zerocopy(result) {
                return self.send_plainly(sending, slot);
            }
        }
        drop(slot);
        if result == Err(Errno::ENODATA)
            && let Some(rail_transfer) = self.rail_transfers.get_mut(&sending.transfer)
        {
            rail_transfer.splice_failed = true;
            rail_transfer.paths().because(FallbackReason::NotSpliced);
        }
        self.slot_free(sending);
        self.sent(sending, result);
    }

    fn slot_free(&mut self, sending: SendingPiece) {
        if sending.piece_bytes > 0 {
            self.piece_sender.handle(piece_sender::SenderEvent::Sent { flow: sending.flow });
        }
    }

    /// Counts what was sent, and sends what stands next in line.
    pub(super) fn sent(&mut self, sending: SendingPiece, result: Result<u32, Errno>) {
        let SendingPiece { transfer, flow, piece_bytes, route, .. } = sending;
        let whole = result
            == Ok(u32::try_from(piece_bytes).expect("a piece is a block at most")
                + FRAME_BYTES as u32);
        match self.rail_transfers.get(&transfer) {
            Some(rail_transfer) if whole => rail_transfer.paths().took(route, piece_bytes),
            Some(rail_transfer) => rail_transfer.tally().failed_to_send(piece_bytes),
            None => {}
        }
        if !whole {
            return self.close(flow, broken("sending a piece", result));
        }
        if let Some(feed) = self.flows.get_mut(&flow).and_then(RailFlow::feed) {
            feed.answering = false;
            self.answer_next(flow);
        }
    }
}

/// A piece that can be sent.
#[derive(Debug)]
pub(super) struct LoadedPiece {
    /// It holds the header, and the piece behind it unless that lies in a file.
    pub(super) slot: Slot,
    /// Where the header is.
    pub(super) start: usize,
    /// The file that holds the piece, and where.
    pub(super) behind: Option<(FileId, u64)>,
    pub(super) route: KernelRoute,
}

fn frame(ask: PieceRequest, kind: FrameKind) -> Frame {
    let length = u32::try_from(ask.span.bytes()).expect("checked when it was asked for");
    Frame { kind, request: ask.request, position: ask.span.start, length }
}

/// Where a piece lies in the files of the transfer's files.
pub(super) fn extent(rail_transfer: &RailTransfer, loading: LoadingPiece) -> FileExtent {
    let layout = rail_transfer
        .transfer_files
        .layout_of(loading.held)
        .expect("what is read from files has a layout");
    layout.extents(loading.ask.span).next().expect("a piece is not empty")
}

pub(super) fn piece_bytes(ask: PieceRequest) -> usize {
    usize::try_from(ask.span.bytes()).expect("a piece fits its slot")
}

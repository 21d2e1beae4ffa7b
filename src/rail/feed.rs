//! The sending half of a rail: requests in, pieces read, checked and sent behind their headers.

use ring::{Cached, Errno, FileId, Io, Op, Slot};

use super::contexts::{Context, Loading, Sending, Way};
use super::desk::Held;
use super::driver::{CELL_BYTES, Driver, Tenant};
use super::fetch::broken;
use super::paths::{Reason, Route};
use super::sockets::{Answer, Flow};
use super::start::slots;
use super::zerocopy::refuses_zerocopy;
use super::{EPOCH, Mailbox, TransferIx};
use crate::engine::FlowIx;
use crate::engine::relay::Asked;
use crate::engine::serve::{self, Ask, FLOW_REQUESTS_MAX};
use crate::error::{Code, Error};
use crate::store::layout::Extent;
use crate::store::steps::{payload_at, read_step};
use crate::store::{Source, pattern};
use crate::units::Span;
use crate::wire::frame::{FRAME_BYTES, Frame, FrameKind};
use crate::wire::{Check, DataPath};

impl<I: Io, M: Mailbox> Driver<I, M> {
    /// Carries out what the sending machine wants.
    pub(super) fn feed(&mut self, action: serve::Action) {
        match action {
            serve::Action::Load { flow, ask } => self.load(flow, ask),
            serve::Action::Send { flow, ask } => self.answer(flow, Answer::Piece(ask)),
            serve::Action::Refuse { flow, ask, code } => {
                self.answer(flow, Answer::Refusal(ask, code))
            }
            serve::Action::Unload { flow, ask } => {
                self.loaded.remove(&(flow, ask.request));
            }
            serve::Action::Close { flow, error } => self.close(flow, error),
        }
    }

    /// Waits for requests, behind what has arrived of one already.
    pub(super) fn receive_requests(&mut self, flow: FlowIx, cell: Option<Slot>) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let socket = state.socket;
        let partial_bytes = state.feed().map_or(0, |feed| feed.partial_bytes);
        let Some(cell) = cell.or_else(|| self.cells.take()) else { return self.out_of_cells(flow) };
        let op = Op::Recv {
            file: socket,
            slot: cell,
            range: partial_bytes..CELL_BYTES,
            wait_all: false,
        };
        self.submit_or_close(flow, Context::Requests { flow }, op);
    }

    pub(super) fn requests_received(
        &mut self,
        flow: FlowIx,
        result: Result<u32, Errno>,
        cell: Option<Slot>,
    ) {
        let Some(feed) = self.flows.get_mut(&flow).and_then(Flow::feed) else { return };
        let mut cell = cell.expect("requests come in a cell");
        let Some(received) = result.ok().filter(|received| *received > 0) else {
            return self.close(flow, broken("waiting for requests", result));
        };
        let filled = feed.partial_bytes + received as usize;
        let whole = filled - filled % FRAME_BYTES;
        feed.partial_bytes = filled - whole;
        for header in cell.as_slice()[..whole].chunks_exact(FRAME_BYTES) {
            match Frame::decode(header).map(|frame| (frame.kind, frame)) {
                Ok((FrameKind::Request { soft }, frame))
                    if u64::from(frame.length) <= self.size.block_bytes =>
                {
                    let ask = Ask { request: frame.request, span: frame.span(), soft };
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
    fn requested(&mut self, flow: FlowIx, ask: Ask) -> Result<(), Error> {
        let transfer = self.flows.get(&flow).map(|flow| flow.transfer);
        let tenant = transfer.and_then(|transfer| self.tenants.get_mut(&transfer));
        if tenant.as_ref().is_some_and(|tenant| !tenant.desk.method.takes(ask.span)) {
            return Err(Error::new(Code::Internal, "the receiver asks for what is no piece"));
        }
        let relay =
            tenant.filter(|tenant| matches!(tenant.desk.held(ask.span), Some(Held::Landed(_))));
        match relay.map_or(Ok(Asked::Ready), |tenant| tenant.relay.ask(flow, ask))? {
            Asked::Ready => self.serve.handle(serve::Event::Request { flow, ask }),
            Asked::Waits => {}
            Asked::Never => self.answer(flow, Answer::Refusal(ask, Code::Data)),
        }
        Ok(())
    }

    /// A piece will never land here: who waited for it is told.
    pub(super) fn withdraw(&mut self, transfer: TransferIx, span: Span) {
        let Some(tenant) = self.tenants.get_mut(&transfer) else { return };
        for (flow, ask) in tenant.relay.give_up(span) {
            self.answer(flow, Answer::Refusal(ask, Code::Data));
        }
    }

    /// A piece has landed, over this rail or another one: who waited for it is served.
    pub(super) fn offer(&mut self, transfer: TransferIx, span: Span) {
        let Some(tenant) = self.tenants.get_mut(&transfer) else { return };
        tenant.relay.land(span);
        while let Some((flow, ask)) = tenant.relay.poll_ready() {
            self.serve.handle(serve::Event::Request { flow, ask });
        }
    }

    /// Reads a piece into a slot.
    fn load(&mut self, flow: FlowIx, ask: Ask) {
        let transfer = self.flows.get(&flow).map(|flow| flow.transfer);
        let tenant = transfer.and_then(|transfer| Some((transfer, self.tenants.get(&transfer)?)));
        let held =
            tenant.and_then(|(transfer, tenant)| Some((transfer, tenant.desk.held(ask.span)?)));
        let Some((transfer, held)) = held else {
            return self.serve.handle(serve::Event::Loaded { flow, ask, result: Err(Code::Data) });
        };
        if self.serving_slots.is_none() {
            self.serving_slots = slots(self.size).ok();
        }
        let Some(slot) = self.serving_slots.as_ref().and_then(ring::Pool::take) else {
            return self.serve.handle(serve::Event::Loaded {
                flow,
                ask,
                result: Err(Code::Internal),
            });
        };
        let loading = Loading { transfer, flow, ask, held };
        let desk = &self.tenants[&transfer].desk;
        if let Held::Offered(at) = held
            && let Source::Pattern(seed) = desk.offers[at].source
        {
            return self.make(loading, seed, slot);
        }
        match desk.path {
            DataPath::Direct => self.read_on(loading, Way::Direct, 0, slot),
            DataPath::Copy => self.read_on(loading, Way::Buffered, 0, slot),
            DataPath::Auto | DataPath::Splice | DataPath::Zerocopy => self.load_best(loading, slot),
        }
    }

    /// Gets a piece of a file ready by the way that suits where it is: in the page cache, or not.
    fn load_best(&mut self, loading: Loading, slot: Slot) {
        let cached = self.cached(loading);
        if let Some(Cached::Dirty | Cached::Clean) = cached {
            self.not_cached(loading);
            let way = if cached == Some(Cached::Clean) { Way::Direct } else { Way::Buffered };
            return self.read_on(loading, way, 0, slot);
        }
        if !self.may_splice(loading) {
            return self.read_on(loading, Way::Cached, 0, slot);
        }
        if let Some(slot) = self.load_cached(loading, cached, slot) {
            self.not_cached(loading);
            self.read_on(loading, Way::Direct, 0, slot);
        }
    }

    fn not_cached(&self, loading: Loading) {
        let tenant = &self.tenants[&loading.transfer];
        if tenant.desk.path == DataPath::Splice {
            tenant.paths().because(Reason::NotCached);
        }
    }

    /// Makes a piece of the pattern. A slot that holds the filler already needs only its stamps.
    fn make(&mut self, loading: Loading, seed: u64, mut slot: Slot) {
        let span = loading.ask.span;
        let (start, bytes) = (payload_at(span.start), piece_bytes(loading.ask));
        let address = slot.as_slice().as_ptr() as usize;
        let piece = &mut slot.as_mut_slice()[start..start + bytes];
        match self.dressed.get(&address) {
            Some(&(phase, dressed)) if phase == start && dressed >= bytes => {
                pattern::stamp(seed, span.start, piece)
            }
            _ => {
                pattern::fill(seed, span.start, piece);
                self.dressed.insert(address, (start, bytes));
            }
        }
        if !matches!(self.tenants[&loading.transfer].desk.path, DataPath::Auto | DataPath::Zerocopy)
        {
            self.tenants[&loading.transfer].paths().because(Reason::NoFile);
        }
        self.loaded(loading, start, Route::PatternSend, slot);
    }

    /// Reads a piece, from byte `done` of the step on.
    fn read_on(&mut self, loading: Loading, way: Way, done: usize, slot: Slot) {
        self.dressed.remove(&(slot.as_slice().as_ptr() as usize));
        let tenant = &self.tenants[&loading.transfer];
        let extent = extent(tenant, loading);
        let (buffered, direct) = tenant.files[extent.file];
        let direct = direct.filter(|_| way == Way::Direct);
        let step = read_step(
            extent.offset_bytes,
            piece_bytes(loading.ask),
            direct.map(|(_, align)| align),
        );
        let op = Op::Read {
            file: direct.map_or(buffered, |(file, _)| file),
            slot,
            range: step.slot_range.start + done..step.slot_range.end,
            offset: step.file_offset + done as u64,
            nowait: way == Way::Cached,
        };
        if self.submit(Context::Load { loading, way, done }, op).is_err() {
            self.load_failed(loading, Code::Internal);
        }
    }

    pub(super) fn read(
        &mut self,
        loading: Loading,
        way: Way,
        done: usize,
        result: Result<u32, Errno>,
        slot: Option<Slot>,
    ) {
        let slot = slot.expect("a read gives its slot back");
        let Some(tenant) = self.tenants.get(&loading.transfer) else {
            drop(slot);
            return self.load_failed(loading, Code::Cancelled);
        };
        let extent = extent(tenant, loading);
        let direct = tenant.files[extent.file].1.map(|(_, align)| align);
        let align = direct.filter(|_| way == Way::Direct);
        let step = read_step(extent.offset_bytes, piece_bytes(loading.ask), align);
        match result {
            Ok(read) if done + read as usize >= step.needed_bytes => {
                let route = if align.is_some() { Route::DirectSend } else { Route::ReadSend };
                self.loaded(loading, step.payload_at, route, slot);
            }
            // Not, or not wholly, in the page cache: past it, rather than through it.
            Ok(_) | Err(Errno::EAGAIN | Errno::EOPNOTSUPP) if way == Way::Cached => {
                let way = if direct.is_some() { Way::Direct } else { Way::Buffered };
                self.read_on(loading, way, 0, slot);
            }
            Err(Errno::EINVAL) if align.is_some() => {
                tenant.paths().because(Reason::NoDirect);
                self.read_on(loading, Way::Buffered, 0, slot);
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
    pub(super) fn is_unchanged(&self, loading: Loading) -> bool {
        match (loading.held, self.tenants.get(&loading.transfer)) {
            (Held::Offered(at), Some(tenant)) => {
                tenant.desk.offers[at].source.check_unchanged().is_ok()
            }
            _ => true,
        }
    }

    pub(super) fn load_failed(&mut self, loading: Loading, code: Code) {
        self.serve.handle(serve::Event::Loaded {
            flow: loading.flow,
            ask: loading.ask,
            result: Err(code),
        });
    }

    /// Checks a piece that is in its slot.
    fn loaded(&mut self, loading: Loading, start: usize, route: Route, slot: Slot) {
        let Loading { transfer, ask, .. } = loading;
        if !self.is_unchanged(loading) {
            drop(slot);
            return self.load_failed(loading, Code::Data);
        }
        let piece = &slot.as_slice()[start..start + piece_bytes(ask)];
        let check = self.tenants[&transfer].desk.method.of(ask.span, piece);
        self.ready(
            loading,
            check,
            Loaded { slot, start: start - FRAME_BYTES, behind: None, route },
        );
    }

    /// Puts the header of a piece in its place, and says that the piece can be sent.
    pub(super) fn ready(&mut self, loading: Loading, check: Check, mut loaded: Loaded) {
        let Loading { flow, ask, .. } = loading;
        let header = loaded.start..loaded.start + FRAME_BYTES;
        let place = loaded.slot.as_mut_slice()[header]
            .first_chunk_mut()
            .expect("the slack has room for a header");
        frame(ask, FrameKind::Data(check)).encode(place);
        self.loaded.insert((flow, ask.request), loaded);
        self.serve.handle(serve::Event::Loaded { flow, ask, result: Ok(()) });
    }

    /// Puts an answer in line; one is sent at a time.
    fn answer(&mut self, flow: FlowIx, answer: Answer) {
        match self.flows.get_mut(&flow).and_then(Flow::feed) {
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
            None if matches!(answer, Answer::Piece(_)) => {
                self.serve.handle(serve::Event::Sent { flow })
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
            Answer::Piece(ask) => {
                let loaded = self
                    .loaded
                    .remove(&(flow, ask.request))
                    .expect("a piece is loaded before it is sent");
                (loaded, piece_bytes(ask))
            }
            Answer::Refusal(ask, code) => {
                let Some(mut slot) = self.cells.take() else { return self.out_of_cells(flow) };
                let place =
                    slot.as_mut_slice().first_chunk_mut().expect("a cell has room for a header");
                frame(ask, FrameKind::Refuse(code)).encode(place);
                (Loaded { slot, start: 0, behind: None, route: Route::ReadSend }, 0)
            }
        };
        let Loaded { slot, start, behind, mut route } = loaded;
        let op = match behind {
            Some((source, offset)) => {
                let bytes = u32::try_from(bytes).expect("a piece is a block at most");
                Op::SendFile {
                    file: socket,
                    slot,
                    range: start..start + FRAME_BYTES,
                    source,
                    offset,
                    bytes,
                }
            }
            None if bytes > 0 && self.lends(flow) => {
                route = Route::Zerocopy;
                Op::SendZc { file: socket, slot, range: start..start + FRAME_BYTES + bytes }
            }
            None => Op::Send {
                file: socket,
                slot,
                range: start..start + FRAME_BYTES + bytes,
                more: false,
            },
        };
        let sending =
            Sending { transfer, flow, piece_bytes: bytes as u64, start, route, again: false };
        if let Some(tenant) = self.tenants.get(&transfer) {
            tenant.tally().sends(sending.piece_bytes);
        }
        self.send(sending, op);
    }

    /// Hands the send of an answer to the ring.
    pub(super) fn send(&mut self, sending: Sending, op: Op) {
        let lends = matches!(op, Op::SendZc { .. });
        match self.submit(Context::Answer(sending), op) {
            Ok(()) => self.lent += u32::from(lends),
            Err(error) => {
                if let Some(tenant) = self.tenants.get(&sending.transfer) {
                    tenant.tally().failed_to_send(sending.piece_bytes);
                }
                self.slot_free(sending);
                self.close(sending.flow, error);
            }
        }
    }

    /// A send ended, and the kernel has no part of its slot any more.
    pub(super) fn answered(
        &mut self,
        sending: Sending,
        result: Result<u32, Errno>,
        slot: Option<Slot>,
    ) {
        let slot = slot.expect("a send gives its slot back");
        if sending.route == Route::Zerocopy {
            self.lent -= 1;
            if refuses_zerocopy(result) {
                return self.send_plainly(sending, slot);
            }
        }
        drop(slot);
        if result == Err(Errno::ENODATA)
            && let Some(tenant) = self.tenants.get_mut(&sending.transfer)
        {
            tenant.splice_failed = true;
            tenant.paths().because(Reason::NotSpliced);
        }
        self.slot_free(sending);
        self.sent(sending, result);
    }

    fn slot_free(&mut self, sending: Sending) {
        if sending.piece_bytes > 0 {
            self.serve.handle(serve::Event::Sent { flow: sending.flow });
        }
    }

    /// Counts what was sent, and sends what stands next in line.
    pub(super) fn sent(&mut self, sending: Sending, result: Result<u32, Errno>) {
        let Sending { transfer, flow, piece_bytes, route, .. } = sending;
        let whole = result
            == Ok(u32::try_from(piece_bytes).expect("a piece is a block at most")
                + FRAME_BYTES as u32);
        match self.tenants.get(&transfer) {
            Some(tenant) if whole => tenant.paths().took(route, piece_bytes),
            Some(tenant) => tenant.tally().failed_to_send(piece_bytes),
            None => {}
        }
        if !whole {
            return self.close(flow, broken("sending a piece", result));
        }
        if let Some(feed) = self.flows.get_mut(&flow).and_then(Flow::feed) {
            feed.answering = false;
            self.answer_next(flow);
        }
    }
}

/// A piece that can be sent.
#[derive(Debug)]
pub(super) struct Loaded {
    /// It holds the header, and the piece behind it unless that lies in a file.
    pub(super) slot: Slot,
    /// Where the header is.
    pub(super) start: usize,
    /// The file that holds the piece, and where.
    pub(super) behind: Option<(FileId, u64)>,
    pub(super) route: Route,
}

fn frame(ask: Ask, kind: FrameKind) -> Frame {
    let length = u32::try_from(ask.span.bytes()).expect("checked when it was asked for");
    Frame { kind, epoch: EPOCH, request: ask.request, position: ask.span.start, length }
}

/// Where a piece lies in the files of the desk.
pub(super) fn extent(tenant: &Tenant, loading: Loading) -> Extent {
    let layout = tenant.desk.layout_of(loading.held).expect("what is read from files has a layout");
    layout.extents(loading.ask.span).next().expect("a piece is not empty")
}

pub(super) fn piece_bytes(ask: Ask) -> usize {
    usize::try_from(ask.span.bytes()).expect("a piece fits its slot")
}

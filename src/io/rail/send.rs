//! The sending operations of a rail: requests in, pieces read, checked and sent.

use ring::{CachedPages, Errno, FileId, RingIo, RingOp, Slot, SlotPool};

use super::buffers::RailSize;
use super::contexts::OpContext;
use super::operations::{
    HEADER_BUFFER_BYTES, RailOps, RailTransfer, broken, first_extent, out_of_buffers, piece_bytes,
};
use super::slot_store::SlotStore;
use crate::core::error::{Code, Error};
use crate::core::piece::TransferIx;
use crate::core::rail::{
    CacheState, FlowPlace, KernelRoute, LoadingPiece, PieceLocation, RailEvent, RailMachine,
    ReadMode, ReadOutcome, SendOutcome, SlotIx,
};
use crate::core::store::file_layout::FileExtent;
use crate::core::store::io_steps::{payload_at, read_step};
use crate::core::wire::Check;
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind};
use crate::io::store::{Source, pattern};

/// Work on a slot that sends.
#[derive(Default, Debug)]
pub(super) struct SendingJob {
    loading: Option<(LoadingPiece, ReadMode)>,
    /// Its header, until it is written and sealed.
    unsealed: Option<Frame>,
    /// Pages of it that the page cache held when it was probed.
    pub(super) cached: CacheState,
    /// Offset of the header in the slot.
    header_start: usize,
    /// The file that holds the piece, and where, if it is sent from there.
    behind: Option<(FileId, u64)>,
    /// The way that the send takes.
    route: Option<KernelRoute>,
    /// At which phase, and for how many bytes, the slot holds the filler of the pattern.
    pub(super) prefilled: Option<(usize, usize)>,
}

/// The slots that a rail sends from.
pub(super) struct SendingOps {
    pub(super) slots: SlotStore<SendingJob>,
}

impl SendingOps {
    pub(super) fn new(size: RailSize, pool: Option<SlotPool>) -> SendingOps {
        SendingOps { slots: SlotStore::new(size, pool) }
    }

    /// Puts the memory of a slot back.
    pub(super) fn put(&mut self, slot: SlotIx, memory: Slot) {
        self.slots.put(slot, memory);
    }

    /// Waits for requests, behind what has arrived of one already.
    pub(super) fn receive_requests<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        flow: FlowPlace,
    ) -> Option<RailEvent> {
        let socket = ops.socket(flow)?;
        let (file, partial_bytes, kept) =
            (socket.file, socket.partial_bytes, socket.requests.take());
        let Some(slot) = kept.or_else(|| ops.header_buffers.take()) else {
            return out_of_buffers(flow);
        };
        let range = partial_bytes..HEADER_BUFFER_BYTES;
        let op = RingOp::Recv { file, slot, range, wait_all: false };
        ops.submit_on(flow, OpContext::ReceiveRequests { flow }, op)
    }

    pub(super) fn requests_received<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        machine: &mut RailMachine,
        flow: FlowPlace,
        result: Result<u32, Errno>,
        mut buffer: Slot,
    ) -> Option<RailEvent> {
        let partial_bytes = ops.socket(flow)?.partial_bytes;
        let Some(received) = result.ok().filter(|received| *received > 0) else {
            let error = broken("waiting for requests", result);
            return Some(RailEvent::FlowBroken { flow, error });
        };
        let filled = partial_bytes + received as usize;
        let whole = filled - filled % FRAME_BYTES;
        let (headers, _) = buffer.as_mut_slice()[..whole].as_chunks_mut::<FRAME_BYTES>();
        for header in headers {
            match ops.socket(flow)?.seal.opener.open_header(header) {
                Ok(frame) => machine.handle(ops.clock.now(), RailEvent::Request { flow, frame }),
                Err(error) => return Some(request_refused(ops, flow, Error::from(error))),
            }
        }
        buffer.as_mut_slice().copy_within(whole..filled, 0);
        let socket = ops.socket(flow)?;
        (socket.partial_bytes, socket.requests) = (filled - whole, Some(buffer));
        Some(RailEvent::RequestsRead { flow })
    }

    /// Looks at what the page cache holds of a piece, where the kernel tells. Asking by a read
    /// would have the kernel read ahead what is not there, and the disk work for nothing.
    pub(super) fn probe<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        loading: LoadingPiece,
    ) -> RailEvent {
        let found = ops.transfers.get(&loading.transfer).and_then(|state| {
            let extent = extent(state, loading);
            let (file, _) = state.registered[extent.file];
            let bytes = piece_bytes(loading.request.span);
            ops.io.cachestat(file, extent.offset_bytes, bytes).ok()
        });
        let cached = match found {
            Some(CachedPages::Whole) => CacheState::Whole,
            Some(CachedPages::Dirty) => CacheState::Dirty,
            Some(CachedPages::Clean) => CacheState::Clean,
            None => CacheState::Unknown,
        };
        self.slots.job(slot).cached = cached;
        RailEvent::Probed { slot, cached }
    }

    pub(super) fn read_piece<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        loading: LoadingPiece,
        mode: ReadMode,
    ) -> Option<RailEvent> {
        let memory = match self.slots.take(slot) {
            Ok(memory) if ops.transfers.contains_key(&loading.transfer) => memory,
            Ok(memory) => return Some(self.not_read(slot, memory, Code::Cancelled)),
            Err(_) => return Some(read_done(slot, ReadOutcome::Failed(Code::Internal))),
        };
        let job = self.slots.job(slot);
        job.loading = Some((loading, mode));
        match mode {
            ReadMode::Pattern => Some(self.make(ops, slot, loading, memory)),
            ReadMode::Splice => Some(self.load_cached(ops, slot, loading, memory)),
            ReadMode::Cached | ReadMode::Direct | ReadMode::Buffered => {
                job.prefilled = None;
                self.read_on(ops, slot, 0, memory)
            }
        }
    }

    /// Makes a piece of the pattern. A slot that holds the filler already needs only its stamps.
    fn make<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        loading: LoadingPiece,
        mut memory: Slot,
    ) -> RailEvent {
        let state = &ops.transfers[&loading.transfer];
        let PieceLocation::Source(at) = loading.location else {
            unreachable!("what lands is in files")
        };
        let Source::Pattern(seed) = state.files.offers[at].source else {
            unreachable!("the machine knows which sources are computed")
        };
        let span = loading.request.span;
        let (start, bytes) = (payload_at(span.start), piece_bytes(span));
        let piece = &mut memory.as_mut_slice()[start..start + bytes];
        let job = self.slots.job(slot);
        match job.prefilled {
            Some((phase, filled)) if phase == start && filled >= bytes => {
                pattern::stamp(seed, span.start, piece);
            }
            _ => {
                pattern::fill(seed, span.start, piece);
                job.prefilled = Some((start, bytes));
            }
        }
        self.loaded(ops, slot, loading, start, memory)
    }

    /// Reads a piece, from byte `done` of the step on.
    fn read_on<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        done: usize,
        memory: Slot,
    ) -> Option<RailEvent> {
        let (loading, mode) = self.slots.job(slot).loading.expect("a slot that is read into");
        let state = &ops.transfers[&loading.transfer];
        let extent = extent(state, loading);
        let (buffered, direct) = state.registered[extent.file];
        let direct = direct.filter(|_| mode == ReadMode::Direct);
        let align = direct.map(|(_, align)| align);
        let step = read_step(extent.offset_bytes, piece_bytes(loading.request.span), align);
        let op = RingOp::Read {
            file: direct.map_or(buffered, |(file, _)| file),
            slot: memory,
            range: step.slot_range.start + done..step.slot_range.end,
            offset: step.file_offset + done as u64,
            nowait: mode == ReadMode::Cached,
        };
        let (_, memory) = ops.submit(OpContext::Read { slot, done }, op).err()?;
        Some(self.not_read(slot, memory, Code::Internal))
    }

    pub(super) fn read_done<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        done: usize,
        result: Result<u32, Errno>,
        memory: Slot,
    ) -> Option<RailEvent> {
        let (loading, mode) = self.slots.job(slot).loading.expect("a slot that is read into");
        let Some(state) = ops.transfers.get(&loading.transfer) else {
            return Some(self.not_read(slot, memory, Code::Cancelled));
        };
        let extent = extent(state, loading);
        let (_, direct) = state.registered[extent.file];
        let align = direct.map(|(_, align)| align).filter(|_| mode == ReadMode::Direct);
        let step = read_step(extent.offset_bytes, piece_bytes(loading.request.span), align);
        let outcome = match result {
            Ok(read) if done + read as usize >= step.needed_bytes => {
                return Some(self.loaded(ops, slot, loading, step.payload_at, memory));
            }
            Ok(_) | Err(Errno::EAGAIN | Errno::EOPNOTSUPP) if mode == ReadMode::Cached => {
                ReadOutcome::NotCached
            }
            Err(Errno::EINVAL) if align.is_some() => ReadOutcome::NotDirect,
            Err(Errno::EINTR | Errno::EAGAIN) => return self.read_on(ops, slot, done, memory),
            // Short, but not at the end of the file: an aligned part of it came.
            Ok(read) if read > 0 && (done + read as usize).is_multiple_of(align.unwrap_or(1)) => {
                return self.read_on(ops, slot, done + read as usize, memory);
            }
            // The end of the file, where there were bytes when the transfer began; or the disk
            // fails.
            Ok(_) | Err(_) => ReadOutcome::Failed(Code::Data),
        };
        self.slots.put(slot, memory);
        Some(read_done(slot, outcome))
    }

    /// Checks that the source of a piece that was just read is unchanged since the transfer
    /// began. A write changes what a file looks like before it changes its bytes: what was read
    /// before this is what was there then. It costs less than a microsecond.
    pub(super) fn is_unchanged<I: RingIo>(
        &self,
        ops: &mut RailOps<I>,
        loading: LoadingPiece,
    ) -> bool {
        match (loading.location, ops.transfers.get(&loading.transfer)) {
            (PieceLocation::Source(at), Some(state)) => {
                state.files.offers[at].source.check_unchanged().is_ok()
            }
            _ => true,
        }
    }

    pub(super) fn not_read(&mut self, slot: SlotIx, memory: Slot, code: Code) -> RailEvent {
        self.slots.put(slot, memory);
        read_done(slot, ReadOutcome::Failed(code))
    }

    /// Checks a piece that is in its slot, where it will be sent in clear.
    fn loaded<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        loading: LoadingPiece,
        start: usize,
        memory: Slot,
    ) -> RailEvent {
        if !self.is_unchanged(ops, loading) {
            return self.not_read(slot, memory, Code::Data);
        }
        let span = loading.request.span;
        // A piece that is sealed needs no check beside its tag; its receiver computes that of the
        // whole.
        let in_clear = ops.socket(loading.flow).is_some_and(|it| it.seal.is_clear());
        let check = if in_clear {
            let piece = &memory.as_slice()[start..start + piece_bytes(span)];
            ops.transfers[&loading.transfer].files.method.of(span, piece)
        } else {
            Check::None
        };
        self.ready(slot, loading, check, start - FRAME_BYTES, None, memory)
    }

    /// Keeps what the header of a piece will say, and says that the piece can be sent.
    pub(super) fn ready(
        &mut self,
        slot: SlotIx,
        loading: LoadingPiece,
        check: Check,
        header_start: usize,
        behind: Option<(FileId, u64)>,
        memory: Slot,
    ) -> RailEvent {
        let request = loading.request;
        let job = self.slots.job(slot);
        job.unsealed = Some(Frame::new(FrameKind::Data(check), request.request, request.span));
        (job.header_start, job.behind) = (header_start, behind);
        self.slots.put(slot, memory);
        read_done(slot, ReadOutcome::Loaded)
    }

    pub(super) fn send_piece<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        flow: FlowPlace,
        transfer: TransferIx,
        bytes: u64,
        route: KernelRoute,
    ) -> Option<RailEvent> {
        let Some(socket) = ops.socket(flow) else {
            return Some(not_sent(slot));
        };
        let file = socket.file;
        let mut memory = self.slots.take(slot).expect("what is sent was read");
        let job = self.slots.job(slot);
        job.route = Some(route);
        let (start, behind) = (job.header_start, job.behind);
        let piece_bytes = u32::try_from(bytes).expect("a piece is a block at most");
        let whole = start..start + FRAME_BYTES + piece_bytes as usize;
        // Frames are sealed in the order in which they leave. One that is sent again, because the
        // kernel did not take it without a copy, leaves as it is.
        if let Some(frame) = job.unsealed.take() {
            let is_clear = socket.seal.is_clear();
            assert!(behind.is_none() || is_clear, "only in clear from the page cache");
            let (header, payload) = memory.as_mut_slice()[start..]
                .split_first_chunk_mut()
                .expect("the slack has room for a header");
            let payload_bytes = if is_clear { 0 } else { piece_bytes as usize };
            socket.seal.sealer.seal(&frame, header, &mut payload[..payload_bytes]);
            if payload_bytes > 0 {
                job.prefilled = None;
            }
        }
        let op = match (route, behind) {
            (KernelRoute::Splice, Some((source, offset))) => {
                let range = start..start + FRAME_BYTES;
                RingOp::SendFile { file, slot: memory, range, source, offset, bytes: piece_bytes }
            }
            (KernelRoute::Zerocopy, _) => RingOp::SendZc { file, slot: memory, range: whole },
            _ => RingOp::Send { file, slot: memory, range: whole, more: false },
        };
        if let Some(state) = ops.transfers.get(&transfer) {
            state.tally().sends(bytes);
        }
        let (_, memory) = ops.submit(OpContext::Send { slot }, op).err()?;
        self.slots.put(slot, memory);
        if let Some(state) = ops.transfers.get(&transfer) {
            state.tally().failed_to_send(bytes);
        }
        Some(not_sent(slot))
    }

    /// A send has its result; `is_held` where the kernel still has its slot.
    pub(super) fn sent<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        slot: SlotIx,
        result: Result<u32, Errno>,
        is_held: bool,
    ) -> RailEvent {
        let job = self.slots.job(slot);
        let (loading, _) = job.loading.expect("a slot that is sent has a piece");
        let route = job.route.expect("a slot that is sent goes some way");
        let bytes = loading.request.span.bytes();
        let outcome = match result {
            Ok(sent) if u64::from(sent) == bytes + FRAME_BYTES as u64 => SendOutcome::Sent,
            Err(Errno::ENODATA) => SendOutcome::NotSpliced,
            result if route == KernelRoute::Zerocopy && refuses_zerocopy(result) => {
                SendOutcome::NoZerocopy
            }
            Ok(_) | Err(_) => SendOutcome::Broken,
        };
        if let Some(state) = ops.transfers.get(&loading.transfer) {
            match outcome {
                SendOutcome::Sent => state.tally().paths.took(route, bytes),
                _ => state.tally().failed_to_send(bytes),
            }
        }
        RailEvent::SendDone { slot, outcome, is_held }
    }

    pub(super) fn send_refusal<I: RingIo>(
        &mut self,
        ops: &mut RailOps<I>,
        flow: FlowPlace,
        frame: Frame,
    ) -> Option<RailEvent> {
        ops.socket(flow)?;
        let Some(mut slot) = ops.header_buffers.take() else { return out_of_buffers(flow) };
        let place = slot.as_mut_slice().first_chunk_mut().expect("a buffer has room for a header");
        let socket = ops.socket(flow)?;
        let file = socket.file;
        socket.seal.sealer.seal(&frame, place, &mut []);
        let op = RingOp::Send { file, slot, range: 0..FRAME_BYTES, more: false };
        ops.submit_on(flow, OpContext::Refusal { flow }, op)
    }
}

/// Ends a flow on which no request arrived where one should have.
fn request_refused<I: RingIo>(ops: &mut RailOps<I>, flow: FlowPlace, error: Error) -> RailEvent {
    let socket = ops.socket(flow).map(|socket| (socket.transfer, socket.receiver));
    if error.code == Code::Integrity
        && let Some((transfer, Some(receiver))) = socket
        && let Some(state) = ops.transfers.get(&transfer)
    {
        state.tally().changed_requests.note(receiver);
    }
    RailEvent::FlowBroken { flow, error }
}

pub(super) fn refusal_sent(flow: FlowPlace, result: Result<u32, Errno>) -> RailEvent {
    match result {
        Ok(sent) if sent as usize == FRAME_BYTES => RailEvent::RefusalSent { flow },
        _ => RailEvent::FlowBroken { flow, error: broken("sending a refusal", result) },
    }
}

fn read_done(slot: SlotIx, outcome: ReadOutcome) -> RailEvent {
    RailEvent::ReadDone { slot, outcome }
}

fn not_sent(slot: SlotIx) -> RailEvent {
    RailEvent::SendDone { slot, outcome: SendOutcome::Broken, is_held: false }
}

/// Returns the extent of a piece in the files of its transfer.
pub(super) fn extent(state: &RailTransfer, loading: LoadingPiece) -> FileExtent {
    let layout = state.files.layout_of(loading.location);
    first_extent(layout.expect("what is read from files has a layout"), loading.request.span)
}

/// Returns true if the kernel cannot send without a copy: too little locked memory, or no such
/// operation or device.
fn refuses_zerocopy(result: Result<u32, Errno>) -> bool {
    matches!(result, Err(Errno::ENOMEM | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOBUFS))
}

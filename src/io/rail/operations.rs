//! Operations of a rail, and what they work on: the ring, the files of transfers, and the sockets
//! of flows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ring::{Errno, FileId, RingIo, RingOp, Slot, SlotPool};

use super::contexts::{OpContext, OpContexts};
use super::transfer_files::{RailTally, TransferFiles};
use crate::core::error::{Code, Error};
use crate::core::options::DataPath;
use crate::core::piece::TransferIx;
use crate::core::rail::{FLOW_PLACES, FLOWS_MAX, FlowPlace, RailEvent};
use crate::core::receiver::flow_growth::PathReading;
use crate::core::seal::FlowSeal;
use crate::core::store::file_layout::{FileExtent, FileLayout};
use crate::core::units::Span;
use crate::core::wire::frame::FRAME_BYTES;
use crate::io::clock::Clock;
use crate::io::store::OpenFile;

/// Each flow holds two buffers for headers at most.
pub(super) const HEADER_BUFFERS: usize = 2 * FLOWS_MAX;
/// Room for headers and requests: a buffer takes 42 of them.
pub(super) const HEADER_BUFFER_BYTES: usize = 4096;

/// A file registered with the ring: buffered, and direct with the alignment that it wants.
pub(super) type RegisteredFile = (FileId, Option<(FileId, usize)>);

/// The files of one transfer at this rail.
pub(super) struct RailTransfer {
    pub(super) files: Arc<TransferFiles>,
    /// Index of this rail at its node.
    pub(super) rail: usize,
    /// The transfer's files, registered with the ring.
    pub(super) registered: Vec<RegisteredFile>,
}

impl RailTransfer {
    /// Returns this rail's counters of the transfer.
    pub(super) fn tally(&self) -> &RailTally {
        &self.files.tallies[self.rail]
    }
}

/// The socket of a flow.
pub(super) struct FlowSocket {
    pub(super) flow: FlowPlace,
    pub(super) transfer: TransferIx,
    pub(super) file: FileId,
    /// Bytes that the rail may wait for at once: each wake costs as much as copying some tens
    /// of kilobytes.
    pub(super) wake_bytes_max: usize,
    /// The socket's low-water mark.
    pub(super) wake_bytes: usize,
    /// Bytes of the next answer's header that came with the payload before it.
    pub(super) early: EarlyHeader,
    /// The buffer that requests come in, between two receives.
    pub(super) requests: Option<Slot>,
    /// Bytes of a request that has not wholly arrived, at the front of that buffer.
    pub(super) partial_bytes: usize,
    /// The address of the receiver, of a flow that sends.
    pub(super) receiver: Option<IpAddr>,
    /// Protection of its frames.
    pub(super) seal: FlowSeal,
}

/// The first bytes of a header: none, some or all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyHeader {
    bytes: [u8; FRAME_BYTES],
    count: usize,
}

impl Default for EarlyHeader {
    fn default() -> EarlyHeader {
        EarlyHeader { bytes: [0; FRAME_BYTES], count: 0 }
    }
}

impl EarlyHeader {
    /// Keeps `bytes`.
    ///
    /// # Panics
    /// If they are more than a header.
    pub(super) fn new(bytes: &[u8]) -> EarlyHeader {
        let mut early = EarlyHeader { count: bytes.len(), ..EarlyHeader::default() };
        early.bytes[..bytes.len()].copy_from_slice(bytes);
        early
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.count]
    }

    /// Returns the header, if all of it is here.
    pub(super) fn whole(&self) -> Option<[u8; FRAME_BYTES]> {
        (self.count == FRAME_BYTES).then_some(self.bytes)
    }
}

/// The ring of a rail and what it works on.
pub(super) struct RailOps<I> {
    pub(super) clock: Clock,
    pub(super) io: I,
    pub(super) header_buffers: SlotPool,
    contexts: OpContexts,
    pub(super) transfers: BTreeMap<TransferIx, RailTransfer>,
    /// By place.
    sockets: Vec<Option<FlowSocket>>,
}

impl<I: RingIo> RailOps<I> {
    pub(super) fn new(clock: Clock, io: I, header_buffers: SlotPool, entries: u32) -> Self {
        RailOps {
            clock,
            io,
            header_buffers,
            contexts: OpContexts::new(entries),
            transfers: BTreeMap::new(),
            sockets: (0..FLOW_PLACES).map(|_| None).collect(),
        }
    }

    /// Takes in the files of a transfer, all or none.
    pub(super) fn register_files(
        &mut self,
        files: &TransferFiles,
    ) -> std::io::Result<Vec<RegisteredFile>> {
        let mut registered = Vec::with_capacity(files.files().count());
        for file in files.files() {
            match self.register(file, files.path) {
                Ok(file) => registered.push(file),
                Err(error) => {
                    self.unregister(registered);
                    return Err(error);
                }
            }
        }
        Ok(registered)
    }

    /// Registers a file of a transfer anew. Nothing of the one before it is in flight.
    pub(super) fn reopen_file(&mut self, transfer: TransferIx, file: usize) -> std::io::Result<()> {
        let Some(state) = self.transfers.get(&transfer) else { return Ok(()) };
        let files = Arc::clone(&state.files);
        let Some(open) = files.files().nth(file) else { return Ok(()) };
        let registered = self.register(open, files.path)?;
        if let Some(state) = self.transfers.get_mut(&transfer) {
            let before = std::mem::replace(&mut state.registered[file], registered);
            self.unregister(vec![before]);
        }
        Ok(())
    }

    fn register(&mut self, file: &OpenFile, path: DataPath) -> std::io::Result<RegisteredFile> {
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

    /// Gives a flow its socket.
    pub(super) fn set_socket(&mut self, socket: FlowSocket) {
        let before = self.sockets[socket.flow.at()].replace(socket);
        assert!(before.is_none(), "a place is used again when its flow is closed");
    }

    /// Closes the socket of a flow.
    pub(super) fn close_socket(&mut self, flow: FlowPlace) {
        if let Some(socket) = self.sockets[flow.at()].take_if(|it| it.flow == flow) {
            // Registered when the flow came up, and by nobody else unregistered.
            let _ = self.io.unregister(socket.file);
        }
    }

    /// The purpose of an operation that is over.
    pub(super) fn take_context(&mut self, token: u64) -> OpContext {
        self.contexts.take(token)
    }

    /// The purpose of an operation that is not over.
    pub(super) fn context(&self, token: u64) -> OpContext {
        self.contexts.get(token)
    }

    /// The socket of a flow, until it is closed.
    pub(super) fn socket(&mut self, flow: FlowPlace) -> Option<&mut FlowSocket> {
        self.sockets[flow.at()].as_mut().filter(|socket| socket.flow == flow)
    }

    /// A transfer and the socket of one of its flows, while there are both.
    pub(super) fn transfer_and_socket(
        &mut self,
        transfer: TransferIx,
        flow: FlowPlace,
    ) -> Option<(&RailTransfer, &mut FlowSocket)> {
        let state = self.transfers.get(&transfer)?;
        let socket = self.sockets[flow.at()].as_mut().filter(|socket| socket.flow == flow)?;
        Some((state, socket))
    }

    /// Reads the path of a flow, where the kernel tells.
    pub(super) fn read_path(&mut self, flow: FlowPlace) -> Option<PathReading> {
        let file = self.socket(flow)?.file;
        let path = self.io.path(file).ok()?;
        Some(PathReading {
            delay: path.delay,
            delay_min: path.delay_min,
            bytes: path.received_bytes,
            late_packets: path.late_packets,
        })
    }

    /// Sets the low-water mark of a flow's socket. Returns false where the system has none.
    pub(super) fn wake_at(&mut self, flow: FlowPlace, bytes: usize) -> bool {
        let Some(socket) = self.sockets[flow.at()].as_mut().filter(|it| it.flow == flow) else {
            return false;
        };
        if socket.wake_bytes != bytes && self.io.set_recv_lowat(socket.file, bytes).is_ok() {
            socket.wake_bytes = bytes;
        }
        socket.wake_bytes == bytes
    }

    /// Hands an operation to the ring. Where the ring refuses it, its slot comes back.
    pub(super) fn submit(&mut self, context: OpContext, op: RingOp) -> Result<(), (Error, Slot)> {
        let Some(token) = self.contexts.put(context) else {
            return Err((Error::new(Code::Internal, "the ring is full"), slot_of(op)));
        };
        self.io.submit(token, op).map_err(|refused| {
            self.contexts.take(token);
            let error = Error::new(Code::Internal, refused.to_string());
            (error, slot_of(refused.op))
        })
    }

    /// The same for an operation on a flow with a buffer for headers.
    pub(super) fn submit_on(
        &mut self,
        flow: FlowPlace,
        context: OpContext,
        op: RingOp,
    ) -> Option<RailEvent> {
        let (error, _) = self.submit(context, op).err()?;
        Some(RailEvent::FlowBroken { flow, error })
    }
}

fn slot_of(op: RingOp) -> Slot {
    op.into_slot().expect("every operation of a rail has a slot")
}

/// A flow for which there is no buffer.
pub(super) fn out_of_buffers(flow: FlowPlace) -> Option<RailEvent> {
    let error = Error::new(Code::Internal, "this rail has no room for another flow");
    Some(RailEvent::FlowBroken { flow, error })
}

/// Returns the extent of a piece in the first of its files.
pub(super) fn first_extent(layout: &FileLayout, piece: Span) -> FileExtent {
    layout.extents(piece).next().expect("a piece is not empty")
}

pub(super) fn piece_bytes(piece: Span) -> usize {
    usize::try_from(piece.bytes()).expect("a piece fits its slot")
}

/// Returns the error of a flow that ended.
pub(super) fn broken(doing: &str, result: Result<u32, Errno>) -> Error {
    let what = match result {
        Ok(_) => format!("the peer closed the flow while {doing}"),
        Err(errno) => format!("the flow broke while {doing}: {}", errno.desc()),
    };
    Error::new(Code::Unreachable, what)
}

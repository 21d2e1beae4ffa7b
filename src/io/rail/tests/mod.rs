//! Two rails at work over a real connection, without the node around them.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

pub(crate) mod counting;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use crossbeam_utils::CachePadded;

use super::transfer_files::{RailTally, SourceRow, TransferActivity, TransferFiles};
use super::{RailCommand, RailHandle, RailPlacement, RailSize, ReportSender, buffers, slots_max};
use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::options::{Cipher, DataPath, TransferOptions, WireLevel};
use crate::core::piece::{FlowCommand, FlowIx, Piece, TransferIx};
use crate::core::rail::{FlowDirection, RailNotice, TransferCommand};
use crate::core::receiver::scheduler;
use crate::core::seal::FlowSeal;
use crate::core::spec::DataUri;
use crate::core::store::file_layout::FileLayout;
use crate::core::store::writer::WriterRole;
use crate::core::units::{MIB, Span};
use crate::core::wire::Check;
use crate::core::wire::frame::{FRAME_BYTES, Frame, FrameKind};
use crate::core::wire::terms::WireAgreement;
use crate::io::clock::Clock;
use crate::io::store::{Sink, SinkOptions, Source, StoreRoots};

const TRANSFER: TransferIx = TransferIx(1);
const FLOW: FlowIx = FlowIx(1);
/// Time that a step may take before the test is given up.
const STEP: Duration = Duration::from_secs(20);

/// A event queue that notes with each event how often the rail's thread had allocated by then.
#[derive(Clone)]
struct Noting(Sender<(RailNotice, u64)>);

impl ReportSender for Noting {
    fn deliver(&self, events: &mut VecDeque<RailNotice>) {
        while let Some(event) = events.pop_front() {
            match self.0.try_send((event, counting::allocations())) {
                Ok(()) => {}
                Err(TrySendError::Full((event, _))) => return events.push_front(event),
                Err(TrySendError::Disconnected(_)) => events.clear(),
            }
        }
    }
}

fn rail(size: RailSize) -> (RailHandle, Receiver<(RailNotice, u64)>) {
    let (sender, events) = crossbeam_channel::bounded(256);
    (
        RailHandle::spawn(Clock::start(), size, RailPlacement::default(), Noting(sender)).unwrap(),
        events,
    )
}

fn command(command: TransferCommand) -> RailCommand {
    RailCommand::Transfer { transfer: TRANSFER, command }
}

fn transfer_files(
    path: DataPath,
    offers: Vec<SourceRow>,
    sinks: Vec<Sink>,
    layouts: Vec<FileLayout>,
) -> Arc<TransferFiles> {
    let holes = OnceLock::new();
    let tallies = vec![CachePadded::new(RailTally::default())];
    let (method, grid, activity) =
        (CheckMethod::Crc64, BlockGrid::new(0, MIB), TransferActivity::default());
    Arc::new(TransferFiles {
        method,
        grid,
        path,
        offers,
        sinks,
        layouts,
        holes,
        tallies,
        activity,
        sink_places: OnceLock::new(),
    })
}

/// The two ends of a connection over loopback.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (dialled, listener.accept().unwrap().0)
}

/// Files of a transfer that offers `source`, and of one that wants it at `destination`; without a
/// way for files, a pattern and nothing.
fn files_of_both_ends(
    folder: &Path,
    files: Option<DataPath>,
    bytes: u64,
) -> (Arc<TransferFiles>, Arc<TransferFiles>) {
    let (root, range) = (StoreRoots::of(folder).unwrap(), Span::new(0, bytes));
    let layout = || FileLayout::of_file(0, 0, range);
    let path = files.unwrap_or_default();
    let files = files.is_some();
    let (from, to) = match files {
        true => (DataUri::File("/source".into()), DataUri::File("/destination".into())),
        false => (DataUri::Pattern(5), DataUri::Null),
    };
    let source = Source::open(&root, &from, 0, bytes).unwrap();
    let options = SinkOptions {
        transfer: TransferOptions::default(),
        tag: "test".into(),
        attempt: [1; 16],
        others_end: 0,
        role: WriterRole::Sole,
        keep: None,
    };
    let sink = Sink::prepare(&root, &to, bytes, &options).unwrap();
    sink.preallocate(&[range]).unwrap();
    let offers = vec![SourceRow { range, source, layout: files.then(layout) }];
    let layouts = if files { vec![layout()] } else { Vec::new() };
    (
        transfer_files(path, offers, Vec::new(), Vec::new()),
        transfer_files(path, Vec::new(), vec![sink], layouts),
    )
}

/// The pieces of 0 to `bytes`, in order.
fn pieces(bytes: u64) -> impl Iterator<Item = Piece> {
    (0..bytes / MIB).map(|at| Piece { span: Span::of(at * MIB, MIB), stolen: false })
}

/// Number of allocations of the thread of a rail that sends, by now.
fn allocations_of(rail: &RailHandle, events: &Receiver<(RailNotice, u64)>) -> u64 {
    rail.tell(command(TransferCommand::Drain));
    events.recv_timeout(STEP).unwrap().1
}

/// Moves `bytes`, and gives how often the sending and the receiving rail allocated after the first
/// quarter. `None` where one of them had no ring, as with too little locked memory: what plain
/// calls need is not promised.
fn allocations_at_work(
    folder: &Path,
    files: Option<DataPath>,
    bytes: u64,
    level: WireLevel,
) -> Option<(u64, u64)> {
    let size = |receives| RailSize { slots: 8, receives, sends: !receives, block_bytes: MIB };
    let ((feeder, feeder_events), (fetcher, events)) = (rail(size(false)), rail(size(true)));
    let (offering, wanting) = files_of_both_ends(folder, files, bytes);
    let tallied = [Arc::clone(&offering), Arc::clone(&wanting)];
    let (dialled, accepted) = connection();
    let [sends, receives] = FlowSeal::pair(WireAgreement { level, cipher: Cipher::Aes256Gcm });
    let sending =
        FlowDirection::Send { weight: 1, in_clear: level == WireLevel::Clear, is_further: false };
    let receiving = FlowDirection::Receive { relays: false };
    for (rail, transfer_files, socket, seal, direction) in [
        (&feeder, offering, accepted, sends, sending),
        (&fetcher, Arc::clone(&wanting), dialled, receives, receiving),
    ] {
        rail.tell(RailCommand::Join { transfer: TRANSFER, rail: 0, transfer_files, silence: STEP });
        rail.tell(RailCommand::FlowUp { transfer: TRANSFER, flow: FLOW, socket, seal, direction });
    }
    let (mut to_lease, mut landed, mut before, mut after) = (pieces(bytes), 0, None, 0);
    while landed < bytes {
        let (event, allocations) = events.recv_timeout(STEP).unwrap();
        match event {
            RailNotice::Scheduler {
                event: scheduler::SchedulerEvent::Room { flow, pieces },
                ..
            } => {
                let pieces = to_lease.by_ref().take(pieces as usize).collect();
                let lease = FlowCommand::Lease { flow, pieces };
                fetcher.tell(command(TransferCommand::Flow(lease)));
            }
            RailNotice::Scheduler {
                event: scheduler::SchedulerEvent::Landed { piece, .. },
                ..
            } => landed += piece.span.bytes(),
            other => panic!("{other:?}"),
        }
        if before.is_none() && landed >= bytes / 4 {
            before = Some((allocations_of(&feeder, &feeder_events), allocations));
        }
        after = allocations;
    }
    let (feeder_before, fetcher_before) = before.unwrap();
    if files.is_some() {
        wanting.sinks[0].commit().unwrap();
    }
    let counts = (allocations_of(&feeder, &feeder_events) - feeder_before, after - fetcher_before);
    let has_ring = |transfer_files: &Arc<TransferFiles>| {
        transfer_files.tallies.iter().all(|tally| tally.paths.driver().starts_with("io_uring"))
    };
    tallied.iter().all(has_ring).then_some(counts)
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn a_rail_at_work_allocates_nothing() {
    use DataPath::{Auto, Splice, Zerocopy};
    use WireLevel::{Clear, Sealed};
    let folder = tempfile::tempdir().unwrap();
    for level in [Clear, WireLevel::Signed, Sealed] {
        let Some(counts) = allocations_at_work(folder.path(), None, 512 * MIB, level) else {
            return eprintln!("skipped: no io_uring is to be had here");
        };
        assert_eq!(counts, (0, 0), "from memory to memory, {level:?}");
    }
    let mut content = vec![0; 128 << 20];
    crate::io::store::pattern::fill(7, 0, &mut content);
    std::fs::write(folder.path().join("source"), &content).unwrap();
    for (path, level) in
        [(Auto, Clear), (Splice, Clear), (Zerocopy, Clear), (Auto, Sealed), (Zerocopy, Sealed)]
    {
        let counts = allocations_at_work(folder.path(), Some(path), 128 * MIB, level);
        let counts = counts.unwrap_or_default();
        assert_eq!(counts, (0, 0), "from file to file, {path:?}, {level:?}");
        assert!(std::fs::read(folder.path().join("destination")).unwrap() == content);
        std::fs::remove_file(folder.path().join("destination")).unwrap();
    }
}

/// A receiver that gave up thousands of pieces at once, and then everything, was never told that
/// its rail had drained.
#[test]
fn more_commands_than_a_turn_takes_may_come_with_one_waking() {
    let (rail, events) =
        rail(RailSize { slots: 2, receives: true, sends: false, block_bytes: MIB });
    for at in 0..300 {
        rail.commands.send(command(TransferCommand::Withdraw { span: Span::of(at, 1) })).unwrap();
    }
    rail.tell(command(TransferCommand::Drain));
    assert!(matches!(
        events.recv_timeout(STEP).unwrap().0,
        RailNotice::Drained { transfer: TRANSFER }
    ));
}

/// A receiver that reads no answer and asks for what nobody has: its refusals were kept without a
/// limit.
#[test]
fn who_reads_no_answers_is_cut_off_when_too_many_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (rail, _events) =
        rail(RailSize { slots: 2, receives: false, sends: true, block_bytes: MIB });
    let (offering, _) = files_of_both_ends(folder.path(), None, MIB);
    rail.tell(RailCommand::Join {
        transfer: TRANSFER,
        rail: 0,
        transfer_files: offering,
        silence: STEP,
    });
    let mut dialled = sending_flow(&rail, TRANSFER, FLOW);
    // Far more than the buffers of both sockets hold. They lie behind all that the transfer's files
    // offers.
    let ended = (0..2_000_000_u32).find_map(|request| {
        let (kind, span) = (FrameKind::Request { stolen: false }, Span::of(2 * MIB, 4096));
        let mut bytes = [0; FRAME_BYTES];
        Frame::new(kind, request, span).encode(&mut bytes);
        dialled.write_all(&bytes).err()
    });
    let ended = ended.expect("the rail closes the flow").kind();
    assert!(matches!(ended, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{ended:?}");
}

/// The rail's end of a flow over which it sends, and the receiver's socket, which waits for nothing
/// for longer than a step.
fn sending_flow(rail: &RailHandle, transfer: TransferIx, flow: FlowIx) -> TcpStream {
    let (dialled, accepted) = connection();
    let clear = WireAgreement { level: WireLevel::Clear, cipher: Cipher::Aes256Gcm };
    let [seal, _] = FlowSeal::pair(clear);
    let direction = FlowDirection::Send { weight: 1, in_clear: true, is_further: false };
    rail.tell(RailCommand::FlowUp { transfer, flow, socket: accepted, seal, direction });
    dialled.set_write_timeout(Some(STEP)).unwrap();
    dialled.set_read_timeout(Some(STEP)).unwrap();
    dialled
}

/// Requests a block and reads it. The receiver's end of the work, as plain as can be.
fn fetch(socket: &mut TcpStream, request: u32, at: u64, block: &mut [u8]) -> std::io::Result<()> {
    let asked = Frame::new(FrameKind::Request { stolen: false }, request, Span::of(at, MIB));
    let mut header = [0; FRAME_BYTES];
    asked.encode(&mut header);
    socket.write_all(&header)?;
    socket.read_exact(&mut header)?;
    let answer = Frame::decode(&header).unwrap();
    assert_eq!((answer.request, answer.span()), (request, asked.span()));
    socket.read_exact(block)
}

/// A receiver that requests one block for ever, and many that request blocks and never read them,
/// hold the slots that their transfer may have: who fetches in another one gets every block.
#[test]
fn who_requests_one_block_for_ever_and_who_never_reads_keep_no_other_transfer_waiting() {
    const HOSTILE: TransferIx = TransferIx(2);
    let folder = tempfile::tempdir().unwrap();
    let (rail, _events) =
        rail(RailSize { slots: 16, receives: false, sends: true, block_bytes: MIB });
    let (transfer_files, _) = files_of_both_ends(folder.path(), None, 64 * MIB);
    for transfer in [TRANSFER, HOSTILE] {
        let transfer_files = Arc::clone(&transfer_files);
        rail.tell(RailCommand::Join { transfer, rail: 0, transfer_files, silence: STEP });
    }
    let mut fetching = sending_flow(&rail, TRANSFER, FLOW);
    let mut insisting = sending_flow(&rail, HOSTILE, FlowIx(2));
    let mut silent: Vec<TcpStream> =
        (10..40).map(|flow| sending_flow(&rail, HOSTILE, FlowIx(flow))).collect();
    for socket in &mut silent {
        for request in 0..16 {
            let kind = FrameKind::Request { stolen: false };
            let mut header = [0; FRAME_BYTES];
            Frame::new(kind, request, Span::of(0, MIB)).encode(&mut header);
            socket.write_all(&header).unwrap();
        }
    }
    let closes = insisting.try_clone().unwrap();
    let insists = std::thread::spawn(move || {
        let mut block = vec![0; MIB as usize];
        (0..).take_while(|request| fetch(&mut insisting, *request, 0, &mut block).is_ok()).count();
    });
    let (mut block, mut expected) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    for at in 0..64 {
        fetch(&mut fetching, at, u64::from(at) * MIB, &mut block).unwrap();
        crate::io::store::pattern::fill(5, u64::from(at) * MIB, &mut expected);
        assert!(block == expected, "block {at}");
    }
    closes.shutdown(std::net::Shutdown::Both).unwrap();
    insists.join().unwrap();
}

/// A receiver sent two headers of data where it should have requested: the rail that sent to it
/// panicked, and with it failed the transfers of all others.
#[test]
fn a_receiver_that_sends_data_is_closed_and_the_rail_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (rail, events) =
        rail(RailSize { slots: 2, receives: false, sends: true, block_bytes: MIB });
    let (transfer_files, _) = files_of_both_ends(folder.path(), None, MIB);
    rail.tell(RailCommand::Join { transfer: TRANSFER, rail: 0, transfer_files, silence: STEP });
    let (mut dialled, accepted) = connection();
    let wire = WireAgreement { level: WireLevel::Sealed, cipher: Cipher::Aes256Gcm };
    let [seal, mut peer] = FlowSeal::pair(wire);
    let direction = FlowDirection::Send { weight: 1, in_clear: false, is_further: false };
    let (transfer, flow, socket) = (TRANSFER, FLOW, accepted);
    rail.tell(RailCommand::FlowUp { transfer, flow, socket, seal, direction });
    let mut headers = [[0; FRAME_BYTES]; 2];
    for header in &mut headers {
        let frame = Frame::new(FrameKind::Data(Check::None), 1, Span::of(0, 16));
        peer.sealer.seal(&frame, header, &mut [0; 16]);
    }
    dialled.set_read_timeout(Some(STEP)).unwrap();
    dialled.write_all(headers.as_flattened()).unwrap();
    let heard = dialled.read(&mut [0; FRAME_BYTES]);
    let is_closed = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
    assert!(heard.as_ref().map_or_else(is_closed, |bytes| *bytes == 0), "{heard:?}");
    rail.tell(command(TransferCommand::Drain));
    let notice = events.recv_timeout(STEP).unwrap().0;
    assert!(matches!(notice, RailNotice::Drained { transfer: TRANSFER }), "{notice:?}");
}

/// The largest blocks, and many slots of the usual ones, were more than one registered buffer may
/// hold.
#[test]
fn every_number_of_slots_that_fits_a_rail_can_be_had_and_one_more_cannot() {
    for block_bytes in [4096, 65_536, MIB, 64 * MIB] {
        let most = slots_max(block_bytes);
        let size = |slots| RailSize { slots, receives: true, sends: false, block_bytes };
        assert!(most >= 15, "{most} slots of {block_bytes}");
        assert_eq!(buffers::slots(size(most)).unwrap().slot_count(), most as usize);
        assert!(buffers::slots(size(most + 1)).is_err());
    }
}

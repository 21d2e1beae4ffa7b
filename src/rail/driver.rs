//! The loop of a rail: commands in, machines asked, operations submitted, completions handled.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use ring::{Completion, FileId, Io, Op, Pool, Stage};

use super::contexts::{Context, Contexts, Landing};
use super::desk::{Desk, Tally};
use super::feed::Loaded;
use super::paths::{Paths, Reason};
use super::sockets::{Feed, Fetch, Flow, Half};
use super::start::{Buffers, entries};
use super::{Command, Event, Mailbox, Side, Size, TransferIx};
use crate::clock::{Clock, LOOK_EVERY};
use crate::engine::credit::REQUESTS_MAX;
use crate::engine::pull::{self, Pull};
use crate::engine::relay::Relay;
use crate::engine::serve::{self, FLOW_REQUESTS_MAX, Serve};
use crate::engine::{FlowIx, owner};
use crate::error::{Code, Error};
use crate::store::OpenFile;
use crate::wire::DataPath;

/// Flows of one rail at once: each holds two cells, and three operations at most.
pub(super) const FLOWS_MAX: u32 = 96;
pub(super) const CELLS: u32 = 2 * FLOWS_MAX;
/// Room for headers and requests: a cell takes 42 of them.
pub(super) const CELL_BYTES: usize = 4096;
/// Files of one rail that the kernel is told of once: its flows, and some files with their direct
/// twins. More are named at each operation.
pub(super) const FILES_FIXED: u32 = FLOWS_MAX + 1024;
/// Landed pieces that are told to the owner together; the last ones of a flow are told at once.
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
/// Events that wait for the mailbox without its place having to grow: a batch, and what flows say
/// meanwhile.
const OUTBOX: usize = 256;
/// When a mailbox that was full is tried again.
const POST_AGAIN: Duration = Duration::from_millis(1);
/// Commands taken in one turn, so that a flood of them does not starve the ring.
const COMMANDS_MAX: usize = 256;

/// A file registered with the ring: buffered, and direct with the alignment that it wants.
pub(super) type Registered = (FileId, Option<(FileId, usize)>);

/// One transfer as this rail sees it.
pub(super) struct Tenant {
    pub(super) desk: Arc<Desk>,
    /// Which of the node's rails this is.
    rail: usize,
    pub(super) pull: Pull,
    pub(super) relay: Relay,
    /// The desk's files, registered with the ring.
    pub(super) files: Vec<Registered>,
    /// Whether a file gave less to a splice than it has: the others are read from then on.
    pub(super) splice_failed: bool,
    draining: bool,
}

impl Tenant {
    /// What this rail counts of the transfer.
    pub(super) fn tally(&self) -> &Tally {
        &self.desk.tallies[self.rail]
    }

    /// Which way the bytes of this rail took.
    pub(super) fn paths(&self) -> &Paths {
        &self.tally().paths
    }
}

/// A rail at work.
pub(super) struct Driver<I, M> {
    pub(super) clock: Clock,
    pub(super) size: Size,
    pub(super) io: I,
    pub(super) cells: Pool,
    pub(super) landing_slots: Option<Pool>,
    pub(super) serving_slots: Option<Pool>,
    pub(super) contexts: Contexts,
    pub(super) tenants: BTreeMap<TransferIx, Tenant>,
    pub(super) flows: HashMap<FlowIx, Flow>,
    pub(super) serve: Serve,
    /// Payloads whose header has arrived and that wait for a slot.
    pub(super) parked: VecDeque<Landing>,
    /// Pieces that are checked and ready to be sent.
    pub(super) loaded: HashMap<(FlowIx, u32), Loaded>,
    /// Slots that sends without a copy have, until their notices come.
    pub(super) lent: u32,
    /// Which slots hold the filler of the pattern, at which phase and for how many bytes; by
    /// address.
    pub(super) dressed: HashMap<usize, (usize, usize)>,
    /// What carries out the operations, for the report.
    driven_by: String,
    inbox: Receiver<Command>,
    mailbox: M,
    outbox: VecDeque<Event>,
    /// Whether the owner waits for what is in the outbox, or the mailbox was full.
    pub(super) urgent: bool,
}

impl<I: Io, M: Mailbox> Driver<I, M> {
    pub(super) fn new(
        clock: Clock,
        size: Size,
        io: I,
        buffers: Buffers,
        inbox: Receiver<Command>,
        mailbox: M,
    ) -> Self {
        let Buffers { cells, landing_slots, serving_slots, driven_by } = buffers;
        Driver {
            clock,
            size,
            io,
            cells,
            landing_slots,
            serving_slots,
            contexts: Contexts::new(entries(size)),
            tenants: BTreeMap::new(),
            flows: HashMap::new(),
            serve: Serve::new(size.slots),
            parked: VecDeque::with_capacity(FLOWS_MAX as usize),
            loaded: HashMap::with_capacity(2 * size.slots as usize),
            lent: 0,
            dressed: HashMap::with_capacity(2 * size.slots as usize),
            driven_by,
            inbox,
            mailbox,
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
                self.tell(Event::Failed {
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
            let now = self.clock.now();
            match command {
                Command::Join { transfer, rail, desk, silence } => {
                    self.join(transfer, rail, desk, silence)
                }
                Command::FlowUp { transfer, flow, socket, side } => {
                    self.flow_up(transfer, flow, socket, side)
                }
                Command::Lease { transfer, flow, pieces } => {
                    self.pull(transfer, |pull| {
                        pull.handle(now, pull::Event::Lease { flow, pieces })
                    });
                }
                Command::Revoke { transfer, flow, pieces } => {
                    self.pull(transfer, |pull| {
                        pull.handle(now, pull::Event::Revoke { flow, pieces })
                    });
                }
                Command::Offer { transfer, span } => self.offer(transfer, span),
                Command::Withdraw { transfer, span } => self.withdraw(transfer, span),
                Command::Close { flow } => {
                    self.close(flow, Error::new(Code::Cancelled, "not needed any more"))
                }
                Command::Drain { transfer } => self.drain(transfer),
                Command::Leave { transfer } => self.leave(transfer),
                Command::Stop => return false,
            }
        }
        true
    }

    fn pull(&mut self, transfer: TransferIx, with: impl FnOnce(&mut Pull)) {
        if let Some(tenant) = self.tenants.get_mut(&transfer) {
            with(&mut tenant.pull);
        }
    }

    fn join(&mut self, transfer: TransferIx, rail: usize, desk: Arc<Desk>, silence: Duration) {
        let mut files = Vec::with_capacity(desk.files().count());
        for file in desk.files() {
            match self.register(file, desk.path) {
                Ok(registered) => files.push(registered),
                Err(error) => {
                    // Without its files it is nobody's transfer here: its flows are refused.
                    self.unregister(files);
                    let what = format!("this rail cannot take in the transfer's files: {error}");
                    let error = Error::new(Code::Data, what)
                        .remedy("give the node more descriptors (ulimit -n)");
                    return self.tell(Event::Broken { transfer, error });
                }
            }
        }
        let pull = Pull::new(self.size.block_bytes, silence);
        let tenant = Tenant {
            desk,
            rail,
            pull,
            relay: Relay::default(),
            files,
            splice_failed: false,
            draining: false,
        };
        tenant.paths().driven_by(&self.driven_by);
        if tenant.desk.path == DataPath::Direct
            && tenant.files.iter().any(|(_, direct)| direct.is_none())
        {
            tenant.paths().because(Reason::NoDirect);
        }
        self.tenants.insert(transfer, tenant);
    }

    fn register(&mut self, file: &OpenFile, path: DataPath) -> std::io::Result<Registered> {
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

    fn unregister(&mut self, files: Vec<Registered>) {
        for (buffered, direct) in files {
            for file in [Some(buffered), direct.map(|(file, _)| file)].into_iter().flatten() {
                // It fails only for a file that is not registered; the ring sees to all else.
                let _ = self.io.unregister(file);
            }
        }
    }

    fn flow_up(&mut self, transfer: TransferIx, flow: FlowIx, socket: OwnedFd, side: Side) {
        let broken = |error: String| owner::Event::FlowDown {
            flow,
            error: Error::new(Code::Unreachable, error),
        };
        let fetches = matches!(side, Side::Fetch { .. });
        let joined = self.tenants.get(&transfer).is_some_and(|tenant| !tenant.draining || !fetches);
        let registered = match joined && self.flows.len() < FLOWS_MAX as usize {
            true => self.io.register(socket).map_err(|error| error.to_string()),
            false => Err("this rail has no room for another flow".into()),
        };
        let socket = match registered {
            Ok(socket) => socket,
            Err(error) if fetches => {
                return self.tell(Event::Owner { transfer, event: broken(error) });
            }
            Err(_) => return,
        };
        let now = self.clock.now();
        let half = match side {
            Side::Fetch { .. } => {
                let wake_bytes_max = self.io.widen(socket, UNREAD_BYTES).unwrap_or(0);
                let requests = VecDeque::with_capacity(REQUESTS_MAX as usize);
                Half::Fetch(Fetch { requests, asking: false, wake_bytes_max })
            }
            Side::Feed { .. } => Half::Feed(Feed {
                answers: VecDeque::with_capacity(FLOW_REQUESTS_MAX),
                ..Feed::default()
            }),
        };
        self.flows.insert(flow, Flow { transfer, socket, half });
        self.keep_unsent();
        match side {
            Side::Fetch { relays } => {
                self.pull(transfer, |pull| pull.handle(now, pull::Event::FlowUp { flow, relays }));
                self.receive_header(flow);
            }
            Side::Feed { weight } => {
                self.serve.handle(serve::Event::FlowUp { flow, weight });
                self.receive_requests(flow, None);
            }
        }
    }

    /// Keeps what waits in the sockets of the flows that feed short, so that who is served next is
    /// decided here, by weight, and not by how much of it each socket has swallowed.
    fn keep_unsent(&mut self) {
        let feeds = || self.flows.values().filter(|flow| matches!(flow.half, Half::Feed(_)));
        let bytes =
            (UNSENT_BYTES / feeds().count().max(1).next_power_of_two()).max(UNSENT_BYTES_MIN);
        for flow in feeds() {
            // A kernel that does not know the option shares the rail by what sockets hold, as it
            // always has.
            let _ = self.io.keep_unsent(flow.socket, bytes);
        }
    }

    fn drain(&mut self, transfer: TransferIx) {
        let is_fetch =
            |flow: &Flow| flow.transfer == transfer && matches!(flow.half, Half::Fetch(_));
        let flows: Vec<FlowIx> =
            self.flows.iter().filter(|(_, flow)| is_fetch(flow)).map(|(&flow, _)| flow).collect();
        for flow in flows {
            self.close(flow, Error::new(Code::Cancelled, "everything has landed"));
        }
        match self.tenants.get_mut(&transfer) {
            Some(tenant) => tenant.draining = true,
            None => self.tell(Event::Drained { transfer }),
        }
    }

    /// Says so where a draining transfer has nothing in flight any more.
    fn drain_ended(&mut self) {
        let Driver { tenants, contexts, .. } = self;
        let mut draining = tenants.iter_mut().filter(|(_, tenant)| tenant.draining);
        while let Some((&transfer, tenant)) =
            draining.find(|(transfer, _)| !contexts.lands(**transfer))
        {
            tenant.draining = false;
            self.outbox.push_back(Event::Drained { transfer });
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
        if let Some(tenant) = self.tenants.remove(&transfer) {
            self.unregister(tenant.files);
        }
    }

    /// Asks every machine what it wants, until none wants anything.
    pub(super) fn follow(&mut self) {
        loop {
            let mut idle = true;
            let mut next = self.tenants.first_key_value().map(|(&transfer, _)| transfer);
            while let Some(transfer) = next {
                while let Some(event) =
                    self.tenants.get_mut(&transfer).and_then(|tenant| tenant.pull.poll_owner())
                {
                    self.tell(Event::Owner { transfer, event });
                }
                while let Some(action) =
                    self.tenants.get_mut(&transfer).and_then(|tenant| tenant.pull.poll_action())
                {
                    idle = false;
                    self.fetch(transfer, action);
                }
                let after = (Bound::Excluded(transfer), Bound::Unbounded);
                next = self.tenants.range(after).next().map(|(&transfer, _)| transfer);
            }
            while let Some(action) = self.serve.poll_action() {
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
        if stage == Stage::NoticeFollows {
            self.sent_lent(token, result);
            return self.follow();
        }
        match self.contexts.take(token) {
            Context::Header { flow } => self.header_received(flow, result, slot),
            Context::Payload { landing, done } => {
                self.payload_received(landing, done, result, slot)
            }
            Context::Write { landing, sink, step, done } => {
                self.wrote(landing, (sink, step, done), result, slot)
            }
            Context::Asking { flow } => self.asked(flow, result),
            Context::Requests { flow } => self.requests_received(flow, result, slot),
            Context::Load { loading, way, done } => self.read(loading, way, done, result, slot),
            Context::Answer(sending) => match stage {
                Stage::Notice { copied } => self.given_back(sending, copied, slot),
                Stage::Done | Stage::NoticeFollows => self.answered(sending, result, slot),
            },
        }
        self.follow();
    }

    /// Hands an operation to the ring. Where the ring refuses it, its slot goes back to its pool.
    pub(super) fn submit(&mut self, context: Context, op: Op) -> Result<(), Error> {
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
        self.keep_unsent();
        match state.half {
            Half::Fetch(_) => {
                let now = self.clock.now();
                self.pull(state.transfer, |pull| {
                    pull.handle(now, pull::Event::FlowDown { flow, error })
                });
            }
            Half::Feed(feed) => {
                // What stood in line has left the machine as sent; its slots are free with the
                // pieces.
                let pieces = feed
                    .answers
                    .iter()
                    .filter(|answer| matches!(answer, super::sockets::Answer::Piece(_)));
                let waiting = pieces.count();
                for _ in 0..waiting {
                    self.serve.handle(serve::Event::Sent { flow });
                }
                self.loaded.retain(|(of, _), _| *of != flow);
                if let Some(tenant) = self.tenants.get_mut(&state.transfer) {
                    tenant.relay.flow_down(flow);
                }
                self.serve.handle(serve::Event::FlowDown { flow });
            }
        }
    }

    /// Puts an event into the outbox.
    pub(super) fn tell(&mut self, event: Event) {
        self.urgent |= !matches!(event, Event::Owner { event: owner::Event::Landed { .. }, .. });
        self.outbox.push_back(event);
    }

    /// Delivers the outbox, once somebody waits for what is in it.
    fn post(&mut self) {
        let quiet = self.contexts.is_quiet();
        if !self.outbox.is_empty() && (self.urgent || quiet || self.outbox.len() >= LANDED_BATCH) {
            self.mailbox.deliver(&mut self.outbox);
            self.urgent = !self.outbox.is_empty();
        }
    }

    /// Delivers everything before the thread ends, unless the control thread ends it.
    fn post_all(&mut self) {
        loop {
            self.mailbox.deliver(&mut self.outbox);
            let told = self.inbox.recv_timeout(POST_AGAIN);
            if self.outbox.is_empty()
                || matches!(told, Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected))
            {
                return;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let due = self.tenants.values().filter_map(|tenant| tenant.pull.poll_timeout()).min();
        let due = due.map(|due| due.since(self.clock.now()).min(LOOK_EVERY));
        // The mailbox was full, and nobody says when it is not.
        let again = self.urgent.then_some(POST_AGAIN);
        // More commands than a turn takes may have come with one waking.
        let more = (!self.inbox.is_empty()).then_some(Duration::ZERO);
        due.into_iter().chain(again).chain(more).min()
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        for tenant in self.tenants.values_mut() {
            if tenant.pull.poll_timeout().is_some_and(|due| now >= due) {
                tenant.pull.handle(now, pull::Event::Tick);
            }
        }
    }
}

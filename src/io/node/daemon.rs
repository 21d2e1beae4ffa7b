//! The node, and one turn of its control thread: wait, take in what came, hand it to the machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Token, Waker};

use super::file_workers::FileWorkers;
use super::flow_opener::FlowOpener;
use super::inbox::{EventSender, InboxEvent};
use super::intake::{ConnectionIntake, EndedConnection, INBOX, SessionStep, session_ix};
use super::listening::ListenAddresses;
use super::node_stop::{NodeStop, NodeWishes};
use super::node_transfer::NodeTransfer;
use super::options::NodeOptions;
use super::port_rails::RailSerial;
use super::port_set::PortSet;
use super::sessions::SessionRole;
use super::surveys::NodeSurveys;
use super::transfer_flows::TransferFlows;
use super::{confinement, ports, transfer_log};
use crate::core::error::{Code, Error, Result};
use crate::core::node::machine::{JobAnswer, NodeEvent, NodeMachine};
use crate::core::node::ready_line;
use crate::core::piece::TransferIx;
use crate::core::rail::RailNotice;
use crate::io::clock::{Clock, LOOK_EVERY, awake, wait_until};
use crate::io::confine::Confinement;
use crate::io::log;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::session::{descriptors, strangers};

/// Time that a node that ends waits for workers that are still opening or naming files.
const WIND_DOWN_WITHIN: Duration = Duration::from_secs(5);
/// Notes that wait for the control thread. It never waits for those who write them; rails keep back
/// what does not fit.
const NOTES_MAX: usize = 1024;

/// A running node.
pub(super) struct Node {
    pub(super) options: NodeOptions,
    pub(super) clock: Clock,
    poll: Poll,
    pub(super) intake: ConnectionIntake,
    /// Ends of flows, one for each thread of each NIC.
    pub(super) ports: PortSet,
    pub(super) opener: FlowOpener,
    pub(super) transfers: BTreeMap<TransferIx, NodeTransfer>,
    /// Files of transfers that are over, until their masters say good-bye.
    pub(super) remembered: BTreeMap<TransferIx, Arc<TransferFiles>>,
    pub(super) surveys: NodeSurveys,
    /// The machine that decides.
    pub(super) machine: NodeMachine,
    inbox: Receiver<InboxEvent>,
    wishes: NodeWishes,
    pub(super) ends: bool,
    pub(super) workers: FileWorkers,
    confinement: Confinement,
}

/// Runs a node until it is stopped. `on_start` gets the handle that stops it; an error of it ends
/// the node at once.
///
/// # Errors
/// `Code::Unreachable` where the port is in use, `Code::Refused` where it would listen beyond this
/// machine without a key, `Code::Usage` where a root is missing.
pub(crate) fn run(
    options: NodeOptions,
    on_start: impl FnOnce(NodeStop) -> Result<()>,
) -> Result<()> {
    // The control thread has one, and short-lived workers share the other. Rails allocate nothing
    // while bytes move.
    affinity::share_arenas(2);
    let mut node = Node::new(options, on_start)?;
    announce(&node)?;
    while !node.ends {
        node.turn()?;
    }
    node.wind_down();
    tracing::info!(transfers = node.transfers.len(), "ends");
    Ok(())
}

/// Says on standard output where it listens: a launcher waits for that line.
fn announce(node: &Node) -> Result<()> {
    let address = node.intake.control().local_addr();
    let address =
        address.map_err(|error| Error::new(Code::Internal, format!("no address: {error}")))?;
    // A launcher that is gone is noticed by the lease, and a log that cannot be written is no
    // reason to stop.
    let line = if address.ip().is_unspecified() && node.options.launched {
        let rails = node.ports.adverts().into_iter();
        let at = rails.map(|rail| SocketAddr::new(rail.address.ip(), address.port()));
        ready_line::print_all(&at.collect::<Vec<SocketAddr>>())
    } else {
        ready_line::print(address)
    };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    drop(out);
    transfer_log::log_start(address, node.ports.nics(), &node.options, &node.confinement);
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err passes")]
fn no_event_queue(error: std::io::Error) -> Error {
    let what = Error::new(Code::Internal, format!("no event queue: {error}"));
    crate::io::system_calls::perhaps_filtered(what, &error, "epoll or eventfd2")
}

impl Node {
    fn new(
        mut options: NodeOptions,
        on_start: impl FnOnce(NodeStop) -> Result<()>,
    ) -> Result<Node> {
        let descriptors = descriptors::raise(u64::MAX);
        // Each transfer opens them; that they are there is found out now.
        options.roots.check()?;
        let poll = Poll::new().map_err(no_event_queue)?;
        let (mut listening, control) = ListenAddresses::at(options.listen, options.ports)?;
        let (ports, data) = ports::open(&options, &mut listening)?;
        let listeners = std::iter::once(control).chain(data).collect();
        let (notes, inbox) = crossbeam_channel::bounded(NOTES_MAX);
        let waker = Waker::new(poll.registry(), INBOX).map_err(no_event_queue)?;
        let post = EventSender::new(notes, waker);
        let (wishes, stop) = NodeWishes::new(post.clone());
        // All that only an unconfined process can do is done, and there is no other thread yet.
        let confinement = confinement::begin(&mut options)?;
        log::write_apart();
        on_start(stop)?;
        let clock = Clock::start();
        let ports = PortSet::new(ports, listening, clock, post.clone());
        let nics = ports.nics().into_iter().map(str::to_owned).collect();
        let advert = NodeOptions::advert(ports.adverts());
        let surveys = NodeSurveys::new(&options, &advert.boot_id);
        let intake = ConnectionIntake::new(
            poll.registry().try_clone().map_err(no_event_queue)?,
            listeners,
            options.access.clone(),
            advert,
            strangers::share(descriptors),
        );
        Ok(Node {
            clock,
            poll,
            intake: intake.map_err(no_event_queue)?,
            ports,
            opener: FlowOpener::new(options.beats),
            transfers: BTreeMap::new(),
            remembered: BTreeMap::new(),
            surveys,
            machine: options.machine(clock.now(), nics),
            inbox,
            wishes,
            ends: false,
            workers: FileWorkers::start(&options, post)?,
            options,
            confinement,
        })
    }

    /// Waits for the workers: what they have made is removed with their notes, and would stay
    /// behind without them.
    fn wind_down(&mut self) {
        self.transfers.values().for_each(NodeTransfer::quit);
        self.workers.let_go(self.surveys.take_all());
        let deadline = awake() + WIND_DOWN_WITHIN;
        while self.workers.are_busy() {
            let Some(note) = wait_until(deadline, |wait| self.inbox.recv_timeout(wait).ok()) else {
                return;
            };
            self.workers.note(&note);
        }
    }

    fn turn(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(256);
        match self.poll.poll(&mut events, self.timeout()) {
            Ok(()) => {}
            // A process that was stopped and continues sees what has come before it judges who is
            // late.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => {
                return Err(Error::new(Code::Internal, format!("the event queue failed: {error}")));
            }
        }
        let now = awake();
        for event in &events {
            match event.token() {
                INBOX => self.read_inbox(),
                token if self.intake.wake(token, now) => {}
                session => self.session_ready(session),
            }
        }
        let mut turn = self.intake.begin_turn(now);
        while let Some(session) = self.intake.accept_next(&mut turn, &mut self.ports) {
            self.session_ready(session);
        }
        self.tick();
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let now = awake();
        let way = self.transfers.values().filter_map(|it| it.flows.way_due()).min();
        let instants = [self.intake.due(), way, self.ports.idle_due()].into_iter().flatten();
        let instants = instants.map(|due| due.saturating_duration_since(now));
        let machine = self.machine.poll_timeout().map(|due| due.since(self.clock.now()));
        let due = instants.chain(machine).min();
        // Whoever has a transfer under way looks at the clock often, so that it notices being
        // stopped.
        let look = (due.is_some() || !self.transfers.is_empty()).then_some(LOOK_EVERY);
        due.into_iter().chain(look).min()
    }

    fn tick(&mut self) {
        let now = awake();
        while let Some(wish) = self.wishes.next() {
            self.handle(wish);
        }
        while let Some(token) = self.intake.next_over(now) {
            self.session_ready(token);
            if let Some(broken) = self.intake.end_overdue(token, now) {
                self.session_over(broken);
            }
        }
        let moment = self.clock.now();
        if self.machine.poll_timeout().is_some_and(|due| moment >= due) {
            self.handle(NodeEvent::Tick);
        }
        self.try_due_ways(now);
        let idle = self.ports.take_idle(now);
        self.end_rails(idle);
    }

    /// Tries the ways to open flows whose time has come.
    fn try_due_ways(&mut self, now: Instant) {
        let due = |(&transfer, it): (&TransferIx, &NodeTransfer)| {
            it.flows.due(now).map(|place| (transfer, place)).collect::<Vec<_>>()
        };
        for (transfer, place) in self.transfers.iter().flat_map(due).collect::<Vec<_>>() {
            let flows = self.transfers.get(&transfer).map(|it| &it.flows);
            let slow = flows.and_then(|it| it.slow(place, awake(), |port| self.ports.nic_of(port)));
            if let Some(event) = slow {
                self.handle(NodeEvent::Flow { transfer, event });
            }
            self.for_flows(|desk| desk.advance(transfer, place));
        }
    }

    pub(super) fn session_ready(&mut self, token: Token) {
        match self.intake.advance(token) {
            None => {}
            Some(SessionStep::FlowArrived { listener, connection }) => {
                self.for_flows(|desk| desk.arrived(listener, connection));
            }
            Some(SessionStep::FlowOpened { dialled, connection }) => {
                self.for_flows(|desk| desk.opened(dialled, connection));
            }
            Some(SessionStep::MasterUp { origin }) => {
                self.handle(NodeEvent::SessionUp { session: session_ix(token), origin });
                self.master_ready(token);
            }
            Some(SessionStep::MasterReady) => self.master_ready(token),
            Some(SessionStep::Over(broken)) => self.session_over(broken),
        }
    }

    /// A session ended: its transfer or its flow ends with it.
    fn session_over(&mut self, broken: EndedConnection) {
        let EndedConnection { token, role, error } = broken;
        match role {
            SessionRole::Visitor { .. } | SessionRole::Leaving => {}
            SessionRole::Flow(dialled) => {
                self.for_flows(|desk| desk.way_failed(dialled, error));
            }
            SessionRole::Master => {
                self.handle(NodeEvent::SessionBroken { session: session_ix(token) });
            }
        }
    }

    /// A master says something, or its session ends.
    fn master_ready(&mut self, token: Token) {
        while let Some(event) = self.intake.hear_master(token) {
            let event = self.intake.judge_resume(event);
            self.handle(event);
        }
    }

    fn read_inbox(&mut self) {
        while let Ok(event) = self.inbox.try_recv() {
            self.workers.note(&event);
            match event {
                InboxEvent::Rail { port, serial, report } => self.rail_says(port, serial, report),
                InboxEvent::Reading { transfer, read_bytes } => {
                    self.handle(NodeEvent::Reading { transfer, read_bytes });
                }
                InboxEvent::Opened { transfer, result } => self.opened(transfer, result),
                InboxEvent::Worker { transfer, answer } => {
                    if let JobAnswer::Preallocated(_) = answer {
                        self.reopen_files(transfer);
                    }
                    self.handle(NodeEvent::Worker { transfer, answer });
                }
                InboxEvent::Surveyed { session, result } => {
                    let answers = self.surveys.keep(session, result);
                    self.handle(NodeEvent::Surveyed { session, answers });
                }
                InboxEvent::Rested => self.handle(NodeEvent::RailsEnded),
                InboxEvent::Done => {}
            }
        }
    }

    /// Takes in what a rail says.
    fn rail_says(&mut self, port: usize, serial: RailSerial, report: RailNotice) {
        let event = match report {
            RailNotice::Scheduler { transfer, event } => {
                self.flows_of(transfer).into_iter().for_each(|flows| flows.note(&event));
                NodeEvent::Flow { transfer, event }
            }
            RailNotice::Broken { transfer, error } => NodeEvent::Broken { transfer, error },
            RailNotice::Drained { transfer } => NodeEvent::Drained { transfer, rail: port },
            RailNotice::Failed { error } => return self.rail_failed(port, serial, error),
        };
        self.handle(event);
    }

    /// A rail has failed. Transfers that receive over it end with its error; the peers of those
    /// that only send notice by themselves, and go on over the other rails.
    fn rail_failed(&mut self, rail: usize, serial: RailSerial, error: Error) {
        let Some((handle, transfers)) = self.ports.remove_failed(rail, serial) else {
            return;
        };
        // Dropping it waits for its thread, which may have files to close.
        self.workers.let_go(handle);
        log::say(&format!("a rail of {} failed: {error}", self.ports.nic_of(rail)));
        self.handle(NodeEvent::RailFailed { rail, transfers, error });
    }

    pub(super) fn flows_of(&mut self, transfer: TransferIx) -> Option<&mut TransferFlows> {
        self.transfers.get_mut(&transfer).map(|node_transfer| &mut node_transfer.flows)
    }
}

//! One turn of the control thread: wait, take in what came, carry out what the participants want.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Token};

use super::lease::LEASE;
use super::node_transfer::{NodeEvent, NodeTransfer, RailPost};
use super::{CONTROL, FIRST_PORT, FIRST_SESSION, INBOX};
use super::{Node, NodeSession, SessionRole, keeping, prepare, transfer_log};
use crate::core::error::{Code, Error, Result};
use crate::core::node::participant;
use crate::core::node::participant::{ParticipantAction, ParticipantState};
use crate::core::piece::TransferIx;
use crate::core::rail::TransferCommand;
use crate::core::store::io_steps::PAGE_BYTES;
use crate::core::units::MIB;
use crate::core::wire::control::{ToMaster, ToNode};
use crate::core::wire::version::ConnectionKind;
use crate::io::clock::{LOOK_EVERY, awake};
use crate::io::rail::{RailCommand, RailHandle, RailSize, slots_max};
use crate::io::session::Connection;
use crate::io::store::Sink;

/// What the master asks for, within what the node allows and one rail can have, shared by its
/// rails.
fn slots(asked: Option<u32>, allowed: Option<u32>, rails: usize, block_bytes: u64) -> u32 {
    let slots = asked.or(allowed).unwrap_or(SLOTS).min(allowed.unwrap_or(u32::MAX));
    let each = slots / u32::try_from(rails).expect("ports are few");
    let each = match asked.or(allowed) {
        Some(_) => each.max(2),
        // Nobody asked for gigabytes.
        None => {
            each.min(u32::try_from(SLOTS_BYTES / block_bytes).unwrap_or(SLOTS)).max(SLOTS_EACH_MIN)
        }
    };
    // No transfer may hold the last slot of a rail. One in a few would be missed.
    let spare = u32::from(each < SLOTS_FEW);
    (each + spare).min(slots_max(block_bytes))
}

/// How long rails that end are waited for.
const REST_WITHIN: Duration = Duration::from_secs(2);
/// How long a good-bye may be on its way.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// Slots of a rail where nobody says: one on the wire, one being checked or written, and as much
/// again.
const SLOTS_EACH_MIN: u32 = 4;
/// Fewer slots than this are few.
const SLOTS_FEW: u32 = 8;
/// Slots of each kind where nobody says: with 1 MiB blocks, 32 MiB for a node that sends and
/// receives.
const SLOTS: u32 = 16;
/// The same in bytes, which large blocks come to before.
const SLOTS_BYTES: u64 = 256 * MIB;

/// What a node with so many rails locks where nobody says how many slots: those that serve and
/// those that receive, a block of 1 MiB with a page of slack at either end each, and each rail's
/// cells and rings.
pub(crate) fn locked_bytes(rails: usize) -> u64 {
    let rails = rails.max(1);
    let slot_bytes = MIB + 2 * PAGE_BYTES as u64;
    rails as u64 * (2 * u64::from(slots(None, None, rails, MIB)) * slot_bytes + RAIL_BYTES)
}

/// A rail's cells (1 MiB), and the queues of its ring.
const RAIL_BYTES: u64 = MIB + 256 * 1024;

impl Node {
    pub(super) fn turn(&mut self) -> Result<()> {
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
                CONTROL => self.listener(None).wake(now),
                INBOX => self.take_notes(),
                Token(token) if token < FIRST_SESSION => {
                    self.listener(Some(token - FIRST_PORT)).wake(now)
                }
                session => self.session_ready(session),
            }
        }
        self.accept(now);
        self.tick();
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let now = awake();
        let leases = self
            .alone_since
            .map(|since| since + LEASE)
            .into_iter()
            .chain(self.lease_due())
            .chain(self.stops);
        let leases = leases.chain(self.way_due()).chain(self.resting);
        let instants = self.sessions.due().into_iter().chain(self.arrivals_due()).chain(leases);
        let instants = instants.map(|due| due.saturating_duration_since(now));
        let moment = self.clock.now();
        let participants = self
            .transfers
            .values()
            .filter_map(|node_transfer| node_transfer.participant.poll_timeout());
        let due = instants.chain(participants.map(|due| due.since(moment))).min();
        // Whoever has a transfer under way looks at the clock often, so that it notices being
        // stopped.
        let look = (due.is_some() || !self.transfers.is_empty()).then_some(LOOK_EVERY);
        due.into_iter().chain(look).min()
    }

    fn tick(&mut self) {
        let now = awake();
        if self.stopped.swap(false, Ordering::AcqRel) {
            self.stop();
        }
        while let Some(token) = self.sessions.next_over(now) {
            // Its event may be among those that this turn had no time for.
            self.session_ready(token);
            // A flow that is connected at last has the time of its handshake before it.
            let is_dialled =
                |session: &NodeSession| matches!(session.role, SessionRole::Flow { .. });
            let goes_on = |session: &NodeSession| {
                is_dialled(session) && session.connection.deadline().is_none_or(|due| due > now)
            };
            let is_over = |session: &&NodeSession| !session.connection.is_up() && !goes_on(session);
            if let Some(session) = self.sessions.get(token).filter(is_over) {
                let error = session.connection.overdue();
                self.session_over(token, error);
            }
        }
        let moment = self.clock.now();
        let due = |node_transfer: &NodeTransfer| {
            node_transfer.participant.poll_timeout().is_some_and(|due| moment >= due)
        };
        let due = self
            .transfers
            .iter()
            .filter(|(_, node_transfer)| due(node_transfer))
            .map(|(&transfer, _)| transfer);
        for transfer in due.collect::<Vec<_>>() {
            self.participant(transfer, participant::ParticipantEvent::Tick);
        }
        self.try_due_ways(now);
        self.end_leases(now);
        if self.resting.is_some_and(|until| now >= until) {
            self.rested();
        }
        let is_over = |since: Instant| now >= since;
        self.ends |= self.alone_since.is_some_and(|since| is_over(since + LEASE))
            || self.stops.is_some_and(is_over);
    }

    /// Takes in a connection that was dialled.
    pub(super) fn add_session(
        &mut self,
        token: Token,
        connection: Result<Connection>,
        role: SessionRole,
    ) {
        assert!(token.0 >= FIRST_SESSION, "the first tokens are the listeners'");
        let registered = connection.and_then(|mut connection| {
            connection.register(self.poll.registry(), token)?;
            Ok(connection)
        });
        match registered {
            Ok(connection) => {
                self.sessions.insert(token, NodeSession { connection, role });
                self.session_ready(token);
            }
            Err(error) => self.role_over(role, error),
        }
    }

    pub(super) fn session_ready(&mut self, token: Token) {
        let Some(session) = self.sessions.get_mut(token) else { return };
        if let Err(error) = session.connection.ready(&self.keyring) {
            return self.session_over(token, error);
        }
        self.sessions.settle(token);
        let Some(session) = self.sessions.get_mut(token) else { return };
        if !session.connection.is_up() {
            return;
        }
        let kind = session.connection.hello().map(|hello| hello.kind);
        match (session.role, kind) {
            (SessionRole::Visitor { port: Some(port), .. }, Some(ConnectionKind::Data)) => {
                self.flow_arrived(token, port)
            }
            (SessionRole::Flow { transfer, rail_pair, way }, _) => {
                self.flow_opened(token, transfer, rail_pair, way)
            }
            // Flows belong to the NICs' own ports. A master may come over any of them: its first
            // way may be gone.
            (SessionRole::Visitor { port: None, .. }, Some(ConnectionKind::Data)) => {
                self.sessions.remove(token);
            }
            (SessionRole::Visitor { .. }, _) => {
                session.role = SessionRole::Master { transfer: None };
                self.alone_since = None;
                self.master_ready(token);
            }
            (SessionRole::Master { .. }, _) => self.master_ready(token),
            (SessionRole::Leaving, _) => {}
        }
    }

    /// A session ended: its transfer or its flow ends with it.
    pub(super) fn session_over(&mut self, token: Token, error: Error) {
        if let Some(session) = self.sessions.remove(token) {
            if let SessionRole::Visitor { from, .. } = session.role {
                transfer_log::log_refused(from, &error);
            }
            self.role_over(session.role, error);
        }
    }

    fn role_over(&mut self, role: SessionRole, error: Error) {
        match role {
            SessionRole::Visitor { .. } | SessionRole::Leaving => {}
            SessionRole::Flow { transfer, rail_pair, way } => {
                self.flow_failed(transfer, rail_pair, way, error)
            }
            SessionRole::Master { transfer } => self.master_lost(transfer),
        }
    }

    fn take_notes(&mut self) {
        while let Ok(note) = self.inbox.try_recv() {
            self.workers.busy -= usize::from(note.is_work());
            match note {
                NodeEvent::Rail { port, serial, report } => self.rail_says(port, serial, report),
                NodeEvent::Prepared { transfer, result } if self.resting.is_some() => {
                    self.opened_early.push((transfer, result));
                }
                NodeEvent::Prepared { transfer, result } => self.opened(transfer, result),
                NodeEvent::Comparing { transfer, read_bytes }
                    if self.transfers.contains_key(&transfer) =>
                {
                    self.tell_master(transfer, ToMaster::Comparing { read_bytes });
                }
                NodeEvent::Preallocated { transfer, result } => {
                    self.reopen_files(transfer);
                    self.participant(transfer, participant::ParticipantEvent::Preallocated(result))
                }
                NodeEvent::Committed { transfer, result } => {
                    self.participant(transfer, participant::ParticipantEvent::Committed(result))
                }
                NodeEvent::Kept { transfer } => {
                    self.participant(transfer, participant::ParticipantEvent::Kept)
                }
                NodeEvent::Left { transfer } => {
                    self.participant(transfer, participant::ParticipantEvent::Left)
                }
                NodeEvent::Cleared { transfer, sources } => self.cleared(transfer, sources),
                NodeEvent::Confirmed { id, session } => self.confirmed(&id, session),
                NodeEvent::Rested => self.rested(),
                NodeEvent::Comparing { .. } | NodeEvent::Done => {}
            }
        }
    }

    /// A signal asks the node to end. Whoever launched it says good-bye first, and that may be on
    /// its way still: without it the node would leave records of files that everybody knows are
    /// complete.
    fn stop(&mut self) {
        let is_complete = |node_transfer: &NodeTransfer| {
            node_transfer.participant.state() == ParticipantState::Landed
        };
        if self.options.launched && self.transfers.values().any(is_complete) {
            self.stops = Some(awake() + GOODBYE_WITHIN);
        } else {
            self.ends = true;
        }
    }

    fn opened(&mut self, transfer: TransferIx, result: Result<Box<prepare::OpenedTransfer>>) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        let opened = match result {
            Ok(opened) => opened,
            Err(error) => {
                return self
                    .participant(transfer, participant::ParticipantEvent::Prepared(Err(error)));
            }
        };
        let prepare::OpenedTransfer { transfer_files, prepared, found, claims } = *opened;
        node_transfer.claims = claims;
        let transfer_files = Arc::new(transfer_files);
        node_transfer.transfer_files = Some(Arc::clone(&transfer_files));
        let wait = node_transfer.prepare.options.silence();
        let ports = node_transfer.ports.clone();
        let size = RailSize {
            slots: slots(
                node_transfer.prepare.options.slots,
                self.options.slots,
                ports.len(),
                node_transfer.prepare.options.block_bytes.into(),
            ),
            receives: !transfer_files.sinks.is_empty(),
            sends: !transfer_files.offers.is_empty(),
            block_bytes: node_transfer.prepare.options.block_bytes.into(),
        };
        let (clock, post) = (self.clock, self.post.clone());
        let joined = ports.into_iter().try_for_each(|rail| {
            let joins = RailCommand::Join {
                transfer,
                rail,
                transfer_files: Arc::clone(&transfer_files),
                silence: wait,
            };
            self.ports[rail]
                .rail_for(transfer, clock, size, |serial| RailPost::new(&post, rail, serial))
                .map(|rail| rail.tell(joins))
        });
        if let Some(found) = found {
            self.participant(transfer, participant::ParticipantEvent::Found(found));
        }
        self.participant(
            transfer,
            participant::ParticipantEvent::Prepared(joined.map(|()| prepared)),
        );
    }

    /// Hands an event to a participant, and carries out what it wants.
    pub(super) fn participant(
        &mut self,
        transfer: TransferIx,
        event: participant::ParticipantEvent,
    ) {
        let now = self.clock.now();
        if let participant::ParticipantEvent::Master(ToNode::Cancel { reason, .. }) = &event {
            self.log_failure(transfer, &Error::new(Code::Cancelled, reason));
        }
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        if matches!(
            event,
            participant::ParticipantEvent::Master(ToNode::Cancel { .. } | ToNode::Finish)
        ) {
            node_transfer.quit();
        }
        node_transfer.forgets |= matches!(
            event,
            participant::ParticipantEvent::Master(ToNode::Cancel { forgets: true, .. })
        );
        node_transfer.participant.handle(now, event);
        self.follow(transfer);
    }

    /// Carries out what a participant wants, until it wants nothing or has to wait for a worker.
    fn follow(&mut self, transfer: TransferIx) {
        let next = |node_transfer: &mut NodeTransfer| {
            if node_transfer.clearing { None } else { node_transfer.participant.poll_action() }
        };
        while let Some(action) = self.transfers.get_mut(&transfer).and_then(next) {
            self.carry_out(transfer, action);
        }
    }

    /// Has a worker do something to all files that a transfer writes, and look at its sources,
    /// before anything else.
    pub(super) fn clear(&mut self, transfer: TransferIx, with: impl Fn(&Sink) + Send + 'static) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        let Some(transfer_files) = node_transfer.transfer_files.clone() else { return };
        node_transfer.clearing = true;
        let claims = std::mem::take(&mut node_transfer.claims);
        let work = move || {
            drop(claims);
            transfer_files.sinks.iter().for_each(with);
            // A source that was written to meanwhile may have been sent half old, half new.
            transfer_files.offers.iter().try_for_each(|offer| offer.source.check_unchanged())
        };
        self.workers
            .run(Some(transfer), work, move |sources| NodeEvent::Cleared { transfer, sources });
    }

    fn cleared(&mut self, transfer: TransferIx, sources: Result<()>) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        node_transfer.clearing = false;
        node_transfer.sources = sources;
        self.follow(transfer);
    }

    fn carry_out(&mut self, transfer: TransferIx, action: ParticipantAction) {
        let node_transfer = &self.transfers[&transfer];
        match action {
            ParticipantAction::Preallocate { wanted, holes, kept, forgets } => {
                let transfer_files = Arc::clone(
                    node_transfer
                        .transfer_files
                        .as_ref()
                        .expect("a prepared member has its files open"),
                );
                let claims = self
                    .transfers
                    .get_mut(&transfer)
                    .map(|node_transfer| std::mem::take(&mut node_transfer.claims));
                let work = move || {
                    // Everybody is prepared, and has seen them.
                    drop(claims);
                    prepare::preallocate(&transfer_files, &wanted, &holes, &kept, forgets)
                };
                self.workers.run(Some(transfer), work, move |result| NodeEvent::Preallocated {
                    transfer,
                    result,
                });
            }
            ParticipantAction::Open { rail_pair, weight, pace_bytes_per_second } => {
                self.open_flow(transfer, rail_pair, weight, pace_bytes_per_second);
            }
            ParticipantAction::Flow(command) => self.tell_rail_of_flow(transfer, command),
            ParticipantAction::Offer { span } => {
                node_transfer.ports.iter().for_each(|&port| {
                    self.ports[port].command(transfer, TransferCommand::Offer { span })
                });
            }
            ParticipantAction::Withdraw { span } => {
                node_transfer.ports.iter().for_each(|&port| {
                    self.ports[port].command(transfer, TransferCommand::Withdraw { span })
                });
            }
            ParticipantAction::Drain => {
                // A rail that has failed holds nothing.
                let ports = node_transfer.ports.iter().copied();
                let ports: Vec<usize> = ports.filter(|&it| self.ports[it].has(transfer)).collect();
                for &port in &ports {
                    self.ports[port].command(transfer, TransferCommand::Drain);
                }
                let is_drained = ports.is_empty();
                let node_transfer =
                    self.transfers.get_mut(&transfer).expect("it is carried out for it");
                node_transfer.draining = ports;
                if is_drained {
                    self.participant(transfer, participant::ParticipantEvent::Drained);
                }
            }
            ParticipantAction::Commit { landed_everywhere, checks } => {
                let transfer_files = Arc::clone(
                    node_transfer
                        .transfer_files
                        .as_ref()
                        .expect("a prepared member has its files open"),
                );
                let elected = prepare::elected(&node_transfer.prepare);
                let work =
                    move || prepare::commit(&transfer_files, &elected, landed_everywhere, &checks);
                self.workers.run(Some(transfer), work, move |result| NodeEvent::Committed {
                    transfer,
                    result,
                });
            }
            ParticipantAction::Keep { pieces } => {
                let transfer_files = Arc::clone(
                    node_transfer
                        .transfer_files
                        .as_ref()
                        .expect("what has landed went to open files"),
                );
                // Handed over here and now, so that whatever is done with the files next finds it.
                keeping::keep(&transfer_files, &pieces);
                let work = move || {
                    transfer_files.sinks.iter().for_each(Sink::flush);
                    Ok(())
                };
                self.workers.run(Some(transfer), work, move |_| NodeEvent::Kept { transfer });
            }
            ParticipantAction::Leave => {
                let transfer_files = Arc::clone(
                    node_transfer
                        .transfer_files
                        .as_ref()
                        .expect("what has landed went to open files"),
                );
                let forgets = node_transfer.forgets;
                let work = move || {
                    transfer_files.sinks.iter().for_each(|sink| prepare::discard(sink, forgets));
                    Ok(())
                };
                self.workers.run(Some(transfer), work, move |_| NodeEvent::Left { transfer });
            }
            ParticipantAction::Confirm => self.confirm(transfer),
            ParticipantAction::Discard => {
                let forgets = node_transfer.forgets;
                self.clear(transfer, move |sink| prepare::discard(sink, forgets));
            }
            ParticipantAction::Tell(message) => self.tell_master(transfer, message),
            ParticipantAction::End => self.forget(transfer),
        }
    }

    fn forget(&mut self, transfer: TransferIx) {
        let Some(node_transfer) = self.transfers.remove(&transfer) else { return };
        assert_eq!(
            node_transfer.participant.state(),
            ParticipantState::Ended,
            "only a member that has ended is forgotten"
        );
        self.log_end(transfer, &node_transfer);
        self.keyring.shut(&node_transfer.prepare.transfer);
        if let Some(session) = node_transfer.leaving {
            self.sessions.remove(session);
        }
        let of_transfer = |session: &NodeSession| matches!(session.role, SessionRole::Flow { transfer: of, .. } if of == transfer);
        self.sessions.remove_all(of_transfer);
        // Closing files may block, and what a large transfer knew of its pieces takes its time to
        // free.
        self.let_go(node_transfer);
        let idle: Vec<RailHandle> =
            self.ports.iter_mut().filter_map(|port| port.leave(transfer)).collect();
        if !idle.is_empty() {
            self.rest(idle);
        }
        self.begin_waiting();
        self.end_without_masters();
    }

    /// Drops something elsewhere.
    pub(super) fn let_go(&mut self, what: impl Send + 'static) {
        let work = move || {
            drop(what);
            Ok(())
        };
        self.workers.run(None, work, |_| NodeEvent::Done);
    }

    /// Ends rails. A transfer that is prepared meanwhile waits for that, since their memory counts
    /// against the same limit; but not for a rail that does not end.
    fn rest(&mut self, rails: Vec<RailHandle>) {
        self.resting = Some(awake() + REST_WITHIN);
        let work = move || {
            drop(rails);
            Ok(())
        };
        self.workers.run(None, work, |_| NodeEvent::Rested);
    }

    fn rested(&mut self) {
        self.resting = None;
        for (transfer, result) in std::mem::take(&mut self.opened_early) {
            self.opened(transfer, result);
        }
    }
}

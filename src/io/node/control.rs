//! Execution of the node machine's actions: messages are sent, workers work, rails are told.

use std::sync::Arc;
use std::time::Instant;

use mio::Token;

use super::devices::LocalAddresses;
use super::inbox::{InboxEvent, RailPost};
use super::node_transfer::{NodeTransfer, SMALL_PIECES};
use super::ports::RailPort;
use super::reading::ReadProgress;
use super::{Node, SessionRole, keeping, prepare, replicas};
use crate::core::error::{Error, Result};
use crate::core::node::machine::{
    ClearMode, JobAnswer, NodeAction, NodeEvent, NodeJob, OpenedFiles, SessionIx,
};
use crate::core::piece::TransferIx;
use crate::core::store::io_steps::PAGE_BYTES;
use crate::core::units::{MIB, NodeIx};
use crate::core::wire::control::{Prepare, Start, ToMaster};
use crate::io::clock::awake;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::rail::{RailCommand, RailHandle, RailSize, slots_max};
use crate::io::store::{Sink, StoreRoot};

/// Slots of one rail: the master's wish, within the node's limit and that of a rail, shared by its
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

/// Slots of a rail for a transfer that is small at a node: its pieces have one each.
const SLOTS_SMALL: u32 = SMALL_PIECES as u32 + 1;
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

/// Memory that a node with `rails` rails locks by default: slots that serve and slots
/// that receive, each a block of 1 MiB with a page of slack at either end, and each rail's
/// cells and rings.
pub(crate) fn locked_bytes(rails: usize) -> u64 {
    let rails = rails.max(1);
    let slot_bytes = MIB + 2 * PAGE_BYTES as u64;
    rails as u64 * (2 * u64::from(slots(None, None, rails, MIB)) * slot_bytes + RAIL_BYTES)
}

/// A rail's cells (1 MiB), and the queues of its ring.
const RAIL_BYTES: u64 = MIB + 256 * 1024;

impl Node {
    /// Hands an event to the machine, and carries out what it wants.
    pub(super) fn handle(&mut self, event: NodeEvent) {
        self.machine.handle(self.clock.now(), event);
        while let Some(action) = self.machine.poll_action() {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: NodeAction) {
        match action {
            NodeAction::Begin { transfer, session, prepare, rails } => {
                self.begin(transfer, session, *prepare, rails);
            }
            NodeAction::Quit { transfer } => self.transfers[&transfer].quit(),
            NodeAction::Join { transfer } => self.join(transfer),
            NodeAction::Plan { transfer, start } => self.plan(transfer, *start),
            NodeAction::Work { transfer, job } => self.work(transfer, job),
            NodeAction::OpenFlow { transfer, rail_pair, weight, pace_bytes_per_second } => {
                self.open_flow(transfer, rail_pair, weight, pace_bytes_per_second);
            }
            NodeAction::Flow { transfer, command } => self.tell_rail_of_flow(transfer, command),
            NodeAction::Rails { transfer, command } => {
                let ports = &self.transfers[&transfer].ports;
                ports
                    .iter()
                    .for_each(|&port| self.ports[port].rails.command(transfer, command.clone()));
            }
            NodeAction::CountMoved { transfer } => {
                let moved_bytes =
                    self.transfers.get(&transfer).map_or(0, NodeTransfer::moved_bytes);
                self.handle(NodeEvent::Moved { transfer, moved_bytes });
            }
            NodeAction::Complete { transfer, message } => self.complete(transfer, message),
            NodeAction::Send { session, message } => {
                let token = token_of(session);
                if let Some(session) = self.sessions.get_mut(token)
                    && let Err(error) = session.connection.send(&message)
                {
                    self.session_over(token, error);
                }
            }
            NodeAction::CloseSession { session } => _ = self.sessions.remove(token_of(session)),
            NodeAction::Forget { transfer, keeps_files, failure } => {
                self.forget(transfer, keeps_files, failure);
            }
            NodeAction::Release { transfer } => {
                let files = self.remembered.remove(&transfer);
                self.let_go(files);
            }
            NodeAction::Exit => self.ends = true,
        }
    }

    fn begin(
        &mut self,
        transfer: TransferIx,
        session: SessionIx,
        prepare: Prepare,
        ports: Vec<usize>,
    ) {
        let devices = LocalAddresses::read();
        if devices != self.devices {
            self.detours.forget();
        }
        self.devices = devices;
        let node_transfer = NodeTransfer::new(prepare.clone(), ports);
        let session = self.sessions.get(token_of(session));
        let master = session.and_then(|session| session.connection.peer());
        self.log_begin(transfer, &prepare, master);
        self.keyring.open(prepare.transfer, node_transfer.flow_key.clone());
        let quits = Arc::clone(&node_transfer.quits);
        self.transfers.insert(transfer, node_transfer);
        let (root, allowed) = (self.options.root.clone(), self.options.allowed);
        let (rails, post, budget) = (self.ports.len(), self.post.clone(), self.file_budget.clone());
        let work = move || {
            let _claim = budget.claim(&prepare, rails)?;
            let mut tell = |read_bytes| post.send(InboxEvent::Reading { transfer, read_bytes });
            // Anew for each transfer: something may have been mounted on it, or have taken its
            // name.
            let root = StoreRoot::open(&root)?.allowing(allowed);
            let mut reading = ReadProgress::new(&mut tell, &quits);
            let mut opened = prepare::open(&root, &prepare, rails, &mut reading)?;
            replicas::compare(&mut opened, &prepare, &mut reading)?;
            Ok(Box::new(opened))
        };
        self.workers
            .run(Some(transfer), work, move |result| InboxEvent::Opened { transfer, result });
    }

    /// A worker has opened the files of a transfer, which may be over by now.
    pub(super) fn opened(
        &mut self,
        transfer: TransferIx,
        result: Result<Box<prepare::OpenedTransfer>>,
    ) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else {
            return self.let_go(result);
        };
        let result = result.map(|opened| {
            let prepare::OpenedTransfer { transfer_files, prepared, found, claims } = *opened;
            node_transfer.claims = claims;
            node_transfer.transfer_files = Some(Arc::new(transfer_files));
            OpenedFiles { prepared, found }
        });
        self.handle(NodeEvent::Worker { transfer, answer: JobAnswer::Opened(result) });
    }

    /// Hands the files of a transfer to its rails.
    fn join(&mut self, transfer: TransferIx) {
        let node_transfer = &self.transfers[&transfer];
        let transfer_files = node_transfer.files();
        let options = &node_transfer.prepare.options;
        let (silence, ports) = (options.transfer.silence(), node_transfer.ports.clone());
        let block_bytes = options.block_bytes.into();
        let asked = options.transfer.slots;
        let slots = match (asked, self.options.slots) {
            (None, None) if node_transfer.is_small(block_bytes) => SLOTS_SMALL,
            (asked, allowed) => slots(asked, allowed, ports.len(), block_bytes),
        };
        let size = RailSize {
            slots,
            receives: !transfer_files.sinks.is_empty(),
            sends: !transfer_files.offers.is_empty(),
            block_bytes,
        };
        // Their memory is for the rails that this transfer needs.
        let unfit =
            ports.iter().flat_map(|&at| self.ports[at].rails.take_idle(awake(), Some(size)));
        let unfit = unfit.collect();
        self.end_rails(unfit);
        let (clock, post) = (self.clock, self.post.clone());
        let result = ports.into_iter().try_for_each(|rail| {
            let transfer_files = Arc::clone(&transfer_files);
            let joins = RailCommand::Join { transfer, rail, transfer_files, silence };
            self.ports[rail]
                .rails
                .rail_for(transfer, clock, size, |serial| RailPost::new(&post, rail, serial))
                .map(|rail| rail.tell(joins))
        });
        self.handle(NodeEvent::Joined { transfer, result });
    }

    fn plan(&mut self, transfer: TransferIx, start: Start) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        let peers = start.peers.into_iter().map(|peer| (NodeIx(peer.index), peer));
        node_transfer.peers.extend(peers);
        if let Some(transfer_files) = &node_transfer.transfer_files {
            // The first plan's holes stay: a new plan assigns, it does not change the data.
            let _ = transfer_files.holes.set(start.holes);
            prepare::set_modes(transfer_files, &node_transfer.prepare, &start.modes);
        }
    }

    /// Has a worker do something with the files of a transfer.
    fn work(&mut self, transfer: TransferIx, job: NodeJob) {
        let (files, claims, elected) = if let Some(it) = self.transfers.get_mut(&transfer) {
            let elected = match &job {
                NodeJob::Commit { .. } => prepare::elected(&it.prepare),
                _ => Vec::new(),
            };
            // All nodes are prepared, and have seen the claims.
            (it.files(), std::mem::take(&mut it.claims), elected)
        } else {
            let files = self.remembered.get(&transfer).expect("what has files is worked for");
            (Arc::clone(files), Vec::new(), Vec::new())
        };
        if let NodeJob::Keep { pieces } = &job {
            // Handed over here and now, so that whatever is done with the files next finds it.
            keeping::keep(&files, pieces);
        }
        let failed = failed_answer(&job);
        let work = move || {
            drop(claims);
            Ok(carry_out_job(&files, job, &elected))
        };
        self.workers.run(Some(transfer), work, move |result| {
            let answer = result.unwrap_or_else(failed);
            InboxEvent::Worker { transfer, answer }
        });
    }

    /// Adds to a message what the rails and the process counted.
    fn complete(&mut self, transfer: TransferIx, mut message: ToMaster) {
        let nics: Vec<&str> = self.ports.iter().map(RailPort::nic).collect();
        let node_transfer = &self.transfers[&transfer];
        match &mut message {
            ToMaster::Report(stats) | ToMaster::Landed { stats, .. } => {
                node_transfer.complete(stats, &nics);
            }
            ToMaster::Failed { stats: Some(stats), .. } => node_transfer.complete(stats, &nics),
            ToMaster::Progress { sent_bytes, .. } => *sent_bytes = node_transfer.sent_bytes(),
            ToMaster::Failed { stats: None, .. }
            | ToMaster::Prepared(_)
            | ToMaster::Comparing { .. }
            | ToMaster::Committed
            | ToMaster::Resumed { .. } => {}
        }
        self.handle(NodeEvent::Completed { transfer, message });
    }

    fn forget(&mut self, transfer: TransferIx, keeps_files: bool, failure: Option<Error>) {
        let Some(mut node_transfer) = self.transfers.remove(&transfer) else { return };
        self.log_end(transfer, &node_transfer, failure);
        self.keyring.shut(&node_transfer.prepare.transfer);
        if keeps_files && let Some(files) = node_transfer.transfer_files.take() {
            self.remembered.insert(transfer, files);
        }
        self.sessions.remove_all(|session| {
            matches!(session.role, SessionRole::Flow { transfer: of, .. } if of == transfer)
        });
        // Closing files may block, and what a large transfer knew of its pieces takes its time to
        // free.
        let remains = self.machine.take_remains();
        self.let_go((node_transfer, remains));
        self.ports.iter_mut().for_each(|port| port.rails.leave(transfer));
    }

    /// The instant at which a rail that no transfer is on is to be ended.
    pub(super) fn idle_rail_due(&self) -> Option<Instant> {
        self.ports.iter().filter_map(|port| port.rails.due()).min()
    }

    /// Ends the rails that have been idle for long.
    pub(super) fn end_idle_rails(&mut self, now: Instant) {
        let idle = self.ports.iter_mut().flat_map(|port| port.rails.take_idle(now, None));
        let idle = idle.collect();
        self.end_rails(idle);
    }

    fn end_rails(&mut self, rails: Vec<RailHandle>) {
        if !rails.is_empty() {
            self.handle(NodeEvent::RailsEnding);
            let work = move || {
                drop(rails);
                Ok(())
            };
            self.workers.run(None, work, |_| InboxEvent::Rested);
        }
    }

    /// Drops something elsewhere.
    pub(super) fn let_go(&mut self, what: impl Send + 'static) {
        let work = move || {
            drop(what);
            Ok(())
        };
        self.workers.run(None, work, |_| InboxEvent::Done);
    }
}

/// Work on the files of a transfer; `elected` says of each destination whether its
/// name waits for the other nodes.
fn carry_out_job(files: &TransferFiles, job: NodeJob, elected: &[bool]) -> JobAnswer {
    match job {
        NodeJob::Preallocate { wanted, holes, kept, forgets } => {
            JobAnswer::Preallocated(prepare::preallocate(files, &wanted, &holes, &kept, forgets))
        }
        NodeJob::Keep { .. } => {
            files.sinks.iter().for_each(Sink::flush);
            JobAnswer::Flushed
        }
        NodeJob::Commit { landed_everywhere, checks } => {
            JobAnswer::Committed(prepare::commit(files, elected, landed_everywhere, &checks))
        }
        NodeJob::Leave { forgets } => {
            files.sinks.iter().for_each(|sink| prepare::discard(sink, forgets));
            JobAnswer::Left
        }
        NodeJob::Clear(mode) => {
            match mode {
                ClearMode::Confirm => files.sinks.iter().for_each(Sink::confirm),
                ClearMode::Discard { forgets } => {
                    files.sinks.iter().for_each(|sink| prepare::discard(sink, forgets));
                }
            }
            // A source that was written to meanwhile may have been sent half old, half new.
            let mut sources = files.offers.iter();
            JobAnswer::Cleared(sources.try_for_each(|offer| offer.source.check_unchanged()))
        }
        NodeJob::Confirm => {
            files.sinks.iter().for_each(Sink::confirm);
            JobAnswer::Confirmed
        }
    }
}

/// Returns the answer of a worker that panics.
fn failed_answer(job: &NodeJob) -> fn(Error) -> JobAnswer {
    match job {
        NodeJob::Preallocate { .. } => |error| JobAnswer::Preallocated(Err(error)),
        NodeJob::Keep { .. } => |_| JobAnswer::Flushed,
        NodeJob::Commit { .. } => |error| JobAnswer::Committed(Err(error)),
        NodeJob::Leave { .. } => |_| JobAnswer::Left,
        NodeJob::Clear(_) => |error| JobAnswer::Cleared(Err(error)),
        NodeJob::Confirm => |_| JobAnswer::Confirmed,
    }
}

/// The connection of a session of the machine's.
fn token_of(session: SessionIx) -> Token {
    Token(usize::try_from(session.0).expect("it was made of one"))
}

//! The masters of this node's transfers: what they say, what they are told, and what becomes of a
//! transfer whose master is out of reach.
//!
//! A session that ends with a good-bye takes its transfer along: its master is done. One that
//! breaks, or is closed without a good-bye, does not: the master comes back over another NIC, and
//! both say again what the other has not heard; or it is dead, and the transfer goes on without it
//! as long as [`lease`](super::lease) lets it. A launched node ends with the process that started
//! it, as far as it notices: whoever comes after that starts nodes of its own.

use std::sync::Arc;
use std::time::Instant;

use mio::Token;
use zeroize::Zeroizing;

use super::devices::LocalAddresses;
use super::lease::MasterLease;
use super::node_transfer::{NodeEvent, NodeTransfer};
use super::ports::RailPort;
use super::reading::ReadProgress;
use super::{Node, NodeSession, SessionRole, prepare, replicas};
use crate::core::error::{Code, Error};
use crate::core::node::participant;
use crate::core::node::participant::Participant;
use crate::core::node::replay_buffer::ReplayBuffer;
use crate::core::piece::TransferIx;
use crate::core::rail::TransferCommand;
use crate::core::units::NodeIx;
use crate::core::wire::control;
use crate::core::wire::control::{Prepare, ResumeSession, ToMaster, ToNode};
use crate::io::clock::awake;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::session::IncomingData;
use crate::io::store::{Sink, StoreRoot};

/// The master of one transfer. It outlives the transfer until the master has heard the last word.
pub(super) struct MasterSession {
    /// What people call the transfer.
    id: String,
    transfer: [u8; 16],
    attempt: [u8; 16],
    /// Its session, or how long the transfer goes on without one.
    session: Result<Token, MasterLease>,
    replay_buffer: ReplayBuffer,
    /// Files of a transfer that is over here: that they are complete is remembered until the master
    /// says good-bye. One that dies before has told nobody of the end, and the transfer may be run
    /// again.
    remembered: Option<Arc<TransferFiles>>,
}

impl Node {
    pub(super) fn master_ready(&mut self, token: Token) {
        while let Some(session) = self.sessions.get_mut(token) {
            let message = match session.connection.receive() {
                // It may hold the key of a transfer's flows.
                Ok(IncomingData::Message(bytes)) => {
                    control::decode::<ToNode>(&Zeroizing::new(bytes)).map_err(Error::from)
                }
                Ok(IncomingData::Pending) => return,
                Ok(IncomingData::Closed { in_order: true }) => return self.master_done(token),
                Ok(IncomingData::Closed { in_order: false }) => {
                    let error = Error::new(Code::Unreachable, "the master closed its session");
                    if !self.options.launched {
                        return self.session_over(token, error);
                    }
                    Err(error)
                }
                Err(error) => return self.session_over(token, error),
            };
            match message {
                Ok(message) => self.master_says(token, message),
                Err(error) => {
                    self.say(token, &ToMaster::Failed { error: error.clone(), stats: None });
                    return self.master_left(token, &error);
                }
            }
        }
    }

    fn master_says(&mut self, token: Token, message: ToNode) {
        let Some(NodeSession { role: SessionRole::Master { transfer }, .. }) =
            self.sessions.get(token)
        else {
            return;
        };
        let transfer = *transfer;
        if let Some(master) = transfer.and_then(|transfer| self.masters.get_mut(&transfer)) {
            master.replay_buffer.hear();
        }
        match (message, transfer) {
            (ToNode::MakeWay { id }, None) => self.make_way(&id),
            (ToNode::Prepare(prepare), None) => self.begin(token, prepare),
            (ToNode::Resume(resume), None) => self.resume(token, &resume),
            (ToNode::Start(start), Some(transfer)) => {
                if let Some(node_transfer) = self.transfers.get_mut(&transfer) {
                    node_transfer
                        .peers
                        .extend(start.peers.iter().map(|peer| (NodeIx(peer.index), peer.clone())));
                    if let Some(transfer_files) = &node_transfer.transfer_files {
                        // The first plan's holes stay: a new plan assigns, it does not change the
                        // data.
                        let _ = transfer_files.holes.set(start.holes.clone());
                        prepare::set_modes(transfer_files, &node_transfer.prepare, &start.modes);
                    }
                    for &port in &node_transfer.ports {
                        let spans = start.relays.clone();
                        self.ports[port].command(transfer, TransferCommand::Relay { spans });
                    }
                }
                self.participant(
                    transfer,
                    participant::ParticipantEvent::Master(ToNode::Start(start)),
                );
            }
            (message, Some(transfer)) => {
                self.participant(transfer, participant::ParticipantEvent::Master(message))
            }
            // A master that speaks of a transfer before it has prepared one has lost its mind, not
            // ours.
            (_, None) => {}
        }
    }

    /// A master prepares a transfer. An earlier attempt at it whose master is gone ends first: it
    /// must not touch files that this one makes.
    pub(super) fn begin(&mut self, token: Token, prepare: Prepare) {
        if self.sessions.get(token).is_none() {
            return;
        }
        self.make_way(&prepare.id);
        if !self.stale_attempts(&prepare.id).is_empty() || self.confirming.contains_key(&prepare.id)
        {
            return self.waiting.push((token, prepare));
        }
        let transfer = TransferIx(self.next_transfer);
        self.next_transfer += 1;
        let devices = LocalAddresses::read();
        if devices != self.devices {
            self.detours.forget();
        }
        self.devices = devices;
        let ports = prepare.options.rails(self.ports.iter().map(RailPort::nic));
        let participant = Participant::new(participant::ParticipantConfig::of(
            &prepare,
            u32::try_from(ports.len()).expect("ports are few"),
        ));
        let node_transfer = NodeTransfer::new(prepare.clone(), participant, ports);
        let master = self.sessions.get(token).and_then(|session| session.connection.peer());
        self.log_begin(transfer, &prepare, master);
        self.keyring.open(prepare.transfer, node_transfer.flow_key.clone());
        let quits = Arc::clone(&node_transfer.quits);
        self.transfers.insert(transfer, node_transfer);
        let mut replay_buffer = ReplayBuffer::default();
        replay_buffer.hear();
        let master = MasterSession {
            id: prepare.id.clone(),
            transfer: prepare.transfer,
            attempt: prepare.attempt,
            session: Ok(token),
            replay_buffer,
            remembered: None,
        };
        self.masters.insert(transfer, master);
        self.sessions.get_mut(token).expect("looked up above").role =
            SessionRole::Master { transfer: Some(transfer) };
        let (root, allowed) = (self.options.root.clone(), self.options.allowed);
        let (rails, post, budget) = (self.ports.len(), self.post.clone(), self.file_budget.clone());
        let work = move || {
            let _claim = budget.claim(&prepare, rails)?;
            let mut tell = |read_bytes| post.send(NodeEvent::Comparing { transfer, read_bytes });
            // Anew for each transfer: something may have been mounted on it, or have taken its
            // name.
            let root = StoreRoot::open(&root)?.allowing(allowed);
            let mut reading = ReadProgress::new(&mut tell, &quits);
            let mut opened = prepare::open(&root, &prepare, rails, &mut reading)?;
            replicas::compare(&mut opened, &prepare, &mut reading)?;
            Ok(Box::new(opened))
        };
        self.workers
            .run(Some(transfer), work, move |result| NodeEvent::Prepared { transfer, result });
    }

    /// Begins the attempts whose way is free by now.
    pub(super) fn begin_waiting(&mut self) {
        for (token, prepare) in std::mem::take(&mut self.waiting) {
            self.begin(token, prepare);
        }
    }

    /// Ends attempts at the transfer `id` whose master is gone.
    fn make_way(&mut self, id: &str) {
        // Files are open as long as they are remembered, and the next attempt may want them.
        let gone = self.masters.values_mut().filter(|master| master.session.is_err());
        let remembered: Vec<Arc<TransferFiles>> =
            gone.filter_map(|master| master.remembered.take()).collect();
        if !remembered.is_empty() {
            self.let_go(remembered);
        }
        for stale in self.stale_attempts(id) {
            self.masters.remove(&stale);
            let reason = "a new attempt takes its place".into();
            self.participant(
                stale,
                participant::ParticipantEvent::Master(ToNode::Cancel { reason, forgets: false }),
            );
        }
    }

    /// Attempts at the transfer `id` that no master can be heard from.
    fn stale_attempts(&self, id: &str) -> Vec<TransferIx> {
        let is_led = |transfer: &TransferIx| {
            self.masters.get(transfer).is_some_and(|master| master.session.is_ok())
        };
        let of_id =
            self.transfers.iter().filter(|(_, node_transfer)| node_transfer.prepare.id == id);
        of_id.map(|(&transfer, _)| transfer).filter(|transfer| !is_led(transfer)).collect()
    }

    /// A master comes back on a new session.
    fn resume(&mut self, token: Token, resume: &ResumeSession) {
        let is_meant = |master: &MasterSession| {
            master.transfer == resume.transfer && master.attempt == resume.attempt
        };
        let Some((&transfer, master)) =
            self.masters.iter_mut().find(|(_, master)| is_meant(master))
        else {
            let error = Error::new(
                Code::Unreachable,
                "it knows nothing of this attempt: it was started anew, or gave it up",
            )
            .remedy("run the transfer again");
            return self.say(token, &ToMaster::Failed { error, stats: None });
        };
        let replaced = std::mem::replace(&mut master.session, Ok(token));
        let resumed = ToMaster::Resumed { heard: master.replay_buffer.heard() };
        let unheard = master.replay_buffer.unheard(resume.heard).to_vec();
        if let Ok(broken) = replaced {
            // It broke at the other end; here nobody had noticed.
            self.sessions.remove(broken);
        }
        self.sessions.get_mut(token).expect("it spoke just now").role =
            SessionRole::Master { transfer: Some(transfer) };
        self.say(token, &resumed);
        unheard.iter().for_each(|message| self.send(token, message));
    }

    /// Sends a message that no transfer keeps.
    fn say(&mut self, token: Token, message: &ToMaster) {
        match control::encode(message) {
            Ok(bytes) => self.send(token, &bytes),
            Err(error) => self.session_over(token, error.into()),
        }
    }

    fn send(&mut self, token: Token, message: &[u8]) {
        if let Some(session) = self.sessions.get_mut(token)
            && let Err(error) = session.connection.send(message)
        {
            self.session_over(token, error);
        }
    }

    /// The names of the ports' NICs.
    fn nics(&self) -> Vec<&str> {
        self.ports.iter().map(RailPort::nic).collect()
    }

    pub(super) fn tell_master(&mut self, transfer: TransferIx, mut message: ToMaster) {
        let node_transfer = &self.transfers[&transfer];
        match &mut message {
            ToMaster::Report(stats) => {
                node_transfer.complete(stats, &self.nics());
                if let Err(error) = node_transfer.sources.clone() {
                    message =
                        ToMaster::Failed { error, stats: Some(Box::new(std::mem::take(stats))) };
                }
            }
            ToMaster::Failed { stats: Some(stats), .. } => {
                node_transfer.complete(stats, &self.nics())
            }
            ToMaster::Landed { stats, .. } => node_transfer.complete(stats, &self.nics()),
            ToMaster::Progress { sent_bytes, .. } => *sent_bytes = node_transfer.sent_bytes(),
            _ => {}
        }
        if let ToMaster::Failed { error, .. } = &message {
            self.log_failure(transfer, error);
        }
        let Some(master) = self.masters.get_mut(&transfer) else { return };
        let encoded = control::encode(&message).or_else(|error| {
            // It costs this transfer, and no other one. Ranges and statistics may be what is too
            // large.
            let error = Error::from(error).remedy("split the transfer, or give it larger blocks");
            message = ToMaster::Failed { error, stats: None };
            control::encode(&message)
        });
        let Ok(bytes) = encoded else { return };
        if message.is_counted() {
            master.replay_buffer.say(bytes.clone());
        }
        if let Ok(session) = master.session {
            self.send(session, &bytes);
        }
    }

    /// A master that is done has said good-bye: whoever was not told otherwise before may forget
    /// the transfer.
    fn master_done(&mut self, token: Token) {
        let Some(session) = self.sessions.get_mut(token) else { return };
        let SessionRole::Master { transfer } =
            std::mem::replace(&mut session.role, SessionRole::Leaving)
        else {
            return;
        };
        let master = transfer.and_then(|transfer| self.masters.remove(&transfer));
        match master.and_then(|master| Some((master.id, master.remembered?))) {
            Some((id, transfer_files)) => {
                *self.confirming.entry(id.clone()).or_default() += 1;
                let work = move || {
                    transfer_files.sinks.iter().for_each(Sink::confirm);
                    Ok(())
                };
                self.workers.run(None, work, move |_| NodeEvent::Confirmed { id, session: token });
            }
            // One that has not been told before that it is over is confirmed by what follows.
            None => match transfer.and_then(|transfer| self.transfers.get_mut(&transfer)) {
                Some(node_transfer) => node_transfer.leaving = Some(token),
                None => _ = self.sessions.remove(token),
            },
        }
        if let Some(transfer) = transfer {
            self.participant(transfer, participant::ParticipantEvent::Master(ToNode::Finish));
        }
        self.end_without_masters();
    }

    /// The files of a transfer whose master has said good-bye are confirmed: its session is closed,
    /// which tells it so.
    pub(super) fn confirmed(&mut self, id: &str, session: Token) {
        self.sessions.remove(session);
        if let Some(count) = self.confirming.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.confirming.remove(id);
                self.begin_waiting();
            }
        }
    }

    /// All has landed everywhere: how this node's files came to be is forgotten, with the master's
    /// good-bye at the latest.
    pub(super) fn confirm(&mut self, transfer: TransferIx) {
        let transfer_files = self.transfers[&transfer].transfer_files.clone();
        match self.masters.get_mut(&transfer) {
            Some(master) => master.remembered = transfer_files,
            None => self.clear(transfer, Sink::confirm),
        }
    }

    /// The master that launched this node is dead, or a master does not speak the protocol: its
    /// transfer ends with it.
    fn master_left(&mut self, token: Token, error: &Error) {
        let Some(NodeSession { role: SessionRole::Master { transfer }, .. }) =
            self.sessions.remove(token)
        else {
            return;
        };
        if let Some(transfer) = transfer {
            self.masters.remove(&transfer);
            let reason = error.to_string();
            self.participant(
                transfer,
                participant::ParticipantEvent::Master(ToNode::Cancel { reason, forgets: false }),
            );
        }
        self.end_without_masters();
    }

    /// The session of a master broke: its transfer goes on without it.
    pub(super) fn master_lost(&mut self, transfer: Option<TransferIx>) {
        if let Some(transfer) = transfer
            && let Some(master) = self.masters.get_mut(&transfer)
        {
            let moved_bytes = self.transfers.get(&transfer).map_or(0, NodeTransfer::moved_bytes);
            master.session = Err(MasterLease::new(awake(), self.options.launched, moved_bytes));
        }
        self.end_without_masters();
    }

    /// When transfers that have no master are to be looked at.
    pub(super) fn lease_due(&self) -> Option<Instant> {
        self.masters
            .values()
            .filter_map(|master| master.session.as_ref().err())
            .map(MasterLease::due)
            .min()
    }

    /// Ends the transfers that have gone on without a master for as long as they may.
    pub(super) fn end_leases(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (&transfer, master) in &mut self.masters {
            let moved_bytes = self.transfers.get(&transfer).map_or(0, NodeTransfer::moved_bytes);
            if master.session.as_mut().is_err_and(|lease| lease.is_over(now, moved_bytes)) {
                over.push(transfer);
            }
        }
        for transfer in over {
            self.masters.remove(&transfer);
            let reason = "its master is gone".into();
            self.participant(
                transfer,
                participant::ParticipantEvent::Master(ToNode::Cancel { reason, forgets: false }),
            );
        }
    }

    /// A launched node serves one master, and ends with it.
    pub(super) fn end_without_masters(&mut self) {
        let speaks =
            self.sessions.any(|session| matches!(session.role, SessionRole::Master { .. }));
        self.ends |= self.options.launched
            && !speaks
            && self.masters.is_empty()
            && self.transfers.is_empty();
        self.alone_since =
            (self.options.launched && !speaks).then(|| self.alone_since.unwrap_or_else(awake));
    }
}

//! What goes between the simulated master and its nodes, and what a node's machines want done.

use std::time::Duration;

use super::cluster::{DiskJob, OrderedChannel, SimCluster, SimEvent};
use super::rails::{SimRail, TRANSFER};
use crate::core::check::CheckMethod;
use crate::core::master::coordinator;
use crate::core::node::participant;
use crate::core::node::participant::Participant;
use crate::core::piece::FlowCommand;
use crate::core::rail::{
    MappedDestination, MappedSource, PieceMap, RailEvent, SourceKind, TransferCommand,
};
use crate::core::spec::RowRole;
use crate::core::units::{NodeIx, covers};
use crate::core::wire::control;
use crate::core::wire::control::{NodeAdvert, Prepare, RailAdvert, ToMaster, ToNode, WireRow};

/// What a simulated node says of itself: a NIC whose speed it does not know, with a thread a rail.
fn advert(rails: usize) -> NodeAdvert {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let rail = RailAdvert { nic: "sim0".into(), address, line: None, mtu: None, numa: None };
    NodeAdvert {
        software: "simulator".into(),
        rails: vec![rail; rails],
        cores: 1,
        boot_id: String::new(),
        incarnation: 1,
    }
}

impl SimCluster {
    pub(super) fn node_up(&mut self, node: NodeIx) {
        if self.nodes[node.at()].alive && !self.nodes[node.at()].lost {
            self.nodes[node.at()].met = true;
            let advert = advert(self.nodes[node.at()].rails.len());
            self.coordinator
                .handle(self.now, coordinator::CoordinatorEvent::NodeUp { node, advert });
            self.follow_master();
        }
    }

    pub(super) fn node_hears(&mut self, node: NodeIx, message: &[u8]) {
        if !self.nodes[node.at()].alive {
            return;
        }
        let message = control::decode::<ToNode>(message).expect("the master speaks the protocol");
        if let ToNode::MakeWay { .. } = message {
            // Attempts follow one another here.
            return;
        }
        self.nodes[node.at()].replay_buffer.hear();
        match message {
            ToNode::Prepare(prepare) => self.prepare(node, &prepare),
            message => {
                if matches!(message, ToNode::Cancel { forgets: true, .. }) {
                    self.nodes[node.at()].disk.forget();
                }
                if let ToNode::Start(start) = &message {
                    self.command_all(node, &TransferCommand::Relay { spans: start.relays.clone() });
                }
                self.participant(node, participant::ParticipantEvent::Master(message));
            }
        }
    }

    /// The master is done, and says so.
    pub(super) fn good_bye(&mut self, node: NodeIx) {
        let state = &mut self.nodes[node.at()];
        state.is_dismissed = true;
        if std::mem::take(&mut state.remembers) && state.alive {
            state.disk.confirm();
        }
        self.participant(node, participant::ParticipantEvent::Master(ToNode::Finish));
    }

    pub(super) fn master_hears(&mut self, node: NodeIx, message: &[u8]) {
        if self.is_orphaned {
            return;
        }
        let message = control::decode::<ToMaster>(message).expect("nodes speak the protocol");
        self.nodes[node.at()].heard_of += u32::from(message.is_counted());
        self.history.hear(self.now, node, &message);
        self.coordinator.handle(self.now, coordinator::CoordinatorEvent::Message { node, message });
        self.follow_master();
    }

    pub(super) fn follow_master(&mut self) {
        while let Some(action) = self.coordinator.poll_action() {
            let coordinator::CoordinatorAction { node, message } = action;
            if !self.nodes[node.at()].parted {
                let bytes =
                    control::encode(&message).expect("transfers in the simulator are small");
                self.in_order(
                    OrderedChannel::ToNode(node),
                    self.world.latency,
                    SimEvent::ToNode(node, bytes),
                );
            }
        }
    }

    /// A node gets ready.
    fn prepare(&mut self, node: NodeIx, prepare: &Prepare) {
        let state = &mut self.nodes[node.at()];
        let mut participant =
            Participant::new(participant::ParticipantConfig::of(prepare, state.rails.len() as u32));
        let prepared = state.disk.prepare(prepare).map(|ready| {
            if let Some(found) = ready.found {
                state.found.clone_from(&found);
                participant.handle(self.now, participant::ParticipantEvent::Found(found));
            }
            ready.prepared
        });
        state.participant = Some(participant);
        for rail in &mut state.rails {
            rail.machine.join(TRANSFER, piece_map(prepare), prepare.options.transfer.silence());
        }
        let delay = self.disk_seconds(0);
        self.after(
            delay,
            SimEvent::Member(node, participant::ParticipantEvent::Prepared(prepared)),
        );
    }

    pub(super) fn participant(&mut self, node: NodeIx, event: participant::ParticipantEvent) {
        let state = &mut self.nodes[node.at()];
        if let Some(participant) = state.participant.as_mut().filter(|_| state.alive) {
            participant.handle(self.now, event);
            self.follow(node);
        }
    }

    /// Carries out everything that a node's machines want, until they want nothing.
    pub(super) fn follow(&mut self, node: NodeIx) {
        loop {
            let state = &mut self.nodes[node.at()];
            let mut rails = state.rails.iter_mut();
            if let Some(report) = rails.find_map(|rail| rail.machine.poll_report()) {
                self.rail_reports(node, report);
                continue;
            }
            if let Some(action) = state.participant.as_mut().and_then(Participant::poll_action) {
                self.participant_action(node, action);
                continue;
            }
            let mut rails = state.rails.iter_mut().enumerate();
            let next = |(at, rail): (usize, &mut SimRail)| Some((at, rail.machine.poll_action()?));
            let Some((rail, action)) = rails.find_map(next) else { break };
            self.rail_action(node, rail, action);
        }
        self.nodes[node.at()].rails.iter().for_each(SimRail::check_slots);
        self.rearm(node);
    }

    /// Has the rail of a flow do something.
    fn flow_command(&mut self, node: NodeIx, command: FlowCommand) {
        let state = &mut self.nodes[node.at()];
        if let Some(&rail) = state.flow_rails.get(&command.flow()) {
            let command = TransferCommand::Flow(command);
            let event = RailEvent::Command { transfer: TRANSFER, command };
            state.rails[rail].machine.handle(self.now, event);
        }
    }

    /// Has all rails of a node do something.
    fn command_all(&mut self, node: NodeIx, command: &TransferCommand) {
        for rail in &mut self.nodes[node.at()].rails {
            let event = RailEvent::Command { transfer: TRANSFER, command: command.clone() };
            rail.machine.handle(self.now, event);
        }
    }

    fn participant_action(&mut self, node: NodeIx, action: participant::ParticipantAction) {
        use participant::ParticipantAction;
        let now = self.now;
        let state = &mut self.nodes[node.at()];
        match action {
            ParticipantAction::Preallocate { wanted, holes, kept, forgets } => {
                self.do_later(node, DiskJob::Preallocate { wanted, holes, kept, forgets });
            }
            ParticipantAction::Open { rail_pair, weight, .. } => {
                self.after(
                    3 * self.world.latency,
                    SimEvent::FlowOpened { receiver: node, rail_pair, weight },
                );
            }
            ParticipantAction::Flow(command) => self.flow_command(node, command),
            ParticipantAction::Offer { span } => {
                self.command_all(node, &TransferCommand::Offer { span });
            }
            ParticipantAction::Withdraw { span } => {
                self.command_all(node, &TransferCommand::Withdraw { span });
            }
            ParticipantAction::Drain => {
                state.draining = state.rails.len();
                self.command_all(node, &TransferCommand::Drain);
            }
            ParticipantAction::Commit { landed_everywhere, checks } => {
                state.committed.get_or_insert(now);
                self.do_later(node, DiskJob::Commit { landed_everywhere, checks });
            }
            ParticipantAction::Tell(message) => {
                let bytes =
                    control::encode(&message).expect("transfers in the simulator are small");
                if message.is_counted() {
                    state.replay_buffer.push(bytes.clone());
                }
                if !state.parted {
                    self.in_order(
                        OrderedChannel::ToMaster(node),
                        self.world.latency,
                        SimEvent::ToMaster(node, bytes),
                    );
                }
            }
            ParticipantAction::Keep { pieces } => {
                state.disk.keep(&pieces);
                self.do_later(node, DiskJob::Flush);
            }
            ParticipantAction::Leave => self.do_later(node, DiskJob::Leave),
            ParticipantAction::Confirm if state.is_dismissed => state.disk.confirm(),
            ParticipantAction::Confirm => state.remembers = true,
            ParticipantAction::Discard => state.disk.discard(),
            ParticipantAction::End => self.command_all(node, &TransferCommand::Leave),
        }
    }

    fn do_later(&mut self, node: NodeIx, job: DiskJob) {
        let delay = self.disk_seconds(0);
        self.after(delay, SimEvent::Done(node, job));
    }

    /// A node's disk does what its participant has asked for.
    pub(super) fn done(&mut self, node: NodeIx, job: DiskJob) {
        use participant::ParticipantEvent;
        let state = &mut self.nodes[node.at()];
        if !state.alive {
            return;
        }
        let event = match job {
            DiskJob::Preallocate { wanted, holes, kept, forgets } => {
                let done = state.disk.preallocate(&wanted, &holes, &kept, forgets);
                let found =
                    state.found.iter().map(|piece| piece.span).filter(|span| covers(&kept, *span));
                let empty = holes
                    .iter()
                    .flat_map(|hole| state.wanted.iter().filter_map(|it| it.intersection(*hole)));
                state.landed.extend(found.chain(empty));
                ParticipantEvent::Preallocated(done)
            }
            DiskJob::Flush => {
                state.disk.flush();
                ParticipantEvent::Kept
            }
            DiskJob::Commit { landed_everywhere, checks } => {
                ParticipantEvent::Committed(state.disk.commit(landed_everywhere, &checks))
            }
            DiskJob::Leave => {
                state.disk.discard();
                ParticipantEvent::Left
            }
        };
        self.participant(node, event);
    }

    /// What a disk takes for so many bytes.
    pub(super) fn disk_seconds(&mut self, bytes: u64) -> Duration {
        let jitter =
            Duration::from_nanos(self.random.below(self.world.disk_whims.as_nanos() as u64 + 1));
        self.world.disk_latency
            + jitter
            + Duration::from_secs_f64(bytes as f64 / self.world.disk_bytes_per_second)
    }
}

/// Where a node has the pieces of a transfer.
fn piece_map(prepare: &Prepare) -> PieceMap {
    let rows = |role| prepare.rows.iter().filter(move |row| row.role == role);
    let source =
        |row: &WireRow| MappedSource { range: row.span, kind: SourceKind::File { direct: true } };
    let kept = rows(RowRole::Receiver).filter(|row| !row.uri.starts_with("null:"));
    PieceMap {
        method: CheckMethod::new(prepare.options.transfer.check, prepare.options.object),
        path: prepare.options.transfer.path,
        sources: rows(RowRole::Sender).map(source).collect(),
        destinations: kept.map(|row| MappedDestination { range: row.span, direct: true }).collect(),
    }
}

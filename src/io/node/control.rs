//! Execution of the node machine's actions: messages are sent, workers work, flows are opened,
//! rails are told.

use std::sync::Arc;

use super::daemon::Node;
use super::flow_opener::WantedFlow;
use super::node_transfer::NodeTransfer;
use super::port_set::RailJoin;
use super::sessions::DialledFlow;
use super::slots::rail_size;
use super::transfer_flows::WayFailure;
use super::{prepare, transfer_log};
use crate::core::error::{Error, Result};
use crate::core::node::machine::{
    JobAnswer, NodeAction, NodeEvent, NodeJob, OpenedFiles, SessionIx,
};
use crate::core::piece::{FlowCommand, TransferIx};
use crate::core::rail::{FlowDirection, TransferCommand};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::wire::control;
use crate::core::wire::control::{FlowHello, Prepare, Start, ToMaster};
use crate::io::clock::awake;
use crate::io::rail::{RailCommand, RailHandle};
use crate::io::session::Connection;

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
                let weight_bytes = weight;
                let wanted = WantedFlow { rail_pair, weight_bytes, pace_bytes_per_second };
                self.open_flow(transfer, &wanted);
            }
            NodeAction::Flow { transfer, command } => self.tell_rail_of_flow(transfer, command),
            NodeAction::Rails { transfer, command } => {
                let used = self.transfers[&transfer].flows.ports();
                used.iter().for_each(|&port| self.ports.command(port, transfer, command.clone()));
            }
            NodeAction::CountMoved { transfer } => {
                let moved_bytes =
                    self.transfers.get(&transfer).map_or(0, NodeTransfer::moved_bytes);
                self.handle(NodeEvent::Moved { transfer, moved_bytes });
            }
            NodeAction::Complete { transfer, message } => self.complete(transfer, message),
            NodeAction::Send { session, message } => {
                if let Some(event) = self.intake.send(session, &message) {
                    self.handle(event);
                }
            }
            NodeAction::CloseSession { session } => self.intake.close(session),
            NodeAction::Forget { transfer, keeps_files, failure } => {
                self.forget(transfer, keeps_files, failure);
            }
            NodeAction::Release { transfer } => {
                let files = self.remembered.remove(&transfer);
                self.workers.let_go(files);
            }
            NodeAction::Survey { session, questions } => {
                let judged = self.intake.judge_questions(session, questions, &self.options.roots);
                self.workers.survey(session, self.surveys.job(session, judged));
            }
            NodeAction::EndSurvey { session } => self.workers.let_go(self.surveys.take(session)),
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
        self.opener.follow_devices(&self.ports);
        let (policy, refusal) = self.options.wire_policy(&prepare.options.transfer);
        let node_transfer = NodeTransfer::new(prepare.clone(), policy, ports, &self.ports.nics());
        transfer_log::log_begin(transfer, &prepare, self.intake.peer(session));
        let key = node_transfer.flows.key().clone();
        self.intake.open_flows(session, prepare.transfer, key, policy);
        let quits = Arc::clone(&node_transfer.quits);
        self.transfers.insert(transfer, node_transfer);
        let judge_rows = || self.intake.check_rows(session, &prepare.rows, &self.options.roots);
        match refusal.map_or_else(judge_rows, Err) {
            Ok(()) => self.workers.open(transfer, prepare, self.ports.len(), quits),
            Err(error) => self.opened(transfer, Err(error)),
        }
    }

    /// A worker has opened the files of a transfer, which may be over by now.
    pub(super) fn opened(
        &mut self,
        transfer: TransferIx,
        result: Result<Box<prepare::OpenedTransfer>>,
    ) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else {
            return self.workers.let_go(result);
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
        let size = rail_size(node_transfer, &transfer_files, self.options.slots);
        let silence = node_transfer.prepare.options.transfer.silence();
        let ports = node_transfer.flows.ports().to_vec();
        let unfit = self.ports.take_unfit(&ports, size);
        self.end_rails(unfit);
        let (ports, transfer_files) = (&ports[..], &transfer_files);
        let join = RailJoin { transfer, ports, transfer_files, size, silence };
        let result = self.ports.join(&join);
        self.handle(NodeEvent::Joined { transfer, result });
    }

    fn plan(&mut self, transfer: TransferIx, start: Start) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        node_transfer.flows.add_peers(start.peers);
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
        self.workers.work(transfer, job, files, claims, elected);
    }

    /// Adds to a message what the rails and the process counted.
    fn complete(&mut self, transfer: TransferIx, mut message: ToMaster) {
        self.transfers[&transfer].complete(&mut message, &self.ports.nics());
        self.handle(NodeEvent::Completed { transfer, message });
    }

    fn forget(&mut self, transfer: TransferIx, keeps_files: bool, failure: Option<Error>) {
        let Some(mut node_transfer) = self.transfers.remove(&transfer) else { return };
        transfer_log::log_end(transfer, &node_transfer, failure);
        self.intake.keyring().shut(&node_transfer.prepare.transfer);
        if keeps_files && let Some(files) = node_transfer.transfer_files.take() {
            self.remembered.insert(transfer, files);
        }
        self.intake.close_dialled(transfer, None);
        // Closing files may block, and what a large transfer knew of its pieces takes its time to
        // free.
        let remains = self.machine.take_remains();
        self.workers.let_go((node_transfer, remains));
        self.ports.leave(transfer);
    }

    pub(super) fn end_rails(&mut self, rails: Vec<RailHandle>) {
        if !rails.is_empty() {
            self.handle(NodeEvent::RailsEnding);
            self.workers.end_rails(rails);
        }
    }

    /// Starts to open a flow on a rail pair.
    fn open_flow(&mut self, transfer: TransferIx, wanted: &WantedFlow) {
        let flows = &mut self.transfers.get_mut(&transfer).expect("it is wanted for it").flows;
        match self.opener.open(&self.ports, flows, wanted) {
            Ok(()) => self.try_next_way(transfer, wanted.rail_pair),
            Err(error) => self.flow_failed(transfer, wanted.rail_pair, error),
        }
    }

    /// Tries the next way to open a flow, beside those that are still waited for.
    pub(super) fn try_next_way(&mut self, transfer: TransferIx, rail_pair: RailPair) {
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        let dialled = self.opener.dial_next(&self.ports, &mut node_transfer.flows, rail_pair);
        let Some((way, connection)) = dialled else { return };
        let dialled = DialledFlow { transfer, rail_pair, way };
        match self.intake.add_dialled(connection, dialled) {
            Ok(token) => self.session_ready(token),
            Err(error) => self.way_failed(dialled, error),
        }
    }

    /// One way to open a flow failed; others may be left.
    pub(super) fn way_failed(&mut self, dialled: DialledFlow, error: Error) {
        let DialledFlow { transfer, rail_pair, way } = dialled;
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        let nic_of = |port| self.ports.nic_of(port);
        match node_transfer.flows.way_failed(rail_pair, way, error, nic_of) {
            WayFailure::Waits => {}
            WayFailure::GoesOn => self.try_next_way(transfer, rail_pair),
            WayFailure::Ends(event) => self.handle(NodeEvent::Flow { transfer, event }),
        }
    }

    /// No way is left to open a flow.
    fn flow_failed(&mut self, transfer: TransferIx, rail_pair: RailPair, error: Error) {
        let Some(flows) = self.flows_of(transfer) else { return };
        let event = flows.failed(rail_pair, error);
        self.handle(NodeEvent::Flow { transfer, event });
    }

    /// A flow that this node opened stands.
    pub(super) fn flow_opened(&mut self, dialled: DialledFlow, connection: Connection) {
        let DialledFlow { transfer, rail_pair, way } = dialled;
        let Some(node_transfer) = self.transfers.get_mut(&transfer) else { return };
        let flows = &mut node_transfer.flows;
        // One that comes up beside another that was faster is not needed.
        let Some(opening) = flows.end_opening(rail_pair) else { return };
        self.intake.close_dialled(transfer, Some(rail_pair));
        let stream = self.intake.release_stream(connection);
        let sealed = stream.and_then(|stream| flows.seal_opened(stream, way));
        let (socket, seal) = match sealed {
            Ok(sealed) => sealed,
            Err(error) => return self.flow_failed(transfer, rail_pair, error),
        };
        self.opener.came_up(&self.ports, flows, rail_pair, &opening, way);
        let flow = self.opener.next_flow();
        let relays = flows.stands(flow, rail_pair, way.port);
        let event = SchedulerEvent::FlowUp { flow, rail_pair };
        self.handle(NodeEvent::Flow { transfer, event });
        let direction = FlowDirection::Receive { relays };
        let command = RailCommand::FlowUp { transfer, flow, socket, seal, direction };
        self.ports.tell(way.port, transfer, command);
    }

    /// A receiver's flow stands. One that is for another node, for an attempt that is over, or over
    /// a rail that the transfer does not use, is closed.
    pub(super) fn flow_arrived(&mut self, port: usize, connection: Connection) {
        let Ok(stream) = self.intake.release_stream(connection) else { return };
        let Ok(hello) = control::decode::<FlowHello>(&stream.payload) else { return };
        let meant = self.transfers.iter_mut().find(|(_, it)| it.flows.is_meant(&hello, port));
        let Some((&transfer, node_transfer)) = meant else { return };
        let flows = &mut node_transfer.flows;
        let Ok((socket, seal)) = flows.seal_arrived(stream, &hello) else { return };
        self.opener.take_in(&self.ports, flows, port, &hello, &socket);
        let flow = self.opener.next_flow();
        let in_clear = seal.is_clear();
        let (weight, is_further) = (hello.weight_bytes, hello.further > 0);
        let direction = FlowDirection::Send { weight, in_clear, is_further };
        let command = RailCommand::FlowUp { transfer, flow, socket, seal, direction };
        self.ports.tell(port, transfer, command);
    }

    /// Has the rails take in the files of a transfer that its plan has made new.
    pub(super) fn reopen_files(&mut self, transfer: TransferIx) {
        let Some(node_transfer) = self.transfers.get(&transfer) else { return };
        let replaced = node_transfer.transfer_files.iter().flat_map(|files| files.replaced_files());
        for file in replaced {
            for &port in node_transfer.flows.ports() {
                self.ports.tell(port, transfer, RailCommand::Reopen { transfer, file });
            }
        }
    }

    /// Tells the rail that a flow which this node opened goes over.
    fn tell_rail_of_flow(&mut self, transfer: TransferIx, command: FlowCommand) {
        let flows = &mut self.transfers.get_mut(&transfer).expect("it is carried out for it").flows;
        if let Some(port) = flows.commanded(&command, awake()) {
            self.ports.command(port, transfer, TransferCommand::Flow(command));
        }
    }
}

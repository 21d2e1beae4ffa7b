//! Execution of the node machine's actions: messages are sent, workers work, flows are opened,
//! rails are told.

use std::sync::Arc;

use super::daemon::Node;
use super::flow_desk::FlowDesk;
use super::flow_opener::WantedFlow;
use super::node_transfer::NodeTransfer;
use super::port_set::RailJoin;
use super::slots::rail_size;
use super::{prepare, transfer_log};
use crate::core::error::{Error, Result};
use crate::core::node::machine::{
    JobAnswer, NodeAction, NodeEvent, NodeJob, OpenedFiles, SessionIx,
};
use crate::core::piece::TransferIx;
use crate::core::wire::control::{Prepare, Start, ToMaster};
use crate::io::rail::{RailCommand, RailHandle};

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
                self.for_flows(|desk| desk.open(transfer, &wanted));
            }
            NodeAction::Call { transfer, call, receiver } => {
                self.for_flows(|desk| desk.answer(transfer, call, &receiver));
            }
            NodeAction::Flow { transfer, command } => {
                self.for_flows(|desk| desk.tell_rail(transfer, command));
            }
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
        let (nics, measured) = (self.ports.nics(), self.options.measured);
        let node_transfer = NodeTransfer::new(prepare.clone(), policy, ports, &nics, measured);
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

    /// Has something done for flows, and hands what came of it to the machine.
    pub(super) fn for_flows(&mut self, act: impl FnOnce(&mut FlowDesk<'_>) -> Option<NodeEvent>) {
        let mut desk = FlowDesk {
            intake: &mut self.intake,
            ports: &self.ports,
            opener: &mut self.opener,
            transfers: &mut self.transfers,
        };
        if let Some(event) = act(&mut desk) {
            self.handle(event);
        }
    }
}

//! Commands of the control thread to its rails, and their notices.

use super::Node;
use super::port_rails::RailSerial;
use crate::core::error::Error;
use crate::core::node::machine::NodeEvent;
use crate::core::piece::{FlowCommand, TransferIx};
use crate::core::rail::{RailNotice, TransferCommand};
use crate::io::clock::awake;
use crate::io::log;
use crate::io::rail::RailCommand;

impl Node {
    /// Takes in what a rail says.
    pub(super) fn rail_says(&mut self, port: usize, serial: RailSerial, report: RailNotice) {
        let event = match report {
            RailNotice::Scheduler { transfer, event } => {
                self.note_flow(transfer, &event);
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
        let Some((handle, transfers)) = self.ports[rail].rails.remove_failed(serial) else {
            return;
        };
        // Dropping it waits for its thread, which may have files to close.
        self.let_go(handle);
        log::say(&format!("a rail of {} failed: {error}", self.ports[rail].nic()));
        self.handle(NodeEvent::RailFailed { rail, transfers, error });
    }

    /// Has the rails take in the files of a transfer that its plan has made new.
    pub(super) fn reopen_files(&mut self, transfer: TransferIx) {
        let Some(node_transfer) = self.transfers.get(&transfer) else { return };
        let replaced = node_transfer.transfer_files.iter().flat_map(|files| files.replaced_files());
        for (file, &port) in
            replaced.flat_map(|file| node_transfer.ports.iter().map(move |it| (file, it)))
        {
            self.ports[port].rails.tell(transfer, RailCommand::Reopen { transfer, file });
        }
    }

    /// Tells the rail that a flow which this node opened goes over.
    pub(super) fn tell_rail_of_flow(&mut self, transfer: TransferIx, command: FlowCommand) {
        let node_transfer = self.transfers.get_mut(&transfer).expect("it is carried out for it");
        if matches!(command, FlowCommand::Lease { .. })
            && let Some(history) = node_transfer.story_of(command.flow())
        {
            history.asked(awake());
        }
        if let Some(&(_, port)) = node_transfer.flows.get(&command.flow()) {
            self.ports[port].rails.command(transfer, TransferCommand::Flow(command));
        }
    }
}

//! Flows on their way between sockets and rails: they are dialled, come up or fail, and arrive.

use std::collections::BTreeMap;

use mio::Token;

use super::flow_opener::{FlowOpener, WantedFlow};
use super::intake::ConnectionIntake;
use super::listening::ListenerIx;
use super::node_transfer::NodeTransfer;
use super::port_set::PortSet;
use super::sessions::DialledFlow;
use super::transfer_flows::WayFailure;
use crate::core::error::Error;
use crate::core::node::machine::NodeEvent;
use crate::core::piece::{FlowCommand, TransferIx};
use crate::core::rail::{FlowDirection, TransferCommand};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::wire::control;
use crate::core::wire::control::FlowHello;
use crate::io::clock::awake;
use crate::io::rail::RailCommand;
use crate::io::session::Connection;

/// What flows need of a node, for one piece of work. Whatever the machine has to know of it is
/// returned.
pub(super) struct FlowDesk<'a> {
    pub(super) intake: &'a mut ConnectionIntake,
    pub(super) ports: &'a PortSet,
    pub(super) opener: &'a mut FlowOpener,
    pub(super) transfers: &'a mut BTreeMap<TransferIx, NodeTransfer>,
}

impl FlowDesk<'_> {
    /// Starts to open a flow on a rail pair.
    pub(super) fn open(&mut self, transfer: TransferIx, wanted: &WantedFlow) -> Option<NodeEvent> {
        let flows = &mut self.transfers.get_mut(&transfer).expect("it is wanted for it").flows;
        match self.opener.open(self.ports, flows, wanted) {
            Ok(()) => self.try_next_way(transfer, wanted.rail_pair),
            Err(error) => self.failed(transfer, wanted.rail_pair, error),
        }
    }

    /// Tries the next way to open a flow, beside those that are still waited for.
    pub(super) fn try_next_way(
        &mut self,
        transfer: TransferIx,
        rail_pair: RailPair,
    ) -> Option<NodeEvent> {
        let node_transfer = self.transfers.get_mut(&transfer)?;
        let (way, connection) =
            self.opener.dial_next(self.ports, &mut node_transfer.flows, rail_pair)?;
        let dialled = DialledFlow { transfer, rail_pair, way };
        // Its first event comes even if it is connected by now.
        match self.intake.add_dialled(connection, dialled) {
            Ok(Token(_)) => None,
            Err(error) => self.way_failed(dialled, error),
        }
    }

    /// One way to open a flow failed; others may be left.
    pub(super) fn way_failed(&mut self, dialled: DialledFlow, error: Error) -> Option<NodeEvent> {
        let DialledFlow { transfer, rail_pair, way } = dialled;
        let node_transfer = self.transfers.get_mut(&transfer)?;
        let nic_of = |port| self.ports.nic_of(port);
        match node_transfer.flows.way_failed(rail_pair, way, error, nic_of) {
            WayFailure::Waits => None,
            WayFailure::GoesOn => self.try_next_way(transfer, rail_pair),
            WayFailure::Ends(event) => Some(NodeEvent::Flow { transfer, event }),
        }
    }

    /// No way is left to open a flow.
    fn failed(
        &mut self,
        transfer: TransferIx,
        rail_pair: RailPair,
        error: Error,
    ) -> Option<NodeEvent> {
        let flows = &mut self.transfers.get_mut(&transfer)?.flows;
        let event = flows.failed(rail_pair, error);
        Some(NodeEvent::Flow { transfer, event })
    }

    /// A flow that this node opened stands.
    pub(super) fn opened(
        &mut self,
        dialled: DialledFlow,
        connection: Connection,
    ) -> Option<NodeEvent> {
        let DialledFlow { transfer, rail_pair, way } = dialled;
        let flows = &mut self.transfers.get_mut(&transfer)?.flows;
        // One that comes up beside another that was faster is not needed.
        let opening = flows.end_opening(rail_pair)?;
        self.intake.close_dialled(transfer, Some(rail_pair));
        let stream = self.intake.release_stream(connection);
        let sealed = stream.and_then(|stream| flows.seal_opened(stream, way));
        let (socket, seal) = match sealed {
            Ok(sealed) => sealed,
            Err(error) => return self.failed(transfer, rail_pair, error),
        };
        self.opener.came_up(self.ports, flows, rail_pair, &opening, way);
        let flow = self.opener.next_flow();
        let relays = flows.stands(flow, rail_pair, way.port);
        let direction = FlowDirection::Receive { relays };
        let command = RailCommand::FlowUp { transfer, flow, socket, seal, direction };
        self.ports.tell(way.port, transfer, command);
        let event = SchedulerEvent::FlowUp { flow, rail_pair };
        Some(NodeEvent::Flow { transfer, event })
    }

    /// A receiver's flow stands. One that is for another node, for an attempt that is over, or over
    /// a rail that the transfer does not use, is closed.
    pub(super) fn arrived(
        &mut self,
        listener: ListenerIx,
        connection: Connection,
    ) -> Option<NodeEvent> {
        let stream = self.intake.release_stream(connection).ok()?;
        let hello = control::decode::<FlowHello>(&stream.payload).ok()?;
        let meant = self.transfers.iter_mut().find(|(_, it)| it.flows.is_meant(&hello));
        let (&transfer, node_transfer) = meant?;
        let flows = &mut node_transfer.flows;
        let port = self.ports.arrived_at(listener, flows.ports(), hello.to_rail)?;
        let (socket, seal) = flows.seal_arrived(stream, &hello).ok()?;
        self.opener.take_in(self.ports, flows, port, &hello, &socket);
        let flow = self.opener.next_flow();
        let in_clear = seal.is_clear();
        let (weight, is_further) = (hello.weight_bytes, hello.further > 0);
        let direction = FlowDirection::Send { weight, in_clear, is_further };
        let command = RailCommand::FlowUp { transfer, flow, socket, seal, direction };
        self.ports.tell(port, transfer, command);
        None
    }

    /// Tells the rail that a flow which this node opened goes over.
    pub(super) fn tell_rail(
        &mut self,
        transfer: TransferIx,
        command: FlowCommand,
    ) -> Option<NodeEvent> {
        let node_transfer = self.transfers.get_mut(&transfer).expect("it is carried out for it");
        if let Some(port) = node_transfer.flows.commanded(&command, awake()) {
            self.ports.command(port, transfer, TransferCommand::Flow(command));
        }
        None
    }
}

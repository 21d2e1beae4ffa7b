//! Flows on their way between sockets and rails: they are dialled, come up or fail, and arrive.

use std::collections::BTreeMap;
use std::net::TcpStream;

use super::call_answers::place_of;
use super::flow_opener;
use super::flow_opener::{FlowOpener, WantedFlow};
use super::intake::ConnectionIntake;
use super::listening::ListenerIx;
use super::node_transfer::NodeTransfer;
use super::port_set::PortSet;
use super::sessions::DialledFlow;
use super::transfer_flows::{FlowStep, OpeningPlace};
use crate::core::error::Error;
use crate::core::node::machine::NodeEvent;
use crate::core::piece::{FlowCommand, TransferIx};
use crate::core::rail::{FlowDirection, TransferCommand};
use crate::core::receiver::rail_pairs::RailPair;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::seal::FlowSeal;
use crate::core::wire::control;
use crate::core::wire::control::{FlowCall, FlowHello, PeerNode};
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
        let place = OpeningPlace { rail_pair: wanted.rail_pair, is_answer: false };
        match self.opener.open(self.ports, flows, wanted) {
            Ok(()) => self.advance(transfer, place),
            Err(error) => self.failed(transfer, wanted.rail_pair, error),
        }
    }

    /// Starts to open a flow to a receiver that calls.
    pub(super) fn answer(
        &mut self,
        transfer: TransferIx,
        call: FlowCall,
        receiver: &PeerNode,
    ) -> Option<NodeEvent> {
        let flows = &mut self.transfers.get_mut(&transfer)?.flows;
        let place = OpeningPlace { rail_pair: place_of(&call), is_answer: true };
        self.intake.close_dialled(transfer, Some(place));
        let has_begun = self.opener.answer(self.ports, flows, call, receiver);
        has_begun.then(|| self.advance(transfer, place)).flatten()
    }

    /// Takes the steps to open a flow that are due, until the machine has to know of one.
    pub(super) fn advance(
        &mut self,
        transfer: TransferIx,
        place: OpeningPlace,
    ) -> Option<NodeEvent> {
        loop {
            let flows = &mut self.transfers.get_mut(&transfer)?.flows;
            match flows.step(place, awake(), |port| self.ports.nic_of(port))? {
                FlowStep::Dial(way, hello) => {
                    let connection = flow_opener::dial(self.ports, flows, way, &hello);
                    let dialled = DialledFlow { transfer, place, way };
                    // Its first event comes even if it is connected by now.
                    if let Err(error) = self.intake.add_dialled(connection, dialled)
                        && let Some(event) = self.fail(dialled, error)
                    {
                        return Some(event);
                    }
                }
                FlowStep::Call(call) => return Some(NodeEvent::Call { transfer, call }),
                FlowStep::Ends(event) => return Some(NodeEvent::Flow { transfer, event }),
            }
        }
    }

    /// One way to open a flow failed; others may be left.
    pub(super) fn way_failed(&mut self, dialled: DialledFlow, error: Error) -> Option<NodeEvent> {
        let DialledFlow { transfer, place, .. } = dialled;
        self.fail(dialled, error).or_else(|| self.advance(transfer, place))
    }

    fn fail(&mut self, dialled: DialledFlow, error: Error) -> Option<NodeEvent> {
        let DialledFlow { transfer, place, way } = dialled;
        let flows = &mut self.transfers.get_mut(&transfer)?.flows;
        let event = flows.way_failed(place, way, error, |port| self.ports.nic_of(port))?;
        Some(NodeEvent::Flow { transfer, event })
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
        let DialledFlow { transfer, place, way } = dialled;
        if place.is_answer {
            return self.answered(dialled, connection);
        }
        let rail_pair = place.rail_pair;
        let flows = &mut self.transfers.get_mut(&transfer)?.flows;
        // One that comes up beside another that was faster is not needed.
        let opening = flows.end_opening(rail_pair)?;
        self.intake.close_dialled(transfer, Some(place));
        let stream = self.intake.release_stream(connection);
        let sealed = stream.and_then(|stream| flows.seal_opened(stream, way));
        let (socket, seal) = match sealed {
            Ok(sealed) => sealed,
            Err(error) => return self.failed(transfer, rail_pair, error),
        };
        self.opener.came_up(self.ports, flows, rail_pair, &opening, Some(way));
        Some(self.receives(transfer, rail_pair, way.port, (socket, seal)))
    }

    /// A flow to a receiver that called stands.
    fn answered(&mut self, dialled: DialledFlow, connection: Connection) -> Option<NodeEvent> {
        let DialledFlow { transfer, place, way } = dialled;
        let flows = &mut self.transfers.get_mut(&transfer)?.flows;
        let (call, opening) = flows.answers.end(place.rail_pair)?;
        self.intake.close_dialled(transfer, Some(place));
        let stream = self.intake.release_stream(connection).ok()?;
        let (socket, seal) = flows.seal_opened(stream, way).ok()?;
        self.opener.answered(self.ports, &opening, way);
        flow_opener::pace(&socket, call.pace_bytes_per_second);
        self.sends(transfer, way.port, (call.weight_bytes, call.further), (socket, seal));
        None
    }

    /// A flow of another node stands: of a receiver, or of a sender that was called. One that is
    /// for another node, for an attempt that is over, or over a rail that the transfer does not
    /// use, is closed, and so is an answer to a call that another way was faster than.
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
        if hello.call.is_none() {
            let (socket, seal) = flows.seal_arrived(stream, &hello).ok()?;
            self.opener.take_in(self.ports, flows, port, &hello, &socket);
            self.sends(transfer, port, (hello.weight_bytes, hello.further), (socket, seal));
            return None;
        }
        let (rail_pair, opening) = flows.take_called(&hello)?;
        let place = OpeningPlace { rail_pair, is_answer: false };
        self.intake.close_dialled(transfer, Some(place));
        let (socket, seal) = match flows.seal_arrived(stream, &hello) {
            Ok(sealed) => sealed,
            Err(error) => return self.failed(transfer, rail_pair, error),
        };
        self.opener.take_in(self.ports, flows, port, &hello, &socket);
        self.opener.came_up(self.ports, flows, rail_pair, &opening, None);
        Some(self.receives(transfer, rail_pair, port, (socket, seal)))
    }

    /// Hands a flow from a sender to its rail.
    fn receives(
        &mut self,
        transfer: TransferIx,
        rail_pair: RailPair,
        port: usize,
        (socket, seal): (TcpStream, FlowSeal),
    ) -> NodeEvent {
        let flow = self.opener.next_flow();
        let flows = self.transfers.get_mut(&transfer).map(|it| &mut it.flows);
        let relays = flows.is_some_and(|flows| flows.stands(flow, rail_pair, port));
        let direction = FlowDirection::Receive { relays };
        let command = RailCommand::FlowUp { transfer, flow, socket, seal, direction };
        self.ports.tell(port, transfer, command);
        let event = SchedulerEvent::FlowUp { flow, rail_pair };
        NodeEvent::Flow { transfer, event }
    }

    /// Hands a flow to a receiver to its rail.
    fn sends(
        &mut self,
        transfer: TransferIx,
        port: usize,
        (weight, further): (u64, u32),
        (socket, seal): (TcpStream, FlowSeal),
    ) {
        let flow = self.opener.next_flow();
        let (in_clear, is_further) = (seal.is_clear(), further > 0);
        let direction = FlowDirection::Send { weight, in_clear, is_further };
        let command = RailCommand::FlowUp { transfer, flow, socket, seal, direction };
        self.ports.tell(port, transfer, command);
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

//! Flows: opened to senders, taken in from receivers, and handed to the rail once they have proved themselves.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::Token;

use super::{HANDSHAKE_WITHIN, Node, Role};
use crate::engine::{member, owner};
use crate::error::{Code, Error, Result};
use crate::rail::{Command, Side, TransferIx};
use crate::session::{Connection, Hello, dial};
use crate::units::NodeIx;
use crate::wire::control::{self, FlowHello};
use crate::wire::version::Kind;

impl Node {
    /// Starts to open a flow to a sender.
    pub(super) fn open_flow(&mut self, transfer: TransferIx, sender: NodeIx, weight: u64) {
        let connection = self.dial_sender(transfer, sender, weight);
        let token = self.next_token();
        self.add_session(token, connection, Role::Flow { transfer, sender });
    }

    fn dial_sender(&self, transfer: TransferIx, sender: NodeIx, weight_bytes: u64) -> Result<Connection> {
        let tenancy = &self.transfers[&transfer];
        let rail = tenancy.peers.get(&sender).and_then(|peer| peer.rails.first());
        let Some(&address) = rail else {
            return Err(Error::new(Code::Internal, "the plan names a sender without an address"));
        };
        let hello = FlowHello {
            transfer: tenancy.prepare.transfer,
            attempt: tenancy.prepare.attempt,
            from_node: tenancy.prepare.node_index,
            to_node: sender.0,
            rail: 0,
            weight_bytes,
        };
        let stream = dial(address, local_end(self.data_address.ip(), address))?;
        let open = Hello { kind: Kind::Data, key_id: hello.transfer };
        let deadline = Instant::now() + HANDSHAKE_WITHIN;
        Connection::initiate(stream, open, &tenancy.flow_key, &control::encode(&hello), deadline)
    }

    /// A flow that this node opened stands.
    pub(super) fn flow_opened(&mut self, token: Token, transfer: TransferIx, sender: NodeIx) {
        let session = self.sessions.remove(&token).expect("called for a session that is up");
        match session.connection.into_stream(self.poll.registry()) {
            Ok((socket, _)) => {
                let flow = self.next_flow();
                if let Some(tenancy) = self.transfers.get_mut(&transfer) {
                    tenancy.flows.insert(flow, sender);
                }
                self.member(transfer, member::Event::Owner(owner::Event::FlowUp { flow, sender }));
                self.tell_rail(Command::FlowUp { transfer, flow, socket: socket.into(), side: Side::Fetch });
            }
            Err(error) => self.flow_failed(transfer, sender, error),
        }
    }

    /// A flow could not be opened.
    pub(super) fn flow_failed(&mut self, transfer: TransferIx, sender: NodeIx, error: Error) {
        let Some(tenancy) = self.transfers.get(&transfer) else { return };
        let error = tenancy.blame(sender, error);
        self.member(transfer, member::Event::Owner(owner::Event::OpenFailed { sender, error }));
    }

    /// A receiver's flow stands. One that is for another node, or for an attempt that is over, is closed.
    pub(super) fn flow_arrived(&mut self, token: Token) {
        let session = self.sessions.remove(&token).expect("called for a session that is up");
        let Ok((socket, hello)) = session.connection.into_stream(self.poll.registry()) else { return };
        let Ok(hello) = control::decode::<FlowHello>(&hello) else { return };
        let is_meant = |prepare: &control::Prepare| {
            prepare.transfer == hello.transfer
                && prepare.attempt == hello.attempt
                && prepare.node_index == hello.to_node
        };
        let transfer = self.transfers.iter().find(|(_, tenancy)| is_meant(&tenancy.prepare)).map(|(&at, _)| at);
        if let Some(transfer) = transfer {
            let flow = self.next_flow();
            let side = Side::Feed { weight: hello.weight_bytes };
            self.tell_rail(Command::FlowUp { transfer, flow, socket: socket.into(), side });
        }
    }

    /// Puts the sender's name in front of what went wrong with its flow.
    pub(super) fn named(&mut self, transfer: TransferIx, event: owner::Event) -> owner::Event {
        let Some(tenancy) = self.transfers.get_mut(&transfer) else { return event };
        match event {
            owner::Event::Failed { flow, piece, error } => {
                let error = tenancy.blame_flow(flow, error);
                owner::Event::Failed { flow, piece, error }
            }
            owner::Event::FlowDown { flow, error } => {
                let error = tenancy.blame_flow(flow, error);
                tenancy.flows.remove(&flow);
                owner::Event::FlowDown { flow, error }
            }
            other => other,
        }
    }
}

/// Which local address a flow leaves from: that of the rail, where it can reach the peer at all.
fn local_end(rail: IpAddr, peer: SocketAddr) -> Option<IpAddr> {
    let reaches =
        !rail.is_unspecified() && rail.is_ipv4() == peer.is_ipv4() && rail.is_loopback() == peer.ip().is_loopback();
    reaches.then_some(rail)
}

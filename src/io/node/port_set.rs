//! The ports of a node, one for each thread of each NIC, with the rails behind them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inbox::{EventSender, RailPost};
use super::listening::{CONTROL, ListenAddresses, ListenerIx};
use super::port_rails::RailSerial;
use super::ports::RailPort;
use crate::core::error::Result;
use crate::core::piece::TransferIx;
use crate::core::rail::TransferCommand;
use crate::core::wire::control::RailAdvert;
use crate::io::clock::{Clock, awake};
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::rail::{RailCommand, RailHandle, RailSize};
use crate::io::session::Listener;

/// All ports of a node.
pub(super) struct PortSet {
    ports: Vec<RailPort>,
    clock: Clock,
    /// The inbox that rails report to.
    post: EventSender,
    /// Where they listen.
    listening: ListenAddresses,
}

/// A transfer that comes to its rails.
pub(super) struct RailJoin<'a> {
    pub(super) transfer: TransferIx,
    pub(super) ports: &'a [usize],
    pub(super) transfer_files: &'a Arc<TransferFiles>,
    pub(super) size: RailSize,
    /// Time after which a silent peer is given up.
    pub(super) silence: Duration,
}

impl PortSet {
    pub(super) fn new(
        ports: Vec<RailPort>,
        listening: ListenAddresses,
        clock: Clock,
        post: EventSender,
    ) -> PortSet {
        PortSet { ports, clock, post, listening }
    }

    pub(super) fn len(&self) -> usize {
        self.ports.len()
    }

    pub(super) fn get(&self, port: usize) -> &RailPort {
        &self.ports[port]
    }

    /// The names of the ports' NICs.
    pub(super) fn nics(&self) -> Vec<&str> {
        self.ports.iter().map(RailPort::nic).collect()
    }

    pub(super) fn nic_of(&self, port: usize) -> String {
        self.ports[port].nic().to_owned()
    }

    /// The adverts of the ports to other nodes.
    pub(super) fn adverts(&self) -> Vec<RailAdvert> {
        self.ports.iter().map(RailPort::advert).collect()
    }

    /// Returns true if every port has a loopback address, which no NIC can lose.
    pub(super) fn are_inside(&self) -> bool {
        self.ports.iter().all(|port| port.own().ip.is_loopback())
    }

    /// Returns the port of a connection that has come in at a listener and names the `rail` that it
    /// is for, of those that a transfer uses. At the control address it may name any of them:
    /// channels lead there. One that names another listener's rail is for the first one of its own.
    pub(super) fn arrived_at(
        &self,
        listener: ListenerIx,
        used: &[usize],
        rail: u32,
    ) -> Option<usize> {
        let is_at =
            |port: &&usize| listener == CONTROL || self.ports[**port].listener() == listener;
        let meant = used.get(rail as usize).filter(is_at);
        meant.or_else(|| used.iter().find(is_at)).copied()
    }

    /// Has each port follow its NIC to the address that this has now. Returns true if some had to,
    /// and new listeners.
    pub(super) fn follow(&mut self) -> (bool, Vec<(ListenerIx, Listener)>) {
        if self.are_inside() {
            return (false, Vec::new());
        }
        let addresses = affinity::addresses().unwrap_or_default();
        let (mut has_changed, mut listeners) = (false, Vec::new());
        for port in &mut self.ports {
            let before = port.address();
            // One that cannot be listened on is left as it is: its peers say that it does not
            // answer.
            let new = port.follow(&addresses, &mut self.listening).ok().flatten();
            listeners.extend(new.map(|listener| (port.listener(), listener)));
            has_changed |= port.address() != before;
        }
        (has_changed, listeners)
    }

    /// Hands the files of a transfer to its rails, which are started where there are none.
    ///
    /// # Errors
    /// Those of [`RailHandle::spawn`].
    pub(super) fn join(&mut self, join: &RailJoin) -> Result<()> {
        let &RailJoin { transfer, size, silence, .. } = join;
        let (clock, post) = (self.clock, &self.post);
        join.ports.iter().try_for_each(|&rail| {
            let transfer_files = Arc::clone(join.transfer_files);
            let joins = RailCommand::Join { transfer, rail, transfer_files, silence };
            self.ports[rail]
                .rails
                .rail_for(transfer, clock, size, |serial| RailPost::new(post, rail, serial))
                .map(|rail| rail.tell(joins))
        })
    }

    /// Tells the rail that a transfer is on behind a port.
    pub(super) fn tell(&self, port: usize, transfer: TransferIx, command: RailCommand) {
        self.ports[port].rails.tell(transfer, command);
    }

    /// Has the rail that a transfer is on behind a port do something for it.
    pub(super) fn command(&self, port: usize, transfer: TransferIx, command: TransferCommand) {
        self.ports[port].rails.command(transfer, command);
    }

    /// A transfer is over.
    pub(super) fn leave(&mut self, transfer: TransferIx) {
        self.ports.iter_mut().for_each(|port| port.rails.leave(transfer));
    }

    /// A rail has failed. Gives it, and the transfers that were on it.
    pub(super) fn remove_failed(
        &mut self,
        port: usize,
        serial: RailSerial,
    ) -> Option<(RailHandle, Vec<TransferIx>)> {
        self.ports[port].rails.remove_failed(serial)
    }

    /// The instant at which a rail that no transfer is on is to be ended.
    pub(super) fn idle_due(&self) -> Option<Instant> {
        self.ports.iter().filter_map(|port| port.rails.due()).min()
    }

    /// Takes out the rails that have been idle for long.
    pub(super) fn take_idle(&mut self, now: Instant) -> Vec<RailHandle> {
        self.ports.iter_mut().flat_map(|port| port.rails.take_idle(now, None)).collect()
    }

    /// Takes out the idle rails that are in the way of a transfer: their memory is for the rails
    /// that it needs.
    pub(super) fn take_unfit(&mut self, ports: &[usize], size: RailSize) -> Vec<RailHandle> {
        let take = |&at: &usize| self.ports[at].rails.take_idle(awake(), Some(size));
        ports.iter().flat_map(take).collect()
    }
}

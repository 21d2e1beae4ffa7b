//! Calls of receivers on their way to the senders that shall dial.

use std::collections::VecDeque;

use super::attempt;
use super::peer::PeerRecord;
use super::phase::TransferPhase;
use super::roster::Roster;
use crate::core::units::NodeIx;
use crate::core::wire::control::{FlowCall, ToNode};

/// Limit on the calls that wait: each receiver makes a few, and a lost one is made again.
const WAITING_MAX: usize = 65_536;

/// Calls in their order, each with its receiver.
#[derive(Debug, Default)]
pub(super) struct FlowCalls(VecDeque<(NodeIx, FlowCall)>);

impl FlowCalls {
    /// Adds a call, while bytes move and unless too many wait.
    pub(super) fn add(&mut self, phase: TransferPhase, receiver: NodeIx, call: FlowCall) {
        if phase == TransferPhase::Moving && self.0.len() < WAITING_MAX {
            self.0.push_back((receiver, call));
        }
    }

    /// Returns the next one.
    pub(super) fn next(&mut self) -> Option<(NodeIx, FlowCall)> {
        self.0.pop_front()
    }
}

/// Returns a call as a message to its sender, if that is still there.
pub(super) fn passed_on(
    roster: &Roster,
    peers: &[PeerRecord],
    receiver: NodeIx,
    call: FlowCall,
) -> Option<(NodeIx, ToNode)> {
    let sender = NodeIx(call.peer);
    let peer = peers.get(sender.at()).filter(|peer| !peer.is_gone())?;
    peer.advert()?;
    let (entry, advert) = (roster.get(receiver), peers[receiver.at()].advert()?);
    let channel = roster.channels.between(sender, receiver);
    let call = FlowCall { peer: receiver.0, ..call };
    let receiver = attempt::peer(receiver, entry, &advert, false, channel);
    Some((sender, ToNode::Called { call, receiver }))
}

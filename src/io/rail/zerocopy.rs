//! Sends that copy nothing: the kernel reads a slot until the peer has acknowledged its last byte.
//!
//! A send has two ends then: its result, after which the flow goes on, and the notice that the slot
//! is free. Nobody waits for a notice. At most half of the slots are lent at a time; what is sent
//! beyond them is copied, so that a rail whose notices are late still has slots to read into. A
//! flow whose notices say that the kernel copied after all (loopback, veth, many virtual devices)
//! sends plainly from then on: a copy is cheaper without notices.

use ring::{Errno, RingIo, RingOp, Slot};

use super::RailEvents;
use super::contexts::SendingPiece;
use super::driver::RailDriver;
use super::paths::{FallbackReason, KernelRoute};
use super::sockets::RailFlow;
use crate::core::piece::FlowIx;
use crate::core::rail::piece_sender;
use crate::core::wire::DataPath;
use crate::core::wire::frame::FRAME_BYTES;

impl<I: RingIo, M: RailEvents> RailDriver<I, M> {
    /// Whether the next piece of a flow is sent without a copy.
    pub(super) fn may_send_zerocopy(&mut self, flow: FlowIx) -> bool {
        let Some(state) = self.flows.get_mut(&flow) else { return false };
        let Some(rail_transfer) = self.rail_transfers.get(&state.transfer) else { return false };
        if rail_transfer.transfer_files.path != DataPath::Zerocopy
            || state.feed().is_none_or(|feed| feed.copies)
        {
            return false;
        }
        let may_send_zerocopy = 2 * (self.in_kernel + 1) <= self.size.slots;
        if !may_send_zerocopy {
            rail_transfer.paths().because(FallbackReason::Late);
        }
        may_send_zerocopy
    }

    /// A send has its result, and the kernel still has its slot.
    pub(super) fn on_zerocopy_sent(&mut self, token: u64, result: Result<u32, Errno>) {
        let sending = self.contexts.sending(token);
        if refuses_zerocopy(result) {
            sending.again = true;
            return;
        }
        let sending = *sending;
        self.piece_sender.handle(piece_sender::SenderEvent::SentHeld { flow: sending.flow });
        self.sent(sending, result);
    }

    /// The kernel gives back a slot that was lent; `copied` says that it need not have been.
    pub(super) fn on_notification(
        &mut self,
        sending: SendingPiece,
        copied: bool,
        slot: Option<Slot>,
    ) {
        let slot = slot.expect("a notice gives the slot back");
        self.in_kernel -= 1;
        if copied {
            self.stop_zerocopy(sending, FallbackReason::Copied);
        }
        if sending.again {
            return self.send_plainly(sending, slot);
        }
        drop(slot);
        self.piece_sender.handle(piece_sender::SenderEvent::Freed);
    }

    /// Sends what the kernel would not send without a copy.
    pub(super) fn send_plainly(&mut self, sending: SendingPiece, slot: Slot) {
        self.stop_zerocopy(sending, FallbackReason::NoZerocopy);
        let Some(socket) = self.flows.get(&sending.flow).map(|flow| flow.socket) else {
            drop(slot);
            return self
                .piece_sender
                .handle(piece_sender::SenderEvent::Sent { flow: sending.flow });
        };
        let bytes = usize::try_from(sending.piece_bytes).expect("a piece is a block at most");
        let range = sending.start..sending.start + FRAME_BYTES + bytes;
        let sending = SendingPiece { route: KernelRoute::ReadSend, again: false, ..sending };
        self.send(sending, RingOp::Send { file: socket, slot, range, more: false });
    }

    fn stop_zerocopy(&mut self, sending: SendingPiece, reason: FallbackReason) {
        if let Some(feed) = self.flows.get_mut(&sending.flow).and_then(RailFlow::feed) {
            feed.copies = true;
        }
        if let Some(rail_transfer) = self.rail_transfers.get(&sending.transfer) {
            rail_transfer.paths().because(reason);
        }
    }
}

/// Whether the kernel would have sent it with a copy: too little locked memory, or no such
/// operation or device.
pub(super) fn refuses_zerocopy(result: Result<u32, Errno>) -> bool {
    matches!(result, Err(Errno::ENOMEM | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOBUFS))
}

//! Sends that copy nothing: the kernel reads a slot until the peer has acknowledged its last byte.
//!
//! A send has two ends then: its result, after which the flow goes on, and the notice that the slot
//! is free. Nobody waits for a notice. At most half of the slots are lent at a time; what is sent
//! beyond them is copied, so that a rail whose notices are late still has slots to read into. A
//! flow whose notices say that the kernel copied after all (loopback, veth, many virtual devices)
//! sends plainly from then on: a copy is cheaper without notices.

use ring::{Errno, Io, Op, Slot};

use super::Mailbox;
use super::contexts::Sending;
use super::driver::Driver;
use super::paths::{Reason, Route};
use super::sockets::Flow;
use crate::engine::FlowIx;
use crate::engine::serve;
use crate::wire::DataPath;
use crate::wire::frame::FRAME_BYTES;

impl<I: Io, M: Mailbox> Driver<I, M> {
    /// Whether the next piece of a flow is sent without a copy.
    pub(super) fn lends(&mut self, flow: FlowIx) -> bool {
        let Some(state) = self.flows.get_mut(&flow) else { return false };
        let Some(tenant) = self.tenants.get(&state.transfer) else { return false };
        if tenant.desk.path != DataPath::Zerocopy || state.feed().is_none_or(|feed| feed.copies) {
            return false;
        }
        let lends = 2 * (self.lent + 1) <= self.size.slots;
        if !lends {
            tenant.paths().because(Reason::Late);
        }
        lends
    }

    /// A send has its result, and the kernel still has its slot.
    pub(super) fn sent_lent(&mut self, token: u64, result: Result<u32, Errno>) {
        let sending = self.contexts.sending(token);
        if refuses_zerocopy(result) {
            sending.again = true;
            return;
        }
        let sending = *sending;
        self.serve.handle(serve::Event::SentHeld { flow: sending.flow });
        self.sent(sending, result);
    }

    /// The kernel gives back a slot that was lent; `copied` says that it need not have been.
    pub(super) fn given_back(&mut self, sending: Sending, copied: bool, slot: Option<Slot>) {
        let slot = slot.expect("a notice gives the slot back");
        self.lent -= 1;
        if copied {
            self.stop_lending(sending, Reason::Copied);
        }
        if sending.again {
            return self.send_plainly(sending, slot);
        }
        drop(slot);
        self.serve.handle(serve::Event::Freed);
    }

    /// Sends what the kernel would not send without a copy.
    pub(super) fn send_plainly(&mut self, sending: Sending, slot: Slot) {
        self.stop_lending(sending, Reason::NoZerocopy);
        let Some(socket) = self.flows.get(&sending.flow).map(|flow| flow.socket) else {
            drop(slot);
            return self.serve.handle(serve::Event::Sent { flow: sending.flow });
        };
        let bytes = usize::try_from(sending.piece_bytes).expect("a piece is a block at most");
        let range = sending.start..sending.start + FRAME_BYTES + bytes;
        let sending = Sending { route: Route::ReadSend, again: false, ..sending };
        self.send(sending, Op::Send { file: socket, slot, range, more: false });
    }

    fn stop_lending(&mut self, sending: Sending, reason: Reason) {
        if let Some(feed) = self.flows.get_mut(&sending.flow).and_then(Flow::feed) {
            feed.copies = true;
        }
        if let Some(tenant) = self.tenants.get(&sending.transfer) {
            tenant.paths().because(reason);
        }
    }
}

/// Whether the kernel would have sent it with a copy: too little locked memory, or no such
/// operation or device.
pub(super) fn refuses_zerocopy(result: Result<u32, Errno>) -> bool {
    matches!(result, Err(Errno::ENOMEM | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOBUFS))
}

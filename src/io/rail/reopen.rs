//! Files of a transfer that are other ones once its plan is known.

use std::sync::Arc;

use ring::RingIo;

use super::driver::RailDriver;
use super::{RailEvent, RailEvents, TransferIx};
use crate::core::error::{Code, Error};

impl<I: RingIo, M: RailEvents> RailDriver<I, M> {
    /// Registers the file of that index anew. Nothing of the one before it is in flight.
    pub(super) fn reopen(&mut self, transfer: TransferIx, file: usize) {
        let Some(rail_transfer) = self.rail_transfers.get(&transfer) else { return };
        let transfer_files = Arc::clone(&rail_transfer.transfer_files);
        let Some(open) = transfer_files.files().nth(file) else { return };
        match self.register(open, transfer_files.path) {
            Ok(registered) => {
                let files = self.rail_transfers.get_mut(&transfer).map(|it| &mut it.files);
                let before = files.map(|files| std::mem::replace(&mut files[file], registered));
                self.unregister(before.into_iter().collect());
            }
            Err(error) => self.tell(without_files(transfer, &error)),
        }
    }
}

/// A rail without a transfer's files takes no part in it, and refuses its flows.
pub(super) fn without_files(transfer: TransferIx, error: &std::io::Error) -> RailEvent {
    let what = format!("this rail cannot take in the transfer's files: {error}");
    let error = Error::new(Code::Data, what).remedy("give the node more descriptors (ulimit -n)");
    RailEvent::Broken { transfer, error }
}

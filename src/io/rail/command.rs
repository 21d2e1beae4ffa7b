//! The queues between a rail and its control thread: commands in, notices out.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::transfer_files::TransferFiles;
use crate::core::piece::{FlowIx, TransferIx};
use crate::core::rail::{FlowDirection, RailNotice, TransferCommand};
use crate::core::seal::FlowSeal;

/// Command of the control thread to a rail.
#[derive(Debug)]
pub(crate) enum RailCommand {
    /// A transfer begins; flows of it may follow. `rail` is this rail's index at its node.
    Join {
        transfer: TransferIx,
        rail: usize,
        transfer_files: Arc<TransferFiles>,
        silence: Duration,
    },
    /// A file of a transfer is another one from now on. Nothing of it is in flight.
    Reopen { transfer: TransferIx, file: usize },
    /// A flow stands; `socket` has been through its handshake.
    FlowUp {
        transfer: TransferIx,
        flow: FlowIx,
        socket: TcpStream,
        seal: FlowSeal,
        direction: FlowDirection,
    },
    /// A command for one transfer.
    Transfer { transfer: TransferIx, command: TransferCommand },
    /// The thread ends.
    Stop,
}

/// Queue for a rail's notices, which wakes the control thread.
pub(crate) trait ReportSender: Clone + Send + 'static {
    /// Takes reports from the front of `reports`, as many as there is room for: all, unless the
    /// control thread is far behind. Neither blocks nor allocates, for a rail does neither.
    fn deliver(&self, reports: &mut VecDeque<RailNotice>);
}

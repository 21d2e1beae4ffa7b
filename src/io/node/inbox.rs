//! The inbox of the control thread: what rails and workers tell it.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use mio::Waker;

use super::port_rails::RailSerial;
use super::prepare::OpenedTransfer;
use super::surveys::SurveyResult;
use crate::core::error::Result;
use crate::core::node::machine::{JobAnswer, SessionIx};
use crate::core::piece::TransferIx;
use crate::core::rail::RailNotice;
use crate::io::rail::ReportSender;

/// Event in the control thread's queue.
#[derive(Debug)]
pub(super) enum InboxEvent {
    /// A rail says something.
    Rail { port: usize, serial: RailSerial, report: RailNotice },
    /// A worker that opens a transfer reads what is there already, so far.
    Reading { transfer: TransferIx, read_bytes: u64 },
    /// Sources and destinations are open, or not.
    Opened { transfer: TransferIx, result: Result<Box<OpenedTransfer>> },
    /// A worker has done something else for a transfer.
    Worker { transfer: TransferIx, answer: JobAnswer },
    /// A worker has looked at paths.
    Surveyed { session: SessionIx, result: SurveyResult },
    /// Rails have ended.
    Rested,
    /// Something is done that nobody waits for.
    Done,
}

impl InboxEvent {
    /// Returns true if a worker sends it, as its last act.
    pub(super) fn is_work(&self) -> bool {
        !matches!(self, InboxEvent::Rail { .. } | InboxEvent::Reading { .. })
    }
}

/// The way into the inbox, from any thread.
#[derive(Clone, Debug)]
pub(super) struct EventSender {
    notes: Sender<InboxEvent>,
    waker: Arc<Waker>,
}

impl EventSender {
    pub(super) fn new(notes: Sender<InboxEvent>, waker: Waker) -> EventSender {
        EventSender { notes, waker: Arc::new(waker) }
    }

    /// Delivers a note, when there is room for it. A node that is ending reads no more of them.
    pub(super) fn send(&self, note: InboxEvent) {
        if self.notes.send(note).is_ok() {
            self.wake();
        }
    }

    /// Makes the control thread look, also where there is no note.
    pub(super) fn wake(&self) {
        // The queue of events is the node's own; it fails only when the node is gone.
        let _ = self.waker.wake();
    }
}

/// The way into the inbox of one rail.
#[derive(Clone, Debug)]
pub(super) struct RailPost {
    events: EventSender,
    port: usize,
    serial: RailSerial,
}

impl RailPost {
    pub(super) fn new(events: &EventSender, port: usize, serial: RailSerial) -> RailPost {
        RailPost { events: events.clone(), port, serial }
    }
}

impl ReportSender for RailPost {
    fn deliver(&self, reports: &mut VecDeque<RailNotice>) {
        let (port, serial) = (self.port, self.serial);
        while let Some(report) = reports.pop_front() {
            match self.events.notes.try_send(InboxEvent::Rail { port, serial, report }) {
                Ok(()) => {}
                Err(TrySendError::Full(InboxEvent::Rail { report, .. })) => {
                    reports.push_front(report);
                    break;
                }
                // A node that is ending hears no more.
                Err(_) => reports.clear(),
            }
        }
        self.events.wake();
    }
}

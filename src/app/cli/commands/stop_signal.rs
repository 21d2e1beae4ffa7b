//! Signal that ends a command of several transfers.

use std::sync::{Mutex, PoisonError};

use crate::app::transfer::TransferHandle;

/// Ends the current transfer, and every later one at its start.
#[derive(Default)]
pub(super) struct StopSignal(Mutex<StopState>);

#[derive(Default)]
struct StopState {
    is_asked: bool,
    current: Option<TransferHandle>,
}

impl StopSignal {
    /// Returns true once the command is to end.
    pub(super) fn is_asked(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_asked
    }

    /// Ends the current transfer, and the command.
    pub(super) fn cancel(&self) {
        let mut stopping = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stopping.is_asked = true;
        if let Some(handle) = &stopping.current {
            handle.cancel();
        }
    }

    /// Has a transfer end with the command.
    pub(super) fn watch(&self, handle: TransferHandle) {
        let mut stopping = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stopping.is_asked {
            handle.cancel();
        }
        stopping.current = Some(handle);
    }
}

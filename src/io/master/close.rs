//! Closing of a master's sessions.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Events;

use super::run::{FIRST_NODE, MasterLoop};
use crate::io::clock::{LOOK_EVERY, awake};
use crate::io::session::{ConnectionHello, HelloReply, IncomingData};

/// Time for receivers to receive the end.
const FAREWELL_WITHIN: Duration = Duration::from_secs(10);

impl MasterLoop<'_> {
    /// Closes every session in good order. A receiver closes its end once no record of the transfer
    /// is left beside its files. This function waits for that, so that nothing is left when this
    /// process reports the end.
    pub(super) fn say_goodbye(&mut self) {
        let nodes = self.nodes.iter_mut().filter_map(|link| link.connection.as_mut());
        for connection in nodes.chain(self.visitors.open.values_mut()) {
            // All messages are sent; a peer that is gone needs no good-bye.
            let _ = connection.close();
        }
        if self.coordinator.error().is_some() {
            return;
        }
        let receives = |index: &usize| self.coordinator.roster().entries[*index].receives();
        let mut awaited: BTreeSet<usize> = (0..self.nodes.len()).filter(receives).collect();
        awaited.retain(|&index| self.is_open(index));
        let (deadline, mut events) = (awake() + FAREWELL_WITHIN, Events::with_capacity(1024));
        while !awaited.is_empty() && !self.shared.cancelled.load(Ordering::Acquire) {
            let left = deadline.saturating_duration_since(awake());
            if left.is_zero() || self.poll.poll(&mut events, Some(left.min(LOOK_EVERY))).is_err() {
                break;
            }
            for event in &events {
                let index = event.token().0.wrapping_sub(FIRST_NODE) % self.nodes.len();
                if awaited.contains(&index) && !self.is_open(index) {
                    awaited.remove(&index);
                }
            }
        }
        for index in awaited {
            let name = &self.coordinator.roster().entries[index].address;
            let what = format!(
                "{name} has not confirmed the end: until then, records are left beside its files"
            );
            self.coordinator.warn(what);
        }
    }

    /// Returns true if a node has not closed its end of a session that was closed here.
    fn is_open(&mut self, index: usize) -> bool {
        let Some(connection) =
            self.nodes[index].connection.as_mut().filter(|connection| connection.is_up())
        else {
            return false;
        };
        let nobody = |_: &ConnectionHello| None::<HelloReply>;
        if connection.ready(&nobody).is_err() {
            return false;
        }
        loop {
            match connection.receive() {
                Ok(IncomingData::Message(_)) => {}
                Ok(IncomingData::Pending) => return true,
                Ok(IncomingData::Closed { .. }) | Err(_) => return false,
            }
        }
    }
}

//! Which nodes have fallen silent while bytes moved. At the end they are not waited for as long as
//! the others: most likely they are frozen, or cut off.
//!
//! A receiver speaks for itself, twice a second. A sender has nothing to say in mid-transfer; its
//! receivers say what it brings.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::SenderDelivery;

/// A receiver that says nothing for so long is silent: it should have spoken four times.
const RECEIVER_SILENT: Duration = Duration::from_secs(2);
/// A sender that brings nothing of what it is asked for is silent after this part of the stall
/// timeout. Its receivers turn to others after a third, and say no more then that they wait for it.
const SENDER_SILENT: u32 = 6;
/// Pairs of nodes that are watched.
const PAIRS_MAX: usize = 1 << 16;

/// What is known of who speaks and who does not.
#[derive(Debug, Default)]
pub(super) struct SilentSenders {
    /// When each receiver said last how far it is.
    receivers: BTreeMap<NodeIx, Moment>,
    senders: BTreeMap<NodeIx, SenderActivity>,
    /// What each receiver said last that each sender had brought.
    brought: BTreeMap<(NodeIx, NodeIx), u64>,
}

#[derive(Debug)]
struct SenderActivity {
    /// When it last brought something to anybody.
    brought_at: Moment,
    is_silent: bool,
}

impl SilentSenders {
    /// A receiver says how far it is, and what its senders have brought; `stall` is how long
    /// nothing may move.
    pub(super) fn hear(
        &mut self,
        now: Moment,
        receiver: NodeIx,
        delivered: &[SenderDelivery],
        stall: Duration,
    ) {
        self.receivers.insert(receiver, now);
        for it in delivered {
            let pair = (receiver, NodeIx(it.index));
            if self.brought.len() >= PAIRS_MAX && !self.brought.contains_key(&pair) {
                continue;
            }
            let before = self.brought.insert(pair, it.bytes);
            let new = SenderActivity { brought_at: now, is_silent: false };
            let sender = self.senders.entry(pair.1).or_insert(new);
            if before.is_none_or(|before| it.bytes > before) {
                *sender = SenderActivity { brought_at: now, is_silent: false };
            } else if it.busy && now.since(sender.brought_at) >= stall / SENDER_SILENT {
                sender.is_silent = true;
            }
        }
    }

    /// Whether a node that should say how far it is does not.
    pub(super) fn is_receiver(&self, now: Moment, node: NodeIx) -> bool {
        self.receivers.get(&node).is_some_and(|&heard| now.since(heard) >= RECEIVER_SILENT)
    }

    /// Whether a node has not brought what it was asked for, and nothing since.
    pub(super) fn is_sender(&self, node: NodeIx) -> bool {
        self.senders.get(&node).is_some_and(|sender| sender.is_silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(30);
    const SENDER: NodeIx = NodeIx(0);
    const ONE: NodeIx = NodeIx(1);
    const OTHER: NodeIx = NodeIx(2);

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    fn delivered(bytes: u64, busy: bool) -> [SenderDelivery; 1] {
        [SenderDelivery { index: SENDER.0, bytes, busy }]
    }

    /// Whether the sender counts as silent after one receiver's reports: at which second, how many
    /// bytes, and whether it waits.
    fn is_silent(reports: &[(u64, u64, bool)]) -> bool {
        let mut silence = SilentSenders::default();
        for &(second, bytes, busy) in reports {
            silence.hear(at(second), ONE, &delivered(bytes, busy), STALL);
        }
        silence.is_sender(SENDER)
    }

    #[test]
    fn who_brings_nothing_of_what_it_is_asked_for_is_silent() {
        assert!(!is_silent(&[]));
        assert!(!is_silent(&[(0, 7, true), (4, 7, true)]), "not for long");
        assert!(is_silent(&[(0, 7, true), (5, 7, true)]));
        assert!(
            is_silent(&[(0, 7, true), (5, 7, true), (12, 7, false)]),
            "others were asked instead"
        );
        assert!(!is_silent(&[(0, 7, true), (5, 7, true), (6, 8, true)]), "it speaks again");
        assert!(!is_silent(&[(0, 7, true), (3, 8, true), (7, 8, true)]));
        assert!(!is_silent(&[(0, 7, false), (50, 7, false)]), "nobody asks it for anything");
    }

    #[test]
    fn who_brings_something_to_one_receiver_is_not_silent() {
        let mut silence = SilentSenders::default();
        for second in 0..20 {
            silence.hear(at(second), ONE, &delivered(7, true), STALL);
            silence.hear(at(second), OTHER, &delivered(second, true), STALL);
        }
        assert!(!silence.is_sender(SENDER));
    }

    #[test]
    fn a_receiver_that_does_not_report_is_silent() {
        let mut silence = SilentSenders::default();
        assert!(!silence.is_receiver(at(9), ONE), "nobody expects it to");
        silence.hear(at(10), ONE, &[], STALL);
        assert!(!silence.is_receiver(at(11), ONE));
        assert!(silence.is_receiver(at(12), ONE));
    }
}

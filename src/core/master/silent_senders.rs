//! Detection of nodes that fall silent while bytes move. Their good-byes are waited for only
//! briefly: most likely they are frozen or cut off.
//!
//! A receiver reports twice a second. A sender sends no reports in mid-transfer; its receivers
//! report what it delivers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::SenderDelivery;

/// Time without a report after which a receiver is silent: four reports are missing.
const RECEIVER_SILENT: Duration = Duration::from_secs(2);
/// Fraction of the stall timeout after which a sender that delivers nothing is silent. After a
/// third of the timeout its receivers turn to other senders, and no longer report that they wait
/// for it.
const SENDER_SILENT: u32 = 6;
/// Limit on the watched pairs of nodes.
const PAIRS_MAX: usize = 1 << 16;

/// Latest reports of receivers and deliveries of senders.
#[derive(Debug, Default)]
pub(super) struct SilentSenders {
    /// Moment of each receiver's last report.
    receivers: BTreeMap<NodeIx, Moment>,
    senders: BTreeMap<NodeIx, SenderActivity>,
    /// Bytes that each sender had delivered to each receiver, by the last report.
    brought: BTreeMap<(NodeIx, NodeIx), u64>,
}

#[derive(Debug)]
struct SenderActivity {
    /// Moment of its last delivery to any receiver.
    brought_at: Moment,
    is_silent: bool,
}

impl SilentSenders {
    /// Records a receiver's report of what its senders have delivered. `stall` is the stall
    /// timeout.
    pub(super) fn reported(
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

    /// Returns true if a receiver has stopped to report.
    pub(super) fn is_receiver(&self, now: Moment, node: NodeIx) -> bool {
        self.receivers.get(&node).is_some_and(|&heard| now.since(heard) >= RECEIVER_SILENT)
    }

    /// Returns true if a sender does not deliver what it was asked for.
    pub(super) fn is_sender(&self, node: NodeIx) -> bool {
        self.senders.get(&node).is_some_and(|sender| sender.is_silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::wire::control::SpeedSample;

    const STALL: Duration = Duration::from_secs(30);
    const SENDER: NodeIx = NodeIx(0);
    const ONE: NodeIx = NodeIx(1);
    const OTHER: NodeIx = NodeIx(2);

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    fn delivered(bytes: u64, busy: bool) -> [SenderDelivery; 1] {
        [SenderDelivery { index: SENDER.0, bytes, busy, sample: SpeedSample::default() }]
    }

    /// Returns true if the sender counts as silent after one receiver's reports, each with its
    /// second, its bytes and whether the receiver waits.
    fn is_silent(reports: &[(u64, u64, bool)]) -> bool {
        let mut silence = SilentSenders::default();
        for &(second, bytes, busy) in reports {
            silence.reported(at(second), ONE, &delivered(bytes, busy), STALL);
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
            silence.reported(at(second), ONE, &delivered(7, true), STALL);
            silence.reported(at(second), OTHER, &delivered(second, true), STALL);
        }
        assert!(!silence.is_sender(SENDER));
    }

    #[test]
    fn a_receiver_that_does_not_report_is_silent() {
        let mut silence = SilentSenders::default();
        assert!(!silence.is_receiver(at(9), ONE), "nobody expects it to");
        silence.reported(at(10), ONE, &[], STALL);
        assert!(!silence.is_receiver(at(11), ONE));
        assert!(silence.is_receiver(at(12), ONE));
    }
}

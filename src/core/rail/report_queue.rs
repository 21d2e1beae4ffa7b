//! Reports of a rail that wait to be told together: waking the control thread for each piece would
//! cost as much as moving a small one.

use std::collections::VecDeque;

use super::messages::RailNotice;
use crate::core::receiver::scheduler::SchedulerEvent;

/// Landed pieces that are told together; the last ones of a flow are told at once.
const LANDED_BATCH: usize = 8;
/// Reports that may wait without their place having to grow: a batch, and what flows say meanwhile.
const REPORTS: usize = 256;

#[derive(Debug)]
pub(super) struct ReportQueue {
    reports: VecDeque<RailNotice>,
    /// True if a reader waits for one of them.
    is_urgent: bool,
}

impl ReportQueue {
    pub(super) fn new() -> ReportQueue {
        ReportQueue { reports: VecDeque::with_capacity(REPORTS), is_urgent: false }
    }

    /// Takes in a report. Nobody waits for a piece that has landed, unless it was stolen: a flow
    /// has few of those at once, and the scheduler gives it the next one when it hears of this one.
    pub(super) fn push(&mut self, report: RailNotice) {
        let may_wait = match &report {
            RailNotice::Scheduler { event: SchedulerEvent::Landed { piece, .. }, .. } => {
                !piece.stolen
            }
            _ => false,
        };
        self.is_urgent |= !may_wait;
        self.reports.push_back(report);
    }

    /// Somebody waits for what is in the queue.
    pub(super) fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// The next report that is to be told now; `is_quiet` where no piece is about to land.
    pub(super) fn poll(&mut self, is_quiet: bool) -> Option<RailNotice> {
        self.is_urgent |= is_quiet || self.reports.len() >= LANDED_BATCH;
        let report = if self.is_urgent { self.reports.pop_front() } else { None };
        // Once the first of them is told, all are.
        self.is_urgent &= !self.reports.is_empty();
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::piece::{FlowIx, Piece, TransferIx};
    use crate::core::units::Span;
    use crate::core::wire::Check;

    const TRANSFER: TransferIx = TransferIx(1);

    fn landed(stolen: bool) -> RailNotice {
        let piece = Piece { span: Span::of(0, 10), stolen };
        let event = SchedulerEvent::Landed { flow: FlowIx(1), piece, check: Check::None };
        RailNotice::Scheduler { transfer: TRANSFER, event }
    }

    fn told(queue: &mut ReportQueue, is_quiet: bool) -> usize {
        std::iter::from_fn(|| queue.poll(is_quiet)).count()
    }

    #[test]
    fn landed_pieces_wait_for_each_other_while_more_are_on_their_way() {
        let mut queue = ReportQueue::new();
        for _ in 0..LANDED_BATCH - 1 {
            queue.push(landed(false));
            assert_eq!(told(&mut queue, false), 0);
        }
        queue.push(landed(false));
        assert_eq!(told(&mut queue, false), LANDED_BATCH);
        queue.push(landed(false));
        assert_eq!(told(&mut queue, false), 0, "the next batch");
        assert_eq!(told(&mut queue, true), 1, "nothing else lands");
    }

    #[test]
    fn a_stolen_piece_that_has_landed_is_told_at_once() {
        let mut queue = ReportQueue::new();
        queue.push(landed(false));
        queue.push(landed(true));
        assert_eq!(told(&mut queue, false), 2);
    }

    #[test]
    fn what_somebody_waits_for_takes_all_along() {
        let mut queue = ReportQueue::new();
        queue.push(landed(false));
        queue.push(RailNotice::Drained { transfer: TRANSFER });
        assert_eq!(told(&mut queue, false), 2);
        queue.push(landed(false));
        queue.hurry();
        assert_eq!(told(&mut queue, false), 1);
        queue.push(landed(false));
        assert_eq!(told(&mut queue, false), 0);
    }
}

//! Reports of a rail that wait to be told together: waking the control thread for each piece would
//! cost as much as moving a small one.

use std::collections::VecDeque;
use std::time::Duration;

use super::messages::RailNotice;
use crate::core::piece::TransferIx;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::Moment;

/// Landed pieces that are told together.
const LANDED_BATCH: usize = 8;
/// Time for which a landed piece waits for others.
const LANDED_WITHIN: Duration = Duration::from_millis(1);
/// Reports that may wait without their place having to grow: a batch, and what flows say meanwhile.
const REPORTS: usize = 256;

#[derive(Debug)]
pub(super) struct ReportQueue {
    reports: VecDeque<RailNotice>,
    /// True if a reader waits for one of them.
    is_urgent: bool,
    /// The moment at which the first of them has waited long enough.
    due: Option<Moment>,
}

impl ReportQueue {
    pub(super) fn new() -> ReportQueue {
        ReportQueue { reports: VecDeque::with_capacity(REPORTS), is_urgent: false, due: None }
    }

    /// Takes in a report that somebody waits for.
    pub(super) fn push(&mut self, report: RailNotice) {
        self.is_urgent = true;
        self.reports.push_back(report);
    }

    /// Takes in what the scheduler must hear. Nobody waits for a piece that has landed, unless it
    /// was stolen: a flow has few of those at once, and the scheduler gives it the next one when it
    /// hears of this one.
    pub(super) fn push_event(&mut self, now: Moment, transfer: TransferIx, event: SchedulerEvent) {
        match &event {
            SchedulerEvent::Landed { piece, .. } if !piece.stolen => {
                self.due.get_or_insert(now + LANDED_WITHIN);
            }
            _ => self.is_urgent = true,
        }
        self.reports.push_back(RailNotice::Scheduler { transfer, event });
    }

    /// Somebody waits for what is in the queue.
    pub(super) fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// The next report that is to be told now; `is_quiet` where no piece will land.
    pub(super) fn poll(&mut self, is_quiet: bool) -> Option<RailNotice> {
        self.is_urgent |= is_quiet || self.reports.len() >= LANDED_BATCH;
        let report = if self.is_urgent { self.reports.pop_front() } else { None };
        // Once the first of them is told, all are.
        self.is_urgent &= !self.reports.is_empty();
        self.due = self.due.filter(|_| !self.reports.is_empty());
        report
    }

    /// Returns the moment at which `tick` is due.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        self.due
    }

    pub(super) fn tick(&mut self, now: Moment) {
        self.is_urgent |= self.due.is_some_and(|due| now >= due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::piece::{FlowIx, Piece};
    use crate::core::units::Span;
    use crate::core::wire::Check;

    const TRANSFER: TransferIx = TransferIx(1);

    fn land(queue: &mut ReportQueue, stolen: bool) {
        let piece = Piece { span: Span::of(0, 10), stolen };
        let event = SchedulerEvent::Landed { flow: FlowIx(1), piece, check: Check::None };
        queue.push_event(Moment(7), TRANSFER, event);
    }

    fn told(queue: &mut ReportQueue, is_quiet: bool) -> usize {
        std::iter::from_fn(|| queue.poll(is_quiet)).count()
    }

    #[test]
    fn landed_pieces_wait_for_each_other_while_more_are_on_their_way() {
        let mut queue = ReportQueue::new();
        for _ in 0..LANDED_BATCH - 1 {
            land(&mut queue, false);
            assert_eq!(told(&mut queue, false), 0);
        }
        land(&mut queue, false);
        assert_eq!(told(&mut queue, false), LANDED_BATCH);
        land(&mut queue, false);
        assert_eq!(told(&mut queue, false), 0, "the next batch");
        assert_eq!(told(&mut queue, true), 1, "nothing else lands");
    }

    #[test]
    fn a_stolen_piece_that_has_landed_is_told_at_once() {
        let mut queue = ReportQueue::new();
        land(&mut queue, false);
        land(&mut queue, true);
        assert_eq!(told(&mut queue, false), 2);
    }

    #[test]
    fn what_somebody_waits_for_takes_all_along() {
        let mut queue = ReportQueue::new();
        land(&mut queue, false);
        queue.push(RailNotice::Drained { transfer: TRANSFER });
        assert_eq!(told(&mut queue, false), 2);
        land(&mut queue, false);
        queue.hurry();
        assert_eq!(told(&mut queue, false), 1);
        land(&mut queue, false);
        assert_eq!(told(&mut queue, false), 0);
    }

    /// The next piece may never land: its destination hangs.
    #[test]
    fn a_piece_that_has_landed_waits_a_millisecond_at_most() {
        let mut queue = ReportQueue::new();
        assert_eq!(queue.poll_timeout(), None);
        land(&mut queue, false);
        let due = queue.poll_timeout().expect("a piece waits");
        assert_eq!(due, Moment(7) + LANDED_WITHIN);
        queue.tick(Moment(8));
        assert_eq!(told(&mut queue, false), 0);
        queue.tick(due);
        assert_eq!(told(&mut queue, false), 1);
        assert_eq!(queue.poll_timeout(), None);
    }
}

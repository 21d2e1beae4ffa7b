//! Lease of a transfer: the time that it goes on without its master.
//!
//! A node needs nothing of its master between two plans. So a daemon finishes what the plan gives
//! it, also when nobody is left who could be told, and ends when there is nothing left to finish:
//! when nothing has moved for a while. A launched node stops after the same time whatever moves,
//! because nobody but its master knows of it.

use std::time::Duration;

use crate::core::units::Moment;

/// Time that a launched node goes on without a master, and any other without one while nothing
/// moves.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Interval between looks at the moved bytes. Rails move them without the control thread.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The time that is left to a transfer while its master is out of reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MasterLease {
    launched: bool,
    /// Moment at which the master was lost, or at which bytes last moved after that.
    since: Moment,
    look_at: Moment,
    /// The most payload that had been sent and received at any look: a piece that fails on its way
    /// is counted back.
    moved_bytes: Option<u64>,
}

impl MasterLease {
    /// A master is lost now. The first look is due at once: it says from where bytes are counted.
    pub(super) fn new(now: Moment, launched: bool) -> MasterLease {
        MasterLease { launched, since: now, look_at: now, moved_bytes: None }
    }

    /// Takes in how many bytes were sent and received until now. Returns true when the time is
    /// over.
    pub(super) fn is_over(&mut self, now: Moment, moved_bytes: u64) -> bool {
        self.look_at = now + LOOK_EVERY;
        let has_moved = self.moved_bytes.is_some_and(|before| moved_bytes > before);
        if has_moved && !self.launched {
            self.since = now;
        }
        self.moved_bytes = self.moved_bytes.max(Some(moved_bytes));
        now >= self.since + LEASE
    }

    /// Returns the moment of the next look.
    pub(super) fn due(&self) -> Moment {
        let end = self.since + LEASE;
        if self.launched && self.moved_bytes.is_some() { end } else { end.min(self.look_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// The second at which a transfer ends that has lost its master at second 0; `moved_bytes` says
    /// how much had moved by each second.
    fn ends_at(launched: bool, moved_bytes: impl Fn(u64) -> u64) -> u64 {
        let mut lease = MasterLease::new(Moment(0), launched);
        loop {
            let now = lease.due();
            let second = now.0 / SECOND;
            if lease.is_over(now, moved_bytes(second)) {
                return second;
            }
            assert!(lease.due() > now, "it would be looked at without end");
        }
    }

    #[test]
    fn who_ends_when() {
        let nothing = |_| 7;
        let until_100 = |second: u64| 1_000 * second.min(100);
        let a_piece_every_29_s = |second: u64| second.min(290) / 29;
        let after_a_pause = |second: u64| if second < 31 { 0 } else { second };
        let failing = |second: u64| 5 + second % 2;
        assert_eq!(ends_at(false, nothing), 30);
        assert_eq!(ends_at(false, until_100), 130);
        assert_eq!(ends_at(false, a_piece_every_29_s), 320);
        assert_eq!(ends_at(false, after_a_pause), 30, "too late");
        assert_eq!(ends_at(false, failing), 31, "a piece that is sent again and again");
        assert_eq!(ends_at(true, nothing), 30);
        assert_eq!(ends_at(true, until_100), 30, "whatever moves");
    }
}

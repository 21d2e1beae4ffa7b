//! Rate limit of logged refusals: one line of each kind and address in a window, followed by the
//! number of further ones.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A kind of refusal, and the refused address. `None` if it is unknown, or if there are too many to
/// distinguish.
type RefusalKey = (&'static str, Option<IpAddr>);

/// Number of suppressed refusals of a kind and an address.
pub(super) type RefusalCount = (&'static str, Option<IpAddr>, u64);

/// Counts refusals. Its memory is limited for any number of addresses.
///
/// Call [`RefusalLimiter::admit`] for each refusal, and [`RefusalLimiter::over`] when
/// [`RefusalLimiter::due`] has come.
pub(super) struct RefusalLimiter {
    windows: BTreeMap<RefusalKey, QuietWindow>,
}

/// The time after a line in which no other of its key is written.
struct QuietWindow {
    end: Instant,
    held_back: u64,
}

impl RefusalLimiter {
    pub(super) const fn new() -> RefusalLimiter {
        RefusalLimiter { windows: BTreeMap::new() }
    }

    /// Returns true if this refusal is to be written. Otherwise it is counted.
    pub(super) fn admit(&mut self, now: Instant, kind: &'static str, from: Option<IpAddr>) -> bool {
        let mut key = (kind, from);
        if !self.windows.contains_key(&key) && self.windows.len() >= WINDOWS_MAX {
            // Windows that are over and suppressed nothing are obsolete.
            self.windows.retain(|_, window| window.end > now || window.held_back > 0);
            if self.windows.len() >= WINDOWS_MAX {
                key = (kind, None);
            }
        }
        match self.windows.get_mut(&key) {
            Some(window) if now < window.end => {
                window.held_back += 1;
                false
            }
            _ => {
                // Refusals suppressed in an earlier window are still to be reported.
                let held_back = self.windows.get(&key).map_or(0, |window| window.held_back);
                self.windows.insert(key, QuietWindow { end: now + WINDOW, held_back });
                true
            }
        }
    }

    /// Returns the end of the next window.
    pub(super) fn due(&self) -> Option<Instant> {
        self.windows.values().map(|window| window.end).min()
    }

    /// Removes the windows that are over, and returns the counts of those that suppressed
    /// something.
    pub(super) fn over(&mut self, now: Instant) -> Vec<RefusalCount> {
        self.take(|window| window.end <= now)
    }

    /// Removes all windows, and returns their counts: nothing follows.
    pub(super) fn all(&mut self) -> Vec<RefusalCount> {
        self.take(|_| true)
    }

    fn take(&mut self, is_wanted: impl Fn(&QuietWindow) -> bool) -> Vec<RefusalCount> {
        let taken = self.windows.extract_if(.., |_, window| is_wanted(window));
        let counts = taken.map(|((kind, from), window)| (kind, from, window.held_back));
        counts.filter(|(_, _, held_back)| *held_back > 0).collect()
    }
}

/// Window after a line in which further ones of its kind and address are only counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Number of kinds and addresses that are distinguished. A kind without address always has its
/// place: there are a handful.
const WINDOWS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_flood_is_one_line_and_one_count_for_each_kind_and_address() {
        let (mut limiter, start) = (RefusalLimiter::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(limiter.admit(at(0), "key", ip(1)));
        for _ in 0..1000 {
            assert!(!limiter.admit(at(1), "key", ip(1)));
        }
        assert!(limiter.admit(at(1), "key", ip(2)), "another address");
        assert!(limiter.admit(at(1), "preamble", ip(1)), "another kind");
        assert_eq!(limiter.due(), Some(at(10)));
        assert_eq!(limiter.over(at(9)), []);
        assert_eq!(limiter.over(at(10)), [("key", ip(1), 1000)]);
        assert_eq!(limiter.over(at(99)), []);
        assert_eq!(limiter.due(), None, "nothing is left of windows that are over");
        assert!(limiter.admit(at(100), "key", ip(1)));
    }

    #[test]
    fn what_was_held_back_is_told_though_a_new_window_has_begun() {
        let (mut limiter, start) = (RefusalLimiter::new(), Instant::now());
        assert!(limiter.admit(start, "key", ip(1)));
        assert!(!limiter.admit(start, "key", ip(1)));
        assert!(limiter.admit(start + WINDOW, "key", ip(1)));
        assert_eq!(limiter.all(), [("key", ip(1), 1)]);
    }

    #[test]
    fn many_addresses_take_no_more_memory_and_no_more_lines() {
        let (mut limiter, now) = (RefusalLimiter::new(), Instant::now());
        let address = |at: u32| Some(IpAddr::from(at.to_be_bytes()));
        let written = (0..100_000).filter(|&at| limiter.admit(now, "key", address(at))).count();
        assert_eq!(written, WINDOWS_MAX + 1, "those that are told apart, and all others together");
        assert_eq!(limiter.windows.len(), WINDOWS_MAX + 1);
        assert!(limiter.admit(now + WINDOW, "key", address(99_999)), "the old ones have made room");
    }
}

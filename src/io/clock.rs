//! Monotonic clock of the process. Threads that drive sockets and rings read it and pass moments to
//! the pure core.
//!
//! The clock does not count time in which the process did not run: after Ctrl-Z, SIGSTOP, a batch
//! system's suspend, or a debugger, no deadline has come closer. It detects this by its readings:
//! every loop with a deadline reads the clock at least every [`LOOK_EVERY`], so a longer gap
//! between two readings of all threads means that no thread could run. `CLOCK_MONOTONIC` itself
//! does not count time in which the whole machine sleeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::core::units::Moment;

/// Longest wait of a loop with a deadline.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Shortest gap that counts as a stop rather than a busy processor: four readings are missing.
const GAP_MIN: Duration = LOOK_EVERY.saturating_mul(4);

/// The process's monotonic clock: moments are nanoseconds since [`Clock::start`], without the time
/// in which the process was stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(u64);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(awake_ns())
    }

    pub(crate) fn now(self) -> Moment {
        Moment(awake_ns().saturating_sub(self.0))
    }
}

/// Returns the present time without stops, for deadlines of sockets. A deadline made from it is
/// only compared with it, never with `Instant::now()`.
pub(crate) fn awake() -> Instant {
    let (start, watch) = shared();
    *start + Duration::from_nanos(watch.awake_ns(|| raw_ns(start)))
}

/// Returns the total time without readings. Its growth, while some loop had a deadline, is how long
/// the process was stopped.
pub(crate) fn stopped() -> Duration {
    let (start, watch) = shared();
    watch.awake_ns(|| raw_ns(start));
    Duration::from_nanos(watch.stopped_ns.load(Ordering::Acquire))
}

/// Returns a sentence for a report, if the process was stopped for a noticeable time.
pub(crate) fn stop_warning(who: &str, stopped: Duration) -> Option<String> {
    let seconds = stopped.as_secs_f64();
    (stopped >= GAP_MIN)
        .then(|| format!("{who} was stopped for {seconds:.1} s, which its timers do not count"))
}

/// Waits until a deadline made from [`awake`]. Calls `wait` with short times until it returns a
/// value; returns `None` at the deadline.
pub(crate) fn wait_until<T>(
    deadline: Instant,
    mut wait: impl FnMut(Duration) -> Option<T>,
) -> Option<T> {
    loop {
        let left = deadline.saturating_duration_since(awake());
        if let Some(found) = wait(left.min(LOOK_EVERY)) {
            return Some(found);
        }
        if left.is_zero() {
            return None;
        }
    }
}

fn awake_ns() -> u64 {
    let (start, watch) = shared();
    watch.awake_ns(|| raw_ns(start))
}

fn raw_ns(start: &Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn shared() -> &'static (Instant, StopWatcher) {
    static SHARED: OnceLock<(Instant, StopWatcher)> = OnceLock::new();
    SHARED.get_or_init(|| (Instant::now(), StopWatcher::default()))
}

/// Detector of gaps between readings of a clock.
#[derive(Default)]
struct StopWatcher {
    /// The latest reading.
    seen_ns: AtomicU64,
    /// Sum of all gaps. Invariant: it is raised before the reading that ends the gap is stored.
    stopped_ns: AtomicU64,
    /// Held while a gap is counted, so that it is counted once.
    counting: Mutex<()>,
}

impl StopWatcher {
    /// Returns the reading without the gaps.
    fn awake_ns(&self, read: impl Fn() -> u64) -> u64 {
        let gap_min = GAP_MIN.as_nanos() as u64;
        loop {
            let raw = read();
            let seen = self.seen_ns.load(Ordering::Acquire);
            if raw.saturating_sub(seen) >= gap_min {
                self.count_gap(raw);
                continue;
            }
            if seen.saturating_sub(raw) >= gap_min {
                // This thread was stopped after its reading, and another thread has counted the
                // gap.
                continue;
            }
            self.seen_ns.fetch_max(raw, Ordering::AcqRel);
            return raw.saturating_sub(self.stopped_ns.load(Ordering::Acquire));
        }
    }

    fn count_gap(&self, raw: u64) {
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = raw.saturating_sub(self.seen_ns.load(Ordering::Acquire));
        if gap >= GAP_MIN.as_nanos() as u64 {
            // The last interval without a required reading may have been running time.
            self.stopped_ns.fetch_add(gap - LOOK_EVERY.as_nanos() as u64, Ordering::AcqRel);
            self.seen_ns.store(raw, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn time_in_which_nobody_looked_is_not_counted() {
        let watch = StopWatcher::default();
        let at = |ms: u64| watch.awake_ns(|| ms * MS) / MS;
        assert_eq!((at(0), at(250), at(900), at(1899)), (0, 250, 900, 1899), "a busy machine");
        assert_eq!(
            at(1899 + 35_000),
            1899 + 250,
            "stopped for 35 s: no deadline of a second has passed"
        );
        assert_eq!(at(1899 + 35_400), 1899 + 650, "and the clock goes on");
        assert_eq!(at(1899 + 37_400), 1899 + 900, "stopped again");
        assert_eq!(watch.stopped_ns.load(Ordering::Acquire) / MS, 34_750 + 1_750);
    }

    #[test]
    fn a_thread_that_was_stopped_with_its_reading_in_hand_reads_again() {
        let watch = StopWatcher::default();
        assert_eq!(watch.awake_ns(|| 100 * MS), 100 * MS);
        // Its first reading is from before the stop; another thread has read the clock since.
        let readings = RefCell::new(vec![40_000 * MS, 200 * MS]);
        let read = || {
            if readings.borrow().len() == 2 {
                watch.count_gap(40_000 * MS);
            }
            readings.borrow_mut().pop().expect("two readings are enough")
        };
        assert_eq!(watch.awake_ns(read) / MS, 100 + 250);
    }

    #[test]
    fn many_threads_count_one_gap_once() {
        let watch = StopWatcher::default();
        watch.awake_ns(|| 0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(watch.awake_ns(|| 35_000 * MS), 250 * MS));
            }
        });
    }
}

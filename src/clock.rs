//! The process's monotonic clock. Threads that drive sockets and rings read it and hand moments to the pure core.

use std::time::Instant;

use crate::units::Moment;

/// The process's monotonic clock: moments are nanoseconds since [`Clock::start`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(self) -> Moment {
        Moment(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

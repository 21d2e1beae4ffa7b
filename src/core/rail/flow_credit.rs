//! Credit of a flow: the requests that a receiver may have outstanding on it.
//!
//! Enough to keep the link busy while a request travels: two pieces, so that one is read while the
//! other is sent, plus what the bandwidth-delay product asks for, up to a cap that bounds the
//! sender's queue.

use std::time::Duration;

/// Outstanding requests while nothing is measured, and the floor where a flow is fast: on a fast
/// local link the delay is mostly threads being woken, which the product does not see.
const REQUESTS_START: u32 = 4;
/// The floor for slow flows: one piece on the wire and one behind it.
const REQUESTS_MIN: u32 = 2;
/// The floor in bytes: requests wait in the queues of busy links, as pieces do, which the least
/// delay does not see either.
const OUTSTANDING_BYTES_MIN: u64 = 512 << 10;
/// The cap: with 1 MiB pieces this covers 10 Gbit/s at 13 ms.
pub(crate) const REQUESTS_MAX: u32 = 16;
/// Above this rate the start value is the floor: a piece of 1 MiB lasts less than 4 ms.
const FAST_BYTES_PER_SECOND: f64 = 250e6;

const _: () = assert!(REQUESTS_MIN <= REQUESTS_START && REQUESTS_START <= REQUESTS_MAX);

/// The credit of one flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowCredit {
    /// The least time from a request to its header: the flow's delay with an empty queue.
    delay_min: Option<Duration>,
}

impl FlowCredit {
    pub(crate) fn new() -> FlowCredit {
        FlowCredit { delay_min: None }
    }

    /// A request was answered after `delay`.
    pub(crate) fn answered(&mut self, delay: Duration) {
        self.delay_min = Some(self.delay_min.map_or(delay, |least| least.min(delay)));
    }

    /// Returns the number of requests that may be outstanding, given the flow's measured rate and
    /// the size of a piece.
    pub(crate) fn requests(&self, bytes_per_second: Option<f64>, block_bytes: u64) -> u32 {
        let (Some(rate), Some(delay)) = (bytes_per_second, self.delay_min) else {
            return REQUESTS_START;
        };
        let product = (rate * delay.as_secs_f64() / block_bytes as f64).ceil() as u32;
        let floor = if rate > FAST_BYTES_PER_SECOND { REQUESTS_START } else { REQUESTS_MIN };
        let small = u32::try_from(OUTSTANDING_BYTES_MIN / block_bytes.max(1)).unwrap_or(u32::MAX);
        let floor = floor.max(small).min(REQUESTS_MAX);
        product.saturating_add(REQUESTS_MIN).clamp(floor, REQUESTS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_fat_link_gets_more_than_a_short_thin_one() {
        let mut credit = FlowCredit::new();
        assert_eq!(credit.requests(None, 1 << 20), REQUESTS_START);
        credit.answered(Duration::from_micros(100));
        assert_eq!(credit.requests(Some(12.5e6), 1 << 20), 3);
        assert_eq!(credit.requests(Some(4e9), 1 << 20), REQUESTS_START);
        assert_eq!(credit.requests(Some(12.5e6), 64 << 10), 8);
        let mut far = FlowCredit::new();
        far.answered(Duration::from_millis(100));
        assert_eq!(far.requests(Some(125e6), 1 << 20), 14);
        assert_eq!(far.requests(Some(1.25e9), 1 << 20), REQUESTS_MAX);
    }
}

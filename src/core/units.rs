//! Basic quantities: spans of the data space, rates, and virtual time.
//!
//! Byte counts are plain `u64` with names that end in `_bytes`; quantities that could be confused
//! with them have a type.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

pub use parse::{parse_duration, parse_rate, parse_size, print_rate};
pub(crate) use printable::printable_json;
pub use printable::{printable, printable_lines};

mod parse;
mod printable;

/// One binary kilobyte, in bytes.
pub const KIB: u64 = 1 << 10;
/// One binary megabyte, in bytes.
pub const MIB: u64 = 1 << 20;
/// One binary gigabyte, in bytes.
pub const GIB: u64 = 1 << 30;

/// A half-open range `[start, end)` of positions in the data space, in bytes.
///
/// Files and messages for the user have inclusive ranges (`0-1023`), as in the CEP paper; `Display`
/// prints that form.
///
/// Invariant: `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span {
    /// The first position.
    pub start: u64,
    /// One past the last position.
    pub end: u64,
}

impl Span {
    /// Creates the span `[start, end)`.
    ///
    /// # Panics
    /// If `start > end`.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Span {
        assert!(start <= end, "a span ends before it starts: [{start}, {end})");
        Span { start, end }
    }

    /// Creates the span of `bytes` bytes from `start`.
    ///
    /// # Panics
    /// If the end does not fit 64 bits.
    #[must_use]
    pub fn of(start: u64, bytes: u64) -> Span {
        Span { start, end: start.checked_add(bytes).expect("a span ends within 64 bits") }
    }

    /// Returns the number of bytes in the span.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// Returns true if the span is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Returns true if `other` lies wholly inside.
    #[must_use]
    pub fn contains(self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Returns the common part, or `None` if the two share no byte.
    #[must_use]
    pub fn intersection(self, other: Span) -> Option<Span> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Span { start, end })
    }
}

impl fmt::Display for Span {
    /// Writes the inclusive form of specification files: `0-1023`, or `empty at 5` for an empty
    /// span.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            write!(f, "empty at {}", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.end - 1)
        }
    }
}

/// Sorts `spans` and joins those that touch or overlap; drops empty ones.
#[must_use]
pub fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| !span.is_empty());
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    joined
}

/// Returns the `count` largest of `spans`, sorted by start; all of them, unchanged, if there are no
/// more.
#[must_use]
pub fn largest(mut spans: Vec<Span>, count: usize) -> Vec<Span> {
    if spans.len() > count {
        spans.sort_unstable_by_key(|span| std::cmp::Reverse(span.bytes()));
        spans.truncate(count);
        spans.sort_unstable();
    }
    spans
}

/// Returns true if one of `spans` (sorted, disjoint, as [`union`] returns them) contains `span`.
#[must_use]
pub fn covers(spans: &[Span], span: Span) -> bool {
    let at = spans.partition_point(|known| known.end < span.end);
    spans.get(at).is_some_and(|known| known.contains(span))
}

/// Returns the parts of `whole` that `holes` (sorted, disjoint, as [`union`] returns them) do not
/// cover.
#[must_use]
pub fn subtract(whole: Span, holes: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    let mut start = whole.start;
    let first = holes.partition_point(|hole| hole.end <= whole.start);
    for hole in holes[first..].iter().take_while(|hole| hole.start < whole.end) {
        if start < hole.start {
            left.push(Span::new(start, hole.start));
        }
        start = start.max(hole.end);
    }
    if start < whole.end {
        left.push(Span::new(start, whole.end));
    }
    left
}

/// Returns the parts that two lists of spans (sorted, disjoint) have in common.
#[must_use]
pub fn common(one: &[Span], other: &[Span]) -> Vec<Span> {
    let within = |span: &Span| {
        let (first, span) = (one.partition_point(|it| it.end <= span.start), *span);
        one[first..].iter().map_while(move |it| it.intersection(span))
    };
    other.iter().flat_map(within).collect()
}

/// A rate in bits per second, decimal as for NICs: 10 Gbit/s is 10⁹ × 10.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct BitRate(pub u64);

impl BitRate {
    /// Returns the rate in bytes per second.
    #[must_use]
    pub fn bytes_per_second(self) -> f64 {
        self.0 as f64 / 8.0
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 as f64;
        match self.0 {
            1_000_000_000.. => write!(f, "{:.2} Gbit/s", bits / 1e9),
            1_000_000.. => write!(f, "{:.2} Mbit/s", bits / 1e6),
            1_000.. => write!(f, "{:.2} kbit/s", bits / 1e3),
            _ => write!(f, "{bits} bit/s"),
        }
    }
}

/// Returns the part of a line's bits that can be TCP payload: every packet of `mtu` bytes has
/// headers.
///
/// ```
/// use cep_fast::units::goodput;
/// assert_eq!(format!("{:.3} {:.3}", goodput(1500), goodput(9000)), "0.956 0.993");
/// ```
#[must_use]
pub fn goodput(mtu: u32) -> f64 {
    let mtu = f64::from(mtu.max(MTU_MIN));
    (mtu - PACKET_HEADERS.0) / (mtu + PACKET_HEADERS.1)
}

/// Size of the IP and TCP headers with timestamps in every packet, and of its Ethernet header.
const PACKET_HEADERS: (f64, f64) = (52.0, 14.0);
/// Smallest packet size that every host must accept (RFC 791).
const MTU_MIN: u32 = 576;

/// A node of a transfer: its index in the transfer's list of nodes, the order of first mention in
/// the rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct NodeIx(pub(crate) u32);

impl NodeIx {
    /// Returns the index as a list index.
    #[must_use]
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

/// Formats bytes with a binary unit, for people: `1.50 GiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    match bytes {
        GIB.. => format!("{:.2} GiB", bytes as f64 / GIB as f64),
        MIB.. => format!("{:.2} MiB", bytes as f64 / MIB as f64),
        KIB.. => format!("{:.2} KiB", bytes as f64 / KIB as f64),
        _ => format!("{bytes} B"),
    }
}

/// A moment on a node's monotonic clock, or on the simulator's virtual one: nanoseconds since an
/// arbitrary start.
///
/// The pure core receives moments as arguments; it never reads a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// Returns the time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Moment> for Moment {
    type Output = Duration;
    fn sub(self, earlier: Moment) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_print_inclusive_and_intersect() {
        assert_eq!(Span::new(0, 1024).to_string(), "0-1023");
        assert_eq!(Span::new(0, 10).intersection(Span::new(10, 20)), None);
        assert_eq!(Span::new(0, 10).intersection(Span::new(5, 20)), Some(Span::new(5, 10)));
    }

    #[test]
    fn union_joins_what_touches() {
        let joined =
            union(vec![Span::new(10, 20), Span::new(0, 5), Span::new(5, 7), Span::new(8, 8)]);
        assert_eq!(joined, [Span::new(0, 7), Span::new(10, 20)]);
    }

    #[test]
    fn common_parts_are_in_both() {
        let [one, other] =
            [[Span::new(0, 5), Span::new(7, 9)], [Span::new(3, 8), Span::new(8, 20)]];
        assert_eq!(common(&one, &other), [Span::new(3, 5), Span::new(7, 8), Span::new(8, 9)]);
    }

    #[test]
    fn subtract_leaves_what_holes_do_not_cover() {
        let holes = [Span::new(0, 3), Span::new(5, 6), Span::new(9, 12)];
        assert_eq!(subtract(Span::new(2, 10), &holes), [Span::new(3, 5), Span::new(6, 9)]);
        assert_eq!(subtract(Span::new(0, 3), &holes), []);
        assert_eq!(subtract(Span::new(20, 30), &holes), [Span::new(20, 30)]);
    }
}

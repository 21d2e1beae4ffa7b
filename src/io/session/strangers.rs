//! Connections whose peers have not authenticated yet, and their eviction when there are too many.
//!
//! Anybody can open connections, so these have a limit of their own that takes nothing from
//! authenticated peers. Within the limit, the oldest is evicted for the newest, so that a new
//! connection always has time for a handshake. First to go is a silent connection of the address
//! with the most connections.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use mio::Token;

use crate::core::wire::limits::share_of_one;

/// Time for a stranger's first message, which is one packet right after the connection.
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(2);

/// Returns the limit on strangers for a process that may have `descriptors`.
pub(crate) fn share(descriptors: u64) -> usize {
    usize::try_from(descriptors / 4).unwrap_or(usize::MAX).clamp(SHARE_MIN, SHARE_MAX)
}

/// Enough that a handshake over a slow line outlives a burst of others; their memory is a few
/// kilobytes each.
const SHARE_MAX: usize = 512;
/// Two addresses with one connection each, in the smallest process.
const SHARE_MIN: usize = 4;

/// Unauthenticated connections, in the order of their tokens, which is that of their arrival.
#[derive(Debug)]
pub(crate) struct UnprovenConnections {
    count_max: usize,
    /// Number of accepted connections in the current window, and its end.
    window: (usize, Option<Instant>),
    known: HashMap<Token, (IpAddr, bool)>,
    origins: HashMap<IpAddr, StrangerOrigin>,
}

/// Strangers from one address.
///
/// Invariant: no token is in both sets.
#[derive(Debug, Default)]
struct StrangerOrigin {
    silent: BTreeSet<Token>,
    /// Connections whose first message matches the key: holders of the key, or replays of a
    /// recording.
    heard: BTreeSet<Token>,
}

impl StrangerOrigin {
    fn count(&self) -> usize {
        self.silent.len() + self.heard.len()
    }

    fn oldest(&self) -> Option<Token> {
        self.silent.first().or(self.heard.first()).copied()
    }
}

impl UnprovenConnections {
    /// Creates an empty table for at most `count_max` connections, and at most three quarters of
    /// them from one address.
    pub(crate) fn new(count_max: usize) -> UnprovenConnections {
        UnprovenConnections {
            count_max,
            window: (0, None),
            known: HashMap::new(),
            origins: HashMap::new(),
        }
    }

    /// Returns the number of connections that may be accepted in this turn. Each can send its first
    /// message within [`SETTLE_WITHIN`] before it can be evicted, no matter how many others come;
    /// further ones wait in the queue of their listener.
    pub(crate) fn burst_max(&mut self, now: Instant) -> usize {
        if self.window.1.is_none_or(|end| end <= now) {
            self.window = (0, Some(now + SETTLE_WITHIN));
        }
        (self.count_max / 4).clamp(1, BURST_MAX).min(self.of_one_max() - self.window.0)
    }

    /// Returns the moment at which the next connection may be accepted, if not at once.
    pub(crate) fn full_until(&self) -> Option<Instant> {
        self.window.1.filter(|_| self.window.0 >= self.of_one_max())
    }

    fn of_one_max(&self) -> usize {
        share_of_one(self.count_max)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Adds a stranger. Returns the connection that is evicted for it.
    pub(crate) fn add(&mut self, token: Token, from: IpAddr) -> Option<Token> {
        let from = origin(from);
        self.window.0 += 1;
        let own = self.origins.get(&from).filter(|origin| origin.count() >= self.of_one_max());
        let leaves = match own {
            Some(origin) => origin.oldest(),
            None if self.known.len() >= self.count_max => self.oldest(),
            None => None,
        };
        if let Some(leaves) = leaves {
            self.remove(leaves);
        }
        self.known.insert(token, (from, false));
        self.origins.entry(from).or_default().silent.insert(token);
        leaves
    }

    /// Returns the stranger to evict when a descriptor is needed for something else.
    pub(crate) fn oldest(&self) -> Option<Token> {
        let rank = |origin: &&StrangerOrigin| {
            (!origin.silent.is_empty(), origin.count(), Reverse(origin.oldest()))
        };
        self.origins.values().max_by_key(rank).and_then(StrangerOrigin::oldest)
    }

    /// Records a stranger's first message. Returns true if it is new.
    pub(crate) fn heard(&mut self, token: Token) -> bool {
        let Some((from, heard)) = self.known.get_mut(&token).filter(|(_, heard)| !heard) else {
            return false;
        };
        *heard = true;
        let origin = self.origins.get_mut(from).expect("a known stranger has an origin");
        origin.silent.remove(&token);
        origin.heard.insert(token)
    }

    /// Removes a connection that was closed or has authenticated.
    pub(crate) fn remove(&mut self, token: Token) {
        let Some((from, _)) = self.known.remove(&token) else { return };
        let origin = self.origins.get_mut(&from).expect("a known stranger has an origin");
        origin.silent.remove(&token);
        origin.heard.remove(&token);
        if origin.count() == 0 {
            self.origins.remove(&from);
        }
    }
}

/// Time for a new connection's first message before it can be the oldest: the message follows at
/// once, unless the peer waits for a processor.
const SETTLE_WITHIN: Duration = Duration::from_millis(40);
/// Connections accepted in one turn: a millisecond of work.
const BURST_MAX: usize = 64;

/// Returns the origin of an address: in IPv6 everybody has a /64.
pub(crate) fn origin(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Deadlines of connections, in order.
#[derive(Debug, Default)]
pub(crate) struct OrderedDeadlines {
    ordered: BTreeSet<(Instant, Token)>,
    of: HashMap<Token, Instant>,
}

impl OrderedDeadlines {
    /// Sets or clears the deadline of a connection.
    pub(crate) fn set(&mut self, token: Token, due: Option<Instant>) {
        let before = match due {
            Some(due) => self.of.insert(token, due),
            None => self.of.remove(&token),
        };
        if before == due {
            return;
        }
        self.ordered.extend(due.map(|due| (due, token)));
        if let Some(before) = before {
            self.ordered.remove(&(before, token));
        }
    }

    /// Returns the first deadline.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.ordered.first().map(|(due, _)| *due)
    }

    /// Returns the next connection whose deadline has passed, and clears the deadline.
    pub(crate) fn next_over(&mut self, now: Instant) -> Option<Token> {
        let (_, token) = *self.ordered.first().filter(|(due, _)| *due <= now)?;
        self.set(token, None);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_fresh_one_outlives_three_quarters_of_a_share_of_its_own_address() {
        let mut strangers = UnprovenConnections::new(16);
        let here = ip("127.0.0.1");
        for token in 0..1_000 {
            let left = strangers.add(Token(token), here);
            assert_eq!(left, token.checked_sub(12).map(Token), "the oldest, and nobody else");
        }
        assert_eq!(strangers.len(), 12);
        assert_eq!(strangers.oldest(), Some(Token(988)));
    }

    #[test]
    fn a_fresh_one_has_its_time_however_many_come() {
        let start = Instant::now();
        let mut strangers = UnprovenConnections::new(16);
        let mut take_in = |now| {
            let mut count = 0;
            while let burst @ 1.. = strangers.burst_max(now) {
                assert!(burst < 12, "each is listened to before it gives way");
                (0..burst).for_each(|at| _ = strangers.add(Token(count + at), ip("10.0.0.1")));
                count += burst;
            }
            (count, strangers.full_until())
        };
        for turn in 0..3 {
            let now = start + turn * SETTLE_WITHIN;
            assert_eq!(take_in(now), (12, Some(now + SETTLE_WITHIN)));
        }
    }

    #[test]
    fn who_has_said_the_first_message_is_not_displaced_by_the_silent() {
        let mut strangers = UnprovenConnections::new(16);
        let here = ip("127.0.0.1");
        assert_eq!(strangers.add(Token(0), here), None);
        assert!(strangers.heard(Token(0)) && !strangers.heard(Token(0)));
        for token in 1..1_000 {
            assert_ne!(strangers.add(Token(token), here), Some(Token(0)));
        }
        strangers.remove(Token(0));
        assert!(!strangers.heard(Token(0)), "it is none any more");
    }

    #[test]
    fn an_address_with_one_is_not_displaced_by_addresses_with_many() {
        let mut strangers = UnprovenConnections::new(16);
        assert_eq!(strangers.add(Token(0), ip("10.0.0.9")), None);
        for token in 1..1_000 {
            let from = IpAddr::from([10, 0, 1, (token % 3) as u8]);
            assert_ne!(strangers.add(Token(token), from), Some(Token(0)));
            assert!(strangers.len() <= 16);
        }
        // One address for each place: then the oldest of all gives way, as late as possible.
        let left = (1_000..2_000).find(|&token| {
            let from = IpAddr::from([10, 1, (token / 256) as u8, (token % 256) as u8]);
            strangers.add(Token(token), from) == Some(Token(0))
        });
        assert!(left.is_some_and(|left| left >= 1_010), "{left:?}");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_a_mapped_one_as_ipv4() {
        assert_eq!(origin(ip("2001:db8::1")), origin(ip("2001:db8::ffff:1:2:3")));
        assert_ne!(origin(ip("2001:db8::1")), origin(ip("2001:db8:0:1::1")));
        assert_eq!(origin(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    #[test]
    fn a_share_leaves_the_most_to_those_who_hold_a_key() {
        assert_eq!([16, 64, 256, 1024, 4096, u64::MAX].map(share), [4, 16, 64, 256, 512, 512]);
    }

    #[test]
    fn deadlines_come_in_order_and_can_be_moved() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = OrderedDeadlines::default();
        for token in 0..4 {
            deadlines.set(Token(token), Some(at(2)));
        }
        deadlines.set(Token(1), Some(at(10)));
        deadlines.set(Token(2), None);
        deadlines.set(Token(3), Some(at(2)));
        assert_eq!(deadlines.first(), Some(at(2)));
        assert_eq!(deadlines.next_over(at(1)), None);
        let mut over = |now| std::iter::from_fn(|| deadlines.next_over(now)).collect::<Vec<_>>();
        assert_eq!(over(at(2)), [Token(0), Token(3)]);
        assert_eq!(over(at(10)), [Token(1)]);
        assert_eq!(deadlines.first(), None);
    }
}

//! Dialling of a peer with several addresses: their order, and the error if none answers.
//!
//! Addresses are dialled 250 ms apart, and the next one at once if one fails (RFC 8305). The caller
//! uses the first connection that is up. A connection that is lost in its handshake is dialled
//! again. A refused one is dialled again for a while, because a restarting daemon is back soon.
//! This machine has no sockets: their outcomes are its input.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::core::error::{Code, Error};

/// Delay between two addresses (RFC 8305, section 8: "Connection Attempt Delay").
const STAGGER: Duration = Duration::from_millis(250);
/// First pause before an address is dialled again; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time during which an address that refuses connections is dialled again.
const REFUSED_FOR: Duration = Duration::from_secs(3);

/// Progress of a connection at its failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DialProgress {
    /// The peer's kernel had not answered.
    Connecting,
    /// The handshake was under way.
    Handshaking,
    /// The handshake was over: the peer refused, or speaks another protocol.
    Judged,
}

/// Dialling of one peer.
///
/// Call [`PeerDialer::next`] until it is `None`, again at [`PeerDialer::due`], and after each
/// [`PeerDialer::fail`].
#[derive(Debug)]
pub(crate) struct PeerDialer {
    undialled: VecDeque<SocketAddr>,
    /// Moment at which the next of them is dialled, although others are still pending.
    next_at: Instant,
    /// Addresses that are dialled again, with the moment.
    again: Vec<(Instant, SocketAddr)>,
    pause: Duration,
    under_way: usize,
    began: Instant,
    deadline: Instant,
    /// The last error of each address.
    failed: Vec<(SocketAddr, Error)>,
}

impl PeerDialer {
    /// Creates the dialling of `addresses`, until `deadline`.
    pub(crate) fn new(now: Instant, addresses: &[SocketAddr], deadline: Instant) -> PeerDialer {
        PeerDialer {
            undialled: addresses.iter().copied().collect(),
            next_at: now,
            again: Vec::new(),
            pause: PAUSE_MIN,
            under_way: 0,
            began: now,
            deadline,
            failed: Vec::new(),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the moment at which [`PeerDialer::next`] has an address.
    pub(crate) fn due(&self) -> Option<Instant> {
        let next = (!self.undialled.is_empty()).then_some(self.next_at);
        self.again.iter().map(|(at, _)| *at).chain(next).min()
    }

    /// Returns the address to dial now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<SocketAddr> {
        let address = if now >= self.next_at && !self.undialled.is_empty() {
            self.next_at = now + STAGGER;
            self.undialled.pop_front()
        } else {
            let at = self.again.iter().position(|(at, _)| now >= *at)?;
            Some(self.again.remove(at).1)
        };
        self.under_way += usize::from(address.is_some());
        address
    }

    /// Records a failed connection to an address.
    pub(crate) fn fail(
        &mut self,
        now: Instant,
        address: SocketAddr,
        progress: DialProgress,
        error: Error,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        self.next_at = now;
        let until = match progress {
            DialProgress::Connecting => self.deadline.min(self.began + REFUSED_FOR),
            DialProgress::Handshaking => self.deadline,
            DialProgress::Judged => now,
        };
        if now + self.pause < until {
            self.again.push((now + self.pause, address));
            self.pause = (2 * self.pause).min(PAUSE_MAX);
        }
        self.failed.retain(|(other, _)| *other != address);
        self.failed.push((address, error));
    }

    /// Returns true if no attempt is pending.
    pub(crate) fn is_over(&self) -> bool {
        self.under_way == 0 && self.undialled.is_empty() && self.again.is_empty()
    }

    /// Returns the reason why the peer `name` was not reached. It names the addresses if `name`
    /// does not.
    pub(crate) fn error(&self, name: &str) -> Error {
        let judged = self.failed.iter().find(|(_, error)| error.code != Code::Unreachable);
        let Some((address, first)) = judged.or(self.failed.first()) else {
            return Error::new(Code::Unreachable, "it has no address");
        };
        if self.failed.len() == 1 && address.to_string() == name {
            return first.clone();
        }
        let mut error = first.clone().at(address);
        for (other, failed) in self.failed.iter().filter(|(other, _)| other != address) {
            error.message += &format!("; {other}: {}", failed.message);
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 7000).into()
    }

    fn lost() -> Error {
        Error::new(Code::Unreachable, "lost")
    }

    fn start(addresses: &[SocketAddr]) -> (Instant, PeerDialer) {
        let now = Instant::now();
        (now, PeerDialer::new(now, addresses, now + Duration::from_secs(10)))
    }

    #[test]
    fn addresses_are_dialled_apart_and_at_once_when_one_fails() {
        let all = [address(1), address(2), address(3)];
        let (now, mut reach) = start(&all);
        assert_eq!((reach.next(now), reach.next(now)), (Some(all[0]), None));
        let later = reach.due().expect("two are left");
        assert_eq!(later - now, STAGGER);
        assert_eq!((reach.next(later), reach.next(later)), (Some(all[1]), None));
        reach.fail(later, all[1], DialProgress::Judged, lost());
        assert_eq!(reach.next(later), Some(all[2]));
        reach.fail(later, all[2], DialProgress::Judged, lost());
        assert!(!reach.is_over(), "the first may still answer");
        reach.fail(later, all[0], DialProgress::Judged, lost());
        assert!(reach.is_over());
    }

    /// Returns how long, and how often, an address that fails at once each time is dialled.
    fn dialled_for(progress: DialProgress) -> (Duration, u32) {
        let (start, mut reach) = start(&[address(1)]);
        let (mut now, mut count) = (start, 0);
        while let Some(due) = reach.due() {
            now = due.max(now);
            while let Some(address) = reach.next(now) {
                count += 1;
                reach.fail(now, address, progress, lost());
            }
        }
        assert!(reach.is_over());
        (now - start, count)
    }

    #[test]
    fn what_is_lost_in_the_handshake_is_dialled_again_until_the_deadline_and_a_refusal_for_a_while()
    {
        let (lost, count) = dialled_for(DialProgress::Handshaking);
        assert!(
            lost > Duration::from_secs(8) && lost < Duration::from_secs(10) && count < 15,
            "{lost:?} {count}"
        );
        let (refused, count) = dialled_for(DialProgress::Connecting);
        assert!(
            refused > Duration::from_secs(2) && refused < REFUSED_FOR && count < 8,
            "{refused:?} {count}"
        );
        assert_eq!(
            dialled_for(DialProgress::Judged),
            (Duration::ZERO, 1),
            "who turns us away does so again"
        );
    }

    #[test]
    fn the_addresses_are_told_where_the_name_does_not_tell_them() {
        let (now, mut reach) = start(&[address(1)]);
        reach.next(now);
        reach.fail(now, address(1), DialProgress::Judged, lost());
        assert_eq!(reach.error("10.0.0.1:7000").to_string(), "lost");
        assert_eq!(reach.error("node1:7000").to_string(), "10.0.0.1:7000: lost");
        reach.fail(
            now,
            address(2),
            DialProgress::Judged,
            Error::new(Code::Refused, "the key differs"),
        );
        let error = reach.error("node1:7000");
        assert_eq!(error.to_string(), "10.0.0.2:7000: the key differs; 10.0.0.1:7000: lost");
        assert_eq!(error.code, Code::Refused);
    }
}

//! Counters of the kernel for each NIC: the proof that payload went where it should.

use std::collections::BTreeMap;

/// Bytes that went over a NIC, packet headers included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct NicCounter {
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// Packets that it dropped, or found faulty, in either direction.
    pub(super) faults: u64,
    /// The kernel's number of the interface: one that was made anew has another, and counts from
    /// zero.
    index: u32,
}

/// The counters of some interfaces at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct NicCounters(BTreeMap<String, NicCounter>);

impl NicCounters {
    /// Reads those of `nics`. `/proc/self/net/dev` counts in 64 bits, and speaks of the namespace
    /// that this process is in, whichever `/sys` it sees.
    pub(super) fn read(nics: &[&str]) -> NicCounters {
        let text = std::fs::read_to_string("/proc/self/net/dev");
        let mut counters = text.map_or_else(|_| BTreeMap::new(), |text| parse(&text));
        counters.retain(|nic, _| nics.contains(&nic.as_str()));
        for (nic, counter) in &mut counters {
            // One that is gone by now has no number, and is compared with nothing.
            counter.index = nix::net::if_::if_nametoindex(nic.as_str()).unwrap_or(0);
        }
        NicCounters(counters)
    }

    /// Bytes of a NIC since `before`; `None` where the system does not say.
    pub(super) fn since(&self, before: &NicCounters, nic: &str) -> Option<NicCounter> {
        let (now, then) = (self.0.get(nic)?, before.0.get(nic)?);
        if now.index != then.index {
            return None;
        }
        // A driver that was loaded anew counts from zero.
        let sent_bytes = now.sent_bytes.checked_sub(then.sent_bytes)?;
        let received_bytes = now.received_bytes.checked_sub(then.received_bytes)?;
        let faults = now.faults.saturating_sub(then.faults);
        Some(NicCounter { sent_bytes, received_bytes, faults, index: now.index })
    }
}

/// Two lines of headings, then a line for each interface: its name, eight columns of what it
/// received and eight of what it sent, bytes first.
fn parse(text: &str) -> BTreeMap<String, NicCounter> {
    let line = |line: &str| {
        let (name, columns) = line.rsplit_once(':')?;
        let columns: Vec<u64> =
            columns.split_ascii_whitespace().map_while(|column| column.parse().ok()).collect();
        let counter = NicCounter {
            received_bytes: *columns.first()?,
            sent_bytes: *columns.get(8)?,
            faults: columns.get(2..4)?.iter().chain(columns.get(10..12)?).sum(),
            index: 0,
        };
        Some((name.trim().to_owned(), counter))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo \
 colls carrier compressed
    lo: 1296      16    0    0    0     0          0         0     1296      16    0    0    0     \
    0       0          0
eth0.5:8589934592  9    0    0    0     0          0         0 17179869184   7    0    0    0     \
0       0          0
";

    #[test]
    fn lines_are_read_and_compared() {
        let (before, mut now) = (NicCounters(parse(TEXT)), NicCounters(parse(TEXT)));
        assert_eq!(
            before.0["eth0.5"],
            NicCounter { sent_bytes: 1 << 34, received_bytes: 1 << 33, faults: 0, index: 0 }
        );
        assert_eq!(before.0.len(), 2);
        let lo = NicCounter { sent_bytes: 1300, received_bytes: 1297, faults: 3, index: 0 };
        now.0.insert("lo".into(), lo);
        assert_eq!(
            now.since(&before, "lo"),
            Some(NicCounter { sent_bytes: 4, received_bytes: 1, faults: 3, index: 0 })
        );
        assert_eq!(before.since(&now, "lo"), None, "counted from zero again");
        assert_eq!(now.since(&before, "eth9"), None);
    }

    #[test]
    fn a_nic_that_was_made_anew_has_counted_nothing_that_could_be_compared() {
        let of = |index, bytes| {
            let counter = NicCounter { sent_bytes: bytes, received_bytes: bytes, faults: 0, index };
            NicCounters([("eth1".to_owned(), counter)].into())
        };
        assert_eq!(
            of(8, 5000).since(&of(7, 100), "eth1"),
            None,
            "it has moved more since it was made"
        );
        assert_eq!(of(7, 5000).since(&of(7, 100), "eth1").map(|it| it.sent_bytes), Some(4900));
    }

    #[test]
    fn this_machine_has_counters() {
        assert!(NicCounters::read(&["lo"]).0["lo"].index > 0);
        assert_eq!(NicCounters::read(&["lo"]).0.len(), 1, "of the others nobody asks");
    }
}

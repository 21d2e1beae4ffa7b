//! Rows of one round, and how much a pair may move in it: more than it can in the time, because the
//! time ends the round.

use std::time::Duration;

use crate::app::bench::layout::{SEED, row};
use crate::core::fleet::schedule::RoundPairs;
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole};
use crate::core::units::{MIB, Span};

/// Pieces of a NIC in a round, of which its rate is made: a slow NIC has a tenth of them.
const PIECES_PER_ROUND: f64 = 128.0;
/// Smallest block: below it, requests and headers cost more than bytes.
const BLOCK_BYTES_MIN: u64 = 64 << 10;
/// Times the bytes of the fastest in the time of a round.
const ROOM: f64 = 4.0;
/// Limit on the bytes of a direction: 1 TiB is a million blocks.
const PART_BYTES_MAX: u64 = 1 << 40;

/// Size of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RoundSize {
    /// Bytes that each node of a pair may send to the other.
    pub(crate) bytes: u64,
    pub(crate) block_bytes: u64,
}

impl RoundSize {
    /// Size of a first, short round, before any rate is known.
    pub(crate) const FIRST: RoundSize = RoundSize { bytes: 16 << 30, block_bytes: 128 << 10 };

    /// Returns the size of rounds of some time, from the best rate of a node and the median of
    /// NICs, in Gbit/s.
    pub(crate) fn of(node_max: f64, nic_median: f64, time: Duration) -> RoundSize {
        let bytes = |gbit_per_s: f64| gbit_per_s * 1e9 / 8.0 * time.as_secs_f64();
        let block = (bytes(nic_median) / PIECES_PER_ROUND) as u64;
        let block_bytes = (block.max(1).next_power_of_two() / 2).clamp(BLOCK_BYTES_MIN, MIB);
        let all = (ROOM * bytes(node_max)) as u64;
        RoundSize { bytes: all.next_multiple_of(MIB).clamp(MIB, PART_BYTES_MAX), block_bytes }
    }
}

/// Returns the rows of a round: the nodes of each pair want bytes of each other, at once.
pub(crate) fn rows_of_round(pairs: &RoundPairs, nodes: &[NodeAddress], bytes: u64) -> Vec<Row> {
    let ways = pairs.iter().flat_map(|&(one, other)| [(one, other), (other, one)]);
    let rows = (0..).zip(ways).flat_map(|(at, (from, to))| {
        let range = Span::of(at * bytes, bytes);
        [
            row(RowRole::Sender, &nodes[from], DataUri::Pattern(SEED), range),
            row(RowRole::Receiver, &nodes[to], DataUri::Null, range),
        ]
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;

    #[test]
    fn the_nodes_of_a_pair_want_bytes_of_each_other() {
        let node = |name: &str| NodeAddress { host: name.into(), port: 0 };
        let nodes = ["a", "b", "c", "d"].map(node);
        let rows = rows_of_round(&vec![(0, 3), (1, 2)], &nodes, 10);
        let shown: Vec<String> =
            rows.iter().map(|row| format!("{} {} {}", row.node.host, row.uri, row.range)).collect();
        assert_eq!(
            shown,
            [
                "a pattern:1 0-9",
                "d null: 0-9",
                "d pattern:1 10-19",
                "a null: 10-19",
                "b pattern:1 20-29",
                "c null: 20-29",
                "c pattern:1 30-39",
                "b null: 30-39",
            ]
        );
        let spec = Spec { id: "bench".into(), rows, ..Spec::default() };
        spec.validate().expect("a round is a valid transfer");
    }

    #[test]
    fn blocks_follow_the_rate_and_no_round_ends_before_its_time() {
        let two = Duration::from_secs(2);
        let size = |node, nic| RoundSize::of(node, nic, two);
        assert_eq!(size(0.2, 0.1), RoundSize { bytes: 191 * MIB, block_bytes: 128 << 10 });
        assert_eq!(size(0.02, 0.01).block_bytes, BLOCK_BYTES_MIN);
        assert_eq!(size(200.0, 100.0).block_bytes, MIB);
        assert_eq!(size(0.0, 0.0), RoundSize { bytes: MIB, block_bytes: BLOCK_BYTES_MIN });
        assert_eq!(size(1e6, 1e6).bytes, PART_BYTES_MAX);
    }
}

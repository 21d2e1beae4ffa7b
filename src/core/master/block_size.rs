//! Size of a block where the specification gives none.
//!
//! The last block of a part moves while everything else is done: from a relay to all others, or
//! from a late sender to a receiver that waits for nothing else. So a block is a small part of what
//! one receiver wants from one sender, or from one relay. Beyond that, larger blocks cost less:
//! each has a request, a header, a check and a write of its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::block_grid::{BLOCK_BYTES_MIN, PIECES_MAX};
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole, Spec};
use crate::core::units::{MIB, Span, union};

/// Block of a transfer that is large beside its copies and senders. A piece of this size costs a
/// thousandth of what its bytes do.
const BLOCK_BYTES_USUAL: u64 = MIB;
/// Largest chosen block: it holds up a flow of 1 Gbit/s for 70 ms.
const BLOCK_BYTES_MAX: u64 = 8 * MIB;
/// Blocks in each relay's part, summed over its receivers: in the end its last block goes to all of
/// them, one after the other. The part that this adds to the time of one copy is one of so many.
const BLOCKS_PER_COPY: f64 = 64.0;
/// Blocks that a receiver takes from each NIC of each sender.
const BLOCKS_PER_SENDER: f64 = 16.0;

/// The measures of a transfer that decide on its blocks.
#[derive(Clone, Copy, PartialEq, Debug)]
struct TransferShape {
    /// The most that one receiver wants. Of a group's bytes, a member's even part.
    bytes: u64,
    /// Receivers that keep a wanted byte and may pass it on, in the mean.
    copies: f64,
    /// NICs of senders that offer a byte, in the mean.
    senders: f64,
}

/// Returns the block for a transfer: a power of two.
pub(super) fn block_bytes(spec: &Spec) -> u64 {
    TransferShape::of(spec).block_bytes()
}

impl TransferShape {
    fn of(spec: &Spec) -> TransferShape {
        let is_wanted = |row: &Row| row.role == RowRole::Receiver && row.group.is_none();
        let wanted = by_node(spec, is_wanted);
        let kept = by_node(spec, |row| is_wanted(row) && row.uri != DataUri::Null);
        let offered = by_node(spec, |row| row.role == RowRole::Sender);
        let most = wanted.values().map(|rows| bytes(rows)).max().unwrap_or(0);
        TransferShape {
            bytes: most.max(largest_group_part(spec)),
            copies: mean(&kept, |_| 1),
            senders: mean(&offered, |rows| {
                rows.iter().map(|row| row.nics.len().max(1)).max().unwrap_or(1)
            }),
        }
    }

    fn block_bytes(self) -> u64 {
        let bytes = self.bytes as f64;
        let most = (bytes / (BLOCKS_PER_COPY * self.copies))
            .min(bytes / (BLOCKS_PER_SENDER * self.senders))
            .clamp(BLOCK_BYTES_MIN as f64, BLOCK_BYTES_USUAL as f64);
        let fitting = 1 << (most as u64).ilog2();
        let few_enough = (self.bytes / PIECES_MAX).next_power_of_two().min(BLOCK_BYTES_MAX);
        few_enough.max(fitting)
    }
}

type RowsByNode<'a> = BTreeMap<&'a NodeAddress, Vec<&'a Row>>;

fn by_node(spec: &Spec, is_meant: impl Fn(&Row) -> bool) -> RowsByNode<'_> {
    let mut nodes = RowsByNode::new();
    for row in spec.rows.iter().filter(|row| is_meant(row)) {
        nodes.entry(&row.node).or_default().push(row);
    }
    nodes
}

/// Returns the bytes of rows, each counted once.
fn bytes(rows: &[&Row]) -> u64 {
    union(rows.iter().map(|row| row.range).collect()).into_iter().map(Span::bytes).sum()
}

/// Returns the number of nodes that have a byte of their rows, in the mean over all bytes, each
/// node counted `times`; at least 1.
fn mean(nodes: &RowsByNode<'_>, times: impl Fn(&[&Row]) -> usize) -> f64 {
    let all = bytes(&nodes.values().flatten().copied().collect::<Vec<_>>());
    let each = nodes.values().map(|rows| bytes(rows) as f64 * times(rows) as f64);
    (each.sum::<f64>() / all.max(1) as f64).max(1.0)
}

/// Returns a member's even part of the group of which that is largest.
fn largest_group_part(spec: &Spec) -> u64 {
    let mut groups: BTreeMap<&str, (Vec<Span>, BTreeSet<&NodeAddress>)> = BTreeMap::new();
    for row in &spec.rows {
        if let Some(name) = &row.group {
            let (spans, members) = groups.entry(name).or_default();
            spans.push(row.range);
            members.insert(&row.node);
        }
    }
    let part = |(spans, members): (Vec<Span>, BTreeSet<&NodeAddress>)| {
        union(spans).into_iter().map(Span::bytes).sum::<u64>() / members.len() as u64
    };
    groups.into_values().map(part).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::units::{GIB, KIB};

    const TIB: u64 = 1 << 40;

    #[test]
    fn a_block_is_a_small_part_of_what_one_node_takes_from_another() {
        for (bytes, copies, senders, block) in [
            (0, 1.0, 1.0, 64 * KIB),
            (1, 1.0, 1.0, 64 * KIB),
            (MIB, 1.0, 1.0, 64 * KIB),
            (16 * MIB, 1.0, 1.0, 256 * KIB),
            (64 * MIB, 1.0, 1.0, MIB),
            (100 * MIB, 1.0, 1.0, MIB),
            // Relays.
            (192 * MIB, 8.0, 1.0, 256 * KIB),
            (64 * MIB, 16.0, 1.0, 64 * KIB),
            (64 * MIB, 64.0, 1.0, 64 * KIB),
            (GIB, 16.0, 1.0, MIB),
            (GIB, 17.0, 1.0, 512 * KIB),
            (64 * GIB, 64.0, 1.0, MIB),
            // Replicas.
            (64 * MIB, 1.0, 4.0, MIB),
            (64 * MIB, 1.0, 16.0, 256 * KIB),
            (GIB, 1.0, 64.0, MIB),
            (GIB, 1.0, 256.0, 256 * KIB),
            // Pieces are no more than can be held.
            (TIB, 1.0, 1.0, MIB),
            (TIB + 1, 64.0, 64.0, MIB),
            (2 * TIB, 1.0, 1.0, 2 * MIB),
            (8 * TIB, 1.0, 1.0, 8 * MIB),
            (u64::MAX, 64.0, 64.0, 8 * MIB),
        ] {
            let shape = TransferShape { bytes, copies, senders };
            assert_eq!(shape.block_bytes(), block, "{shape:?}");
        }
    }

    fn shape(rows: &str) -> TransferShape {
        let spec = Spec::parse("test", &format!("id x\n{rows}")).expect("a specification");
        TransferShape::of(&spec)
    }

    #[test]
    fn copies_and_senders_are_counted_where_they_meet() {
        let copies = "writer a:1 pattern:1 0 0-999\nreader b:1 file:///x 0 0-999\n\
                      reader c:1 file:///x 0 0-999\nreader d:1 file:///x 0 0-999\n";
        assert_eq!(shape(copies), TransferShape { bytes: 1000, copies: 3.0, senders: 1.0 });
        let parts = "writer a:1 pattern:1 0 0-999\nwriter e:1 pattern:1 0 0-999\n\
                     reader b:1 file:///x 0 0-499\nreader c:1 file:///x 500 500-999\n";
        assert_eq!(shape(parts), TransferShape { bytes: 500, copies: 1.0, senders: 2.0 });
        let nics = "writer a:1 pattern:1 0 0-999 nics=eth0,eth1\nreader b:1 file:///x 0 0-999\n";
        assert_eq!(shape(nics), TransferShape { bytes: 1000, copies: 1.0, senders: 2.0 });
        // A node that asks for a byte twice is one copy; one that keeps nothing passes nothing on.
        let twice = "writer a:1 pattern:1 0 0-999\nreader b:1 file:///x 0 0-999\n\
                     reader b:1 file:///y 0 0-999\nreader c:1 null: 0 0-999\n";
        assert_eq!(shape(twice), TransferShape { bytes: 1000, copies: 1.0, senders: 1.0 });
        let group = "writer a:1 pattern:1 0 0-999\nreader b:1 file:///x 0 0-999 group=g\n\
                     reader c:1 file:///x 0 0-999 group=g\n";
        assert_eq!(shape(group), TransferShape { bytes: 500, copies: 1.0, senders: 1.0 });
    }

    proptest! {
        #[test]
        fn a_block_is_a_power_of_two_within_its_limits(
            bytes in any::<u64>(), copies in 1.0..1e4_f64, senders in 1.0..1e4_f64,
        ) {
            let block = TransferShape { bytes, copies, senders }.block_bytes();
            prop_assert!(block.is_power_of_two());
            prop_assert!((BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block));
            let more = TransferShape { bytes, copies: copies + 1.0, senders }.block_bytes();
            prop_assert!(more <= block, "more copies have no larger blocks");
        }
    }
}

//! How much a peer may make us hold. Each number has one line that says where it comes from.

use crate::core::units::{KIB, MIB};

/// Payload of one data frame: 64 blocks of the usual size, and far from what 32 bits can count.
pub(crate) const LENGTH_MAX: u32 = 64 << 20;

/// One control message. The largest is a plan: 2¹⁷ entries of up to 64 bytes each, and as much
/// again for its peers.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// List entries in one message, over all its lists; each may cost a hundred bytes once decoded, 25
/// MiB together.
pub(crate) const ITEMS_MAX: usize = 1 << 18;

/// Spans in one list: two numbers each, so that a full list stays within a few MiB.
pub(crate) const SPANS_MAX: usize = 1 << 18;

/// A sentence, or a transfer's id: a sentence that names a path is cut, for Linux paths end at 4096
/// bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;

/// Sentences of one node in a report: one for each of a node's NICs, and for each of some of its
/// peers.
pub(crate) const WARNINGS_MAX: usize = 64;

/// A name: a host name ends at 253 bytes and a port behind it at 6, an interface name at 15.
pub(crate) const NAME_BYTES_MAX: usize = 264;

/// The answer to `status`: JSON with a line per node.
pub(crate) const STATUS_BYTES_MAX: usize = 4 << 20;

/// A data URI as a row writes it.
pub(crate) const URI_BYTES_MAX: usize = crate::core::spec::URI_BYTES_MAX;

/// Segments of one receiver's part of a plan: in the end it tells of each of them.
pub(crate) const SEGMENTS_MAX: usize = 1 << 17;

/// Checks that are listed in one message; where there are more, those of a segment are folded into
/// one. Each takes up to 60 bytes.
pub(crate) const CHECKS_MAX: usize = 1 << 17;

/// Holes that one node tells of, and holes of one plan: the largest ones. What is beyond travels as
/// the zeros that it reads as.
pub(crate) const HOLES_MAX: usize = 1 << 16;

/// What a receiver is told of the sources behind its part of a plan: the largest offers. What came
/// from others is not kept for another attempt.
pub(crate) const ORIGINS_MAX: usize = 1 << 16;

/// Ranges of an earlier attempt that one node tells of: the largest ones. What is beyond is fetched
/// again.
pub(crate) const HAVE_MAX: usize = 1 << 12;

/// Sentences that one node has for people; more say how many there are.
pub(crate) const NOTES_MAX: usize = 64;

/// Rails of one node: the densest nodes have eight NICs with two ports each, and some virtual ones.
pub(crate) const RAILS_MAX: usize = 64;

/// Nodes of one transfer.
pub(crate) const NODES_MAX: usize = 1 << 16;

/// Rows of one node.
pub(crate) const ROWS_MAX: usize = crate::core::spec::NODE_ROWS_MAX;

/// What the data URIs of all rows of one node take.
const URIS_BYTES_MAX: usize = crate::core::spec::NODE_URIS_BYTES_MAX;

/// Slots that a node may be told to have: 64 GiB of the usual size.
pub(crate) const SLOTS_MAX: u32 = 1 << 16;

/// Segments of which a receiver tells what is left twice a second: a message of half a KiB at most.
pub(crate) const LEFT_MAX: usize = 64;

/// Ranges of one node that are compared with those of others: about a MiB of numbers.
pub(crate) const REPLICA_RANGES_MAX: usize = 1 << 16;

/// Check values of one node, over all ranges that are compared: eight bytes each.
pub(crate) const REPLICA_VALUES_MAX: usize = 1 << 18;

/// What an advert can take: it travels in a handshake message, which is limited to 64 KiB by the
/// Noise framework.
pub(crate) const ADVERT_BYTES_MAX: usize =
    RAILS_MAX * (2 * NAME_BYTES_MAX + 64) + 2 * NAME_BYTES_MAX + 64;

/// Two numbers of 64 bits.
const PAIR_BYTES: usize = 2 * 10;

/// What `Landed` takes at most: a range, a count and a fold for each segment, the listed checks,
/// and the statistics.
const LANDED_BYTES_MAX: usize =
    SEGMENTS_MAX * (PAIR_BYTES + 5 + 32) + CHECKS_MAX * 60 + RAILS_MAX * 3 * TEXT_BYTES_MAX;

const _: () = assert!(ADVERT_BYTES_MAX < 60 << 10);
const _: () = assert!(crate::core::spec::ID_BYTES_MAX <= TEXT_BYTES_MAX);
const _: () = assert!(crate::core::spec::HOST_BYTES_MAX + "[]:65535".len() <= NAME_BYTES_MAX);
const _: () =
    assert!(2 * 10 * SPANS_MAX < MESSAGE_BYTES_MAX, "a full list of spans fits a message");
const _: () = assert!(LANDED_BYTES_MAX < MESSAGE_BYTES_MAX, "checks of all segments fit a message");
const _: () = assert!(2 * CHECKS_MAX <= ITEMS_MAX && 2 * SEGMENTS_MAX <= ITEMS_MAX);
const _: () =
    assert!(HOLES_MAX + SEGMENTS_MAX <= SPANS_MAX, "holes may be cut once for each segment");
const _: () = assert!(
    NOTES_MAX * TEXT_BYTES_MAX + HOLES_MAX * PAIR_BYTES + ROWS_MAX * 64 < MESSAGE_BYTES_MAX / 2
);
const _: () = assert!(
    URIS_BYTES_MAX + ROWS_MAX * 64 + 2 * TEXT_BYTES_MAX < MESSAGE_BYTES_MAX,
    "all rows fit a message"
);
const _: () = assert!(STATUS_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(LENGTH_MAX as u64 == 64 * MIB && MIB == KIB * KIB);

#[cfg(test)]
mod tests;

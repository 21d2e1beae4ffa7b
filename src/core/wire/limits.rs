//! Limits on the memory that a peer can make this program use. Each number has its reason beside
//! it.

use crate::core::units::{KIB, MIB};

/// Payload of one data frame: 64 blocks of the usual size, and far from what 32 bits can count.
pub(crate) const LENGTH_MAX: u32 = 64 << 20;

/// Size of a control message. The largest is a plan: 2¹⁷ entries of up to 64 bytes each, and as
/// much again for its peers.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// List entries in one message, over all its lists; each may cost a hundred bytes once decoded, 25
/// MiB together.
pub(crate) const ITEMS_MAX: usize = 1 << 18;

/// Spans in one list: two numbers each, so that a full list stays within a few MiB.
pub(crate) const SPANS_MAX: usize = 1 << 18;

/// Length of a sentence, or of a transfer's id. A sentence with a path in it is cut: Linux paths
/// end at 4096 bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;

/// Warnings of one node in a report: one for each of its NICs, and for each of some of its peers.
pub(crate) const WARNINGS_MAX: usize = 64;

/// Lost flows in one report of a receiver; further ones are not told one by one.
pub(crate) const FLOW_LOSSES_MAX: usize = 16;

/// A name: a host name ends at 253 bytes and a port behind it at 6, an interface name at 15.
pub(crate) const NAME_BYTES_MAX: usize = 264;

/// Size of the answer to `status`: JSON with a line per node.
pub(crate) const STATUS_BYTES_MAX: usize = 4 << 20;

/// Length of a data URI in a row.
pub(crate) const URI_BYTES_MAX: usize = crate::core::spec::URI_BYTES_MAX;

/// Length of a path: Linux paths end there.
pub(crate) const PATH_BYTES_MAX: usize = 4096;

/// Questions of one survey, and its answers: more are asked one message after the other.
pub(crate) const SURVEY_MAX: usize = 1 << 10;

/// Size of the diagnosis of a machine: JSON with a line for each of some hundred interfaces.
pub(crate) const DIAGNOSIS_BYTES_MAX: usize = 256 << 10;

/// Segments of one receiver's part of a plan: at the end it reports each of them.
pub(crate) const SEGMENTS_MAX: usize = 1 << 17;

/// Listed checks in one message; beyond that, the checks of a segment are folded into one. Each
/// takes up to 60 bytes.
pub(crate) const CHECKS_MAX: usize = 1 << 17;

/// Holes that one node reports, and holes of one plan: the largest ones. Other holes travel as
/// zeros.
pub(crate) const HOLES_MAX: usize = 1 << 16;

/// Source origins in a receiver's part of a plan: the largest offers. Bytes of other sources are
/// not kept for another attempt.
pub(crate) const ORIGINS_MAX: usize = 1 << 16;

/// Ranges of an earlier attempt that one node reports: the largest ones. Other ranges are fetched
/// again.
pub(crate) const HAVE_MAX: usize = 1 << 12;

/// Notes of one node for people; the last one gives the number of those omitted.
pub(crate) const NOTES_MAX: usize = 64;

/// Rails of one node: the densest nodes have eight NICs with two ports each, and some virtual ones.
pub(crate) const RAILS_MAX: usize = 64;

/// Nodes of one transfer.
pub(crate) const NODES_MAX: usize = 1 << 16;

/// Rows of one node.
pub(crate) const ROWS_MAX: usize = crate::core::spec::NODE_ROWS_MAX;

/// Total length of the data URIs of all rows of one node.
const URIS_BYTES_MAX: usize = crate::core::spec::NODE_URIS_BYTES_MAX;

/// Slots of a node: 64 GiB of the usual size.
pub(crate) const SLOTS_MAX: u32 = 1 << 16;

/// Segments whose remaining bytes a receiver reports twice a second: half a KiB in each message.
pub(crate) const LEFT_MAX: usize = 64;

/// Senders whose samples a receiver reports: beyond that a master does not watch them.
pub(crate) const SAMPLES_MAX: usize = 1 << 12;

/// Ranges of one node that are compared with those of others: about a MiB of numbers.
pub(crate) const REPLICA_RANGES_MAX: usize = 1 << 16;

/// Check values of one node, over all compared ranges: eight bytes each.
pub(crate) const REPLICA_VALUES_MAX: usize = 1 << 18;

/// Largest size of an advert: it travels in a handshake message, which the Noise framework limits
/// to 64 KiB.
pub(crate) const ADVERT_BYTES_MAX: usize =
    RAILS_MAX * (2 * NAME_BYTES_MAX + 64) + 2 * NAME_BYTES_MAX + 64;

/// Two numbers of 64 bits.
const PAIR_BYTES: usize = 2 * 10;

/// Largest size of `Landed`: a range, a count and a fold for each segment, the listed checks, and
/// the statistics.
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
const _: () = assert!(
    SURVEY_MAX * (PATH_BYTES_MAX + 2 * TEXT_BYTES_MAX + 64) < MESSAGE_BYTES_MAX,
    "all answers of a survey fit a message"
);
const _: () = assert!(LENGTH_MAX as u64 == 64 * MIB && MIB == KIB * KIB);

/// Returns the part of a limit that peers of one address may have together: three quarters, so that
/// others find room.
pub(crate) fn share_of_one(most: usize) -> usize {
    most.div_ceil(4) * 3
}

#[cfg(test)]
mod tests;

//! How much a peer may make us hold. Each number has one line that says where it comes from.

use crate::units::{KIB, MIB};

/// Payload of one data frame: 64 blocks of the usual size, and far from what 32 bits can count.
pub(crate) const LENGTH_MAX: u32 = 64 << 20;

/// One control message. The largest is a plan: 2¹⁷ entries of up to 64 bytes each, and as much again for its peers.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// List entries in one message, over all its lists; each may cost a hundred bytes once decoded, 25 MiB together.
pub(crate) const ITEMS_MAX: usize = 1 << 18;

/// Spans in one list: two numbers each, so that a full list stays within a few MiB.
pub(crate) const SPANS_MAX: usize = 1 << 18;

/// A sentence, or a data URI: Linux paths end at 4096 bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;

/// Sentences of one node in a report: one for each of a node's NICs, and for each of some of its peers.
pub(crate) const WARNINGS_MAX: usize = 64;

/// A name: a host name ends at 253 bytes, an interface name at 15.
pub(crate) const NAME_BYTES_MAX: usize = 256;

/// The answer to `status`: JSON with a line per node.
pub(crate) const STATUS_BYTES_MAX: usize = 4 << 20;

/// Rails of one node: the densest nodes have eight NICs with two ports each, and some virtual ones.
pub(crate) const RAILS_MAX: usize = 64;

/// Nodes of one transfer.
pub(crate) const NODES_MAX: usize = 1 << 16;

/// Rows of one node.
pub(crate) const ROWS_MAX: usize = crate::spec::NODE_ROWS_MAX;

/// Slots that a node may be told to have: 64 GiB of the usual size.
pub(crate) const SLOTS_MAX: u32 = 1 << 16;

/// Segments of which a receiver tells what is left twice a second: a message of half a KiB at most.
pub(crate) const LEFT_MAX: usize = 64;

/// Ranges of one node that are compared with those of others: about a MiB of numbers.
pub(crate) const REPLICA_RANGES_MAX: usize = 1 << 16;

/// Check values of one node, over all ranges that are compared: eight bytes each.
pub(crate) const REPLICA_VALUES_MAX: usize = 1 << 18;

/// What an advert can take: it travels in a handshake message, which is limited to 64 KiB by the Noise framework.
pub(crate) const ADVERT_BYTES_MAX: usize = RAILS_MAX * (2 * NAME_BYTES_MAX + 64) + 2 * NAME_BYTES_MAX + 64;

const _: () = assert!(ADVERT_BYTES_MAX < 60 << 10);
const _: () = assert!(2 * 10 * SPANS_MAX < MESSAGE_BYTES_MAX, "a full list of spans fits a message");
const _: () = assert!(STATUS_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(LENGTH_MAX as u64 == 64 * MIB && MIB == KIB * KIB);

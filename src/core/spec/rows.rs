//! Typed rows of a specification.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::escapes::write_encoded;
use crate::core::units::{BitRate, Span};

/// Address of a node: a host name or address, and a port. One address is one node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct NodeAddress {
    /// A host name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// TCP port of the node's control connection; 0 for any free one.
    pub port: u16,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Role of a row: it offers bytes (`writer` in a file, as in the paper) or wants them (`reader`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum RowRole {
    /// Offers a range of the data space.
    Sender,
    /// Wants a range of the data space.
    Receiver,
}

/// Location of a row's bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum DataUri {
    /// `file:///path`: a file; the path is absolute and names `ROOT/path` below the node's root.
    File(PathBuf),
    /// `mem:NAME`: POSIX shared memory.
    Mem(OsString),
    /// `pattern:SEED`: bytes that depend only on the seed and the position in the data space
    /// (senders only).
    Pattern(u64),
    /// `null:`: check and discard (receivers only).
    Null,
}

impl fmt::Display for DataUri {
    /// Writes the URI so that parsing it returns the same value: bytes without a safe character are
    /// `%XX`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataUri::File(path) => {
                f.write_str("file://")?;
                write_encoded(f, path.as_os_str().as_bytes())
            }
            DataUri::Mem(name) => {
                f.write_str("mem:")?;
                write_encoded(f, name.as_bytes())
            }
            DataUri::Pattern(seed) => write!(f, "pattern:{seed}"),
            DataUri::Null => f.write_str("null:"),
        }
    }
}

/// One row: a node offers or wants a range of the data space, kept at an offset in its data.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Sender or receiver.
    pub role: RowRole,
    /// The node.
    pub node: NodeAddress,
    /// Location of its bytes.
    pub uri: DataUri,
    /// Byte `x` of `range` lies at `offset_bytes + (x - range.start)` of the data.
    pub offset_bytes: u64,
    /// The range of the data space. It is empty for an empty file, which cannot be written in text.
    pub range: Span,
    /// `speed=`: the declared rate of the node's NICs together, in bits per second.
    pub speed: Option<BitRate>,
    /// `nics=`: the NICs to use, by name or address; empty means all usable ones.
    pub nics: Vec<String>,
    /// `group=`: receivers of one group together want each byte once.
    pub group: Option<String>,
    /// `store=`: the store that the row's data is read from or written to, shared with other nodes;
    /// one of [`Spec::stores`].
    pub store: Option<String>,
    /// Line in the file, counted from 1; 0 for rows built in code.
    pub line: u32,
}

/// `option store NAME RATE`: storage that several nodes read from or write to, such as a parallel
/// file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreRate {
    /// Name of the store in rows.
    pub name: String,
    /// Total rate of all reads, and total rate of all writes, in bits per second.
    pub rate: BitRate,
}

/// `option pair HOST:PORT HOST:PORT RATE`: the rate from one node to another, if it is less than
/// the speed of the nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairRate {
    /// Sending node.
    pub from: NodeAddress,
    /// Receiving node.
    pub to: NodeAddress,
    /// Rate between the nodes, in bits per second.
    pub rate: BitRate,
    /// Line in the file, counted from 1; 0 for a pair built in code.
    pub line: u32,
}

/// A whole transfer as the user wrote it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Spec {
    /// The name of the transfer: the `id` line.
    pub id: String,
    /// Address at which `status` and `cancel` reach the master.
    pub master: Option<NodeAddress>,
    /// Senders and receivers, in the order of the file.
    pub rows: Vec<Row>,
    /// `option origin N`: origin of the block grid; by default the lowest byte offered.
    pub origin: Option<u64>,
    /// `option block N`: size of a block in bytes; without it, one that fits is chosen.
    pub block_bytes: Option<u64>,
    /// `option store NAME RATE`: the stores that rows name, each once.
    pub stores: Vec<StoreRate>,
    /// `option pair HOST:PORT HOST:PORT RATE`: connections that are slower than their nodes, each
    /// once.
    pub pairs: Vec<PairRate>,
}

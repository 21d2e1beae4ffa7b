//! Typed rows: what a specification says, with nothing left to parse.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::uri::write_encoded;
use crate::core::units::{BitRate, Span};

/// Where a node is reached: a host name or address, and a port. One address is one node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct NodeAddress {
    /// A host name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port of the node's control connection; 0 asks for any free one.
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

/// What a row does: offer bytes (`writer` in a file, as in the paper) or want them (`reader`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum RowRole {
    /// Offers a range of the data space.
    Sender,
    /// Wants a range of the data space.
    Receiver,
}

/// Where a row's bytes are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum DataUri {
    /// `file:///path`: a file; the path is absolute and names `ROOT/path` below the node's root.
    File(PathBuf),
    /// `mem:NAME`: POSIX shared memory.
    Mem(OsString),
    /// `pattern:SEED`: bytes that depend on the seed and the position in the data space alone
    /// (senders only).
    Pattern(u64),
    /// `null:`: check and discard (receivers only).
    Null,
}

impl fmt::Display for DataUri {
    /// The URI such that parsing it gives it back: bytes that have no safe character are `%XX`.
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
    /// Offers or wants.
    pub role: RowRole,
    /// The node.
    pub node: NodeAddress,
    /// Where its bytes are.
    pub uri: DataUri,
    /// Byte `x` of `range` lies at `offset_bytes + (x - range.start)` of the data.
    pub offset_bytes: u64,
    /// The range of the data space. It is empty for an empty file, which a specification in text
    /// cannot say.
    pub range: Span,
    /// `speed=`: the declared rate of the node's NICs together, in bits per second.
    pub speed: Option<BitRate>,
    /// `nics=`: the NICs to use, by name or address; empty means all usable ones.
    pub nics: Vec<String>,
    /// `group=`: receivers of one group together want each byte once.
    pub group: Option<String>,
    /// `store=`: what the row's data is read from or written to together with other nodes'; one of
    /// [`Spec::stores`].
    pub store: Option<String>,
    /// The line of the file that it came from, counted from 1; 0 for rows made in code.
    pub line: u32,
}

/// `option store NAME RATE`: something that several nodes read from or write to, such as a parallel
/// file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreRate {
    /// What rows call it.
    pub name: String,
    /// What all may read from it together, and what all may write to it together, in bits per
    /// second.
    pub rate: BitRate,
}

/// `option pair HOST:PORT HOST:PORT RATE`: what can pass from one node to another, where that is
/// less than what the nodes themselves can.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairRate {
    /// The node that sends.
    pub from: NodeAddress,
    /// The node that receives.
    pub to: NodeAddress,
    /// What the way between them carries, in bits per second.
    pub rate: BitRate,
    /// The line of the file that it came from, counted from 1; 0 for one made in code.
    pub line: u32,
}

/// A whole transfer as the user wrote it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Spec {
    /// The name of the transfer: the `id` line.
    pub id: String,
    /// Where `status` and `cancel` reach the master.
    pub master: Option<NodeAddress>,
    /// Senders and receivers, in the order of the file.
    pub rows: Vec<Row>,
    /// `option origin N`: where the block grid starts; by default the lowest byte offered.
    pub origin: Option<u64>,
    /// `option block N`: bytes of one cell of the grid; by default 1 MiB.
    pub block_bytes: Option<u64>,
    /// `option store NAME RATE`: the stores that rows name, each once.
    pub stores: Vec<StoreRate>,
    /// `option pair HOST:PORT HOST:PORT RATE`: ways between nodes that are slower than the nodes,
    /// each once.
    pub pairs: Vec<PairRate>,
}

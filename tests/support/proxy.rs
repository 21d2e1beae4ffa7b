//! A proxy in front of a node's control port that forwards whole records, and asks a gate about
//! each of them first.
//!
//! It knows where records begin and end (a handshake message, or a sealed chunk; docs/PROTOCOL.md),
//! and not their contents.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// Direction of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    ToNode,
    ToMaster,
}

/// Fate of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Pass,
    /// It is lost, because one end is dead: the other end sees what the dead one's kernel sends.
    Lose,
    /// Half of it is forwarded, and no more.
    Half,
    /// It is lost, and with it the connection: both ends see a reset.
    Reset,
}

/// Decides about records, in the thread that carries them.
pub(crate) trait Gate: Send + Sync {
    /// Handles a record of `bytes` bytes. Its actions happen before the record is forwarded.
    fn record(&self, way: Way, bytes: usize) -> Verdict;
    /// Half of a record was forwarded.
    fn half(&self);
}

/// Forwards connections to `from` to the node at `to`, for as long as the process lives.
pub(crate) fn start(from: SocketAddr, to: SocketAddr, gate: &Arc<dyn Gate>) {
    let (listener, gate) = (TcpListener::bind(from).unwrap(), Arc::clone(gate));
    thread::spawn(move || {
        for master in listener.incoming().map_while(Result::ok) {
            // If no node listens, the connection ends at once.
            let Ok(node) = TcpStream::connect(to) else { continue };
            let both = Arc::new(Both { master, node, is_reset: AtomicBool::new(false) });
            for way in [Way::ToNode, Way::ToMaster] {
                let (both, gate) = (Arc::clone(&both), Arc::clone(&gate));
                thread::spawn(move || both.carry(way, &*gate));
            }
        }
    });
}

/// A connection, as shared by its two threads.
struct Both {
    master: TcpStream,
    node: TcpStream,
    is_reset: AtomicBool,
}

impl Both {
    fn carry(&self, way: Way, gate: &dyn Gate) {
        let (source, mut sink) = if way == Way::ToNode {
            (&self.master, &self.node)
        } else {
            (&self.node, &self.master)
        };
        for index in 0.. {
            let record = match record(source, way, index) {
                Ok(Some(record)) => record,
                // The end of one side is forwarded as it came.
                Ok(None) if !self.is_reset.load(Ordering::Relaxed) => {
                    return drop(sink.shutdown(Shutdown::Write));
                }
                Ok(None) | Err(_) => return self.reset(),
            };
            match gate.record(way, record.len()) {
                Verdict::Pass if sink.write_all(&record).is_ok() => {}
                // One of the two ends is dead, and unaffected.
                Verdict::Lose => return drop(sink.shutdown(Shutdown::Write)),
                Verdict::Half => {
                    let _ = sink.write_all(&record[..record.len() / 2]);
                    gate.half();
                    return drop(sink.shutdown(Shutdown::Write));
                }
                Verdict::Pass | Verdict::Reset => return self.reset(),
            }
        }
    }

    /// Makes both ends see a reset, once both threads have released the connection.
    fn reset(&self) {
        self.is_reset.store(true, Ordering::Relaxed);
        for stream in [&self.master, &self.node] {
            let _ = setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
            // Only the thread that reads here sees it.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// Returns the record of this index in its direction, complete; `None` if the stream ends instead.
fn record(mut source: &TcpStream, way: Way, index: usize) -> Result<Option<Vec<u8>>> {
    let (header_bytes, length_at) = match (way, index) {
        (Way::ToNode, 0) => (PREAMBLE_BYTES, Some(12)),
        (Way::ToMaster, 0) => (REPLY_BYTES, Some(10)),
        // The confirmation is a seal around an empty message.
        (Way::ToNode, 1) => (SEAL_BYTES, None),
        _ => (2, Some(0)),
    };
    let mut record = vec![0; header_bytes];
    if source.read(&mut record[..1])? == 0 {
        return Ok(None);
    }
    source.read_exact(&mut record[1..])?;
    if let Some(at) = length_at {
        let bytes = u16::from_le_bytes([record[at], record[at + 1]]);
        record.resize(header_bytes + usize::from(bytes), 0);
        source.read_exact(&mut record[header_bytes..])?;
    }
    Ok(Some(record))
}

/// A chunk with only its kind in it.
pub(crate) const GOOD_BYE_BYTES: usize = 2 + 1 + SEAL_BYTES;

const PREAMBLE_BYTES: usize = 48;
const REPLY_BYTES: usize = 16;
const SEAL_BYTES: usize = 16;

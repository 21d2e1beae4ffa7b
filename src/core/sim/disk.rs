//! Disks of simulated nodes: the sources and destinations of an attempt.
//!
//! A forecast moves counts of bytes, and its disks hold nothing. Tests give nodes real files,
//! through the code that opens, journals and names them in a real node.

use std::rc::Rc;

use crate::core::check::CheckMethod;
use crate::core::check::replica_hash::{UNREAD, value_count};
use crate::core::error::Result;
use crate::core::node::participant::RoomRequest;
use crate::core::piece::LandedPiece;
use crate::core::spec::RowRole;
use crate::core::units::Span;
use crate::core::wire::Check;
use crate::core::wire::control::{Prepare, Prepared, RowState};

/// The bytes of a piece, or their count where nobody looks at bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PiecePayload {
    /// The count of the piece; `changed` where one of them was changed on the way.
    Counted { changed: bool },
    #[cfg_attr(not(test), allow(dead_code, reason = "tests have files"))]
    Bytes(Rc<[u8]>),
}

impl PiecePayload {
    /// Returns true if `check` was made of it.
    pub(super) fn is_intact(&self, method: CheckMethod, span: Span, check: Check) -> bool {
        match self {
            PiecePayload::Counted { changed } => !changed || method == CheckMethod::None,
            PiecePayload::Bytes(bytes) => {
                method == CheckMethod::None || method.of(span, bytes) == check
            }
        }
    }

    /// Changes one bit, by `chance`.
    pub(super) fn change(&mut self, chance: u64) {
        match self {
            PiecePayload::Counted { changed } => *changed = true,
            PiecePayload::Bytes(bytes) => {
                let mut changed = bytes.to_vec();
                let at = chance as usize / 8 % changed.len();
                changed[at] ^= 1 << (chance % 8);
                *bytes = changed.into();
            }
        }
    }
}

/// Result of opening the files of an attempt.
#[derive(Debug)]
pub(crate) struct PreparedDisk {
    pub(crate) prepared: Prepared,
    /// Pieces that an earlier attempt has left, where what lands is kept for another one.
    pub(crate) found: Option<Vec<LandedPiece>>,
}

/// The sources and destinations of one node in one attempt. Its methods are the work of workers;
/// see [`crate::core::node::machine::NodeJob`]. A disk that is dropped is let go of.
pub(crate) trait SimDisk {
    fn prepare(&mut self, prepare: &Prepare) -> Result<PreparedDisk>;

    fn preallocate(&mut self, _room: &RoomRequest) -> Result<()> {
        Ok(())
    }

    /// Makes room for further ranges.
    fn extend(&mut self, _wanted: &[Span], _holes: &[Span]) -> Result<()> {
        Ok(())
    }

    /// The bytes of a piece that this node offers, or that has landed here, with their check.
    fn read(&mut self, method: CheckMethod, span: Span) -> Result<(Check, PiecePayload)>;

    fn write(&mut self, _span: Span, _payload: &PiecePayload) -> Result<()> {
        Ok(())
    }

    /// Takes in what is to be written down by the next `flush`.
    fn keep(&mut self, _pieces: &[LandedPiece]) {}

    fn flush(&mut self) {}

    fn commit(&mut self, _landed_everywhere: bool, _checks: &[(Span, Check)]) -> Result<()> {
        Ok(())
    }

    fn confirm(&mut self) {}

    /// Leaves what has landed to another attempt, or removes it, where it `forgets` in any case.
    /// A node that `departs` does so before its master has ended the transfer.
    fn discard(&mut self, _forgets: bool, _departs: bool) {}

    /// The process is gone: what it had open is closed as it is.
    fn crash(&mut self) {}
}

/// A disk that holds nothing. What is read from it are bytes that differ at every place.
#[derive(Debug)]
pub(super) struct VoidDisk;

impl SimDisk for VoidDisk {
    fn prepare(&mut self, prepare: &Prepare) -> Result<PreparedDisk> {
        let prepared = Prepared {
            rows: prepare.rows.iter().map(|_| RowState::default()).collect(),
            replicas: vec![UNREAD + 1; value_count(&prepare.replicas)],
            states: prepare.rows.iter().map(|row| u64::from(row.role == RowRole::Sender)).collect(),
            ..Prepared::default()
        };
        Ok(PreparedDisk { prepared, found: None })
    }

    fn read(&mut self, method: CheckMethod, span: Span) -> Result<(Check, PiecePayload)> {
        let check = match method {
            CheckMethod::None => Check::None,
            _ => {
                let bytes: Vec<u8> =
                    (span.start..span.end).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
                method.of(span, &bytes)
            }
        };
        Ok((check, PiecePayload::Counted { changed: false }))
    }
}

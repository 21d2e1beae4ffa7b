//! Configuration of a participant, and the plans that can be followed under it.

use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::error::{Code, Error};
use crate::core::options::TransferOptions;
use crate::core::units::Span;
use crate::core::wire::control::Prepare;

/// Pieces of one receiver: a bit each in its extent map, 128 MiB. In blocks of the usual size they
/// are a pebibyte.
const PIECES_MAX: u64 = 1 << 30;

/// Configuration of a participant: its transfer, as it is told when it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParticipantConfig {
    pub(crate) grid: BlockGrid,
    pub(crate) method: CheckMethod,
    /// Number of rails of this node.
    pub(crate) rails: u32,
    pub(crate) options: TransferOptions,
}

impl ParticipantConfig {
    /// The terms of a master's `Prepare`, for a node with so many rails.
    pub(crate) fn of(prepare: &Prepare, rails: u32) -> ParticipantConfig {
        let options = &prepare.options;
        ParticipantConfig {
            grid: BlockGrid::new(options.origin, options.block_bytes.into()),
            method: CheckMethod::new(options.transfer.check, options.object),
            rails,
            options: options.transfer,
        }
    }

    /// Refuses a plan that cannot be followed: it has more pieces than the extent map may hold, or
    /// some without a check.
    pub(super) fn judge(
        &self,
        mut segments: impl Iterator<Item = Span> + Clone,
    ) -> Result<(), Error> {
        let counts = segments.clone().map(|span| u128::from(self.grid.piece_count(span)));
        let pieces: u128 = counts.sum();
        if pieces > PIECES_MAX.into() {
            let error = Error::new(
                Code::Usage,
                format!("a plan of {pieces} pieces; a node takes {PIECES_MAX}"),
            );
            return Err(error.remedy("give larger blocks by option block"));
        }
        let last = |span: Span| self.grid.piece(span, self.grid.piece_count(span) - 1);
        let has_check = |span: Span| {
            [self.grid.piece(span, 0), last(span)].iter().all(|&piece| self.method.takes(piece))
        };
        match segments.find(|span| !has_check(*span)) {
            Some(span) => {
                Err(Error::new(Code::Internal, format!("the plan cuts {span} off the grid")))
            }
            None => Ok(()),
        }
    }
}

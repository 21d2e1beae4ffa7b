//! Failures of pieces, by sender: after too many, a sender is not asked for the piece again.

use std::collections::BTreeMap;

use crate::core::units::{NodeIx, Span};

/// Failures of one sender at one piece, after which it is not asked for the piece again: enough
/// for three of its rails to be closed for that.
pub(super) const FAULTS_MAX: u32 = 12;

/// Failures by the piece's position, then by sender.
#[derive(Default)]
pub(super) struct SenderFaults {
    faults: BTreeMap<u64, BTreeMap<NodeIx, u32>>,
}

impl SenderFaults {
    /// Counts a piece that arrived corrupted: it may arrive intact the next time.
    pub(super) fn corrupted(&mut self, piece: Span, sender: NodeIx) {
        *self.count_mut(piece, sender) += 1;
    }

    /// Counts a piece that was refused: the sender would refuse it again.
    pub(super) fn refused(&mut self, piece: Span, sender: NodeIx) {
        *self.count_mut(piece, sender) += FAULTS_MAX;
    }

    /// Returns the failures of `sender` at a piece, or none if there were too many.
    pub(super) fn tolerable(&self, piece: Span, sender: NodeIx) -> Option<u32> {
        let faults = self.faults.get(&piece.start).and_then(|faults| faults.get(&sender));
        Some(faults.copied().unwrap_or(0)).filter(|faults| *faults < FAULTS_MAX)
    }

    fn count_mut(&mut self, piece: Span, sender: NodeIx) -> &mut u32 {
        self.faults.entry(piece.start).or_default().entry(sender).or_insert(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corrupted_piece_is_tolerated_a_few_times_and_a_refused_one_never() {
        let (a, b, piece) = (NodeIx(0), NodeIx(1), Span::new(10, 20));
        let mut faults = SenderFaults::default();
        for count in 0..FAULTS_MAX {
            assert_eq!(faults.tolerable(piece, a), Some(count));
            faults.corrupted(piece, a);
        }
        assert_eq!(faults.tolerable(piece, a), None);
        assert_eq!(faults.tolerable(piece, b), Some(0), "the other sender did not fail");
        assert_eq!(faults.tolerable(Span::new(20, 30), a), Some(0));
        faults.refused(piece, b);
        assert_eq!(faults.tolerable(piece, b), None);
    }
}

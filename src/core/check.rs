//! Check values that compose: they are computed for each piece, and joined into the check of a
//! whole range without a second read.
//!
//! CRC-64/NVME composes over any two neighbours (it is what S3 calls CRC64NVME). BLAKE3 composes
//! over subtrees (BLAKE3 paper, section 5.5): a piece on the grid of a gapless object has a
//! chaining value, and the values merge into what `b3sum` prints of the whole.

pub(crate) mod crc;
pub(crate) mod replica_hash;

use std::collections::BTreeMap;

use blake3::hazmat::{self, HasherExt, Mode};

use crate::core::block_grid::BlockGrid;
use crate::core::options::CheckKind;
use crate::core::units::Span;
use crate::core::wire::Check;
use crate::core::wire::control::{CheckValue, LandedSegment, SegmentChecks};
use crate::core::wire::limits::CHECKS_MAX;

/// Check that is computed over every piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CheckMethod {
    None,
    Crc64,
    /// With the object whose subtrees the pieces are; without one, every piece is hashed by itself.
    Blake3(Option<Span>),
}

impl CheckMethod {
    /// Creates the method of a transfer. `object` is the range whose subtrees the pieces are, if
    /// any.
    pub(crate) fn new(kind: CheckKind, object: Option<Span>) -> CheckMethod {
        match kind {
            CheckKind::None => CheckMethod::None,
            CheckKind::Crc64 => CheckMethod::Crc64,
            CheckKind::Blake3 => CheckMethod::Blake3(object),
        }
    }

    /// Returns true if the bytes at `span` have a check. With an object, only ranges that fit one
    /// of its subtrees have one.
    pub(crate) fn takes(self, span: Span) -> bool {
        let CheckMethod::Blake3(Some(object)) = self else { return true };
        let offset = span.start.wrapping_sub(object.start);
        let is_chunk = object.contains(span) && offset.is_multiple_of(blake3::CHUNK_LEN as u64);
        is_chunk
            && hazmat::max_subtree_len(offset).is_none_or(|bytes_max| span.bytes() <= bytes_max)
    }

    /// Returns the check of `bytes` at `span` of the data space, which the method
    /// [`takes`](CheckMethod::takes).
    pub(crate) fn of(self, span: Span, bytes: &[u8]) -> Check {
        debug_assert_eq!(span.bytes(), bytes.len() as u64);
        match self {
            CheckMethod::None => Check::None,
            CheckMethod::Crc64 => Check::Crc64(::crc::crc64_nvme(bytes)),
            CheckMethod::Blake3(Some(object)) if object != span => {
                let mut hasher = blake3::Hasher::new();
                hasher.set_input_offset(span.start - object.start).update(bytes);
                Check::Blake3(hasher.finalize_non_root())
            }
            CheckMethod::Blake3(_) => Check::Blake3(*blake3::hash(bytes).as_bytes()),
        }
    }

    /// Starts a check of the bytes at `span` of the data space, which are added in parts.
    pub(crate) fn running(self, span: Span) -> RunningCheck {
        match self {
            CheckMethod::None => RunningCheck::None,
            CheckMethod::Crc64 => RunningCheck::Crc64(0),
            CheckMethod::Blake3(Some(object)) if object != span => {
                let mut hasher = blake3::Hasher::new();
                hasher.set_input_offset(span.start - object.start);
                RunningCheck::Subtree(hasher)
            }
            CheckMethod::Blake3(_) => RunningCheck::Whole(blake3::Hasher::new()),
        }
    }

    /// Returns the check of `span.bytes()` zeros.
    pub(crate) fn of_zeros(self, span: Span) -> Check {
        match self {
            CheckMethod::None => Check::None,
            CheckMethod::Crc64 => Check::Crc64(crc::of_zeros(span.bytes())),
            CheckMethod::Blake3(_) => {
                // A piece has at most one block, so the zeros fit a small buffer.
                let zeros = vec![0; usize::try_from(span.bytes()).expect("a piece fits memory")];
                self.of(span, &zeros)
            }
        }
    }

    /// Returns the check of two neighbours together, if their checks join.
    fn join(self, left: Span, left_check: Check, right: Span, right_check: Check) -> Option<Check> {
        match (self, left_check, right_check) {
            (CheckMethod::None, ..) => Some(Check::None),
            (CheckMethod::Crc64, Check::Crc64(left), Check::Crc64(right_crc)) => {
                Some(Check::Crc64(crc::join(left, right_crc, right.bytes())))
            }
            (
                CheckMethod::Blake3(Some(object)),
                Check::Blake3(left_value),
                Check::Blake3(right_value),
            ) if are_siblings(object, left, right) => Some(Check::Blake3(
                hazmat::merge_subtrees_non_root(&left_value, &right_value, Mode::Hash),
            )),
            _ => None,
        }
    }
}

/// A check that is being computed.
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for the length of one piece; nothing is allocated"
)]
pub(crate) enum RunningCheck {
    None,
    /// CRC of the bytes so far; initially 0.
    Crc64(u64),
    Subtree(blake3::Hasher),
    Whole(blake3::Hasher),
}

impl RunningCheck {
    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            RunningCheck::None => {}
            RunningCheck::Crc64(crc) => {
                *crc = crc::join(*crc, ::crc::crc64_nvme(bytes), bytes.len() as u64);
            }
            RunningCheck::Subtree(hasher) | RunningCheck::Whole(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// Returns the check of all added bytes.
    pub(crate) fn finish(self) -> Check {
        match self {
            RunningCheck::None => Check::None,
            RunningCheck::Crc64(crc) => Check::Crc64(crc),
            RunningCheck::Subtree(hasher) => Check::Blake3(hasher.finalize_non_root()),
            RunningCheck::Whole(hasher) => Check::Blake3(*hasher.finalize().as_bytes()),
        }
    }
}

/// Returns true for two full subtrees of one size below one parent that is not the root.
fn are_siblings(object: Span, left: Span, right: Span) -> bool {
    let bytes = left.bytes();
    bytes == right.bytes()
        && bytes.is_power_of_two()
        && (left.start - object.start).is_multiple_of(2 * bytes)
        && Span::new(left.start, right.end) != object
}

/// Returns true for two runs of a segment's pieces that are neighbours in the tree over all pieces:
/// both have the same power of two pieces, and the left one begins at a multiple of twice that.
fn are_tree_neighbours(grid: BlockGrid, segment: Span, left: Span, right: Span) -> bool {
    let index = |position: u64| grid.index_of(segment, position);
    let (first, middle, last) = (index(left.start), index(right.start), index(right.end - 1));
    let pieces = middle - first;
    pieces == last + 1 - middle && pieces.is_power_of_two() && first.is_multiple_of(2 * pieces)
}

/// Returns the hash of two neighbours in the tree over a segment's pieces.
fn tree_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(b"cep-fast: two runs of pieces ...");
    hasher.update(left).update(right);
    *hasher.finalize().as_bytes()
}

/// Returns one hash over a list of checks, for messages that cannot hold the list.
pub(crate) fn fold(checks: &[CheckValue]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(b"cep-fast: all checks of a segmnt");
    for CheckValue { span, check } in checks {
        hasher
            .update(&span.start.to_le_bytes())
            .update(&span.end.to_le_bytes())
            .update(&check.to_field());
    }
    *hasher.finalize().as_bytes()
}

/// Returns the landed segments for a message: with the lists of their checks if the message can
/// hold all of them, else with a fold for each segment of more than one check.
pub(crate) fn within_limits(segments: Vec<(Span, Vec<CheckValue>)>) -> Vec<LandedSegment> {
    let count: usize = segments.iter().map(|(_, checks)| checks.len()).sum();
    let told = |checks: Vec<CheckValue>| {
        if count > CHECKS_MAX && checks.len() > 1 {
            SegmentChecks::Folded(fold(&checks))
        } else {
            SegmentChecks::Listed(checks)
        }
    };
    segments
        .into_iter()
        .map(|(span, checks)| LandedSegment { span, checks: told(checks) })
        .collect()
}

/// Checks of disjoint spans, joined as their neighbours arrive.
///
/// While the pieces of a segment arrive, each run that cannot be joined with its neighbour takes
/// one entry of about 80 bytes: a few for each gap, and in the worst case half as many as there are
/// pieces.
#[derive(Clone, Debug)]
pub(crate) struct CheckComposer {
    method: CheckMethod,
    /// Segment whose pieces arrive, and the grid that cuts it; `None` for other spans.
    segment: Option<(BlockGrid, Span)>,
    /// Invariant: keyed by start, disjoint; no two neighbours that could be joined.
    checks: BTreeMap<u64, (u64, Check)>,
}

impl CheckComposer {
    /// Creates a composer for checks of any spans.
    pub(crate) fn new(method: CheckMethod) -> CheckComposer {
        CheckComposer { method, segment: None, checks: BTreeMap::new() }
    }

    /// Creates a composer for checks of the pieces that `grid` cuts `segment` into.
    pub(crate) fn of_segment(method: CheckMethod, grid: BlockGrid, segment: Span) -> CheckComposer {
        CheckComposer { segment: Some((grid, segment)), ..CheckComposer::new(method) }
    }

    fn join(
        &self,
        left: Span,
        left_check: Check,
        right: Span,
        right_check: Check,
    ) -> Option<Check> {
        match (self.method, self.segment, left_check, right_check) {
            (
                CheckMethod::Blake3(None),
                Some((grid, segment)),
                Check::Blake3(left_value),
                Check::Blake3(right_value),
            ) if are_tree_neighbours(grid, segment, left, right) => {
                Some(Check::Blake3(tree_hash(&left_value, &right_value)))
            }
            _ => self.method.join(left, left_check, right, right_check),
        }
    }

    /// Adds the check of `span`.
    ///
    /// # Panics
    /// If part of the span was added before.
    pub(crate) fn add(&mut self, mut span: Span, mut check: Check) {
        loop {
            let before = self
                .checks
                .range(..span.end)
                .next_back()
                .map(|(&start, &(end, check))| (start, end, check));
            if let Some((start, end, left)) = before {
                assert!(end <= span.start, "a check of {span} was added before");
                if end == span.start
                    && let Some(joined) = self.join(Span::new(start, end), left, span, check)
                {
                    self.checks.remove(&start);
                    (span, check) = (Span::new(start, span.end), joined);
                    continue;
                }
            }
            if let Some(&(end, right)) = self.checks.get(&span.end)
                && let Some(joined) = self.join(span, check, Span::new(span.end, end), right)
            {
                self.checks.remove(&span.end);
                (span, check) = (Span::new(span.start, end), joined);
                continue;
            }
            self.checks.insert(span.start, (span.end, check));
            return;
        }
    }

    /// Returns the joined checks, ascending.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (Span, Check)> {
        self.checks.iter().map(|(&start, &(end, check))| (Span::new(start, end), check))
    }

    /// Returns the digest of all added spans in its printed form; `None` if the checks do not join
    /// into one.
    pub(crate) fn digest(&self) -> Option<String> {
        let only = (self.checks.len() == 1).then(|| self.checks().next()).flatten();
        match (self.method, only) {
            (CheckMethod::Crc64, Some((_, Check::Crc64(crc)))) => Some(format!("{crc:016x}")),
            (CheckMethod::Blake3(Some(object)), Some((span, Check::Blake3(value))))
                if span == object =>
            {
                Some(hex(&value))
            }
            (CheckMethod::Blake3(Some(object)), _) => self.root(object).map(|value| hex(&value)),
            _ => None,
        }
    }

    /// Returns the root over subtrees that cover the whole object.
    fn root(&self, object: Span) -> Option<[u8; 32]> {
        let (left, right) = self.children(object)?;
        Some(*hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }

    fn subtree(&self, span: Span) -> Option<[u8; 32]> {
        match self.checks.get(&span.start) {
            Some(&(end, Check::Blake3(value))) if end == span.end => Some(value),
            _ => {
                let (left, right) = self.children(span)?;
                Some(hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash))
            }
        }
    }

    fn children(&self, span: Span) -> Option<([u8; 32], [u8; 32])> {
        if span.bytes() <= blake3::CHUNK_LEN as u64 {
            return None;
        }
        let middle = span.start + hazmat::left_subtree_len(span.bytes());
        let left = self.subtree(Span::new(span.start, middle))?;
        Some((left, self.subtree(Span::new(middle, span.end))?))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::block_grid::BlockGrid;
    use crate::core::wire::control::{NodeStats, ToMaster, encode};
    use proptest::prelude::*;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| ((at * 2_654_435_761) >> 7) as u8).collect()
    }

    /// Returns the digest of `data` at `start`, composed from its pieces in the order of `order`.
    fn composed(
        method: CheckMethod,
        data: &[u8],
        start: u64,
        block: u64,
        seed: u64,
    ) -> Option<String> {
        let grid = BlockGrid::new(start, block);
        let whole = Span::of(start, data.len() as u64);
        let mut pieces: Vec<Span> =
            (0..grid.piece_count(whole)).map(|index| grid.piece(whole, index)).collect();
        pieces.sort_by_key(|piece| (piece.start ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut composer = CheckComposer::new(method);
        for piece in pieces {
            let from = (piece.start - start) as usize;
            composer.add(piece, method.of(piece, &data[from..from + piece.bytes() as usize]));
        }
        composer.digest()
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_give_the_digest_of_the_whole(
            count in 1usize..40_000, start in 0u64..9_999, seed: u64,
        ) {
            let data = bytes(count);
            let object = Span::of(start, count as u64);
            let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &data);
            prop_assert_eq!(
                composed(CheckMethod::Crc64, &data, start, 4096, seed), Some(format!("{crc:016x}"))
            );
            let hash = blake3::hash(&data).to_hex().to_string();
            prop_assert_eq!(
                composed(CheckMethod::Blake3(Some(object)), &data, start, 4096, seed), Some(hash)
            );
        }

        #[test]
        fn a_piece_in_parts_has_the_check_of_the_piece(
            blocks in 0u64..3, count in 1usize..9000, cut in 0usize..9000,
        ) {
            let (object, span) =
                (Span::of(7, 100_000), Span::of(7 + 16_384 * blocks, count as u64));
            let (data, cut) = (bytes(count), cut.min(count));
            let blake3 = [Some(object), Some(span), None].map(CheckMethod::Blake3);
            let methods = [CheckMethod::None, CheckMethod::Crc64].into_iter().chain(blake3);
            for method in methods {
                let mut running = method.running(span);
                running.update(&data[..cut]);
                running.update(&data[cut..]);
                prop_assert_eq!(running.finish(), method.of(span, &data));
            }
        }

        #[test]
        fn zeros_need_no_reading(count in 0usize..20_000) {
            let span = Span::of(7, count as u64);
            prop_assert_eq!(
                CheckMethod::Crc64.of_zeros(span), CheckMethod::Crc64.of(span, &vec![0; count])
            );
        }
    }

    #[test]
    fn crc_is_the_published_one() {
        // Check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms.
        assert_eq!(
            CheckMethod::Crc64.of(Span::new(0, 9), b"123456789"),
            Check::Crc64(0xae8b_1486_0a79_9888)
        );
    }

    #[test]
    fn a_gap_has_no_digest() {
        let mut composer = CheckComposer::new(CheckMethod::Crc64);
        composer.add(Span::new(0, 4), Check::Crc64(0));
        composer.add(Span::new(8, 12), Check::Crc64(0));
        assert_eq!(composer.digest(), None);
    }

    /// Returns a value for a piece that need not be read.
    fn value(piece: Span) -> Check {
        Check::Blake3(*blake3::hash(&piece.start.to_le_bytes()).as_bytes())
    }

    /// Returns the checks of `segment` in pieces of a grid, which arrive in the order of `order`.
    fn composed_in(
        order: impl Iterator<Item = u64>,
        grid: BlockGrid,
        segment: Span,
    ) -> (Vec<CheckValue>, usize) {
        let mut composer = CheckComposer::of_segment(CheckMethod::Blake3(None), grid, segment);
        let mut most = 0;
        for index in order {
            let piece = grid.piece(segment, index);
            composer.add(piece, value(piece));
            most = most.max(composer.checks.len());
        }
        let listed = composer.checks().map(|(span, check)| CheckValue { span, check }).collect();
        (listed, most)
    }

    /// Regression: the list of their checks ended a transfer after everything had landed, and from
    /// 350,000 pieces on the whole node.
    #[test]
    fn pieces_off_the_grid_have_a_few_checks_in_whichever_order_they_land() {
        let (grid, segment) = (BlockGrid::new(0, 4096), Span::new(1001, 4096 * 50_003 - 5));
        let pieces = grid.piece_count(segment);
        assert_eq!(pieces, 50_003);
        let (ascending, most) = composed_in(0..pieces, grid, segment);
        assert!(ascending.len() <= 16 && most <= 17, "{} and {most}", ascending.len());
        assert_eq!(ascending.first().map(|it| it.span.start), Some(segment.start));
        assert_eq!(ascending.last().map(|it| it.span.end), Some(segment.end));
        // Sixty-four runs side by side, as flows deliver them.
        let runs = (0..pieces.div_ceil(64))
            .flat_map(|at| (0..64).map(move |run| run * pieces.div_ceil(64) + at));
        let (side_by_side, most) = composed_in(runs.filter(|index| *index < pieces), grid, segment);
        assert_eq!(side_by_side, ascending);
        assert!(most <= 64 * 16, "{most} entries while they land");
        let changed = Span::new(segment.start, segment.end - 1);
        let (other, _) = composed_in(0..pieces, grid, changed);
        assert_ne!(fold(&other), fold(&ascending));
    }

    /// Regression: a few hundred GiB in small blocks, with row boundaries off the grid, from many
    /// flows at once. The lists ended a transfer, then a node, after everything had landed.
    #[test]
    #[ignore = "a minute without optimization; the test of 50,003 pieces is its short form"]
    fn the_checks_of_ten_million_pieces_that_do_not_join_fit_one_message() {
        const PIECES: u64 = 10_000_000;
        const FLOWS: u64 = 64;
        let (grid, segment) = (BlockGrid::new(0, 4096), Span::new(1001, 4096 * (PIECES - 1) + 5));
        assert_eq!(grid.piece_count(segment), PIECES);
        let run = PIECES / FLOWS;
        let order = (0..run).flat_map(|at| (0..FLOWS).map(move |flow| flow * run + at));
        let (checks, most) = composed_in(order, grid, segment);
        assert!(most <= 24 * FLOWS as usize, "{most} values were held at once");
        let segments = within_limits(vec![(segment, checks)]);
        let landed = ToMaster::Landed { segments, stats: NodeStats::default() };
        assert!(encode(&landed).expect("it fits one message").len() < 4096);
    }

    proptest! {
        #[test]
        fn pieces_that_do_not_join_give_every_receiver_the_same_list(
            start in 0u64..5000, pieces in 1u64..300, one: u64, other: u64, changed in 0u64..300,
        ) {
            let grid = BlockGrid::new(0, 100);
            let segment = Span::of(start, 100 * pieces);
            let count = grid.piece_count(segment);
            let order = |seed: u64| {
                let mut order: Vec<u64> = (0..count).collect();
                order.sort_by_key(|index| (index ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                order
            };
            let (listed, _) = composed_in(order(one).into_iter(), grid, segment);
            prop_assert_eq!(&composed_in(order(other).into_iter(), grid, segment).0, &listed);
            prop_assert!(listed.len() <= 9, "{}", listed.len());
            // One piece that differs from the other receiver's changes the list.
            let mut composer = CheckComposer::of_segment(CheckMethod::Blake3(None), grid, segment);
            for index in 0..count {
                let piece = grid.piece(segment, index);
                composer.add(
                    piece,
                    if index == changed % count { Check::Blake3([7; 32]) } else { value(piece) },
                );
            }
            prop_assert!(!composer.checks().eq(listed.iter().map(|it| (it.span, it.check))));
            // A run of the list can be read back as a segment of its own.
            for CheckValue { span, check } in listed {
                let (alone, _) = composed_in(0..grid.piece_count(span), grid, span);
                prop_assert_eq!(alone, vec![CheckValue { span, check }]);
            }
        }
    }

    #[test]
    fn lists_that_no_message_holds_are_folded_and_compared_as_such() {
        let part = |at: u64| CheckValue { span: Span::of(at * 10, 10), check: Check::Crc64(at) };
        let segment = |at: u64| (Span::of(at * 20, 20), vec![part(2 * at), part(2 * at + 1)]);
        let few = within_limits((0..10).map(segment).collect());
        assert!(
            few.iter()
                .all(|it| matches!(&it.checks, SegmentChecks::Listed(checks) if checks.len() == 2))
        );
        let mut many: Vec<(Span, Vec<CheckValue>)> = (0..CHECKS_MAX as u64).map(segment).collect();
        many[0].1.pop();
        let told = within_limits(many);
        assert_eq!(
            told[0].checks,
            SegmentChecks::Listed(vec![part(0)]),
            "one check is shorter than a fold"
        );
        assert_eq!(told[1].checks, SegmentChecks::Folded(fold(&segment(1).1)));
        assert_ne!(fold(&segment(1).1), fold(&segment(2).1));
    }

    /// Regression: a receiver may request any range; BLAKE3 ended the rail with an assertion for
    /// one that is no piece.
    #[test]
    fn what_is_no_subtree_has_no_check_and_all_else_has() {
        let object = Span::new(5, 5 + 10_000);
        let method = CheckMethod::Blake3(Some(object));
        for start in (0..object.end + 10).step_by(257).chain([5, 1029, 2053, 4101]) {
            for bytes in [1, 1024, 1025, 2048, 2049, 4096, 10_000] {
                let span = Span::of(start, bytes);
                if method.takes(span) {
                    method.of(span, &vec![7; bytes as usize]);
                }
            }
        }
        let taken = [(5, 1024), (5, 10_000), (1029, 1024), (2053, 2048), (4101, 4096)];
        assert!(taken.iter().all(|&(start, bytes)| method.takes(Span::of(start, bytes))));
        let refused = [(0, 5), (6, 10), (1029, 1025), (2053, 2049), (5, 10_001), (517, 512)];
        assert!(refused.iter().all(|&(start, bytes)| !method.takes(Span::of(start, bytes))));
        assert!(
            CheckMethod::Crc64.takes(Span::of(3, 7))
                && CheckMethod::Blake3(None).takes(Span::of(3, 7))
        );
    }
}

//! Aligned reads and writes that move an extent.
//!
//! A slot is a page of slack, a block, and a page of slack. An extent's bytes lie in it at the
//! phase that they have in the file: byte `x` of the file is at a slot offset that equals `x`
//! modulo the page. So whatever is aligned in the file is aligned in memory too, and the middle of
//! any extent can bypass the page cache. A read takes in the rest of the first and last page, which
//! lands in the slack; a write must not, because the rest of those pages may be another row's or
//! another node's. Edges are therefore buffered writes of exactly their bytes.

use std::ops::Range;

use crate::core::units::Span;

/// Unit of slots, phases and direct I/O, in bytes; also the slack of a slot at either end.
pub(crate) const PAGE_BYTES: usize = 4096;

/// One read that brings an extent into a slot, rounded to the alignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReadStep {
    /// It goes through the descriptor that was opened with `O_DIRECT`.
    pub(crate) direct: bool,
    /// Start of the read in the file.
    pub(crate) file_offset: u64,
    /// Bytes of the slot to fill. The end may be past the file's end, so the read may be short.
    pub(crate) slot_range: Range<usize>,
    /// Place of the extent's first byte in the slot afterwards.
    pub(crate) payload_at: usize,
    /// Bytes that must arrive for the extent to be whole. Fewer mean that the source shrank.
    pub(crate) needed_bytes: usize,
}

/// One write of a part of an extent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WriteStep {
    /// It goes through the descriptor that was opened with `O_DIRECT`.
    pub(crate) direct: bool,
    /// Start of the write in the file.
    pub(crate) file_offset: u64,
    /// Bytes of the slot to write.
    pub(crate) slot_range: Range<usize>,
}

/// Place in a slot of the first byte of an extent that starts at `offset_bytes` of its file.
pub(crate) fn payload_at(offset_bytes: u64) -> usize {
    PAGE_BYTES + phase(offset_bytes)
}

/// Read of `bytes` bytes at `offset_bytes`; `direct` is the alignment of direct I/O, `None` without
/// it.
pub(crate) fn read_step(offset_bytes: u64, bytes: usize, direct: Option<usize>) -> ReadStep {
    let payload_at = payload_at(offset_bytes);
    let align = alignment(direct);
    let start = payload_at - payload_at % align;
    let lead = payload_at - start;
    ReadStep {
        direct: direct.is_some(),
        file_offset: offset_bytes - lead as u64,
        slot_range: start..(payload_at + bytes).next_multiple_of(align),
        payload_at,
        needed_bytes: lead + bytes,
    }
}

/// Writes of the `bytes` bytes at slot offset `payload_at` to `offset_bytes` of the file: at most a
/// buffered head, a direct middle and a buffered tail, none of them empty.
///
/// # Panics
/// If `direct` is given and the payload does not lie at the file's phase: nothing would be aligned.
pub(crate) fn write_steps(
    offset_bytes: u64,
    bytes: usize,
    direct: Option<usize>,
    payload_at: usize,
) -> impl Iterator<Item = WriteStep> {
    let align = alignment(direct);
    assert_eq!(
        payload_at % align,
        phase(offset_bytes) % align,
        "a payload lies in the slot at its file's phase"
    );
    let end = payload_at + bytes;
    let middle_start = payload_at.next_multiple_of(align).min(end);
    let middle_end = (end - end % align).max(middle_start);
    let step = move |direct: bool, slot_range: Range<usize>| WriteStep {
        direct,
        file_offset: offset_bytes + (slot_range.start - payload_at) as u64,
        slot_range,
    };
    [
        step(false, payload_at..middle_start),
        step(direct.is_some(), middle_start..middle_end),
        step(false, middle_end..end),
    ]
    .into_iter()
    .filter(|step| !step.slot_range.is_empty())
}

/// Writes of `piece`, a span of the data space, without its parts in `holes`.
///
/// `holes` is sorted and disjoint, in the data space too. A fresh file reads as zeros where nothing
/// is written, so the holes stay holes; elsewhere [`crate::io::store::Sink::zero`] has cleared
/// them.
pub(crate) fn write_steps_around<'a>(
    piece: Span,
    holes: &'a [Span],
    offset_bytes: u64,
    direct: Option<usize>,
    payload_at: usize,
) -> impl Iterator<Item = WriteStep> + use<'a> {
    parts(piece, holes).flat_map(move |part| {
        let skipped = part.start - piece.start;
        let bytes = usize::try_from(part.bytes()).expect("a piece fits a slot");
        write_steps(offset_bytes + skipped, bytes, direct, payload_at + skipped as usize)
    })
}

/// Parts of `whole` outside `holes`, one by one: as [`crate::core::units::subtract`], without
/// allocating.
pub(crate) fn parts<'a>(whole: Span, holes: &'a [Span]) -> impl Iterator<Item = Span> + use<'a> {
    let first = holes.partition_point(|hole| hole.end <= whole.start);
    let mut start = whole.start;
    let closing = Span::new(whole.end, whole.end);
    let inside = holes[first..].iter().copied().take_while(move |hole| hole.start < whole.end);
    inside.chain(std::iter::once(closing)).filter_map(move |hole| {
        let part = (start < hole.start).then(|| Span::new(start, hole.start));
        start = start.max(hole.end);
        part
    })
}

/// Without direct I/O every byte is aligned.
fn alignment(direct: Option<usize>) -> usize {
    let align = direct.unwrap_or(1);
    assert!(
        align.is_power_of_two() && align <= PAGE_BYTES,
        "a slot's slack is one page, so alignment is at most that"
    );
    align
}

fn phase(offset_bytes: u64) -> usize {
    (offset_bytes % PAGE_BYTES as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::units::{subtract, union};

    const BLOCK_BYTES: usize = 1 << 20;
    const SLOT_BYTES: usize = PAGE_BYTES + BLOCK_BYTES + PAGE_BYTES;

    fn directs() -> impl Strategy<Value = Option<usize>> {
        prop_oneof![Just(None), Just(Some(512)), Just(Some(4096))]
    }

    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![1usize..3 * PAGE_BYTES, 1usize..=BLOCK_BYTES, Just(BLOCK_BYTES)]
    }

    /// Asserts the properties of every write.
    fn assert_sound(step: &WriteStep, direct: Option<usize>) {
        assert!(step.slot_range.end <= SLOT_BYTES && !step.slot_range.is_empty());
        if step.direct {
            let align = direct.expect("direct steps only where direct I/O is possible");
            assert_eq!(step.file_offset % align as u64, 0);
            assert_eq!(step.slot_range.start % align, 0);
            assert_eq!(step.slot_range.len() % align, 0);
        }
    }

    #[test]
    fn an_aligned_block_is_one_direct_write() {
        let steps: Vec<WriteStep> =
            write_steps(8192, BLOCK_BYTES, Some(4096), payload_at(8192)).collect();
        assert_eq!(
            steps,
            [WriteStep { direct: true, file_offset: 8192, slot_range: 4096..4096 + BLOCK_BYTES }]
        );
    }

    #[test]
    fn an_odd_extent_has_a_head_a_middle_and_a_tail() {
        let steps: Vec<WriteStep> = write_steps(4000, 4500, Some(4096), payload_at(4000)).collect();
        assert_eq!(
            steps,
            [
                WriteStep { direct: false, file_offset: 4000, slot_range: 8096..8192 },
                WriteStep { direct: true, file_offset: 4096, slot_range: 8192..12288 },
                WriteStep { direct: false, file_offset: 8192, slot_range: 12288..12596 },
            ]
        );
    }

    #[test]
    fn bytes_inside_one_page_are_one_buffered_write() {
        let steps: Vec<WriteStep> = write_steps(1, 1023, Some(4096), payload_at(1)).collect();
        assert_eq!(steps, [WriteStep { direct: false, file_offset: 1, slot_range: 4097..5120 }]);
    }

    proptest! {
        #[test]
        fn writes_partition_the_bytes(
            offset in 0u64..1 << 50, bytes in lengths(), direct in directs(),
        ) {
            let mut file_next = offset;
            let mut slot_next = payload_at(offset);
            for step in write_steps(offset, bytes, direct, slot_next) {
                assert_sound(&step, direct);
                prop_assert_eq!(step.file_offset, file_next);
                prop_assert_eq!(step.slot_range.start, slot_next);
                file_next += step.slot_range.len() as u64;
                slot_next = step.slot_range.end;
            }
            prop_assert_eq!(file_next, offset + bytes as u64);
        }

        #[test]
        fn no_page_is_left_to_buffers_without_need(offset in 0u64..1 << 50, bytes in lengths()) {
            let buffered: usize = write_steps(offset, bytes, Some(4096), payload_at(offset))
                .filter(|step| !step.direct)
                .map(|step| step.slot_range.len())
                .sum();
            prop_assert!(buffered < 2 * PAGE_BYTES);
        }

        #[test]
        fn a_read_covers_its_extent(
            offset in 0u64..1 << 50, bytes in lengths(), direct in directs(),
        ) {
            let step = read_step(offset, bytes, direct);
            let align = direct.unwrap_or(1);
            prop_assert!(step.slot_range.end <= SLOT_BYTES);
            prop_assert!(step.slot_range.start >= PAGE_BYTES);
            prop_assert_eq!(step.file_offset % align as u64, 0);
            prop_assert_eq!(step.slot_range.start % align, 0);
            prop_assert_eq!(step.slot_range.len() % align, 0);
            prop_assert_eq!(
                step.file_offset + (step.payload_at - step.slot_range.start) as u64, offset
            );
            prop_assert_eq!(step.slot_range.start + step.needed_bytes, step.payload_at + bytes);
            prop_assert!(step.needed_bytes <= step.slot_range.len());
            prop_assert!(step.slot_range.len() < bytes + 2 * align);
        }

        #[test]
        fn holes_are_never_written(
            start in 0u64..100_000, bytes in 1usize..60_000, offset in 0u64..100_000,
            direct in directs(),
            cuts in prop::collection::vec((0u64..160_000, 0u64..20_000), 0..6),
        ) {
            let piece = Span::of(start, bytes as u64);
            let holes = union(cuts.into_iter().map(|(at, bytes)| Span::of(at, bytes)).collect());
            let mut written = Vec::new();
            for step in write_steps_around(piece, &holes, offset, direct, payload_at(offset)) {
                assert_sound(&step, direct);
                prop_assert_eq!(
                    step.slot_range.start as u64 + offset,
                    payload_at(offset) as u64 + step.file_offset,
                );
                written.push(
                    Span::of(step.file_offset - offset + start, step.slot_range.len() as u64)
                );
            }
            let total: u64 = written.iter().map(|span| span.bytes()).sum();
            let expected = subtract(piece, &holes);
            prop_assert_eq!(total, expected.iter().map(|span| span.bytes()).sum::<u64>());
            prop_assert_eq!(union(written), expected);
        }

        #[test]
        fn parts_are_what_subtraction_leaves(
            start in 0u64..100, bytes in 0u64..100,
            cuts in prop::collection::vec((0u64..200, 0u64..30), 0..8),
        ) {
            let whole = Span::of(start, bytes);
            let holes = union(cuts.into_iter().map(|(at, bytes)| Span::of(at, bytes)).collect());
            prop_assert_eq!(parts(whole, &holes).collect::<Vec<_>>(), subtract(whole, &holes));
        }
    }
}

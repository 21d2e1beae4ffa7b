//! `pattern:SEED`: bytes that depend on the seed and the position in the data space alone.
//!
//! Every page of the data space starts with its own position and with a word made from the seed;
//! the rest is filler, the same for every page and seed. So making the bytes of a slot that already
//! holds filler costs sixteen bytes a page, and a page that ends up at a wrong place, or comes from
//! another seed, is seen.

use std::io;

use random::mix;

use crate::core::store::io_steps::PAGE_BYTES;
use crate::core::units::Span;

/// Writes the pattern from position `start` of the data space on into `bytes`.
pub(crate) fn fill(seed: u64, start: u64, bytes: &mut [u8]) {
    for (position, chunk) in page_chunks(start, bytes) {
        let at = in_page(position);
        chunk.copy_from_slice(&FILLER[at..at + chunk.len()]);
    }
    stamp(seed, start, bytes);
}

/// Rewrites only the bytes that differ from page to page, where filler of the same phase is there
/// already.
///
/// After [`fill`] of a slot at some position, `stamp` at any position with the same remainder
/// modulo the page gives what `fill` would.
pub(crate) fn stamp(seed: u64, start: u64, bytes: &mut [u8]) {
    for (position, chunk) in page_chunks(start, bytes) {
        let at = in_page(position);
        if at < STAMP_BYTES {
            let stamp = page_stamp(seed, position);
            let count = chunk.len().min(STAMP_BYTES - at);
            chunk[..count].copy_from_slice(&stamp[at..at + count]);
        }
    }
}

/// Position of the first byte that is not the pattern's; `None` where all are.
#[cfg(test)]
pub(crate) fn verify(seed: u64, start: u64, bytes: &[u8]) -> Option<u64> {
    let mut page = FILLER;
    let mut position = start;
    let mut rest = bytes;
    while !rest.is_empty() {
        page[..STAMP_BYTES].copy_from_slice(&page_stamp(seed, position));
        let at = in_page(position);
        let count = rest.len().min(PAGE_BYTES - at);
        let (chunk, expected) = (&rest[..count], &page[at..at + count]);
        if chunk != expected {
            let wrong = chunk.iter().zip(expected).position(|(found, wanted)| found != wanted);
            return wrong.map(|index| position + index as u64);
        }
        position += count as u64;
        rest = &rest[count..];
    }
    None
}

/// The pattern over a span of the data space as a stream, for reference files of tests and
/// benchmarks.
///
/// ```
/// use std::io::Read; use cep_fast::PatternReader; let mut bytes = Vec::new();
/// PatternReader::new(7, 4096, 8).read_to_end(&mut bytes).unwrap(); assert_eq!(bytes,
/// 4096u64.to_le_bytes());
/// ```
#[derive(Clone, Debug)]
pub struct PatternReader {
    seed: u64,
    left: Span,
}

impl PatternReader {
    /// A stream of the `bytes` bytes of `pattern:SEED` from position `start` of the data space on.
    ///
    /// # Panics
    /// If the end does not fit 64 bits.
    #[must_use]
    pub fn new(seed: u64, start: u64, bytes: u64) -> PatternReader {
        PatternReader { seed, left: Span::of(start, bytes) }
    }
}

impl io::Read for PatternReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.left.bytes().min(buffer.len() as u64);
        fill(self.seed, self.left.start, &mut buffer[..count as usize]);
        self.left.start += count;
        Ok(count as usize)
    }
}

/// Splits `bytes`, which start at position `start`, at the page boundaries of the data space.
fn page_chunks(start: u64, bytes: &mut [u8]) -> impl Iterator<Item = (u64, &mut [u8])> {
    let first = bytes.len().min(PAGE_BYTES - in_page(start));
    let (head, rest) = bytes.split_at_mut(first);
    let mut position = start;
    std::iter::once(head).chain(rest.chunks_mut(PAGE_BYTES)).map(move |chunk| {
        let at = position;
        position = position.wrapping_add(chunk.len() as u64);
        (at, chunk)
    })
}

/// The first bytes of the page that `position` is in.
fn page_stamp(seed: u64, position: u64) -> [u8; STAMP_BYTES] {
    let mut stamp = [0; STAMP_BYTES];
    let page_start = position - in_page(position) as u64;
    stamp[..8].copy_from_slice(&page_start.to_le_bytes());
    stamp[8..].copy_from_slice(&mix(seed).to_le_bytes());
    stamp
}

fn in_page(position: u64) -> usize {
    (position % PAGE_BYTES as u64) as usize
}

/// A page whose bytes do not compress: a link that compresses would flatter the measurement.
const fn filler() -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    let mut index = 0;
    while index < PAGE_BYTES {
        let word = mix((index as u64 / 8) ^ 0xce9_fa57).to_le_bytes();
        page[index] = word[index % 8];
        index += 1;
    }
    page
}

static FILLER: [u8; PAGE_BYTES] = filler();

/// Position and seed word.
const STAMP_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_starts_with_its_position_and_its_seed() {
        let mut bytes = vec![0; 2 * PAGE_BYTES];
        fill(5, 0, &mut bytes);
        assert_eq!(bytes[PAGE_BYTES..PAGE_BYTES + 8], (PAGE_BYTES as u64).to_le_bytes());
        assert_eq!(bytes[8..16], bytes[PAGE_BYTES + 8..PAGE_BYTES + 16]);
        assert_eq!(bytes[16..PAGE_BYTES], bytes[PAGE_BYTES + 16..]);
        let mut other = vec![0; 2 * PAGE_BYTES];
        fill(6, 0, &mut other);
        assert_ne!(bytes[8..16], other[8..16]);
    }

    #[test]
    fn a_misplaced_page_and_a_foreign_seed_are_seen() {
        let mut bytes = vec![0; 3 * PAGE_BYTES];
        fill(5, 0, &mut bytes);
        assert_eq!(verify(5, PAGE_BYTES as u64, &bytes[PAGE_BYTES..]), None);
        let moved = verify(5, 2 * PAGE_BYTES as u64, &bytes[PAGE_BYTES..2 * PAGE_BYTES]);
        assert!(moved.is_some_and(|at| (8192..8200).contains(&at)));
        assert!(verify(6, 0, &bytes).is_some_and(|at| (8..16).contains(&at)));
    }

    #[test]
    fn the_last_page_of_the_data_space_has_a_pattern_too() {
        let mut bytes = [0; 10];
        fill(1, u64::MAX - 10, &mut bytes);
        assert_eq!(verify(1, u64::MAX - 10, &bytes), None);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_bytes(
            seed: u64, start in 0u64..1 << 40, bytes in 0usize..20_000, cut in 0usize..20_000,
        ) {
            let mut whole = vec![0; bytes];
            fill(seed, start, &mut whole);
            let cut = cut.min(bytes);
            let mut halves = vec![0; bytes];
            fill(seed, start + cut as u64, &mut halves[cut..]);
            fill(seed, start, &mut halves[..cut]);
            prop_assert_eq!(&whole, &halves);
            prop_assert_eq!(verify(seed, start, &whole), None);
            let mut streamed = Vec::new();
            PatternReader::new(seed, start, bytes as u64).read_to_end(&mut streamed).unwrap();
            prop_assert_eq!(whole, streamed);
        }

        #[test]
        fn stamping_over_filler_equals_filling(
            seeds: [u64; 2], phase in 0u64..4096, pages in [0u64..1 << 30, 0u64..1 << 30],
            bytes in 0usize..20_000,
        ) {
            let mut stamped = vec![0; bytes];
            fill(seeds[0], pages[0] * 4096 + phase, &mut stamped);
            stamp(seeds[1], pages[1] * 4096 + phase, &mut stamped);
            let mut filled = vec![0; bytes];
            fill(seeds[1], pages[1] * 4096 + phase, &mut filled);
            prop_assert_eq!(stamped, filled);
        }

        #[test]
        fn the_first_changed_byte_is_found(
            start in 0u64..1 << 40, bytes in 1usize..20_000, at in 0usize..20_000,
        ) {
            let at = at % bytes;
            let mut changed = vec![0; bytes];
            fill(9, start, &mut changed);
            changed[at] ^= 1;
            prop_assert_eq!(verify(9, start, &changed), Some(start + at as u64));
        }
    }
}

//! Comparison of replicas before bytes move: selected places of a range, and the check values of
//! their bytes.
//!
//! Every sender of a range reads the same places of it, because they are computed from the range
//! and the attempt's random bytes. A sender answers with a few values for each range; the master
//! compares them.

use crate::core::units::{KIB, Span};
use crate::core::wire::control::ReplicaRange;

/// Bytes read at once, and size of a place of a sample.
pub(crate) const PLACE_BYTES: u64 = 64 * KIB;

/// Value of a part that could not be read. No check value is equal to it.
pub(crate) const UNREAD: u64 = 0;

/// Random bytes of one attempt: places and values of two attempts are unrelated.
pub(crate) type ReplicaSeed = [u8; 16];

impl ReplicaRange {
    /// Returns true if every byte of the range is compared.
    pub(crate) fn is_whole(&self) -> bool {
        self.places == 0 || u64::from(self.places) * PLACE_BYTES >= self.span.bytes()
    }

    /// Returns the number of compared bytes of the range.
    #[cfg(test)]
    pub(crate) fn compared_bytes(&self) -> u64 {
        if self.is_whole() { self.span.bytes() } else { u64::from(self.places) * PLACE_BYTES }
    }

    /// Returns the number of values in a sender's answer.
    pub(crate) fn value_count(&self) -> usize {
        let count = self.place_count().min(self.values_max.max(1).into());
        usize::try_from(count).expect("no more than 32 bits hold")
    }

    /// Returns the places whose bytes make one of the values: ascending and disjoint.
    pub(crate) fn places_of(
        &self,
        value: usize,
        seed: &ReplicaSeed,
    ) -> impl Iterator<Item = Span> + use<> {
        let (range, seed) = (*self, *seed);
        let (places, values) = (range.place_count(), range.value_count() as u64);
        let cut = |value: u64| (u128::from(places) * u128::from(value) / u128::from(values)) as u64;
        (cut(value as u64)..cut(value as u64 + 1)).map(move |place| range.place(place, &seed))
    }

    /// Returns the range that a value covers, from its first place to its last.
    pub(crate) fn extent_of(&self, value: usize, seed: &ReplicaSeed) -> Span {
        let (mut extent, mut places) = (self.span, self.places_of(value, seed));
        if let Some(first) = places.next() {
            extent = Span::new(first.start, places.last().unwrap_or(first).end);
        }
        extent
    }

    /// Returns the number of bytes that make one of the values.
    pub(crate) fn bytes_of(&self, value: usize, seed: &ReplicaSeed) -> u64 {
        self.places_of(value, seed).map(Span::bytes).sum()
    }

    fn place_count(&self) -> u64 {
        if self.is_whole() { self.span.bytes().div_ceil(PLACE_BYTES) } else { self.places.into() }
    }

    /// Returns one place. The places of a whole range are adjacent. Those of a sample are the first
    /// and the last bytes, and one random place in each of as many equal parts of the remainder as
    /// there are places left.
    fn place(&self, place: u64, seed: &ReplicaSeed) -> Span {
        let Span { start, end } = self.span;
        if self.is_whole() {
            let at = start + place * PLACE_BYTES;
            return Span::new(at, end.min(at.saturating_add(PLACE_BYTES)));
        }
        let last = u64::from(self.places) - 1;
        if place == 0 {
            return Span::of(start, PLACE_BYTES);
        } else if place == last {
            return Span::of(end - PLACE_BYTES, PLACE_BYTES);
        }
        let middle = u128::from(self.span.bytes() - 2 * PLACE_BYTES);
        let cut = |at: u64| (middle * u128::from(at) / u128::from(last - 1)) as u64;
        let (from, to) = (cut(place - 1), cut(place));
        let free = (to - from).saturating_sub(PLACE_BYTES);
        let chance = self.chance(place, seed) % (free + 1);
        Span::of(start + PLACE_BYTES + from + chance, PLACE_BYTES)
    }

    fn chance(&self, place: u64, seed: &ReplicaSeed) -> u64 {
        let mut hasher = blake3::Hasher::new_derive_key("cep-fast 1 place of a replica");
        hasher.update(seed);
        [self.span.start, self.span.end, place]
            .iter()
            .for_each(|number| _ = hasher.update(&number.to_le_bytes()));
        first_word(&hasher)
    }
}

/// Returns the number of values in a sender's answer for several ranges.
pub(crate) fn value_count(ranges: &[ReplicaRange]) -> usize {
    ranges.iter().map(ReplicaRange::value_count).sum()
}

/// Check value of a sequence of bytes, of which parts may be known zeros.
///
/// A hole and written zeros have the same value, and a hole is not read.
pub(crate) struct ReplicaHasher {
    hasher: blake3::Hasher,
    /// Zeros that are not in `hasher` yet.
    zero_bytes: u64,
}

impl ReplicaHasher {
    pub(crate) fn new(seed: &ReplicaSeed) -> ReplicaHasher {
        let mut hasher = blake3::Hasher::new_derive_key("cep-fast 1 bytes of a replica");
        hasher.update(seed);
        ReplicaHasher { hasher, zero_bytes: 0 }
    }

    /// Adds the bytes of one place.
    pub(crate) fn place(&mut self, bytes: &[u8]) {
        if bytes.iter().all(|byte| *byte == 0) {
            return self.zeros(bytes.len() as u64);
        }
        self.end_zeros();
        self.hasher.update(&[1]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }

    /// Adds a place whose bytes are zeros.
    pub(crate) fn zeros(&mut self, bytes: u64) {
        self.zero_bytes += bytes;
    }

    /// Returns the value; never [`UNREAD`].
    pub(crate) fn finish(mut self) -> u64 {
        self.end_zeros();
        first_word(&self.hasher).max(UNREAD + 1)
    }

    fn end_zeros(&mut self) {
        let bytes = std::mem::take(&mut self.zero_bytes);
        if bytes > 0 {
            self.hasher.update(&[0]).update(&bytes.to_le_bytes());
        }
    }
}

fn first_word(hasher: &blake3::Hasher) -> u64 {
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::units::union;

    fn range(start: u64, bytes: u64, places: u32, values_max: u32) -> ReplicaRange {
        ReplicaRange { span: Span::of(start, bytes), places, values_max }
    }

    fn places(range: ReplicaRange, seed: &ReplicaSeed) -> Vec<Span> {
        (0..range.value_count()).flat_map(|value| range.places_of(value, seed)).collect()
    }

    proptest! {
        #[test]
        fn places_are_apart_and_hold_the_first_and_the_last_bytes(
            start in 0..1u64 << 50, bytes in 1..1u64 << 44, count in 2..300u32,
            values_max in 0..200u32, seed: ReplicaSeed,
        ) {
            let range = range(start, bytes, count, values_max);
            prop_assume!(!range.is_whole());
            let places = places(range, &seed);
            prop_assert_eq!(places.len(), count as usize);
            prop_assert!(places.is_sorted_by(|one, next| one.end <= next.start), "{:?}", places);
            prop_assert_eq!(
                (places[0].start, places[places.len() - 1].end), (start, start + bytes)
            );
            prop_assert!(places.iter().all(|place| place.bytes() == PLACE_BYTES));
            prop_assert_eq!(
                places.iter().map(|place| place.bytes()).sum::<u64>(), range.compared_bytes()
            );
        }

        #[test]
        fn a_whole_range_is_read_without_a_gap(
            start in 0..1u64 << 50, bytes in 1..1u64 << 26, values_max in 0..200u32,
            seed: ReplicaSeed,
        ) {
            let range = range(start, bytes, 0, values_max);
            prop_assert_eq!(union(places(range, &seed)), vec![range.span]);
            let extents = (0..range.value_count()).map(|value| range.extent_of(value, &seed));
            let largest = extents.map(Span::bytes).max().unwrap_or(0);
            let most =
                (bytes / u64::from(values_max.max(1))).next_multiple_of(PLACE_BYTES) + PLACE_BYTES;
            prop_assert!(largest <= most, "{} of {}", largest, bytes);
        }

        #[test]
        fn places_of_any_contiguous_half_are_read(
            bytes in 1u64 << 21..1u64 << 40, from in 0..1u64 << 39, seed: ReplicaSeed,
        ) {
            let from = from % (bytes / 2);
            let half = Span::of(from, bytes / 2);
            let places = places(range(0, bytes, 16, 64), &seed);
            let is_met = places.iter().any(|it| it.intersection(half).is_some());
            prop_assert!(is_met);
        }
    }

    #[test]
    fn the_last_bytes_of_the_data_space_can_be_compared() {
        for count in [0, 2, 16] {
            let places = places(range(u64::MAX - (2 << 20), 2 << 20, count, 64), &[7; 16]);
            assert_eq!(places.last().map(|place| place.end), Some(u64::MAX));
        }
    }

    #[test]
    fn a_part_of_a_whole_range_is_no_more_than_a_sixty_fourth() {
        for bytes in [4 << 20, (4 << 20) + 1, 129 * PLACE_BYTES, 1_000_000_007, 1 << 40] {
            let range = range(0, bytes, 0, 128);
            let count = range.value_count();
            let largest = (0..count).map(|value| range.extent_of(value, &[1; 16]).bytes()).max();
            assert!(largest.is_some_and(|largest| largest <= bytes / 64), "{largest:?} of {bytes}");
        }
    }

    #[test]
    fn two_attempts_read_other_places() {
        let range = range(0, 1 << 30, 16, 64);
        assert_ne!(places(range, &[1; 16]), places(range, &[2; 16]));
    }

    #[test]
    fn a_hole_is_equal_to_zeros_and_to_nothing_else() {
        let value = |feed: &dyn Fn(&mut ReplicaHasher)| {
            let mut hasher = ReplicaHasher::new(&[3; 16]);
            feed(&mut hasher);
            hasher.finish()
        };
        let zeros = value(&|hasher| hasher.place(&[0; 4096]));
        assert_eq!(zeros, value(&|hasher| hasher.zeros(4096)));
        assert_ne!(zeros, value(&|hasher| hasher.zeros(4095)));
        let mut one = [0; 4096];
        one[4095] = 1;
        assert_ne!(zeros, value(&|hasher| hasher.place(&one)));
        let (before, behind) = (
            value(&|hasher| {
                hasher.zeros(4096);
                hasher.place(&one);
            }),
            value(&|hasher| {
                hasher.place(&one);
                hasher.zeros(4096);
            }),
        );
        assert_ne!(before, behind);
    }
}

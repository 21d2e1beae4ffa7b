//! Check values that compose: computed a piece at a time, joined into the check of a whole range with no second read.
//!
//! CRC-64/NVME composes over any two neighbours (it is what S3 calls CRC64NVME). BLAKE3 composes over subtrees
//! (BLAKE3 paper, section 5.5): a piece on the grid of a gapless object has a chaining value, and the values merge into
//! what `b3sum` prints of the whole.

use std::collections::BTreeMap;

use blake3::hazmat::{self, HasherExt, Mode};
use crc_fast::CrcAlgorithm::Crc64Nvme;

use crate::units::Span;

/// Room for the largest value, a BLAKE3 chaining value; a CRC fills the first eight bytes, little endian.
pub(crate) type Value = [u8; 32];

/// What is computed over every piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    None,
    Crc64,
    /// With the object that the pieces are subtrees of; without one every piece is hashed by itself.
    Blake3(Option<Span>),
}

impl Check {
    /// The value of `bytes`, which lie at `span` of the data space.
    pub(crate) fn of(self, span: Span, bytes: &[u8]) -> Value {
        debug_assert_eq!(span.bytes(), bytes.len() as u64);
        match self {
            Check::None => Value::default(),
            Check::Crc64 => crc_value(crc_fast::checksum(Crc64Nvme, bytes)),
            Check::Blake3(Some(object)) if object != span => {
                blake3::Hasher::new().set_input_offset(span.start - object.start).update(bytes).finalize_non_root()
            }
            Check::Blake3(_) => *blake3::hash(bytes).as_bytes(),
        }
    }

    /// The value of a hole of `span.bytes()` zeros.
    pub(crate) fn of_zeros(self, span: Span) -> Value {
        match self {
            Check::None => Value::default(),
            Check::Crc64 => crc_value(crc_of_zeros(span.bytes())),
            Check::Blake3(_) => {
                // Pieces are a block at most, so the zeros fit a small buffer.
                let zeros = vec![0; usize::try_from(span.bytes()).expect("a piece fits memory")];
                self.of(span, &zeros)
            }
        }
    }

    /// Whether values over neighbouring spans join into one.
    fn join(self, left: Span, left_value: &Value, right: Span, right_value: &Value) -> Option<Value> {
        match self {
            Check::None => Some(Value::default()),
            Check::Crc64 => {
                let (left, right_crc) = (crc_of(left_value), crc_of(right_value));
                Some(crc_value(crc_fast::checksum_combine(Crc64Nvme, left, right_crc, right.bytes())))
            }
            Check::Blake3(Some(object)) if are_siblings(object, left, right) => {
                Some(hazmat::merge_subtrees_non_root(left_value, right_value, Mode::Hash))
            }
            Check::Blake3(_) => None,
        }
    }
}

/// Two full subtrees of one size under one parent that is not the root.
fn are_siblings(object: Span, left: Span, right: Span) -> bool {
    let bytes = left.bytes();
    bytes == right.bytes()
        && bytes.is_power_of_two()
        && (left.start - object.start).is_multiple_of(2 * bytes)
        && Span::new(left.start, right.end) != object
}

/// The CRC in a value.
pub(crate) fn crc_of(value: &Value) -> u64 {
    u64::from_le_bytes(*value.first_chunk().expect("a value has eight bytes"))
}

fn crc_value(crc: u64) -> Value {
    let mut value = Value::default();
    value[..8].copy_from_slice(&crc.to_le_bytes());
    value
}

/// The CRC of `bytes` zeros, by doubling.
fn crc_of_zeros(bytes: u64) -> u64 {
    let empty = crc_fast::checksum(Crc64Nvme, &[]);
    let (mut crc, mut power, mut power_bytes, mut left) = (empty, crc_fast::checksum(Crc64Nvme, &[0]), 1, bytes);
    while left > 0 {
        if left & 1 == 1 {
            crc = crc_fast::checksum_combine(Crc64Nvme, crc, power, power_bytes);
        }
        left >>= 1;
        if left > 0 {
            power = crc_fast::checksum_combine(Crc64Nvme, power, power, power_bytes);
            power_bytes *= 2;
        }
    }
    crc
}

/// Values of disjoint spans, joined as their neighbours come in.
#[derive(Clone, Debug)]
pub(crate) struct Composer {
    check: Check,
    /// Invariant: keyed by start, disjoint; no two neighbours that could be joined.
    values: BTreeMap<u64, (u64, Value)>,
}

impl Composer {
    pub(crate) fn new(check: Check) -> Composer {
        Composer { check, values: BTreeMap::new() }
    }

    /// Adds the value of `span`.
    ///
    /// # Panics
    /// If part of the span was added before.
    pub(crate) fn add(&mut self, mut span: Span, mut value: Value) {
        loop {
            let before = self.values.range(..span.end).next_back().map(|(&start, &(end, value))| (start, end, value));
            if let Some((start, end, left)) = before {
                assert!(end <= span.start, "a value for {span} was added before");
                if end == span.start
                    && let Some(joined) = self.check.join(Span::new(start, end), &left, span, &value)
                {
                    self.values.remove(&start);
                    (span, value) = (Span::new(start, span.end), joined);
                    continue;
                }
            }
            if let Some(&(end, right)) = self.values.get(&span.end)
                && let Some(joined) = self.check.join(span, &value, Span::new(span.end, end), &right)
            {
                self.values.remove(&span.end);
                (span, value) = (Span::new(span.start, end), joined);
                continue;
            }
            self.values.insert(span.start, (span.end, value));
            return;
        }
    }

    /// The joined values, ascending.
    pub(crate) fn values(&self) -> impl Iterator<Item = (Span, Value)> {
        self.values.iter().map(|(&start, &(end, value))| (Span::new(start, end), value))
    }

    /// The digest of everything added, as people print it; `None` where the values do not join into one.
    pub(crate) fn digest(&self) -> Option<String> {
        let only = (self.values.len() == 1).then(|| self.values().next()).flatten();
        match (self.check, only) {
            (Check::Crc64, Some((_, value))) => Some(format!("{:016x}", crc_of(&value))),
            (Check::Blake3(Some(object)), Some((span, value))) if span == object => Some(hex(&value)),
            (Check::Blake3(Some(object)), _) => self.root(object).map(|value| hex(&value)),
            _ => None,
        }
    }

    /// The root over subtrees that cover the whole object.
    fn root(&self, object: Span) -> Option<Value> {
        let (left, right) = self.children(object, object)?;
        Some(*hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }

    fn subtree(&self, object: Span, span: Span) -> Option<Value> {
        match self.values.get(&span.start) {
            Some(&(end, value)) if end == span.end => Some(value),
            _ => {
                let (left, right) = self.children(object, span)?;
                Some(hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash))
            }
        }
    }

    fn children(&self, object: Span, span: Span) -> Option<(Value, Value)> {
        if span.bytes() <= blake3::CHUNK_LEN as u64 {
            return None;
        }
        let middle = span.start + hazmat::left_subtree_len(span.bytes());
        let left = self.subtree(object, Span::new(span.start, middle))?;
        Some((left, self.subtree(object, Span::new(middle, span.end))?))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Grid;
    use proptest::prelude::*;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 2_654_435_761 >> 7) as u8).collect()
    }

    /// The digest of `data` at `start`, composed from its pieces in the order that `order` gives.
    fn composed(check: Check, data: &[u8], start: u64, block: u64, seed: u64) -> Option<String> {
        let grid = Grid::new(start, block);
        let whole = Span::of(start, data.len() as u64);
        let mut pieces: Vec<Span> = (0..grid.piece_count(whole)).map(|index| grid.piece(whole, index)).collect();
        pieces.sort_by_key(|piece| (piece.start ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut composer = Composer::new(check);
        for piece in pieces {
            let from = (piece.start - start) as usize;
            composer.add(piece, check.of(piece, &data[from..from + piece.bytes() as usize]));
        }
        composer.digest()
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_give_the_digest_of_the_whole(count in 1usize..40_000, start in 0u64..9_999, seed: u64) {
            let data = bytes(count);
            let object = Span::of(start, count as u64);
            let crc = crc_fast::checksum(Crc64Nvme, &data);
            prop_assert_eq!(composed(Check::Crc64, &data, start, 4096, seed), Some(format!("{crc:016x}")));
            let hash = blake3::hash(&data).to_hex().to_string();
            prop_assert_eq!(composed(Check::Blake3(Some(object)), &data, start, 4096, seed), Some(hash));
        }

        #[test]
        fn zeros_need_no_reading(count in 0usize..20_000) {
            let span = Span::of(7, count as u64);
            prop_assert_eq!(Check::Crc64.of_zeros(span), Check::Crc64.of(span, &vec![0; count]));
        }
    }

    #[test]
    fn crc_is_the_published_one() {
        // The check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc_of(&Check::Crc64.of(Span::new(0, 9), b"123456789")), 0xae8b_1486_0a79_9888);
    }

    #[test]
    fn a_gap_has_no_digest() {
        let mut composer = Composer::new(Check::Crc64);
        composer.add(Span::new(0, 4), Value::default());
        composer.add(Span::new(8, 12), Value::default());
        assert_eq!(composer.digest(), None);
    }
}

//! Folding by 256 bits, for processors with `VPCLMULQDQ` and without AVX-512.
//!
//! A message is a polynomial over two elements, and its CRC is the remainder by another one.
//! Multiplying a block by `x^d mod P` moves it forward by `d` bits without changing the remainder.
//! So eight lanes of 256 bits run through the message; each adds to itself the block that lies
//! 2,048 bits further on, until 256 bytes are left with the same remainder as the whole. (Gopal et
//! al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", Intel, 2009.)

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{
    __m256i, _mm256_clmulepi64_epi128, _mm256_extract_epi64, _mm256_set_epi64x, _mm256_xor_si256,
};

use crc_fast::CrcAlgorithm::Crc64Nvme;

/// Returns true if folding is the fastest method on this processor.
pub(crate) fn is_best() -> bool {
    is_possible() && !is_x86_feature_detected!("avx512vl")
}

/// Returns true if this processor can fold.
fn is_possible() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("vpclmulqdq")
}

/// Returns the CRC of at least [`BLOCK_BYTES`] bytes.
///
/// # Panics
/// If the processor cannot fold; see [`is_best`].
pub(crate) fn crc64_nvme(bytes: &[u8]) -> u64 {
    assert!(is_possible(), "the processor has no VPCLMULQDQ");
    // SAFETY: the processor has the features that the function is compiled for: asked just now.
    let (folded, rest) = unsafe { fold(bytes) };
    // The remainder is shorter than two blocks, for which crc-fast is quick. crc-fast adds the
    // register's start value at the front, where it has been added and folded already: adding it
    // twice cancels it.
    let mut tail = [0; 2 * BLOCK_BYTES];
    tail[..BLOCK_BYTES].copy_from_slice(&folded);
    tail[..8].iter_mut().for_each(|byte| *byte = !*byte);
    tail[BLOCK_BYTES..][..rest.len()].copy_from_slice(rest);
    crc_fast::checksum(Crc64Nvme, &tail[..BLOCK_BYTES + rest.len()])
}

/// Folds all whole blocks of `bytes` into one with their remainder. Returns it with the bytes after
/// them.
#[target_feature(enable = "avx2,vpclmulqdq")]
fn fold(bytes: &[u8]) -> ([u8; BLOCK_BYTES], &[u8]) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    let (first, blocks) = blocks.split_first().expect("at least one block");
    let mut lanes = load(first);
    lanes[0] = _mm256_xor_si256(lanes[0], _mm256_set_epi64x(0, 0, 0, START));
    // Each half of a lane is multiplied by the power that moves it forward one block: the first
    // eight bytes have 64 bits further to go.
    let (low, high) = (KEY_LOW.cast_signed(), KEY_HIGH.cast_signed());
    let keys = _mm256_set_epi64x(high, low, high, low);
    for block in blocks {
        let next = load(block);
        for (lane, next) in lanes.iter_mut().zip(next) {
            let moved_low = _mm256_clmulepi64_epi128::<0x00>(*lane, keys);
            let moved_high = _mm256_clmulepi64_epi128::<0x11>(*lane, keys);
            *lane = _mm256_xor_si256(_mm256_xor_si256(moved_low, moved_high), next);
        }
    }
    let mut folded = [0; BLOCK_BYTES];
    for (lane, place) in lanes.iter().zip(folded.as_chunks_mut::<LANE_BYTES>().0) {
        let words = [
            _mm256_extract_epi64::<0>(*lane),
            _mm256_extract_epi64::<1>(*lane),
            _mm256_extract_epi64::<2>(*lane),
            _mm256_extract_epi64::<3>(*lane),
        ];
        for (word, place) in words.iter().zip(place.as_chunks_mut::<8>().0) {
            *place = word.to_le_bytes();
        }
    }
    (folded, rest)
}

#[target_feature(enable = "avx2,vpclmulqdq")]
fn load(block: &[u8; BLOCK_BYTES]) -> [__m256i; LANES] {
    let mut lanes = [_mm256_set_epi64x(0, 0, 0, 0); LANES];
    for (lane, bytes) in lanes.iter_mut().zip(block.as_chunks::<LANE_BYTES>().0) {
        let word = |at: usize| i64::from_le_bytes(bytes.as_chunks::<8>().0[at]);
        *lane = _mm256_set_epi64x(word(3), word(2), word(1), word(0));
    }
    lanes
}

/// Returns `x^power` modulo the polynomial of CRC-64/NVME, with the lowest power in the highest
/// bit.
const fn power_of_x(power: u32) -> u64 {
    let (mut value, mut step) = (1 << 63, 0);
    while step < power {
        value = (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 };
        step += 1;
    }
    value
}

/// The polynomial of CRC-64/NVME (NVM Express, Rocksoft), reflected, without its highest power.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;
/// The register starts with all ones.
const START: i64 = -1;
const LANES: usize = 8;
const LANE_BYTES: usize = 32;
const BLOCK_BYTES: usize = LANES * LANE_BYTES;
const BLOCK_BITS: u32 = 8 * BLOCK_BYTES as u32;
/// Multiplying reflected numbers adds one power of `x`, so each key has one less. The first eight
/// bytes of sixteen are 64 powers higher.
const KEY_LOW: u64 = power_of_x(BLOCK_BITS + 63);
const KEY_HIGH: u64 = power_of_x(BLOCK_BITS - 1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// CRC by definition, a bit at a time.
    fn by_definition(bytes: &[u8]) -> u64 {
        let step = |value: u64| (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 };
        !bytes
            .iter()
            .fold(!0, |value, byte| (0..8).fold(value ^ u64::from(*byte), |value, _| step(value)))
    }

    #[test]
    fn crc_fast_and_the_definition_agree() {
        for bytes in [b"".as_slice(), b"123456789", &[0xff; 300]] {
            assert_eq!(crc_fast::checksum(Crc64Nvme, bytes), by_definition(bytes));
        }
    }

    /// Returns true if folding can be tested, also where it is not the best method.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn can_fold() -> bool {
        if !is_possible() {
            eprintln!("skipped: this processor has no VPCLMULQDQ");
        }
        is_possible()
    }

    #[test]
    fn folding_agrees_with_the_definition() {
        if !can_fold() {
            return;
        }
        proptest!(|(bytes in prop::collection::vec(any::<u8>(), BLOCK_BYTES..9 * BLOCK_BYTES))| {
            prop_assert_eq!(crc64_nvme(&bytes), by_definition(&bytes));
        });
    }

    proptest! {
        #[test]
        fn whatever_is_chosen_agrees_with_the_definition(
            bytes in prop::collection::vec(any::<u8>(), 0..4096),
        ) {
            prop_assert_eq!(crate::crc64_nvme(&bytes), by_definition(&bytes));
        }
    }

    #[test]
    fn every_length_around_the_blocks_agrees_with_crc_fast() {
        if !can_fold() {
            return;
        }
        let bytes: Vec<u8> =
            (0..8_u32 << 10).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for bytes in (BLOCK_BYTES..bytes.len()).map(|length| &bytes[..length]) {
            assert_eq!(
                crc64_nvme(bytes),
                crc_fast::checksum(Crc64Nvme, bytes),
                "{} bytes",
                bytes.len()
            );
        }
    }
}

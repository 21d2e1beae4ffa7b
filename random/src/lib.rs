//! Random numbers from a seed: the same sequence on every machine and in every version.
//!
//! Recorded seeds of the simulator, of tests and of benchmarks name their cases by this sequence.
//! It is a crate of our own because the general ones keep the right to change theirs. It is not
//! for secrets.

/// `SplitMix64` of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// Creates the generator of a seed.
    pub const fn new(seed: u64) -> SplitMix {
        SplitMix(seed)
    }

    /// Returns the next number.
    pub const fn next_u64(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(GAMMA);
        number
    }

    /// Returns a number below `end`. The bias is `end` in 2⁶⁴.
    ///
    /// # Panics
    /// If `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below 0");
        self.next_u64() % end
    }

    /// Returns an index into `len` things.
    ///
    /// # Panics
    /// If `len` is 0.
    pub const fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Returns true `per_mille` times in a thousand.
    pub const fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// Returns true once in `count` times.
    ///
    /// # Panics
    /// If `count` is 0.
    pub const fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Fills `bytes` with the next numbers, little-endian. A rest of less than eight bytes takes
    /// the first bytes of a number.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Returns the first number of a seed. Neighbouring seeds give numbers that share no structure.
pub const fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(GAMMA);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The odd number nearest to 2⁶⁴ divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that the authors' own program prints for the seed 1234567.
    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = SplitMix::new(1_234_567);
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(published.map(|_| random.next_u64()), published);
        assert_eq!(mix(1_234_567), published[0]);
    }

    #[test]
    fn bytes_are_the_numbers_in_order() {
        let (mut bytes, mut random) = ([0; 20], SplitMix::new(9));
        SplitMix::new(9).fill(&mut bytes);
        for chunk in bytes.chunks(8) {
            assert_eq!(chunk, &random.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    #[test]
    fn draws_stay_below_their_end() {
        let mut random = SplitMix::new(3);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[random.index(7)] = true;
            assert!(random.below(1) == 0 && !random.chance(0) && random.chance(1000));
        }
        assert_eq!(seen, [true; 7]);
    }
}

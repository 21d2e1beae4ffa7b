//! CRC-64/NVME as fast as the processor can.
//!
//! The crate crc-fast is as fast as memory on processors with AVX-512, and uses steps of 128 bits
//! on others. In between are processors that multiply 256 bits without carry but lack AVX-512 (AMD
//! Zen 3, Intel Alder Lake and later client parts). This crate folds by 256 bits on these, and
//! leaves everything else to crc-fast.
//!
//! ```
//! assert_eq!(crc::crc64_nvme(b"123456789"), 0xae8b_1486_0a79_9888);
//! ```

#[cfg(target_arch = "x86_64")]
mod fold;

use crc_fast::CrcAlgorithm::Crc64Nvme;

/// Returns the CRC-64/NVME of `bytes`: S3 calls it CRC64NVME.
#[must_use]
pub fn crc64_nvme(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= FOLDED_BYTES_MIN && fold::is_best() {
        return fold::crc64_nvme(bytes);
    }
    crc_fast::checksum(Crc64Nvme, bytes)
}

/// Length below which the start and end of folding cost more than it saves.
#[cfg(target_arch = "x86_64")]
const FOLDED_BYTES_MIN: usize = 1024;

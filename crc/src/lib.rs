//! CRC-64/NVME as fast as the processor can.
//!
//! The crate crc-fast is as fast as memory where the processor has AVX-512, and falls back to steps
//! of 128 bits where it has not. Between the two lie processors that multiply 256 bits without
//! carry but know no AVX-512 (AMD Zen 3, Intel Alder Lake and later client parts). This crate folds
//! by 256 bits there, and leaves everything else to crc-fast.
//!
//! ```
//! assert_eq!(crc::crc64_nvme(b"123456789"), 0xae8b_1486_0a79_9888);
//! ```

#[cfg(target_arch = "x86_64")]
mod fold;

use crc_fast::CrcAlgorithm::Crc64Nvme;

/// The CRC-64/NVME of `bytes`: what S3 calls CRC64NVME.
#[must_use]
pub fn crc64_nvme(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= FOLDED_BYTES_MIN && fold::is_best() {
        return fold::crc64_nvme(bytes);
    }
    crc_fast::checksum(Crc64Nvme, bytes)
}

/// Below this, what folding saves is less than what its start and end cost.
#[cfg(target_arch = "x86_64")]
const FOLDED_BYTES_MIN: usize = 1024;

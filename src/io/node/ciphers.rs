//! The ciphers that this machine's processor is fast at.

use crate::core::options::Cipher;
use crate::core::wire::terms::CipherSet;

/// Returns them. Without its instructions AES is slower than `ChaCha20`, or leaks keys by timing.
pub(super) fn available() -> CipherSet {
    let chacha = Cipher::ChaCha20Poly1305;
    if has_aes() { CipherSet::of([Cipher::Aes256Gcm, chacha]) } else { CipherSet::of([chacha]) }
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

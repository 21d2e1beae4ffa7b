//! Key schedule of a flow.
//!
//! ```text
//! Noise handshake ── split ──▶ one key for each direction, and the transcript's hash
//!
//! secret 0     = HKDF-SHA-256(salt: hash, key: split key, info: "cep-fast 3 flow secret")
//! key n        = HKDF-Expand(secret n, "cep-fast 3 flow key " + level + " " + cipher)
//! secret n + 1 = HKDF-Expand(secret n, "cep-fast 3 flow next")
//! ```
//!
//! The transcript contains the preamble, and the flow's hello with transfer, attempt, nodes and
//! rail: a key belongs to that one flow. Both of the handshake's ephemeral keys go into it: a flow
//! that was recorded stays closed when the site key or the flow key leaks later.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Algorithm, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use zeroize::Zeroize;

use crate::core::options::Cipher;
use crate::core::wire::terms::WireAgreement;

/// Secrets of a flow, one for each direction.
pub(crate) struct FlowSecrets {
    /// That of the frames that this end sends.
    pub(super) sends: TrafficSecret,
    /// That of the frames that it receives.
    pub(super) receives: TrafficSecret,
}

impl FlowSecrets {
    /// Derives the secrets from what a handshake leaves: a key of each direction, and the hash of
    /// all that was said.
    pub(crate) fn derive(
        sends: &[u8; SECRET_BYTES],
        receives: &[u8; SECRET_BYTES],
        transcript: &[u8],
    ) -> FlowSecrets {
        FlowSecrets {
            sends: TrafficSecret::derive(sends, transcript),
            receives: TrafficSecret::derive(receives, transcript),
        }
    }
}

impl fmt::Debug for FlowSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowSecrets(…)")
    }
}

/// Secret of one direction of a flow. Its memory is wiped on drop.
pub(super) struct TrafficSecret([u8; SECRET_BYTES]);

impl Drop for TrafficSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl TrafficSecret {
    fn derive(split_key: &[u8; SECRET_BYTES], transcript: &[u8]) -> TrafficSecret {
        let extracted = Salt::new(HKDF_SHA256, transcript).extract(split_key);
        TrafficSecret(expanded(&extracted, &[b"cep-fast 3 flow secret"]))
    }

    /// Returns the secret that takes this one's place.
    pub(super) fn next(&self) -> TrafficSecret {
        TrafficSecret(expanded(&self.extracted(), &[b"cep-fast 3 flow next"]))
    }

    /// Returns the key for frames that are protected as agreed.
    pub(super) fn key(&self, wire: WireAgreement) -> LessSafeKey {
        let mut bytes = self.key_bytes(wire);
        let key = UnboundKey::new(algorithm(wire.cipher), &bytes);
        bytes.zeroize();
        LessSafeKey::new(key.expect("both ciphers have keys of 32 bytes"))
    }

    fn key_bytes(&self, wire: WireAgreement) -> [u8; SECRET_BYTES] {
        let (level, cipher) = (wire.level.name().as_bytes(), wire.cipher.name().as_bytes());
        let info = [b"cep-fast 3 flow key ".as_slice(), level, b" ", cipher];
        expanded(&self.extracted(), &info)
    }

    fn extracted(&self) -> Prk {
        Prk::new_less_safe(HKDF_SHA256, &self.0)
    }
}

fn expanded(from: &Prk, info: &[&[u8]]) -> [u8; SECRET_BYTES] {
    let mut bytes = [0; SECRET_BYTES];
    let expanded = from.expand(info, SecretLength).and_then(|okm| okm.fill(&mut bytes));
    expanded.expect("32 bytes are less than HKDF can give");
    bytes
}

struct SecretLength;

impl KeyType for SecretLength {
    fn len(&self) -> usize {
        SECRET_BYTES
    }
}

fn algorithm(cipher: Cipher) -> &'static Algorithm {
    match cipher {
        Cipher::Aes256Gcm => &AES_256_GCM,
        Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    }
}

pub(super) const SECRET_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::options::WireLevel;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Vectors for other implementations: split keys of 32 bytes 0x01 and 0x02, and a transcript's
    /// hash of 32 bytes 0x03.
    #[test]
    fn the_schedule_keeps_its_vectors() {
        let FlowSecrets { sends, receives } = FlowSecrets::derive(&[1; 32], &[2; 32], &[3; 32]);
        let next = sends.next();
        assert_eq!(hex(&sends.0), VECTORS[0]);
        assert_eq!(hex(&receives.0), VECTORS[1]);
        assert_eq!(hex(&next.0), VECTORS[2]);
        let sealed = WireAgreement { level: WireLevel::Sealed, cipher: Cipher::Aes256Gcm };
        let signed = WireAgreement { level: WireLevel::Signed, cipher: Cipher::ChaCha20Poly1305 };
        assert_eq!(hex(&sends.key_bytes(sealed)), VECTORS[3]);
        assert_eq!(hex(&sends.key_bytes(signed)), VECTORS[4]);
    }

    /// Made with another implementation of HMAC-SHA-256.
    const VECTORS: [&str; 5] = [
        "9006ca7360c329fca904c83c7d4577996569d7bec926467499d96f3e950e2c63",
        "a9bf7196991da647e08b32d443902d76cb6acacbfe8fbded8cb9a241cde96a07",
        "dd89086647e325bdfe01f9d8a7bf9c921b85759c87e276bb4daaca3f7bdb810a",
        "907af09a681dfe6d3f413a56e09108d9d95f6ee4e75da154765a358f4ff9ee79",
        "6fb70226a63dd477045975fce2dcdb4df1b97156617556678bd95a7acedc7e3d",
    ];
}

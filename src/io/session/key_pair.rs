//! The key pair of a node or a master: x25519, as the handshake's library makes it.

use std::fmt;

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

use super::key::{Key, not_a_key};
use crate::core::access::PublicKey;
use crate::core::error::{Code, Error, Result};

/// A private key with its public key. `Debug` shows the public one, and the private one is wiped on
/// drop.
#[derive(PartialEq, Eq)]
pub(crate) struct KeyPair {
    private: Key,
    public: PublicKey,
}

impl KeyPair {
    /// Creates a pair from the system's randomness.
    pub(crate) fn generate() -> Result<KeyPair> {
        Key::generate().map(KeyPair::of)
    }

    /// Creates the pair of a private key.
    fn of(private: Key) -> KeyPair {
        let curve = DefaultResolver.resolve_dh(&DHChoice::Curve25519);
        let mut curve = curve.expect("the suite's curve is built in");
        curve.set(private.as_bytes());
        let public = *curve.pubkey().first_chunk().expect("a point has 32 bytes");
        KeyPair { private, public: PublicKey(public) }
    }

    /// Parses the text of a private key; `None` if it is none, by its first letters.
    ///
    /// # Errors
    /// `Code::Usage` for a private key with wrong digits.
    pub(crate) fn from_text(text: &[u8]) -> Option<Result<KeyPair>> {
        let digits = text.trim_ascii().strip_prefix(PREFIX.as_bytes())?;
        let wrong = |_| {
            Error::new(Code::Usage, format!("a private key is {PREFIX} and 64 hex digits"))
                .remedy("make one with cep-fast keygen --pair FILE")
        };
        // White space between prefix and digits is no key.
        let whole =
            if digits.len() == digits.trim_ascii().len() { Ok(()) } else { Err(not_a_key()) };
        Some(whole.and_then(|()| Key::from_hex(digits)).map(KeyPair::of).map_err(wrong))
    }

    /// Returns the private key as text, for its file.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        let digits = self.private.to_hex();
        // Allocated in full: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + digits.len()));
        text.push_str(PREFIX);
        text.push_str(&digits);
        text
    }

    /// Returns the public key.
    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the private key, only for the handshake.
    pub(super) fn private_bytes(&self) -> &[u8] {
        self.private.as_bytes()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.public)
    }
}

/// First letters of a private key: without them, it would be the text of a site key.
const PREFIX: &str = "private-x25519:";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn the_text_of_a_private_key_is_read_again_and_is_no_site_key() {
        let pair = KeyPair::generate().unwrap();
        let text = pair.to_text();
        assert!(text.starts_with("private-x25519:") && text.len() == 15 + 64);
        assert_eq!(KeyPair::from_text(format!(" {}\n", *text).as_bytes()).unwrap().unwrap(), pair);
        assert!(Key::from_hex(text.as_bytes()).is_err());
        assert!(KeyPair::from_text(&text.as_bytes()[PREFIX.len()..]).is_none(), "a site key");
        for wrong in [&text[..78], &format!("{}0", *text), &text.replace(':', ": ")] {
            let error = KeyPair::from_text(wrong.as_bytes()).unwrap().unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(!error.to_string().contains(&text[20..60]), "the message keeps the secret");
        }
        let shown = format!("{pair:?}");
        assert!(shown.contains(&pair.public().short()) && !shown.contains(&text[15..31]));
        assert_ne!(KeyPair::generate().unwrap().public(), pair.public());
    }

    #[test]
    fn a_private_key_has_the_public_key_that_the_handshake_gives_it() {
        let builder = snow::Builder::new("Noise_IK_25519_ChaChaPoly_BLAKE2s".parse().unwrap());
        let made = builder.generate_keypair().unwrap();
        let pair = KeyPair::of(Key::from_bytes(*made.private.first_chunk().unwrap()));
        assert_eq!(pair.public().0, made.public[..]);
    }
}

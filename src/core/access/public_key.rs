//! Public half of a key pair, as text and as bytes.

use std::fmt;
use std::str::FromStr;

/// A public key: it names a peer, and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PublicKey(pub(crate) [u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// Returns the form for messages and logs: enough to tell the keys of a site apart.
    pub(crate) fn short(&self) -> String {
        let digits: String =
            self.0[..SHORT_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{digits}…")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PublicKey {
    type Err = String;

    /// Parses `x25519:` and 64 hex digits.
    ///
    /// # Errors
    /// Message for people. A text that may be a secret is not repeated in it.
    fn from_str(text: &str) -> Result<PublicKey, String> {
        let wanted = "a public key is x25519: and 64 hex digits";
        let Some(digits) = text.strip_prefix(PREFIX) else {
            return Err(if text.starts_with(PRIVATE_PREFIX) {
                "this is a private key: it belongs into a key file of mode 0600; here its public \
                 key is wanted, which is in the .pub file beside it"
                    .into()
            } else if text.len() == 2 * PUBLIC_KEY_BYTES {
                format!("{wanted}; 64 hex digits alone are a site key, which is secret")
            } else {
                wanted.into()
            });
        };
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        let digits = digits.as_bytes();
        if digits.len() != 2 * PUBLIC_KEY_BYTES {
            return Err(wanted.into());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).ok_or(wanted);
            let both = value(pair[0])? << 4 | value(pair[1])?;
            *byte = u8::try_from(both).expect("two hex digits are below 256");
        }
        // The products of such a point are known to everybody.
        if bytes == [0; PUBLIC_KEY_BYTES] {
            return Err("a public key of zeros belongs to nobody".into());
        }
        Ok(PublicKey(bytes))
    }
}

const PUBLIC_KEY_BYTES: usize = 32;
const SHORT_BYTES: usize = 8;
const PREFIX: &str = "x25519:";
/// First letters of a private key, see the key file.
const PRIVATE_PREFIX: &str = "private-x25519:";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn a_public_key_survives_its_text_and_nothing_else_is_one() {
        let key = PublicKey([0xa5; 32]);
        let text = key.to_string();
        assert_eq!(text, format!("x25519:{}", "a5".repeat(32)));
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(text.to_uppercase().replace("X25519", "x25519").parse(), Ok(key));
        assert_eq!(key.short(), "x25519:a5a5a5a5a5a5a5a5…");
        let zeros = format!("x25519:{}", "0".repeat(64));
        for wrong in ["", "x25519:", &text[..70], &format!("{text}0"), &"a5".repeat(32), &zeros] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_in_the_place_of_a_public_key_is_named_and_not_repeated() {
        for secret in [format!("private-x25519:{}", "7".repeat(64)), "7".repeat(64)] {
            let said = secret.parse::<PublicKey>().unwrap_err();
            assert!(!said.contains("777"), "{said}");
            assert!(said.contains("private key") || said.contains("secret"), "{said}");
        }
    }
}

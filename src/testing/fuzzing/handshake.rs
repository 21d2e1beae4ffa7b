//! Handshakes with somebody between the two sides.

use crate::io::session;

/// Neither side comes up for who has no key, and what is changed on the way is noticed.
pub fn handshake(bytes: &[u8]) {
    session::fuzz_handshake(bytes);
}

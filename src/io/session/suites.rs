//! Suites of the handshake: the patterns of Noise, with our ciphers and keys.

use snow::Builder;

use super::key::Key;
use super::key_pair::KeyPair;
use crate::core::access::PublicKey;
use crate::core::wire::version::PREAMBLE_BYTES;

/// Returns a handshake with a shared key.
pub(super) fn builder<'a>(key: &'a Key, prologue: &'a [u8; PREAMBLE_BYTES]) -> Builder<'a> {
    let suite = SUITE.parse().expect("the suite is spelled right");
    let builder =
        Builder::new(suite).psk(0, key.as_bytes()).and_then(|builder| builder.prologue(prologue));
    builder.expect("key and prologue are set once each")
}

/// Returns a handshake with key pairs; the initiator knows its `peer`.
pub(super) fn pair_builder<'a>(
    own: &'a KeyPair,
    peer: Option<&'a PublicKey>,
    prologue: &'a [u8; PREAMBLE_BYTES],
) -> Builder<'a> {
    let suite = PAIR_SUITE.parse().expect("the suite is spelled right");
    let mut builder = Builder::new(suite).local_private_key(own.private_bytes());
    if let Some(peer) = peer {
        builder = builder.and_then(|builder| builder.remote_public_key(&peer.0));
    }
    let builder = builder.and_then(|builder| builder.prologue(prologue));
    builder.expect("keys and prologue are set once each")
}

const SUITE: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Suite of peers with key pairs.
const PAIR_SUITE: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

//! Protection of a flow's frames: encryption, authentication, and the keys for both.
//!
//! Each direction of each flow has a secret of its own, which comes from the flow's handshake. A
//! frame is sealed in place, header and payload each with a tag, under nonces that count the frames
//! of the direction. A frame that was changed, moved, repeated, left out, or taken from another
//! flow therefore does not open.
//!
//! What is demanded and agreed on is in [`crate::core::wire::terms`].
//!
//! - `key_schedule`: secrets and keys, after HKDF (RFC 5869)
//! - `frame_seal`: frames are sealed and opened, with AES-256-GCM (NIST SP 800-38D) or
//!   ChaCha20-Poly1305 (RFC 8439)

mod frame_seal;
mod key_schedule;

pub(crate) use frame_seal::FlowSeal;
pub(crate) use key_schedule::FlowSecrets;

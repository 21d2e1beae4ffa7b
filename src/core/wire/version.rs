//! Preamble: the first bytes of every connection, in clear, with the protocol versions and the
//! kind of key.
//!
//! The dialing side sends a [`Preamble`], followed by the first handshake message, whose length is
//! in the preamble. The other side answers with a [`PreambleReply`] in the same way. Both are bound
//! into the handshake, so that nobody between the two can change them unnoticed.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::WireError;

/// The size of a preamble on the wire.
pub(crate) const PREAMBLE_BYTES: usize = 48;

/// The size of a reply on the wire.
pub(crate) const REPLY_BYTES: usize = 16;

/// Protocol versions of this program.
pub(crate) const VERSIONS: VersionRange = VersionRange { min: 3, max: 3 };

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VersionRange {
    /// Oldest version.
    pub(crate) min: u16,
    /// Newest version.
    pub(crate) max: u16,
}

/// Returns the newest version that both sides speak.
pub(crate) fn negotiate(ours: VersionRange, theirs: VersionRange) -> Result<u16, WireError> {
    let newest = ours.max.min(theirs.max);
    if newest < ours.min.max(theirs.min) {
        return Err(WireError::Version {
            theirs: theirs.max,
            ours_min: ours.min,
            ours_max: ours.max,
        });
    }
    Ok(newest)
}

/// Purpose of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub(crate) enum ConnectionKind {
    /// From the master to a node.
    Control = 1,
    /// A flow between two rails.
    Data = 2,
    /// From `status` or `cancel` to the master.
    Client = 3,
}

/// Noise pattern of a connection, and with it the kind of key that both sides need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub(crate) enum HandshakePattern {
    /// `NNpsk0`: both sides have the same secret.
    SharedKey = 0,
    /// `IK`: each side has a key pair, and the dialing side knows the other's public key.
    KeyPairs = 1,
}

/// First bytes from the dialing side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Preamble {
    /// Purpose of the connection.
    pub(crate) kind: ConnectionKind,
    /// Pattern of the handshake.
    pub(crate) pattern: HandshakePattern,
    /// Versions that the dialing side speaks.
    pub(crate) versions: VersionRange,
    /// Key of the handshake: the transfer's id for data flows, zeros for the site key.
    pub(crate) key_id: [u8; 16],
    /// Length of the handshake message that follows.
    pub(crate) handshake_bytes: u16,
}

impl Preamble {
    /// Encodes the preamble.
    pub(crate) fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut view = PreambleView::new_zeroed();
        view.magic = PREAMBLE_MAGIC;
        view.kind = self.kind as u8;
        view.pattern = self.pattern as u8;
        view.version_min = self.versions.min.into();
        view.version_max = self.versions.max.into();
        view.handshake_bytes = self.handshake_bytes.into();
        view.key_id = self.key_id;
        zerocopy::transmute!(view)
    }

    /// Decodes a preamble. [`negotiate`] checks its versions.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Preamble, WireError> {
        let view = PreambleView::ref_from_bytes(bytes).map_err(|_| WireError::Size {
            what: "a preamble",
            found: bytes.len(),
            wanted: PREAMBLE_BYTES,
        })?;
        if view.magic != PREAMBLE_MAGIC {
            return Err(WireError::Magic { what: "a connection" });
        }
        let kind = match view.kind {
            1 => ConnectionKind::Control,
            2 => ConnectionKind::Data,
            3 => ConnectionKind::Client,
            other => {
                return Err(WireError::Unknown {
                    field: "the kind of a connection",
                    value: other.into(),
                });
            }
        };
        let pattern = match view.pattern {
            0 => HandshakePattern::SharedKey,
            1 => HandshakePattern::KeyPairs,
            other => {
                return Err(WireError::Unknown {
                    field: "the pattern of a handshake",
                    value: other.into(),
                });
            }
        };
        let versions = VersionRange { min: view.version_min.get(), max: view.version_max.get() };
        if versions.min > versions.max || view.reserved_short != [0; 2] || view.reserved != [0; 18]
        {
            return Err(WireError::Contradiction { field: "a preamble" });
        }
        Ok(Preamble {
            kind,
            pattern,
            versions,
            key_id: view.key_id,
            handshake_bytes: view.handshake_bytes.get(),
        })
    }
}

/// The answer to a preamble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PreambleReply {
    /// The connection continues in `version`, with a handshake message of `handshake_bytes` after
    /// this reply.
    Accepted {
        /// Version for both sides.
        version: u16,
        /// Length of the handshake message that follows.
        handshake_bytes: u16,
    },
    /// The connection ends.
    Refused(VersionRefusal),
}

/// Reason for refusing a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VersionRefusal {
    /// No common version; these are the other side's.
    Version(VersionRange),
    /// The key id is unknown: its transfer has ended, or was never on this node.
    UnknownKey,
    /// The handshake does not match the key of this side.
    KeyDiffers,
    /// This process does not accept such connections, or not at the moment.
    NotHere,
    /// This side has no key, so it only accepts processes of the same user.
    OtherUser,
    /// This side has no key of the kind that the pattern needs.
    OtherPattern,
    /// The allow file of this side does not let the public key of the other side in.
    NotAllowed,
}

impl PreambleReply {
    /// Encodes the reply.
    pub(crate) fn encode(&self) -> [u8; REPLY_BYTES] {
        let mut view = ReplyView::new_zeroed();
        view.magic = REPLY_MAGIC;
        match *self {
            PreambleReply::Accepted { version, handshake_bytes } => {
                (view.version_min, view.version_max) = (version.into(), version.into());
                view.handshake_bytes = handshake_bytes.into();
            }
            PreambleReply::Refused(refusal) => {
                view.verdict = refusal.number();
                if let VersionRefusal::Version(versions) = refusal {
                    (view.version_min, view.version_max) =
                        (versions.min.into(), versions.max.into());
                }
            }
        }
        zerocopy::transmute!(view)
    }

    /// Decodes a reply.
    pub(crate) fn decode(bytes: &[u8]) -> Result<PreambleReply, WireError> {
        let view = ReplyView::ref_from_bytes(bytes).map_err(|_| WireError::Size {
            what: "a reply",
            found: bytes.len(),
            wanted: REPLY_BYTES,
        })?;
        if view.magic != REPLY_MAGIC {
            return Err(WireError::Magic { what: "a node" });
        }
        let versions = VersionRange { min: view.version_min.get(), max: view.version_max.get() };
        let reply = match view.verdict {
            0 => PreambleReply::Accepted {
                version: versions.max,
                handshake_bytes: view.handshake_bytes.get(),
            },
            1 => PreambleReply::Refused(VersionRefusal::Version(versions)),
            2 => PreambleReply::Refused(VersionRefusal::UnknownKey),
            3 => PreambleReply::Refused(VersionRefusal::KeyDiffers),
            4 => PreambleReply::Refused(VersionRefusal::NotHere),
            5 => PreambleReply::Refused(VersionRefusal::OtherUser),
            6 => PreambleReply::Refused(VersionRefusal::OtherPattern),
            7 => PreambleReply::Refused(VersionRefusal::NotAllowed),
            other => {
                return Err(WireError::Unknown {
                    field: "the verdict of a reply",
                    value: other.into(),
                });
            }
        };
        // Each reply has one encoding: bytes that its kind does not use are zero.
        if reply.encode() != bytes {
            return Err(WireError::Contradiction { field: "a reply" });
        }
        Ok(reply)
    }
}

impl VersionRefusal {
    fn number(self) -> u8 {
        match self {
            VersionRefusal::Version(_) => 1,
            VersionRefusal::UnknownKey => 2,
            VersionRefusal::KeyDiffers => 3,
            VersionRefusal::NotHere => 4,
            VersionRefusal::OtherUser => 5,
            VersionRefusal::OtherPattern => 6,
            VersionRefusal::NotAllowed => 7,
        }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct PreambleView {
    magic: [u8; 4],
    kind: u8,
    pattern: u8,
    reserved_short: [u8; 2],
    version_min: U16,
    version_max: U16,
    handshake_bytes: U16,
    key_id: [u8; 16],
    reserved: [u8; 18],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ReplyView {
    magic: [u8; 4],
    verdict: u8,
    reserved_short: u8,
    version_min: U16,
    version_max: U16,
    handshake_bytes: U16,
    reserved: [u8; 4],
}

const PREAMBLE_MAGIC: [u8; 4] = *b"CEP1";
const REPLY_MAGIC: [u8; 4] = *b"CEPr";
const _: () =
    assert!(size_of::<PreambleView>() == PREAMBLE_BYTES && size_of::<ReplyView>() == REPLY_BYTES);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use proptest::prelude::*;

    use super::*;

    fn versions(min: u16, max: u16) -> VersionRange {
        VersionRange { min, max }
    }

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(negotiate(versions(1, 1), versions(1, 1)), Ok(1));
        assert_eq!(negotiate(versions(1, 4), versions(2, 3)), Ok(3));
        assert_eq!(negotiate(versions(2, 3), versions(3, 9)), Ok(3));
        assert!(negotiate(versions(1, 1), versions(2, 3)).is_err());
        assert!(negotiate(versions(5, 6), versions(2, 3)).is_err());
    }

    #[test]
    fn replies_survive_the_wire() {
        let replies = [
            PreambleReply::Accepted { version: 1, handshake_bytes: 777 },
            PreambleReply::Refused(VersionRefusal::Version(versions(2, 7))),
            PreambleReply::Refused(VersionRefusal::UnknownKey),
            PreambleReply::Refused(VersionRefusal::KeyDiffers),
            PreambleReply::Refused(VersionRefusal::NotHere),
            PreambleReply::Refused(VersionRefusal::OtherUser),
            PreambleReply::Refused(VersionRefusal::OtherPattern),
            PreambleReply::Refused(VersionRefusal::NotAllowed),
        ];
        for reply in replies {
            assert_eq!(PreambleReply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn strangers_are_told_apart() {
        let web = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/htm";
        assert!(matches!(Preamble::decode(web), Err(WireError::Magic { .. })));
        assert!(matches!(PreambleReply::decode(&web[..REPLY_BYTES]), Err(WireError::Magic { .. })));
        assert!(matches!(Preamble::decode(&web[..5]), Err(WireError::Size { .. })));
    }

    proptest! {
        #[test]
        fn preambles_survive_the_wire(
            kind in prop::sample::select(vec![
                ConnectionKind::Control, ConnectionKind::Data, ConnectionKind::Client
            ]),
            pattern in prop::sample::select(vec![
                HandshakePattern::SharedKey, HandshakePattern::KeyPairs
            ]),
            min in any::<u16>(), more in any::<u16>(), key_id in any::<[u8; 16]>(),
            handshake_bytes in any::<u16>(),
        ) {
            let versions = versions(min, min.saturating_add(more));
            let preamble = Preamble { kind, pattern, versions, key_id, handshake_bytes };
            prop_assert_eq!(Preamble::decode(&preamble.encode()), Ok(preamble));
        }

        #[test]
        fn what_is_accepted_has_one_form(mut bytes in any::<[u8; PREAMBLE_BYTES]>()) {
            bytes[..4].copy_from_slice(&PREAMBLE_MAGIC);
            if let Ok(preamble) = Preamble::decode(&bytes) {
                prop_assert_eq!(preamble.encode(), bytes);
            }
            prop_assert!(PreambleReply::decode(&bytes[..REPLY_BYTES]).is_err());
        }
    }
}

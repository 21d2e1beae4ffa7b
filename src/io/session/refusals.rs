//! Errors of handshakes that one side refuses, in words for both sides.

use crate::core::access::PublicKey;
use crate::core::error::{Code, Error};
use crate::core::wire::WireError;
use crate::core::wire::version::{ConnectionKind, VERSIONS, VersionRefusal};

/// Returns the refusal of a connection that nobody expects.
pub(super) fn unexpected(kind: ConnectionKind) -> VersionRefusal {
    match kind {
        ConnectionKind::Data => VersionRefusal::UnknownKey,
        ConnectionKind::Control | ConnectionKind::Client => VersionRefusal::NotHere,
    }
}

/// Returns the error for a refusal, on either side. `initiator` is the public key of the dialling
/// side, if it has one.
pub(super) fn refused(
    kind: ConnectionKind,
    refusal: VersionRefusal,
    initiator: Option<&PublicKey>,
) -> Error {
    match refusal {
        VersionRefusal::Version(theirs) => WireError::Version {
            theirs: theirs.max,
            ours_min: VERSIONS.min,
            ours_max: VERSIONS.max,
        }
        .into(),
        VersionRefusal::UnknownKey => {
            Error::new(Code::Refused, "the transfer of this flow is not known here")
        }
        VersionRefusal::NotHere => {
            Error::new(Code::Unreachable, "connections of this kind are not taken here")
                .remedy("check the port: nodes and masters listen on different ones")
        }
        VersionRefusal::OtherUser => {
            other_user("without a key, only processes of the same user are let in")
        }
        VersionRefusal::KeyDiffers if kind == ConnectionKind::Data => {
            Error::new(Code::Refused, "the key differs: the flow belongs to another session")
        }
        VersionRefusal::KeyDiffers if initiator.is_some() => Error::new(
            Code::Refused,
            "the key differs: the public key that is dialled is another's",
        )
        .remedy("compare the allow file with the .pub file of the side that is dialled"),
        VersionRefusal::KeyDiffers => Error::new(Code::Refused, "the key differs")
            .remedy("give both sides the same --key-file"),
        VersionRefusal::OtherPattern => {
            Error::new(Code::Refused, "one side has a key pair and the other a site key")
                .remedy("give both sides the same kind of --key-file")
        }
        VersionRefusal::NotAllowed => {
            let (name, right) =
                (initiator.map_or_else(|| "the key".into(), PublicKey::short), right_of(kind));
            Error::new(Code::Refused, format!("{name} lacks the right `{right}`"))
                .remedy("give it that right in the allow file of the side that is dialled")
        }
    }
}

/// Returns the right that a kind of connection needs; `cancel` needs its own besides.
fn right_of(kind: ConnectionKind) -> &'static str {
    match kind {
        ConnectionKind::Control => "master",
        ConnectionKind::Client => "status",
        ConnectionKind::Data => "node",
    }
}

/// Returns the error for a process of another user without a key.
pub(super) fn other_user(what: &str) -> Error {
    Error::new(Code::Refused, what)
        .remedy("make a key with `cep-fast keygen FILE` and give both sides --key-file FILE")
}

/// Returns the error for a peer that speaks something else.
pub(super) fn nonsense() -> Error {
    Error::new(Code::Unreachable, "the peer does not keep to the protocol of the handshake")
}

/// Returns the error for bytes in clear that mean nothing. Somebody without the key may have sent
/// or changed them: it is no fault of either end.
pub(super) fn unproven(error: WireError) -> Error {
    Error { code: Code::Unreachable, ..Error::from(error) }
}

//! Handshakes with somebody between the two sides, for the fuzzer.

use std::sync::{Arc, OnceLock};

use super::identity::DialKey;
use super::key::Key;
use super::key_pair::KeyPair;
use super::noise::{ConnectionHello, HandshakeStep, HelloReply, KeyAuthenticator, NoiseHandshake};
use crate::core::access::PublicKey;
use crate::core::wire::version::ConnectionKind;

/// Keys of a node and of a master that it lets in.
struct FuzzedSite {
    key: Key,
    node: Arc<KeyPair>,
    master: Arc<KeyPair>,
}

impl KeyAuthenticator for FuzzedSite {
    fn admit(&self, _: &ConnectionHello, _: bool) -> Option<HelloReply> {
        Some(HelloReply { keys: vec![self.key.clone()], payload: vec![1; 100] })
    }

    fn admit_pairs(&self, _: &ConnectionHello) -> Option<Vec<Arc<KeyPair>>> {
        Some(vec![Arc::clone(&self.node)])
    }

    fn admit_public(&self, _: &ConnectionHello, public: &PublicKey) -> Option<Vec<u8>> {
        (public == self.master.public()).then(|| vec![1; 100])
    }
}

/// One side, and whether it is up.
struct FuzzedSide {
    handshake: NoiseHandshake,
    unread: Vec<u8>,
    is_up: bool,
    is_over: bool,
}

impl FuzzedSide {
    fn new(handshake: NoiseHandshake) -> FuzzedSide {
        FuzzedSide { handshake, unread: Vec::new(), is_up: false, is_over: false }
    }

    fn hear(&mut self, bytes: &[u8], site: &FuzzedSite) -> Vec<u8> {
        self.unread.extend(bytes);
        let mut said = Vec::new();
        while !self.is_over && !self.is_up && self.unread.len() >= self.handshake.wants() {
            let wanted: Vec<u8> = self.unread.drain(..self.handshake.wants()).collect();
            match self.handshake.handle(&wanted, site) {
                HandshakeStep::Send(out) => said.extend(out),
                HandshakeStep::Up(out, _) => {
                    said.extend(out);
                    self.is_up = true;
                }
                HandshakeStep::Over(out, _) => {
                    said.extend(out);
                    self.is_over = true;
                }
            }
        }
        said
    }
}

/// Has two sides shake hands. The first byte says with which keys; each three bytes after it change
/// one byte of what is said. All other bytes are heard by a side that knows nobody.
pub(crate) fn handshake(bytes: &[u8]) {
    static SITE: OnceLock<FuzzedSite> = OnceLock::new();
    let pair = || Arc::new(KeyPair::generate().expect("there is randomness"));
    let site = SITE.get_or_init(|| FuzzedSite {
        key: Key::from_bytes([7; 32]),
        node: pair(),
        master: pair(),
    });
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let mut stranger = FuzzedSide::new(NoiseHandshake::respond(kind & 2 != 0));
    stranger.hear(rest, site);
    assert!(!stranger.is_up, "nobody has proved a key");
    let key = match kind & 1 {
        0 => DialKey::Shared(site.key.clone()),
        _ => DialKey::Pair(Arc::clone(&site.master), *site.node.public()),
    };
    let hello = ConnectionHello { kind: ConnectionKind::Control, key_id: [0; 16] };
    let dialled = NoiseHandshake::initiate(hello, &key, &[]).expect("there is randomness");
    let (mut dialler, mut said) = (FuzzedSide::new(dialled.0), dialled.1);
    let mut listener = FuzzedSide::new(NoiseHandshake::respond(false));
    let mut is_changed = false;
    let mut impostor =
        FuzzedSide::new(NoiseHandshake::initiate(hello, &key, &[]).expect("there is randomness").0);
    impostor.hear(rest, site);
    assert!(!impostor.is_up, "nobody has proved a key");
    for turn in 0..4_u8 {
        for change in rest.chunks_exact(3).filter(|change| change[0] % 4 == turn) {
            let at = usize::from(change[1]);
            if let Some(byte) = said.get_mut(at).filter(|_| change[2] != 0) {
                *byte ^= change[2];
                is_changed = true;
            }
        }
        let hearer = if turn % 2 == 0 { &mut listener } else { &mut dialler };
        said = hearer.hear(&said, site);
    }
    // A byte that is changed twice may be as it was.
    assert!(is_changed || (dialler.is_up && listener.is_up), "nothing was changed");
    if rest.len() == 3 {
        assert!(!is_changed || !listener.is_up, "a changed byte was not noticed");
    }
}

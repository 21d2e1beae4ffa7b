//! Keys of those who may connect: masters with the site key, and flows with the key of a transfer
//! that is under way here.

use std::collections::HashMap;

use crate::core::wire::control;
use crate::core::wire::control::{FlowReply, NodeAdvert};
use crate::core::wire::terms::WirePolicy;
use crate::core::wire::version::ConnectionKind;
use crate::io::session::{ConnectionHello, HelloReply, Key, KeyAuthenticator};

/// The keys that open this node.
pub(super) struct Keyring {
    site_key: Key,
    advert: Vec<u8>,
    flow_keys: HashMap<[u8; 16], (Key, WirePolicy)>,
}

impl Keyring {
    pub(super) fn new(site_key: Key, advert: &NodeAdvert) -> Keyring {
        Keyring { site_key, advert: encoded(advert), flow_keys: HashMap::new() }
    }

    /// Tells masters that come from now on something else of this node.
    pub(super) fn tell(&mut self, advert: &NodeAdvert) {
        self.advert = encoded(advert);
    }

    /// Lets flows of a transfer in.
    pub(super) fn open(&mut self, transfer: [u8; 16], key: Key, wire: WirePolicy) {
        self.flow_keys.insert(transfer, (key, wire));
    }

    pub(super) fn shut(&mut self, transfer: &[u8; 16]) {
        self.flow_keys.remove(transfer);
    }
}

fn encoded(advert: &NodeAdvert) -> Vec<u8> {
    control::encode(advert).expect("an advert has a rail for each of its few ports")
}

impl KeyAuthenticator for Keyring {
    fn admit(&self, hello: &ConnectionHello, is_inside: bool) -> Option<HelloReply> {
        match hello.kind {
            ConnectionKind::Control => {
                Some(HelloReply { key: self.site_key.clone(), payload: self.advert.clone() })
            }
            ConnectionKind::Data => {
                let (key, wire) = self.flow_keys.get(&hello.key_id)?;
                let reply = control::encode(&FlowReply { terms: wire.terms(is_inside) });
                let payload = reply.expect("a reply has two numbers");
                Some(HelloReply { key: key.clone(), payload })
            }
            ConnectionKind::Client => None,
        }
    }
}

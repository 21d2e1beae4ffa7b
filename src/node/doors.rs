//! Who may connect: masters with the site key, and flows with the key of a transfer that is under
//! way here.

use std::collections::HashMap;

use crate::session::{Admission, Door, Hello, Key};
use crate::wire::control::{self, Advert};
use crate::wire::version::Kind;

/// The keys that open this node.
pub(super) struct Doors {
    site_key: Key,
    advert: Vec<u8>,
    flow_keys: HashMap<[u8; 16], Key>,
}

impl Doors {
    pub(super) fn new(site_key: Key, advert: &Advert) -> Doors {
        Doors { site_key, advert: encoded(advert), flow_keys: HashMap::new() }
    }

    /// Tells masters that come from now on something else of this node.
    pub(super) fn tell(&mut self, advert: &Advert) {
        self.advert = encoded(advert);
    }

    /// Lets flows of a transfer in.
    pub(super) fn open(&mut self, transfer: [u8; 16], key: Key) {
        self.flow_keys.insert(transfer, key);
    }

    pub(super) fn shut(&mut self, transfer: &[u8; 16]) {
        self.flow_keys.remove(transfer);
    }
}

fn encoded(advert: &Advert) -> Vec<u8> {
    control::encode(advert).expect("an advert has a rail for each of its few ports")
}

impl Door for Doors {
    fn admit(&self, hello: &Hello) -> Option<Admission> {
        match hello.kind {
            Kind::Control => {
                Some(Admission { key: self.site_key.clone(), payload: self.advert.clone() })
            }
            Kind::Data => {
                let key = self.flow_keys.get(&hello.key_id)?.clone();
                Some(Admission { key, payload: Vec::new() })
            }
            Kind::Client => None,
        }
    }
}

//! Who may ask a master, and for what.

use std::sync::Arc;
use std::time::Instant;

use crate::core::access::PublicKey;
use crate::core::error::{Code, Error};
use crate::core::wire::control::MasterQuery;
use crate::core::wire::version::ConnectionKind;
use crate::io::session::{ConnectionHello, HelloReply, KeyAuthenticator, KeyPair, SiteAccess};

/// The keys of a master for those who ask it, and their rights.
pub(super) struct ClientDoor {
    access: SiteAccess,
}

impl ClientDoor {
    pub(super) fn new(access: SiteAccess) -> ClientDoor {
        ClientDoor { access }
    }

    /// Reads the allow file again if it has changed, before a client is judged.
    pub(super) fn refresh(&mut self, now: Instant) {
        if let Err(error) = self.access.refresh(now) {
            tracing::warn!("the rights stay as they were: {error}");
        }
    }

    /// Returns the error for a question that its asker has no right to. A holder of the master's
    /// own key, shared or private, has every right.
    pub(super) fn refusal(&self, asker: Option<&PublicKey>, query: MasterQuery) -> Option<Error> {
        let asker = asker.filter(|asker| !self.access.identity.is_own(asker))?;
        let rights = self.access.rights(asker);
        let (right, is_given) = match query {
            MasterQuery::Status => ("status", rights.is_some_and(|rights| rights.status)),
            MasterQuery::Cancel => ("cancel", rights.is_some_and(|rights| rights.cancel)),
        };
        let what = || {
            Error::new(Code::Refused, format!("{} lacks the right `{right}`", asker.short()))
                .remedy("give it that right in the allow file of the master")
        };
        (!is_given).then(what)
    }
}

impl KeyAuthenticator for ClientDoor {
    fn admit(&self, hello: &ConnectionHello, _: bool) -> Option<HelloReply> {
        let keys = self.access.identity.shared_keys();
        (hello.kind == ConnectionKind::Client).then(|| HelloReply { keys, payload: Vec::new() })
    }

    fn admit_pairs(&self, hello: &ConnectionHello) -> Option<Vec<Arc<KeyPair>>> {
        (hello.kind == ConnectionKind::Client).then(|| self.access.identity.pairs())
    }

    fn admit_public(&self, _: &ConnectionHello, public: &PublicKey) -> Option<Vec<u8>> {
        let rights = self.access.rights(public);
        let may_ask = rights.is_some_and(|rights| rights.status || rights.cancel);
        (may_ask || self.access.identity.is_own(public)).then(Vec::new)
    }
}

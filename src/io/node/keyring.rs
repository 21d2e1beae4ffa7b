//! Keys of those who may connect, and their rights: masters with a site key or an allowed public
//! key, and flows with the key of a transfer that is under way here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::surveys::from_root;
use crate::core::access::{KeyRights, PublicKey};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::{DataUri, RowRole};
use crate::core::wire::control;
use crate::core::wire::control::{FlowReply, NodeAdvert, SurveyQuestion, SurveySubject, WireRow};
use crate::core::wire::terms::WirePolicy;
use crate::core::wire::version::ConnectionKind;
use crate::io::log;
use crate::io::session::{ConnectionHello, HelloReply, Key, KeyAuthenticator, KeyPair, SiteAccess};
use crate::io::store::RootOptions;

/// The keys that open this node.
pub(super) struct Keyring {
    access: SiteAccess,
    advert: Vec<u8>,
    transfers: HashMap<[u8; 16], OpenTransfer>,
}

/// A transfer that is under way here.
pub(super) struct OpenTransfer {
    /// Key of its flows.
    pub(super) key: Key,
    pub(super) policy: WirePolicy,
    /// Public key of its master; `None` with a shared key.
    pub(super) master: Option<PublicKey>,
}

impl Keyring {
    pub(super) fn new(access: SiteAccess, advert: &NodeAdvert) -> Keyring {
        Keyring { access, advert: encoded(advert), transfers: HashMap::new() }
    }

    /// Tells masters that come from now on something else of this node.
    pub(super) fn tell(&mut self, advert: &NodeAdvert) {
        self.advert = encoded(advert);
    }

    /// Lets flows of a transfer in.
    pub(super) fn open(&mut self, transfer: [u8; 16], open: OpenTransfer) {
        self.transfers.insert(transfer, open);
    }

    /// Returns a transfer that is under way here.
    pub(super) fn transfer(&self, transfer: &[u8; 16]) -> Option<&OpenTransfer> {
        self.transfers.get(transfer)
    }

    pub(super) fn shut(&mut self, transfer: &[u8; 16]) {
        self.transfers.remove(transfer);
    }

    /// Reads the allow file again if it has changed, before somebody is judged.
    pub(super) fn refresh(&mut self, now: Instant) {
        if let Err(error) = self.access.refresh(now) {
            log::say(&format!("the rights stay as they were: {error}"));
        }
    }

    /// Refuses rows that a master has no right to. A site key has every right.
    ///
    /// # Errors
    /// `Code::Refused`, with the first such row.
    pub(super) fn check_rows(
        &self,
        master: Option<&PublicKey>,
        rows: &[WireRow],
        roots: &RootOptions,
    ) -> Result<()> {
        let Some(master) = master else { return Ok(()) };
        let rights = self.rights_of(master)?;
        for row in rows {
            let root = match row.uri.parse() {
                // One below no root is refused when it is opened.
                Ok(DataUri::File(path)) => match roots.name_for(&path) {
                    Some(name) => Some(name.clone()),
                    None => continue,
                },
                Ok(DataUri::Pattern(_) | DataUri::Null) => continue,
                // Shared memory is below no root. What is no URI is refused when it is opened.
                Ok(DataUri::Mem(_)) | Err(_) => None,
            };
            if let Some(right) = rights.missing(row.role, root.as_ref()) {
                let role = match row.role {
                    RowRole::Sender => "writer",
                    RowRole::Receiver => "reader",
                };
                let (uri, span, key) = (&row.uri, row.span, master.short());
                return Err(refused(format!(
                    "the {role} row {uri} {span}: {key} lacks the right `{right}`"
                )));
            }
        }
        Ok(())
    }

    /// Refuses a question about a path that a master has no right to. Returns true if the master
    /// may read there, too.
    ///
    /// # Errors
    /// `Code::Refused`, with the missing right.
    pub(super) fn check_question(
        &self,
        master: Option<&PublicKey>,
        question: &SurveyQuestion,
        roots: &RootOptions,
    ) -> Result<bool> {
        let Some(master) = master else { return Ok(true) };
        let rights = self.rights_of(master)?;
        let path = from_root(&question.path);
        let role = match question.subject {
            SurveySubject::Source | SurveySubject::Diagnosis => RowRole::Sender,
            SurveySubject::Destination
            | SurveySubject::MakeToken(_)
            | SurveySubject::FindToken(_)
            | SurveySubject::RemoveToken(_) => RowRole::Receiver,
        };
        // A path below no root is refused when it is looked at.
        let Some(root) = roots.name_for(&path) else { return Ok(false) };
        match rights.missing(role, Some(root)) {
            Some(right) => Err(refused(format!("{} lacks the right `{right}`", master.short()))),
            None => Ok(rights.missing(RowRole::Sender, Some(root)).is_none()),
        }
    }

    /// Returns the rights of a master; the allow file may have changed since its session began.
    fn rights_of(&self, master: &PublicKey) -> Result<&KeyRights> {
        let rights = self.access.rights(master).filter(|rights| rights.master);
        rights.ok_or_else(|| refused(format!("{} lacks the right `master`", master.short())))
    }
}

fn refused(what: String) -> Error {
    Error::new(Code::Refused, what).remedy("give the key that right in the allow file of the node")
}

fn encoded(advert: &NodeAdvert) -> Vec<u8> {
    control::encode(advert).expect("an advert has a rail for each of its few ports")
}

impl KeyAuthenticator for Keyring {
    fn admit(&self, hello: &ConnectionHello, is_inside: bool) -> Option<HelloReply> {
        match hello.kind {
            ConnectionKind::Control => {
                let keys = self.access.identity.shared_keys();
                Some(HelloReply { keys, payload: self.advert.clone() })
            }
            ConnectionKind::Data => {
                let OpenTransfer { key, policy, .. } = self.transfers.get(&hello.key_id)?;
                let reply = control::encode(&FlowReply { terms: policy.terms(is_inside) });
                let payload = reply.expect("a reply has two numbers");
                Some(HelloReply { keys: vec![key.clone()], payload })
            }
            ConnectionKind::Client => None,
        }
    }

    fn admit_pairs(&self, hello: &ConnectionHello) -> Option<Vec<Arc<KeyPair>>> {
        match hello.kind {
            ConnectionKind::Control => Some(self.access.identity.pairs()),
            ConnectionKind::Data | ConnectionKind::Client => None,
        }
    }

    fn admit_public(&self, _: &ConnectionHello, public: &PublicKey) -> Option<Vec<u8>> {
        let rights = self.access.rights(public).filter(|rights| rights.master);
        rights.map(|_| self.advert.clone())
    }
}

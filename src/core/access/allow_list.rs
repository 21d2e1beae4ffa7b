//! Lines of an allow file.
//!
//! ```text
//! # key                       rights
//! allow x25519:7d3c…  master read=/ write=archive   # the login node
//! allow x25519:19fe…  node=dtn[01-04]
//! allow x25519:b007…  status cancel
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::key_rights::{KeyRights, RootNames};
use super::public_key::PublicKey;
use crate::core::spec::{NodeAddress, hostlist};

/// Rights of public keys, and the public keys of nodes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct AllowList {
    rights: BTreeMap<PublicKey, KeyRights>,
    /// The key of each host, or of each `host:port`.
    nodes: BTreeMap<String, PublicKey>,
    /// The key of all other hosts.
    any_node: Option<PublicKey>,
}

/// Fault in an allow file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AllowFault {
    /// Number of its line, from 1.
    pub(crate) line: usize,
    /// Message for people.
    pub(crate) what: String,
}

impl AllowList {
    /// Parses an allow file.
    ///
    /// # Errors
    /// The first fault.
    pub(crate) fn parse(text: &str) -> Result<AllowList, AllowFault> {
        let mut parser = AllowParser::default();
        for (at, content) in text.lines().enumerate() {
            let line = at + 1;
            parser.add_line(line, content).map_err(|what| AllowFault { line, what })?;
        }
        Ok(parser.list)
    }

    /// Returns the rights of a key; `None` if no line names it.
    pub(crate) fn rights(&self, key: &PublicKey) -> Option<&KeyRights> {
        self.rights.get(key)
    }

    /// Returns the key that the node at an address must have: that of `node=HOST:PORT`, of
    /// `node=HOST`, or of a `node` without a host, in this order.
    pub(crate) fn node_key(&self, address: &NodeAddress) -> Option<&PublicKey> {
        let host = self.nodes.get(&address.to_string()).or_else(|| self.nodes.get(&address.host));
        host.or(self.any_node.as_ref())
    }

    /// Returns the only key with the right `master`; `None` if there is none, or there are several.
    pub(crate) fn only_master(&self) -> Option<&PublicKey> {
        let mut masters = self.rights.iter().filter(|(_, rights)| rights.master);
        let (key, _) = masters.next()?;
        masters.next().is_none().then_some(key)
    }
}

/// A list under construction, with the line of each entry.
#[derive(Default)]
struct AllowParser {
    list: AllowList,
    key_lines: BTreeMap<PublicKey, usize>,
    node_lines: BTreeMap<String, usize>,
}

impl AllowParser {
    fn add_line(&mut self, line: usize, content: &str) -> Result<(), String> {
        let mut words = content.split_whitespace().take_while(|word| !word.starts_with('#'));
        match words.next() {
            None => return Ok(()),
            Some("allow") => {}
            Some(_) => return Err("a line is: allow PUBLICKEY RIGHT…".into()),
        }
        let key: PublicKey =
            words.next().ok_or("a public key is missing: allow PUBLICKEY RIGHT…")?.parse()?;
        if let Some(first) = self.key_lines.insert(key, line) {
            return Err(format!("{} stands in line {first} already", key.short()));
        }
        let mut rights = KeyRights::default();
        let mut seen: Vec<&str> = Vec::new();
        for word in words {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            if seen.contains(&name) {
                return Err(format!("{name} stands twice"));
            }
            seen.push(name);
            match (name, value) {
                ("master", None) => rights.master = true,
                ("status", None) => rights.status = true,
                ("cancel", None) => rights.cancel = true,
                ("read", Some(roots)) => rights.read = RootNames::parse(roots)?,
                ("write", Some(roots)) => rights.write = RootNames::parse(roots)?,
                ("node", None) => self.add_node(line, ANY_HOST, key)?,
                ("node", Some(hosts)) => {
                    for host in hosts_of(hosts)? {
                        self.add_node(line, &host, key)?;
                    }
                }
                ("master" | "status" | "cancel", Some(_)) => {
                    return Err(format!("{name} takes no value"));
                }
                ("read" | "write", None) => return Err(format!("{name} needs roots: {name}=/")),
                _ => {
                    return Err(format!(
                        "{word:?} is no right: known are master, read=ROOTS, write=ROOTS, \
                         node=HOSTS, status and cancel"
                    ));
                }
            }
        }
        match seen.iter().find(|name| matches!(**name, "read" | "write")) {
            _ if seen.is_empty() => Err("the key gets no right: allow PUBLICKEY RIGHT…".into()),
            Some(name) if !rights.master => {
                Err(format!("{name}= is of no use without master: only masters have rows here"))
            }
            _ => {
                self.list.rights.insert(key, rights);
                Ok(())
            }
        }
    }

    fn add_node(&mut self, line: usize, host: &str, key: PublicKey) -> Result<(), String> {
        match self.node_lines.entry(host.to_owned()) {
            Entry::Occupied(first) if host == ANY_HOST => Err(format!(
                "line {} names the key of all nodes already; where they have several, say whose \
                 each is: node=HOST",
                first.get()
            )),
            Entry::Occupied(first) => {
                Err(format!("{host} has its key in line {} already", first.get()))
            }
            Entry::Vacant(vacant) => {
                vacant.insert(line);
                if host == ANY_HOST {
                    self.list.any_node = Some(key);
                } else {
                    self.list.nodes.insert(host.to_owned(), key);
                }
                Ok(())
            }
        }
    }
}

/// Returns the hosts of `node=`, as in a specification: hostlists, each with a port or without.
fn hosts_of(text: &str) -> Result<Vec<String>, String> {
    let expected = |form: String| format!("node={text}: expected {form}");
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        (!host.contains(':') || host.ends_with(']')) && port.bytes().all(|it| it.is_ascii_digit())
    });
    if has_port {
        let addresses = NodeAddress::list(text).map_err(expected)?;
        return Ok(addresses.iter().map(NodeAddress::to_string).collect());
    }
    hostlist::expand(text).map_err(expected)
}

/// Entry of the key of all hosts without a line of their own: no host has this name.
const ANY_HOST: &str = "*";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;
    use crate::core::spec::{RootName, RowRole};

    fn key(byte: u8) -> PublicKey {
        PublicKey([byte; 32])
    }

    fn fault(text: &str) -> (usize, String) {
        let AllowFault { line, what } = AllowList::parse(text).unwrap_err();
        (line, what)
    }

    fn address(text: &str) -> NodeAddress {
        text.parse().unwrap()
    }

    #[test]
    fn each_key_has_the_rights_of_its_line() {
        let text = format!(
            "# the site\n\n  allow {} master read=/,archive write=* # login\n\
             allow {} status\nallow {} master\n",
            key(1),
            key(2),
            key(3)
        );
        let list = AllowList::parse(&text).unwrap();
        let one = list.rights(&key(1)).unwrap();
        assert!(one.master && !one.status && !one.cancel);
        for (role, root, missing) in [
            (RowRole::Sender, Some("/"), None),
            (RowRole::Sender, Some("archive"), None),
            (RowRole::Sender, Some("other"), Some("read=other")),
            (RowRole::Sender, None, Some("read=*")),
            (RowRole::Receiver, Some("other"), None),
            (RowRole::Receiver, None, None),
        ] {
            let root = root.map(|name| name.parse::<RootName>().unwrap());
            assert_eq!(one.missing(role, root.as_ref()).as_deref(), missing, "{role:?} {root:?}");
        }
        let two = list.rights(&key(2)).unwrap();
        assert!(!two.master && two.status && !two.cancel);
        let three = list.rights(&key(3)).unwrap();
        assert_eq!(
            three.missing(RowRole::Receiver, Some(&RootName::Whole)).as_deref(),
            Some("write=/")
        );
        assert_eq!(list.rights(&key(4)), None);
        assert_eq!(list.only_master(), None, "there are two");
    }

    #[test]
    fn the_key_of_a_node_is_that_of_the_nearest_name() {
        let text = format!(
            "allow {} node\nallow {} node=dtn[01-02],[::1]\nallow {} node=dtn01:5001\n",
            key(1),
            key(2),
            key(3)
        );
        let list = AllowList::parse(&text).unwrap();
        let cases = [("dtn01:5000", 2), ("dtn02:5001", 2), ("dtn01:5001", 3), ("dtn03:5000", 1)];
        for (node, byte) in cases.into_iter().chain([("[::1]:5000", 2)]) {
            assert_eq!(list.node_key(&address(node)), Some(&key(byte)), "{node}");
        }
        let text = format!("allow {} master node=a\n", key(1));
        let list = AllowList::parse(&text).unwrap();
        assert_eq!(list.node_key(&address("b:1")), None);
        assert_eq!(list.only_master(), Some(&key(1)));
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let (one, two) = (key(1), key(2));
        for (text, line, said) in [
            ("allow".to_string(), 1, "public key is missing"),
            ("permit me".into(), 1, "allow PUBLICKEY"),
            (format!("# first\nallow {one}"), 2, "no right"),
            (format!("allow {one} # master"), 1, "no right"),
            ("allow x25519:12 master".into(), 1, "64 hex digits"),
            (format!("allow private-{one} master"), 1, "private key"),
            (format!("allow {one} master\nallow {one} node"), 2, "line 1 already"),
            (format!("allow {one} read=/"), 1, "without master"),
            (format!("allow {one} master read"), 1, "read=/"),
            (format!("allow {one} master=a"), 1, "no value"),
            (format!("allow {one} master master"), 1, "twice"),
            (format!("allow {one} master read=/,/"), 1, "twice"),
            (format!("allow {one} master read="), 1, "name of a root"),
            (format!("allow {one} master read=/data"), 1, "name of a root"),
            (format!("allow {one} master write=a,*"), 1, "name of a root"),
            (format!("allow {one} root"), 1, "no right"),
            (format!("allow {one} node=a\n\nallow {two} node=a"), 3, "line 1 already"),
            (format!("allow {one} node\nallow {two} node"), 2, "node=HOST"),
            (format!("allow {one} node=a:99999"), 1, "port"),
            (format!("allow {one} node="), 1, "expected"),
        ] {
            let (at, what) = fault(&text);
            assert!(at == line && what.contains(said), "{text}: line {at}: {what}");
        }
    }
}

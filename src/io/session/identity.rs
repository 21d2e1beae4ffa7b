//! The keys of a process, from its key file: site keys, key pairs, or both.
//!
//! A file has one key a line. The first is the one that the process dials with; peers may prove any
//! of them. So a key is replaced by a file with both, for as long as some peers have the old one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::key::{Key, not_a_key};
use super::key_file;
use super::key_pair::KeyPair;
use crate::core::access::PublicKey;
use crate::core::error::{Code, Error, Result};

/// The keys of a process.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// At least one.
    keys: Vec<OwnKey>,
}

/// One key of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
enum OwnKey {
    Shared(Key),
    Pair(Arc<KeyPair>),
}

/// The key with which a peer is dialled.
#[derive(Clone, Debug)]
pub(crate) enum DialKey {
    /// A secret that the peer has, too.
    Shared(Key),
    /// Our key pair, and the public key that the peer must prove.
    Pair(Arc<KeyPair>, PublicKey),
}

impl From<&Key> for DialKey {
    fn from(key: &Key) -> DialKey {
        DialKey::Shared(key.clone())
    }
}

impl From<&DialKey> for DialKey {
    fn from(key: &DialKey) -> DialKey {
        key.clone()
    }
}

impl DialKey {
    /// Returns true if everybody knows the key.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, DialKey::Shared(key) if key.is_open())
    }

    /// Returns our public key, if this is a pair.
    pub(super) fn own_public(&self) -> Option<PublicKey> {
        match self {
            DialKey::Shared(_) => None,
            DialKey::Pair(own, _) => Some(*own.public()),
        }
    }
}

impl Identity {
    /// Returns the identity of a process without a key file: the key that everybody knows.
    pub(crate) fn open() -> Identity {
        Identity::of(Key::open())
    }

    /// Returns the identity of a process with one shared key.
    pub(crate) fn of(key: Key) -> Identity {
        Identity { keys: vec![OwnKey::Shared(key)] }
    }

    /// Reads a key file. It must belong to this user (or root), and no other user may read it.
    ///
    /// # Errors
    /// `Code::Usage` if there is anything but keys in it, `Code::Refused` if others may read or
    /// replace it, `Code::Data` if it is missing.
    pub(crate) fn load(path: &Path) -> Result<Identity> {
        let text = key_file::read_secret(path)?;
        Identity::parse(&text).map_err(|error| error.at(path.display()))
    }

    fn parse(text: &[u8]) -> Result<Identity> {
        let too_many = || Error::new(Code::Usage, format!("more than {KEYS_MAX} keys"));
        if text.len() == key_file::SECRET_BYTES_MAX {
            return Err(too_many().remedy("one key a line, and nothing else"));
        }
        let mut keys: Vec<OwnKey> = Vec::new();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        for line in lines {
            let key = match KeyPair::from_text(line) {
                Some(pair) => OwnKey::Pair(Arc::new(pair?)),
                None => OwnKey::Shared(Key::from_hex(line)?),
            };
            if keys.contains(&key) {
                return Err(Error::new(Code::Usage, "the same key stands in two lines"));
            }
            if keys.len() == KEYS_MAX {
                return Err(too_many().remedy("a key that is being replaced, and its successor"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(not_a_key());
        }
        Ok(Identity { keys })
    }

    /// Returns the shared keys.
    pub(crate) fn shared_keys(&self) -> Vec<Key> {
        let shared = |key: &OwnKey| match key {
            OwnKey::Shared(key) => Some(key.clone()),
            OwnKey::Pair(_) => None,
        };
        self.keys.iter().filter_map(shared).collect()
    }

    /// Returns the key pairs.
    pub(crate) fn pairs(&self) -> Vec<Arc<KeyPair>> {
        let pair = |key: &OwnKey| match key {
            OwnKey::Shared(_) => None,
            OwnKey::Pair(pair) => Some(Arc::clone(pair)),
        };
        self.keys.iter().filter_map(pair).collect()
    }

    /// Returns true if peers are dialled with a key pair.
    pub(crate) fn dials_with_pair(&self) -> bool {
        matches!(self.keys[0], OwnKey::Pair(_))
    }

    /// Returns true if one of the public keys is ours.
    pub(crate) fn is_own(&self, public: &PublicKey) -> bool {
        self.pairs().iter().any(|pair| pair.public() == public)
    }

    /// Returns the key for dialling a peer; `peer` is its public key. Without one a peer is dialled
    /// that has our own pair.
    pub(crate) fn dial_key(&self, peer: Option<&PublicKey>) -> DialKey {
        match &self.keys[0] {
            OwnKey::Shared(key) => DialKey::Shared(key.clone()),
            OwnKey::Pair(own) => DialKey::Pair(Arc::clone(own), *peer.unwrap_or(own.public())),
        }
    }

    /// Returns the keys as the log names them: public keys, and the word for what must not be
    /// shown.
    pub(crate) fn names(&self) -> String {
        let name = |key: &OwnKey| match key {
            OwnKey::Shared(key) if key.is_open() => "none".into(),
            OwnKey::Shared(_) => "site".into(),
            OwnKey::Pair(pair) => pair.public().short(),
        };
        self.keys.iter().map(name).collect::<Vec<String>>().join(",")
    }
}

/// Creates a new site key and its file.
///
/// # Errors
/// `Code::Data` if the file exists, or cannot be written.
pub(crate) fn make_key_file(path: &Path) -> Result<()> {
    key_file::create(path, &Key::generate()?.to_hex(), 0o600)
}

/// Creates a new key pair, the file of the private key, and beside it a `.pub` file with the public
/// key.
///
/// # Errors
/// `Code::Data` if one of the files exists, or cannot be written.
pub(crate) fn make_pair_files(path: &Path) -> Result<PublicKey> {
    let pair = KeyPair::generate()?;
    key_file::create(path, &pair.to_text(), 0o600)?;
    let made = key_file::create(&public_path(path), &pair.public().to_string(), 0o644);
    if made.is_err() {
        // Nobody uses it: its public key was told to nobody.
        let _ = std::fs::remove_file(path);
    }
    made.map(|()| *pair.public())
}

/// Returns the name of the public key's file.
fn public_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".pub");
    name.into()
}

/// Keys of a process: one that is replaced and its successor, of either kind.
const KEYS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn written(text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_made_key_is_loaded_again_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        make_key_file(&path).unwrap();
        let [key] = &Identity::load(&path).unwrap().shared_keys()[..] else { panic!("one key") };
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 65);
        assert_eq!(make_key_file(&path).unwrap_err().code, Code::Data);
        let again = Identity::load(&path).unwrap().shared_keys();
        assert!(again == [key.clone()], "the old key is still there");
    }

    #[test]
    fn a_made_pair_is_a_private_and_a_public_file_that_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pair");
        let public = make_pair_files(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&public_path(&path))), (0o600, 0o644));
        assert_eq!(fs::read_to_string(public_path(&path)).unwrap(), format!("{public}\n"));
        let identity = Identity::load(&path).unwrap();
        assert!(identity.dials_with_pair() && identity.is_own(&public));
        assert_eq!(identity.names(), public.short());
        assert!(identity.shared_keys().is_empty(), "a private key is never taken for a site key");
        assert_eq!(make_pair_files(&path).unwrap_err().code, Code::Data);
        assert!(Identity::load(&path).unwrap().is_own(&public), "the old pair is still there");
        fs::remove_file(&path).unwrap();
        fs::write(public_path(&path), "kept").unwrap();
        assert_eq!(make_pair_files(&path).unwrap_err().code, Code::Data);
        assert!(!path.exists() && fs::read_to_string(public_path(&path)).unwrap() == "kept");
    }

    #[test]
    fn the_first_of_several_keys_dials_and_all_are_accepted() {
        let (pair, site) = (KeyPair::generate().unwrap(), Key::generate().unwrap());
        let text = format!("{}\n\n  {}\n", *pair.to_text(), *site.to_hex());
        let (_directory, path) = written(&text);
        let identity = Identity::load(&path).unwrap();
        assert!(identity.dials_with_pair() && identity.shared_keys() == [site]);
        assert_eq!(identity.names(), format!("{},site", pair.public().short()));
        let (_directory, path) = written(format!("{text}{text}"));
        let error = Identity::load(&path).unwrap_err();
        assert!(error.code == Code::Usage && error.message.contains("two lines"), "{error}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        make_key_file(&path).unwrap();
        for (mode, fine) in
            [(0o400, true), (0o640, false), (0o604, false), (0o610, false), (0o600, true)]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let loaded = Identity::load(&path);
            assert_eq!(loaded.is_ok(), fine, "{mode:o}");
            if let Err(error) = loaded {
                assert_eq!(error.code, Code::Refused);
                assert!(
                    error.to_string().contains("readable by others")
                        && error.to_string().contains("chmod 600")
                );
            }
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let five = (0..5).map(|digit| format!("{digit:064}\n")).collect::<String>();
        let public = format!("x25519:{}", "7".repeat(64));
        let contents = [
            &b"12"[..],
            b"",
            b"\n\n",
            &[b'0'; 63],
            &[b'0'; 65],
            &[b'g'; 64],
            &[0xff; 64],
            &[b'0'; 9000],
            &[b'\n'; 9000],
            five.as_bytes(),
            public.as_bytes(),
        ];
        for content in contents {
            let (_directory, path) = written(content);
            assert_eq!(Identity::load(&path).unwrap_err().code, Code::Usage);
        }
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(directory.path()).unwrap_err().code, Code::Usage);
        assert_eq!(Identity::load(&directory.path().join("none")).unwrap_err().code, Code::Data);
    }
}

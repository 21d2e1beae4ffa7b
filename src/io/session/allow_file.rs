//! The allow file of a process, read again when it changes, and its own keys beside it.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::identity::{DialKey, Identity};
use super::key_file::{self, FileSecrecy};
use crate::core::access::{AllowFault, AllowList, KeyRights, PublicKey};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::NodeAddress;

/// Shortest interval at which the file is looked at: whoever connects may be a stranger.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Limit on an allow file: a line for each of the largest number of nodes.
const ALLOW_BYTES_MAX: u64 = 16 << 20;

/// The keys of a process, and those that it lets in or dials.
#[derive(Clone, Debug)]
pub(crate) struct SiteAccess {
    /// Its own keys.
    pub(crate) identity: Identity,
    allow: Option<AllowFile>,
}

impl SiteAccess {
    /// Returns the access of a process with these keys alone.
    pub(crate) fn of(identity: Identity) -> SiteAccess {
        SiteAccess { identity, allow: None }
    }

    /// Reads the key file and the allow file.
    ///
    /// # Errors
    /// Those of both files; `Code::Usage` for an allow file without a key pair.
    pub(crate) fn load(key_file: Option<&Path>, allow_file: Option<&Path>) -> Result<SiteAccess> {
        let identity = key_file.map_or_else(|| Ok(Identity::open()), Identity::load)?;
        let allow = allow_file.map(AllowFile::load).transpose()?;
        if let Some(allow) = allow.as_ref().filter(|_| identity.pairs().is_empty()) {
            let what = format!(
                "{}: an allow file is for key pairs, and the key file has none",
                allow.path.display()
            );
            return Err(Error::new(Code::Usage, what).remedy(
                "make a pair with cep-fast keygen --pair FILE; a site key tells nobody apart",
            ));
        }
        Ok(SiteAccess { identity, allow })
    }

    /// Refuses a key pair without an allow file, which says whom it talks to.
    ///
    /// # Errors
    /// `Code::Usage`.
    pub(crate) fn check_allow(&self) -> Result<()> {
        if self.allow.is_some() || self.identity.pairs().is_empty() {
            return Ok(());
        }
        Err(Error::new(
            Code::Usage,
            "the key file has a private key, and no allow file says which public keys to trust",
        )
        .remedy("--allow-file FILE, with a line `allow PUBLICKEY RIGHT…` for each"))
    }

    /// Returns the rights of a public key; `None` if it is not in the allow file.
    pub(crate) fn rights(&self, public: &PublicKey) -> Option<&KeyRights> {
        self.allow.as_ref()?.list.rights(public)
    }

    /// Returns the key for dialling a node.
    ///
    /// # Errors
    /// `Code::Refused` if the allow file has no public key of that node.
    pub(crate) fn node_key(&self, address: &NodeAddress) -> Result<DialKey> {
        let peer = self.allow.as_ref().and_then(|allow| allow.list.node_key(address));
        if peer.is_some() || !self.identity.dials_with_pair() {
            return Ok(self.identity.dial_key(peer));
        }
        let file = self.allow.as_ref().map_or("--allow-file".into(), AllowFile::name);
        let what = format!("{address}: no line of {file} has the public key of this node");
        let remedy = format!("add `allow PUBLICKEY node={}`", address.host);
        Err(Error::new(Code::Refused, what).remedy(remedy))
    }

    /// Returns the key for dialling a master: that of the only `master` in the allow file, or our
    /// own.
    ///
    /// # Errors
    /// `Code::Usage` if the allow file has none, or several.
    pub(crate) fn master_key(&self) -> Result<DialKey> {
        let Some(allow) = &self.allow else { return Ok(self.identity.dial_key(None)) };
        let only = allow.list.only_master().ok_or_else(|| {
            Error::new(
                Code::Usage,
                format!("{}: one key with the right `master` is wanted", allow.name()),
            )
            .remedy("name the key of the master that is asked, and no other")
        })?;
        Ok(self.identity.dial_key(Some(only)))
    }

    /// Returns the directories that the allow file is read from: that of its name, and that of the
    /// file that it leads to.
    pub(crate) fn allow_directories(&self) -> impl Iterator<Item = PathBuf> {
        let name = self.allow.as_ref().map(|allow| allow.path.clone());
        let file = name.as_ref().and_then(|name| name.canonicalize().ok());
        let files = name.into_iter().chain(file);
        files.filter_map(|file| file.parent().map(Path::to_path_buf))
    }

    /// Reads the allow file again if it has changed. A bad one is not taken over.
    ///
    /// # Errors
    /// What is wrong with the changed file, once for each change.
    pub(crate) fn refresh(&mut self, now: Instant) -> Result<()> {
        self.allow.as_mut().map_or(Ok(()), |allow| allow.refresh(now))
    }
}

/// An allow file, as it was read last.
#[derive(Clone, Debug)]
struct AllowFile {
    path: PathBuf,
    list: AllowList,
    /// State of the file that was read last, good or bad; `None` if there was none.
    stamp: Option<FileStamp>,
    looked: Option<Instant>,
}

/// Stamp of a file: it differs once the file is replaced or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileStamp {
    inode: (u64, u64),
    bytes: u64,
    changed: [(i64, i64); 2],
    mode: (u32, u32),
}

impl FileStamp {
    fn of(metadata: &Metadata) -> FileStamp {
        let changed =
            [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())];
        FileStamp {
            inode: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            changed,
            mode: (metadata.mode(), metadata.uid()),
        }
    }
}

impl AllowFile {
    fn load(path: &Path) -> Result<AllowFile> {
        // The directory of a daemon may change; the file may not.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let mut file = AllowFile { path, list: AllowList::default(), stamp: None, looked: None };
        file.stamp = file.look();
        file.list = file.read()?;
        Ok(file)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn look(&self) -> Option<FileStamp> {
        std::fs::metadata(&self.path).ok().map(|metadata| FileStamp::of(&metadata))
    }

    fn refresh(&mut self, now: Instant) -> Result<()> {
        if self.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return Ok(());
        }
        self.looked = Some(now);
        let stamp = self.look();
        if stamp == self.stamp {
            return Ok(());
        }
        self.stamp = stamp;
        self.list = self.read()?;
        Ok(())
    }

    fn read(&self) -> Result<AllowList> {
        let file = key_file::open(&self.path, FileSecrecy::Readable).map_err(|error| {
            let code = if error.code == Code::Data { Code::Usage } else { error.code };
            let remedy = error.remedy.filter(|_| code != Code::Usage);
            Error { code, remedy, ..error }
        })?;
        let text = read_text(file)
            .map_err(|what| Error::new(Code::Usage, format!("{}: {what}", self.path.display())))?;
        AllowList::parse(&text).map_err(|AllowFault { line, what }| {
            Error::new(Code::Usage, format!("{}:{line}: {what}", self.path.display()))
        })
    }
}

/// Returns the text of a file, or what is wrong with it.
fn read_text(file: File) -> std::result::Result<String, String> {
    let mut text = String::new();
    match file.take(ALLOW_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 > ALLOW_BYTES_MAX => {
            Err(format!("more than {} MiB", ALLOW_BYTES_MAX >> 20))
        }
        Ok(_) => Ok(text),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err("it is not UTF-8".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::io::session::make_pair_files;

    fn key(byte: u8) -> PublicKey {
        PublicKey([byte; 32])
    }

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Files {
            let files = Files { directory: tempfile::tempdir().unwrap() };
            make_pair_files(&files.path("pair")).unwrap();
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn allow(&self, text: &str) {
            fs::write(self.path("allow"), text).unwrap();
            fs::set_permissions(self.path("allow"), Permissions::from_mode(0o644)).unwrap();
        }

        fn load(&self) -> Result<SiteAccess> {
            SiteAccess::load(Some(&self.path("pair")), Some(&self.path("allow")))
        }
    }

    #[test]
    fn a_changed_file_counts_and_a_bad_one_leaves_the_old_rights() {
        let files = Files::new();
        files.allow(&format!("allow {} master\n", key(1)));
        let mut access = files.load().unwrap();
        let mut now = Instant::now();
        let mut after = |access: &mut SiteAccess| {
            now += LOOK_EVERY;
            access.refresh(now)
        };
        after(&mut access).unwrap();
        assert!(access.rights(&key(1)).is_some() && access.rights(&key(2)).is_none());
        files.allow(&format!("allow {} master\nallow {} status\n", key(1), key(2)));
        after(&mut access).unwrap();
        assert!(access.rights(&key(2)).is_some());
        files.allow("allow everybody\n");
        let error = after(&mut access).unwrap_err();
        assert!(error.message.contains("allow:1: "), "{error}");
        after(&mut access).unwrap();
        assert!(access.rights(&key(2)).is_some(), "the old rights, and one error");
        fs::remove_file(files.path("allow")).unwrap();
        assert_eq!(after(&mut access).unwrap_err().code, Code::Usage);
        after(&mut access).unwrap();
        // A new file under the name, as editors make it.
        fs::write(files.path("new"), format!("allow {} master\n", key(2))).unwrap();
        fs::rename(files.path("new"), files.path("allow")).unwrap();
        after(&mut access).unwrap();
        assert!(access.rights(&key(1)).is_none() && access.rights(&key(2)).unwrap().master);
    }

    #[test]
    fn the_file_is_looked_at_a_few_times_a_second_at_most() {
        let files = Files::new();
        files.allow("");
        let mut access = files.load().unwrap();
        let now = Instant::now();
        access.refresh(now).unwrap();
        files.allow(&format!("allow {} master\n", key(1)));
        access.refresh(now + LOOK_EVERY / 2).unwrap();
        assert!(access.rights(&key(1)).is_none());
        access.refresh(now + LOOK_EVERY).unwrap();
        assert!(access.rights(&key(1)).is_some());
    }

    #[test]
    fn faults_are_named_with_file_and_line() {
        let files = Files::new();
        assert_eq!(files.load().unwrap_err().code, Code::Usage, "it is missing");
        files.allow("# nothing\nallow x25519:1 master\n");
        let error = files.load().unwrap_err();
        assert!(error.code == Code::Usage && error.message.contains("allow:2: "), "{error}");
        fs::write(files.path("allow"), [0xff]).unwrap();
        assert_eq!(files.load().unwrap_err().code, Code::Usage);
        files.allow("");
        for (mode, fine) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(files.path("allow"), Permissions::from_mode(mode)).unwrap();
            let loaded = files.load();
            assert_eq!(loaded.is_ok(), fine, "{mode:o}");
            if let Err(error) = loaded {
                assert_eq!(error.code, Code::Refused);
                assert!(error.message.contains("writable by others"), "{error}");
            }
        }
    }

    #[test]
    fn an_allow_file_needs_a_pair_and_a_pair_an_allow_file() {
        let files = Files::new();
        files.allow("");
        let error = SiteAccess::load(None, Some(&files.path("allow"))).unwrap_err();
        assert_eq!(error.code, Code::Usage);
        assert!(files.load().unwrap().check_allow().is_ok());
        let alone = SiteAccess::load(Some(&files.path("pair")), None).unwrap();
        assert_eq!(alone.check_allow().unwrap_err().code, Code::Usage);
        assert!(SiteAccess::of(Identity::open()).check_allow().is_ok());
    }

    #[test]
    fn a_node_without_a_line_is_not_dialled() {
        let files = Files::new();
        files.allow(&format!("allow {} node=a\nallow {} master\n", key(1), key(2)));
        let access = files.load().unwrap();
        let peer = |key: Result<DialKey>| match key.unwrap() {
            DialKey::Pair(_, peer) => peer,
            DialKey::Shared(_) => panic!("a pair dials"),
        };
        assert_eq!(peer(access.node_key(&"a:1".parse().unwrap())), key(1));
        let error = access.node_key(&"b:1".parse().unwrap()).unwrap_err();
        assert!(error.code == Code::Refused && error.to_string().contains("node=b"), "{error}");
        assert_eq!(peer(access.master_key()), key(2));
        files.allow("");
        assert_eq!(files.load().unwrap().master_key().unwrap_err().code, Code::Usage);
    }
}

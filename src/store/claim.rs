//! The claim of a place: a file beside a destination, by which nodes find out that two URIs name one file.
//!
//! A link, a mount or another root can make one file of `/d/x` and `/l/x`. Paths and inode numbers do not tell across hosts, but
//! the directory does: of all rows of an attempt whose file has one name, the first to make the claim in a directory has the place,
//! and who comes later reads there whose it is. Claims are gone before bytes move.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::Root;
use super::fault::fault;
use super::partial::unlink;
use super::region::object_path;
use super::root::{DIRECTORY, errno_of};
use crate::error::{Code, Error, Result};
use crate::spec::DataUri;

/// A claim that this node has made. It goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    directory: OwnedFd,
    name: OsString,
}

impl Claim {
    /// Claims the place of `uri` for `owner`, a node's name, in the attempt with these random bytes. `None` where the place is
    /// claimed already under the same URI.
    ///
    /// # Errors
    /// `Usage` where another URI names the same file; `Data` where the system refuses.
    pub(crate) fn take(root: &Root, uri: &DataUri, attempt: &[u8; 16], owner: &str) -> Result<Option<Claim>> {
        let (memory, object);
        let (root, path) = match uri {
            DataUri::File(path) => (root, path),
            DataUri::Mem(name) => {
                (memory, object) = (Root::shared_memory()?, object_path(name)?);
                (&memory, &object)
            }
            DataUri::Pattern(_) | DataUri::Null => return Ok(None),
        };
        let (Some(parent), Some(file_name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let directory = root.try_open(parent, DIRECTORY, Mode::empty())?;
        // What is wrong with it is for those to find who open the file.
        let Ok(directory) = directory else { return Ok(None) };
        let name = claim_name(file_name, attempt);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&directory, name.as_os_str(), flags, Mode::from_bits_truncate(0o644)) {
            Ok(file) => {
                let claim = Claim { directory, name };
                let mut file = File::from(file);
                // On network file systems other nodes see the bytes only after they are written back.
                let written = file.write_all(words(uri, owner).as_bytes()).and_then(|()| file.sync_all());
                written.map_err(|error| fault(errno_of(&error), path, "claimed"))?;
                Ok(Some(claim))
            }
            Err(Errno::EEXIST) => compare(&directory, &name, uri, owner, path).map(|()| None),
            Err(errno) => Err(fault(errno, parent, "written to")),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A removal that fails has no one to tell; nobody else looks at the claims of this attempt.
        let _ = unlink(&self.directory, &self.name);
    }
}

/// Holds the claim that is there against a URI.
fn compare(directory: &OwnedFd, name: &OsStr, uri: &DataUri, own: &str, path: &Path) -> Result<()> {
    let mut claimed = String::new();
    for _ in 0..READS_MAX {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty()).map_err(|errno| fault(errno, path, "claimed"))?;
        claimed.clear();
        let read = File::from(file).take(CLAIM_BYTES_MAX).read_to_string(&mut claimed);
        read.map_err(|error| fault(errno_of(&error), path, "claimed"))?;
        if claimed.ends_with('\n') {
            break;
        }
        // Another host has made it, and has yet to write it; no event tells when it has.
        std::thread::sleep(READ_AGAIN_AFTER);
    }
    let (owner, other) = claimed.trim_end().split_once(' ').unwrap_or(("another node", "a file of the same name"));
    // Nodes that name one file by one URI share it. An object in memory is one node's, and a machine may have several nodes.
    let is_shared = other == uri.to_string() && (owner == own || !matches!(uri, DataUri::Mem(_)));
    if is_shared {
        return Ok(());
    }
    let (what, remedy) = match uri {
        DataUri::Mem(_) => (
            format!("{uri} is the object that {owner} writes, too, on the same machine"),
            "give each node an object of its own",
        ),
        _ => (
            format!("{uri} is the file that {owner} writes as {other}"),
            "name one file by one path in all rows, or give each row a file of its own",
        ),
    };
    Err(Error::new(Code::Usage, what).remedy(remedy))
}

/// What a claim says.
fn words(uri: &DataUri, owner: &str) -> String {
    format!("{owner} {uri}\n")
}

/// File names that a file system takes for one have one claim: its letters may be of either case.
fn claim_name(name: &OsStr, attempt: &[u8; 16]) -> OsString {
    let mut hasher = blake3::Hasher::new();
    hasher.update(attempt).update(name.to_string_lossy().to_lowercase().as_bytes());
    let mut claim = OsString::from(".");
    let shown = &name.as_bytes()[..name.len().min(SHOWN_BYTES_MAX)];
    claim.push(OsStr::from_bytes(shown));
    claim.push(".cep-");
    claim.push(&hasher.finalize().to_hex()[..32]);
    claim.push(SUFFIX);
    claim
}

const SUFFIX: &str = ".claim";
/// Bytes of a destination's name that its claim begins with: a name has 255 at most.
const SHOWN_BYTES_MAX: usize = 200;
const _: () = assert!(".".len() + SHOWN_BYTES_MAX + ".cep-".len() + 32 + SUFFIX.len() <= 255);
/// A node's name and a URI.
const CLAIM_BYTES_MAX: u64 = 8192;
/// A second in all.
const READS_MAX: usize = 50;
const READ_AGAIN_AFTER: Duration = Duration::from_millis(20);

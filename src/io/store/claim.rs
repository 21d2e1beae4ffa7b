//! Claim of a destination: a file beside it, by which nodes find out that two URIs name one file.
//!
//! A link, a mount or another root can make one file of `/d/x` and `/l/x`. Paths and inode numbers
//! do not tell across hosts, but the directory does. Of all rows of an attempt whose files have one
//! name, the first to make the claim in a directory has the destination; the others read there
//! whose it is. Claims are removed before bytes move. The claim of a node that was killed is
//! removed by the next attempt at the transfer.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::StoreRoots;
use super::destination_path::unlink;
use super::fault::fault;
use super::memory_object::{object_name, object_path};
use super::root::{DIRECTORY, errno_of};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::DataUri;

/// A claim that this node has made. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct DestinationClaim {
    directory: OwnedFd,
    name: OsString,
}

impl DestinationClaim {
    /// Claims the file of `uri` for `owner`, a node's name, in an attempt at the transfer `id`; the
    /// attempt's bytes are random. Returns `None` where it is claimed already under the same URI.
    ///
    /// # Errors
    /// `Usage` where another URI names the same file; `Data` where the system refuses.
    pub(crate) fn take(
        roots: &StoreRoots,
        uri: &DataUri,
        id: &str,
        attempt: &[u8; 16],
        owner: &str,
    ) -> Result<Option<DestinationClaim>> {
        let (memory, object);
        let (root, path) = match uri {
            DataUri::File(path) => (roots.to_write(path)?, path),
            DataUri::Mem(name) => {
                memory = roots.memory_to_write(&object_name(name))?;
                object = object_path(name)?;
                (&memory, &object)
            }
            DataUri::Pattern(_) | DataUri::Null => return Ok(None),
        };
        let (Some(parent), Some(file_name), false) =
            (path.parent(), path.file_name(), root.is_top(path)?)
        else {
            return Ok(None);
        };
        let directory = root.try_open(parent, DIRECTORY, Mode::empty())?;
        // Opening the file will name what is wrong with the directory.
        let Ok(directory) = directory else { return Ok(None) };
        let transfer = transfer_prefix(file_name, id);
        let name = claim_name(&transfer, attempt);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&directory, name.as_os_str(), flags, Mode::from_bits_truncate(0o644)) {
            Ok(file) => {
                remove_older(&directory, &transfer, &name);
                let claim = DestinationClaim { directory, name };
                let mut file = File::from(file);
                // Other nodes of a network file system see the bytes only after they are written
                // back.
                let written =
                    file.write_all(words(uri, owner).as_bytes()).and_then(|()| file.sync_all());
                written.map_err(|error| fault(errno_of(&error), path, "claimed"))?;
                Ok(Some(claim))
            }
            Err(Errno::EEXIST) => compare(&directory, &name, uri, owner, path).map(|()| None),
            Err(errno) => Err(fault(errno, parent, "written to")),
        }
    }
}

impl Drop for DestinationClaim {
    fn drop(&mut self) {
        // A removal that fails has no one to tell. Nobody else looks at the claims of this attempt.
        let _ = unlink(&self.directory, &self.name);
    }
}

/// Compares the claim that is there with a URI.
fn compare(directory: &OwnedFd, name: &OsStr, uri: &DataUri, own: &str, path: &Path) -> Result<()> {
    let mut claimed = String::new();
    for _ in 0..READS_MAX {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty())
            .map_err(|errno| fault(errno, path, "claimed"))?;
        claimed.clear();
        let read = File::from(file).take(CLAIM_BYTES_MAX).read_to_string(&mut claimed);
        read.map_err(|error| fault(errno_of(&error), path, "claimed"))?;
        if claimed.ends_with('\n') {
            break;
        }
        // Another host has made it and not yet written it. No event tells when it has.
        std::thread::sleep(READ_AGAIN_AFTER);
    }
    let (owner, other) =
        claimed.trim_end().split_once(' ').unwrap_or(("another node", "a file of the same name"));
    // Nodes that name one file by one URI share it. A memory object belongs to one node, and a
    // machine may have several nodes.
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

/// Content of a claim.
fn words(uri: &DataUri, owner: &str) -> String {
    format!("{owner} {uri}\n")
}

/// Removes the claims that earlier attempts at a transfer have left; this attempt has fenced them.
/// If the directory cannot be read they stay, and nobody looks at them.
fn remove_older(directory: &OwnedFd, transfer: &OsStr, own: &OsStr) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut entries) = Dir::openat(directory, ".", flags, Mode::empty()) else { return };
    for entry in entries.iter().map_while(std::result::Result::ok) {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let is_claim = name.as_bytes().starts_with(transfer.as_bytes())
            && name.as_bytes().ends_with(SUFFIX.as_bytes());
        if is_claim && name != own {
            let _ = unlink(directory, name);
        }
    }
}

/// Prefix of the names of all claims of a transfer to a file. It ignores case, because some file
/// systems do: names that they take for one have one claim.
fn transfer_prefix(name: &OsStr, id: &str) -> OsString {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(id.as_bytes())
        .update(&[0])
        .update(name.to_string_lossy().to_lowercase().as_bytes());
    let mut prefix = OsString::from(".");
    prefix.push(OsStr::from_bytes(&name.as_bytes()[..name.len().min(SHOWN_BYTES_MAX)]));
    prefix.push(".cep-");
    prefix.push(&hasher.finalize().to_hex()[..HASH_DIGITS]);
    prefix.push("-");
    prefix
}

fn claim_name(transfer: &OsStr, attempt: &[u8; 16]) -> OsString {
    let mut claim = OsString::from(transfer);
    claim.push(&blake3::hash(attempt).to_hex()[..HASH_DIGITS]);
    claim.push(SUFFIX);
    claim
}

const SUFFIX: &str = ".claim";
const HASH_DIGITS: usize = 16;
/// Bytes of a destination's name in that of its claim: a name has 255 at most.
const SHOWN_BYTES_MAX: usize = 200;
const _: () = assert!(
    ".".len() + SHOWN_BYTES_MAX + ".cep-".len() + 2 * HASH_DIGITS + "-".len() + SUFFIX.len() <= 255
);
/// A node's name and a URI.
const CLAIM_BYTES_MAX: u64 = 8192;
/// A second in all.
const READS_MAX: usize = 50;
const READ_AGAIN_AFTER: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_a_killed_node_has_left_goes_with_the_next_attempt() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = StoreRoots::of(folder.path()).expect("it is there");
        let uri: DataUri = "file:///x".parse().expect("a URI");
        let names = || std::fs::read_dir(folder.path()).expect("it is there").count();
        let take = |id: &str, attempt| {
            DestinationClaim::take(&root, &uri, id, &[attempt; 16], "a:1")
                .expect("nobody else has it")
        };
        let _killed = take("one", 0).expect("the first").leave();
        let _also_killed = take("another", 0).expect("the first").leave();
        assert_eq!(names(), 2, "both nodes were killed");
        let claim = take("one", 1).expect("the first of its attempt");
        assert_eq!(names(), 2, "its own, and that of another transfer");
        assert!(take("one", 1).is_none(), "it is claimed under the same URI");
        drop(claim);
        assert_eq!(names(), 1, "that of another transfer is not for it to remove");
    }

    impl DestinationClaim {
        /// As a node that is killed: the file stays.
        fn leave(self) -> std::mem::ManuallyDrop<DestinationClaim> {
            std::mem::ManuallyDrop::new(self)
        }
    }
}

//! Files with keys and about keys: who may own them, who may read or write them, and how they come
//! to be.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use zeroize::Zeroizing;

use super::key::read_some;
use crate::core::error::{Code, Error, Result};

/// What others may do with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FileSecrecy {
    /// Nothing: there are secrets in it.
    Secret,
    /// Read it.
    Readable,
}

/// Opens a file that belongs to this user or to root, and that no other user may change, or read
/// where it is secret.
///
/// # Errors
/// `Code::Refused` for the wrong owner or mode, `Code::Usage` for anything but a file; else that of
/// [`file_error`].
pub(super) fn open(path: &Path, secrecy: FileSecrecy) -> Result<File> {
    let failed = |error| file_error(path, &error);
    // Opening a named pipe without a writer would block.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.map_err(failed)?;
    // Owner and mode are checked on the open file, so that nobody can replace it between check and
    // read. A link to the file is as good as its own name: a user who can change the link cannot
    // choose the contents of a file that belongs to us.
    let metadata = file.metadata().map_err(failed)?;
    let refused = |what: String, remedy: String| {
        Err(Error::new(Code::Refused, format!("{} {what}", path.display()))
            .remedy(format!("{remedy} {}", path.display())))
    };
    let (what, forbidden, how, chmod) = match secrecy {
        FileSecrecy::Secret => ("key", 0o077, "readable", "chmod 600"),
        FileSecrecy::Readable => ("line", 0o022, "writable", "chmod go-w"),
    };
    if !metadata.is_file() {
        let error = Error::new(Code::Usage, format!("{} is not a file", path.display()));
        return Err(match secrecy {
            FileSecrecy::Secret => {
                error.remedy("name a regular file; cep-fast keygen FILE makes one")
            }
            FileSecrecy::Readable => error.remedy("name a regular file"),
        });
    }
    if !owners().contains(&metadata.uid()) {
        let owner = metadata.uid();
        return refused(
            format!("belongs to user {owner}, who may put any {what} into it"),
            format!("chown {}", geteuid()),
        );
    }
    if metadata.mode() & forbidden != 0 {
        let mode = metadata.mode() & 0o7777;
        return refused(format!("is {how} by others: mode {mode:04o}"), chmod.into());
    }
    Ok(file)
}

/// Reads a file of secrets without leaving a copy behind: an array that is returned would.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut file = open(path, FileSecrecy::Secret)?;
    let mut text = Zeroizing::new(vec![0; SECRET_BYTES_MAX]);
    let mut length = 0;
    while length < text.len() {
        match read_some(&mut file, &mut text[length..]).map_err(|error| error.at(path.display()))? {
            0 => break,
            bytes => length += bytes,
        }
    }
    text.truncate(length);
    Ok(text)
}

/// Creates a file with this text and a line end. An existing file is an error: its key may be in
/// use. The file never exists without all of its text.
pub(super) fn create(path: &Path, text: &str, mode: u32) -> Result<()> {
    let failed = |error| file_error(path, &error);
    if fs::symlink_metadata(path).is_ok() {
        return Err(failed(ErrorKind::AlreadyExists.into()));
    }
    let draft = KeyFileDraft::beside(path, mode).map_err(failed)?;
    draft.fill(text).and_then(|()| draft.publish(path)).map_err(failed)
}

/// Returns the users who may own a key file: this process's user, and root, who can read everything
/// anyway.
fn owners() -> [u32; 2] {
    [geteuid().as_raw(), 0]
}

/// A key file under a temporary name. It is removed unless it is published.
struct KeyFileDraft {
    path: PathBuf,
}

impl KeyFileDraft {
    /// Creates an empty file with this mode, in the directory of `path`.
    fn beside(path: &Path, mode: u32) -> io::Result<KeyFileDraft> {
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        // Names have at most 255 bytes; this one is much shorter.
        let name: String = name.chars().take(50).collect();
        let draft = KeyFileDraft {
            path: path.with_file_name(format!(".{name}.{:016x}", u64::from_ne_bytes(salt))),
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft.path)?;
        // Independent of the umask.
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(draft)
    }

    fn fill(&self, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    }

    /// Renames the file, unless the name exists by now.
    fn publish(&self, path: &Path) -> io::Result<()> {
        let renamed = renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE);
        match renamed.map_err(|error| Errno::from_raw(error.raw_os_error())) {
            Ok(()) => {}
            // The file system, or a filter of system calls, does not support it: a hard link does
            // not replace a file either.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => fs::hard_link(&self.path, path)?,
            Err(errno) => return Err(errno.into()),
        }
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Not every file system can sync a directory; nothing more can be done.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for KeyFileDraft {
    fn drop(&mut self) {
        // After publication nothing is left here, or only a second name.
        let _ = fs::remove_file(&self.path);
    }
}

fn file_error(path: &Path, error: &io::Error) -> Error {
    let code = if error.kind() == ErrorKind::PermissionDenied { Code::Refused } else { Code::Data };
    let converted = Error::new(code, format!("{}: {error}", path.display()));
    match error.kind() {
        ErrorKind::NotFound => converted.remedy("make a key with cep-fast keygen FILE"),
        ErrorKind::AlreadyExists => {
            converted.remedy("choose another name, or remove the old key if nobody uses it")
        }
        _ => converted,
    }
}

/// Limit on a key file: its keys and any white space that an editor adds.
pub(super) const SECRET_BYTES_MAX: usize = 4096;

//! Refusals of the operating system in the user's words: the path, what was tried, and the remedy.

use std::path::Path;

use nix::errno::Errno;

use crate::core::error::{Code, Error};

/// Error for `errno`, met when `path` (as the user wrote it) was to be `done`: "opened", "read",
/// "written", "renamed".
pub(crate) fn fault(errno: Errno, path: &Path, done: &str) -> Error {
    let path = path.display();
    let said = |message: String, remedy: &str| Error::new(Code::Data, message).remedy(remedy);
    match errno {
        Errno::ENOENT => said(
            format!("{path} is missing"),
            "check the path; it is taken below the node's --root",
        ),
        Errno::EACCES | Errno::EPERM => said(
            format!("{path} cannot be {done}: permission denied"),
            "give the node's user access to it",
        ),
        Errno::EROFS => said(
            format!("{path} cannot be {done}: the file system is read-only"),
            "mount it writable or choose another directory",
        ),
        Errno::ENOSPC => said(
            format!("{path} cannot be {done}: the disk is full"),
            "free space or choose another directory",
        ),
        Errno::EDQUOT => said(
            format!("{path} cannot be {done}: the disk quota is used up"),
            "free space or raise the quota",
        ),
        Errno::ENOTDIR => said(
            format!("{path} cannot be {done}: a part of it is not a directory"),
            "check the path",
        ),
        Errno::EISDIR => said(format!("{path} is a directory"), "name a file"),
        Errno::ENAMETOOLONG => said(
            format!("{path} cannot be {done}: a name in it is too long"),
            "choose a shorter name",
        ),
        Errno::EFBIG | Errno::EOVERFLOW => said(
            format!("{path} cannot be {done}: larger than the file system allows"),
            "check the offset and the range, or choose another file system",
        ),
        Errno::EMFILE | Errno::ENFILE => said(
            format!("{path} cannot be {done}: too many open files"),
            "raise the limit (ulimit -n)",
        ),
        Errno::EIO => said(
            format!("{path} cannot be {done}: the device reports an error"),
            "see the kernel's log",
        ),
        other => Error::new(Code::Data, format!("{path} cannot be {done}: {}", other.desc())),
    }
}

/// Error for a path that leads out of the root, by `..`, by a link, or through the kernel's own
/// links.
pub(super) fn refused(path: &Path, root: &Path, how: &str) -> Error {
    Error::new(Code::Refused, format!("{} is refused: {how}", path.display()))
        .remedy(format!("only what lies below the node's --root {} is served", root.display()))
}

/// Error for a kind of data that the node's owner has not allowed; `option` allows it.
pub(super) fn unserved(name: &Path, kind: &str, option: &str) -> Error {
    Error::new(Code::Refused, format!("{} is refused: this node serves no {kind}", name.display()))
        .remedy(format!("start the node with --allow {option}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_the_path_and_most_a_remedy() {
        let table = [
            (Errno::ENOENT, "/d/x is missing"),
            (Errno::EACCES, "/d/x cannot be read: permission denied"),
            (Errno::EROFS, "/d/x cannot be read: the file system is read-only"),
            (Errno::ENOSPC, "/d/x cannot be read: the disk is full"),
            (Errno::EDQUOT, "/d/x cannot be read: the disk quota is used up"),
            (Errno::EISDIR, "/d/x is a directory"),
            (Errno::EIO, "/d/x cannot be read: the device reports an error"),
        ];
        for (errno, message) in table {
            let error = fault(errno, Path::new("/d/x"), "read");
            assert_eq!((error.code, error.message.as_str()), (Code::Data, message));
            assert!(error.remedy.is_some(), "{message}");
        }
        let rare = fault(Errno::EBADMSG, Path::new("/d/x"), "read");
        assert!(rare.message.starts_with("/d/x cannot be read: "), "{rare}");
    }
}

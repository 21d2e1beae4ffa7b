//! The socket by which `status` and `cancel` without an address find a running transfer: its name,
//! and its life.

use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::private_directory::PrivateDirectory;

/// First letter of the name that a socket has until somebody listens at it.
const UNFINISHED: char = '.';
/// Age from which a socket with such a name is left over.
const UNFINISHED_MAX: Duration = Duration::from_secs(60);

/// A socket of this machine at which a transfer listens. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct LocalSocket {
    directory: PrivateDirectory,
    name: OsString,
    listener: Option<UnixListener>,
}

impl LocalSocket {
    /// Listens for questions about one attempt of a transfer.
    ///
    /// # Errors
    /// A phrase that says why nobody will find the transfer.
    pub(crate) fn open(attempt: &[u8; 16]) -> Result<LocalSocket, String> {
        let directory = PrivateDirectory::make()?;
        let name = OsString::from(name_of(std::process::id(), attempt));
        let mut unfinished = OsString::from(UNFINISHED.to_string());
        unfinished.push(&name);
        // Whoever looks meanwhile must not take it for a leftover.
        let listener = UnixListener::bind(directory.path(&unfinished))
            .map_err(|error| format!("no socket: {error}"))?;
        if let Err(error) = directory.rename(&unfinished, &name) {
            directory.remove(&unfinished);
            return Err(format!("no socket: {error}"));
        }
        Ok(LocalSocket { directory, name, listener: Some(listener) })
    }

    /// Takes the listener.
    pub(super) fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        self.directory.remove(&self.name);
    }
}

/// Returns the name of the socket of one attempt.
fn name_of(pid: u32, attempt: &[u8; 16]) -> String {
    let attempt: String = attempt[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{pid}-{attempt}")
}

/// Returns the process in the name of a socket; `None` for other names.
pub(super) fn pid_of(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let (pid, attempt) = name.strip_prefix(UNFINISHED).unwrap_or(name).split_once('-')?;
    let is_attempt = attempt.len() == 16 && attempt.bytes().all(|it| it.is_ascii_hexdigit());
    pid.parse().ok().filter(|_| is_attempt)
}

/// Returns true for a name that a socket has only until somebody listens at it.
pub(super) fn is_unfinished(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&(UNFINISHED as u8))
}

/// Removes a socket that was left over before anybody listened at it.
pub(super) fn remove_unfinished(directory: &PrivateDirectory, name: &OsStr) {
    if directory.is_older(name, UNFINISHED_MAX) {
        directory.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_process_and_other_names_are_left_alone() {
        let name = name_of(71, &[0xab; 16]);
        assert_eq!(name, "71-abababababababab");
        assert_eq!(pid_of(OsStr::new(&name)), Some(71));
        assert_eq!(pid_of(OsStr::new(&format!(".{name}"))), Some(71));
        assert!(is_unfinished(OsStr::new(".7-a")) && !is_unfinished(OsStr::new(&name)));
        for other in ["", ".", "7", "7-", "x-abababababababab", "7-ababababababababab", "7-zz"] {
            assert_eq!(pid_of(OsStr::new(other)), None, "{other}");
        }
    }
}

//! Names of POSIX shared memory: as the user knows them, and in their directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::core::error::{Code, Error, Result};

/// Path of the object `name` below the directory of shared memory.
///
/// # Errors
/// `Data` where POSIX would not have it as a name.
pub(super) fn object_path(name: &OsStr) -> Result<PathBuf> {
    let bytes = name.as_bytes();
    let is_size_fit = (1..=255).contains(&bytes.len());
    if !is_size_fit || bytes.contains(&b'/') || bytes.contains(&0) || matches!(bytes, b"." | b"..")
    {
        return Err(Error::new(
            Code::Data,
            format!("mem:{} is not a name of shared memory", name.display()),
        )
        .remedy("use 1 to 255 bytes without a slash"));
    }
    Ok(Path::new("/").join(name))
}

/// Name of the object as the user knows it.
pub(super) fn object_name(name: &OsStr) -> PathBuf {
    let mut object = OsString::from("mem:");
    object.push(name);
    PathBuf::from(object)
}

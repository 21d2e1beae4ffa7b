//! One file under two names: by links, mounts, or other spellings of a path.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use super::destination_path::{DestinationPath, is_kind};
use super::fault::fault;
use super::memory_object::{object_name, object_path};
use super::open::identity;
use super::{Source, StoreRoots};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::DataUri;

/// Names and files that the rows of one node mean.
#[derive(Default)]
pub(crate) struct FileNames<'a> {
    sources: BTreeMap<FileInode, &'a DataUri>,
    /// By directory and name, also of names that nothing has yet.
    destinations: BTreeMap<(FileInode, OsString), &'a DataUri>,
    /// By the file that has the name.
    existing: BTreeMap<FileInode, &'a DataUri>,
}

/// Device and inode.
type FileInode = (u64, u64);

impl<'a> FileNames<'a> {
    /// Adds a source.
    pub(crate) fn add_source(&mut self, uri: &'a DataUri, source: &Source) {
        if let Some(file) = source.identity() {
            self.sources.insert(file, uri);
        }
    }

    /// Adds a destination, each URI once.
    ///
    /// # Errors
    /// `Usage`, with both URIs, where it is a source, or another destination under another name.
    /// Other errors are left to its opening.
    pub(crate) fn add_destination(&mut self, roots: &StoreRoots, uri: &'a DataUri) -> Result<()> {
        let Some((directory, name, existing)) = look(roots, uri)? else { return Ok(()) };
        if let Some(other) = self.destinations.insert((directory, name), uri) {
            return Err(one_file(other, uri));
        }
        let Some(existing) = existing.filter(|about| is_kind(about, SFlag::S_IFREG)) else {
            return Ok(());
        };
        if let Some(source) = self.sources.get(&identity(&existing)) {
            let what = format!("{source} is read and {uri} is written, and both are one file");
            return Err(Error::new(Code::Usage, what).remedy("write to another path"));
        }
        match self.existing.insert(identity(&existing), uri) {
            Some(other) => Err(one_file(other, uri)),
            None => Ok(()),
        }
    }
}

/// Finds a destination's directory, its name there, and the file of that name.
fn look(
    roots: &StoreRoots,
    uri: &DataUri,
) -> Result<Option<(FileInode, OsString, Option<FileStat>)>> {
    match uri {
        DataUri::File(path) => {
            let (place, existing) = DestinationPath::look(roots.to_write(path)?, path, "")?;
            let directory =
                fstat(&place.directory).map_err(|errno| fault(errno, path, "examined"))?;
            Ok(Some((identity(&directory), place.name, existing)))
        }
        DataUri::Mem(name) => {
            let (path, shown) = (object_path(name)?, object_name(name));
            let root = roots.memory_to_write(&shown)?;
            let directory = fstat(&root).map_err(|errno| fault(errno, &shown, "examined"))?;
            let name = path.file_name().unwrap_or_default().to_owned();
            let existing = fstatat(&root, Path::new(&name), AtFlags::AT_SYMLINK_NOFOLLOW).ok();
            Ok(Some((identity(&directory), name, existing)))
        }
        DataUri::Pattern(_) | DataUri::Null => Ok(None),
    }
}

fn one_file(one: &DataUri, other: &DataUri) -> Error {
    Error::new(Code::Usage, format!("{one} and {other} are one file under two names"))
        .remedy("name it in the same way in every row")
}

//! Partial files of other transfers beside a destination, which nobody would mention otherwise.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};

use super::Sink;
use super::destination_path::{DestinationPath, split_partial};
use super::open::identity;

/// Finds partial files that other transfers to the same destinations have left, or are writing: a
/// sentence each, with the path and the remedy.
///
/// Each directory is listed once, however many destinations are in it. One that cannot be read is
/// left out, and so is everything behind the first [`ENTRIES_MAX`] entries.
pub(crate) fn partials_of_others(sinks: &[Sink]) -> Vec<String> {
    let mut directories: BTreeMap<(u64, u64), Vec<&DestinationPath>> = BTreeMap::new();
    for place in sinks.iter().filter_map(Sink::own_path) {
        if let Ok(about) = fstat(&place.directory) {
            directories.entry(identity(&about)).or_default().push(place);
        }
    }
    directories.values().flat_map(|places| in_directory(places)).collect()
}

/// Destinations of one directory.
fn in_directory(places: &[&DestinationPath]) -> Vec<String> {
    let Some(directory) = places.first().map(|place| &place.directory) else { return Vec::new() };
    let by_stem: BTreeMap<&[u8], &DestinationPath> =
        places.iter().filter_map(|place| Some((split_partial(&place.partial)?, *place))).collect();
    let mut found = Vec::new();
    each_name(directory, |name| {
        let Some(stem) = split_partial(name) else { return };
        if let Some(place) = by_stem.get(stem).filter(|place| place.partial != name) {
            let (partial, path) = (place.path.with_file_name(name), &place.path);
            found.push(format!(
                "{} is of another transfer to {}, which is under way or was interrupted; let it \
                 end, run it again, or remove that file",
                partial.display(),
                path.display()
            ));
        }
    });
    found.sort();
    found
}

fn each_name(directory: &OwnedFd, mut look: impl FnMut(&OsStr)) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut entries) = Dir::openat(directory, ".", flags, Mode::empty()) else { return };
    for entry in entries.iter().map_while(Result::ok).take(ENTRIES_MAX) {
        look(OsStr::from_bytes(entry.file_name().to_bytes()));
    }
}

/// Entries of a directory that are looked at: a second at most on a slow network file system.
const ENTRIES_MAX: usize = 1 << 14;

//! Real files on a real disk, and on file systems of our own where the tests may mount some.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod paths;
mod permissions;
mod regions;
mod resumed;
mod resumed_together;
mod roots;
mod shared;
mod sinks;
mod sources;
mod strangers;
mod way;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{JournalIdentity, ReusedRanges, SealKey, Sink, SinkOptions, StoreRoots};
use crate::core::error::Result;
use crate::core::options::TransferOptions;
use crate::core::spec::DataUri;
use crate::core::store::writer::WriterRole;
use crate::core::units::Span;

/// A directory on the disk that the tests are built on: unlike the system's temporary directory,
/// hardly ever a tmpfs.
fn directory() -> TempDir {
    let beside_the_tests = std::env::current_exe().unwrap();
    tempfile::tempdir_in(beside_the_tests.parent().unwrap()).unwrap()
}

/// A tmpfs of a test's own; unmounted when dropped.
struct Mounted {
    directory: TempDir,
}

impl Mounted {
    /// Mounts a tmpfs, or says why the test is skipped.
    fn tmpfs(options: &str) -> Option<Mounted> {
        let mounted = Mounted { directory: directory() };
        if mounted.mount(options) {
            return Some(mounted);
        }
        announce("skipped: mounting a tmpfs takes root");
        None
    }

    fn remount_read_only(&self) {
        assert!(self.mount("remount,ro"), "what was mounted can be mounted read-only");
    }

    fn mount(&self, options: &str) -> bool {
        let quiet = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(self.path())
            .output();
        quiet.is_ok_and(|output| output.status.success())
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn announce(what: &str) {
    eprintln!("{what}");
}

fn options() -> SinkOptions {
    let tag = "ab12".to_owned();
    SinkOptions {
        transfer: TransferOptions::default(),
        tag,
        attempt: [1; 16],
        others_end: 0,
        role: WriterRole::Sole,
        keep: None,
    }
}

fn synced(mut options: SinkOptions, fsync: bool) -> SinkOptions {
    options.transfer.fsync = fsync;
    options
}

fn overwriting(mut options: SinkOptions) -> SinkOptions {
    options.transfer.overwrite = true;
    options
}

/// Journals of that identity.
fn kept_as(identity: u8) -> Option<JournalIdentity> {
    Some(JournalIdentity {
        identity: [identity; 32],
        records_max: 100,
        key: SealKey::of_this_user(),
    })
}

fn file_uri(path: &str) -> DataUri {
    DataUri::File(PathBuf::from(path))
}

fn prepare(root: &Path, path: &str, bytes: u64, options: &SinkOptions) -> Result<Sink> {
    Sink::prepare(&StoreRoots::of(root).unwrap(), &file_uri(path), bytes, options)
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Ranges of the data space that lie at the same place in the file.
fn kept(spans: &[Span]) -> ReusedRanges<'_> {
    ReusedRanges { spans, in_file: spans }
}

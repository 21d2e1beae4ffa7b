//! Sources: which are refused, and which changes are noticed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{directory, file_uri};
use crate::core::error::{Code, Result};
use crate::core::spec::DataUri;
use crate::core::units::Span;
use crate::io::store::holes::HOLE_BYTES_MIN;
use crate::io::store::{AllowedKinds, Source, StoreRoots};

fn open(directory: &Path, path: &str, offset_bytes: u64, bytes: u64) -> Result<Source> {
    Source::open(&StoreRoots::of(directory).unwrap(), &file_uri(path), offset_bytes, bytes)
}

#[test]
fn bad_sources_are_named_with_a_remedy() {
    let home = directory();
    fs::write(home.path().join("short"), [0; 1000]).unwrap();
    fs::create_dir(home.path().join("directory")).unwrap();
    mkfifo(&home.path().join("pipe"), Mode::S_IRWXU).unwrap();
    let table = [
        ("/missing", 0, 1, "/missing is missing"),
        ("/short/x", 0, 1, "/short/x cannot be read: a part of it is not a directory"),
        ("/directory", 0, 1, "/directory is a directory"),
        ("/pipe", 0, 1, "/pipe is a pipe"),
        ("/short", 0, 1001, "the range ends at byte 1001 of /short, but the file has 1000 bytes"),
        ("/short", 990, 11, "the range ends at byte 1001 of /short, but the file has 1000 bytes"),
        (
            "/short",
            u64::MAX,
            2,
            "offset 18446744073709551615 and 2 bytes of /short do not fit 64 bits",
        ),
    ];
    for (path, offset_bytes, bytes, message) in table {
        let error = open(home.path(), path, offset_bytes, bytes).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Data, message));
        assert!(error.remedy.is_some(), "{message}");
    }
    assert!(open(home.path(), "/short", 990, 10).is_ok());
}

#[test]
fn a_device_without_positions_is_no_source() {
    let error = open(Path::new("/"), "/dev/zero", 0, 1).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::Data, "/dev/zero is neither a file nor a block device")
    );
}

#[test]
fn a_source_that_shrinks_or_changes_is_noticed() {
    let home = directory();
    let path = home.path().join("x");
    fs::write(&path, [1; 1000]).unwrap();
    // An old time, so that a write within the clock's grain is seen all the same.
    let writer = File::options().write(true).open(&path).unwrap();
    writer.set_modified(std::time::UNIX_EPOCH).unwrap();
    let source = open(home.path(), "/x", 0, 1000).unwrap();
    source.check_unchanged().unwrap();
    writer.write_all_at(b"other", 0).unwrap();
    let written = source.check_unchanged().unwrap_err();
    assert_eq!(
        (written.code, written.message.as_str()),
        (Code::Data, "/x was written to while it was read")
    );
    writer.set_len(10).unwrap();
    let shrunk = source.check_unchanged().unwrap_err();
    assert_eq!(shrunk.message, "/x shrank from 1000 to 10 bytes while it was read");
    assert_eq!(
        source.read_failed(Errno::EIO).message,
        "/x cannot be read: the device reports an error"
    );
}

/// Writes other bytes to a file, in place, and sets its time back.
fn rewrite(path: &Path, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn a_source_rewritten_with_its_time_set_back_is_noticed_at_the_end_and_by_another_attempt() {
    let home = directory();
    let path = home.path().join("x");
    fs::write(&path, [1; 1000]).unwrap();
    let source = open(home.path(), "/x", 0, 1000).unwrap();
    let before = source.looks();
    rewrite(&path, &[2; 1000]);
    let error = source.check_unchanged().unwrap_err();
    assert!(
        error.message.starts_with("/x was changed while it was read: its time of change (ctime)"),
        "{error}"
    );
    assert_ne!(open(home.path(), "/x", 0, 1000).unwrap().looks(), before);
}

#[test]
fn nothing_but_a_change_is_one() {
    let home = directory();
    let path = home.path().join("x");
    fs::write(&path, [1; 1000]).unwrap();
    let source = open(home.path(), "/x", 0, 1000).unwrap();
    // Reading, listing and opening for writing leave a file as it is.
    assert_eq!(fs::read(&path).unwrap(), [1; 1000]);
    drop(File::options().write(true).open(&path).unwrap());
    source.check_unchanged().unwrap();
    assert_eq!(open(home.path(), "/x", 0, 1000).unwrap().looks(), source.looks());
}

#[test]
fn a_write_right_after_the_look_is_noticed() {
    // The clock of stamps stands still for milliseconds: a source is opened when it has gone on.
    let home = directory();
    let path = home.path().join("x");
    for round in 0..20 {
        fs::write(&path, [round; 1000]).unwrap();
        let source = open(home.path(), "/x", 0, 1000).unwrap();
        rewrite(&path, &[round + 1; 1000]);
        source.check_unchanged().unwrap_err();
    }
}

#[test]
fn a_file_that_is_made_while_it_is_read_is_not_taken_for_empty() {
    let error = open(Path::new("/"), "/proc/cpuinfo", 0, 0).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::Data, "/proc/cpuinfo has bytes, but no size: it is made while it is read")
    );
    let home = directory();
    fs::write(home.path().join("empty"), "").unwrap();
    let empty = open(home.path(), "/empty", 0, 0).unwrap();
    assert!(empty.holes(10).unwrap().is_empty());
    empty.check_unchanged().unwrap();
}

#[test]
fn a_pipe_that_takes_the_name_of_a_source_holds_nobody_up() {
    let home = directory();
    let (path, pipe) = (home.path().join("x"), home.path().join("pipe"));
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    fs::write(&path, [1; 1000]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                nix::fcntl::renameat2(
                    nix::fcntl::AT_FDCWD,
                    &path,
                    nix::fcntl::AT_FDCWD,
                    &pipe,
                    flags,
                )
                .unwrap();
            }
        });
        for _ in 0..2000 {
            if let Err(error) = open(home.path(), "/x", 0, 1000) {
                let known = ["/x is a pipe", "/x was replaced while it was opened"];
                assert!(known.contains(&error.message.as_str()), "{error}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn block_devices_are_served_only_where_that_is_allowed() {
    let home = directory();
    let made = nix::sys::stat::mknod(
        &home.path().join("device"),
        nix::sys::stat::SFlag::S_IFBLK,
        Mode::S_IRUSR,
        nix::sys::stat::makedev(7, 0),
    );
    if made.is_err() {
        return super::announce("skipped: no right to make a device");
    }
    let error = open(home.path(), "/device", 0, 0).unwrap_err();
    assert_eq!(
        (error.code, error.remedy.as_deref()),
        (Code::Refused, Some("start the node with --allow devices"))
    );
    let allowed = StoreRoots::of(home.path()).unwrap().allowing(AllowedKinds::ALL);
    if let Err(error) = Source::open(&allowed, &file_uri("/device"), 0, 0) {
        assert_eq!(error.code, Code::Data, "no loop device here, or no right to read it: {error}");
    }
}

#[test]
fn a_source_has_the_permissions_of_its_file() {
    use std::os::unix::fs::PermissionsExt;
    let home = directory();
    fs::write(home.path().join("x"), "12345").unwrap();
    for mode in [0o600, 0o755, 0o4755] {
        fs::set_permissions(home.path().join("x"), PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(open(home.path(), "/x", 0, 5).unwrap().mode(), 0o100_000 | (mode & 0o777));
    }
    let root = StoreRoots::of(home.path()).unwrap();
    assert_eq!(Source::open(&root, &DataUri::Pattern(7), 0, 5).unwrap().mode(), 0);
}

#[test]
fn holes_are_found_and_the_largest_kept() {
    let home = directory();
    let file = File::create(home.path().join("sparse")).unwrap();
    let unit = HOLE_BYTES_MIN;
    file.set_len(20 * unit).unwrap();
    // Data at units 0, 3, 5 and 9; holes of 2, 1, 3 and 10 units between and behind.
    for at in [0, 3, 5, 9] {
        file.write_all_at(&vec![1; unit as usize], at * unit).unwrap();
    }
    let source = open(home.path(), "/sparse", 0, 20 * unit).unwrap();
    let holes = |units: &[(u64, u64)]| {
        units.iter().map(|(a, b)| Span::new(a * unit, b * unit)).collect::<Vec<_>>()
    };
    assert_eq!(source.holes(100).unwrap(), holes(&[(1, 3), (4, 5), (6, 9), (10, 20)]));
    assert_eq!(source.holes(2).unwrap(), holes(&[(6, 9), (10, 20)]));
    assert_eq!(source.holes(0).unwrap(), []);

    // Relative to the row, which starts inside the first hole and ends one byte before the rest of
    // the last hole would be large enough.
    let odd = open(home.path(), "/sparse", 2 * unit - 1, 9 * unit).unwrap();
    let expected = [
        Span::new(0, unit + 1),
        Span::new(2 * unit + 1, 3 * unit + 1),
        Span::new(4 * unit + 1, 7 * unit + 1),
    ];
    assert_eq!(odd.holes(100).unwrap(), expected);
}

#[test]
fn patterns_have_no_file_and_null_has_no_bytes() {
    let root = StoreRoots::of(Path::new("/")).unwrap();
    let pattern = Source::open(&root, &DataUri::Pattern(7), 0, 1 << 40).unwrap();
    assert!(pattern.files().is_empty() && pattern.holes(10).unwrap().is_empty());
    pattern.check_unchanged().unwrap();
    assert_eq!(Source::open(&root, &DataUri::Null, 0, 1).unwrap_err().code, Code::Usage);
}

//! Destinations: nothing half-named, every refusal with its reason.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use nix::errno::Errno;

use super::{Mounted, announce, directory, kept, names, options, overwriting, prepare, synced};
use crate::core::error::Code;
use crate::core::spec::DataUri;
use crate::core::units::{MIB, Span};
use crate::io::store::{Sink, SinkOptions, StoreRoots};

fn write(sink: &Sink, bytes: &[u8], at: u64) {
    let file = File::from(sink.files()[0].buffered().try_clone_to_owned().unwrap());
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn a_file_has_its_name_only_when_complete() {
    let home = directory();
    let sink = prepare(home.path(), "/x", 5, &synced(options(), true)).unwrap();
    assert_eq!(names(home.path()), [".x.cep-ab12"]);
    sink.preallocate(&[Span::new(0, 5)]).unwrap();
    write(&sink, b"hello", 0);
    sink.sync().unwrap();
    sink.commit().unwrap();
    drop(sink);
    assert_eq!(names(home.path()), ["x"]);
    assert_eq!(fs::read(home.path().join("x")).unwrap(), b"hello");
}

#[test]
fn a_dropped_sink_leaves_nothing() {
    let home = directory();
    drop(prepare(home.path(), "/x", 5, &options()).unwrap());
    assert!(names(home.path()).is_empty());
}

#[test]
fn an_existing_file_is_replaced_only_when_asked() {
    let home = directory();
    let path = home.path().join("x");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o440)).unwrap();
    let error = prepare(home.path(), "/x", 5, &options()).unwrap_err();
    assert_eq!(error.to_string(), "/x exists (use --overwrite to replace it)");
    assert_eq!(error.code, Code::Data);

    let sink = prepare(home.path(), "/x", 5, &overwriting(options())).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    write(&sink, b"newer", 0);
    sink.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"newer");
    assert_eq!(names(home.path()), ["x"]);
}

#[test]
fn a_name_taken_meanwhile_is_not_replaced() {
    let home = directory();
    let sink = prepare(home.path(), "/x", 5, &options()).unwrap();
    fs::write(home.path().join("x"), "mine").unwrap();
    let error = sink.commit().unwrap_err();
    assert_eq!(error.to_string(), "/x exists (use --overwrite to replace it)");
    assert_eq!(names(home.path()), ["x"]);
    assert_eq!(fs::read(home.path().join("x")).unwrap(), b"mine");
}

#[test]
fn places_that_can_take_no_file_are_named() {
    let home = directory();
    fs::create_dir(home.path().join("directory")).unwrap();
    fs::write(home.path().join("file"), "").unwrap();
    nix::unistd::mkfifo(&home.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(home.path().join("socket")).unwrap();
    let long = format!("/{}", "n".repeat(256));
    let table = [
        ("/missing/x", "the directory /missing is missing"),
        ("/file/x", "/file cannot be entered: a part of it is not a directory"),
        ("/directory", "/directory is a directory"),
        ("/", "/ is a directory"),
        ("/pipe", "/pipe is a pipe, not a file"),
        ("/socket", "/socket is a socket, not a file"),
        (long.as_str(), "cannot be written: a name in it is too long"),
    ];
    for (path, message) in table {
        let error = prepare(home.path(), path, 5, &overwriting(options())).unwrap_err();
        assert_eq!(error.code, Code::Data, "{error}");
        assert!(error.message.ends_with(message) && error.remedy.is_some(), "{error}");
    }
    assert_eq!(names(home.path()), ["directory", "file", "pipe", "socket"]);
    let huge = prepare(home.path(), "/x", u64::MAX, &options()).unwrap_err();
    assert_eq!(huge.message, "/x cannot be sized: larger than the file system allows");
    assert_eq!(names(home.path()), ["directory", "file", "pipe", "socket"]);
}

#[test]
fn the_longest_name_still_has_a_partial_file() {
    let home = directory();
    let name = "n".repeat(255);
    let sink = prepare(home.path(), &format!("/{name}"), 5, &options()).unwrap();
    sink.commit().unwrap();
    assert_eq!(names(home.path()), [name]);
}

#[test]
fn a_link_is_replaced_and_not_what_it_leads_to() {
    let home = directory();
    fs::write(home.path().join("target"), "kept").unwrap();
    symlink("target", home.path().join("link")).unwrap();
    assert!(prepare(home.path(), "/link", 5, &options()).is_err());
    prepare(home.path(), "/link", 5, &overwriting(options())).unwrap().commit().unwrap();
    assert_eq!(fs::read(home.path().join("target")).unwrap(), b"kept");
    assert_eq!(fs::symlink_metadata(home.path().join("link")).unwrap().len(), 5);
}

#[test]
fn a_new_attempt_fences_the_old() {
    let home = directory();
    let old = prepare(home.path(), "/x", 5, &options()).unwrap();
    let new =
        prepare(home.path(), "/x", 5, &SinkOptions { attempt: [2; 16], ..options() }).unwrap();
    write(&old, b"stale", 0);
    write(&new, b"fresh", 0);
    let error = old.commit().unwrap_err();
    assert!(error.message.contains("another attempt"), "{error}");
    drop(old);
    new.commit().unwrap();
    assert_eq!(fs::read(home.path().join("x")).unwrap(), b"fresh");
    assert_eq!(names(home.path()), ["x"]);
}

#[test]
fn only_data_is_given_room() {
    let home = directory();
    let sink = prepare(home.path(), "/x", 64 * MIB, &options()).unwrap();
    sink.preallocate(&[Span::new(0, MIB), Span::new(10, 10), Span::new(63 * MIB, 64 * MIB)])
        .unwrap();
    sink.zero(&[Span::new(MIB, 63 * MIB)]).unwrap();
    sink.commit().unwrap();
    let about = fs::metadata(home.path().join("x")).unwrap();
    assert_eq!(about.len(), 64 * MIB);
    assert!(about.blocks() * 512 < 4 * MIB, "{} blocks", about.blocks());
}

#[test]
fn a_full_disk_is_known_before_the_bytes_move() {
    let Some(disk) = Mounted::tmpfs("size=1m") else { return };
    let sink = prepare(disk.path(), "/x", 8 * MIB, &options()).unwrap();
    let error = sink.preallocate(&[Span::new(0, 8 * MIB)]).unwrap_err();
    assert_eq!(error.code, Code::Data);
    assert!(error.message.starts_with("the disk is full: /x needs 8.00 MiB, "), "{error}");
    assert_eq!(sink.write_failed(Errno::ENOSPC).message, "/x cannot be written: the disk is full");
    drop(sink);
    assert!(names(disk.path()).is_empty());
}

#[test]
fn a_disk_without_inodes_is_not_called_full() {
    let Some(disk) = Mounted::tmpfs("nr_inodes=2") else { return };
    fs::write(disk.path().join("last"), "").unwrap();
    let error = prepare(disk.path(), "/x", 5, &options()).unwrap_err();
    let message =
        "/ cannot be written to: its file system has no inodes left, so no file more fits";
    assert_eq!((error.code, error.message.as_str()), (Code::Data, message));
    assert!(error.remedy.unwrap().contains("df -i"));
}

#[test]
fn an_attempt_that_finds_no_room_takes_none() {
    let Some(disk) = Mounted::tmpfs("size=4m") else { return };
    let sink = prepare(disk.path(), "/x", 8 * MIB, &options()).unwrap();
    let halves = [Span::new(0, 3 * MIB), Span::new(3 * MIB, 8 * MIB)];
    let error = sink.preallocate(&halves).unwrap_err();
    // The room that is named as free is that before the attempt.
    assert!(
        error.message.starts_with("the disk is full: /x needs 8.00 MiB, 4.00 MiB are free"),
        "{error}"
    );
    // The partial file may stay for another attempt, and must not fill the disk until then.
    fs::write(disk.path().join("other"), vec![1; 3 << 20]).unwrap();
}

#[test]
fn an_empty_file_takes_the_same_way_as_every_other() {
    let home = directory();
    let outside = directory();
    fs::write(outside.path().join("victim"), "kept").unwrap();
    symlink(outside.path().join("victim"), home.path().join("out")).unwrap();
    fs::write(home.path().join("here"), "kept").unwrap();
    symlink("here", home.path().join("link")).unwrap();
    nix::unistd::mkfifo(&home.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let over = overwriting(synced(options(), true));
    let refused = [
        ("/out", Code::Refused),
        ("/../x", Code::Refused),
        ("/pipe", Code::Data),
        ("/", Code::Data),
    ];
    for (path, code) in refused {
        assert_eq!(prepare(home.path(), path, 0, &over).unwrap_err().code, code, "{path}");
    }
    assert_eq!(prepare(home.path(), "/here", 0, &options()).unwrap_err().message, "/here exists");
    for path in ["/link", "/here", "/new"] {
        let sink = prepare(home.path(), path, 0, &over).unwrap();
        sink.set_mode(0o600);
        sink.begin(kept(&[]), true).unwrap();
        sink.preallocate(&[]).unwrap();
        sink.sync().unwrap();
        assert!(path != "/link" || fs::read(home.path().join("here")).unwrap() == b"kept");
        sink.commit().unwrap();
        let about = fs::symlink_metadata(home.path().join(&path[1..])).unwrap();
        assert!(
            about.is_file() && about.len() == 0 && about.mode() & 0o777 == 0o600,
            "{path}: {about:?}"
        );
    }
    assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"kept");
    assert_eq!(names(home.path()), ["here", "link", "new", "out", "pipe"]);
    let dropped = prepare(home.path(), "/gone", 0, &options()).unwrap();
    drop(dropped);
    assert!(!home.path().join("gone").exists());
}

#[test]
fn a_read_only_directory_is_named() {
    let Some(disk) = Mounted::tmpfs("size=1m") else { return };
    fs::create_dir(disk.path().join("d")).unwrap();
    disk.remount_read_only();
    let error = prepare(disk.path(), "/d/x", 5, &options()).unwrap_err();
    let message = "/d cannot be written to: the file system is read-only";
    assert_eq!((error.code, error.message.as_str()), (Code::Data, message));
}

#[test]
fn a_directory_that_denies_access_is_named() {
    if nix::unistd::geteuid().is_root() {
        return announce("skipped: nothing is denied to root");
    }
    let home = directory();
    let locked = home.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o500)).unwrap();
    let error = prepare(home.path(), "/locked/x", 5, &options()).unwrap_err();
    let message = "/locked cannot be written to: permission denied";
    assert_eq!((error.code, error.message.as_str()), (Code::Data, message));
}

#[test]
fn null_takes_everything_and_patterns_nothing() {
    let home = directory();
    let root = StoreRoots::of(home.path()).unwrap();
    let null = Sink::prepare(&root, &DataUri::Null, 1 << 40, &options()).unwrap();
    assert!(null.files().is_empty() && null.is_fresh() && !null.is_shared());
    null.preallocate(&[Span::new(0, 1 << 40)]).unwrap();
    null.commit().unwrap();
    assert_eq!(
        Sink::prepare(&root, &DataUri::Pattern(1), 5, &options()).unwrap_err().code,
        Code::Usage
    );
}

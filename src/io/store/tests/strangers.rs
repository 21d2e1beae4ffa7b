//! Files that others have put under this program's names: never resumed, never written to, and
//! named.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::resumed::{BYTES, keeping, land, record};
use super::{announce, directory, kept, kept_as, names, overwriting, prepare};
use crate::core::store::writer::WriterRole;
use crate::core::units::Span;
use crate::io::store::journal::forged;
use crate::io::store::{JournalDoubt, JournalIdentity, SealKey, Sink, SinkOptions};

const PARTIAL: &str = ".x.cep-ab12";
const JOURNAL: &str = ".x.cep-ab12.journal";
const TOKEN: &str = ".x.cep-ab12.token";

fn open(home: &Path, attempt: u8) -> Sink {
    prepare(home, "/x", BYTES, &keeping(attempt)).unwrap()
}

/// An attempt that lands a range and is interrupted.
fn interrupted(home: &Path) {
    let sink = open(home, 1);
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, 10_000), b'a');
    drop(sink);
    assert_eq!(names(home), [PARTIAL, JOURNAL]);
}

/// Checks that after `meddle` all starts again in a new file, and that the note has the `reason`.
fn starts_again(reason: &str, meddle: &dyn Fn(&Path)) {
    let home = directory();
    interrupted(home.path());
    // While it is open no other file can have its inode number.
    let old = File::open(home.path().join(PARTIAL)).unwrap();
    meddle(home.path());
    let sink = open(home.path(), 2);
    assert!(sink.found().is_empty() && sink.is_fresh(), "{reason}");
    let said = sink.refused().unwrap();
    assert!(said.contains(reason), "{said}, not {reason}");
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, BYTES), b'c');
    sink.commit().unwrap();
    sink.confirm();
    let x = home.path().join("x");
    assert!(
        fs::metadata(&x).unwrap().is_file()
            && fs::metadata(&x).unwrap().ino() != old.metadata().unwrap().ino()
    );
    assert_eq!(fs::read(&x).unwrap(), vec![b'c'; BYTES as usize]);
    assert!(
        !names(home.path()).iter().any(|name| name.starts_with(".x.cep-")),
        "{:?}",
        names(home.path())
    );
}

fn planted(name: &'static str, kind: &'static str, plant: impl Fn(&Path)) {
    starts_again(&format!("{name} {kind}"), &|home| {
        let path = home.join(name);
        fs::rename(&path, home.join("moved")).unwrap();
        plant(&path);
    });
}

#[test]
fn what_is_no_regular_file_is_replaced_and_never_opened() {
    for name in [PARTIAL, JOURNAL] {
        planted(name, "is no regular file", |path| {
            mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap();
        });
        planted(name, "is no regular file", |path| symlink("moved", path).unwrap());
        planted(name, "is no regular file", |path| symlink("nowhere", path).unwrap());
        planted(name, "is no regular file", |path| fs::create_dir(path).unwrap());
        planted(name, "is no regular file", |path| {
            drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        });
    }
}

/// Bytes were written through a hard link to the file of another name.
#[test]
fn a_hard_link_to_another_file_leaves_that_as_it_is() {
    starts_again(&format!("{PARTIAL} has a second name"), &|home| {
        fs::write(home.join("victim"), vec![b'v'; BYTES as usize]).unwrap();
        fs::remove_file(home.join(PARTIAL)).unwrap();
        fs::hard_link(home.join("victim"), home.join(PARTIAL)).unwrap();
    });
    for name in [PARTIAL, JOURNAL] {
        starts_again(&format!("{name} has a second name"), &|home| {
            fs::hard_link(home.join(name), home.join("other")).unwrap();
        });
    }
    let home = directory();
    fs::write(home.path().join("victim"), vec![b'v'; BYTES as usize]).unwrap();
    fs::hard_link(home.path().join("victim"), home.path().join(PARTIAL)).unwrap();
    let sink = open(home.path(), 1);
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, BYTES), b'c');
    assert_eq!(fs::read(home.path().join("victim")).unwrap(), vec![b'v'; BYTES as usize]);
}

#[test]
fn what_belongs_to_others_or_may_be_written_by_them_is_replaced() {
    for name in [PARTIAL, JOURNAL] {
        for mode in [0o620, 0o602, 0o666] {
            starts_again(&format!("{name} may be written by others"), &|home| {
                fs::set_permissions(home.join(name), Permissions::from_mode(mode)).unwrap();
            });
        }
        if nix::unistd::geteuid().is_root() {
            starts_again(&format!("{name} belongs to another user"), &|home| {
                chown(home.join(name), Some(65_534), None).unwrap();
            });
        } else {
            announce("skipped: giving a file away takes root");
        }
    }
}

#[test]
fn a_journal_that_is_not_sealed_with_the_key_is_not_believed_whoever_owns_it() {
    for key in [None, Some(SealKey::of_test(77))] {
        starts_again("not sealed with this user's key", &|home| {
            let path = home.join(JOURNAL);
            let bytes = forged(&fs::read(&path).unwrap(), key.as_ref());
            fs::write(&path, bytes).unwrap();
        });
    }
}

/// Reading it took as much memory as it was long.
#[test]
fn a_journal_longer_than_its_rows_can_make_it_is_not_read() {
    starts_again("longer than its rows can make it", &|home| {
        fs::OpenOptions::new()
            .write(true)
            .open(home.join(JOURNAL))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
    });
    starts_again("its journal is none", &|home| {
        let planted = File::create(home.join(JOURNAL)).unwrap();
        fs::set_permissions(home.join(JOURNAL), Permissions::from_mode(0o600)).unwrap();
        planted.set_len(1 << 40).unwrap();
    });
}

/// Without a key records are compared with the file before they are believed.
#[test]
fn without_a_key_ownership_decides_and_what_is_found_is_in_doubt() {
    let home = directory();
    let options = |attempt: u8| {
        let keep = kept_as(3).map(|keeping| JournalIdentity { key: None, ..keeping });
        SinkOptions { keep, ..keeping(attempt) }
    };
    let sink = prepare(home.path(), "/x", BYTES, &options(1)).unwrap();
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, 10_000), b'a');
    drop(sink);
    let sink = prepare(home.path(), "/x", BYTES, &options(2)).unwrap();
    assert_eq!((sink.found(), sink.doubt()), (&[record(0, 10_000)][..], Some(JournalDoubt::Seal)));
    assert!(!sink.is_sealed());
    drop(sink);
    let sink = open(home.path(), 3);
    assert!(sink.found().is_empty(), "one who has a key does not believe what anybody can write");
}

/// A user who can read the attempt's token could put it beside a file of their own.
#[test]
fn a_token_that_others_have_made_or_may_write_is_none() {
    let home = directory();
    let follower = || {
        prepare(home.path(), "/x", 5, &SinkOptions { role: WriterRole::Follower(7), ..keeping(1) })
            .unwrap()
    };
    let plant = |mode: u32| {
        let token = home.path().join(TOKEN);
        fs::write(&token, [1; 16]).unwrap();
        fs::set_permissions(&token, Permissions::from_mode(mode)).unwrap();
        token
    };
    fs::write(home.path().join(PARTIAL), "planted").unwrap();
    fs::remove_file(plant(0o666)).unwrap();
    plant(0o666);
    assert!(!follower().is_shared());
    plant(0o600);
    fs::hard_link(home.path().join(TOKEN), home.path().join("other")).unwrap();
    assert!(!follower().is_shared());
    fs::remove_file(home.path().join(TOKEN)).unwrap();
    mkfifo(&home.path().join(TOKEN), Mode::from_bits_truncate(0o600)).unwrap();
    assert!(!follower().is_shared());
    let leader =
        prepare(home.path(), "/x", 5, &SinkOptions { role: WriterRole::Leader, ..keeping(1) })
            .unwrap();
    assert_eq!(fs::metadata(home.path().join(TOKEN)).unwrap().permissions().mode() & 0o777, 0o600);
    drop(leader);
}

#[test]
fn a_folder_in_the_way_that_cannot_be_removed_is_named() {
    let home = directory();
    fs::create_dir(home.path().join(PARTIAL)).unwrap();
    fs::write(home.path().join(PARTIAL).join("file"), "").unwrap();
    let error = prepare(home.path(), "/x", BYTES, &keeping(1)).unwrap_err();
    assert!(error.message.contains("/.x.cep-ab12"), "{}", error.message);
    assert!(error.remedy.is_some(), "{error:?}");
}

/// `touch -r` restores the time of the last write. Nothing restores the time of the last change.
fn rewrite(path: &Path, bytes: &[u8], at: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.set_modified(before).unwrap();
    drop(file);
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), before);
}

#[test]
fn a_partial_file_that_was_changed_is_read_before_it_is_believed() {
    let home = directory();
    let meddled = |meddle: &dyn Fn(&Path)| {
        interrupted(home.path());
        let sink = open(home.path(), 2);
        assert_eq!(sink.doubt(), None, "as it was left");
        drop(sink);
        meddle(&home.path().join(PARTIAL));
        let sink = open(home.path(), 3);
        assert_eq!((sink.found().len(), sink.doubt()), (1, Some(JournalDoubt::Change)));
        drop(sink);
        names(home.path()).iter().for_each(|name| fs::remove_file(home.path().join(name)).unwrap());
    };
    meddled(&|partial| rewrite(partial, &[0; 100], 50));
    meddled(&|partial| {
        let file = fs::OpenOptions::new().write(true).open(partial).unwrap();
        file.set_len(5000).unwrap();
        file.set_len(BYTES).unwrap();
    });
    meddled(&|partial| {
        let file = File::open(partial).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    });
}

/// A node that was killed could not record how it left the file.
#[test]
fn what_a_killed_attempt_left_is_in_doubt_and_not_thrown_away() {
    let home = directory();
    let sink = open(home.path(), 1);
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, 10_000), b'a');
    sink.flush();
    sink.crash();
    drop(sink);
    let sink = open(home.path(), 2);
    assert_eq!(
        (sink.found(), sink.doubt()),
        (&[record(0, 10_000)][..], Some(JournalDoubt::Change))
    );
    assert!(sink.refused().is_none());
    // This attempt ends in order, and the next one has no doubt.
    sink.begin(kept(&[Span::new(0, 10_000)]), false).unwrap();
    drop(sink);
    assert_eq!(open(home.path(), 3).doubt(), None);
}

#[test]
fn a_complete_file_that_was_changed_without_a_trace_is_read_before_it_counts() {
    let home = directory();
    let sink = open(home.path(), 1);
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, BYTES), b'a');
    sink.commit().unwrap();
    drop(sink);
    assert_eq!(open(home.path(), 2).doubt(), None);
    rewrite(&home.path().join("x"), b"changed", 5000);
    let sink = open(home.path(), 3);
    assert!(sink.is_named());
    assert_eq!(sink.doubt(), Some(JournalDoubt::Change));
}

/// It lost its name and was written to in place: programs that had it open saw it change, and a
/// failure left nothing.
#[test]
fn a_complete_file_is_never_opened_for_writing_again() {
    let home = directory();
    let complete = || {
        let sink = open(home.path(), 1);
        sink.begin(kept(&[]), false).unwrap();
        land(&sink, record(0, BYTES), b'a');
        sink.commit().unwrap();
    };
    complete();
    let x = home.path().join("x");
    let reader = File::open(&x).unwrap();
    let is_old = |file: &File| {
        let mut bytes = vec![0; BYTES as usize];
        file.read_exact_at(&mut bytes, 0).is_ok() && bytes.iter().all(|byte| *byte == b'a')
    };
    let sink = open(home.path(), 2);
    let error = sink.begin(kept(&[]), false).unwrap_err();
    assert!(error.message.starts_with("/x exists"), "{}", error.message);
    drop(sink);
    assert!(is_old(&File::open(&x).unwrap()));
    assert_eq!(names(home.path()), [JOURNAL, "x"]);
    // With --overwrite a new file is written beside it. A failure leaves the old one.
    let sink = prepare(home.path(), "/x", BYTES, &overwriting(keeping(3))).unwrap();
    assert!(sink.is_named() && sink.found() == [record(0, BYTES)], "it may all be still good");
    sink.begin(kept(&[]), false).unwrap();
    assert!(sink.is_fresh() && !sink.is_named());
    land(&sink, record(0, 10_000), b'b');
    assert!(is_old(&File::open(&x).unwrap()));
    drop(sink);
    assert!(is_old(&File::open(&x).unwrap()));
    // An attempt that was begun with --overwrite is continued without.
    let sink = open(home.path(), 4);
    assert_eq!(sink.found(), [record(0, 10_000)]);
    sink.begin(kept(&[Span::new(0, 10_000)]), false).unwrap();
    land(&sink, record(10_000, BYTES - 10_000), b'b');
    sink.commit().unwrap();
    sink.confirm();
    assert_eq!(names(home.path()), ["x"]);
    assert_eq!(fs::read(&x).unwrap(), vec![b'b'; BYTES as usize]);
    assert!(is_old(&reader), "who had the old file open still sees it");
}

/// The flag was needed again to continue an attempt that had it.
#[test]
fn an_attempt_with_overwrite_is_continued_without_it_and_nothing_else_is() {
    let home = directory();
    fs::write(home.path().join("x"), "old").unwrap();
    assert_eq!(prepare(home.path(), "/x", BYTES, &keeping(1)).unwrap_err().message, "/x exists");
    let sink = prepare(home.path(), "/x", BYTES, &overwriting(keeping(1))).unwrap();
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, 10_000), b'a');
    drop(sink);
    for attempt in 2..4 {
        let sink = open(home.path(), attempt);
        assert_eq!(sink.found(), [record(0, 10_000)]);
        sink.begin(kept(&[Span::new(0, 10_000)]), false).unwrap();
        drop(sink);
    }
    let sink = open(home.path(), 4);
    sink.begin(kept(&[Span::new(0, 10_000)]), false).unwrap();
    land(&sink, record(10_000, BYTES - 10_000), b'b');
    sink.commit().unwrap();
    sink.confirm();
    assert_eq!(fs::metadata(home.path().join("x")).unwrap().len(), BYTES);
    // That attempt is over. An attempt that was begun without the flag does not replace a file that
    // has come since.
    assert_eq!(prepare(home.path(), "/x", BYTES, &keeping(5)).unwrap_err().message, "/x exists");
    fs::remove_file(home.path().join("x")).unwrap();
    interrupted(home.path());
    fs::write(home.path().join("x"), "another's").unwrap();
    assert_eq!(prepare(home.path(), "/x", BYTES, &keeping(6)).unwrap_err().message, "/x exists");
    assert_eq!(names(home.path()), [PARTIAL, JOURNAL, "x"], "what was interrupted is still there");
}

//! Leftovers of one attempt, found by another.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::{directory, kept, kept_as, names, options, overwriting, prepare, synced};
use crate::core::error::Code;
use crate::core::store::writer::WriterRole;
use crate::core::units::Span;
use crate::io::store::{JournalRecord, RangeOrigin, Sink, SinkOptions, partials_of_others};

pub(super) const BYTES: u64 = 40_000;

pub(super) fn keeping(attempt: u8) -> SinkOptions {
    SinkOptions { keep: kept_as(3), attempt: [attempt; 16], ..options() }
}

fn open(home: &Path, attempt: u8) -> Sink {
    prepare(home, "/x", BYTES, &keeping(attempt)).unwrap()
}

pub(super) fn record(start: u64, bytes: u64) -> JournalRecord {
    JournalRecord {
        span: Span::of(start, bytes),
        check: [9; 32],
        origin: RangeOrigin { who: 1, state: 2 },
    }
}

pub(super) fn land(sink: &Sink, record: JournalRecord, byte: u8) {
    let file = File::from(sink.files()[0].buffered().try_clone_to_owned().unwrap());
    let bytes = vec![byte; usize::try_from(record.span.bytes()).unwrap()];
    file.write_all_at(&bytes, record.span.start).unwrap();
    sink.keep(std::iter::once(record));
}

/// An attempt that lands two ranges and is interrupted.
fn interrupted(home: &Path, fsync: bool) -> u64 {
    let sink = prepare(home, "/x", BYTES, &synced(keeping(1), fsync)).unwrap();
    assert!(sink.keeps() && sink.is_fresh());
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, 10_000), b'a');
    sink.flush();
    land(&sink, record(10_000, 5000), b'b');
    drop(sink);
    assert_eq!(names(home), [".x.cep-ab12", ".x.cep-ab12.journal"]);
    fs::metadata(home.join(".x.cep-ab12")).unwrap().ino()
}

#[test]
fn another_attempt_goes_on_with_the_same_file() {
    for fsync in [false, true] {
        let home = directory();
        let inode = interrupted(home.path(), fsync);
        let sink = open(home.path(), 2);
        assert_eq!(sink.found(), [record(0, 10_000), record(10_000, 5000)]);
        assert!(sink.doubt().is_none() && !sink.is_fresh() && sink.refused().is_none());
        sink.begin(kept(&[Span::new(0, 15_000)]), false).unwrap();
        land(&sink, record(15_000, 25_000), b'c');
        sink.commit().unwrap();
        let x = home.path().join("x");
        assert_eq!(
            (fs::metadata(&x).unwrap().ino(), fs::metadata(&x).unwrap().len()),
            (inode, BYTES)
        );
        assert_eq!(names(home.path()), [".x.cep-ab12.journal", "x"], "until everybody has landed");
        sink.confirm();
        assert_eq!(names(home.path()), ["x"]);
        let bytes = fs::read(&x).unwrap();
        assert!(
            bytes[..10_000].iter().all(|byte| *byte == b'a')
                && bytes[15_000..].iter().all(|byte| *byte == b'c')
        );
    }
}

#[test]
fn an_attempt_that_fails_before_it_begins_loses_nothing() {
    let home = directory();
    interrupted(home.path(), false);
    drop(open(home.path(), 2));
    assert_eq!(open(home.path(), 3).found().len(), 2);
}

/// A token tells other nodes that the partial file is this attempt's. It is of no use to the next
/// attempt.
#[test]
fn what_is_left_to_another_attempt_is_left_without_a_token() {
    let home = directory();
    let leader = |attempt| {
        let options = SinkOptions { role: WriterRole::Leader, ..keeping(attempt) };
        prepare(home.path(), "/x", BYTES, &options).unwrap()
    };
    let sink = leader(1);
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, 10_000), b'a');
    sink.discard(false);
    drop(sink);
    assert_eq!(names(home.path()), [".x.cep-ab12", ".x.cep-ab12.journal"]);
    let sink = leader(2);
    sink.begin(kept(&[Span::new(0, 10_000)]), false).unwrap();
    land(&sink, record(10_000, 30_000), b'b');
    sink.commit().unwrap();
    drop(sink);
    // An attempt that finds all complete and ends before it begins.
    let sink = leader(3);
    assert!(sink.is_named(), "and nobody writes to it again");
    sink.discard(false);
    drop(sink);
    assert_eq!(names(home.path()), [".x.cep-ab12.journal", "x"]);
}

#[test]
fn what_starts_again_is_not_good_in_a_third_attempt() {
    let home = directory();
    interrupted(home.path(), false);
    let sink = open(home.path(), 2);
    sink.begin(kept(&[Span::new(0, 10_000)]), false).unwrap();
    drop(sink);
    assert_eq!(open(home.path(), 3).found(), [record(0, 10_000)]);
}

#[test]
fn a_file_that_is_still_written_is_not_gone_on_with() {
    let home = directory();
    let old = open(home.path(), 1);
    old.begin(kept(&[]), false).unwrap();
    land(&old, record(0, 10_000), b'a');
    old.flush();
    let new = open(home.path(), 2);
    assert!(new.found().is_empty() && new.is_fresh());
    let said = new.refused().unwrap();
    assert!(said.contains("/x starts again: an earlier attempt still writes to it"), "{said}");
    new.begin(kept(&[]), false).unwrap();
    land(&old, record(10_000, 5000), b'b');
    old.flush();
    assert!(old.commit().unwrap_err().message.contains("another attempt"));
    drop(old);
    land(&new, record(0, 40_000), b'c');
    new.commit().unwrap();
    new.confirm();
    assert_eq!(names(home.path()), ["x"]);
    assert_eq!(fs::read(home.path().join("x")).unwrap(), vec![b'c'; 40_000]);
}

#[test]
fn other_rows_another_file_or_another_size_start_again_with_a_reason() {
    let other = |options: SinkOptions, bytes: u64, reason: &str, meddle: &dyn Fn(&Path)| {
        let home = directory();
        interrupted(home.path(), false);
        meddle(&home.path().join(".x.cep-ab12"));
        let sink = prepare(home.path(), "/x", bytes, &options).unwrap();
        assert!(sink.found().is_empty() && sink.is_fresh());
        let said = sink.refused().unwrap();
        assert!(said.contains(reason), "{said}");
    };
    let nothing = |_: &Path| {};
    let rows = SinkOptions { keep: kept_as(4), ..keeping(2) };
    other(rows, BYTES, "other rows or options", &nothing);
    other(keeping(2), BYTES + 1, "another size", &nothing);
    other(keeping(2), BYTES, "not the one it was written for", &|partial| {
        let copy = partial.with_file_name("copy");
        fs::copy(partial, &copy).unwrap();
        fs::rename(&copy, partial).unwrap();
    });
}

#[test]
fn a_complete_file_counts_until_somebody_changes_it() {
    let home = directory();
    let complete = || {
        let sink = open(home.path(), 1);
        sink.begin(kept(&[]), false).unwrap();
        land(&sink, record(0, BYTES), b'a');
        sink.commit().unwrap();
    };
    complete();
    let again = open(home.path(), 2);
    assert_eq!(again.found(), [record(0, BYTES)]);
    assert!(again.is_named());
    again.begin(kept(&[Span::new(0, BYTES)]), true).unwrap();
    again.commit().unwrap();
    drop(again);
    let third = open(home.path(), 3);
    assert!(third.is_named(), "as often as it takes");
    drop(third);
    assert!(open(home.path(), 4).is_named());
    fs::write(home.path().join("x"), "the user's own").unwrap();
    let error = prepare(home.path(), "/x", BYTES, &keeping(5)).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::Data, "/x exists"));
    assert_eq!(fs::read(home.path().join("x")).unwrap(), b"the user's own");
}

#[test]
fn an_attempt_in_which_nothing_landed_leaves_nothing() {
    let home = directory();
    let sink = open(home.path(), 1);
    sink.begin(kept(&[]), false).unwrap();
    drop(sink);
    assert!(names(home.path()).is_empty());
}

#[test]
fn a_torn_record_is_cut_and_the_rest_believed() {
    let home = directory();
    interrupted(home.path(), false);
    let journal = home.path().join(".x.cep-ab12.journal");
    let bytes = fs::metadata(&journal).unwrap().len();
    // The last record has the state of the file, and no range.
    fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(bytes - 65).unwrap();
    let sink = open(home.path(), 2);
    assert_eq!(sink.found(), [record(0, 10_000)]);
    sink.begin(kept(&[Span::new(0, 10_000)]), false).unwrap();
    land(&sink, record(10_000, 5000), b'b');
    drop(sink);
    assert_eq!(open(home.path(), 3).found().len(), 2);
}

/// The second attempt gave it its size again, and the third did not recognise it.
#[test]
fn a_file_that_is_all_holes_is_complete_as_often_as_it_is_opened() {
    let home = directory();
    let first = open(home.path(), 1);
    first.begin(kept(&[]), true).unwrap();
    first.commit().unwrap();
    drop(first);
    for attempt in 2..4 {
        let sink = open(home.path(), attempt);
        assert!(sink.is_named() && !sink.is_fresh(), "attempt {attempt}");
    }
}

fn over(home: &Path, attempt: u8) -> Sink {
    prepare(home, "/x", BYTES, &overwriting(keeping(attempt))).unwrap()
}

/// A complete file whose end nobody has heard of.
fn unconfirmed(home: &Path) -> u64 {
    let sink = open(home, 1);
    sink.begin(kept(&[]), false).unwrap();
    land(&sink, record(0, 10_000), b'a');
    land(&sink, record(10_000, BYTES - 10_000), b'b');
    sink.commit().unwrap();
    drop(sink);
    assert_eq!(names(home), [".x.cep-ab12.journal", "x"]);
    fs::metadata(home.join("x")).unwrap().ino()
}

/// With `--overwrite` it was fetched again, although all of it was there.
#[test]
fn a_complete_file_that_nobody_confirmed_stands_although_it_may_be_overwritten() {
    let home = directory();
    let inode = unconfirmed(home.path());
    let sink = over(home.path(), 2);
    assert_eq!(sink.found(), [record(0, 10_000), record(10_000, BYTES - 10_000)]);
    assert!(sink.is_named() && sink.doubt().is_none() && !sink.is_fresh());
    sink.begin(kept(&[Span::new(0, BYTES)]), true).unwrap();
    assert!(!sink.is_replaced());
    sink.preallocate(&[]).unwrap();
    sink.commit().unwrap();
    assert_eq!(names(home.path()), [".x.cep-ab12.journal", "x"], "no file was made beside it");
    sink.confirm();
    drop(sink);
    assert_eq!(names(home.path()), ["x"]);
    assert_eq!(fs::metadata(home.path().join("x")).unwrap().ino(), inode);
}

#[test]
fn a_complete_file_that_is_replaced_gives_the_new_one_what_is_kept_of_it() {
    for completes in [false, true] {
        let home = directory();
        let inode = unconfirmed(home.path());
        let x = home.path().join("x");
        let sink = over(home.path(), 2);
        // The attempt fails before it begins: nothing is made, nothing is lost.
        drop(sink);
        assert_eq!(names(home.path()), [".x.cep-ab12.journal", "x"]);
        let sink = over(home.path(), 3);
        sink.begin(kept(&[Span::new(0, 10_000)]), false).unwrap();
        assert!(sink.is_replaced() && !sink.is_named());
        assert_eq!(names(home.path()), [".x.cep-ab12", ".x.cep-ab12.journal", "x"]);
        if completes {
            land(&sink, record(10_000, BYTES - 10_000), b'c');
            sink.commit().unwrap();
            sink.confirm();
            let bytes = fs::read(&x).unwrap();
            let is_new = |(at, byte): (usize, &u8)| *byte == if at < 10_000 { b'a' } else { b'c' };
            assert!(bytes.len() as u64 == BYTES && bytes.iter().enumerate().all(is_new));
            assert_eq!(names(home.path()), ["x"]);
        } else {
            drop(sink);
            assert_eq!(fs::metadata(&x).unwrap().ino(), inode, "a failure leaves it as it was");
            let sink = open(home.path(), 4);
            assert_eq!(sink.found(), [record(0, 10_000)]);
            let partial = fs::read(home.path().join(".x.cep-ab12")).unwrap();
            assert!(partial[..10_000].iter().all(|byte| *byte == b'a'));
        }
    }
}

/// Neither a copy that was overtaken nor one from another source was mentioned to anybody.
#[test]
fn the_partial_file_of_another_transfer_beside_it_is_mentioned_once() {
    let home = directory();
    let tagged = |tag: &str| {
        let tag = tag.repeat(4);
        prepare(home.path(), "/x", BYTES, &SinkOptions { tag, ..keeping(1) }).unwrap()
    };
    let first = tagged("ab12");
    first.begin(kept(&[]), false).unwrap();
    land(&first, record(0, 10_000), b'a');
    first.flush();
    for name in [".y.cep-cd34cd34cd34cd34", ".x.cep-mine", ".x.cep-cd34cd34cd34cd34.claim"] {
        fs::write(home.path().join(name), "another's").unwrap();
    }
    assert!(partials_of_others(std::slice::from_ref(&first)).is_empty(), "it is its own");
    let second = tagged("cd34");
    let told = "/.x.cep-ab12ab12ab12ab12 is of another transfer to /x, which is under way or was \
                interrupted; let it end, run it again, or remove that file";
    assert_eq!(partials_of_others(std::slice::from_ref(&second)), [told]);
    drop(first);
    assert_eq!(partials_of_others(&[tagged("cd34"), second]), [told], "it is what was left, too");
}

/// A cancel discards a destination while a worker still waits for its turn to prepare it.
#[test]
fn a_worker_that_comes_after_the_cancel_is_told_that_the_destination_was_given_up() {
    let home = directory();
    let sink = open(home.path(), 1);
    sink.discard(false);
    assert_eq!(sink.begin(kept(&[]), false).unwrap_err().code, Code::Cancelled);
    assert_eq!(sink.commit().unwrap_err().code, Code::Cancelled);
    assert_eq!(names(home.path()), [""; 0]);
}

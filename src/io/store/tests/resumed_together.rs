//! Leftovers of several nodes that write one file.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::resumed::{BYTES, keeping, land, record};
use super::{directory, kept, names, overwriting, prepare};
use crate::core::store::writer::WriterRole;
use crate::core::units::Span;
use crate::io::store::journal::of_inode;
use crate::io::store::{Sink, SinkOptions};

const PARTIAL: &str = ".x.cep-ab12";
const FIRST: &str = ".x.cep-ab12.journal";
const FOLLOWERS: &str = ".x.cep-ab12.journal-7";
const HALF: u64 = BYTES / 2;

fn open_as(home: &Path, attempt: u8, role: WriterRole) -> Sink {
    prepare(home, "/x", BYTES, &SinkOptions { role, ..keeping(attempt) }).unwrap()
}

/// Both nodes of an attempt: the leader, which wants the first half of the file, and a follower.
fn open(home: &Path, attempt: u8) -> [Sink; 2] {
    let leader = open_as(home, attempt, WriterRole::Leader);
    let follower = open_as(home, attempt, WriterRole::Follower(7));
    assert!(follower.is_shared() && follower.keeps() && !follower.is_fresh());
    [leader, follower]
}

/// An attempt in which the leader lands `firsts` bytes of its half, and the follower `others` of
/// its own.
fn attempt(home: &Path, attempt: u8, firsts: u64, others: u64) -> [Sink; 2] {
    let sinks = open(home, attempt);
    for (sink, (start, bytes)) in sinks.iter().zip([(0, firsts), (HALF, others)]) {
        sink.begin(kept(&[]), false).unwrap();
        if bytes > 0 {
            land(sink, record(start, bytes), attempt);
        }
    }
    sinks
}

/// An attempt that completes the file and is not confirmed.
fn complete(home: &Path) {
    let [leader, follower] = attempt(home, 1, HALF, HALF);
    follower.commit().unwrap();
    leader.commit().unwrap();
}

#[test]
fn each_goes_on_with_what_it_has_written() {
    let home = directory();
    for leaves_first in [0, 1] {
        let [leader, follower] = attempt(home.path(), 1, 5000, 7000);
        if leaves_first == 0 {
            drop(leader);
            drop(follower);
        } else {
            drop(follower);
            drop(leader);
        }
        assert_eq!(names(home.path()), [PARTIAL, FIRST, FOLLOWERS]);
        let [leader, follower] = open(home.path(), 2);
        assert_eq!(
            (leader.found(), follower.found()),
            (&[record(0, 5000)][..], &[record(HALF, 7000)][..])
        );
        assert!(!leader.is_fresh() && leader.refused().is_none() && follower.refused().is_none());
        leader.begin(kept(&[Span::new(0, 5000)]), false).unwrap();
        follower.begin(kept(&[Span::of(HALF, 7000)]), false).unwrap();
        land(&leader, record(5000, HALF - 5000), 2);
        land(&follower, record(HALF + 7000, HALF - 7000), 2);
        follower.commit().unwrap();
        leader.commit().unwrap();
        assert_eq!(names(home.path()), [FIRST, FOLLOWERS, "x"], "until everybody has landed");
        let bytes = fs::read(home.path().join("x")).unwrap();
        assert_eq!(
            (bytes[0], bytes[5000], bytes[HALF as usize], bytes[BYTES as usize - 1]),
            (1, 2, 1, 2)
        );
        follower.confirm();
        leader.confirm();
        drop([leader, follower]);
        assert_eq!(names(home.path()), ["x"]);
        fs::remove_file(home.path().join("x")).unwrap();
    }
}

#[test]
fn what_one_of_them_has_is_enough_to_go_on_with() {
    for (firsts, others) in [(5000, 0), (0, 7000)] {
        let home = directory();
        drop(attempt(home.path(), 1, firsts, others));
        assert!(names(home.path()).contains(&PARTIAL.to_owned()), "{:?}", names(home.path()));
        let [leader, follower] = open(home.path(), 2);
        assert_eq!(
            (leader.found().len(), follower.found().len()),
            (firsts.min(1) as usize, others.min(1) as usize)
        );
        assert!(!leader.is_fresh(), "the other's bytes are in it");
    }
}

#[test]
fn the_last_one_removes_what_nobody_can_go_on_with() {
    for leader_is_last in [false, true] {
        let home = directory();
        let [leader, follower] = attempt(home.path(), 1, 0, 0);
        let (first, last) = if leader_is_last { (follower, leader) } else { (leader, follower) };
        drop(first);
        assert!(names(home.path()).contains(&PARTIAL.to_owned()), "it is still written to");
        drop(last);
        assert!(names(home.path()).is_empty(), "{:?}", names(home.path()));
    }
}

#[test]
fn one_that_has_landed_all_leaves_with_the_others() {
    let home = directory();
    let [leader, follower] = attempt(home.path(), 1, 0, HALF);
    follower.commit().unwrap();
    drop(leader);
    drop(follower);
    assert_eq!(names(home.path()), [PARTIAL, FIRST, FOLLOWERS]);
    let [_elected, follower] = open(home.path(), 2);
    assert_eq!(follower.found(), [record(HALF, HALF)]);
}

#[test]
fn a_file_that_they_have_completed_is_found_complete_by_each_and_keeps_its_name() {
    let home = directory();
    complete(home.path());
    let inode = fs::metadata(home.path().join("x")).unwrap().ino();
    for attempt in 2..4 {
        let sinks = open(home.path(), attempt);
        assert!(sinks.iter().all(|sink| sink.is_named() && sink.doubt().is_none()));
        // The attempt fails before it begins.
        sinks.iter().for_each(|sink| sink.discard(false));
        assert_eq!(names(home.path()), [FIRST, FOLLOWERS, "x"]);
    }
    let [leader, follower] = open(home.path(), 4);
    let all = [Span::new(0, HALF), Span::of(HALF, HALF)];
    for (sink, own) in [&leader, &follower].into_iter().zip(all) {
        assert_eq!(sink.found().iter().map(|record| record.span).collect::<Vec<_>>(), [own]);
        sink.begin(kept(&[own]), true).unwrap();
    }
    follower.commit().unwrap();
    leader.commit().unwrap();
    leader.confirm();
    assert_eq!(
        names(home.path()),
        ["x"],
        "the leader clears up after those that do not hear of the end"
    );
    assert_eq!(fs::metadata(home.path().join("x")).unwrap().ino(), inode);
    follower.confirm();
}

/// The file lost its name, and each node wrote to its part again.
#[test]
fn a_file_that_they_have_completed_is_not_written_to_again_by_any_of_them() {
    let home = directory();
    complete(home.path());
    let before = fs::read(home.path().join("x")).unwrap();
    let [leader, follower] = open(home.path(), 2);
    leader.begin(kept(&[Span::new(0, HALF)]), true).unwrap();
    let error = follower.begin(kept(&[]), false).unwrap_err();
    assert_eq!(error.code, crate::core::error::Code::Data);
    assert!(
        error.message.contains("/x exists: it was completed by an earlier attempt"),
        "{}",
        error.message
    );
    follower.discard(false);
    leader.discard(false);
    assert_eq!(names(home.path()), [FIRST, FOLLOWERS, "x"]);
    // With --overwrite they write another file beside it.
    let options = |role| overwriting(SinkOptions { role, ..keeping(3) });
    let leader = prepare(home.path(), "/x", BYTES, &options(WriterRole::Leader)).unwrap();
    let follower = prepare(home.path(), "/x", BYTES, &options(WriterRole::Follower(7))).unwrap();
    assert!(leader.is_fresh() && follower.found().is_empty());
    for (sink, start) in [(&leader, 0), (&follower, HALF)] {
        sink.begin(kept(&[]), false).unwrap();
        land(sink, record(start, HALF), 3);
    }
    assert_eq!(fs::read(home.path().join("x")).unwrap(), before);
    follower.commit().unwrap();
    leader.commit().unwrap();
    assert_eq!(fs::read(home.path().join("x")).unwrap(), [3; BYTES as usize]);
    leader.confirm();
    follower.discard(false);
    leader.discard(false);
    assert_eq!(names(home.path()), ["x"]);
}

#[test]
fn a_complete_file_that_is_to_have_another_size_is_not_gone_on_with() {
    let home = directory();
    complete(home.path());
    let options = || SinkOptions { role: WriterRole::Leader, ..keeping(2) };
    let error = prepare(home.path(), "/x", BYTES - 1, &options()).unwrap_err();
    assert_eq!(error.message, "/x exists");
    let leader = prepare(home.path(), "/x", BYTES - 1, &overwriting(options())).unwrap();
    assert!(leader.is_fresh());
    leader.begin(kept(&[]), false).unwrap();
    leader.commit().unwrap();
    leader.confirm();
    assert_eq!(names(home.path()), ["x"]);
    assert_eq!(fs::metadata(home.path().join("x")).unwrap().len(), BYTES - 1);
}

/// The inode number of a file that is gone is soon another's.
#[test]
fn a_followers_journal_is_not_believed_of_a_file_that_was_made_anew() {
    let home = directory();
    drop(attempt(home.path(), 1, 5000, 7000));
    let journal = fs::read(home.path().join(FOLLOWERS)).unwrap();
    for name in [PARTIAL, FIRST, FOLLOWERS] {
        fs::remove_file(home.path().join(name)).unwrap();
    }
    let leader = open_as(home.path(), 2, WriterRole::Leader);
    let inode = fs::metadata(home.path().join(PARTIAL)).unwrap().ino();
    fs::write(home.path().join(FOLLOWERS), of_inode(&journal, inode)).unwrap();
    let follower = open_as(home.path(), 2, WriterRole::Follower(7));
    assert!(leader.is_fresh() && follower.found().is_empty());
}

#[test]
fn who_does_not_see_the_others_lock_says_so_and_nothing_is_kept() {
    let home = directory();
    let leader = open_as(home.path(), 1, WriterRole::Leader);
    // As on a file system whose locks reach no further than a machine.
    File::from(leader.files()[0].buffered().try_clone_to_owned().unwrap()).unlock().unwrap();
    let follower = open_as(home.path(), 1, WriterRole::Follower(7));
    assert!(follower.is_shared() && !follower.keeps());
    // The master tells the leader.
    leader.forget().unwrap();
    land(&leader, record(0, HALF), 1);
    drop(follower);
    drop(leader);
    assert!(names(home.path()).is_empty(), "{:?}", names(home.path()));
}

#[test]
fn a_file_that_another_attempts_node_still_writes_is_not_gone_on_with() {
    let home = directory();
    let [leader, old] = attempt(home.path(), 1, 5000, 7000);
    drop(leader);
    let new = open_as(home.path(), 2, WriterRole::Leader);
    assert!(new.refused().unwrap().contains("still writes"), "{:?}", new.refused());
    assert!(new.found().is_empty() && new.is_fresh());
    land(&old, record(HALF + 7000, 1000), 9);
    drop(old);
    assert!(names(home.path()).contains(&PARTIAL.to_owned()), "the new one's");
    new.discard(false);
    drop(new);
    assert!(names(home.path()).is_empty(), "{:?}", names(home.path()));
}

#[test]
fn journals_of_members_that_are_there_no_more_go_with_the_file() {
    let home = directory();
    drop(attempt(home.path(), 1, 5000, 7000));
    let alone = open_as(home.path(), 2, WriterRole::Sole);
    assert_eq!(alone.found(), [record(0, 5000)]);
    alone.begin(kept(&[Span::new(0, 5000)]), false).unwrap();
    land(&alone, record(5000, BYTES - 5000), 2);
    alone.commit().unwrap();
    alone.confirm();
    assert_eq!(names(home.path()), ["x"]);
}

//! Several nodes that write one path, as several sinks in one process.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};

use super::{directory, kept_as, names, options, prepare};
use crate::core::options::TransferOptions;
use crate::core::store::writer::WriterRole;
use crate::io::store::{Sink, SinkOptions};

fn as_(role: WriterRole) -> SinkOptions {
    SinkOptions { role, ..options() }
}

fn write(sink: &Sink, bytes: &[u8], at: u64) {
    let file = File::from(sink.files()[0].buffered().try_clone_to_owned().unwrap());
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn nodes_that_see_one_directory_write_one_file() {
    let home = directory();
    let leader = prepare(home.path(), "/x", 5, &as_(WriterRole::Leader)).unwrap();
    assert_eq!(names(home.path()), [".x.cep-ab12", ".x.cep-ab12.token"]);
    let follower = prepare(home.path(), "/x", 10, &as_(WriterRole::Follower(7))).unwrap();
    assert!(follower.is_shared() && !leader.is_shared());
    write(&follower, b"world", 5);
    write(&leader, b"hello", 0);
    follower.commit().unwrap();
    drop(follower);
    assert_eq!(
        names(home.path()),
        [".x.cep-ab12", ".x.cep-ab12.token"],
        "the name is the leader's to give"
    );
    leader.commit().unwrap();
    assert_eq!(names(home.path()), ["x"]);
    assert_eq!(fs::read(home.path().join("x")).unwrap(), b"helloworld");
}

#[test]
fn nodes_that_see_directories_of_their_own_write_files_of_their_own() {
    let (one, other) = (directory(), directory());
    let leader = prepare(one.path(), "/x", 5, &as_(WriterRole::Leader)).unwrap();
    let follower = prepare(other.path(), "/x", 10, &as_(WriterRole::Follower(7))).unwrap();
    assert!(!follower.is_shared());
    leader.commit().unwrap();
    follower.commit().unwrap();
    assert_eq!(fs::metadata(one.path().join("x")).unwrap().len(), 5);
    assert_eq!(fs::metadata(other.path().join("x")).unwrap().len(), 10);
    assert_eq!((names(one.path()).len(), names(other.path()).len()), (1, 1));
}

#[test]
fn a_smaller_follower_does_not_cut_the_file() {
    let home = directory();
    let leader = prepare(home.path(), "/x", 1000, &as_(WriterRole::Leader)).unwrap();
    let follower = prepare(home.path(), "/x", 10, &as_(WriterRole::Follower(7))).unwrap();
    assert!(follower.is_shared());
    leader.commit().unwrap();
    assert_eq!(fs::metadata(home.path().join("x")).unwrap().len(), 1000);
}

#[test]
fn the_leader_cleans_up_for_all() {
    let home = directory();
    let leader = prepare(home.path(), "/x", 5, &as_(WriterRole::Leader)).unwrap();
    let follower = prepare(home.path(), "/x", 5, &as_(WriterRole::Follower(7))).unwrap();
    drop(follower);
    assert_eq!(names(home.path()).len(), 2);
    leader.discard(false);
    drop(leader);
    assert!(names(home.path()).is_empty());
}

/// The follower found no token, took the path for a file of its own, and named it with its part.
#[test]
fn a_file_whose_leader_has_left_is_not_taken_for_the_followers_own() {
    let home = directory();
    let leader = prepare(home.path(), "/x", 5, &as_(WriterRole::Leader)).unwrap();
    // The process ends while its master is out of reach.
    drop(leader);
    let error = prepare(home.path(), "/x", 10, &as_(WriterRole::Follower(7))).unwrap_err();
    assert_eq!(error.message, "the node that makes /x has given it up");
    // The next attempt removes the token.
    let leader = prepare(home.path(), "/x", 5, &as_(WriterRole::Leader)).unwrap();
    leader.commit().unwrap();
    assert_eq!(names(home.path()), ["x"]);
}

#[test]
fn the_leftovers_of_an_earlier_attempt_are_replaced() {
    let home = directory();
    fs::write(home.path().join(".x.cep-ab12"), "a longer partial file").unwrap();
    fs::write(home.path().join(".x.cep-ab12.token"), [9; 16]).unwrap();
    let leader = prepare(home.path(), "/x", 5, &as_(WriterRole::Leader)).unwrap();
    let follower = prepare(home.path(), "/x", 5, &as_(WriterRole::Follower(7))).unwrap();
    assert!(follower.is_shared());
    leader.commit().unwrap();
    assert_eq!(names(home.path()), ["x"]);
    assert_eq!(fs::read(home.path().join("x")).unwrap(), [0; 5]);
}

#[test]
fn a_foreign_token_is_not_believed() {
    let home = directory();
    let token = home.path().join(".x.cep-ab12.token");
    let mut longer = options().attempt.to_vec();
    longer.push(0);
    fs::write(home.path().join("elsewhere"), options().attempt).unwrap();
    for bytes in [&longer[..], &longer[..15], b""] {
        fs::write(&token, bytes).unwrap();
        assert!(!prepare(home.path(), "/x", 5, &as_(WriterRole::Follower(7))).unwrap().is_shared());
    }
    fs::remove_file(&token).unwrap();
    symlink("elsewhere", &token).unwrap();
    assert!(!prepare(home.path(), "/x", 5, &as_(WriterRole::Follower(7))).unwrap().is_shared());
}

#[test]
fn a_follower_that_comes_too_late_is_told() {
    let home = directory();
    let _elected = prepare(home.path(), "/x", 5, &as_(WriterRole::Leader)).unwrap();
    fs::remove_file(home.path().join(".x.cep-ab12")).unwrap();
    let error = prepare(home.path(), "/x", 5, &as_(WriterRole::Follower(7))).unwrap_err();
    assert_eq!(error.message, "the node that makes /x has given it up");
}

#[test]
fn a_fenced_node_leaves_the_newer_token_alone() {
    let home = directory();
    let old = prepare(home.path(), "/x", 5, &as_(WriterRole::Leader)).unwrap();
    let newer = SinkOptions { attempt: [2; 16], ..as_(WriterRole::Leader) };
    let _new = prepare(home.path(), "/x", 5, &newer).unwrap();
    drop(old);
    let follower = SinkOptions { attempt: [2; 16], ..as_(WriterRole::Follower(7)) };
    assert!(prepare(home.path(), "/x", 5, &follower).unwrap().is_shared());
}

/// Nodes that write over one another leave nobody who knows the origin of each byte.
#[test]
fn a_shared_file_that_is_complete_is_replaced_only_where_that_is_asked_for() {
    let home = directory();
    let kept = |role, attempt: u8| SinkOptions {
        keep: kept_as(3),
        attempt: [attempt; 16],
        transfer: TransferOptions { overwrite: attempt > 1, ..TransferOptions::default() },
        ..as_(role)
    };
    let run = |attempt: u8, text: &[u8; 10], ends: bool| {
        let leader = prepare(home.path(), "/x", 10, &kept(WriterRole::Leader, attempt)).unwrap();
        let follower =
            prepare(home.path(), "/x", 10, &kept(WriterRole::Follower(7), attempt)).unwrap();
        assert!(follower.is_shared() && leader.is_fresh());
        leader.forget().unwrap();
        follower.forget().unwrap();
        write(&leader, text, 0);
        if ends {
            follower.commit().unwrap();
            leader.commit().unwrap();
        }
        leader
    };
    let x = home.path().join("x");
    drop(run(1, b"helloworld", true));
    assert_eq!(names(home.path()), ["x"]);
    let again = SinkOptions { transfer: options().transfer, ..kept(WriterRole::Leader, 2) };
    assert_eq!(prepare(home.path(), "/x", 10, &again).unwrap_err().message, "/x exists");
    drop(run(2, b"broken....", false));
    assert_eq!(names(home.path()), ["x"], "what was complete is still there");
    assert_eq!(fs::read(&x).unwrap(), b"helloworld");
    run(3, b"greetings!", true).confirm();
    assert_eq!(
        (fs::read(&x).unwrap(), names(home.path())),
        (b"greetings!".to_vec(), vec!["x".to_owned()])
    );
}

//! Shared memory as source and destination.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use super::{options, overwriting};
use crate::core::error::{Code, Result};
use crate::core::spec::DataUri;
use crate::core::store::writer::WriterRole;
use crate::core::units::Span;
use crate::io::store::{AllowedKinds, Sink, SinkOptions, Source, StoreRoots};

/// A name of shared memory that no other test uses; the object is gone when dropped.
struct Object(PathBuf);

impl Object {
    fn new(test: &str) -> Object {
        Object(PathBuf::from(format!("/dev/shm/cep-fast-test-{}-{test}", std::process::id())))
    }

    fn uri(&self) -> DataUri {
        DataUri::Mem(self.0.file_name().unwrap().to_owned())
    }

    fn sink(&self, bytes: u64, role: WriterRole) -> Result<Sink> {
        Sink::prepare(&root(), &self.uri(), bytes, &SinkOptions { role, ..options() })
    }

    /// A sink for an object that may be there already.
    fn sink_over(&self, bytes: u64) -> Result<Sink> {
        Sink::prepare(&root(), &self.uri(), bytes, &overwriting(options()))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn root() -> StoreRoots {
    StoreRoots::of(Path::new("/")).unwrap().allowing(AllowedKinds::ALL)
}

#[test]
fn a_missing_object_is_made_and_removed_again_on_failure() {
    let object = Object::new("made");
    let sink = object.sink(5000, WriterRole::Sole).unwrap();
    assert!(sink.is_fresh() && sink.files()[0].direct().is_none());
    assert_eq!(fs::metadata(&object.0).unwrap().len(), 5000);
    drop(sink);
    assert!(!object.0.exists());
    object.sink(5000, WriterRole::Sole).unwrap().commit().unwrap();
    assert!(object.0.exists());
}

#[test]
fn an_existing_object_is_written_in_place_and_never_removed() {
    let object = Object::new("in-place");
    fs::write(&object.0, [7; 20_000]).unwrap();
    let sink = object.sink_over(20_000).unwrap();
    assert!(!sink.is_fresh());
    sink.zero(&[Span::new(1, 9000), Span::new(19_999, 20_000)]).unwrap();
    drop(sink);
    let bytes = fs::read(&object.0).unwrap();
    let zeros = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
    assert_eq!((bytes.len(), bytes[0], bytes[9000], bytes[19_998]), (20_000, 7, 7, 7));
    assert!(zeros(1..9000) && zeros(19_999..20_000));
}

#[test]
fn an_object_that_is_too_small_is_an_error() {
    let object = Object::new("small");
    fs::write(&object.0, [7; 100]).unwrap();
    let error = object.sink_over(101).unwrap_err();
    assert_eq!(error.code, Code::Data);
    assert!(
        error.message.ends_with("has 100 bytes, but the rows that write it need 101"),
        "{error}"
    );
    assert!(object.0.exists());
}

#[test]
fn nodes_of_one_machine_share_an_object() {
    let object = Object::new("shared");
    let leader = object.sink(100, WriterRole::Leader).unwrap();
    let follower = object.sink(5000, WriterRole::Follower(7)).unwrap();
    File::from(follower.files()[0].buffered().try_clone_to_owned().unwrap())
        .write_all_at(&[3], 4999)
        .unwrap();
    follower.commit().unwrap();
    leader.commit().unwrap();
    let source = Source::open(&root(), &object.uri(), 4000, 1000).unwrap();
    assert_eq!(source.files().len(), 1);
    assert_eq!(fs::read(&object.0).unwrap()[4999], 3);
}

#[test]
fn sources_must_exist_and_be_large_enough() {
    let object = Object::new("source");
    let missing = Source::open(&root(), &object.uri(), 0, 1).unwrap_err();
    assert_eq!(missing.code, Code::Data);
    assert!(
        missing.message.starts_with("mem:") && missing.message.ends_with("is missing"),
        "{missing}"
    );
    fs::write(&object.0, [7; 100]).unwrap();
    assert_eq!(Source::open(&root(), &object.uri(), 1, 100).unwrap_err().code, Code::Data);
    assert!(Source::open(&root(), &object.uri(), 1, 99).is_ok());
}

#[test]
fn names_that_are_paths_and_links_are_refused() {
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b", &"n".repeat(256)] {
        let uri = DataUri::Mem(name.into());
        assert_eq!(Source::open(&root(), &uri, 0, 1).unwrap_err().code, Code::Data, "{name:?}");
        assert_eq!(
            Sink::prepare(&root(), &uri, 1, &options()).unwrap_err().code,
            Code::Data,
            "{name:?}"
        );
    }
    let object = Object::new("link");
    symlink("/etc/passwd", &object.0).unwrap();
    assert_eq!(Source::open(&root(), &object.uri(), 0, 1).unwrap_err().code, Code::Refused);
    assert_eq!(object.sink(1, WriterRole::Sole).unwrap_err().code, Code::Refused);
}

#[test]
fn another_programs_object_is_neither_written_nor_removed_unasked() {
    let object = Object::new("others");
    fs::write(&object.0, [7; 100]).unwrap();
    let error = object.sink(100, WriterRole::Sole).unwrap_err();
    assert_eq!(
        (error.code, error.remedy.as_deref()),
        (Code::Data, Some("use --overwrite to replace it"))
    );
    assert!(error.message.starts_with("mem:") && error.message.ends_with("exists"), "{error}");
    assert_eq!(fs::read(&object.0).unwrap(), [7; 100]);
    // An object that was made here and has lost its name to another program's is neither: the other
    // one is left alone.
    let ours = Object::new("ours");
    let sink = ours.sink(100, WriterRole::Sole).unwrap();
    fs::remove_file(&ours.0).unwrap();
    fs::write(&ours.0, "theirs").unwrap();
    let error = sink.commit().unwrap_err();
    assert!(error.message.ends_with("was removed or replaced while it was written"), "{error}");
    drop(sink);
    assert_eq!(fs::read(&ours.0).unwrap(), b"theirs");
}

#[test]
fn shared_memory_is_served_only_where_that_is_allowed() {
    let object = Object::new("forbidden");
    fs::write(&object.0, [7; 100]).unwrap();
    let files_only = StoreRoots::of(Path::new("/")).unwrap();
    let read = Source::open(&files_only, &object.uri(), 0, 100).unwrap_err();
    let over = overwriting(options());
    let written = Sink::prepare(&files_only, &object.uri(), 100, &over).unwrap_err();
    for error in [read, written] {
        assert_eq!(
            (error.code, error.remedy.as_deref()),
            (Code::Refused, Some("start the node with --allow mem"))
        );
        assert!(
            error.message.ends_with("is refused: this node serves no shared memory"),
            "{error}"
        );
    }
    assert_eq!(fs::read(&object.0).unwrap(), [7; 100]);
}

//! Nothing outside the root is reached, whatever a path looks like.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::{directory, file_uri, names, options, prepare};
use crate::error::Code;
use crate::store::{Root, Source};

#[test]
fn paths_that_lead_out_are_refused_for_reading_and_writing() {
    let home = directory();
    let (inside, outside) = (home.path().join("root"), home.path().join("secret"));
    fs::create_dir_all(inside.join("sub")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("key"), "secret").unwrap();
    symlink(&outside, inside.join("absolute")).unwrap();
    symlink("../secret", inside.join("relative")).unwrap();
    symlink("../../secret/key", inside.join("sub/deep")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();
    symlink("/proc/self/root", inside.join("magic")).unwrap();

    let root = Root::open(&inside).unwrap();
    let table =
        ["/../secret/key", "/sub/../sub/deep", "/absolute/key", "/relative/key", "/sub/deep", "/loop", "/magic/etc"];
    for path in table {
        let read = Source::open(&root, &file_uri(path), 0, 1).unwrap_err();
        assert_eq!(read.code, Code::Refused, "{path}: {read}");
        assert!(read.message.starts_with(path) && read.remedy.is_some(), "{read}");
        let written = prepare(&inside, path, 1, &options()).unwrap_err();
        assert_eq!(written.code, Code::Refused, "{path}: {written}");
    }
    assert_eq!(prepare(&inside, "/sub/..", 1, &options()).unwrap_err().code, Code::Refused);
    assert_eq!(names(&outside), ["key"]);
    assert_eq!(names(&inside.join("sub")), ["deep"]);
}

#[test]
fn links_that_stay_inside_are_followed() {
    let home = directory();
    fs::create_dir(home.path().join("data")).unwrap();
    fs::write(home.path().join("data/x"), "12345").unwrap();
    symlink("data", home.path().join("current")).unwrap();
    let root = Root::open(home.path()).unwrap();
    assert!(Source::open(&root, &file_uri("/current/x"), 0, 5).is_ok());
    let sink = prepare(home.path(), "/current/y", 1, &options()).unwrap();
    sink.commit().unwrap();
    assert_eq!(names(&home.path().join("data")), ["x", "y"]);
}

#[test]
fn below_the_whole_machine_absolute_links_are_followed() {
    let home = directory();
    fs::write(home.path().join("x"), "12345").unwrap();
    symlink(home.path().join("x"), home.path().join("link")).unwrap();
    let link = home.path().join("link");
    let root = Root::open(Path::new("/")).unwrap();
    assert!(Source::open(&root, &file_uri(link.to_str().unwrap()), 0, 5).is_ok());
    // The kernel's own links jump where no name leads; they are refused even here.
    let magic = Source::open(&root, &file_uri("/proc/self/exe"), 0, 1).unwrap_err();
    assert_eq!(magic.code, Code::Refused, "{magic}");
    let dotted = home.path().join("../x");
    assert_eq!(Source::open(&root, &file_uri(dotted.to_str().unwrap()), 0, 5).unwrap_err().code, Code::Refused);
}

#[test]
fn a_root_is_an_existing_directory() {
    let home = directory();
    fs::write(home.path().join("file"), "").unwrap();
    for name in ["file", "missing"] {
        let error = Root::open(&home.path().join(name)).unwrap_err();
        assert_eq!(error.code, Code::Data);
        assert!(error.message.contains(name) && error.remedy.unwrap().contains("--root"));
    }
    let root = Root::open(home.path()).unwrap();
    assert_eq!(root.path(), home.path().canonicalize().unwrap());
    assert!(root.open_beneath(Path::new("/file"), OFlag::O_RDONLY, Mode::empty()).is_ok());
    let missing = root.open_beneath(Path::new("/gone"), OFlag::O_RDONLY, Mode::empty()).unwrap_err();
    assert_eq!((missing.code, missing.message.as_str()), (Code::Data, "/gone is missing"));
}

//! Several roots with rights: which paths lead where, and what is refused.

use std::fs;
use std::path::Path;

use super::{directory, file_uri, names, options};
use crate::core::error::Code;
use crate::core::spec::{DataUri, RowRole};
use crate::io::store::{
    AllowedKinds, DeclaredRoot, DestinationClaim, FileNames, RootOptions, RootPlace, RootRights,
    Sink, Source, StoreRoots,
};

fn root(name: &str, directory: &Path, rights: RootRights) -> DeclaredRoot {
    let place = RootPlace { name: name.parse().unwrap(), ..RootPlace::whole(directory) };
    DeclaredRoot { place, rights }
}

fn declared(declared: Vec<DeclaredRoot>) -> RootOptions {
    RootOptions { declared, allowed: AllowedKinds::ALL, rights: RootRights::ALL }
}

#[test]
fn a_name_leads_to_its_directory_and_all_else_to_the_whole_root() {
    let (whole, named) = (directory(), directory());
    fs::create_dir(whole.path().join("in")).unwrap();
    for path in ["in/x", "y"] {
        fs::write(whole.path().join(path), "whole").unwrap();
    }
    fs::write(named.path().join("x"), "named!").unwrap();
    let options = declared(vec![
        root("/", whole.path(), RootRights::ALL),
        root("in", named.path(), RootRights::ALL),
    ]);
    options.check().unwrap();
    let roots = StoreRoots::open(&options).unwrap();
    let has = |path, bytes| Source::open(&roots, &file_uri(path), 0, bytes).is_ok();
    assert!(has("/in/x", 6), "the name comes first");
    assert!(has("/y", 5) && !has("/y", 6));
    let sink = Sink::prepare(&roots, &file_uri("/in/z"), 1, &super::options()).unwrap();
    sink.commit().unwrap();
    assert_eq!(names(named.path()), ["x", "z"]);
    for path in ["/in", "/in/", "/"] {
        let error = Sink::prepare(&roots, &file_uri(path), 1, &super::options()).unwrap_err();
        assert!(error.code == Code::Data && error.message.contains("directory"), "{path}: {error}");
        assert_eq!(Source::open(&roots, &file_uri(path), 0, 1).unwrap_err().code, Code::Data);
    }
    for path in ["/in/../y", "/in/../../y", "/../in/x"] {
        let error = Source::open(&roots, &file_uri(path), 0, 1).unwrap_err();
        assert_eq!(error.code, Code::Refused, "{path}");
    }
}

#[test]
fn every_way_to_a_file_asks_for_the_right() {
    let (ro, wo) = (directory(), directory());
    for home in [&ro, &wo] {
        fs::write(home.path().join("x"), "12345").unwrap();
    }
    let roots = StoreRoots::open(&declared(vec![
        root("ro", ro.path(), RootRights::READ_ONLY),
        root("wo", wo.path(), RootRights::WRITE_ONLY),
    ]))
    .unwrap();
    let read = |path| Source::open(&roots, &file_uri(path), 0, 5).map(drop);
    let write = |path| Sink::prepare(&roots, &file_uri(path), 5, &options()).map(drop);
    let claim =
        |path| DestinationClaim::take(&roots, &file_uri(path), "t", &[0; 16], "a").map(drop);
    let name = |path| FileNames::default().add_destination(&roots, &file_uri(path));
    assert!(read("/ro/x").is_ok() && write("/wo/y").is_ok() && claim("/wo/y").is_ok());
    let error = read("/wo/x").unwrap_err();
    assert_eq!(error.message, "/wo/x is refused: root wo is write-only");
    for refused in [write("/ro/y"), claim("/ro/y"), name("/ro/y")] {
        let error = refused.unwrap_err();
        assert_eq!(error.message, "/ro/y is refused: root ro is read-only");
        assert!(error.code == Code::Refused && error.remedy.unwrap().contains(":ro"));
    }
    for refused in [read("/x"), write("/x"), claim("/x"), name("/x"), read("/rox/x"), read("/")] {
        let error = refused.unwrap_err();
        assert_eq!(error.code, Code::Refused);
        assert!(error.remedy.unwrap().ends_with("below /ro, /wo"));
    }
    assert_eq!(names(ro.path()), ["x"]);
}

#[test]
fn a_node_that_serves_or_writes_nothing_still_makes_patterns_and_discards() {
    let home = directory();
    fs::write(home.path().join("x"), "12345").unwrap();
    let whole = || vec![root("/", home.path(), RootRights::ALL)];
    let of = |rights| StoreRoots::open(&RootOptions { rights, ..declared(whole()) }).unwrap();
    let (silent, reader) = (of(RootRights::WRITE_ONLY), of(RootRights::READ_ONLY));
    let memory = DataUri::Mem("cep-test-none".into());
    let error = Source::open(&silent, &file_uri("/x"), 0, 5).unwrap_err();
    assert!(error.code == Code::Refused && error.remedy.unwrap().contains("--no-serve"));
    assert_eq!(Source::open(&silent, &memory, 0, 5).unwrap_err().code, Code::Refused);
    assert!(Source::open(&silent, &DataUri::Pattern(1), 0, 5).is_ok());
    assert!(Source::open(&reader, &file_uri("/x"), 0, 5).is_ok());
    let error = Sink::prepare(&reader, &file_uri("/y"), 5, &options()).unwrap_err();
    assert!(error.code == Code::Refused && error.remedy.unwrap().contains("--no-write"));
    assert_eq!(Sink::prepare(&reader, &memory, 5, &options()).unwrap_err().code, Code::Refused);
    assert!(Sink::prepare(&reader, &DataUri::Null, 5, &options()).is_ok());
    for (uri, role, is_refused) in [
        (file_uri("/x"), RowRole::Sender, false),
        (file_uri("/x"), RowRole::Receiver, true),
        (memory, RowRole::Receiver, true),
        (DataUri::Null, RowRole::Receiver, false),
    ] {
        assert_eq!(reader.check(&uri, role).is_err(), is_refused, "{uri}");
    }
}

#[test]
fn rights_that_another_path_would_undo_are_a_mistake() {
    let home = directory();
    let inner = home.path().join("inner");
    fs::create_dir(&inner).unwrap();
    std::os::unix::fs::symlink(&inner, home.path().join("link")).unwrap();
    let link = home.path().join("link");
    let check = |outer, path: &Path, rights| {
        declared(vec![root("o", home.path(), outer), root("i", path, rights)]).check()
    };
    let (all, ro, wo) = (RootRights::ALL, RootRights::READ_ONLY, RootRights::WRITE_ONLY);
    for path in [&inner, &link] {
        for (outer, rights) in [(all, ro), (all, wo), (ro, wo), (wo, ro)] {
            let error = check(outer, path, rights).unwrap_err();
            assert!(
                error.code == Code::Usage && error.message.starts_with("--root: i="),
                "{error}"
            );
        }
        for (outer, rights) in [(all, all), (ro, all), (wo, all), (ro, ro), (wo, wo)] {
            check(outer, path, rights).unwrap();
        }
    }
    assert!(check(all, home.path(), ro).is_err(), "the same directory by two names");
    let twice = declared(vec![root("i", &inner, all), root("i", home.path(), all)]);
    assert!(twice.check().unwrap_err().message.contains("two roots are named i"));
    let gone = declared(vec![root("i", &home.path().join("gone"), all)]);
    assert_eq!(gone.check().unwrap_err().code, Code::Usage);
}

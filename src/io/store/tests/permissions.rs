//! Permissions and owners of files that are written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::{Mounted, announce, directory, names, options, overwriting, prepare};
use crate::core::error::Code;
use crate::io::store::StoreRoot;
use crate::io::store::destination_path::DestinationPath;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Permissions of a new file: the complement of the umask, or those that an ACL grants.
fn granted(directory: &Path) -> u32 {
    let probe = directory.join("probe");
    fs::create_dir(&probe).unwrap();
    let granted = mode(&probe) & 0o777;
    fs::remove_dir(&probe).unwrap();
    granted
}

/// Runs a tool. Prints a line and returns false if the tool cannot do it.
fn can(tool: &str, args: &[&str], path: &Path) -> bool {
    let done = Command::new(tool)
        .args(args)
        .arg(path)
        .output()
        .is_ok_and(|output| output.status.success());
    if !done {
        announce(&format!("skipped: {tool} cannot do this here"));
    }
    done
}

#[test]
fn a_file_has_its_sources_permissions_under_the_umask_and_none_before_it_is_complete() {
    let home = directory();
    let granted = granted(home.path());
    for wanted in [0o600, 0o640, 0o644, 0o755, 0o777, 0o444, 0o000, 0o4755, 0o6777, 0o1644] {
        let sink = prepare(home.path(), "/x", 5, &options()).unwrap();
        sink.set_mode(wanted);
        assert_eq!(mode(&home.path().join(".x.cep-ab12")), 0o600);
        sink.commit().unwrap();
        assert_eq!(mode(&home.path().join("x")), wanted & granted, "{wanted:o}");
        fs::remove_file(home.path().join("x")).unwrap();
    }
    // Nobody has set a mode.
    prepare(home.path(), "/x", 5, &options()).unwrap().commit().unwrap();
    assert_eq!(mode(&home.path().join("x")), 0o666 & granted);
    assert_eq!(names(home.path()), ["x"]);
}

#[test]
fn what_is_replaced_has_no_say_in_the_permissions() {
    let home = directory();
    let over = overwriting(options());
    symlink("nowhere", home.path().join("link")).unwrap();
    fs::write(home.path().join("open"), "").unwrap();
    fs::set_permissions(home.path().join("open"), PermissionsExt::from_mode(0o4666)).unwrap();
    for name in ["link", "open"] {
        let sink = prepare(home.path(), &format!("/{name}"), 5, &over).unwrap();
        sink.set_mode(0o640);
        sink.commit().unwrap();
        assert_eq!(mode(&home.path().join(name)), 0o640 & granted(home.path()), "{name}");
    }
}

#[test]
fn a_default_acl_is_heeded_instead_of_the_umask() {
    let home = directory();
    let acl = ["-d", "-m", "u::rwx,g::rwx,o::---,u:65534:rwx,m::rwx"];
    if !can("setfacl", &acl, home.path()) {
        return;
    }
    for (wanted, expected) in [(0o666, 0o660), (0o777, 0o770), (0o600, 0o600)] {
        let sink = prepare(home.path(), "/x", 5, &options()).unwrap();
        sink.set_mode(wanted);
        sink.commit().unwrap();
        assert_eq!(mode(&home.path().join("x")), expected, "{wanted:o}");
        fs::remove_file(home.path().join("x")).unwrap();
    }
}

#[test]
fn a_file_system_without_unnamed_files_grants_the_same() {
    let home = directory();
    let look = || {
        DestinationPath::look(&StoreRoot::open(home.path()).unwrap(), Path::new("/x"), "ab12")
            .unwrap()
            .0
    };
    assert_eq!(look().granted_by_name().unwrap(), look().granted().unwrap());
    if can("setfacl", &["-d", "-m", "u::rwx,g::r-x,o::---,u:65534:rwx,m::rwx"], home.path()) {
        assert_eq!(look().granted_by_name().unwrap().bits(), 0o770);
        assert_eq!(look().granted().unwrap().bits(), 0o770);
    }
    assert!(names(home.path()).is_empty());
}

#[test]
fn what_cannot_be_replaced_is_refused_before_bytes_move() {
    let Some(disk) = Mounted::tmpfs("size=1m") else { return };
    let over = overwriting(options());
    let refused = |path: &str, words: &str| {
        let before = names(disk.path());
        let error = prepare(disk.path(), path, 5, &over).unwrap_err();
        assert_eq!(error.code, Code::Data, "{error}");
        assert!(error.message.ends_with(words) && error.remedy.is_some(), "{path}: {error}");
        assert_eq!(names(disk.path()), before);
    };
    for name in ["mounted", "immutable", "appended"] {
        fs::write(disk.path().join(name), "old").unwrap();
    }
    for name in ["fixed", "growing"] {
        fs::create_dir(disk.path().join(name)).unwrap();
    }
    let mounted = disk.path().join("mounted");
    if can("mount", &["--bind", mounted.to_str().unwrap()], &mounted) {
        refused("/mounted", "/mounted cannot be replaced: something is mounted on it");
        assert!(can("umount", &[], &mounted));
    }
    let table = [
        ("+i", "immutable", "/immutable", "/immutable cannot be replaced: it is immutable"),
        ("+a", "appended", "/appended", "/appended cannot be replaced: it can only be appended to"),
        ("+i", "fixed", "/fixed/x", "/fixed cannot be written to: it is immutable"),
        ("+a", "growing", "/growing/x", "no file in it can get another name"),
    ];
    for (flag, name, path, words) in table {
        let at = disk.path().join(name);
        if can("chattr", &[flag], &at) {
            refused(path, words);
            assert!(can("chattr", &[&flag.replace('+', "-")], &at));
        }
    }
    // It is replaced as soon as nothing is in the way.
    for path in ["/mounted", "/immutable", "/appended", "/fixed/x", "/growing/x"] {
        prepare(disk.path(), path, 5, &over).unwrap().commit().unwrap();
    }
}

#[test]
fn a_file_that_is_replaced_keeps_its_owner_unless_anybody_could_have_put_it_there() {
    if !nix::unistd::geteuid().is_root() {
        return announce("skipped: only root may give files away");
    }
    let home = directory();
    let over = overwriting(options());
    let owners = |name: &str| {
        let about = fs::symlink_metadata(home.path().join(name)).unwrap();
        (about.uid(), about.gid())
    };
    for (directory, mode, expected) in
        [("own", 0o755, (65534, 65533)), ("all", 0o1777, (0, 0)), ("open", 0o777, (0, 0))]
    {
        let at = home.path().join(directory);
        fs::create_dir(&at).unwrap();
        fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
        fs::write(at.join("x"), "old").unwrap();
        std::os::unix::fs::chown(at.join("x"), Some(65534), Some(65533)).unwrap();
        // Nothing of a link is kept.
        symlink("x", at.join("link")).unwrap();
        std::os::unix::fs::lchown(at.join("link"), Some(65534), Some(65533)).unwrap();
        for name in ["x", "link"] {
            let sink = prepare(home.path(), &format!("/{directory}/{name}"), 5, &over).unwrap();
            sink.set_mode(0o4755);
            sink.commit().unwrap();
        }
        assert_eq!(owners(&format!("{directory}/x")), expected, "{directory}");
        assert_eq!(owners(&format!("{directory}/link")), (0, 0), "{directory}");
        assert_eq!(self::mode(&at.join("x")) & 0o7000, 0);
    }
}

#[test]
fn a_directory_that_is_another_one_at_the_end_gets_no_file() {
    let home = directory();
    let at = home.path().join("d");
    fs::create_dir(&at).unwrap();
    let sink = prepare(home.path(), "/d/x", 5, &options()).unwrap();
    fs::rename(&at, home.path().join("old")).unwrap();
    let gone = sink.commit().unwrap_err();
    assert!(gone.message.contains("/d is missing"), "{gone}");
    fs::create_dir(&at).unwrap();
    let sink = prepare(home.path(), "/d/x", 5, &options()).unwrap();
    fs::remove_dir_all(home.path().join("old")).unwrap();
    fs::rename(&at, home.path().join("old")).unwrap();
    fs::create_dir(&at).unwrap();
    let replaced = sink.commit().unwrap_err();
    assert!(
        replaced.message.starts_with("/d is another directory than when the transfer began"),
        "{replaced}"
    );
    assert!(names(&at).is_empty() && names(&home.path().join("old")).is_empty());
}

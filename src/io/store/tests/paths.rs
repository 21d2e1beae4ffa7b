//! Nothing outside the root is reached, whatever a path looks like.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::mkfifo;

use super::{directory, file_uri, names, options, prepare};
use crate::core::error::{Code, Result};
use crate::io::store::{Source, StoreRoot, StoreRoots};

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

    let roots = StoreRoots::of(&inside).unwrap();
    let table = [
        "/../secret/key",
        "/sub/../sub/deep",
        "/absolute/key",
        "/relative/key",
        "/sub/deep",
        "/loop",
        "/magic/etc",
    ];
    for path in table {
        let read = Source::open(&roots, &file_uri(path), 0, 1).unwrap_err();
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
    let roots = StoreRoots::of(home.path()).unwrap();
    assert!(Source::open(&roots, &file_uri("/current/x"), 0, 5).is_ok());
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
    let roots = StoreRoots::of(Path::new("/")).unwrap();
    assert!(Source::open(&roots, &file_uri(link.to_str().unwrap()), 0, 5).is_ok());
    // The kernel's own links jump where no name leads; they are refused even here.
    let magic = Source::open(&roots, &file_uri("/proc/self/exe"), 0, 1).unwrap_err();
    assert_eq!(magic.code, Code::Refused, "{magic}");
    let dotted = home.path().join("../x");
    assert_eq!(
        Source::open(&roots, &file_uri(dotted.to_str().unwrap()), 0, 5).unwrap_err().code,
        Code::Refused
    );
}

/// Result of the kernel for a path, and of `walk`: the error, or the inode and the content.
fn both_ways(root: &StoreRoot, path: &str, flags: OFlag) -> [String; 2] {
    let said = |opened: Result<nix::Result<OwnedFd>>| match opened {
        Ok(Ok(file)) => {
            let about = fstat(&file).unwrap();
            format!("inode {} of {:o}", about.st_ino, about.st_mode)
        }
        Ok(Err(errno)) => errno.to_string(),
        Err(error) => error.to_string(),
    };
    let (path, mode) = (Path::new(path), Mode::S_IRUSR);
    [said(root.try_open(path, flags, mode)), said(root.walk_beneath(path, flags, mode))]
}

#[test]
fn a_machine_without_openat2_resolves_paths_alike() {
    let home = directory();
    let inside = home.path().join("root");
    fs::create_dir_all(inside.join("a/b/c")).unwrap();
    fs::create_dir_all(home.path().join("secret")).unwrap();
    for file in ["root/a/x", "root/a/b/c/y", "secret/key"] {
        fs::write(home.path().join(file), file).unwrap();
    }
    mkfifo(&inside.join("pipe"), Mode::S_IRWXU).unwrap();
    let links = [
        ("../secret", "out"),
        ("/etc", "absolute"),
        (".", "here"),
        ("a/b/..", "up"),
        ("a/./b//c/", "down"),
        ("a/b/c/../../x", "file"),
        ("../../a/x", "a/b/back"),
        ("../../../secret/key", "a/b/out"),
        ("one", "two"),
        ("two", "one"),
        ("nowhere", "dangling"),
        ("file", "to-file"),
        ("x/y", "a/below-a-file"),
        ("/proc/self/root", "magic"),
        ("", "empty"),
    ];
    for (target, name) in links.into_iter().filter(|(target, _)| !target.is_empty()) {
        symlink(target, inside.join(name)).unwrap();
    }
    // The most links in a row that the kernel follows, and one more.
    for at in 0..41 {
        let target = if at == 0 { "a/x".into() } else { format!("chain{}", at - 1) };
        symlink(target, inside.join(format!("chain{at}"))).unwrap();
    }
    let paths = [
        "",
        "a",
        "a/x",
        "a/x/",
        "a/x/y",
        "a//./b/c/y",
        "missing",
        "a/missing",
        "missing/x",
        "pipe",
        "out",
        "out/key",
        "absolute",
        "absolute/passwd",
        "here",
        "here/here/a/x",
        "up",
        "up/x",
        "down",
        "down/y",
        "down/missing",
        "file",
        "file/x",
        "a/b/back",
        "a/b/out",
        "one",
        "dangling",
        "dangling/x",
        "to-file",
        "a/below-a-file",
        "magic",
        "magic/etc",
        "chain38",
        "chain39",
        "chain40",
    ];
    let root = StoreRoot::open(&inside).unwrap();
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
    for name in paths {
        for flags in [
            OFlag::O_PATH,
            directory,
            OFlag::O_RDONLY | OFlag::O_NONBLOCK,
            OFlag::O_PATH | OFlag::O_NOFOLLOW,
        ] {
            let [kernel, walk] = both_ways(&root, &format!("/{name}"), flags);
            assert_eq!(kernel, walk, "/{name} with {flags:?}");
        }
        // Existing files are not made again, by whatever name, and nothing outside the root is.
        let exclusive = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        if inside.join(name).symlink_metadata().is_ok() {
            let [kernel, walk] = both_ways(&root, &format!("/{name}"), exclusive);
            assert_eq!(kernel, walk, "/{name} made");
        }
    }
    assert_eq!(names(&home.path().join("secret")), ["key"]);
    let made = root.walk_beneath(
        Path::new("/up/new"),
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL,
        Mode::S_IRUSR,
    );
    made.unwrap().unwrap();
    assert!(inside.join("a/new").exists());

    // Below the whole machine nothing leads out, but for the kernel's own links.
    let whole = StoreRoot::open(Path::new("/")).unwrap();
    let inside = inside.canonicalize().unwrap();
    let below = |name: &str| inside.join(name).to_str().unwrap().to_owned();
    let table = [
        below("out/key"),
        below("absolute/passwd"),
        below("magic"),
        below("a/b/back"),
        "/proc/self/exe".into(),
        "/proc/self/root/etc".into(),
        "/proc/self/fd/0".into(),
        "/proc/self/status".into(),
        "/proc/mounts".into(),
        "/proc/thread-self/cwd".into(),
        "/dev/stdin".into(),
        "/".into(),
    ];
    for path in table {
        let [kernel, walk] = both_ways(&whole, &path, OFlag::O_PATH);
        // Each look at /proc may find an inode of its own.
        let is_made = path.starts_with("/proc") && kernel.starts_with("inode");
        assert!(
            kernel == walk || (is_made && walk.starts_with("inode")),
            "{path}: {kernel}, {walk}"
        );
    }
}

#[test]
fn no_link_is_followed_where_everybody_may_make_them() {
    let name = format!("cep-fast-test-{}-links", std::process::id());
    let link = Path::new("/dev/shm").join(&name);
    symlink("/etc/passwd", &link).unwrap();
    let root = StoreRoot::shared_memory().unwrap();
    let both = both_ways(&root, &format!("/{name}"), OFlag::O_RDONLY);
    fs::remove_file(&link).unwrap();
    assert_eq!(both[0], both[1]);
    assert!(both[0].contains("a link in it may not be followed"), "{}", both[0]);
}

#[test]
fn a_root_is_an_existing_directory() {
    let home = directory();
    fs::write(home.path().join("file"), "").unwrap();
    for name in ["file", "missing"] {
        let error = StoreRoot::open(&home.path().join(name)).unwrap_err();
        assert_eq!(error.code, Code::Data);
        assert!(error.message.contains(name) && error.remedy.unwrap().contains("--root"));
    }
    let root = StoreRoot::open(home.path()).unwrap();
    assert_eq!(root.path(), home.path().canonicalize().unwrap());
    assert!(root.open_beneath(Path::new("/file"), OFlag::O_RDONLY, Mode::empty()).is_ok());
    let missing =
        root.open_beneath(Path::new("/gone"), OFlag::O_RDONLY, Mode::empty()).unwrap_err();
    assert_eq!((missing.code, missing.message.as_str()), (Code::Data, "/gone is missing"));
}

/// While names are swapped, and a directory that is walked through is moved out of the root, either
/// way of opening finds what is inside, or nothing.
#[test]
fn names_that_change_during_the_look_up_lead_nowhere_else() {
    let home = directory();
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("root/a/b")).unwrap();
    fs::create_dir_all(at("root/real")).unwrap();
    fs::create_dir_all(at("secret/b")).unwrap();
    for file in ["root/x", "root/real/x", "secret/x", "x"] {
        fs::write(at(file), file).unwrap();
    }
    symlink("../secret", at("root/swapped")).unwrap();
    // From where the directory is moved to, it leads to the file beside the root.
    symlink("a/b/../../x", at("root/moving")).unwrap();
    let inode = |name: &str| fs::metadata(at(name)).unwrap().ino();
    let inside = [inode("root/x"), inode("root/real/x")];
    let root = StoreRoot::open(&at("root")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (real, swapped) = (at("root/real"), at("root/swapped"));
                renameat2(AT_FDCWD, &real, AT_FDCWD, &swapped, RenameFlags::RENAME_EXCHANGE)
                    .unwrap();
                fs::rename(at("root/a/b"), at("secret/b")).unwrap();
                fs::rename(at("secret/b"), at("root/a/b")).unwrap();
            }
        });
        let (mut found, mut wrong) = (0, Vec::new());
        for path in ["/real/x", "/swapped/x", "/moving"].into_iter().cycle().take(6000) {
            let (path, flags) = (Path::new(path), OFlag::O_RDONLY);
            let by_kernel = root.try_open(path, flags, Mode::empty());
            let by_walk = root.walk_beneath(path, flags, Mode::empty());
            for file in [by_kernel, by_walk].into_iter().flatten().flatten() {
                found += 1;
                let is_inside = inside.contains(&fstat(&file).unwrap().st_ino);
                wrong.extend((!is_inside).then_some(path));
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(found > 0, "nothing was ever found");
        assert_eq!(wrong, Vec::<&Path>::new());
    });
}

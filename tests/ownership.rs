//! Ownership and permissions of files, and the files that a node may access.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{
    Daemon, PROGRAM, code, complete, folder, listing, random_bytes, run, run_spec, stderr,
};

/// User id of nobody on nearly every system.
const NOBODY: u32 = 65534;

/// Copies under a umask, as the user of the test.
fn copy(umask: &str, source: &Path, destination: &Path, more: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", r#"umask "$0"; exec "$@""#, umask, PROGRAM, "copy", "--progress", "never"]);
    run(command.args(more).arg(source).arg(destination))
}

fn permissions(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root may take another user's part");
    }
    root
}

/// Creates a folder that every user can access, with the program in it.
fn common_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
    chmod(folder.path(), 0o755);
    let program = folder.path().join("cep-fast");
    fs::copy(PROGRAM, &program).unwrap();
    chmod(&program, 0o755);
    (folder, program)
}

#[test]
fn a_private_source_stays_private_and_a_program_stays_one() {
    let root = folder();
    let (source, copied) = (root.path().join("source"), root.path().join("copied"));
    fs::write(&source, random_bytes(1, 100_000)).unwrap();
    for (mode, umask, expected) in [
        (0o600, "022", 0o600),
        (0o644, "022", 0o644),
        (0o755, "022", 0o755),
        (0o755, "077", 0o700),
        (0o666, "002", 0o664),
        (0o444, "022", 0o444),
        (0o6755, "022", 0o755),
    ] {
        chmod(&source, mode);
        let output = copy(umask, &source, &copied, &["--overwrite"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(permissions(&copied), expected, "{mode:o} under {umask}");
    }
}

#[test]
fn a_link_that_is_replaced_does_not_make_the_copy_everybodys() {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    fs::write(at("source"), random_bytes(2, 100_000)).unwrap();
    chmod(&at("source"), 0o644);
    fs::write(at("target"), "kept").unwrap();
    symlink("target", at("link")).unwrap();
    let output = copy("022", &at("source"), &at("link"), &["--overwrite"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(permissions(&at("link")), 0o644);
    assert_eq!(fs::read(at("link")).unwrap(), random_bytes(2, 100_000));
    assert_eq!(fs::read(at("target")).unwrap(), b"kept");
}

#[test]
fn replicas_with_other_permissions_make_what_all_of_them_allow() {
    let root = folder();
    let data = random_bytes(3, 1_000_000);
    for (name, mode) in [("one", 0o755), ("two", 0o640)] {
        fs::write(root.path().join(name), &data).unwrap();
        chmod(&root.path().join(name), mode);
    }
    let spec = "id modes\n\
                writer a:7001 file:///one 0 0-999999\n\
                writer b:7002 file:///two 0 0-999999\n\
                reader c:7003 file:///copy 0 0-499999\n\
                reader d:7004 file:///copy 500000 500000-999999\n\
                writer e:7005 pattern:7 0 1000000-1000009\n\
                reader c:7003 file:///pattern 0 1000000-1000009\n";
    complete(root.path(), spec, &[]);
    assert_eq!(fs::read(root.path().join("copy")).unwrap(), data);
    assert_eq!(permissions(&root.path().join("copy")), 0o640 & umask_complement(root.path()));
    assert_eq!(permissions(&root.path().join("pattern")), 0o666 & umask_complement(root.path()));
}

fn umask_complement(folder: &Path) -> u32 {
    let probe = folder.join("probe");
    fs::create_dir(&probe).unwrap();
    let mode = permissions(&probe) & 0o777;
    fs::remove_dir(&probe).unwrap();
    mode
}

#[test]
fn an_overwritten_file_stays_its_owners() {
    if !is_root() {
        return;
    }
    let root = folder();
    let (source, theirs) = (root.path().join("source"), root.path().join("theirs"));
    fs::write(&source, random_bytes(4, 100_000)).unwrap();
    fs::write(&theirs, "old").unwrap();
    chmod(&theirs, 0o600);
    chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let output = copy("022", &source, &theirs, &["--overwrite"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let about = fs::metadata(&theirs).unwrap();
    assert_eq!((about.uid(), about.gid()), (NOBODY, NOBODY));
    assert_eq!(fs::read(&theirs).unwrap(), random_bytes(4, 100_000));
}

#[test]
fn what_another_user_keeps_is_refused_before_bytes_move() {
    if !is_root() {
        return;
    }
    let (home, program) = common_folder();
    let source = home.path().join("source");
    fs::write(&source, random_bytes(5, 100_000)).unwrap();
    chmod(&source, 0o644);
    for (name, mode) in [("sticky", 0o1777), ("closed", 0o755)] {
        fs::create_dir(home.path().join(name)).unwrap();
        chmod(&home.path().join(name), mode);
        fs::write(home.path().join(name).join("x"), "root's").unwrap();
    }
    let as_nobody = |destination: &str| {
        let mut command = Command::new(&program);
        command
            .args(["copy", "--progress", "never", "--overwrite"])
            .arg(&source)
            .arg(home.path().join(destination));
        command.current_dir("/").env("HOME", "/nonexistent").uid(NOBODY).gid(NOBODY);
        run(&mut command)
    };
    let before = listing(home.path());
    for (destination, words) in [
        (
            "sticky/x",
            "cannot be replaced: it is another user's, in a directory with the sticky bit",
        ),
        ("closed/x", "cannot be written to: permission denied"),
        ("closed/new", "cannot be written to: permission denied"),
    ] {
        let output = as_nobody(destination);
        assert_eq!(code(&output), 5, "{destination}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{destination}: {}", stderr(&output));
        assert_eq!(listing(home.path()), before, "{destination}");
    }
    let output = as_nobody("sticky/new");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(fs::metadata(home.path().join("sticky/new")).unwrap().uid(), NOBODY);
    assert_eq!(fs::read(home.path().join("sticky/x")).unwrap(), b"root's");
}

#[test]
fn a_limit_of_file_sizes_is_named_and_leaves_nothing() {
    let root = folder();
    fs::write(root.path().join("source"), random_bytes(6, 3_000_000)).unwrap();
    let before = listing(root.path());
    let mut command = Command::new("sh");
    command.args([
        "-c",
        r#"ulimit -f 2048; exec "$@""#,
        "sh",
        PROGRAM,
        "copy",
        "--progress",
        "never",
    ]);
    let output = run(command.arg(root.path().join("source")).arg(root.path().join("copy")));
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("may write files of") && said.contains("ulimit -f"), "{said}");
    assert_eq!(listing(root.path()), before);
}

#[test]
fn a_source_rewritten_with_its_time_set_back_is_not_mixed_with_an_earlier_attempt() {
    let root = folder();
    let (source, copied) = (root.path().join("source"), root.path().join("copied"));
    let old = random_bytes(7, 40_000_000);
    fs::write(&source, &old).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["copy", "--limit", "100M", "--progress", "never"]).arg(&source).arg(&copied);
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let journal = || {
        support::beside(root.path(), ".journal")
            .first()
            .is_some_and(|it| fs::metadata(it).unwrap().len() > 500)
    };
    support::wait_for("a record in the journal", journal);
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(code(&support::end_of(child)), 130);
    // In place, and with the time that it had.
    let new = random_bytes(8, old.len());
    let file = File::options().write(true).open(&source).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&new, 0).unwrap();
    file.set_modified(modified).unwrap();
    let output = copy("022", &source, &copied, &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(&copied).unwrap() == new, "a mixture");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    assert!(said.contains("the source changed"), "{said}");
}

/// Runs a specification against daemons; `{a}` and `{b}` stand for their addresses.
fn run_with(daemons: [&Daemon; 2], folder: &Path, spec: &str, more: &[&str]) -> Output {
    let file = folder.join("spec");
    fs::write(&file, spec.replace("{a}", &daemons[0].address).replace("{b}", &daemons[1].address))
        .unwrap();
    let output = run(Command::new(PROGRAM)
        .args(["run", "--json", "--progress", "never"])
        .args(more)
        .arg(&file));
    fs::remove_file(&file).unwrap();
    output
}

#[test]
fn a_root_is_the_directory_that_has_its_path_when_a_transfer_begins() {
    let home = folder();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    // One that is confined is bound to the directory of its start: tests/confinement.rs.
    let (a, b) = (Daemon::start(home.path(), &[]), Daemon::start(&root, &["--confine", "off"]));
    let spec = "id root\nwriter {a} pattern:3 0 0-99999\nreader {b} file:///x 0 0-99999\n";
    let copied = |what: &str| {
        let output = run_with([&a, &b], home.path(), spec, &[]);
        assert_eq!(code(&output), 0, "{what}: {}", stderr(&output));
        assert_eq!(fs::read(root.join("x")).unwrap(), support::pattern(3, 0, 100_000), "{what}");
    };
    copied("as it was");
    fs::remove_dir_all(&root).unwrap();
    let output = run_with([&a, &b], home.path(), spec, &[]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains(root.to_str().unwrap())
            && said.contains("missing")
            && said.contains("--root"),
        "{said}"
    );
    fs::create_dir(&root).unwrap();
    copied("made anew");
    let mount = |args: &[&str]| {
        Command::new("mount").args(args).arg(&root).output().unwrap().status.success()
    };
    if mount(&["-t", "tmpfs", "tmpfs"]) {
        assert!(!root.join("x").exists());
        let output = run_with([&a, &b], home.path(), spec, &[]);
        let content = fs::read(root.join("x"));
        assert!(Command::new("umount").arg("-l").arg(&root).status().unwrap().success());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(content.unwrap(), support::pattern(3, 0, 100_000), "it is on what was mounted");
    } else {
        eprintln!("skipped: no right to mount");
    }
}

#[test]
fn a_daemon_serves_shared_memory_only_where_it_is_told_to() {
    let home = folder();
    let name = format!("cep-fast-test-{}-served", std::process::id());
    let object = Path::new("/dev/shm").join(&name);
    fs::write(&object, random_bytes(9, 1000)).unwrap();
    let read = format!("id m\nwriter {{a}} mem:{name} 0 0-999\nreader {{b}} file:///x 0 0-999\n");
    let write = format!("id m\nwriter {{a}} pattern:5 0 0-999\nreader {{b}} mem:{name} 0 0-999\n");
    let check = |daemons: [&Daemon; 2], spec: &str, more: &[&str], status: i32, words: &str| {
        let output = run_with(daemons, home.path(), spec, more);
        assert_eq!(code(&output), status, "{spec}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    };
    let (a, b) = (Daemon::start(home.path(), &[]), Daemon::start(home.path(), &[]));
    for spec in [&read, &write] {
        check([&a, &b], spec, &["--overwrite"], 4, "start the node with --allow mem");
    }
    assert_eq!(fs::read(&object).unwrap(), random_bytes(9, 1000));
    let (a, b) = (
        Daemon::start(home.path(), &["--allow", "mem"]),
        Daemon::start(home.path(), &["--allow", "devices,mem"]),
    );
    check([&a, &b], &read, &[], 0, "");
    assert_eq!(fs::read(home.path().join("x")).unwrap(), random_bytes(9, 1000));
    check([&a, &b], &write, &[], 5, "use --overwrite to replace it");
    assert_eq!(fs::read(&object).unwrap(), random_bytes(9, 1000));
    check([&a, &b], &write, &["--overwrite"], 0, "");
    assert_eq!(fs::read(&object).unwrap(), support::pattern(5, 0, 1000));
    fs::remove_file(&object).unwrap();
}

#[test]
fn one_file_under_two_names_is_refused_and_both_are_named() {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("d/sub")).unwrap();
    symlink("d", at("l")).unwrap();
    symlink(".", at("same")).unwrap();
    fs::write(at("d/hard"), "old").unwrap();
    fs::hard_link(at("d/hard"), at("d/sub/link")).unwrap();
    fs::write(at("d/source"), random_bytes(10, 1000)).unwrap();
    let before = listing(root.path());
    let refuse = |one: &str, other: &str| {
        let spec = format!(
            "id two\nwriter a:7001 pattern:1 0 0-499\nwriter b:7002 pattern:2 0 500-999\n\
             reader c:7003 file://{one} 0 0-499\nreader c:7003 file://{other} 500 500-999\n"
        );
        let output = run_spec(root.path(), &spec, &["--overwrite"]);
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{one} {other}: {said}");
        assert!(
            said.contains(one) && said.contains(other) && said.contains("one file under two names"),
            "{said}"
        );
        assert_eq!(listing(root.path()), before);
    };
    refuse("/d/x", "/l/x");
    refuse("/d/sub/x", "/l/sub/x");
    refuse("/d/x", "/same/d/x");
    refuse("/d/hard", "/d/sub/link");
    // A source is never a destination at the same time, under any name.
    for other in ["/d/source", "/l/source"] {
        let spec = format!(
            "id self\n\
             writer a:7001 file:///d/source 0 0-999\n\
             reader a:7001 file://{other} 0 0-999\n"
        );
        let output = run_spec(root.path(), &spec, &["--overwrite"]);
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert_eq!(listing(root.path()), before);
        assert_eq!(fs::read(at("d/source")).unwrap(), random_bytes(10, 1000));
    }
}

#[test]
fn filtered_system_calls_have_a_way_around() {
    // A filter that answers some calls as if the kernel lacked or forbade them. Exits with 77 if no
    // filter can be set.
    let script = include_str!("support/deny.py");
    let filters = [
        "openat2:ENOSYS",
        "openat2:EPERM",
        "openat2:EPERM,renameat2:EPERM,fallocate:EPERM,statx:EPERM",
        "openat2:ENOSYS,renameat2:ENOSYS,fallocate:ENOSYS,statx:ENOSYS,fstatfs:ENOSYS,\
         flock:ENOSYS,fchmod:EPERM",
        "linkat:EPERM,renameat2:EPERM,fadvise64:EPERM",
    ];
    for filter in filters {
        let root = folder();
        let (source, copied) = (root.path().join("source"), root.path().join("copied"));
        fs::write(&source, random_bytes(11, 3_000_000)).unwrap();
        let mut command = Command::new("python3");
        command.arg("-c").arg(script).arg(filter).args([PROGRAM, "copy", "--progress", "never"]);
        command.arg(&source).arg(&copied);
        let Ok(python) = Command::new("python3").arg("--version").output() else {
            eprintln!("skipped: no python3");
            return;
        };
        assert!(python.status.success());
        let output = run(&mut command);
        if code(&output) == 77 {
            eprintln!("skipped: no filter can be set here: {}", stderr(&output));
            return;
        }
        assert_eq!(code(&output), 0, "{filter}: {}", stderr(&output));
        assert_eq!(fs::read(&copied).unwrap(), random_bytes(11, 3_000_000), "{filter}");
        assert_eq!(listing(root.path()).len(), 2, "{filter}");
    }
}

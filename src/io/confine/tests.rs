//! Confined threads try what they may not. The thread of each test is confined, and ends with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::thread;

use landlock::ABI;
use nix::errno::Errno;

use super::*;

/// Runs `attempt` in a thread that is confined to `paths`. `None`, with a note, where this kernel
/// cannot.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn confined<T: Send>(
    paths: &[ConfinedPath],
    attempt: impl FnOnce(Confinement) -> T + Send,
) -> Option<T> {
    if let Some(why) = files_obstacle().or_else(files_weakness).or_else(calls_obstacle) {
        eprintln!("skipped: {why}");
        return None;
    }
    let begin = || {
        let confinement = Confinement::begin(ConfineMode::Required, paths).unwrap();
        attempt(confinement)
    };
    Some(thread::scope(|scope| scope.spawn(begin).join().unwrap()))
}

fn to(path: &Path, access: PathAccess) -> ConfinedPath {
    ConfinedPath { path: path.to_path_buf(), access }
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().map(|error| Errno::from_raw(error.raw_os_error().unwrap()))
}

#[test]
fn what_lies_outside_is_not_opened_by_any_name() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    for folder in ["changed", "read", "outside"] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join("x"), "12345").unwrap();
    }
    symlink(at("outside/x"), at("changed/link")).unwrap();
    symlink("../outside", at("changed/folder")).unwrap();
    fs::write(at("used"), "").unwrap();
    let paths = [
        to(&at("changed"), PathAccess::Change),
        to(&at("read"), PathAccess::Read),
        to(&at("used"), PathAccess::UseFile),
        to(&at("gone"), PathAccess::Read),
    ];
    confined(&paths, |confinement| {
        assert!(confinement.binds_files() && confinement.obstacle().is_none());
        assert_eq!(confinement.to_string(), "files,calls");
        let denied = Some(Errno::EACCES);
        assert_eq!(fs::read(at("changed/x")).unwrap(), b"12345");
        fs::write(at("changed/new"), "1").unwrap();
        fs::rename(at("changed/new"), at("changed/newer")).unwrap();
        fs::hard_link(at("changed/newer"), at("changed/second")).unwrap();
        fs::remove_file(at("changed/newer")).unwrap();
        assert_eq!(fs::read(at("read/x")).unwrap(), b"12345");
        fs::write(at("used"), "1").unwrap();
        for path in ["outside/x", "changed/link", "changed/folder/x", "changed/../outside/x"] {
            assert_eq!(errno(File::open(at(path))), denied, "{path}");
        }
        for path in ["/etc/passwd", "/proc/self/root/etc/passwd", "/proc/1/environ"] {
            assert_eq!(errno(File::open(path)), denied, "{path}");
        }
        assert_eq!(errno(fs::write(at("read/x"), "1")), denied);
        assert_eq!(errno(fs::write(at("read/y"), "1")), denied);
        assert_eq!(errno(fs::remove_file(at("read/x"))), denied);
        assert_eq!(errno(fs::write(at("outside/y"), "1")), denied);
        assert!(errno(fs::hard_link(at("read/x"), at("changed/z"))).is_some());
        // A directory that takes the name of one that was there.
        assert_eq!(errno(fs::create_dir(at("changed/sub"))), Some(Errno::ENOSYS));
        // Threads that are made later are bound, too.
        let later = thread::spawn(|| errno(File::open("/etc/passwd"))).join().unwrap();
        assert_eq!(later, denied);
    });
    assert!(at("changed/second").exists() && !at("outside/y").exists());
}

/// As on Linux 5.13 and 5.19, by taking no more rights away than they know.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn an_older_landlock_binds_all_but_truncation() {
    if let Some(why) = files_obstacle() {
        return eprintln!("skipped: {why}");
    }
    for abi in [ABI::V1, ABI::V2] {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for folder in ["changed", "changed/sub", "read", "outside"] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("x"), "12345").unwrap();
        }
        let paths = [to(&at("changed"), PathAccess::Change), to(&at("read"), PathAccess::Read)];
        let attempt = || {
            let _held = files::confine_with(abi, &paths).unwrap();
            let denied = Some(Errno::EACCES);
            fs::write(at("changed/new"), "1").unwrap();
            fs::rename(at("changed/new"), at("changed/newer")).unwrap();
            fs::hard_link(at("changed/newer"), at("changed/second")).unwrap();
            assert_eq!(fs::read(at("read/x")).unwrap(), b"12345");
            assert_eq!(errno(File::open(at("outside/x"))), denied);
            for path in ["read/x", "read/y", "outside/x", "outside/y"] {
                assert_eq!(errno(fs::write(at(path), "1")), denied, "{path}");
            }
            let moved = errno(fs::rename(at("changed/second"), at("changed/sub/second")));
            assert_eq!(moved, (abi == ABI::V1).then_some(Errno::EXDEV));
            // This alone is what they leave.
            let emptied = File::options().read(true).custom_flags(libc::O_TRUNC).open(at("read/x"));
            assert!(emptied.is_ok(), "{emptied:?}");
            let outside =
                File::options().read(true).custom_flags(libc::O_TRUNC).open(at("outside/x"));
            assert_eq!(errno(outside), denied);
        };
        thread::scope(|scope| scope.spawn(attempt).join().unwrap());
        assert_eq!(fs::read(at("outside/x")).unwrap(), b"12345");
    }
}

#[test]
fn no_program_is_started_and_no_foreign_process_gets_a_signal() {
    confined(&[], |_| {
        let started = std::process::Command::new("/bin/true").spawn();
        assert!(started.is_err());
        let parent = nix::unistd::Pid::from_raw(1);
        assert_eq!(nix::sys::signal::kill(parent, None), Err(Errno::ENOSYS));
        assert_eq!(nix::unistd::chroot("/"), Err(Errno::ENOSYS));
        assert_eq!(nix::unistd::chdir("/"), Err(Errno::ENOSYS));
        let made = std::os::unix::net::UnixStream::pair();
        assert!(made.is_ok());
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    });
}

#[test]
fn what_is_required_is_refused_where_it_cannot_be_and_off_binds_nothing() {
    let off = thread::spawn(|| {
        let confinement = Confinement::begin(ConfineMode::Off, &[]).unwrap();
        assert!(!confinement.binds_files());
        assert_eq!(confinement.to_string(), "none");
        fs::read_dir("/").map(drop)
    });
    off.join().unwrap().unwrap();
    // A kernel without Landlock, as a filter makes it look.
    let without = thread::spawn(|| {
        let filter = seccompiler::SeccompFilter::new(
            [(libc::SYS_landlock_create_ruleset, Vec::new())].into(),
            seccompiler::SeccompAction::Allow,
            seccompiler::SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let filter: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&filter).unwrap();
        let error = Confinement::begin(ConfineMode::Required, &[]).unwrap_err();
        assert_eq!(error.code, Code::Refused);
        assert!(error.message.starts_with("--confine required: no Landlock"), "{error}");
        // The refusal has bound nothing.
        fs::read("/etc/passwd").unwrap();
        let confinement = Confinement::begin(ConfineMode::Auto, &[]).unwrap();
        assert_eq!(confinement.to_string(), "calls");
        assert!(confinement.obstacle().unwrap().contains("Landlock"));
        File::open("/etc/passwd").map_err(|error| error.kind())
    });
    assert_ne!(without.join().unwrap().err(), Some(ErrorKind::PermissionDenied));
}

//! Filters of system calls, as in containers and systemd: each call is forbidden in turn. Features
//! that do not need the call work; others fail with an error that names it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use support::filter::{behind, filter};
use support::{cep_fast, code, end_of, folder, folder_in_memory, json, random_bytes, run, stderr};

/// Runs a command under a filter to its end.
fn filtered(filter: &BpfProgram, command: &mut Command) -> Output {
    end_of(behind(std::slice::from_ref(filter), command))
}

fn copy(folder: &Path, filter: &BpfProgram) -> Output {
    // The destination of an earlier run may exist.
    let _ = fs::remove_file(folder.join("copy"));
    let mut command = cep_fast(&["copy", "--json", "--progress", "never"]);
    filtered(filter, command.arg(folder.join("source")).arg(folder.join("copy")))
}

#[test]
fn without_a_call_that_it_can_do_without_a_copy_completes_the_same() {
    let folder = folder();
    let data = random_bytes(1, 3_000_000);
    fs::write(folder.path().join("source"), &data).unwrap();
    let calls = [
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("sendfile", libc::SYS_sendfile),
        ("splice", libc::SYS_splice),
        ("cachestat", 451),
        ("preadv2", libc::SYS_preadv2),
        ("fadvise64", libc::SYS_fadvise64),
        ("mbind", libc::SYS_mbind),
        ("set_mempolicy", libc::SYS_set_mempolicy),
        ("get_mempolicy", libc::SYS_get_mempolicy),
        ("sched_setaffinity", libc::SYS_sched_setaffinity),
        ("sched_getaffinity", libc::SYS_sched_getaffinity),
        ("getcpu", libc::SYS_getcpu),
        ("memfd_create", libc::SYS_memfd_create),
        ("mlock", libc::SYS_mlock),
        ("madvise", libc::SYS_madvise),
        ("prlimit64", libc::SYS_prlimit64),
        ("prctl", libc::SYS_prctl),
        ("ioctl", libc::SYS_ioctl),
        ("pidfd_open", libc::SYS_pidfd_open),
        ("statx", libc::SYS_statx),
        ("getrandom", libc::SYS_getrandom),
        ("membarrier", libc::SYS_membarrier),
        ("rseq", libc::SYS_rseq),
        ("getxattr", libc::SYS_getxattr),
    ];
    for (name, call) in calls {
        for errno in [libc::ENOSYS, libc::EPERM] {
            let began = Instant::now();
            let output = copy(folder.path(), &filter(call, errno, Vec::new()));
            assert_eq!(code(&output), 0, "{name} {errno}: {}", stderr(&output));
            assert!(fs::read(folder.path().join("copy")).unwrap() == data, "{name} {errno}");
            assert_eq!(json(&output)["state"], "complete");
            assert!(began.elapsed() < Duration::from_secs(20), "{name} {errno}: it was waited for");
        }
    }
}

/// `--path splice` and `auto` both send what the page cache holds by `sendfile`.
#[test]
fn a_splice_is_a_sendfile_and_the_report_says_why_where_it_is_none() {
    let folder = folder_in_memory();
    let data = random_bytes(2, 3_000_000);
    fs::write(folder.path().join("source"), &data).unwrap();
    let way = |path: &str, call: i64| {
        let _ = fs::remove_file(folder.path().join("copy"));
        let mut command = cep_fast(&["copy", "--json", "--progress", "never", "--path", path]);
        command.arg(folder.path().join("source")).arg(folder.path().join("copy"));
        let output = filtered(&filter(call, libc::EPERM, Vec::new()), &mut command);
        assert_eq!(code(&output), 0, "{path}: {}", stderr(&output));
        assert!(fs::read(folder.path().join("copy")).unwrap() == data, "{path}");
        let report = json(&output);
        let node = &report["nodes"].as_array().unwrap()[0];
        node["rails"][0]["path"].as_str().unwrap().to_owned()
    };
    for path in ["auto", "splice"] {
        assert_eq!(
            way(path, libc::SYS_splice),
            "splice",
            "{path}: the ring's own splice is unused"
        );
        let without = way(path, libc::SYS_sendfile);
        assert_eq!(without, "read+send; the file gave less than it should to a splice", "{path}");
    }
    assert_eq!(way("copy", libc::SYS_sendfile), "read+send");
}

#[test]
fn a_call_that_nothing_can_stand_in_for_is_named_at_once() {
    let folder = folder();
    fs::write(folder.path().join("source"), random_bytes(1, 100_000)).unwrap();
    let calls = [
        ("eventfd2", libc::SYS_eventfd2),
        ("socketpair", libc::SYS_socketpair),
        ("setsockopt", libc::SYS_setsockopt),
        ("bind", libc::SYS_bind),
    ];
    for (name, call) in calls {
        for errno in [libc::ENOSYS, libc::EPERM] {
            let output = copy(folder.path(), &filter(call, errno, Vec::new()));
            let said = stderr(&output);
            assert!(![0, 101].contains(&code(&output)), "{name} {errno}: {said}");
            assert!(said.contains(name) && said.contains("filter"), "{name} {errno}: {said}");
            assert!(!folder.path().join("copy").exists());
        }
    }
}

/// Returns a filter like `RestrictAddressFamilies=AF_INET AF_INET6` of systemd.
fn without_netlink() -> BpfProgram {
    let family = u64::try_from(libc::AF_NETLINK).unwrap();
    let is_netlink =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family).unwrap();
    filter(libc::SYS_socket, libc::EAFNOSUPPORT, vec![SeccompRule::new(vec![is_netlink]).unwrap()])
}

#[test]
fn without_netlink_a_copy_completes_and_doctor_finds_the_same_addresses() {
    let folder = folder();
    fs::write(folder.path().join("source"), random_bytes(1, 100_000)).unwrap();
    let output = copy(folder.path(), &without_netlink());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let addresses = |output: &Output| {
        let nics = json(output)["nics"].as_array().unwrap().clone();
        let named = |nic: serde_json::Value| (nic["name"].to_string(), nic["use"].to_string());
        nics.into_iter().map(named).collect::<Vec<_>>()
    };
    let behind = filtered(&without_netlink(), &mut cep_fast(&["doctor", "--json"]));
    assert_eq!(addresses(&behind), addresses(&run(&mut cep_fast(&["doctor", "--json"]))));
    let said = filtered(&without_netlink(), &mut cep_fast(&["doctor"]));
    assert!(String::from_utf8_lossy(&said.stdout).contains("netlink"), "{said:?}");
}

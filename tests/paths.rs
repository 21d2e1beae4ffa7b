//! Every data path delivers the same bytes, and the report names the path.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use support::{
    PROGRAM, cep_fast, code, end_of, folder, folder_in_memory, json, pattern, random_bytes, run,
    stderr,
};

const PATHS: [&str; 5] = ["auto", "direct", "splice", "zerocopy", "copy"];

/// Evicts a file from the page cache, if the file system has one.
fn forget(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

/// Returns the path and the driver of the first rail of a node in a report.
fn rail(report: &serde_json::Value, node: usize) -> (&str, &str) {
    let rail = &report["nodes"][node]["rails"][0];
    (rail["path"].as_str().unwrap(), rail["driver"].as_str().unwrap())
}

/// Copies a part of a file to a part of another by each path; `judge` checks the report.
fn same_bytes(
    root: &Path,
    cached: bool,
    check: &str,
    io: &str,
    judge: impl Fn(&str, &serde_json::Value),
) {
    let data = random_bytes(11, 3_000_017);
    fs::write(root.join("source"), &data).unwrap();
    let spec = root.join("spec");
    let text = "id \"paths\"\n\
                option block 262144\n\
                writer a:7001 file:///source 5 0-2999999\n\
                reader b:7001 file:///copy 4099 0-2999999\n";
    fs::write(&spec, text).unwrap();
    for path in PATHS {
        if !cached {
            forget(&root.join("source"));
        }
        let mut command =
            cep_fast(&["run", "--launch", "local", "--json", "--progress", "never", "--overwrite"]);
        command
            .args(["--path", path, "--check", check, "--root"])
            .arg(root)
            .arg(&spec)
            .env("CEP_FAST_IO", io);
        let output = run(&mut command);
        assert_eq!(code(&output), 0, "{path}: {}", stderr(&output));
        let copy = fs::read(root.join("copy")).unwrap();
        assert!(
            copy[..4099].iter().all(|byte| *byte == 0) && copy[4099..] == data[5..3_000_005],
            "{path}, {io}"
        );
        let report = json(&output);
        if io.is_empty() && rail(&report, 0).1 != "io_uring" {
            return eprintln!(
                "skipped: no io_uring, or too little locked memory: {}",
                rail(&report, 0).1
            );
        }
        assert_eq!(
            rail(&report, 0).1 == "io_uring",
            io.is_empty(),
            "{path}: {}",
            rail(&report, 0).1
        );
        judge(path, &report);
    }
}

/// Returns true if a file system supports `O_DIRECT`.
fn has_direct(root: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    fs::write(root.join("probe"), "x").unwrap();
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(root.join("probe")).is_ok()
}

fn each_engine(mut body: impl FnMut(&str)) {
    // The variable is for machines that forbid io_uring; on them, both rounds are the same.
    body("");
    body("plain");
}

#[test]
fn cached_files_on_a_disk() {
    each_engine(|io| {
        let root = folder();
        let direct = has_direct(root.path());
        same_bytes(root.path(), true, "crc64", io, |path, report| {
            let (sender, receiver) = (rail(report, 0).0, rail(report, 1).0);
            match path {
                "direct" if direct => assert_eq!(sender, "direct+send"),
                // Pages that were evicted meanwhile are read, and that is said.
                "splice" => assert!(
                    sender == "splice" || sender.contains("; what is not in the page cache"),
                    "{sender}"
                ),
                "zerocopy" => assert!(
                    sender.contains("zerocopy") && sender.contains("the kernel copies"),
                    "{sender}"
                ),
                "copy" => assert_eq!((sender, receiver), ("read+send", "recv+write")),
                _ => {}
            }
        });
    });
}

#[test]
fn files_on_a_disk_that_are_not_cached() {
    each_engine(|io| {
        let root = folder();
        let direct = has_direct(root.path());
        same_bytes(root.path(), false, "crc64", io, |path, report| {
            let sender = rail(report, 0).0;
            match path {
                "auto" | "direct" if direct => {
                    assert!(sender.contains("direct+send"), "{path}: {sender}");
                }
                "splice" if direct => {
                    assert!(sender.contains("direct+send"), "{sender}");
                    assert!(
                        sender.contains("what is not in the page cache is read into buffers"),
                        "{sender}"
                    );
                }
                "copy" => assert_eq!(sender, "read+send"),
                _ => {}
            }
        });
    });
}

#[test]
fn files_in_memory() {
    each_engine(|io| {
        same_bytes(folder_in_memory().path(), true, "crc64", io, |path, report| {
            let sender = rail(report, 0).0;
            match path {
                "direct" => assert_eq!(sender, "read+send; the file system has no O_DIRECT"),
                "auto" | "splice" => assert_eq!(sender, "splice", "{path}"),
                _ => {}
            }
        });
    });
}

#[test]
fn other_checks_and_none() {
    for check in ["none", "blake3"] {
        same_bytes(folder().path(), true, check, "", |_, _| {});
        same_bytes(folder_in_memory().path(), true, check, "", |_, _| {});
    }
}

#[test]
fn what_a_pattern_cannot_is_said() {
    let root = folder();
    let spec = "id p\nwriter a:7001 pattern:1 0 0-999999\nreader b:7001 file:///x 0 0-999999\n";
    for path in ["splice", "direct", "copy"] {
        let report = support::complete(root.path(), spec, &["--path", path, "--overwrite"]);
        assert_eq!(rail(&report, 0).0, "pattern+send; a pattern has no file", "{path}");
        assert!(fs::read(root.path().join("x")).unwrap() == pattern(1, 0, 1_000_000));
    }
    let output = run(Command::new(PROGRAM).args(["run", "x", "--path", "teleport"]));
    assert_eq!(code(&output), 2);
}

/// Copies a file by splice, and calls a function on the file as soon as bytes have landed. Returns
/// the exit status and the copy.
fn disturbed(
    root: &Path,
    data: &[u8],
    disturb: impl Fn(&fs::File),
) -> (i32, String, Option<Vec<u8>>) {
    fs::write(root.join("source"), data).unwrap();
    let source = fs::OpenOptions::new().write(true).open(root.join("source")).unwrap();
    let args = ["copy", "--path", "splice", "--progress", "never", "--overwrite"];
    let mut command = cep_fast(&args);
    command.arg(root.join("source")).arg(root.join("copy"));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The receiver's file has a temporary name until it is complete; its first bytes are the
    // signal.
    let has_begun = || {
        let partial = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
        let mut partial =
            partial.filter(|entry| entry.file_name().to_string_lossy().starts_with(".copy"));
        partial.any(|entry| entry.metadata().is_ok_and(|about| about.size() > 0))
    };
    while !has_begun() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    disturb(&source);
    let output = end_of(child);
    (code(&output), stderr(&output), fs::read(root.join("copy")).ok())
}

#[test]
fn a_source_that_shrinks_under_a_splice_is_a_failed_transfer() {
    let root = folder();
    let data = pattern(3, 0, 200 << 20);
    let (code, said, copy) =
        disturbed(root.path(), &data, |source| source.set_len(1 << 20).unwrap());
    match code {
        0 => assert!(copy.unwrap() == data, "all had been read before"),
        _ => {
            assert!([3, 5].contains(&code), "{code}: {said}");
            assert!(said.contains("source"), "it names the file: {said}");
        }
    }
}

#[test]
fn a_source_that_is_overwritten_under_a_splice_gives_right_bytes_or_none() {
    let root = folder();
    let data = pattern(3, 0, 200 << 20);
    let (code, said, copy) = disturbed(root.path(), &data, |source| {
        for block in 0..200 {
            source.write_all_at(&[0xee; 4096], block << 20).unwrap();
        }
    });
    match code {
        // On a busy machine the receiver's file may be there before the sender looks at its own.
        0 => {
            let (copy, now) = (copy.unwrap(), fs::read(root.path().join("source")).unwrap());
            assert!(copy == data || copy == now, "all had been read before, or none");
        }
        _ => assert!([5, 6].contains(&code), "{code}: {said}"),
    }
}

#[test]
fn little_locked_memory_costs_the_registration_of_slots_and_nothing_else() {
    let root = folder();
    let data = random_bytes(21, 5_000_000);
    fs::write(root.path().join("x"), &data).unwrap();
    // Four MiB, and no right to exceed them: the ring itself fits, the slots do not.
    let limited = |program: &str| {
        let mut command = Command::new("prlimit");
        command.args([
            "--memlock=4194304:4194304",
            "setpriv",
            "--bounding-set=-ipc_lock",
            "--inh-caps=-ipc_lock",
        ]);
        command.arg(program);
        command
    };
    let able = limited("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !able {
        return;
    }
    let mut command = limited(PROGRAM);
    command
        .args(["copy", "--json", "--progress", "never"])
        .arg(root.path().join("x"))
        .arg(root.path().join("y"));
    let output = run(&mut command);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(root.path().join("y")).unwrap() == data);
    let report = json(&output);
    let (_, driver) = rail(&report, 0);
    if driver.starts_with("plain calls") {
        // This machine has no ring at all.
        return;
    }
    assert_eq!(driver, "io_uring, slots not registered: the limit of locked memory is too low");
    let said = stderr(&output);
    assert!(said.contains("the slots are not registered") && said.contains("ulimit -l"), "{said}");
}

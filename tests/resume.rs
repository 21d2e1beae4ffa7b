//! Interrupted transfers: a file with its final name is complete, and received bytes are not lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::proxy::{self, Gate, Verdict, Way};
use support::{
    Daemon, JOURNAL_HEADER_BYTES, JOURNAL_RECORD_BYTES, beside, cep_fast, code, end_of, folder,
    json, listing, random_bytes, run, stderr, wait_for,
};

/// Starts a copy of `source` to `copy` below `root` at a limited rate.
fn slow_copy(root: &Path, limit: &str, more: &[&str]) -> Child {
    let mut command = cep_fast(&["copy", "--json", "--progress", "never", "--limit", limit]);
    command.args(more).arg(root.join("source")).arg(root.join("copy"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_source_overwritten_in_the_middle_leaves_no_file_under_the_final_name() {
    for path in ["auto", "direct", "copy"] {
        let root = folder();
        let (data, other) = (random_bytes(31, 24 << 20), random_bytes(32, 24 << 20));
        fs::write(root.path().join("source"), &data).unwrap();
        let child = slow_copy(root.path(), "160M", &["--path", path]);
        wait_for("the first piece lands", || {
            let partial = listing(root.path())
                .into_iter()
                .find(|path| path.to_string_lossy().contains("/.copy.cep-"));
            let first = partial.and_then(|path| {
                let mut page = [0; 4096];
                fs::File::open(path).ok()?.read_exact_at(&mut page, 0).ok()?;
                Some(page[..] == data[..4096])
            });
            first == Some(true)
        });
        let source = fs::OpenOptions::new().write(true).open(root.path().join("source")).unwrap();
        source.write_all_at(&other, 0).unwrap();
        let output = end_of(child);
        assert_eq!(code(&output), 5, "{path}: {}", stderr(&output));
        assert!(stderr(&output).contains("changed"), "{path}: {}", stderr(&output));
        assert!(!root.path().join("copy").exists(), "{path}: a mixed file has its final name");
        assert!(!json(&output)["error"]["missing_ranges"].as_array().unwrap().is_empty());
    }
}

/// Waits until the journal beside a destination has records.
fn wait_for_journal(root: &Path, child: &mut Child) {
    wait_for("a journal", || {
        if child.try_wait().unwrap().is_some() {
            let mut said = String::new();
            std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut said).unwrap();
            panic!("it ended too early: {said}");
        }
        beside(root, ".journal").iter().any(|path| {
            fs::metadata(path)
                .is_ok_and(|about| about.len() > JOURNAL_HEADER_BYTES + 2 * JOURNAL_RECORD_BYTES)
        })
    });
}

const BYTES: usize = 40 << 20;
/// Far more than the bytes in flight, or landed since the journal was last written, at the rates
/// here.
const AGAIN_BYTES_MAX: u64 = 24 << 20;

/// Creates a source of random bytes below a root, and returns them.
fn source(root: &Path, seed: u64) -> Vec<u8> {
    let data = random_bytes(seed, BYTES);
    fs::write(root.join("source"), &data).unwrap();
    data
}

fn begin(spec: &Path, more: &[&str]) -> Child {
    let mut command = cep_fast(&["run", "--json", "--progress", "never"]);
    command
        .args(more)
        .arg(spec)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Checks that a second attempt has completed the first one, and left no other files.
fn assert_continued(root: &Path, output: &Output, data: &[u8]) {
    assert_eq!(code(output), 0, "{}", stderr(output));
    let report = json(output);
    assert!(fs::read(root.join("copy")).unwrap() == data, "the bytes differ: {report}");
    assert_eq!(report["bytes"], data.len());
    let resumed = report["resumed_bytes"].as_u64().unwrap();
    assert!(resumed > 0 && resumed < data.len() as u64, "{report}");
    assert!(
        sent_bytes(&report) <= data.len() as u64 - resumed + (2 << 20),
        "it is not sent again: {report}"
    );
    let digest = format!("{:016x}", crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, data));
    assert_eq!(report["digest"], digest, "the digest is of the whole");
    wait_for("the end of the last records", || beside(root, "").is_empty());
}

#[test]
fn a_copy_that_is_cancelled_goes_on_where_it_was() {
    for more in [&[][..], &["--fsync"], &["--check", "none"]] {
        let root = folder();
        let data = source(root.path(), 41);
        let mut child = slow_copy(root.path(), "160M", more);
        wait_for_journal(root.path(), &mut child);
        kill(pid(&child), Signal::SIGINT).unwrap();
        let output = end_of(child);
        assert_eq!(code(&output), 130, "{}", stderr(&output));
        assert!(stderr(&output).contains("run it again"), "{}", stderr(&output));
        let landed = json(&output)["bytes"].as_u64().unwrap();
        let output = end_of(slow_copy(root.path(), "10G", more));
        let report = json(&output);
        if more.contains(&"none") {
            assert!(report["resumed_bytes"].as_u64().unwrap() > 0, "{report}");
            assert!(fs::read(root.path().join("copy")).unwrap() == data);
        } else {
            assert_continued(root.path(), &output, &data);
        }
        assert!(
            report["resumed_bytes"].as_u64().unwrap() >= landed,
            "all that had landed is kept: {report}"
        );
    }
}

/// A receiver, a sender, and a specification for them.
struct Pair {
    root: tempfile::TempDir,
    sender: Daemon,
    receiver: Option<Daemon>,
    spec: PathBuf,
    data: Vec<u8>,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let root = folder();
        fs::create_dir(root.path().join("r")).unwrap();
        let data = source(root.path(), seed);
        let sender = Daemon::start(root.path(), &[]);
        let mut pair = Pair { sender, receiver: None, spec: root.path().join("spec"), data, root };
        pair.start_receiver();
        pair
    }

    /// Starts the receiver, on a new port each time.
    fn start_receiver(&mut self) {
        let receiver = Daemon::start(&self.folder(), &[]);
        let last = BYTES - 1;
        let (from, to) = (&self.sender.address, &receiver.address);
        let spec = format!(
            "id pair\n\
             writer {from} file:///source 0 0-{last}\n\
             reader {to} file:///copy 0 0-{last}\n"
        );
        fs::write(&self.spec, spec).unwrap();
        self.receiver = Some(receiver);
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("r")
    }

    /// Starts the transfer slowly, and waits until the journal has records.
    fn begin(&self) -> Child {
        let mut child = begin(&self.spec, &["--limit", "160M"]);
        wait_for_journal(&self.folder(), &mut child);
        child
    }

    fn again(&self, more: &[&str]) -> Output {
        end_of(begin(&self.spec, more))
    }
}

#[test]
fn a_receiver_that_is_killed_comes_back_and_goes_on() {
    let mut pair = Pair::new(42);
    let child = pair.begin();
    pair.receiver.take().unwrap().signal(Signal::SIGKILL);
    let output = end_of(child);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(!pair.folder().join("copy").exists());
    pair.start_receiver();
    let output = pair.again(&[]);
    assert_continued(&pair.folder(), &output, &pair.data);
    let again = BYTES as u64 - json(&output)["resumed_bytes"].as_u64().unwrap();
    assert!(again < AGAIN_BYTES_MAX + (BYTES as u64) / 2, "{}", json(&output));
}

#[test]
fn a_master_that_is_killed_is_followed_by_another() {
    let pair = Pair::new(43);
    let child = pair.begin();
    kill(pid(&child), Signal::SIGKILL).unwrap();
    end_of(child);
    assert_continued(&pair.folder(), &pair.again(&[]), &pair.data);
}

/// Returns the bytes that all nodes of a transfer have sent.
fn sent_bytes(report: &serde_json::Value) -> u64 {
    report["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["bytes_sent"].as_u64().unwrap())
        .sum()
}

/// Regression: nodes ended with their session, and bytes that had not landed by then were fetched
/// by the next attempt.
#[test]
fn nodes_whose_master_is_killed_finish_what_the_plan_gives_them() {
    let pair = Pair::new(51);
    let child = pair.begin();
    kill(pid(&child), Signal::SIGKILL).unwrap();
    end_of(child);
    let copy = pair.folder().join("copy");
    assert!(!copy.exists(), "it was killed too late");
    wait_for("the end without a master", || copy.exists());
    let output = pair.again(&[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    assert_eq!((&report["resumed_bytes"], sent_bytes(&report)), (&BYTES.into(), 0), "{report}");
    assert!(fs::read(&copy).unwrap() == pair.data);
    wait_for("the end of the last records", || beside(pair.root.path(), "").is_empty());
}

/// Regression: with `--overwrite` the complete file was fetched again.
#[test]
fn a_file_that_was_complete_before_its_master_knew_stands_also_with_overwrite() {
    let pair = Pair::new(53);
    let child = pair.begin();
    kill(pid(&child), Signal::SIGKILL).unwrap();
    end_of(child);
    let copy = pair.folder().join("copy");
    wait_for("the end without a master", || copy.exists());
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&copy).unwrap());
    let before = inode();
    let output = pair.again(&["--overwrite"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    assert_eq!((&report["resumed_bytes"], sent_bytes(&report)), (&BYTES.into(), 0), "{report}");
    assert!(fs::read(&copy).unwrap() == pair.data && inode() == before, "it is the same file");
    wait_for("the end of the last records", || beside(pair.root.path(), "").is_empty());
    // After the confirmation, it is a file like any other.
    let report = json(&pair.again(&["--overwrite"]));
    assert_eq!(report["resumed_bytes"], 0, "{report}");
    assert!(inode() != before, "it is overwritten");
}

#[test]
fn a_source_that_changed_in_between_starts_again_and_says_so() {
    let mut pair = Pair::new(44);
    let child = pair.begin();
    kill(pid(&child), Signal::SIGINT).unwrap();
    end_of(child);
    pair.data = source(pair.root.path(), 45);
    let output = pair.again(&[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["resumed_bytes"], 0);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("the source changed: file:///source at 127.0.0.1:"), "{report}");
    assert!(stderr(&output).contains("the source changed"), "{}", stderr(&output));
    assert!(fs::read(pair.folder().join("copy")).unwrap() == pair.data);
    assert_eq!(beside(&pair.folder(), ""), Vec::<PathBuf>::new());
}

/// Overwrites a part of a file, and restores its modification time, like `touch -r`.
fn meddle(path: &Path, how: impl FnOnce(&fs::File)) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    how(&file);
    file.set_modified(before).unwrap();
}

fn partial_of(folder: &Path) -> PathBuf {
    beside(folder, "")
        .into_iter()
        .find(|path| !path.to_string_lossy().ends_with(".journal"))
        .unwrap()
}

/// Regression: the records were trusted, so the copy was half zeros, with status 0 and a digest.
#[test]
fn a_partial_file_that_somebody_changed_is_read_and_what_is_wrong_is_fetched_again() {
    let zeroed = |file: &fs::File| file.write_all_at(&[0; 4096], 5000).unwrap();
    let cut = |file: &fs::File| {
        file.set_len(1 << 20).unwrap();
        file.set_len(BYTES as u64).unwrap();
    };
    for (how, check) in
        [(&zeroed as &dyn Fn(&fs::File), "crc64"), (&cut, "crc64"), (&zeroed, "none")]
    {
        let root = folder();
        let data = source(root.path(), 71);
        let mut child = slow_copy(root.path(), "160M", &["--check", check]);
        wait_for_journal(root.path(), &mut child);
        kill(pid(&child), Signal::SIGINT).unwrap();
        let landed = json(&end_of(child))["bytes"].as_u64().unwrap();
        meddle(&partial_of(root.path()), how);
        let output = end_of(slow_copy(root.path(), "10G", &["--check", check]));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(fs::read(root.path().join("copy")).unwrap() == data, "the bytes differ");
        assert!(
            stderr(&output).contains("could not be confirmed and starts again"),
            "{}",
            stderr(&output)
        );
        let resumed = json(&output)["resumed_bytes"].as_u64().unwrap();
        match check {
            "none" => assert_eq!(resumed, 0, "there is nothing to hold it against"),
            _ => assert!(resumed > 0 && resumed < landed, "{resumed} of {landed}"),
        }
    }
}

/// Regression: foreign files were taken for the program's own, and renamed.
#[test]
fn a_leftover_that_was_given_to_another_user_is_replaced_with_a_word_on_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let root = folder();
    let data = source(root.path(), 72);
    let mut child = slow_copy(root.path(), "160M", &[]);
    wait_for_journal(root.path(), &mut child);
    kill(pid(&child), Signal::SIGINT).unwrap();
    end_of(child);
    let partial = partial_of(root.path());
    std::os::unix::fs::chown(&partial, Some(65_534), Some(65_534)).unwrap();
    let strangers = fs::OpenOptions::new().write(true).open(&partial).unwrap();
    let output = end_of(slow_copy(root.path(), "10G", &[]));
    assert_eq!(
        (code(&output), &json(&output)["resumed_bytes"]),
        (0, &0.into()),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("belongs to another user"), "{}", stderr(&output));
    strangers.write_all_at(&[0; 4096], 0).unwrap();
    let copy = root.path().join("copy");
    assert!(fs::read(&copy).unwrap() == data);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(&copy).unwrap()), 0);
}

/// Regression: an existing file was renamed and overwritten in place without --overwrite, and was
/// lost in a failure.
#[test]
fn a_complete_file_whose_source_has_changed_is_refused_and_replaced_only_when_that_is_asked_for() {
    let mut pair = Pair::new(73);
    let child = pair.begin();
    kill(pid(&child), Signal::SIGKILL).unwrap();
    end_of(child);
    let copy = pair.folder().join("copy");
    wait_for("the end without a master", || copy.exists());
    let old = std::mem::take(&mut pair.data);
    let reader = fs::File::open(&copy).unwrap();
    pair.data = source(pair.root.path(), 74);
    let output = pair.again(&[]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("/copy exists"), "{}", stderr(&output));
    assert!(fs::read(&copy).unwrap() == old, "it is as it was");
    let inode = || {
        let journal = beside(&pair.folder(), ".journal").pop()?;
        fs::metadata(journal).ok().map(|about| std::os::unix::fs::MetadataExt::ino(&about))
    };
    let of_old = inode();
    let mut child = begin(&pair.spec, &["--overwrite", "--limit", "160M"]);
    wait_for("a journal of the new file", || inode() != of_old);
    wait_for_journal(&pair.folder(), &mut child);
    kill(pid(&child), Signal::SIGINT).unwrap();
    end_of(child);
    assert!(fs::read(&copy).unwrap() == old, "a failure leaves it as it was");
    // An attempt with --overwrite is resumed without it.
    let output = pair.again(&[]);
    assert_continued(&pair.folder(), &output, &pair.data);
    let mut bytes = vec![0; BYTES];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == old, "who has the old file open still sees it");
}

#[test]
fn no_resume_starts_over_and_leaves_nothing() {
    let pair = Pair::new(46);
    let child = pair.begin();
    kill(pid(&child), Signal::SIGINT).unwrap();
    end_of(child);
    let [partial] = &beside(&pair.folder(), "")[..1] else { panic!("a partial file stays") };
    let child = begin(&pair.spec, &["--limit", "160M", "--no-resume"]);
    wait_for("a new partial file", || {
        beside(&pair.folder(), ".journal").is_empty() && partial.exists()
    });
    kill(pid(&child), Signal::SIGINT).unwrap();
    let output = end_of(child);
    assert_eq!(code(&output), 130);
    assert!(!stderr(&output).contains("run it again"), "{}", stderr(&output));
    assert_eq!(beside(&pair.folder(), ""), Vec::<PathBuf>::new());
    let output = pair.again(&["--no-resume"]);
    assert_eq!((code(&output), &json(&output)["resumed_bytes"]), (0, &0.into()));
}

#[test]
fn a_journal_that_is_damaged_is_refused_with_a_reason_and_nothing_of_it_believed() {
    let pair = Pair::new(47);
    let child = pair.begin();
    kill(pid(&child), Signal::SIGINT).unwrap();
    end_of(child);
    let [journal] = &beside(&pair.folder(), ".journal")[..] else { panic!("one journal") };
    let file = fs::OpenOptions::new().write(true).open(journal).unwrap();
    file.write_all_at(b"?", 40).unwrap();
    let output = pair.again(&[]);
    assert_eq!(
        (code(&output), &json(&output)["resumed_bytes"]),
        (0, &0.into()),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("starts again: its header is damaged"), "{}", stderr(&output));
    assert!(fs::read(pair.folder().join("copy")).unwrap() == pair.data);
    assert_eq!(beside(&pair.folder(), ""), Vec::<PathBuf>::new());
}

/// One of two receivers has its file, the other one is killed: the second attempt accepts the first
/// file as it is.
#[test]
fn a_file_that_is_complete_already_is_not_in_the_way_of_the_second_attempt() {
    let root = folder();
    for name in ["small", "large"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    let data = source(root.path(), 48);
    let (spec, small_bytes) = (root.path().join("spec"), 4 << 20);
    let start = |name: &str| Daemon::start(&root.path().join(name), &[]);
    let senders = [Daemon::start(root.path(), &[]), Daemon::start(root.path(), &[])];
    let write = |small: &Daemon, large: &Daemon| {
        let [first, second] = [&senders[0].address, &senders[1].address];
        let (middle, last) = (small_bytes, BYTES - 1);
        let rows = format!(
            "id half\n\
             writer {first} file:///source 0 0-{}\n\
             writer {second} file:///source {middle} {middle}-{last}\n\
             reader {} file:///first 0 0-{}\n\
             reader {} file:///copy 0 {middle}-{last}\n",
            middle - 1,
            small.address,
            middle - 1,
            large.address
        );
        fs::write(&spec, rows).unwrap();
    };
    let (small, large) = (start("small"), start("large"));
    write(&small, &large);
    let mut child = begin(&spec, &["--limit", "160M"]);
    let (first, second) = (root.path().join("small/first"), root.path().join("large"));
    wait_for_journal(&second, &mut child);
    senders[1].signal(Signal::SIGSTOP);
    wait_for("the first file", || first.exists());
    large.signal(Signal::SIGKILL);
    senders[1].signal(Signal::SIGCONT);
    let output = end_of(child);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(
        first.exists() && beside(root.path(), ".journal").len() == 2,
        "{:?}",
        listing(root.path())
    );
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&first).unwrap());
    let large = start("large");
    write(&small, &large);
    let output = end_of(begin(&spec, &[]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        json(&output)["resumed_bytes"].as_u64().unwrap() > small_bytes as u64,
        "{}",
        json(&output)
    );
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(&first).unwrap()),
        inode,
        "it is the same file"
    );
    assert!(fs::read(&first).unwrap() == data[..small_bytes]);
    assert!(fs::read(second.join("copy")).unwrap() == data[small_bytes..]);
    wait_for("the end of the last records", || beside(root.path(), "").is_empty());
    let output = end_of(begin(&spec, &[]));
    assert_eq!(code(&output), 5, "now they exist: {}", stderr(&output));
}

#[test]
fn what_the_disk_changed_is_found_when_it_is_read_back() {
    for check in ["crc64", "blake3"] {
        let root = folder();
        let data = source(root.path(), 50);
        let verify = ["--verify", "disk", "--check", check];
        let mut child = slow_copy(root.path(), "160M", &verify);
        wait_for_journal(root.path(), &mut child);
        let partial =
            fs::OpenOptions::new().read(true).write(true).open(partial_of(root.path())).unwrap();
        let mut byte = [0];
        partial.read_exact_at(&mut byte, 5000).unwrap();
        assert_eq!(byte[0], data[5000], "the first piece has landed");
        partial.write_all_at(&[!byte[0]], 5000).unwrap();
        let output = end_of(child);
        assert_eq!(code(&output), 6, "{}", stderr(&output));
        assert!(
            stderr(&output).contains("reads back from the disk as something else"),
            "{}",
            stderr(&output)
        );
        assert_eq!(listing(root.path()), [root.path().join("source")], "nothing of it is kept");
        let output = end_of(slow_copy(root.path(), "10G", &verify));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(fs::read(root.path().join("copy")).unwrap() == data);
    }
}

/// Interrupts a transfer of two receivers that write paths of the same name below `roots`, and runs
/// it again. The nodes receive the last good-bye.
fn interrupted_and_again(roots: [&str; 2]) -> (tempfile::TempDir, Vec<u8>, Output, [Daemon; 3]) {
    let root = folder();
    roots.iter().for_each(|name| fs::create_dir_all(root.path().join(name)).unwrap());
    let data = source(root.path(), 49);
    let sender = Daemon::start(root.path(), &[]);
    let [one, two] = roots.map(|name| Daemon::start(&root.path().join(name), &[]));
    let (spec, last) = (root.path().join("spec"), BYTES - 1);
    let rows = format!(
        "id copies\n\
         writer {} file:///source 0 0-{last}\n\
         reader {} file:///copy 0 0-{last}\n\
         reader {} file:///copy 0 0-{last}\n",
        sender.address, one.address, two.address
    );
    fs::write(&spec, rows).unwrap();
    let mut child = begin(&spec, &["--limit", "320M"]);
    if roots[0] == roots[1] {
        wait_for("the file of both", || !beside(root.path(), ".token").is_empty());
    } else {
        roots.iter().for_each(|name| wait_for_journal(&root.path().join(name), &mut child));
    }
    kill(pid(&child), Signal::SIGINT).unwrap();
    assert_eq!(code(&end_of(child)), 130);
    (root, data, end_of(begin(&spec, &[])), [sender, one, two])
}

#[test]
fn copies_of_one_name_on_different_machines_go_on() {
    let (root, data, output, _nodes) = interrupted_and_again(["r1", "r2"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(json(&output)["resumed_bytes"].as_u64().unwrap() > 2 << 20, "{}", json(&output));
    for copy in ["r1/copy", "r2/copy"] {
        assert!(fs::read(root.path().join(copy)).unwrap() == data, "{copy}");
    }
    wait_for("the end of the last records", || beside(root.path(), "").is_empty());
}

#[test]
fn one_file_in_which_nodes_write_over_one_another_starts_again() {
    let (root, data, output, _nodes) = interrupted_and_again(["shared", "shared"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(json(&output)["resumed_bytes"], 0);
    assert!(fs::read(root.path().join("shared/copy")).unwrap() == data);
    wait_for("the end of the last records", || beside(root.path(), "").is_empty());
}

/// A sender, and two receivers that write one file, a half each.
struct Writers {
    root: tempfile::TempDir,
    nodes: Vec<Daemon>,
    spec: PathBuf,
    data: Vec<u8>,
}

impl Writers {
    fn new(seed: u64) -> Writers {
        let root = folder();
        fs::create_dir(root.path().join("r")).unwrap();
        let data = source(root.path(), seed);
        let nodes = ["", "r", "r"].map(|name| Daemon::start(&root.path().join(name), &[])).into();
        let writers = Writers { nodes, spec: root.path().join("spec"), data, root };
        writers.write_spec();
        writers
    }

    fn write_spec(&self) {
        let [sender, one, two] = &self.nodes[..] else { unreachable!("three were started") };
        let (half, last) = (BYTES / 2, BYTES - 1);
        let spec = format!(
            "id writers\noption block 1M\n\
             writer {} file:///source 0 0-{last}\n\
             reader {} file:///copy 0 0-{}\n\
             reader {} file:///copy {half} {half}-{last}\n",
            sender.address,
            one.address,
            half - 1,
            two.address,
        );
        fs::write(&self.spec, spec).unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("r")
    }

    /// Starts the transfer slowly, and waits until both journals have records.
    fn begin(&self) -> Child {
        let child = begin(&self.spec, &["--limit", "160M"]);
        wait_for("two journals", || {
            self.recorded().iter().filter(|records| **records > 1).count() == 2
        });
        child
    }

    /// Returns the number of records in each journal.
    fn recorded(&self) -> Vec<u64> {
        let journals = beside(&self.folder(), "")
            .into_iter()
            .filter(|it| it.to_string_lossy().contains(".journal"));
        journals
            .map(|path| {
                fs::metadata(path).map_or(0, |about| {
                    about.len().saturating_sub(JOURNAL_HEADER_BYTES) / JOURNAL_RECORD_BYTES
                })
            })
            .collect()
    }

    /// Kills a node and starts it again.
    fn kill(&mut self, node: usize) {
        self.nodes[node].signal(Signal::SIGKILL);
        self.nodes[node] = Daemon::start(&self.folder(), &[]);
    }
}

#[test]
fn one_file_that_several_nodes_write_goes_on_whoever_dies() {
    for (seed, victim) in [(61, None), (62, Some(0)), (63, Some(1)), (64, Some(2))] {
        let mut writers = Writers::new(seed);
        let child = writers.begin();
        match victim {
            None => kill(pid(&child), Signal::SIGINT).unwrap(),
            // The nodes continue without it, until the next one ends their attempt.
            Some(0) => kill(pid(&child), Signal::SIGKILL).unwrap(),
            Some(node) => writers.kill(node),
        }
        let output = end_of(child);
        assert_ne!(code(&output), 0, "{victim:?}: {}", stderr(&output));
        assert!(!writers.folder().join("copy").exists(), "{victim:?}");
        writers.write_spec();
        let output = end_of(begin(&writers.spec, &[]));
        assert_continued(&writers.folder(), &output, &writers.data);
        assert_eq!(
            json(&output)["warnings"],
            serde_json::json!([]),
            "{victim:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn one_file_that_several_nodes_have_written_is_found_complete() {
    let mut writers = Writers::new(65);
    let child = writers.begin();
    kill(pid(&child), Signal::SIGKILL).unwrap();
    end_of(child);
    // Without a master the file is not renamed, but all wanted bytes land.
    wait_for("the last record", || writers.recorded().iter().sum::<u64>() << 20 >= BYTES as u64);
    writers.kill(1);
    writers.kill(2);
    writers.write_spec();
    let output = end_of(begin(&writers.spec, &[]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    assert_eq!((&report["resumed_bytes"], sent_bytes(&report)), (&BYTES.into(), 0), "{report}");
    assert!(fs::read(writers.folder().join("copy")).unwrap() == writers.data);
    wait_for("the end of the last records", || beside(&writers.folder(), "").is_empty());
}

#[test]
fn a_full_disk_loses_nothing() {
    let root = folder();
    fs::create_dir(root.path().join("disk")).unwrap();
    let disk = root.path().join("disk");
    let mount = |options: &str| {
        let mut mount = std::process::Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&disk)
            .output()
            .unwrap()
            .status
            .success()
    };
    if !mount("size=64m") {
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0).output();
        }
    }
    let _unmount = Unmount(&disk);
    let data = source(root.path(), 49);
    let copy = |limit: &str| {
        let mut command = cep_fast(&["copy", "--json", "--progress", "never", "--limit", limit]);
        command.arg(root.path().join("source")).arg(disk.join("copy"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = copy("160M");
    wait_for_journal(&disk, &mut child);
    kill(pid(&child), Signal::SIGINT).unwrap();
    end_of(child);
    // Allocated space is kept: a file that fills the rest does no harm, and one more byte is
    // refused.
    let partial = partial_of(&disk);
    let punched = run(std::process::Command::new("fallocate")
        .args(["-p", "-o", "33554432", "-l", "8388608"])
        .arg(&partial));
    assert_eq!(code(&punched), 0);
    let filler =
        run(std::process::Command::new("fallocate").args(["-l", "30M"]).arg(disk.join("filler")));
    assert_eq!(code(&filler), 0);
    let output = end_of(copy("10G"));
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("full"), "{}", stderr(&output));
    fs::remove_file(disk.join("filler")).unwrap();
    let output = end_of(copy("10G"));
    assert_continued(&disk, &output, &data);
}

/// Delays a master's good-bye until the master has ended, or has had ample time for it.
struct SlowGoodBye {
    /// Signals of a master's end.
    ended: Mutex<Receiver<()>>,
}

impl Gate for SlowGoodBye {
    fn record(&self, way: Way, bytes: usize) -> Verdict {
        if way == Way::ToNode && bytes == proxy::GOOD_BYE_BYTES {
            let _ = self.ended.lock().unwrap().recv_timeout(Duration::from_millis(300));
        }
        Verdict::Pass
    }

    fn half(&self) {}
}

/// Regression: the master ended after sending its good-bye, and journals remained beside complete
/// files until it arrived.
#[test]
fn nothing_is_left_beside_a_file_when_its_master_says_that_all_is_done() {
    let mut ends: Vec<Sender<()>> = Vec::new();
    let roots = [folder(), folder()];
    let readers = roots.each_ref().map(|root| Daemon::start(root.path(), &[]));
    let addresses = readers.each_ref().map(|reader| {
        let (end, ended) = channel();
        ends.push(end);
        let gate: Arc<dyn Gate> = Arc::new(SlowGoodBye { ended: Mutex::new(ended) });
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        proxy::start(free, reader.address.parse().unwrap(), &gate);
        free
    });
    let folder = folder();
    let writer = Daemon::start(folder.path(), &[]);
    // A single receiver learns of the end by the good-bye; two that feed each other receive a
    // message before.
    for count in [1, 2] {
        let mut spec = format!("id end\nwriter {} pattern:1 0 0-9999999\n", writer.address);
        for address in &addresses[..count] {
            spec += &format!("reader {address} file:///x{count} 0 0-9999999\n");
        }
        fs::write(folder.path().join("spec"), spec).unwrap();
        let output = run(
            cep_fast(&["run", "--json", "--progress", "never"]).arg(folder.path().join("spec"))
        );
        let left: Vec<PathBuf> = roots.iter().flat_map(|root| beside(root.path(), "")).collect();
        ends.iter().for_each(|end| _ = end.send(()));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(left, Vec::<PathBuf>::new(), "{count} readers");
        assert_eq!(
            json(&output)["warnings"].as_array().map_or(0, Vec::len),
            0,
            "{}",
            json(&output)["warnings"]
        );
    }
}

#[test]
fn with_the_calls_of_linux_4_18_the_same_cases_pass() {
    support::filter::same_cases_with_linux_4_18(&["with_the_calls_of"]);
}

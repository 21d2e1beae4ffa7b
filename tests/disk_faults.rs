//! Disks that fail while they are written and read: power failures, and errors that persist.
//!
//! The disks are file systems on loop devices. Their power is cut with an ext4 ioctl: from then on
//! ext4 refuses all requests, and data that was not on the disk is missing after the next mount.
//! Skipped with a note where mounting is not permitted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use support::disk::Disk;
use support::{
    Daemon, JOURNAL_HEADER_BYTES as HEADER_BYTES, JOURNAL_RECORD_BYTES as RECORD_BYTES, beside,
    cep_fast, code, end_of, folder, json, random_bytes, run, stderr, wait_for,
};

const BYTES: usize = 32 << 20;
const MIB: usize = 1 << 20;

/// A sender below a folder, and a receiver below a disk.
struct Lab {
    receiver: Option<Daemon>,
    sender: Daemon,
    disk: Disk,
    data: Vec<u8>,
    root: tempfile::TempDir,
}

impl Lab {
    fn new(seed: u64) -> Option<Lab> {
        let root = folder();
        let disk =
            Disk::new(root.path().join("image"), root.path().join("disk"), 3 * BYTES as u64)?;
        Some(Lab::on(root, disk, seed))
    }

    fn on(root: tempfile::TempDir, disk: Disk, seed: u64) -> Lab {
        let data = random_bytes(seed, BYTES);
        fs::write(root.path().join("source"), &data).unwrap();
        let sender = Daemon::start(root.path(), &[]);
        let receiver = Some(Daemon::start(&disk.at, &[]));
        Lab { receiver, sender, disk, data, root }
    }

    /// Starts the transfer to the receiver's current address.
    fn start(&self, more: &[&str]) -> Child {
        let (from, to) = (&self.sender.address, &self.receiver.as_ref().unwrap().address);
        let last = BYTES - 1;
        let rows = format!(
            "id disk\n\
             option block {MIB}\n\
             writer {from} file:///source 0 0-{last}\n\
             reader {to} file:///copy 0 0-{last}\n"
        );
        let spec = self.root.path().join("spec");
        fs::write(&spec, rows).unwrap();
        let mut command =
            cep_fast(&["run", "--json", "--progress", "never", "--stall-timeout", "5s"]);
        let command = command.args(more).arg(spec).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn journal(&self) -> Option<PathBuf> {
        beside(&self.disk.at, ".journal").pop()
    }

    /// Returns the number of records in the journal.
    fn records(&self) -> u64 {
        let bytes = self.journal().and_then(|path| Some(fs::metadata(path).ok()?.len()));
        bytes.unwrap_or_default().saturating_sub(HEADER_BYTES) / RECORD_BYTES
    }

    /// Starts the transfer slowly, and waits until some pieces are recorded, and further ones after
    /// them. Returns the number of the first ones: they are durable by then, if requested.
    fn begin(&self, more: &[&str]) -> (Child, u64) {
        let child = self.start(&[&["--limit", "80M"], more].concat());
        wait_for("a journal", || self.records() > 4);
        let first = self.records();
        wait_for("more of it", || self.records() > first);
        (child, first)
    }

    /// Kills all users of the disk, cuts its power, and mounts it again.
    fn cut_power(&mut self, master: Option<Child>) {
        self.disk.cut_power();
        self.receiver.take().unwrap().signal(Signal::SIGKILL);
        if let Some(mut master) = master {
            master.kill().unwrap();
            master.wait().unwrap();
        }
        self.disk.restart();
    }

    /// Returns the number of whole MiB in the file at `path` that equal the source's.
    fn right_blocks(&self, path: &Path) -> usize {
        let file = File::open(path).unwrap();
        let mut block = vec![0; MIB];
        let is_right = |at: &usize| {
            file.read_exact_at(&mut block, (at * MIB) as u64).is_ok()
                && block == self.data[at * MIB..][..MIB]
        };
        (0..BYTES / MIB).filter(is_right).count()
    }

    /// Checks that the receiver, which failed by itself, has reported its work until then.
    fn assert_reported(&self, output: &Output) {
        let (report, receiver) = (json(output), &self.receiver.as_ref().unwrap().address);
        let is_it = |node: &&serde_json::Value| node["name"] == receiver.as_str();
        let node = report["nodes"].as_array().unwrap().iter().find(is_it).unwrap();
        let (landed, received) =
            (report["bytes"].as_u64().unwrap(), node["bytes_received"].as_u64().unwrap());
        assert!(landed > 0 && received >= landed, "{report}");
        assert_eq!(node["rails"][0]["bytes_received"], received, "{report}");
    }

    fn assert_copied(&self, output: &Output) {
        assert_eq!(code(output), 0, "{}", stderr(output));
        assert!(
            fs::read(self.disk.at.join("copy")).unwrap() == self.data,
            "the bytes differ: {}",
            json(output)
        );
        assert_eq!(beside(&self.disk.at, ""), Vec::<PathBuf>::new(), "nothing is left");
    }
}

/// Recorded ranges of a killed node are read before they are trusted, so the resumed bytes show
/// which records were true.
#[test]
fn with_fsync_what_was_recorded_before_a_power_cut_is_there_after_it() {
    let Some(mut lab) = Lab::new(61) else { return };
    let (master, before) = lab.begin(&["--fsync"]);
    lab.cut_power(Some(master));
    assert!(lab.records() >= before, "{} of {before} records are left", lab.records());
    lab.receiver = Some(Daemon::start(&lab.disk.at, &[]));
    let output = end_of(lab.start(&["--fsync"]));
    lab.assert_copied(&output);
    let resumed = json(&output)["resumed_bytes"].as_u64().unwrap();
    assert!(resumed >= before * MIB as u64, "{resumed} of {before} records");
}

#[test]
fn with_fsync_what_was_reported_complete_survives_a_power_cut() {
    let Some(mut lab) = Lab::new(62) else { return };
    let output = end_of(lab.start(&["--fsync"]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    lab.cut_power(None);
    assert!(fs::read(lab.disk.at.join("copy")).unwrap() == lab.data);
}

/// The worst case: the records are on the disk and their bytes are not, because the kernel had
/// written the journal first. A power failure changes the boot id, which stays the same here; so
/// the next node is given another one.
#[test]
fn without_fsync_records_whose_bytes_a_power_cut_has_taken_are_not_believed() {
    let Some(mut lab) = Lab::new(63) else { return };
    let (master, _) = lab.begin(&["--path", "copy"]);
    File::open(lab.journal().unwrap()).unwrap().sync_all().unwrap();
    let before = lab.records();
    lab.cut_power(Some(master));
    let partial = beside(&lab.disk.at, "")
        .into_iter()
        .find(|path| !path.to_string_lossy().ends_with(".journal"));
    let right = lab.right_blocks(&partial.unwrap());
    assert!(
        lab.records() > right as u64,
        "{} records of {before}, {right} right: no byte was lost",
        lab.records()
    );
    let boot = lab.root.path().join("boot_id");
    fs::write(&boot, "4e29c9b6-5bd1-4c80-ae9c-8ff6cd1dd9f4\n").unwrap();
    lab.receiver = Some(Daemon::start_booted(&lab.disk.at, &boot));
    let output = end_of(lab.start(&["--path", "copy"]));
    lab.assert_copied(&output);
    assert!(stderr(&output).contains("started anew"), "{}", stderr(&output));
    assert!(
        json(&output)["resumed_bytes"].as_u64().unwrap() <= (right * MIB) as u64,
        "{}",
        json(&output)
    );
}

/// Regression: records of an attempt without --fsync were copied into a journal that marks all of
/// them as durable.
#[test]
fn with_fsync_what_an_attempt_without_it_had_recorded_is_there_after_a_power_cut() {
    let Some(mut lab) = Lab::new(67) else { return };
    let (master, _) = lab.begin(&["--path", "copy"]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(master.id().cast_signed()), Signal::SIGINT)
        .unwrap();
    let output = end_of(master);
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    let landed = json(&output)["bytes"].as_u64().unwrap();
    let before = lab.records();
    let master = lab.start(&["--fsync", "--path", "copy", "--limit", "80M"]);
    wait_for("more of it", || lab.records() > before);
    lab.cut_power(Some(master));
    lab.receiver = Some(Daemon::start(&lab.disk.at, &[]));
    let output = end_of(lab.start(&["--fsync"]));
    lab.assert_copied(&output);
    let resumed = json(&output)["resumed_bytes"].as_u64().unwrap();
    assert!(resumed >= landed, "{resumed} of {landed} B were there: {}", stderr(&output));
}

/// The destination fails permanently while it is written.
#[test]
fn a_destination_that_fails_ends_with_5_and_is_continued_when_it_works_again() {
    let Some(mut lab) = Lab::new(64) else { return };
    let (master, _) = lab.begin(&["--fsync"]);
    lab.disk.cut_power();
    let output = end_of(master);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let receiver = lab.receiver.as_ref().unwrap().address.clone();
    assert!(
        stderr(&output).contains(&receiver) && stderr(&output).contains("/copy"),
        "{}",
        stderr(&output)
    );
    lab.assert_reported(&output);
    assert!(!json(&output)["error"]["missing_ranges"].as_array().unwrap().is_empty());
    lab.disk.restart();
    lab.receiver = Some(Daemon::start(&lab.disk.at, &[]));
    let output = end_of(lab.start(&["--fsync"]));
    lab.assert_copied(&output);
    assert!(json(&output)["resumed_bytes"].as_u64().unwrap() > 0, "{}", json(&output));
}

/// A disk with less space than it reports, like a thin volume: some writes fail and others do not.
#[test]
fn writes_that_fail_on_a_thin_disk_end_with_5_and_the_rest_is_kept() {
    let root = folder();
    let thin = root.path().join("thin");
    fs::create_dir(&thin).unwrap();
    let tmpfs = |options: &str| {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&thin))
    };
    if code(&tmpfs("size=20m")) != 0 {
        eprintln!("skipped: no right to mount a tmpfs");
        return;
    }
    let _unmount = Unmount(thin.clone());
    let Some(disk) = Disk::new(thin.join("image"), root.path().join("disk"), 3 * BYTES as u64)
    else {
        return;
    };
    let mut lab = Lab::on(root, disk, 65);
    let output = end_of(lab.start(&["--fsync", "--limit", "160M"]));
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    lab.assert_reported(&output);
    let receiver = lab.receiver.take().unwrap();
    assert!(stderr(&output).contains(&receiver.address), "{}", stderr(&output));
    assert!(!json(&output)["error"]["missing_ranges"].as_array().unwrap().is_empty());
    assert!(!lab.disk.at.join("copy").exists());
    drop(receiver);
    assert_eq!(code(&tmpfs("remount,size=200m")), 0);
    lab.disk.cut_power();
    lab.disk.restart();
    lab.receiver = Some(Daemon::start(&lab.disk.at, &[]));
    let output = end_of(lab.start(&["--fsync"]));
    lab.assert_copied(&output);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// The source fails while it is read: the only one, or one of two.
#[test]
fn a_source_that_fails_ends_with_5_or_a_replica_stands_in() {
    for has_replica in [false, true] {
        let root = folder();
        let Some(mut disk) =
            Disk::new(root.path().join("image"), root.path().join("disk"), 3 * BYTES as u64)
        else {
            return;
        };
        let data = random_bytes(66, BYTES);
        for folder in [root.path(), &disk.at] {
            fs::write(folder.join("source"), &data).unwrap();
            File::open(folder.join("source")).unwrap().sync_all().unwrap();
        }
        fs::create_dir(root.path().join("r")).unwrap();
        let (failing, replica) = (Daemon::start(&disk.at, &[]), Daemon::start(root.path(), &[]));
        let receiver = Daemon::start(&root.path().join("r"), &[]);
        let last = BYTES - 1;
        let begin = |failing: &Daemon, limit: &str| {
            let mut senders = vec![failing];
            senders.extend(has_replica.then_some(&replica));
            let writer =
                |node: &&Daemon| format!("writer {} file:///source 0 0-{last}\n", node.address);
            let writers: String = senders.iter().map(writer).collect();
            let spec = root.path().join("spec");
            let reader = format!("reader {} file:///copy 0 0-{last}\n", receiver.address);
            fs::write(&spec, format!("id source\n{writers}{reader}")).unwrap();
            let mut command = cep_fast(&["run", "--json", "--progress", "never", "--limit", limit]);
            let command = command.arg(&spec).stdin(Stdio::null());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let master = begin(&failing, "80M");
        wait_for("a journal", || {
            beside(&root.path().join("r"), ".journal").iter().any(|path| {
                fs::metadata(path).is_ok_and(|about| about.len() > HEADER_BYTES + 4 * RECORD_BYTES)
            })
        });
        disk.cut_power();
        let output = end_of(master);
        let copy = root.path().join("r/copy");
        if has_replica {
            assert_eq!(code(&output), 0, "{}", stderr(&output));
        } else {
            assert_eq!(code(&output), 5, "{}", stderr(&output));
            assert!(stderr(&output).contains(&failing.address), "{}", stderr(&output));
            assert!(!json(&output)["error"]["missing_ranges"].as_array().unwrap().is_empty());
            assert!(!copy.exists());
            disk.restart();
            let output = end_of(begin(&Daemon::start(&disk.at, &[]), "10G"));
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            assert!(json(&output)["resumed_bytes"].as_u64().unwrap() > 0, "{}", json(&output));
        }
        assert!(fs::read(copy).unwrap() == data);
    }
}

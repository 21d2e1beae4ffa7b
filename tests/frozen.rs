//! A destination on a frozen file system beside a healthy one, through the same daemon.
//!
//! Writes to a frozen file system neither fail nor end: they wait for as long as it is frozen, as
//! those to a server that has gone away do. Skipped, with a word on it, where nothing may be
//! mounted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::disk::Disk;
use support::{
    Daemon, beside, cep_fast, code, end_of, folder, json, random_bytes, run, stderr, wait_for,
};

const BYTES: usize = 32 << 20;

/// A frozen file system; it thaws with the end of its test.
struct Frozen<'a>(&'a Path);

impl Frozen<'_> {
    fn new(at: &Path) -> Frozen<'_> {
        let frozen = run(Command::new("fsfreeze").arg("-f").arg(at));
        assert_eq!(code(&frozen), 0, "{}", stderr(&frozen));
        Frozen(at)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(self.0).output();
    }
}

/// A sender, and a receiver with two destinations: on a disk that can be frozen, and beside it.
struct Lab {
    receiver: Daemon,
    sender: Daemon,
    data: Vec<u8>,
    // Behind the daemons: a process with a write to a frozen disk does not end.
    disk: Disk,
    root: tempfile::TempDir,
}

impl Lab {
    fn new(seed: u64) -> Option<Lab> {
        let root = folder();
        let disk =
            Disk::new(root.path().join("image"), root.path().join("disk"), 3 * BYTES as u64)?;
        fs::create_dir(root.path().join("healthy")).unwrap();
        let data = random_bytes(seed, BYTES);
        fs::write(root.path().join("source"), &data).unwrap();
        let sender = Daemon::start(root.path(), &[]);
        let receiver = Daemon::start(root.path(), &[]);
        Some(Lab { receiver, sender, data, disk, root })
    }

    fn start(&self, to: &str, more: &[&str]) -> Child {
        let (from, at, last) = (&self.sender.address, &self.receiver.address, BYTES - 1);
        let spec = self.root.path().join(format!("spec of {to}"));
        let rows = format!(
            "writer {from} file:///source 0 0-{last}\nreader {at} file:///{to}/copy 0 0-{last}\n"
        );
        fs::write(&spec, format!("id {to}\n{rows}")).unwrap();
        let mut command = cep_fast(&["run", "--json", "--progress", "never"]);
        let command = command.args(more).arg(spec).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn at(&self, to: &str) -> PathBuf {
        self.root.path().join(to)
    }

    /// Starts a slow transfer to the disk, and freezes that in the middle of it.
    fn freeze(&self, more: &[&str]) -> (Child, Frozen<'_>) {
        let child = self.start("disk", &[&["--limit", "80M"], more].concat());
        wait_for("a journal", || !beside(&self.at("disk"), ".journal").is_empty());
        (child, Frozen::new(&self.disk.at))
    }

    /// Waits until more writes hang than the kernel would have threads for on its own: four for
    /// each of two CPUs.
    fn wait_for_hanging_writes(&self) {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.receiver.pid()));
        let is_worker = |task: &PathBuf| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("iou-wrk"))
        };
        wait_for("writes that hang", || {
            let tasks = fs::read_dir(&tasks).unwrap().flatten().map(|it| it.path());
            tasks.filter(is_worker).count() > 8
        });
    }

    fn assert_copied(&self, to: &str, child: Child) -> serde_json::Value {
        let output = end_of(child);
        assert_eq!(code(&output), 0, "{to}: {}", stderr(&output));
        assert!(fs::read(self.at(to).join("copy")).unwrap() == self.data, "{to}: the bytes differ");
        wait_for("the end of the last records", || beside(&self.at(to), "").is_empty());
        json(&output)
    }
}

#[test]
fn a_frozen_destination_stops_no_other_transfer_and_completes_once_it_thaws() {
    let Some(lab) = Lab::new(91) else { return };
    // Under way before the disk freezes, and begun after it: both are through the same daemon.
    let beside_it = lab.start("healthy", &["--limit", "160M"]);
    wait_for("bytes", || !beside(&lab.at("healthy"), ".journal").is_empty());
    let (mut slow, frozen) = lab.freeze(&["--stall-timeout", "60s"]);
    lab.assert_copied("healthy", beside_it);
    fs::remove_file(lab.at("healthy").join("copy")).unwrap();
    lab.assert_copied("healthy", lab.start("healthy", &[]));
    assert!(slow.try_wait().unwrap().is_none(), "it waits");
    drop(frozen);
    lab.assert_copied("disk", slow);
}

#[test]
fn a_transfer_to_a_frozen_destination_ends_by_its_deadline_and_goes_on_once_it_thaws() {
    let Some(lab) = Lab::new(92) else { return };
    let (slow, frozen) = lab.freeze(&["--stall-timeout", "3s"]);
    lab.wait_for_hanging_writes();
    lab.assert_copied("healthy", lab.start("healthy", &[]));
    fs::remove_file(lab.at("healthy").join("copy")).unwrap();
    let output = end_of(slow);
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert!(stderr(&output).contains(&lab.receiver.address), "{}", stderr(&output));
    lab.assert_copied("healthy", lab.start("healthy", &[]));
    drop(frozen);
    let report = lab.assert_copied("disk", lab.start("disk", &[]));
    assert!(report["resumed_bytes"].as_u64().unwrap() > 0, "{report}");
}

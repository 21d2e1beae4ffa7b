//! Smallest and largest block sizes, numbers of files and of pieces, with every node in a process
//! of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use support::{
    Daemon, cep_fast, code, complete, end_of, folder, json, pattern, random_bytes, run, stderr,
    wait_for,
};

/// Regression: sixteen slots of the largest block exceeded the limit of one registered buffer, and
/// no transfer began.
#[test]
fn blocks_of_64_mebibytes_work_by_default() {
    let root = folder();
    let spec = |block: &str| {
        format!(
            "option block {block}\n\
             writer a:7001 pattern:3 0 0-149999999\n\
             reader b:7001 null: 0 0-149999999\n"
        )
    };
    let large = complete(root.path(), &format!("id large\n{}", spec("64M")), &[]);
    let usual = complete(root.path(), &format!("id usual\n{}", spec("1M")), &[]);
    assert_eq!((&large["bytes"], &large["digest"]), (&usual["bytes"], &usual["digest"]));
    assert!(large["digest"].is_string());
}

/// Regression: only the first 560 files of a transfer had an index in the ring's table.
#[test]
fn a_node_reads_and_writes_more_files_than_the_rings_table_has_places() {
    let (root, count) = (folder(), 1300_u64);
    let data = random_bytes(9, count as usize * 100);
    fs::create_dir(root.path().join("from")).unwrap();
    fs::create_dir(root.path().join("to")).unwrap();
    let mut spec = String::from("id \"many files\"\n");
    for (at, part) in data.chunks(100).enumerate() {
        let (first, last) = (at * 100, at * 100 + 99);
        fs::write(root.path().join(format!("from/{at}")), part).unwrap();
        writeln!(spec, "writer a:7001 file:///from/{at} 0 {first}-{last}").unwrap();
        writeln!(spec, "reader b:7001 file:///to/{at} 0 {first}-{last}").unwrap();
    }
    let report = complete(root.path(), &spec, &[]);
    assert_eq!(report["bytes"], count * 100);
    for (at, part) in data.chunks(100).enumerate() {
        assert!(fs::read(root.path().join(format!("to/{at}"))).unwrap() == part, "file {at}");
    }
}

/// Regression: checks of pieces off the grid, at two receivers, do not join, and were listed one by
/// one.
#[test]
fn checks_that_do_not_join_are_told_compared_and_read_back() {
    let root = folder();
    let bytes = 12_000_000;
    let mut spec = String::from(
        "id \"off the grid\"\noption block 4K\nwriter a:7001 pattern:5 0 0-11999999\n",
    );
    for (node, name) in [("b:7001", "one"), ("c:7001", "other")] {
        writeln!(spec, "reader {node} file:///{name} 0 0-1000").unwrap();
        writeln!(spec, "reader {node} file:///{name} 1001 1001-11999999").unwrap();
    }
    let report = complete(root.path(), &spec, &["--check", "blake3", "--verify", "disk"]);
    assert_eq!((&report["check"], &report["bytes"]), (&"blake3".into(), &(2 * bytes).into()));
    let expected = pattern(5, 0, bytes);
    for name in ["one", "other"] {
        assert!(fs::read(root.path().join(name)).unwrap() == expected, "{name}");
    }
}

/// Starts a transfer of such blocks that continues until it is killed.
fn endless(nodes: [&Daemon; 2], name: &str, block: &str) -> Child {
    let [from, to] = nodes.map(|node| &node.address);
    let spec = format!(
        "id {name}\n\
         option block {block}\n\
         writer {from} pattern:1 0 0-1G\n\
         reader {to} null: 0 0-1G\n"
    );
    let file = std::env::temp_dir().join(format!("cep-sizes-{}-{name}", std::process::id()));
    fs::write(&file, spec).unwrap();
    let mut command = cep_fast(&["run", "--progress", "never", "--limit", "8M"]);
    let child = command
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("a rail that works", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", nodes[1].pid())).unwrap().flatten();
        let mut names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.any(|name| name.trim() == "rail")
    });
    fs::remove_file(&file).unwrap();
    child
}

/// Regression: the transfer with larger blocks was refused while the other one ran.
#[test]
fn transfers_with_larger_and_smaller_blocks_run_side_by_side() {
    let root = folder();
    let (from, to) = (Daemon::start(root.path(), &[]), Daemon::start(root.path(), &[]));
    let mut slow = endless([&from, &to], "slow", "4K");
    for (name, block) in [("usual", "1M"), ("between", "64K"), ("large", "4M"), ("again", "1M")] {
        let spec = root.path().join("spec");
        let (a, b) = (&from.address, &to.address);
        let rows = format!("writer {a} pattern:2 0 0-20999999\nreader {b} null: 0 0-20999999\n");
        fs::write(&spec, format!("id {name}\noption block {block}\n{rows}")).unwrap();
        let output = run(cep_fast(&["run", "--json", "--progress", "never"]).arg(&spec));
        assert_eq!(code(&output), 0, "{name}: {}", stderr(&output));
        assert_eq!(json(&output)["bytes"], 21_000_000);
    }
    assert!(slow.try_wait().unwrap().is_none(), "it goes on meanwhile");
    kill(nix::unistd::Pid::from_raw(slow.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(code(&end_of(slow)), 130);
}

/// Nodes with one path on disks of their own, each with a part of its own: the first one's file was
/// as long as the longest of all, with zeros at its end.
#[test]
fn a_file_is_as_long_as_its_rows_although_others_of_that_name_are_longer() {
    let homes = [folder(), folder(), folder()];
    let daemons: Vec<Daemon> = homes.iter().map(|home| Daemon::start(home.path(), &[])).collect();
    let bytes = random_bytes(3, 300_001);
    fs::write(homes[0].path().join("old"), &bytes).unwrap();
    let spec = homes[0].path().join("spec");
    let at = |node: usize| &daemons[node].address;
    let text = format!(
        "id slices\nwriter {} file:///old 0 0-300000\nreader {} file:///new 0 0-99999\n\
         reader {} file:///new 0 100000-199999\nreader {} file:///new 0 200000-300000\n",
        at(0),
        at(0),
        at(1),
        at(2),
    );
    fs::write(&spec, text).unwrap();
    let output = run(cep_fast(&["run", "--progress", "never"]).arg(&spec));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let ends = [(0, 100_000), (100_000, 200_000), (200_000, 300_001)];
    for (home, (start, end)) in homes.iter().zip(ends) {
        let new = fs::read(home.path().join("new")).unwrap();
        assert!(new == bytes[start..end], "{} bytes", new.len());
    }
}

//! Daemons that the kernel confines: what is bound, and that a way out is closed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use support::{Daemon, cep_fast, code, folder, json, run, stderr};

/// This kernel confines a node wholly, as `doctor` says. Prints a note where it does not.
fn is_confined() -> bool {
    let report = json(&run(&mut cep_fast(&["doctor", "--json"])));
    let mut findings = report["findings"].as_array().unwrap().iter();
    let finding = findings.find(|finding| finding["about"] == "confinement").unwrap();
    let can = finding["level"] == "ok";
    if !can {
        eprintln!("skipped: {}", finding["found"]);
    }
    can
}

fn transfer(home: &Path, node: &Daemon, id: &str, from: &str, to: &str) -> Output {
    let node = &node.address;
    let spec = format!("id {id}\nwriter {node} {from} 0 0-4095\nreader {node} {to} 0 0-4095\n");
    let file = home.join("spec");
    fs::write(&file, spec).unwrap();
    run(cep_fast(&["run", "--progress", "never"]).arg(file))
}

/// The values of some fields of all threads of a process.
fn of_threads(pid: u32, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: std::io::Result<fs::DirEntry>| {
        // A worker may have ended.
        let status = fs::read_to_string(task.unwrap().path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim().to_owned())
    };
    tasks.filter_map(status).collect()
}

#[test]
fn every_thread_of_a_daemon_is_bound_also_those_that_are_made_later() {
    let home = folder();
    if !is_confined() {
        return;
    }
    let node = Daemon::start(home.path(), &["--confine", "required"]);
    for id in ["first", "second"] {
        let to = format!("file:///{id}");
        let output = transfer(home.path(), &node, id, "pattern:1", &to);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        // Its rails are kept for a while.
        let bound = of_threads(node.pid(), "Seccomp:");
        assert!(bound.len() > 3 && bound.iter().all(|mode| mode == "2"), "{bound:?}");
        assert!(of_threads(node.pid(), "NoNewPrivs:").iter().all(|it| it == "1"));
    }
    let free = Daemon::start(home.path(), &["--confine", "off"]);
    assert!(of_threads(free.pid(), "Seccomp:").iter().all(|mode| mode == "0"));
}

/// The path of a root is its owner's, who may follow links there. A confined daemon follows them
/// only as far as they led when it started, whatever the program thinks of it.
#[test]
fn a_root_that_leads_elsewhere_since_the_start_is_refused_until_a_restart() {
    let home = folder();
    if !is_confined() {
        return;
    }
    let at = |name: &str| home.path().join(name);
    for name in ["one", "other"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("x"), [7; 4096]).unwrap();
    }
    symlink("one", at("root")).unwrap();
    let named = format!("data={}", at("root").display());
    let node = |mode| Daemon::start(Path::new(&named), &["--confine", mode]);
    let (bound, free) = (node("required"), node("off"));
    let read = |node: &Daemon, id| transfer(home.path(), node, id, "file:///data/x", "null:");
    for node in [&bound, &free] {
        assert_eq!(code(&read(node, "before")), 0);
    }
    fs::remove_file(at("root")).unwrap();
    symlink("other", at("root")).unwrap();
    assert_eq!(code(&read(&free, "free")), 0, "it goes where the path leads now");
    let output = read(&bound, "bound");
    let said = stderr(&output);
    assert_eq!(code(&output), 4, "{said}");
    assert!(said.contains("root data was replaced since the node started"), "{said}");
    assert!(said.contains("restart"), "{said}");
    let output = transfer(home.path(), &bound, "write", "pattern:1", "file:///data/y");
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(!at("other/y").exists());
    drop(bound);
    assert_eq!(code(&read(&node("required"), "again")), 0);
}

#[test]
fn what_is_mounted_below_a_root_later_is_open_and_on_a_root_it_takes_a_restart() {
    let home = folder();
    if !is_confined() {
        return;
    }
    let root = home.path().join("root");
    fs::create_dir_all(root.join("below")).unwrap();
    let node = Daemon::start(&root, &["--confine", "required"]);
    let mount = |path: &Path| {
        let done = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(path).output();
        done.is_ok_and(|output| output.status.success())
    };
    let umount = |path: &Path| {
        assert!(Command::new("umount").arg("-l").arg(path).status().unwrap().success());
    };
    if !mount(&root.join("below")) {
        return eprintln!("skipped: no right to mount");
    }
    let output = transfer(home.path(), &node, "below", "pattern:1", "file:///below/y");
    let exists = root.join("below/y").exists();
    umount(&root.join("below"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(exists && !root.join("below/y").exists());
    assert!(mount(&root));
    let output = transfer(home.path(), &node, "on", "pattern:1", "file:///y");
    umount(&root);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("root / was replaced since the node started"));
}

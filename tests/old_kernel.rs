//! The program with the calls of Linux 4.18: what lies outside of a root stays out of reach, and
//! reports, logs and `doctor` say what is lost. `loopback` and `resume` run all their cases so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use seccompiler::BpfProgram;
use serde_json::Value;
use support::filter::{behind, linux_4_18};
use support::{Daemon, cep_fast, code, end_of, folder, json, random_bytes, run, stderr};

fn json_of(filters: &[BpfProgram], command: &mut Command, status: i32) -> Value {
    let output = end_of(behind(filters, command));
    assert_eq!(code(&output), status, "{}", stderr(&output));
    json(&output)
}

#[test]
fn a_report_says_what_ran_and_doctor_what_is_lost() {
    let home = folder();
    let data = random_bytes(1, 3_000_000);
    fs::write(home.path().join("source"), &data).unwrap();
    let mut copy = cep_fast(&["copy", "--json", "--progress", "never"]);
    copy.arg(home.path().join("source")).arg(home.path().join("copy"));
    let report = json_of(&linux_4_18(), &mut copy, 0);
    assert!(fs::read(home.path().join("copy")).unwrap() == data);
    for node in report["nodes"].as_array().unwrap() {
        let driver = node["rails"][0]["driver"].as_str().unwrap();
        assert!(driver.starts_with("plain calls: this kernel has no io_uring"), "{driver}");
    }

    let bench = ["bench", "--launch", "local", "--seconds", "1", "--json", "--progress", "never"];
    let figures = json_of(&linux_4_18(), &mut cep_fast(&bench), 0);
    assert_eq!(figures["error"], Value::Null);
    assert!(figures["steps"][0]["gbit_per_s"].as_f64().unwrap() > 0.0, "{figures}");

    let findings = json_of(&linux_4_18(), &mut cep_fast(&["doctor", "--json"]), 5);
    let lost = [
        ("io_uring", "Linux 6.1"),
        ("cachestat", "Linux 6.5"),
        ("SO_BINDTODEVICE", "Linux 5.7"),
        ("openat2", "Linux 5.6"),
        ("confinement", "Linux 6.2"),
    ];
    for (about, since) in lost {
        let mut all = findings["findings"].as_array().unwrap().iter();
        let finding = all.find(|finding| finding["about"] == about).unwrap();
        assert!(finding["level"] != "ok" && finding["cost"].is_string(), "{finding}");
        assert!(finding["remedy"].as_str().unwrap().contains(since), "{finding}");
    }
}

/// The same cases with the calls of this kernel and with those of an old one.
#[test]
fn what_lies_outside_of_a_root_is_neither_read_nor_written() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("in/sub/deep")).unwrap();
    fs::create_dir_all(at("secret")).unwrap();
    for file in ["in/x", "secret/x"] {
        fs::write(at(file), [7; 4096]).unwrap();
    }
    symlink("../../x", at("in/sub/deep/back")).unwrap();
    symlink("sub/deep", at("in/down")).unwrap();
    symlink("../secret", at("in/out")).unwrap();
    symlink("../../../secret/x", at("in/sub/deep/out")).unwrap();
    symlink(at("secret"), at("in/absolute")).unwrap();
    symlink("/proc/self/root", at("in/magic")).unwrap();
    symlink("loop", at("in/loop")).unwrap();
    let secret = format!("in/magic{}", at("secret/x").display());
    let within = ["in/x", "in/sub/deep/back", "in/down/back"];
    let outside = [
        "in/out/x",
        "in/down/out",
        "in/absolute/x",
        "in/../secret/x",
        "in/sub/../../secret/x",
        "in/loop",
        secret.as_str(),
        "secret/x",
    ];
    for filters in [linux_4_18(), Vec::new()] {
        let root = format!("in={}", at("in").display());
        let node = Daemon::start_behind(&filters, Path::new(&root), &["-v"]);
        let transfer = |from: &str, to: &str| {
            let node = &node.address;
            let rows = format!("writer {node} {from} 0 0-4095\nreader {node} {to} 0 0-4095\n");
            fs::write(at("spec"), format!("id rows\n{rows}")).unwrap();
            run(cep_fast(&["run", "--progress", "never"]).arg(at("spec")))
        };
        for path in within {
            let output = transfer(&format!("file:///{path}"), "null:");
            assert_eq!(code(&output), 0, "{path}: {}", stderr(&output));
        }
        for path in outside {
            let uri = format!("file:///{path}");
            for (from, to) in [(uri.as_str(), "null:"), ("pattern:1", uri.as_str())] {
                let output = transfer(from, to);
                assert_eq!(code(&output), 4, "{from} {to}: {}", stderr(&output));
            }
        }
        let output = transfer("pattern:1", "file:///in/down/new");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        fs::remove_file(at("in/sub/deep/new")).unwrap();
        assert_eq!(support::listing(&at("secret")), [at("secret/x")]);
        assert!(fs::read(at("secret/x")).unwrap() == [7; 4096]);
        let log = node.log();
        assert!(filters.is_empty() || log.contains("does not confine this node wholly"), "{log}");
    }
}

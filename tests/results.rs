//! Standard output and standard error of commands, mainly of failed ones.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Output, Stdio};

use support::{cep_fast, code, end_of, folder, json, run, stderr, stderr_of_fast};

const GOOD: &str = "id good\nwriter a:7001 pattern:1 0 0-99\nreader b:7001 null: 0 0-99\n";

#[test]
fn every_failure_prints_its_json() {
    let home = folder();
    let write = |name: &str, text: &[u8]| fs::write(home.path().join(name), text).unwrap();
    write("good", GOOD.as_bytes());
    write("bad", b"id bad\nwritter a:7001 pattern:1 0 0-9\n");
    write("gap", b"id gap\nwriter a:7001 pattern:1 0 0-9\nreader b:7001 null: 0 0-19\n");
    write("bytes", b"id bytes\nwriter a:7001 file:///\xff 0 0-9\n");
    write("nics", GOOD.replace("0-99\n", "0-99 nics=eth0\n").as_bytes());
    write("key", b"1234");
    write("busy", b"");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    write("busy", format!("{GOOD}master {address}\n").as_bytes());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let transfers = [
        ("run missing", 2),
        ("run bad", 2),
        ("run bytes", 2),
        ("run gap", 2),
        ("run nics --launch local", 2),
        ("run busy --launch local", 3),
        ("run good --launch slurm", 2),
        ("run good --key-file missing", 5),
        ("run good --key-file key", 4),
        ("run good --launch local --limit 1", 2),
        ("run good --launch local --root missing", 2),
        ("run good --launch local --verify disk --check none", 2),
        ("run good --nonsense", 2),
        ("run", 2),
        ("copy missing out", 5),
        ("copy h:/x out --launch none", 2),
        ("copy u@h:/x out --launch local", 2),
        ("copy h:/x out --port 5000", 2),
        ("copy @missing:/x out", 2),
        ("copy h:/missing out --launch local", 5),
        ("copy good gap nothing", 2),
        ("copy good good", 2),
        ("copy good gap", 5),
        ("copy good", 2),
    ];
    for (words, status) in transfers {
        let output =
            run(cep_fast(&[]).current_dir(home.path()).args(words.split(' ')).arg("--json"));
        assert_eq!(code(&output), status, "{words}: {}", stderr(&output));
        let report = json(&output);
        assert_eq!(
            (&report["state"], &report["bytes"]),
            (&"failed".into(), &0.into()),
            "{words}: {report}"
        );
        assert_eq!(report["error"]["code"], status, "{words}: {report}");
        assert!(report["error"]["message"].as_str().unwrap().len() > 10, "{words}: {report}");
        assert!(report["nodes"].is_array() && report["scheduler"].is_string(), "{words}: {report}");
        assert_eq!(
            stderr_of_fast(&output).matches("cep-fast: ").count(),
            1,
            "{words}: {}",
            stderr(&output)
        );
    }
    let report = json(&run(cep_fast(&["run", "gap", "--json"]).current_dir(home.path())));
    assert_eq!(
        (&report["transfer"], &report["error"]["missing_ranges"]),
        (&"gap".into(), &serde_json::json!(["10-19"]))
    );
    let others = [
        ("plan missing".to_owned(), 2),
        ("plan gap".into(), 2),
        ("plan good --svg missing/x".into(), 5),
        ("plan --json --delay 1ms good".into(), 2),
        (format!("status {free}"), 3),
        ("status localhost".into(), 2),
        (format!("status {free} --key-file missing"), 5),
        ("bench".into(), 2),
        ("bench --launch ssh".into(), 2),
        ("bench --launch local --svg missing/x".into(), 5),
        (format!("doctor {free}"), 3),
        ("fly".into(), 2),
    ];
    for (words, status) in others {
        let output =
            run(cep_fast(&[]).current_dir(home.path()).args(words.split(' ')).arg("--json"));
        assert_eq!(code(&output), status, "{words}: {}", stderr(&output));
        assert_eq!(json(&output)["error"]["code"], status, "{words}: {}", json(&output));
    }
}

#[test]
fn what_went_wrong_is_said_once() {
    let home = folder();
    fs::write(home.path().join("spec"), GOOD.replace("pattern:1", "file:///missing")).unwrap();
    let output = run(
        cep_fast(&["run", "spec", "--launch", "local", "--root", "."]).current_dir(home.path())
    );
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(output.stdout.is_empty(), "nothing moved, so there is no result: {:?}", output.stdout);
    assert_eq!(stderr(&output).matches("/missing").count(), 1, "{}", stderr(&output));
    assert_eq!(
        stderr(&output).lines().filter(|line| line.starts_with("  try: ")).count(),
        1,
        "{}",
        stderr(&output)
    );

    // The report has the moved bytes, and the reason for the missing ones.
    fs::write(home.path().join("long"), GOOD.replace("0-99\n", "0-99999999\n")).unwrap();
    let words = [
        "run",
        "long",
        "--launch",
        "local",
        "--limit",
        "80M",
        "--timeout",
        "2s",
        "--progress",
        "never",
    ];
    let output = run(cep_fast(&words).current_dir(home.path()));
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    let result = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(result.starts_with("good FAILED: ") && !result.contains("\nerror"), "{result}");
    assert_eq!(stderr_of_fast(&output).matches("cep-fast: ").count(), 1, "{}", stderr(&output));
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let home = folder();
    fs::write(home.path().join("good"), GOOD).unwrap();
    for words in [
        "plan good",
        "plan good --json",
        "run good --launch local",
        "run good --launch local --json",
        "doctor --json",
        "--help",
        "--version",
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = cep_fast(&[]);
        command
            .current_dir(home.path())
            .args(words.split(' '))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let output = end_of(command.stdout(full).spawn().unwrap());
        assert_eq!(code(&output), 5, "{words}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("cannot be written to standard output"),
            "{words}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_reader_that_has_gone_away_is_none() {
    let home = folder();
    fs::write(home.path().join("good"), GOOD).unwrap();
    for words in ["plan good", "run good --launch local --json"] {
        let mut command = cep_fast(&[]);
        command
            .current_dir(home.path())
            .args(words.split(' '))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{words}: {said}");
        assert!(!said.contains("written"), "{words}: {said}");
    }
}

#[test]
fn standard_error_may_be_full() {
    let home = folder();
    fs::write(home.path().join("good"), format!("{GOOD}master 127.0.0.1:0\n")).unwrap();
    for (words, status) in
        [("run good --launch local", 0), ("run missing", 2), ("fly", 2), ("status nowhere:7001", 3)]
    {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = cep_fast(&[]);
        command
            .current_dir(home.path())
            .args(words.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let output: Output = end_of(command.stderr(full).spawn().unwrap());
        assert_eq!(code(&output), status, "{words}");
    }
}

#[test]
fn the_bound_counts_the_limit() {
    let home = folder();
    fs::write(home.path().join("spec"), GOOD.replace("0-99\n", "0-19999999\n")).unwrap();
    let words =
        ["run", "spec", "--launch", "local", "--limit", "160M", "--json", "--progress", "never"];
    let report = json(&run(cep_fast(&words).current_dir(home.path())));
    let (bound, seconds) =
        (report["bound_seconds"].as_f64().unwrap(), report["seconds"].as_f64().unwrap());
    // 20 MB at 20 MB/s, of which a block is ahead.
    let block = report["block_bytes"].as_f64().unwrap();
    assert!((bound - (20e6 - block) / 20e6).abs() < 1e-6, "{report}");
    assert!(bound <= seconds, "{report}");
    assert_eq!(report["bottleneck"], "the limit", "{report}");
}

#[test]
fn help_names_only_what_works() {
    for command in ["run", "copy", "bench"] {
        let output = run(&mut cep_fast(&[command, "--help"]));
        let help = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(code(&output), 0);
        for word in ["--ssh", "local", "slurm"] {
            assert!(help.contains(word), "{word}: {help}");
        }
    }
}

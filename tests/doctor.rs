//! `doctor` on the machine of the tests: both forms of output and the exit status agree on the
//! findings.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::Value;

use support::{cep_fast, run};

fn doctor(arguments: &[&str], plain: bool) -> (Option<i32>, String) {
    let mut command = cep_fast(&["doctor"]);
    command.args(arguments).env_remove("CEP_FAST_IO");
    if plain {
        command.env("CEP_FAST_IO", "plain");
    }
    let output = run(&mut command);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_exit_status_is_that_of_the_findings() {
    let (status, out) = doctor(&["--json"], false);
    assert_eq!(out.lines().count(), 1, "{out}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let shortfalls = findings.iter().filter(|finding| finding["level"] == "shortfall").count();
    assert_eq!(json["shortfalls"], shortfalls, "{out}");
    assert_eq!(status, Some(if shortfalls == 0 { 0 } else { 5 }), "{out}");
    for finding in findings.iter().filter(|finding| finding["level"] == "shortfall") {
        assert!(finding["cost"].is_string() && finding["remedy"].is_string(), "{finding}");
    }
    let nics = json["nics"].as_array().unwrap();
    assert!(nics.iter().any(|nic| nic["name"] == "lo" && nic["use"] == "loopback"), "{out}");
}

#[test]
fn people_are_told_the_same() {
    let (status, out) = doctor(&[], false);
    assert!(out.starts_with("Linux "), "{out}");
    assert_eq!(status == Some(5), out.contains("\nSHORTFALL"), "{out}");
    assert_eq!(
        status == Some(0),
        out.ends_with("between this machine and line rate.\n") && out.contains("\nNothing")
    );
}

#[test]
fn a_machine_that_does_without_a_ring_is_not_well() {
    let (status, out) = doctor(&["--json"], true);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &json["path"]), (Some(5), &"plain".into()), "{out}");
    let finding = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["about"] == "io_uring")
        .unwrap();
    assert_eq!(
        (&finding["level"], &finding["remedy"]),
        (&"shortfall".into(), &"unset CEP_FAST_IO".into())
    );
}

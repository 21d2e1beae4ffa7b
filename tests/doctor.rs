//! `doctor` on the machine of the tests: both forms of output and the exit status agree on the
//! findings. And on hosts over ssh: what differs between them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::Value;

use support::sshd::{SshHost, Sshd};
use support::{PROGRAM, cep_fast, code, json, run, stderr};

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

#[test]
fn hosts_are_examined_over_ssh_and_what_differs_is_named() {
    let hosts =
        [SshHost::new("a"), SshHost::new("b").first("export CEP_FAST_IO=plain"), SshHost::new("c")];
    let Some(sshd) = Sshd::start(&hosts) else { return };
    for host in &hosts {
        let program = sshd.programs(host.name()).join("cep-fast");
        std::os::unix::fs::symlink(PROGRAM, program).unwrap();
    }
    let examine = |more: &[&str]| {
        let mut command = cep_fast(&["doctor", "a,b", "c", "--launch", "ssh", "--deploy", "never"]);
        command.arg("--ssh").arg(sshd.ssh()).args(more).env_remove("CEP_FAST_IO");
        run(&mut command)
    };
    let output = examine(&["--json"]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let found = json(&output);
    let names: Vec<&str> =
        found["hosts"].as_array().unwrap().iter().map(|it| it["host"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let (own, of_a) = (doctor(&["--json"], false).1, &found["hosts"][0]);
    let own: Value = serde_json::from_str(&own).unwrap();
    assert_eq!((&of_a["kernel"], &of_a["shortfalls"]), (&own["kernel"], &own["shortfalls"]));
    let findings = found["findings"].as_array().unwrap();
    let ring = findings.iter().find(|finding| finding["about"] == "io_uring").unwrap();
    assert_eq!(ring["hosts"], serde_json::json!(["b"]), "{found}");
    assert_eq!(ring["remedy"], "unset CEP_FAST_IO");
    let differences = found["differences"].as_array().unwrap();
    let path = differences.iter().find(|it| it["about"] == "data path").unwrap();
    assert_eq!(path["values"][0]["hosts"], serde_json::json!(["a", "c"]), "{found}");
    assert_eq!(path["values"][1], serde_json::json!({"value": "plain", "hosts": ["b"]}));

    let output = examine(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("3 hosts examined.\n\ndata path differs:\n"), "{text}");
    assert!(
        text.contains("\n  plain: b\n") && text.contains("\nSHORTFALL  b: io_uring: "),
        "{text}"
    );
    assert!(text.contains("\n           try: unset CEP_FAST_IO\n"), "{text}");
    support::wait_for("the end of all sessions", || sshd.sessions().is_empty());
}

#[test]
fn mistakes_are_named() {
    let cases: [(&[&str], i32, &str); 6] = [
        (&["a"], 2, "a: expected "),
        (&["a:1", "b:1"], 2, "b:1 is one host too many"),
        (&["--launch", "ssh"], 2, "--launch ssh examines hosts, and none is named"),
        (&["a:1", "--launch", "ssh"], 2, "a:1: expected [user@]host"),
        (&["me@a", "--launch", "local"], 2, "me@a: --launch local logs in nowhere"),
        (&["a", "--launch", "sh"], 2, "--launch"),
    ];
    for (arguments, status, said) in cases {
        let output = run(cep_fast(&["doctor"]).args(arguments));
        assert_eq!(code(&output), status, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

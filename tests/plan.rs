//! `plan` with a picture, and on virtual time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;

use support::{cep_fast, code, folder, json, run, stderr};

/// A gigabyte from two replicas to two readers, all at 1 Gbit/s: 9 s at best.
const SPEC: &str = "id two\n\
                    writer a:7001 pattern:1 0 0-1073741823 speed=1G\n\
                    writer b:7001 pattern:1 0 0-1073741823 speed=1G\n\
                    reader c:7001 null: 0 0-1073741823 speed=1G\n\
                    reader d:7001 null: 0 0-1073741823 speed=1G\n";

fn plan(spec: &str, options: &[&str]) -> Output {
    let folder = folder();
    let file = folder.path().join("spec");
    fs::write(&file, spec).unwrap();
    run(cep_fast(&["plan", file.to_str().unwrap()]).args(options))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_simulated_transfer_comes_near_its_bound_and_says_the_same_again() {
    let first = plan(SPEC, &["--simulate", "--json"]);
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    let simulated = &json(&first)["simulated"];
    assert_eq!(
        (&simulated["state"], &simulated["bytes"]),
        (&"complete".into(), &(2_u64 << 30).into())
    );
    let ratio = simulated["ratio"].as_f64().unwrap();
    assert!((1.0..1.05).contains(&ratio), "{simulated}");
    assert_eq!(simulated["timeline"].as_array().unwrap().len(), 16);
    assert_eq!(&json(&plan(SPEC, &["--simulate", "--json"]))["simulated"], simulated);
}

#[test]
fn a_node_that_dies_and_one_that_slows_down_are_told_of() {
    let options = [
        "--simulate",
        "--kill",
        "a@2s",
        "--rate",
        "b:7001=500M@4",
        "--delay",
        "1ms",
        "--seed",
        "7",
    ];
    let output = plan(SPEC, &options);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let told = stdout(&output);
    for word in [
        "2.000 s: a:7001 dies",
        "4.000 s: b:7001 has a line of 500Mbit/s",
        "complete after",
        "2 of 2",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let lost = plan(SPEC, &["--simulate", "--kill", "a@1", "--kill", "b@1", "--json"]);
    let simulated = &json(&lost)["simulated"];
    assert_eq!(simulated["state"], "failed", "{simulated}");
    assert_eq!(simulated["error"]["code"], 3);
    assert!(simulated["ratio"].is_null(), "nothing came near a bound: {simulated}");
}

/// Regression: eight rows of two milliseconds began with `0.000 s`, and a receiver had everything
/// after the end.
#[test]
fn the_moments_of_a_short_transfer_differ_and_none_is_after_its_end() {
    let spec = "id s\nwriter a:1 pattern:7 0 0-25165823\nreader c:1 null: 0 0-25165823\n";
    let told = stdout(&plan(spec, &["--simulate"]));
    let rows = told.lines().skip_while(|line| !line.starts_with(" at")).skip(1);
    let moments: BTreeSet<&str> = rows.map(|row| row.split(" s").next().unwrap()).collect();
    assert_eq!(moments.len(), 16, "{told}");
    let simulated = &json(&plan(spec, &["--simulate", "--json"]))["simulated"];
    let last = simulated["events"].as_array().unwrap().last().unwrap();
    assert_eq!(last["what"], "has everything");
    assert!(last["seconds"].as_f64() <= simulated["seconds"].as_f64(), "{simulated}");
}

#[test]
fn a_node_that_is_not_there_is_named() {
    for (options, word) in [
        (["--simulate", "--kill", "e:7001@1"], "--kill: no row names e:7001"),
        (["--simulate", "--rate", "a:7002=1G"], "--rate: no row names a:7002"),
        (["--simulate", "--rate", "a:7001=fast"], "--rate"),
    ] {
        let output = plan(SPEC, &options);
        assert_eq!(code(&output), 2, "{word}");
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
    assert_eq!(code(&plan(SPEC, &["--kill", "a@1"])), 2, "without --simulate");
}

#[test]
fn a_terabyte_is_simulated_in_larger_pieces_and_says_so() {
    let spec = SPEC.replace("1073741823", "1099511627775");
    let output = plan(&spec, &["--simulate"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("in pieces of 64.00 MiB"), "{}", stdout(&output));
}

#[test]
fn the_picture_is_written_and_where_it_cannot_be_that_is_said() {
    let folder = folder();
    let file = folder.path().join("plan.svg");
    let output = plan(SPEC, &["--svg", file.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let svg = fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("a:7001") && svg.contains("bound"), "{svg}");
    let output = plan(SPEC, &["--svg", "/nowhere/plan.svg"]);
    assert_eq!(code(&output), 5);
    assert!(stderr(&output).contains("/nowhere/plan.svg"), "{}", stderr(&output));
}

//! The short form of tools/release: its script is one, and the bill of materials lists what the
//! program is made of.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_script_of_a_release_is_one() {
    let checked = Command::new("bash").arg("-n").arg(home().join("tools/release")).status();
    assert!(checked.unwrap().success());
}

#[test]
fn the_bill_of_materials_has_what_is_compiled_and_nothing_of_the_tests() {
    if !Command::new("python3").args(["-c", "import tomllib"]).status().is_ok_and(|it| it.success())
    {
        return eprintln!("skipped: no python3 with tomllib");
    }
    let mut metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--no-default-features", "--features", "cli"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(home())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let bill = Command::new("python3")
        .arg(home().join("tools/sbom.py"))
        .arg(home().join("Cargo.lock"))
        .env("SOURCE_DATE_EPOCH", "86400")
        .stdin(metadata.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(metadata.wait().unwrap().success());
    assert!(bill.status.success(), "{}", String::from_utf8_lossy(&bill.stderr));
    let bill: Value = serde_json::from_slice(&bill.stdout).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["component"]["name"], "cep-fast");
    assert_eq!(bill["metadata"]["timestamp"], "1970-01-02T00:00:00Z");
    let components = bill["components"].as_array().unwrap();
    let named = |name: &str| components.iter().find(|it| it["name"] == name);
    for name in ["landlock", "seccompiler", "snow", "io-uring", "cep-ring"] {
        let component = named(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        let is_own = name.starts_with("cep-");
        assert_eq!(component["hashes"][0]["alg"] == "SHA-256", !is_own, "{component}");
    }
    for name in ["proptest", "clarabel", "assert_cmd", "hwlocality"] {
        assert!(named(name).is_none(), "{name} is in no program");
    }
    let known = |reference: &Value| {
        components.iter().any(|it| it["bom-ref"] == *reference)
            || bill["metadata"]["component"]["bom-ref"] == *reference
    };
    for dependency in bill["dependencies"].as_array().unwrap() {
        let needs = dependency["dependsOn"].as_array().unwrap();
        assert!(known(&dependency["ref"]) && needs.iter().all(known), "{dependency}");
    }
}

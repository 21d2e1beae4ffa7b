//! The short form of tools/release: its scripts are such, its package has its files and its unit,
//! and the bill of materials lists what the program is made of.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_scripts_of_a_release_are_scripts() {
    for script in ["tools/release", "tools/release-try"] {
        let checked = Command::new("bash").arg("-n").arg(home().join(script)).status();
        assert!(checked.unwrap().success(), "{script}");
    }
}

/// What the package takes from the sources is there; the rest tools/release lays out.
#[test]
fn the_files_of_the_package_are_there() {
    let manifest = fs::read_to_string(home().join("Cargo.toml")).unwrap();
    let package = manifest.split_once("\nassets = [\n").unwrap().1.split_once("\n]").unwrap().0;
    let mut sources = 0;
    for line in package.lines() {
        let from = line.trim().strip_prefix("[\"").unwrap().split('"').next().unwrap();
        if !from.starts_with("build/package/") {
            assert!(home().join(from).is_file(), "no {from}");
            sources += 1;
        }
    }
    assert!(sources >= 4, "the assets were not found: {package}");
}

#[test]
fn the_unit_starts_a_node_that_the_kernel_holds() {
    let unit = fs::read_to_string(home().join("tools/package/cep-fast-node.service")).unwrap();
    for line in [
        "DynamicUser=yes",
        "LimitMEMLOCK=infinity",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX",
    ] {
        assert!(unit.lines().any(|found| found == line), "the unit has no {line}");
    }
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        let filters = unit.lines().filter(|line| line.starts_with("SystemCallFilter="));
        let allows = |line: &str| !line.contains('~') && line.contains(call);
        assert!(filters.into_iter().any(allows), "the unit's filter has no {call}");
    }
    // Its command line is one: the node asks for its key next.
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let key = root.path().join("site.key");
    let words = start.split(' ').skip(1).filter(|word| *word != "$CEP_FAST_OPTIONS");
    let words = words.flat_map(|word| match word {
        "${CEP_FAST_LISTEN}" => vec!["127.0.0.1:0".into()],
        "$CEP_FAST_ROOTS" => vec!["--root".into(), root.path().display().to_string()],
        "%t/cep-fast/site.key" => vec![key.display().to_string()],
        word => vec![word.to_owned()],
    });
    let mut node = Command::new(env!("CARGO_BIN_EXE_cep-fast"));
    let output = node.args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("site.key"), "{said}");
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

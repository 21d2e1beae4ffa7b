//! Sealed, signed and clear transfers: the same bytes and digests, and reports that say which.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{code, complete, folder, json, random_bytes, run_spec, stderr};

const LEVELS: [&str; 3] = ["clear", "signed", "sealed"];
const CIPHERS: [&str; 2] = ["aes-256-gcm", "chacha20-poly1305"];

/// Three senders with a part or a replica each, two receivers, and boundaries off every grid.
const SPEC: &str = "id \"wire\"\n\
                    option block 65536\n\
                    writer a:7001 file:///source 5 0-1500006\n\
                    writer b:7001 file:///source 700012 700007-2999999\n\
                    writer c:7001 file:///source 5 0-2999999\n\
                    reader d:7001 file:///one 4099 0-2999999\n\
                    reader e:7001 file:///two 0 100-2000000\n";

fn with_source(root: &Path) -> Vec<u8> {
    let data = random_bytes(3, 3_000_017);
    fs::write(root.join("source"), &data).unwrap();
    data
}

fn assert_copies(root: &Path, data: &[u8], what: &str) {
    let (one, two) = (fs::read(root.join("one")).unwrap(), fs::read(root.join("two")).unwrap());
    assert!(one[4099..] == data[5..3_000_005], "{what}");
    assert!(two == data[105..2_000_006], "{what}");
}

#[test]
fn every_level_delivers_the_same_bytes_and_digest_and_says_so() {
    let root = folder();
    let data = with_source(root.path());
    for check in ["crc64", "blake3", "none"] {
        let mut digests = Vec::new();
        for (level, cipher) in LEVELS.iter().flat_map(|level| CIPHERS.map(|it| (level, it))) {
            let what = format!("{level} {cipher} {check}");
            let options = ["--wire", level, "--cipher", cipher, "--check", check, "--overwrite"];
            let report = complete(root.path(), SPEC, &options);
            assert_copies(root.path(), &data, &what);
            assert_eq!((&report["wire"], &report["retries"]), (&Value::from(*level), &0.into()));
            let used = if *level == "clear" { Value::Null } else { cipher.into() };
            for node in report["nodes"].as_array().unwrap() {
                assert_eq!(node["rails"][0]["wire"], *level, "{what}");
                assert_eq!(node["rails"][0]["cipher"], used, "{what}");
            }
            digests.push(report["digest"].clone());
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{check}: {digests:?}");
        assert!(check != "crc64" || digests[0].is_string(), "{digests:?}");
    }
}

#[test]
fn every_path_takes_every_level_but_a_splice_which_needs_clear() {
    let root = folder();
    let data = with_source(root.path());
    for level in LEVELS {
        for path in ["auto", "direct", "zerocopy", "copy", "splice"] {
            let what = format!("{level} {path}");
            let options = ["--wire", level, "--path", path, "--overwrite"];
            if path == "splice" && level != "clear" {
                let refused = run_spec(root.path(), SPEC, &options);
                assert_eq!(code(&refused), 2, "{}", stderr(&refused));
                let said = json(&refused)["error"]["message"].to_string();
                assert!(said.contains("--path splice") && said.contains("--wire clear"), "{said}");
            } else {
                let report = complete(root.path(), SPEC, &options);
                assert_copies(root.path(), &data, &what);
                let way = report["nodes"][0]["rails"][0]["path"].as_str().unwrap();
                assert!(level == "clear" || !way.starts_with("splice"), "{what}: {way}");
            }
        }
    }
}

#[test]
fn between_loopback_addresses_the_default_is_clear() {
    let root = folder();
    let data = with_source(root.path());
    let report = complete(root.path(), SPEC, &[]);
    assert_copies(root.path(), &data, "the default");
    assert_eq!(report["wire"], "clear");
}

/// Copies whose receivers feed each other: a relay opens what it gets, and seals it anew.
#[test]
fn relays_open_and_seal_anew() {
    let root = folder();
    let data = random_bytes(4, 4_000_000);
    fs::write(root.path().join("source"), &data).unwrap();
    let mut spec = String::from("id relays\nwriter a:7001 file:///source 0 0-3999999 speed=1G\n");
    for reader in 1..=4 {
        spec += &format!("reader r{reader}:7001 file:///copy{reader} 0 0-3999999 speed=1G\n");
    }
    let report = complete(root.path(), &spec, &["--wire", "sealed"]);
    for reader in 1..=4 {
        assert!(fs::read(root.path().join(format!("copy{reader}"))).unwrap() == data);
    }
    assert_eq!(report["wire"], "sealed");
    let relayed = report["nodes"].as_array().unwrap()[1..]
        .iter()
        .map(|node| node["bytes_sent"].as_u64().unwrap())
        .sum::<u64>();
    assert!(relayed > 0, "{report}");
}

#[test]
fn unknown_levels_and_ciphers_are_usage_errors() {
    let root = folder();
    with_source(root.path());
    for option in [["--wire", "secret"], ["--cipher", "rot13"]] {
        let output = run_spec(root.path(), SPEC, &option);
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains(option[0]), "{}", stderr(&output));
    }
}

//! The crates that the program is made of keep `deny.toml`: their licences, their sources, and
//! those that are banned. The rules are those of cargo-deny, which need not be installed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use spdx::{Expression, ParseMode};

/// The parts of `deny.toml` that are held here.
#[derive(Deserialize)]
struct DenyRules {
    licenses: LicenceRules,
    bans: BanRules,
    sources: SourceRules,
}

#[derive(Deserialize)]
struct LicenceRules {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct BanRules {
    deny: Vec<BannedCrate>,
}

#[derive(Deserialize)]
struct BannedCrate {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SourceRules {
    allow_registry: Vec<String>,
    allow_git: Vec<String>,
}

/// A lock file of cargo.
#[derive(Deserialize)]
struct CrateLock {
    package: Vec<LockedCrate>,
}

#[derive(Deserialize)]
struct LockedCrate {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

impl DenyRules {
    fn read() -> DenyRules {
        toml::from_str(&read("deny.toml")).unwrap()
    }

    /// Returns the fault of a crate's licence, if it has one.
    fn licence_fault(&self, name: &str, licence: Option<&str>) -> Option<String> {
        let Some(licence) = licence else { return Some(format!("{name}: no licence")) };
        let Ok(expression) = Expression::parse_mode(licence, ParseMode::LAX) else {
            return Some(format!("{name}: {licence:?} is no SPDX expression"));
        };
        let is_allowed = expression
            .evaluate(|requirement| self.licenses.allow.contains(&requirement.to_string()));
        (!is_allowed).then(|| format!("{name}: {licence} is not among those of deny.toml"))
    }

    /// Returns the fault of a locked crate, if it has one.
    fn lock_fault(&self, locked: &LockedCrate) -> Option<String> {
        let LockedCrate { name, version, source, checksum } = locked;
        if let Some(banned) = self.bans.deny.iter().find(|banned| banned.name == *name) {
            return Some(format!("{name} {version}: {}", banned.reason));
        }
        // The workspace's own have none.
        let source = source.as_ref()?;
        let is_known = source.split_once('+').is_some_and(|(kind, address)| match kind {
            "registry" => self.sources.allow_registry.iter().any(|known| known == address),
            "git" => self.sources.allow_git.iter().any(|known| address.starts_with(known)),
            _ => false,
        });
        if !is_known {
            return Some(format!("{name} {version}: comes from {source}"));
        }
        checksum.is_none().then(|| format!("{name} {version}: has no checksum"))
    }
}

#[test]
fn every_crate_has_a_licence_that_is_allowed_and_every_allowed_one_is_needed() {
    let rules = DenyRules::read();
    let packages = packages();
    assert!(packages.len() > 100, "the crates were not found");
    let faults: Vec<String> = packages
        .iter()
        .filter_map(|(name, licence)| rules.licence_fault(name, licence.as_deref()))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    for allowed in &rules.licenses.allow {
        let mut fewer = DenyRules::read();
        fewer.licenses.allow.remove(allowed);
        let is_needed = packages
            .iter()
            .any(|(name, licence)| fewer.licence_fault(name, licence.as_deref()).is_some());
        assert!(is_needed, "deny.toml allows {allowed}, which no crate needs");
    }
}

#[test]
fn every_crate_comes_from_a_known_registry_and_none_is_banned() {
    let rules = DenyRules::read();
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let locked: CrateLock = toml::from_str(&read(lock)).unwrap();
        assert!(locked.package.len() > 50, "{lock}: the crates were not found");
        let faults: Vec<String> =
            locked.package.iter().filter_map(|it| rules.lock_fault(it)).collect();
        assert!(faults.is_empty(), "{lock}:\n{}", faults.join("\n"));
    }
}

#[test]
fn what_breaks_the_rules_is_found() {
    let rules = DenyRules::read();
    for wrong in [
        Some("GPL-3.0-only"),
        Some("MIT AND GPL-2.0-or-later"),
        Some("MIT AND"),
        Some("LicenseRef-ours"),
        None,
    ] {
        assert!(rules.licence_fault("x", wrong).is_some(), "{wrong:?}");
    }
    for right in ["MIT", "MIT/Apache-2.0", "GPL-2.0-only OR MIT", "(MIT OR Zlib) AND Unicode-3.0"] {
        assert_eq!(rules.licence_fault("x", Some(right)), None);
    }
    let locked = |name: &str, source: &str, checksum: bool| LockedCrate {
        name: name.into(),
        version: "1.0.0".into(),
        source: Some(source.into()),
        checksum: checksum.then(|| "00".into()),
    };
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    assert_eq!(rules.lock_fault(&locked("x", registry, true)), None);
    for wrong in [
        locked("x", registry, false),
        locked("x", "registry+https://example.org/index", true),
        locked("x", "git+https://github.com/x/x?rev=1#1", true),
        locked("bincode", registry, true),
    ] {
        assert!(rules.lock_fault(&wrong).is_some(), "{} {:?}", wrong.name, wrong.source);
    }
    for banned in &rules.bans.deny {
        assert!(!banned.reason.is_empty(), "{} is banned without a reason", banned.name);
    }
}

/// Returns the crates of this platform with their licences, as cargo reads them from their
/// manifests.
fn packages() -> Vec<(String, Option<String>)> {
    let cargo = env!("CARGO");
    let version = Command::new(cargo).arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let mut command = Command::new(cargo);
    command.args(["metadata", "--offline", "--locked", "--format-version", "1"]);
    let output = command
        .args(["--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo fetch may help: {complaint}");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|it| (text(&it["name"]).unwrap(), text(&it["license"]))).collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

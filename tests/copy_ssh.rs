//! `copy` over ssh as users of scp type it: a real sshd, homes, names, and what is left afterwards.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use support::sshd::{SshHost, Sshd};
use support::{PROGRAM, beside, cep_fast, code, folder, json, random_bytes, run, stderr};

/// Hosts with the program in their search paths, and a folder for local files.
struct Hosts {
    sshd: Sshd,
    here: tempfile::TempDir,
}

impl Hosts {
    fn start(names: &[&str]) -> Option<Hosts> {
        let hosts: Vec<SshHost> = names.iter().map(|name| SshHost::new(name)).collect();
        let sshd = Sshd::start(&hosts)?;
        for name in names {
            symlink(PROGRAM, sshd.programs(name).join("cep-fast")).unwrap();
        }
        Some(Hosts { sshd, here: folder() })
    }

    fn copy<Word: AsRef<OsStr>>(&self, words: &[Word]) -> Output {
        let mut command = cep_fast(&["copy", "--json", "--progress", "never", "--deploy", "never"]);
        command.arg("--ssh").arg(self.sshd.ssh());
        run(command.current_dir(self.here.path()).args(words))
    }

    fn copied<Word: AsRef<OsStr>>(&self, words: &[Word]) -> serde_json::Value {
        let output = self.copy(words);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let report = json(&output);
        assert_eq!(report["state"], "complete", "{report}");
        self.check_clean();
        report
    }

    fn refused<Word: AsRef<OsStr>>(&self, words: &[Word], status: i32, said: &str) {
        let output = self.copy(words);
        assert_eq!(code(&output), status, "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{said}: {}", stderr(&output));
        self.check_clean();
    }

    /// Nothing hidden is left beside any file.
    fn check_clean(&self) {
        for folder in [self.here.path(), &self.sshd.folder().join("homes")] {
            assert_eq!(beside(folder, ""), Vec::<std::path::PathBuf>::new());
        }
    }
}

#[test]
fn files_go_to_homes_and_directories_of_hosts_and_come_back() {
    let Some(hosts) = Hosts::start(&["a", "b"]) else { return };
    let data = random_bytes(1, 3_000_001);
    let (home_a, home_b) = (hosts.sshd.home("a"), hosts.sshd.home("b"));
    fs::write(hosts.here.path().join("x"), &data).unwrap();
    fs::create_dir_all(home_a.join("d/e")).unwrap();
    let is_there = |path: &Path| fs::read(path).is_ok_and(|bytes| bytes == data);
    for (from, to, made) in [
        ("x", "a:", home_a.join("x")),
        ("x", "a:y", home_a.join("y")),
        ("x", "a:d", home_a.join("d/x")),
        ("x", "a:d/e/", home_a.join("d/e/x")),
        ("x", "a:d/e/../z", home_a.join("d/z")),
        ("a:d/../y", "back", hosts.here.path().join("back")),
        ("a:d/x", ".", hosts.here.path().join("x")),
        // Between two hosts the bytes do not come here.
        ("a:y", "b:from-a", home_b.join("from-a")),
    ] {
        if made.ends_with("x") && made.starts_with(hosts.here.path()) {
            fs::remove_file(&made).unwrap();
        }
        hosts.copied(&[from, to]);
        assert!(is_there(&made), "{from} {to}");
    }
    let absolute = format!("b:{}", home_b.join("absolute").display());
    hosts.copied(&["x", &absolute]);
    assert!(is_there(&home_b.join("absolute")));
    // Replicas, and a copy for each of two hosts.
    fs::write(home_b.join("y"), &data).unwrap();
    hosts.copied(&["a,b:y", "both"]);
    let report = hosts.copied(&["x", "a,b:each"]);
    assert!(is_there(&home_a.join("each")) && is_there(&home_b.join("each")));
    assert_eq!(report["warnings"], serde_json::json!([]), "{report}");
    let shared = format!("a,b:{}", home_a.join("d").display());
    let report = hosts.copied(&["both", &shared]);
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("a, b see one directory as "), "{report}");
    assert!(is_there(&home_a.join("d/both")));
}

#[test]
fn what_a_host_has_not_is_refused_by_its_name() {
    let Some(hosts) = Hosts::start(&["a", "b"]) else { return };
    let home = hosts.sshd.home("a");
    fs::write(home.join("x"), "12345").unwrap();
    fs::write(hosts.sshd.home("b").join("x"), "1234").unwrap();
    fs::create_dir(home.join("d")).unwrap();
    hosts.refused(&["a:no", "out"], 5, "a:no: cannot be read");
    hosts.refused(&["a:d", "out"], 5, "a:d: is a directory");
    hosts.refused(&["a:x", "b:no/"], 5, "b:no/ is no directory");
    hosts.refused(&["a:x", "b:no/x"], 5, "/no is missing");
    hosts.refused(&["a:x", "b:no/../x"], 5, "cannot be entered");
    hosts.refused(&["a,b:x", "out"], 6, "a:x has 5 bytes and b:x has 4");
    hosts.refused(&["a:x", "a:d/../x", "--overwrite"], 2, "a:x is both source and destination");
    let here = home.join("x").into_os_string();
    hosts.refused(&[OsStr::new("a:x"), &here, OsStr::new("--overwrite")], 2, "both source and");
    assert!(!hosts.here.path().join("out").exists());
}

#[test]
fn names_at_hosts_are_any_bytes_and_no_commands() {
    let Some(hosts) = Hosts::start(&["a"]) else { return };
    let home = hosts.sshd.home("a");
    let names: [&[u8]; 6] =
        [b"two words", b"$(touch owned)", b"'\"`touch owned`", b"line\nbreak", b"\xff\xfe", b"-rf"];
    for (at, name) in names.into_iter().enumerate() {
        let data = random_bytes(at as u64, 10_000);
        fs::write(home.join(OsStr::from_bytes(name)), &data).unwrap();
        let mut operand = b"a:".to_vec();
        operand.extend(name);
        hosts.copied(&[OsStr::from_bytes(&operand), OsStr::new(".")]);
        let mut copied = hosts.here.path().join(OsStr::from_bytes(name));
        assert!(fs::read(&copied).unwrap() == data, "{}", copied.display());
        operand.extend(b".2");
        copied = Path::new(".").join(OsStr::from_bytes(name));
        hosts.copied(&[copied.as_os_str(), OsStr::from_bytes(&operand)]);
        let mut again = name.to_vec();
        again.extend(b".2");
        assert!(fs::read(home.join(OsStr::from_bytes(&again))).unwrap() == data);
    }
    assert!(!home.join("owned").exists() && !hosts.here.path().join("owned").exists());
}

//! `copy` between hosts: daemons that run already, their rights, and destinations that hosts share.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use support::{beside, cep_fast, code, folder, json, random_bytes, ready_address, run, stderr};

/// A daemon at a loopback address of its own, as that of a host.
struct Host {
    child: Child,
    name: String,
    port: u16,
}

impl Host {
    fn start(at: u8, port: u16, key: &Path, roots: &[&str]) -> Host {
        let name = format!("127.0.0.{at}");
        let listen = format!("{name}:{port}");
        let mut command = cep_fast(&["node", "--listen", &listen, "--key-file"]);
        command.arg(key).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        roots.iter().for_each(|word| _ = command.arg(word));
        let mut child = command.spawn().unwrap();
        let port = ready_address(&mut child).port();
        Host { child, name, port }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hosts, a key that they share, and a folder for local files.
struct Site {
    home: tempfile::TempDir,
    hosts: Vec<Host>,
}

impl Site {
    /// Starts a host for each of `roots`, which are made below the folder; words that begin with a
    /// dash are options of its daemon.
    fn start(first: u8, roots: &[&[&str]]) -> Site {
        let home = folder();
        let key = home.path().join("key");
        assert_eq!(code(&run(cep_fast(&["keygen"]).arg(&key))), 0);
        let mut hosts: Vec<Host> = Vec::new();
        for (at, words) in (first..).zip(roots) {
            let of_root = |word: &&str| {
                let directory = word.trim_end_matches(":ro").trim_end_matches(":wo");
                fs::create_dir_all(home.path().join(directory)).unwrap();
                format!("{}/{word}", home.path().display())
            };
            let words: Vec<String> = words
                .iter()
                .flat_map(|word| {
                    if word.starts_with('-') {
                        vec![(*word).to_owned()]
                    } else {
                        vec!["--root".to_owned(), of_root(word)]
                    }
                })
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let port = hosts.first().map_or(0, |host| host.port);
            hosts.push(Host::start(at, port, &key, &words));
        }
        Site { home, hosts }
    }

    fn host(&self, at: usize) -> &str {
        &self.hosts[at].name
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at(name), bytes).unwrap();
    }

    fn copy<Word: AsRef<OsStr>>(&self, words: &[Word]) -> Output {
        let port = self.hosts[0].port.to_string();
        let mut command = cep_fast(&["copy", "--json", "--progress", "never", "--launch", "none"]);
        command.args(["--port", &port]).arg("--key-file").arg(self.at("key"));
        run(command.current_dir(self.home.path()).args(words))
    }

    fn copied<Word: AsRef<OsStr>>(&self, words: &[Word]) -> serde_json::Value {
        let output = self.copy(words);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let report = json(&output);
        assert_eq!(report["state"], "complete", "{report}");
        let left: Vec<_> = beside(self.home.path(), "");
        assert!(left.is_empty(), "{left:?}");
        report
    }

    fn refused<Word: AsRef<OsStr>>(&self, words: &[Word], status: i32, said: &str) {
        let output = self.copy(words);
        let text = stderr(&output);
        assert_eq!(code(&output), status, "{text}");
        assert!(text.contains(said) && text.contains("\n  try: "), "{said}: {text}");
        let left: Vec<_> = beside(self.home.path(), "");
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Bytes that each destination has received.
fn received(report: &serde_json::Value) -> Vec<u64> {
    let nodes = report["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["bytes_received"].as_u64().unwrap()).filter(|it| *it > 0).collect()
}

#[test]
fn daemons_copy_among_each_other_and_to_and_from_here() {
    let site = Site::start(21, &[&["a"], &["b"]]);
    let data = random_bytes(1, 5_000_001);
    site.write("a/x", &data);
    let (a, b) = (site.host(0), site.host(1));
    // A relative path and one with a slash are the same: both lie below the root.
    for (from, to, made) in [
        (format!("{a}:x"), format!("{b}:/y"), "b/y"),
        (format!("{a}:/x"), format!("{b}:z"), "b/z"),
        (format!("{a}:x"), format!("{b}:"), "b/x"),
        (format!("{a}:x"), "here".into(), "here"),
        ("here".into(), format!("{b}:from-here"), "b/from-here"),
        (format!("[{a}]:x").replace(['[', ']'], ""), ".".into(), "x"),
    ] {
        site.copied(&[from.as_str(), to.as_str()]);
        assert!(fs::read(site.at(made)).unwrap() == data, "{from} {to}");
    }
    // Replicas at two hosts, and a list of hosts in a file.
    fs::write(site.at("hosts"), format!("# both\n{a}\n{b} # the other\n")).unwrap();
    let report = site.copied(&["@hosts:/x", "both"]);
    assert_eq!(report["nodes"].as_array().unwrap().len(), 3, "{report}");
    site.write("b/x", &data[1..]);
    let said = format!("{a}:/x has 5000001 bytes and {b}:/x has 5000000");
    site.refused(&["@hosts:/x", "both2"], 6, &said);
    fs::remove_file(site.at("b/x")).unwrap();
    site.refused(&["@hosts:/x", "both2"], 5, &format!("{b}:/x: cannot be read"));
    site.refused(&[&format!("{a}:x"), &format!("{b}:no/y")], 5, "the directory /no is missing");
    site.refused(&[&format!("{a}:x"), &format!("{b}:no/")], 5, "is no directory");
    site.refused(
        &[&format!("{a}:x"), &format!("{a}:/x"), "--overwrite"],
        2,
        "both source and dest",
    );
    assert!(!site.at("both2").exists());
}

#[test]
fn names_are_no_commands_and_any_bytes() {
    let site = Site::start(31, &[&["a"], &["b"]]);
    let names: [&[u8]; 7] = [
        b"two words",
        b"$(touch owned)`touch owned`;touch owned",
        b"'\"\\",
        b"line\nbreak\x1b[2J",
        b"\xff\xfe",
        b"-rf",
        b"%41:@",
    ];
    for (at, name) in names.into_iter().enumerate() {
        let data = random_bytes(at as u64, 50_000);
        fs::write(site.at("a").join(OsStr::from_bytes(name)), &data).unwrap();
        let operand = |host: &str, more: &str| {
            let mut operand = OsString::from(format!("{host}:"));
            operand.push(OsStr::from_bytes(name));
            operand.push(more);
            operand
        };
        site.copied(&[operand(site.host(0), ""), operand(site.host(1), ".copy")]);
        let mut copy = name.to_vec();
        copy.extend(b".copy");
        assert!(fs::read(site.at("b").join(OsStr::from_bytes(&copy))).unwrap() == data);
    }
    assert!(!site.at("owned").exists() && !site.at("a/owned").exists());
}

#[test]
fn hosts_that_see_one_directory_write_each_byte_once() {
    let site = Site::start(41, &[&["a"], &["fs"], &["fs"], &["own"]]);
    let data = random_bytes(4, 20_000_003);
    site.write("a/x", &data);
    site.write("a/empty", b"");
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| site.host(at));
    fs::create_dir(site.at("fs/d")).unwrap();
    fs::create_dir(site.at("own/d")).unwrap();
    let report = site.copied(&[format!("{a}:x"), format!("{a}:empty"), format!("{b},{c},{d}:d/")]);
    assert!(fs::read(site.at("fs/d/x")).unwrap() == data);
    assert!(fs::read(site.at("own/d/x")).unwrap() == data);
    assert_eq!(fs::read(site.at("fs/d/empty")).unwrap(), b"");
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with(&format!("{b}, {c} see one directory as /d")), "{warning}");
    let all: u64 = received(&report).iter().sum();
    assert_eq!(all, 2 * data.len() as u64, "one copy for two hosts, and one: {report}");

    // As asked for, it is the same; and it is refused where it cannot be.
    let report = site.copied(&[&format!("{a}:x"), &format!("{b},{c}:y"), "--split"]);
    assert!(fs::read(site.at("fs/y")).unwrap() == data);
    assert_eq!(received(&report).iter().sum::<u64>(), data.len() as u64, "{report}");
    let said = format!("{d} does not see what {b} makes there");
    site.refused(&[&format!("{a}:x"), &format!("{b},{d}:z"), "--split"], 2, &said);
    site.refused(&[&format!("{a}:x"), &format!("{b}:z"), "--split"], 2, "has one host");
    assert!(!site.at("fs/z").exists() && !site.at("own/z").exists());
}

#[test]
fn a_node_tells_nothing_of_what_its_owner_does_not_let_others_read() {
    let site = Site::start(51, &[&["a:wo"], &["b", "--no-serve"], &["c:ro"], &["d", "--no-write"]]);
    ["a/secret", "b/secret", "c/x", "d/x"].iter().for_each(|name| site.write(name, b"12345"));
    for (host, said) in [(0, "is write-only"), (1, "reads nothing for others")] {
        for path in ["secret", "missing", "d/e"] {
            // The same for what is there and for what is not.
            let output = site.copy(&[&format!("{}:{path}", site.host(host)), "out"]);
            let text = stderr(&output);
            assert_eq!(code(&output), 4, "{text}");
            assert!(
                text.contains(&format!("/{path} is refused: ")) && text.contains(said),
                "{text}"
            );
        }
    }
    for (host, said) in [(2, "is read-only"), (3, "writes nothing")] {
        for path in ["x", "new", "no/new"] {
            let to = format!("{}:{path}", site.host(host));
            let words = [site.at("c/x").into_os_string(), to.into(), "--overwrite".into()];
            let output = site.copy(&words);
            let text = stderr(&output);
            assert_eq!(code(&output), 4, "{text}");
            assert!(
                text.contains(&format!("/{path} is refused: ")) && text.contains(said),
                "{text}"
            );
        }
    }
    for path in ["/../key", "../key"] {
        site.refused(&[&format!("{}:{path}", site.host(2)), "out"], 4, "contains `..`");
    }
    assert!(!site.at("out").exists());
}

#[test]
fn a_key_is_told_of_the_roots_alone_that_its_line_names() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    for name in ["in", "out"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("x"), "12345").unwrap();
    }
    fs::write(at("here"), "54321").unwrap();
    let pair = |name: &str| {
        let output = run(cep_fast(&["keygen", "--pair"]).arg(at(name)));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (master, node) = (pair("master"), pair("node"));
    fs::write(at("masters"), format!("allow {master} master read=in write=out\n")).unwrap();
    fs::write(at("nodes"), format!("allow {node} node\n")).unwrap();
    let root = |name: &str| format!("{name}={}", at(name).display());
    let masters = at("masters").display().to_string();
    let words = ["--allow-file", &masters, "--root", &root("in"), "--root", &root("out")];
    let host = Host::start(61, 0, &at("node"), &words);
    let copy = |from: &str, to: &str| {
        let port = host.port.to_string();
        let mut command = cep_fast(&["copy", "--progress", "never", "--launch", "none"]);
        command.args(["--port", &port]).arg("--key-file").arg(at("master"));
        command.arg("--allow-file").arg(at("nodes"));
        let output = run(command.current_dir(home.path()).args([from, to]));
        (code(&output), stderr(&output))
    };
    let name = &host.name;
    assert_eq!(copy(&format!("{name}:in/x"), "copied").0, 0);
    assert_eq!(copy("here", &format!("{name}:out/")).0, 0);
    assert_eq!(fs::read(at("out/here")).unwrap(), b"54321");
    // It hears the same of what is there and of what is not.
    for path in ["x", "missing", "no/x"] {
        let (status, said) = copy(&format!("{name}:out/{path}"), "stolen");
        assert!(status == 4 && said.contains("lacks the right `read=out`"), "{path}: {said}");
        let (status, said) = copy("here", &format!("{name}:in/{path}"));
        assert!(status == 4 && said.contains("lacks the right `write=in`"), "{path}: {said}");
    }
    assert!(!at("stolen").exists());
}

#[test]
fn what_cannot_be_meant_is_said_before_anybody_is_asked() {
    let home = folder();
    fs::write(home.path().join("x"), "x").unwrap();
    fs::write(home.path().join("hosts"), "a\nb c\n").unwrap();
    for (words, said, remedy) in [
        // Nobody is at these hosts: an answer comes at once all the same.
        (&["x", "h:/y", "--launch", "none"][..], "h:5000: daemons are asked", "--key-file"),
        (&["x", "me@h:/y", "--launch", "none"], "me@h: --launch none logs in nowhere", "ssh"),
        (&["x", "me@h:/y", "--launch", "local"], "me@h: --launch local logs in", "--launch auto"),
        (&["a:/x", "me@a:/y", "d/"], "a and me@a are one host for two users", "the same user"),
        (&["x", "h:/y", "--ssh", "'"], "is no command", "--ssh"),
        (&["x", "h:/y", "--verify", "disk", "--check", "none"], "needs a check", "crc64"),
        (&["x", "h:/y", "--launch", "local", "--port", "5"], "--port is that of daemons", "none"),
        (&["x", "C:\\y"], "C:\\y looks like a path of Windows", "/mnt/c/"),
        (&["@hosts:/x", "y"], "hosts:2: expected", "a line is a host"),
        (&["@none:/x", "y"], "none: cannot be read", "@FILE:path"),
        (&["x", "h:/y", "--split"], "--split: h:/y has one host", "node[01-08]"),
    ] {
        let output = run(cep_fast(&["copy"]).current_dir(home.path()).args(words));
        let text = stderr(&output);
        assert_eq!(code(&output), 2, "{words:?}: {text}");
        assert!(text.contains(said) && text.contains(remedy), "{words:?}: {text}");
    }
}

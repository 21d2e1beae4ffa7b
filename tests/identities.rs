//! Key pairs, allow files and keys that are being replaced, as whole programs: who is let in, what
//! each may do, and what a recorded session is worth.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use support::{
    Daemon, cep_fast, code, end_of, folder, random_bytes, ready_address, run, stderr, wait_for,
};

const BYTES: usize = 100_000;

/// Keys, allow files and data of a site. `data/x` is there.
struct KeySite {
    home: tempfile::TempDir,
}

impl KeySite {
    fn new() -> KeySite {
        let site = KeySite { home: folder() };
        fs::create_dir(site.at("data")).unwrap();
        fs::write(site.at("data/x"), random_bytes(1, BYTES)).unwrap();
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// Makes a pair, and returns its public key.
    fn pair(&self, name: &str) -> String {
        let output = run(cep_fast(&["keygen", "--pair"]).arg(self.at(name)));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let line = String::from_utf8(output.stdout).unwrap();
        assert_eq!(line, fs::read_to_string(self.at(&format!("{name}.pub"))).unwrap());
        line.trim().into()
    }

    fn allow(&self, name: &str, lines: &[String]) {
        // Under a new name first, as a careful editor does it.
        let draft = self.at("draft");
        fs::write(&draft, lines.join("\n")).unwrap();
        fs::set_permissions(&draft, Permissions::from_mode(0o644)).unwrap();
        fs::rename(draft, self.at(name)).unwrap();
    }

    /// A node with the keys of the file `key`, the allow file `allow`, and the log `KEY.log`.
    fn node(&self, key: &str, allow: Option<&str>, more: &[&str]) -> Daemon {
        let log = File::create(self.at(&format!("{key}.log"))).unwrap();
        let mut command = cep_fast(&[]);
        command.stderr(log);
        let (key, allow) = (self.path(key), allow.map(|allow| self.path(allow)));
        let mut args = vec!["--key-file", &key];
        if let Some(allow) = &allow {
            args.extend(["--allow-file", allow]);
        }
        args.extend(more);
        Daemon::spawn(&mut command, &self.at("data"), &args)
    }

    /// Lines of a node's log that have all these words.
    fn logged(&self, node: &str, words: &[&str]) -> usize {
        let log = fs::read_to_string(self.at(&format!("{node}.log"))).unwrap();
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Runs a transfer of one file at one node with these keys.
    fn copy(&self, address: &str, from: &str, to: &str, key: &str, allow: Option<&str>) -> Output {
        let spec = self.at(&format!("{key}.spec"));
        let last = BYTES - 1;
        let text = format!(
            "id by-{key}\nwriter {address} {from} 0 0-{last}\nreader {address} {to} 0 0-{last}\n"
        );
        fs::write(&spec, text).unwrap();
        let mut command = cep_fast(&["run", "--progress", "never", "--overwrite", "--key-file"]);
        command.arg(self.at(key)).arg(spec);
        if let Some(allow) = allow {
            command.arg("--allow-file").arg(self.at(allow));
        }
        run(&mut command)
    }

    /// Runs a transfer of `x` to `y`, and returns its exit status and message.
    fn status(&self, address: &str, key: &str, allow: Option<&str>) -> (i32, String) {
        let output = self.copy(address, "file:///x", "file:///y", key, allow);
        (code(&output), stderr(&output))
    }

    /// Waits until a transfer ends with a status: a changed allow file counts within a moment.
    fn wait_for_status(&self, address: &str, key: &str, wanted: i32) {
        wait_for("a changed allow file", || self.status(address, key, Some("nodes")).0 == wanted);
    }
}

fn allow(key: &str, rights: &str) -> String {
    format!("allow {key} {rights} # of a test")
}

/// The short form of a public key, as messages have it.
fn short(key: &str) -> &str {
    &key[.."x25519:".len() + 16]
}

#[test]
fn a_key_does_what_its_line_allows_and_no_more() {
    let site = KeySite::new();
    fs::create_dir(site.at("archive")).unwrap();
    let node_key = site.pair("node");
    let [all, reads, archives, none, unknown] =
        ["all", "reads", "archives", "none", "unknown"].map(|name| site.pair(name));
    site.allow("nodes", &[allow(&node_key, "node")]);
    site.allow(
        "masters",
        &[
            allow(&all, "master read=/ write=/"),
            allow(&reads, "master read=*"),
            allow(&archives, "master read=/ write=archive"),
            allow(&none, "status cancel"),
        ],
    );
    let archive = format!("archive={}", site.path("archive"));
    let node = site.node("node", Some("masters"), &["--root", &archive]);
    let copy = |key: &str, to: &str| {
        let output = site.copy(&node.address, "file:///x", to, key, Some("nodes"));
        (code(&output), stderr(&output))
    };
    let (status, said) = copy("all", "file:///y");
    assert_eq!(status, 0, "{said}");
    assert_eq!(fs::read(site.at("data/y")).unwrap(), random_bytes(1, BYTES));
    let (status, said) = copy("archives", "file:///archive/y");
    assert_eq!(status, 0, "{said}");
    assert!(site.at("archive/y").exists());
    let (status, said) = copy("reads", "null:");
    assert_eq!(status, 0, "{said}");
    for (key, public, to, right) in [
        ("all", &all, "file:///archive/z", "write=archive"),
        ("reads", &reads, "file:///z", "write=/"),
        ("archives", &archives, "file:///z", "write=/"),
        ("none", &none, "file:///z", "master"),
        ("unknown", &unknown, "file:///z", "master"),
        ("all", &all, "mem:cep-fast-identities", "write=*"),
    ] {
        let (status, said) = copy(key, to);
        assert_eq!(status, 4, "{key}: {said}");
        assert!(said.contains(short(public)) && said.contains(&format!("`{right}`")), "{said}");
        assert_eq!(said.contains(to), right != "master", "{key}: the row is named: {said}");
    }
    assert!(!site.at("data/z").exists() && !site.at("archive/z").exists());
    assert_eq!(site.logged("node", &["WARN", short(&unknown)]), 0, "one line of that kind");
    assert_eq!(site.logged("node", &["WARN", "refused", short(&none), "`master`"]), 1);
    assert_eq!(site.logged("node", &["WARN", short(&reads), "`write=/`"]), 1);
    assert_eq!(site.logged("node", &["listens", &format!("key={}", short(&node_key))]), 1);
}

#[test]
fn a_node_with_another_key_and_a_node_without_a_line_are_not_used() {
    let site = KeySite::new();
    let (master, node_key, other) = (site.pair("master"), site.pair("node"), site.pair("other"));
    site.allow("masters", &[allow(&master, "master read=/ write=/")]);
    let node = site.node("node", Some("masters"), &[]);
    site.allow("nodes", &[allow(&other, "node")]);
    let (status, said) = site.status(&node.address, "master", Some("nodes"));
    assert!(status == 4 && said.contains("key differs"), "{status}: {said}");
    site.allow("nodes", &[allow(&node_key, "node=elsewhere")]);
    let (status, said) = site.status(&node.address, "master", Some("nodes"));
    assert!(status == 4 && said.contains("add `allow PUBLICKEY node=127.0.0.1`"), "{said}");
    let exact = format!("node={}", node.address);
    site.allow("nodes", &[allow(&node_key, &exact), allow(&other, "node")]);
    let (status, said) = site.status(&node.address, "master", Some("nodes"));
    assert_eq!(status, 0, "{said}");
}

#[test]
fn a_pair_and_a_site_key_do_not_meet_and_say_so() {
    let site = KeySite::new();
    let (master, node_key) = (site.pair("master"), site.pair("node"));
    assert_eq!(code(&run(cep_fast(&["keygen"]).arg(site.at("site")))), 0);
    site.allow("nodes", &[allow(&node_key, "node")]);
    site.allow("masters", &[allow(&master, "master read=/ write=/")]);
    let with_pair = site.node("node", Some("masters"), &[]);
    let (status, said) = site.status(&with_pair.address, "site", None);
    assert!(status == 4 && said.contains("key pair"), "{status}: {said}");
    let with_site = site.node("site", None, &[]);
    let (status, said) = site.status(&with_site.address, "master", Some("nodes"));
    assert!(status == 4 && said.contains("key pair"), "{status}: {said}");
    assert_eq!(site.status(&with_site.address, "site", None).0, 0);
}

#[test]
fn bad_allow_files_end_a_node_with_file_and_line() {
    let site = KeySite::new();
    let key = site.pair("node");
    let node = |files: &[&str]| {
        let mut command = cep_fast(&["node", "--listen", "127.0.0.1:0", "--root"]);
        command.arg(site.at("data")).args(files);
        let output = run(&mut command);
        assert!(output.stdout.is_empty(), "it is not ready");
        (code(&output), stderr(&output))
    };
    let (pair, file) = (site.path("node"), site.path("bad"));
    let with = ["--key-file", &pair, "--allow-file", &file];
    let (status, said) = node(&with);
    assert!(status == 2 && said.contains(&file), "it is missing: {status}: {said}");
    for (line, text) in [
        (1, "permit".to_string()),
        (1, allow(&key, "root")),
        (1, "allow x25519:12 master".into()),
        (2, format!("{}\n{}", allow(&key, "master"), allow(&key, "status"))),
    ] {
        site.allow("bad", std::slice::from_ref(&text));
        let (status, said) = node(&with);
        assert!(status == 2 && said.contains(&format!("{file}:{line}: ")), "{status}: {said}");
    }
    site.allow("bad", &[]);
    fs::set_permissions(site.at("bad"), Permissions::from_mode(0o666)).unwrap();
    let (status, said) = node(&with);
    assert!(status == 4 && said.contains("writable by others"), "{status}: {said}");
    let (status, said) = node(&["--key-file", &pair]);
    assert!(status == 2 && said.contains("--allow-file"), "{status}: {said}");
    let (status, said) = node(&["--allow-file", &file]);
    assert!(status == 2 && said.contains("--key-file"), "{status}: {said}");
}

#[test]
fn a_running_node_takes_over_a_changed_allow_file_and_keeps_the_old_for_a_bad_one() {
    let site = KeySite::new();
    let (master, node_key) = (site.pair("master"), site.pair("node"));
    site.allow("nodes", &[allow(&node_key, "node")]);
    site.allow("masters", &[allow(&master, "status")]);
    let node = site.node("node", Some("masters"), &[]);
    assert_eq!(site.status(&node.address, "master", Some("nodes")).0, 4);
    site.allow("masters", &[allow(&master, "master read=/ write=/")]);
    site.wait_for_status(&node.address, "master", 0);
    site.allow("masters", &["allow everybody".into()]);
    // A stranger has the node look at the file.
    wait_for("a line of the log", || {
        assert_eq!(site.status(&node.address, "master", Some("nodes")).0, 0, "the old rights");
        site.logged("node", &["WARN", "masters:1: ", "stay as they were"]) == 1
    });
    site.allow("masters", &[]);
    site.wait_for_status(&node.address, "master", 4);
    assert_eq!(site.logged("node", &["stay as they were"]), 1);
}

#[test]
fn a_site_key_is_replaced_while_some_have_the_old_one() {
    let site = KeySite::new();
    for key in ["old", "new"] {
        assert_eq!(code(&run(cep_fast(&["keygen"]).arg(site.at(key)))), 0);
    }
    let text = |name: &str| fs::read_to_string(site.at(name)).unwrap();
    fs::write(site.at("both"), text("new") + &text("old")).unwrap();
    fs::set_permissions(site.at("both"), Permissions::from_mode(0o600)).unwrap();
    let node = site.node("both", None, &[]);
    for key in ["old", "new", "both"] {
        let (status, said) = site.status(&node.address, key, None);
        assert_eq!(status, 0, "{key}: {said}");
    }
    assert_eq!(site.logged("both", &["listens", "key=site,site"]), 1);
    drop(node);
    let node = site.node("new", None, &[]);
    assert_eq!(site.status(&node.address, "old", None).0, 4);
    assert_eq!(site.status(&node.address, "new", None).0, 0);
    assert_eq!(site.status(&node.address, "both", None).0, 0, "the first one dials");
}

#[test]
fn the_pair_of_a_node_is_replaced_while_some_masters_know_the_old_one() {
    let site = KeySite::new();
    let (master, old, new) = (site.pair("master"), site.pair("old"), site.pair("new"));
    site.allow("masters", &[allow(&master, "master read=/ write=/")]);
    site.allow("old-nodes", &[allow(&old, "node")]);
    site.allow("new-nodes", &[allow(&new, "node")]);
    let text = |name: &str| fs::read_to_string(site.at(name)).unwrap();
    fs::write(site.at("both"), text("new") + &text("old")).unwrap();
    fs::set_permissions(site.at("both"), Permissions::from_mode(0o600)).unwrap();
    let node = site.node("both", Some("masters"), &[]);
    for nodes in ["old-nodes", "new-nodes"] {
        let (status, said) = site.status(&node.address, "master", Some(nodes));
        assert_eq!(status, 0, "{nodes}: {said}");
    }
    drop(node);
    let node = site.node("new", Some("masters"), &[]);
    assert_eq!(site.status(&node.address, "master", Some("old-nodes")).0, 4);
    assert_eq!(site.status(&node.address, "master", Some("new-nodes")).0, 0);
}

/// A master that is still busy when others ask it, and its address.
struct BusyMaster {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
    address: String,
}

impl BusyMaster {
    fn start(site: &KeySite, node: &str, id: &str, keys: &[&str]) -> BusyMaster {
        let spec = site.at(&format!("{id}.spec"));
        let text = format!(
            "id {id}\nmaster 127.0.0.1:0\nwriter {node} pattern:1 0 0-1073741823\n\
             reader {node} null: 0 0-1073741823\n"
        );
        fs::write(&spec, text).unwrap();
        let mut command = cep_fast(&["run", "--json", "--progress", "never", "--limit", "100M"]);
        let child = command.arg(spec).args(keys).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        BusyMaster { child, said, address }
    }

    fn end(self) -> i32 {
        drop(self.said);
        code(&end_of(self.child))
    }
}

#[test]
fn status_and_cancel_are_rights_of_a_key() {
    let site = KeySite::new();
    let (master, node_key) = (site.pair("master"), site.pair("node"));
    let (watcher, _) = (site.pair("watcher"), site.pair("stranger"));
    site.allow("masters", &[allow(&master, "master read=/ write=/")]);
    site.allow("nodes", &[allow(&node_key, "node"), allow(&watcher, "status")]);
    let node = site.node("node", Some("masters"), &[]);
    let (key, nodes) = (site.path("master"), site.path("nodes"));
    let keys = ["--key-file", &key, "--allow-file", &nodes];
    let busy = BusyMaster::start(&site, &node.address, "slow", &keys);
    let ask = |what: &str, key: &str, allow: Option<&str>| {
        let mut command = cep_fast(&[what, &busy.address, "--key-file"]);
        command.arg(site.at(key));
        if let Some(allow) = allow {
            command.arg("--allow-file").arg(site.at(allow));
        }
        let output = run(&mut command);
        (code(&output), stderr(&output))
    };
    assert_eq!(ask("status", "watcher", Some("masters")).0, 0);
    let (status, said) = ask("cancel", "watcher", Some("masters"));
    assert!(status == 4 && said.contains("`cancel`") && said.contains(short(&watcher)), "{said}");
    let (status, said) = ask("status", "stranger", Some("masters"));
    assert!(status == 4 && said.contains("`status`"), "{status}: {said}");
    assert_eq!(ask("status", "stranger", None).0, 4, "its own key is not the master's");
    assert_eq!(ask("status", "master", None).0, 0, "the master's own key");
    assert_eq!(ask("cancel", "master", None).0, 0);
    assert_eq!(busy.end(), 130);
}

/// A node as a launcher starts it: the key comes by standard input.
fn launched(site: &KeySite, key: &str) -> (Child, String) {
    let mut command = cep_fast(&["node", "--launched", "--listen", "127.0.0.1:0", "--root"]);
    command.arg(site.at("data")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&fs::read(site.at(key)).unwrap()).unwrap();
    let address = ready_address(&mut child).to_string();
    (child, address)
}

#[test]
fn the_key_of_a_job_is_good_for_one_transfer_of_one_master() {
    let site = KeySite::new();
    assert_eq!(code(&run(cep_fast(&["keygen"]).arg(site.at("job")))), 0);
    let (mut node, address) = launched(&site, "job");
    let key = site.path("job");
    let busy = BusyMaster::start(&site, &address, "first", &["--key-file", &key]);
    // The node is at work once bytes have moved.
    wait_for("the first transfer", || {
        let status = run(cep_fast(&["status", &busy.address, "--json", "--key-file"]).arg(&key));
        let text = String::from_utf8(status.stdout).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|it| it["bytes"] != 0)
    });
    let (status, said) = site.status(&address, "job", None);
    assert!(status == 4 && said.contains("one transfer"), "another transfer: {status}: {said}");
    let spec = site.at("first.spec");
    let again = run(cep_fast(&["run", "--progress", "never", "--key-file", &key]).arg(&spec));
    assert_eq!(code(&again), 4, "another master of the same transfer: {}", stderr(&again));
    let cancel = run(cep_fast(&["cancel", &busy.address, "--key-file"]).arg(&key));
    assert_eq!(code(&cancel), 0, "{}", stderr(&cancel));
    assert_eq!(busy.end(), 130);
    wait_for("the end of the node", || node.try_wait().unwrap().is_some());
}

/// Forwards one connection, and keeps what the side that dialled has said.
fn recorded(address: &str, dial: impl FnOnce(&str) -> (i32, String)) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = listener.local_addr().unwrap().to_string();
    let (record, address) = (Arc::new(Mutex::new(Vec::new())), address.to_owned());
    let kept = Arc::clone(&record);
    let forwarder = thread::spawn(move || {
        let mut near = listener.accept().unwrap().0;
        let mut far = TcpStream::connect(address).unwrap();
        let (mut near_back, mut far_back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let back = thread::spawn(move || {
            let _ = std::io::copy(&mut far_back, &mut near_back);
            let _ = near_back.shutdown(Shutdown::Both);
        });
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = near.read(&mut bytes) {
            kept.lock().unwrap().extend_from_slice(&bytes[..count]);
            if far.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = far.shutdown(Shutdown::Write);
        back.join().unwrap();
    });
    let (status, said) = dial(&front);
    assert_eq!(status, 0, "{said}");
    forwarder.join().unwrap();
    let record = record.lock().unwrap();
    record.clone()
}

#[test]
fn a_recorded_session_moves_nothing_when_it_is_replayed() {
    let site = KeySite::new();
    let (master, node_key) = (site.pair("master"), site.pair("node"));
    assert_eq!(code(&run(cep_fast(&["keygen"]).arg(site.at("site")))), 0);
    site.allow("masters", &[allow(&master, "master read=/ write=/")]);
    site.allow("nodes", &[allow(&node_key, "node")]);
    for (node_file, key, rights, nodes, first_bytes) in [
        ("node", "master", Some("masters"), Some("nodes"), 48 + 96),
        ("site", "site", None, None, 48 + 48),
    ] {
        let node = site.node(node_file, rights, &[]);
        let record = recorded(&node.address, |front| site.status(front, key, nodes));
        fs::remove_file(site.at("data/y")).unwrap();
        let mut replay = TcpStream::connect(&node.address).unwrap();
        replay.write_all(&record[..first_bytes]).unwrap();
        let mut reply = [0; 16];
        replay.read_exact(&mut reply).unwrap();
        assert_eq!(reply[4], 0, "{key}: the first message alone is as good as new");
        replay.write_all(&record[first_bytes..]).unwrap();
        // It ends with the first bytes behind it.
        let _ = replay.read_to_end(&mut Vec::new());
        wait_for("a line of the log", || {
            site.logged(node_file, &["WARN", "refused: the key differs", "from=127.0.0.1"]) == 1
        });
        assert!(!site.at("data/y").exists(), "{key}: nothing was written");
    }
}

#[test]
fn doctor_tries_a_node_with_a_pair_and_names_its_own_key() {
    let site = KeySite::new();
    let (here, there) = (site.pair("here"), site.pair("there"));
    site.allow("masters", &[allow(&here, "master")]);
    site.allow("nodes", &[allow(&there, "node")]);
    let node = site.node("there", Some("masters"), &[]);
    let mut command = cep_fast(&["doctor", &node.address, "--json", "--key-file"]);
    let output = run(command.arg(site.at("here")).arg("--allow-file").arg(site.at("nodes")));
    let text = String::from_utf8(output.stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(json["error"].is_null(), "{text}");
    assert_eq!(json["key"], format!("{}…", short(&here)));
}

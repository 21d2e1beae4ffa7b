//! Access: keys and their files, and daemons without one. Other users are tested where the test may
//! become them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use support::{PROGRAM, cep_fast, code, end_of, random_bytes, ready_address, run, stderr};

/// A user that owns nothing.
const OTHER: u32 = 65534;

/// A folder that every user can enter, with a copy of the program in it.
struct Shared {
    folder: tempfile::TempDir,
}

impl Shared {
    /// Creates the folder; prints a note and returns `None` if this test may not become another
    /// user.
    fn new() -> Option<Shared> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root may become another user");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(PROGRAM, folder.path().join("cep-fast")).unwrap();
        fs::set_permissions(folder.path().join("cep-fast"), Permissions::from_mode(0o755)).unwrap();
        let shared = Shared { folder };
        let probe = shared.command(Some(OTHER), &["--version"]).stdin(Stdio::null()).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            eprintln!(
                "skipped: no right to become user {OTHER}, or what is in {:?} cannot be run",
                shared.folder
            );
            return None;
        }
        Some(shared)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a command of the program, as another user or as this one.
    fn command(&self, user: Option<u32>, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("cep-fast"));
        command.args(args).current_dir(self.folder.path());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command
    }

    fn node(&self, user: Option<u32>, args: &[&str]) -> Node {
        let mut command = self.command(user, &["node", "--listen", "127.0.0.1:0", "--root"]);
        let mut child =
            command.arg(self.path("data")).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let address = ready_address(&mut child).to_string();
        Node { child, address }
    }

    /// Runs a transfer from `x` to `y` at a node.
    fn transfer(&self, node: &Node, user: Option<u32>, more: &[&str]) -> Output {
        let spec = self.path("spec");
        let text = format!(
            "id who\nwriter {0} file:///x 0 0-999\nreader {0} file:///y 0 0-999\n",
            node.address
        );
        fs::write(&spec, text).unwrap();
        run(self.command(user, &["run", "--progress", "never", "spec"]).args(more))
    }
}

/// A daemon that ends with the test.
struct Node {
    child: Child,
    address: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn without_a_key_no_other_user_is_let_in_neither_by_root_nor_as_root() {
    let Some(shared) = Shared::new() else { return };
    fs::create_dir(shared.path("data")).unwrap();
    fs::set_permissions(shared.path("data"), Permissions::from_mode(0o777)).unwrap();
    fs::write(shared.path("data/x"), random_bytes(1, 1000)).unwrap();
    for (owner, stranger) in [(None, Some(OTHER)), (Some(OTHER), None)] {
        let node = shared.node(owner, &["--insecure-no-key"]);
        let output = shared.transfer(&node, stranger, &[]);
        assert_eq!(code(&output), 4, "{}", stderr(&output));
        assert!(
            stderr(&output).contains("same user") && stderr(&output).contains("--key-file"),
            "{}",
            stderr(&output)
        );
        assert!(!shared.path("data/y").exists());
        assert_eq!(code(&shared.transfer(&node, owner, &[])), 0);
        fs::remove_file(shared.path("data/y")).unwrap();
    }
}

#[test]
fn status_and_cancel_of_a_master_without_a_key_are_for_its_own_user() {
    let Some(shared) = Shared::new() else { return };
    fs::create_dir(shared.path("data")).unwrap();
    let node = shared.node(None, &["--insecure-no-key"]);
    let spec = format!(
        "id slow\n\
         master 127.0.0.1:0\n\
         writer {0} pattern:1 0 0-1073741823\n\
         reader {0} null: 0 0-1073741823\n",
        node.address
    );
    fs::write(shared.path("spec"), spec).unwrap();
    let mut master = shared
        .command(None, &["run", "spec", "--json", "--progress", "never", "--limit", "100M"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(master.stderr.take().unwrap());
    said.read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap();
    for command in ["status", "cancel"] {
        let output = run(&mut shared.command(Some(OTHER), &[command, address]));
        assert_eq!(code(&output), 4, "{command}: {}", stderr(&output));
    }
    let own = run(&mut shared.command(None, &["cancel", address]));
    assert_eq!(code(&own), 0, "{}", stderr(&own));
    drop(said);
    assert_eq!(code(&end_of(master)), 130);
}

#[test]
fn a_daemon_starts_with_a_root_and_a_key_or_a_word_that_none_is_meant() {
    let folder = support::folder();
    let key = folder.path().join("key").display().to_string();
    assert_eq!(code(&run(&mut cep_fast(&["keygen", &key]))), 0);
    let cases = [
        (vec!["--insecure-no-key"], 2, "--root DIR"),
        (vec!["--key-file", &key], 2, "--root DIR"),
        (vec![], 2, "--root DIR"),
        (vec!["--root", "/"], 4, "--insecure-no-key"),
        (vec!["--root", "/", "--insecure-no-key", "--key-file", &key], 2, "cannot be used with"),
        (vec!["--root", "/", "--insecure-no-key", "--listen", "0.0.0.0:0"], 4, "keygen"),
    ];
    for (more, status, said) in cases {
        let mut command = cep_fast(&["node"]);
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let output = run(command.args(&more));
        assert_eq!(code(&output), status, "{more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{more:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{more:?}: it is not ready");
    }
}

/// Debian names the host itself 127.0.1.1. A mount namespace has another `/etc/hosts`.
#[test]
fn a_name_that_leads_to_this_machine_alone_is_said_aloud() {
    let folder = support::folder();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n127.0.1.1 thishost\n").unwrap();
    let script = r#"mount --bind "$0" /etc/hosts; exec "$@""#;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", script])
        .arg(&hosts)
        .args([PROGRAM, "node", "--root", "/"]);
    // It ends at once: there is no key, and no option permits that.
    let output = run(command.args(["--listen", "thishost:0"]));
    if stderr(&output).contains("unshare") || stderr(&output).contains("mount") {
        eprintln!("skipped: no mount namespace is to be had: {}", stderr(&output));
        return;
    }
    assert!(
        stderr(&output).contains("leads to this machine only (thishost"),
        "{}",
        stderr(&output)
    );
    let plain = run(&mut cep_fast(&["node", "--listen", "localhost:0", "--root", "/"]));
    assert!(!stderr(&plain).contains("leads to this machine only"), "{}", stderr(&plain));
}

#[test]
fn a_key_file_of_another_user_is_refused_whatever_leads_to_it() {
    let Some(shared) = Shared::new() else { return };
    let (key, link) = (shared.path("key"), shared.path("link"));
    assert_eq!(code(&run(shared.command(Some(0), &["keygen", "key"]).uid(0).gid(0))), 0);
    symlink("key", &link).unwrap();
    let try_key = |user, name: &str| {
        let args = ["status", "127.0.0.1:1", "--key-file", name];
        run(&mut shared.command(user, &args))
    };
    // Nothing listens at that port: a valid key ends with 3.
    for name in ["key", "link"] {
        assert_eq!(code(&try_key(None, name)), 3, "a link to a file of our own is usual");
    }
    std::os::unix::fs::chown(&key, Some(OTHER), Some(OTHER)).unwrap();
    for name in ["key", "link"] {
        let output = try_key(None, name);
        assert_eq!(code(&output), 4, "{}", stderr(&output));
        assert!(stderr(&output).contains("belongs to user 65534"), "{}", stderr(&output));
        assert_eq!(code(&try_key(Some(OTHER), name)), 3);
    }
}

#[test]
fn a_pipe_for_a_key_file_is_refused_and_not_waited_for() {
    let folder = support::folder();
    let pipe = folder.path().join("key");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = run(cep_fast(&["status", "127.0.0.1:1", "--key-file"]).arg(&pipe));
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("not a file"), "{}", stderr(&output));
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn keygen_on_a_full_disk_leaves_no_empty_key_that_stops_the_next_one() {
    let folder = support::folder();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let tmpfs = |options: &str| {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk))
    };
    if code(&tmpfs("size=16k")) != 0 {
        eprintln!("skipped: no right to mount a tmpfs");
        return;
    }
    let _unmount = Unmount(disk.clone());
    // As much as fits.
    let _ = fs::write(disk.join("filler"), vec![1; 1 << 20]);
    let keygen = || run(cep_fast(&["keygen"]).arg(disk.join("key")));
    let output = keygen();
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let left: Vec<_> =
        fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["filler"]);
    fs::remove_file(disk.join("filler")).unwrap();
    assert_eq!(code(&keygen()), 0);
    assert_eq!(fs::metadata(disk.join("key")).unwrap().len(), 65);
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 1);
}

#[test]
fn keygen_leaves_alone_what_is_there_also_a_link_to_nothing() {
    let folder = support::folder();
    let key = folder.path().join("key");
    let keygen = || run(cep_fast(&["keygen"]).arg(&key));
    symlink(folder.path().join("elsewhere"), &key).unwrap();
    let output = keygen();
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(
        fs::symlink_metadata(&key).unwrap().is_symlink()
            && !folder.path().join("elsewhere").exists()
    );
    fs::remove_file(&key).unwrap();
    assert_eq!(code(&keygen()), 0);
    let made = fs::read(&key).unwrap();
    assert_eq!(code(&keygen()), 5);
    assert_eq!(fs::read(&key).unwrap(), made);
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
    // A file name without a folder is in the current folder.
    assert_eq!(code(&run(cep_fast(&["keygen", "plain"]).current_dir(folder.path()))), 0);
}

/// Returns true if a process's writable memory contains `wanted`.
fn memory_holds(pid: u32, wanted: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().any(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        if !rest.starts_with("rw") {
            return false;
        }
        let (start, end) = range.split_once('-').unwrap();
        let at = |text| u64::from_str_radix(text, 16).unwrap();
        memory.seek(SeekFrom::Start(at(start))).unwrap();
        let mut content = Vec::new();
        // Some mappings cannot be read; they hold nothing of the program's.
        let _ = (&mut memory).take(at(end) - at(start)).read_to_end(&mut content);
        content.windows(wanted.len()).any(|window| window == wanted)
    })
}

/// Returns the bytes of a key from its file.
fn key_bytes(file: &Path) -> Vec<u8> {
    let text = fs::read_to_string(file).unwrap();
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..32).map(|place| byte(2 * place)).collect()
}

#[test]
fn a_daemon_keeps_no_text_of_its_key_and_lets_nobody_look_into_its_memory() {
    let Some(shared) = Shared::new() else { return };
    fs::create_dir(shared.path("data")).unwrap();
    assert_eq!(code(&run(&mut shared.command(None, &["keygen", "key"]))), 0);
    std::os::unix::fs::chown(shared.path("key"), Some(OTHER), None).unwrap();
    let node = shared.node(Some(OTHER), &["--key-file", "key"]);
    let pid = node.child.id();
    let (text, bytes) =
        (fs::read_to_string(shared.path("key")).unwrap(), key_bytes(&shared.path("key")));
    assert!(memory_holds(pid, &bytes), "it works with the key, so this test can find one");
    assert!(!memory_holds(pid, text.trim().as_bytes()));
    // In /proc, files of a process that may not be inspected belong to root.
    assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0);
}

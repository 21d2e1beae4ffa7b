//! Errors before and while bytes move: the message has a remedy, the exit status is that of the
//! contract, and no partial file keeps a final name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use support::{
    Daemon, cep_fast, code, complete, end_of, folder, json, listing, random_bytes, run, run_spec,
    stderr,
};

/// Creates a folder with a source `x` of 100,000 bytes.
fn with_source() -> tempfile::TempDir {
    let root = folder();
    fs::write(root.path().join("x"), random_bytes(1, 100_000)).unwrap();
    root
}

/// Runs `spec`, which must end with `status`, print `words`, and leave the folder unchanged.
fn refused(root: &Path, spec: &str, status: i32, words: &[&str]) -> Output {
    refused_with(root, spec, &[], status, words)
}

fn refused_with(root: &Path, spec: &str, more: &[&str], status: i32, words: &[&str]) -> Output {
    let before = listing(root);
    let output = run_spec(root, spec, more);
    let said = stderr(&output);
    assert_eq!(code(&output), status, "{said}\n{spec}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    assert_eq!(listing(root), before, "something is left: {said}");
    output
}

fn to_y(writer: &str) -> String {
    format!("id bad\n{writer}\nreader b:7002 file:///y 0 0-99999\n")
}

#[test]
fn a_missing_source() {
    let root = with_source();
    let output = refused(
        root.path(),
        &to_y("writer a:7001 file:///gone 0 0-99999"),
        5,
        &["a:7001", "/gone", "missing"],
    );
    assert_eq!(json(&output)["state"], "failed");
    assert_eq!(json(&output)["error"]["code"], 5);
}

#[test]
fn a_source_that_is_no_file() {
    let root = with_source();
    fs::create_dir(root.path().join("dir")).unwrap();
    refused(
        root.path(),
        &to_y("writer a:7001 file:///dir 0 0-99999"),
        5,
        &["a:7001", "/dir", "directory"],
    );
    nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(root.path(), &to_y("writer a:7001 file:///pipe 0 0-99999"), 5, &["a:7001", "/pipe"]);
}

#[test]
fn a_short_source_and_a_range_beyond_the_file() {
    let root = with_source();
    refused(
        root.path(),
        &to_y("writer a:7001 file:///x 1 0-99999"),
        5,
        &["a:7001", "/x", "100000 bytes"],
    );
    let spec = "id bad\nwriter a:7001 file:///x 0 0-200000\nreader b:7002 file:///y 0 0-200000\n";
    refused(root.path(), spec, 5, &["a:7001", "/x", "100000 bytes"]);
}

#[test]
fn a_range_that_nobody_offers() {
    let root = with_source();
    let spec =
        "id bad\nwriter a:7001 file:///x 0 0-99999\nreader b:7002 file:///y 0 50000-150000\n";
    refused(root.path(), spec, 2, &["100000-150000"]);
}

#[test]
fn rows_of_one_node_that_write_different_bytes_to_one_place() {
    let root = with_source();
    let spec = "id bad\n\
                writer a:7001 file:///x 0 0-99999\n\
                reader b:7002 file:///y 0 0-49999\n\
                reader b:7002 file:///y 100 50000-99999\n";
    refused(root.path(), spec, 2, &["/y"]);
}

#[test]
fn rows_of_two_nodes_that_share_a_file_and_disagree() {
    let root = with_source();
    let spec = "id bad\n\
                writer a:7001 file:///x 0 0-99999\n\
                reader b:7002 file:///y 0 0-49999\n\
                reader c:7003 file:///y 100 50000-99999\n";
    refused(root.path(), spec, 2, &["b:7002", "c:7003", "/y"]);
}

#[test]
fn malformed_lines_of_every_kind() {
    let root = with_source();
    let cases = [
        ("wrtier a:7001 file:///x 0 0-9", "writer"),
        ("writer a file:///x 0 0-9", "port"),
        ("writer a:99999 file:///x 0 0-9", "port"),
        ("writer a:7001 x 0 0-9", "file:///"),
        ("writer a:7001 ftp://x 0 0-9", "file:///"),
        ("writer a:7001 file:///x zero 0-9", "number"),
        ("writer a:7001 file:///x 0 9-0", "9-0"),
        ("writer a:7001 file:///x 0 0", "range"),
        ("writer a:7001 file:///x 0", "range"),
        ("writer a:7001 file:///x 0 0-9 spee=1G", "speed"),
        ("writer a:7001 file:///x 0 0-9 speed=fast", "speed"),
        ("writer a[1-:1 file:///x 0 0-9", "]"),
        ("writer a:7001 \"file:///x 0 0-9", "quote"),
        ("writer a:7001 null: 0 0-9", "null:"),
        ("option blokc 4096", "block"),
        ("option block 5000", "power of two"),
        ("writer a:7001 file:///x 0 0-9 speed=0", "above 0"),
        ("writer a:7001 file:///x 0 0-9 speed=1001T", "at most 1000T"),
        ("option store s 0", "above 0"),
        ("option store s 9999T", "at most 1000T"),
        ("option pair a:7001 b:7002", "such as 10G"),
        ("option pair a:7001 a:7001 1G", "another node"),
        ("option pair a:7001 b 1G", "port"),
    ];
    for (line, expected) in cases {
        let spec = format!("id bad\n{line}\nreader b:7002 file:///y 0 0-9\n");
        let output = run_spec(root.path(), &spec, &[]);
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{line}: {said}");
        assert!(said.contains(expected), "{line}: {expected:?} is not in {said:?}");
        assert!(said.contains("spec:") || said.contains("line"), "where it is: {said}");
    }
}

/// Runs `plan` on rows in a file of its own: `folder` lists other files, and a megabyte of lines is
/// too long for an argument.
fn plan_of(text: &str) -> Output {
    let folder = folder();
    let file = folder.path().join("many.spec");
    fs::write(&file, text).unwrap();
    run(&mut cep_fast(&["plan", file.to_str().unwrap()]))
}

#[test]
fn more_rows_than_a_plan_may_have_and_rows_that_all_overlap() {
    let rows = "writer n[1-65536]:1 pattern:1 0 0-9\n".repeat(17);
    let output = plan_of(&format!("id many\n{rows}reader r:7001 null: 0 0-9\n"));
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("many.spec:18:8: ") && stderr(&output).contains("1048576"),
        "{}",
        stderr(&output)
    );
    let row = |role: &str, at: u64, uri: &str| {
        format!("{role} {role}{at}:1 {uri} 0 {at}-{}\n", at + 10_000)
    };
    let rows = |role, uri| (0..10_000).map(move |at| row(role, at, uri)).collect::<String>();
    let output =
        plan_of(&format!("id many\n{}{}", rows("writer", "pattern:1"), rows("reader", "null:")));
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    let place = stderr(&output)
        .split_once(": the rows overlap too much for one plan")
        .map(|(place, _)| place.to_owned());
    let line = place.and_then(|place| place.rsplit_once("line ")?.1.parse::<u64>().ok());
    assert!(line.is_some_and(|line| (2..20_002).contains(&line)), "{}", stderr(&output));
}

#[test]
fn more_nodes_than_one_transfer_may_have() {
    let root = with_source();
    let spec = "id many\n\
                writer a:7001 file:///x 0 0-9\n\
                reader b:7002 file:///y 0 0-9\n\
                reader n[1-65535]:7001 null: 0 0-9\n";
    refused(root.path(), spec, 2, &["line 4", "n65535:7001", "65536"]);
}

#[test]
fn a_port_in_use() {
    let root = with_source();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let spec = format!(
        "id bad\n\
         master localhost:{port}\n\
         writer a:7001 file:///x 0 0-9\n\
         reader b:7002 file:///y 0 0-9\n"
    );
    refused(root.path(), &spec, 3, &[&format!("localhost:{port}"), "port"]);
    let output = run(&mut cep_fast(&[
        "node",
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--root",
        "/",
        "--insecure-no-key",
    ]));
    assert_eq!(code(&output), 3, "{}", stderr(&output));
}

/// Runs a specification whose nodes are daemons.
fn run_daemons(root: &Path, spec: &str, more: &[&str]) -> Output {
    let file = root.join("spec");
    fs::write(&file, spec).unwrap();
    let output = run(cep_fast(&["run", "--json", "--progress", "never"]).args(more).arg(&file));
    fs::remove_file(&file).unwrap();
    output
}

#[test]
fn a_host_without_a_name_and_one_that_refuses() {
    let root = with_source();
    let daemon = Daemon::start(root.path(), &[]);
    let spec = |host: &str| {
        format!(
            "id bad\nwriter {host} file:///x 0 0-9\nreader {} file:///y 0 0-9\n",
            daemon.address
        )
    };
    let output = run_daemons(root.path(), &spec("no-such-host.invalid:7"), &[]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("no-such-host.invalid"), "{}", stderr(&output));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run_daemons(root.path(), &spec(&closed.to_string()), &[]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains(&closed.to_string()), "{}", stderr(&output));
}

#[test]
fn a_host_that_says_nothing_is_not_waited_for_forever() {
    let root = with_source();
    let daemon = Daemon::start(root.path(), &[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let spec = format!(
        "id bad\nwriter {address} file:///x 0 0-9\nreader {} file:///y 0 0-9\n",
        daemon.address
    );
    let output = run_daemons(root.path(), &spec, &[]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains(&address.to_string()), "{}", stderr(&output));
}

#[test]
fn paths_that_lead_out_of_the_root() {
    let root = with_source();
    let outside = folder();
    fs::write(outside.path().join("secret"), random_bytes(3, 100_000)).unwrap();
    symlink(outside.path().join("secret"), root.path().join("link")).unwrap();
    symlink(outside.path(), root.path().join("dir")).unwrap();
    symlink("../../../../../../../etc/hostname", root.path().join("up")).unwrap();
    for source in ["/link", "/dir/secret", "/up", "/../x", "/sub/../../x"] {
        refused(
            root.path(),
            &to_y(&format!("writer a:7001 file://{source} 0 0-99999")),
            4,
            &["a:7001"],
        );
    }
    for destination in ["/dir/y", "/../y"] {
        let spec = format!(
            "id bad\n\
             writer a:7001 file:///x 0 0-99999\n\
             reader b:7002 file://{destination} 0 0-99999\n"
        );
        refused(root.path(), &spec, 4, &["b:7002"]);
    }
    assert_eq!(listing(outside.path()).len(), 1);
}

/// Mounts a new tmpfs at `at`, if permitted.
fn mount(at: &Path, options: &str) -> bool {
    fs::create_dir_all(at).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
    mounted.is_ok_and(|status| status.success())
}

fn unmount(at: &Path) {
    assert!(Command::new("umount").arg(at).status().unwrap().success());
}

#[test]
fn a_full_disk() {
    let root = with_source();
    let small = root.path().join("small");
    if !mount(&small, "size=64k") {
        eprintln!("skipped: no right to mount a tmpfs");
        return;
    }
    let spec =
        "id bad\nwriter a:7001 file:///x 0 0-99999\nreader b:7002 file:///small/y 0 0-99999\n";
    let output = run_spec(root.path(), spec, &[]);
    let left = listing(&small);
    unmount(&small);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("b:7002") && stderr(&output).contains("full"),
        "{}",
        stderr(&output)
    );
    assert_eq!(left, [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_read_only_destination() {
    let root = with_source();
    let sealed = root.path().join("sealed");
    if !mount(&sealed, "ro") {
        eprintln!("skipped: no right to mount a tmpfs");
        return;
    }
    let spec =
        "id bad\nwriter a:7001 file:///x 0 0-99999\nreader b:7002 file:///sealed/y 0 0-99999\n";
    let output = run_spec(root.path(), spec, &[]);
    unmount(&sealed);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("read-only"), "{}", stderr(&output));
}

#[test]
fn a_missing_destination_directory_and_a_destination_that_exists() {
    let root = with_source();
    let spec =
        "id bad\nwriter a:7001 file:///x 0 0-99999\nreader b:7002 file:///none/y 0 0-99999\n";
    refused(root.path(), spec, 5, &["b:7002", "/none"]);
    fs::write(root.path().join("y"), "old").unwrap();
    let spec = to_y("writer a:7001 file:///x 0 0-99999");
    refused(root.path(), &spec, 5, &["b:7002", "/y", "--overwrite"]);
    assert_eq!(fs::read(root.path().join("y")).unwrap(), b"old");
    complete(root.path(), &spec, &["--overwrite"]);
}

#[test]
fn keys() {
    let root = with_source();
    let path = |name: &str| root.path().join(name).display().to_string();
    let (key, other) = (path("key"), path("other"));
    for file in [&key, &other] {
        assert_eq!(code(&run(&mut cep_fast(&["keygen", file]))), 0);
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(code(&run(&mut cep_fast(&["keygen", &key]))), 5, "it is not replaced");
    let daemon = Daemon::start(root.path(), &["--key-file", &key]);
    let spec = format!(
        "id keys\nwriter {0} file:///x 0 0-99999\nreader {0} file:///y 0 0-99999\n",
        daemon.address
    );
    for more in [&["--key-file", other.as_str()][..], &[]] {
        let output = run_daemons(root.path(), &spec, more);
        assert_eq!(code(&output), 4, "{}", stderr(&output));
        assert!(stderr(&output).contains("key"), "{}", stderr(&output));
    }
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let output = run_daemons(root.path(), &spec, &["--key-file", &other]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("chmod"), "{}", stderr(&output));
    assert_eq!(code(&run_daemons(root.path(), &spec, &["--key-file", &key])), 0);
    let output = run(&mut cep_fast(&["node", "--listen", "0.0.0.0:0"]));
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("keygen"), "{}", stderr(&output));
}

/// Starts a transfer between daemons that takes some time, calls `meddle` once bytes have landed,
/// and returns its output.
fn meddled(root: &Path, spec: &str, meddle: impl FnOnce()) -> Output {
    let file = root.join("spec");
    fs::write(&file, spec).unwrap();
    let mut command = cep_fast(&["run", "--json", "--stall-timeout", "5", "--progress", "never"]);
    let child =
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let master = line.trim().rsplit(' ').next().unwrap().to_string();
    loop {
        let output = run(&mut cep_fast(&["status", "--json", &master]));
        if code(&output) != 0 || json(&output)["bytes"].as_u64().unwrap() > 0 {
            break;
        }
    }
    meddle();
    let drained = std::thread::spawn(move || {
        said.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
    });
    let mut output = end_of(child);
    output.stderr = drained.join().unwrap().into_bytes();
    fs::remove_file(&file).unwrap();
    output
}

/// A transfer of 40 GiB, which takes long enough for `meddle`.
fn long(writers: &[&Daemon], reader: &Daemon) -> String {
    let last = (40_u64 << 30) - 1;
    let writers: String = writers
        .iter()
        .map(|writer| format!("writer {} pattern:1 0 0-{last}\n", writer.address))
        .collect();
    format!("id long\nmaster 127.0.0.1:0\n{writers}reader {} null: 0 0-{last}\n", reader.address)
}

#[test]
fn a_receiver_that_is_killed_is_named() {
    let root = folder();
    let (sender, receiver) = (Daemon::start(root.path(), &[]), Daemon::start(root.path(), &[]));
    let output =
        meddled(root.path(), &long(&[&sender], &receiver), || receiver.signal(Signal::SIGKILL));
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains(&receiver.address), "{}", stderr(&output));
}

#[test]
fn the_only_sender_that_is_killed_is_named_with_what_is_missing() {
    let root = folder();
    let (sender, receiver) = (Daemon::start(root.path(), &[]), Daemon::start(root.path(), &[]));
    let output =
        meddled(root.path(), &long(&[&sender], &receiver), || sender.signal(Signal::SIGKILL));
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains(&sender.address), "{}", stderr(&output));
    assert!(!json(&output)["error"]["missing_ranges"].as_array().unwrap().is_empty());
}

#[test]
fn a_sender_with_a_replica_may_be_killed() {
    let root = folder();
    let daemons: Vec<Daemon> = (0..3).map(|_| Daemon::start(root.path(), &[])).collect();
    let last = (6_u64 << 30) - 1;
    let spec = long(&[&daemons[0], &daemons[1]], &daemons[2])
        .replace(&((40_u64 << 30) - 1).to_string(), &last.to_string());
    let output = meddled(root.path(), &spec, || daemons[0].signal(Signal::SIGKILL));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn a_running_transfer_is_cancelled_by_command_and_by_signal() {
    let root = folder();
    let (sender, receiver) = (Daemon::start(root.path(), &[]), Daemon::start(root.path(), &[]));
    let spec = long(&[&sender], &receiver).replace("null:", "file:///big");
    let spec = spec.replace(&((40_u64 << 30) - 1).to_string(), &((3_u64 << 30) - 1).to_string());
    let file = root.path().join("s");
    fs::write(&file, &spec).unwrap();
    for by_signal in [false, true] {
        let mut command = cep_fast(&["run", "--json", "--progress", "never", "--no-resume"]);
        let command =
            command.arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        if by_signal {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        } else {
            let master = line.trim().rsplit(' ').next().unwrap();
            let output = run(&mut cep_fast(&["cancel", master]));
            assert_eq!(code(&output), 0, "{}", stderr(&output));
        }
        let output = end_of(child);
        assert_eq!(code(&output), 130);
        assert_eq!(json(&output)["state"], "cancelled");
        assert_eq!(listing(root.path()), std::slice::from_ref(&file), "nothing is left half-named");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read() {
    let root = folder();
    let source = fs::File::create(root.path().join("x")).unwrap();
    // Holes too small to be skipped make a file that is slow to read and quick to write.
    let bytes = 12_u64 << 30;
    for chunk in 0..bytes >> 16 {
        std::os::unix::fs::FileExt::write_all_at(&source, &[1; 4096], chunk << 16).unwrap();
    }
    source.set_len(bytes).unwrap();
    let (sender, receiver) = (Daemon::start(root.path(), &[]), Daemon::start(root.path(), &[]));
    let spec = format!(
        "id shrink\nmaster 127.0.0.1:0\nwriter {} file:///x 0 0-{1}\nreader {2} null: 0 0-{1}\n",
        sender.address,
        bytes - 1,
        receiver.address
    );
    let output = meddled(root.path(), &spec, || source.set_len(1 << 20).unwrap());
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains(&sender.address), "{}", stderr(&output));
    assert_eq!(listing(root.path()), [root.path().join("x")]);
}

//! `copy` as users of cp and scp would try it: kinds of files, paths, and destinations.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use support::{cep_fast, code, end_of, folder, json, random_bytes, run, stderr, stderr_of_fast};

/// Runs `copy` in a folder with the arguments `words`.
fn copy<Word: AsRef<OsStr>>(folder: &Path, words: &[Word]) -> Output {
    run(cep_fast(&["copy", "--progress", "never"]).current_dir(folder).args(words))
}

fn copied<Word: AsRef<OsStr>>(folder: &Path, words: &[Word]) -> serde_json::Value {
    let output =
        run(cep_fast(&["copy", "--json", "--progress", "never"]).current_dir(folder).args(words));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["state"], "complete", "{report}");
    report
}

#[test]
fn what_has_no_size_is_refused_by_name_and_makes_no_file() {
    let home = folder();
    nix::unistd::mkfifo(&home.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(home.path().join("socket")).unwrap();
    fs::create_dir(home.path().join("d")).unwrap();
    for (source, said) in [
        ("fifo", "fifo: is a pipe"),
        ("socket", "socket: is a socket"),
        ("d", "d: is a directory"),
        ("/dev/zero", "/dev/zero: is a character device"),
        ("/proc/cpuinfo", "/proc/cpuinfo: is made by the kernel"),
        ("/proc/self/fd", "/proc/self/fd: is a directory"),
        ("missing", "missing: cannot be read"),
    ] {
        let output = copy(home.path(), &[source, "out"]);
        assert_eq!(code(&output), 5, "{source}: {}", stderr(&output));
        assert!(stderr(&output).starts_with(&format!("cep-fast: {said}")), "{}", stderr(&output));
        assert!(stderr(&output).contains("\n  try: "), "{}", stderr(&output));
        assert!(!home.path().join("out").exists(), "{source}");
    }
}

#[test]
fn standard_input_is_copied_where_it_is_a_file_and_refused_where_it_is_a_pipe() {
    let home = folder();
    fs::write(home.path().join("file"), "from a file").unwrap();
    let mut command = cep_fast(&["copy", "/dev/stdin", "out", "--progress", "never"]);
    command.current_dir(home.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output =
        end_of(command.stdin(fs::File::open(home.path().join("file")).unwrap()).spawn().unwrap());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(fs::read(home.path().join("out")).unwrap(), b"from a file");

    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // The program may have ended before it reads.
    let _ = child.stdin.take().unwrap().write_all(b"x");
    let output = end_of(child);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("/dev/stdin: is a pipe"), "{}", stderr(&output));
}

#[test]
fn a_block_device_is_copied_to_its_end() {
    let home = folder();
    let data = random_bytes(3, 3 << 20);
    fs::write(home.path().join("image"), &data).unwrap();
    let made =
        Command::new("losetup").args(["-f", "--show"]).arg(home.path().join("image")).output();
    let Some(device) = made.ok().filter(|made| made.status.success()) else {
        eprintln!("skipped: this user or machine makes no loop devices");
        return;
    };
    let device = String::from_utf8(device.stdout).unwrap().trim().to_owned();
    let output = copy(home.path(), &[device.as_str(), "out"]);
    assert!(Command::new("losetup").args(["-d", &device]).status().unwrap().success());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(home.path().join("out")).unwrap() == data);
}

#[test]
fn an_empty_file_takes_the_same_way_as_every_other() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    fs::write(at("empty"), "").unwrap();
    let report = copied(home.path(), &["empty", "out"]);
    assert_eq!(
        (&report["bytes"], &report["error"]),
        (&0.into(), &serde_json::Value::Null),
        "{report}"
    );
    assert_eq!(fs::read(at("out")).unwrap(), b"");
    // The destination exists.
    let output = copy(home.path(), &["empty", "out"]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("--overwrite"), "{}", stderr(&output));
    // A link is replaced, and its target is unchanged.
    fs::write(at("target"), "precious").unwrap();
    symlink("target", at("link")).unwrap();
    copied(home.path(), &["empty", "link", "--overwrite", "--fsync"]);
    assert_eq!(fs::read(at("target")).unwrap(), b"precious");
    assert!(fs::symlink_metadata(at("link")).unwrap().is_file());
    // Without resumption, and to several hosts at once.
    copied(home.path(), &["empty", "other", "--no-resume"]);
    let everywhere = format!("b,c:{}", at("both").display());
    copied(home.path(), &["empty", &everywhere, "--launch", "local"]);
    assert_eq!(fs::metadata(at("both")).unwrap().len(), 0);
    let left: Vec<_> =
        fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.as_bytes().starts_with(b".")), "{left:?}");
}

#[test]
fn an_empty_file_does_not_leave_the_root_either() {
    let home = folder();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(home.path().join("outside"), "precious").unwrap();
    symlink("..", root.join("up")).unwrap();
    for destination in ["/up/outside", "/../outside", "/../new"] {
        let output = copy(home.path(), &["/empty", destination, "--overwrite", "--root", "root"]);
        assert_eq!(code(&output), 4, "{destination}: {}", stderr(&output));
    }
    assert_eq!(fs::read(home.path().join("outside")).unwrap(), b"precious");
    assert!(!home.path().join("new").exists());
}

#[test]
fn several_files_go_into_a_directory() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    let files =
        [("one", random_bytes(1, 3_000_001)), ("two", random_bytes(2, 77)), ("none", Vec::new())];
    files.iter().for_each(|(name, bytes)| fs::write(at(name), bytes).unwrap());
    fs::create_dir(at("d")).unwrap();
    fs::create_dir(at("e")).unwrap();
    for directory in ["d", "e/"] {
        let report = copied(home.path(), &["one", "two", "none", directory]);
        assert_eq!(report["bytes"], 3_000_078, "{report}");
        for (name, bytes) in &files {
            assert!(fs::read(at(directory).join(name)).unwrap() == *bytes, "{directory}/{name}");
        }
    }
    // All or none: one existing destination refuses the others before they move.
    fs::remove_file(at("d/two")).unwrap();
    let output = copy(home.path(), &["one", "two", "d"]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(!at("d/two").exists());
    copied(home.path(), &["one", "two", "d", "--overwrite"]);
}

#[test]
fn several_files_need_a_directory_and_names_of_their_own() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::create_dir(at("e")).unwrap();
    ["one", "two", "d/one"].iter().for_each(|name| fs::write(at(name), *name).unwrap());
    for (words, said) in [
        (&["one", "two", "out"][..], "one and two are two files, and out is no directory"),
        (&["one", "two", "one"], "is no directory"),
        (&["one", "d/one", "e"], "one and d/one would both become one"),
        (&["one", "one", "e"], "would both become one"),
        (&["d/one", "two", "d"], "d/one is both source and destination"),
    ] {
        let output = copy(home.path(), words);
        assert_eq!(code(&output), 2, "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("\n  try: "), "{words:?}: {}", stderr(&output));
        assert!(!at("out").exists() && fs::read_dir(at("e")).unwrap().next().is_none());
    }
    // Directories are never created.
    let output = copy(home.path(), &["one", "two", "new/"]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(!at("new").exists());
}

#[test]
fn several_files_that_were_interrupted_are_gone_on_with() {
    let home = folder();
    fs::create_dir(home.path().join("d")).unwrap();
    let files = [("one", random_bytes(1, 20 << 20)), ("two", random_bytes(2, 20 << 20))];
    files.iter().for_each(|(name, bytes)| fs::write(home.path().join(name), bytes).unwrap());
    let output = copy(home.path(), &["one", "two", "d", "--limit", "100M", "--timeout", "2s"]);
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert_eq!(stderr_of_fast(&output).matches("cep-fast: ").count(), 1, "{}", stderr(&output));
    assert!(!home.path().join("d/one").exists() || !home.path().join("d/two").exists());
    let report = copied(home.path(), &["one", "two", "d"]);
    assert!(report["resumed_bytes"].as_u64().unwrap() > 1 << 20, "{report}");
    for (name, bytes) in &files {
        assert!(fs::read(home.path().join("d").join(name)).unwrap() == *bytes, "{name}");
    }
}

#[test]
fn one_name_on_several_hosts_is_one_file_in_replicas() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    let data = random_bytes(9, 5_000_000);
    for name in ["a", "b"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("x"), &data).unwrap();
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let date = |name: &str, time| {
        fs::File::options().append(true).open(at(name)).unwrap().set_modified(time).unwrap();
    };
    date("a/x", time);
    date("b/x", time + Duration::from_millis(300));
    let (one, other) =
        (format!("h1:{}", at("a/x").display()), format!("h2:{}", at("b/x").display()));
    let words =
        |to: &str| [one.clone(), other.clone(), to.into(), "--launch".into(), "local".into()];
    let report = copied(home.path(), &words("out"));
    assert_eq!(report["nodes"].as_array().unwrap().len(), 3, "{report}");
    assert_eq!(report["warnings"], serde_json::json!([]), "{report}");
    assert!(fs::read(at("out")).unwrap() == data);

    date("b/x", time + Duration::from_secs(5));
    let report = copied(home.path(), &words("out2"));
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.contains("modified at different times"), "{report}");

    fs::write(at("b/x"), &data[1..]).unwrap();
    let output = copy(home.path(), &words("out3"));
    assert_eq!(code(&output), 6, "{}", stderr(&output));
    assert!(stderr(&output).contains("has 5000000 bytes and"), "{}", stderr(&output));
    assert!(!at("out3").exists());
}

#[test]
fn a_local_path_means_what_it_means_to_the_system() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("d/e")).unwrap();
    fs::create_dir_all(at("elsewhere/f")).unwrap();
    symlink(at("elsewhere/f"), at("d/link")).unwrap();
    fs::write(at("s"), "outer").unwrap();
    fs::write(at("d/s"), "inner").unwrap();
    fs::write(at("elsewhere/s"), "behind the link").unwrap();
    for (words, made, content) in [
        (["../s", "t"], "d/t", "outer"),
        (["s", "../t"], "t", "inner"),
        (["s", "e/../../u"], "u", "inner"),
        (["s", "e/.."], "", ""),
        (["../s", ".."], "", ""),
        (["./s", "e"], "d/e/s", "inner"),
        (["s", "link"], "elsewhere/f/s", "inner"),
        // Behind a link, `..` is the parent of the link's target, not that of the text.
        (["link/../s", "v"], "d/v", "behind the link"),
        (["s", "link/../w"], "elsewhere/w", "inner"),
    ] {
        let output = copy(&at("d"), &words);
        if made.is_empty() {
            assert_ne!(code(&output), 0, "{words:?}: there is one, or it is the source");
            continue;
        }
        assert_eq!(code(&output), 0, "{words:?}: {}", stderr(&output));
        assert_eq!(fs::read_to_string(at(made)).unwrap(), content, "{words:?}");
    }
    let output = copy(&at("d"), &["s", "missing/../x"]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("missing/../x: "), "{}", stderr(&output));
}

#[test]
fn a_name_is_any_bytes() {
    let home = folder();
    fs::create_dir(home.path().join("d")).unwrap();
    let names: [&[u8]; 8] = [
        b"./a:b",
        b"./-x",
        b"caf\xe9",
        b"\xff\xfe",
        b"100%",
        b"%41",
        b"line\nbreak\x1b[2J",
        "\u{202e}x".as_bytes(),
    ];
    for (at, name) in names.into_iter().enumerate() {
        let name = OsStr::from_bytes(name);
        let data = random_bytes(at as u64, 100_000);
        fs::write(home.path().join(name), &data).unwrap();
        copied(home.path(), &[name, OsStr::new("d")]);
        assert!(fs::read(home.path().join("d").join(name)).unwrap() == data, "{}", name.display());
        let mut other = name.to_os_string();
        other.push(".copy");
        copied(home.path(), &[name, &other]);
        assert!(fs::read(home.path().join(other)).unwrap() == data, "{}", name.display());
    }
    fs::write(home.path().join("-y"), "dash").unwrap();
    copied(home.path(), &["--", "-y", "-z"]);
    assert_eq!(fs::read(home.path().join("-z")).unwrap(), b"dash");
    let output = copy(home.path(), &["a:b", "d"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("write ./a:b for the file of that name here"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_long_name_is_copied_like_a_short_one() {
    let home = folder();
    let name = "x".repeat(255);
    fs::write(home.path().join(&name), "long").unwrap();
    let folder = "d".repeat(255);
    let deep = home.path().join((0..10).map(|_| folder.as_str()).collect::<Vec<_>>().join("/"));
    fs::create_dir_all(&deep).unwrap();
    let report = copied(home.path(), &[Path::new(&name), &deep]);
    assert!(report["transfer"].as_str().unwrap().len() <= 1024, "{report}");
    assert_eq!(fs::read(deep.join(&name)).unwrap(), b"long");
}

#[test]
fn names_do_not_move_the_cursor() {
    let home = folder();
    let hostile = "\u{1b}]0;owned\u{7}\r\n\u{9b}2J\u{202e}";
    let output = copy(home.path(), &[hostile, "out"]);
    let text = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 5, "{text}");
    let acts = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
    assert!(!text.chars().any(acts), "{text:?}");
    assert_eq!(text.lines().count(), 2, "{text:?}");
    fs::write(home.path().join("evil\u{1b}[2J"), "x").unwrap();
    for words in
        [&["evil\u{1b}[2J", "out"][..], &["evil\u{1b}[2J", "out2", "--json"], &["--bad\u{1b}[2J"]]
    {
        let output = copy(home.path(), words);
        let text = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(!text.chars().any(acts), "{text:?}");
    }
}

//! Replicas are compared before a byte moves: with real files, and with every node in a process of
//! its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use random::mix;
use support::{
    Daemon, code, complete, end_of, folder, json, listing, random_bytes, run_spec, stderr, wait_for,
};

const MIB: usize = 1 << 20;

/// Runs two writers of `one` and `other` and a reader of all of it.
fn run_two(root: &Path, one: &[u8], other: &[u8], more: &[&str]) -> Output {
    fs::write(root.join("one"), one).unwrap();
    fs::write(root.join("other"), other).unwrap();
    let last = one.len() - 1;
    let spec = format!(
        "id two\n\
         writer a:7001 file:///one 0 0-{last}\n\
         writer b:7001 file:///other 0 0-{last}\n\
         reader c:7001 file:///copy 0 0-{last}\n"
    );
    run_spec(root, &spec, more)
}

/// Checks that the replicas were found to differ before bytes moved, and that no file is left at
/// the destination.
fn check_refused(root: &Path, output: &Output) {
    assert_eq!(code(output), 6, "{}", stderr(output));
    let said = stderr(output);
    assert!(
        said.contains("a:7001 and b:7001 offer different bytes within ")
            && said.contains("replicas differ"),
        "{said}"
    );
    assert!(said.contains("compare the writers' files"), "{said}");
    let report = json(output);
    assert_eq!(
        (report["bytes"].as_u64(), report["error"]["code"].as_u64()),
        (Some(0), Some(6)),
        "{report}"
    );
    assert_eq!(
        listing(root),
        [root.join("one"), root.join("other")],
        "no file of the reader is there"
    );
}

#[test]
fn replicas_that_differ_in_half_of_their_bytes_are_refused_before_a_byte_moves() {
    let data = random_bytes(1, 24 * MIB);
    let half = data.len() / 2;
    let block = 4096;
    let random = |at: usize| mix(at as u64 / 4096).is_multiple_of(2);
    let halves: [(&str, &dyn Fn(usize) -> bool); 6] = [
        ("the first half", &|at| at < half),
        ("the second half", &|at| at >= half),
        ("a half in the middle", &|at| (half / 2..half / 2 + half).contains(&at)),
        ("every second byte", &|at| at % 2 == 0),
        ("every second block", &|at| at / block % 2 == 1),
        ("random blocks", &random),
    ];
    for (which, differs) in halves {
        let root = folder();
        let other: Vec<u8> =
            data.iter().enumerate().map(|(at, byte)| byte ^ u8::from(differs(at))).collect();
        let output = run_two(root.path(), &data, &other, &[]);
        assert_eq!(code(&output), 6, "{which}: {}", stderr(&output));
        check_refused(root.path(), &output);
    }
}

#[test]
fn one_block_of_a_thousand_is_found_where_all_of_the_replicas_are_compared() {
    let data = random_bytes(2, 1000 * 65_536);
    for block in [0, 1, 500, 998, 999] {
        let root = folder();
        let mut other = data.clone();
        other[block * 65_536 + 4711] ^= 1;
        let output = run_two(root.path(), &data, &other, &["--verify", "replicas"]);
        check_refused(root.path(), &output);
        // The reported range contains the byte, and is at most a sixty-fourth.
        let report = json(&output);
        let named = report["error"]["missing_ranges"][0].as_str().unwrap();
        let (start, end) = named.split_once('-').unwrap();
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        assert!(
            (start..=end).contains(&(block * 65_536 + 4711)) && end - start < data.len() / 64,
            "{named}"
        );
    }
}

#[test]
fn replicas_that_are_equal_complete_and_the_report_says_what_was_compared() {
    let root = folder();
    let data = random_bytes(3, 8 * MIB + 77);
    let sample = json(&run_two(root.path(), &data, &data, &[]));
    assert_eq!(
        sample["replicas"],
        serde_json::json!({"compared_bytes": MIB, "of_bytes": data.len(), "mode": "sample"})
    );
    for verify in
        [&["--verify", "disk,replicas"][..], &["--verify", "replicas", "--verify", "disk"]]
    {
        fs::remove_file(root.path().join("copy")).unwrap();
        let all = json(&run_two(root.path(), &data, &data, verify));
        let bytes = data.len();
        let expected =
            serde_json::json!({"compared_bytes": bytes, "of_bytes": bytes, "mode": "all"});
        assert_eq!((&all["replicas"], all["state"].as_str()), (&expected, Some("complete")));
        assert!(fs::read(root.path().join("copy")).unwrap() == data);
    }
}

#[test]
fn one_source_is_compared_with_nothing() {
    let root = folder();
    fs::write(root.path().join("x"), [7; 1000]).unwrap();
    let spec = "id one\nwriter a:7001 file:///x 0 0-999\nreader b:7001 null: 0 0-999\n";
    for verify in [&[][..], &["--verify", "replicas"]] {
        assert!(complete(root.path(), spec, verify)["replicas"].is_null());
    }
}

#[test]
fn a_hole_is_equal_to_zeros_that_are_written() {
    let root = folder();
    let mut data = random_bytes(4, 6 * MIB);
    data[MIB..4 * MIB].fill(0);
    let sparse = File::create(root.path().join("sparse")).unwrap();
    sparse.set_len(data.len() as u64).unwrap();
    sparse.write_all_at(&data[..MIB], 0).unwrap();
    sparse.write_all_at(&data[4 * MIB..], 4 * MIB as u64).unwrap();
    fs::write(root.path().join("full"), &data).unwrap();
    let last = data.len() - 1;
    let spec = |to: &str| {
        format!(
            "id hole\n\
             writer a:7001 file:///full 0 0-{last}\n\
             writer b:7001 file:///sparse 0 0-{last}\n\
             reader c:7001 file:///{to} 0 0-{last}\n"
        )
    };
    complete(root.path(), &spec("sample"), &[]);
    let all = complete(root.path(), &spec("all"), &["--verify", "replicas"]);
    assert_eq!(all["replicas"]["compared_bytes"], data.len());
    assert!(fs::read(root.path().join("all")).unwrap() == data);
    // One byte in a range that is a hole in the other replica.
    data[2 * MIB + 5] = 1;
    fs::write(root.path().join("full"), &data).unwrap();
    let output = run_spec(root.path(), &spec("other"), &["--verify", "replicas"]);
    assert_eq!(code(&output), 6, "{}", stderr(&output));
}

#[test]
fn parts_of_replicas_are_compared_where_they_overlap() {
    let root = folder();
    let data = random_bytes(5, 3_000_000);
    let (front, mut back) = (&data[..2_000_000], data[1_000_000..].to_vec());
    fs::write(root.path().join("front"), front).unwrap();
    let spec = "id parts\n\
                writer a:7001 file:///front 0 0-1999999\n\
                writer b:7001 file:///back 0 1000000-2999999\n\
                reader c:7001 file:///copy 0 0-2999999\n";
    for at in [0, 500_000, 999_999] {
        let mut back = back.clone();
        back[at] ^= 1;
        fs::write(root.path().join("back"), back).unwrap();
        let output = run_spec(root.path(), spec, &[]);
        assert_eq!(code(&output), 6, "at {at}: {}", stderr(&output));
    }
    // Bytes that only one of them offers are not compared.
    back[1_000_000] ^= 1;
    fs::write(root.path().join("back"), &back).unwrap();
    let report = complete(root.path(), spec, &[]);
    assert_eq!(report["replicas"]["of_bytes"], 1_000_000);
}

#[test]
fn two_rows_of_one_node_and_two_patterns_are_compared() {
    let root = folder();
    fs::write(root.path().join("x"), [7; 1000]).unwrap();
    fs::write(root.path().join("y"), [8; 1000]).unwrap();
    for writers in [
        "writer a:7001 file:///x 0 0-999\nwriter a:7001 file:///y 0 0-999\n",
        "writer a:7001 file:///x 0 0-499\n\
         writer a:7001 file:///x 0 500-999\n\
         writer a:7001 file:///y 0 250-749\n",
        "writer a:7001 pattern:7 0 0-999\nwriter b:7001 pattern:8 0 0-999\n",
        "writer a:7001 file:///x 0 0-999\nwriter b:7001 pattern:8 0 0-999\n",
    ] {
        let output =
            run_spec(root.path(), &format!("id rows\n{writers}reader c:7001 null: 0 0-999\n"), &[]);
        assert_eq!(code(&output), 6, "{writers}: {}", stderr(&output));
        assert!(stderr(&output).contains("the replicas differ"), "{}", stderr(&output));
    }
}

#[test]
fn the_third_of_three_replicas_is_compared_too() {
    let root = folder();
    let mut data = random_bytes(6, 500_000);
    fs::write(root.path().join("x"), &data).unwrap();
    data[250_000] ^= 1;
    fs::write(root.path().join("y"), &data).unwrap();
    let writers: String =
        "abcd".chars().map(|host| format!("writer {host}:7001 file:///x 0 0-499999\n")).collect();
    let spec = format!(
        "id many\n{writers}writer e:7001 file:///y 0 0-499999\nreader r:7001 null: 0 0-499999\n"
    );
    let output = run_spec(root.path(), &spec, &[]);
    assert_eq!(code(&output), 6, "{}", stderr(&output));
    assert!(stderr(&output).contains("e:7001 offer different bytes within"), "{}", stderr(&output));
}

/// A terabyte that is one hole on one side, and a hole with a different end on the other: comparing
/// all of it takes long enough to be cancelled, and ends at once.
#[test]
fn a_comparison_is_cancelled_in_the_middle() {
    use std::process::Stdio;
    let root = folder();
    let bytes: u64 = 1 << 36;
    let writers: Vec<Daemon> = ["x", "y"]
        .iter()
        .map(|name| {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            let file = File::create(folder.join("data")).unwrap();
            file.set_len(bytes).unwrap();
            // More pieces than the limit of reported holes, so that most of the file is read.
            (0..5000_u64).for_each(|at| file.write_all_at(&[1], at * (bytes / 5000)).unwrap());
            Daemon::start(&folder, &[])
        })
        .collect();
    let reader = Daemon::start(root.path(), &[]);
    let spec = format!(
        "id long\n\
         master 127.0.0.1:0\n\
         writer {} file:///data 0 0-{2}\n\
         writer {} file:///data 0 0-{2}\n\
         reader {3} file:///copy 0 0-{2}\n",
        writers[0].address,
        writers[1].address,
        bytes - 1,
        reader.address
    );
    fs::write(root.path().join("spec"), spec).unwrap();
    let mut command = support::cep_fast(&["run", "--json", "--verify", "replicas"]);
    command.arg(root.path().join("spec")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let is_reading = |daemon: &Daemon| {
        let counts = fs::read_to_string(format!("/proc/{}/io", daemon.pid())).unwrap();
        let read = counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        read.parse::<u64>().unwrap() > 100 << 20
    };
    wait_for("the comparison", || writers.iter().all(is_reading));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = end_of(child);
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    let is_copy =
        |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().contains("copy");
    assert!(!listing(root.path()).iter().any(is_copy), "nothing is left");
    // The daemons still work.
    let spec = format!(
        "id short\n\
         writer {} file:///data 0 0-99999\n\
         writer {} file:///data 0 0-99999\n\
         reader {} null: 0 0-99999\n",
        writers[0].address, writers[1].address, reader.address
    );
    fs::write(root.path().join("spec"), spec).unwrap();
    let output = support::run(support::cep_fast(&["run", "--json"]).arg(root.path().join("spec")));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// Regression: half of the file was lost with status 0, because each node renamed its own part to
/// the whole name.
#[test]
fn one_file_under_two_names_on_two_nodes_is_refused_before_a_byte_moves() {
    use std::os::unix::fs::symlink;
    let root = folder();
    let data = random_bytes(8, 100_000);
    fs::write(root.path().join("x"), &data).unwrap();
    for name in ["d", "d/deep", "other"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    symlink("d", root.path().join("l")).unwrap();
    symlink("deep", root.path().join("d/way")).unwrap();
    let spec = |readers: &str| format!("id names\nwriter a:7001 file:///x 0 0-99999\n{readers}");
    for (one, other) in
        [("d/y", "l/y"), ("l/y", "d/y"), ("d/deep/y", "l/way/y"), ("d/y", "d/deep/../y")]
    {
        let readers = format!(
            "reader b:7001 file:///{one} 0 0-49999\n\
             reader c:7001 file:///{other} 50000 50000-99999\n"
        );
        let output = run_spec(root.path(), &spec(&readers), &["--overwrite"]);
        let said = stderr(&output);
        // A path with `..` is refused for another reason.
        let expected = if other.contains("..") { 4 } else { 2 };
        assert_eq!(code(&output), expected, "{one} and {other}: {said}");
        let names_both =
            said.contains(&format!("file:///{one}")) && said.contains(&format!("file:///{other}"));
        assert!(expected == 4 || names_both, "{said}");
        assert_eq!(json(&output)["bytes"], 0);
        assert_eq!(
            listing(&root.path().join("d")).len(),
            2,
            "nothing is left: {:?}",
            listing(root.path())
        );
    }
    // A path in another spelling is the same path: both write one file.
    let readers =
        "reader b:7001 file:///d/z 0 0-49999\nreader c:7001 file:///./d//z 50000 50000-99999\n";
    complete(root.path(), &spec(readers), &[]);
    assert!(fs::read(root.path().join("d/z")).unwrap() == data);
    // Three names of two files.
    let readers = "reader b:7001 file:///other/y 0 0-99999\n\
                   reader c:7001 file:///l/y 0 0-99999\n\
                   reader e:7001 file:///d/y 0 0-99999\n";
    assert_eq!(code(&run_spec(root.path(), &spec(readers), &[])), 2);
    // Two files with one base name are different files.
    let readers = "reader b:7001 file:///d/y 0 0-99999\nreader c:7001 file:///other/y 0 0-99999\n";
    complete(root.path(), &spec(readers), &[]);
    for name in ["d/y", "other/y"] {
        assert!(fs::read(root.path().join(name)).unwrap() == data);
    }
    assert!(support::beside(root.path(), "").is_empty(), "no claim is left");
}

#[test]
fn one_file_below_two_roots_is_refused_before_a_byte_moves() {
    let root = folder();
    fs::create_dir(root.path().join("d")).unwrap();
    fs::write(root.path().join("x"), [7; 1000]).unwrap();
    let (whole, part) =
        (Daemon::start(root.path(), &[]), Daemon::start(&root.path().join("d"), &[]));
    let spec = format!(
        "id roots\n\
         writer {0} file:///x 0 0-999\n\
         reader {0} file:///d/y 0 0-499\n\
         reader {1} file:///y 500 500-999\n",
        whole.address, part.address
    );
    fs::write(root.path().join("spec"), spec).unwrap();
    let output = support::run(support::cep_fast(&["run", "--json"]).arg(root.path().join("spec")));
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(listing(&root.path().join("d")).is_empty(), "nothing is left");
}

/// Regression: both mixtures had their final names with status 6.
#[test]
fn readers_that_received_other_bytes_keep_no_file_and_nothing_that_a_later_run_would_believe() {
    let root = folder();
    let data = random_bytes(9, 4 * MIB);
    let mut other = data.clone();
    other[3 * MIB + 12_345] ^= 1;
    fs::write(root.path().join("one"), &data).unwrap();
    fs::write(root.path().join("other"), &other).unwrap();
    let last = data.len() - 1;
    // Each reader takes its local bytes from itself, and both want the same range. A sample may
    // miss the one byte.
    let spec = |writers: &str| {
        format!(
            "id both\n\
             {writers}reader b:7001 file:///copy-b 0 0-{last}\n\
             reader c:7001 file:///copy-c 0 0-{last}\n"
        )
    };
    let (b, c) = (
        format!("writer b:7001 file:///one 0 0-{last}\n"),
        format!("writer c:7001 file:///other 0 0-{last}\n"),
    );
    for _ in 0..5 {
        let output = run_spec(root.path(), &spec(&format!("{b}{c}")), &[]);
        assert_eq!(code(&output), 6, "{}", stderr(&output));
        assert!(stderr(&output).contains("the replicas differ"), "{}", stderr(&output));
        assert_eq!(
            listing(root.path()),
            [root.path().join("one"), root.path().join("other")],
            "nothing is left"
        );
    }
    complete(root.path(), &spec(&b), &[]);
    for copy in ["copy-b", "copy-c"] {
        assert!(fs::read(root.path().join(copy)).unwrap() == data);
        fs::remove_file(root.path().join(copy)).unwrap();
    }
    // Equal replicas: both files are renamed.
    fs::write(root.path().join("other"), &data).unwrap();
    complete(root.path(), &spec(&format!("{b}{c}")), &[]);
    assert!(
        ["copy-b", "copy-c"].iter().all(|copy| fs::read(root.path().join(copy)).unwrap() == data)
    );
    assert!(support::beside(root.path(), "").is_empty(), "nothing lies beside them");
}

/// Regression: the second node created the object again, and the first one's bytes were lost with
/// status 0.
#[test]
fn one_object_in_memory_that_two_nodes_of_a_machine_write_is_refused() {
    let root = folder();
    fs::write(root.path().join("x"), [7; 1000]).unwrap();
    let name = format!("cep-replicas-{}", std::process::id());
    let spec = format!(
        "id memory\n\
         writer a:7001 file:///x 0 0-999\n\
         reader b:7001 mem:{name} 0 0-499\n\
         reader c:7001 mem:{name} 500 500-999\n"
    );
    let output = run_spec(root.path(), &spec, &["--overwrite"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(
        stderr(&output).contains(&format!("mem:{name} is the object that ")),
        "{}",
        stderr(&output)
    );
    let left = fs::read_dir("/dev/shm").unwrap().filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains(&name))
    });
    assert_eq!(left.count(), 0, "nothing is left");
}

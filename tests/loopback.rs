//! Transfers of real files over real sockets, with every node a process of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use random::SplitMix;
use support::{
    Daemon, code, complete, folder, folder_in_memory, json, listing, pattern, random_bytes, run,
    run_spec, stderr,
};

const FIGURE_2: &str = include_str!("../docs/examples/figure2.spec");

/// Figure 2 needs its port 55555 for itself.
static FIGURE_2_PORT: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn figure_2(root: &Path) {
    let _port = FIGURE_2_PORT.lock().unwrap();
    let data = random_bytes(2, 4096);
    fs::create_dir_all(root.join("data")).unwrap();
    fs::create_dir_all(root.join("tmp")).unwrap();
    fs::write(root.join("data/half1"), &data[..2048]).unwrap();
    fs::write(root.join("data/half2"), &data[2048..]).unwrap();
    let report = complete(root, FIGURE_2, &[]);
    assert_eq!(report["bytes"], 8192);
    assert_eq!(
        fs::read(root.join("tmp/copy1")).unwrap(),
        data,
        "node5 and node7 share it on one machine"
    );
    assert_eq!(fs::read(root.join("tmp/copy2")).unwrap(), data);
    assert_eq!(listing(&root.join("tmp")).len(), 2, "nothing is left beside them");
}

#[test]
fn figure_2_runs_as_printed_on_a_disk() {
    figure_2(folder().path());
}

#[test]
fn figure_2_runs_as_printed_in_memory() {
    figure_2(folder_in_memory().path());
}

/// Writes random rows over a data space of `bytes` bytes from `start` on: overlapping replicas in
/// several files at odd offsets, and readers of odd, overlapping parts, some of them two to a node.
fn random_rows(root: &Path, seed: u64, start: u64, bytes: usize) {
    let mut random = SplitMix::new(seed);
    let data = random_bytes(seed, bytes);
    let last = bytes as u64 - 1;
    let mut spec = format!("id \"random {seed}\"\noption block 65536\n");
    // One writer has everything, so that every wanted byte is offered.
    let mut offers = vec![(0, last)];
    for _ in 0..4 {
        let from = random.below(last);
        offers.push((from, from + random.below(last - from + 1)));
    }
    for (index, &(from, to)) in offers.iter().enumerate() {
        let offset = random.below(10_000) as usize;
        let mut content = vec![0xee; offset];
        content.extend(&data[from as usize..=to as usize]);
        content.extend([0xdd; 77]);
        fs::write(root.join(format!("source{index}")), content).unwrap();
        let node = index % 4;
        let (from, to) = (start + from, start + to);
        spec +=
            &format!("writer w{node}:500{node} \"file:///source{index}\" {offset} {from}-{to}\n");
    }
    let mut wants = Vec::new();
    for index in 0..5_u64 {
        let from = random.below(last);
        let to = from + random.below(last - from + 1);
        let (offset, node) = (random.below(9000), index % 3);
        spec += &format!(
            "reader r{node}:600{node} file:///copy{index} {offset} {}-{}\n",
            start + from,
            start + to
        );
        wants.push((index, offset as usize, from as usize, to as usize));
    }
    complete(root, &spec, &[]);
    for (index, offset, from, to) in wants {
        let copy = fs::read(root.join(format!("copy{index}"))).unwrap();
        assert_eq!(copy.len(), offset + to - from + 1, "seed {seed}, copy {index}\n{spec}");
        assert!(
            copy[..offset].iter().all(|byte| *byte == 0),
            "seed {seed}, copy {index}: before its offset"
        );
        assert!(copy[offset..] == data[from..=to], "seed {seed}, copy {index} differs\n{spec}");
    }
}

#[test]
fn random_rows_give_every_reader_its_bytes_on_a_disk() {
    for seed in 0..6 {
        random_rows(folder().path(), seed, 0, 1_500_000 + 4099 * seed as usize);
    }
}

#[test]
fn random_rows_give_every_reader_its_bytes_in_memory() {
    for seed in 10..16 {
        random_rows(folder_in_memory().path(), seed, 0, 1_200_000 + 1021 * seed as usize);
    }
}

#[test]
fn a_data_space_need_not_start_at_zero() {
    for (seed, start) in [(20, 1), (21, 4097), (22, (1 << 40) + 12_345)] {
        random_rows(folder().path(), seed, start, 900_001);
    }
}

#[test]
fn a_pattern_goes_to_files_and_to_nothing() {
    let root = folder();
    let report = complete(
        root.path(),
        "id p\n\
         writer a:7001 pattern:42 0 1000-5000999\n\
         reader b:7001 null: 0 1000-5000999\n\
         reader c:7001 file:///x 0 1000-5000999\n",
        &[],
    );
    assert_eq!(fs::read(root.path().join("x")).unwrap(), pattern(42, 1000, 5_000_000));
    assert_eq!(report["bytes"], 10_000_000);
}

#[test]
fn shared_memory_is_a_source_and_a_destination() {
    let root = folder();
    let (from, to) = (
        format!("cepfast-test-{}-a", std::process::id()),
        format!("cepfast-test-{}-b", std::process::id()),
    );
    let data = random_bytes(5, 3_000_001);
    fs::write(format!("/dev/shm/{from}"), &data).unwrap();
    let spec =
        format!("id m\nwriter a:7001 mem:{from} 0 0-3000000\nreader b:7001 mem:{to} 0 0-3000000\n");
    complete(root.path(), &spec, &[]);
    let copy = fs::read(format!("/dev/shm/{to}")).unwrap();
    for name in [from, to] {
        fs::remove_file(format!("/dev/shm/{name}")).unwrap();
    }
    assert!(copy == data);
}

#[test]
fn holes_stay_holes() {
    let root = folder();
    let source = fs::File::create(root.path().join("sparse")).unwrap();
    source.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&source, &random_bytes(1, 300_000), 10_000_000)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&source, b"end", (64 << 20) - 3).unwrap();
    let spec = format!(
        "id s\nwriter a:7001 file:///sparse 0 0-{0}\nreader b:7001 file:///copy 0 0-{0}\n",
        (64 << 20) - 1
    );
    let report = complete(root.path(), &spec, &[]);
    let copy = fs::metadata(root.path().join("copy")).unwrap();
    assert!(copy.blocks() * 512 < 2 << 20, "{} bytes on the disk", copy.blocks() * 512);
    let bytes = fs::read(root.path().join("sparse")).unwrap();
    assert!(fs::read(root.path().join("copy")).unwrap() == bytes);
    assert_eq!(
        report["digest"],
        format!("{:016x}", crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes))
    );
}

#[test]
fn digests_are_those_of_the_whole_object() {
    let root = folder();
    let data = random_bytes(9, 2_345_678);
    fs::write(root.path().join("x"), &data).unwrap();
    let spec = "id d\noption block 65536\nwriter a:7001 file:///x 0 0-2345677\n\
                reader b:7001 null: 0 0-1310719\nreader c:7001 null: 0 1310720-2345677\n";
    let digest = |check: &str| complete(root.path(), spec, &["--check", check])["digest"].clone();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &data);
    assert_eq!(digest("crc64"), format!("{crc:016x}"));
    assert_eq!(digest("blake3"), blake3::hash(&data).to_hex().to_string());
    assert_eq!(digest("none"), serde_json::Value::Null);
}

#[test]
fn replicas_that_differ_are_noticed() {
    let root = folder();
    let mut data = random_bytes(9, 100_000);
    fs::write(root.path().join("x"), &data).unwrap();
    data[77_777] ^= 1;
    fs::write(root.path().join("y"), &data).unwrap();
    // Each reader has the one copy that the other lacks, and both want the same range.
    let spec = "id d\nwriter b:7001 file:///x 0 0-99999\nwriter c:7001 file:///y 0 0-99999\n\
                reader b:7001 null: 0 0-99999\nreader c:7001 null: 0 0-99999\n";
    let output = run_spec(root.path(), spec, &[]);
    assert_eq!(code(&output), 6, "{}", stderr(&output));
    assert!(stderr(&output).contains("replicas differ"), "{}", stderr(&output));
}

#[test]
fn a_node_that_holds_what_it_wants_gets_it_from_itself() {
    let root = folder();
    let data = random_bytes(3, 700_001);
    fs::write(root.path().join("x"), &data).unwrap();
    let spec = "id self\n\
                option block 65536\n\
                writer a:7001 file:///x 0 0-700000\n\
                reader a:7001 file:///y 5 0-700000\n";
    complete(root.path(), spec, &[]);
    assert!(fs::read(root.path().join("y")).unwrap()[5..] == data);
}

#[test]
fn two_files_of_one_reader_may_want_the_same_bytes() {
    let root = folder();
    let data = random_bytes(4, 500_000);
    fs::write(root.path().join("x"), &data).unwrap();
    let spec = "id two\noption block 65536\nwriter a:7001 file:///x 0 0-499999\n\
                reader b:7001 file:///y 0 0-399999\nreader b:7001 file:///z 13 100000-499999\n";
    complete(root.path(), spec, &[]);
    assert!(fs::read(root.path().join("y")).unwrap() == data[..400_000]);
    assert!(fs::read(root.path().join("z")).unwrap()[13..] == data[100_000..]);
}

#[test]
fn without_io_uring_the_bytes_are_the_same() {
    let root = folder();
    let data = random_bytes(6, 2_000_003);
    fs::write(root.path().join("x"), &data).unwrap();
    let spec = root.path().join("spec");
    fs::write(
        &spec,
        "id u\n\
         option block 65536\n\
         writer a:7001 file:///x 0 0-2000002\n\
         reader b:7001 file:///y 3 0-2000002\n",
    )
    .unwrap();
    let mut command =
        support::cep_fast(&["run", "--launch", "local", "--progress", "never", "--root"]);
    let output = run(command.arg(root.path()).arg(&spec).env("CEP_FAST_IO", "plain"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("plain calls"), "it says so: {}", stderr(&output));
    assert!(fs::read(root.path().join("y")).unwrap()[3..] == data);
}

#[test]
fn few_slots_and_fsync_change_nothing_but_speed() {
    let root = folder();
    let data = random_bytes(8, 5_000_000);
    fs::write(root.path().join("x"), &data).unwrap();
    let spec = "id few\nwriter a:7001 file:///x 0 0-4999999\nreader b:7001 file:///y 0 0-4999999\n";
    let report = complete(root.path(), spec, &["--slots", "4", "--fsync"]);
    assert!(fs::read(root.path().join("y")).unwrap() == data);
    for node in report["nodes"].as_array().unwrap() {
        assert!(node["memory_bytes_max"].as_u64().unwrap() < 64 << 20, "{node}");
    }
}

/// Four copies of one file: the readers feed each other, and every copy is right.
#[test]
fn readers_of_the_same_bytes_feed_each_other() {
    let root = folder();
    let data = random_bytes(11, 40 << 20);
    fs::write(root.path().join("source"), &data).unwrap();
    let last = data.len() - 1;
    let mut spec = format!("id \"copies\"\nwriter w:5000 file:///source 0 0-{last} speed=1G\n");
    for copy in 1..=4 {
        spec +=
            &format!("reader r{copy}:600{copy} file:///copy{copy} {copy}00 0-{last} speed=1G\n");
    }
    for path in ["auto", "direct", "copy", "zerocopy"] {
        let report = complete(root.path(), &spec, &["--overwrite", "--path", path]);
        for copy in 1..=4 {
            let bytes = fs::read(root.path().join(format!("copy{copy}"))).unwrap();
            assert!(bytes[copy * 100..] == data, "copy {copy} by {path} differs");
        }
        let sent = |node: &serde_json::Value| node["bytes_sent"].as_u64().unwrap();
        let nodes = report["nodes"].as_array().unwrap();
        let all: u64 = nodes.iter().map(sent).sum();
        assert!(all >= 4 * data.len() as u64, "{path}: {report}");
        assert!(sent(&nodes[0]) < all / 2, "{path}: the writer sends one copy, not four: {report}");
        assert!(
            nodes[1..].iter().all(|node| sent(node) > 0),
            "{path}: every reader feeds others: {report}"
        );
    }
}

#[test]
fn copy_copies_like_cp() {
    let root = folder();
    let path = |name: &str| root.path().join(name).display().to_string();
    let data = random_bytes(7, 1_234_567);
    fs::write(path("a"), &data).unwrap();
    fs::create_dir(path("dir")).unwrap();
    let copy = |args: &[&str]| run(support::cep_fast(&["copy", "--progress", "never"]).args(args));
    for (to, found) in [(path("b"), path("b")), (path("dir"), path("dir/a"))] {
        let output = copy(&[&path("a"), &to]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(fs::read(found).unwrap() == data);
    }
    let output = copy(&[&path("a"), &path("b")]);
    assert_eq!(code(&output), 5, "it exists: {}", stderr(&output));
    assert!(stderr(&output).contains("--overwrite"), "{}", stderr(&output));
    assert_eq!(code(&copy(&[&path("a"), &path("b"), "--overwrite"])), 0);
    fs::write(path("empty"), "").unwrap();
    assert_eq!(code(&copy(&[&path("empty"), &path("nothing")])), 0);
    assert_eq!(fs::read(path("nothing")).unwrap(), b"");
    assert_eq!(code(&copy(&[&path("a"), &path("a"), "--overwrite"])), 2);
}

#[test]
fn replicas_on_named_hosts_are_copied_to_several() {
    let root = folder();
    let data = random_bytes(17, 3_000_000);
    fs::write(root.path().join("x"), &data).unwrap();
    let mut command = support::cep_fast(&["copy", "--launch", "local", "--json", "--root"]);
    let output =
        run(command.arg(root.path()).args(["dtn[01-02]:/x", "h3:/y", "--progress", "never"]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["nodes"].as_array().unwrap().len(), 3);
    assert!(fs::read(root.path().join("y")).unwrap() == data);
}

#[test]
fn the_report_has_every_field_of_the_contract() {
    let root = folder();
    let report = complete(
        root.path(),
        "id r\nwriter a:7001 pattern:1 0 0-99999\nreader b:7001 null: 0 0-99999\n",
        &[],
    );
    for field in ["transfer", "state", "scheduler", "check", "digest", "bottleneck"] {
        assert!(report[field].is_string(), "{field}: {report}");
    }
    for field in ["bytes", "resumed_bytes", "wasted_bytes", "stolen_bytes", "retries"] {
        assert!(report[field].is_u64(), "{field}: {report}");
    }
    for field in ["seconds", "wall_seconds", "gbit_per_s", "bound_seconds"] {
        assert!(report[field].is_f64(), "{field}: {report}");
    }
    let phases = report["phases"].as_object().unwrap();
    let whole: f64 = phases.values().map(|part| part.as_f64().unwrap()).sum();
    let wall = report["wall_seconds"].as_f64().unwrap();
    assert!((whole - wall).abs() <= 1e-6 * wall, "{report}");
    assert!(report["error"].is_null());
    let node = &report["nodes"][0];
    assert_eq!((node["name"].as_str(), node["role"].as_str()), (Some("a:7001"), Some("sender")));
    assert_eq!(node["bytes_sent"], 100_000);
    assert!(node["cpu_seconds"].is_f64() && node["memory_bytes_max"].as_u64().unwrap() > 0);
    assert_eq!(node["rails"][0]["nic"], "lo");
}

#[test]
fn a_limit_is_kept_by_all_receivers_together() {
    let root = folder();
    // 48 MiB for one and 16 MiB for the other, at 160 Mbit/s: 3.4 s.
    let (all, part) = ((48 << 20) - 1, (16 << 20) - 1);
    let readers = format!("reader b:7001 null: 0 0-{all}\nreader c:7001 null: 0 0-{part}\n");
    let spec = format!(
        "id l\nwriter a:7001 pattern:1 0 0-{all}\nwriter d:7001 pattern:1 0 0-{all}\n{readers}"
    );
    let report = complete(root.path(), &spec, &["--limit", "160M"]);
    assert!(report["gbit_per_s"].as_f64().unwrap() <= 0.160 * 1.05, "{report}");
    let output = run_spec(root.path(), &spec, &["--limit", "100K"]);
    assert_eq!(code(&output), 2, "it would count as stalled");
    assert!(stderr(&output).contains("--stall-timeout"), "{}", stderr(&output));
}

#[test]
fn a_plan_is_printed_and_nothing_is_contacted() {
    let root = folder();
    let spec = root.path().join("s");
    fs::write(
        &spec,
        "id p\n\
         writer no-such-host:7001 file:///x 0 0-999 speed=1G\n\
         reader neither:7001 null: 0 0-999 speed=1G\n",
    )
    .unwrap();
    let output = run(support::cep_fast(&["plan"]).arg(&spec));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for word in ["0-999", "no-such-host:7001 100%", "neither:7001", "bound"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_group_of_readers_takes_each_byte_once() {
    let root = folder();
    let bytes: u64 = 8 << 20;
    let rows = |uri: [&str; 3]| {
        let mut spec = String::from(
            "id group\nwriter a:7001 pattern:9 0 0-8388607\nwriter b:7001 pattern:9 0 0-8388607\n",
        );
        for (node, uri) in ["c", "d", "e"].into_iter().zip(uri) {
            spec += &format!("reader {node}:7001 {uri} 0 0-8388607 group=readers\n");
        }
        spec
    };
    for scheduler in ["greedy", "lp", "uniform"] {
        let shared = format!("file:///shared-{scheduler}");
        let report = complete(root.path(), &rows([&shared; 3]), &["--scheduler", scheduler]);
        assert_eq!((&report["bytes"], &report["scheduler"]), (&bytes.into(), &scheduler.into()));
        assert!(report["digest"].is_string(), "{report}");
        assert!(
            fs::read(root.path().join(format!("shared-{scheduler}"))).unwrap()
                == pattern(9, 0, bytes)
        );
    }
    // In separate files the members' parts are disjoint, and all other ranges are holes.
    let report = complete(root.path(), &rows(["file:///c", "file:///d", "file:///e"]), &[]);
    assert_eq!(report["bytes"], bytes);
    let files = ["c", "d", "e"].map(|name| fs::read(root.path().join(name)).unwrap());
    let expected = pattern(9, 0, bytes);
    for page in 0..(bytes / 4096) as usize {
        let range = page * 4096..(page + 1) * 4096;
        let have =
            files.iter().filter(|file| file[range.clone()] == expected[range.clone()]).count();
        assert_eq!(have, 1, "page {page}");
    }
    let blocks: u64 = ["c", "d", "e"]
        .map(|name| fs::metadata(root.path().join(name)).unwrap().blocks())
        .iter()
        .sum();
    assert!(blocks * 512 < bytes * 3 / 2, "{blocks} blocks of room for {bytes} bytes");
}

#[test]
fn a_plan_is_one_object_of_json() {
    let root = folder();
    let spec = root.path().join("spec");
    let text = "id x\n\
                option store fs 8G\n\
                writer a:7001 pattern:1 0 0-999 speed=16G store=fs\n\
                writer b:7001 pattern:1 0 0-999 speed=16G store=fs\n\
                reader c:7001 null: 0 0-999 speed=100G\n";
    fs::write(&spec, text).unwrap();
    for scheduler in ["greedy", "lp", "uniform"] {
        let spec = spec.to_str().unwrap();
        let plan =
            json(&run(&mut support::cep_fast(&["plan", spec, "--scheduler", scheduler, "--json"])));
        let told =
            ["scheduler", "bytes", "bottleneck", "speeds_assumed"].map(|field| plan[field].clone());
        let expected: [serde_json::Value; 4] =
            [scheduler.into(), 1000.into(), "reading store fs".into(), false.into()];
        assert_eq!(told, expected, "{plan}");
        // The store's limit holds in any case. Of equally fast plans lp makes any, the others the
        // even one.
        if scheduler != "lp" {
            assert_eq!(plan["segments"][0]["senders"][0]["weight"], 0.5, "{plan}");
        }
        let weights = plan["segments"][0]["senders"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["weight"].as_f64().unwrap());
        assert!((weights.sum::<f64>() - 1.0).abs() < 1e-9, "{plan}");
        assert!((plan["bound_seconds"].as_f64().unwrap() - 1e-6).abs() < 1e-12, "{plan}");
    }
}

#[test]
fn two_threads_of_one_nic_move_real_bytes_and_count_as_one_nic() {
    let root = folder();
    let data = random_bytes(12, 40_000_003);
    fs::write(root.path().join("x"), &data).unwrap();
    let two = ["--threads-per-nic", "2"];
    let (from, to) = (Daemon::start(root.path(), &two), Daemon::start(root.path(), &two));
    let spec = root.path().join("spec");
    let rows = |source: &str, sink: &str, last: u64| {
        let (from, to) = (&from.address, &to.address);
        fs::write(
            &spec,
            format!("id two\nwriter {from} {source} 0 0-{last}\nreader {to} {sink} 0 0-{last}\n"),
        )
        .unwrap();
    };
    rows("file:///x", "file:///y", 40_000_002);
    let output = run(support::cep_fast(&["run", "--json", "--progress", "never"]).arg(&spec));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(root.path().join("y")).unwrap() == data);
    for node in json(&output)["nodes"].as_array().unwrap() {
        let [rail] = &node["rails"].as_array().unwrap()[..] else {
            panic!("one NIC is one entry: {node}")
        };
        assert_eq!((&rail["nic"], &rail["threads"]), (&"lo".into(), &2.into()));
        let moved = rail["bytes_sent"].as_u64().unwrap() + rail["bytes_received"].as_u64().unwrap();
        assert!(moved >= 40_000_003, "all of it is in the one entry: {node}");
    }

    // An endless transfer, until both threads of both nodes have been seen at work.
    rows("pattern:1", "null:", (1 << 42) - 1);
    let nodes = [&from, &to].map(|node| (node.pid(), rail_ticks(node.pid())));
    let busy = || nodes.each_ref().map(|(pid, before)| busy_rails(*pid, before));
    let mut endless = support::cep_fast(&["run", "--progress", "never"]);
    let child = endless
        .arg(&spec)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while busy().iter().any(|threads| *threads < 2) {
        assert!(Instant::now() < deadline, "{:?} threads at work", busy());
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(code(&support::end_of(child)), 130);
}

/// Returns the ticks of 10 ms that each rail thread of process `pid` has worked, by its number.
fn rail_ticks(pid: u32) -> BTreeMap<String, u64> {
    let ticks = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (head, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // The 14th and 15th field of all: user and system mode.
        let ticks: u64 = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        head.ends_with("(rail").then(|| (task.file_name().to_string_lossy().into_owned(), ticks))
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().filter_map(ticks).collect()
}

/// Returns the number of rail threads of process `pid` that have worked for a tenth of a second
/// since `before`: rails outlive a transfer.
fn busy_rails(pid: u32, before: &BTreeMap<String, u64>) -> usize {
    let worked = |(thread, ticks): &(String, u64)| ticks - before.get(thread).unwrap_or(&0) >= 10;
    rail_ticks(pid).into_iter().filter(worked).count()
}

#[test]
fn what_a_node_cannot_have_is_refused_before_it_listens() {
    let cases = [(["--threads-per-nic", "65"], "1 to 64"), (["--pin", "8191"], "CPU 8191")];
    for (more, said) in cases {
        let output = run(support::cep_fast(&[
            "node",
            "--listen",
            "127.0.0.1:0",
            "--root",
            "/",
            "--insecure-no-key",
        ])
        .args(more));
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

/// Transfers from files to files, checked, in all shapes: repeated on the replacement for
/// `io_uring`.
#[test]
fn without_io_uring_the_same_cases_pass() {
    let cases = [
        "random_rows",
        "a_data_space",
        "a_pattern",
        "shared_memory",
        "holes",
        "digests",
        "replicas",
        "a_node_that_holds",
        "two_files",
        "few_slots",
        "copy_copies",
    ];
    let output = run(std::process::Command::new(std::env::current_exe().unwrap())
        .args(cases)
        .env("CEP_FAST_IO", "plain"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{said}");
    assert!(!said.contains(" 0 passed"), "{said}");
}

#[test]
fn with_the_calls_of_linux_4_18_the_same_cases_pass() {
    support::filter::same_cases_with_linux_4_18(&["without_io_uring", "with_the_calls_of"]);
}

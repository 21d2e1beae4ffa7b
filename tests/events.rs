//! Events of transfers, as lines of JSON: what they have, and that their readers hold up nothing.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Daemon, cep_fast, code, end_of, folder, run, stderr, wait_for};

/// Returns the command that runs a specification with its events, and nodes below `root`.
fn command(root: &Path, spec: &str, events: &Path, more: &[&str]) -> Command {
    let file = root.join("spec");
    fs::write(&file, spec).unwrap();
    let mut command = cep_fast(&["run", "--progress", "never", "--events"]);
    command.arg(events).args(more).arg(&file);
    command
}

fn local(root: &Path, spec: &str, events: &Path, more: &[&str]) -> Output {
    let mut command = command(root, spec, events, &["--launch", "local"]);
    run(command.args(more).arg("--root").arg(root))
}

/// Parses lines, each of which has what all have. Their times do not go back.
fn parse(text: &str) -> Vec<Value> {
    let (mut seconds, mut is_over) = (0.0, true);
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"));
        assert_eq!(line["schema"], "cep-fast.events/1");
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert!(is_over || line["seconds"].as_f64() >= Some(seconds), "{line}");
        is_over = line["event"] == "end";
        seconds = line["seconds"].as_f64().unwrap();
        line
    });
    lines.collect()
}

fn read(path: &Path) -> Vec<Value> {
    parse(&fs::read_to_string(path).unwrap())
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// The fields of each event, by its page.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATING.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split_once("## Events").unwrap().1;
    let section = section.split_once("\n## ").unwrap().0;
    let spans = |text: &str| -> Vec<String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let fields = rows.map(|row| {
        let (event, fields) = row.trim_start_matches("| ").split_once(" | ").unwrap();
        (spans(event).remove(0), spans(fields).into_iter().collect())
    });
    fields.collect()
}

/// Every event has the documented fields, and no other.
fn same_fields(events: &[Value]) {
    let documented = documented();
    for event in events {
        let name = event["event"].as_str().unwrap();
        let object = event.as_object().unwrap();
        let common = ["schema", "event", "time", "seconds"];
        let fields = object.keys().filter(|field| !common.contains(&field.as_str()));
        let fields: BTreeSet<String> = fields.cloned().collect();
        assert_eq!(Some(&fields), documented.get(name), "{name}");
    }
}

const SPEC: &str = "id \"a \\\"name\\\"\"\nwriter a:1 pattern:7 0 0-59999999\n\
                    reader b:1 null: 0 0-59999999\n";

#[test]
fn a_complete_transfer_is_told_from_start_to_end() {
    let root = folder();
    let file = root.path().join("events");
    let output = local(root.path(), SPEC, &file, &["--limit", "200M", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let events = read(&file);
    same_fields(&events);
    let told = names(&events);
    assert_eq!(&told[..3], ["start", "reached", "plan"]);
    // A busy machine may be slower than the plan believed.
    let may_come = |name: &&str| ["progress", "replan"].contains(name);
    assert!(told[3..told.len() - 1].iter().all(may_come), "{told:?}");
    assert!(told.len() > 4 && told.last() == Some(&"end"), "{told:?}");
    let (start, plan, end) = (&events[0], &events[2], events.last().unwrap());
    assert_eq!(start["transfer"], "a \"name\"");
    assert_eq!((&start["nodes_total"], &start["bytes_total"]), (&2.into(), &60_000_000.into()));
    assert_eq!((&plan["plan"], &plan["bottleneck"]), (&1.into(), &"the limit".into()));
    assert!(plan["predicted_seconds"].as_f64() > Some(2.0), "{plan}");
    let progress = events.iter().find(|event| event["event"] == "progress").unwrap();
    assert_eq!(
        (&progress["nodes"][0]["name"], &progress["nodes_total"]),
        (&"b:1".into(), &1.into())
    );
    assert!(progress["gbit_per_s"].as_f64() > Some(0.01), "{progress}");
    assert_eq!((&end["state"], &end["report"]), (&"complete".into(), &support::json(&output)));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // Another one is added, and one that does not begin has an end, too.
    let output = local(root.path(), "id nothing\n", &file, &[]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    let all = read(&file);
    assert_eq!(names(&all[events.len()..]), ["end"]);
    assert_eq!(all.last().unwrap()["report"]["error"]["code"], 2);
    same_fields(&all);
}

#[test]
fn a_name_of_any_letters_is_valid_json_and_moves_no_cursor() {
    let root = folder();
    let file = root.path().join("events");
    let spec = SPEC.replace("a \\\"name\\\"", "\u{1b}]0;x\u{7}\u{9b}\u{202e}\u{2028}'\\\\");
    let output = local(root.path(), &spec, &file, &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.chars().all(|it| it == '\n' || !(it.is_control() || it == '\u{202e}')),
        "{text:?}"
    );
    let events = parse(&text);
    assert_eq!(events[0]["transfer"], "\u{1b}]0;x\u{7}\u{9b}\u{202e}\u{2028}'\\");
}

#[test]
fn on_standard_output_each_line_is_an_event_and_the_report_is_the_last() {
    let root = folder();
    let output = local(root.path(), SPEC, Path::new("-"), &["--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let (events, report) = text.trim_end().rsplit_once('\n').unwrap();
    let events = parse(events);
    same_fields(&events);
    let report: Value = serde_json::from_str(report).unwrap();
    assert_eq!(report, events.last().unwrap()["report"]);
    assert!(report.get("schema").is_none(), "which tells it from an event");

    let output = local(root.path(), SPEC, Path::new("-"), &[]);
    assert!(stderr(&output).contains("scheduler: "), "{}", stderr(&output));
    assert_eq!(names(&parse(&String::from_utf8(output.stdout).unwrap())).last(), Some(&"end"));
}

#[test]
fn a_cancelled_transfer_ends_so_in_its_events() {
    let root = folder();
    let file = root.path().join("events");
    let spec = SPEC.replace("59999999", "2999999999");
    let mut command = command(root.path(), &spec, &file, &["--launch", "local", "--limit", "200M"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    wait_for("an event of progress", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("\"progress\""))
    });
    signal(&child, Signal::SIGINT);
    assert_eq!(code(&end_of(child)), 130);
    let events = read(&file);
    same_fields(&events);
    let end = events.last().unwrap();
    assert_eq!((&end["event"], &end["state"]), (&"end".into(), &"cancelled".into()));
    assert!(!names(&events).contains(&"loss"), "{events:?}");
}

fn signal(child: &Child, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// Starts a transfer between daemons, and returns it once bytes move.
fn between(root: &Path, spec: &str, file: &Path) -> Child {
    let mut command = command(root, spec, file, &["--limit", "100M", "--json"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    wait_for("bytes that move", || {
        fs::read_to_string(file).is_ok_and(|text| {
            parse(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
                .iter()
                .any(|event| event["bytes"].as_u64() > Some(0))
        })
    });
    child
}

#[test]
fn a_node_that_is_lost_is_named_with_its_reason() {
    let root = folder();
    let [one, other, receiver] = [(); 3].map(|()| Daemon::start(root.path(), &[]));
    let range = "0 0-59999999";
    let spec = |receivers: &str| {
        format!(
            "id lost\nwriter {} pattern:7 {range}\nwriter {} pattern:7 {range}\n{receivers}",
            one.address, other.address
        )
    };
    let file = root.path().join("events");
    let reader = format!("reader {} null: {range}\n", receiver.address);
    let child = between(root.path(), &spec(&reader), &file);
    one.signal(Signal::SIGKILL);
    let output = end_of(child);
    assert_eq!(code(&output), 0, "the other one has the bytes: {}", stderr(&output));
    let events = read(&file);
    same_fields(&events);
    let losses: Vec<&Value> = events.iter().filter(|event| event["event"] == "loss").collect();
    let of = |what: &str| losses.iter().find(|event| event["what"] == what);
    assert!(of("node").is_some_and(|it| it["node"] == *one.address), "{losses:?}");
    let flow = of("flow").unwrap_or_else(|| panic!("{losses:?}"));
    assert_eq!((&flow["node"], &flow["nic"]), (&receiver.address.as_str().into(), &"lo".into()));
    assert_eq!(flow["peer"], *one.address);
    assert!(losses.iter().all(|it| !it["reason"].as_str().unwrap().is_empty()), "{losses:?}");
    assert_eq!(events.last().unwrap()["state"], "complete");

    // Without the receiver it fails.
    fs::remove_file(&file).unwrap();
    let spec = format!("id f\nwriter {} pattern:7 {range}\n{reader}", other.address);
    let child = between(root.path(), &spec, &file);
    receiver.signal(Signal::SIGKILL);
    let output = end_of(child);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let events = read(&file);
    same_fields(&events);
    let loss = events.iter().rfind(|event| event["event"] == "loss").unwrap();
    assert_eq!((&loss["node"], &loss["what"]), (&receiver.address.as_str().into(), &"node".into()));
    let end = events.last().unwrap();
    assert_eq!((&end["state"], &end["report"]["error"]["code"]), (&"failed".into(), &3.into()));
}

/// What the page lists is emitted: those events that no test above needs are made here by hand.
#[test]
fn the_page_lists_every_event_there_is() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/master/events.rs");
    let source = fs::read_to_string(source).unwrap();
    let body = source.split_once("enum TransferEvent {").unwrap().1.split_once("\n}").unwrap().0;
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let text: String =
        body.lines().filter(|line| !line.trim().starts_with("///")).collect::<Vec<_>>().join(" ");
    for variant in text.split('}').filter(|it| it.contains('{')) {
        let (name, fields) = variant.split_once('{').unwrap();
        let name = name.trim_matches(|it: char| it == ',' || it.is_whitespace()).to_lowercase();
        let fields = fields.split(": ").map(|it| it.rsplit([' ', ',']).next().unwrap());
        let mut fields: Vec<String> = fields.map(str::to_owned).collect();
        fields.pop();
        found.insert(name, fields.into_iter().collect());
    }
    assert!(found.len() > 8, "{found:?}");
    assert_eq!(found, documented());
}

/// Runs a small transfer whose events go to `file`, and returns the seconds that it took.
fn completes(root: &Path, file: &Path) -> (f64, String) {
    let began = Instant::now();
    let output = local(root, SPEC, file, &["--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = support::json(&output);
    assert_eq!(report["state"], "complete");
    assert!(began.elapsed().as_secs_f64() < 30.0);
    (report["seconds"].as_f64().unwrap(), stderr(&output))
}

fn warnings(said: &str) -> usize {
    said.lines().filter(|line| line.contains("not all events")).count()
}

#[test]
fn who_does_not_read_holds_up_no_transfer() {
    let root = folder();
    let fifo = root.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (_, said) = completes(root.path(), &fifo);
    assert_eq!(warnings(&said), 1, "nobody opens it: {said}");
    // Open, and never read: the pipe is full after a page.
    let open =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    nix::fcntl::fcntl(&open, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let filler =
        fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    while std::io::Write::write(&mut &filler, &[b'x'; 512]).is_ok() {}
    let (_, said) = completes(root.path(), &fifo);
    assert_eq!(warnings(&said), 1, "nobody reads it: {said}");
    drop(open);
}

#[test]
fn a_full_disk_is_one_warning() {
    let root = folder();
    let (_, said) = completes(root.path(), Path::new("/dev/full"));
    assert_eq!(warnings(&said), 1, "{said}");
    assert!(said.contains("/dev/full"), "{said}");
}

#[test]
fn a_closed_pipe_is_one_warning() {
    let root = folder();
    let more = ["--launch", "local", "--limit", "200M"];
    let mut command = command(root.path(), SPEC, Path::new("-"), &more);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut line = String::new();
    let mut events = BufReader::new(child.stdout.take().unwrap());
    events.read_line(&mut line).unwrap();
    assert_eq!(parse(&line)[0]["event"], "start");
    drop(events);
    let output = end_of(child);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(warnings(&stderr(&output)), 1, "{}", stderr(&output));
}

#[test]
fn a_file_that_cannot_be_written_is_said_before_anything_moves() {
    let root = folder();
    for file in [root.path().to_owned(), PathBuf::from("/nowhere/events")] {
        let output = local(root.path(), SPEC, &file, &["--json"]);
        assert_eq!(code(&output), 5, "{}", stderr(&output));
        assert!(stderr(&output).contains("--events"), "{}", stderr(&output));
        assert_eq!(support::json(&output)["error"]["code"], 5);
    }
}

#[test]
fn what_is_done_on_which_host_is_logged_with_the_host_first() {
    let root = folder();
    let file = root.path().join("events");
    let output = local(root.path(), SPEC, &file, &["-v"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 0, "{said}");
    let mut lines = said.lines();
    for wanted in [
        "b:1: started, listens at 127.",
        "b:1: dialled at 127.",
        "b:1: session up at 127.",
        "b:1: sent its rows: 1",
        "b:1: prepared",
        "b:1: sent its part of plan 1",
        "b:1: has landed",
        "a:1: told to finish",
        "a:1: has ended and reported",
        "a:1: session closed",
    ] {
        let found = lines.any(|line| line.contains(&format!(" DEBUG {wanted}")));
        assert!(found, "no {wanted:?}, or not in this order: {said}");
    }
    let output = local(root.path(), SPEC, &file, &[]);
    assert!(!stderr(&output).contains("session up"), "{}", stderr(&output));
}

#[test]
fn a_copy_and_every_run_of_a_benchmark_have_events() {
    let root = folder();
    let file = root.path().join("events");
    fs::write(root.path().join("x"), [7; 1000]).unwrap();
    let mut copy = cep_fast(&["copy", "--progress", "never", "--events"]);
    let output = run(copy.arg(&file).args(["x", "y"].map(|name| root.path().join(name))));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let events = read(&file);
    assert_eq!(names(&events).first(), Some(&"start"));
    assert_eq!(events.last().unwrap()["report"]["bytes"], 1000);

    fs::remove_file(&file).unwrap();
    let mut bench = cep_fast(&["bench", "--launch", "local", "--seconds", "1", "--events"]);
    let output = run(bench.arg(&file).args(["--progress", "never"]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let events = read(&file);
    let count = |name: &str| names(&events).iter().filter(|it| **it == name).count();
    assert!(count("start") > 1 && count("start") == count("end"), "{:?}", names(&events));
}

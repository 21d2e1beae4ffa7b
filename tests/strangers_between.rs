//! Strangers on the way between nodes, who listen, change, repeat and leave out what passes, and
//! strangers at data ports. Bytes that are sealed or signed arrive right or not at all; in clear
//! the same strangers write files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Output};

use serde_json::Value;
use support::capture::{PacketCapture, runs_of};
use support::lab::Lab;
use support::stranger::{Attack, HandshakeMessage, PIECE_BYTES, Stranger, WRITING, heard_by};
use support::{Daemon, cep_fast, code, end_of, folder, json, random_bytes, run, stderr, wait_for};

/// Bytes of a transfer: some pieces.
const BYTES: usize = 1 << 20;
const PROTECTED: [&str; 2] = ["sealed", "signed"];

/// Two nodes and a stranger between them, who has the third.
struct StrangerLab {
    lab: Lab,
    stranger: Stranger,
    source: Vec<u8>,
}

impl StrangerLab {
    /// `None` where labs are not permitted.
    fn set() -> Option<StrangerLab> {
        let lab = Lab::up(3, 1, "1gbit")?;
        let stranger = Stranger::between(&lab, 3, &[1, 2]);
        let mut scene = StrangerLab { lab, stranger, source: Vec::new() };
        scene.change_source(1);
        Some(scene)
    }

    fn change_source(&mut self, seed: u64) {
        self.source = random_bytes(seed, BYTES);
        fs::write(self.lab.path("source"), &self.source).unwrap();
    }

    fn run(&self, level: &str) -> Output {
        self.run_with(&["--wire", level])
    }

    fn run_with(&self, more: &[&str]) -> Output {
        end_of(self.begin(more))
    }

    fn begin(&self, more: &[&str]) -> Child {
        let _ = fs::remove_file(self.lab.path("copy"));
        let options = [&["--stall-timeout", "3s"], more].concat();
        self.lab.start_with(&spec(&[2]), &options)
    }

    /// Runs a transfer with an attack on its first `times` connections.
    fn attacked(&self, attack: Attack, times: u32, level: &str) -> Output {
        self.stranger.attacks(attack, times);
        let output = self.run(level);
        if attack == Attack::Listen {
            wait_for("the end of a connection", || !self.stranger.notes().answers.is_empty());
            return output;
        }
        assert!(self.stranger.notes().attacks > 0, "{attack:?} was not carried out, {level}");
        output
    }

    /// The handshake that the stranger heard last, and the data port that it was said to.
    fn last_handshake(&self) -> (SocketAddr, Vec<u8>) {
        self.stranger.notes().handshakes.last().unwrap().clone()
    }

    fn copy(&self) -> Option<Vec<u8>> {
        fs::read(self.lab.path("copy")).ok()
    }

    fn has_right_copy(&self) -> bool {
        self.copy().is_some_and(|copy| copy == self.source)
    }
}

/// Rows for everything from node 1 to each of `receivers`, which write `copy` (node 2) or `copyN`.
fn spec(receivers: &[u32]) -> String {
    let last = BYTES - 1;
    let mut rows = format!(
        "id strangers\noption block 65536\nwriter 10.200.0.1:7000 file:///source 0 0-{last}\n"
    );
    for node in receivers {
        let name = if *node == 2 { "copy".into() } else { format!("copy{node}") };
        rows += &format!("reader 10.200.0.{node}:7000 file:///{name} 0 0-{last}\n");
    }
    rows
}

/// Returns the warnings of a report, and the error of one that failed.
fn told(report: &Value) -> String {
    format!("{} {}", report["warnings"], report["error"])
}

/// What a report says of somebody who changes bytes.
const NAMED: &str = "somebody or something between them changes bytes";

/// The least protection that each node of a report has seen.
fn wires(report: &Value) -> Vec<&str> {
    let nodes = report["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["rails"][0]["wire"].as_str().unwrap()).collect()
}

#[test]
fn what_a_stranger_changes_arrives_right_all_the_same_and_is_told() {
    let Some(scene) = StrangerLab::set() else { return };
    for level in PROTECTED {
        assert_eq!(code(&scene.attacked(Attack::Listen, 1, level)), 0);
        let attacks = [
            Attack::Payload,
            Attack::Header(16),
            Attack::Header(60),
            Attack::Header(90),
            Attack::Request(16),
            Attack::BothSums,
            Attack::Swap,
            Attack::EarlierAnswer,
            Attack::OwnRequest,
            Attack::Reflect,
        ];
        for attack in attacks {
            let output = scene.attacked(attack, 1, level);
            assert_eq!(code(&output), 0, "{attack:?}, {level}: {}", stderr(&output));
            assert!(scene.has_right_copy(), "{attack:?}, {level}");
            let told = told(&json(&output));
            assert!(told.contains(NAMED), "{attack:?}, {level}: {told}");
            assert!(told.contains("eth0: ") && told.contains("10.200.0."), "{attack:?}: {told}");
            assert!(scene.stranger.notes().given.is_empty(), "{attack:?}, {level}");
        }
    }
}

#[test]
fn without_a_check_the_seal_alone_notices_a_change() {
    let Some(scene) = StrangerLab::set() else { return };
    for level in ["sealed", "signed", "clear"] {
        scene.stranger.attacks(Attack::Payload, 1);
        let output = scene.run_with(&["--wire", level, "--check", "none"]);
        assert_eq!((code(&output), scene.stranger.notes().attacks), (0, 1), "{}", stderr(&output));
        assert_eq!(scene.has_right_copy(), level != "clear", "{level}");
        assert_eq!(told(&json(&output)).contains(NAMED), level != "clear", "{level}");
    }
}

#[test]
fn a_stranger_who_changes_everything_stops_a_transfer_and_writes_no_file() {
    let Some(scene) = StrangerLab::set() else { return };
    for level in PROTECTED {
        for attack in [Attack::Everywhere, Attack::Header(90), Attack::Request(90)] {
            let output = scene.attacked(attack, u32::MAX, level);
            assert!([3, 6, 7].contains(&code(&output)), "{attack:?}: {}", stderr(&output));
            assert_eq!(scene.copy(), None, "{attack:?}, {level}");
            let told = told(&json(&output));
            assert!(told.contains(NAMED), "{attack:?}, {level}: {told}");
        }
    }
}

/// What the tests above show to be prevented, happens here: the stranger is able to do it.
#[test]
fn in_clear_a_stranger_reads_and_writes_and_the_report_says_complete() {
    let Some(mut scene) = StrangerLab::set() else { return };
    let output = scene.attacked(Attack::BothSums, 1, "clear");
    let (report, copy) = (json(&output), scene.copy().unwrap());
    assert_eq!(
        (code(&output), &report["state"], &report["wire"]),
        (0, &"complete".into(), &"clear".into())
    );
    assert!(copy != scene.source && copy.windows(WRITING.len()).any(|run| run == WRITING));
    assert!(!told(&report).contains(NAMED), "{report}");
    // The answer of an earlier transfer has all its sums.
    assert_eq!(code(&scene.attacked(Attack::Listen, 1, "clear")), 0);
    let earlier = scene.source.clone();
    scene.change_source(2);
    let output = scene.attacked(Attack::EarlierAnswer, 1, "clear");
    let copy = scene.copy().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let is_of = |source: &[u8]| {
        copy.chunks(PIECE_BYTES)
            .zip(source.chunks(PIECE_BYTES))
            .filter(|(one, other)| one == other)
            .count()
    };
    assert_eq!((is_of(&earlier), is_of(&scene.source)), (1, BYTES / PIECE_BYTES - 1));
    let output = scene.attacked(Attack::OwnRequest, 1, "clear");
    assert!(code(&output) == 0 && scene.has_right_copy());
    let given = &scene.stranger.notes().given;
    assert!(scene.source.chunks(PIECE_BYTES).any(|piece| piece == given), "{} bytes", given.len());
}

#[test]
fn what_a_stranger_cuts_off_or_repeats_does_no_harm() {
    let Some(scene) = StrangerLab::set() else { return };
    for level in ["sealed", "signed", "clear"] {
        for attack in [Attack::Truncate, Attack::Again] {
            let output = scene.attacked(attack, 1, level);
            assert_eq!(code(&output), 0, "{attack:?}, {level}: {}", stderr(&output));
            assert!(scene.has_right_copy(), "{attack:?}, {level}");
            assert!(scene.stranger.notes().given.is_empty(), "{attack:?}, {level}");
        }
    }
}

/// The two ends would take a lower version, another cipher or no seal, if a stranger could say so.
#[test]
fn a_stranger_who_changes_handshakes_lowers_nothing() {
    let Some(scene) = StrangerLab::set() else { return };
    let (preamble, reply) = (48, 16);
    let changes = [
        (HandshakeMessage::First, vec![8, 10, 14, 20, preamble, preamble + 40, preamble + 90]),
        (HandshakeMessage::Second, vec![4, 6, 8, 12, reply, reply + 34, reply + 40]),
        (HandshakeMessage::Confirmation, vec![0, 15]),
    ];
    for (part, places) in changes {
        for at in places {
            let output = scene.attacked(Attack::Handshake(part, at), 1, "sealed");
            assert_eq!(code(&output), 0, "{part:?} {at}: {}", stderr(&output));
            assert!(scene.has_right_copy(), "{part:?} {at}");
            assert_eq!(wires(&json(&output)), ["sealed"; 2], "{part:?} {at}");
        }
    }
    for part in [HandshakeMessage::First, HandshakeMessage::Second, HandshakeMessage::Confirmation]
    {
        let output = scene.attacked(Attack::Handshake(part, 8), u32::MAX, "sealed");
        assert!([3, 4, 6, 7].contains(&code(&output)), "{part:?}: {}", stderr(&output));
        assert_eq!(scene.copy(), None, "{part:?}");
    }
}

#[test]
fn a_capture_shows_nothing_of_a_sealed_transfer_and_all_of_others() {
    let Some(scene) = StrangerLab::set() else { return };
    for (level, shows) in [("sealed", false), ("signed", true), ("clear", true)] {
        let capture = PacketCapture::begin(&scene.lab, 3);
        let output = scene.run(level);
        let packets = capture.end();
        assert!(code(&output) == 0 && scene.has_right_copy(), "{}", stderr(&output));
        let bytes: usize = packets.iter().map(Vec::len).sum();
        assert!(bytes > 2 * BYTES, "{bytes} bytes came in and went out");
        let runs = runs_of(&scene.source, &packets);
        assert_eq!(runs > BYTES, shows, "{level}: {runs} runs");
        assert!(shows || runs == 0, "{level}: {runs} runs");
    }
}

/// Relays open what they receive and seal it anew.
#[test]
fn a_copy_to_many_nodes_that_feed_each_other_is_sealed_between_all_of_them() {
    let Some(lab) = Lab::up(4, 1, "100mbit") else { return };
    let source = random_bytes(3, BYTES);
    fs::write(lab.path("source"), &source).unwrap();
    let captures = [1, 2, 3, 4].map(|node| PacketCapture::begin(&lab, node));
    let output = lab.run(&spec(&[2, 3, 4]));
    let captured = captures.map(PacketCapture::end);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for name in ["copy", "copy3", "copy4"] {
        assert!(fs::read(lab.path(name)).unwrap() == source, "{name}");
    }
    let report = json(&output);
    assert_eq!(report["wire"], "sealed");
    let relayed = report["nodes"].as_array().unwrap().iter().skip(1);
    let relayed: u64 = relayed.map(|node| node["bytes_sent"].as_u64().unwrap()).sum();
    assert!(relayed > 0, "nobody relayed: {report}");
    for packets in captured {
        assert!(packets.iter().map(Vec::len).sum::<usize>() > BYTES);
        assert_eq!(runs_of(&source, &packets), 0);
    }
}

#[test]
fn a_node_that_takes_nothing_less_refuses_a_transfer_in_clear() {
    let Some(mut scene) = StrangerLab::set() else { return };
    scene.lab.restart(1, &["--wire-min", "sealed"]);
    for level in ["clear", "signed"] {
        let output = scene.run(level);
        assert_eq!(code(&output), 4, "{}", stderr(&output));
        let told = stderr(&output);
        assert!(
            told.contains("10.200.0.1:7000") && told.contains(&format!("--wire {level} is below")),
            "{told}"
        );
        assert_eq!(scene.copy(), None);
    }
    let refusals = |log: &str| log.matches("is below what this node takes").count();
    wait_for("both refusals", || refusals(&scene.lab.log(1)) >= 2);
    assert_eq!(refusals(&scene.lab.log(1)), 2, "once each: {}", scene.lab.log(1));
    let output = scene.run_with(&[]);
    assert!(code(&output) == 0 && scene.has_right_copy(), "{}", stderr(&output));
    assert_eq!(wires(&json(&output)), ["sealed"; 2]);
}

/// The other end, which would leave it in clear, follows.
#[test]
fn one_node_of_two_on_one_machine_has_everything_sealed() {
    let root = folder();
    let source = random_bytes(4, BYTES);
    fs::write(root.path().join("source"), &source).unwrap();
    let strict = ["--wire-min", "sealed"];
    for rules in [[&strict[..], &[]], [&[], &strict]] {
        let [sender, receiver] = rules.map(|more| Daemon::start(root.path(), more));
        let last = BYTES - 1;
        let spec = format!(
            "id inside\nwriter {} file:///source 0 0-{last}\nreader {} file:///copy 0 0-{last}\n",
            sender.address, receiver.address
        );
        fs::write(root.path().join("spec"), spec).unwrap();
        let options = ["run", "--json", "--overwrite", "--progress", "never"];
        let output = run(cep_fast(&options).arg(root.path().join("spec")));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let report = json(&output);
        assert_eq!((wires(&report), &report["wire"]), (vec!["sealed"; 2], &"sealed".into()));
        assert!(fs::read(root.path().join("copy")).unwrap() == source);
    }
}

/// Who has no key, another one or that of an earlier attempt, and who repeats what others said, is
/// refused at a data port, and the transfer that is under way there goes on.
#[test]
fn strangers_at_a_data_port_do_not_disturb_the_transfer_there() {
    let Some(mut scene) = StrangerLab::set() else { return };
    scene.lab.restart(1, &[]);
    assert_eq!(code(&scene.attacked(Attack::Listen, 1, "sealed")), 0);
    let earlier = scene.last_handshake();
    scene.stranger.attacks(Attack::Pass, 0);
    let mut child = scene.begin(&["--wire", "sealed", "--limit", "4M"]);
    wait_for("a flow", || scene.last_handshake() != earlier);
    let (port, now) = scene.last_handshake();
    let confirmation = now.len() - 16;
    let garbled = |places: &[usize]| {
        let mut said = now.clone();
        places.iter().for_each(|&at| said[at] ^= 1);
        said
    };
    let web = b"GET / HTTP/1.1\r\nHost: stranger\r\nAccept: text/html\r\n\r\n";
    let tries = [
        ("another key", garbled(&[confirmation - 4]), Some(3)),
        ("an earlier attempt's", earlier.1, Some(2)),
        ("another transfer", garbled(&[20]), Some(2)),
        ("another version", garbled(&[8, 10]), Some(1)),
        ("another confirmation", garbled(&[confirmation]), Some(0)),
        ("the same again", now.clone(), Some(0)),
        ("the web", web.to_vec(), None),
    ];
    for (name, said, verdict) in tries {
        for _ in 0..3 {
            let heard = scene.lab.network.inside(3, || heard_by(port, &said)).unwrap().unwrap();
            assert_eq!(heard.get(4).copied(), verdict, "{name}: {heard:?}");
            // The second message of a handshake is all that anybody is told.
            let reply =
                heard.get(10..12).map(|it| 16 + usize::from(u16::from_le_bytes([it[0], it[1]])));
            assert_eq!(heard.len(), reply.unwrap_or(0), "{name}: {heard:?}");
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "it was over before");
    let output = end_of(child);
    assert!(code(&output) == 0 && scene.has_right_copy(), "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(
        (&report["retries"], scene.stranger.notes().connections),
        (&0.into(), 1),
        "{report}"
    );
    let log = scene.lab.log(1);
    let lines = log.lines().filter(|line| line.contains("refused: ")).count();
    assert!((1..=3).contains(&lines), "one for each kind: {log}");
}

/// A receiver is killed, and what it had is not sent again.
#[test]
fn a_sealed_transfer_is_resumed() {
    let Some(mut scene) = StrangerLab::set() else { return };
    let child = scene.begin(&["--limit", "16M"]);
    wait_for("some bytes", || {
        support::beside(scene.lab.folder.path(), ".journal").iter().any(|path| {
            fs::metadata(path).is_ok_and(|journal| {
                journal.len() > support::JOURNAL_HEADER_BYTES + 4 * support::JOURNAL_RECORD_BYTES
            })
        })
    });
    scene.lab.restart(2, &[]);
    assert_ne!(code(&end_of(child)), 0);
    let output = scene.run_with(&[]);
    let report = json(&output);
    assert!(code(&output) == 0 && scene.has_right_copy(), "{}", stderr(&output));
    assert!(report["resumed_bytes"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["wire"], "sealed");
}

/// Loopback addresses are another matter: `copy` starts nodes there.
#[test]
fn copies_and_groups_are_sealed() {
    let Some(scene) = StrangerLab::set() else { return };
    let rows = [2, 3].map(|node| {
        format!("reader 10.200.0.{node}:7000 file:///copy 0 0-{} group=g\n", BYTES - 1)
    });
    let output = scene.lab.run(&format!("{}{}", spec(&[]), rows.concat()));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(json(&output)["wire"], "sealed");
    assert!(scene.has_right_copy());
    let (source, copied) = (scene.lab.path("source"), scene.lab.path("copied"));
    for (options, level) in [(vec!["--wire", "sealed"], "sealed"), (Vec::new(), "clear")] {
        let mut copies = cep_fast(&["copy", "--json", "--progress", "never", "--overwrite"]);
        let output = run(copies.args(options).arg(&source).arg(&copied));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(json(&output)["wire"], level);
        assert!(fs::read(&copied).unwrap() == scene.source);
    }
}

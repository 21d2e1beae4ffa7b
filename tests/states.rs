//! Faults at every state of the protocol: a node or the master dies, or a connection breaks, when a
//! given record of a control session is about to be forwarded. Run again, the transfer completes,
//! with every byte correct and no other files.
//!
//! Records are counted in the order in which they reach a proxy in front of each node. Contents are
//! words that encode their position, so that a misplaced or stale word is named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stdout, reason = "figures for documents")]

mod support;

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use random::SplitMix;
use support::proxy::{self, Gate, Verdict, Way};
use support::{cep_fast, folder, listing, ready_address};

/// Two senders with half of the data in common, and two receivers that feed each other.
const NODES: usize = 4;
const SENDERS: usize = 2;
/// Words of eight bytes that each node offers or wants. No boundary is that of a page or a block.
const WORDS: [(u64, u64); NODES] =
    [(0, 262_001), (131_003, 393_007), (0, 393_007), (65_537, 393_007)];
const BLOCK: &str = "64K";
/// Slow enough for a journal and a progress report, which come twice a second.
const LIMIT: &str = "60M";
/// Deadline for everything; only a hang takes that long.
const DEADLINE: Duration = Duration::from_secs(60);
/// Number of worlds at the same time: they wait for nearly all of their time.
const WORLDS: usize = 12;

/// Victim of the fault at a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Strike {
    KillNode,
    KillMaster,
    /// The connection is reset. The master may reconnect over another one.
    Cut,
    /// The node is killed when half of the record is forwarded.
    HalfAndKillNode,
}

const STRIKES: [Strike; 4] =
    [Strike::KillNode, Strike::KillMaster, Strike::Cut, Strike::HalfAndKillNode];

/// A state of the protocol, with a fault.
#[derive(Clone, Copy, Debug)]
struct Point {
    node: usize,
    way: Way,
    record: usize,
    strike: Strike,
}

/// A process that a fault may kill, and that another thread waits for.
type Victim = Arc<Mutex<Option<Child>>>;

/// Event of a run.
enum Event {
    /// A point was reached. Its victim is dead.
    Struck,
    /// The master and its output ended.
    Ended { output: String, complaint: String },
}

/// Faults in front of all nodes of a world.
#[derive(Default)]
struct Field {
    nodes: [Victim; NODES],
    master: Victim,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: [[usize; 2]; NODES],
    trap: Option<(Point, Sender<Event>)>,
    /// True if the record was a good-bye.
    at_good_bye: bool,
}

impl Field {
    fn kill(victim: &Victim) {
        if let Some(child) = &mut *victim.lock().unwrap() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn strike(&self, point: Point) {
        Field::kill(if point.strike == Strike::KillMaster {
            &self.master
        } else {
            &self.nodes[point.node]
        });
    }
}

/// State of the faults as one node's proxy sees it.
struct NodeGate {
    node: usize,
    field: Arc<Field>,
    /// Receiver of the event at the other half.
    half: Mutex<Option<(Point, Sender<Event>)>>,
}

impl Gate for NodeGate {
    fn record(&self, way: Way, bytes: usize) -> Verdict {
        let mut state = self.field.state.lock().unwrap();
        let count = &mut state.counts[self.node][way as usize];
        let record = std::mem::replace(count, *count + 1);
        let is_meant =
            |point: &Point| (point.node, point.way, point.record) == (self.node, way, record);
        let Some((point, events)) = state.trap.take_if(|(point, _)| is_meant(point)) else {
            return Verdict::Pass;
        };
        state.at_good_bye = bytes == proxy::GOOD_BYE_BYTES;
        drop(state);
        match point.strike {
            Strike::KillNode | Strike::KillMaster => self.field.strike(point),
            Strike::Cut => {}
            Strike::HalfAndKillNode => {
                *self.half.lock().unwrap() = Some((point, events));
                return Verdict::Half;
            }
        }
        // The point may have ended by now.
        let _ = events.send(Event::Struck);
        if point.strike == Strike::Cut { Verdict::Reset } else { Verdict::Lose }
    }

    fn half(&self) {
        let (point, events) = self.half.lock().unwrap().take().unwrap();
        self.field.strike(point);
        let _ = events.send(Event::Struck);
    }
}

/// Four nodes, each behind a proxy, which serve one point after another.
struct World {
    number: usize,
    root: tempfile::TempDir,
    field: Arc<Field>,
    /// Generation of the sources' contents.
    generation: u64,
}

/// Outcome of one run of the master.
struct Run {
    status: ExitStatus,
    output: String,
    complaint: String,
    /// Point of the fault, if it was reached.
    struck: Option<Point>,
    /// True if the fault occurred at the good-byes, after everything else.
    at_good_bye: bool,
    seconds: f64,
}

impl World {
    fn new(number: usize) -> World {
        let world = World { number, root: folder(), field: Arc::default(), generation: 0 };
        for node in 0..NODES {
            fs::create_dir(world.folder(node)).unwrap();
            world.start(node);
            let gate: Arc<dyn Gate> = Arc::new(NodeGate {
                node,
                field: Arc::clone(&world.field),
                half: Mutex::default(),
            });
            proxy::start(world.address(node + 100), world.address(node), &gate);
        }
        world
    }

    fn folder(&self, node: usize) -> PathBuf {
        self.root.path().join(node.to_string())
    }

    fn address(&self, node: usize) -> SocketAddr {
        format!("127.88.{}.{}:7000", self.number, node + 1).parse().unwrap()
    }

    fn start(&self, node: usize) {
        let mut command = cep_fast(&[
            "node",
            "--listen",
            &self.address(node).to_string(),
            "--insecure-no-key",
            "--root",
        ]);
        let mut child = command
            .arg(self.folder(node))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        ready_address(&mut child);
        *self.field.nodes[node].lock().unwrap() = Some(child);
    }

    /// Starts the nodes that have ended.
    fn restart(&self) {
        for node in 0..NODES {
            let is_dead = |child: &mut Child| child.try_wait().unwrap().is_some();
            if self.field.nodes[node].lock().unwrap().as_mut().is_none_or(is_dead) {
                self.start(node);
            }
        }
    }

    /// Renews the contents of both sources.
    fn renew_sources(&mut self) {
        self.generation += 1;
        for (node, (first, end)) in WORDS.into_iter().enumerate().take(SENDERS) {
            let content: Vec<u8> =
                (first..end).flat_map(|word| told(word, self.generation).to_le_bytes()).collect();
            fs::write(self.folder(node).join("source"), content).unwrap();
        }
    }

    fn specification(&self, id: &str) -> String {
        let mut text = format!("id \"{id}\"\noption block {BLOCK}\n");
        for (node, (first, end)) in WORDS.into_iter().enumerate() {
            let (role, name) =
                if node < SENDERS { ("writer", "source") } else { ("reader", "copy") };
            let address = self.address(node + 100);
            text += &format!("{role} {address} file:///{name} 0 {}-{}\n", first * 8, end * 8 - 1);
        }
        text
    }

    /// Runs the transfer once, with the fault at the point.
    fn run(&self, id: &str, point: Option<Point>, limit: &[&str]) -> Run {
        let spec = self.root.path().join("spec");
        fs::write(&spec, self.specification(id)).unwrap();
        let (events, heard) = channel();
        let trap = point.map(|point| (point, events.clone()));
        *self.field.state.lock().unwrap() = State { trap, ..State::default() };
        let began = Instant::now();
        let mut command = cep_fast(&["run", "--json", "--progress", "never", "--limit"]);
        let command = command
            .args(limit)
            .arg(spec)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        *self.field.master.lock().unwrap() = Some(child);
        thread::spawn(move || {
            let (mut output, mut complaint) = (String::new(), String::new());
            out.read_to_string(&mut output).unwrap();
            err.read_to_string(&mut complaint).unwrap();
            let _ = events.send(Event::Ended { output, complaint });
        });
        let (output, complaint) = self.follow(&heard);
        let seconds = began.elapsed().as_secs_f64();
        // The event of the fault may come after that of the end.
        let mut state = self.field.state.lock().unwrap();
        let (missed, at_good_bye) = (state.trap.take(), state.at_good_bye);
        drop(state);
        let struck = point.filter(|_| missed.is_none());
        let status = self.field.master.lock().unwrap().take().unwrap().wait().unwrap();
        self.restart();
        Run { status, output, complaint, struck, at_good_bye, seconds }
    }

    /// Follows a run to its end, and restarts a killed node.
    fn follow(&self, heard: &Receiver<Event>) -> (String, String) {
        loop {
            match heard.recv_timeout(DEADLINE) {
                Ok(Event::Struck) => self.restart(),
                Ok(Event::Ended { output, complaint }) => return (output, complaint),
                Err(_) => {
                    Field::kill(&self.field.master);
                    panic!("no end in {DEADLINE:?}");
                }
            }
        }
    }

    /// Checks that all copies are correct and complete, and that there are no other files. A node
    /// that may have missed the good-bye may still have its record of completion.
    fn check(&self, may_remember: impl Fn(usize) -> bool) {
        for (node, words) in WORDS.into_iter().enumerate().skip(SENDERS) {
            let copy = fs::read(self.folder(node).join("copy")).unwrap();
            compare(&copy, words, self.generation, &format!("the copy of node {node}"));
        }
        let is_left = |node: usize, path: &PathBuf| {
            let is_record = path.extension().is_some_and(|suffix| suffix == "journal");
            let may_be = path.ends_with("source") || path.ends_with("copy");
            !(may_be || is_record && may_remember(node))
        };
        let left = || {
            (0..NODES).find_map(|node| {
                listing(&self.folder(node)).into_iter().find(|path| is_left(node, path))
            })
        };
        // The good-bye lets nodes forget the transfer, and the master does not wait for that.
        let deadline = Instant::now() + DEADLINE / 2;
        while let Some(path) = left() {
            assert!(Instant::now() < deadline, "{} is left over", path.display());
            thread::yield_now();
        }
    }

    /// Removes the receivers' files.
    fn clear(&self) {
        for node in SENDERS..NODES {
            listing(&self.folder(node)).into_iter().for_each(|path| fs::remove_file(path).unwrap());
        }
    }

    /// Plays a point: the transfer has a fault there, and is run again until it completes. Returns
    /// the result.
    fn play(&mut self, index: usize, point: Point, second: Option<Point>) -> Played {
        self.renew_sources();
        let id = format!("states {index}");
        let mut runs = vec![self.run(&id, Some(point), &[LIMIT])];
        let mut limit = vec!["200M"];
        for point in [second, None] {
            let last = runs.last().unwrap();
            if last.status.success() || last.complaint.contains("/copy exists") {
                break;
            }
            assert!(last.struck.is_some(), "it failed undisturbed: {}", last.told());
            if index % 7 == 3 && runs.len() == 1 && !last.at_good_bye {
                self.renew_sources();
                // A copy that was complete by then has the old contents.
                limit.push("--overwrite");
            }
            runs.push(self.run(&id, point, &limit));
        }
        let told = || runs.iter().map(Run::told).collect::<Vec<_>>().join("\n");
        let last = runs.last().unwrap();
        // Nodes that have received the good-bye of a master that died afterwards have forgotten the
        // transfer: their files are like any others.
        let is_done = |run: &Run| run.at_good_bye && !run.status.success();
        let was_done = runs.iter().any(is_done) && last.complaint.contains("/copy exists");
        assert!(last.status.success() || was_done, "run again, it failed: {}", told());
        let may_remember =
            |node: usize| was_done || last.struck.is_some_and(|point| point.node == node);
        if let Err(what) = catch_unwind(AssertUnwindSafe(|| self.check(may_remember))) {
            panic!("{}\n{}", message(&*what), told());
        }
        self.clear();
        let slowest = runs.iter().map(|run| run.seconds).fold(0.0, f64::max);
        Played { struck: runs[0].struck.is_some(), went_on: runs.len() == 1, slowest }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.field.nodes.iter().for_each(Field::kill);
    }
}

impl Run {
    fn told(&self) -> String {
        format!(
            "{} after {:.1} s, struck: {:?}: {}{}",
            self.status, self.seconds, self.struck, self.output, self.complaint
        )
    }
}

/// Result of a point.
struct Played {
    struck: bool,
    /// True if the transfer completed despite the fault.
    went_on: bool,
    /// The longest of its runs, in seconds.
    slowest: f64,
}

/// Returns the word at an index, in a generation. [`place`] is its inverse.
fn told(word: u64, generation: u64) -> u64 {
    (generation << 32 | word).wrapping_mul(MIX)
}

/// Returns the position and the generation of a word.
fn place(told: u64) -> (u64, u64) {
    let plain = told.wrapping_mul(UNMIX);
    (plain & 0xffff_ffff, plain >> 32)
}

/// No two bytes of a word are alike; odd, so that it can be undone.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const UNMIX: u64 = 0xf1de_83e1_9937_733d;
const _: () = assert!(MIX.wrapping_mul(UNMIX) == 1);

/// Checks that a file has the words of a range, else panics with their positions.
fn compare(content: &[u8], (first, end): (u64, u64), generation: u64, what: &str) {
    assert_eq!(content.len() as u64, (end - first) * 8, "the bytes of {what}");
    for (expected, found) in (first..end).zip(content.chunks_exact(8)) {
        let found = place(u64::from_le_bytes(found.try_into().unwrap()));
        assert_eq!(
            found,
            (expected, generation),
            "{what} has at word {expected} that of (word, generation)"
        );
    }
}

/// Returns the message of a panic.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

#[test]
fn words_say_where_they_belong() {
    for (word, generation) in [(0, 0), (393_006, 7), (0xffff_ffff, 0xffff_ffff)] {
        assert_eq!(place(told(word, generation)), (word, generation));
    }
}

/// Returns all states of an undisturbed transfer, with their faults. The number of progress reports
/// varies between runs.
fn points(world: &mut World) -> Vec<Point> {
    world.renew_sources();
    let run = world.run("states", None, &[LIMIT]);
    assert!(run.status.success(), "it fails undisturbed: {}", run.told());
    world.check(|_| false);
    let counts = world.field.state.lock().unwrap().counts;
    println!("records to and from each node: {counts:?}; {:.1} s", run.seconds);
    let mut points = Vec::new();
    for (node, counts) in counts.into_iter().enumerate() {
        for way in [Way::ToNode, Way::ToMaster] {
            for record in 0..counts[way as usize] {
                points.extend(STRIKES.map(|strike| Point { node, way, record, strike }));
            }
        }
    }
    points
}

/// Returns the number of times that all points are played, each with different second faults;
/// `CEP_FAST_STATES=10` plays them ten times.
fn rounds() -> usize {
    std::env::var("CEP_FAST_STATES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

#[test]
fn a_transfer_that_is_struck_at_any_state_completes_when_it_is_run_again() {
    let all = points(&mut World::new(WORLDS));
    let began = Instant::now();
    // Second faults are drawn from the same points.
    let draw = |index: usize| all[SplitMix::new(index as u64).index(all.len())];
    let (next, played, failed) =
        (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for number in 0..WORLDS {
            let (all, draw, next, played, failed) = (&all, &draw, &next, &played, &failed);
            scope.spawn(move || {
                let mut world = World::new(number);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= all.len() * rounds() {
                        return;
                    }
                    let (point, second) =
                        (all[index % all.len()], (index % 3 == 0).then(|| draw(index)));
                    match catch_unwind(AssertUnwindSafe(|| world.play(index, point, second))) {
                        Ok(one) => played.lock().unwrap().push((index, point, one)),
                        Err(what) => {
                            let text = message(&*what);
                            failed
                                .lock()
                                .unwrap()
                                .push(format!("{index} {point:?}, then {second:?}: {text}"));
                            // Its remains are useless for the next point, and its addresses are
                            // taken.
                            return;
                        }
                    }
                }
            });
        }
    });
    let (mut played, failed) = (played.into_inner().unwrap(), failed.into_inner().unwrap());
    let struck = played.iter().filter(|(.., one)| one.struck).count();
    let went_on = played.iter().filter(|(.., one)| one.struck && one.went_on).count();
    println!(
        "{} points, {struck} struck, {went_on} completed all the same, {:.0} s",
        played.len(),
        began.elapsed().as_secs_f64()
    );
    played.sort_by(|(.., one), (.., other)| other.slowest.total_cmp(&one.slowest));
    for (index, point, one) in played.iter().take(5) {
        println!("{index} {point:?}: {:.1} s", one.slowest);
    }
    assert!(failed.is_empty(), "{} points failed:\n{}", failed.len(), failed.join("\n"));
    assert!(struck * 10 >= played.len() * 9, "too few points were reached: {struck}");
}

/// A master that asks a restarted node about the transfer gets no state.
#[test]
fn a_sender_that_dies_when_all_has_landed_costs_nothing() {
    let mut world = World::new(WORLDS + 1);
    world.renew_sources();
    let finish = Point { node: 0, way: Way::ToNode, record: 3, strike: Strike::HalfAndKillNode };
    let run = world.run("finish", Some(finish), &[LIMIT]);
    assert!(run.struck.is_some() && run.status.success(), "{}", run.told());
    world.check(|_| false);
}

/// All files are renamed by then, and relays have been told that they may forget.
#[test]
fn a_master_that_dies_while_nodes_hand_in_their_reports_is_followed_by_one_that_finds_all_done() {
    let mut world = World::new(WORLDS + 2);
    world.renew_sources();
    let report = Point { node: 0, way: Way::ToMaster, record: 2, strike: Strike::KillMaster };
    let run = world.run("reports", Some(report), &[LIMIT]);
    assert!(run.struck.is_some() && !run.status.success(), "{}", run.told());
    let run = world.run("reports", None, &[LIMIT]);
    assert!(
        run.status.success() && run.output.contains("\"resumed_bytes\":5763816"),
        "{}",
        run.told()
    );
    world.check(|_| false);
}

//! One random transfer from a seed: a cluster, what befalls it, and as many attempts as it takes.
//! In the end every byte is right, and nothing else is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use random::SplitMix;

use super::files::{Data, Files, cut_power, damage, is_journal, listed};
use crate::core::error::{Code, Error};
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::roster::Roster;
use crate::core::options::{CheckKind, DataPath, Scheduler, TransferOptions};
use crate::core::sim::cluster::SimCluster;
use crate::core::sim::disk::SimDisk;
use crate::core::sim::net::NodeLinks;
use crate::core::sim::schedule::EventLog;
use crate::core::sim::world::{InjectedFault, MasterIx, PieceFaults, SimEndpoint, SimWorld};
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole, Spec};
use crate::core::units::{BitRate, Moment, NodeIx, Span, union};

/// Attempts that may meet with trouble before one that does not.
const TROUBLED_MAX: u64 = 3;
/// A transfer stalls only where something lasts at least so long: what is silent is given up after
/// a third of the stall timeout.
const STALLS_FROM: Duration = Duration::from_secs(10);
/// Time in which a session to a machine without power is taken for broken, and resumed in vain.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// Time of an attempt when all troubles are over, besides that of its bytes.
const CALM_WITHIN: Duration = Duration::from_secs(300);

/// Counts of trials.
#[derive(Clone, Default, Debug)]
pub(super) struct Tally {
    pub(super) trials: u64,
    pub(super) attempts: u64,
    /// Attempts that met with trouble and completed all the same.
    pub(super) survived: u64,
    /// Attempts that failed, by the kind of their error, and one of them.
    pub(super) failed: BTreeMap<String, (u64, String)>,
    /// Troubles that befell them.
    pub(super) troubles: BTreeMap<&'static str, u64>,
    pub(super) landed_bytes: u64,
    pub(super) resumed_bytes: u64,
    pub(super) retries: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.trials += other.trials;
        self.attempts += other.attempts;
        self.survived += other.survived;
        self.landed_bytes += other.landed_bytes;
        self.resumed_bytes += other.resumed_bytes;
        self.retries += other.retries;
        for (kind, (count, example)) in &other.failed {
            let failed = self.failed.entry(kind.clone()).or_default();
            *failed = (failed.0 + count, example.clone());
        }
        other
            .troubles
            .iter()
            .for_each(|(kind, count)| *self.troubles.entry(kind).or_default() += count);
    }

    fn met(&mut self, kind: &'static str) {
        *self.troubles.entry(kind).or_default() += 1;
    }
}

/// A transfer, drawn from a seed.
struct Trial {
    random: SplitMix,
    spec: Spec,
    transfer_options: TransferOptions,
    world: SimWorld,
    data: Data,
    /// The senders are the first of the nodes.
    senders: u64,
    home: tempfile::TempDir,
    /// So many receivers, the first ones, write one file between them, in one folder.
    sharers: u64,
    /// About how long it takes.
    seconds: f64,
    tally: Tally,
    keeps_log: bool,
    log: EventLog,
    /// Spells of the troubles of the attempt, in nanoseconds.
    spells: Vec<Span>,
    /// Nodes that did not hear of the end of the last attempt.
    deaf: Vec<u64>,
}

/// Plays the transfer of a seed to its end.
///
/// # Panics
/// If a promise is broken.
pub(super) fn play(seed: u64, keeps_log: bool) -> Tally {
    let mut trial = Trial::draw(seed);
    trial.keeps_log = keeps_log;
    trial.tally.trials = 1;
    let troubled = trial.random.below(TROUBLED_MAX + 1);
    for attempt in 0..troubled {
        if trial.attempt(attempt, true).is_ok() {
            trial.tally.survived += 1;
            trial.check_all();
            return trial.tally.clone();
        }
        trial.between();
    }
    if let Err(error) = trial.attempt(troubled, false) {
        panic!("an attempt without trouble fails: {error:?}");
    }
    trial.check_all();
    trial.tally.clone()
}

impl Drop for Trial {
    /// The message of a broken promise does not say what led to it.
    fn drop(&mut self) {
        self.log.take().iter().for_each(|line| println!("{line}"));
    }
}

/// The number in a node's name.
fn index_of(node: &NodeAddress) -> u64 {
    node.host[1..].parse().expect("n and a number")
}

impl Trial {
    fn draw(seed: u64) -> Trial {
        let mut random = SplitMix::new(seed);
        let block = 4096 << random.below(3);
        let start = random.below(3) * 1000;
        let bytes = block * (1 + random.below(40)) - random.below(block);
        let whole = Span::of(start, bytes);
        let (senders, receivers) = (1 + random.below(3), 1 + random.below(4));
        let sharers =
            if receivers > 1 && random.below(6) == 0 { 2 + random.below(receivers - 1) } else { 0 };
        let mut rows = Vec::new();
        let row = |role, index: u64, uri, offset_bytes, range: Span| {
            let row = super::row(role, index as u32, range.start, range.end);
            Row { uri, offset_bytes, speed: None, ..row }
        };
        let is_whole = random.below(2) == 0;
        for sender in 0..senders {
            let own =
                Span::new(start + bytes * sender / senders, start + bytes * (sender + 1) / senders);
            let more = part(&mut random, whole);
            let ranges = if is_whole && (sender == 0 || random.below(2) == 0) {
                vec![whole]
            } else {
                vec![own, more]
            };
            for range in union(ranges) {
                rows.push(row(RowRole::Sender, sender, DataUri::Pattern(1), 0, range));
            }
        }
        // One range for all of them has them feed each other.
        let same = (random.below(2) == 0)
            .then(|| if random.below(2) == 0 { whole } else { part(&mut random, whole) });
        let group =
            (receivers > 1 && sharers == 0 && random.below(8) == 0).then(|| String::from("group"));
        for index in 0..receivers {
            let mut range = same.unwrap_or_else(|| part(&mut random, whole));
            let mut uri = match random.below(8) {
                0 => DataUri::Null,
                _ => DataUri::File(format!("/file{index}").into()),
            };
            let mut offset = if random.below(4) == 0 { random.below(9000) } else { 0 };
            if index < sharers {
                // A part each, or some that write over one another.
                range = match random.below(8) {
                    0 => part(&mut random, whole),
                    _ => Span::new(
                        start + bytes * index / sharers,
                        start + bytes * (index + 1) / sharers,
                    ),
                };
                (uri, offset) = (DataUri::File("/shared".into()), range.start - start);
            }
            let mut row = row(RowRole::Receiver, senders + index, uri, offset, range);
            row.group = group.clone().filter(|_| index < 2);
            if row.group.is_some() {
                row.range = whole;
            }
            if !row.range.is_empty() {
                rows.push(row);
            }
        }
        rows.retain(|row| !row.range.is_empty());
        let mut spec =
            Spec { id: format!("trial {seed}"), rows, block_bytes: Some(block), ..Spec::default() };
        if random.below(4) == 0 {
            spec.rows.iter_mut().for_each(|row| row.speed = Some(BitRate(8_000_000)));
        }
        let count = Roster::new(&spec).entries.len();
        let rate = |random: &mut SplitMix| f64::from(1 << 18) * f64::from(1 << random.below(8));
        let links: Vec<NodeLinks> = (0..count)
            .map(|_| NodeLinks { up: rate(&mut random), down: rate(&mut random) })
            .collect();
        let slowest =
            links.iter().flat_map(|links| [links.up, links.down]).fold(f64::INFINITY, f64::min);
        let mut seconds = bytes as f64 * receivers as f64 / slowest;
        let wanted: u64 = spec
            .rows
            .iter()
            .filter(|row| row.role == RowRole::Receiver)
            .map(|row| row.range.bytes())
            .sum();
        let limit = (random.below(4) == 0).then(|| BitRate(wanted * 8 / (1 + random.below(4))));
        if limit.is_some() {
            seconds += 4.0;
        }
        // Longer than a lease, so that nodes without a master have something to do.
        let receiving = spec.rows.iter().filter(|row| row.role == RowRole::Receiver);
        let has_pieces = receiving.map(|row| row.range.bytes()).min() >= Some(8 * block);
        let slow = (random.below(6) == 0 && has_pieces).then(|| 45 + random.below(30));
        seconds += slow.unwrap_or(0) as f64;
        let limit = slow.map(|slow| BitRate((wanted * 8 / slow).max(8))).or(limit);
        let microseconds =
            |random: &mut SplitMix, most: u64| Duration::from_micros(random.below(most));
        let world = SimWorld {
            links,
            rails: (0..count).map(|_| 1 + random.below(3) as usize).collect(),
            stores: Vec::new(),
            latency: match random.below(2) {
                0 => microseconds(&mut random, 200),
                _ => microseconds(&mut random, 20_000),
            },
            disk_latency: microseconds(&mut random, 5_000),
            disk_bytes_per_second: 1e9,
            disk_whims: match random.below(3) {
                0 => microseconds(&mut random, 200_000),
                _ => Duration::ZERO,
            },
            faults: PieceFaults::default(),
            launched: false,
            seed: 0,
            keeps_log: false,
        };
        let transfer_options = TransferOptions {
            check: [
                CheckKind::Crc64,
                CheckKind::Crc64,
                CheckKind::Crc64,
                CheckKind::Blake3,
                CheckKind::None,
            ][random.below(5) as usize],
            fsync: random.below(4) == 0,
            verify: random.below(8) == 0,
            limit,
            scheduler: [Scheduler::default(), Scheduler::Greedy, Scheduler::Lp]
                [random.below(3) as usize],
            path: PATHS[random.below(PATHS.len() as u64) as usize],
            ..TransferOptions::default()
        };
        let data = Data { generation: 1, hole_every: random.below(3) * 2 };
        let home = tempfile::tempdir_in(
            HOMES.iter().find(|home| fs::metadata(home).is_ok()).expect("a place for files"),
        );
        let home = home.expect("a folder");
        let trial = Trial {
            random,
            spec,
            transfer_options,
            world,
            data,
            senders,
            home,
            sharers,
            seconds: seconds + 0.1,
            tally: Tally::default(),
            keeps_log: false,
            log: EventLog::default(),
            spells: Vec::new(),
            deaf: Vec::new(),
        };
        for index in 0..senders + receivers {
            fs::create_dir_all(trial.folder(index)).expect("a folder");
        }
        trial
    }

    /// The folder that a node sees as its root.
    fn folder(&self, index: u64) -> PathBuf {
        let shares = (self.senders..self.senders + self.sharers).contains(&index);
        let index = if shares { self.senders } else { index };
        self.home.path().join(index.to_string())
    }

    /// The terms of one attempt, by one of its masters.
    fn terms(&self, number: u64, master: u64) -> (Roster, AttemptConfig) {
        let roster = Roster::new(&self.spec);
        let attempt = [(2 * number + master) as u8 + 1; 16];
        let identity = TransferIdentity {
            id: self.spec.id.clone(),
            transfer: attempt,
            attempt,
            flow_key: [3; 32],
        };
        let terms = AttemptConfig::new(&self.spec, &roster, identity, self.transfer_options);
        (roster, terms)
    }

    /// A cluster for one attempt, with the files of its nodes.
    fn cluster(&mut self, number: u64, is_troubled: bool, launched: bool) -> SimCluster {
        let (roster, terms) = self.terms(number, 0);
        let mut world = SimWorld { launched, seed: self.random.next_u64(), ..self.world.clone() };
        world.keeps_log = self.keeps_log;
        if is_troubled {
            world.faults = self.faults();
        }
        let indices = self.indices();
        let mut cluster = SimCluster::new(roster, terms, world);
        for (at, index) in indices.into_iter().enumerate() {
            let is_full = is_troubled && self.random.chance(30);
            if is_full {
                self.tally.met("a disk is full");
            }
            let (folder, data) = (self.folder(index), self.data);
            let open = move || -> Box<dyn SimDisk> {
                let mut files = Files::new(&folder, data);
                files.is_full = is_full;
                Box::new(files)
            };
            cluster.set_disks(NodeIx(at as u32), Box::new(open));
        }
        cluster
    }

    /// The numbers in the names of the nodes, by their index.
    fn indices(&self) -> Vec<u64> {
        Roster::new(&self.spec).entries.iter().map(|entry| index_of(&entry.address)).collect()
    }

    /// The master of an attempt dies, or is out of reach, and another one may take its place.
    /// Returns the moment at which that is over.
    fn end_master(&mut self, cluster: &mut SimCluster, number: u64) -> Moment {
        let (moment, nodes) = (self.moment(), self.indices().len() as u32);
        let mut over = moment;
        let master = MasterIx(0);
        if self.random.below(3) == 0 {
            // Its sessions break, and it is back while they may be resumed, or later.
            self.tally.met("the master is out of reach");
            let length = Duration::from_millis(6_500 + self.random.below(8_000));
            over = moment + length;
            self.spells.push(Span::new(moment.0, (over + NOTICED_WITHIN).0));
            for node in (0..nodes).map(|node| SimEndpoint::Node(NodeIx(node))) {
                let master = SimEndpoint::Master(master);
                cluster.fault(moment, InjectedFault::Cut(master, node, length));
                cluster.fault(moment, InjectedFault::Cut(node, master, length));
            }
        } else {
            self.tally.met("the master dies");
            let is_off = self.random.below(2) == 0;
            cluster.fault(moment, InjectedFault::EndMaster { master, is_off });
        }
        if self.random.below(2) == 0 {
            self.tally.met("another master takes over");
            // Nodes take a master without power for alive for some seconds.
            let after = NOTICED_WITHIN + Duration::from_millis(self.random.below(25_000));
            let (roster, terms) = self.terms(number, 1);
            cluster.add_master(moment + after, roster, terms);
            over = over.max(moment + after);
        }
        over
    }

    /// One attempt, with what befalls it.
    fn attempt(&mut self, number: u64, is_troubled: bool) -> Result<(), Error> {
        let indices = self.indices();
        let ends_master = is_troubled && self.random.below(5) == 0;
        let launched = !ends_master && self.random.below(4) == 0;
        let mut cluster = self.cluster(number, is_troubled, launched);
        let mut calm = Moment(0);
        self.spells.clear();
        if ends_master {
            calm = self.end_master(&mut cluster, number);
        }
        if is_troubled {
            for _ in 0..self.random.below(5) {
                calm = calm.max(self.trouble(&mut cluster, indices.len() as u64, ends_master));
            }
        }
        cluster.deadline = Some(calm + CALM_WITHIN + Duration::from_secs_f64(100.0 * self.seconds));
        if self.keeps_log {
            println!(
                "attempt {number}: {:#?} {:?} {:?}",
                self.spec.rows, self.transfer_options, self.world
            );
        }
        self.log = cluster.log();
        let outcome = cluster.run();
        if self.keeps_log {
            outcome.log.iter().for_each(|line| println!("{line}"));
            println!("{:?} {:?}", outcome.error, outcome.counts);
        }
        self.tally.attempts += 1;
        let heard_out = indices.into_iter().zip(outcome.heard_out);
        self.deaf = heard_out.filter(|(_, heard_out)| !heard_out).map(|(index, _)| index).collect();
        self.tally.landed_bytes += outcome.history.landed_bytes();
        self.tally.resumed_bytes += outcome.counts.resumed_bytes;
        self.tally.retries += outcome.counts.retries;
        self.check_named();
        match outcome.error {
            None => Ok(()),
            Some(error) => {
                assert!(!error.message.is_empty(), "an error says what happened");
                let is_stalled = error.code == Code::Stalled;
                // Troubles that follow one another at once count as one.
                let longest =
                    union(self.spells.clone()).into_iter().map(Span::bytes).max().unwrap_or(0);
                let may_stall = u128::from(longest) > STALLS_FROM.as_nanos();
                assert!(!is_stalled || may_stall, "{error}, and nothing lasted that long");
                let failed = self.tally.failed.entry(format!("{:?}", error.code)).or_default();
                *failed = (failed.0 + 1, format!("{}: {error}", self.spec.id));
                Err(error)
            }
        }
    }

    fn faults(&mut self) -> PieceFaults {
        let mut often = |one_in: u64, most: u64| {
            if self.random.below(one_in) == 0 { self.random.below(most) } else { 0 }
        };
        let faults = PieceFaults {
            changed: often(3, 50),
            broken: often(3, 30),
            unreadable: often(6, 20),
            unwritable: often(8, 5),
            detours: often(2, 200),
        };
        // Nobody would see it.
        let changed =
            if self.transfer_options.check == CheckKind::None { 0 } else { faults.changed };
        PieceFaults { changed, ..faults }
    }

    /// A moment at which something may still be going on.
    fn moment(&mut self) -> Moment {
        let span =
            (self.seconds * 1.3e9) as u64 + 4 * self.world.latency.as_nanos() as u64 + 50_000_000;
        // Short transfers are begun and ended for most of their time.
        Moment(if self.random.below(2) == 0 {
            self.random.below(span)
        } else {
            self.random.below(span / 8 + 1)
        })
    }

    /// A length of a millisecond to a minute.
    fn length(&mut self) -> Duration {
        let longest = Duration::from_millis(2 << self.random.below(15));
        Duration::from_nanos(self.random.below(longest.as_nanos() as u64) + 1_000_000)
    }

    /// Something befalls the cluster; when it is over.
    fn trouble(&mut self, cluster: &mut SimCluster, nodes: u64, ends_master: bool) -> Moment {
        let (moment, length) = (self.moment(), self.length());
        let [one, other] = [(); 2].map(|()| NodeIx(self.random.below(nodes) as u32));
        let mut over = moment + length;
        self.spells.push(Span::new(moment.0, over.0));
        let mut cut = |from: SimEndpoint, to: SimEndpoint| {
            cluster.fault(moment, InjectedFault::Cut(from, to, length));
        };
        let master = SimEndpoint::Master(MasterIx(0));
        let [from, to] = [one, other].map(SimEndpoint::Node);
        let kind = match self.random.below(16) {
            0 | 1 => {
                cluster.fault(moment, InjectedFault::Kill(one));
                over = moment;
                "a node dies"
            }
            2 | 3 => {
                cluster.fault(moment, InjectedFault::Freeze(one, length));
                "a node freezes"
            }
            4 => {
                cut(from, to);
                "one direction fails"
            }
            5 => {
                cut(from, to);
                cut(to, from);
                "two nodes do not reach each other"
            }
            6 => {
                cut(master, from);
                if self.random.below(2) == 0 {
                    cut(from, master);
                }
                "a node and the master do not reach each other"
            }
            7 => {
                cluster.fault(moment, InjectedFault::Reset(one));
                "flows are reset"
            }
            8 | 9 => {
                cluster.fault(moment, InjectedFault::Part(one));
                over = moment;
                "a control session breaks"
            }
            10 => {
                cluster.fault(moment, InjectedFault::PowerOff(one));
                over = moment + NOTICED_WITHIN;
                self.spells.push(Span::new(moment.0, over.0));
                "a machine loses its power"
            }
            11 if !ends_master => {
                // Up to half an hour: longer than anybody waits for a worker.
                let length = length * [1, 30][self.random.below(2) as usize];
                cluster.fault(moment, InjectedFault::Hang(one, length));
                over = moment + length;
                self.spells.push(Span::new(moment.0, over.0));
                "workers hang"
            }
            12 => {
                cluster.read_for(one, length);
                over = Moment(0) + 2 * length;
                "a worker reads for long"
            }
            13 => {
                cluster.fault(Moment(0), InjectedFault::LoseGoodBye(one));
                over = moment + NOTICED_WITHIN;
                "a good-bye is lost"
            }
            14 if self.random.below(2) == 0 => {
                cluster.fault(moment, InjectedFault::Stop(one));
                over = moment;
                "a node is asked to end"
            }
            _ if self.random.below(3) == 0 => {
                cluster.fault(moment, InjectedFault::Cancel(MasterIx(0)));
                "it is cancelled"
            }
            _ => {
                let links = self.world.links[one.at()];
                let part = 2f64.powi(self.random.below(6) as i32);
                cluster.relink(
                    one,
                    moment,
                    NodeLinks { up: links.up / part, down: links.down / part },
                );
                cluster.relink(one, over, links);
                "a link is slow"
            }
        };
        self.tally.met(kind);
        over
    }

    /// Files, sources and machines may suffer before the next attempt.
    fn between(&mut self) {
        if self.random.below(8) == 0 {
            self.tally.met("the sources change");
            self.data.generation += 1;
            // Files that were complete by then are of the old ones.
            self.transfer_options.overwrite = true;
        }
        if self.writes_over_itself() {
            // Nothing is recorded of such a file but that it is complete: then it is refused, as
            // every file that exists.
            self.transfer_options.overwrite = true;
        }
        let synced = self.transfer_options.fsync;
        for index in self.receivers() {
            let folder = self.folder(index);
            match self.random.below(8) {
                0 => {
                    self.tally.met("a journal is damaged");
                    damage(&folder, &mut self.random);
                    // Nobody knows any more that the file is this transfer's.
                    self.transfer_options.overwrite = true;
                }
                1 => {
                    self.tally.met("a power cut");
                    let rows = self
                        .spec
                        .rows
                        .iter()
                        .filter(|row| self.folder(index_of(&row.node)) == folder);
                    let rows: Vec<Row> =
                        rows.filter(|row| row.role == RowRole::Receiver).cloned().collect();
                    let in_file = |name: &str, span: Span| places(&rows, name, span);
                    cut_power(&folder, synced, &mut self.random, in_file);
                    self.transfer_options.overwrite = true;
                }
                _ => {}
            }
        }
    }

    /// Two rows write the same bytes of one file that several nodes write.
    fn writes_over_itself(&self) -> bool {
        let shared = self.spec.rows.iter().filter(|row| row.uri == DataUri::File("/shared".into()));
        let mut ranges: Vec<Span> = shared.map(|row| row.range).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.windows(2).any(|pair| pair[1].start < pair[0].end)
    }

    fn receivers(&self) -> Vec<u64> {
        let rows = self.spec.rows.iter().filter(|row| row.role == RowRole::Receiver);
        rows.map(|row| index_of(&row.node)).collect()
    }

    /// The rows of receivers that keep files, each with its file.
    fn files(&self) -> impl Iterator<Item = (&Row, PathBuf)> {
        self.spec.rows.iter().filter(|row| row.role == RowRole::Receiver).filter_map(|row| {
            let DataUri::File(path) = &row.uri else { return None };
            let index = index_of(&row.node);
            Some((row, self.folder(index).join(path.strip_prefix("/").expect("it is absolute"))))
        })
    }

    /// A file that has its name is complete, and of one generation of the sources.
    fn check_named(&self) {
        for (row, path) in self.files().filter(|(row, _)| row.group.is_none()) {
            let Ok(bytes) = fs::read(&path) else { continue };
            let offset = row.offset_bytes as usize;
            let bytes = &bytes[offset..offset + row.range.bytes() as usize];
            let is_of = |generation: &u64| {
                Data { generation: *generation, ..self.data }.bytes(row.range) == bytes
            };
            // Files that a power cut has struck and that nobody has called complete yet are left
            // to the next attempt.
            let is_cut =
                !self.transfer_options.fsync && self.tally.troubles.contains_key("a power cut");
            assert!(
                is_cut || (1..=self.data.generation).any(|it| is_of(&it)),
                "{} is wrong",
                path.display()
            );
        }
    }

    /// Every byte is there and right, and nothing else is.
    fn check_all(&self) {
        let mut named = Vec::new();
        for (row, path) in self.files() {
            let bytes =
                fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if row.group.is_none() {
                let offset = row.offset_bytes as usize;
                let expected = self.data.bytes(row.range);
                let found = &bytes[offset..offset + expected.len()];
                let wrong =
                    found.iter().zip(&expected).position(|(found, expected)| found != expected);
                assert_eq!(
                    wrong,
                    None,
                    "{}: the first wrong byte of {} in the row",
                    path.display(),
                    row.range
                );
            }
            named.push(path);
        }
        self.check_group();
        for index in self.receivers() {
            // A node that died or was out of reach at the end does not know that its
            // journal is of no use.
            let folder = self.folder(index);
            let is_deaf = self.deaf.iter().any(|deaf| self.folder(*deaf) == folder);
            let may_stay = |path: &PathBuf| is_deaf && is_journal(path);
            let left =
                listed(&folder).into_iter().filter(|path| !named.contains(path) && !may_stay(path));
            let left: Vec<PathBuf> = left.collect();
            assert!(left.is_empty(), "{left:?} are left over");
        }
    }

    /// The participants of a group have, between them, all of it.
    fn check_group(&self) {
        let participants = self.files().filter(|(row, _)| row.group.is_some());
        let parts: Vec<(&Row, Vec<u8>)> =
            participants.map(|(row, path)| (row, fs::read(path).expect("it is there"))).collect();
        let Some((first, _)) = parts.first() else { return };
        // A participant may keep nothing.
        let all = self.spec.rows.iter().filter(|row| row.group.is_some()).count();
        let expected = self.data.bytes(first.range);
        for (at, byte) in expected.iter().enumerate().filter(|_| all == parts.len()) {
            let has = parts
                .iter()
                .any(|(row, bytes)| bytes.get(row.offset_bytes as usize + at) == Some(byte));
            assert!(has, "byte {at} of the group's range is nowhere");
        }
    }
}

/// A part of a range, at least a byte.
fn part(random: &mut SplitMix, whole: Span) -> Span {
    let start = whole.start + random.below(whole.bytes());
    Span::of(start, 1 + random.below(whole.end - start))
}

/// Places of a range in the file of a node whose name, or partial name, is this.
fn places(rows: &[Row], name: &str, span: Span) -> Vec<Span> {
    let of_file = rows.iter().filter(|row| {
        let DataUri::File(path) = &row.uri else { return false };
        let file = path.file_name().and_then(|name| name.to_str()).expect("names are ours");
        name == file || name.starts_with(&format!(".{file}.cep-"))
    });
    let there = of_file.filter_map(|row| {
        let part = row.range.intersection(span)?;
        Some(Span::of(row.offset_bytes + part.start - row.range.start, part.bytes()))
    });
    there.collect()
}

/// Memory, where there is some.
const HOMES: [&str; 2] = ["/dev/shm", "/tmp"];

const PATHS: [DataPath; 5] =
    [DataPath::Auto, DataPath::Direct, DataPath::Splice, DataPath::Zerocopy, DataPath::Copy];

//! One random transfer from a seed: a cluster, what befalls it, and as many attempts as it takes.
//! In the end every byte is right, and nothing else is there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use random::SplitMix;

use super::files::{Data, Files};
use crate::core::error::{Code, Error};
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::roster::Roster;
use crate::core::options::TransferOptions;
use crate::core::sim::cluster::SimCluster;
use crate::core::sim::disk::SimDisk;
use crate::core::sim::schedule::EventLog;
use crate::core::sim::world::SimWorld;
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole, Spec};
use crate::core::units::{Moment, NodeIx, Span, union};

/// A transfer stalls only where something lasts at least so long: what is silent is given up after
/// a third of the stall timeout.
const STALLS_FROM: Duration = Duration::from_secs(10);
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

    pub(super) fn met(&mut self, kind: &'static str) {
        *self.troubles.entry(kind).or_default() += 1;
    }
}

/// A transfer, drawn from a seed.
pub(super) struct Trial {
    pub(super) random: SplitMix,
    pub(super) spec: Spec,
    pub(super) transfer_options: TransferOptions,
    pub(super) world: SimWorld,
    pub(super) data: Data,
    /// The senders are the first of the nodes.
    pub(super) senders: u64,
    pub(super) home: tempfile::TempDir,
    /// So many receivers, the first ones, write one file between them, in one folder.
    pub(super) sharers: u64,
    /// About how long it takes.
    pub(super) seconds: f64,
    pub(super) tally: Tally,
    pub(super) keeps_log: bool,
    pub(super) log: EventLog,
    /// Spells of the troubles of the attempt, in nanoseconds.
    pub(super) spells: Vec<Span>,
    /// Nodes that did not hear of the end of the last attempt.
    pub(super) deaf: Vec<u64>,
}

impl Drop for Trial {
    /// The message of a broken promise does not say what led to it.
    fn drop(&mut self) {
        self.log.take().iter().for_each(|line| println!("{line}"));
    }
}

/// The number in a node's name.
pub(super) fn index_of(node: &NodeAddress) -> u64 {
    node.host[1..].parse().expect("n and a number")
}

impl Trial {
    /// The folder that a node sees as its root.
    pub(super) fn folder(&self, index: u64) -> PathBuf {
        let shares = (self.senders..self.senders + self.sharers).contains(&index);
        let index = if shares { self.senders } else { index };
        self.home.path().join(index.to_string())
    }

    /// The terms of one attempt, by one of its masters.
    pub(super) fn terms(&self, number: u64, master: u64) -> (Roster, AttemptConfig) {
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
    pub(super) fn cluster(&mut self, number: u64, is_troubled: bool, launched: bool) -> SimCluster {
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
    pub(super) fn indices(&self) -> Vec<u64> {
        Roster::new(&self.spec).entries.iter().map(|entry| index_of(&entry.address)).collect()
    }

    /// One attempt, with what befalls it.
    pub(super) fn attempt(&mut self, number: u64, is_troubled: bool) -> Result<(), Error> {
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

    pub(super) fn receivers(&self) -> Vec<u64> {
        let rows = self.spec.rows.iter().filter(|row| row.role == RowRole::Receiver);
        rows.map(|row| index_of(&row.node)).collect()
    }

    /// The rows of receivers that keep files, each with its file.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Row, PathBuf)> {
        self.spec.rows.iter().filter(|row| row.role == RowRole::Receiver).filter_map(|row| {
            let DataUri::File(path) = &row.uri else { return None };
            let index = index_of(&row.node);
            Some((row, self.folder(index).join(path.strip_prefix("/").expect("it is absolute"))))
        })
    }
}

//! Troubles of random transfers, within an attempt and between two.

use std::time::Duration;

use super::files::{cut_power, damage};
use super::trial::{Trial, index_of};
use crate::core::options::CheckKind;
use crate::core::sim::cluster::SimCluster;
use crate::core::sim::net::NodeLinks;
use crate::core::sim::world::{InjectedFault, MasterIx, PieceFaults, SimEndpoint};
use crate::core::spec::{DataUri, Row, RowRole};
use crate::core::units::{Moment, NodeIx, Span};

/// Time in which a session to a machine without power is taken for broken, and resumed in vain.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// A length that outlasts every transfer.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Time after which nobody waits for a worker any more.
const WORKERS_GIVEN_UP: Duration = Duration::from_secs(2000);

impl Trial {
    /// The master of an attempt dies, or is out of reach, and another one may take its place.
    /// Returns the moment at which that is over.
    pub(super) fn end_master(&mut self, cluster: &mut SimCluster, number: u64) -> Moment {
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

    pub(super) fn faults(&mut self) -> PieceFaults {
        let mut often = |one_in: u64, most: u64| {
            if self.random.below(one_in) == 0 { self.random.below(most) } else { 0 }
        };
        let faults = PieceFaults {
            changed: often(3, 50),
            broken: often(3, 30),
            unreadable: often(6, 20),
            unwritable: often(8, 5),
            detours: often(2, 200),
            changed_packet_in: 0,
        };
        // Nobody would see it.
        let changed =
            if self.transfer_options.check == CheckKind::None { 0 } else { faults.changed };
        PieceFaults { changed, ..faults }
    }

    /// A moment at which something may still be going on.
    pub(super) fn moment(&mut self) -> Moment {
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
    pub(super) fn length(&mut self) -> Duration {
        let longest = Duration::from_millis(2 << self.random.below(15));
        Duration::from_nanos(self.random.below(longest.as_nanos() as u64) + 1_000_000)
    }

    /// Something befalls the cluster; when it is over.
    pub(super) fn trouble(
        &mut self,
        cluster: &mut SimCluster,
        nodes: u64,
        ends_master: bool,
    ) -> Moment {
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
                // Up to half an hour is longer than anybody waits for a worker; or it never ends.
                let longest = [length, 30 * length, FOR_EVER][self.random.below(3) as usize];
                cluster.fault(moment, InjectedFault::Hang(one, longest));
                over = moment + longest.min(WORKERS_GIVEN_UP);
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
    pub(super) fn between(&mut self) {
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
    pub(super) fn writes_over_itself(&self) -> bool {
        let shared = self.spec.rows.iter().filter(|row| row.uri == DataUri::File("/shared".into()));
        let mut ranges: Vec<Span> = shared.map(|row| row.range).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.windows(2).any(|pair| pair[1].start < pair[0].end)
    }
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

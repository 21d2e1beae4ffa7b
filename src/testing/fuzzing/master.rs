//! A master without its sessions: a `Conductor` whose nodes come and go and say anything that the
//! wire lets through, and a user who may give up.

use std::collections::VecDeque;
use std::time::Duration;

use super::byte_source::ByteSource;
use crate::core::check::replica_hash::value_count;
use crate::core::error::{Code, Error};
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::coordinator::{
    Coordinator, CoordinatorAction, CoordinatorEvent, TransferPhase,
};
use crate::core::master::roster::Roster;
use crate::core::master::summary;
use crate::core::options::TransferOptions;
use crate::core::spec::Spec;
use crate::core::units::{Moment, NodeIx, Span, union};
use crate::core::wire::Check;
use crate::core::wire::control::{
    CheckValue, KeptRanges, LandedSegment, NodeAdvert, NodeStats, Prepared, RailAdvert, RowState,
    SegmentChecks, SenderDelivery, SourceOrigin, SpeedSample, Start, ToMaster, ToNode, decode,
    encode,
};

/// Rows of the transfers: apart, copied, into one file, by a group, by a node that does both.
const ROWS: [&str; 5] = [
    "writer a:1 pattern:1 0 0-99\nreader b:1 null: 0 0-99\n",
    "writer a:1 pattern:1 0 0-9999999\nwriter b:1 pattern:1 0 5000000-9999999\n\
     reader c:1 file:///x 0 0-9999999\nreader d:1 file:///y 0 0-9999999\n",
    "writer a:1 pattern:1 0 0-9999\n\
     reader b:1 file:///x 0 0-4999\n\
     reader c:1 file:///x 5000 5000-9999\n\
     reader d:1 file:///x 100 100-199\n",
    "writer a:1 pattern:1 0 0-9999999\n\
     reader b:1 file:///x 0 0-9999999 group=g\n\
     reader c:1 file:///y 0 0-9999999 group=g\n",
    "writer a:1 pattern:1 0 0-9999\nreader b:1 null: 0 0-9999\nwriter b:1 pattern:1 0 10000-19999\n\
     reader a:1 file:///x 0 10000-19999\n",
];

/// Rounds in which a kind world is asked to go on; every wait has a deadline, and there are some
/// ten of them.
const ROUNDS_MAX: usize = 1000;

/// Phases follow each other, every wait has a deadline, whatever is said can be read, numbers add
/// up, nobody's word but that of all receivers makes the transfer complete, and once everybody is
/// kind, it ends.
pub fn master(bytes: &[u8]) {
    let mut script = ByteSource::new(bytes);
    let mut world = MasterWorld::new(&mut script);
    while !script.is_over() {
        world.step(&mut script);
    }
    world.end();
}

struct MasterWorld {
    now: Moment,
    coordinator: Coordinator,
    nodes: Vec<FuzzedNode>,
}

/// Messages to and from a node.
#[derive(Default)]
struct FuzzedNode {
    /// Messages that it has not answered.
    unanswered: VecDeque<ToNode>,
    start: Option<Start>,
    has_landed: bool,
}

impl MasterWorld {
    fn new(script: &mut ByteSource<'_>) -> MasterWorld {
        let rows = script.pick(&ROWS);
        let spec = Spec::parse("fuzz", &format!("id fuzz\n{rows}")).expect("a specification");
        let roster = Roster::new(&spec);
        let identity = TransferIdentity {
            id: "fuzz".into(),
            transfer: [1; 16],
            attempt: [2; 16],
            flow_key: [3; 32],
        };
        let timeout = script.coin().then_some(Duration::from_secs(60));
        let terms = AttemptConfig::new(
            &spec,
            &roster,
            identity,
            TransferOptions { timeout, ..TransferOptions::default() },
        );
        let now = Moment(1_000_000);
        let nodes = roster.entries.iter().map(|_| FuzzedNode::default()).collect();
        MasterWorld { now, coordinator: Coordinator::new(now, roster, terms), nodes }
    }

    fn step(&mut self, script: &mut ByteSource<'_>) {
        let at = script.below(self.nodes.len());
        let node = NodeIx(at as u32);
        match script.below(16) {
            0 | 1 => self.hear(CoordinatorEvent::NodeUp { node, advert: advert(script.below(3)) }),
            2 if script.below(8) == 7 => {
                self.hear(CoordinatorEvent::NodeDown {
                    node,
                    error: Error::new(Code::Stalled, "it broke"),
                });
            }
            3 => self.hear(CoordinatorEvent::NodeBack { node, heard: script.below(6) as u32 }),
            4 if script.below(8) == 7 => {
                self.hear(CoordinatorEvent::Cancel { reason: "enough".into() });
            }
            5 => {
                let wait = script.pick(&[0, 1_000_000, 1_000_000_000, 20_000_000_000]);
                self.now = self.now + Duration::from_nanos(wait);
                if self.coordinator.poll_timeout().is_some_and(|due| self.now >= due) {
                    self.hear(CoordinatorEvent::Tick);
                }
            }
            6..=10 => self.answer(at),
            _ => {
                let bytes = encode(&self.anything(at, script)).expect("it fits");
                if let Ok(message) = decode::<ToMaster>(&bytes) {
                    self.say(at, message);
                }
            }
        }
    }

    /// A node does as it was told.
    fn answer(&mut self, at: usize) {
        let Some(told) = self.nodes[at].unanswered.pop_front() else { return };
        let message = match told {
            ToNode::Prepare(prepare) => {
                let rows = vec![RowState::default(); prepare.rows.len()];
                let replicas = vec![1; value_count(&prepare.replicas)];
                ToMaster::Prepared(Prepared { rows, replicas, ..Prepared::default() })
            }
            ToNode::Start(start) if start.epoch == 1 => {
                ToMaster::Landed { segments: landed(&start, 1), stats: NodeStats::default() }
            }
            ToNode::Commit => ToMaster::Committed,
            ToNode::Finish | ToNode::Cancel { .. } => ToMaster::Report(NodeStats::default()),
            // One that was prepared anew would have heard of its first plan.
            ToNode::Start(_)
            | ToNode::Resume(_)
            | ToNode::MakeWay { .. }
            | ToNode::Survey(_)
            | ToNode::Called { .. } => {
                return;
            }
        };
        self.say(at, message);
    }

    fn say(&mut self, at: usize, message: ToMaster) {
        let node = &mut self.nodes[at];
        node.has_landed |= node.start.is_some() && matches!(message, ToMaster::Landed { .. });
        self.hear(CoordinatorEvent::Message { node: NodeIx(at as u32), message });
    }

    /// Something that a node may say, or not.
    fn anything(&self, at: usize, script: &mut ByteSource<'_>) -> ToMaster {
        match script.below(9) {
            8 => ToMaster::Comparing { read_bytes: number(script) },
            0 | 1 => ToMaster::Prepared(self.prepared(at, script)),
            2 | 3 => {
                let delivered = |script: &mut ByteSource<'_>| SenderDelivery {
                    index: script.below(6) as u32,
                    bytes: number(script),
                    busy: script.coin(),
                    sample: SpeedSample {
                        bytes: number(script),
                        micros: number(script),
                        waiting_micros: number(script),
                    },
                };
                ToMaster::Progress {
                    received_bytes: number(script),
                    sent_bytes: number(script),
                    delivered: (0..script.below(3)).map(|_| delivered(script)).collect(),
                    left: (0..script.below(3)).map(|_| number(script)).collect(),
                    missing_bytes: if script.coin() { 0 } else { number(script) },
                    lost: Vec::new(),
                }
            }
            4 => {
                let known = self.nodes[at].start.as_ref().filter(|_| script.coin());
                let strange = |span| LandedSegment { span, checks: listed(span, 7) };
                let segments = match known {
                    Some(start) => landed(start, script.below(2) as u64),
                    None => spans(script).into_iter().map(strange).collect(),
                };
                ToMaster::Landed {
                    segments,
                    stats: NodeStats { received_bytes: number(script), ..NodeStats::default() },
                }
            }
            5 => ToMaster::Report(NodeStats { sent_bytes: number(script), ..NodeStats::default() }),
            6 => ToMaster::Committed,
            _ => {
                let code = script.pick(&[
                    Code::Cancelled,
                    Code::Data,
                    Code::Integrity,
                    Code::Stalled,
                    Code::Internal,
                ]);
                let stats = script.coin().then(Box::default);
                ToMaster::Failed {
                    error: Error::new(code, "it says so").missing(spans(script)),
                    stats,
                }
            }
        }
    }

    fn prepared(&self, at: usize, script: &mut ByteSource<'_>) -> Prepared {
        let rows =
            self.coordinator.roster().entries[at].rows.len() + usize::from(script.below(16) == 15);
        let row = |script: &mut ByteSource<'_>| RowState {
            shared: script.coin(),
            kept: script.coin(),
            complete: script.coin(),
        };
        let rows: Vec<RowState> = (0..rows).map(|_| row(script)).collect();
        let states = rows.iter().map(|_| script.pick(&[0, 1, 2])).collect();
        let origin = |script: &mut ByteSource<'_>| SourceOrigin {
            who: script.pick(&[0, 1]),
            state: script.pick(&[0, 1, 2]),
        };
        let have = spans(script)
            .into_iter()
            .map(|span| KeptRanges { span, origin: origin(script) })
            .collect();
        let error = (script.below(32) == 31).then(|| Error::new(Code::Data, "no such file"));
        let replicas = (0..script.below(40)).map(|_| script.pick(&[0, 1, 2])).collect();
        let (holes, sealed, notes, modes) = (spans(script), script.coin(), Vec::new(), Vec::new());
        Prepared { rows, states, have, error, holes, sealed, notes, modes, replicas }
    }

    fn hear(&mut self, event: CoordinatorEvent) {
        let before = self.coordinator.phase();
        self.coordinator.handle(self.now, event);
        while let Some(CoordinatorAction { node, message }) = self.coordinator.poll_action() {
            let bytes = encode(&message).expect("it fits");
            assert_eq!(decode::<ToNode>(&bytes).as_ref(), Ok(&message), "it can be read");
            let node = &mut self.nodes[node.at()];
            if let ToNode::Start(start) = &message {
                node.start = Some(start.clone());
            }
            node.unanswered.push_back(message);
        }
        let phase = self.coordinator.phase();
        assert!(phase >= before, "from {before:?} back to {phase:?}");
        assert_eq!(
            self.coordinator.poll_timeout().is_none(),
            phase == TransferPhase::Done,
            "{phase:?}"
        );
        let landed = self
            .coordinator
            .peers()
            .iter()
            .fold(0_u64, |sum, peer| sum.saturating_add(peer.landed_bytes));
        assert_eq!(self.coordinator.landed_bytes(), landed);
        if phase == TransferPhase::Done && self.coordinator.error().is_none() {
            for (entry, node) in self.coordinator.roster().entries.iter().zip(&self.nodes) {
                assert!(node.has_landed || !entry.receives(), "{} has not landed", entry.address);
            }
        }
        let report = summary::report(&self.coordinator, Duration::from_secs(1));
        assert_eq!(
            (report.error.is_none(), report.bytes),
            (self.coordinator.error().is_none(), landed)
        );
    }

    /// Everybody is kind from now on.
    fn end(&mut self) {
        for at in 0..self.nodes.len() {
            self.hear(CoordinatorEvent::NodeUp { node: NodeIx(at as u32), advert: advert(1) });
        }
        for _ in 0..ROUNDS_MAX {
            for at in 0..self.nodes.len() {
                while !self.nodes[at].unanswered.is_empty() {
                    self.answer(at);
                }
            }
            let Some(due) = self.coordinator.poll_timeout() else { return };
            self.now = self.now.max(due);
            self.hear(CoordinatorEvent::Tick);
        }
        panic!("it does not end: {:?}", self.coordinator.phase());
    }
}

fn advert(rails: usize) -> NodeAdvert {
    let address = std::net::SocketAddr::from(([10, 0, 0, 1], 40_000));
    let rail = |at: usize| RailAdvert {
        nic: format!("eth{at}"),
        address,
        line: None,
        mtu: None,
        numa: None,
    };
    let rails = (0..rails).map(rail).collect();
    NodeAdvert { software: "fuzz".into(), rails, cores: 1, boot_id: String::new(), incarnation: 1 }
}

/// All that a plan wants, with a check that says which replica it came from.
fn landed(start: &Start, replica: u64) -> Vec<LandedSegment> {
    let checks = |span: Span| listed(span, span.start + replica);
    start
        .segments
        .iter()
        .map(|it| LandedSegment { span: it.span, checks: checks(it.span) })
        .collect()
}

fn listed(span: Span, crc: u64) -> SegmentChecks {
    SegmentChecks::Listed(vec![CheckValue { span, check: Check::Crc64(crc) }])
}

fn number(script: &mut ByteSource<'_>) -> u64 {
    script.pick(&[0, 1, 100, 5_000_000, 10_000_000, u64::MAX / 2, u64::MAX])
}

/// Up to three ranges, ascending and apart.
fn spans(script: &mut ByteSource<'_>) -> Vec<Span> {
    let starts = [0, 50, 4000, 5000, 10_000, 5_000_000, u64::MAX - 100];
    let span =
        |script: &mut ByteSource<'_>| Span::of(script.pick(&starts), script.pick(&[1, 50, 100]));
    union((0..script.below(4)).map(|_| span(script)).collect())
}

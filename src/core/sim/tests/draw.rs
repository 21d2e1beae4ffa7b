//! Random transfers: their rows, options and worlds, drawn from a seed.

use std::fs;
use std::time::Duration;

use random::SplitMix;

use super::files::Data;
use super::row;
use super::trial::{Tally, Trial};
use crate::core::master::roster::Roster;
use crate::core::options::{CheckKind, DataPath, Scheduler, TransferOptions};
use crate::core::sim::net::NodeLinks;
use crate::core::sim::schedule::EventLog;
use crate::core::sim::world::{PieceFaults, SerialDisk, SimWorld};
use crate::core::spec::{DataUri, Row, RowRole, Spec};
use crate::core::units::{BitRate, Span, union};

/// In every fourth trial one node has a slow disk.
fn disks(seed: u64, count: usize) -> Vec<Option<SerialDisk>> {
    let mut random = SplitMix::new(seed ^ 0xd15c);
    let mut disks = vec![None; count];
    if random.below(4) == 0 {
        let rate = f64::from(1 << 18) * f64::from(1 << random.below(6));
        let node = random.below(count as u64) as usize;
        disks[node] = Some(SerialDisk { reads: rate, writes: rate });
    }
    disks
}

/// A transfer, drawn from a seed.
pub(super) fn draw(seed: u64) -> Trial {
    let mut random = SplitMix::new(seed);
    let block = 4096 << random.below(3);
    let start = random.below(3) * 1000;
    let bytes = block * (1 + random.below(40)) - random.below(block);
    let whole = Span::of(start, bytes);
    let (senders, receivers) = (1 + random.below(3), 1 + random.below(4));
    let sharers =
        if receivers > 1 && random.below(6) == 0 { 2 + random.below(receivers - 1) } else { 0 };
    let mut rows = Vec::new();
    let row_of = |role, index: u64, uri, offset_bytes, range: Span| {
        let row = row(role, index as u32, range.start, range.end);
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
            rows.push(row_of(RowRole::Sender, sender, DataUri::Pattern(1), 0, range));
        }
    }
    // One range for all of them has them feed each other.
    let same = (random.below(2) == 0)
        .then(|| if random.below(2) == 0 { whole } else { part(&mut random, whole) });
    let group =
        (receivers > 1 && sharers == 0 && random.below(4) == 0).then(|| String::from("group"));
    let members = 2 + random.below(receivers.max(2) - 1);
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
        let mut row = row_of(RowRole::Receiver, senders + index, uri, offset, range);
        row.group = group.clone().filter(|_| index < members);
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
    let links: Vec<NodeLinks> =
        (0..count).map(|_| NodeLinks { up: rate(&mut random), down: rate(&mut random) }).collect();
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
    let microseconds = |random: &mut SplitMix, most: u64| Duration::from_micros(random.below(most));
    let world = SimWorld {
        links,
        rails: (0..count).map(|_| 1 + random.below(3) as usize).collect(),
        claims: Vec::new(),
        stores: Vec::new(),
        latency: match random.below(2) {
            0 => microseconds(&mut random, 200),
            _ => microseconds(&mut random, 20_000),
        },
        disk_latency: microseconds(&mut random, 5_000),
        disk_bytes_per_second: 1e9,
        disks: disks(seed, count),
        disk_whims: match random.below(3) {
            0 => microseconds(&mut random, 200_000),
            _ => Duration::ZERO,
        },
        lossy: None,
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

/// A part of a range, at least a byte.
fn part(random: &mut SplitMix, whole: Span) -> Span {
    let start = whole.start + random.below(whole.bytes());
    Span::of(start, 1 + random.below(whole.end - start))
}

/// Memory, where there is some.
const HOMES: [&str; 2] = ["/dev/shm", "/tmp"];

const PATHS: [DataPath; 5] =
    [DataPath::Auto, DataPath::Direct, DataPath::Splice, DataPath::Zerocopy, DataPath::Copy];

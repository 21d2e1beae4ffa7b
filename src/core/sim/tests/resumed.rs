//! Transfers that are interrupted, and continued by another attempt, with real files.

use std::path::Path;

use super::files::{Data, Files, is_journal, listed};
use super::*;
use crate::io::store::journal::spans;

/// Returns a cluster for an attempt with blocks of this size at a file with holes, in two copies.
fn attempt_with_blocks(home: &Path, block_bytes: u64, seed: u64) -> SimCluster {
    let mut rows = vec![row(RowRole::Sender, 0, 0, 8 << 20)];
    for node in 1..3 {
        let uri = DataUri::File(format!("/n{node}").into());
        rows.push(Row { uri, ..row(RowRole::Receiver, node, 0, 8 << 20) });
    }
    let spec = Spec { rows, block_bytes: Some(block_bytes), ..Spec::default() };
    let roster = Roster::new(&spec);
    let options = TransferOptions {
        check: CheckKind::Crc64,
        limit: Some(BitRate(50_000_000)),
        ..TransferOptions::default()
    };
    let terms = AttemptConfig::new(&spec, &roster, identity(seed as u8), options);
    let links = vec![NodeLinks { up: GBIT, down: GBIT }; roster.entries.len()];
    let mut cluster = SimCluster::new(roster, terms, SimWorld { links, seed, ..quiet_world() });
    for node in 0..3 {
        let home = home.to_owned();
        let data = Data { generation: 1, hole_every: 5 };
        let open = move || -> Box<dyn SimDisk> { Box::new(Files::new(&home, data)) };
        cluster.set_disks(NodeIx(node), Box::new(open));
    }
    cluster
}

/// Every attempt has other blocks than the one before, and each completes a part of the rest.
#[test]
fn a_journal_is_of_use_to_an_attempt_with_another_block() {
    let folder = || tempfile::tempdir().expect("a folder");
    let whole = attempt_with_blocks(folder().path(), BLOCK, 0).run();
    assert_eq!(whole.error, None);
    for blocks in [[16 << 10, 256 << 10, 4096], [1 << 20, 64 << 10, 512 << 10]] {
        let home = folder();
        for (seed, block) in (1..).zip(blocks).take(2) {
            let mut cluster = attempt_with_blocks(home.path(), block, seed);
            cluster.fault(Moment(700_000_000), InjectedFault::Kill(NodeIx(0)));
            assert!(cluster.run().error.is_some(), "its only sender died");
        }
        let kept = kept_bytes(home.path());
        let last = attempt_with_blocks(home.path(), blocks[2], 3).run();
        assert_eq!((last.error, &last.digest), (None, &whole.digest), "{blocks:?}");
        // A piece that is known in part starts again: at the ends of few runs.
        let resumed = last.counts.resumed_bytes;
        assert!(kept > 2 << 20 && resumed > kept * 3 / 4, "{resumed} of {kept}, {blocks:?}");
    }
}

/// The readers of `overlapping`, with files of their own.
fn to_files(mib: u64) -> Vec<Row> {
    let mut rows = overlapping(mib);
    for row in rows.iter_mut().filter(|row| row.role == RowRole::Receiver) {
        row.uri = DataUri::File(format!("/{}", row.node.host).into());
    }
    rows
}

/// An attempt at moving them, of about three seconds, with real files in `home`; the sources of
/// `touched` look otherwise, and then what is complete may be replaced.
fn attempt(home: &Path, faults: PieceFaults, seed: u64, touched: &[u32]) -> SimCluster {
    let limit = Some(BitRate(50_000_000));
    let transfer_options = TransferOptions {
        check: CheckKind::Crc64,
        limit,
        overwrite: !touched.is_empty(),
        ..TransferOptions::default()
    };
    let mut cluster = with(transfer_options, to_files(8), faults, seed);
    for node in 0..7 {
        let (home, is_touched) = (home.to_owned(), touched.contains(&node));
        let open = move || -> Box<dyn SimDisk> {
            let mut files = Files::new(&home, Data { generation: 1, hole_every: 0 });
            files.touched = is_touched;
            Box::new(files)
        };
        cluster.set_disks(NodeIx(node), Box::new(open));
    }
    cluster
}

/// Bytes that the journals in `home` speak of.
fn kept_bytes(home: &Path) -> u64 {
    let journals = listed(home).into_iter().filter(|path| is_journal(path));
    let spans = journals.flat_map(|path| spans(&std::fs::read(path).expect("it is there")));
    spans.map(Span::bytes).sum()
}

/// A transfer that a death at any moment interrupts, and another attempt: nothing that was kept
/// moves again, everything else does, and the digest is that of a transfer in one go.
#[test]
fn an_attempt_that_dies_at_any_moment_is_continued() {
    let new_home = || tempfile::tempdir().expect("a folder");
    let whole = attempt(new_home().path(), PieceFaults::default(), 0, &[]).run();
    let all_bytes = whole.history.landed_bytes();
    let mut interrupted_not = 0;
    for seed in 0..30 {
        let home = new_home();
        let faults = PieceFaults { changed: 10, broken: 3, ..PieceFaults::default() };
        let mut first = attempt(home.path(), faults, seed, &[]);
        // Two of the readers, and both senders of some part: what they would have brought is
        // missing then.
        let victims: &[u32] = [&[4][..], &[5, 6], &[0, 3], &[4, 5, 6]][seed as usize % 4];
        for &victim in victims {
            first.fault(Moment((100 + seed * 90) * 1_000_000), InjectedFault::Kill(NodeIx(victim)));
        }
        let first = first.run();
        if first.error.is_none() {
            // Those that died were needed no more.
            interrupted_not += 1;
            continue;
        }
        let kept_bytes = kept_bytes(home.path());
        assert!(kept_bytes <= first.history.landed_bytes(), "seed {seed}");
        let second = attempt(home.path(), PieceFaults::default(), seed + 100, &[]).run();
        assert_eq!(second.error, None, "seed {seed}");
        assert_eq!(second.digest, whole.digest, "seed {seed}");
        assert_eq!(second.counts.resumed_bytes, kept_bytes, "seed {seed}");
        assert_eq!(
            second.history.landed_bytes() + kept_bytes,
            all_bytes,
            "seed {seed}: nothing moves again"
        );
    }
    assert!(interrupted_not < 10, "{interrupted_not} of 30 were not interrupted");
}

#[test]
fn what_came_from_a_source_that_has_changed_starts_again() {
    let interrupted = || {
        let home = tempfile::tempdir().expect("a folder");
        let mut first = attempt(home.path(), PieceFaults::default(), 3, &[]);
        first.fault(Moment(2_000_000_000), InjectedFault::Kill(NodeIx(6)));
        first.run();
        home
    };
    let home = interrupted();
    let second = attempt(home.path(), PieceFaults::default(), 3, &[0, 1, 2, 3]).run();
    assert_eq!((second.error, second.counts.resumed_bytes), (None, 0));
    let home = interrupted();
    let kept = kept_bytes(home.path());
    let third = attempt(home.path(), PieceFaults::default(), 3, &[3]).run();
    assert_eq!(third.error, None);
    assert!(
        third.counts.resumed_bytes > 0 && third.counts.resumed_bytes < kept,
        "{:?} of {kept}",
        third.counts
    );
}

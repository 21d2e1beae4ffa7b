//! Selected ranges, sample sizes, and errors for differing replicas.

use crate::core::master::replicas::*;
use crate::core::spec::Spec;
use crate::core::units::{GIB, MIB};

fn roster(rows: &str) -> Roster {
    Roster::new(&Spec::parse("test", &format!("id test\n{rows}")).expect("a specification"))
}

fn set(rows: &str, compares_all: bool) -> ReplicaSet {
    ReplicaSet::of(&roster(rows), compares_all, [7; 16]).expect("it fits")
}

fn spans(rows: &str) -> Vec<(u64, u64)> {
    let set = set(rows, false);
    set.ranges.iter().map(|range| (range.span.start, range.span.end - 1)).collect()
}

#[test]
fn ranges_of_several_sources_are_cut_where_their_senders_change() {
    let rows = "writer a:1 file:///x 0 0-99\n\
                writer b:1 file:///x 0 50-199\n\
                writer c:1 file:///x 0 60-79\n";
    assert_eq!(spans(&format!("{rows}reader r:1 null: 0 0-199")), [(50, 59), (60, 79), (80, 99)]);
    assert_eq!(
        spans(&format!("{rows}reader r:1 null: 0 0-54\nreader s:1 null: 0 70-89")),
        [(50, 54), (70, 79), (80, 89)]
    );
}

#[test]
fn a_source_that_several_rows_offer_is_not_compared_with_itself() {
    assert_eq!(
        spans(
            "writer a:1 file:///x 0 0-99\nwriter a:1 file:///x 50 50-149\nreader r:1 null: 0 0-149"
        ),
        []
    );
    let two_files =
        "writer a:1 file:///x 0 0-99\nwriter a:1 file:///y 0 50-149\nreader r:1 null: 0 0-149";
    assert_eq!(spans(two_files), [(50, 99)], "two files of one node are two sources");
    let shifted =
        "writer a:1 file:///x 0 0-99\nwriter a:1 file:///x 9 0-99\nreader r:1 null: 0 0-99";
    assert_eq!(spans(shifted), [(0, 99)], "and so are two places of one file");
}

#[test]
fn patterns_of_one_seed_are_one_source_and_of_two_seeds_are_two() {
    assert_eq!(
        spans("writer a:1 pattern:7 0 0-99\nwriter b:1 pattern:7 5 0-99\nreader r:1 null: 0 0-99"),
        []
    );
    let two = "writer a:1 pattern:7 0 0-99\nwriter b:1 pattern:8 0 0-99\nreader r:1 null: 0 0-99";
    assert_eq!(spans(two), [(0, 99)]);
}

#[test]
fn a_sample_has_sixteen_places_or_one_byte_of_a_hundred() {
    let compared = |bytes: u64| {
        let rows = format!(
            "writer a:1 file:///x 0 0-{0}\nwriter b:1 file:///x 0 0-{0}\nreader r:1 null: 0 0-{0}",
            bytes - 1
        );
        set(&rows, false).ranges[0].compared_bytes()
    };
    assert_eq!(
        [compared(1), compared(100_000), compared(MIB)],
        [1, 100_000, MIB],
        "all of what is small"
    );
    assert_eq!([compared(MIB + 1), compared(64 * MIB)], [MIB, MIB]);
    assert_eq!(compared(GIB), GIB / 100 / PLACE_BYTES * PLACE_BYTES);
    assert_eq!(compared(1 << 50), 16 * MIB);
}

#[test]
fn what_a_node_reads_and_answers_is_bounded_however_many_rows_there_are() {
    let row = |host: &str, at: u64| {
        format!("writer {host}:1 file:///f{at} 0 {}-{}\n", at << 30, ((at + 1) << 30) - 1)
    };
    for rows in [1, 100, 4000] {
        let writers: String = (0..rows).flat_map(|at| [row("a", at), row("b", at)]).collect();
        let roster = roster(&format!("{writers}reader r:1 null: 0 0-{}", (rows << 30) - 1));
        for compares_all in [false, true] {
            let set = ReplicaSet::of(&roster, compares_all, [1; 16]).expect("it fits");
            let ranges = set.ranges_of(&roster.entries[0]);
            assert_eq!(ranges.len() as u64, rows, "every file is compared");
            let values: usize = ranges.iter().map(ReplicaRange::value_count).sum();
            assert!(values as u64 <= NODE_VALUES_MAX + rows, "{values} values of {rows} rows");
            let places: u64 = ranges.iter().map(|range| u64::from(range.places)).sum();
            assert!(
                compares_all || places <= 2 * NODE_PLACES_MAX,
                "{places} places of {rows} rows"
            );
        }
    }
}

#[test]
fn more_ranges_than_a_message_holds_are_sampled_or_refused() {
    let count = REPLICA_RANGES_MAX as u64 + 10;
    let rows: String =
        (0..count).map(|at| format!("writer w{}:1 file:///x 0 {at}-{at}\n", at % 50)).collect();
    let roster = roster(&format!(
        "writer a:1 file:///x 0 0-{0}\nreader r:1 null: 0 0-{0}\n{rows}",
        count - 1
    ));
    let set = ReplicaSet::of(&roster, false, [1; 16]).expect("a sample");
    assert_eq!((set.ranges.len(), set.of_bytes), (REPLICA_RANGES_MAX, count));
    let error = ReplicaSet::of(&roster, true, [1; 16]).expect_err("too many");
    assert_eq!(error.code, Code::Usage);
    assert!(error.message.contains("a:1") && error.message.contains("65546 ranges"), "{error}");
}

#[test]
fn a_difference_names_both_nodes_and_the_first_range() {
    let rows = "writer a:1 file:///x 0 0-9999999\n\
                writer b:1 file:///x 0 0-9999999\n\
                reader r:1 null: 0 0-9999999";
    let roster = roster(rows);
    let mut set = set(rows, true);
    let mut values =
        vec![5; set.ranges_of(&roster.entries[0]).iter().map(ReplicaRange::value_count).sum()];
    assert_eq!(values.len(), 128);
    set.compare(&roster, NodeIx(1), &values).expect("it is the first");
    (values[3], values[70]) = (6, 6);
    let error = set.compare(&roster, NodeIx(0), &values).expect_err("two parts differ");
    assert_eq!(error.code, Code::Integrity);
    assert!(
        error.message.starts_with("a:1 and b:1 offer different bytes within 196608-262143"),
        "{error}"
    );
    assert_eq!(error.missing, [Span::new(196_608, 262_144)]);
}

#[test]
fn what_nobody_could_read_counts_as_not_compared() {
    let rows = "writer a:1 file:///x 0 0-131071\n\
                writer b:1 file:///x 0 0-131071\n\
                reader r:1 null: 0 0-131071";
    let roster = roster(rows);
    let mut set = set(rows, false);
    set.compare(&roster, NodeIx(0), &[5, UNREAD]).expect("it is the first");
    set.compare(&roster, NodeIx(1), &[5, 6]).expect("nothing differs");
    let report = set.report().expect("there was something to compare");
    assert_eq!((report.compared_bytes, report.of_bytes), (65_536, 131_072));
    assert_eq!(set.compare(&roster, NodeIx(1), &[5]).expect_err("too few").code, Code::Internal);
}

#[test]
fn receivers_wait_with_their_names_where_others_want_the_same_of_several_senders() {
    let waits = |rows: &str| {
        let roster = roster(rows);
        let set = ReplicaSet::of(&roster, false, [7; 16]).expect("it fits");
        roster
            .nodes()
            .filter(|(node, _)| set.names_wait(*node))
            .map(|(_, it)| it.address.to_string())
            .collect::<Vec<_>>()
    };
    let writers = "writer a:1 file:///x 0 0-99\nwriter b:1 file:///x 0 50-99\n";
    let readers = "reader c:1 file:///y 0 0-99\n\
                   reader d:1 file:///y 0 60-99\n\
                   reader e:1 file:///z 0 0-49\n\
                   reader f:1 null: 0 0-99";
    assert_eq!(
        waits(&format!("{writers}{readers}")),
        ["c:1", "d:1"],
        "e wants what one sender has, f keeps nothing"
    );
    assert!(
        waits(
            "writer a:1 file:///x 0 0-99\nreader c:1 file:///y 0 0-99\nreader d:1 file:///z 0 0-99"
        )
        .is_empty()
    );
    assert!(
        waits(&format!("{writers}reader c:1 file:///y 0 0-99")).is_empty(),
        "nobody else receives the same"
    );
}

//! Rows that are valid one by one and contradict each other.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::collection::vec;
use proptest::prelude::*;

use crate::core::spec::validate::*;

fn check(rows: &str) -> Result<()> {
    Spec::parse("f", &format!("id x\n{rows}")).unwrap().validate()
}

#[test]
fn contradictions_name_their_lines() {
    let cases = [
        ("reader r:1 null: 0 0-9", "there is no writer row"),
        ("writer w:1 pattern:1 0 0-9", "there is no reader row"),
        (
            "writer w:1 pattern:1 0 0-9\nreader r:1 null: 0 0-9\noption origin 1",
            "option origin 1 lies after byte 0, the first that is offered",
        ),
        (
            "writer w:1 pattern:1 0 0-9 speed=1G\n\
             reader r:1 null: 0 0-9\n\
             writer w:1 pattern:1 0 0-9 speed=2G",
            "w:1 has two speeds: 1.00 Gbit/s in line 2 and 2.00 Gbit/s in line 4",
        ),
        (
            "writer w:1 pattern:1 0 0-9 nics=eth0\n\
             reader r:1 null: 0 0-9 nics=eth7\n\
             writer w:1 pattern:1 0 0-9\n\
             writer w:1 pattern:1 0 0-9 nics=eth0,eth1",
            "w:1 uses eth0 in line 2 and eth0,eth1 in line 5",
        ),
        (
            "writer w:1 pattern:1 0 0-99\nreader r:1 file:///a 10 0-9\nreader r:1 file:///a 0 0-19",
            "line 3 and line 4 would write different bytes of the data space to bytes 10-19 of \
             file:///a on r:1",
        ),
        (
            "writer w:1 pattern:1 0 0-99\nreader r:1 mem:a 0 0-9\nreader r:1 mem:a 9 10-19",
            "line 3 and line 4 would write different bytes of the data space to bytes 9-9 of mem:a \
             on r:1",
        ),
        (
            "writer w:1 file:///a 0 0-9\nreader w:1 file:///./a 50 0-9",
            "w:1 reads file:///./a in line 2 and writes it in line 3",
        ),
        (
            "writer w:1 file:///a 9223372036854775800 0-9\nreader r:1 null: 0 0-9",
            "line 2: found offset 92233720",
        ),
        (
            "writer w:1 pattern:1 0 0-9 store=fs\nreader r:1 null: 0 0-9",
            "line 2 names store fs, which no option declares",
        ),
        (
            "option store fs 8G\n\
             writer w:1 file:///a 0 0-9 store=fs\n\
             writer w:1 file:///b 0 0-9\n\
             reader r:1 null: 0 0-9",
            "w:1 names store fs in line 3 and no store in line 4",
        ),
        (
            "writer w:1 pattern:1 0 0-99\n\
             reader r:1 null: 0 0-59 group=a\n\
             reader r:1 null: 0 9-19 group=a\n\
             reader r:1 null: 0 50-99 group=b",
            "r:1 wants the same bytes for two groups in line 3 and line 5",
        ),
        (
            "writer w:1 pattern:1 0 0-9\nreader r:1 null: 0 0-9\noption pair w:1 q:1 1G",
            "line 4 names q:1, which no row does",
        ),
        (
            "writer w:1 pattern:1 0 0-9\n\
             reader r:1 null: 0 0-9\n\
             option pair w:1 r:1 1G\n\
             option pair r:1 w:1 1G\n\
             option pair w:1 r:1 2G",
            "w:1 to r:1 has two rates, in line 4 and in line 6",
        ),
        // Readers relay what they have landed, but a writer must offer it first.
        (
            "writer w:1 pattern:1 0 0-9\nreader r:1 file:///a 0 0-19\nreader q:1 null: 0 10-19",
            "no writer offers bytes 10-19, which line 3 wants",
        ),
        (
            "writer w:1 pattern:1 0 0-9\n\
             reader r:1 null: 0 0-4 group=g\n\
             reader q:1 null: 0 5-12 group=g",
            "no writer offers bytes 10-12, which line 4 wants",
        ),
        (
            "writer w:1 mem:a 18446744073709551615 0-9\nreader r:1 null: 0 0-9",
            "line 2: found offset 18446744",
        ),
        (
            "writer w:1 pattern:1 18446744073709551615 0-99\nreader r:1 null: 0 0-99",
            "line 2: found offset 18446744",
        ),
        (
            "writer w:1 pattern:1 0 0-99\nreader r:1 null: 18446744073709551600 0-99",
            "line 3: found offset 18446744",
        ),
    ];
    for (rows, expected) in cases {
        let error = check(rows).unwrap_err();
        assert_eq!(error.code, Code::Usage, "{rows}");
        assert!(error.message.starts_with(expected), "{rows}\n gave {error}\n not {expected}");
    }
}

#[test]
fn what_nobody_offers_is_listed() {
    let error =
        check("writer w:1 pattern:1 0 10-19\nreader r:1 null: 0 10-12\nreader r:1 null: 0 0-29")
            .unwrap_err();
    assert_eq!(error.message, "no writer offers bytes 0-9, 20-29, which line 4 wants");
    assert_eq!(error.missing, [Span::new(0, 10), Span::new(20, 30)]);

    let gaps: String = (0..10).map(|i| format!("reader r:1 null: 0 {0}-{0}\n", 2 * i)).collect();
    let error = check(&format!("writer w:1 pattern:1 0 100-109\n{gaps}")).unwrap_err();
    assert!(error.message.contains("14-14 and 2 more ranges"), "{error}");
    assert_eq!(error.missing.len(), 10);
}

#[test]
fn what_only_looks_like_a_contradiction_passes() {
    let cases = [
        // Overlapping wants that map alike.
        "writer w:1 pattern:1 0 0-99\nreader r:1 file:///a 0 0-59\nreader r:1 file:///a 40 40-99",
        // Neighbours, other files, other nodes.
        "writer w:1 pattern:1 0 0-99\nreader r:1 file:///a 0 0-9\nreader r:1 file:///a 10 50-59",
        "writer w:1 pattern:1 0 0-99\nreader r:1 file:///a 0 0-9\nreader r:1 file:///b 0 50-59",
        "writer w:1 pattern:1 0 0-99\nreader r:1 file:///a 0 0-9\nreader r:2 file:///a 0 50-59",
        // Nothing lands in null:, and replicas may lie anywhere in a sender's file.
        "writer w:1 pattern:1 0 0-99\nreader r:1 null: 0 0-9\nreader r:1 null: 0 50-59",
        "writer w:1 file:///a 0 0-9\nwriter w:1 file:///a 0 10-19\nreader r:1 null: 0 0-19",
        // One speed said twice; one node both ways with two files, or with one region of memory.
        "writer w:1 pattern:1 0 0-9 speed=1G\nreader w:1 null: 0 0-9 speed=1000M",
        "writer w:1 file:///a 0 0-9\nreader w:1 file:///b 0 0-9",
        // Two groups of one node that want different bytes; one store for reads and another for
        // writes.
        "writer w:1 pattern:1 0 0-9\n\
         reader r:1 null: 0 0-4 group=a\n\
         reader r:1 null: 0 5-9 group=b",
        "option store a 1G\n\
         option store b 1G\n\
         writer w:1 file:///a 0 0-9 store=a\n\
         reader w:1 file:///b 0 0-9 store=b",
        "writer w:1 mem:a 0 0-9\nwriter v:1 mem:a 0 10-19\nreader w:1 mem:a 10 10-19",
    ];
    for rows in cases {
        check(rows).unwrap();
    }
}

#[test]
fn rows_built_in_code_are_held_to_the_same() {
    let good =
        Spec::parse("f", "id x\nwriter w:1 pattern:1 0 0-9\nreader r:1 file:///a 0 0-9").unwrap();
    type Spoil = fn(&mut Spec);
    let cases: [(Spoil, &str); 17] = [
        (|spec| spec.rows[0].uri = DataUri::Null, "expected data to read from"),
        (|spec| spec.rows[1].uri = DataUri::Pattern(1), "expected a place to write to"),
        (|spec| spec.rows[1].uri = DataUri::File("a".into()), "expected an absolute path"),
        (|spec| spec.id.clear(), "the transfer's id has 0 bytes"),
        (|spec| spec.id = "x".repeat(ID_BYTES_MAX + 1), "the transfer's id has 1025 bytes"),
        (|spec| spec.rows[0].node.host.clear(), "a host name of 0 bytes"),
        (
            |spec| spec.rows[0].node.host = "x".repeat(HOST_BYTES_MAX + 1),
            "a host name of 254 bytes",
        ),
        (
            |spec| spec.rows[1].group = Some("g".repeat(ID_BYTES_MAX + 1)),
            "the name of a group or a store",
        ),
        (
            |spec| spec.rows[1].uri = DataUri::File(format!("/{}", "x".repeat(4095)).into()),
            "at most 4095 bytes",
        ),
        (|spec| spec.rows[0].offset_bytes = u64::MAX - 8, "expected data that ends below 2^64"),
        (
            |spec| {
                spec.stores =
                    vec![StoreRate { name: "s".into(), rate: BitRate(1) }; STORES_MAX + 1];
            },
            "1025 stores, expected at most 1024",
        ),
        (|spec| spec.rows[0].group = Some("g".into()), "on readers only"),
        (|spec| spec.rows[0].speed = Some(BitRate(0)), "a speed of 0"),
        (|spec| spec.rows[0].speed = Some(BitRate(u64::MAX)), "expected at most 1000T"),
        (
            |spec| spec.stores.push(StoreRate { name: "s".into(), rate: BitRate(0) }),
            "store s has a rate of 0 bit/s",
        ),
        (
            |spec| {
                let [from, to] = [0, 1].map(|at: usize| spec.rows[at].node.clone());
                spec.pairs.push(PairRate { from, to, rate: BitRate(0), line: 0 });
            },
            "the pair w:1 to r:1: the rate is out of range",
        ),
        (|spec| spec.block_bytes = Some(5000), "not a power of two"),
    ];
    good.validate().unwrap();
    // The rows of an empty file; a specification in text has no such ranges.
    let mut empty = good.clone();
    empty.rows.iter_mut().for_each(|row| row.range = Span::new(5, 5));
    empty.validate().unwrap();
    for (spoil, expected) in cases {
        let mut spec = good.clone();
        spec.rows.iter_mut().for_each(|row| row.line = 0);
        spoil(&mut spec);
        let error = spec.validate().unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    }
}

#[test]
fn a_node_with_more_rows_than_a_message_holds_is_named_with_the_row() {
    let rows = |count: u64| -> String {
        (0..count).map(|at| format!("writer w:1 pattern:1 0 {at}-{at}\n")).collect()
    };
    check(&format!("reader r:1 null: 0 0-9\n{}", rows(4096))).unwrap();
    let error = check(&format!("reader r:1 null: 0 0-9\n{}", rows(4097))).unwrap_err();
    assert!(error.message.starts_with("w:1 has more than 4096 rows, from line 4099 on"), "{error}");
}

#[test]
fn a_node_whose_uris_do_not_fit_a_message_is_named_with_the_row() {
    let path = |at: usize| format!("/{at:04}{}", "%FF".repeat(4000));
    let rows = |count: usize| -> String {
        (0..count).map(|at| format!("reader r:1 file://{} 0 0-9\n", path(at))).collect()
    };
    let fitting = NODE_URIS_BYTES_MAX / ("file://".len() + path(0).len());
    check(&format!("writer w:1 pattern:1 0 0-9\n{}", rows(fitting))).unwrap();
    let error = check(&format!("writer w:1 pattern:1 0 0-9\n{}", rows(fitting + 1))).unwrap_err();
    let line = fitting + 3;
    let expected = format!(
        "the data URIs of r:1 have more than {NODE_URIS_BYTES_MAX} bytes together, from line \
         {line} on"
    );
    assert!(error.message.starts_with(&expected), "{error}");
}

#[test]
fn the_row_of_an_empty_file_is_in_nobodys_way() {
    let mut spec =
        Spec::parse("f", "id x\nwriter w:1 pattern:1 0 0-99\nreader r:1 file:///a 0 0-99\n")
            .unwrap();
    let mut empty = spec.rows[1].clone();
    (empty.offset_bytes, empty.range) = (50, Span::new(10, 10));
    spec.rows.push(empty);
    spec.validate().unwrap();
}

/// Checks destinations by definition: every pair, every byte.
fn conflicts_by_definition(rows: &[Row]) -> bool {
    let positions = |row: &Row| row.offset_bytes..end_in_data(row);
    rows.iter().enumerate().any(|(i, a)| {
        rows[..i].iter().any(|b| {
            a.uri == b.uri
                && mapping(a) != mapping(b)
                && positions(a).any(|position| positions(b).contains(&position))
        })
    })
}

proptest! {
    #[test]
    fn the_sweep_finds_what_comparing_all_pairs_finds(
        places in vec((0u64..2, 0u64..24, 0u64..3, 1u64..8), 1..8),
    ) {
        let rows: Vec<Row> = places.into_iter().map(|(file, offset_bytes, shift, bytes)| Row {
            role: RowRole::Receiver,
            node: NodeAddress { host: "r".into(), port: 1 },
            uri: DataUri::Mem(file.to_string().into()),
            offset_bytes,
            range: Span::of(offset_bytes + 100 * shift, bytes),
            speed: None,
            nics: Vec::new(),
            group: None,
            store: None,
            line: 0,
        }).collect();
        let spec = Spec { rows, ..Spec::default() };
        prop_assert_eq!(spec.check_destinations().is_err(), conflicts_by_definition(&spec.rows));
    }
}

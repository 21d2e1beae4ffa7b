//! Figure 2, and the errors of single lines.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ffi::OsStr;
use std::path::Path;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::core::spec::parse::*;

const FIGURE_2: &str = r#"id "My Data File"
# Node Type  Host:Port          Data URI              Offset in file        Start-End Range
master       localhost:55555     #(Local namespace)   (Global namespace)
writer      node1:55553        "file:///data/half1" 0                      0-1023
writer      node2:55554        "file:///data/half1" 1024                   1024-2047
writer      192.168.3.4:55555 "file:///data/half2" 0                      2048-3071
writer      192.168.3.5:55555 "file:///data/half2" 1024                   3072-4095
reader      node5:55557        "file:///tmp/copy1"  0                      0-2047
reader      node7:55559        "file:///tmp/copy1"  2048                   2048-4095
reader      node6:55558        "file:///tmp/copy2"  0                      0-4095
"#;

#[test]
fn figure_2_verbatim() {
    let spec = Spec::parse("cluster.spec", FIGURE_2).unwrap();
    assert_eq!(spec.id, "My Data File");
    assert_eq!(spec.master, Some("localhost:55555".parse().unwrap()));
    let rows: Vec<String> = spec
        .rows
        .iter()
        .map(|row| {
            format!(
                "{:?} {} {} {} {} @{}",
                row.role, row.node, row.uri, row.offset_bytes, row.range, row.line
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            "Sender node1:55553 file:///data/half1 0 0-1023 @4",
            "Sender node2:55554 file:///data/half1 1024 1024-2047 @5",
            "Sender 192.168.3.4:55555 file:///data/half2 0 2048-3071 @6",
            "Sender 192.168.3.5:55555 file:///data/half2 1024 3072-4095 @7",
            "Receiver node5:55557 file:///tmp/copy1 0 0-2047 @8",
            "Receiver node7:55559 file:///tmp/copy1 2048 2048-4095 @9",
            "Receiver node6:55558 file:///tmp/copy2 0 0-4095 @10",
        ]
    );
    spec.validate().unwrap();
}

#[test]
fn everything_that_a_row_can_say() {
    let text = "id x\r\noption origin 1K\noption block 64K\n\
                writer n[01-02]:5 pattern:7 1M 1K-1M speed=2.5G nics=eth0,eth1\n\
                reader [::1]:5 file:///a#b 0 1K-2K group=\"a b\" # comment\n\
                reader [::1]:5 \"file:///a#b\" 0 1K-2K group=g\n";
    let refused = Spec::parse("s", text).unwrap_err();
    assert!(
        refused.message.starts_with("s:5:25: found the end of the line, expected the offset"),
        "{refused}"
    );

    let spec = Spec::parse("s", &text.replace("file:///a#b 0", "file:///a 0")).unwrap();
    assert_eq!((spec.origin, spec.block_bytes), (Some(1024), Some(65_536)));
    let names: Vec<String> = spec.rows.iter().map(|row| row.node.to_string()).collect();
    assert_eq!(names, ["n01:5", "n02:5", "[::1]:5", "[::1]:5"]);
    assert_eq!(spec.rows[0].range, Span::new(1024, 1_048_577));
    assert_eq!(spec.rows[1].speed, Some(BitRate(2_500_000_000)));
    assert_eq!(spec.rows[1].nics, ["eth0", "eth1"]);
    assert_eq!(spec.rows[2].group.as_deref(), Some("a b"));
    assert_eq!(spec.rows[3].uri, DataUri::File("/a#b".into()));
}

#[test]
fn errors_name_place_found_and_expected() {
    let cases = [
        ("", "1:1: found the end of the file, expected an id line"),
        ("# nothing\n\n", "3:1: found the end of the file, expected an id line"),
        ("id", "1:3: found the end of the line, expected the transfer's name"),
        ("id \"\"", "1:4: found \"\", expected a name of 1 to 1024 bytes"),
        ("id My File", "1:7: found \"File\", expected the end of the line"),
        ("id \"My", "1:4: found \", expected a closing quote"),
        ("id \"\\x\"", "1:5: found \\x, expected one of"),
        ("id a\nid b", "2:1: found \"id\", expected it only once"),
        (
            "Id a",
            "1:1: found \"Id\", expected id, master, writer, reader or option (did you mean id?)",
        ),
        (
            "sender n:1 null: 0 0-1",
            "1:1: found \"sender\", expected id, master, writer, reader or option (did you mean wr",
        ),
        ("zebra", "1:1: found \"zebra\", expected id, master, writer, reader or option"),
        ("master", "1:7: found the end of the line, expected the master's host:port"),
        ("master # none", "1:7: found the end of the line, expected the master's host:port"),
        ("master a:1\nmaster b:1", "2:1: found \"master\", expected it only once"),
        ("master a", "1:8: found \"a\", expected host:port"),
        (
            "master n[1-2]:1",
            "1:8: found \"n[1-2]:1\", expected one host:port, not a list of 2 hosts",
        ),
        ("option", "1:7: found the end of the line, expected origin, block, store or pair"),
        (
            "option blok 1M",
            "1:8: found \"blok\", expected origin, block, store or pair (did you mean block?)",
        ),
        ("option block 5000", "1:14: found \"5000\", expected a power of two from 4K to 64M"),
        ("option block 2K", "1:14: found \"2K\", expected a power of two from 4K to 64M"),
        ("option block 128M", "1:14: found \"128M\", expected a power of two from 4K to 64M"),
        ("option origin x", "1:15: found \"x\", expected a number with an optional suffix"),
        ("option origin 1\noption origin 2", "2:8: found \"origin\", expected it only once"),
        ("writer", "1:7: found the end of the line, expected the node's host:port"),
        ("writer n", "1:8: found \"n\", expected host:port"),
        ("writer n:0 pattern:1 0 0-1", "1:8: found \"n:0\", expected host:port with a port from 1"),
        ("writer n:1", "1:11: found the end of the line, expected the data URI"),
        (
            "writer n:1 /data/x 0 0-1",
            "1:12: found \"/data/x\", expected a data URI, such as file:///data/x",
        ),
        ("writer n:1 null: 0 0-1", "1:12: found \"null:\", expected data to read from"),
        ("reader n:1 pattern:1 0 0-1", "1:12: found \"pattern:1\", expected a place to write to"),
        ("reader n:1 null: -1 0-1", "1:18: found \"-1\", expected a number"),
        ("reader n:1 null: 0", "1:19: found the end of the line, expected the range"),
        ("reader n:1 null: 0 5", "1:20: found \"5\", expected an inclusive range"),
        ("reader n:1 null: 0 0-x", "1:20: found \"0-x\", expected in START-END a number"),
        (
            "reader n:1 null: 0 9-0",
            "1:20: found \"9-0\", expected a range that ends at or after its start, such as 0-9",
        ),
        ("reader n:1 null: 0 0-18446744073709551615", "expected a range that ends below 2^64 - 1"),
        (
            "reader n:1 null: 0 0-1 x",
            "1:24: found \"x\", expected speed=, nics=, store= or group= or the end of the line",
        ),
        (
            "reader n:1 null: 0 0-1 sped=1G",
            "1:24: found \"sped=1G\", expected speed=, nics=, store= or group= (did you mean \
             speed?)",
        ),
        (
            "reader n:1 null: 0 0-1 speed=",
            "1:24: found \"speed=\", expected speed= and bits per second",
        ),
        (
            "reader n:1 null: 0 0-1 speed=1 speed=2",
            "1:32: found \"speed=2\", expected it only once",
        ),
        (
            "reader n:1 null: 0 0-1 nics=a,,b",
            "1:24: found \"nics=a,,b\", expected nics= and different names",
        ),
        (
            "reader n:1 null: 0 0-1 nics=a,a",
            "1:24: found \"nics=a,a\", expected nics= and different names",
        ),
        ("reader n:1 null: 0 0-1 group=", "1:24: found \"group=\", expected group= and a name"),
        ("reader n:1 null: 0 0-1 store=", "1:24: found \"store=\", expected store= and a name"),
        ("option store", "1:13: found the end of the line, expected the store's name"),
        ("option store fs", "1:16: found the end of the line, expected the store's rate"),
        ("option store fs fast", "1:17: found \"fast\", expected "),
        ("option store fs 1G\noption store fs 2G", "2:14: found \"fs\", expected it only once"),
        ("option store fs 1G x", "1:20: found \"x\", expected the end of the line"),
        (
            "option stroe fs 1G",
            "1:8: found \"stroe\", expected origin, block, store or pair (did you mean store?)",
        ),
        (
            "writer n:1 pattern:1 0 0-1 group=g",
            "1:28: found \"group=g\", expected group= on readers only",
        ),
    ];
    for (text, expected) in cases {
        let error = Spec::parse("f", text).unwrap_err();
        assert_eq!(error.code, Code::Usage);
        assert!(error.message.starts_with("f:"), "{}", error.message);
        assert!(
            error.message.contains(expected),
            "{text:?}\n gave {}\n not {expected}",
            error.message
        );
    }
}

#[test]
fn long_words_are_clipped_in_messages() {
    let error = Spec::parse("f", &"x".repeat(60_000)).unwrap_err();
    assert!(error.message.len() < 200, "{}", error.message);
}

#[test]
fn input_is_bounded() {
    let long_line = format!("id x # {}", "x".repeat(LINE_BYTES_MAX));
    assert!(Spec::parse("f", &long_line).unwrap_err().message.contains("1:1: found a line of"));
    assert!(
        Spec::parse("f", &"\n".repeat(TEXT_BYTES_MAX + 1))
            .unwrap_err()
            .message
            .contains("larger than 64 MiB")
    );

    let many = "id x\n".to_owned() + &"reader n[1-65536]:1 null: 0 0-1\n".repeat(17);
    let error = Spec::parse("f", &many).map(|spec| spec.rows.len()).unwrap_err();
    assert!(
        error.message.contains("f:18:8: ") && error.message.contains("at most 1048576 rows"),
        "{error}"
    );

    let row = format!("reader n[1-65536]:1 \"file:///{}\" 0 0-1\n", "x".repeat(4000));
    let wide = Spec::parse("f", &format!("id x\n{row}{row}")).map(|spec| spec.rows.len());
    assert!(
        wide.unwrap_err()
            .message
            .contains("f:3:8: found \"n[1-65536]:1\", expected hostlists that expand")
    );
}

#[test]
fn a_million_rows() {
    use std::fmt::Write as _;
    let mut text = String::from("id big\n");
    for i in 0u64..500_000 {
        let (first, last) = (i * 4096, i * 4096 + 4095);
        writeln!(text, "writer n{}:5000 file:///d {first} {first}-{last}", i % 1000).unwrap();
        writeln!(text, "reader m{}:5000 file:///d {first} {first}-{last}", i % 1000).unwrap();
    }
    let spec = Spec::parse("big.spec", &text).unwrap();
    assert_eq!(spec.rows.len(), 1_000_000);
    spec.validate().unwrap();
}

prop_compose! {
    fn address()(
        host in "[a-z][a-z0-9.-]{0,12}|(1[0-9]{0,2}\\.){3}7|::1|fe80::2%eth0",
        port in 1u16..,
    ) -> NodeAddress {
        NodeAddress { host, port }
    }
}

fn any_uri(role: RowRole) -> impl Strategy<Value = DataUri> {
    let name = || vec((1..=u8::MAX).prop_filter("no slash", |byte| *byte != b'/'), 3..12);
    let file = name().prop_map(|name| DataUri::File(Path::new("/").join(OsStr::from_bytes(&name))));
    let mem = name().prop_map(|name| DataUri::Mem(OsStr::from_bytes(&name).to_os_string()));
    let third = match role {
        RowRole::Sender => any::<u64>().prop_map(DataUri::Pattern).boxed(),
        RowRole::Receiver => Just(DataUri::Null).boxed(),
    };
    prop_oneof![file, mem, third]
}

fn any_row() -> impl Strategy<Value = Row> {
    let role = prop_oneof![Just(RowRole::Sender), Just(RowRole::Receiver)];
    let group = option::of("[^\n]{1,8}");
    let nics = proptest::sample::subsequence(vec!["eth0", "eth1", "10.0.0.1", "a b", "=#\""], 0..4);
    let place = (any::<u64>(), 0..u64::MAX - 1, 1u64..1 << 40);
    role.prop_flat_map(move |role| {
        (
            Just(role),
            address(),
            any_uri(role),
            place.clone(),
            option::of(1..=RATE_MAX.0),
            nics.clone(),
            group.clone(),
        )
    })
    .prop_map(|(role, node, uri, (offset_bytes, start, bytes), speed, nics, group)| Row {
        role,
        node,
        uri,
        offset_bytes,
        range: Span::new(start, start.saturating_add(bytes)),
        speed: speed.map(BitRate),
        nics: nics.into_iter().map(Into::into).collect(),
        group: group.clone().filter(|_| role == RowRole::Receiver),
        store: group.filter(|name| name.len() % 2 == 0),
        line: 0,
    })
}

prop_compose! {
    fn any_spec()(
        id in "[^\n]{1,20}",
        master in option::of(address()),
        rows in vec(any_row(), 0..12),
        origin in option::of(any::<u64>()),
        block_power in option::of(12u32..=26),
        stores in proptest::collection::btree_map("[^\n]{1,8}", 1..=RATE_MAX.0, 0..3),
        pairs in vec((address(), address(), 1..=RATE_MAX.0), 0..3),
    ) -> Spec {
        let store = |(name, rate)| StoreRate { name, rate: BitRate(rate) };
        let stores = stores.into_iter().map(store).collect();
        let pairs = pairs.into_iter().filter(|(from, to, _)| from != to);
        let pair = |(from, to, rate)| PairRate { from, to, rate: BitRate(rate), line: 0 };
        let pairs = pairs.map(pair).collect();
        let block_bytes = block_power.map(|power| 1 << power);
        Spec { id, master, rows, origin, block_bytes, stores, pairs }
    }
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_itself(spec in any_spec()) {
        let text = spec.to_string();
        let failed = |error| TestCaseError::fail(format!("{error}\n{text}"));
        let mut parsed = Spec::parse("printed", &text).map_err(failed)?;
        parsed.rows.iter_mut().for_each(|row| row.line = 0);
        parsed.pairs.iter_mut().for_each(|pair| pair.line = 0);
        prop_assert_eq!(parsed, spec, "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(
        text in any::<String>(),
        words in vec(
            "id|master|writer|reader|option|block|origin|store|pair|a:1|\
             [a-z]\\[[0-9]-[0-9]{1,9}\\]:[0-9]{1,6}|[0-9]{1,21}-[0-9]{1,21}|[0-9]+[KMGT]?|\
             file:///x|null:|pattern:1|speed=1G|nics=a|group=g|\"|#|\n",
            0..40,
        ),
    ) {
        for text in [text, words.join(" ")] {
            if let Ok(spec) = Spec::parse("fuzz", &text) {
                let _ = spec.validate();
            }
        }
    }
}

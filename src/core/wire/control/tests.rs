//! Round trips of messages, refusal of invalid ones, and the size of a plain transfer's messages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::core::error::Code;
use crate::core::load::MachineLoad;
use crate::core::options::{CheckKind, Cipher, DataPath, TransferOptions, WireLevel};
use crate::core::wire::Check;
use crate::core::wire::control::*;
use crate::core::wire::limits::{ITEMS_MAX, LENGTH_MAX, NAME_BYTES_MAX, NODES_MAX, SLOTS_MAX};
use crate::core::wire::proto;
use crate::core::wire::terms::{CipherSet, FlowTerms, WireAgreement};
use std::num::NonZeroU32;
use std::time::Duration;

fn span() -> impl Strategy<Value = Span> {
    (any::<u64>(), 1..=u64::MAX).prop_map(|(start, bytes)| {
        let start = start.min(u64::MAX - 1);
        Span::new(start, start.saturating_add(bytes))
    })
}

/// Sorted, disjoint spans.
fn apart() -> impl Strategy<Value = Vec<Span>> {
    vec((0..1u64 << 40, 1..1u64 << 40), 0..20).prop_map(|gaps| {
        let mut end = 0;
        let step = |(gap, bytes)| {
            let span = Span::of(end + gap, bytes);
            end = span.end;
            span
        };
        gaps.into_iter().map(step).collect()
    })
}

fn one_behind_another(segments: Vec<LandedSegment>) -> Vec<LandedSegment> {
    let mut end = 0;
    let step = |LandedSegment { span, mut checks }| {
        let moved = |span: Span| Span::new(span.start + end, span.end + end);
        if let SegmentChecks::Listed(checks) = &mut checks {
            checks.iter_mut().for_each(|check| check.span = moved(check.span));
        }
        let span = moved(span);
        end = span.end;
        LandedSegment { span, checks }
    };
    segments.into_iter().map(step).collect()
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn error() -> impl Strategy<Value = Error> {
    let code = prop::sample::select(Code::ALL.to_vec());
    (code, ".{0,40}", option::of(".{0,40}"), vec(span(), 0..4))
        .prop_map(|(code, message, remedy, missing)| Error { code, message, remedy, missing })
}

fn row() -> impl Strategy<Value = WireRow> {
    let sharing = prop_oneof![
        Just(FileSharing::Alone),
        any::<u64>().prop_map(|file_bytes| FileSharing::Elected { file_bytes }),
        Just(FileSharing::Member),
    ];
    let role = prop_oneof![Just(RowRole::Sender), Just(RowRole::Receiver)];
    (role, ".{0,60}", any::<u64>(), span(), sharing).prop_map(
        |(role, uri, offset, span, sharing)| {
            let offset_bytes = offset.min(u64::MAX - span.bytes());
            let claimant =
                if span.start % 2 == 0 { String::new() } else { "node7:55558".to_owned() };
            WireRow { role, uri, offset_bytes, span, sharing, claimant }
        },
    )
}

fn options() -> impl Strategy<Value = WireOptions> {
    let check = prop::sample::select(vec![CheckKind::None, CheckKind::Crc64, CheckKind::Blake3]);
    let flags = any::<[bool; 4]>();
    let path = (0..=4u32).prop_map(|number| DataPath::of(number).expect("one of five"));
    let most = (option::of(any::<NonZeroU32>()), option::of(any::<NonZeroU32>()), path);
    let block_bytes = prop_oneof![1..=LENGTH_MAX, (0..=26u32).prop_map(|power| 1 << power)];
    (block_bytes, any::<u64>(), check, flags, option::of(0..=SLOTS_MAX), any::<u64>(), most)
        .prop_map(
            |(
                block_bytes,
                origin,
                check,
                [fsync, overwrite, resume, verify],
                slots,
                stall_timeout_ms,
                most,
            )| {
                let (rails_max, threads_max, path) = most;
                WireOptions {
                    block_bytes,
                    origin,
                    transfer: TransferOptions {
                        check,
                        fsync,
                        overwrite,
                        resume,
                        slots,
                        stall_timeout: Duration::from_millis(stall_timeout_ms),
                        path,
                        rails_max,
                        threads_max,
                        verify,
                        ..TransferOptions::default()
                    },
                    object: (block_bytes.is_power_of_two() && block_bytes >= 1024)
                        .then(|| Span::new(origin % u64::from(block_bytes), u64::MAX)),
                }
            },
        )
}

fn prepare() -> impl Strategy<Value = Prepare> {
    let keys = any::<([u8; 16], [u8; 16], [u8; 32])>();
    let place = (prop_oneof![Just(0), 2..=u32::MAX], 1..1000_u32);
    let replicas = (apart(), vec(place, 20)).prop_map(|(spans, places)| {
        let range = |(span, (places, values_max))| ReplicaRange { span, places, values_max };
        spans.into_iter().zip(places).map(range).collect::<Vec<_>>()
    });
    (keys, ".{0,40}", 0..NODES_MAX as u32, vec(row(), 0..6), options(), replicas).prop_map(
        |((transfer, attempt, flow_key), id, node_index, rows, options, replicas)| Prepare {
            transfer,
            id,
            attempt,
            flow_key: FlowKey(flow_key),
            node_index,
            rows,
            options,
            names_wait: replicas.len() % 2 == 1,
            nics: (0..replicas.len() % 3).map(|at| format!("eth{at}")).collect(),
            replicas,
        },
    )
}

fn start() -> impl Strategy<Value = Start> {
    let index = 0..NODES_MAX as u32;
    // A name begins with a host.
    let channel = option::of(address());
    let peer = ("([^:].{0,30})?", vec(address(), 0..4), any::<bool>(), channel);
    let peers = prop::collection::btree_map(index.clone(), peer, 0..6).prop_map(|peers| {
        let peer = |(index, (name, rails, relays, channel))| {
            let name: String = name;
            PeerNode { index, name, rails, relays, channel }
        };
        peers.into_iter().map(peer).collect::<Vec<PeerNode>>()
    });
    let share = (index, any::<u32>()).prop_map(|(index, weight)| SenderShare { index, weight });
    let senders = vec(vec(share, 1..5), 20);
    let origins = vec((0..NODES_MAX as u32, have()), 0..4).prop_map(|offers| {
        offers
            .into_iter()
            .map(|(index, KeptRanges { span, origin })| OfferedSource { index, span, origin })
            .collect::<Vec<_>>()
    });
    let spans = [apart(), apart(), apart(), apart()];
    (
        any::<u32>(),
        peers,
        senders,
        spans,
        (any::<[u64; 2]>(), any::<bool>(), vec(any::<u32>(), 0..5), option::of(any::<u64>())),
        origins,
    )
        .prop_map(
            |(
                epoch,
                peers,
                senders,
                [spans, holes, relays, kept],
                ([limit_bytes_per_second, bound_us], forgets, modes, more_at),
                origins,
            )| {
                let segment = |(span, senders)| PlanSegment { span, senders };
                let segments = spans.into_iter().zip(senders).map(segment).collect();
                Start {
                    epoch,
                    peers,
                    segments,
                    holes,
                    limit_bytes_per_second,
                    bound_us,
                    relays,
                    kept,
                    origins,
                    forgets,
                    modes,
                    more_at,
                }
            },
        )
}

fn have() -> impl Strategy<Value = KeptRanges> {
    (span(), any::<[u64; 2]>())
        .prop_map(|(span, [who, state])| KeptRanges { span, origin: SourceOrigin { who, state } })
}

/// Faults of NICs are told with a load.
fn load_of(rails: &[RailStats], counts: &[u64]) -> Option<MachineLoad> {
    let has_faults = rails.iter().any(|rail| rail.faults > 0);
    has_faults.then(|| MachineLoad {
        window_ns: counts[0],
        wait_ns: counts[1],
        others_ns: counts[2],
        stolen_ns: counts[3],
        cpus: counts[4],
        resent_segments: counts[5],
        sent_segments: counts[6],
    })
}

fn stats() -> impl Strategy<Value = NodeStats> {
    let rail = ("[a-z0-9.:]{1,15}", any::<[u64; 4]>(), "[ -~]{0,40}").prop_map(
        |(nic, [sent_bytes, received_bytes, out, r#in], path)| RailStats {
            nic,
            sent_bytes,
            received_bytes,
            counted: Some((out, r#in)),
            faults: out >> 7,
            path,
            driver: "io_uring".to_owned(),
            wire: WireAgreement::of([0x101, 0x103, 0x202][sent_bytes as usize % 3]).ok(),
        },
    );
    let uncounted = |rails: Vec<RailStats>| {
        rails.into_iter().map(|rail| RailStats { counted: None, ..rail }).collect()
    };
    let rails = (vec(rail, 0..4), any::<bool>())
        .prop_map(move |(rails, is_counted)| if is_counted { rails } else { uncounted(rails) });
    let warnings = vec("[ -~]{1,40}", 0..4);
    (any::<[u64; 11]>(), rails, warnings).prop_map(|(counts, rails, warnings)| NodeStats {
        received_bytes: counts[0],
        sent_bytes: counts[1],
        wasted_bytes: counts[2],
        stolen_bytes: counts[3],
        retries: counts[4],
        active_ns: counts[5],
        cpu_ns: counts[6],
        memory_bytes_max: counts[7],
        resumed_bytes: counts[8],
        room_ns: counts[9],
        commit_ns: counts[10],
        epoch: counts[10] as u32,
        load: load_of(&rails, &counts),
        rails,
        warnings,
    })
}

/// A segment at the start of the data space, with checks of some of its quarters.
fn landed_segment() -> impl Strategy<Value = LandedSegment> {
    let check = prop_oneof![
        Just(Check::None),
        any::<u64>().prop_map(Check::Crc64),
        any::<[u8; 32]>().prop_map(Check::Blake3),
    ];
    (vec(check, 0..4), 4..1u64 << 40, option::of(any::<[u8; 32]>())).prop_map(
        |(checks, bytes, fold)| {
            let part =
                |(at, check)| CheckValue { span: Span::of(at * (bytes / 4), bytes / 4), check };
            let listed = || SegmentChecks::Listed((0..).zip(checks).map(part).collect());
            LandedSegment {
                span: Span::of(0, bytes),
                checks: fold.map_or_else(listed, SegmentChecks::Folded),
            }
        },
    )
}

fn to_node() -> impl Strategy<Value = ToNode> {
    prop_oneof![
        prepare().prop_map(ToNode::Prepare),
        start().prop_map(ToNode::Start),
        Just(ToNode::Commit),
        Just(ToNode::Finish),
        (".{0,40}", any::<bool>()).prop_map(|(reason, forgets)| ToNode::Cancel { reason, forgets }),
        ".{0,40}".prop_map(|id| ToNode::MakeWay { id }),
        any::<([u8; 16], [u8; 16], u32)>().prop_map(|(transfer, attempt, heard)| ToNode::Resume(
            ResumeSession { transfer, attempt, heard }
        )),
        vec(survey_question(), 0..6).prop_map(ToNode::Survey),
    ]
}

fn path() -> impl Strategy<Value = std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    vec(1..=u8::MAX, 0..40).prop_map(|bytes| std::ffi::OsString::from_vec(bytes).into())
}

fn survey_question() -> impl Strategy<Value = SurveyQuestion> {
    let subject = prop_oneof![
        Just(SurveySubject::Source),
        Just(SurveySubject::Destination),
        any::<SurveyToken>().prop_map(SurveySubject::MakeToken),
        any::<SurveyToken>().prop_map(SurveySubject::FindToken),
        any::<SurveyToken>().prop_map(SurveySubject::RemoveToken),
        Just(SurveySubject::Diagnosis),
    ];
    (path(), subject).prop_map(|(path, subject)| SurveyQuestion { path, subject })
}

fn survey_answer() -> impl Strategy<Value = SurveyAnswer> {
    let without_ranges = |error: Error| Error { missing: Vec::new(), ..error };
    prop_oneof![
        (path(), any::<(u64, i64, u64)>()).prop_map(
            |(path, (bytes, modified_seconds, identity))| {
                SurveyAnswer::Source(SurveyedSource { path, bytes, modified_seconds, identity })
            }
        ),
        (path(), any::<bool>(), option::of(any::<u64>())).prop_map(
            |(path, is_directory, identity)| {
                SurveyAnswer::Destination(SurveyedDestination { path, is_directory, identity })
            }
        ),
        any::<bool>().prop_map(SurveyAnswer::Token),
        ".{0,60}".prop_map(SurveyAnswer::Diagnosis),
        error().prop_map(without_ranges).prop_map(SurveyAnswer::Failed),
    ]
}

fn to_master() -> impl Strategy<Value = ToMaster> {
    let rows = vec((any::<[bool; 3]>(), any::<(u64, u32)>()), 0..5);
    let more =
        (vec(have(), 0..4), any::<bool>(), vec("[ -~]{0,30}", 0..3), vec(any::<u64>(), 0..9));
    let prepared = (rows, apart(), option::of(error()), more).prop_map(
        |(rows, holes, error, (have, sealed, notes, replicas))| {
            let (rows, of_sources): (Vec<RowState>, Vec<(u64, u32)>) = rows
                .into_iter()
                .map(|([shared, kept, complete], of_source)| {
                    (RowState { shared, kept, complete }, of_source)
                })
                .unzip();
            let (states, modes) = of_sources.into_iter().unzip();
            Prepared { rows, holes, error, states, have, sealed, notes, replicas, modes }
        },
    );
    prop_oneof![
        prepared.prop_map(ToMaster::Prepared),
        (
            any::<[u64; 3]>(),
            vec((0..NODES_MAX as u32, any::<(u64, bool, [u64; 3])>()), 0..4),
            vec(any::<u64>(), 0..4),
            vec(["[a-z]{0,9}", "[a-z]{0,9}", ".{0,9}"], 0..3)
        )
            .prop_map(
                |([received_bytes, sent_bytes, missing_bytes], delivered, left, lost)| {
                    let lost =
                        lost.into_iter().map(|[nic, peer, reason]| FlowLoss { nic, peer, reason });
                    let lost = lost.collect();
                    let one = |(index, (bytes, busy, numbers)): (u32, (u64, bool, [u64; 3]))| {
                        let [sampled, micros, waiting_micros] = numbers;
                        let sample = SpeedSample { bytes: sampled, micros, waiting_micros };
                        SenderDelivery { index, bytes, busy, sample }
                    };
                    let delivered = delivered.into_iter().map(one);
                    ToMaster::Progress {
                        received_bytes,
                        sent_bytes,
                        delivered: delivered.collect(),
                        left,
                        missing_bytes,
                        lost,
                    }
                },
            ),
        (vec(landed_segment(), 0..5), stats()).prop_map(|(segments, stats)| {
            ToMaster::Landed { segments: one_behind_another(segments), stats }
        }),
        stats().prop_map(ToMaster::Report),
        Just(ToMaster::Committed),
        any::<u64>().prop_map(|read_bytes| ToMaster::Comparing { read_bytes }),
        (error(), option::of(stats().prop_map(Box::new)))
            .prop_map(|(error, stats)| ToMaster::Failed { error, stats }),
        any::<u32>().prop_map(|heard| ToMaster::Resumed { heard }),
        vec(survey_answer(), 0..6).prop_map(ToMaster::Surveyed),
    ]
}

fn advert() -> impl Strategy<Value = NodeAdvert> {
    let rail = (
        ".{0,15}",
        address(),
        option::of(any::<u64>()),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
    )
        .prop_map(|(nic, address, line, mtu, numa)| RailAdvert {
            nic,
            address,
            line: line.map(BitRate),
            mtu,
            numa,
        });
    (".{0,30}", vec(rail, 0..8), any::<u32>(), ".{0,40}", any::<u64>()).prop_map(
        |(software, rails, cores, boot_id, incarnation)| NodeAdvert {
            software,
            rails,
            cores,
            boot_id,
            incarnation,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn messages_to_nodes_survive(message in to_node()) {
        prop_assert_eq!(decode::<ToNode>(&encode(&message).unwrap()), Ok(message));
    }

    #[test]
    fn messages_to_the_master_survive(message in to_master()) {
        prop_assert_eq!(decode::<ToMaster>(&encode(&message).unwrap()), Ok(message));
    }

    #[test]
    fn adverts_survive(message in advert()) {
        prop_assert_eq!(decode::<NodeAdvert>(&encode(&message).unwrap()), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode::<ToNode>(&bytes);
        let _ = decode::<ToMaster>(&bytes);
        let _ = decode::<NodeAdvert>(&bytes);
        let _ = decode::<FlowHello>(&bytes);
    }

    /// A damaged message that is accepted is itself a valid message.
    #[test]
    fn damaged_messages_are_refused_or_make_sense(
        to_node in to_node(), to_master in to_master(), at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut bytes = encode(&to_node).unwrap();
        bytes[at.index(encode(&to_node).unwrap().len())] ^= 1 << bit;
        if let Ok(message) = decode::<ToNode>(&bytes) {
            prop_assert_eq!(decode::<ToNode>(&encode(&message).unwrap()), Ok(message));
        }
        let mut bytes = encode(&to_master).unwrap();
        bytes[at.index(encode(&to_master).unwrap().len())] ^= 1 << bit;
        if let Ok(message) = decode::<ToMaster>(&bytes) {
            prop_assert_eq!(decode::<ToMaster>(&encode(&message).unwrap()), Ok(message));
        }
    }
}

#[test]
fn small_messages_survive() {
    let hello = FlowHello {
        transfer: [1; 16],
        attempt: [2; 16],
        from_node: 3,
        to_node: 4,
        rail: 5,
        to_rail: 7,
        call: Some(3),
        weight_bytes: 1 << 40,
        pace_bytes_per_second: 125_000_000,
        silent_flows: 2,
        further: 3,
        terms: FlowTerms {
            level: WireLevel::Signed,
            ciphers: CipherSet::of([Cipher::ChaCha20Poly1305]),
        },
    };
    let reply = FlowReply { terms: hello.terms };
    assert_eq!(decode(&encode(&reply).unwrap()), Ok(reply));
    assert_eq!(decode(&encode(&hello).unwrap()), Ok(hello));
    for query in [MasterQuery::Status, MasterQuery::Cancel] {
        assert_eq!(decode(&encode(&query).unwrap()), Ok(query));
    }
    let answer = QueryAnswer { json: "{\"state\":\"running\"}".to_owned() };
    assert_eq!(decode(&encode(&answer).unwrap()), Ok(answer));
}

#[test]
fn a_message_without_a_kind_is_refused() {
    assert!(matches!(decode::<ToNode>(&[]), Err(WireError::Missing { .. })));
    assert!(matches!(decode::<ToMaster>(&[]), Err(WireError::Missing { .. })));
    assert!(matches!(decode::<MasterQuery>(&[]), Err(WireError::Unknown { value: 0, .. })));
}

#[test]
fn nonsense_in_a_plan_is_refused() {
    let refused = |change: fn(&mut proto::Start)| {
        let mut start = plain_start().to_proto();
        change(&mut start);
        Start::from_proto(start).unwrap_err()
    };
    assert!(
        matches!(refused(|s| s.peers[1].index = 0), WireError::Contradiction { .. }),
        "one index twice"
    );
    assert!(matches!(refused(|s| s.peers[1].index = 1 << 16), WireError::Limit { .. }));
    assert!(matches!(
        refused(|s| s.peers[1].rails = b"nowhere".into()),
        WireError::Contradiction { .. }
    ));
    assert!(matches!(
        refused(|s| s.peers[1].rails = vec![4, 10, 0, 0, 1, 0]),
        WireError::Contradiction { .. }
    ));
    assert!(matches!(
        refused(|s| s.peers[1].rails = [4, 10, 0, 0, 1, 0, 1].repeat(65)),
        WireError::Limit { .. }
    ));
    assert!(matches!(
        refused(|s| s.peers[1].name = "n".repeat(NAME_BYTES_MAX + 1)),
        WireError::Limit { .. }
    ));
    assert!(
        matches!(refused(|s| s.segments[0].span = vec![5, 0]), WireError::Contradiction { .. }),
        "empty"
    );
    assert!(matches!(
        refused(|s| s.segments[0].span = vec![5, u64::MAX]),
        WireError::Contradiction { .. }
    ));
    assert!(matches!(refused(|s| s.segments[0].span = vec![]), WireError::Missing { .. }));
    assert!(matches!(
        refused(|s| s.segments[0].weights.truncate(1)),
        WireError::Contradiction { .. }
    ));
    assert!(
        matches!(refused(|s| s.holes = vec![5, 5, 9, 5]), WireError::Contradiction { .. }),
        "overlapping"
    );
    assert!(matches!(refused(|s| s.holes = vec![5]), WireError::Contradiction { .. }));
}

/// Regression: receivers trusted such plans and ended with an assertion.
#[test]
fn a_plan_with_segments_out_of_order_or_without_senders_is_refused() {
    let refused = |change: fn(&mut proto::Start)| {
        let mut start = plain_start().to_proto();
        change(&mut start);
        Start::from_proto(start).unwrap_err()
    };
    assert!(matches!(
        refused(|s| s.segments.swap(0, 1)),
        WireError::Contradiction { field: "the segments of a plan" }
    ));
    assert!(
        matches!(refused(|s| s.segments[1].span[0] -= 1), WireError::Contradiction { .. }),
        "overlapping"
    );
    let nobody =
        |s: &mut proto::Start| (s.segments[1].indices, s.segments[1].weights) = (vec![], vec![]);
    assert!(matches!(refused(nobody), WireError::Missing { field: "the senders of a segment" }));
}

/// Regression: positions within the object that begin no chunk have no subtree; a rail ended with
/// an assertion of BLAKE3.
#[test]
fn an_object_whose_blocks_are_no_subtrees_is_refused() {
    let options = |block_bytes: u32, origin: u64, start: u64| {
        let object = vec![start, 1 << 30];
        WireOptions::from_proto(proto::Options {
            block_bytes,
            origin,
            object,
            check: 2,
            ..proto::Options::default()
        })
    };
    assert!(options(4096, 0, 8192).is_ok() && options(1024, 5, 1029).is_ok());
    for (block_bytes, origin, start) in [(4096, 0, 1024), (4096, 5, 0), (512, 0, 0), (6144, 0, 0)] {
        let refused = options(block_bytes, origin, start).unwrap_err();
        assert_eq!(
            refused,
            WireError::Contradiction { field: "the object" },
            "{block_bytes} {origin} {start}"
        );
    }
}

/// Regression: a master summed such a report's bytes beyond 64 bits, and took its checks for those
/// of different bytes.
#[test]
fn what_lands_twice_in_one_report_is_refused() {
    let mut twice = plain_landed(0);
    let SegmentChecks::Listed(checks) = &mut twice.checks else { unreachable!() };
    checks.push(checks[0]);
    for segments in [vec![plain_landed(0), plain_landed(0)], vec![twice]] {
        let bytes = encode(&ToMaster::Landed { segments, stats: plain_stats() }).unwrap();
        assert!(matches!(decode::<ToMaster>(&bytes), Err(WireError::Contradiction { .. })));
    }
}

#[test]
fn checks_belong_to_their_segments() {
    let refused = |change: fn(&mut proto::Landed)| {
        let landed = ToMaster::Landed {
            segments: vec![plain_landed(0), plain_landed(1)],
            stats: NodeStats::default(),
        };
        let Some(proto::ToMasterKind::Landed(mut landed)) = landed.to_proto().kind else {
            unreachable!()
        };
        change(&mut landed);
        ToMaster::from_proto(proto::ToMaster { kind: Some(proto::ToMasterKind::Landed(landed)) })
            .unwrap_err()
    };
    assert!(matches!(refused(|l| l.check_counts[0] = 2), WireError::Contradiction { .. }));
    assert!(
        matches!(refused(|l| l.check_counts[1] = 0), WireError::Contradiction { .. }),
        "one is left over"
    );
    assert!(
        matches!(refused(|l| l.checks.swap(0, 1)), WireError::Contradiction { .. }),
        "outside the segment"
    );
    assert!(matches!(
        refused(|l| l.checks[0].blake3 = Some(vec![0; 32])),
        WireError::Contradiction { .. }
    ));
    assert!(matches!(refused(|l| l.stats = None), WireError::Missing { .. }));
}

#[test]
fn large_plans_fit_and_endless_ones_are_refused() {
    let share = SenderShare { index: 65_535, weight: u32::MAX };
    let segment =
        |index: u64| PlanSegment { span: Span::of(index << 40, 1 << 40), senders: vec![share; 4] };
    let plan =
        ToNode::Start(Start { segments: (0..100_000).map(segment).collect(), ..plain_start() });
    assert!(decode(&encode(&plan).unwrap()) == Ok(plan));
    let segments = vec![proto::PlanSegment::default(); ITEMS_MAX];
    let kind = proto::ToNodeKind::Start(proto::Start { segments, ..proto::Start::default() });
    let endless = proto::ToNode { kind: Some(kind) }.encode_to_vec();
    assert!(matches!(decode::<ToNode>(&endless), Err(WireError::Limit { .. })));
    assert!(matches!(
        decode::<ToNode>(&vec![0; MESSAGE_BYTES_MAX + 1]),
        Err(WireError::Limit { .. })
    ));
}

#[test]
fn errors_arrive_shortened_rather_than_not() {
    let long = Error::new(Code::Data, "é".repeat(4096)).missing(vec![Span::new(0, 1); 1 << 19]);
    let failed = ToMaster::Failed { error: long, stats: None };
    let ToMaster::Failed { error: arrived, .. } = decode(&encode(&failed).unwrap()).unwrap() else {
        unreachable!()
    };
    assert_eq!(
        (arrived.code, arrived.message.len(), arrived.missing.len()),
        (Code::Data, 4096, 1 << 18)
    );
}

#[test]
fn a_peer_that_is_named_by_its_address_says_it_once() {
    let cases = [
        ("10.0.0.1:55553", "10.0.0.1:40000", ":55553"),
        ("[fe80::7]:55553", "[fe80::7]:40000", ":55553"),
        ("10.0.0.1:55553", "10.0.0.10:40000", "10.0.0.1:55553"),
        ("10.0.0.10:55553", "10.0.0.1:40000", "10.0.0.10:55553"),
        ("node1:55553", "10.0.0.1:40000", "node1:55553"),
    ];
    for (name, rail, sent) in cases {
        let peer = PeerNode {
            index: 1,
            name: name.into(),
            rails: vec![rail.parse().unwrap()],
            relays: false,
            channel: None,
        };
        assert_eq!(peer.to_proto().name, sent);
        assert_eq!(PeerNode::from_proto(peer.to_proto()).unwrap(), peer);
    }
    assert!(
        PeerNode {
            index: 1,
            name: "10.0.0.1:5".into(),
            rails: vec![],
            relays: false,
            channel: None
        }
        .to_proto()
        .name
        .starts_with("10.")
    );
}

#[test]
fn keys_do_not_show() {
    let shown = format!("{:?}", ToNode::Prepare(plain_prepare()));
    assert!(shown.contains("171") && !shown.contains("205"), "{shown}");
}

/// Keeps the limit of about 1 KB of control data per node: sixteen plan entries are four segments
/// with four senders each.
#[test]
fn a_plain_transfer_costs_a_node_one_kibibyte() {
    let rows = vec![RowState::default()];
    let prepared = Prepared { rows, ..Prepared::default() };
    let segments = (0..4).map(plain_landed).collect();
    let messages = [
        encode(&ToNode::Prepare(plain_prepare())).unwrap(),
        encode(&ToMaster::Prepared(prepared)).unwrap(),
        encode(&ToNode::Start(plain_start())).unwrap(),
        encode(&ToMaster::Landed { segments, stats: plain_stats() }).unwrap(),
    ];
    let sizes: Vec<usize> = messages.iter().map(Vec::len).collect();
    assert!(sizes.iter().sum::<usize>() <= 1024, "{sizes:?}");
}

fn plain_prepare() -> Prepare {
    let row = WireRow {
        role: RowRole::Receiver,
        uri: "file:///scratch/project/run-0042/checkpoint.h5".to_owned(),
        offset_bytes: 0,
        span: Span::new(0, 1 << 40),
        sharing: FileSharing::Alone,
        claimant: String::new(),
    };
    Prepare {
        transfer: [171; 16],
        id: "My Data File".to_owned(),
        attempt: [171; 16],
        flow_key: FlowKey([205; 32]),
        node_index: 4,
        rows: vec![row],
        options: WireOptions {
            block_bytes: 1 << 20,
            origin: 0,
            transfer: TransferOptions {
                check: CheckKind::Crc64,
                fsync: true,
                overwrite: true,
                resume: true,
                slots: Some(32),
                stall_timeout: Duration::from_secs(60),
                path: DataPath::Auto,
                verify: true,
                ..TransferOptions::default()
            },
            object: Some(Span::new(0, 1 << 30)),
        },
        replicas: Vec::new(),
        names_wait: false,
        nics: vec!["eth0".into()],
    }
}

fn plain_start() -> Start {
    let peer = |index: u32| PeerNode {
        index,
        name: format!("node{index:02}.cluster:55553"),
        rails: vec![format!("10.0.0.{index}:55554").parse().unwrap()],
        relays: false,
        channel: None,
    };
    let segment = |index: u64| PlanSegment {
        span: Span::of(index << 38, 1 << 38),
        senders: (0..4).map(|index| SenderShare { index, weight: 65_535 }).collect(),
    };
    let (peers, segments) = ((0..4).map(peer).collect(), (0..4).map(segment).collect());
    let span = Span::new(0, 1 << 40);
    let origin = SourceOrigin { who: u64::MAX, state: u64::MAX };
    let origins = (0..4).map(|index| OfferedSource { index, span, origin }).collect();
    let (holes, relays, kept) = (vec![], vec![], vec![]);
    let (limit_bytes_per_second, bound_us) = (0, 90_000_000);
    Start {
        epoch: 1,
        peers,
        segments,
        holes,
        limit_bytes_per_second,
        bound_us,
        relays,
        kept,
        origins,
        forgets: true,
        modes: vec![0o644],
        more_at: Some(64 << 20),
    }
}

fn plain_landed(index: u64) -> LandedSegment {
    let span = Span::of(index << 38, 1 << 38);
    let checks = SegmentChecks::Listed(vec![CheckValue { span, check: Check::Crc64(u64::MAX) }]);
    LandedSegment { span, checks }
}

fn plain_stats() -> NodeStats {
    NodeStats {
        received_bytes: 1 << 40,
        sent_bytes: 0,
        wasted_bytes: 3 << 20,
        stolen_bytes: 3 << 30,
        retries: 2,
        active_ns: 90_000_000_000,
        room_ns: 1_000_000_000,
        commit_ns: 2_000_000_000,
        epoch: 1,
        cpu_ns: 30_000_000_000,
        memory_bytes_max: 60 << 20,
        resumed_bytes: 1 << 40,
        rails: vec![RailStats {
            nic: "enp3s0f0".to_owned(),
            sent_bytes: 0,
            received_bytes: 1 << 40,
            counted: Some((1 << 30, 11 << 37)),
            faults: 0,
            path: "recv+direct".to_owned(),
            driver: "io_uring".to_owned(),
            wire: Some(WireAgreement { level: WireLevel::Sealed, cipher: Cipher::Aes256Gcm }),
        }],
        warnings: vec![],
        load: None,
    }
}

#[test]
fn warnings_of_a_node_fit_one_text_and_cannot_control_a_terminal() {
    let long = "x".repeat(1000);
    let said =
        ["a\nb", "\u{1b}[2J", &long, &long, &long, &long, &long, "last"].map(String::from).to_vec();
    let stats = NodeStats { warnings: said, ..plain_stats() };
    let heard =
        decode::<NodeStats>(&encode(&stats).expect("it fits")).expect("a text that fits").warnings;
    assert_eq!(heard[..2], ["a b", "?[2J"]);
    assert_eq!(
        (heard.len(), heard.last().map(String::as_str)),
        (7, Some("last")),
        "what does not fit is left out"
    );
}

#[test]
fn nics_are_counted_by_name_and_their_threads_apart() {
    let nics = ["eth0", "eth0", "eth0", "eth1", "eth2", "eth2", "eth0"];
    let used = |rails_max, threads_max| {
        let [rails_max, threads_max] =
            [rails_max, threads_max].map(|most: Option<u32>| most.and_then(NonZeroU32::new));
        let options = TransferOptions { rails_max, threads_max, ..TransferOptions::default() };
        options.rails(&[], nics.into_iter())
    };
    assert_eq!(used(None, None), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(used(Some(1), None), [0, 1, 2, 6]);
    assert_eq!(used(Some(2), None), [0, 1, 2, 3, 6]);
    assert_eq!(used(None, Some(1)), [0, 3, 4]);
    assert_eq!(used(Some(9), Some(2)), [0, 1, 3, 4, 5]);
    assert_eq!(used(Some(2), Some(1)), [0, 3]);
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        TransferOptions::default().rails(&names, nics.into_iter())
    };
    assert_eq!(named(&["eth2", "eth1"]), [3, 4, 5]);
    assert!(named(&["eth9"]).is_empty());
}

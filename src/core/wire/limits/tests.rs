//! Messages of the largest size are encoded and decoded; larger ones are an error, not a panic.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::core::error::{Code, Error};
use crate::core::load::MachineLoad;
use crate::core::options::{CheckKind, Cipher, DataPath, TransferOptions, WireLevel};
use crate::core::spec::RowRole;
use crate::core::units::Span;
use crate::core::wire::control::{
    CheckValue, FileSharing, FlowHello, FlowKey, FlowLoss, KeptRanges, LandedSegment, NodeAdvert,
    NodeStats, OfferedSource, PeerNode, PlanSegment, Prepare, Prepared, QueryAnswer, RailAdvert,
    RailStats, ReplicaRange, RowState, SegmentChecks, SenderDelivery, SenderShare, SourceOrigin,
    SpeedSample, Start, ToMaster, ToNode, WireMessage, WireOptions, WireRow, decode, encode,
};
use crate::core::wire::limits::*;
use crate::core::wire::terms::{CipherSet, FlowTerms, WireAgreement};
use crate::core::wire::{Check, WireError};

/// Checks that a message survives encoding and decoding.
fn travels<M: WireMessage + PartialEq>(message: &M) {
    let bytes = encode(message).expect("the largest allowed fits");
    assert!(bytes.len() <= MESSAGE_BYTES_MAX);
    assert!(decode::<M>(&bytes).expect("it can be read") == *message, "it arrives as it was sent");
}

/// Returns range `at` of many, as far to the right as possible, where numbers are long.
fn range(at: usize) -> Span {
    Span::of((1 << 63) + at as u64 * (1 << 40), 1 << 39)
}

fn ranges(count: usize) -> Vec<Span> {
    (0..count).map(range).collect()
}

fn address() -> SocketAddr {
    "[fedc:ba98:7654:3210:fedc:ba98:7654:3210]:65535".parse().unwrap()
}

fn name(length: usize) -> String {
    "n".repeat(length)
}

fn rail_stats() -> RailStats {
    RailStats {
        nic: name(NAME_BYTES_MAX),
        sent_bytes: u64::MAX,
        received_bytes: u64::MAX,
        counted: Some((u64::MAX, u64::MAX)),
        faults: u64::MAX,
        path: name(TEXT_BYTES_MAX),
        driver: name(TEXT_BYTES_MAX),
        wire: Some(WireAgreement { level: WireLevel::Sealed, cipher: Cipher::ChaCha20Poly1305 }),
    }
}

fn stats() -> NodeStats {
    NodeStats {
        received_bytes: u64::MAX,
        sent_bytes: u64::MAX,
        wasted_bytes: u64::MAX,
        stolen_bytes: u64::MAX,
        retries: u64::MAX,
        resumed_bytes: u64::MAX,
        active_ns: u64::MAX,
        room_ns: u64::MAX,
        commit_ns: u64::MAX,
        epoch: u32::MAX,
        cpu_ns: u64::MAX,
        memory_bytes_max: u64::MAX,
        rails: vec![rail_stats(); RAILS_MAX],
        warnings: vec![name(TEXT_BYTES_MAX - 2)],
        load: Some(MachineLoad {
            window_ns: u64::MAX,
            wait_ns: u64::MAX,
            others_ns: u64::MAX,
            stolen_ns: u64::MAX,
            cpus: u64::MAX,
            resent_segments: u64::MAX,
            sent_segments: u64::MAX,
        }),
    }
}

fn options() -> WireOptions {
    WireOptions {
        block_bytes: LENGTH_MAX,
        origin: u64::MAX,
        object: None,
        transfer: TransferOptions {
            check: CheckKind::Blake3,
            fsync: true,
            overwrite: true,
            resume: true,
            slots: Some(SLOTS_MAX),
            stall_timeout: Duration::from_millis(u64::MAX),
            path: DataPath::Copy,
            rails_max: Some(NonZeroU32::MAX),
            threads_max: Some(NonZeroU32::MAX),
            verify: true,
            ..TransferOptions::default()
        },
    }
}

fn row(uri_bytes: usize) -> WireRow {
    WireRow {
        role: RowRole::Receiver,
        uri: name(uri_bytes),
        offset_bytes: u64::MAX / 2,
        span: range(0),
        sharing: FileSharing::Elected { file_bytes: u64::MAX },
        claimant: name(NAME_BYTES_MAX),
    }
}

fn replica_range(at: usize) -> ReplicaRange {
    let values_max = (REPLICA_VALUES_MAX / REPLICA_RANGES_MAX) as u32;
    ReplicaRange { span: range(at), places: values_max, values_max }
}

fn prepare(rows: Vec<WireRow>) -> ToNode {
    let id = name(TEXT_BYTES_MAX);
    let (flow_key, node_index) = (FlowKey([255; 32]), NODES_MAX as u32 - 1);
    ToNode::Prepare(Prepare {
        transfer: [255; 16],
        id,
        attempt: [255; 16],
        flow_key,
        node_index,
        rows,
        options: options(),
        replicas: (0..REPLICA_RANGES_MAX).map(replica_range).collect(),
        names_wait: true,
        nics: (0..RAILS_MAX).map(|_| name(NAME_BYTES_MAX)).collect(),
    })
}

fn start() -> Start {
    let share = SenderShare { index: NODES_MAX as u32 - 1, weight: u32::MAX };
    let segment = |at| PlanSegment { span: range(at), senders: vec![share] };
    let origin = SourceOrigin { who: u64::MAX, state: u64::MAX };
    let offered = |at| OfferedSource { index: NODES_MAX as u32 - 1, span: range(at), origin };
    Start {
        epoch: u32::MAX,
        peers: Vec::new(),
        segments: (0..SEGMENTS_MAX).map(segment).collect(),
        holes: ranges(HOLES_MAX + SEGMENTS_MAX),
        limit_bytes_per_second: u64::MAX,
        bound_us: u64::MAX,
        relays: ranges(SEGMENTS_MAX),
        kept: ranges(HAVE_MAX),
        origins: (0..ORIGINS_MAX).map(offered).collect(),
        forgets: true,
        modes: vec![u32::MAX; ROWS_MAX],
        more_at: Some(u64::MAX),
    }
}

fn peer(index: usize, rails: usize) -> PeerNode {
    PeerNode {
        index: index as u32,
        name: name(NAME_BYTES_MAX),
        rails: vec![address(); rails],
        relays: true,
        channel: Some(([0xff; 16], u16::MAX).into()),
    }
}

#[test]
fn the_largest_advert_fits_a_handshake() {
    let rail = RailAdvert {
        nic: name(NAME_BYTES_MAX),
        address: address(),
        line: Some(crate::core::units::BitRate(u64::MAX)),
        mtu: Some(u32::MAX),
        numa: Some(u32::MAX),
    };
    let advert = NodeAdvert {
        software: name(NAME_BYTES_MAX),
        rails: vec![rail; RAILS_MAX],
        cores: u32::MAX,
        boot_id: name(NAME_BYTES_MAX),
        incarnation: u64::MAX,
    };
    travels(&advert);
    assert!(encode(&advert).unwrap().len() <= ADVERT_BYTES_MAX);
    travels(&FlowHello {
        transfer: [255; 16],
        attempt: [255; 16],
        from_node: NODES_MAX as u32 - 1,
        to_node: NODES_MAX as u32 - 1,
        rail: RAILS_MAX as u32 - 1,
        to_rail: RAILS_MAX as u32 - 1,
        call: Some(u32::MAX),
        weight_bytes: u64::MAX,
        pace_bytes_per_second: u64::MAX,
        silent_flows: u32::MAX,
        further: u32::MAX,
        terms: FlowTerms { level: WireLevel::Sealed, ciphers: CipherSet::from_bits(u32::MAX) },
    });
}

#[test]
fn as_many_rows_as_a_specification_may_give_one_node_fit_one_message() {
    travels(&prepare(vec![row(URI_BYTES_MAX); URIS_BYTES_MAX / URI_BYTES_MAX]));
    travels(&prepare(vec![row(URIS_BYTES_MAX / ROWS_MAX); ROWS_MAX]));
    // A specification with more rows is refused before this point.
    let more = prepare(vec![row(URI_BYTES_MAX); 2 * URIS_BYTES_MAX / URI_BYTES_MAX]);
    assert!(matches!(encode(&more), Err(WireError::Limit { field: "the size of a message", .. })));
}

#[test]
fn the_largest_part_of_a_plan_fits_one_message() {
    travels(&ToNode::Start(start()));
    // As many peers as there are nodes, or as many rails as peers may have, instead of ranges.
    let bare = Start { segments: Vec::new(), holes: Vec::new(), relays: Vec::new(), ..start() };
    let shares =
        (0..NODES_MAX).map(|at| SenderShare { index: at as u32, weight: u32::MAX }).collect();
    let one = vec![PlanSegment { span: range(0), senders: shares }];
    let named = |at: usize| PeerNode { name: name(64), ..peer(at, 1) };
    travels(&ToNode::Start(Start {
        segments: one,
        peers: (0..NODES_MAX).map(named).collect(),
        ..bare.clone()
    }));
    travels(&ToNode::Start(Start {
        peers: (0..8000).map(|at| peer(at, RAILS_MAX)).collect(),
        ..bare.clone()
    }));
    let more = ToNode::Start(Start {
        peers: (0..NODES_MAX).map(|at| peer(at, RAILS_MAX)).collect(),
        ..bare
    });
    assert!(
        matches!(encode(&more), Err(WireError::Limit { .. })),
        "the master says so by name before it asks"
    );
}

#[test]
fn the_largest_answer_to_prepare_fits_one_message() {
    let error = Error::new(Code::Data, name(TEXT_BYTES_MAX)).remedy(name(TEXT_BYTES_MAX));
    let have = |at| KeptRanges {
        span: range(at),
        origin: SourceOrigin { who: u64::MAX, state: u64::MAX },
    };
    let prepared = Prepared {
        sealed: true,
        rows: vec![RowState { shared: true, kept: true, complete: true }; ROWS_MAX],
        holes: ranges(HOLES_MAX),
        error: Some(error.missing(ranges(SPANS_MAX))),
        states: vec![u64::MAX; ROWS_MAX],
        have: (0..HAVE_MAX).map(have).collect(),
        notes: vec![name(TEXT_BYTES_MAX); NOTES_MAX],
        replicas: vec![u64::MAX; REPLICA_VALUES_MAX],
        modes: vec![u32::MAX; ROWS_MAX],
    };
    travels(&ToMaster::Prepared(prepared.clone()));
    // Notes contain paths, and there may be one for each file.
    let long = ToMaster::Prepared(Prepared {
        notes: vec!["é".repeat(TEXT_BYTES_MAX); ROWS_MAX],
        ..prepared
    });
    let ToMaster::Prepared(arrived) = decode(&encode(&long).unwrap()).unwrap() else {
        unreachable!()
    };
    assert_eq!(arrived.notes.len(), NOTES_MAX);
    assert_eq!(arrived.notes[0].len(), TEXT_BYTES_MAX);
    assert_eq!(
        arrived.notes[NOTES_MAX - 1],
        format!("there are {} more notes like these", ROWS_MAX - NOTES_MAX + 1)
    );
}

#[test]
fn reports_of_as_many_segments_and_nodes_as_there_may_be_fit_one_message() {
    let check = |span| CheckValue { span, check: Check::Blake3([255; 32]) };
    let listed = |at| LandedSegment {
        span: range(at),
        checks: SegmentChecks::Listed(vec![check(range(at))]),
    };
    let folded = |at| LandedSegment { span: range(at), checks: SegmentChecks::Folded([255; 32]) };
    travels(&ToMaster::Landed {
        segments: (0..SEGMENTS_MAX).map(listed).collect(),
        stats: stats(),
    });
    travels(&ToMaster::Landed {
        segments: (0..SEGMENTS_MAX).map(folded).collect(),
        stats: stats(),
    });
    let part = |at: usize| check(Span::of(range(0).start + at as u64, 1));
    let all_of_one = SegmentChecks::Listed((0..CHECKS_MAX).map(part).collect());
    let mut segments: Vec<LandedSegment> = (1..SEGMENTS_MAX).map(folded).collect();
    segments.insert(0, LandedSegment { span: range(0), checks: all_of_one });
    travels(&ToMaster::Landed { segments, stats: stats() });
    let (nic, peer) = (name(NAME_BYTES_MAX), name(NAME_BYTES_MAX));
    let lost = FlowLoss { nic, peer, reason: name(TEXT_BYTES_MAX) };
    let most = SpeedSample { bytes: u64::MAX, micros: u64::MAX, waiting_micros: u64::MAX };
    for (senders, sample) in [(NODES_MAX, SpeedSample::default()), (SAMPLES_MAX, most)] {
        let delivered = (0..senders)
            .map(|at| SenderDelivery { index: at as u32, bytes: u64::MAX, busy: true, sample })
            .collect();
        travels(&ToMaster::Progress {
            received_bytes: u64::MAX,
            sent_bytes: u64::MAX,
            delivered,
            left: vec![u64::MAX; LEFT_MAX],
            missing_bytes: u64::MAX,
            lost: vec![lost.clone(); FLOW_LOSSES_MAX],
        });
    }
    travels(&ToMaster::Report(stats()));
    travels(&QueryAnswer { json: name(STATUS_BYTES_MAX) });
}

/// Regression: such a message ended the node process, with all its transfers.
#[test]
fn a_list_of_checks_that_is_too_long_is_an_error_and_no_panic() {
    let checks = vec![CheckValue { span: range(0), check: Check::Blake3([255; 32]) }; 400_000];
    let segments = vec![LandedSegment { span: range(0), checks: SegmentChecks::Listed(checks) }];
    let landed = ToMaster::Landed { segments, stats: stats() };
    assert!(matches!(
        encode(&landed),
        Err(WireError::Limit { field: "the size of a message", .. })
    ));
}

#[test]
fn failures_say_how_much_more_is_missing_than_they_list() {
    let error = Error::new(Code::Data, name(2 * TEXT_BYTES_MAX)).remedy(name(2 * TEXT_BYTES_MAX));
    let failed = ToMaster::Failed {
        error: error.missing(ranges(SPANS_MAX + 7)),
        stats: Some(Box::new(stats())),
    };
    let ToMaster::Failed { error, stats: told } = decode(&encode(&failed).unwrap()).unwrap() else {
        unreachable!()
    };
    assert_eq!((error.missing.len(), error.message.len()), (SPANS_MAX, TEXT_BYTES_MAX));
    let more = format!("; 7 more ranges of {} bytes are missing than are listed", 7_u64 << 39);
    assert!(error.message.ends_with(&more), "{}", &error.message[TEXT_BYTES_MAX - 100..]);
    assert_eq!(told, Some(Box::new(stats())));
    let reason = "é".repeat(TEXT_BYTES_MAX);
    let cancel = ToNode::Cancel { reason, forgets: true };
    let ToNode::Cancel { reason, .. } = decode(&encode(&cancel).unwrap()).unwrap() else {
        unreachable!()
    };
    assert_eq!(reason.len(), TEXT_BYTES_MAX);
}

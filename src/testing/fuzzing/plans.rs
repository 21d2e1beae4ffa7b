//! Plans that a master may send, and some that it may not.

use super::byte_source::ByteSource;
use crate::core::units::{Span, union};
use crate::core::wire::control::{PeerNode, PlanSegment, SenderShare, Start, decode};

/// A plan of these ranges.
pub(super) fn start(script: &mut ByteSource<'_>, epoch: u32, spans: Vec<Span>) -> Start {
    let mut start: Start = decode(&[]).expect("nothing of it must be there");
    let senders = |script: &mut ByteSource<'_>| {
        let weight = |script: &mut ByteSource<'_>| script.pick(&[1, 0, 3, u32::MAX]);
        (0..script.below(4))
            .map(|_| SenderShare { index: script.below(4) as u32, weight: weight(script) })
            .collect()
    };
    start.segments =
        spans.into_iter().map(|span| PlanSegment { span, senders: senders(script) }).collect();
    let rails = vec!["10.0.0.1:1".parse().expect("an address"); script.below(3)];
    let peer = |index: usize| PeerNode {
        index: index as u32,
        name: "a".into(),
        rails: rails.clone(),
        relays: index == 1,
        channel: None,
    };
    start.epoch = epoch;
    start.peers = (0..script.below(5)).map(peer).collect();
    start.holes = union(spans_of(script, 2));
    // A master that asks for years gets them.
    start.limit_bytes_per_second = script.pick(&[0, 100_000, u64::MAX]);
    start.bound_us = script.pick(&[0, 1, 1_000_000]);
    start.relays = union(spans_of(script, 2));
    start
}

/// The ranges of a plan: mostly in order, as the wire wants them.
pub(super) fn spans(script: &mut ByteSource<'_>) -> Vec<Span> {
    let count = script.below(5);
    let spans = spans_of(script, count);
    if script.below(8) == 7 { spans } else { union(spans) }
}

fn spans_of(script: &mut ByteSource<'_>, count: usize) -> Vec<Span> {
    let base = script.pick(&[0, 1024, 100_000, u64::MAX - 100_000]);
    let unit = script.pick(&[1, 10, 1024]);
    let span = |script: &mut ByteSource<'_>| {
        let start = base + unit * script.below(64) as u64;
        Span::of(start, 1 + unit * script.below(30) as u64)
    };
    (0..count).map(|_| span(script)).collect()
}

//! Rows of a benchmark: every sender offers the whole data space, every receiver wants its own
//! part.

use crate::core::spec::{DataUri, NodeAddress, Row, RowRole};
use crate::core::units::{Span, subtract};

/// Seed of the pattern; any number would do.
pub(super) const SEED: u64 = 1;

/// Returns the rows of one run. `parts` are the bytes of each of the `receivers`, none of them 0.
///
/// A node on both sides loads its NICs in both directions. It does not offer the part that it
/// wants: that would never use a NIC.
pub(crate) fn rows(senders: &[NodeAddress], receivers: &[NodeAddress], parts: &[u64]) -> Vec<Row> {
    let mut wants = Vec::with_capacity(receivers.len());
    let mut end = 0;
    for (receiver, &bytes) in receivers.iter().zip(parts) {
        wants.push((receiver, Span::of(end, bytes)));
        end += bytes;
    }
    let whole = Span::new(0, end);
    let offers = senders.iter().flat_map(|sender| {
        let own: Vec<Span> =
            wants.iter().filter(|(receiver, _)| *receiver == sender).map(|it| it.1).collect();
        subtract(whole, &own)
            .into_iter()
            .map(move |range| row(RowRole::Sender, sender, DataUri::Pattern(SEED), range))
    });
    let wants = wants
        .iter()
        .map(|&(receiver, range)| row(RowRole::Receiver, receiver, DataUri::Null, range));
    offers.chain(wants).collect()
}

/// Returns a row of a benchmark. A pattern is computed from positions, and nothing is kept, so
/// offsets are irrelevant.
pub(super) fn row(role: RowRole, node: &NodeAddress, uri: DataUri, range: Span) -> Row {
    let (node, nics) = (node.clone(), Vec::new());
    Row {
        role,
        node,
        uri,
        offset_bytes: 0,
        range,
        speed: None,
        nics,
        group: None,
        store: None,
        line: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;

    fn nodes(names: &[&str]) -> Vec<NodeAddress> {
        names.iter().map(|name| NodeAddress { host: (*name).into(), port: 1 }).collect()
    }

    fn shown(from: &[&str], to: &[&str], parts: &[u64]) -> Vec<String> {
        let rows = rows(&nodes(from), &nodes(to), parts);
        let spec = Spec { id: "bench".into(), rows: rows.clone(), ..Spec::default() };
        spec.validate().expect("a benchmark is a valid transfer");
        rows.iter().map(|row| format!("{} {} {}", row.node.host, row.uri, row.range)).collect()
    }

    #[test]
    fn receivers_want_parts_of_their_own_and_every_sender_has_all() {
        assert_eq!(
            shown(&["a", "b"], &["c", "d"], &[100, 50]),
            ["a pattern:1 0-149", "b pattern:1 0-149", "c null: 0-99", "d null: 100-149"]
        );
    }

    #[test]
    fn a_node_on_both_sides_does_not_offer_what_it_wants() {
        assert_eq!(
            shown(&["a", "b", "c"], &["a", "b", "c"], &[10, 10, 10])[..5],
            [
                "a pattern:1 10-29",
                "b pattern:1 0-9",
                "b pattern:1 20-29",
                "c pattern:1 0-19",
                "a null: 0-9"
            ]
        );
    }
}

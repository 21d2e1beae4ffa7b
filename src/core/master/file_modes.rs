//! Permissions of written files, taken from the sources of their bytes.
//!
//! A file with bytes of several sources may be read by users who may read each of the sources. A
//! pattern may be read by all.

use std::collections::BTreeMap;

use super::roster::{Roster, RosterEntry};
use crate::core::spec::{DataUri, RowRole};
use crate::core::units::{Span, union};
use crate::core::wire::control::Prepared;

/// Permissions of sources, and of the files made of them.
#[derive(Debug, Default)]
pub(super) struct FileModes {
    /// Offered ranges, by the permissions of their source.
    offers: BTreeMap<u32, Vec<Span>>,
    /// Positions of empty sources in the data space, with their permissions.
    empty: Vec<(u64, u32)>,
    /// Permissions of each file; known once every node is prepared.
    files: BTreeMap<DataUri, u32>,
}

impl FileModes {
    /// Records the permissions of a node's sources.
    pub(super) fn prepared(&mut self, entry: &RosterEntry, prepared: &Prepared) {
        for (at, row) in
            entry.rows.iter().enumerate().filter(|(_, row)| row.role == RowRole::Sender)
        {
            let mode = prepared.modes.get(at).copied().filter(|&mode| mode != 0);
            let permissions = mode.map_or(OF_PATTERNS, |mode| mode & PERMISSIONS);
            if row.range.is_empty() {
                self.empty.push((row.range.start, permissions));
            } else {
                self.offers.entry(permissions).or_default().push(row.range);
            }
        }
    }

    /// Computes the permissions of each file, once every node is prepared.
    pub(super) fn decide(&mut self, roster: &Roster) {
        let offers = std::mem::take(&mut self.offers);
        let offers: Vec<(u32, Vec<Span>)> =
            offers.into_iter().map(|(mode, spans)| (mode, union(spans))).collect();
        let rows = roster.entries.iter().flat_map(|entry| &entry.rows);
        for row in
            rows.filter(|row| row.role == RowRole::Receiver && matches!(row.uri, DataUri::File(_)))
        {
            let sources =
                offers.iter().filter(|(_, spans)| overlap(spans, row.range)).map(|(mode, _)| *mode);
            let is_meant =
                |(start, _): &&(u64, u32)| row.range.is_empty() && *start == row.range.start;
            let empty = self.empty.iter().filter(is_meant).map(|(_, mode)| *mode);
            let mode = self.files.entry(row.uri.clone()).or_insert(PERMISSIONS);
            *mode = sources.chain(empty).fold(*mode, |mode, permissions| mode & permissions);
        }
    }

    /// Returns the permissions of the files of a node's rows, in row order, or nothing for a node
    /// that writes no file.
    pub(super) fn of_rows(&self, entry: &RosterEntry) -> Vec<u32> {
        if entry.rows.iter().all(|row| row.role == RowRole::Sender) {
            return Vec::new();
        }
        entry
            .rows
            .iter()
            .map(|row| self.files.get(&row.uri).copied().unwrap_or(OF_PATTERNS))
            .collect()
    }
}

/// Returns true if a range has bytes in common with ascending `spans`.
fn overlap(spans: &[Span], range: Span) -> bool {
    let first = spans.partition_point(|span| span.end <= range.start);
    spans.get(first).is_some_and(|span| span.start < range.end)
}

const PERMISSIONS: u32 = 0o777;
/// Permissions of generated data: all may read it, as far as the umask allows.
const OF_PATTERNS: u32 = 0o666;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::spec::{NodeAddress, Row, Spec};

    fn row(role: RowRole, host: &str, path: &str, range: Span) -> Row {
        let node = NodeAddress { host: host.into(), port: 1 };
        let uri = DataUri::File(path.into());
        Row {
            role,
            node,
            uri,
            offset_bytes: 0,
            range,
            speed: None,
            nics: vec![],
            group: None,
            store: None,
            line: 0,
        }
    }

    fn modes_of(rows: Vec<Row>, modes: &[(usize, u32)]) -> Vec<Vec<u32>> {
        let roster = Roster::new(&Spec { rows, ..Spec::default() });
        let mut files = FileModes::default();
        for (at, entry) in roster.entries.iter().enumerate() {
            let mode = modes.iter().find(|(node, _)| *node == at).map(|(_, mode)| *mode);
            files.prepared(
                entry,
                &Prepared { modes: mode.into_iter().collect(), ..Prepared::default() },
            );
        }
        files.decide(&roster);
        roster.entries.iter().map(|entry| files.of_rows(entry)).collect()
    }

    #[test]
    fn bytes_of_several_sources_may_be_read_by_those_who_may_read_each() {
        let (low, high) = (Span::new(0, 10), Span::new(10, 20));
        let rows = vec![
            row(RowRole::Sender, "a", "/x", low),
            row(RowRole::Sender, "b", "/x", low),
            row(RowRole::Sender, "c", "/y", high),
            row(RowRole::Receiver, "d", "/low", low),
            row(RowRole::Receiver, "e", "/both", Span::new(0, 20)),
            row(RowRole::Receiver, "f", "/parts", low),
            row(RowRole::Receiver, "g", "/parts", high),
        ];
        let modes = modes_of(rows, &[(0, 0o100_755), (1, 0o100_750), (2, 0o104_644)]);
        let none: Vec<u32> = Vec::new();
        // Two nodes that write one path give it the same permissions, no matter which part each of
        // them writes.
        assert_eq!(modes[..3], [none.clone(), none.clone(), none]);
        assert_eq!(modes[3..], [vec![0o750], vec![0o640], vec![0o640], vec![0o640]]);
    }

    #[test]
    fn what_has_no_permissions_of_its_own_is_read_by_all_and_an_empty_source_counts() {
        let (range, empty) = (Span::new(0, 10), Span::new(10, 10));
        let of_pattern = modes_of(
            vec![row(RowRole::Sender, "a", "/x", range), row(RowRole::Receiver, "b", "/y", range)],
            &[(0, 0)],
        );
        assert_eq!(of_pattern[1], [0o666]);
        let rows =
            vec![row(RowRole::Sender, "a", "/x", empty), row(RowRole::Receiver, "b", "/y", empty)];
        assert_eq!(modes_of(rows.clone(), &[(0, 0o100_600)])[1], [0o600]);
        assert_eq!(modes_of(rows, &[(0, 0o100_000)])[1], [0], "read by nobody but root");
    }
}

//! Participants: the rows of a specification by node, and the files that several nodes may share.

use std::collections::{BTreeMap, BTreeSet};

use super::block_size;
use super::channels::LauncherChannels;
use crate::core::block_grid::BlockGrid;
use crate::core::error::{Code, Error, Result};
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole, Spec, StoreRate};
use crate::core::units::{BitRate, NodeIx, Span, union};
use crate::core::wire::control::{FileSharing, NodeAdvert, RailAdvert};

/// One node and its rows.
#[derive(Clone, Debug)]
pub(crate) struct RosterEntry {
    pub(crate) address: NodeAddress,
    pub(crate) rows: Vec<Row>,
    /// For each row, the sharing of its destination with other nodes.
    pub(crate) sharing: Vec<FileSharing>,
    /// For each row, true if another node may name the same file by another URI.
    pub(crate) claims: Vec<bool>,
    /// Wave in which the node is prepared: a node that may share a file comes after the node
    /// elected to create it.
    pub(crate) wave: u32,
}

impl RosterEntry {
    pub(crate) fn sends(&self) -> bool {
        self.rows.iter().any(|row| row.role == RowRole::Sender)
    }

    pub(crate) fn receives(&self) -> bool {
        self.rows.iter().any(|row| row.role == RowRole::Receiver)
    }

    /// Returns true if it receives bytes that it offers: those may never pass a NIC.
    pub(crate) fn feeds_itself(&self) -> bool {
        let of = |role| self.rows.iter().filter(move |row| row.role == role);
        let overlap = |one: &Row, other: &Row| {
            one.range.start.max(other.range.start) < one.range.end.min(other.range.end)
        };
        of(RowRole::Sender).any(|sent| of(RowRole::Receiver).any(|wanted| overlap(sent, wanted)))
    }

    /// Returns true if it receives and keeps all received bytes, so that it can relay them.
    pub(crate) fn keeps_all(&self) -> bool {
        let mut received = self.rows.iter().filter(|row| row.role == RowRole::Receiver);
        self.receives() && received.all(|row| row.uri != DataUri::Null)
    }

    /// Returns the NICs of a node that its rows name, by their names; none where no row names any.
    ///
    /// # Errors
    /// `Code::Usage` where the node has no such NIC, or does not use it.
    pub(super) fn nics_of(&self, advert: &NodeAdvert) -> Result<Vec<String>> {
        // All rows that name any name the same ones.
        let Some(row) = self.rows.iter().find(|row| !row.nics.is_empty()) else {
            return Ok(Vec::new());
        };
        let find = |name: &String| {
            let mut rails = advert.rails.iter();
            let is_it =
                |rail: &&RailAdvert| rail.nic == *name || name.parse() == Ok(rail.address.ip());
            rails.find(is_it).map(|rail| rail.nic.clone()).ok_or_else(|| {
                let what = format!("line {}: the node has no NIC {name} that it uses", row.line);
                let known: BTreeSet<&str> =
                    advert.rails.iter().map(|rail| rail.nic.as_str()).collect();
                let known = known.into_iter().collect::<Vec<_>>().join(", ");
                Error::new(Code::Usage, what)
                    .remedy(format!("name one of {known}, or start the node with --nic {name}"))
            })
        };
        row.nics.iter().map(find).collect()
    }

    /// Returns the NICs that the node is told to use; none for all.
    pub(super) fn nics_told(&self, advert: Option<NodeAdvert>) -> Vec<String> {
        let names_any = self.rows.iter().any(|row| !row.nics.is_empty());
        let rails = advert.filter(|_| names_any).into_iter().flat_map(|it| it.rails);
        let mut nics: Vec<String> = rails.map(|rail| rail.nic).collect();
        nics.dedup();
        nics
    }

    /// Returns the declared speed of its NICs together.
    pub(crate) fn speed(&self) -> Option<BitRate> {
        self.rows.iter().find_map(|row| row.speed)
    }

    /// Returns the bytes that it wants, each counted once.
    pub(crate) fn wanted_bytes(&self) -> u64 {
        let wanted = self.rows.iter().filter(|row| row.role == RowRole::Receiver);
        union(wanted.map(|row| row.range).collect()).into_iter().map(Span::bytes).sum()
    }

    /// Returns true if it creates a file that other nodes may write, too.
    pub(crate) fn is_elected(&self) -> bool {
        self.sharing.iter().any(|sharing| matches!(sharing, FileSharing::Elected { .. }))
    }
}

/// The nodes of a transfer, in the order of first mention; a node's index is its [`NodeIx`].
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    pub(crate) entries: Vec<RosterEntry>,
    /// Stores that several nodes read from or write to.
    pub(crate) stores: Vec<StoreRate>,
    /// Rate limits between two nodes: from, to, rate.
    pub(crate) pairs: Vec<(NodeIx, NodeIx, BitRate)>,
    pub(crate) grid: BlockGrid,
    /// Ways between nodes through their launcher.
    pub(crate) channels: LauncherChannels,
}

impl Roster {
    pub(crate) fn new(spec: &Spec) -> Roster {
        let mut places: BTreeMap<&NodeAddress, usize> = BTreeMap::new();
        let mut entries: Vec<RosterEntry> = Vec::new();
        for row in &spec.rows {
            let place = *places.entry(&row.node).or_insert_with(|| {
                let (rows, sharing, claims) = (Vec::new(), Vec::new(), Vec::new());
                entries.push(RosterEntry {
                    address: row.node.clone(),
                    rows,
                    sharing,
                    claims,
                    wave: 0,
                });
                entries.len() - 1
            });
            entries[place].rows.push(Row { uri: plain(&row.uri), ..row.clone() });
        }
        let ix = |node: &NodeAddress| {
            places.get(node).map(|place| NodeIx(u32::try_from(*place).expect("rows are limited")))
        };
        // A pair with a node in no row has no effect: validation refuses it.
        let pairs = spec
            .pairs
            .iter()
            .filter_map(|pair| Some((ix(&pair.from)?, ix(&pair.to)?, pair.rate)))
            .collect();
        entries.iter_mut().for_each(|entry| entry.rows.shrink_to_fit());
        let (stores, channels) = (spec.stores.clone(), LauncherChannels::default());
        let mut roster = Roster { entries, stores, pairs, grid: grid(spec), channels };
        roster.elect();
        roster.find_claims();
        roster
    }

    pub(crate) fn get(&self, node: NodeIx) -> &RosterEntry {
        &self.entries[node.at()]
    }

    /// Returns the addresses of nodes as people read them: the first few, and the number of others.
    pub(super) fn names(&self, nodes: impl Iterator<Item = NodeIx>) -> String {
        let names: Vec<String> = nodes.map(|node| self.get(node).address.to_string()).collect();
        match names.len() {
            0..=4 => names.join(", "),
            more => format!("{} and {} more", names[..4].join(", "), more - 4),
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (NodeIx, &RosterEntry)> {
        (0..).map(NodeIx).zip(&self.entries)
    }

    /// Returns the bytes that some receiver wants, ascending and joined.
    pub(crate) fn wanted(&self) -> Vec<Span> {
        let rows = self.entries.iter().flat_map(|entry| &entry.rows);
        union(rows.filter(|row| row.role == RowRole::Receiver).map(|row| row.range).collect())
    }

    /// Elects, for each path that several nodes write, the first of these nodes.
    fn elect(&mut self) {
        let mut groups: BTreeMap<DataUri, Vec<(usize, usize)>> = BTreeMap::new();
        for (node, entry) in self.entries.iter_mut().enumerate() {
            entry.sharing = vec![FileSharing::Alone; entry.rows.len()];
            for (at, row) in entry.rows.iter().enumerate() {
                if row.role == RowRole::Receiver && matches!(row.uri, DataUri::File(_)) {
                    groups.entry(row.uri.clone()).or_default().push((node, at));
                }
            }
        }
        let mut waits_for: Vec<Vec<usize>> = vec![Vec::new(); self.entries.len()];
        for rows in groups.values().filter(|rows| rows.iter().any(|(node, _)| *node != rows[0].0)) {
            let file_bytes = rows
                .iter()
                .map(|&(node, at)| file_end(&self.entries[node].rows[at]))
                .max()
                .unwrap_or(0);
            let elected = rows[0].0;
            for &(node, at) in rows {
                self.entries[node].sharing[at] = if node == elected {
                    FileSharing::Elected { file_bytes }
                } else {
                    FileSharing::Member
                };
                if node != elected {
                    waits_for[node].push(elected);
                }
            }
        }
        // The elected node precedes the nodes that wait for it, so its wave is known when theirs is
        // computed.
        for (node, elected) in waits_for.iter().enumerate() {
            let waves = elected.iter().map(|&elected| self.entries[elected].wave + 1);
            self.entries[node].wave = waves.max().unwrap_or(0);
        }
    }

    /// Finds the rows whose file may be another node's under another URI: a file in the same
    /// directory has the same name there. Names are compared without case, because some file
    /// systems fold it.
    fn find_claims(&mut self) {
        let name = |row: &Row| match &row.uri {
            _ if row.role == RowRole::Sender => None,
            DataUri::File(path) => {
                path.file_name().map(|name| name.to_string_lossy().to_lowercase())
            }
            // No path has a slash in its last part.
            DataUri::Mem(name) => Some(format!("mem/{}", name.to_string_lossy())),
            DataUri::Pattern(_) | DataUri::Null => None,
        };
        // For each name: its first row, and whether it occurs on several nodes and with several
        // URIs.
        let mut names: BTreeMap<String, (usize, DataUri, bool, bool)> = BTreeMap::new();
        for (node, entry) in self.entries.iter().enumerate() {
            for row in &entry.rows {
                let Some(name) = name(row) else { continue };
                let (first, uri, nodes, uris) =
                    names.entry(name).or_insert((node, row.uri.clone(), false, false));
                *nodes |= *first != node;
                // Nodes on one machine have one memory, but do not share what they write there.
                *uris |= *uri != row.uri || matches!(row.uri, DataUri::Mem(_));
            }
        }
        names.retain(|_, (_, _, nodes, uris)| *nodes && *uris);
        for entry in &mut self.entries {
            let claims = entry
                .rows
                .iter()
                .map(|row| name(row).is_some_and(|name| names.contains_key(&name)));
            entry.claims = claims.collect();
        }
    }

    /// Returns the files in which rows of several nodes overlap, and checks that they want the same
    /// bytes there. `joined` returns true for a row whose node sees the elected node's file.
    ///
    /// # Errors
    /// `Code::Usage`, naming two rows that put different bytes at one offset.
    pub(crate) fn check_shared(
        &self,
        joined: impl Fn(NodeIx, usize) -> bool,
    ) -> Result<BTreeSet<DataUri>> {
        let rows = self
            .nodes()
            .flat_map(|(node, entry)| (0..entry.rows.len()).map(move |row| (node, entry, row)));
        let shares = |&(node, entry, row): &(NodeIx, &RosterEntry, usize)| {
            matches!(entry.sharing[row], FileSharing::Elected { .. }) || joined(node, row)
        };
        let rows = rows.filter(shares).map(|(_, entry, row)| &entry.rows[row]);
        // Rows of an empty file write nothing.
        let mut rows: Vec<&Row> = rows.filter(|row| !row.range.is_empty()).collect();
        rows.sort_by_key(|row| (&row.uri, row.offset_bytes));
        let mut meet = BTreeSet::new();
        // The row that reaches furthest into the file so far.
        let mut furthest: Option<&Row> = None;
        for b in rows {
            let Some(a) = furthest.replace(b) else { continue };
            let overlap = a.uri == b.uri && b.offset_bytes < file_end(a);
            let same = b.offset_bytes.wrapping_sub(b.range.start)
                == a.offset_bytes.wrapping_sub(a.range.start);
            if overlap && !same {
                let what = format!(
                    "{} and {} both write {}, and put different bytes at offset {} of it",
                    a.node, b.node, a.uri, b.offset_bytes
                );
                return Err(Error::new(Code::Usage, what)
                    .remedy("give each its own path or its own part of the file"));
            }
            if overlap && a.node != b.node {
                meet.insert(a.uri.clone());
            }
            if a.uri == b.uri && file_end(a) > file_end(b) {
                furthest = Some(a);
            }
        }
        Ok(meet)
    }
}

/// Returns the grid of a transfer, with its origin at the specification's origin or else the lowest
/// offered byte, and the specification's block or else one that fits.
fn grid(spec: &Spec) -> BlockGrid {
    let offered =
        spec.rows.iter().filter(|row| row.role == RowRole::Sender).map(|row| row.range.start).min();
    let block_bytes = spec.block_bytes.unwrap_or_else(|| block_size::block_bytes(spec));
    BlockGrid::new(spec.origin.or(offered).unwrap_or(0), block_bytes)
}

/// Normalizes a URI for nodes. Paths that differ in `.` and doubled slashes are equal, so names
/// derived from them must be equal, too.
fn plain(uri: &DataUri) -> DataUri {
    match uri {
        DataUri::File(path) => DataUri::File(path.components().collect()),
        DataUri::Mem(_) | DataUri::Pattern(_) | DataUri::Null => uri.clone(),
    }
}

/// Returns the end of a row in its file.
fn file_end(row: &Row) -> u64 {
    row.offset_bytes.saturating_add(row.range.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(role: RowRole, host: &str, uri: DataUri, offset_bytes: u64, range: (u64, u64)) -> Row {
        let node = NodeAddress { host: host.into(), port: 1 };
        let range = Span::new(range.0, range.1);
        Row {
            role,
            node,
            uri,
            offset_bytes,
            range,
            speed: None,
            nics: Vec::new(),
            group: None,
            store: None,
            line: 0,
        }
    }

    fn file(path: &str) -> DataUri {
        DataUri::File(path.into())
    }

    #[test]
    fn a_specification_that_names_its_block_gets_it() {
        let rows = "writer a:1 pattern:1 0 0-999\nreader b:1 null: 0 0-999\n";
        for (option, block) in [("", 64 << 10), ("option block 4K\n", 4 << 10)] {
            let spec = Spec::parse("test", &format!("id x\n{option}{rows}")).expect("one");
            assert_eq!(Roster::new(&spec).grid.block_bytes(), block);
        }
    }

    #[test]
    fn figure_2_elects_the_first_writer_of_copy1() {
        let rows = vec![
            row(RowRole::Sender, "node1", file("/data/half1"), 0, (0, 4096)),
            row(RowRole::Receiver, "node5", file("/tmp/copy1"), 0, (0, 2048)),
            row(RowRole::Receiver, "node7", file("/tmp/copy1"), 2048, (2048, 4096)),
            row(RowRole::Receiver, "node6", file("/tmp/copy2"), 0, (0, 4096)),
        ];
        let roster = Roster::new(&Spec { rows, ..Spec::default() });
        let sharing: Vec<FileSharing> =
            roster.entries.iter().map(|entry| entry.sharing[0]).collect();
        let elected = FileSharing::Elected { file_bytes: 4096 };
        assert_eq!(sharing, [FileSharing::Alone, elected, FileSharing::Member, FileSharing::Alone]);
        let waves: Vec<u32> = roster.entries.iter().map(|entry| entry.wave).collect();
        assert_eq!(waves, [0, 0, 1, 0]);
        let meet = roster.check_shared(|node, _| node == NodeIx(2)).expect("they agree");
        assert!(meet.is_empty(), "the halves do not meet");
    }

    #[test]
    fn files_of_one_name_and_several_uris_on_several_nodes_are_claimed() {
        let claims = |rows: &[(&str, &str)]| {
            let rows =
                rows.iter().map(|(host, path)| row(RowRole::Receiver, host, file(path), 0, (0, 9)));
            let roster = Roster::new(&Spec { rows: rows.collect(), ..Spec::default() });
            roster.entries.into_iter().flat_map(|entry| entry.claims).collect::<Vec<bool>>()
        };
        assert_eq!(claims(&[("a", "/d/x"), ("b", "/l/x"), ("c", "/d/y")]), [true, true, false]);
        assert_eq!(
            claims(&[("a", "/d/x"), ("b", "/d/x")]),
            [false, false],
            "one URI is shared as it is"
        );
        assert_eq!(
            claims(&[("a", "/d/x"), ("a", "/l/x")]),
            [false, false],
            "one node finds out by itself"
        );
        let mem = |host: &str| row(RowRole::Receiver, host, DataUri::Mem("x".into()), 0, (0, 9));
        let rows = vec![mem("a"), mem("b")];
        let roster = Roster::new(&Spec { rows, ..Spec::default() });
        assert!(
            roster.entries.iter().all(|entry| entry.claims == [true]),
            "nodes of one machine have one memory"
        );
        assert_eq!(
            claims(&[("a", "/d/x"), ("b", "/l/X")]),
            [true, true],
            "of a file system that folds case"
        );
    }

    /// Regression: each of the two nodes made its own file, and the last one to rename it lost the
    /// other node's half.
    #[test]
    fn paths_that_differ_in_slashes_alone_are_one_path_to_nodes() {
        let rows = vec![
            row(RowRole::Receiver, "a", file("/d/x"), 0, (0, 9)),
            row(RowRole::Receiver, "b", file("/./d//x"), 10, (10, 19)),
        ];
        let roster = Roster::new(&Spec { rows, ..Spec::default() });
        let uris: Vec<String> =
            roster.entries.iter().map(|entry| entry.rows[0].uri.to_string()).collect();
        assert_eq!(uris, ["file:///d/x", "file:///d/x"]);
        assert_eq!(roster.entries[1].sharing, [FileSharing::Member]);
    }

    #[test]
    fn shared_rows_that_disagree_are_named() {
        let rows = vec![
            row(RowRole::Receiver, "node5", file("/tmp/x"), 0, (0, 2048)),
            row(RowRole::Receiver, "node7", file("/tmp/x"), 1024, (2048, 4096)),
        ];
        let roster = Roster::new(&Spec { rows, ..Spec::default() });
        let error = roster.check_shared(|node, _| node == NodeIx(1)).expect_err("they overlap");
        assert_eq!(error.code, Code::Usage);
        assert!(error.message.contains("node5:1 and node7:1"), "{error}");
    }
}

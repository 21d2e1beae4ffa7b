//! Checks of the rows of a specification against each other.
//!
//! A specification may have a million rows, so every check sorts and sweeps; none compares all
//! pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::hostlist::HOST_BYTES_MAX;
use super::limits::{ID_BYTES_MAX, RATE_MAX, ROWS_MAX, STORES_MAX, block_bytes_fit};
use super::{DataUri, NodeAddress, PairRate, Row, RowRole, Spec, StoreRate};
use crate::core::error::{Code, Error, Result};
use crate::core::units::{BitRate, Span, print_rate, subtract, union};

impl Spec {
    /// Checks rows for contradictions, and rows built in code for everything that parsing checks.
    ///
    /// # Errors
    /// [`Code::Usage`] with the faulty lines. If a reader wants bytes that no writer offers,
    /// `missing` holds those ranges.
    pub fn validate(&self) -> Result<()> {
        self.rows.iter().try_for_each(check_row)?;
        self.check_sizes()?;
        self.check_roles()?;
        self.check_grid()?;
        self.check_node_rows()?;
        self.check_speeds()?;
        self.check_nics()?;
        self.check_stores()?;
        self.check_pairs()?;
        self.check_groups()?;
        self.check_destinations()?;
        self.check_no_file_both_ways()?;
        self.check_all_offered()
    }

    fn with_role(&self, role: RowRole) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.role == role)
    }

    fn spans(&self, role: RowRole) -> Vec<Span> {
        union(self.with_role(role).map(|row| row.range).collect())
    }

    /// Checks the limits of parsing for specifications built in code: the id, and the counts of
    /// rows and stores.
    fn check_sizes(&self) -> Result<()> {
        if self.id.is_empty() || self.id.len() > ID_BYTES_MAX {
            let message = format!(
                "the transfer's id has {} bytes, expected 1 to {ID_BYTES_MAX}",
                self.id.len()
            );
            return usage(message).map_err(|error| error.remedy("give the transfer a short name"));
        }
        for (what, count, count_max) in
            [("rows", self.rows.len(), ROWS_MAX), ("stores", self.stores.len(), STORES_MAX)]
        {
            if count > count_max {
                let message =
                    format!("the transfer has {count} {what}, expected at most {count_max}");
                return usage(message).map_err(|error| error.remedy("split the transfer"));
            }
        }
        Ok(())
    }

    fn check_roles(&self) -> Result<()> {
        for (role, word) in [(RowRole::Sender, "writer"), (RowRole::Receiver, "reader")] {
            if self.with_role(role).next().is_none() {
                return usage(format!("there is no {word} row"))
                    .map_err(|error| error.remedy("a transfer needs one"));
            }
        }
        Ok(())
    }

    fn check_grid(&self) -> Result<()> {
        if let Some(bytes) = self.block_bytes.filter(|&bytes| !block_bytes_fit(bytes)) {
            return usage(format!(
                "option block {bytes} is not a power of two from 4 KiB to 64 MiB"
            ));
        }
        let lowest = self.with_role(RowRole::Sender).map(|row| row.range.start).min();
        match (self.origin, lowest) {
            (Some(origin), Some(lowest)) if origin > lowest => usage(format!(
                "option origin {origin} lies after byte {lowest}, the first that is offered"
            )),
            _ => Ok(()),
        }
    }

    /// Checks that each node has one speed: it has one set of NICs for all its rows.
    fn check_speeds(&self) -> Result<()> {
        let mut declared: BTreeMap<&NodeAddress, (BitRate, &Row)> = BTreeMap::new();
        for row in &self.rows {
            let Some(speed) = row.speed else { continue };
            let (known, first) = *declared.entry(&row.node).or_insert((speed, row));
            if known != speed {
                let (here, there) = (place(first), place(row));
                return usage(format!(
                    "{} has two speeds: {known} in {here} and {speed} in {there}",
                    row.node
                ));
            }
        }
        Ok(())
    }

    /// Checks that each node has one set of NICs for all its rows that name any.
    fn check_nics(&self) -> Result<()> {
        let mut known: BTreeMap<&NodeAddress, &Row> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| !row.nics.is_empty()) {
            let first = *known.entry(&row.node).or_insert(row);
            if first.nics != row.nics {
                let (node, here, there) = (&row.node, place(first), place(row));
                let (one, other) = (first.nics.join(","), row.nics.join(","));
                return usage(format!("{node} uses {one} in {here} and {other} in {there}"))
                    .map_err(|error| error.remedy("name the same NICs in all rows of a node"));
            }
        }
        Ok(())
    }

    /// Checks that each node reads all its offers from at most one store, and writes all it wants
    /// to at most one. Otherwise a store's rate would not limit whole nodes.
    fn check_stores(&self) -> Result<()> {
        if let Some(StoreRate { name, rate }) =
            self.stores.iter().find(|s| !(BitRate(1)..=RATE_MAX).contains(&s.rate))
        {
            return usage(format!(
                "store {name} has a rate of {rate}, expected one up to {}",
                print_rate(RATE_MAX)
            ));
        }
        let declared: BTreeSet<&str> =
            self.stores.iter().map(|store| store.name.as_str()).collect();
        let mut known: BTreeMap<(&NodeAddress, RowRole), &Row> = BTreeMap::new();
        for row in &self.rows {
            if let Some(name) = row.store.as_deref().filter(|name| !declared.contains(name)) {
                let error =
                    usage(format!("{} names store {name}, which no option declares", place(row)));
                return error
                    .map_err(|error| error.remedy(format!("add `option store {name} RATE`")));
            }
            let first = *known.entry((&row.node, row.role)).or_insert(row);
            if first.store != row.store {
                let name = |row: &Row| {
                    row.store.as_ref().map_or("no store".into(), |name| format!("store {name}"))
                };
                let message = format!(
                    "{} names {} in {} and {} in {}",
                    row.node,
                    name(first),
                    place(first),
                    name(row),
                    place(row)
                );
                let remedy = "name one store in all rows of a node and role";
                return usage(message).map_err(|error| error.remedy(remedy));
            }
        }
        Ok(())
    }

    /// Checks that all rows of a node fit into one message.
    fn check_node_rows(&self) -> Result<()> {
        let mut counts: BTreeMap<&NodeAddress, (usize, usize)> = BTreeMap::new();
        for row in &self.rows {
            let (count, uris_bytes) = counts.entry(&row.node).or_default();
            let uri_bytes = row.uri.to_string().len();
            *count += 1;
            *uris_bytes += uri_bytes;
            if uri_bytes > URI_BYTES_MAX {
                return usage(format!(
                    "{} has a data URI of more than {URI_BYTES_MAX} bytes",
                    place(row)
                ));
            }
            if *uris_bytes > NODE_URIS_BYTES_MAX {
                let node = &row.node;
                let message = format!(
                    "the data URIs of {node} have more than {NODE_URIS_BYTES_MAX} bytes together, \
                     from {} on",
                    place(row)
                );
                let remedy =
                    "start the node with a --root that shortens its paths, or split the transfer";
                return usage(message).map_err(|error| error.remedy(remedy));
            }
            if *count > NODE_ROWS_MAX {
                let message = format!(
                    "{} has more than {NODE_ROWS_MAX} rows, from {} on",
                    row.node,
                    place(row)
                );
                let remedy = "join rows whose ranges follow each other, or split the transfer";
                return usage(message).map_err(|error| error.remedy(remedy));
            }
        }
        Ok(())
    }

    fn check_pairs(&self) -> Result<()> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let nodes: BTreeSet<&NodeAddress> = self.rows.iter().map(|row| &row.node).collect();
        let mut known: BTreeMap<(&NodeAddress, &NodeAddress), &PairRate> = BTreeMap::new();
        for pair in &self.pairs {
            let here = || pair_place(pair);
            if let Some(stranger) =
                [&pair.from, &pair.to].into_iter().find(|node| !nodes.contains(node))
            {
                return usage(format!("{} names {stranger}, which no row does", here()));
            }
            if let Some(first) = known.insert((&pair.from, &pair.to), pair) {
                let (from, to) = (&pair.from, &pair.to);
                return usage(format!(
                    "{from} to {to} has two rates, in {} and in {}",
                    pair_place(first),
                    here()
                ));
            }
            if !(BitRate(1)..=RATE_MAX).contains(&pair.rate) || pair.from == pair.to {
                return usage(format!(
                    "{}: the rate is out of range, or both nodes are the same",
                    here()
                ));
            }
        }
        Ok(())
    }

    /// Checks that no node wants the same bytes for two groups: the bytes it received would serve
    /// both, but each group needs its own.
    fn check_groups(&self) -> Result<()> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.group.is_some()).collect();
        rows.sort_by_key(|row| (&row.node, row.range.start));
        let mut furthest: Option<&Row> = None;
        for row in rows {
            let Some(other) = furthest
                .filter(|other| other.node == row.node && other.range.end > row.range.start)
            else {
                furthest = Some(row);
                continue;
            };
            if other.group != row.group {
                let (here, there) = (place(other), place(row));
                let message = format!(
                    "{} wants the same bytes for two groups in {here} and {there}",
                    row.node
                );
                return usage(message)
                    .map_err(|error| error.remedy("name one group, or different ranges"));
            }
            if row.range.end > other.range.end {
                furthest = Some(row);
            }
        }
        Ok(())
    }

    /// Checks that no two readers of one node want different bytes of the data space at one offset.
    ///
    /// Rows with the same mapping (`range.start - offset`) may overlap. With rows sorted by offset,
    /// each row is compared with one other row: the one that reaches furthest so far. If their
    /// mappings are equal, so are those of all rows that it could overlap, because these overlap
    /// the furthest one, too, and were compared with it.
    fn check_destinations(&self) -> Result<()> {
        let writes = |row: &&Row| row.uri != DataUri::Null && !row.range.is_empty();
        let mut rows: Vec<&Row> = self.with_role(RowRole::Receiver).filter(writes).collect();
        rows.sort_by_key(|row| (&row.node, &row.uri, row.offset_bytes));
        let mut furthest: Option<&Row> = None;
        for row in rows {
            let same = furthest.filter(|other| (&other.node, &other.uri) == (&row.node, &row.uri));
            let Some(other) = same else {
                furthest = Some(row);
                continue;
            };
            if row.offset_bytes < end_in_data(other) && mapping(row) != mapping(other) {
                return Err(conflict(other, row));
            }
            if end_in_data(row) > end_in_data(other) {
                furthest = Some(row);
            }
        }
        Ok(())
    }

    /// Checks that no file is both read and written: the finished transfer would replace the
    /// source.
    fn check_no_file_both_ways(&self) -> Result<()> {
        let read: BTreeMap<(&NodeAddress, &Path), &Row> = self
            .with_role(RowRole::Sender)
            .filter_map(|row| Some(((&row.node, file(row)?), row)))
            .collect();
        for row in self.with_role(RowRole::Receiver) {
            let Some(path) = file(row) else { continue };
            if let Some(reads) = read.get(&(&row.node, path)) {
                let (reads, writes) = (place(reads), place(row));
                let message =
                    format!("{} reads {} in {reads} and writes it in {writes}", row.node, row.uri);
                return usage(message).map_err(|error| error.remedy("write to another file"));
            }
        }
        Ok(())
    }

    fn check_all_offered(&self) -> Result<()> {
        let offered = self.spans(RowRole::Sender);
        let missing: Vec<Span> = self
            .spans(RowRole::Receiver)
            .into_iter()
            .flat_map(|wanted| subtract(wanted, &offered))
            .collect();
        let Some(&first) = missing.first() else { return Ok(()) };
        let wants =
            self.with_role(RowRole::Receiver).find(|row| row.range.intersection(first).is_some());
        let wants = wants.expect("a missing range is wanted by some row");
        let message = format!("no writer offers {}, which {} wants", list(&missing), place(wants));
        Err(Error::new(Code::Usage, message)
            .remedy("add a writer row or narrow the range")
            .missing(missing))
    }
}

/// Checks one row alone. Only rows built in code can fail.
fn check_row(row: &Row) -> Result<()> {
    let host_bytes = row.node.host.len();
    let fault = if host_bytes == 0 || host_bytes > HOST_BYTES_MAX {
        Some(format!("a host name of {host_bytes} bytes, expected 1 to {HOST_BYTES_MAX}"))
    } else if let Some(expected) = row.uri.malformed() {
        Some(format!("{}, expected {expected}", row.uri))
    } else if let Some(expected) = row.uri.unfit_for(row.role) {
        Some(format!("{}, expected {expected}", row.uri))
    } else if row.group.is_some() && row.role == RowRole::Sender {
        Some("a group, expected one on readers only".into())
    } else if matches!(row.uri, DataUri::File(_) | DataUri::Mem(_))
        && end_in_data(row) > DATA_BYTES_MAX
    {
        Some(format!(
            "offset {} and range {}, expected data of at most 2^63 - 1 bytes",
            row.offset_bytes, row.range
        ))
    } else if row.offset_bytes.checked_add(row.range.bytes()).is_none() {
        Some(format!(
            "offset {} and range {}, expected data that ends below 2^64",
            row.offset_bytes, row.range
        ))
    } else if [&row.group, &row.store]
        .into_iter()
        .flatten()
        .any(|name| name.is_empty() || name.len() > ID_BYTES_MAX)
    {
        Some(format!("the name of a group or a store, expected one of 1 to {ID_BYTES_MAX} bytes"))
    } else if row.speed == Some(BitRate(0)) {
        Some("a speed of 0, at which nothing would ever move".into())
    } else {
        let too_fast = row.speed.filter(|speed| *speed > RATE_MAX);
        too_fast
            .map(|speed| format!("a speed of {speed}, expected at most {}", print_rate(RATE_MAX)))
    };
    fault.map_or(Ok(()), |fault| usage(format!("{}: found {fault}", place(row))))
}

/// Returns the end of the row's bytes in its data; offset and range together may exceed 64 bits.
fn end_in_data(row: &Row) -> u64 {
    row.offset_bytes.saturating_add(row.range.bytes())
}

/// Returns the difference between the position in the data space and the offset in the data.
fn mapping(row: &Row) -> i128 {
    i128::from(row.range.start) - i128::from(row.offset_bytes)
}

fn file(row: &Row) -> Option<&Path> {
    match &row.uri {
        DataUri::File(path) => Some(path),
        DataUri::Mem(_) | DataUri::Pattern(_) | DataUri::Null => None,
    }
}

fn conflict(first: &Row, second: &Row) -> Error {
    let (first, second) = if first.line <= second.line { (first, second) } else { (second, first) };
    let shared = Span::new(first.offset_bytes, end_in_data(first))
        .intersection(Span::new(second.offset_bytes, end_in_data(second)))
        .expect("rows in conflict overlap");
    let message = format!(
        "{} and {} would write different bytes of the data space to bytes {shared} of {} on {}",
        place(first),
        place(second),
        first.uri,
        first.node,
    );
    Error::new(Code::Usage, message).remedy("change the offset of one of them, or its file")
}

/// Returns the row's name for the user: its line, or its contents if it was built in code.
fn place(row: &Row) -> String {
    if row.line != 0 {
        return format!("line {}", row.line);
    }
    let role = if row.role == RowRole::Sender { "writer" } else { "reader" };
    format!("{role} {} {} {} {}", row.node, row.uri, row.offset_bytes, row.range)
}

/// Returns the name of an `option pair` for the user.
fn pair_place(pair: &PairRate) -> String {
    match pair.line {
        0 => format!("the pair {} to {}", pair.from, pair.to),
        line => format!("line {line}"),
    }
}

/// Returns the first few ranges, and the number of further ones.
fn list(spans: &[Span]) -> String {
    let shown: Vec<String> = spans.iter().take(SPANS_SHOWN_MAX).map(ToString::to_string).collect();
    match spans.len().saturating_sub(SPANS_SHOWN_MAX) {
        0 => format!("bytes {}", shown.join(", ")),
        more => format!("bytes {} and {more} more ranges", shown.join(", ")),
    }
}

fn usage(message: String) -> Result<()> {
    Err(Error::new(Code::Usage, message))
}

/// The largest offset that files have on Linux.
const DATA_BYTES_MAX: u64 = i64::MAX as u64;

const SPANS_SHOWN_MAX: usize = 8;

/// Limit on the rows of one node: all of them are in one message.
pub(crate) const NODE_ROWS_MAX: usize = 1 << 12;

/// Limit on a data URI: a path of 4096 bytes, each of which may take three characters, and the
/// scheme.
pub(crate) const URI_BYTES_MAX: usize = 3 * 4096 + 64;

/// Limit on the data URIs of one node's rows together: a thousand of the longest ones, or 3 KiB for
/// each of the most rows.
pub(crate) const NODE_URIS_BYTES_MAX: usize = 12 << 20;

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;

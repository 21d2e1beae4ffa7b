//! Parser of specifications, line by line. An error points at the faulty word.

use std::os::unix::ffi::OsStrExt;

use super::limits::{ID_BYTES_MAX, RATE_MAX, ROWS_MAX, STORES_MAX, block_bytes_fit};
use super::text;
use super::text::{LineFault, SpecLine, Word, nearest};
use super::{DataUri, NodeAddress, PairRate, Row, RowRole, Spec, StoreRate, address};
use crate::core::error::{Code, Error, Result};
use crate::core::units::{BitRate, KIB, MIB, Span, parse_rate, parse_size, print_rate};

impl Spec {
    /// Size of the largest specification: a million rows of sixty characters.
    pub(crate) const TEXT_BYTES_MAX: usize = TEXT_BYTES_MAX;

    /// Parses a specification. `file_name` is its name in errors.
    ///
    /// A row whose host is a hostlist stands for one row per host: each reader gets a copy, each
    /// writer holds a replica. Ranges are inclusive and their ends are plain numbers: `0-1M` is the
    /// 1,048,577 bytes from 0 to 1,048,576, and the first megabyte is `0-1048575`.
    /// [`Spec::validate`] checks rows against each other.
    ///
    /// # Errors
    /// [`Code::Usage`] with file, line, column, the text found and the form expected:
    ///
    /// ```
    /// use cep_fast::spec::Spec;
    /// let error = Spec::parse("cluster.spec", "id x\nwritter a:1 null: 0 0-9").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "cluster.spec:2:1: found \"writter\", expected id, master, writer, reader or option \
    ///      (did you mean writer?)"
    /// );
    /// ```
    pub fn parse(file_name: &str, text: &str) -> Result<Spec> {
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("{file_name}: the file is larger than 64 MiB");
            return Err(Error::new(Code::Usage, message).remedy("split the transfer"));
        }
        let mut parser = SpecParser::default();
        let mut line_number = 0;
        for line in text.trim_start_matches('\u{feff}').lines() {
            line_number += 1;
            parser.line(line, line_number).map_err(|fault| at(file_name, line_number, &fault))?;
        }
        if !parser.id_seen {
            let fault =
                missing(1, "an id line that names the transfer, such as id \"My Data File\"");
            return Err(at(
                file_name,
                line_number + 1,
                &LineFault { found: "the end of the file".into(), ..fault }.into(),
            ));
        }
        Ok(parser.spec)
    }
}

/// A fault whose expected form is built from the text found.
struct ParseFault {
    column: usize,
    found: String,
    expected: String,
}

impl From<LineFault> for ParseFault {
    fn from(fault: LineFault) -> ParseFault {
        ParseFault { column: fault.column, found: fault.found, expected: fault.expected.into() }
    }
}

type ParsedLines<T> = std::result::Result<T, ParseFault>;

/// Result of the lines so far.
#[derive(Default)]
struct SpecParser {
    spec: Spec,
    id_seen: bool,
    /// Bytes of text that rows of hostlists repeat; limited by [`EXPANDED_BYTES_MAX`].
    expanded_bytes: usize,
}

impl SpecParser {
    fn line(&mut self, line: &str, number: u32) -> ParsedLines<()> {
        if line.len() > LINE_BYTES_MAX {
            let found = format!("a line of {} bytes", line.len());
            return Err(ParseFault { column: 1, found, expected: "at most 64 KiB".into() });
        }
        let line = text::cut(line)?;
        let mut words = LineWords { line: &line, next: 0 };
        let Some(keyword) = words.take() else { return Ok(()) };
        match keyword.text.as_str() {
            "id" => self.id(keyword, &mut words)?,
            "master" => self.master(keyword, &mut words)?,
            "writer" => self.row(RowRole::Sender, number, &mut words)?,
            "reader" => self.row(RowRole::Receiver, number, &mut words)?,
            "option" => self.option(number, &mut words)?,
            other => {
                return Err(unknown(keyword, "id, master, writer, reader or option", meant(other)));
            }
        }
        words.end()
    }

    fn id(&mut self, keyword: &Word, words: &mut LineWords) -> ParsedLines<()> {
        once(keyword, self.id_seen)?;
        let id = words.need("the transfer's name")?;
        if id.text.is_empty() || id.text.len() > ID_BYTES_MAX {
            return Err(refuse(id, "a name of 1 to 1024 bytes"));
        }
        self.spec.id = id.text.clone();
        self.id_seen = true;
        Ok(())
    }

    fn master(&mut self, keyword: &Word, words: &mut LineWords) -> ParsedLines<()> {
        once(keyword, self.spec.master.is_some())?;
        let word = words.need("the master's host:port")?;
        self.spec.master =
            Some(word.text.parse().map_err(|expected: String| refuse(word, expected))?);
        Ok(())
    }

    fn option(&mut self, line: u32, words: &mut LineWords) -> ParsedLines<()> {
        let key = words.need(OPTIONS)?;
        let slot = match key.text.as_str() {
            "origin" => &mut self.spec.origin,
            "block" => &mut self.spec.block_bytes,
            "store" => return self.store(words),
            "pair" => return self.pair(line, words),
            other => {
                return Err(unknown(
                    key,
                    OPTIONS,
                    nearest(other, &["origin", "block", "store", "pair"]),
                ));
            }
        };
        once(key, slot.is_some())?;
        let word = words.need("a number of bytes")?;
        let value = number(word)?;
        if key.text == "block" && !block_bytes_fit(value) {
            return Err(refuse(word, BLOCK_EXPECTED));
        }
        *slot = Some(value);
        Ok(())
    }

    fn store(&mut self, words: &mut LineWords) -> ParsedLines<()> {
        let word = words.need("the store's name")?;
        let name = name(word, "", &word.text)?;
        if self.spec.stores.len() == STORES_MAX {
            return Err(refuse(word, format!("at most {STORES_MAX} stores")));
        }
        once(word, self.spec.stores.iter().any(|store| store.name == name))?;
        let word = words.need("the store's rate in bits per second, such as 40G")?;
        let rate = rate(word, "", &word.text)?;
        self.spec.stores.push(StoreRate { name, rate });
        Ok(())
    }

    fn pair(&mut self, line: u32, words: &mut LineWords) -> ParsedLines<()> {
        let from = node(words.need("the host:port that sends")?)?;
        let word = words.need("the host:port that receives")?;
        let to = node(word)?;
        if from == to {
            return Err(refuse(word, "another node than the one that sends"));
        }
        let word = words.need("the rate between them in bits per second, such as 10G")?;
        self.spec.pairs.push(PairRate { from, to, rate: rate(word, "", &word.text)?, line });
        Ok(())
    }

    fn row(&mut self, role: RowRole, line: u32, words: &mut LineWords) -> ParsedLines<()> {
        let hosts = words.need("the node's host:port")?;
        let nodes = nodes(hosts)?;
        let uri = uri(words.need("the data URI")?, role)?;
        let offset_bytes = number(words.need("the offset in the data")?)?;
        let range = range(words.need("the range of the data space, such as 0-1023")?)?;
        let mut row = Row {
            role,
            node: NodeAddress { host: String::new(), port: 0 },
            uri,
            offset_bytes,
            range,
            speed: None,
            nics: Vec::new(),
            group: None,
            store: None,
            line,
        };
        while let Some(word) = words.take() {
            pair(&mut row, word)?;
        }
        self.spread(row, nodes, hosts)
    }

    /// Adds one row per node, within the limits on rows and bytes.
    fn spread(&mut self, row: Row, mut nodes: Vec<NodeAddress>, hosts: &Word) -> ParsedLines<()> {
        if self.spec.rows.len() + nodes.len() > ROWS_MAX {
            return Err(refuse(hosts, format!("at most {ROWS_MAX} rows in all")));
        }
        self.expanded_bytes += (nodes.len() - 1) * text_bytes(&row);
        if self.expanded_bytes > EXPANDED_BYTES_MAX {
            return Err(refuse(hosts, "hostlists that expand to at most 256 MiB of rows"));
        }
        let last = nodes.pop().expect("a hostlist names at least one host");
        self.spec.rows.extend(nodes.into_iter().map(|node| Row { node, ..row.clone() }));
        self.spec.rows.push(Row { node: last, ..row });
        Ok(())
    }
}

/// Words of a line that are still to be parsed.
struct LineWords<'a> {
    line: &'a SpecLine,
    next: usize,
}

impl<'a> LineWords<'a> {
    fn take(&mut self) -> Option<&'a Word> {
        let word = self.line.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn need(&mut self, expected: &'static str) -> ParsedLines<&'a Word> {
        self.take().ok_or_else(|| missing(self.line.end_column, expected).into())
    }

    fn end(&mut self) -> ParsedLines<()> {
        match self.take() {
            None => Ok(()),
            Some(word) => {
                Err(refuse(word, "the end of the line (a name with spaces needs quotes)"))
            }
        }
    }
}

fn nodes(word: &Word) -> ParsedLines<Vec<NodeAddress>> {
    let nodes = address::parse_all(&word.text).map_err(|expected| refuse(word, expected))?;
    // Only the master may have any free port: a node is reached at the port of its row.
    if nodes.iter().any(|node| node.port == 0) {
        return Err(refuse(word, "host:port with a port from 1 to 65535"));
    }
    Ok(nodes)
}

fn node(word: &Word) -> ParsedLines<NodeAddress> {
    word.text.parse().map_err(|expected: String| refuse(word, expected))
}

fn uri(word: &Word, role: RowRole) -> ParsedLines<DataUri> {
    let uri: DataUri = word.text.parse().map_err(|expected: String| refuse(word, expected))?;
    match uri.unfit_for(role) {
        None => Ok(uri),
        Some(expected) => Err(refuse(word, expected)),
    }
}

fn number(word: &Word) -> ParsedLines<u64> {
    parse_size(&word.text).map_err(|expected| refuse(word, expected))
}

fn range(word: &Word) -> ParsedLines<Span> {
    let Some((first, last)) = word.text.split_once('-') else {
        return Err(refuse(word, "an inclusive range START-END, such as 0-1023"));
    };
    let end_of = |text| {
        parse_size(text).map_err(|expected| refuse(word, format!("in START-END {expected}")))
    };
    let (first, last) = (end_of(first)?, end_of(last)?);
    if first > last {
        return Err(refuse(
            word,
            format!("a range that ends at or after its start, such as {last}-{first}"),
        ));
    }
    match last.checked_add(1) {
        Some(end) => Ok(Span::new(first, end)),
        None => Err(refuse(word, "a range that ends below 2^64 - 1")),
    }
}

/// Parses one `key=value` pair at the end of a row.
fn pair(row: &mut Row, word: &Word) -> ParsedLines<()> {
    let keys = if row.role == RowRole::Receiver {
        "speed=, nics=, store= or group="
    } else {
        "speed=, nics= or store="
    };
    let Some((key, value)) = word.text.split_once('=') else {
        return Err(refuse(word, format!("{keys} or the end of the line")));
    };
    match key {
        "speed" => {
            once(word, row.speed.is_some())?;
            row.speed = Some(rate(word, "speed= and ", value)?);
        }
        "nics" => {
            once(word, !row.nics.is_empty())?;
            row.nics = nics(word, value)?;
        }
        "group" if row.role == RowRole::Sender => {
            return Err(refuse(word, "group= on readers only"));
        }
        "group" => {
            once(word, row.group.is_some())?;
            row.group = Some(name(word, "group= and ", value)?);
        }
        "store" => {
            once(word, row.store.is_some())?;
            row.store = Some(name(word, "store= and ", value)?);
        }
        _ => return Err(unknown(word, keys, nearest(key, &["speed", "nics", "group", "store"]))),
    }
    Ok(())
}

/// Parses a rate that the planner accepts. `before` precedes the expected form in an error.
fn rate(word: &Word, before: &str, value: &str) -> ParsedLines<BitRate> {
    let rate = parse_rate(value).map_err(|expected| refuse(word, format!("{before}{expected}")))?;
    if rate > RATE_MAX {
        return Err(refuse(word, format!("{before}a rate of at most {}", print_rate(RATE_MAX))));
    }
    Ok(rate)
}

fn nics(word: &Word, value: &str) -> ParsedLines<Vec<String>> {
    let nics: Vec<String> = value.split(',').map(Into::into).collect();
    let mut sorted: Vec<&String> = nics.iter().collect();
    sorted.sort_unstable();
    if nics.iter().any(String::is_empty) || sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(refuse(
            word,
            "nics= and different names with commas between, such as nics=eth0,eth1",
        ));
    }
    Ok(nics)
}

/// Parses the name of a group or a store. `before` precedes the expected form in an error.
fn name(word: &Word, before: &str, value: &str) -> ParsedLines<String> {
    if value.is_empty() || value.len() > ID_BYTES_MAX {
        return Err(refuse(word, format!("{before}a name of 1 to 1024 bytes")));
    }
    Ok(value.into())
}

/// Returns the approximate heap size of each copy of a row.
fn text_bytes(row: &Row) -> usize {
    let uri = match &row.uri {
        DataUri::File(path) => path.as_os_str().len(),
        DataUri::Mem(name) => name.as_bytes().len(),
        DataUri::Pattern(_) | DataUri::Null => 0,
    };
    let nics: usize = row.nics.iter().map(|nic| nic.len() + size_of::<String>()).sum();
    uri + nics + [&row.group, &row.store].into_iter().flatten().map(String::len).sum::<usize>()
}

/// Returns the keyword that was probably meant; other tools have other names for the roles.
fn meant(word: &str) -> Option<&'static str> {
    match word.to_lowercase().as_str() {
        "sender" | "source" | "src" => Some("writer"),
        "receiver" | "destination" | "dst" => Some("reader"),
        word => nearest(word, &["id", "master", "writer", "reader", "option"]),
    }
}

fn once(word: &Word, seen: bool) -> ParsedLines<()> {
    if seen { Err(refuse(word, "it only once")) } else { Ok(()) }
}

fn unknown(word: &Word, expected: &str, meant: Option<&str>) -> ParseFault {
    match meant {
        Some(meant) => refuse(word, format!("{expected} (did you mean {meant}?)")),
        None => refuse(word, expected),
    }
}

fn refuse(word: &Word, expected: impl Into<String>) -> ParseFault {
    let mut found: String = word.text.chars().take(FOUND_CHARS_MAX).collect();
    if found.len() < word.text.len() {
        found.push('…');
    }
    ParseFault { column: word.column, found: format!("{found:?}"), expected: expected.into() }
}

fn missing(column: usize, expected: &'static str) -> LineFault {
    LineFault { column, found: "the end of the line".into(), expected }
}

fn at(file_name: &str, line: u32, refusal: &ParseFault) -> Error {
    let ParseFault { column, found, expected } = refusal;
    Error::new(
        Code::Usage,
        format!("{file_name}:{line}:{column}: found {found}, expected {expected}"),
    )
}

/// A million rows of sixty characters.
const TEXT_BYTES_MAX: usize = 64 * MIB as usize;

/// Longest line: the longest path in escapes and a long list of NICs.
const LINE_BYTES_MAX: usize = 64 * KIB as usize;

/// Limit on text that hostlists can multiply from a long path, which each host repeats.
const EXPANDED_BYTES_MAX: usize = 256 * MIB as usize;

/// Names of options.
const OPTIONS: &str = "origin, block, store or pair";

const BLOCK_EXPECTED: &str = "a power of two from 4K to 64M";

/// Number of characters of a word in an error.
const FOUND_CHARS_MAX: usize = 60;

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

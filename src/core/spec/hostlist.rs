//! Slurm's hostlists: `node[01-04,7]`, several brackets, several lists separated by commas.
//!
//! The names have the order, repeats and zero padding of `scontrol show hostnames`: the last
//! bracket counts fastest, and the first number of a range sets the width of its numbers. The size
//! of the result is computed and limited before anything is allocated.

use std::net::Ipv6Addr;

/// Limit on hosts; also Slurm's own limit for one range.
pub(crate) const HOSTS_MAX: u64 = 65_536;

/// Returns the names of a hostlist. An IPv6 address is in brackets and is returned without them.
///
/// # Errors
/// The expected form, as text.
pub(crate) fn expand(text: &str) -> Result<Vec<String>, String> {
    let items =
        split_outside_brackets(text).into_iter().map(parse_item).collect::<Result<Vec<_>, _>>()?;
    let count = items.iter().try_fold(0u64, |sum, item| sum.checked_add(item.count()?));
    let count = count
        .filter(|&count| count <= HOSTS_MAX)
        .ok_or_else(|| format!("at most {HOSTS_MAX} hosts"))?;
    if items.iter().any(|item| item.longest() > HOST_BYTES_MAX) {
        return Err(format!("host names of at most {HOST_BYTES_MAX} characters"));
    }
    let mut names = Vec::with_capacity(usize::try_from(count).expect("a bounded count fits"));
    for item in &items {
        item.expand_into(&mut names);
    }
    Ok(names)
}

/// One list without a comma outside brackets: `rack[1-2]node[01-16]`.
struct HostPattern<'a>(Vec<HostPart<'a>>);

enum HostPart<'a> {
    /// Characters that every name contains.
    Fixed(&'a str),
    /// An IPv6 address in its canonical form.
    Ipv6(String),
    /// Numbers, of which each name contains one.
    Ranges(Vec<NumberRange>),
}

/// The numbers `first..=last`, padded with zeros to `width` digits.
///
/// Invariant: `first <= last`.
struct NumberRange {
    first: u64,
    last: u64,
    width: usize,
}

impl HostPattern<'_> {
    /// Returns the number of names; `None` if it does not fit 64 bits.
    fn count(&self) -> Option<u64> {
        self.0.iter().try_fold(1u64, |product, part| product.checked_mul(part.count()?))
    }

    /// Returns the size in bytes of the longest name.
    fn longest(&self) -> usize {
        self.0.iter().map(HostPart::longest).sum()
    }

    /// Appends the names: each part multiplies the results of the parts before it.
    fn expand_into(&self, names: &mut Vec<String>) {
        let mut prefixes = vec![String::new()];
        for part in &self.0 {
            match part {
                HostPart::Fixed(text) => {
                    prefixes.iter_mut().for_each(|prefix| prefix.push_str(text));
                }
                HostPart::Ipv6(address) => {
                    prefixes.iter_mut().for_each(|prefix| prefix.push_str(address));
                }
                HostPart::Ranges(ranges) => {
                    prefixes = prefixes
                        .iter()
                        .flat_map(|prefix| ranges.iter().flat_map(|range| range.after(prefix)))
                        .collect();
                }
            }
        }
        names.append(&mut prefixes);
    }
}

impl HostPart<'_> {
    fn count(&self) -> Option<u64> {
        match self {
            HostPart::Fixed(_) | HostPart::Ipv6(_) => Some(1),
            HostPart::Ranges(ranges) => ranges.iter().try_fold(0u64, |sum, range| {
                sum.checked_add((range.last - range.first).checked_add(1)?)
            }),
        }
    }

    fn longest(&self) -> usize {
        match self {
            HostPart::Fixed(text) => text.len(),
            HostPart::Ipv6(address) => address.len(),
            HostPart::Ranges(ranges) => ranges.iter().map(NumberRange::longest).max().unwrap_or(0),
        }
    }
}

impl NumberRange {
    fn longest(&self) -> usize {
        self.width.max(self.last.to_string().len())
    }

    /// Returns the prefix followed by each number.
    fn after(&self, prefix: &str) -> impl Iterator<Item = String> {
        (self.first..=self.last)
            .map(move |number| format!("{prefix}{number:0width$}", width = self.width))
    }
}

/// Splits at commas outside brackets.
fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c| {
        inside = if inside { c != ']' } else { c == '[' };
        c == ',' && !inside
    })
    .collect()
}

fn parse_item(text: &str) -> Result<HostPattern<'_>, String> {
    if let Some(address) =
        text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|a| a.contains(':'))
    {
        return Ok(HostPattern(vec![HostPart::Ipv6(ipv6(address)?)]));
    }
    if text.is_empty() {
        return Err("a host name between commas".into());
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((fixed, bracketed)) = rest.split_once('[') {
        let (numbers, after) = bracketed.split_once(']').ok_or("a ] for every [ of a hostlist")?;
        parts.push(HostPart::Fixed(name_part(fixed)?));
        parts
            .push(HostPart::Ranges(numbers.split(',').map(parse_range).collect::<Result<_, _>>()?));
        rest = after;
    }
    parts.push(HostPart::Fixed(name_part(rest)?));
    Ok(HostPattern(parts))
}

/// Returns the canonical form, so that one address is one node.
fn ipv6(text: &str) -> Result<String, String> {
    let (address, zone) =
        text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let address: Ipv6Addr = address.parse().map_err(|_| "an IPv6 address between [ and ]")?;
    match zone {
        None => Ok(address.to_string()),
        Some("") => Err("a zone after %".into()),
        Some(zone) => Ok(format!("{address}%{}", name_part(zone)?)),
    }
}

/// Returns the text, if a host name may contain all its characters.
fn name_part(text: &str) -> Result<&str, String> {
    match text.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        None => Ok(text),
        Some(c) => Err(format!("a host name of letters, digits, '-', '_' and '.', without {c:?}")),
    }
}

fn parse_range(text: &str) -> Result<NumberRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| {
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
    };
    match (number(first), number(last)) {
        (Some(low), Some(high)) if low <= high => {
            Ok(NumberRange { first: low, last: high, width: first.len() })
        }
        (Some(_), Some(_)) => {
            Err(format!("a range that does not count down, such as {last}-{first}"))
        }
        _ => Err("numbers and ranges between [ and ], such as [01-04,7]".into()),
    }
}

/// Limit of the name system, sufficient for an address with a zone.
pub(crate) const HOST_BYTES_MAX: usize = 253;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expands_as_scontrol_does() {
        let cases: [(&str, &[&str]); 12] = [
            ("node1", &["node1"]),
            ("node[01-03]", &["node01", "node02", "node03"]),
            ("node[8-11]", &["node8", "node9", "node10", "node11"]),
            ("node[098-101]", &["node098", "node099", "node100", "node101"]),
            ("n[001-02]", &["n001", "n002"]),
            ("n[3,1,3]", &["n3", "n1", "n3"]),
            ("a[1-2]b[3-4]", &["a1b3", "a1b4", "a2b3", "a2b4"]),
            ("a[1-2]-ib", &["a1-ib", "a2-ib"]),
            ("b,a[1,2],b", &["b", "a1", "a2", "b"]),
            ("[1-2].lab", &["1.lab", "2.lab"]),
            ("[0:0::1]", &["::1"]),
            ("[fe80::1%eth0],x", &["fe80::1%eth0", "x"]),
        ];
        for (text, names) in cases {
            assert_eq!(expand(text).unwrap(), names, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_hostlist() {
        let cases = [
            ("", "a host name"),
            ("a,,b", "a host name"),
            ("a[1-2", "a ] for every ["),
            ("a]", "without ']'"),
            ("a[[1]]", "numbers and ranges"),
            ("a[]", "numbers and ranges"),
            ("a[1-]", "numbers and ranges"),
            ("a[+1-2]", "numbers and ranges"),
            ("a[2-1]", "such as 1-2"),
            ("a[x]", "numbers and ranges"),
            ("a b", "without ' '"),
            ("[1:2]", "an IPv6 address"),
            ("[::1%]", "a zone"),
            ("nöde", "without 'ö'"),
        ];
        for (text, expected) in cases {
            let message = expand(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn size_is_bounded_before_anything_is_built() {
        assert_eq!(expand("n[1-65536]").unwrap().len(), 65_536);
        let huge = [
            "n[0-65536]",
            "n[0-18446744073709551615]",
            "n[1-60000],m[1-60000]",
            "n[1-99999][1-99999][1-99999999999]",
        ];
        for text in huge {
            assert_eq!(expand(text).unwrap_err(), "at most 65536 hosts", "{text}");
        }
        let long = format!("{}[1-9]", "x".repeat(253));
        assert_eq!(expand(&long).unwrap_err(), "host names of at most 253 characters");
        let padded = format!("n[{}1-9]", "0".repeat(300));
        assert_eq!(expand(&padded).unwrap_err(), "host names of at most 253 characters");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c0-9,:%\\[\\]-]{0,40}|.*") {
            if let Ok(names) = expand(&text) {
                prop_assert!(!names.is_empty());
            }
        }

        #[test]
        fn a_range_counts_and_pads(first in 0u64..2000, more in 0u64..50, width in 1usize..6) {
            let names = expand(&format!("n[{first:0width$}-{}]", first + more)).unwrap();
            let expected: Vec<String> =
                (first..=first + more).map(|n| format!("n{n:0width$}")).collect();
            prop_assert_eq!(names, expected);
        }
    }
}

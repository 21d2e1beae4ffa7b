//! Line that a node prints on standard output when it listens: `ready 10.0.0.1:7000`.
//!
//! Launchers wait for it. A node that was told to listen at port 0 names its port in it.

use std::net::{AddrParseError, SocketAddr};

/// Returns the line of a node that listens at `address`, without its end.
///
/// ```
/// let line = cep_fast::ready_line::print("10.0.0.1:7000".parse().unwrap());
/// assert_eq!(line, "ready 10.0.0.1:7000");
/// ```
#[must_use]
pub fn print(address: SocketAddr) -> String {
    format!("{READY}{address}")
}

/// Returns the address that a line of output names; `None` if it is another line, such as one of
/// the log. White space at its end is ignored.
///
/// ```
/// use cep_fast::ready_line::parse;
/// assert_eq!(parse("ready [::1]:7000\n"), Some(Ok("[::1]:7000".parse().unwrap())));
/// assert_eq!(parse("node: begins"), None);
/// ```
///
/// # Errors
/// `Some(Err(_))` if the line begins like that of a node and names no address.
pub fn parse(line: &str) -> Option<Result<SocketAddr, AddrParseError>> {
    line.trim_end().strip_prefix(READY).map(str::parse)
}

/// Returns the line of a node that listens at several addresses.
pub(crate) fn print_all(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    format!("{READY}{}", addresses.join(" "))
}

/// Returns the addresses that a line of output names: one, or several of one node.
///
/// # Errors
/// See [`parse`].
pub(crate) fn parse_all(line: &str) -> Option<Result<Vec<SocketAddr>, AddrParseError>> {
    let addresses = line.trim_end().strip_prefix(READY)?;
    Some(addresses.split(' ').take(ADDRESSES_MAX).map(str::parse).collect())
}

/// Limit on the addresses of one line.
const ADDRESSES_MAX: usize = 64;
/// The word before the address.
const READY: &str = "ready ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_node_is_read_as_it_was_printed() {
        for address in ["127.0.0.1:1", "[fe80::1]:65535"] {
            let address: SocketAddr = address.parse().expect("it is one");
            assert_eq!(parse(&(print(address) + "\n")), Some(Ok(address)));
        }
        let both = ["10.0.0.1:7".parse().expect("it is one"), "[::1]:7".parse().expect("it is")];
        assert_eq!(parse_all(&(print_all(&both) + "\r\n")), Some(Ok(both.to_vec())));
        assert_eq!(parse_all("already"), None);
        for line in ["", "ready", "already 1.2.3.4:5", "Ready 1.2.3.4:5", " ready 1.2.3.4:5"] {
            assert_eq!(parse(line), None, "{line}");
        }
        for line in ["ready ", "ready 1.2.3.4", "ready 1.2.3.4:5 now"] {
            assert!(parse(line).is_none_or(|address| address.is_err()), "{line}");
        }
    }
}

//! Parser of `host:port`.

use std::str::FromStr;

use super::{NodeAddress, hostlist};

/// Returns the addresses of `hosts:port`, where `hosts` may be a hostlist.
///
/// # Errors
/// The expected form, as text.
pub(super) fn parse_all(text: &str) -> Result<Vec<NodeAddress>, String> {
    let (hosts, port) = text.rsplit_once(':').ok_or("host:port")?;
    // An IPv6 address without brackets would otherwise lose its last group to the port.
    if hosts.contains(':') && !hosts.ends_with(']') {
        return Err("host:port, with an IPv6 address in brackets such as [::1]:5000".into());
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits
        .then(|| port.parse().ok())
        .flatten()
        .ok_or("host:port with a port from 0 to 65535")?;
    Ok(hostlist::expand(hosts)?.into_iter().map(|host| NodeAddress { host, port }).collect())
}

impl NodeAddress {
    /// Parses addresses separated by commas, where hosts may be hostlists: `a:1,b:2`,
    /// `n[1-4]:5000`, `a,b:5000`.
    ///
    /// # Errors
    /// The expected form, as text.
    pub fn list(text: &str) -> Result<Vec<NodeAddress>, String> {
        let mut all = Vec::new();
        let (mut from, mut depth, mut has_port) = (0, 0_u32, false);
        for (at, letter) in text.char_indices() {
            match letter {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                ':' => has_port |= depth == 0,
                // A host without a port shares the port of the next host.
                ',' if depth == 0 && has_port => {
                    all.append(&mut parse_all(&text[from..at])?);
                    (from, has_port) = (at + 1, false);
                }
                _ => {}
            }
        }
        all.append(&mut parse_all(&text[from..])?);
        Ok(all)
    }
}

impl FromStr for NodeAddress {
    type Err = String;

    /// Parses `host:port`; an IPv6 address is in brackets.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<NodeAddress, String> {
        let mut all = parse_all(text)?;
        match all.len() {
            1 => Ok(all.remove(0)),
            count => Err(format!("one host:port, not a list of {count} hosts")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn one_address() {
        let cases = [
            ("node1:55553", "node1", 55553),
            ("192.168.3.4:0", "192.168.3.4", 0),
            ("[0::1]:65535", "::1", 65535),
        ];
        for (text, host, port) in cases {
            assert_eq!(text.parse(), Ok(NodeAddress { host: host.into(), port }), "{text}");
        }
        for text in [
            "",
            "node1",
            "node1:",
            ":5000",
            "node1:x",
            "node1:+5",
            "node1:65536",
            "::1:5000",
            "[::1]",
            "n[1-2]:5",
        ] {
            text.parse::<NodeAddress>().unwrap_err();
        }
    }

    #[test]
    fn lists_of_addresses() {
        let cases = [
            ("a:1", "a:1"),
            ("a:1,b:2", "a:1 b:2"),
            ("a,b:2,[::1]:3,c:3", "a:2 b:2 [::1]:3 c:3"),
            ("n[1,3-4]:5,m:6", "n1:5 n3:5 n4:5 m:6"),
        ];
        for (text, expected) in cases {
            let all: Vec<String> =
                NodeAddress::list(text).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(all.join(" "), expected, "{text}");
        }
        for text in ["", "a", "a:1,", ",a:1", "a:1,b", "a:1:2"] {
            NodeAddress::list(text).unwrap_err();
        }
    }

    #[test]
    fn lists_keep_the_port() {
        let all: Vec<String> =
            parse_all("a[1-2],[::1]:7").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(all, ["a1:7", "a2:7", "[::1]:7"]);
    }
}

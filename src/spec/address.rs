//! `host:port` as people type it.

use std::str::FromStr;

use super::{Address, hostlist};

/// The addresses that `hosts:port` stands for, where `hosts` may be a hostlist.
///
/// # Errors
/// What was expected instead.
pub(super) fn parse_all(text: &str) -> Result<Vec<Address>, String> {
    let (hosts, port) = text.rsplit_once(':').ok_or("host:port")?;
    // An IPv6 address that has lost its brackets would otherwise give its last group as the port.
    if hosts.contains(':') && !hosts.ends_with(']') {
        return Err("host:port, with an IPv6 address in brackets such as [::1]:5000".into());
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| port.parse().ok()).flatten().ok_or("host:port with a port from 0 to 65535")?;
    Ok(hostlist::expand(hosts)?.into_iter().map(|host| Address { host, port }).collect())
}

impl FromStr for Address {
    type Err = String;

    /// Reads `host:port`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// What was expected instead.
    fn from_str(text: &str) -> Result<Address, String> {
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
        let cases =
            [("node1:55553", "node1", 55553), ("192.168.3.4:0", "192.168.3.4", 0), ("[0::1]:65535", "::1", 65535)];
        for (text, host, port) in cases {
            assert_eq!(text.parse(), Ok(Address { host: host.into(), port }), "{text}");
        }
        for text in
            ["", "node1", "node1:", ":5000", "node1:x", "node1:+5", "node1:65536", "::1:5000", "[::1]", "n[1-2]:5"]
        {
            text.parse::<Address>().unwrap_err();
        }
    }

    #[test]
    fn lists_keep_the_port() {
        let all: Vec<String> = parse_all("a[1-2],[::1]:7").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(all, ["a1:7", "a2:7", "[::1]:7"]);
    }
}

//! Orders: what a node on another host is told on its standard input, in one line of JSON. The
//! secret is the line after it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Limit on the line.
pub(crate) const ORDERS_BYTES_MAX: usize = 64 << 10;

/// Orders for a node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeOrders {
    /// Port to listen on; 0 for any.
    pub(crate) port: u16,
    /// Further arguments of `cep-fast node`.
    pub(crate) arguments: Vec<String>,
    /// Instead of being a node: dial this one, and pass on what comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dial: Option<SocketAddr>,
}

impl NodeOrders {
    /// Returns the line, with its end.
    pub(crate) fn line(&self) -> String {
        let line = serde_json::to_string(self).expect("numbers and strings have a form in JSON");
        line + "\n"
    }

    /// Parses the line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(line: &str) -> Result<NodeOrders, String> {
        serde_json::from_str(line).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_were_printed() {
        let arguments = ["--root", "/a b\n'$(x)'", "-v"].map(String::from).to_vec();
        let dial = Some("10.0.0.1:7".parse().expect("an address"));
        let orders = NodeOrders { port: 7, arguments, dial };
        let line = orders.line();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(NodeOrders::parse(line.trim_end()), Ok(orders));
        assert!(NodeOrders::parse("{\"port\":7}").is_err());
    }
}

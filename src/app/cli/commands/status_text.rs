//! The state of a transfer, as its master answers, in words.

use serde_json::Value;

use crate::core::units::{BitRate, human_bytes, printable};

/// Formats the answer of a master for people.
pub(super) fn in_words(status: &Value) -> String {
    let bytes = |field: &str| human_bytes(status[field].as_u64().unwrap_or(0));
    let word = |field: &str| printable(status[field].as_str().unwrap_or("?")).into_owned();
    let process = status["pid"].as_u64().map_or(String::new(), |pid| format!(" (process {pid})"));
    let rate = status["gbit_per_s"]
        .as_f64()
        .map_or(String::new(), |rate| format!(", {}", BitRate((rate * 1e9) as u64)));
    let nodes = status["nodes_total"]
        .as_u64()
        .or_else(|| status["nodes"].as_array().map(|nodes| nodes.len() as u64))
        .map_or(String::new(), |nodes| format!(", {nodes} nodes"));
    format!(
        "{}{process}: {}, {} of {}{rate}{nodes}",
        word("transfer"),
        word("phase"),
        bytes("bytes"),
        bytes("bytes_total")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_known() {
        let mut status = serde_json::json!({
            "transfer": "a\u{1b}b", "phase": "moving", "bytes": 1 << 30, "bytes_total": 4_u64 << 30,
            "gbit_per_s": 1.5, "nodes": [{}, {}],
        });
        let line = "a\\x1bb: moving, 1.00 GiB of 4.00 GiB, 1.50 Gbit/s, 2 nodes";
        assert_eq!(in_words(&status), line);
        (status["pid"], status["gbit_per_s"], status["nodes_total"]) =
            (7.into(), Value::Null, 20_000.into());
        let line = "a\\x1bb (process 7): moving, 1.00 GiB of 4.00 GiB, 20000 nodes";
        assert_eq!(in_words(&status), line);
        assert_eq!(in_words(&Value::Null), "?: ?, 0 B of 0 B", "of another version");
    }
}

//! Data URIs: where a row's bytes are.
//!
//! The path of a `file:` URI is taken character for character; nothing in it is percent-decoded.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::text::nearest;
use super::{DataUri, Role};

impl FromStr for DataUri {
    type Err = String;

    /// Reads `file:///path`, `mem:NAME`, `pattern:SEED` or `null:`.
    ///
    /// # Errors
    /// What was expected instead.
    fn from_str(text: &str) -> Result<DataUri, String> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(match nearest(text, &SCHEMES) {
                _ if text.starts_with('/') => format!("a data URI, such as file://{}", clip(text)),
                Some(scheme) => format!("{FORMS} (did you mean {scheme}:?)"),
                None => FORMS.into(),
            });
        };
        match scheme {
            "file" => file(rest),
            "mem" => mem(rest),
            "pattern" => {
                let digits = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
                let seed = digits.then(|| rest.parse().ok()).flatten();
                seed.map(DataUri::Pattern).ok_or_else(|| "pattern: and a seed, a number below 2^64".into())
            }
            "null" if rest.is_empty() => Ok(DataUri::Null),
            "null" => Err("null: and nothing after it".into()),
            _ => Err(match nearest(scheme, &SCHEMES) {
                Some(scheme) => format!("{FORMS} (did you mean {scheme}:?)"),
                None => FORMS.into(),
            }),
        }
    }
}

impl DataUri {
    /// What a row of this role would need instead, if this cannot serve it.
    pub(super) fn unfit_for(&self, role: Role) -> Option<&'static str> {
        match (self, role) {
            (DataUri::Pattern(_), Role::Receiver) => Some("a place to write to (pattern: can only be read from)"),
            (DataUri::Null, Role::Sender) => Some("data to read from (null: can only be written to)"),
            _ => None,
        }
    }

    /// Why this cannot be opened anywhere, if so; parsed URIs always can.
    pub(super) fn malformed(&self) -> Option<String> {
        match self {
            DataUri::File(path) => path_fault(path).map(Into::into),
            DataUri::Mem(name) => mem(name).err(),
            DataUri::Pattern(_) | DataUri::Null => None,
        }
    }
}

fn file(rest: &str) -> Result<DataUri, String> {
    let Some(path) = rest.strip_prefix("//").filter(|path| path.starts_with('/')) else {
        return Err("file:// and an absolute path, such as file:///data/x".into());
    };
    let path = PathBuf::from(path);
    match path_fault(&path) {
        None => Ok(DataUri::File(path)),
        Some(expected) => Err(expected.into()),
    }
}

fn path_fault(path: &Path) -> Option<&'static str> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if !path.is_absolute() {
        Some("an absolute path")
    } else if bytes.ends_with(b"/") {
        Some("the path of a file, without a / at its end")
    } else if bytes.len() > PATH_BYTES_MAX {
        Some("a path of at most 4095 bytes")
    } else {
        bytes.contains(&0).then_some("a path without NUL bytes")
    }
}

fn mem(name: &str) -> Result<DataUri, String> {
    if name.is_empty() || name.len() > MEM_BYTES_MAX || name.contains(['/', '\0']) || matches!(name, "." | "..") {
        return Err("mem: and a name of 1 to 254 bytes without '/'".into());
    }
    Ok(DataUri::Mem(name.into()))
}

/// The start of a text that may be long.
fn clip(text: &str) -> String {
    if text.chars().count() <= 40 { text.into() } else { text.chars().take(40).chain(['…']).collect() }
}

const SCHEMES: [&str; 4] = ["file", "mem", "pattern", "null"];
const FORMS: &str = "a data URI: file:///path, mem:NAME, pattern:SEED or null:";

/// Linux's `PATH_MAX` without the final NUL.
const PATH_BYTES_MAX: usize = 4095;

/// `NAME_MAX` without the slash that `shm_open` puts in front.
const MEM_BYTES_MAX: usize = 254;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_parses_and_prints() {
        let cases = [
            ("file:///data/half 1", DataUri::File("/data/half 1".into())),
            ("file:///a:b%20c", DataUri::File("/a:b%20c".into())),
            ("mem:region", DataUri::Mem("region".into())),
            ("pattern:18446744073709551615", DataUri::Pattern(u64::MAX)),
            ("null:", DataUri::Null),
        ];
        for (text, uri) in cases {
            assert_eq!(text.parse(), Ok(uri.clone()), "{text}");
            assert_eq!(uri.to_string(), text);
        }
    }

    #[test]
    fn refusals_say_what_would_do() {
        let cases = [
            ("", "a data URI: "),
            ("/data/x", "such as file:///data/x"),
            ("data", "a data URI: "),
            ("flie:///x", "did you mean file:?"),
            ("null", "did you mean null:?"),
            ("http://x/y", "a data URI: "),
            ("file://host/x", "an absolute path"),
            ("file:x", "an absolute path"),
            ("file:///", "without a / at its end"),
            ("file:///data/", "without a / at its end"),
            ("file:///a\0b", "without NUL"),
            ("mem:", "mem: and a name"),
            ("mem:a/b", "mem: and a name"),
            ("mem:..", "mem: and a name"),
            ("pattern:", "a seed"),
            ("pattern:x", "a seed"),
            ("pattern:18446744073709551616", "a seed"),
            ("null:x", "nothing after it"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<DataUri>().unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
        assert!(format!("file:///{}", "x".repeat(5000)).parse::<DataUri>().is_err());
    }
}

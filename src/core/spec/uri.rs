//! Data URIs: locations of rows' bytes.
//!
//! A path and the name of a memory object may contain any bytes. In a URI, `%` and two hex digits
//! stand for one byte (RFC 3986, section 2.1), and a `%` itself is `%25`; every other character
//! stands for itself.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::escapes::decoded;
use super::text::nearest;
use super::{DataUri, RowRole};

impl FromStr for DataUri {
    type Err = String;

    /// Parses `file:///path`, `mem:NAME`, `pattern:SEED` or `null:`.
    ///
    /// # Errors
    /// The expected form, as text.
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
            "mem" => mem(&decoded(rest)?).map(DataUri::Mem),
            "pattern" => {
                let digits = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
                let seed = digits.then(|| rest.parse().ok()).flatten();
                seed.map(DataUri::Pattern)
                    .ok_or_else(|| "pattern: and a seed, a number below 2^64".into())
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
    /// Returns the kind of data that a row of this role needs instead, if this URI cannot serve it.
    pub(super) fn unfit_for(&self, role: RowRole) -> Option<&'static str> {
        match (self, role) {
            (DataUri::Pattern(_), RowRole::Receiver) => {
                Some("a place to write to (pattern: can only be read from)")
            }
            (DataUri::Null, RowRole::Sender) => {
                Some("data to read from (null: can only be written to)")
            }
            _ => None,
        }
    }

    /// Returns the fault of a URI that can never be opened; a parsed URI has none.
    pub(super) fn malformed(&self) -> Option<String> {
        match self {
            DataUri::File(path) => path_fault(path).map(Into::into),
            DataUri::Mem(name) => mem(name.as_bytes()).err(),
            DataUri::Pattern(_) | DataUri::Null => None,
        }
    }
}

fn file(rest: &str) -> Result<DataUri, String> {
    let Some(path) = rest.strip_prefix("//").filter(|path| path.starts_with('/')) else {
        return Err("file:// and an absolute path, such as file:///data/x".into());
    };
    let path = PathBuf::from(OsString::from_vec(decoded(path)?));
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

fn mem(name: &[u8]) -> Result<OsString, String> {
    let holds = |byte: u8| name.contains(&byte);
    if name.is_empty()
        || name.len() > MEM_BYTES_MAX
        || holds(b'/')
        || holds(0)
        || matches!(name, b"." | b"..")
    {
        return Err("mem: and a name of 1 to 254 bytes without '/'".into());
    }
    Ok(OsStr::from_bytes(name).to_os_string())
}

/// Returns the start of a text that may be long.
fn clip(text: &str) -> String {
    if text.chars().count() <= 40 {
        text.into()
    } else {
        text.chars().take(40).chain(['…']).collect()
    }
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
    use proptest::prelude::*;

    use super::*;
    use crate::core::spec::validate;
    use crate::core::units::printable;

    fn path(bytes: &[u8]) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(bytes))
    }

    #[test]
    fn other_spellings_name_the_same_bytes() {
        for (text, bytes) in
            [("file:///a%20b", "/a b"), ("file:///%61", "/a"), ("file:///%c3%bc", "/\u{fc}")]
        {
            assert_eq!(text.parse(), Ok(DataUri::File(bytes.into())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_name_has_a_spelling_that_is_safe_to_print(
            name in prop::collection::vec(1..=u8::MAX, 1..300),
        ) {
            let mut name = name;
            if let Some(last) = name.last_mut().filter(|last| **last == b'/') {
                *last = b'x';
            }
            let uri = DataUri::File(path(&[b"/", name.as_slice()].concat()));
            let text = uri.to_string();
            prop_assert_eq!(printable(&text), text.as_str());
            prop_assert_eq!(text.parse(), Ok(uri));
            prop_assert!(text.len() <= validate::URI_BYTES_MAX);
        }
    }

    #[test]
    fn each_scheme_parses_and_prints() {
        let cases = [
            ("file:///data/half 1", DataUri::File("/data/half 1".into())),
            ("file:///a:b%25c", DataUri::File("/a:b%c".into())),
            ("file:///g\u{fc}%FC%0AA", DataUri::File(path(b"/g\xc3\xbc\xfc\nA"))),
            ("mem:region", DataUri::Mem("region".into())),
            ("mem:%FF%25", DataUri::Mem(path(b"\xff%").into())),
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
            ("file:///a%00b", "without NUL"),
            ("file:///100%", "two hex digits after each %"),
            ("file:///a%2", "two hex digits after each %"),
            ("file:///a%+1b", "two hex digits after each %"),
            ("file:///a%zz", "two hex digits after each %"),
            ("mem:a%2Fb", "mem: and a name"),
            ("file:///data%2F", "without a / at its end"),
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

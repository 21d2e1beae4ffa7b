//! Names of a node's roots: the first component of the paths below them.

use std::fmt;
use std::str::FromStr;

/// Name of a root directory of a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum RootName {
    /// `/`: the root of all paths that no other root has.
    Whole,
    /// `NAME`: the root of `/NAME/…`.
    Named(String),
}

impl RootName {
    /// First component of the paths below the root; `None` where it has all of them.
    pub(crate) fn component(&self) -> Option<&str> {
        match self {
            RootName::Whole => None,
            RootName::Named(name) => Some(name),
        }
    }
}

impl FromStr for RootName {
    type Err = &'static str;

    /// Parses `/` or a name.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<RootName, &'static str> {
        if text == "/" {
            return Ok(RootName::Whole);
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let is_name = (1..=NAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(is_plain)
            && !text.starts_with('.');
        if is_name { Ok(RootName::Named(text.into())) } else { Err(EXPECTED) }
    }
}

impl fmt::Display for RootName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.component().unwrap_or("/"))
    }
}

/// Names are typed by people, and stand in messages.
const NAME_BYTES_MAX: usize = 64;

const EXPECTED: &str =
    "a name of 1 to 64 letters, digits, `_`, `-` and `.`, which does not start with a dot";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_components_of_paths() {
        for name in ["a", "scratch-1", "data.old", "X_9", &"n".repeat(64)] {
            let parsed: RootName = name.parse().expect(name);
            assert_eq!((parsed.component(), parsed.to_string().as_str()), (Some(name), name));
        }
        assert_eq!("/".parse(), Ok(RootName::Whole));
        assert_eq!(RootName::Whole.to_string(), "/");
        for name in ["", ".", "..", ".x", "a/b", "/a", "a b", "ä", "a:ro", "a=b", &"n".repeat(65)]
        {
            assert!(name.parse::<RootName>().is_err(), "{name}");
        }
    }
}

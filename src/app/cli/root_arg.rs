//! Values of `--root` of a node: `DIR`, or `NAME=DIR`, each with `:ro` or `:wo` behind it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::core::error::{Code, Error, Result};
use crate::core::spec::RootName;
use crate::io::store::{DeclaredRoot, RootPlace, RootRights};

/// Parses the values of `--root`; `is_directory` looks at a path. A value that is a directory by
/// its whole text is that directory, whatever its name looks like.
///
/// # Errors
/// `Usage`, with the value: for a bad name, no directory, and an unknown suffix.
pub(super) fn declared_roots(
    values: &[OsString],
    is_directory: impl Fn(&Path) -> bool,
) -> Result<Vec<DeclaredRoot>> {
    values.iter().map(|value| declared(value, &is_directory)).collect()
}

fn declared(value: &OsStr, is_directory: &impl Fn(&Path) -> bool) -> Result<DeclaredRoot> {
    let shown = value.display();
    let mistake = |why: String, remedy: &str| {
        Error::new(Code::Usage, format!("--root {shown}: {why}")).remedy(remedy)
    };
    let root = |name: RootName, directory: &[u8], rights: RootRights| {
        let directory = PathBuf::from(OsStr::from_bytes(directory));
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        DeclaredRoot { place: RootPlace { name, directory, confined_to: None }, rights }
    };
    let exists = |bytes: &[u8]| is_directory(Path::new(OsStr::from_bytes(bytes)));
    let whole = value.as_bytes();
    if exists(whole) {
        return Ok(root(RootName::Whole, whole, RootRights::ALL));
    }
    let (name, rest) = match split_at(whole, b'=') {
        // A path that has a slash before its `=` is a directory's.
        Some((name, _)) if name.contains(&b'/') && whole.first() == Some(&b'/') => {
            (RootName::Whole, whole)
        }
        Some((name, rest)) => {
            let name = String::from_utf8_lossy(name).parse();
            let name = name.map_err(|expected| {
                mistake(format!("before the `=` stands {expected}"), "--root NAME=DIR, or ./DIR")
            })?;
            if name == RootName::Whole {
                return Err(mistake(
                    "`/` is no name".into(),
                    "--root DIR for the root of all paths",
                ));
            }
            (name, rest)
        }
        None => (RootName::Whole, whole),
    };
    let (directory, rights) = match rest.iter().rposition(|&byte| byte == b':') {
        // A name of a directory that happens to have a colon.
        _ if name == RootName::Whole && exists(rest) => (rest, RootRights::ALL),
        Some(at) if !rest[at..].contains(&b'/') => match &rest[at + 1..] {
            b"ro" => (&rest[..at], RootRights::READ_ONLY),
            b"wo" => (&rest[..at], RootRights::WRITE_ONLY),
            _ if exists(rest) => (rest, RootRights::ALL),
            suffix if exists(&rest[..at]) => {
                let suffix = String::from_utf8_lossy(suffix);
                return Err(mistake(
                    format!("`:{suffix}` is no right"),
                    "use :ro, :wo, or neither",
                ));
            }
            _ => (rest, RootRights::ALL),
        },
        _ => (rest, RootRights::ALL),
    };
    if !exists(directory) {
        let directory = OsStr::from_bytes(directory).display();
        return Err(mistake(format!("{directory} is no directory"), "name an existing directory"));
    }
    Ok(root(name, directory, rights))
}

fn split_at(bytes: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == mark)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORIES: [&str; 7] = ["/d", "/d:ro", "/e", "/a=b", "/with:colon", "/d:ro/", "x=y"];

    fn parsed(value: &str) -> Result<(String, String, RootRights)> {
        let is_directory = |path: &Path| DIRECTORIES.iter().any(|it| path.as_os_str() == *it);
        let root = declared(value.as_ref(), &is_directory)?;
        let directory = root.place.directory.display().to_string();
        Ok((root.place.name.to_string(), directory, root.rights))
    }

    #[test]
    fn a_directory_that_is_there_by_the_whole_text_is_that_directory() {
        let all = RootRights::ALL;
        for path in ["/d", "/d:ro", "/a=b", "/with:colon"] {
            assert_eq!(parsed(path), Ok(("/".into(), path.into(), all)));
        }
        let (name, directory, rights) = parsed("x=y").expect("it is there");
        assert!(name == "/" && directory.ends_with("/x=y") && rights == all, "{directory}");
    }

    #[test]
    fn names_and_rights() {
        let cases = [
            ("/e:ro", "/", "/e", RootRights::READ_ONLY),
            ("/e:wo", "/", "/e", RootRights::WRITE_ONLY),
            ("in=/e", "in", "/e", RootRights::ALL),
            ("in=/e:wo", "in", "/e", RootRights::WRITE_ONLY),
            ("a=/a=b", "a", "/a=b", RootRights::ALL),
            ("a=/with:colon", "a", "/with:colon", RootRights::ALL),
            ("a=/with:colon:ro", "a", "/with:colon", RootRights::READ_ONLY),
            // Behind a name the suffix is always a right; a slash makes it part of the name.
            ("a=/d:ro", "a", "/d", RootRights::READ_ONLY),
            ("a=/d:ro/", "a", "/d:ro/", RootRights::ALL),
        ];
        for (value, name, directory, rights) in cases {
            let (found, path, its_rights) = parsed(value).expect(value);
            assert_eq!((found.as_str(), its_rights), (name, rights), "{value}");
            assert_eq!(Path::new(&path), Path::new(directory), "{value}");
        }
    }

    #[test]
    fn mistakes_name_the_option_and_the_value() {
        let cases = [
            ("", "is no directory"),
            ("/gone", "/gone is no directory"),
            ("a=/gone", "/gone is no directory"),
            ("=/e", "a name"),
            (".=/e", "a name"),
            ("..=/e", "a name"),
            ("a/b=/e", "a name"),
            ("a b=/e", "a name"),
            ("a=", "is no directory"),
            ("a=/e:rw", "`:rw` is no right"),
            ("/e:x", "`:x` is no right"),
            ("/e:", "`:` is no right"),
        ];
        for (value, why) in cases {
            let error = parsed(value).expect_err(value);
            assert_eq!(error.code, Code::Usage, "{value}");
            let begins = format!("--root {value}: ");
            assert!(error.message.starts_with(&begins) && error.message.contains(why), "{error}");
        }
    }
}

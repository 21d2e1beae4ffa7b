//! Source files as the rules read them: without comments, and without what strings say.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders with sources that a release is made of, and their benchmarks.
pub(crate) const PATHS: [&str; 8] =
    ["src", "ring", "affinity", "crc", "random", "svg", "netlab", "bench"];

/// One file: its path below the workspace and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text without comments and without unit tests.
    pub(crate) code: String,
    /// The text with spaces for comments and for what strings say. Lines stay as long as they are.
    pub(crate) masked: String,
}

impl Source {
    fn read(path: String) -> Source {
        let text = fs::read_to_string(home().join(&path)).unwrap();
        Source { code: code(&text), masked: masked(&text), path, text }
    }

    /// The lines of `masked` before the unit tests.
    pub(crate) fn without_tests(&self) -> String {
        let lines = self.code.lines().count();
        self.masked.lines().take(lines).flat_map(|line| [line, "\n"]).collect()
    }

    /// The crate that the file belongs to: `src`, `ring/src` and so on.
    pub(crate) fn crate_folder(&self) -> Option<&str> {
        let end = if self.path.starts_with("src/") { 0 } else { self.path.find("/src/")? + 1 };
        Some(&self.path[..end + "src".len()])
    }

    /// Comments with the number of their line: text from the slashes on.
    pub(crate) fn comments(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().zip(self.masked.lines()).enumerate();
        lines.filter_map(|(at, (line, masked))| {
            let kept = masked.trim_end().len();
            let rest = line.get(kept..)?.trim_start();
            rest.starts_with("//").then_some((at + 1, rest))
        })
    }
}

/// Every source file below a folder, without the files that hold nothing but tests.
pub(crate) fn sources(folder: &str) -> impl Iterator<Item = Source> {
    sources_and_tests(folder).filter(|source| {
        let name = source.path.as_str();
        let is_test =
            name.ends_with("/tests.rs") || name.ends_with("_tests.rs") || name.contains("/tests/");
        !is_test || super::UNSAFE.contains(&name)
    })
}

/// Every source file below a folder.
pub(crate) fn sources_and_tests(folder: &str) -> impl Iterator<Item = Source> {
    let mut found = Vec::new();
    gather(&home().join(folder), &mut found);
    assert!(!found.is_empty(), "no sources below {folder}");
    let names = found.into_iter().map(|path| {
        let name = path.strip_prefix(home()).unwrap();
        name.to_str().unwrap().to_owned()
    });
    names.map(Source::read)
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            gather(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

pub(crate) fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A text without its comments, up to its unit tests. Line numbers stay what they are.
pub(crate) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let opens_tests = |line: &&str| line.starts_with("mod tests {");
        if *line == "#[cfg(test)]"
            && lines[at + 1..].iter().find(|line| !line.starts_with("#[")).is_some_and(opens_tests)
        {
            break;
        }
        let comment = if line.trim_start().starts_with("//") { Some(0) } else { line.find(" // ") };
        code.push_str(&line[..comment.unwrap_or(line.len())]);
        code.push('\n');
    }
    code
}

/// A text with spaces for its comments and for the insides of its strings and characters.
pub(crate) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let is_after_word = masked.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let skipped = hidden(rest, is_after_word);
        if skipped == 0 {
            masked.push(letter);
            rest = &rest[letter.len_utf8()..];
        } else {
            let blank = |letter| if letter == '\n' { '\n' } else { ' ' };
            masked.extend(rest[..skipped].chars().map(blank));
            rest = &rest[skipped..];
        }
    }
    masked
}

/// Bytes of the comment, string or character that `text` begins with; zero where it does not.
fn hidden(text: &str, is_after_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    let prefix = if is_after_word { 0 } else { text.find(|at| !"bcr".contains(at)).unwrap_or(0) };
    let is_raw = text[..prefix].contains('r');
    let hashes = text[prefix..].len() - text[prefix..].trim_start_matches('#').len();
    let hashes = if is_raw { hashes } else { 0 };
    let body = &text[prefix + hashes..];
    if let Some(string) = body.strip_prefix('"') {
        let end = if is_raw {
            let close = format!("\"{}", "#".repeat(hashes));
            string.find(&close).map(|at| at + close.len())
        } else {
            unescaped(string, '"')
        };
        return prefix + hashes + 1 + end.unwrap_or(string.len());
    }
    if let Some(rest) = body.strip_prefix('\'').filter(|_| !is_raw) {
        let mut letters = rest.chars();
        let first = letters.next().unwrap_or(' ');
        // A lifetime has no second quote.
        if first == '\\' || letters.next() == Some('\'') {
            return prefix + 1 + unescaped(rest, '\'').unwrap_or(rest.len());
        }
    }
    0
}

/// Bytes up to and with the first `quote` that no backslash stands before.
fn unescaped(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if letter == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The number of the line that a place of a text is in, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
}

pub(crate) fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn strings_and_comments_are_masked() {
    let text = "a(\"x\\\" {\", b'{', '\\'', r#\"}\"}\"#); // {\nlet b: &'static str = \"\n{\";";
    let spaces = |count: usize| " ".repeat(count);
    let first = ["a(", &spaces(7), ", ", &spaces(4), ", ", &spaces(4), ", ", &spaces(8), ");"];
    let masked = masked(text);
    let mut lines = masked.lines();
    assert_eq!(lines.next().unwrap().trim_end(), first.concat());
    assert_eq!(lines.next().unwrap().trim_end(), "let b: &'static str =");
    assert_eq!(lines.next().unwrap(), "  ;");
}

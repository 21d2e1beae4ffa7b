//! Words of a specification's line, each with its column.
//!
//! Words are separated by white space. A part in double quotes is literal, except that `\"`, `\\`,
//! `\n`, `\r` and `\t` stand for one character each. `#` outside quotes starts a comment.

use std::fmt::Write as _;

/// One word of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    /// Column of the first character, counted from 1.
    pub column: usize,
    /// Text without its quotes.
    pub text: String,
}

/// Words of one line, and the end of the line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SpecLine {
    /// The words in order.
    pub words: Vec<Word>,
    /// The column after the last word, where a missing word is reported.
    pub end_column: usize,
}

/// A line that cannot be cut into words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LineFault {
    /// Column of the fault, counted from 1.
    pub column: usize,
    /// Text found there.
    pub found: String,
    /// Expected form.
    pub expected: &'static str,
}

/// Cuts a line into words.
pub(super) fn cut(line: &str) -> Result<SpecLine, LineFault> {
    let mut chars = line.chars().zip(1..);
    let mut words: Vec<Word> = Vec::new();
    let mut open: Option<Word> = None;
    let mut end_column = 1;
    while let Some((c, column)) = chars.next() {
        if c == '#' {
            break;
        }
        if c.is_whitespace() {
            words.extend(open.take());
            continue;
        }
        let word = open.get_or_insert_with(|| Word { column, text: String::new() });
        end_column = column + 1;
        if c == '"' {
            end_column = 1 + quoted(&mut chars, column, &mut word.text)?;
        } else {
            word.text.push(c);
        }
    }
    words.extend(open);
    Ok(SpecLine { words, end_column })
}

/// Reads a quoted part into `text`. Returns the column of the closing quote.
fn quoted(
    chars: &mut impl Iterator<Item = (char, usize)>,
    opened: usize,
    text: &mut String,
) -> Result<usize, LineFault> {
    let unclosed = LineFault {
        column: opened,
        found: "\"".into(),
        expected: "a closing quote on the same line",
    };
    while let Some((c, column)) = chars.next() {
        match c {
            '"' => return Ok(column),
            '\\' => {
                let Some((escaped, _)) = chars.next() else { return Err(unclosed) };
                let found = || format!("\\{escaped}");
                text.push(unescape(escaped).ok_or_else(|| LineFault {
                    column,
                    found: found(),
                    expected: ESCAPES,
                })?);
            }
            _ => text.push(c),
        }
    }
    Err(unclosed)
}

fn unescape(c: char) -> Option<char> {
    match c {
        '"' | '\\' => Some(c),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        _ => None,
    }
}

/// Returns the word in quotes, so that [`cut`] returns the same text.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '"' | '\\' => write!(quoted, "\\{c}").expect("writing to a string succeeds"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Returns the word, in quotes if necessary.
pub(super) fn quote_if_needed(text: &str) -> String {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '"' | '#'));
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { quote(text) }
}

/// Returns the nearest of `known` to an unknown word, if it is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer words are hardly typing errors, and the distance costs the product of the lengths.
    if word.len() > 32 {
        return None;
    }
    let distances =
        known.iter().map(|&candidate| (distance(&word.to_lowercase(), candidate), candidate));
    distances
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(d, found)| 2 * d <= found.len())
        .map(|(_, found)| found)
}

/// Returns the number of letters to insert, delete or change to turn one word into the other
/// (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, c) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in b.iter().enumerate() {
            let changed = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

const ESCAPES: &str = "one of \\\" \\\\ \\n \\r \\t";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_know_their_columns() {
        type Words<'a> = &'a [(usize, &'a str)];
        let cases: [(&str, Words, usize); 8] = [
            ("", &[], 1),
            ("   # nothing", &[], 1),
            ("id x", &[(1, "id"), (4, "x")], 5),
            ("\tid \"My File\"  # c", &[(2, "id"), (5, "My File")], 14),
            ("é \"\" z#c", &[(1, "é"), (3, ""), (6, "z")], 7),
            ("nics=\"a b\",c", &[(1, "nics=a b,c")], 13),
            (r#""a\"b\\c\td""#, &[(1, "a\"b\\c\td")], 13),
            ("\"#\" #", &[(1, "#")], 4),
        ];
        for (text, words, end_column) in cases {
            let words =
                words.iter().map(|&(column, text)| Word { column, text: text.into() }).collect();
            assert_eq!(cut(text), Ok(SpecLine { words, end_column }), "{text}");
        }
    }

    #[test]
    fn faults_point_at_the_quote_or_the_escape() {
        for (text, column, found) in
            [("id \"x", 4, "\""), (r#"id "x\"#, 4, "\""), (r#"id "x\q""#, 6, "\\q")]
        {
            let fault = cut(text).unwrap_err();
            assert_eq!((fault.column, fault.found.as_str()), (column, found), "{text}");
        }
    }

    #[test]
    fn nearest_knows_slips_from_other_words() {
        let known = ["writer", "reader", "master"];
        for (word, expected) in [
            ("writter", Some("writer")),
            ("Reader", Some("reader")),
            ("mastre", Some("master")),
            ("zebra", None),
        ] {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), &known), None);
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(text in "[^\n]*|[\"\\\\# \n\r\ta-c]*") {
            for printed in [quote(&text), quote_if_needed(&text)] {
                let line = cut(&printed).unwrap();
                prop_assert_eq!(line.words.len(), 1);
                prop_assert_eq!(&line.words[0].text, &text);
            }
        }
    }
}

//! Foreign text, made safe for a terminal.
//!
//! Names of files, ids, node names and messages of peers may contain anything. Printed unchanged,
//! control characters move the cursor, retitle the window or forge a line of output, and
//! bidirectional controls reorder text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes every character that a terminal acts on or that is invisible: `\n`, `\x1b`, `\u{202e}`.
///
/// All other characters are unchanged, so text without such characters is borrowed. Line breaks are
/// escaped, too: the result is one line.
///
/// ```
/// use cep_fast::units::printable;
/// assert_eq!(printable("données.txt"), "données.txt");
/// assert_eq!(printable("a\x1b]0;title\x07\nb"), "a\\x1b]0;title\\x07\\nb");
/// ```
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        push(&mut safe, letter);
    }
    Cow::Owned(safe)
}

/// Like [`printable`], for text of several lines: line breaks are unchanged.
#[must_use]
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|letter| letter != '\n' && acts(letter)) {
        return Cow::Borrowed(text);
    }
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(printable).collect();
    Cow::Owned(lines.join("\n"))
}

/// Escapes the characters of JSON that a terminal acts on. The meaning stays the same: such
/// characters only occur in strings, where `\\u009b` is another spelling.
#[must_use]
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(acts) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        if acts(letter) && !letter.is_ascii_whitespace() {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(safe, "\\u{unit:04x}").expect("writing to a string succeeds");
            }
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

fn push(safe: &mut String, letter: char) {
    if !acts(letter) {
        return safe.push(letter);
    }
    let written = match letter {
        '\n' => write!(safe, "\\n"),
        '\r' => write!(safe, "\\r"),
        '\t' => write!(safe, "\\t"),
        '\0'..='\x7f' => write!(safe, "\\x{:02x}", u32::from(letter)),
        _ => write!(safe, "\\u{{{:x}}}", u32::from(letter)),
    };
    written.expect("writing to a string succeeds");
}

/// Returns true for a character that a terminal does not simply show: controls (C0, DEL, C1),
/// separators of lines and paragraphs, bidirectional controls (Unicode Annex 9), characters without
/// a width, and tags.
///
/// The zero-width joiners stay: scripts and emoji are spelled with them.
pub(crate) fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{061c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_spelled_out() {
        let cases = [
            ("plain", "plain"),
            ("Grüße 文件 👩‍👩‍👧", "Grüße 文件 👩‍👩‍👧"),
            ("a\x1b[2Jb", "a\\x1b[2Jb"),
            ("a\u{9b}2Jb", "a\\u{9b}2Jb"),
            ("evil\r\nok", "evil\\r\\nok"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("a\u{2028}b\u{2066}c\u{feff}", "a\\u{2028}b\\u{2066}c\\u{feff}"),
            ("\x7f\0\t", "\\x7f\\x00\\t"),
        ];
        for (text, expected) in cases {
            assert_eq!(printable(text), expected, "{text:?}");
        }
        assert_eq!(printable_lines("a\x07\nb\r\nc"), "a\\x07\nb\\r\nc");
    }

    #[test]
    fn json_means_the_same_and_holds_nothing_that_acts() {
        let value = serde_json::json!({"a\u{9b}": "\u{202e}\u{e0041}\x7f\n\x1b[2J \"ü\" \\"});
        let safe = printable_json(&value.to_string()).into_owned();
        assert!(!safe.chars().any(acts), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).ok(), Some(value));
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            prop_assert!(!printable(&text).chars().any(acts));
            prop_assert!(
                !printable_lines(&text).chars().any(|letter| letter != '\n' && acts(letter))
            );
        }
    }
}

//! Log lines: one event as text for people, or as a JSON object. Control characters, which may come
//! from peers, are written as escapes.

use std::fmt::{self, Debug, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Returns the present time of day as log lines have it: RFC 3339, UTC, with microseconds.
pub(crate) fn time_now() -> String {
    let mut time = String::new();
    // Writing to a string succeeds.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

/// Formatter of log lines.
pub(super) struct LogFormat {
    pub(super) json: bool,
}

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = LogFields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        writer.write_str(&if self.json {
            fields.json(&time, *level)
        } else {
            fields.text(&time, *level)
        })
    }
}

/// Fields of an event: its message, and values with names.
#[derive(Default)]
struct LogFields {
    message: String,
    values: Vec<(&'static str, Value)>,
}

impl LogFields {
    fn text(self, time: &str, level: Level) -> String {
        let mut line = format!("{time} {level:>5} {}", escaped(&self.message));
        for (name, value) in &self.values {
            let value = value.as_str().map_or_else(|| value.to_string(), String::from);
            let is_plain = !value.is_empty() && !value.contains([' ', '"', '=']);
            let value = escaped(&value);
            let _ = if is_plain {
                write!(line, " {name}={value}")
            } else {
                write!(line, " {name}={value:?}")
            };
        }
        ended(line)
    }

    fn json(self, time: &str, level: Level) -> String {
        let mut object = Map::new();
        object.insert("time".into(), time.into());
        object.insert("level".into(), level.as_str().to_lowercase().into());
        object.insert("message".into(), cut(self.message).into());
        for (name, value) in self.values {
            let value = if let Value::String(text) = value { cut(text).into() } else { value };
            object.insert(name.into(), value);
        }
        let mut line = String::new();
        // JSON allows some characters that terminals act upon.
        for letter in Value::Object(object).to_string().chars() {
            let _ = if moves(letter) {
                write!(line, "\\u{:04x}", u32::from(letter))
            } else {
                line.write_char(letter)
            };
        }
        line + "\n"
    }

    fn add(&mut self, field: &Field, value: Value) {
        self.values.push((field.name(), value));
    }
}

impl Visit for LogFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" { self.message = text } else { self.add(field, text.into()) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.into();
        } else {
            self.add(field, value.into());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

/// Returns true for a character that a terminal, or a reader of lines, acts upon.
fn moves(letter: char) -> bool {
    // Line and paragraph separators, and characters that change the direction of writing.
    letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the text with such characters as escapes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if moves(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Returns the line with its end, cut to the size that a journal accepts.
fn ended(line: String) -> String {
    cut(line) + "\n"
}

fn cut(mut text: String) -> String {
    if text.len() > LINE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        text.push('…');
    }
    text
}

/// Size of a line: journals cut longer lines themselves, at any position.
const LINE_BYTES_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    fn fields() -> LogFields {
        let message = "begins \u{1b}]0;title\u{7}\nready 1.2.3.4:5".into();
        let values = vec![
            ("id", Value::from("my \"file\"")),
            ("path", Value::from("/a\u{9b}31m\u{202e}b")),
            ("bytes", Value::from(12)),
            ("none", Value::from("")),
        ];
        LogFields { message, values }
    }

    #[test]
    fn a_line_stays_one_line_and_moves_no_cursor() {
        let text = fields().text("now", Level::INFO);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.trim_end().contains(moves), "{text:?}");
        assert!(text.starts_with("now  INFO begins \\u{1b}]0;title\\u{7}\\nready"), "{text}");
        assert!(
            text.ends_with("bytes=12 none=\"\"\n") && text.contains(r#"id="my \"file\"""#),
            "{text}"
        );
    }

    #[test]
    fn a_json_line_says_the_same_to_whoever_reads_it() {
        let line = fields().json("now", Level::WARN);
        assert!(!line.trim_end().contains(moves), "{line:?}");
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&object["level"], &object["time"], &object["bytes"]),
            (&"warn".into(), &"now".into(), &12.into())
        );
        assert_eq!(object["path"], "/a\u{9b}31m\u{202e}b");
        assert_eq!(object["message"], "begins \u{1b}]0;title\u{7}\nready 1.2.3.4:5");
    }

    #[test]
    fn a_line_has_an_end_however_much_is_to_be_said() {
        let long = || LogFields { message: "ä".repeat(1 << 20), values: Vec::new() };
        assert!(long().text("now", Level::INFO).len() < LINE_BYTES_MAX + 10);
        let line = long().json("now", Level::INFO);
        assert!(line.len() < 2 * LINE_BYTES_MAX && serde_json::from_str::<Value>(&line).is_ok());
    }
}

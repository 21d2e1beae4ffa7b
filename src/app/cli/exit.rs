//! End of the program: a message on standard error and an exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::core::error::{Code, Error};
use crate::core::units::printable;

/// Returns the exit status of a code.
#[must_use]
pub fn exit_code(code: Code) -> ExitCode {
    ExitCode::from(code.number())
}

/// Prints an error on standard error, and returns its exit status.
#[must_use]
pub fn fail(error: &Error) -> ExitCode {
    // Log lines come before the final message.
    crate::io::log::flush();
    // If standard error is closed, the exit status still shows the error.
    let _ = write_error(&mut io::stderr().lock(), error);
    exit_code(error.code)
}

fn write_error(out: &mut impl Write, error: &Error) -> io::Result<()> {
    writeln!(out, "cep-fast: {}", printable(&error.message))?;
    if let Some(remedy) = &error.remedy {
        writeln!(out, "  try: {}", printable(remedy))?;
    }
    if error.missing.is_empty() {
        return Ok(());
    }
    write!(out, "  missing:")?;
    for span in error.missing.iter().take(RANGES_SHOWN_MAX) {
        write!(out, " {span}")?;
    }
    match error.missing.len().saturating_sub(RANGES_SHOWN_MAX) {
        0 => writeln!(out),
        more => writeln!(out, " and {more} more ranges"),
    }
}

const RANGES_SHOWN_MAX: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::core::units::Span;

    fn written(error: &Error) -> String {
        let mut out = Vec::new();
        write_error(&mut out, error).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn message_remedy_and_ranges_have_a_line_each() {
        let error = Error::new(Code::Data, "node1: /x is missing");
        assert_eq!(written(&error), "cep-fast: node1: /x is missing\n");
        let error = error.remedy("check --root").missing(vec![Span::new(0, 10), Span::new(20, 30)]);
        assert_eq!(
            written(&error),
            "cep-fast: node1: /x is missing\n  try: check --root\n  missing: 0-9 20-29\n"
        );
        let error = error.missing((0..20).map(|i| Span::of(2 * i, 1)).collect());
        assert!(written(&error).ends_with("30-30 and 4 more ranges\n"));
    }

    #[test]
    fn control_characters_of_names_do_not_reach_the_terminal() {
        let error = Error::new(Code::Data, "/x\u{1b}]0;owned\u{7} is missing\nall is well")
            .remedy("look at \u{202e}x");
        assert_eq!(
            written(&error),
            "cep-fast: /x\\x1b]0;owned\\x07 is missing\\nall is well\n  try: look at \\u{202e}x\n"
        );
    }

    #[test]
    fn the_status_is_the_number_of_the_code() {
        for code in Code::ALL {
            assert_eq!(exit_code(code), ExitCode::from(code.number()));
        }
    }
}

//! Specification files: read, parsed and validated.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::Spec;
use crate::core::error::{Code, Error, Result};

/// Reads a specification file. [`Spec::validate`] checks its rows against each other.
pub(super) fn read_spec(path: &Path) -> Result<Spec> {
    let name = path.display().to_string();
    let cannot = |error: std::io::Error| {
        Error::new(Code::Usage, format!("{name}: cannot be read: {error}"))
            .remedy("name a specification file")
    };
    let mut bytes = Vec::new();
    // One byte beyond the limit proves that a file is too long.
    let most = Spec::TEXT_BYTES_MAX as u64 + 1;
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(cannot)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::new(Code::Usage, format!("{name}:{line}: found a byte that is not UTF-8"))
            .remedy("write such a byte of a name as % and two hex digits, such as %FF")
    })?;
    Spec::parse(&name, &text)
}

/// Reads and validates a specification file.
pub(super) fn valid_spec(path: &Path) -> Result<Spec> {
    let spec = read_spec(path)?;
    spec.validate().map_err(|error| error.at(path.display()))?;
    Ok(spec)
}

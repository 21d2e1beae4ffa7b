//! Fuzz targets: for each one function of arbitrary bytes, which panics where a promise is broken.
//!
//! The programs in `fuzz/` find bytes that reach ever more of the code, and the tests below replay
//! what they found: the same functions over `fuzz/corpus`. Behind the feature `fuzzing`, which
//! nothing but `fuzz/` asks for.

mod byte_source;
mod handshake;
mod master;
mod participant_log;
mod plans;
mod rail;
mod receiver;
mod seal;
mod sender;
mod texts;

pub use handshake::handshake;
pub use master::master;
pub use receiver::receiver;
pub use seal::seal;
pub use sender::sender;
pub use texts::{allow, control, frame, hostlists as hostlist, journal, preamble, spec};

/// The function that a program of `fuzz/` calls.
pub type FuzzTarget = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: [(&str, FuzzTarget); 12] = [
    ("spec", spec),
    ("hostlist", hostlist),
    ("frame", frame),
    ("control", control),
    ("preamble", preamble),
    ("handshake", handshake),
    ("allow", allow),
    ("journal", journal),
    ("seal", seal),
    ("receiver", receiver),
    ("sender", sender),
    ("master", master),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// The files and folders of a folder below `fuzz/`.
    fn found(folder: &str) -> Vec<PathBuf> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    #[test]
    fn every_file_of_the_corpora_keeps_the_promises() {
        for (name, target) in TARGETS {
            let files = found(&format!("corpus/{name}"));
            assert!(!files.is_empty(), "{name} has no corpus");
            for file in files {
                let bytes = fs::read(&file).expect("a file of the corpus");
                let kept = std::panic::catch_unwind(|| target(&bytes));
                assert!(kept.is_ok(), "{} breaks a promise, see above", file.display());
            }
        }
    }

    #[test]
    fn every_target_has_a_program() {
        let programs = found("fuzz_targets");
        let programs: BTreeSet<_> =
            programs.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
        assert_eq!(programs, TARGETS.iter().map(|(name, _)| *name).collect());
    }
}

//! Transfers that are interrupted: what has its final name is whole, and what was received is not lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{cep_fast, code, end_of, folder, json, listing, random_bytes, stderr};

/// Waits for something, and not for ever.
fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::yield_now();
    }
}

/// A copy of `source` to `copy` below `root` that takes so many bits per second, begun.
fn slow_copy(root: &Path, limit: &str, more: &[&str]) -> Child {
    let mut command = cep_fast(&["copy", "--json", "--progress", "never", "--limit", limit]);
    command.args(more).arg(root.join("source")).arg(root.join("copy"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_source_overwritten_in_the_middle_leaves_no_file_under_the_final_name() {
    for path in ["auto", "direct", "copy"] {
        let root = folder();
        let data = random_bytes(31, 24 << 20);
        fs::write(root.path().join("source"), &data).unwrap();
        let child = slow_copy(root.path(), "160M", &["--path", path]);
        wait_for("the first piece lands", || {
            let partial = listing(root.path()).into_iter().find(|path| path.to_string_lossy().contains("/.copy.cep-"));
            let first = partial.and_then(|path| {
                let mut page = [0; 4096];
                fs::File::open(path).ok()?.read_exact_at(&mut page, 0).ok()?;
                Some(page[..] == data[..4096])
            });
            first == Some(true)
        });
        let source = fs::OpenOptions::new().write(true).open(root.path().join("source")).unwrap();
        source.write_all_at(&random_bytes(32, 24 << 20), 0).unwrap();
        let output = end_of(child);
        assert_eq!(code(&output), 5, "{path}: {}", stderr(&output));
        assert!(stderr(&output).contains("changed"), "{path}: {}", stderr(&output));
        assert!(!root.path().join("copy").exists(), "{path}: a mixed file has its final name");
        assert!(!json(&output)["error"]["missing_ranges"].as_array().unwrap().is_empty());
    }
}
